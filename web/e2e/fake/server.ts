/** Serves the built app as the relay does, with the fake relay behind its WebSocket. */
import { existsSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { WebSocketServer } from 'ws';
import { FakeHost } from '../../test/support/fake-host';
import { FakeRelay } from '../../test/support/fake-relay';

const DIST = new URL('../../dist', import.meta.url).pathname;

const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "worker-src 'self'",
  "img-src 'self' data: blob:",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
].join('; ');

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.webmanifest': 'application/manifest+json',
};

export class FakeServer {
  readonly relay: FakeRelay;
  readonly host: FakeHost;
  readonly url: string;
  /** Whether the network is up for pages. */
  up = true;
  readonly #server: Server;
  readonly #sockets: WebSocketServer;

  private constructor(
    server: Server,
    sockets: WebSocketServer,
    relay: FakeRelay,
    host: FakeHost,
    url: string,
  ) {
    this.#server = server;
    this.#sockets = sockets;
    this.relay = relay;
    this.host = host;
    this.url = url;
  }

  static async start(): Promise<FakeServer> {
    const http = createServer((request, response) => {
      const path = new URL(request.url ?? '/', 'http://x').pathname;
      const file = path !== '/' && existsSync(join(DIST, path)) ? path : '/index.html';
      response.setHeader('content-security-policy', POLICY);
      response.setHeader('content-type', TYPES[extname(file)] ?? 'application/octet-stream');
      response.end(readFileSync(join(DIST, file)));
    });
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    const authority = `localhost:${(http.address() as AddressInfo).port}`;
    const relay = new FakeRelay(authority);
    const host = await FakeHost.start(relay, 'workbench');
    const sockets = new WebSocketServer({ server: http, path: '/v1/link' });
    const server = new FakeServer(http, sockets, relay, host, `http://${authority}`);
    sockets.on('connection', (socket) => {
      const connection = relay.accept(
        (message) => socket.send(message),
        () => socket.terminate(),
      );
      if (connection === null || !server.up) {
        socket.terminate();
        return;
      }
      socket.on('message', (data) => connection.receive(new Uint8Array(data as Buffer)));
      socket.on('close', () => connection.gone());
    });
    return server;
  }

  async stop(): Promise<void> {
    this.relay.cut();
    this.#sockets.close();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
