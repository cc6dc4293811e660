/** A day at the workbench: sessions in every state, with something of everything in them. */
import type { Ask, SessionEvent, Summary } from '../../src/protocol/types';
import type { FakeHost } from '../../test/support/fake-host';

export const MAIN = 'ses_01990000000070008000000000000001';
const IDLE = 'ses_01990000000070008000000000000002';
const RUNS = 'ses_01990000000070008000000000000003';
const GONE = 'ses_01990000000070008000000000000004';
const OVER = 'ses_01990000000070008000000000000005';

export const ASK: Ask = {
  tool: 't3',
  title: 'Run the tests and clean up',
  subject: {
    kind: 'command',
    command: 'cargo nextest run -p checkout --no-fail-fast && rm -rf "$TMPDIR/checkout-\u202e\u200bcache"',
    dir: '/home/ada/src/shop',
  },
  options: [
    { id: 'yes', name: 'Allow once', kind: 'allow_once' },
    { id: 'always', name: 'Always allow cargo nextest', kind: 'allow_always' },
    { id: 'no', name: 'Reject', kind: 'reject_once' },
  ],
  description: 'Runs the checkout tests, then removes a stale cache folder.',
  parent: null,
};

const OLD = `use std::time::Duration;

/// How long a reservation lasts.
pub const RESERVATION: Duration = Duration::from_secs(600);

pub fn reserve(cart: &mut Cart, now: Instant) -> Result<(), Full> {
    if cart.items.len() >= MAX_ITEMS {
        return Err(Full);
    }
    cart.until = now + RESERVATION;
    Ok(())
}

pub fn total(cart: &Cart) -> Money {
    let mut sum = Money::ZERO;
    for item in &cart.items {
        sum += item.price;
    }
    sum
}
`;

const NEW = OLD.replace(
  '    for item in &cart.items {\n        sum += item.price;\n    }\n    sum\n',
  '',
).replace(
  '    let mut sum = Money::ZERO;\n',
  '    cart.items.iter().map(|item| item.price * item.quantity).sum()\n',
);

export async function tell(host: FakeHost): Promise<void> {
  host.now = Date.now() - 26 * 60_000;
  const by = { kind: 'device' as const, peer: 'peer_00', name: 'Ada’s phone' };
  const turn = 'trn_01990000000070008000000000000001';
  const prompt = 'prm_01990000000070008000000000000001';
  const events: SessionEvent[] = [
    {
      type: 'session_opened',
      title: 'Fix the cart total',
      dir: '/home/ada/src/shop',
      branch: 'fix/cart-total',
      agent: 'claude',
    },
    {
      type: 'agent_started',
      agent_session: 'a1',
      name: 'Claude Code',
      version: '2.1.4',
      dialect: 'claude',
      resumed: false,
    },
    {
      type: 'modes_offered',
      modes: [
        { id: 'default', name: 'Ask first', description: null },
        { id: 'acceptEdits', name: 'Accept edits', description: null },
        { id: 'plan', name: 'Plan', description: null },
      ],
      current: 'default',
    },
    {
      type: 'prompt_queued',
      prompt,
      text: 'The cart total ignores quantities. Fix it, add a test, and run the checkout tests.',
      by,
    },
    { type: 'turn_started', turn, prompt },
    {
      type: 'message_added',
      message: 'm0',
      role: 'thought',
      content: [{ kind: 'text', text: 'The sum adds the price of each item once. Quantity is never read.' }],
      parent: null,
    },
    {
      type: 'message_added',
      message: 'm1',
      role: 'agent',
      content: [
        {
          kind: 'text',
          text: 'I found it: `total` adds each **price once** and never reads `quantity`.\n\n1. Use `price * quantity` in `total`\n2. Add a test with two of the same item\n3. Run the checkout tests\n\n```rust\nassert_eq!(total(&cart), Money::cents(2 * 450));\n```',
        },
      ],
      parent: null,
    },
    {
      type: 'plan_updated',
      entries: [
        { content: 'Read the cart module', status: 'completed', priority: null },
        { content: 'Multiply by the quantity', status: 'completed', priority: null },
        { content: 'Run the checkout tests', status: 'in_progress', priority: null },
      ],
    },
    {
      type: 'tool_updated',
      tool: {
        id: 't1',
        title: 'Read cart.rs',
        kind: 'read',
        status: 'completed',
        locations: [{ path: '/home/ada/src/shop/crates/checkout/src/cart.rs', line: 14 }],
        content: [{ kind: 'text', text: OLD }],
      },
    },
    {
      type: 'tool_updated',
      tool: {
        id: 't2',
        title: 'Edit cart.rs',
        kind: 'edit',
        status: 'completed',
        locations: [{ path: '/home/ada/src/shop/crates/checkout/src/cart.rs', line: 15 }],
        content: [{ kind: 'diff', path: 'crates/checkout/src/cart.rs', old: OLD, new: NEW }],
      },
    },
    { type: 'usage_updated', used: 48_211, size: 200_000, cost: 0.42, currency: 'USD' },
    {
      type: 'tool_updated',
      tool: { id: 't3', title: 'cargo nextest run -p checkout', kind: 'execute', status: 'pending' },
    },
  ];
  await host.say(MAIN, events);
  await host.tell(
    summary(MAIN, 'Fix the cart total', 'shop', 'fix/cart-total', 'claude', 'requires_action', 1, 1),
    summary(RUNS, 'Migrate the session table to UUIDv7', 'accounts', 'main', 'codex', 'running', 0, 4),
    summary(IDLE, 'Explain the flaky upload test', 'media-pipeline', 'main', 'gemini', 'idle', 0, 48),
    summary(GONE, 'Upgrade to Vite 8', 'storefront', 'chore/vite-8', 'opencode', 'agent_gone', 0, 190),
    summary(OVER, 'Write the release notes', 'shop', 'main', 'claude', 'ended', 0, 1_600),
  );
  await host.say(RUNS, [
    {
      type: 'session_opened',
      title: 'Migrate the session table to UUIDv7',
      dir: '/a',
      branch: 'main',
      agent: 'codex',
    },
  ]);
  await ask(host, 'apr_01990000000070008000000000000001', ASK);
}

export async function ask(host: FakeHost, approval: string, asked: Ask): Promise<void> {
  await host.say(MAIN, [
    { type: 'approval_requested', approval, request: approval, ask: JSON.stringify(asked) },
  ]);
}

function summary(
  session: string,
  title: string,
  folder: string,
  branch: string,
  agent: string,
  state: Summary['state'],
  pending: number,
  minutesAgo: number,
) {
  const at = Date.now() - minutesAgo * 60_000;
  const dir = `/home/ada/src/${folder}`;
  return {
    type: 'session_listed' as const,
    summary: { session, title, dir, branch, agent, state, pending, at },
  };
}
