/** A session in each state it can be in, as it is drawn in both sizes and both lights. */
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Activity, SessionEvent } from '../../src/protocol/types';
import { FakeServer } from './server';
import { barriers, shots } from './shots';
import { MAIN, tell } from './story';

let browser: Browser;
let server: FakeServer;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
});

afterAll(() => browser.close());

beforeEach(async () => {
  server = await FakeServer.start();
  context = await browser.newContext({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 });
  page = await context.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(await server.host.link(server.url));
  await at('pair-submit').click();
  await at('pair-go').click();
  await tell(server.host);
  server.host.now = Date.now();
});

afterEach(async () => {
  await context.close();
  await server.stop();
});

const at = (id: string) => page.getByTestId(id);
const shown = (value: string) => at('conversation').locator(value);
const head = () => server.relay.headOf(MAIN.replace('ses_', 'str_')).seq;

async function open(): Promise<void> {
  await page.goto(`${server.url}/#/s/${server.host.identity.peer}/${MAIN}`);
  await at('approval-card').waitFor();
}

/** The host says so in its log and by its echoes. */
async function becomes(state: Activity, ...events: SessionEvent[]): Promise<void> {
  if (events.length > 0) await server.host.say(MAIN, events);
  const agent = state !== 'agent_gone' && state !== 'ended';
  const known = { head: head(), sent: head(), state, keeper: true, agent, heard: Date.now(), held: null };
  server.host.pulses = { [MAIN]: known };
}

async function drawn(name: string): Promise<void> {
  await shots(page, `state-${name}`);
  expect(await barriers(page)).toEqual([]);
}

/** The host has just said so itself. */
const activity = (state: Activity) =>
  shown(`[data-testid=activity][data-fresh=true][data-activity=${state}]`).waitFor();
const approval = 'apr_01990000000070008000000000000001';
const by = { kind: 'device' as const, peer: 'peer_00', name: 'Ada’s phone' };
const answered: SessionEvent[] = [
  {
    type: 'approval_decided',
    approval,
    by,
    verdict: { kind: 'selected', option: 'yes', allows: true, reason: null },
  },
  { type: 'approval_applied', approval },
  { type: 'tool_updated', tool: { id: 't3', status: 'in_progress' } },
];

test('a question is open', async () => {
  await open();
  await becomes('requires_action');
  await activity('requires_action');
  await shown('[data-testid=conn-state][data-state=online]').waitFor();
  await drawn('question');
});

test('a turn runs, and ends', async () => {
  await open();
  await becomes('running', ...answered);
  await activity('running');
  await server.host.live(MAIN, {
    type: 'text',
    message: 'm9',
    role: 'agent',
    parent: null,
    offset: 0,
    text: 'The tests run; 120 of 214 are through. ',
  });
  await page.getByText('120 of 214').waitFor();
  await at('stop').waitFor();
  await drawn('running');
  await becomes(
    'idle',
    { type: 'tool_updated', tool: { id: 't3', status: 'completed' } },
    { type: 'turn_ended', turn: 'trn_01990000000070008000000000000001', reason: 'end_turn', detail: null },
  );
  await activity('idle');
  await drawn('idle');
});

test('the agent’s program has ended in a turn, and what waits is paused', async () => {
  await open();
  await becomes(
    'agent_gone',
    {
      type: 'prompt_queued',
      prompt: 'prm_q0',
      text: 'Then update the changelog, and say in one line what has changed for people who upgrade.',
      by,
    },
    { type: 'agent_exited', code: 3, signal: null, stderr: 'fatal: out of memory\n' },
    {
      type: 'turn_ended',
      turn: 'trn_01990000000070008000000000000001',
      reason: 'agent_died',
      detail: null,
    },
    {
      type: 'approval_decided',
      approval,
      by: { kind: 'host' },
      verdict: { kind: 'void', why: 'the agent ended' },
    },
    { type: 'queue_paused', why: 'agent_ended' },
  );
  await activity('agent_gone');
  await at('paused').waitFor();
  await page.locator('[data-testid=tool-card][data-status=cut]').waitFor();
  await at('latest').click();
  await at('turn-end').waitFor();
  await drawn('agent-gone');
});

test('the host does not answer', async () => {
  await open();
  await becomes('running', ...answered);
  await shown('[data-testid=conn-state][data-state=online]').waitFor();
  await activity('running');
  const ran = page.locator('[data-testid=tool-card][data-status=in_progress]').getByTestId('tool-status');
  await expect.poll(() => ran.innerText()).toBe('Running');
  server.host.answers = false;
  await shown('[data-testid=conn-state][data-state=silent]').waitFor();
  await expect.poll(() => ran.innerText(), { message: 'that is not the present' }).toBe('Was running');
  await drawn('host-silent');
  await page.goto(`${server.url}/#/`);
  await at('host').waitFor();
  await drawn('host-silent-list');
});

test('the relay has not all of the history', async () => {
  await open();
  server.relay.limited.add(MAIN.replace('ses_', 'str_'));
  server.relay.cut();
  await shown('[data-testid=sync][data-state=limited]').waitFor();
  await drawn('history-limited');
});

test('a session has ended', async () => {
  await open();
  await becomes('ended', ...answered, { type: 'session_ended', by });
  await activity('ended');
  expect(await at('stop').count(), 'there is nothing to stop').toBe(0);
  await drawn('ended');
});

test('a relay that does not let this device in says why', async () => {
  await page.goto(`${server.url}/#/`);
  server.relay.turnsAway = 'not_allowed';
  server.relay.cut();
  await page.locator('[data-testid=conn-why][data-code=not_allowed]').first().waitFor();
  await drawn('turned-away');
});
