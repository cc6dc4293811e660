/** A session with very many events: it opens by its newest page, and costs the same wherever one looks. */
import { createHash } from 'node:crypto';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { applyEvent, EMPTY_SESSION } from '../../src/engine/session';
import type { Session, SessionEvent } from '../../src/protocol/types';
import { FakeServer } from './server';
import { MAIN } from './story';

const EVENTS = 20_000;
const IN_ENVELOPE = 16;
const SNAPSHOT_EVERY = 256;
/** Rows that the page may have at most: the engine's bound and one page of what is added. */
const BOUND = 1_600;

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
});

afterEach(async () => {
  await context.close();
  await server.stop();
});

let session: Session;
let written: number;

/** Writes a log of that many events, with snapshots as a host makes them. */
async function write(events: number): Promise<void> {
  for (const end = written + events; written < end; ) {
    const batch: SessionEvent[] = [];
    while (batch.length < IN_ENVELOPE && written + batch.length < end) {
      const seq = written + batch.length + 1;
      batch.push(eventAt(seq));
      session = applyEvent(session, batch.at(-1) as SessionEvent);
    }
    await server.host.say(MAIN, batch);
    written += batch.length;
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
const heap = () =>
  page.evaluate(() => {
    (globalThis as unknown as { gc(): void }).gc();
    return (performance as unknown as { memory: { usedJSHeapSize: number } }).memory.usedJSHeapSize;
  });

async function open(): Promise<void> {
  await page.goto(await server.host.link(server.url));
  await at('pair-submit').click();
  await at('pair-go').click();
  await page.goto(`${server.url}/#/s/${server.host.identity.peer}/${MAIN}`);
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

test('f21 a session of 20,000 events opens by its newest page, and memory is the same at its beginning', async () => {
  session = EMPTY_SESSION;
  written = 0;
  await write(EVENTS);
  await open();
  await page.getByText(`event ${EVENTS}:`).waitFor();
  const fetched = server.relay.received.filter(({ kind }) => kind === 'fetch').length;
  expect(fetched, 'only the newest page was read').toBeLessThanOrEqual(3);
  expect(await rowCount()).toBeLessThanOrEqual(600);

  let most = 0;
  let begun = 0;
  let pages = 0;
  await scrollUntil(
    async () => (await page.getByText('Session opened').count()) > 0,
    async () => {
      most = Math.max(most, await rowCount());
      pages += 1;
      if (pages === 12) begun = await heap();
    },
  );
  expect(most, 'the list is bounded').toBeLessThanOrEqual(BOUND);
  expect(pages).toBeGreaterThan(12);
  const grown = (await heap()) - begun;
  expect(grown, `${pages} pages, ${most} rows at most`).toBeLessThan(8 * 1024 * 1024);

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
  await page.getByText(`event ${EVENTS + 100}:`).waitFor();
  expect(server.relay.received.length).toBe(before);
}, 240_000);

test('f21 a page that stays at the end of a long turn keeps a bounded list, and one that reads keeps its place', async () => {
  session = EMPTY_SESSION;
  written = 0;
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
