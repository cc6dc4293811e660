/** One session as this device has it: its stream, its records, and the conversation they make. */
import type { Live, LogRecord } from '../protocol/types';
import { type Bytes, fromUtf8 } from './bytes';
import { Conversation } from './conversation';
import type { Row } from './rows';
import { activityOf, pendingOf } from './session';
import type { Store } from './store';
import { Stream } from './stream';
import type { ConversationState, PendingApproval } from './views';

export interface SessionLogEvents {
  now(): number;
  /** Rows, deltas or the state of reading changed. */
  changed(session: string): void;
  /** The list of sessions, the questions that wait, the roster or the presence changed. */
  hostChanged(): void;
  /** These commands have had their effect. */
  caused(commands: readonly string[]): void;
}

export class SessionLog {
  readonly session: string;
  readonly stream: Stream<LogRecord>;
  readonly #events: SessionLogEvents;
  readonly #records: LogRecord[] = [];
  #conversation = new Conversation();
  /** Whether rows moved, so that a page must be told all of them. */
  #moved = false;

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
      records: (records) => this.#append(records),
      olderRecords: (records) => this.#prepend(records),
      live: (after, deltas) => this.#live(after, deltas),
      changed: () => this.#events.changed(session),
    });
  }

  /** Whether its open state is known in full. */
  get complete(): boolean {
    return this.#conversation.complete;
  }

  get rows(): readonly Row[] {
    return this.#conversation.rows;
  }

  state(): ConversationState {
    const { session, usage } = this.#conversation;
    const { sync, older } = this.stream;
    return { sync, session, activity: activityOf(session), usage, older };
  }

  /** The rows that changed since this was last asked; nothing when all must be told. */
  takeChanged(): (readonly [number, Row])[] | null {
    const touched = this.#conversation.takeTouched();
    if (this.#moved) {
      this.#moved = false;
      return null;
    }
    return touched.flatMap((at) => {
      const row = this.#conversation.rows[at];
      return row === undefined ? [] : [[at, row] as const];
    });
  }

  pending(): PendingApproval[] {
    const { session } = this.#conversation;
    if (!this.complete || session.ended) return [];
    const asked = new Map(
      this.rows.flatMap((row) => (row.kind === 'approval' ? [[row.approval, row.at]] : [])),
    );
    return pendingOf(session).map((approval) => ({
      host: this.stream.host,
      session: this.session,
      title: session.title,
      approval,
      ask: session.approvals[approval]?.ask ?? '',
      at: asked.get(approval) ?? 0,
    }));
  }

  #append(records: readonly LogRecord[]): void {
    this.#records.push(...records);
    for (const record of records) this.#conversation.apply(record);
    this.#events.caused(records.flatMap(({ cause }) => cause ?? []));
    this.#events.changed(this.session);
    this.#events.hostChanged();
  }

  #prepend(records: readonly LogRecord[]): void {
    this.#records.unshift(...records);
    const before = this.#conversation;
    this.#conversation = new Conversation();
    for (const record of this.#records) this.#conversation.apply(record);
    this.#conversation.adoptLive(before);
    this.#moved = true;
    this.#events.changed(this.session);
    this.#events.hostChanged();
  }

  #live(after: number, deltas: Bytes): void {
    for (const live of parseLive(deltas)) this.#conversation.applyLive(after, this.#events.now(), live);
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
