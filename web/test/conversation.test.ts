/** Rows and state follow from events alone, in whatever pieces they come. */
import { expect, test } from 'vitest';
import { Conversation } from '../src/engine/conversation';
import { activityOf, pendingOf } from '../src/engine/session';
import type { LogRecord, SessionEvent } from '../src/protocol/types';

const local = { kind: 'local' } as const;

function records(...events: SessionEvent[]): LogRecord[] {
  return events.map((event, at) => ({ seq: at + 1, at: 1_000 * (at + 1), event }));
}

function build(all: readonly LogRecord[]): Conversation {
  const conversation = new Conversation();
  for (const record of all) conversation.apply(record);
  return conversation;
}

const OPENED: SessionEvent = { type: 'session_opened', title: 't', dir: '/d', branch: null, agent: 'a' };
const UP: SessionEvent = {
  type: 'agent_started',
  agent_session: 'a1',
  name: 'a',
  version: null,
  dialect: 'acp',
  resumed: false,
};
const TURN: SessionEvent[] = [
  { type: 'prompt_queued', prompt: 'prm_1', text: 'do it', by: local },
  { type: 'turn_started', turn: 'trn_1', prompt: 'prm_1' },
];

test('a prompt is shown where its turn begins, and waits in the queue before', () => {
  const all = records(OPENED, UP, ...TURN);
  expect(build(all.slice(0, 3)).session.queue).toHaveLength(1);
  expect(build(all.slice(0, 3)).rows.map(({ kind }) => kind)).toEqual(['note', 'note']);
  const done = build(all);
  expect(done.session.queue).toEqual([]);
  expect(done.rows.at(-1)).toMatchObject({ kind: 'prompt', said: { text: 'do it' } });
  expect(activityOf(done.session)).toBe('running');
});

test('a tool call is one row that its patches change in place', () => {
  const conversation = build(
    records(
      OPENED,
      { type: 'tool_updated', tool: { id: 'x', title: 'Edit', kind: 'edit', status: 'pending' } },
      { type: 'noticed', code: 'internal', text: 'between' },
      {
        type: 'tool_updated',
        tool: { id: 'x', status: 'completed', content: [{ kind: 'text', text: 'ok' }] },
      },
    ),
  );
  expect(conversation.rows).toHaveLength(3);
  expect(conversation.rows[1]).toMatchObject({ tool: { title: 'Edit', status: 'completed' } });
  expect(conversation.session.tools).toEqual({});
});

test('a tool call does not go on when the agent’s program has ended, until it is heard of again', () => {
  const begun = { type: 'tool_updated', tool: { id: 'x', status: 'in_progress' } } as const;
  const over = { type: 'tool_updated', tool: { id: 'y', status: 'completed' } } as const;
  const exited: SessionEvent = { type: 'agent_exited', code: 3, signal: null, stderr: '' };
  const conversation = build(records(OPENED, UP, ...TURN, begun, over, exited));
  const cuts = () =>
    conversation.rows.flatMap((row) => (row.kind === 'tool' ? [[row.tool.id, row.over]] : []));
  expect(cuts()).toEqual([
    ['x', 'cut'],
    ['y', null],
  ]);
  conversation.apply({ seq: 8, at: 8_000, event: begun });
  expect(cuts()).toContainEqual(['x', null]);
  conversation.apply({ seq: 9, at: 9_000, event: { type: 'session_ended', by: local } });
  expect(cuts()).toContainEqual(['x', 'cut']);
});

test('i5 a tool call of which the agent never told the end does not run after its turn, and one that ends late has ended', () => {
  const begun = { type: 'tool_updated', tool: { id: 'x', status: 'in_progress' } } as const;
  const ended: SessionEvent = { type: 'turn_ended', turn: 'trn_1', reason: 'end_turn', detail: null };
  const conversation = build(records(OPENED, UP, ...TURN, begun, ended));
  const over = () => conversation.rows.flatMap((row) => (row.kind === 'tool' ? [row.over] : []));
  expect(over()).toEqual(['unended']);
  // What is said of it afterwards, but its end, lets nothing run without a turn.
  conversation.apply({ seq: 7, at: 7_000, event: { type: 'tool_updated', tool: { id: 'x', title: 'X' } } });
  conversation.apply({ seq: 8, at: 8_000, event: begun });
  expect(over()).toEqual(['unended']);
  const done = { type: 'tool_updated', tool: { id: 'x', status: 'completed' } } as const;
  conversation.apply({ seq: 9, at: 9_000, event: done });
  expect(over()).toEqual([null]);
  // The next turn is another one.
  conversation.apply({ seq: 10, at: 10_000, event: { type: 'turn_started', turn: 't2', prompt: 'p2' } });
  conversation.apply({ seq: 11, at: 11_000, event: { ...begun, tool: { ...begun.tool, id: 'z' } } });
  expect(over()).toEqual([null, null]);
});

test('an approval waits, is decided, is applied, and stays as history', () => {
  const asked = records(OPENED, UP, ...TURN, {
    type: 'approval_requested',
    approval: 'apr_1',
    request: 'r',
    ask: '{}',
  });
  const conversation = build(asked);
  expect(pendingOf(conversation.session)).toEqual(['apr_1']);
  expect(activityOf(conversation.session)).toBe('requires_action');
  const verdict = { kind: 'selected' as const, option: 'y', allows: true, reason: null };
  conversation.apply({
    seq: 6,
    at: 6_000,
    event: { type: 'approval_decided', approval: 'apr_1', by: local, verdict },
  });
  expect(pendingOf(conversation.session)).toEqual([]);
  expect(conversation.rows.at(-1)).toMatchObject({ settled: { by: local, applied: false } });
  conversation.apply({ seq: 7, at: 7_000, event: { type: 'approval_applied', approval: 'apr_1' } });
  expect(conversation.rows.at(-1)).toMatchObject({ settled: { applied: true } });
  expect(conversation.session.approvals).toEqual({});
});

test('deltas that are older than their message change nothing', () => {
  const conversation = build(records(OPENED));
  const live = (after: number, offset: number, text: string) =>
    conversation.applyLive(after, 9, {
      type: 'text',
      message: 'm',
      role: 'agent',
      parent: null,
      offset,
      text,
    });
  live(1, 0, 'He');
  live(1, 5, 'lost');
  live(1, 2, 'llo');
  expect(conversation.rows.at(-1)).toMatchObject({ live: true, content: [{ text: 'Hello' }] });
  const content = [{ kind: 'text' as const, text: 'Hello.' }];
  conversation.apply({
    seq: 2,
    at: 2,
    event: { type: 'message_added', message: 'm', role: 'agent', content, parent: null },
  });
  live(1, 0, 'He');
  expect(conversation.rows).toHaveLength(2);
  expect(conversation.rows.at(-1)).toMatchObject({ live: false, content });
  live(2, 0, 'More');
  expect(conversation.rows).toHaveLength(3);
});

test('a reader that begins at a snapshot has the open state and the questions that wait', () => {
  const before = build(
    records(OPENED, UP, ...TURN, {
      type: 'approval_requested',
      approval: 'apr_1',
      request: 'r',
      ask: '{"x":1}',
    }),
  );
  const late = new Conversation();
  late.apply({ seq: 6, at: 6, event: { type: 'snapshot', state: structuredClone(before.session) } });
  expect(late.complete).toBe(true);
  expect(late.session).toEqual(before.session);
  expect(late.rows).toMatchObject([{ kind: 'approval', approval: 'apr_1', ask: '{"x":1}' }]);
});

test('the state after a whole log equals the state after its snapshot and the rest', () => {
  const all = records(
    OPENED,
    UP,
    ...TURN,
    { type: 'tool_updated', tool: { id: 'x', status: 'in_progress' } },
    { type: 'turn_cancel_requested', turn: 'trn_1', by: local },
    { type: 'turn_ended', turn: 'trn_1', reason: 'cancelled', detail: null },
    { type: 'prompt_queued', prompt: 'prm_2', text: 'more', by: local },
    { type: 'agent_exited', code: 1, signal: null, stderr: '' },
    { type: 'agent_restarting', by: local },
    UP,
    { type: 'title_changed', title: 'new', by: local },
    { type: 'session_ended', by: local },
  );
  for (let cut = 1; cut < all.length; cut += 1) {
    const late = new Conversation();
    const state = structuredClone(build(all.slice(0, cut)).session);
    late.apply({ seq: cut + 1, at: 0, event: { type: 'snapshot', state } });
    for (const record of all.slice(cut)) late.apply(record);
    expect(late.session).toEqual(build(all).session);
  }
});

test('what a newer host says is shown as such', () => {
  const event = { type: 'moon_landed', where: 'sea' } as unknown as SessionEvent;
  expect(build(records(OPENED, event)).rows.at(-1)).toMatchObject({ kind: 'raw', name: 'moon_landed' });
});
