/** An output of a hundred megabytes: its ends, its size, and any part of it, one at a time. */
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Gauge, inWords } from './gauge';
import { FakeServer } from './server';
import { barriers, shots } from './shots';
import { MAIN } from './story';

const PARTS = 400;
const LINES = 4_096;

let browser: Browser;
let server: FakeServer;
let page: Page;

beforeAll(async () => {
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
  server = await FakeServer.start();
  page = await (await browser.newContext({ viewport: { width: 390, height: 844 } })).newPage();
  page.setDefaultTimeout(30_000);
});

afterAll(async () => {
  await browser.close();
  await server.stop();
});

const at = (id: string) => page.getByTestId(id);

/** A line of 64 bytes, numbered from one end of the whole to the other. */
const line = (n: number) => `${`line ${n} of the output `.padEnd(63, '.')}\n`;

function part(n: number): string {
  return Array.from({ length: LINES }, (_, of) => line(n * LINES + of)).join('');
}

function* parts(): Generator<string> {
  for (let n = 0; n < PARTS; n += 1) yield part(n);
}

test('f20 an output of 100 MB in 400 parts is read at any place, and no more of it is held than a part', async () => {
  const { host } = server;
  const opened = { title: 'A long build', dir: '/home/ada', branch: null, agent: 'a' };
  await host.say(MAIN, [{ type: 'session_opened', ...opened }]);
  const blobs = await host.keep(MAIN, parts());
  const bytes = PARTS * LINES * 64;
  const head = part(0).slice(0, 4_096);
  const tail = part(PARTS - 1).slice(-4_096);
  const content = [{ kind: 'clipped' as const, head, tail, bytes, blobs }];
  const tool = { id: 'x', title: 'make all', kind: 'execute', status: 'completed' as const, content };
  await host.say(MAIN, [{ type: 'tool_updated', tool }]);

  await page.goto(await host.link(server.url));
  await at('pair-submit').click();
  await at('pair-go').click();
  await page.goto(`${server.url}/#/s/${host.identity.peer}/${MAIN}`);
  await at('tool-card').getByRole('button').first().click();
  await at('output-parts').waitFor();
  await shots(page, 'output-ends');
  const wanted = () => server.relay.received.filter(({ kind }) => kind === 'want_blob').length;
  expect(wanted(), 'nothing is fetched that nobody asked for').toBe(0);

  await at('output-parts').click();
  await expect.poll(() => at('output-place').isVisible()).toBe(true);
  const top = () => at('output-place').evaluate((place) => Math.round(place.getBoundingClientRect().top));
  await expect.poll(top, { message: 'one reads from its beginning' }).toBeLessThan(120);
  await shots(page, 'output-part');
  expect(await barriers(page)).toEqual([]);
  const gauge = await Gauge.of(page);
  const before = await gauge.cost();

  // Any place of it, part after part, and its end.
  const slider = at('output-slider');
  for (const place of [PARTS / 2, ...Array.from({ length: 20 }, (_, n) => n * 19), PARTS - 1]) {
    await slider.fill(`${place}`);
    await page.getByText(`line ${place * LINES} of`).waitFor();
    await expect.poll(() => slider.isEnabled()).toBe(true);
  }
  await page.getByText(`line ${PARTS * LINES - 1} of`).waitFor();
  expect(await at('output-after').first().isDisabled()).toBe(true);
  await at('output-before').last().click();
  await page.getByText(`line ${(PARTS - 2) * LINES} of`).waitFor();
  expect(wanted()).toBe(1 + 22 + 1);

  const after = await gauge.cost();
  process.stdout.write(`f20, 100 MB: with one part: ${inWords(before)}; after 23 more: ${inWords(after)}\n`);
  expect(after.page - before.page).toBeLessThan(4 * 1024 * 1024);
  expect(after.worker - before.worker).toBeLessThan(4 * 1024 * 1024);
  expect(after.nodes - before.nodes).toBeLessThan(50);
}, 120_000);
