/** Several tabs share one engine; a leader that sleeps loses the lead. */
import { expect, test } from 'vitest';
import { Tabs } from '../src/engine/tabs';
import type { FromEngine, ToEngine } from '../src/engine/views';
import type { Locks, Port } from '../src/platform/port';

class Browser implements Locks {
  #holder: { lost: () => void } | null = null;
  #waiting: { lead: () => void; lost: () => void }[] = [];
  readonly #ports = new Map<Port, (message: unknown) => void>();

  acquire(_name: string, steal: boolean, lead: () => void, lost: () => void): void {
    const taker = { lead, lost };
    if (steal && this.#holder !== null) {
      const robbed = this.#holder;
      this.#holder = taker;
      lead();
      robbed.lost();
    } else if (this.#holder === null) {
      this.#holder = taker;
      lead();
    } else {
      this.#waiting.push(taker);
    }
  }

  /** The leading tab is closed. */
  release(): void {
    this.#holder = this.#waiting.shift() ?? null;
    (this.#holder as { lead?: () => void } | null)?.lead?.();
  }

  channel(): Port {
    const port: Port = {
      post: (message) => {
        for (const [other, heard] of this.#ports) if (other !== port) heard(structuredClone(message));
      },
      listen: (heard) => this.#ports.set(port, heard),
    };
    return port;
  }
}

function tab(name: string, browser: Browser) {
  const timers: (() => void)[] = [];
  const heard: FromEngine[] = [];
  const handled: [string, string][] = [];
  let fromPage: (message: unknown) => void = () => {};
  let stopped = false;
  let others = browser.channel();
  const asleep = { is: false };
  const real = others;
  others = {
    post: (message) => real.post(message),
    listen: (hear) => real.listen((message) => asleep.is || hear(message)),
  };
  const page: Port = {
    post: (message) => heard.push(message as FromEngine),
    listen: (hear) => {
      fromPage = hear;
    },
  };
  const clock = {
    now: () => 0,
    steady: () => 0,
    after: (_millis: number, then: () => void) => {
      timers.push(then);
      return () => {};
    },
  };
  let emit: (message: FromEngine) => void = () => {};
  new Tabs(name, { clock, locks: browser, page, others }, async (say) => {
    emit = say;
    return {
      handle: (from, message) => handled.push([from, message.type]),
      stop: () => {
        stopped = true;
      },
    };
  }).start();
  return {
    heard,
    handled,
    asleep,
    isStopped: () => stopped,
    emit: (message: FromEngine) => emit(message),
    say: (message: ToEngine) => fromPage(message),
    tick: () => {
      for (const timer of timers.splice(0)) timer();
    },
  };
}

const settle = () => new Promise((resolve) => setTimeout(resolve));

test('the second tab speaks through the first, and leads when the first is gone', async () => {
  const browser = new Browser();
  const [one, two] = [tab('one', browser), tab('two', browser)];
  await settle();
  two.say({ type: 'hello' });
  expect(one.handled).toEqual([['two', 'hello']]);
  one.emit({ type: 'kept', id: 'x' });
  expect(two.heard.at(-1)).toEqual({ type: 'kept', id: 'x' });
  browser.release();
  await settle();
  two.say({ type: 'hello' });
  expect(two.handled).toEqual([['two', 'hello']]);
});

test('rows for one page do not go to another', async () => {
  const browser = new Browser();
  const [one, two] = [tab('one', browser), tab('two', browser)];
  await settle();
  one.emit({ type: 'rows_reset', session: 's', rows: [], state: {} as never, to: 'two' });
  expect(one.heard.some(({ type }) => type === 'rows_reset')).toBe(false);
  expect(two.heard.some(({ type }) => type === 'rows_reset')).toBe(true);
});

test('a leader that sleeps loses the lead and stops', async () => {
  const browser = new Browser();
  const [one, two] = [tab('one', browser), tab('two', browser)];
  await settle();
  one.asleep.is = true;
  two.tick();
  two.tick();
  await settle();
  expect(one.isStopped()).toBe(true);
  two.say({ type: 'hello' });
  expect(two.handled).toEqual([['two', 'hello']]);
});

test('a leader that answers keeps the lead', async () => {
  const browser = new Browser();
  const [one, two] = [tab('one', browser), tab('two', browser)];
  await settle();
  two.tick();
  two.tick();
  expect(one.isStopped()).toBe(false);
});
