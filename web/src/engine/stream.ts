/**
 * One stream of a host as this device has it: reads envelopes in order, makes them durable, and
 * only then hands their records on. Pages backwards on demand. What the records mean is the
 * business of its owner.
 */
import { type Bytes, fromUtf8, sameBytes } from './bytes';
import type { Code } from './codes';
import { parseEnvelopeHeader } from './envelope';
import { decodeEnvelope, type Envelope, encodeEnvelope } from './frames';
import { type Accepted, accept, type Head, openOlder, type Reader } from './replica';
import { openEnvelope } from './seal';
import type { EnvelopeRow, Store, StreamRow } from './store';
import type { SyncView } from './views';

/** A record of either kind of log, as far as a stream cares. */
export type AnyRecord = { readonly seq: number };

export interface StreamOwner<R extends AnyRecord> {
  /** The next records; durable by now. `leapt` says that those before them were left for later. */
  records(records: readonly R[], leapt: boolean): void;
  /** Records from before all others; durable by now. */
  olderRecords(records: readonly R[]): void;
  /** Deltas that came after the event `after`. */
  live(after: number, deltas: Bytes): void;
  changed(): void;
}

/** What the engine must do for a stream after it took something. */
export type Need =
  | { readonly kind: 'nothing' }
  /** Subscribe again from the cursor. */
  | { readonly kind: 'resubscribe' }
  | { readonly kind: 'later' }
  | { readonly kind: 'keys'; readonly epoch: number };

/** Envelopes of one stream that are kept from one start of the app to the next. */
const KEPT_ENVELOPES = 4_000;
/** The same when there is no room. */
const LEAST_ENVELOPES = 200;
/** Events that are opened when a stream is read back, besides its open state. */
const LOADED = 200;
/** Envelopes that wait for a key. */
const MAX_HELD = 256;
/** Events that are too many to be read one after another before the end is shown. */
const FAR = 20_000;
/** Events to begin with when a stream is read for the first time. */
const TAIL = 200;
/** How often a relay may name an older place than was read before that is an alarm. */
const BEHIND = 2;

export class Stream<R extends AnyRecord> {
  readonly host: string;
  readonly stream: string;
  readonly #reader: Reader & { readonly keys: Map<number, CryptoKey> };
  readonly #store: Store;
  readonly #owner: StreamOwner<R>;
  #head: Head | null = null;
  #low: StreamRow['low'] | null = null;
  #held: Envelope[] = [];
  /** Whether more came than could be held. */
  #spilt = false;
  /** Whether something was not believed; cleared by the next subscription. */
  #ignoring = false;
  /** How often the relay has named an older place than was read. */
  #behind = 0;
  /** Whether the relay has said that it lacks what follows the cursor, so that a snapshot comes next. */
  #skips = false;
  /** Whether the end is far away, so that a subscription without a cursor was asked for, or begun. */
  #leap: 'no' | 'asked' | 'begun' = 'no';
  /** The highest place that was read before a leap, until paging back has come to it again. */
  #left: Head | null = null;
  #sync: SyncView = { state: 'waiting' };
  /** Where the relay said that the stream stands, when this connection subscribed. */
  #target: number | null = null;
  /** Seq of the newest snapshot that the relay told of. */
  #base = 0;
  #lastLive: { epoch: number; counter: number } = { epoch: 0, counter: 0 };
  #older: 'idle' | 'asked' | 'end' = 'idle';
  /** Before which event a page was asked for. */
  #before = 0;

  constructor(
    host: string,
    hostKey: CryptoKey,
    stream: string,
    keys: Map<number, CryptoKey>,
    store: Store,
    owner: StreamOwner<R>,
  ) {
    this.host = host;
    this.stream = stream;
    this.#reader = { host, hostKey, stream, keys };
    this.#store = store;
    this.#owner = owner;
  }

  /**
   * Reads back the end of what was kept: the whole open state, and a page. Nothing of it is believed
   * that does not open.
   */
  async load(): Promise<void> {
    const row = await this.#store.stream(this.host, this.stream);
    if (row === null) return;
    let base = 0;
    const wanted = Math.max(1, row.head.seq - LOADED + 1);
    const kept = await this.#store.envelopesBack(this.host, this.stream, row.head.seq, (bytes) => {
      const header = parseEnvelopeHeader(decodeEnvelope(bytes));
      base = Math.max(base, header.base);
      return header.first <= Math.min(wanted, base);
    });
    const records = await this.#reopenAll(kept);
    if (records.length === 0) return;
    this.#head = row.head;
    this.#left = row.left ?? null;
    this.#low = await this.#trim(row, KEPT_ENVELOPES);
    this.#base = base;
    this.#owner.records(records, false);
  }

  /** The records up to the event `seq` that are kept, about `count` of them. */
  async readBack(seq: number, count: number): Promise<R[]> {
    const wanted = seq - count + 1;
    const isEnough = (bytes: Bytes) => parseEnvelopeHeader(decodeEnvelope(bytes)).first <= wanted;
    const kept = await this.#store.envelopesBack(this.host, this.stream, seq, isEnough);
    return (await this.#reopenAll(kept)).filter((record) => record.seq <= seq);
  }

  /** The records after the event `seq` that are kept, about `count` of them. */
  async readOn(seq: number, count: number): Promise<R[]> {
    const kept = await this.#store.envelopesOn(this.host, this.stream, seq + 1, seq + count);
    return (await this.#reopenAll(kept)).filter((record) => record.seq > seq);
  }

  get cursor(): number | null {
    return this.#head?.seq ?? null;
  }

  /** From where the relay is to send. */
  get from(): { readonly after: number | null; readonly tail: number | null } {
    if (this.#leap === 'asked') return { after: null, tail: null };
    return { after: this.cursor, tail: this.cursor === null ? TAIL : null };
  }

  get sync(): SyncView {
    return this.#sync;
  }

  /** The first event that is here; nothing before the first envelope. */
  get first(): number | null {
    return this.#low?.first ?? null;
  }

  /** Where a reader that wants the whole open state must begin. */
  get base(): number {
    return Math.max(1, this.#base);
  }

  get older(): 'none' | 'more' | 'reading' {
    if (this.#older === 'asked') return 'reading';
    return this.#older === 'end' || this.#low === null || this.#low.first <= 1 ? 'none' : 'more';
  }

  key(epoch: number): CryptoKey | undefined {
    return this.#reader.keys.get(epoch);
  }

  /** The connection is gone; what was read stays. */
  disconnected(): void {
    this.#target = null;
    this.#leap = 'no';
    this.#skips = false;
    if (this.#older === 'asked') this.#older = 'idle';
    this.#become({ state: 'waiting' });
  }

  /**
   * The relay says where the stream stands. It passes on before it stores, so after a crash it may
   * be behind what it has passed on until the host has filled it up again; only a relay that goes
   * on naming an older place is showing an older state.
   */
  subscribed(head: number, base: number, gap: boolean): Need {
    if (this.#head !== null && head < this.#head.seq) {
      this.#behind += 1;
      if (this.#behind > BEHIND) {
        this.alarm('rolled_back');
        return { kind: 'nothing' };
      }
      this.#become({ state: 'waiting' });
      return { kind: 'later' };
    }
    this.#behind = 0;
    if (this.#leap === 'asked') this.#leap = 'begun';
    else if (!gap && this.#isFar(head, base)) {
      this.#leap = 'asked';
      this.#become({ state: 'reading' });
      return { kind: 'resubscribe' };
    }
    this.#skips = (gap || this.#leap === 'begun') && this.#head !== null;
    this.#base = base;
    this.#held = [];
    this.#spilt = false;
    this.#ignoring = false;
    this.#target = head;
    this.#become({ state: 'reading' });
    this.#settle();
    return { kind: 'nothing' };
  }

  /** Takes envelopes in the order they came; durable before anybody hears of them. */
  async take(envelopes: readonly Envelope[]): Promise<Need> {
    if (this.#held.length > 0) return this.#hold(envelopes);
    // Before a leap has begun only what is leapt over comes.
    if (this.#ignoring || this.#leap === 'asked') return { kind: 'nothing' };
    let batch = new Batch<R>(this.#head, this.#low);
    let need: Need = { kind: 'nothing' };
    for (const [at, envelope] of envelopes.entries()) {
      let accepted = await accept(this.#reader, batch.head, envelope);
      if (accepted.kind === 'gap' && this.#skips) {
        await this.#commit(batch);
        accepted = beginning(await accept(this.#reader, null, envelope));
        batch = new Batch<R>(null, null);
        if (accepted.kind === 'events') {
          batch.leapt = this.#leap === 'begun';
          this.#leap = 'no';
          this.#skips = false;
        }
      }
      if (accepted.kind === 'events') {
        const records = parseRecords<R>(accepted.plaintext);
        if (records === null) {
          await this.#commit(batch);
          this.alarm('internal');
          return { kind: 'nothing' };
        }
        batch.add(accepted.header, accepted.head, envelope, records);
        this.#base = Math.max(this.#base, accepted.header.base);
      } else if (accepted.kind === 'live') {
        await this.#commit(batch);
        this.#takeLive(accepted.header, accepted.plaintext);
      } else if (accepted.kind === 'key_missing') {
        need = { kind: 'keys', epoch: accepted.epoch };
        if (accepted.lane === 'live') continue;
        await this.#commit(batch);
        this.#become({ state: 'key_missing' });
        this.#held = envelopes.slice(at);
        return need;
      } else if (accepted.kind === 'gap') {
        await this.#commit(batch);
        return { kind: 'resubscribe' };
      } else if (accepted.kind === 'tampered') {
        await this.#commit(batch);
        this.alarm(accepted.code);
        return { kind: 'nothing' };
      }
    }
    await this.#commit(batch);
    this.#settle();
    return need;
  }

  /** A key has come; goes on with what waited for it. */
  async addKey(epoch: number, key: CryptoKey): Promise<Need> {
    // Another one can only be of a host that was put back to what it was before.
    if (!this.#reader.keys.has(epoch)) this.#reader.keys.set(epoch, key);
    if (this.#sync.state === 'key_missing') this.#become({ state: 'reading' });
    const held = this.#held;
    this.#held = [];
    const need: Need = held.length === 0 ? { kind: 'nothing' } : await this.take(held);
    if (need.kind !== 'nothing' || !this.#spilt) return need;
    this.#spilt = false;
    return { kind: 'resubscribe' };
  }

  /** Whether a page of older envelopes may be asked for; says that it was. */
  askOlder(): { readonly before: number } | null {
    if (this.#older !== 'idle' || this.#low === null || this.#low.first <= 1) return null;
    this.#older = 'asked';
    this.#before = this.#low.first;
    this.#owner.changed();
    return { before: this.#low.first };
  }

  /** Takes older envelopes, each of which the one after it must name. */
  async takeOlder(envelopes: readonly Envelope[], more: boolean): Promise<Need> {
    if (this.#low === null || this.#head === null) return { kind: 'nothing' };
    // A page of before a leap does not join any more.
    if (this.#low.first !== this.#before) return { kind: 'nothing' };
    this.#older = more ? 'idle' : 'end';
    let low = this.#low;
    let left = this.#left;
    let need: Need = { kind: 'nothing' };
    const rows: EnvelopeRow[] = [];
    const records: R[] = [];
    for (const envelope of envelopes.toReversed()) {
      const opened = await openOlder(this.#reader, low.prev, envelope);
      if (opened.kind === 'key_missing') {
        need = { kind: 'keys', epoch: opened.epoch };
        this.#older = 'idle';
        break;
      }
      if (opened.kind !== 'events') {
        this.alarm(opened.kind === 'tampered' ? opened.code : 'tampered');
        break;
      }
      if (!passes(left, opened.header, opened.head)) {
        this.alarm('tampered');
        break;
      }
      if (left !== null && opened.header.first <= left.seq) left = null;
      low = { first: opened.header.first, prev: opened.header.prev };
      rows.push(this.#row(opened.header.last, envelope));
      records.unshift(...(parseRecords<R>(opened.plaintext) ?? []));
    }
    if (rows.length > 0) {
      await this.#store.putEnvelopes(this.#place(this.#head, low, left), rows);
      this.#low = low;
      this.#left = left;
      this.#owner.olderRecords(records);
    }
    this.#owner.changed();
    return need;
  }

  /** The relay could not give a page. */
  olderFailed(): void {
    if (this.#older === 'asked') this.#older = 'idle';
    this.#owner.changed();
  }

  /** What came could not be made durable; nothing more is read until the next subscription. */
  pause(): void {
    this.#ignoring = true;
    this.#held = [];
    if (this.#older === 'asked') this.#older = 'idle';
    this.#become({ state: 'waiting' });
  }

  /** Forgets all but the newest of what is kept, for want of room. */
  async makeRoom(): Promise<void> {
    if (this.#head === null || this.#low === null) return;
    const row = this.#place(this.#head, this.#low, this.#left);
    this.#low = await this.#trim(row, LEAST_ENVELOPES);
  }

  /** The relay has not all of it; what is here stays, and the rest comes with the host. */
  limited(): void {
    if (this.#older === 'asked') this.#older = 'idle';
    this.#become({ state: 'limited' });
  }

  /** Something is not what the host wrote; nothing more is read until the next subscription. */
  alarm(code: Code): void {
    this.#ignoring = true;
    this.#become({ state: 'alarm', code });
  }

  async #reopenAll(kept: readonly EnvelopeRow[]): Promise<R[]> {
    const opened = await Promise.all(kept.map(({ bytes }) => this.#reopen(decodeEnvelope(bytes))));
    return opened.flat();
  }

  async #reopen(envelope: Envelope): Promise<R[]> {
    const key = this.#reader.keys.get(parseEnvelopeHeader(envelope).epoch);
    return key === undefined ? [] : (parseRecords<R>(await openEnvelope(key, envelope)) ?? []);
  }

  /** Drops what is too old to be kept; it can be had from the relay again. */
  async #trim(row: StreamRow, limit: number): Promise<StreamRow['low']> {
    const oldest = await this.#store.oldestKept(this.host, this.stream, limit);
    if (oldest === null) return row.low;
    const { first, prev } = parseEnvelopeHeader(decodeEnvelope(oldest.bytes));
    const low = { first, prev };
    if (first > row.low.first) await this.#store.trim({ ...row, low });
    return low;
  }

  #hold(envelopes: readonly Envelope[]): Need {
    // Those that are too many to hold are at the relay, and the cursor stands before them.
    if (this.#held.length + envelopes.length > MAX_HELD) this.#spilt = true;
    if (!this.#spilt) this.#held.push(...envelopes);
    return { kind: 'nothing' };
  }

  /** Persist, then apply: the place moves in memory once it has moved on the disk. */
  async #commit(batch: Batch<R>): Promise<void> {
    if (batch.isEmpty || batch.head === null || batch.low === null) return;
    const { head, low, records, leapt } = batch;
    const rows = batch.envelopes.map(([last, envelope]) => this.#row(last, envelope));
    const left = leapt ? this.#head : this.#left;
    const row = this.#place(head, low, left);
    await this.#store.putEnvelopes(row, rows);
    // Before a place where something is missing there is nothing that joins.
    if (this.#low !== null && low.first > this.#low.first) {
      await this.#store.trim(row);
      this.#older = 'idle';
    }
    this.#head = head;
    this.#low = low;
    this.#left = left;
    this.#owner.records(records, leapt);
    batch.clear();
  }

  /** Whether very much comes before the end, and the end can be known without it. */
  #isFar(head: number, base: number): boolean {
    return this.#head !== null && base > this.#head.seq && head - this.#head.seq > FAR;
  }

  #place(head: Head, low: StreamRow['low'], left: Head | null): StreamRow {
    const row = { host: this.host, stream: this.stream, head, low };
    return left === null ? row : { ...row, left };
  }

  #takeLive(header: { epoch: number; first: number; last: number }, plaintext: Bytes): void {
    const { epoch, counter } = this.#lastLive;
    if (header.epoch < epoch || (header.epoch === epoch && header.last <= counter)) return;
    this.#lastLive = { epoch: header.epoch, counter: header.last };
    this.#owner.live(header.first, plaintext);
  }

  #settle(): void {
    if (this.#ignoring || this.#held.length > 0 || this.#target === null) return;
    if ((this.#head?.seq ?? 0) >= this.#target && this.#sync.state !== 'current')
      this.#become({ state: 'current' });
  }

  #row(last: number, envelope: Envelope): EnvelopeRow {
    return { host: this.host, stream: this.stream, last, bytes: encodeEnvelope(envelope) };
  }

  /** An alarm stands until everything has been read and believed again. */
  #become(sync: SyncView): void {
    const stands = this.#sync.state === 'alarm' && sync.state !== 'alarm' && sync.state !== 'current';
    if (!stands) this.#sync = sync;
    this.#owner.changed();
  }
}

/** What a reader may begin with when something is missing before it: the newest snapshot, and no other. */
function beginning(accepted: Accepted): Accepted {
  if (accepted.kind !== 'events') return accepted;
  const { base, first, last } = accepted.header;
  return first <= base && base <= last ? accepted : { kind: 'tampered', code: 'tampered' };
}

/** Whether an older envelope says the same as what was read before a leap, where it meets that. */
function passes(left: Head | null, header: { first: number; last: number }, head: Head): boolean {
  if (left === null || header.first > left.seq) return true;
  return header.last < left.seq || (header.last === left.seq && sameBytes(head.hash, left.hash));
}

/** Envelopes that were believed and are not durable yet. */
class Batch<R> {
  head: Head | null;
  low: StreamRow['low'] | null;
  envelopes: [number, Envelope][] = [];
  records: R[] = [];
  /** Whether it begins after what was leapt over. */
  leapt = false;

  constructor(head: Head | null, low: StreamRow['low'] | null) {
    this.head = head;
    this.low = low;
  }

  get isEmpty(): boolean {
    return this.envelopes.length === 0;
  }

  add(
    header: { first: number; last: number; prev: Bytes },
    head: Head,
    envelope: Envelope,
    records: R[],
  ): void {
    this.low ??= { first: header.first, prev: header.prev };
    this.head = head;
    this.envelopes.push([header.last, envelope]);
    this.records.push(...records);
  }

  clear(): void {
    this.envelopes = [];
    this.records = [];
    this.leapt = false;
  }
}

/** Nothing when the host wrote something that is not an array of records. */
function parseRecords<R>(plaintext: Bytes): R[] | null {
  try {
    const records: unknown = JSON.parse(fromUtf8(plaintext));
    return Array.isArray(records) ? (records as R[]) : null;
  } catch {
    return null;
  }
}
