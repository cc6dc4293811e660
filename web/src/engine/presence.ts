/**
 * Who is there, as this device can know it; the twin of `core::presence`. Independent facts, each
 * with the time at which it was so for certain. Losing a connection makes things old, not untrue.
 */
import type { Behind, Echo, Presence, Reach, SessionPresence, Sighting, TurnSeen } from '../protocol/types';
import { asStream } from './ids';

/** How long an echo counts as the present. */
const FRESH_MILLIS = 10_000;
/** How long a probe may be without its echo. */
export const SILENT_MILLIS = 5_000;
/** How long what the relay was handed may take to arrive while nothing of its log does. */
const HELD_BACK_MILLIS = 2_000;

const UNKNOWN = { value: null, seen: null };
const NO_SESSION: SessionPresence = {
  keeper: UNKNOWN,
  agent: UNKNOWN,
  turn: UNKNOWN,
  heard: null,
  held: null,
};

export const NOTHING_KNOWN: Presence = {
  link: UNKNOWN,
  host: UNKNOWN,
  path: { proven: null, millis: null, waiting: null, skew: 0 },
  sessions: {},
  behind: {},
  read: {},
};

/** What is known after something came to be known at `now`. */
export function sight(known: Presence, now: number, sighting: Sighting): Presence {
  switch (sighting.type) {
    case 'link': {
      const changed = known.link.value !== sighting.up;
      return {
        ...known,
        link: changed ? { value: sighting.up, seen: now } : known.link,
        host: { ...known.host, value: null },
        path: { ...known.path, waiting: null },
        behind: mapValues(known.behind, (behind) => ({ ...behind, since: now })),
      };
    }
    case 'host':
      return { ...known, host: { value: sighting.online, seen: now } };
    case 'asked':
      return { ...known, path: { ...known.path, waiting: known.path.waiting ?? now } };
    case 'echoed':
      return echoed(known, now, sighting.host, sighting.asked, sighting.echo);
    case 'read':
      return read(known, now, sighting.stream, sighting.head);
    case 'left':
      return {
        ...known,
        read: without(known.read, sighting.stream),
        behind: without(known.behind, sighting.stream),
      };
    case 'listed': {
      const at = ours(known, sighting.at);
      const session = known.sessions[sighting.session] ?? NO_SESSION;
      const newer = session.turn.seen === null || session.turn.seen < at;
      const turn = newer ? { value: sighting.state, seen: at } : session.turn;
      return { ...known, sessions: { ...known.sessions, [sighting.session]: { ...session, turn } } };
    }
  }
}

/** How far this device reaches at `now`. */
export function reachOf(known: Presence, now: number): Reach {
  const { link, host, path } = known;
  if (link.value !== true) return 'offline';
  const proven = path.proven !== null && path.proven >= (link.seen ?? 0) ? path.proven : null;
  // The host's own word stands against an older one of the relay.
  if (host.value === false && (proven === null || proven <= (host.seen ?? 0))) return 'host_away';
  if (path.waiting !== null && !isWithin(path.waiting, now, SILENT_MILLIS)) return 'silent';
  return proven !== null && isWithin(proven, now, FRESH_MILLIS) ? 'live' : 'unproven';
}

/** What is to be shown of a session's turn at `now`: never an old "running" as the present. */
export function turnOf(known: Presence, session: string, now: number): TurnSeen {
  const { value, seen } = known.sessions[session]?.turn ?? UNKNOWN;
  const recent = seen !== null && isWithin(seen, now, FRESH_MILLIS);
  return {
    state: value,
    age_millis: seen === null ? null : Math.max(0, now - seen),
    fresh: value === 'ended' || (recent && reachOf(known, now) === 'live'),
  };
}

/** The logs of which the newest part is held back at `now`, with how many events. */
export function heldBack(known: Presence, now: number): [string, number][] {
  if (known.link.value !== true) return [];
  const late = Object.entries(known.behind).flatMap(([stream, behind]): [string, number][] => {
    if (behind === undefined || isWithin(behind.since, now, HELD_BACK_MILLIS)) return [];
    return [[stream, Math.max(0, behind.sent - (known.read[stream]?.head ?? 0))]];
  });
  return late.sort(([a], [b]) => (a < b ? -1 : 1));
}

/** When `reachOf` or `heldBack` may next change by time alone. */
export function deadlineOf(known: Presence, now: number): number | null {
  const { waiting, proven } = known.path;
  const times = Object.values(known.behind).flatMap((behind) =>
    behind === undefined ? [] : [behind.since + HELD_BACK_MILLIS + 1],
  );
  if (waiting !== null) times.push(waiting + SILENT_MILLIS + 1);
  if (proven !== null) times.push(proven + FRESH_MILLIS + 1);
  const next = Math.min(...times.filter((at) => at > now));
  return Number.isFinite(next) ? next : null;
}

function echoed(before: Presence, now: number, host: string, asked: number, echo: Echo): Presence {
  const { waiting, proven } = before.path;
  const left = waiting !== null && waiting > asked ? waiting : null;
  if (proven !== null && proven > asked && proven <= now) {
    return { ...before, path: { ...before.path, waiting: left } };
  }
  const millis = Math.max(0, now - asked);
  const middle = asked + Math.floor(millis / 2);
  let known: Presence = {
    ...before,
    path: { proven: asked, millis, waiting: left, skew: echo.now - middle },
  };
  if (echo.sent !== undefined) known = noteSent(known, now, asStream(host), echo.sent);
  for (const [session, pulse] of Object.entries(echo.sessions)) {
    if (pulse === undefined) continue;
    known = noteSent(known, now, asStream(session), pulse.sent);
    const told: SessionPresence = {
      keeper: { value: pulse.keeper, seen: asked },
      agent: { value: pulse.agent, seen: asked },
      turn: { value: pulse.state, seen: asked },
      heard: pulse.heard === null ? null : ours(known, pulse.heard),
      held: pulse.held,
    };
    known = { ...known, sessions: { ...known.sessions, [session]: told } };
  }
  return known;
}

/** Only a log that is followed can be behind. */
function noteSent(known: Presence, now: number, stream: string, sent: number): Presence {
  const at = known.read[stream];
  if (at === undefined) return known;
  if (at.head >= sent) return { ...known, behind: without(known.behind, stream) };
  const before = known.behind[stream] ?? { sent, since: now };
  const behind: Behind = { ...before, sent: Math.max(before.sent, sent) };
  return { ...known, behind: { ...known.behind, [stream]: behind } };
}

function read(known: Presence, now: number, stream: string, head: number): Presence {
  const before = known.read[stream];
  const grew = before !== undefined && head > before.head;
  const reads = before === undefined || grew ? { ...known.read, [stream]: { head, at: now } } : known.read;
  const behind = known.behind[stream];
  if (behind === undefined) return { ...known, read: reads };
  if (head >= behind.sent) return { ...known, read: reads, behind: without(known.behind, stream) };
  const since = grew ? now : behind.since;
  return { ...known, read: reads, behind: { ...known.behind, [stream]: { ...behind, since } } };
}

/** A time of the host by this device's clock. */
function ours(known: Presence, at: number): number {
  return Math.max(0, at - known.path.skew);
}

/** Never when `then` is in the future, as after a clock was set back. */
function isWithin(then: number, now: number, millis: number): boolean {
  return then <= now && now - then <= millis;
}

function without<T>(values: { [key in string]: T }, gone: string): { [key in string]: T } {
  return Object.fromEntries(Object.entries(values).filter(([key]) => key !== gone));
}

function mapValues<T>(values: { [key in string]: T }, change: (value: T) => T): { [key in string]: T } {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, change(value)]));
}
