/**
 * One session as this device has it: its stream, what is open at its end, and the stretch of it
 * that is shown.
 */
import type { Delivery, Live, LogRecord } from '../protocol/types';
import { type Bytes, fromUtf8 } from './bytes';
import { OpenState } from './open-state';
import type { Row } from './rows';
import { activityOf, isLaterState } from './session';
import type { Store } from './store';
import { Stream } from './stream';
import type { ConversationState, PendingApproval } from './views';
import { Window } from './window';

/** Records that are shown at most, and those that are left when it becomes more. */
const SHOWN = { limit: 800, keep: 650 };
/** The same for a session that no page shows, and for a page that is told of very many at once. */
const UNSEEN = { limit: 400, keep: 200 };
/** Records that are read from the store at a time. */
const PAGE = 150;

export interface SessionLogEvents {
  now(): number;
  /** Rows, deltas or the state of reading changed. */
  changed(session: string): void;
  /** The list of sessions, the questions that wait, the roster or the presence changed. */
  hostChanged(): void;
  /** How far these commands have come, by what the log says. */
  delivered(commands: ReadonlyMap<string, Delivery>): void;
}

export class SessionLog {
  readonly session: string;
  readonly stream: Stream<LogRecord>;
  readonly #events: SessionLogEvents;
  readonly #open = new OpenState();
  readonly #window = new Window(this.#open);
  /** Pages that show it, and whether each stays at the end. */
  readonly #pages = new Map<string, boolean>();
  /** How many records came since pages were told. */
  #untold = 0;

  constructor(
    host: { readonly peer: string; readonly key: CryptoKey },
    session: string,
    stream: string,
    keys: Map<number, CryptoKey>,
    store: Store,
    events: SessionLogEvents,
  ) {
    this.session = session;
    this.#events = events;
    this.stream = new Stream<LogRecord>(host.peer, host.key, stream, keys, store, {
      records: (records, leapt) => this.#append(records, leapt),
      olderRecords: (records) => this.#prepend(records),
      live: (after, deltas) => this.#live(after, deltas),
      changed: () => this.#events.changed(session),
    });
  }

  /** Whether its open state is known in full. */
  get complete(): boolean {
    return this.#open.complete;
  }

  get rows(): readonly Row[] {
    return this.#window.rows;
  }

  state(): ConversationState {
    const { session, usage } = this.#open;
    const { sync } = this.stream;
    const older = this.#hasStored ? 'more' : this.stream.older;
    const newer = this.#window.isAtEnd ? 'none' : 'more';
    const { paused } = this.#window;
    return { sync, session, activity: activityOf(session), usage, older, newer, paused };
  }

  /** The rows that changed since this was last asked; nothing when all must be told. */
  takeChanged(): (readonly [number, Row])[] | null {
    this.#untold = 0;
    return this.#window.takeChanged();
  }

  pending(): PendingApproval[] {
    const { host } = this.stream;
    const { title } = this.#open.session;
    return this.#open.pending().map((open) => ({ host, session: this.session, title, ...open }));
  }

  // --- where pages look

  /** A page shows it; `following` says that it stays at the end. */
  shownBy(page: string, following: boolean): void {
    this.#pages.set(page, following);
  }

  hiddenBy(page: string): void {
    this.#pages.delete(page);
  }

  /** Shows older records from the store; false when the relay must be asked. */
  async older(): Promise<boolean> {
    const { first } = this.#window;
    if (first === null || !this.#hasStored) return false;
    this.#window.prepend(await this.stream.readBack(first - 1, PAGE));
    this.#window.dropNewest(SHOWN.limit, SHOWN.keep);
    this.#events.changed(this.session);
    return true;
  }

  /** Shows newer records, where what is shown is not the end. */
  async newer(): Promise<void> {
    const { last, isAtEnd } = this.#window;
    if (last === null || isAtEnd) return;
    const records = await this.stream.readOn(last, PAGE);
    const end = records.at(-1)?.seq ?? last;
    this.#window.extend(records, end === this.stream.cursor);
    this.#window.dropOldest(SHOWN.limit, SHOWN.keep);
    this.#events.changed(this.session);
  }

  /** Shows the end. */
  async latest(): Promise<void> {
    const { cursor } = this.stream;
    if (this.#window.isAtEnd || cursor === null) return;
    this.#window.reset(await this.stream.readBack(cursor, PAGE));
    this.#events.changed(this.session);
  }

  /** Whether there are older records here than those that are shown. */
  get #hasStored(): boolean {
    const { first } = this.#window;
    return first !== null && first > (this.stream.first ?? first);
  }

  #append(records: readonly LogRecord[], leapt: boolean): void {
    if (records.some(({ event }) => isLaterState(event))) this.stream.alarm('unsupported_version');
    const delivered = this.#open.append(records);
    if (leapt) this.#window.reset(records);
    else this.#window.append(records);
    this.#untold += records.length;
    // Nobody's place is pulled away: who looks at older rows keeps them, and misses the end instead.
    const isRead = [...this.#pages.values()].includes(false);
    const isFew = this.#pages.size === 0 || this.#untold > UNSEEN.limit;
    const { limit, keep } = isFew && !isRead ? UNSEEN : SHOWN;
    if (isRead) this.#window.dropNewest(limit, keep);
    else this.#window.dropOldest(limit, keep);
    this.#events.delivered(delivered);
    this.#events.changed(this.session);
    this.#events.hostChanged();
  }

  #prepend(records: readonly LogRecord[]): void {
    this.#open.prepend(records);
    // A page of the relay may hold very many; those before the nearest are in the store.
    this.#window.prepend(records.slice(-PAGE));
    this.#window.dropNewest(SHOWN.limit, SHOWN.keep);
    this.#events.changed(this.session);
    this.#events.hostChanged();
  }

  #live(after: number, deltas: Bytes): void {
    for (const live of parseLive(deltas)) this.#window.live(after, this.#events.now(), live);
    this.#events.changed(this.session);
  }
}

/** Deltas are superseded by events: those that cannot be read are not missed. */
function parseLive(plaintext: Bytes): Live[] {
  try {
    const deltas: unknown = JSON.parse(fromUtf8(plaintext));
    return Array.isArray(deltas) ? (deltas as Live[]) : [];
  } catch {
    return [];
  }
}
