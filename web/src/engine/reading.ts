/**
 * What this connection reads of hosts: the streams that it follows, and the pages, keys and blobs
 * that it asked for. What is read goes to its stream; what that needs in turn is done here.
 */
import type { Clock } from '../platform/clock';
import type { BlobRef, KeyBundle } from '../protocol/types';
import { type Bytes, fromBase64, fromHex, sameBytes, sha256 } from './bytes';
import { type Code, Failure, mayRetry } from './codes';
import { parseEnvelopeHeader } from './envelope';
import { type Body, type Envelope, encodeFrame } from './frames';
import type { Host } from './host';
import { importContentKey, openBlob } from './seal';
import { type HostRow, isFull, type Store } from './store';
import type { Need } from './stream';
import type { FromEngine, ToEngine } from './views';

/** Sessions of a host that are followed without being opened. */
const FOLLOWED = 20;
const PAGE_BYTES = 256 * 1024;
const RESUBSCRIBE_MILLIS = 1_000;
const LONGEST_RESUBSCRIBE_MILLIS = 60_000;
const KEYS_AGAIN_MILLIS = 20_000;

export interface ReadingEvents {
  /** Whether the relay is there. */
  isConnected(): boolean;
  /** Sends a frame when connected. */
  send(message: Bytes): boolean;
  /** Tells pages about a blob. */
  emit(message: Extract<FromEngine, { type: 'blob' | 'blob_failed' }>): void;
  /** Does it when everything before it is done. */
  enqueue(work: () => Promise<void>): void;
  askForKeys(host: HostRow, stream: string): Promise<void>;
  /** The sessions of a host that pages show. */
  opened(host: string): string[];
  /** Whether there was room for what was read. */
  hasRoom(has: boolean): void;
}

type Asked =
  | { readonly kind: 'older'; readonly host: string; readonly stream: string }
  | {
      readonly kind: 'blob';
      readonly request: string;
      readonly host: string;
      readonly stream: string;
      readonly blob: BlobRef;
    };

export class Reading {
  readonly #hosts: ReadonlyMap<string, Host>;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #events: ReadingEvents;
  /** Streams that this connection follows. */
  readonly #followed = new Set<string>();
  readonly #asked = new Map<number, Asked>();
  #requests = 0;
  /** When keys of a stream were last asked for. */
  readonly #keysAsked = new Map<string, number>();
  /** Streams that will be subscribed to again in a while. */
  readonly #retrying = new Set<string>();
  /** How often a stream was subscribed to again in vain. */
  readonly #retries = new Map<string, number>();

  constructor(hosts: ReadonlyMap<string, Host>, store: Store, clock: Clock, events: ReadingEvents) {
    this.#hosts = hosts;
    this.#store = store;
    this.#clock = clock;
    this.#events = events;
  }

  /** A connection begins: nothing is followed on it, and nothing was asked in vain. */
  begin(): void {
    this.#followed.clear();
    this.#keysAsked.clear();
    this.#retries.clear();
  }

  /** The connection is gone, and what was asked on it is lost. */
  disconnected(): void {
    this.#followed.clear();
    for (const asked of this.#asked.values()) this.#fail(asked);
    this.#asked.clear();
  }

  // --- following streams

  /** Follows every host's own log, the sessions that pages show, and those that are worth it. */
  async follow(): Promise<void> {
    for (const host of this.#hosts.values()) {
      this.subscribe(host, host.log.stream);
      for (const session of new Set([...this.#events.opened(host.row.peer), ...host.recent(FOLLOWED)])) {
        const log = await host.session(session);
        this.subscribe(host, log.stream.stream);
      }
    }
  }

  subscribe(host: Host, stream: string): void {
    if (this.#followed.has(stream)) return;
    const from = host.streamOf(stream)?.from;
    if (from === undefined) return;
    const frame = encodeFrame('subscribe', { host: host.row.peer, stream, ...from });
    if (this.#events.send(frame)) this.#followed.add(stream);
  }

  #resubscribe(host: Host, stream: string): void {
    this.#events.send(encodeFrame('unsubscribe', { host: host.row.peer, stream }));
    this.#followed.delete(stream);
    this.subscribe(host, stream);
  }

  #resubscribeLater(host: Host, stream: string): void {
    if (this.#retrying.has(stream)) return;
    this.#retrying.add(stream);
    const tries = this.#retries.get(stream) ?? 0;
    this.#retries.set(stream, tries + 1);
    const wait = Math.min(RESUBSCRIBE_MILLIS * 2 ** tries, LONGEST_RESUBSCRIBE_MILLIS);
    this.#clock.after(wait, () => {
      this.#retrying.delete(stream);
      this.#events.enqueue(async () => {
        if (this.#followed.has(stream)) this.#resubscribe(host, stream);
      });
    });
  }

  /** Pages backwards until the open state of everything that is followed is known in full. */
  #complete(host: Host): void {
    if (!host.complete && host.log.sync.state === 'current') this.askOlder(host, host.log.stream);
    for (const log of host.sessions.values()) {
      if (!log.complete && log.stream.sync.state === 'current') this.askOlder(host, log.stream.stream);
    }
  }

  askOlder(host: Host, stream: string): void {
    if (!this.#events.isConnected()) return;
    const ask = host.streamOf(stream)?.askOlder() ?? null;
    if (ask === null) return;
    const request = this.#ask({ kind: 'older', host: host.row.peer, stream });
    const fetch = { request, host: host.row.peer, stream, before: ask.before, maxBytes: PAGE_BYTES };
    this.#events.send(encodeFrame('fetch', fetch));
  }

  #ask(asked: Asked): number {
    this.#requests += 1;
    this.#asked.set(this.#requests, asked);
    return this.#requests;
  }

  #answered(request: number): Asked | undefined {
    const asked = this.#asked.get(request);
    this.#asked.delete(request);
    return asked;
  }

  // --- what comes

  /** Takes envelopes of one stream, in the order they came. */
  async envelopes(envelopes: readonly Envelope[]): Promise<void> {
    const [first] = envelopes;
    if (first === undefined) return;
    const host = this.#hosts.get(hostOf(first));
    const stream = host?.streamOf(streamOf(first)) ?? null;
    if (host === undefined || stream === null) return;
    host.heard();
    try {
      const need = await stream.take(envelopes);
      this.#events.hasRoom(true);
      host.sightRead(stream.stream);
      await this.#after(host, stream.stream, need);
    } catch (error) {
      if (!isFull(error)) throw error;
      await this.#makeRoom(host, stream);
    }
  }

  async subscribed({ host: peer, stream, head, base, gap }: Body<'subscribed'>): Promise<void> {
    const host = this.#hosts.get(peer);
    const need = host?.streamOf(stream)?.subscribed(head, base, gap === true) ?? { kind: 'nothing' };
    if (host === undefined) return;
    host.sightRead(stream);
    await this.#after(host, stream, need);
  }

  async page({ request, envelopes, more }: Body<'page'>): Promise<void> {
    const asked = this.#answered(request);
    const host = asked === undefined ? undefined : this.#hosts.get(asked.host);
    const stream = asked === undefined ? null : (host?.streamOf(asked.stream) ?? null);
    if (host === undefined || stream === null) return;
    try {
      await this.#after(host, stream.stream, await stream.takeOlder(envelopes, more));
    } catch (error) {
      if (!isFull(error)) throw error;
      await this.#makeRoom(host, stream);
    }
  }

  async keys(peer: string, bundle: KeyBundle): Promise<void> {
    const rows = await Promise.all(
      bundle.keys.flatMap(({ epoch, key }) => {
        const raw = fromBase64(key);
        const row = async (bytes: Bytes) => ({
          host: peer,
          stream: bundle.stream,
          epoch,
          key: await importContentKey(bytes),
        });
        return raw?.length === 32 ? [row(raw)] : [];
      }),
    );
    await this.#store.putKeys(rows);
    const host = this.#hosts.get(peer);
    if (host === undefined) return;
    for (const { epoch, key } of rows) {
      const stream = host.streamOf(bundle.stream);
      if (stream !== null) await this.#after(host, bundle.stream, await stream.addKey(epoch, key));
    }
  }

  /** The relay could not do what was asked. */
  refused(request: number, code: Code): void {
    const asked = this.#answered(request);
    if (asked !== undefined) this.#fail(asked, code);
  }

  /** The relay has a problem with a stream. */
  troubled(stream: string, code: Code): void {
    for (const host of this.#hosts.values()) {
      if (host.streamOf(stream) === null) continue;
      // A relay that has not heard of a fresh pairing yet does not know this device.
      const fresh = code === 'not_found' && host.log.cursor === null;
      if (code === 'history_limited') host.streamOf(stream)?.limited();
      else if (!fresh && !mayRetry(code)) host.streamOf(stream)?.alarm(code);
      this.#resubscribeLater(host, stream);
    }
  }

  /** Does what a stream needs, and what follows from what it has read. */
  async #after(host: Host, stream: string, need: Need): Promise<void> {
    if (need.kind === 'resubscribe') this.#resubscribe(host, stream);
    if (need.kind === 'keys') await this.#askKeys(host, stream);
    const sync = host.streamOf(stream)?.sync.state;
    if (sync === 'alarm' || need.kind === 'later') this.#resubscribeLater(host, stream);
    if (sync === 'current') this.#retries.delete(stream);
    if (stream === host.log.stream) {
      await host.checkRoster();
      await this.follow();
    }
    this.#complete(host);
  }

  async #askKeys(host: Host, stream: string): Promise<void> {
    const now = this.#clock.now();
    if (now - (this.#keysAsked.get(stream) ?? Number.NEGATIVE_INFINITY) < KEYS_AGAIN_MILLIS) return;
    this.#keysAsked.set(stream, now);
    await this.#events.askForKeys(host.row, stream);
  }

  /** Forgets what can be had again, and tries later: nothing is shown that is not durable. */
  async #makeRoom(host: Host, stream: { readonly stream: string; pause(): void }): Promise<void> {
    this.#events.hasRoom(false);
    for (const each of this.#hosts.values()) for (const kept of each.streams()) await kept.makeRoom();
    stream.pause();
    this.#resubscribeLater(host, stream.stream);
  }

  #fail(asked: Asked, code: Code = 'relay_unreachable'): void {
    if (asked.kind === 'older') this.#hosts.get(asked.host)?.streamOf(asked.stream)?.olderFailed();
    else this.#events.emit({ type: 'blob_failed', request: asked.request, code });
  }

  // --- blobs

  wantBlob({ request, host, session, blob }: Extract<ToEngine, { type: 'want_blob' }>): void {
    const log = this.#hosts.get(host)?.sessions.get(session);
    const name = fromHex(blob.name);
    if (log === undefined || name?.length !== 32) {
      this.#events.emit({ type: 'blob_failed', request, code: 'not_found' });
      return;
    }
    const asked: Asked = { kind: 'blob', request, host, stream: log.stream.stream, blob };
    const number = this.#ask(asked);
    if (!this.#events.send(encodeFrame('want_blob', { request: number, host, name })))
      this.refused(number, 'relay_unreachable');
  }

  async blob({ request, bytes }: Body<'blob'>): Promise<void> {
    const asked = this.#answered(request);
    if (asked?.kind !== 'blob') return;
    const { stream, blob } = asked;
    const key = this.#hosts.get(asked.host)?.streamOf(stream)?.key(blob.epoch);
    try {
      if (key === undefined) throw new Failure('key_missing');
      if (!sameBytes(await sha256(bytes), fromHex(blob.name) ?? new Uint8Array()))
        throw new Failure('tampered');
      const opened = await openBlob(key, stream, blob.epoch, bytes);
      this.#events.emit({ type: 'blob', request: asked.request, bytes: opened });
    } catch (error) {
      this.#fail(asked, error instanceof Failure ? error.code : 'internal');
    }
  }
}

/** The stream that an envelope says it is of; nothing is believed by that. */
export function streamOf(envelope: Envelope): string {
  try {
    return parseEnvelopeHeader(envelope).stream;
  } catch {
    return '';
  }
}

function hostOf(envelope: Envelope): string {
  try {
    return parseEnvelopeHeader(envelope).host;
  } catch {
    return '';
  }
}
