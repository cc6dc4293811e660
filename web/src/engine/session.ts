/**
 * What a session becomes by an event: the twin of `core::session::Session::apply`. It decides
 * nothing. States are values: `applyEvent` returns a new one and leaves the old as it was.
 */
import type {
  Activity,
  HostEvent,
  PauseCause,
  Session,
  SessionEvent,
  ToolPatch,
  ToolStatus,
} from '../protocol/types';
import { noteDeliveries } from './delivery';

type QueueEvent = Extract<
  SessionEvent,
  {
    type:
      | 'prompt_queued'
      | 'prompt_edited'
      | 'prompt_moved'
      | 'prompt_withdrawn'
      | 'queue_paused'
      | 'queue_resumed';
  }
>;

/** What states are written as; the newest that is read. */
export const STATE_VERSION = 2;

export const EMPTY_SESSION: Session = {
  version: STATE_VERSION,
  title: '',
  titled: false,
  dir: '',
  branch: null,
  agent: '',
  program: { kind: 'starting', agent_session: null },
  modes: [],
  mode: null,
  config: [],
  commands: [],
  queue: [],
  paused: false,
  pause: null,
  turn: null,
  approvals: {},
  plan: [],
  tools: {},
  wishes: {},
  ended: false,
};

/** Whether a later version wrote a state: it is said to be so, and not guessed at. */
export function isLaterState(event: SessionEvent | HostEvent): boolean {
  if (event.type !== 'snapshot') return false;
  const version = 'state_version' in event.state ? event.state.state_version : event.state.version;
  return typeof version === 'number' && version > STATE_VERSION;
}

/** The state after `event`, which the command `cause` caused. */
export function applyEvent(before: Session, event: SessionEvent, cause?: string | null): Session {
  const session = noteDeliveries(before, cause ?? null, event);
  switch (event.type) {
    case 'session_opened': {
      const { title, dir, branch, agent } = event;
      return { ...session, title, dir, branch, agent };
    }
    case 'title_changed':
      return { ...session, title: event.title, titled: true };
    case 'agent_started':
      return { ...session, program: { kind: 'up', agent_session: event.agent_session } };
    case 'agent_exited': {
      const program = { kind: 'gone' as const, agent_session: session.program.agent_session };
      return hold({ ...session, program, tools: {}, approvals: {} }, 'agent_ended');
    }
    case 'agent_restarting':
      return restart(release(session));
    case 'modes_offered':
      return { ...session, modes: event.modes, mode: event.current ?? session.mode };
    case 'mode_changed':
      return { ...session, mode: event.mode };
    case 'config_offered':
      return { ...session, config: event.options };
    case 'commands_offered':
      return { ...session, commands: event.commands };
    case 'prompt_queued':
    case 'prompt_edited':
    case 'prompt_moved':
    case 'prompt_withdrawn':
    case 'queue_paused':
    case 'queue_resumed':
      return applyToQueue(session, event);
    case 'turn_started': {
      const { turn, prompt } = event;
      return { ...withoutPrompt(session, prompt), turn: { turn, prompt, cancelling: false } };
    }
    case 'turn_cancel_requested':
      return { ...session, turn: session.turn && { ...session.turn, cancelling: true } };
    case 'turn_ended':
      return { ...session, turn: null, tools: {} };
    case 'plan_updated':
      return { ...session, plan: event.entries };
    case 'tool_updated':
      return { ...session, tools: applyTool(session.tools, event.tool) };
    case 'approval_requested': {
      const { approval, request, ask } = event;
      return { ...session, approvals: { ...session.approvals, [approval]: { request, ask, decided: null } } };
    }
    case 'approval_decided': {
      const open = session.approvals[event.approval];
      if (open === undefined) return session;
      const decided = { ...open, decided: event.verdict };
      return { ...session, approvals: { ...session.approvals, [event.approval]: decided } };
    }
    case 'approval_applied':
      return { ...session, approvals: without(session.approvals, event.approval) };
    case 'session_ended':
      return release({ ...session, ended: true, queue: [] });
    case 'snapshot':
      return fromSnapshot(event.state);
    case 'mode_requested':
    case 'config_requested':
    case 'message_added':
    case 'usage_updated':
    case 'raw_noted':
    case 'noticed':
      return session;
    default:
      return unknownEvent(event, session);
  }
}

/** What the session is doing. */
export function activityOf(session: Session): Activity {
  if (session.ended) return 'ended';
  switch (session.program.kind) {
    case 'gone':
      return 'agent_gone';
    case 'starting':
      return 'starting';
    case 'up':
      if (pendingOf(session).length > 0) return 'requires_action';
      return session.turn === null ? 'idle' : 'running';
  }
}

/** The questions that wait for a person, oldest first. */
export function pendingOf(session: Session): string[] {
  return Object.keys(session.approvals)
    .filter((approval) => session.approvals[approval]?.decided === null)
    .sort();
}

export function isFinal(status: ToolStatus | undefined): boolean {
  return status === 'completed' || status === 'failed' || status === 'rejected';
}

/** Takes over every field that `newer` has; the twin of `ToolPatch::absorb`. */
export function absorb(older: ToolPatch, newer: ToolPatch): ToolPatch {
  return { ...older, ...newer };
}

function applyTool(tools: Session['tools'], tool: ToolPatch): Session['tools'] {
  if (isFinal(tool.status)) return without(tools, tool.id);
  const { content: _content, input: _input, ...patch } = tool;
  return { ...tools, [tool.id]: absorb(tools[tool.id] ?? { id: tool.id }, patch) };
}

/** A state as it was written, perhaps by an earlier version. */
function fromSnapshot(state: Session): Session {
  const version = Math.max(state.version ?? 1, STATE_VERSION);
  return { ...EMPTY_SESSION, ...state, version };
}

function applyToQueue(session: Session, event: QueueEvent): Session {
  switch (event.type) {
    case 'prompt_queued': {
      const { prompt, text, by } = event;
      const queued = { ...session, queue: [...session.queue, { prompt, text, by, revision: 0 }] };
      return session.paused ? queued : restart(queued);
    }
    case 'prompt_edited': {
      const { prompt, text, revision } = event;
      const queue = session.queue.map((each) =>
        each.prompt === prompt ? { ...each, text, revision } : each,
      );
      return { ...session, queue };
    }
    case 'prompt_moved':
      return { ...session, queue: moved(session.queue, event.prompt, event.before) };
    case 'prompt_withdrawn': {
      const left = withoutPrompt(session, event.prompt);
      return left.queue.length === 0 ? release(left) : left;
    }
    case 'queue_paused':
      return hold(session, event.why);
    case 'queue_resumed':
      return release(session);
  }
}

function moved(queue: Session['queue'], prompt: string, before: string | null): Session['queue'] {
  const from = queue.findIndex((each) => each.prompt === prompt);
  const mover = queue[from];
  if (mover === undefined || before === prompt) return queue;
  const rest = queue.filter((each) => each.prompt !== prompt);
  const next = rest.findIndex((each) => each.prompt === before);
  const to = next < 0 ? rest.length : next;
  return [...rest.slice(0, to), mover, ...rest.slice(to)];
}

/** Holds what waits, if anything does. */
function hold(session: Session, why: PauseCause): Session {
  return session.queue.length === 0 ? session : { ...session, paused: true, pause: why };
}

function release(session: Session): Session {
  return { ...session, paused: false, pause: null };
}

function restart(session: Session): Session {
  if (session.program.kind !== 'gone') return session;
  return { ...session, program: { kind: 'starting', agent_session: session.program.agent_session } };
}

function withoutPrompt(session: Session, prompt: string): Session {
  return { ...session, queue: session.queue.filter((queued) => queued.prompt !== prompt) };
}

function without<T>(map: { [key in string]: T }, key: string): { [key in string]: T } {
  const { [key]: _gone, ...rest } = map;
  return rest;
}

/** An event that a newer host made changes nothing here. */
function unknownEvent(_event: never, session: Session): Session {
  return session;
}
