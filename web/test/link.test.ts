/** The connection: it never says "connected" when it is not, and comes back for ever. */
import { beforeAll, expect, test } from 'vitest';
import { type Body, decodeFrame, encodeFrame } from '../src/engine/frames';
import type { Identity } from '../src/engine/identity';
import { backoff, Link } from '../src/engine/link';
import type { LinkView } from '../src/engine/views';
import type { Clock } from '../src/platform/clock';
import type { SocketEvents } from '../src/platform/socket';
import { identityFromSeed } from './support/peers';

/** A clock that moves when it is told to. */
class FakeClock implements Clock {
  #now = 1_000;
  #timers = new Map<object, { at: number; then: () => void }>();

  now(): number {
    return this.#now;
  }

  steady(): number {
    return this.#now;
  }

  after(millis: number, then: () => void): () => void {
    const name = {};
    this.#timers.set(name, { at: this.#now + millis, then });
    return () => this.#timers.delete(name);
  }

  /** Somebody sets the clock; timers do not care. */
  jump(millis: number): void {
    this.#now += millis;
    for (const timer of this.#timers.values()) timer.at += millis;
  }

  pass(millis: number): void {
    const end = this.#now + millis;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due[0]);
      this.#now = due[1].at;
      due[1].then();
    }
    this.#now = end;
  }
}

let identity: Identity;
beforeAll(async () => {
  identity = await identityFromSeed(new Uint8Array(64).fill(2));
});

function bench(withDetours = false) {
  const clock = new FakeClock();
  const dialled: SocketEvents[] = [];
  const views: LinkView[] = [];
  const hellos: Body<'hello'>[] = [];
  let pings = 0;
  const send = (message: Uint8Array<ArrayBuffer>) => {
    const frame = decodeFrame(message);
    if (frame.kind === 'hello') hellos.push(frame.body);
    if (frame.kind === 'ping') pings += 1;
  };
  const sockets = {
    connect: (_url: string, events: SocketEvents) => {
      dialled.push(events);
      return { send, close: () => {} };
    },
  };
  const roundabout: SocketEvents[] = [];
  const detours = {
    connect: (_url: string, events: SocketEvents) => {
      roundabout.push(events);
      return { send: () => {}, close: () => {} };
    },
  };
  const random = { bytes: (length: number) => new Uint8Array(length).fill(255) };
  const link = new Link(
    identity,
    'https://relay.example',
    { clock, random, sockets, ...(withDetours ? { detours } : {}) },
    {
      changed: (view) => views.push(view),
      welcome: () => {},
      frame: () => {},
    },
  );
  const welcome = (by = dialled) => {
    by.at(-1)?.opened();
    // As our relay grants it.
    const deadMillis = Math.min(hellos.at(-1)?.deadMillis ?? 10_000, 10_000);
    const pingMillis = deadMillis / 2;
    const body = { store: new Uint8Array(16), now: 1, agent: 'r/1', pingMillis, deadMillis };
    by.at(-1)?.message(encodeFrame('welcome', body));
  };
  /** Seconds in which the relay answers. */
  const live = (seconds: number) => {
    for (let second = 0; second < seconds; second += 1) {
      dialled.at(-1)?.message(encodeFrame('pong', 1));
      clock.pass(1_000);
    }
  };
  return { clock, dialled, roundabout, link, views, welcome, hellos, live, pings: () => pings };
}

test('it is connected from the welcome until the first silence that is too long', () => {
  const { clock, link, welcome } = bench();
  link.start();
  expect(link.view().state).toBe('connecting');
  welcome();
  expect(link.view()).toMatchObject({ state: 'connected', relay: 'relay.example' });
  clock.pass(3_900);
  expect(link.view().state).toBe('connected');
  clock.pass(200);
  expect(link.view()).toMatchObject({ state: 'waiting', code: 'timeout' });
});

test('it dials again for ever, and at once when nudged', () => {
  const { clock, dialled, link } = bench();
  link.start();
  for (let tries = 0; tries < 50; tries += 1) {
    dialled.at(-1)?.closed();
    const view = link.view();
    if (view.state !== 'waiting') throw new Error('it waits');
    clock.pass(view.until - clock.now());
    expect(link.view().state).toBe('connecting');
  }
  dialled.at(-1)?.closed();
  link.nudge();
  expect(link.view().state).toBe('connecting');
});

test('a nudge finds a dead connection within seconds', () => {
  const { clock, link, welcome } = bench();
  link.start();
  welcome();
  clock.pass(1_000);
  link.nudge();
  clock.pass(3_000);
  expect(link.view().state).toBe('waiting');
});

test('a relay that says when to come back is obeyed', () => {
  const { clock, dialled, link, welcome } = bench();
  link.start();
  welcome();
  dialled.at(-1)?.message(encodeFrame('bye', { code: 'restarting', detail: null, retryMillis: 1_234 }));
  expect(link.view()).toMatchObject({ state: 'waiting', code: 'restarting', until: clock.now() + 1_234 });
});

test('what an older connection still says is not listened to', () => {
  const { dialled, link } = bench();
  link.start();
  const [old] = dialled;
  old?.closed();
  link.nudge();
  old?.closed();
  expect(link.view().state).toBe('connecting');
});

test('waits double, stay below their bound, and are spread by chance', () => {
  const with_ = (byte: number) => ({ bytes: () => Uint8Array.of(byte) });
  expect([0, 1, 2, 3].map((tries) => backoff(tries, with_(255)))).toEqual([500, 1_000, 2_000, 4_000]);
  expect(backoff(0, with_(0))).toBe(250);
  expect(backoff(99, with_(255))).toBe(30_000);
});

test('f14 where no WebSocket gets through it takes the detour by itself', () => {
  const { dialled, roundabout, link, welcome } = bench(true);
  link.start();
  dialled[0]?.closed();
  expect(link.view().state).toBe('connecting');
  welcome(roundabout);
  expect(link.view()).toMatchObject({ state: 'connected', way: 'http' });
  // What worked is tried first when it breaks.
  roundabout[0]?.closed();
  link.nudge();
  expect([dialled.length, roundabout.length]).toEqual([1, 2]);
  // And the other way when it does not work any more.
  roundabout[1]?.closed();
  expect(link.view().state).toBe('waiting');
  link.nudge();
  expect(dialled.length).toBe(2);
});

test('f14 a WebSocket that opens and carries nothing is left for the detour within seconds', () => {
  const { clock, dialled, roundabout, link } = bench(true);
  link.start();
  dialled[0]?.opened();
  clock.pass(8_000);
  expect(roundabout.length).toBe(1);
});

test('f14 f32 on a detour a WebSocket is tried again, soon at first and less and less often', () => {
  const { clock, dialled, roundabout, link, welcome } = bench(true);
  link.start();
  dialled[0]?.closed();
  welcome(roundabout);
  const tries: number[] = [];
  for (let second = 1; second < 3_000; second += 1) {
    roundabout[0]?.message(encodeFrame('pong', 1));
    clock.pass(1_000);
    if (dialled.length > tries.length + 1) {
      tries.push(second);
      if (tries.length < 6) dialled.at(-1)?.closed();
    }
  }
  const waits = tries.map((second, index) => second - (tries[index - 1] ?? 0));
  const longest = [60, 120, 240, 480, 600, 600];
  expect(waits).toHaveLength(longest.length);
  for (const [index, most] of longest.entries()) {
    expect(waits[index]).toBeGreaterThanOrEqual(most / 2);
    expect(waits[index]).toBeLessThanOrEqual(most);
  }
  expect(link.view()).toMatchObject({ state: 'connected', way: 'http' });
  const before = dialled.length;
  dialled.at(-1)?.opened();
  expect(dialled.length).toBe(before + 1);
  welcome();
  expect(link.view()).toMatchObject({ state: 'connected', way: 'websocket' });
});

test('f14 a page of the network in the way is called that', () => {
  const { dialled, roundabout, link } = bench(true);
  link.start();
  dialled[0]?.closed();
  roundabout[0]?.closed('portal');
  expect(link.view()).toMatchObject({ state: 'waiting', code: 'captive_portal' });
});

test('f10 a clock that jumps ends no connection', () => {
  const { clock, dialled, link, welcome } = bench();
  link.start();
  welcome();
  for (const jump of [3_600_000, -3_600_000, 31_536_000_000, -31_536_000_000]) {
    clock.jump(jump);
    for (let second = 0; second < 20; second += 1) {
      dialled[0]?.message(encodeFrame('pong', 1));
      clock.pass(1_000);
    }
    expect(link.view().state).toBe('connected');
  }
});

test('f13 a line that is too thin for the usual patience gets more, and not for ever', () => {
  const { clock, link, welcome } = bench();
  const silences: number[] = [];
  link.start();
  for (let losses = 0; losses < 8; losses += 1) {
    welcome();
    const from = clock.now();
    while (link.view().state === 'connected') clock.pass(100);
    silences.push(clock.now() - from);
    link.nudge();
  }
  expect(silences[0]).toBeLessThanOrEqual(4_100);
  expect(silences.at(-1)).toBeGreaterThan(60_000);
  expect(silences.at(-1)).toBeLessThanOrEqual(70_000);
});

test('f12 while nobody looks it says less, on a connection of the usual pace', () => {
  const { dialled, link, welcome, hellos, live, pings } = bench();
  link.start();
  welcome();
  expect(hellos[0]?.deadMillis).toBe(4_000);
  link.watch(false);
  live(30);
  // A glance begins the minute anew.
  link.watch(true);
  link.watch(false);
  live(59);
  expect(dialled.length).toBe(1);
  live(2);
  expect(dialled.length).toBe(2);
  welcome();
  expect(hellos[1]?.deadMillis).toBeNull();
  const before = pings();
  live(600);
  expect(dialled.length, 'it is exchanged once').toBe(2);
  expect(pings() - before).toBeLessThanOrEqual(120);
});

test.each([1, 92])('f12 a page that was hidden for %i s finds a dead line within 5 s', (seconds) => {
  for (const nudged of [true, false]) {
    const { clock, link, welcome, hellos, live } = bench();
    link.start();
    welcome();
    link.watch(false);
    for (let second = 0; second < seconds; second += 1) {
      live(1);
      if (link.view().state === 'connecting') welcome();
    }
    expect(link.view().state).toBe('connected');
    link.watch(true);
    if (nudged) link.nudge();
    clock.pass(nudged ? 3_000 : 5_000);
    expect(link.view().state).not.toBe('connected');
    if (link.view().state === 'waiting') link.nudge();
    welcome();
    expect(hellos.at(-1)?.deadMillis, 'it is quick again').not.toBeNull();
  }
});
