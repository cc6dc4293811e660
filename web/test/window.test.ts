/** The stretch of a log that is shown is bounded, and nothing that waits is ever outside of it. */
import { expect, test } from 'vitest';
import { OpenState } from '../src/engine/open-state';
import { Window } from '../src/engine/window';
import type { LogRecord, SessionEvent } from '../src/protocol/types';

const said = (n: number): SessionEvent => ({
  type: 'message_added',
  message: `m${n}`,
  role: 'agent',
  content: [{ kind: 'text', text: `${n}` }],
  parent: null,
});

/** Records from `first` on; the second of all asks a question. */
function records(first: number, last: number): LogRecord[] {
  const asked: SessionEvent = { type: 'approval_requested', approval: 'apr_1', request: 'r', ask: '{}' };
  return Array.from({ length: last - first + 1 }, (_, at) => {
    const seq = first + at;
    return { seq, at: seq, event: seq === 2 ? asked : said(seq) };
  });
}

function begin(count: number): { open: OpenState; window: Window } {
  const open = new OpenState();
  const window = new Window(open);
  open.append(records(1, count));
  window.append(records(1, count));
  return { open, window };
}

test('a question that waits is shown when the rows around it were dropped', () => {
  const { open, window } = begin(40);
  window.dropOldest(20, 10);
  expect(window.rows.map(({ key }) => key)).toEqual([
    'apr_1',
    ...records(31, 40).map(({ seq }) => `magent/m${seq}.0`),
  ]);
  expect(open.pending()).toMatchObject([{ approval: 'apr_1', at: 2 }]);
  expect(window.takeChanged(), 'all rows are told').toBe(null);
});

test('a decision on a question from before the window settles its row', () => {
  const { open, window } = begin(40);
  window.dropOldest(20, 10);
  const by = { kind: 'local' } as const;
  const verdict = { kind: 'void', why: 'x' } as const;
  const decided: LogRecord = {
    seq: 41,
    at: 41,
    event: { type: 'approval_decided', approval: 'apr_1', by, verdict },
  };
  open.append([decided]);
  window.append([decided]);
  expect(window.rows[0]).toMatchObject({ key: 'apr_1', settled: { verdict } });
});

test('what does not join is not shown, and what is dropped at the end is missed there', () => {
  const { window } = begin(10);
  window.dropNewest(8, 6);
  expect(window.isAtEnd).toBe(false);
  window.append(records(11, 12));
  expect(window.last).toBe(6);
  window.extend(records(7, 12), true);
  expect([window.first, window.last, window.isAtEnd]).toEqual([1, 12, true]);
  window.dropOldest(5, 5);
  window.prepend(records(1, 3));
  expect(window.first).toBe(8);
  window.prepend(records(3, 7));
  expect(window.first).toBe(3);
});

test('the open state is whole once a snapshot or the beginning is known', () => {
  const open = new OpenState();
  open.append(records(5, 9));
  expect([open.complete, open.pending()]).toEqual([false, []]);
  open.prepend(records(1, 4));
  expect(open.complete).toBe(true);
  expect(open.pending()).toHaveLength(1);
});
