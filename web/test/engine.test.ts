/** The engine against a relay and a host in memory: pairing, reading, alarms, wishes. */
import { afterEach, expect, test } from 'vitest';
import { asStream } from '../src/engine/ids';
import { reachOf, turnOf } from '../src/engine/presence';
import { EMPTY_SESSION } from '../src/engine/session';
import type { SessionEvent } from '../src/protocol/types';
import { Bench, SESSION } from './support/bench';
import { bent } from './support/fake-relay';

let bench: Bench;

afterEach(() => bench.stop());

const OPENED: SessionEvent = {
  type: 'session_opened',
  title: 'demo',
  dir: '/demo',
  branch: 'main',
  agent: 'scripted',
};
const STARTED: SessionEvent = {
  type: 'agent_started',
  agent_session: 'a1',
  name: 'scripted',
  version: '1',
  dialect: 'acp',
  resumed: false,
};

function message(id: string, text: string): SessionEvent {
  return {
    type: 'message_added',
    message: id,
    role: 'agent',
    content: [{ kind: 'text', text }],
    parent: null,
  };
}

function texts(): string[] {
  return (bench.rows.get(SESSION) ?? []).flatMap((row) =>
    row.kind === 'message'
      ? row.content.map((content) => (content.kind === 'text' ? content.text : '?'))
      : [],
  );
}

test('a device pairs: both sides show the same code, and the roster is verified', async () => {
  bench = await Bench.start();
  let shown = '';
  let accept: (yes: boolean) => void = () => {};
  bench.host.onPairing = (code) => {
    shown = code;
    return new Promise((resolve) => {
      accept = resolve;
    });
  };
  bench.engine.handle('page', { type: 'pair', link: await bench.host.link(), name: 'phone' });
  await bench.until(() => bench.overview?.pairing.step === 'compare' && shown !== '');
  expect(bench.overview?.pairing).toMatchObject({ step: 'compare', code: shown, host: 'desk' });
  accept(true);
  await bench.until(() => bench.overview?.pairing.step === 'done');
  await bench.until(() => bench.hostView?.devices.length === 2);
  expect(bench.hostView?.devices.map(({ name, self }) => [name, self])).toEqual([
    ['desk', false],
    ['phone', true],
  ]);
});

test('a reload in the middle of pairing shows the same code', async () => {
  bench = await Bench.start();
  let accept: (yes: boolean) => void = () => {};
  bench.host.onPairing = () =>
    new Promise((resolve) => {
      accept = resolve;
    });
  bench.engine.handle('page', { type: 'pair', link: await bench.host.link(), name: 'phone' });
  await bench.until(() => bench.overview?.pairing.step === 'compare');
  const before = bench.overview?.pairing;
  bench.stop();
  await bench.boot();
  await bench.until(() => bench.overview?.pairing.step === 'compare');
  expect(bench.overview?.pairing).toEqual(before);
  accept(true);
  await bench.until(() => bench.overview?.pairing.step === 'done');
});

test('a refused pairing and a mistyped link say so by their codes', async () => {
  bench = await Bench.start();
  bench.host.onPairing = async () => false;
  bench.engine.handle('page', { type: 'pair', link: await bench.host.link(), name: 'phone' });
  await bench.until(() => bench.overview?.pairing.step === 'failed');
  expect(bench.overview?.pairing).toEqual({ step: 'failed', code: 'pairing_refused' });
  bench.engine.handle('page', { type: 'pair', link: 'http://relay.test/#pair=abc', name: 'phone' });
  await bench.until(
    () => bench.overview?.pairing.step === 'failed' && bench.overview.pairing.code === 'bad_link',
  );
});

test('the device keys cannot be exported', async () => {
  bench = await Bench.start();
  const { Store } = await import('../src/engine/store');
  const store = await Store.open('keys');
  const { Engine } = await import('../src/engine/engine');
  const { systemClock } = await import('../src/platform/clock');
  const { systemRandom } = await import('../src/platform/random');
  const world = { clock: systemClock, random: systemRandom, sockets: bench.relay.sockets };
  const engine = await Engine.start(store, world, () => {});
  const identity = await store.identity();
  expect(identity?.signing.privateKey.extractable).toBe(false);
  expect(identity?.sealing.privateKey.extractable).toBe(false);
  engine.stop();
});

test('events are shown, and shown again after a reload without the relay', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED, STARTED, message('m1', 'hello')]);
  bench.open(SESSION);
  await bench.until(() => texts().includes('hello'));
  await bench.host.say(SESSION, [message('m2', 'world')]);
  await bench.until(() => texts().includes('world'));
  bench.stop();
  bench.relay.down = true;
  await bench.boot();
  bench.open(SESSION);
  await bench.until(() => texts().length === 2);
  expect(texts()).toEqual(['hello', 'world']);
  expect(bench.overview?.link.state).not.toBe('connected');
});

test('deltas are shown at once and superseded by their message', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED, STARTED]);
  bench.open(SESSION);
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'current');
  const delta = (offset: number, text: string) =>
    bench.host.live(SESSION, { type: 'text', message: 'm1', role: 'agent', parent: null, offset, text });
  await delta(0, 'Hé');
  await delta(2, 'llo');
  await bench.until(() => texts()[0] === 'Héllo');
  await bench.host.say(SESSION, [message('m1', 'Héllo!')]);
  await bench.until(() => texts()[0] === 'Héllo!');
  expect(texts()).toHaveLength(1);
});

test('s05 an envelope that was altered raises the alarm, and is never shown', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED, message('m1', 'one')]);
  bench.open(SESSION);
  await bench.until(() => texts().length === 1);
  for (const client of bench.relay.clients) client.follows.clear();
  await bench.host.say(SESSION, [message('m2', 'two')]);
  const stored = bench.relay.streams.get(asStream(SESSION))?.at(-1);
  if (stored === undefined) throw new Error('nothing was stored');
  const frames = await import('../src/engine/frames');
  for (const client of bench.relay.clients)
    client.send(frames.encodeFrame('envelope', bent(stored.envelope)));
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'alarm');
  expect(bench.states.get(SESSION)?.sync).toEqual({ state: 'alarm', code: 'bad_signature' });
  expect(texts()).toEqual(['one']);
  // The relay behaves again: what the host wrote is read from the cursor on.
  await bench.until(() => texts().length === 2);
  expect(bench.states.get(SESSION)?.sync).toEqual({ state: 'current' });
});

test('s36 a relay that shows an older state than was seen is a rollback', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED]);
  await bench.host.say(SESSION, [message('m1', 'one')]);
  bench.open(SESSION);
  await bench.until(() => texts().length === 1);
  bench.relay.streams.get(asStream(SESSION))?.pop();
  bench.relay.cut();
  // A relay that was just restarted gets a moment to be filled up again by the host.
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'alarm', 10_000);
  expect(bench.states.get(SESSION)?.sync).toEqual({ state: 'alarm', code: 'rolled_back' });
  expect(texts()).toEqual(['one']);
});

test('s06 a dropped envelope is asked for again', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED]);
  bench.open(SESSION);
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'current');
  for (const client of bench.relay.clients) client.follows.clear();
  await bench.host.say(SESSION, [message('m1', 'one')]);
  for (const client of bench.relay.clients) client.follows.add(asStream(SESSION));
  await bench.host.say(SESSION, [message('m2', 'two')]);
  await bench.until(() => texts().length === 2);
  expect(texts()).toEqual(['one', 'two']);
});

test('an envelope waits for the key of its epoch, which is asked for', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED]);
  bench.open(SESSION);
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'current');
  bench.host.sendsKeys = false;
  await bench.host.rekey(SESSION);
  await bench.host.say(SESSION, [message('m1', 'after')]);
  await bench.until(() => texts().includes('after'));
});

test('older pages are read backwards and checked by the chain', async () => {
  bench = await Bench.paired();
  bench.host.relay.cut();
  await bench.host.say(SESSION, [OPENED, STARTED]);
  for (let n = 1; n <= 300; n += 1) await bench.host.say(SESSION, [message(`m${n}`, `${n} `.repeat(2_000))]);
  bench.open(SESSION);
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'current' && texts().length >= 200);
  await bench.until(() => texts().length === 300, 10_000);
  expect(bench.states.get(SESSION)?.session.title).toBe('demo');
  expect(texts()[0]).toMatch(/^1 /);
});

test('a reader begins at the newest snapshot, and pages back only when asked', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED, STARTED]);
  for (let n = 1; n <= 300; n += 1) await bench.host.say(SESSION, [message(`m${n}`, `${n} `.repeat(2_000))]);
  const state = { ...EMPTY_SESSION, title: 'from the snapshot' };
  await bench.host.say(SESSION, [{ type: 'snapshot', state }, message('last', 'after it')]);
  bench.open(SESSION);
  await bench.until(() => texts().includes('after it'));
  expect(bench.states.get(SESSION)?.session.title).toBe('from the snapshot');
  expect(texts()).toHaveLength(1);
  bench.engine.handle('page', { type: 'older', session: SESSION });
  await bench.until(() => texts().length > 1);
  expect(texts().at(-1)).toBe('after it');
  expect(bench.states.get(SESSION)).toMatchObject({ session: { title: 'from the snapshot' } });
});

test('a reader whose place the relay has dropped begins at the snapshot, and says that something is missing', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED, STARTED, message('m1', 'before')]);
  bench.open(SESSION);
  await bench.until(() => texts().includes('before'));
  bench.relay.down = true;
  bench.relay.cut();
  await bench.until(() => bench.overview?.link.state === 'waiting');
  await bench.host.say(SESSION, [message('m2', 'missed')]);
  const { EMPTY_SESSION } = await import('../src/engine/session');
  const state = { ...EMPTY_SESSION, title: 'goes on' };
  await bench.host.say(SESSION, [{ type: 'snapshot', state }, message('m3', 'after')]);
  bench.relay.drop(asStream(SESSION), 5);
  bench.relay.down = false;
  bench.engine.handle('page', { type: 'nudge' });
  await bench.until(() => texts().includes('after'));
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'current');
  expect(bench.states.get(SESSION)?.session.title).toBe('goes on');
  const rows = bench.rows.get(SESSION) ?? [];
  expect(rows.filter(({ kind }) => kind === 'notice')).toMatchObject([{ code: 'history_limited' }]);
  expect(texts()).toEqual(['before', 'after']);
  bench.stop();
  await bench.boot();
  bench.open(SESSION);
  await bench.until(() => texts().includes('after'));
  await bench.host.say(SESSION, [message('m4', 'and on')]);
  await bench.until(() => texts().includes('and on'));
});

test('a session that two pages show is told to the one that still shows it', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED]);
  const host = bench.host.identity.peer;
  for (const page of ['one', 'two']) bench.engine.handle(page, { type: 'open', host, session: SESSION });
  await bench.until(() => bench.states.get(SESSION)?.sync.state === 'current');
  bench.engine.handle('one', { type: 'close', session: SESSION });
  await bench.host.say(SESSION, [message('m1', 'still here')]);
  await bench.until(() => texts().includes('still here'));
});

test('a wish goes from kept to posted to received to applied, and nothing is predicted', async () => {
  bench = await Bench.paired();
  bench.relay.down = true;
  bench.relay.cut();
  await bench.until(() => bench.overview?.link.state === 'waiting');
  const id = bench.wish({ type: 'prompt', session: SESSION, text: 'hi' });
  await bench.until(() => bench.stage(id)?.kind === 'kept');
  let answer: () => void = () => {};
  bench.host.onWish = async (wish) => {
    await bench.host.send(wish.from, 'receipt', { command: wish.id, outcome: { kind: 'received' } });
    await new Promise<void>((resolve) => {
      answer = resolve;
    });
    return { kind: 'applied', stream: asStream(SESSION), seq: 9, made: null, delivery: 'done' };
  };
  bench.relay.down = false;
  bench.engine.handle('page', { type: 'nudge' });
  await bench.until(() => bench.stage(id)?.kind === 'received');
  answer();
  await bench.until(() => bench.stage(id)?.kind === 'applied');
  expect(bench.host.wishes.map(({ command }) => command)).toEqual([
    { type: 'prompt', session: SESSION, text: 'hi' },
  ]);
});

test('a wish survives a reload and takes effect once', async () => {
  bench = await Bench.paired();
  bench.relay.down = true;
  bench.relay.cut();
  const id = bench.wish({ type: 'cancel_turn', session: SESSION });
  await bench.until(() => bench.stage(id)?.kind === 'kept');
  bench.stop();
  bench.relay.down = false;
  await bench.boot();
  await bench.until(() => bench.stage(id)?.kind === 'applied');
  expect(bench.host.wishes).toHaveLength(1);
});

test('a refusal is shown with its reason', async () => {
  bench = await Bench.paired();
  bench.host.onWish = async () => ({
    kind: 'refused',
    rejection: { code: 'approval_not_pending', text: 'somebody else was first' },
  });
  const id = bench.wish({ type: 'cancel_turn', session: SESSION });
  await bench.until(() => bench.stage(id)?.kind === 'refused');
  expect(bench.stage(id)).toEqual({
    kind: 'refused',
    code: 'approval_not_pending',
    text: 'somebody else was first',
  });
});

test('questions of sessions that nobody shows are in the overview', async () => {
  bench = await Bench.paired();
  const summary = {
    session: SESSION,
    title: 'demo',
    dir: '/demo',
    branch: null,
    agent: 'scripted',
    state: 'requires_action' as const,
    pending: 1,
    at: 5,
  };
  const ask = JSON.stringify({
    tool: null,
    title: 'Run ls',
    subject: { kind: 'command', command: 'ls', dir: '/' },
  });
  const approval = 'apr_01990000000070008000000000000009';
  await bench.host.say(SESSION, [
    OPENED,
    STARTED,
    { type: 'approval_requested', approval, request: 'r1', ask },
  ]);
  await bench.host.tell({ type: 'session_listed', summary });
  await bench.until(() => bench.overview?.approvals.length === 1);
  expect(bench.overview?.approvals[0]).toMatchObject({ session: SESSION, approval, ask, title: 'demo' });
  await bench.host.say(SESSION, [
    { type: 'approval_decided', approval, by: { kind: 'local' }, verdict: { kind: 'void', why: 'x' } },
  ]);
  await bench.until(() => bench.overview?.approvals.length === 0);
});

test('a forged roster entry raises the alarm', async () => {
  bench = await Bench.paired();
  const [first] = bench.host.entries;
  const forged = { ...first, signature: 'AAAA', body: '{"number":3}' };
  await bench.host.tell({ type: 'roster_extended', entry: JSON.stringify(forged) });
  await bench.until(() => bench.hostView?.sync.state === 'alarm');
  expect(bench.hostView?.sync).toEqual({ state: 'alarm', code: 'tampered' });
});

test('presence is told as the relay tells it, and not at all without a relay', async () => {
  bench = await Bench.paired();
  await bench.until(() => bench.hostView?.presence.state === 'online');
  bench.relay.setHostOnline(false);
  await bench.until(() => bench.hostView?.presence.state === 'offline');
  bench.relay.down = true;
  bench.relay.cut();
  await bench.until(() => bench.hostView?.presence.state === 'unknown');
});

/** Messages, sixteen to an envelope. */
function* many(first: number, last: number): Generator<SessionEvent[]> {
  for (let at = first; at <= last; at += 16) {
    yield Array.from({ length: Math.min(16, last - at + 1) }, (_, n) => message(`m${at + n}`, `${at + n}`));
  }
}

test('f20 what a person wishes waits for no flood', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED]);
  bench.open(SESSION);
  await bench.until(() => bench.rows.has(SESSION));
  await bench.host.flood(SESSION, many(1, 20_000));
  const begun = Date.now();
  const id = bench.wish({ type: 'cancel_turn', session: SESSION });
  await bench.until(() => bench.said.some((said) => said.type === 'kept' && said.id === id), 60_000);
  const kept = Date.now() - begun;
  await bench.until(() => texts().at(-1) === '20000', 60_000);
  expect(kept, 'most of the flood was still to be read').toBeLessThan((Date.now() - begun) / 2);
  expect(bench.rows.get(SESSION)?.length).toBeLessThanOrEqual(800);
});

/** Messages with a snapshot now and then, as a host writes them. */
function* withSnapshots(first: number, last: number): Generator<SessionEvent[]> {
  for (let at = first; at <= last; at += 256) {
    yield [{ type: 'snapshot', state: { ...EMPTY_SESSION, title: `at ${at}` } }];
    yield* many(at, Math.min(last, at + 255));
  }
}

/** A device that read a little of a session, and was away while very much was written. */
async function farBehind(): Promise<void> {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED, STARTED, message('m0', 'the last that was read')]);
  bench.open(SESSION);
  await bench.until(() => texts().includes('the last that was read'));
  bench.relay.down = true;
  bench.relay.cut();
  await bench.until(() => bench.overview?.link.state === 'waiting');
  await bench.host.flood(SESSION, withSnapshots(1, 30_000));
}

async function comeBack(): Promise<void> {
  bench.relay.down = false;
  bench.engine.handle('page', { type: 'nudge' });
  await bench.until(() => texts().at(-1) === '30000', 10_000);
}

/** Pages back until the oldest row that is shown is another one, and `until` holds. */
async function pageBack(holds: () => boolean): Promise<void> {
  for (let page = 0; !holds(); page += 1) {
    expect(page).toBeLessThan(600);
    const first = () => bench.rows.get(SESSION)?.[0]?.key;
    const before = first();
    await bench.until(() => bench.states.get(SESSION)?.older !== 'reading' || holds(), 20_000);
    bench.engine.handle('page', { type: 'older', session: SESSION });
    // A page of the relay has thousands of events, each of which is checked.
    await bench.until(() => first() !== before || holds(), 20_000);
  }
}

test('f21 who was away for very much sees the end at once, and the rest by paging back to what was read', async () => {
  await farBehind();
  const fetched = () => bench.relay.received.filter(({ kind }) => kind === 'fetch').length;
  await comeBack();
  expect(bench.states.get(SESSION)?.session.title).toBe(`at ${1 + 256 * 117}`);
  expect(bench.states.get(SESSION)?.sync.state).toBe('current');
  expect(texts().length, 'the newest only').toBeLessThan(300);
  expect(bench.rows.get(SESSION)?.filter(({ kind }) => kind === 'notice')).toEqual([]);
  expect(fetched()).toBe(0);
  // What was read before, and everything between, is there when one looks for it; also later.
  bench.stop();
  await bench.boot();
  bench.open(SESSION);
  await bench.until(() => texts().at(-1) === '30000');
  // What is asked for without a connection is not asked for later by itself.
  await bench.until(() => bench.overview?.link.state === 'connected', 20_000);
  await pageBack(() => texts().includes('the last that was read'));
  expect(bench.states.get(SESSION)?.sync.state).toBe('current');
}, 60_000);

test('s06 a leap over very much lets no other past be shown than the one that was read', async () => {
  await farBehind();
  // Another log of the same host, which differs in what was read: signed, and not the same.
  const stream = asStream(SESSION);
  bench.relay.streams.delete(stream);
  bench.host.forget(SESSION);
  await bench.host.say(SESSION, [OPENED, STARTED, message('m0', 'something else')]);
  await bench.host.flood(SESSION, withSnapshots(1, 30_000));
  await comeBack();
  await pageBack(() => bench.states.get(SESSION)?.sync.state === 'alarm');
  expect(bench.states.get(SESSION)?.sync).toEqual({ state: 'alarm', code: 'tampered' });
  expect(texts()).not.toContain('something else');
}, 60_000);

test('f21 a page that has not drawn its rows is told of more in large pieces only', async () => {
  bench = await Bench.paired();
  await bench.host.say(SESSION, [OPENED]);
  bench.open(SESSION);
  await bench.until(() => bench.rows.has(SESSION));
  bench.draws = false;
  await bench.until(() => bench.said.at(-1)?.type === 'overview');
  const before = bench.said.length;
  const begun = Date.now();
  let n = 0;
  // As fast as they are read: each would be told by itself.
  while (Date.now() - begun < 1_200) {
    n += 1;
    await bench.host.say(SESSION, [message(`m${n}`, `${n}`)]);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await bench.until(() => texts().at(-1) === `${n}`);
  const told = bench.said
    .slice(before)
    .filter(({ type }) => type === 'rows_changed' || type === 'rows_reset');
  expect(told.length).toBeLessThanOrEqual(3 + (Date.now() - begun) / 500);
});

test('i05 a host is live by its own echo, not by the word of the relay', async () => {
  bench = await Bench.start();
  bench.host.answers = false;
  bench.engine.handle('page', { type: 'pair', link: await bench.host.link(), name: 'phone' });
  await bench.until(() => bench.hostView?.presence.state === 'online');
  const reach = () => (bench.hostView === undefined ? null : reachOf(bench.hostView.known, Date.now()));
  expect(reach()).toBe('unproven');
  bench.host.answers = true;
  bench.host.pulses = {
    [SESSION]: { head: 1, sent: 1, state: 'running', keeper: null, agent: true, heard: null, held: null },
  };
  bench.engine.handle('page', { type: 'nudge' });
  await bench.until(() => reach() === 'live');
  const known = bench.hostView?.known;
  expect(known === undefined ? null : turnOf(known, SESSION, Date.now())).toMatchObject({
    state: 'running',
    fresh: true,
  });
  // Without the relay the state stays known, and is not the present any more.
  bench.relay.down = true;
  bench.relay.cut();
  await bench.until(() => reach() === 'offline');
  const after = bench.hostView?.known;
  expect(after === undefined ? null : turnOf(after, SESSION, Date.now())).toMatchObject({
    state: 'running',
    fresh: false,
  });
});

test('s03 an echo that was used is good for nothing', async () => {
  bench = await Bench.paired();
  await bench.until(() => bench.hostView?.known.path.proven != null);
  bench.host.answers = false;
  const [used] = bench.host.echoes;
  const proven = bench.hostView?.known.path.proven;
  bench.engine.handle('page', { type: 'nudge' });
  await bench.until(() => bench.hostView?.known.path.waiting != null);
  if (used !== undefined) bench.relay.deliver(used);
  await bench.host.tell({ type: 'host_started', name: 'renamed', version: '0.1.0' });
  await bench.until(() => bench.hostView?.name === 'renamed');
  expect(bench.hostView?.known.path.proven).toBe(proven);
});

test('a host that is away is said to be so when it is asked', async () => {
  bench = await Bench.paired();
  bench.relay.hostOnline = false;
  bench.engine.handle('page', { type: 'nudge' });
  await bench.until(() => bench.hostView?.known.host.value === false);
});

test('a receipt that is not JSON harms nothing', async () => {
  bench = await Bench.paired();
  const peer = bench.overview?.me ?? '';
  await bench.host.send(peer, 'receipt', undefined);
  await bench.until(() => (bench.relay.mailbox.get(peer) ?? []).length === 0);
});
