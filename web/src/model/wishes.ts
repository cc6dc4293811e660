/** What the stages of a wish mean for whoever looks at it. */
import type { Stage } from '../engine/views';
import type { Command } from '../protocol/types';

/** Wishes that the agent itself must take; the others have their whole effect at the host. */
const FOR_AGENT: ReadonlySet<Command['type']> = new Set([
  'prompt',
  'decide_approval',
  'cancel_turn',
  'set_mode',
  'set_config',
  'resume_agent',
]);

export type Step = 'kept' | 'posted' | 'received' | 'handed' | 'consumed' | 'applied';

/** The steps on a wish's way, in order. */
export function stepsOf(command: Command['type'], stage: Stage): readonly Step[] {
  // A host that does not tell how far an agent is says "applied" and no more.
  if (FOR_AGENT.has(command) && stage.kind !== 'applied')
    return ['kept', 'posted', 'received', 'handed', 'consumed'];
  return ['kept', 'posted', 'received', 'applied'];
}

/** Whether there is nothing more to tell or to do. */
export function isOver({ kind }: Stage): boolean {
  return kind === 'applied' || kind === 'consumed' || kind === 'void' || kind === 'retried';
}

/** Whether it can be wished again without doubt: it has had no effect, or all of it. */
export function isFree(stage: Stage): boolean {
  return stage.kind === 'refused' || isOver(stage);
}

/** Whether it may still be taken back. */
export function canRecall({ kind }: Stage): boolean {
  return kind === 'kept' || kind === 'posted';
}
