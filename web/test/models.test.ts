/** Models against a fake engine: what they show and what they wish for. */
import { expect, test } from 'vitest';
import { NOTHING_KNOWN, sight } from '../src/engine/presence';
import type { FromEngine, HostView, Overview, ToEngine } from '../src/engine/views';
import { ApprovalModel } from '../src/model/approval.svelte';
import { Client } from '../src/model/client.svelte';
import { connectionOf, doingOf } from '../src/model/connection';
import { ConversationModel } from '../src/model/conversation.svelte';
import { answersOf, parseSchema } from '../src/model/form';
import { deviceName } from '../src/model/format';
import { PairingModel } from '../src/model/pairing.svelte';
import { hrefOf, parseRoute } from '../src/model/route';
import type { Shelf } from '../src/platform/shelf';
import type { Ask, Echo, Presence } from '../src/protocol/types';

const OVERVIEW: Overview = {
  me: 'peer_1',
  link: { state: 'idle' },
  hosts: [],
  pairing: { step: 'none' },
  wishes: [],
  approvals: [],
  clockOff: null,
  full: false,
};

function memoryShelf(): Shelf {
  const texts = new Map<string, string>();
  return {
    get: (name) => texts.get(name) ?? null,
    put: (name, text) => {
      if (text === null) texts.delete(name);
      else texts.set(name, text);
    },
  };
}

/** An engine that remembers what it was told. */
function fakeEngine(tab = memoryShelf(), start = 10_000, browser = memoryShelf()) {
  const told: ToEngine[] = [];
  let now = start;
  let hear: (message: FromEngine) => void = () => {};
  const port = {
    post: (message: unknown) => {
      told.push(message as ToEngine);
    },
    listen: (heard: (message: unknown) => void) => {
      hear = heard;
    },
  };
  const clock = { now: () => now, steady: () => now, after: () => () => {} };
  const random = { bytes: (length: number) => crypto.getRandomValues(new Uint8Array(length)) };
  const client = new Client(port, { clock, random, tab, browser });
  return {
    client,
    told,
    say: (message: FromEngine) => hear(message),
    pass: (millis: number) => {
      now += millis;
    },
    wishes: () => told.flatMap((message) => (message.type === 'wish' ? [message] : [])),
  };
}

const ASK: Ask = {
  tool: null,
  title: 'Run',
  subject: { kind: 'command', command: 'ls', dir: '/' },
  options: [
    { id: 'y', name: 'Yes', kind: 'allow_once' },
    { id: 'n', name: 'No', kind: 'reject_once' },
  ],
  description: null,
  parent: null,
};

function card(engine: ReturnType<typeof fakeEngine>, ask: Ask): ApprovalModel {
  const key = { host: 'peer_h', session: 'ses_1', approval: 'apr_1', ask: JSON.stringify(ask) };
  return new ApprovalModel(engine.client, key);
}

test('s10 taps within half a second of a card are ignored, later ones decide once', async () => {
  const engine = fakeEngine();
  const model = card(engine, ASK);
  const [yes, no] = ASK.options;
  if (yes === undefined || no === undefined) throw new Error('two options');
  await model.choose(yes);
  expect([engine.wishes().length, model.tooEarly]).toEqual([0, true]);
  engine.pass(600);
  await Promise.all([model.choose(yes), model.choose(no)]);
  await model.choose(no);
  expect(engine.wishes().map(({ command }) => command)).toMatchObject([
    { type: 'decide_approval', verdict: { kind: 'selected', option: 'y', allows: true, reason: null } },
  ]);
});

test('i8 a decision carries the digest of the very bytes that were shown', async () => {
  const engine = fakeEngine();
  const model = card(engine, ASK);
  engine.pass(600);
  model.reason = ' not here ';
  const no = ASK.options[1];
  if (no !== undefined) await model.choose(no);
  const { askDigest } = await import('../src/engine/ask');
  expect(engine.wishes()[0]?.command).toMatchObject({
    digest: await askDigest(JSON.stringify(ASK)),
    verdict: { option: 'n', allows: false, reason: 'not here' },
  });
});

test('a refused decision can be made again; nothing is predicted before', async () => {
  const engine = fakeEngine();
  const model = card(engine, ASK);
  engine.pass(600);
  const yes = ASK.options[0];
  if (yes === undefined) throw new Error('an option');
  await model.choose(yes);
  expect([model.stage, model.isOpen]).toEqual([null, false]);
  const wish = engine.wishes()[0];
  if (wish === undefined) throw new Error('a wish');
  const stage = { kind: 'refused' as const, code: 'digest_mismatch' as const, text: '' };
  const view = { id: wish.id, host: wish.host, command: wish.command, at: 1, stage, recalled: false };
  engine.say({ type: 'overview', overview: { ...OVERVIEW, wishes: [view] } });
  expect([model.stage, model.isOpen]).toEqual([stage, true]);
});

test('questions are answered one of them, several of them, or in own words', async () => {
  const engine = fakeEngine();
  const question = (id: string, multiple: boolean) => ({
    id,
    header: '',
    text: '?',
    multiple,
    choices: [
      { label: 'A', description: null },
      { label: 'B', description: null },
    ],
  });
  const [one, many, free] = [question('one', false), question('many', true), question('free', false)];
  const model = card(engine, {
    ...ASK,
    subject: { kind: 'questions', questions: [one, many, free] },
    options: [],
  });
  engine.pass(600);
  const [a, b] = one.choices;
  if (a === undefined || b === undefined) throw new Error('two choices');
  model.toggle(one, a);
  model.toggle(one, b);
  model.toggle(many, a);
  model.toggle(many, b);
  expect(model.isAnswered).toBe(false);
  model.write(free, 'C');
  await model.answer();
  expect(engine.wishes()[0]?.command).toMatchObject({
    verdict: { kind: 'answered', answers: { one: 'B', many: ['A', 'B'], free: 'C' } },
  });
});

test('an ask that cannot be read offers nothing', () => {
  const model = new ApprovalModel(fakeEngine().client, { host: 'h', session: 's', approval: 'a', ask: '{' });
  expect(model.ask).toBeNull();
});

test('a form is read from its schema and answered by type', () => {
  const schema = JSON.stringify({
    type: 'object',
    required: ['n'],
    properties: {
      n: { type: 'integer' },
      s: { type: 'string' },
      b: { type: 'boolean' },
      e: { type: 'string', enum: ['x', 'y'] },
    },
  });
  const fields = parseSchema(schema) ?? [];
  expect(fields.map(({ kind }) => kind)).toEqual(['number', 'string', 'boolean', 'enum']);
  expect(answersOf(fields, { n: '', s: 'a', b: true, e: '' })).toBeNull();
  expect(answersOf(fields, { n: '1.5', s: '', b: false, e: '' })).toBeNull();
  expect(answersOf(fields, { n: '3', s: '', b: false, e: 'y' })).toEqual({ n: 3, b: false, e: 'y' });
  expect(parseSchema('{"properties":{"o":{"type":"object"}}}')).toBeNull();
});

test('a wish is said again to the next leader until it was kept', () => {
  const engine = fakeEngine();
  const id = engine.client.wish('peer_h', { type: 'open_pairing' });
  engine.say({ type: 'ready' });
  expect(engine.wishes()).toHaveLength(2);
  engine.say({ type: 'kept', id });
  engine.say({ type: 'ready' });
  expect(engine.wishes()).toHaveLength(2);
});

test('f21 of rows that are told again, those that say the same are not drawn again', () => {
  const engine = fakeEngine();
  const model = new ConversationModel(engine.client, 'peer_h', 'ses_1');
  const row = (key: string, text: string) => ({
    kind: 'notice' as const,
    key,
    at: 1,
    code: 'internal',
    text,
  });
  const state = { older: 'none' } as never;
  const tell = (...rows: ReturnType<typeof row>[]) =>
    engine.say({ type: 'rows_reset', session: 'ses_1', rows, state, to: null });
  tell(row('a', '1'), row('b', '2'));
  const [a, b] = model.rows;
  tell(row('b', '2'), row('a', 'other'), row('c', '3'));
  expect(model.rows.map(({ key }) => key)).toEqual(['b', 'a', 'c']);
  expect(model.rows[0]).toBe(b);
  expect(model.rows[1]).not.toBe(a);
  expect(model.rows[1]).toMatchObject({ text: 'other' });
});

test('i05 rows from long ago do not say that a question waits or a tool runs when neither does at the end', () => {
  const engine = fakeEngine();
  const model = new ConversationModel(engine.client, 'peer_h', 'ses_1');
  const asked = { kind: 'approval' as const, key: 'a', at: 1, approval: 'apr_1', ask: '{}', settled: null };
  const tool = { id: 't', status: 'in_progress' as const };
  const ran = { kind: 'tool' as const, key: 't', at: 1, tool, over: null };
  const tell = (newer: string, session: object) =>
    engine.say({
      type: 'rows_reset',
      session: 'ses_1',
      rows: [asked, ran],
      state: { newer, session } as never,
      to: null,
    });
  tell('none', { approvals: { apr_1: { decided: null } }, tools: { t: tool } });
  expect([model.isWaiting(asked), model.waiting, model.overOf(ran)]).toEqual([true, 1, null]);
  tell('more', { approvals: {}, tools: {} });
  expect([model.isWaiting(asked), model.waiting, model.overOf(ran)]).toEqual([false, 0, 'beyond']);
  const done = { ...ran, tool: { ...tool, status: 'completed' as const } };
  expect(model.overOf(done)).toBe(null);
});

test('rows that changed are put in their places', () => {
  const engine = fakeEngine();
  const model = new ConversationModel(engine.client, 'peer_h', 'ses_1');
  const notice = (key: string, text: string) => ({
    kind: 'notice' as const,
    key,
    at: 1,
    code: 'internal',
    text,
  });
  const state = { older: 'none' } as never;
  const session = 'ses_1';
  engine.say({ type: 'rows_reset', session, rows: [notice('a', '1')], state, to: null });
  engine.say({
    type: 'rows_changed',
    session,
    changed: [
      [0, notice('a', '2')],
      [1, notice('b', '3')],
    ],
    state,
  });
  expect(model.rows).toMatchObject([{ text: '2' }, { text: '3' }]);
  model.dispose();
  engine.say({ type: 'rows_reset', session, rows: [], state, to: null });
  expect(model.rows).toHaveLength(2);
});

test('i5 nothing is called online but what the host itself has just said', () => {
  const linked = { state: 'connected', since: 1, relay: 'r', way: 'websocket' } as const;
  const echo: Echo = { nonce: 'n', now: 1_000, every_millis: 3_000, idle_millis: 60_000, sessions: {} };
  const known = [
    { type: 'link', up: true } as const,
    { type: 'host', online: true } as const,
    { type: 'asked' } as const,
  ].reduce((before, sighting) => sight(before, 1_000, sighting), NOTHING_KNOWN);
  const host = (with_: Presence) =>
    ({
      peer: 'peer_h',
      presence: { state: 'online', since: 1 },
      known: with_,
      sessions: [],
    }) as unknown as HostView;
  expect(
    connectionOf({ state: 'waiting', until: 5, code: 'timeout', tries: 1 }, host(known), 1_000).kind,
  ).toBe('no_relay');
  expect(connectionOf({ state: 'connecting', tries: 1 }, host(known), 1_000).kind).toBe('connecting');
  expect(connectionOf(linked, host(known), 1_000).kind, 'the relay’s word alone').toBe('unknown');
  const answered = sight(known, 1_040, { type: 'echoed', host: 'peer_h', asked: 1_000, echo });
  expect(connectionOf(linked, host(answered), 1_040)).toEqual({ kind: 'online', millis: 40 });
  expect(connectionOf(linked, host(answered), 20_000).kind, 'an old answer').toBe('unknown');
  const asked = sight(answered, 4_000, { type: 'asked' });
  expect(connectionOf(linked, host(asked), 10_000).kind, 'no answer').toBe('silent');
});

test('i5 a session is never "running" by what is old', () => {
  const pulse = {
    head: 1,
    sent: 1,
    state: 'running',
    keeper: true,
    agent: true,
    heard: null,
    held: null,
  } as const;
  const echo: Echo = {
    nonce: 'n',
    now: 1_000,
    every_millis: 3_000,
    idle_millis: 60_000,
    sessions: { ses_1: pulse },
  };
  let known = sight(NOTHING_KNOWN, 900, { type: 'link', up: true });
  known = sight(known, 1_000, { type: 'echoed', host: 'peer_h', asked: 1_000, echo });
  const host = { peer: 'peer_h', known, sessions: [] } as unknown as HostView;
  expect(doingOf(host, 'ses_1', 'running', 2_000)).toMatchObject({ state: 'running', fresh: true });
  expect(doingOf(host, 'ses_1', 'running', 60_000)).toEqual({ state: 'running', fresh: false, seen: 1_000 });
  const cut = { ...host, known: sight(known, 2_000, { type: 'link', up: false }) };
  expect(doingOf(cut, 'ses_1', 'running', 2_000), 'what it did stays, with its age').toMatchObject({
    state: 'running',
    fresh: false,
  });
});

test('a link of another relay is not sent to this one', () => {
  const engine = fakeEngine();
  const model = new PairingModel(
    engine.client,
    'https://here.example',
    'Mozilla/5.0 (X11; Linux) Chrome/1',
    null,
  );
  model.link = 'https://there.example/#pair=abc';
  expect([model.elsewhere, model.canSubmit]).toEqual(['https://there.example/#pair=abc', false]);
  model.link = 'https://here.example/#pair=abc';
  model.submit();
  expect(engine.told.at(-1)).toEqual({
    type: 'pair',
    link: 'https://here.example/#pair=abc',
    name: 'Chrome on Linux',
  });
});

test('addresses name screens and nothing else', () => {
  const route = { screen: 'session', host: 'peer_1', session: 'ses_2' } as const;
  expect(parseRoute(hrefOf(route))).toEqual(route);
  expect(parseRoute('#pair=abc')).toEqual({ screen: 'pair', link: '#pair=abc' });
  expect(parseRoute('#/s/x/y')).toEqual({ screen: 'sessions' });
  expect(parseRoute('')).toEqual({ screen: 'sessions' });
});

test('browsers are called by their names', () => {
  const android =
    'Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130 Mobile Safari/537.36';
  const iphone =
    'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605 Version/18.0 Safari/604.1';
  expect(deviceName(android)).toBe('Chrome on Android');
  expect(deviceName(iphone)).toBe('Safari on iPhone');
});

test('a wish that the engine has not kept outlives the page, with its id', () => {
  const tab = memoryShelf();
  const engine = fakeEngine(tab);
  const id = engine.client.wish('peer_h', { type: 'prompt', session: 'ses_1', text: 'hello' });
  expect(fakeEngine(tab).wishes()).toMatchObject([{ id, command: { text: 'hello' } }]);
  const later = fakeEngine(tab);
  later.say({ type: 'kept', id });
  expect(fakeEngine(tab).wishes()).toEqual([]);
});

test('a wish from long ago is not sent by itself; a prompt goes back into its box', () => {
  const tab = memoryShelf();
  const engine = fakeEngine(tab);
  engine.client.wish('peer_h', { type: 'prompt', session: 'ses_1', text: 'hello' });
  engine.client.wish('peer_h', { type: 'cancel_turn', session: 'ses_1' });
  const later = fakeEngine(tab, 10_000_000);
  expect(later.wishes()).toEqual([]);
  expect(new ConversationModel(later.client, 'peer_h', 'ses_1').draft).toBe('hello');
});

test('a browser knows the devices that it was, and that it has lost their keys', () => {
  const browser = memoryShelf();
  const before = fakeEngine(memoryShelf(), 10_000, browser);
  const host = { peer: 'peer_h' } as HostView;
  before.say({ type: 'overview', overview: { ...OVERVIEW, hosts: [host] } });
  const after = fakeEngine(memoryShelf(), 10_000, browser);
  const cleared = { ...OVERVIEW, me: 'peer_2' };
  expect(after.client.selves.haveLost(cleared)).toBe(true);
  expect(after.client.selves.haveLost(OVERVIEW), 'forgetting the host on purpose is no loss').toBe(false);
  expect(after.client.selves.was('peer_1', 'peer_2')).toBe(true);
});
