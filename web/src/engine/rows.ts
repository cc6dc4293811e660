/** What a conversation is shown as: rows in order, each with a key that stays its own. */
import type {
  Author,
  Content,
  MessageRole,
  PlanEntry,
  SessionEvent,
  StopReason,
  ToolPatch,
  Verdict,
} from '../protocol/types';

type Placed = { readonly key: string; readonly at: number };

/** Events that are told in one line. */
export type NoteEvent = Extract<
  SessionEvent,
  {
    type:
      | 'session_opened'
      | 'title_changed'
      | 'agent_started'
      | 'agent_exited'
      | 'agent_restarting'
      | 'mode_requested'
      | 'mode_changed'
      | 'config_requested'
      | 'prompt_withdrawn'
      | 'prompt_edited'
      | 'prompt_moved'
      | 'queue_paused'
      | 'queue_resumed'
      | 'turn_cancel_requested'
      | 'session_ended';
  }
>;

export type PromptRow = Placed & {
  readonly kind: 'prompt';
  readonly turn: string;
  readonly prompt: string;
  /** Unknown while the page that holds the prompt has not been read. */
  readonly said: { readonly text: string; readonly by: Author } | null;
};

export type MessageRow = Placed & {
  readonly kind: 'message';
  readonly role: MessageRole;
  readonly content: readonly Content[];
  readonly parent: string | null;
  /** Whether it still grows. */
  readonly live: boolean;
};

export type ToolRow = Placed & {
  readonly kind: 'tool';
  readonly tool: ToolPatch;
  /** Why it does not go on, although nobody told its end: the agent's program ended, or the turn. */
  readonly over: 'cut' | 'unended' | null;
};

export type ApprovalRow = Placed & {
  readonly kind: 'approval';
  readonly approval: string;
  /** The very bytes of the ask. */
  readonly ask: string;
  readonly settled: Settled | null;
};

/** Who decided an approval, and whether the agent has been told. */
export type Settled = {
  readonly at: number;
  readonly by: Author;
  readonly verdict: Verdict;
  readonly applied: boolean;
};

export type Row =
  | PromptRow
  | MessageRow
  | ToolRow
  | ApprovalRow
  | (Placed & { readonly kind: 'plan'; readonly entries: readonly PlanEntry[] })
  | (Placed & {
      readonly kind: 'turn_end';
      readonly reason: StopReason;
      readonly detail: string | null;
      readonly millis: number | null;
    })
  | (Placed & { readonly kind: 'notice'; readonly code: string; readonly text: string })
  | (Placed & { readonly kind: 'raw'; readonly name: string; readonly json: string })
  | (Placed & { readonly kind: 'note'; readonly event: NoteEvent });

export type Usage = Omit<Extract<SessionEvent, { type: 'usage_updated' }>, 'type'>;
