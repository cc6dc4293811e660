/**
 * The stretch of a session's log that is shown, as rows. It is bounded wherever it lies: what is
 * added at one end beyond the bound is dropped at the other, so that a log of any length costs the
 * same. It knows nothing of where records come from.
 */
import type { Live, LogRecord } from '../protocol/types';
import { Conversation } from './conversation';
import type { OpenState } from './open-state';
import type { Row } from './rows';

export class Window {
  #records: LogRecord[] = [];
  #conversation = new Conversation();
  readonly #open: OpenState;
  /** Whether it reaches the end of what was read. */
  #atEnd = true;
  /** Whether rows moved, so that a page must be told all of them. */
  #moved = false;

  constructor(open: OpenState) {
    this.#open = open;
  }

  get first(): number | null {
    return this.#records[0]?.seq ?? null;
  }

  get last(): number | null {
    return this.#records.at(-1)?.seq ?? null;
  }

  get isAtEnd(): boolean {
    return this.#atEnd;
  }

  get rows(): readonly Row[] {
    return this.#conversation.rows;
  }

  /** Why the host writes nothing more, until something comes. */
  get paused(): Extract<Live, { type: 'paused' }> | null {
    return this.#conversation.paused;
  }

  /** Begins anew with the end of the log. */
  reset(records: readonly LogRecord[]): void {
    this.#records = [...records];
    this.#atEnd = true;
    this.#rebuild();
  }

  /** Takes what the host has just written; nothing while an older stretch is shown. */
  append(records: readonly LogRecord[]): void {
    if (!this.#atEnd) return;
    this.#records.push(...records);
    for (const record of records) this.#conversation.apply(record);
  }

  /** Takes the records after its last one, which may be the end of what was read. */
  extend(records: readonly LogRecord[], isEnd: boolean): void {
    this.#atEnd = isEnd;
    this.#records.push(...records);
    this.#rebuild();
  }

  /** Takes the records before its first one; others would leave a hole. */
  prepend(records: readonly LogRecord[]): void {
    const joins = this.first === null || records.at(-1)?.seq === this.first - 1;
    if (joins) this.#records.unshift(...records);
    this.#rebuild();
  }

  /** Keeps at most `limit` records, and of more than that the newest `keep`. */
  dropOldest(limit: number, keep: number): void {
    if (this.#records.length <= limit) return;
    this.#records.splice(0, this.#records.length - keep);
    this.#rebuild();
  }

  /** Keeps at most `limit` records, and of more than that the oldest `keep`. */
  dropNewest(limit: number, keep: number): void {
    if (this.#records.length <= limit) return;
    this.#records.length = keep;
    this.#atEnd = false;
    this.#rebuild();
  }

  live(after: number, at: number, live: Live): void {
    if (this.#atEnd) this.#conversation.applyLive(after, at, live);
  }

  /** The rows that changed since this was last asked; nothing when all must be told. */
  takeChanged(): (readonly [number, Row])[] | null {
    const touched = this.#conversation.takeTouched();
    if (this.#moved) {
      this.#moved = false;
      return null;
    }
    return touched.flatMap((at) => {
      const row = this.rows[at];
      return row === undefined ? [] : [[at, row] as const];
    });
  }

  #rebuild(): void {
    const before = this.#conversation;
    this.#conversation = new Conversation();
    const asked = new Set(
      this.#records.flatMap(({ event }) => (event.type === 'approval_requested' ? event.approval : [])),
    );
    const outside = this.#open.pending().filter(({ approval }) => !asked.has(approval));
    this.#conversation.goOn(this.#open.session, outside);
    for (const record of this.#records) this.#conversation.apply(record);
    if (this.#atEnd) this.#conversation.adoptLive(before);
    this.#conversation.paused = before.paused;
    this.#moved = true;
  }
}
