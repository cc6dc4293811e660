/** The main job in Chromium against the real program: nothing is faked but the agent's script. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { Host } from './host';

const SHOTS = new URL('../shots/real/', import.meta.url).pathname;
const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 800 };

let browser: Browser;
let host: Host;
let context: BrowserContext;
let page: Page;
let complaints: string[];

beforeAll(async () => {
  mkdirSync(SHOTS, { recursive: true });
  const args = [
    '--no-sandbox',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ];
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
});

afterAll(() => browser.close());

beforeEach(async () => {
  host = new Host();
  context = await browser.newContext({ viewport: PHONE, deviceScaleFactor: 2, hasTouch: true });
  page = await context.newPage();
  complaints = [];
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
});

afterEach(async () => {
  await context.close();
  await host.stop();
});

const at = (id: string, on = page) => on.getByTestId(id);

/** Pairs the page with the host, comparing the codes as a person would. */
async function pair(link: string, name = 'phone'): Promise<void> {
  await page.goto(link);
  expect(page.url(), 'the secret leaves the address bar at once').not.toContain('pair=');
  await at('pair-name').fill(name);
  await at('pair-submit').click();
  const code = await at('pair-code').innerText();
  expect(code).toMatch(/^\d{3}\s\d{3}$/);
  const waiting = await host.json<{ waiting: { name: string; code: string }[] }>('devices');
  expect(waiting.waiting).toEqual([expect.objectContaining({ name, code: code.replace(/\s/, ' ') })]);
  await host.accept(code);
  await at('pair-done').waitFor();
  await at('pair-go').click();
}

/** Answers the card that waits, once it may be tapped. */
async function tap(option: string, on = page): Promise<void> {
  const card = on.locator('[data-testid="approval-card"][data-settled="false"]');
  await card.waitFor();
  await on.waitForTimeout(600); // Taps within half a second of the card's appearance are ignored.
  await card.getByTestId(option).first().click();
}

async function shot(name: string, size = PHONE): Promise<void> {
  await page.setViewportSize(size);
  await page.screenshot({ path: `${SHOTS}${name}-${size.width}.png` });
  await page.setViewportSize(PHONE);
}

test('a turn is prompted, approved, denied and seen from the phone, and a reload shows the same', async () => {
  const { link } = await host.up();
  await pair(link);
  await at('session-row').first().click();
  await at('prompt-box').fill('hello from the phone');
  await at('prompt-send').click();

  await at('diff').first().waitFor();
  await shot('approve');
  expect(existsSync(host.path('farhelm-hello.txt')), 'nothing is written before the answer').toBe(false);
  await tap('option-allow_once');
  await expect.poll(() => existsSync(host.path('farhelm-hello.txt'))).toBe(true);
  expect(readFileSync(host.path('farhelm-hello.txt'), 'utf8')).toContain('with your permission');

  await page.getByText('ls -l farhelm-hello.txt').first().waitFor();
  await tap('option-reject_once');
  await page.getByText('That is all there is to it').waitFor();
  await expect.poll(() => at('activity').getAttribute('data-activity')).toBe('idle');
  await shot('done');
  await shot('done', DESKTOP);

  const before = await at('rows').innerText();
  await page.reload();
  await page.getByText('That is all there is to it').waitFor();
  expect(await at('rows').innerText()).toBe(before);
  expect(complaints).toEqual([]);
});

test('a running turn is stopped from the phone', async () => {
  const { link } = await host.up({
    scenarios: { default: [[{ do: 'count', to: 600, per_second: 20 }]] },
  });
  await pair(link);
  await at('session-row').first().click();
  await at('prompt-box').fill('count');
  await at('prompt-send').click();
  await at('stop').click();
  await expect.poll(() => at('activity').getAttribute('data-activity')).toBe('idle');
});

test('another tab shows the same, and an answer at the host settles the card there', async () => {
  const { link } = await host.up();
  await pair(link);
  const other = await context.newPage();
  await other.goto(new URL(link).origin);
  for (const tab of [page, other]) await at('session-row', tab).first().click();
  await at('prompt-box').fill('hello');
  await at('prompt-send').click();
  await at('diff', other).first().waitFor();
  const [question] = await host.json<{ approval: string }[]>('approvals');
  await host.ok('approve', question?.approval ?? '');
  for (const tab of [page, other]) await tab.getByText('ls -l farhelm-hello.txt').first().waitFor();
  await expect.poll(() => existsSync(host.path('farhelm-hello.txt'))).toBe(true);
});

test('a question of the agent is answered from the phone', async () => {
  const { link } = await host.up({
    scenarios: {
      default: [
        [
          {
            do: 'question',
            message: 'Which light?',
            schema: {
              type: 'object',
              properties: { light: { type: 'string', enum: ['red', 'green'] } },
              required: ['light'],
            },
          },
          { do: 'text', text: 'Thank you.' },
        ],
      ],
    },
  });
  await pair(link);
  await at('session-row').first().click();
  await at('prompt-box').fill('ask me');
  await at('prompt-send').click();
  const card = page.locator('[data-testid="approval-card"]');
  await card.getByText('Which light?').first().waitFor();
  await shot('question');
  await card
    .getByText('green')
    .click()
    .catch(async () => card.locator('select').selectOption('green'));
  await page.waitForTimeout(600);
  await at('answer-send').click();
  await page.getByText('Thank you.').waitFor();
});

test('a revoked device says so and shows nothing new', async () => {
  const { link, session } = await host.up();
  await pair(link);
  await at('session-row').first().click();
  await host.ok('revoke', 'phone');
  await host.ok('send', session, 'a secret after the revocation');
  await page.waitForTimeout(1_500);
  expect(await page.innerText('body')).not.toContain('a secret after the revocation');
});

test('a link is used once, and a second try is told so', async () => {
  const { link } = await host.up();
  await pair(link);
  const stranger = await browser.newContext({ viewport: PHONE });
  const second = await stranger.newPage();
  await second.goto(link);
  await at('pair-submit', second).click();
  const error = at('pair-error', second);
  await error.waitFor();
  expect(await error.getAttribute('data-code')).toBe('link_used');
  await stranger.close();
});

test('a session is started from the phone in another folder', async () => {
  const { link } = await host.up();
  await pair(link);
  await at('start-session').first().click();
  await at('start-dir').fill(host.folder);
  await at('start-agent').fill('scripted');
  await at('start-prompt').fill('hello from afar');
  await at('start-submit').click();
  await page.getByText('hello from afar').first().waitFor();
  await expect.poll(async () => (await host.json<unknown[]>('ls')).length).toBe(2);
});

test('what was read can be read while the host is away, and a prompt goes out when it is back', async () => {
  const { link, session } = await host.up();
  await pair(link);
  await at('session-row').first().click();
  await at('prompt-box').fill('hello');
  await at('prompt-send').click();
  await at('diff').first().waitFor();
  await host.ok('down'); // Its relay goes with it.
  await expect
    .poll(() => at('conn-state').first().getAttribute('data-state'), { timeout: 20_000 })
    .not.toBe('online');
  expect(await at('rows').innerText()).toContain('hello');
  await at('prompt-box').fill('written while it was away');
  await at('prompt-send').click();
  expect(await at('receipt').first().getAttribute('data-stage')).toBe('kept');
  await host.up();
  await expect
    .poll(() => host.ok('log', session), { timeout: 40_000 })
    .toContain('written while it was away');
});
