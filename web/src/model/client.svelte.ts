/**
 * The page's end of the road to the engine. It holds the newest overview, passes wishes on until
 * the engine has kept them, and says again what it shows when another tab takes the lead.
 */
import { freshId } from '../engine/ids';
import type { FromEngine, Overview, ToEngine } from '../engine/views';
import type { Clock } from '../platform/clock';
import type { Port } from '../platform/port';
import type { Random } from '../platform/random';
import type { BlobRef, Command } from '../protocol/types';

/** What a screen hears of the conversation that it shows. */
export type RowsHeard = Extract<FromEngine, { type: 'rows_reset' | 'rows_changed' }>;

type Wanted = { resolve(bytes: Uint8Array): void; reject(code: string): void };

export class Client {
  overview = $state.raw<Overview | null>(null);
  broken = $state.raw<{ code: string; detail: string } | null>(null);
  /** Wishes that the engine has not kept yet. */
  readonly #unkept = new Map<string, ToEngine>();
  readonly #shown = new Map<string, { host: string; heard: (message: RowsHeard) => void }>();
  readonly #wanted = new Map<string, Wanted>();
  readonly #port: Port;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(port: Port, clock: Clock, random: Random) {
    this.#port = port;
    this.#clock = clock;
    this.#random = random;
    port.listen((message) => this.#hear(message as FromEngine));
    this.send({ type: 'hello' });
  }

  send(message: ToEngine): void {
    this.#port.post(message);
  }

  /** Wishes for something; its id names it in the overview. */
  wish(host: string, command: Command): string {
    const id = freshId('command', this.#clock.now(), this.#random.bytes(10));
    const message: ToEngine = { type: 'wish', id, host, command };
    this.#unkept.set(id, message);
    this.send(message);
    return id;
  }

  /** Shows a conversation until the result is called. */
  show(host: string, session: string, heard: (message: RowsHeard) => void): () => void {
    this.#shown.set(session, { host, heard });
    this.send({ type: 'open', host, session });
    return () => {
      this.#shown.delete(session);
      this.send({ type: 'close', session });
    };
  }

  /** Fetches the pieces of something big, one after another; rejects with a code. */
  async fetch(host: string, session: string, blobs: readonly BlobRef[]): Promise<Blob> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for (const blob of blobs) parts.push(new Uint8Array(await this.#want(host, session, blob)));
    return new Blob(parts);
  }

  now(): number {
    return this.#clock.now();
  }

  #want(host: string, session: string, blob: BlobRef): Promise<Uint8Array> {
    const request = freshId('command', this.#clock.now(), this.#random.bytes(10));
    return new Promise((resolve, reject) => {
      this.#wanted.set(request, { resolve, reject });
      this.send({ type: 'want_blob', request, host, session, blob });
    });
  }

  #hear(message: FromEngine): void {
    switch (message.type) {
      case 'ready':
        this.send({ type: 'hello' });
        for (const [session, { host }] of this.#shown) this.send({ type: 'open', host, session });
        for (const wish of this.#unkept.values()) this.send(wish);
        return;
      case 'overview':
        this.overview = message.overview;
        return;
      case 'rows_reset':
      case 'rows_changed':
        this.#shown.get(message.session)?.heard(message);
        return;
      case 'kept':
        this.#unkept.delete(message.id);
        return;
      case 'blob':
        this.#settle(message.request)?.resolve(message.bytes);
        return;
      case 'blob_failed':
        this.#settle(message.request)?.reject(message.code);
        return;
      case 'broken':
        this.broken = { code: message.code, detail: message.detail };
    }
  }

  #settle(request: string): Wanted | undefined {
    const wanted = this.#wanted.get(request);
    this.#wanted.delete(request);
    return wanted;
  }
}
