/** A browser without room: what cannot be made durable is neither shown nor sent, and is said. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { SessionEvent } from '../src/protocol/types';
import { Bench, SESSION } from './support/bench';

let bench: Bench;

beforeEach(async () => {
  bench = await Bench.paired();
});

afterEach(() => {
  vi.restoreAllMocks();
  bench.stop();
});

/** Writing fails from here on, as where a quota is used up. */
function fill(): void {
  vi.spyOn(IDBObjectStore.prototype, 'put').mockImplementation(() => {
    throw new DOMException('no room', 'QuotaExceededError');
  });
}

const said = (text: string): SessionEvent => ({
  type: 'message_added',
  message: text,
  role: 'agent',
  content: [{ kind: 'text', text }],
  parent: null,
});
const shows = (text: string) => JSON.stringify(bench.rows.get(SESSION) ?? []).includes(text);
const heard = (type: string) => bench.said.filter((message) => message.type === type);

test('f16 what cannot be written is not shown, that is said, and it comes once there is room', async () => {
  await bench.host.say(SESSION, [said('before')]);
  bench.open(SESSION);
  await bench.until(() => shows('before'));
  fill();
  await bench.host.say(SESSION, [said('too much')]);
  await bench.until(() => bench.overview?.full === true);
  await bench.host.say(SESSION, [said('even more')]);
  expect([shows('too much'), shows('even more')]).toEqual([false, false]);
  vi.restoreAllMocks();
  await bench.until(() => shows('too much') && shows('even more'), 15_000);
  await bench.until(() => bench.overview?.full === false);
  expect(heard('broken')).toEqual([]);
});

test('a wish that cannot be kept is not sent, and the next one is once there is room', async () => {
  fill();
  const id = bench.wish({ type: 'prompt', session: SESSION, text: 'lost?' });
  await bench.until(() => heard('not_kept').length === 1);
  expect(heard('not_kept')).toEqual([{ type: 'not_kept', id, code: 'storage_full' }]);
  vi.restoreAllMocks();
  bench.wish({ type: 'prompt', session: SESSION, text: 'kept' });
  await bench.until(() => bench.host.wishes.length > 0);
  await bench.host.idle();
  expect(bench.host.wishes.map(({ command }) => command)).toMatchObject([{ type: 'prompt', text: 'kept' }]);
});

test('keys that cannot be written are asked for again, not taken as read', async () => {
  fill();
  await bench.host.say(SESSION, [said('sealed')]);
  bench.open(SESSION);
  await bench.host.idle();
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(shows('sealed')).toBe(false);
  vi.restoreAllMocks();
  bench.relay.cut();
  await bench.until(() => shows('sealed'), 15_000);
});
