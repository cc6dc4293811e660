/** A real host in a temporary folder: the program itself, its daemon, its embedded relay. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ROOT = new URL('../../../', import.meta.url).pathname;

/** The program under test: `FARHELM_BIN`, or what cargo built last. */
function program(): string {
  const candidates = [
    process.env['FARHELM_BIN'],
    `${ROOT}target/release/farhelm`,
    `${ROOT}target/debug/farhelm`,
  ];
  const found = candidates.find((path) => path !== undefined && path !== '' && existsSync(path));
  if (found === undefined) throw new Error('no farhelm program: run `make build`');
  return found;
}

export class Host {
  readonly folder = mkdtempSync(join(tmpdir(), 'farhelm-e2e-'));
  readonly project = join(this.folder, 'project');
  private readonly env: Record<string, string>;
  private readonly children: ChildProcess[] = [];

  constructor() {
    mkdirSync(this.project);
    mkdirSync(join(this.folder, 'home'));
    this.env = {
      PATH: '/usr/local/bin:/usr/bin:/bin',
      HOME: join(this.folder, 'home'),
      FARHELM_HOME: join(this.folder, 'state'),
      FARHELM_SCRIPTED_STATE: join(this.folder, 'scripted'),
    };
  }

  /** Runs a command of the program; gives what it printed. */
  async ok(...args: string[]): Promise<string> {
    const { stdout } = await run(program(), args, { env: this.env });
    return stdout;
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.ok(...args, '--json')) as T;
  }

  /** Starts a session with the scripted agent; gives its id and a pairing link. */
  async up(scenario?: object, ...more: string[]): Promise<{ session: string; link: string }> {
    const agent = ['--agent-cmd', `${program()} scripted-agent`];
    if (scenario !== undefined) {
      const file = join(this.folder, 'scenario.json');
      writeFileSync(file, JSON.stringify(scenario));
      agent[1] += ` --scenario ${file}`;
    }
    return this.json('up', '--dir', this.project, '--headless', ...agent, ...more);
  }

  /** Lets in the device that shows this code. */
  async accept(code: string): Promise<void> {
    await this.ok('pair', '--accept', code);
  }

  /** The texts of a session's messages, as the host has them. */
  async said(session: string): Promise<string[]> {
    const lines = (await this.ok('log', session, '--json')).trim().split('\n');
    type Line = { event: { type: string; text?: string; content?: { text?: string }[] } };
    return lines.flatMap((line) => {
      const { event } = JSON.parse(line) as Line;
      return event.type === 'message_added'
        ? [(event.content ?? []).map(({ text }) => text ?? '').join('')]
        : [];
    });
  }

  /** How many events of that type a session has. */
  async count(session: string, type: string): Promise<number> {
    const log = await this.ok('log', session, '--json');
    return log.split('\n').filter((line) => line.includes(`"type":"${type}"`)).length;
  }

  /** The daemon ends without a chance to do anything. */
  async kill(): Promise<void> {
    const { pid } = await this.json<{ pid: number }>('status');
    process.kill(pid, 'SIGKILL');
  }

  path(name: string): string {
    return join(this.project, name);
  }

  async stop(): Promise<void> {
    for (const child of this.children) child.kill();
    await this.ok('down').catch(() => undefined);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Runs a command on a terminal of its own until it has printed `enough`; gives what it printed. */
  async onTerminal(enough: RegExp, ...args: string[]): Promise<string> {
    const line = [program(), ...args].join(' ');
    const child = spawn('script', ['-qfec', line, '/dev/null'], {
      env: this.env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.children.push(child);
    let printed = '';
    child.stdout.setEncoding('utf8');
    for await (const piece of child.stdout) {
      printed += piece;
      if (enough.test(printed)) break;
    }
    child.kill();
    return printed;
  }

  /** Starts a command that goes on; it ends with the host. */
  start(...args: string[]): ChildProcess {
    const child = spawn(program(), args, { env: this.env, stdio: ['pipe', 'pipe', 'inherit'] });
    this.children.push(child);
    return child;
  }
}

/** A relay of its own, which may be killed and started again at the same port. */
export class RelayProgram {
  readonly port: number;
  readonly folder = mkdtempSync(join(tmpdir(), 'farhelm-relay-'));
  /** The address by which pages and the host call it. */
  url = '';
  private child: ChildProcess | null = null;

  constructor(port: number) {
    this.port = port;
  }

  async start(): Promise<void> {
    const env = { PATH: '/usr/bin:/bin', HOME: this.folder, FARHELM_HOME: this.folder };
    const args = ['relay', '--listen', `127.0.0.1:${this.port}`, '--data', join(this.folder, 'data')];
    this.child = spawn(program(), [...args, '--public-url', this.url], { env, stdio: 'ignore' });
    for (;;) {
      const answers = await fetch(`http://127.0.0.1:${this.port}/healthz`, {
        headers: { host: new URL(this.url).host },
      })
        .then(() => true)
        .catch(() => false);
      if (answers) return;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const { child } = this;
    this.child = null;
    if (child === null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  async stop(): Promise<void> {
    await this.end('SIGTERM');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A port of this machine on which nobody listens. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
