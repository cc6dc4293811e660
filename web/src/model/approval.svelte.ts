/**
 * One approval card: what is asked, read from the ask's very bytes, and the answer a person gives.
 * The decision carries the digest of those bytes; how far it has come is told, never predicted.
 */
import { askDigest } from '../engine/ask';
import type { Stage, WishView } from '../engine/views';
import type { Answer, Ask, Choice, Question, Verdict } from '../protocol/types';
import type { Client } from './client.svelte';
import { answersOf, emptyValues, type Field, parseSchema, type Values } from './form';
import { isFree } from './wishes';

/** Taps that come sooner after the card appeared were meant for something else. */
const TAP_GUARD_MILLIS = 500;

export type ApprovalKey = {
  readonly host: string;
  readonly session: string;
  readonly approval: string;
  readonly ask: string;
};

export class ApprovalModel {
  /** Nothing when this version cannot read it. */
  readonly ask: Ask | null;
  readonly fields: readonly Field[] | null;
  reason = $state('');
  /** Chosen answers, by question. */
  chosen = $state<Record<string, string[]>>({});
  /** Answers in a person's own words, by question. */
  own = $state<Record<string, string>>({});
  values = $state<Values>({});
  /** Whether a tap was ignored because it came too early. */
  tooEarly = $state(false);
  /** The decision that this card sent; a second tap must not send another. */
  #sent = $state<string | null>(null);
  #deciding = false;
  readonly key: ApprovalKey;
  readonly #client: Client;
  #shownAt: number;

  constructor(client: Client, key: ApprovalKey) {
    this.#client = client;
    this.key = key;
    this.ask = parseAsk(key.ask);
    this.#shownAt = client.now();
    const subject = this.ask?.subject;
    this.fields = subject?.kind === 'form' ? parseSchema(subject.schema) : null;
    if (subject?.kind === 'form' && this.fields !== null)
      this.values = emptyValues(this.fields, subject.schema);
  }

  /** The card came into sight again: taps must wait again. */
  appeared(): void {
    this.#shownAt = this.#client.now();
  }

  /** The newest decision that this device made on it. */
  get wish(): WishView | null {
    const wishes = this.#client.overview?.wishes ?? [];
    const mine = wishes.filter(
      ({ command }) => command.type === 'decide_approval' && command.approval === this.key.approval,
    );
    return mine.find(({ id }) => id === this.#sent) ?? (this.#sent === null ? (mine.at(-1) ?? null) : null);
  }

  get stage(): Stage | null {
    return this.wish?.stage ?? null;
  }

  /** Whether an answer can be given: none is on its way. */
  get isOpen(): boolean {
    return this.stage === null ? this.#sent === null : isFree(this.stage);
  }

  /** Whether every question has an answer. */
  get isAnswered(): boolean {
    return this.#answers() !== null;
  }

  async choose(choice: Choice): Promise<void> {
    const reason = this.reason.trim();
    const rejects = choice.kind === 'reject_once' || choice.kind === 'reject_always';
    await this.#decide({
      kind: 'selected',
      option: choice.id,
      allows: choice.kind === 'allow_once' || choice.kind === 'allow_always',
      reason: rejects && reason !== '' ? reason : null,
    });
  }

  async answer(): Promise<void> {
    const answers = this.#answers();
    if (answers !== null) await this.#decide({ kind: 'answered', answers });
  }

  toggle(question: Question, answer: Answer): void {
    const before = this.chosen[question.id] ?? [];
    const has = before.includes(answer.label);
    if (question.multiple) {
      this.chosen[question.id] = has
        ? before.filter((label) => label !== answer.label)
        : [...before, answer.label];
    } else {
      this.chosen[question.id] = has ? [] : [answer.label];
      this.own[question.id] = '';
    }
  }

  /** Writes an answer in a person's own words. */
  write(question: Question, text: string): void {
    this.own[question.id] = text;
    if (!question.multiple && text.trim() !== '') this.chosen[question.id] = [];
  }

  async #decide(verdict: Verdict): Promise<void> {
    this.tooEarly = this.#client.now() - this.#shownAt < TAP_GUARD_MILLIS;
    if (this.tooEarly || this.#deciding || !this.isOpen) return;
    this.#deciding = true;
    const { host, session, approval, ask } = this.key;
    const digest = await askDigest(ask);
    this.#sent = this.#client.wish(host, { type: 'decide_approval', session, approval, digest, verdict });
    this.#deciding = false;
  }

  #answers(): Record<string, unknown> | null {
    const subject = this.ask?.subject;
    if (subject?.kind === 'form') return this.fields === null ? null : answersOf(this.fields, this.values);
    if (subject?.kind !== 'questions') return null;
    const answers: Record<string, unknown> = {};
    for (const question of subject.questions) {
      const own = (this.own[question.id] ?? '').trim();
      const given = [...(this.chosen[question.id] ?? []), ...(own === '' ? [] : [own])];
      if (given.length === 0) return null;
      answers[question.id] = question.multiple ? given : given[0];
    }
    return answers;
  }
}

function parseAsk(text: string): Ask | null {
  try {
    const ask = JSON.parse(text) as Partial<Ask> | null;
    const isAsk = typeof ask?.subject?.kind === 'string' && Array.isArray(ask.options);
    return isAsk ? (ask as Ask) : null;
  } catch {
    return null;
  }
}
