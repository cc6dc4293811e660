/** The connection: it never says "connected" when it is not, and comes back for ever. */
import { beforeAll, expect, test } from 'vitest';
import { encodeFrame } from '../src/engine/frames';
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

  after(millis: number, then: () => void): () => void {
    const name = {};
    this.#timers.set(name, { at: this.#now + millis, then });
    return () => this.#timers.delete(name);
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

function bench() {
  const clock = new FakeClock();
  const dialled: SocketEvents[] = [];
  const views: LinkView[] = [];
  const sockets = {
    connect: (_url: string, events: SocketEvents) => {
      dialled.push(events);
      return { send: () => {}, close: () => {} };
    },
  };
  const random = { bytes: (length: number) => new Uint8Array(length).fill(255) };
  const link = new Link(
    identity,
    'https://relay.example',
    { clock, random, sockets },
    {
      changed: (view) => views.push(view),
      welcome: () => {},
      frame: () => {},
    },
  );
  const welcome = () => {
    dialled.at(-1)?.opened();
    const body = { store: new Uint8Array(16), now: 1, agent: 'r/1', pingMillis: 20_000, deadMillis: 45_000 };
    dialled.at(-1)?.message(encodeFrame('welcome', body));
  };
  return { clock, dialled, link, views, welcome };
}

test('it is connected from the welcome until the first silence that is too long', () => {
  const { clock, link, welcome } = bench();
  link.start();
  expect(link.view().state).toBe('connecting');
  welcome();
  expect(link.view()).toMatchObject({ state: 'connected', relay: 'relay.example' });
  clock.pass(20_000 + 44_000);
  expect(link.view().state).toBe('connected');
  clock.pass(1_200);
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
  clock.pass(10_000);
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
