/**
 * How far wishes for the agent have come, as the log tells it: the twin of
 * `core::session::delivery`. It decides nothing and repeats nothing.
 */
import type { Aim, Ask, Delivery, Session, SessionEvent, ToolPatch, Wish } from '../protocol/types';

/** Whether it stays so, unless a person sends the wish again. */
function isFinalDelivery(delivery: Delivery): boolean {
  return delivery !== 'waiting' && delivery !== 'handed';
}

/** What `event` makes of wishes, in the state before it is applied. */
export function deliveries(
  session: Session,
  cause: string | null,
  event: SessionEvent,
): [command: string, delivery: Delivery][] {
  const moved: [string, Delivery][] = [];
  if (cause !== null && begins(session, event) !== null) moved.push([cause, 'waiting']);
  for (const [command, wish] of Object.entries(session.wishes)) {
    const next = wish === undefined ? null : advance(session, wish, event);
    if (next !== null && next !== wish?.delivery) moved.push([command, next]);
  }
  return moved;
}

/** The state with its account of wishes after `event`, which is not applied to anything else. */
export function noteDeliveries(session: Session, cause: string | null, event: SessionEvent): Session {
  const moved = deliveries(session, cause, event);
  if (moved.length === 0) return session;
  const aim = begins(session, event);
  const wishes = { ...session.wishes };
  for (const [command, delivery] of moved) {
    const known = wishes[command];
    if (isFinalDelivery(delivery)) delete wishes[command];
    else if (known !== undefined) wishes[command] = { ...known, delivery };
    else if (aim !== null) wishes[command] = { aim, delivery };
  }
  return { ...session, wishes };
}

/** What the agent is to take because of an event that a wish caused. */
function begins(session: Session, event: SessionEvent): Aim | null {
  switch (event.type) {
    case 'prompt_queued':
      return { kind: 'prompt', prompt: event.prompt };
    case 'approval_decided': {
      const open = session.approvals[event.approval];
      if (event.verdict.kind === 'void' || open === undefined) return null;
      return { kind: 'answer', approval: event.approval, tool: toolOf(open.ask) };
    }
    case 'turn_cancel_requested':
      return { kind: 'stop', turn: event.turn };
    case 'mode_requested':
      return { kind: 'mode', mode: event.mode };
    case 'config_requested':
      return { kind: 'setting', option: event.option };
    case 'agent_restarting':
      return { kind: 'restart' };
    default:
      return null;
  }
}

function advance(session: Session, wish: Wish, event: SessionEvent): Delivery | null {
  const isHanded = wish.delivery === 'handed';
  const { aim } = wish;
  switch (aim.kind) {
    case 'prompt':
      return advancePrompt(session, aim.prompt, isHanded, event);
    case 'answer':
      return advanceAnswer(aim.approval, aim.tool, isHanded, event);
    case 'stop':
      if (event.type === 'turn_ended' && event.turn === aim.turn) return 'consumed';
      return event.type === 'session_ended' ? 'void' : null;
    case 'mode':
      if (event.type === 'mode_changed' && event.mode === aim.mode) return 'consumed';
      return lost(event);
    case 'setting':
      if (event.type === 'config_offered' && event.options.some(({ id }) => id === aim.option))
        return 'consumed';
      return lost(event);
    case 'restart':
      if (event.type === 'agent_started') return 'consumed';
      return event.type === 'agent_exited' || event.type === 'session_ended' ? 'void' : null;
  }
}

function advancePrompt(
  session: Session,
  prompt: string,
  isHanded: boolean,
  event: SessionEvent,
): Delivery | null {
  switch (event.type) {
    case 'prompt_withdrawn':
      return event.prompt === prompt ? 'void' : null;
    case 'turn_started':
      return event.prompt === prompt ? 'handed' : null;
    case 'turn_ended': {
      const { turn } = session;
      if (!isHanded || turn === null || turn.turn !== event.turn || turn.prompt !== prompt) return null;
      return event.reason === 'agent_died' ? 'indeterminate' : 'consumed';
    }
    case 'session_ended':
      return isHanded ? 'indeterminate' : 'void';
    default:
      return isHanded && isOutput(event) ? 'consumed' : null;
  }
}

function advanceAnswer(
  approval: string,
  tool: string | null,
  isHanded: boolean,
  event: SessionEvent,
): Delivery | null {
  switch (event.type) {
    case 'approval_applied':
      return event.approval === approval ? 'handed' : null;
    case 'agent_exited':
    case 'session_ended':
      return 'indeterminate';
    case 'turn_ended':
      if (event.reason === 'agent_died') return 'indeterminate';
      return isHanded ? 'consumed' : null;
    default:
      if (!isHanded) return null;
      if (tool === null) return isOutput(event) ? 'consumed' : null;
      return event.type === 'tool_updated' && event.tool.id === tool && hasMoved(event.tool)
        ? 'consumed'
        : null;
  }
}

/** What becomes of a wish that is on its way when its addressee ends. */
function lost(event: SessionEvent): Delivery | null {
  return event.type === 'agent_exited' || event.type === 'session_ended' ? 'indeterminate' : null;
}

/** Whether the main agent has said or done something. */
function isOutput(event: SessionEvent): boolean {
  switch (event.type) {
    case 'message_added':
      return event.role !== 'user' && event.parent === null;
    case 'tool_updated':
      return event.tool.parent === undefined;
    case 'plan_updated':
    case 'approval_requested':
      return true;
    default:
      return false;
  }
}

/** Whether a tool call is not where it waited for an answer. */
function hasMoved(tool: ToolPatch): boolean {
  return tool.content !== undefined || (tool.status !== undefined && tool.status !== 'pending');
}

function toolOf(ask: string): string | null {
  try {
    return (JSON.parse(ask) as Ask).tool;
  } catch {
    return null;
  }
}
