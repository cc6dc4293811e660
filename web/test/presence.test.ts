/** What Rust says is known of a host, replayed: the twin knows the same after every sighting. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  deadlineOf,
  heldBack,
  NOTHING_KNOWN,
  reachOf,
  SILENT_MILLIS,
  sight,
  turnOf,
} from '../src/engine/presence';
import type { Presence, Reach, Sighting, TurnSeen } from '../src/protocol/types';

type Step = {
  now: number;
  sighting: Sighting;
  presence: Presence;
  reach: Reach[];
  turn: TurnSeen[];
  held_back: [string, number][][];
  deadline: number | null;
};

const steps = JSON.parse(
  readFileSync(new URL('../../crates/core/tests/golden/presence.json', import.meta.url), 'utf8'),
) as Step[];
const SESSION = `ses_${'02'.repeat(16)}`;

test('what is known is what Rust says after every sighting', () => {
  expect(steps.length).toBeGreaterThan(20);
  let known = NOTHING_KNOWN;
  for (const [at, step] of steps.entries()) {
    const what = `after sighting ${at + 1}, ${step.sighting.type}`;
    known = sight(known, step.now, step.sighting);
    expect(known, what).toEqual(step.presence);
    const moments = [step.now, step.now + SILENT_MILLIS];
    expect(
      moments.map((now) => reachOf(known, now)),
      what,
    ).toEqual(step.reach);
    expect(
      moments.map((now) => turnOf(known, SESSION, now)),
      what,
    ).toEqual(step.turn);
    expect(
      moments.map((now) => heldBack(known, now)),
      what,
    ).toEqual(step.held_back);
    expect(deadlineOf(known, step.now), what).toBe(step.deadline);
  }
});
