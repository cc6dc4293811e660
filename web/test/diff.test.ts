/** Line differences: what is put together again from a diff is what went in. */
import { expect, test } from 'vitest';
import { type DiffLine, diffTexts } from '../src/model/diff';

const lines = (old: string, fresh: string): DiffLine[] =>
  diffTexts(old, fresh).hunks.flatMap((hunk) => hunk.lines);
const sideOf = (all: DiffLine[], without: 'added' | 'removed') =>
  all
    .filter(({ kind }) => kind !== without)
    .map(({ text }) => text)
    .join('');

test('a changed line is removed and added, with its numbers', () => {
  expect(lines('a\nb\nc\n', 'a\nB\nc\n')).toEqual([
    { kind: 'same', old: 1, new: 1, text: 'a\n' },
    { kind: 'removed', old: 2, text: 'b\n' },
    { kind: 'added', new: 2, text: 'B\n' },
    { kind: 'same', old: 3, new: 3, text: 'c\n' },
  ]);
});

test('a missing newline at the end is a difference', () => {
  expect(diffTexts('a\n', 'a')).toMatchObject({ added: 1, removed: 1 });
});

test('unchanged stretches far from changes are put away', () => {
  const old = Array.from({ length: 40 }, (_, n) => `${n}\n`).join('');
  const { hunks } = diffTexts(old, old.replace('20\n', 'twenty\n'));
  expect(hunks.map(({ kind, lines: { length } }) => [kind, length])).toEqual([
    ['gap', 17],
    ['lines', 8],
    ['gap', 16],
  ]);
});

test('both sides can be read back from any diff', () => {
  let seed = 3;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed % below;
  };
  const text = () => Array.from({ length: random(12) }, () => `${random(4)}\n`).join('');
  for (let n = 0; n < 2_000; n += 1) {
    const [old, fresh] = [text(), text()];
    const all = lines(old, fresh);
    expect([sideOf(all, 'added'), sideOf(all, 'removed')]).toEqual([old, fresh]);
  }
});

test('texts that share nothing are shown whole, and said to be', () => {
  const old = Array.from({ length: 900 }, (_, n) => `a${n}\n`).join('');
  const fresh = Array.from({ length: 900 }, (_, n) => `b${n}\n`).join('');
  expect(diffTexts(old, fresh)).toMatchObject({ wholesale: true, added: 900, removed: 900 });
});
