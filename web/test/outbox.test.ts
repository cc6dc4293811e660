/** How far a wish has come, by receipts, by the log, and by the clock. */
import { afterEach, beforeEach, expect, test } from 'vitest';
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

test('f27 a wish whose time is over is doubted, not called refused, until the host says what became of it', async () => {
  const sent: Uint8Array[] = [];
  let now = 1_000;
  const rows = new Map<string, unknown>();
  const store = {
    wishes: async () => [],
    putWish: async (row: { id: string }) => void rows.set(row.id, row),
    dropWish: async (id: string) => void rows.delete(id),
  };
  const { makeIdentity } = await import('../src/engine/identity');
  const identity = await makeIdentity();
  const host = {
    peer: bench.host.identity.peer,
    keys: bench.host.identity.public,
    name: 'desk',
    relay: 'http://relay.test',
    roster: { number: 1, hash: new Uint8Array(32) },
    lastSeen: 0,
  };
  const clock = { now: () => now, after: () => () => {} };
  const outbox = new Outbox(
    identity,
    store as never,
    { clock, random: systemRandom },
    {
      changed: () => {},
      send: (message) => sent.push(message) > 0,
      host: () => host as never,
    },
  );
  await outbox.add('cmd_01990000000070008000000000000009', host as never, PROMPT);
  await outbox.posted('cmd_01990000000070008000000000000009');
  now += 25 * 60 * 60 * 1_000;
  await outbox.expire();
  expect(outbox.views()[0]?.stage).toEqual({ kind: 'expired' });
  expect(sent, 'the host is asked').toHaveLength(2);
  await outbox.receipt('cmd_01990000000070008000000000000009', applied('done'));
  expect(outbox.views()[0]?.stage.kind).toBe('applied');
});
