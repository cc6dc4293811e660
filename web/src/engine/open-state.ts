/**
 * What is open in a session at the end of its log, whatever stretch of the log is shown. It begins
 * at a snapshot or at the first event; what was read before one of these is known waits here.
 */
import type { LogRecord, Session } from '../protocol/types';
import type { Usage } from './rows';
import { applyEvent, EMPTY_SESSION, pendingOf } from './session';

export class OpenState {
  session: Session = EMPTY_SESSION;
  usage: Usage | null = null;
  /** Whether `session` is the whole open state. */
  complete = false;
  /** When each open question was asked, as far as is known. */
  #asked = new Map<string, number>();
  #early: LogRecord[] = [];

  append(records: readonly LogRecord[]): void {
    if (!this.complete) this.#early.push(...records);
    for (const record of records) this.#apply(record);
    if (this.complete) this.#early = [];
  }

  /** Takes what came before everything else; of use only while the beginning is missing. */
  prepend(records: readonly LogRecord[]): void {
    if (this.complete) return;
    const all = [...records, ...this.#early];
    this.#early = [];
    this.session = EMPTY_SESSION;
    this.#asked.clear();
    this.append(all);
  }

  /** The questions that wait for a person, oldest first. */
  pending(): { readonly approval: string; readonly ask: string; readonly at: number }[] {
    if (!this.complete || this.session.ended) return [];
    return pendingOf(this.session).map((approval) => ({
      approval,
      ask: this.session.approvals[approval]?.ask ?? '',
      at: this.#asked.get(approval) ?? 0,
    }));
  }

  #apply({ seq, at, cause, event }: LogRecord): void {
    if (seq === 1 || event.type === 'snapshot') this.complete = true;
    this.session = applyEvent(this.session, event, cause);
    if (event.type === 'usage_updated') {
      const { type: _type, ...usage } = event;
      this.usage = usage;
    }
    const { approvals } = this.session;
    for (const approval of Object.keys(approvals)) {
      if (!this.#asked.has(approval)) this.#asked.set(approval, at);
    }
    for (const approval of this.#asked.keys()) {
      if (approvals[approval] === undefined) this.#asked.delete(approval);
    }
  }
}
