/** Wishes in every stage, what waits, and what nobody knows, as they are drawn. */
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Delivery, Held } from '../../src/protocol/types';
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
  await page.goto(`${server.url}/#/s/${server.host.identity.peer}/${MAIN}`);
  await at('approval-card').waitFor();
});

afterEach(async () => {
  await context.close();
  await server.stop();
});

const at = (id: string) => page.getByTestId(id);
const by = { kind: 'device' as const, peer: 'peer_00', name: 'Ada’s phone' };
const applied = (delivery: Delivery) => ({
  kind: 'applied' as const,
  stream: MAIN.replace('ses_', 'str_'),
  seq: 20,
  made: null,
  delivery,
});

async function prompt(text: string): Promise<void> {
  await at('prompt-box').fill(text);
  await at('prompt-send').click();
}

test('prompts that wait can be changed, moved and taken back, and say that they are paused', async () => {
  const texts = ['Then update the changelog.', 'And bump the version.'];
  for (const [n, text] of texts.entries()) {
    await server.host.say(MAIN, [{ type: 'prompt_queued', prompt: `prm_q${n}`, text, by }]);
  }
  await expect.poll(() => at('queued-prompt').count()).toBe(2);
  server.host.onWish = async () => null;
  await at('edit').first().click();
  await at('edit-text').fill('Then update the changelog, briefly.');
  await at('edit-save').click();
  await expect
    .poll(() => server.host.wishes.map(({ command }) => command))
    .toMatchObject([
      { type: 'edit_prompt', prompt: 'prm_q0', revision: 0, text: 'Then update the changelog, briefly.' },
    ]);
  await expect.poll(() => at('edit').first().isDisabled(), { message: 'nothing is predicted' }).toBe(true);
  await server.host.say(
    MAIN,
    [
      {
        type: 'prompt_edited',
        prompt: 'prm_q0',
        revision: 1,
        text: 'Then update the changelog, briefly.',
        by,
      },
    ],
    server.host.wishes[0]?.id,
  );
  await page.locator('[data-testid=queued-prompt][data-revision="1"]').waitFor();
  await at('move-up').click();
  await expect
    .poll(() => server.host.wishes.at(-1)?.command)
    .toMatchObject({ type: 'move_prompt', prompt: 'prm_q1', before: 'prm_q0' });

  await server.host.say(MAIN, [{ type: 'queue_paused', why: 'host_restarted' }]);
  await at('paused').waitFor();
  await shots(page, 'queue-paused');
  expect(await barriers(page)).toEqual([]);
  await at('resume-agent').click();
  await expect.poll(() => server.host.wishes.at(-1)?.command.type).toBe('resume_agent');
  await server.host.say(MAIN, [{ type: 'queue_resumed', by }], server.host.wishes.at(-1)?.id);
  await at('paused').waitFor({ state: 'detached' });
});

test('what nobody knows is said, and sent again only by a tap', async () => {
  server.host.onWish = async () => applied('indeterminate');
  await prompt('Drop the old table.');
  const wish = page.locator('[data-testid=wish]').filter({ has: at('retry') });
  await wish.waitFor();
  expect(await wish.getByTestId('receipt').getAttribute('data-stage')).toBe('indeterminate');
  server.host.onWish = async () => null;
  await prompt('And look at the logs.');
  await page.locator('[data-testid=wish] [data-stage=posted]').waitFor();
  await shots(page, 'indeterminate');
  expect(await barriers(page)).toEqual([]);
  expect(server.host.wishes).toHaveLength(2);
  await at('retry').click();
  await expect.poll(() => server.host.wishes.length).toBe(3);
  expect(server.host.wishes[2]).toMatchObject({
    retries: server.host.wishes[0]?.id,
    command: { text: 'Drop the old table.' },
  });
  await at('recall').first().click();
  await expect.poll(() => server.host.wishes.at(-1)?.command.type).toBe('recall');
});

/** What the host says of the session from here on. */
function pulse(sent: number, held: Held | null = null): void {
  const state = 'requires_action' as const;
  server.host.pulses = {
    [MAIN]: { head: sent, sent, state, keeper: true, agent: true, heard: Date.now(), held },
  };
}

const head = () => server.relay.headOf(MAIN.replace('ses_', 'str_')).seq;
const shown = (value: string) => at('conversation').locator(value);

test('i5 what is known is told with its age, each fact by itself', async () => {
  pulse(head());
  await shown('[data-testid=conn-state][data-state=online]').waitFor();
  await shown('[data-testid=activity][data-fresh=true]').waitFor();
  await at('session-menu').click();
  await page.locator('[data-testid=fact-path][data-value=yes]').waitFor();
  await page.locator('[data-testid=fact-keeper][data-value=yes]').waitFor();
  await shots(page, 'facts');
  expect(await barriers(page)).toEqual([]);
  await page.keyboard.press('Escape');
  server.relay.down = true;
  server.relay.cut();
  await shown('[data-testid=activity][data-fresh=false]').waitFor();
  expect(await shown('[data-testid=activity]').getAttribute('data-activity'), 'the last that was known').toBe(
    'requires_action',
  );
  await shown('[data-testid=as-of]').waitFor();
  await shots(page, 'stale');
  expect(await barriers(page)).toEqual([]);
});

test('i5 a host that does not answer is not online, whatever the relay says', async () => {
  pulse(head());
  await shown('[data-testid=conn-state][data-state=online]').waitFor();
  server.host.answers = false;
  await shown('[data-testid=conn-state][data-state=silent]').waitFor();
  await shown('[data-testid=activity][data-fresh=false]').waitFor();
});

test('s06 events that the relay holds back are an alarm, and nothing can be answered under it', async () => {
  pulse(head() + 3);
  await at('held-back').waitFor();
  expect(await at('held-back').innerText()).toContain('3 events');
  expect(await at('option-allow_once').isDisabled()).toBe(true);
  await shots(page, 'held-back');
  expect(await barriers(page)).toEqual([]);
});

test('f15 a session that waits for the host says why, and since when', async () => {
  const text = 'The disk of the host is full. Free some space; it goes on by itself.';
  pulse(head(), { code: 'journal_failed', text, since: Date.now() - 60_000 });
  await at('held').waitFor();
  expect(await at('held').getAttribute('data-code')).toBe('journal_failed');
  expect(await at('held').innerText()).toContain(text);
  await shots(page, 'held');
});
