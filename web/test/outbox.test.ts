/** How far a wish has come, by receipts, by the log, and by the clock. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { HostClock } from '../src/engine/host-clock';
import { makeIdentity } from '../src/engine/identity';
import { freshId } from '../src/engine/ids';
import { Outbox } from '../src/engine/outbox';
import type { Stage } from '../src/engine/views';
import { systemRandom } from '../src/platform/random';
import type { Command, Delivery, Outcome } from '../src/protocol/types';
import { Bench, SESSION } from './support/bench';

let bench: Bench;

beforeEach(async () => {
  bench = await Bench.paired();
});

afterEach(() => bench.stop());

const HOUR = 60 * 60 * 1_000;
const PROMPT: Command = { type: 'prompt', session: SESSION, text: 'hi' };
const applied = (delivery: Delivery): Outcome => ({
  kind: 'applied',
  stream: SESSION.replace('ses_', 'str_'),
  seq: 1,
  made: null,
  delivery,
});
const kinds = () => bench.host.wishes.map(({ command }) => command.type);
const receipt = (id: string, outcome: Outcome) =>
  bench.host.send(bench.overview?.me ?? '', 'receipt', { command: id, outcome });
const reaches = (id: string, kind: Stage['kind']) => bench.until(() => bench.stage(id)?.kind === kind);

test('a prompt is at the host, with the agent, and taken; it never goes back', async () => {
  bench.host.onWish = async () => applied('waiting');
  const id = bench.wish(PROMPT);
  await reaches(id, 'received');
  await receipt(id, applied('handed'));
  await reaches(id, 'handed');
  await receipt(id, applied('waiting'));
  await receipt(id, applied('consumed'));
  await reaches(id, 'consumed');
});

test('the log alone tells how far a prompt is', async () => {
  bench.host.onWish = async () => null;
  bench.open(SESSION);
  const id = bench.wish(PROMPT);
  await reaches(id, 'posted');
  const by = { kind: 'local' as const };
  await bench.host.say(SESSION, [
    { type: 'session_opened', title: 't', dir: '/d', branch: null, agent: 'a' },
  ]);
  await bench.host.say(SESSION, [{ type: 'prompt_queued', prompt: 'prm_1', text: 'hi', by }], id);
  await reaches(id, 'received');
  await bench.host.say(SESSION, [{ type: 'turn_started', turn: 'trn_1', prompt: 'prm_1' }]);
  await reaches(id, 'handed');
  await bench.host.say(SESSION, [
    { type: 'agent_exited', code: 1, signal: null, stderr: '' },
    { type: 'turn_ended', turn: 'trn_1', reason: 'agent_died', detail: null },
  ]);
  await reaches(id, 'indeterminate');
});

test('what nobody knows is sent again by a person only, under another id that names the first', async () => {
  bench.host.onWish = async () => applied('indeterminate');
  const id = bench.wish(PROMPT);
  await reaches(id, 'indeterminate');
  bench.relay.cut();
  await bench.until(() => bench.overview?.link.state === 'connected');
  expect(kinds(), 'nothing is repeated by itself').toEqual(['prompt']);
  bench.host.onWish = async () => applied('waiting');
  const fresh = freshId('command', Date.now(), systemRandom.bytes(10));
  bench.engine.handle('page', { type: 'retry', id, fresh });
  await reaches(fresh, 'received');
  await reaches(id, 'retried');
  expect(bench.host.wishes.map((wish) => [wish.id, wish.retries])).toEqual([
    [id, undefined],
    [fresh, id],
  ]);
});

test('a wish that never left is taken back here; of one that did, the host has the last word', async () => {
  bench.relay.down = true;
  bench.relay.cut();
  await bench.until(() => bench.overview?.link.state === 'waiting');
  const unsent = bench.wish(PROMPT);
  await reaches(unsent, 'kept');
  bench.engine.handle('page', { type: 'recall', id: unsent });
  await reaches(unsent, 'refused');
  bench.relay.down = false;
  bench.engine.handle('page', { type: 'nudge' });
  await bench.until(() => bench.overview?.link.state === 'connected');

  bench.host.onWish = async () => null;
  const sent = bench.wish(PROMPT);
  await reaches(sent, 'posted');
  bench.engine.handle('page', { type: 'recall', id: sent });
  await bench.until(() => kinds().includes('recall'));
  expect(bench.host.wishes.at(-1)?.command).toEqual({ type: 'recall', command: sent });
  const shown = () => bench.overview?.wishes.find(({ id }) => id === sent);
  await bench.until(() => shown()?.recalled === true);
  expect(shown()?.stage).toEqual({ kind: 'posted' });
  await receipt(sent, applied('consumed'));
  await reaches(sent, 'consumed');
  expect(shown()?.recalled).toBe(false);
});

/** An outbox alone, with clocks that a test sets: the own one, and one that nobody sets. */
async function alone() {
  const sent: Uint8Array[] = [];
  const times = { now: 1_000_000, steady: 0 };
  const store = { wishes: async () => [], putWish: async () => {}, dropWish: async () => {} };
  const host = {
    peer: bench.host.identity.peer,
    keys: bench.host.identity.public,
    name: 'desk',
    relay: 'http://relay.test',
    roster: { number: 1, hash: new Uint8Array(32) },
    lastSeen: 0,
  };
  const clock = { now: () => times.now, steady: () => times.steady, after: () => () => {} };
  const time = new HostClock(clock);
  const events = {
    changed: () => {},
    send: (message: Uint8Array) => sent.push(message) > 0,
    host: () => host as never,
    time: () => time,
  };
  const outbox = new Outbox(await makeIdentity(), store as never, { clock, random: systemRandom }, events);
  const id = 'cmd_01990000000070008000000000000009';
  return { outbox, host: host as never, times, time, sent, id, stage: () => outbox.views()[0]?.stage };
}

test('f27 a wish whose time is over is doubted, not called refused, until the host says what became of it', async () => {
  const { outbox, host, times, sent, id, stage } = await alone();
  await outbox.add(id, host, PROMPT);
  await outbox.posted(id);
  times.now += 25 * HOUR;
  await outbox.expire();
  expect(stage()).toEqual({ kind: 'expired' });
  expect(sent, 'the host is asked').toHaveLength(2);
  await outbox.receipt(id, applied('done'));
  expect(stage()?.kind).toBe('applied');
});

test('f10 a time is translated to the host’s clock however the own one jumps', () => {
  const times = { now: 0, steady: 0 };
  const host = new HostClock({ now: () => times.now, steady: () => times.steady, after: () => () => {} });
  expect(host.translate(5), 'the host has said nothing').toBe(5);
  host.says(1_000 * HOUR);
  const inAnHour = (own: number, steady: number) => {
    Object.assign(times, { now: own, steady });
    return host.translate(own + HOUR);
  };
  expect(inAnHour(1_000 * HOUR, 0)).toBe(1_001 * HOUR);
  // Less than a minute apart, nothing is changed.
  expect(inAnHour(1_000 * HOUR + 59_000, 0)).toBe(1_001 * HOUR + 59_000);
  for (const own of [900 * HOUR, 1_002 * HOUR, 1_000_000 * HOUR, 0]) {
    expect(inAnHour(own, 0)).toBe(1_001 * HOUR);
    expect(inAnHour(own, 1_000)).toBe(1_001 * HOUR + 1_000);
  }
  Object.assign(times, { now: 5, steady: 1_000 });
  expect(host.translate(0), 'never').toBe(0);
  Object.assign(times, { now: 2_000 * HOUR, steady: 0 });
  expect(host.translate(1), 'what is over stays over').toBe(1);
});

test('f10 a wish ends by the host’s clock: the own one may be set as one likes', async () => {
  const { outbox, host, times, time, id, stage } = await alone();
  time.says(times.now);
  await outbox.add(id, host, PROMPT);
  await outbox.posted(id);
  times.now += 25 * HOUR;
  await outbox.expire();
  expect(stage(), 'the clock was set').toEqual({ kind: 'posted' });
  times.steady += 25 * HOUR;
  await outbox.expire();
  expect(stage(), 'the time has passed').toEqual({ kind: 'expired' });
});

test.for([-2, 2, -48, 48])(
  'f10 with a clock that is %d hours off one pairs and answers, and nothing is called expired',
  async (hours) => {
    bench.stop();
    bench = await Bench.paired(hours * HOUR);
    const stages = new Set<string>();
    const decide: Command = {
      type: 'decide_approval',
      session: SESSION,
      approval: 'apr_1',
      digest: '',
      verdict: { kind: 'selected', option: 'y', allows: true, reason: null },
    };
    const answer = async () => {
      const id = bench.wish(decide);
      await bench.until(() => {
        stages.add(bench.stage(id)?.kind ?? '');
        return bench.stage(id)?.kind === 'applied';
      });
      const wish = bench.host.wishes.find((each) => each.id === id);
      return Math.abs((wish?.notAfter ?? 0) - (Date.now() + HOUR));
    };
    expect(await answer()).toBeLessThan(60_000);

    // Said while nobody was there to ask for the time, by a page that has just been opened.
    bench.relay.down = true;
    bench.relay.cut();
    bench.stop();
    await bench.boot();
    const late = answer();
    await bench.until(() => bench.overview?.wishes.at(-1)?.stage.kind === 'kept');
    bench.relay.down = false;
    bench.engine.handle('page', { type: 'nudge' });
    expect(await late).toBeLessThan(60_000);
    expect([...stages]).not.toContain('expired');
  },
);
