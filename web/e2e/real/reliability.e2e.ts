/** A page, its relay and its host, each taken away in the middle of things: nothing is lost or doubled. */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { freePort, Host, RelayProgram } from './host';
import { Network } from './network';

let browser: Browser;
let host: Host;
let relay: RelayProgram;
let network: Network;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
});

afterAll(() => browser.close());

beforeEach(async () => {
  host = new Host();
  relay = new RelayProgram(await freePort());
  network = await Network.start(() => relay.port);
  relay.url = `http://localhost:${network.port}`;
  await relay.start();
  context = await browser.newContext({ viewport: { width: 390, height: 844 } });
  page = await context.newPage();
  page.setDefaultTimeout(45_000);
});

afterEach(async () => {
  await context.close();
  await host.stop();
  await network.stop();
  await relay.stop();
});

const at = (id: string, on = page) => on.getByTestId(id);
const poll = <T>(read: () => T | Promise<T>) => expect.poll(read, { timeout: 45_000, interval: 50 });
const road = (on = page) => at('conn-state', on).first().getAttribute('data-state');
const untilOnline = (on = page) => poll(() => road(on)).toBe('online');

/** Starts a session with that scenario at the relay, and pairs the page with its host. */
async function begin(scenario?: object): Promise<string> {
  const { link, session } = await host.up(scenario, '--relay', relay.url);
  await pair(link);
  await at('session-row').first().click();
  await untilOnline();
  return session;
}

async function pair(link: string): Promise<void> {
  await page.goto(link);
  await at('pair-submit').click();
  await host.accept(await at('pair-code').innerText());
  await at('pair-go').click();
}

async function prompt(text: string): Promise<void> {
  await at('prompt-box').fill(text);
  await at('prompt-send').click();
}

/** Answers the card that waits, once it may be tapped. */
async function tap(option: string, on = page): Promise<void> {
  const card = on.locator('[data-testid="approval-card"][data-settled="false"]');
  await card.waitFor();
  await on.waitForTimeout(600); // Taps within half a second of the card's appearance are ignored.
  await card.getByTestId(option).first().click({ timeout: 5_000 });
}

/** What the agent said on the page, without what the markup adds. */
const words = async (on = page) => (await at('message', on).allInnerTexts()).join('').replace(/\s/g, '');
const numbers = (to: number) => Array.from({ length: to }, (_, n) => `${n + 1}`).join('');

const COUNTING = { scenarios: { default: [[{ do: 'count', to: 120, per_second: 30 }]] } };
const ASKING = {
  scenarios: {
    default: [
      [
        { do: 'write', path: 'a.txt', text: 'a\n' },
        { do: 'text', text: 'That was it.' },
      ],
    ],
  },
};

test('f11 the network goes and comes in the middle of a turn: the page has every word once', async () => {
  const session = await begin(COUNTING);
  await prompt('count');
  await page.getByText('12', { exact: false }).first().waitFor();
  network.cut();
  await poll(() => road()).not.toBe('online');
  await new Promise((resolve) => setTimeout(resolve, 500));
  network.clear();
  await untilOnline();
  await at('turn-end').waitFor();
  expect(await words()).toBe((await host.said(session)).join('').replace(/\s/g, ''));
  expect(await words()).toContain(numbers(120));
});

test('f12 a network that falls silent is not called online for long, and is left for one that answers', async () => {
  await begin(COUNTING);
  network.silence();
  await poll(() => road()).not.toBe('online');
  network.clear();
  await untilOnline();
});

test('f14 where no WebSocket gets through, all of it goes by plain HTTP, and the page says so', async () => {
  network.refuseUpgrades();
  const session = await begin({
    scenarios: {
      default: [
        [
          { do: 'write', path: 'a.txt', text: 'a\n' },
          { do: 'count', to: 120, per_second: 30 },
        ],
      ],
    },
  });
  expect(network.refused).toBeGreaterThan(0);
  const way = () => at('conn-state').first().getAttribute('data-way');
  await poll(way).toBe('http');
  await prompt('write and count');
  await tap('option-allow_once');
  await poll(() => existsSync(host.path('a.txt'))).toBe(true);
  await page.getByText('12', { exact: false }).first().waitFor();
  network.cut();
  await poll(() => road()).not.toBe('online');
  network.clear();
  await untilOnline();
  expect(await way()).toBe('http');
  await at('turn-end').waitFor();
  expect(await words()).toBe((await host.said(session)).join('').replace(/\s/g, ''));
  expect(await words()).toContain(numbers(120));
  for (const kind of ['prompt_queued', 'approval_decided', 'approval_applied'])
    expect(await host.count(session, kind)).toBe(1);
});

test('f08 a frozen page that comes back is live again, with what happened meanwhile', async () => {
  const session = await begin(COUNTING);
  const devtools = await context.newCDPSession(page);
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
  await host.ok('send', session, 'from elsewhere');
  network.cut();
  network.clear();
  await devtools.send('Page.setWebLifecycleState', { state: 'active' });
  await untilOnline();
  await at('prompt').getByText('from elsewhere').waitFor();
  await at('turn-end').waitFor();
  expect(await words()).toContain(numbers(120));
});

test('a prompt that was kept and not sent survives a reload, and is sent once', async () => {
  const session = await begin(ASKING);
  network.cut();
  await poll(() => road()).not.toBe('online');
  await prompt('kept without a network');
  await page.locator('[data-testid=wish] [data-stage=kept]').waitFor();
  network.clear();
  await page.reload();
  await at('approval-card').waitFor();
  await page.reload();
  await tap('option-allow_once');
  await page.getByText('That was it.').waitFor();
  expect(await host.count(session, 'prompt_queued')).toBe(1);
  expect(existsSync(host.path('a.txt'))).toBe(true);
});

test('words in the box survive a reload', async () => {
  await begin();
  await at('prompt-box').fill('half a thou');
  await page.reload();
  await poll(() => at('prompt-box').inputValue()).toBe('half a thou');
});

test('an approval that was tapped before a reload has one effect, however far it had come', async () => {
  const session = await begin(ASKING);
  await prompt('write');
  await at('approval-card').waitFor();
  network.silence(); // The tap is posted into nothing.
  await tap('option-allow_once');
  await at('receipt').first().waitFor();
  network.clear();
  await page.reload();
  await page.getByText('That was it.').waitFor();
  for (const kind of ['approval_decided', 'approval_applied'])
    expect(await host.count(session, kind)).toBe(1);
  expect(existsSync(host.path('a.txt'))).toBe(true);
});

test('a reload in the middle of words that grow loses none of them', async () => {
  const session = await begin(COUNTING);
  await prompt('count');
  for (const seen of ['9', '40', '70']) {
    await page.getByText(seen, { exact: false }).first().waitFor();
    await page.reload();
  }
  await at('turn-end').waitFor();
  expect(await words()).toBe((await host.said(session)).join('').replace(/\s/g, ''));
});

test('f26 the same question answered in two tabs is decided once, and both say so', async () => {
  const session = await begin(ASKING);
  const other = await context.newPage();
  await other.goto(page.url());
  await prompt('write');
  for (const tab of [page, other]) await at('approval-card', tab).waitFor();
  // The card of the slower one may be settled before the tap.
  const taps = [tap('option-allow_once'), tap('option-reject_once', other)];
  expect((await Promise.allSettled(taps)).some(({ status }) => status === 'fulfilled')).toBe(true);
  for (const tab of [page, other]) await at('verdict', tab).first().waitFor();
  const [here, there] = await Promise.all([page, other].map((tab) => at('verdict', tab).first().innerText()));
  expect(here).toBe(there);
  expect(await host.count(session, 'approval_decided')).toBe(1);
});

for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
  test(`f03 the relay ends by ${signal} while a question is open: the answer arrives once it is back`, async () => {
    const session = await begin(ASKING);
    await prompt('write');
    await at('approval-card').waitFor();
    await relay.end(signal);
    await poll(() => road()).not.toBe('online');
    await tap('option-allow_once');
    await page.locator('[data-testid=receipt][data-stage=kept]').first().waitFor();
    await relay.start();
    await page.getByText('That was it.').waitFor();
    expect(await host.count(session, 'approval_decided')).toBe(1);
  });
}

test('a browser that lost its keys says so, is paired again, and its former self can be removed', async () => {
  await begin();
  await page.evaluate(
    () =>
      new Promise((resolve) => {
        const request = indexedDB.deleteDatabase('farhelm');
        request.onsuccess = resolve;
        request.onerror = resolve;
      }),
  );
  await at('notice-page').waitFor();
  expect(await at('notice-page').getAttribute('data-code')).toBe('storage_gone');
  await page.reload();
  await at('pair-lost').waitFor();
  const { link } = await host.json<{ link: string }>('pair', '--no-wait');
  await pair(link);
  await at('nav-devices').click();
  const former = at('device-row').filter({ has: at('former') });
  await former.waitFor();
  expect(await former.count()).toBe(1);
  expect(await former.getAttribute('data-self')).toBe('false');
  await former.getByTestId('revoke').click();
  await at('confirm').click();
  await page.locator('[data-testid=device-row][data-revoked=true]').waitFor();
  expect((await host.json<{ devices: unknown[] }>('devices')).devices).toHaveLength(1);
});

test('the browser is asked to keep the keys, and what it answers is told', async () => {
  await context.addInitScript(() => {
    const asked = window as unknown as { asked: number };
    asked.asked = 0;
    StorageManager.prototype.persisted = async () => false;
    StorageManager.prototype.persist = async () => {
      asked.asked += 1;
      return false;
    };
  });
  await begin();
  const asked = () => page.evaluate(() => (window as unknown as { asked: number }).asked);
  await poll(asked).toBeGreaterThan(0);
  await page.goto(`${relay.url}/#/devices`);
  await at('unpromised').waitFor();
});

test('f20 a long output is shown by its ends and its size, and read part by part', async () => {
  await begin({
    scenarios: {
      default: [
        [
          { do: 'output', bytes: 3_000_000 },
          { do: 'text', text: 'That was it.' },
        ],
      ],
    },
  });
  await prompt('say much');
  await page.getByText('That was it.').waitFor();
  await at('tool-card').first().getByRole('button').first().click();
  await at('output-parts').click();
  await page.locator('[data-testid=output-place][data-part="0"]').waitFor();
  await at('output-after').first().click();
  await page.locator('[data-testid=output-place][data-part="1"]').waitFor();
  expect(await at('output-place').innerText()).toContain('2.9 MiB');
  const drawn = await at('tool-card').first().innerText();
  expect(drawn.length, 'never all of it at once').toBeLessThan(600_000);
});

test('f02 an agent that dies in a turn: what nobody knows is said, and one tap goes on', async () => {
  const session = await begin({
    scenarios: {
      default: [
        [
          { do: 'sleep', ms: 1_500 },
          { do: 'crash', code: 3 },
        ],
        [{ do: 'text', text: 'Back again.' }],
      ],
    },
  });
  await prompt('do it');
  await at('prompt').getByText('do it').waitFor();
  await prompt('and then this');
  await at('paused').waitFor();
  await at('retry').waitFor();
  expect(await host.count(session, 'turn_started'), 'nothing goes on by itself').toBe(1);
  await at('resume-agent').click();
  await page.getByText('Back again.').first().waitFor();
  await at('paused').waitFor({ state: 'detached' });
  await at('leave').click();
  await poll(() => at('wish').count()).toBe(0);
  expect(await host.count(session, 'prompt_queued')).toBe(2);
});

test('f01 the daemon is killed while a question is open: the card stays, and its answer counts', async () => {
  const session = await begin(ASKING);
  await prompt('write');
  await at('approval-card').waitFor();
  await host.kill();
  await poll(() => road()).not.toBe('online');
  await tap('option-allow_once');
  await host.ok('up', '--dir', host.project, '--headless', '--relay', relay.url, '--agent', 'scripted');
  await page.getByText('That was it.').waitFor();
  expect(await host.count(session, 'approval_decided')).toBe(1);
  expect(existsSync(host.path('a.txt'))).toBe(true);
});
