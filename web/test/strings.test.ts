/** What people read: every code says what it means and what to do. */
import { expect, test } from 'vitest';
import { CODES } from '../src/protocol/codes';
import { explain, sentence } from '../src/strings';

test.each(CODES.map(({ word }) => word))('%s has a title and says what to do', (word) => {
  const { title, todo } = explain(word);
  for (const text of [title, todo]) {
    expect(text).toMatch(/^\p{Lu}.*[^.;, ]$/u);
    // The words of the wire and of the program's own terminal mean nothing on a phone.
    expect(text).not.toMatch(/\b(peer|frame|sequence|FARHELM_\w+|this machine)\b/);
  }
  expect(title).not.toBe(word);
  expect(sentence(word)).toBe(`${title}. ${todo}.`);
});

test('a word that is not known is shown as it is', () => {
  expect(sentence('from_the_future')).toBe('From_the_future.');
});
