/** A relay in memory, for tests: stores what the fake host writes and passes letters on. */

import { type Bytes, concat, hex, sameBytes } from '../../src/engine/bytes';
import type { Code } from '../../src/engine/codes';
import { envelopeHash, NO_HASH, parseEnvelopeHeader } from '../../src/engine/envelope';
import {
  type Body,
  decodeFrame,
  type Envelope,
  encodeFrame,
  type Frame,
  type Letter,
} from '../../src/engine/frames';
import { transcript } from '../../src/engine/hello';
import { peerOf } from '../../src/engine/ids';
import { parseLetterHeader } from '../../src/engine/letter';
import { importVerifyingKey, verify } from '../../src/engine/sign';
import type { Sockets } from '../../src/platform/socket';

type Stored = { first: number; last: number; base: number; hash: Bytes; envelope: Envelope };

/** A reader begins with a snapshot that is no further before the end than this. */
const NEAR_SNAPSHOT = 2_000;

/** One device's connection, as the relay sees it. */
export type Connection = {
  receive(message: Bytes): void;
  gone(): void;
};

type Client = {
  send(message: Bytes): void;
  close(): void;
  peer: string | null;
  key: Bytes;
  follows: Set<string>;
  nonce: Bytes;
};

export class FakeRelay {
  readonly streams = new Map<string, Stored[]>();
  readonly clients = new Set<Client>();
  readonly mailbox = new Map<string, Letter[]>();
  /** Sealed blobs by their names, in hexadecimal. */
  readonly blobs = new Map<string, Bytes>();
  /** What the host does with letters; set by the fake host. */
  toHost: (letter: Letter) => void = () => {};
  hostOnline = true;
  /** Whether new connections are refused. */
  down = false;
  /** Why devices are sent away that have proved who they are. */
  turnsAway: Code | null = null;
  /** Streams of which not all is there, and no snapshot either. */
  readonly limited = new Set<string>();
  /** Letters are accepted, but not said to be. */
  silent = false;
  host = '';
  store: Bytes = new Uint8Array(16).fill(1);
  hellos = 0;
  received: Frame[] = [];
  readonly authority: string;

  constructor(authority = 'relay.test') {
    this.authority = authority;
  }

  /** Lets an engine connect without any network. */
  get sockets(): Sockets {
    return {
      connect: (_url, events) => {
        let open = true;
        const end = () => {
          if (!open) return;
          open = false;
          connection?.gone();
          queueMicrotask(() => events.closed());
        };
        const connection = this.accept(
          (message) => queueMicrotask(() => open && events.message(message)),
          end,
        );
        if (connection === null) queueMicrotask(end);
        else queueMicrotask(() => events.opened());
        return { send: (message) => open && connection?.receive(message), close: end };
      },
    };
  }

  accept(send: (message: Bytes) => void, close: () => void): Connection | null {
    if (this.down) return null;
    const client: Client = {
      send,
      close,
      peer: null,
      key: new Uint8Array(),
      follows: new Set(),
      nonce: crypto.getRandomValues(new Uint8Array(32)),
    };
    this.clients.add(client);
    let work = Promise.resolve();
    return {
      receive: (message) => {
        work = work.then(() => this.#receive(client, decodeFrame(message)));
      },
      gone: () => this.clients.delete(client),
    };
  }

  /** Cuts every connection. */
  cut(): void {
    for (const client of [...this.clients]) client.close();
    this.clients.clear();
  }

  setHostOnline(online: boolean): void {
    this.hostOnline = online;
    for (const client of this.clients) if (client.peer !== null) this.#presence(client);
  }

  /** Drops what ends before the event `seq`, as a relay does whose room is used up. */
  drop(stream: string, seq: number): void {
    this.streams.set(
      stream,
      (this.streams.get(stream) ?? []).filter(({ last }) => last >= seq),
    );
  }

  /** Stores a durable envelope and fans it out; a live one only goes out. */
  async write(envelope: Envelope): Promise<void> {
    const header = parseEnvelopeHeader(envelope);
    if (header.lane === 'durable') this.keep(envelope, await envelopeHash(envelope));
    this.fan(header.stream, envelope);
  }

  /** Stores a durable envelope. */
  keep(envelope: Envelope, hash: Bytes): void {
    const { stream, first, last, base } = parseEnvelopeHeader(envelope);
    const stored = this.streams.get(stream) ?? [];
    stored.push({ first, last, base: Math.max(base, stored.at(-1)?.base ?? 0), hash, envelope });
    this.streams.set(stream, stored);
  }

  fan(stream: string, envelope: Envelope): void {
    for (const client of this.clients) {
      if (client.follows.has(stream)) client.send(encodeFrame('envelope', envelope));
    }
  }

  headOf(stream: string): { seq: number; hash: Bytes } {
    const last = this.streams.get(stream)?.at(-1);
    return { seq: last?.last ?? 0, hash: last?.hash ?? NO_HASH };
  }

  /** Puts a letter into a device's mailbox and delivers it when it is there. */
  deliver(letter: Letter): void {
    const { to } = parseLetterHeader(letter);
    const isProbe = parseLetterHeader(letter).kind === 'probe';
    if (!isProbe) this.mailbox.set(to, [...(this.mailbox.get(to) ?? []), letter]);
    for (const client of this.clients) if (client.peer === to) client.send(encodeFrame('letter', letter));
  }

  async #receive(client: Client, frame: Frame): Promise<void> {
    this.received.push(frame);
    switch (frame.kind) {
      case 'hello':
        this.hellos += 1;
        client.key = frame.body.key;
        client.send(encodeFrame('challenge', { version: 1, nonce: client.nonce }));
        return;
      case 'prove':
        return this.#prove(client, frame.body.proof);
      case 'ping':
        client.send(encodeFrame('pong', frame.body));
        return;
      case 'subscribe':
        this.#subscribe(client, frame.body);
        return;
      case 'unsubscribe':
        client.follows.delete(frame.body.stream);
        return;
      case 'fetch':
        this.#fetch(client, frame.body);
        return;
      case 'letter': {
        const header = parseLetterHeader(frame.body);
        const isProbe = header.kind === 'probe';
        const isOver = header.notAfter !== 0 && Date.now() > header.notAfter;
        if (isOver || (isProbe && !this.hostOnline)) {
          const nothing = { request: null, stream: null, detail: null, frame: null };
          const code = isOver ? ('expired' as const) : ('host_offline' as const);
          client.send(encodeFrame('problem', { code, letter: header.id, ...nothing }));
          return;
        }
        if (!this.silent && !isProbe) client.send(encodeFrame('posted', { id: header.id }));
        this.toHost(frame.body);
        return;
      }
      case 'want_blob': {
        const { request, name } = frame.body;
        const bytes = this.blobs.get(hex(name));
        const nothing = { letter: null, stream: null, detail: null, frame: null };
        const problem = { code: 'not_found' as const, request, ...nothing };
        client.send(
          bytes === undefined ? encodeFrame('problem', problem) : encodeFrame('blob', { request, bytes }),
        );
        return;
      }
      case 'taken': {
        const peer = client.peer ?? '';
        const left = (this.mailbox.get(peer) ?? []).filter(
          (letter) => parseLetterHeader(letter).id !== frame.body.id,
        );
        this.mailbox.set(peer, left);
        return;
      }
      default:
        return;
    }
  }

  async #prove(client: Client, proof: Bytes): Promise<void> {
    const key = await importVerifyingKey(client.key);
    const message = transcript(1, client.nonce, client.key, this.authority);
    if (!(await verify(key, 'hello', message, proof))) {
      client.send(encodeFrame('bye', { code: 'bad_proof', detail: null, retryMillis: null }));
      client.close();
      return;
    }
    if (this.turnsAway !== null) {
      client.send(encodeFrame('bye', { code: this.turnsAway, detail: null, retryMillis: 30_000 }));
      client.close();
      return;
    }
    client.peer = await peerOf(client.key);
    const welcome = {
      store: this.store,
      now: Date.now(),
      agent: 'fake/1',
      pingMillis: 20_000,
      deadMillis: 45_000,
    };
    client.send(encodeFrame('welcome', welcome));
    this.#presence(client);
    for (const letter of this.mailbox.get(client.peer) ?? []) client.send(encodeFrame('letter', letter));
  }

  #presence(client: Client): void {
    const since = this.hostOnline ? Date.now() - 3_600_000 : Date.now() - 120_000;
    client.send(encodeFrame('presence', { host: this.host, online: this.hostOnline, since }));
  }

  #subscribe(client: Client, { host, stream, after, tail }: Body<'subscribe'>): void {
    if (this.limited.has(stream)) {
      const nothing = { request: null, letter: null, detail: null, frame: null };
      client.send(encodeFrame('problem', { code: 'history_limited', stream, ...nothing }));
      return;
    }
    const stored = this.streams.get(stream) ?? [];
    const head = stored.at(-1)?.last ?? 0;
    const base = stored.at(-1)?.base ?? 0;
    const gap = after !== null && head > after && (stored[0]?.first ?? 0) > after + 1;
    const isNear = base > 0 && head - base <= Math.max(tail ?? 0, NEAR_SNAPSHOT);
    const begin = after ?? Math.max(0, isNear ? base - 1 : head - (tail ?? 0));
    const wanted = gap ? base - 1 : begin;
    const rest = stored.slice(placeOf(stored, wanted + 1));
    const from = rest[0] === undefined ? head : rest[0].first - 1;
    client.send(encodeFrame('subscribed', { host, stream, head, from, base, gap: gap ? true : null }));
    for (const { envelope } of rest) client.send(encodeFrame('envelope', envelope));
    client.follows.add(stream);
  }

  #fetch(client: Client, { request, stream, before, maxBytes }: Body<'fetch'>): void {
    const stored = this.streams.get(stream) ?? [];
    const page: Envelope[] = [];
    let size = 0;
    let at = placeOf(stored, before);
    for (; at > 0; at -= 1) {
      const { envelope } = stored[at - 1] as Stored;
      size += envelope.body.length;
      if (page.length > 0 && size > maxBytes) break;
      page.unshift(envelope);
    }
    client.send(encodeFrame('page', { request, envelopes: page, more: at > 0 }));
  }
}

/** Where the envelope is that holds the event `seq`, or the first one after it. */
function placeOf(stored: readonly Stored[], seq: number): number {
  let low = 0;
  let high = stored.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((stored[middle]?.last ?? 0) < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A copy of an envelope with one bit of its body flipped. */
export function bent(envelope: Envelope): Envelope {
  const body = concat(envelope.body);
  body[20] = (body[20] ?? 0) ^ 1;
  if (sameBytes(body, envelope.body)) throw new Error('nothing was bent');
  return { ...envelope, body };
}
