/**
 * What is open in a session at the end of its log, whatever stretch of the log is shown. It begins
 * at a snapshot or at the first event; what was read before one of these is known waits here.
 */
import type { Delivery, LogRecord, Session } from '../protocol/types';
import { deliveries } from './delivery';
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

  /** Gives how far wishes have come by these records. */
  append(records: readonly LogRecord[]): Map<string, Delivery> {
    if (!this.complete) this.#early.push(...records);
    const moved = new Map<string, Delivery>();
    for (const record of records) {
      for (const [command, delivery] of this.#deliveries(record)) moved.set(command, delivery);
      this.#apply(record);
    }
    if (this.complete) this.#early = [];
    return moved;
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

  /** A wish that is not for the agent has its whole effect with the event that it caused. */
  #deliveries({ cause, event }: LogRecord): [string, Delivery][] {
    const moved = deliveries(this.session, cause ?? null, event);
    const isForAgent =
      cause === undefined || this.session.wishes[cause] !== undefined || moved.some(([id]) => id === cause);
    return isForAgent ? moved : [...moved, [cause, 'done']];
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
