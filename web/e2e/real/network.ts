/** What lies between pages and a relay: a plain TCP proxy that can be cut or fall silent, for pages only. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

type Weather = 'fair' | 'cut' | 'silent';

export class Network {
  readonly port: number;
  readonly #server: Server;
  readonly #pages = new Set<Socket>();
  readonly #all = new Set<Socket>();
  #weather: Weather = 'fair';
  #refusesUpgrades = false;
  /** WebSockets of pages that were refused. */
  refused = 0;

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  /** Begins to pass connections on to `target`, a port of this machine that may change. */
  static async start(target: () => number): Promise<Network> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const network = new Network(server);
    server.on('connection', (outer) => network.#pass(outer, target()));
    return network;
  }

  /** Every connection of pages ends, and none begins. */
  cut(): void {
    this.#weather = 'cut';
    for (const page of this.#pages) page.resetAndDestroy();
  }

  /** Nothing that pages say arrives any more, nor the other way; nobody is told. */
  silence(): void {
    this.#weather = 'silent';
  }

  /** New connections get through again; those that fell silent stay so. */
  clear(): void {
    this.#weather = 'fair';
  }

  /** From now on no WebSocket of a page gets through; plain HTTP does. */
  refuseUpgrades(): void {
    this.#refusesUpgrades = true;
  }

  async stop(): Promise<void> {
    for (const socket of this.#all) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #pass(outer: Socket, target: number): void {
    const inner = connect(target, '127.0.0.1');
    let isPage = false;
    let isSilent = false;
    for (const socket of [outer, inner]) {
      this.#all.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#all.delete(socket);
        this.#pages.delete(socket);
        outer.destroy();
        inner.destroy();
      });
    }
    const pipe = (from: Socket, to: Socket) =>
      from.on('data', (data) => {
        if (from === outer && !isPage && data.includes('Mozilla')) {
          isPage = true;
          this.#pages.add(outer);
        }
        if (from === outer && isPage && this.#refusesUpgrades && /^upgrade: websocket/im.test(`${data}`)) {
          this.refused += 1;
          outer.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
          return;
        }
        if (isPage && this.#weather === 'cut') outer.resetAndDestroy();
        isSilent ||= isPage && this.#weather === 'silent';
        if (!isSilent) to.write(data);
      });
    pipe(outer, inner);
    pipe(inner, outer);
  }
}
