/** The built app in Chromium against a fake relay, under the server's content security policy. */
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { FakeServer } from './server';
import { ASK, ask, MAIN, tell } from './story';

const SHOTS = new URL('../shots/', import.meta.url).pathname;
const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 800 };

let browser: Browser;
let server: FakeServer;
let context: BrowserContext;
let page: Page;
let complaints: string[];

beforeAll(async () => {
  mkdirSync(SHOTS, { recursive: true });
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
});

afterAll(() => browser.close());

beforeEach(async () => {
  server = await FakeServer.start();
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
  await server.stop();
});

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** What a checker for accessibility finds on the page as it is. */
async function barriers(): Promise<string[]> {
  await page.evaluate(axeSource);
  return page.evaluate(async () => {
    type Found = { violations: { id: string; nodes: { html: string }[] }[] };
    const { axe } = window as unknown as { axe: { run(): Promise<Found> } };
    const { violations } = await axe.run();
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 160)}`));
  });
}

const at = (id: string) => page.getByTestId(id);

async function shot(name: string, sizes = [PHONE, DESKTOP]): Promise<void> {
  for (const size of sizes) {
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.setViewportSize(size);
      await page.emulateMedia({ colorScheme });
      await page.waitForTimeout(120);
      await page.screenshot({ path: `${SHOTS}${name}-${size.width}-${colorScheme}.png` });
    }
  }
  await page.setViewportSize(PHONE);
  await page.emulateMedia({ colorScheme: 'light' });
}

async function pair(): Promise<void> {
  await page.goto(await server.host.link(server.url));
  await at('pair-submit').click();
  await at('pair-done').waitFor();
  await at('pair-go').click();
  await at('host').waitFor();
}

test('pairing by a link shows the code of the host, and leaves no secret in the address', async () => {
  let shown = '';
  let accept: (yes: boolean) => void = () => {};
  server.host.onPairing = (code) => {
    shown = code;
    return new Promise((resolve) => {
      accept = resolve;
    });
  };
  await page.goto(await server.host.link(server.url));
  await at('pair-submit').waitFor();
  expect(page.url()).not.toContain('pair=');
  await shot('pair-1-link');
  await at('pair-submit').click();
  await at('pair-code').waitFor();
  expect(await at('pair-code').textContent()).toBe(shown);
  await shot('pair-2-code');
  accept(true);
  await at('pair-done').waitFor();
  await shot('pair-3-done', [PHONE]);
  expect(complaints).toEqual([]);
});

test('a refused pairing names its code', async () => {
  server.host.onPairing = async () => false;
  await page.goto(await server.host.link(server.url));
  await at('pair-submit').click();
  await at('pair-error').waitFor();
  expect(await at('code').textContent()).toBe('pairing_refused');
  await shot('pair-4-refused', [PHONE]);
});

test('an approval is shown from its bytes, ignores early taps, and tells how far the answer has come', async () => {
  await pair();
  await tell(server.host);
  await page.getByText('Fix the cart total').waitFor();
  await shot('sessions');
  let answer: () => void = () => {};
  server.host.onWish = async (wish) => {
    await server.host.send(wish.from, 'receipt', { command: wish.id, outcome: { kind: 'received' } });
    await new Promise<void>((resolve) => {
      answer = resolve;
    });
    return { kind: 'applied', stream: MAIN.replace('ses_', 'str_'), seq: 14, made: null, delivery: 'done' };
  };
  await page.getByText('Fix the cart total').click();
  await at('approval-card').waitFor();
  await at('option-allow_once').click();
  expect(server.host.wishes).toEqual([]);
  await page.waitForTimeout(600);
  await shot('conversation');
  expect(await at('approval-card').getByTestId('mark').allTextContents()).toEqual([
    'RLO U+202E',
    'ZWSP U+200B',
  ]);
  await at('option-allow_once').click();
  await page.locator('[data-testid=receipt][data-stage=received]').waitFor();
  await shot('approval-received', [PHONE]);
  expect(server.host.wishes[0]?.command).toMatchObject({
    type: 'decide_approval',
    verdict: { kind: 'selected', option: 'yes', allows: true },
  });
  answer();
  const approval = 'apr_01990000000070008000000000000001';
  const me = server.host.wishes[0]?.from ?? '';
  await server.host.say(MAIN, [
    {
      type: 'approval_decided',
      approval,
      by: { kind: 'device', peer: me, name: 'Chrome on Linux' },
      verdict: { kind: 'selected', option: 'yes', allows: true, reason: null },
    },
    { type: 'approval_applied', approval },
    { type: 'tool_updated', tool: { id: 't3', status: 'in_progress' } },
  ]);
  await at('verdict').waitFor();
  await server.host.live(MAIN, {
    type: 'text',
    message: 'm9',
    role: 'agent',
    parent: null,
    offset: 0,
    text: 'All 214 checkout tests pass. The cache folder was ',
  });
  await page.getByText('The cache folder was').waitFor();
  await shot('conversation-live');
  expect(complaints).toEqual([]);
});

test('questions, plans, forms, edits and visits have cards of their own', async () => {
  await pair();
  await tell(server.host);
  const kinds: (typeof ASK)['subject'][] = [
    {
      kind: 'questions',
      questions: [
        {
          id: 'q1',
          header: 'Database',
          text: 'Which database should the tests use?',
          choices: [
            { label: 'SQLite', description: 'In memory, fast' },
            { label: 'PostgreSQL', description: 'As in production' },
          ],
          multiple: false,
        },
      ],
    },
    { kind: 'plan', text: '## Plan\n\n1. Read the module\n2. Change `total`\n3. Test' },
    {
      kind: 'form',
      message: 'The deploy server wants to know:',
      schema: JSON.stringify({
        type: 'object',
        required: ['env'],
        properties: {
          env: { type: 'string', title: 'Environment', enum: ['staging', 'production'] },
          replicas: { type: 'integer', title: 'Replicas', description: 'Between 1 and 9', default: 2 },
          dry: { type: 'boolean', title: 'Dry run', default: true },
        },
      }),
    },
    { kind: 'visit', message: 'Log in to continue.', url: 'https://login.example/device?code=ABCD' },
    {
      kind: 'edit',
      content: [{ kind: 'diff', path: 'src/lib.rs', old: 'fn a() {}\n', new: 'fn a() {}\nfn b() {}\n' }],
      input: '',
    },
  ];
  for (const [index, subject] of kinds.entries()) {
    const options =
      subject.kind === 'questions' ? [] : ASK.options.filter(({ kind }) => kind !== 'allow_always');
    await ask(server.host, `apr_0199000000007000800000000000001${index}`, { ...ASK, subject, options });
  }
  await page.goto(`${server.url}/#/approvals`);
  await expect.poll(() => at('approval-card').count(), { timeout: 10_000 }).toBe(6);
  await page.waitForTimeout(600);
  await page.setViewportSize({ width: 390, height: 3000 });
  await page.screenshot({ path: `${SHOTS}approvals-390-light.png` });
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.screenshot({ path: `${SHOTS}approvals-390-dark.png` });
  await page.getByText('PostgreSQL').click();
  await at('answer-send').first().click();
  await expect.poll(() => server.host.wishes.length, { timeout: 10_000 }).toBe(1);
  expect(server.host.wishes[0]?.command).toMatchObject({
    verdict: { kind: 'answered', answers: { q1: 'PostgreSQL' } },
  });
  await page.setViewportSize(DESKTOP);
  await page.screenshot({ path: `${SHOTS}approvals-1280-dark.png` });
});

test('a prompt written without a network is kept, and sent when it is back', async () => {
  await pair();
  await tell(server.host);
  await page.goto(`${server.url}/#/s/${server.host.identity.peer}/${MAIN}`);
  await at('approval-card').waitFor();
  server.relay.down = true;
  server.relay.cut();
  await at('conversation').locator('[data-testid=conn-state][data-state=no_relay]').waitFor();
  await at('prompt-box').fill('And update the changelog.');
  await at('prompt-send').click();
  await page.locator('[data-testid=wish] [data-stage=kept]').waitFor();
  await shot('offline', [PHONE, DESKTOP]);
  await page.reload();
  await page.locator('[data-testid=wish] [data-stage=kept]').waitFor();
  await page.getByText('I found it').waitFor();
  server.relay.down = false;
  await page.evaluate(() => window.dispatchEvent(new Event('online')));
  await expect.poll(() => server.host.wishes.length, { timeout: 10_000 }).toBe(1);
});

test('devices are listed, can be removed, and can be let in', async () => {
  await pair();
  await tell(server.host);
  server.host.onWish = async ({ command }) => ({
    kind: 'applied',
    stream: 'str_00000000000000000000000000000000',
    seq: 1,
    made: command.type === 'open_pairing' ? await server.host.link(server.url) : null,
    delivery: 'done',
  });
  const offer = 'off_00000000000000000000000000000001';
  await server.host.tell({ type: 'pairing_requested', name: 'Firefox on Mac', code: '402 913', offer });
  await page.goto(`${server.url}/#/devices`);
  await at('waiting-code').waitFor();
  await shot('devices');
  await at('make-link').click();
  await at('pair-link-made').waitFor();
  await page.waitForTimeout(300);
  await page.screenshot({ path: `${SHOTS}devices-link.png`, fullPage: true });
  await at('pairing-accept').click();
  await expect.poll(() => server.host.wishes.map(({ command }) => command.type)).toContain('settle_pairing');
  expect(complaints).toEqual([]);
});

test('two tabs share one connection, and the second goes on when the first is closed', async () => {
  await pair();
  await tell(server.host);
  const second = await context.newPage();
  await second.goto(`${server.url}/#/s/${server.host.identity.peer}/${MAIN}`);
  await second.getByText('I found it').waitFor();
  expect(server.relay.clients.size).toBe(1);
  await page.close();
  await expect.poll(() => server.relay.clients.size, { timeout: 10_000 }).toBe(1);
  await server.host.say(MAIN, [
    { type: 'noticed', code: 'agent_silent', text: 'after the first tab was closed' },
  ]);
  await second.getByText('after the first tab was closed').waitFor();
});

test('every screen is free of barriers, in light and dark', async () => {
  await page.goto(await server.host.link(server.url));
  await at('pair-submit').waitFor();
  expect(await barriers()).toEqual([]);
  await at('pair-submit').click();
  await at('pair-go').click();
  await tell(server.host);
  await page.getByText('Fix the cart total').waitFor();
  const screens = ['#/', `#/s/${server.host.identity.peer}/${MAIN}`, '#/approvals', '#/devices'];
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    for (const screen of screens) {
      await page.evaluate((hash) => {
        location.hash = hash;
      }, screen);
      await page.waitForTimeout(200);
      expect(await barriers(), `${screen} ${colorScheme}`).toEqual([]);
    }
  }
});

test('an approval can be answered by keyboard alone, and focus returns after a dialog', async () => {
  await page.setViewportSize(DESKTOP);
  await pair();
  await tell(server.host);
  await page.getByText('Fix the cart total').waitFor();
  await at('start-session').focus();
  await page.keyboard.press('Enter');
  await at('start-dir').waitFor();
  await page.keyboard.press('Escape');
  expect(await page.evaluate(() => document.activeElement?.getAttribute('data-testid'))).toBe(
    'start-session',
  );
  await page.locator(`[data-session=${MAIN}]`).focus();
  await page.keyboard.press('Enter');
  await at('option-reject_once').waitFor();
  await page.waitForTimeout(600);
  for (let n = 0; n < 60; n += 1) {
    await page.keyboard.press('Tab');
    const id = await page.evaluate(() => document.activeElement?.getAttribute('data-testid'));
    if (id === 'option-reject_once') break;
  }
  await page.keyboard.press('Enter');
  await expect.poll(() => server.host.wishes.length, { timeout: 10_000 }).toBe(1);
  expect(server.host.wishes[0]?.command).toMatchObject({ verdict: { option: 'no', allows: false } });
});

test('s11 nothing that an agent writes runs or loads anything', async () => {
  const asked: string[] = [];
  page.on('request', (request) => asked.push(request.url()));
  page.on('dialog', (dialog) => complaints.push(dialog.message()));
  await pair();
  const evil = [
    '<img src=x onerror=alert(1)>',
    '<script>alert(1)</script>',
    '![x](https://evil.example/beacon.png)',
    '[click](javascript:alert(1))',
    '<svg onload=alert(1)>',
    '<a href="javascript:alert(1)">x</a>',
    '{{constructor.constructor("alert(1)")()}}',
    '\u001b]8;;https://evil.example\u0007link\u001b]8;;\u0007',
  ];
  const text = evil.join('\n\n');
  await server.host.say(MAIN, [
    {
      type: 'session_opened',
      title: evil[0] ?? '',
      dir: evil[1] ?? '',
      branch: evil[4] ?? '',
      agent: evil[5] ?? '',
    },
    { type: 'message_added', message: 'm', role: 'agent', content: [{ kind: 'text', text }], parent: null },
    {
      type: 'tool_updated',
      tool: {
        id: 't',
        title: text,
        kind: text,
        content: [{ kind: 'diff', path: text, old: text, new: `${text}!` }],
      },
    },
    { type: 'raw_noted', kind: text, json: text },
    { type: 'noticed', code: text, text },
    { type: 'agent_exited', code: 1, signal: null, stderr: text },
  ]);
  await ask(server.host, 'apr_01990000000070008000000000000001', {
    ...ASK,
    title: text,
    description: text,
    subject: { kind: 'visit', message: text, url: 'javascript:alert(1)' },
  });
  await page.goto(`${server.url}/#/s/${server.host.identity.peer}/${MAIN}`);
  await at('approval-card').waitFor();
  await page.waitForTimeout(500);
  expect(await page.locator('a[href^="javascript"]').count()).toBe(0);
  expect(asked.filter((url) => !url.startsWith(server.url) && !url.startsWith('ws'))).toEqual([]);
  expect(complaints).toEqual([]);
});
