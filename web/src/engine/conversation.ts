/**
 * Builds what a conversation is shown as from its events and deltas, in order. It holds no more
 * than follows from them: reading the same events again gives the same rows.
 */
import type { Live, LogRecord, Session, SessionEvent, ToolPatch } from '../protocol/types';
import type { ApprovalRow, MessageRow, PromptRow, Row, ToolRow, Usage } from './rows';
import { absorb, applyEvent, EMPTY_SESSION, isFinal } from './session';

type Said = NonNullable<PromptRow['said']>;
type Text = Extract<Live, { type: 'text' }>;
type Paused = Extract<Live, { type: 'paused' }>;
type Growing = { readonly after: number; readonly at: number; readonly live: Text };

export class Conversation {
  /** In order; rows are only ever replaced in place or added at the end. */
  readonly rows: Row[] = [];
  session: Session = EMPTY_SESSION;
  usage: Usage | null = null;
  /** Why nothing happens: the host cannot write its log. Until the next event. */
  paused: Paused | null = null;
  /** Whether `session` is the whole open state: it began at the first event or at a snapshot. */
  complete = false;

  #places = new Map<string, number>();
  #touched = new Set<number>();
  #said = new Map<string, Said>();
  #tools: Session['tools'] = {};
  /** How many parts of a message there are. */
  #parts = new Map<string, number>();
  /** The seq of the event that last changed a message or tool; deltas from before it are old. */
  #superseded = new Map<string, number>();
  /** Messages that grow, each as one delta from its beginning. */
  #growing = new Map<string, Growing>();
  #turnBegan: number | null = null;
  /** Whether it is known that no turn runs. */
  #idle = false;
  #begun = false;
  /** Seq of the event before; what is missing after it is said. */
  #last = 0;

  /**
   * Says what is open around the events that follow: tool calls that began before them, and
   * questions that wait and were asked before them, so that whoever sees the end sees every one.
   */
  goOn(
    session: Session,
    asked: readonly { readonly approval: string; readonly ask: string; readonly at: number }[],
  ): void {
    this.#tools = session.tools;
    for (const { approval, ask, at } of asked) {
      this.#put({ kind: 'approval', key: approval, at, approval, ask, settled: null });
    }
  }

  apply(record: LogRecord): void {
    if (this.#last !== 0 && record.seq > this.#last + 1) {
      this.#put({
        kind: 'notice',
        key: `gap${record.seq}`,
        at: record.at,
        code: 'history_limited',
        text: '',
      });
    }
    this.#last = record.seq;
    const { event } = record;
    this.#begin(record);
    this.session = applyEvent(this.session, event, record.cause);
    this.#show(record, event);
  }

  /** Shows a delta that came after the event `after`. */
  applyLive(after: number, at: number, live: Live): void {
    if (live.type === 'text') this.#grow(after, at, live);
    else if (live.type === 'tool') this.#progress(after, at, live.tool);
    else if (live.type === 'paused') this.paused = live;
  }

  /** Goes on with the messages that grow in `other`, which was built from fewer events. */
  adoptLive(other: Conversation): void {
    for (const { after, at, live } of other.#growing.values()) this.#grow(after, at, live);
  }

  /** The places of rows that changed since this was last asked. */
  takeTouched(): number[] {
    const touched = [...this.#touched].sort((a, b) => a - b);
    this.#touched.clear();
    return touched;
  }

  #begin(record: LogRecord): void {
    const { event } = record;
    if (!this.#begun && record.seq === 1) this.complete = true;
    if (event.type === 'snapshot') {
      this.complete = true;
      this.#tools = event.state.tools;
      this.#idle = event.state.turn === null;
      for (const { prompt, text, by } of event.state.queue) this.#said.set(prompt, { text, by });
      if (!this.#begun) this.#showOpen(record.at, event.state);
    }
    this.#begun = true;
  }

  /** A reader that begins at a snapshot still sees every question that waits. */
  #showOpen(at: number, state: Session): void {
    for (const [approval, { ask }] of Object.entries(state.approvals)) {
      this.#put({ kind: 'approval', key: approval, at, approval, ask, settled: null });
    }
    if (state.plan.length > 0) this.#put({ kind: 'plan', key: 'plan', at, entries: state.plan });
  }

  #show({ seq, at }: LogRecord, event: SessionEvent): void {
    const key = `e${seq}`;
    switch (event.type) {
      case 'prompt_queued':
        this.#said.set(event.prompt, { text: event.text, by: event.by });
        return;
      case 'prompt_edited': {
        const said = this.#said.get(event.prompt);
        if (said !== undefined) this.#said.set(event.prompt, { ...said, text: event.text });
        this.#put({ kind: 'note', key, at, event });
        return;
      }
      case 'turn_started':
        this.#turnBegan = at;
        this.#idle = false;
        this.#put({
          kind: 'prompt',
          key,
          at,
          turn: event.turn,
          prompt: event.prompt,
          said: this.#said.get(event.prompt) ?? null,
        });
        return;
      case 'turn_ended': {
        this.#idle = true;
        this.#settleLive();
        this.#endTools('unended');
        const millis = this.#turnBegan === null ? null : Math.max(0, at - this.#turnBegan);
        this.#turnBegan = null;
        this.#put({ kind: 'turn_end', key, at, reason: event.reason, detail: event.detail, millis });
        return;
      }
      case 'message_added':
        this.#add(seq, at, event);
        return;
      case 'plan_updated':
        this.#put({ kind: 'plan', key: `plan${this.session.turn?.turn ?? ''}`, at, entries: event.entries });
        return;
      case 'tool_updated': {
        this.#superseded.set(`t${event.tool.id}`, seq);
        this.#patchTool(at, event.tool);
        return;
      }
      case 'approval_requested': {
        const { approval, ask } = event;
        this.#put({ kind: 'approval', key: approval, at, approval, ask, settled: null });
        return;
      }
      case 'approval_decided': {
        const { by, verdict } = event;
        this.#patchApproval(event.approval, (row) => ({
          ...row,
          settled: { at, by, verdict, applied: false },
        }));
        return;
      }
      case 'approval_applied':
        this.#patchApproval(event.approval, (row) =>
          row.settled === null ? row : { ...row, settled: { ...row.settled, applied: true } },
        );
        return;
      case 'usage_updated': {
        const { type: _type, ...usage } = event;
        this.usage = usage;
        return;
      }
      case 'raw_noted':
        this.#put({ kind: 'raw', key, at, name: event.kind, json: event.json });
        return;
      case 'noticed':
        this.#put({ kind: 'notice', key, at, code: event.code, text: event.text });
        return;
      case 'agent_exited':
      case 'session_ended':
        this.#settleLive();
        this.#endTools('cut');
        this.#put({ kind: 'note', key, at, event });
        return;
      case 'session_opened':
      case 'title_changed':
      case 'agent_started':
      case 'agent_restarting':
      case 'mode_requested':
      case 'mode_changed':
      case 'config_requested':
      case 'prompt_withdrawn':
      case 'prompt_moved':
      case 'queue_paused':
      case 'queue_resumed':
      case 'turn_cancel_requested':
        this.#put({ kind: 'note', key, at, event });
        return;
      case 'modes_offered':
      case 'config_offered':
      case 'commands_offered':
      case 'snapshot':
        return;
      default:
        this.#unknown(key, at, event);
    }
  }

  #unknown(key: string, at: number, event: never): void {
    const json = JSON.stringify(event);
    const name = String((event as { type?: unknown }).type);
    this.#put({ kind: 'raw', key, at, name, json });
  }

  #add(seq: number, at: number, event: Extract<SessionEvent, { type: 'message_added' }>): void {
    const { message, role, content, parent } = event;
    const name = messageName(role, message);
    const part = this.#parts.get(name) ?? 0;
    this.#parts.set(name, part + 1);
    this.#superseded.set(name, seq);
    this.#growing.delete(name);
    this.#put({ kind: 'message', key: `${name}.${part}`, at, role, content, parent, live: false });
  }

  #grow(after: number, at: number, live: Text): void {
    const { role, parent, offset, text } = live;
    const name = messageName(role, live.message);
    if (after < (this.#superseded.get(name) ?? 0)) return;
    const key = `${name}.${this.#parts.get(name) ?? 0}`;
    const row = this.#row<MessageRow>(key);
    const first = row?.content[0];
    const had = first?.kind === 'text' ? first.text : '';
    if (offset > had.length) return;
    const whole = had.slice(0, offset) + text;
    this.#growing.set(name, { after, at: row?.at ?? at, live: { ...live, offset: 0, text: whole } });
    const content = [{ kind: 'text' as const, text: whole }];
    this.#put({ kind: 'message', key, at: row?.at ?? at, role, content, parent, live: true });
  }

  #progress(after: number, at: number, tool: ToolPatch): void {
    if (after < (this.#superseded.get(`t${tool.id}`) ?? 0)) return;
    const row = this.#row<ToolRow>(`t${tool.id}`);
    if (row !== undefined && !isFinal(row.tool.status)) this.#patchTool(at, tool);
  }

  #patchTool(at: number, tool: ToolPatch): void {
    const key = `t${tool.id}`;
    const row = this.#row<ToolRow>(key);
    const older = row?.tool ?? this.#tools[tool.id] ?? { id: tool.id };
    const isOver = this.#idle && !isFinal(absorb(older, tool).status);
    const over = isOver ? 'unended' : tool.status === undefined ? (row?.over ?? null) : null;
    this.#put({ kind: 'tool', key, at: row?.at ?? at, tool: absorb(older, tool), over });
  }

  #patchApproval(approval: string, change: (row: ApprovalRow) => ApprovalRow): void {
    const row = this.#row<ApprovalRow>(approval);
    if (row !== undefined) this.#put(change(row));
  }

  /** Nothing grows any more; what was seen of an unfinished message stays. */
  #settleLive(): void {
    this.#growing.clear();
    for (const row of this.rows) {
      if (row.kind === 'message' && row.live) this.#put({ ...row, live: false });
    }
  }

  /** What the agent did is not going on, whether it said so or not. */
  #endTools(over: 'cut' | 'unended'): void {
    for (const row of this.rows) {
      if (row.kind === 'tool' && row.over === null && !isFinal(row.tool.status)) this.#put({ ...row, over });
    }
  }

  #row<R extends Row>(key: string): R | undefined {
    const place = this.#places.get(key);
    return place === undefined ? undefined : (this.rows[place] as R | undefined);
  }

  #put(row: Row): void {
    const place = this.#places.get(row.key) ?? this.rows.length;
    this.#places.set(row.key, place);
    this.rows[place] = row;
    this.#touched.add(place);
  }
}

function messageName(role: string, message: string): string {
  return `m${role}/${message}`;
}
