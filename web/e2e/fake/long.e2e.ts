/**
 * A session with very many events: it opens by its newest page, and costs the same wherever one
 * looks. With `LONG=1` a million; the figures are printed.
 */
import { createHash } from 'node:crypto';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { applyEvent, EMPTY_SESSION } from '../../src/engine/session';
import type { Session, SessionEvent } from '../../src/protocol/types';
import { type Cost, Gauge, inWords } from './gauge';
import { FakeServer } from './server';
import { MAIN } from './story';

const IS_LONG = (process.env['LONG'] ?? '') !== '';
const EVENTS = IS_LONG ? 1_000_000 : 20_000;
const IN_ENVELOPE = 16;
const SNAPSHOT_EVERY = 256;
/** Rows that the page may have at most: the engine's bound and one page of what is added. */
const BOUND = 1_600;
/** What memory may differ by between two places in the log. */
const SLACK = 8 * 1024 * 1024;
/** With `MISSED=1000000` there are too many to read them one after another. */
const MISSED = Number(process.env['MISSED'] ?? 10_000);
/** How far is scrolled up. */
const PAGES = IS_LONG ? 50 : 20;

let browser: Browser;
let server: FakeServer;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  const args = ['--no-sandbox', '--js-flags=--expose-gc', '--enable-precise-memory-info'];
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
});

afterAll(() => browser.close());

beforeEach(async () => {
  server = await FakeServer.start();
  context = await browser.newContext({ viewport: { width: 390, height: 844 } });
  page = await context.newPage();
  page.setDefaultTimeout(60_000);
  session = EMPTY_SESSION;
  written = 0;
});

afterEach(async () => {
  await context.close();
  await server.stop();
});

let session: Session;
let written: number;

/** Writes a log of that many events, with snapshots as a host makes them. */
async function write(events: number): Promise<void> {
  await server.host.flood(MAIN, groups(written + events));
}

function* groups(end: number): Generator<SessionEvent[]> {
  while (written < end) {
    const batch: SessionEvent[] = [];
    while (batch.length < IN_ENVELOPE && written < end) {
      written += 1;
      const event = eventAt(written);
      session = applyEvent(session, event);
      batch.push(event);
    }
    yield batch;
  }
}

function eventAt(seq: number): SessionEvent {
  if (seq === 1)
    return { type: 'session_opened', title: 'A long day', dir: '/home/ada', branch: null, agent: 'a' };
  if (seq % SNAPSHOT_EVERY === 0) return { type: 'snapshot', state: session };
  const text = `event ${seq}: ${createHash('sha512').update(`${seq}`).digest('base64')}`;
  return {
    type: 'message_added',
    message: `m${seq}`,
    role: 'agent',
    content: [{ kind: 'text', text }],
    parent: null,
  };
}

const at = (id: string) => page.getByTestId(id);
const rowCount = () => page.locator('.row').count();
const print = (what: string) => process.stdout.write(`f21, ${EVENTS} events: ${what}\n`);

async function pair(): Promise<void> {
  await page.goto(await server.host.link(server.url));
  await at('pair-submit').click();
  await at('pair-go').click();
}

const address = () => `#/s/${server.host.identity.peer}/${MAIN}`;

async function open(): Promise<void> {
  await pair();
  await page.goto(`${server.url}/${address()}`);
}

/** Goes to the session, and says after how many milliseconds its newest row was painted. */
async function paint(newest: string): Promise<number> {
  return page.evaluate(
    async ([hash, text]) => {
      const begun = performance.now();
      location.hash = hash;
      const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
      while (document.querySelector('.rows')?.textContent?.includes(text) !== true) await frame();
      await frame();
      return performance.now() - begun;
    },
    [address(), newest] as const,
  );
}

/** Scrolls to the beginning of what is here, again and again, until `found`. */
async function scrollUntil(found: () => Promise<boolean>, watch: () => Promise<void>): Promise<void> {
  for (let turn = 0; turn < 400; turn += 1) {
    if (await found()) return;
    const first = await page.locator('.row').first().getAttribute('data-key');
    await at('rows').evaluate((rows) => {
      rows.scrollTop = 0;
    });
    await page
      .waitForFunction((key) => document.querySelector('.row')?.getAttribute('data-key') !== key, first, {
        timeout: 5_000,
      })
      .catch(() => {});
    await watch();
  }
  throw new Error('the beginning was not reached');
}

/** No more than a little above what it was. */
function expectFlat(now: Cost, before: Cost, what: string): void {
  print(`${what}: ${inWords(now)}`);
  expect(now.page - before.page, `the page's memory ${what}`).toBeLessThan(SLACK);
  expect(now.worker - before.worker, `the worker's memory ${what}`).toBeLessThan(SLACK);
}

test(`f21 a session of ${EVENTS} events opens by its newest page, and memory is the same ${PAGES} pages up`, async () => {
  const began = Date.now();
  await write(EVENTS);
  print(`written in ${Date.now() - began} ms`);
  await pair();
  await at('session-row').first().or(at('start-session')).first().waitFor();
  const gauge = await Gauge.of(page);
  await gauge.watch();
  print(`first paint ${Math.round(await paint(`event ${EVENTS}:`))} ms after it was asked for`);
  print(`longest task until then ${Math.round(await gauge.longest())} ms`);
  const fetched = server.relay.received.filter(({ kind }) => kind === 'fetch').length;
  expect(fetched, 'only the newest page was read').toBeLessThanOrEqual(3);
  expect(await rowCount()).toBeLessThanOrEqual(600);
  print(`opened: ${inWords(await gauge.cost())}`);

  let most = 0;
  let pages = 0;
  let begun: Cost | null = null;
  let longest = 0;
  await gauge.watch();
  await scrollUntil(
    async () => pages === PAGES || (await page.getByText('Session opened').count()) > 0,
    async () => {
      most = Math.max(most, await rowCount());
      pages += 1;
      if (pages === 12) {
        longest = await gauge.longest();
        begun = await gauge.cost();
      }
    },
  );
  expect(most, 'the list is bounded').toBeLessThanOrEqual(BOUND);
  expect(pages).toBeGreaterThan(12);
  if (begun === null) throw new Error('too few pages');
  print(`after 12 pages: ${inWords(begun)}`);
  expectFlat(await gauge.cost(), begun, `after ${pages} pages`);
  print(`longest task in the first 12 pages ${Math.round(longest)} ms`);

  // The end is one tap away, and what comes meanwhile is there.
  await write(100);
  await at('latest').click();
  await page.getByText(`event ${EVENTS + 100}:`).waitFor();
  await expect.poll(async () => page.getByText(`event ${EVENTS + 100}:`).isVisible()).toBe(true);

  // Read once, it opens from what is kept here.
  const before = server.relay.received.length;
  server.relay.down = true;
  server.relay.cut();
  await page.reload();
  const reloaded = Date.now();
  await page.getByText(`event ${EVENTS + 100}:`).waitFor();
  print(`kept here, it opens ${Date.now() - reloaded} ms after the page was loaded`);
  expect(server.relay.received.length).toBe(before);
}, 240_000);

test(`f21 ${MISSED} events that were missed are caught up with, and the page answers meanwhile`, async () => {
  await write(1_600);
  await open();
  await page.getByText('event 1600:').waitFor();
  const gauge = await Gauge.of(page);
  const before = await gauge.cost();
  server.relay.down = true;
  server.relay.cut();
  await expect.poll(() => at('conn-state').first().getAttribute('data-state')).not.toBe('online');
  await write(MISSED);
  server.relay.down = false;
  await gauge.watch();
  const began = Date.now();
  await page.evaluate(() => window.dispatchEvent(new Event('online')));
  await page.getByText(`event ${1_600 + MISSED}:`).waitFor();
  print(`${MISSED} missed events caught up with in ${Date.now() - began} ms`);
  const longest = await gauge.longest();
  print(`longest task meanwhile ${Math.round(longest)} ms`);
  await expect.poll(() => page.getByText(`event ${1_600 + MISSED}:`).isVisible()).toBe(true);
  expect(await rowCount()).toBeLessThanOrEqual(BOUND);
  expectFlat(await gauge.cost(), before, 'after catching up');
}, 240_000);

test('f21 a page that stays at the end of a long turn keeps a bounded list, and one that reads keeps its place', async () => {
  await write(64);
  await open();
  await page.getByText('event 64:').waitFor();
  await write(2_936);
  await page.getByText('event 3000:').waitFor();
  expect(await rowCount()).toBeLessThanOrEqual(BOUND);
  await expect.poll(() => page.getByText('event 3000:').isVisible()).toBe(true);

  await at('rows').evaluate((rows) => {
    rows.scrollTop = rows.scrollHeight / 2;
  });
  await at('latest').waitFor();
  const inSight = () =>
    page.evaluate(() => {
      const rows = [...document.querySelectorAll('.row')];
      const row = rows.find((each) => each.getBoundingClientRect().bottom > 120);
      return { key: row?.getAttribute('data-key'), top: Math.round(row?.getBoundingClientRect().top ?? 0) };
    });
  const place = await inSight();
  await write(2_000);
  await expect.poll(() => server.relay.headOf(MAIN.replace('ses_', 'str_')).seq).toBe(5_000);
  await page.waitForTimeout(500);
  expect(await inSight()).toEqual(place);
  await at('latest').click();
  await page.getByText('event 5000:').waitFor();
}, 120_000);
