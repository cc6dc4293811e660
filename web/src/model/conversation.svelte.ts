/** The conversation screen: rows, the prompt box, the queue, and wishes about the session. */
import { heldBack } from '../engine/presence';
import type { ApprovalRow, Row, ToolRow } from '../engine/rows';
import { isFinal } from '../engine/session';
import type { ConversationState, HostView, Stage, WishView } from '../engine/views';
import type { BlobRef, Command, Delivery, Held, Queued, Summary } from '../protocol/types';
import type { Client, RowsHeard } from './client.svelte';
import { type Doing, doingOf } from './connection';
import { reuse } from './same';
import { isFree, isOver } from './wishes';

/** Wishes of these kinds are told beside what they are about, not in the list of wishes. */
const QUIET: ReadonlySet<Command['type']> = new Set([
  'decide_approval',
  'withdraw_prompt',
  'edit_prompt',
  'move_prompt',
  'send_keys',
]);

export class ConversationModel {
  readonly host: string;
  readonly session: string;
  rows = $state.raw<readonly Row[]>([]);
  state = $state.raw<ConversationState | null>(null);
  draft = $state('');
  readonly #client: Client;
  readonly #hide: () => void;

  constructor(client: Client, host: string, session: string) {
    this.#client = client;
    this.host = host;
    this.session = session;
    this.draft = client.unkept.draft(session);
    this.#hide = client.show(host, session, (message) => this.#hear(message));
  }

  dispose(): void {
    this.#hide();
  }

  /** What is in the box outlives a reload. */
  keepDraft(): void {
    this.#client.unkept.putDraft(this.session, this.draft);
  }

  /** Takes words back that could not be kept, when the box is empty. */
  takeBack(): void {
    if (this.draft === '') this.draft = this.#client.unkept.draft(this.session);
  }

  get client(): Client {
    return this.#client;
  }

  get hostView(): HostView | null {
    return this.#client.overview?.hosts.find(({ peer }) => peer === this.host) ?? null;
  }

  get summary(): Summary | null {
    return this.hostView?.sessions.find(({ session }) => session === this.session) ?? null;
  }

  get title(): string {
    return this.state?.session.title || this.summary?.title || '';
  }

  /** What the session is doing, as far as that is known. */
  get doing(): Doing | null {
    return doingOf(this.hostView, this.session, this.state?.activity ?? null, this.#client.at);
  }

  /** How many of its newest events the relay holds back. */
  get heldBack(): number {
    const { hostView } = this;
    if (hostView === null) return 0;
    const stream = this.session.replace(/^ses_/, 'str_');
    return heldBack(hostView.known, this.#client.at).find(([of]) => of === stream)?.[1] ?? 0;
  }

  /** Why the host lets it wait, although nobody was asked. */
  get held(): Held | null {
    return this.state?.paused ?? this.hostView?.known.sessions[this.session]?.held ?? null;
  }

  get isRunning(): boolean {
    return this.state !== null && this.state.session.turn !== null && !this.hasEnded;
  }

  get isCancelling(): boolean {
    const isAsked = this.wishes.some(
      ({ command, stage }) =>
        command.type === 'cancel_turn' && !isFree(stage) && stage.kind !== 'indeterminate',
    );
    return this.state?.session.turn?.cancelling === true || isAsked;
  }

  get hasEnded(): boolean {
    return this.state?.session.ended === true;
  }

  get canSend(): boolean {
    return this.draft.trim() !== '' && !this.hasEnded;
  }

  /** This session's wishes that are still worth telling. */
  get wishes(): WishView[] {
    const wishes = this.#client.overview?.wishes ?? [];
    return wishes.filter(
      ({ command, stage }) =>
        'session' in command &&
        command.session === this.session &&
        !isOver(stage) &&
        (stage.kind === 'indeterminate' || !isToldElsewhere(command, stage)),
    );
  }

  /** How far a prompt is that the agent has not shown to have taken yet. */
  delivery(prompt: string): Delivery | null {
    const wishes = Object.values(this.state?.session.wishes ?? {});
    return wishes.find((wish) => wish?.aim.kind === 'prompt' && wish.aim.prompt === prompt)?.delivery ?? null;
  }

  /** Questions that wait, by their rows. */
  get waiting(): number {
    return this.rows.filter((row) => row.kind === 'approval' && this.isWaiting(row)).length;
  }

  /** Whether a question waits at the end of the log, wherever the rows that are shown stop. */
  isWaiting({ approval, settled }: ApprovalRow): boolean {
    return settled === null && this.state?.session.approvals[approval]?.decided === null;
  }

  /** Whether what a tool call says is the present: one that has ended needs nobody's word. */
  isFresh({ tool }: ToolRow): boolean {
    return isFinal(tool.status) || this.doing?.fresh === true;
  }

  /** Why a tool call is not said to go on: its end may also lie after what is shown. */
  overOf({ tool, over }: ToolRow): ToolRow['over'] | 'beyond' {
    if (over !== null || isFinal(tool.status)) return over;
    return this.hasNewer && this.state?.session.tools[tool.id] === undefined ? 'beyond' : null;
  }

  /** The newest wish about a prompt that waits: to take it back, to change or to move it. */
  about(prompt: string): WishView | null {
    const wishes = this.#client.overview?.wishes ?? [];
    const mine = wishes.filter(
      ({ command, stage }) => 'prompt' in command && command.prompt === prompt && !isOver(stage),
    );
    return mine.at(-1) ?? null;
  }

  send(): void {
    if (!this.canSend) return;
    this.#wish({ type: 'prompt', session: this.session, text: this.draft.trim() });
    this.draft = '';
  }

  /** Puts a refused prompt back into the box. */
  editAgain(wish: WishView): void {
    if (wish.command.type === 'prompt' && this.draft.trim() === '') this.draft = wish.command.text;
    this.dismiss(wish);
  }

  dismiss(wish: WishView): void {
    this.#client.send({ type: 'dismiss', id: wish.id });
  }

  stop(): void {
    if (this.isRunning && !this.isCancelling) this.#wish({ type: 'cancel_turn', session: this.session });
  }

  withdraw(prompt: string): void {
    this.#wish({ type: 'withdraw_prompt', session: this.session, prompt });
  }

  /** Changes a prompt that waits, as it was shown: who was first wins. */
  edit({ prompt, revision, text: before }: Queued, text: string): void {
    if (text.trim() === '' || text.trim() === before) return;
    this.#wish({ type: 'edit_prompt', session: this.session, prompt, revision, text: text.trim() });
  }

  /** Lets a prompt that waits come before another one. */
  moveBefore(prompt: string, before: string): void {
    this.#wish({ type: 'move_prompt', session: this.session, prompt, before });
  }

  recall(wish: WishView): void {
    this.#client.send({ type: 'recall', id: wish.id });
  }

  retry(wish: WishView): void {
    this.#client.retry(wish.id);
  }

  setMode(mode: string): void {
    this.#wish({ type: 'set_mode', session: this.session, mode });
  }

  setConfig(option: string, value: string): void {
    this.#wish({ type: 'set_config', session: this.session, option, value });
  }

  rename(title: string): void {
    if (title.trim() !== '') this.#wish({ type: 'rename', session: this.session, title: title.trim() });
  }

  resume(): void {
    this.#wish({ type: 'resume_agent', session: this.session });
  }

  end(): void {
    this.#wish({ type: 'end_session', session: this.session });
  }

  older(): void {
    if (this.state?.older === 'more') this.#client.send({ type: 'older', session: this.session });
  }

  newer(): void {
    if (this.hasNewer) this.#client.send({ type: 'newer', session: this.session });
  }

  /** Whether what is shown stops before the end. */
  get hasNewer(): boolean {
    return this.state?.newer === 'more';
  }

  latest(): void {
    if (this.hasNewer) this.#client.send({ type: 'latest', session: this.session });
  }

  /** Says whether the page stays at the end, so that nothing is dropped that somebody looks at. */
  look(following: boolean): void {
    this.#client.send({ type: 'look', session: this.session, following });
  }

  /** All of something that was clipped. */
  async fetch(blobs: readonly BlobRef[]): Promise<Blob> {
    return this.#client.fetch(this.host, this.session, blobs);
  }

  #wish(command: Command): void {
    this.#client.wish(this.host, command);
  }

  #hear(message: RowsHeard): void {
    this.state = message.state;
    if (message.type === 'rows_reset') {
      // What stays the same is not drawn again.
      this.rows = reuse(this.rows, message.rows);
      return;
    }
    if (message.changed.length === 0) return;
    const rows = [...this.rows];
    for (const [at, row] of message.changed) rows[at] = row;
    this.rows = rows;
  }
}

/** A prompt that is at the host stands in the queue or in the conversation. */
function isToldElsewhere(command: Command, stage: Stage): boolean {
  const isThere = stage.kind === 'received' || stage.kind === 'handed';
  return QUIET.has(command.type) || (command.type === 'prompt' && isThere);
}
