/** A real host in a temporary folder: the program itself, its daemon, its embedded relay. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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
  async up(scenario?: object): Promise<{ session: string; link: string }> {
    const agent = ['--agent-cmd', `${program()} scripted-agent`];
    if (scenario !== undefined) {
      const file = join(this.folder, 'scenario.json');
      writeFileSync(file, JSON.stringify(scenario));
      agent[1] += ` --scenario ${file}`;
    }
    return this.json('up', '--dir', this.project, '--headless', ...agent);
  }

  /** Lets in the device that shows this code. */
  async accept(code: string): Promise<void> {
    await this.ok('pair', '--accept', code);
  }

  path(name: string): string {
    return join(this.project, name);
  }

  async stop(): Promise<void> {
    for (const child of this.children) child.kill();
    await this.ok('down').catch(() => undefined);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Starts a command that goes on; it ends with the host. */
  start(...args: string[]): ChildProcess {
    const child = spawn(program(), args, { env: this.env, stdio: ['pipe', 'pipe', 'inherit'] });
    this.children.push(child);
    return child;
  }
}
