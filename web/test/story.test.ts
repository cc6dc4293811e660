/** The story that Rust tells, replayed: the twin's state is the same after every event. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { activityOf, applyEvent, EMPTY_SESSION } from '../src/engine/session';
import type { Session, SessionEvent } from '../src/protocol/types';

type Step = { cause: string | null; event: SessionEvent; state: Session; activity: string };

const steps = JSON.parse(
  readFileSync(new URL('../../crates/core/tests/golden/story.json', import.meta.url), 'utf8'),
) as Step[];

test('the state is what Rust says after every event', () => {
  expect(steps.length).toBeGreaterThan(30);
  let state = EMPTY_SESSION;
  for (const [at, step] of steps.entries()) {
    state = applyEvent(state, step.event, step.cause);
    expect(state, `after event ${at + 1}, ${step.event.type}`).toEqual(step.state);
    expect(activityOf(state)).toBe(step.activity);
  }
});
