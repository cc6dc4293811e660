/**
 * The page's end of the road to the engine. It holds the newest overview, passes wishes on until
 * the engine has kept them, and says again what it shows when another tab takes the lead.
 */
import { freshId } from '../engine/ids';
import type { FromEngine, Overview, ToEngine } from '../engine/views';
import type { Clock } from '../platform/clock';
import type { Port } from '../platform/port';
import type { Random } from '../platform/random';
import type { Shelf } from '../platform/shelf';
import type { BlobRef, Command } from '../protocol/types';
import { Selves } from './selves';
import { Unkept } from './unkept';

/** What a screen hears of the conversation that it shows. */
export type RowsHeard = Extract<FromEngine, { type: 'rows_reset' | 'rows_changed' }>;

type Wanted = { resolve(bytes: Uint8Array): void; reject(code: string): void };

/** What a page needs from outside. */
export type PageWorld = {
  readonly clock: Clock;
  readonly random: Random;
  /** Kept for this tab, and for the whole browser. */
  readonly tab: Shelf;
  readonly browser: Shelf;
};

export class Client {
  overview = $state.raw<Overview | null>(null);
  /** The time as the page shows it: ages are counted from here. */
  at = $state(0);
  broken = $state.raw<{ code: string; detail: string } | null>(null);
  /** Why a wish could not be kept, until it is put away. */
  notKept = $state.raw<{ code: string; command: Command } | null>(null);
  /** Whether the browser promised to keep what this site keeps; nothing while that is not known. */
  promised = $state<boolean | null>(null);
  readonly unkept: Unkept;
  readonly selves: Selves;
  readonly #shown = new Map<string, { host: string; heard: (message: RowsHeard) => void }>();
  #isWatched = true;
  readonly #wanted = new Map<string, Wanted>();
  readonly #port: Port;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(port: Port, { clock, random, tab, browser }: PageWorld) {
    this.#port = port;
    this.#clock = clock;
    this.#random = random;
    this.at = clock.now();
    this.unkept = new Unkept(tab, clock.now());
    this.selves = new Selves(browser);
    port.listen((message) => this.#hear(message as FromEngine));
    this.send({ type: 'hello' });
    for (const wish of this.unkept.wishes) this.send(wish);
  }

  send(message: ToEngine): void {
    this.#port.post(message);
  }

  /** Whether somebody looks at this page. */
  watch(isWatched: boolean): void {
    this.#isWatched = isWatched;
    this.send({ type: 'watched', watched: isWatched });
    if (isWatched) this.send({ type: 'nudge' });
  }

  /** Wishes for something; its id names it in the overview. */
  wish(host: string, command: Command): string {
    const id = freshId('command', this.#clock.now(), this.#random.bytes(10));
    const message = { type: 'wish' as const, id, host, command };
    this.unkept.add(message, this.#clock.now());
    this.send(message);
    return id;
  }

  /** Sends a wish again of which nobody knows whether it had its effect. */
  retry(id: string): void {
    const fresh = freshId('command', this.#clock.now(), this.#random.bytes(10));
    this.send({ type: 'retry', id, fresh });
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

  /** Takes note of whether the browser promises to keep the keys. */
  keep(promise: Promise<boolean>): void {
    promise.then(
      (kept) => (this.promised = kept),
      () => (this.promised = false),
    );
  }

  /** Lets ages grow. */
  tick(): void {
    this.at = this.#clock.now();
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
        if (!this.#isWatched) this.watch(false);
        for (const [session, { host }] of this.#shown) this.send({ type: 'open', host, session });
        for (const wish of this.unkept.wishes) this.send(wish);
        return;
      case 'overview':
        this.tick();
        this.selves.see(message.overview);
        this.overview = message.overview;
        return;
      case 'rows_reset':
      case 'rows_changed':
        this.#shown.get(message.session)?.heard(message);
        // In the next task what changed has been drawn.
        this.#clock.after(0, () => this.send({ type: 'drawn', session: message.session }));
        return;
      case 'kept':
        this.unkept.drop(message.id);
        return;
      case 'not_kept': {
        const command = this.unkept.drop(message.id)?.command;
        if (command?.type === 'prompt') this.unkept.putDraft(command.session, command.text);
        if (command !== undefined) this.notKept = { code: message.code, command };
        return;
      }
      case 'blob':
        this.#settle(message.request)?.resolve(message.bytes);
        return;
      case 'blob_failed':
        this.#settle(message.request)?.reject(message.code);
        return;
      case 'broken':
        this.broken ??= { code: message.code, detail: message.detail };
    }
  }

  #settle(request: string): Wanted | undefined {
    const wanted = this.#wanted.get(request);
    this.#wanted.delete(request);
    return wanted;
  }
}
