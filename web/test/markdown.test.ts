/** Markdown becomes a tree of known nodes: never HTML, never an address that runs or loads. */
import { expect, test } from 'vitest';
import { safeHref } from '../src/model/links';
import { parseMarkdown } from '../src/model/markdown';

test('blocks and inlines are read', () => {
  expect(parseMarkdown('# Hi\n\n- **a** `b`\n\n```rust\nfn x() {}\n```')).toEqual([
    { kind: 'heading', level: 1, children: [{ kind: 'text', text: 'Hi' }] },
    {
      kind: 'list',
      start: null,
      items: [
        [
          {
            kind: 'paragraph',
            children: [
              { kind: 'strong', children: [{ kind: 'text', text: 'a' }] },
              { kind: 'text', text: ' ' },
              { kind: 'code', text: 'b' },
            ],
          },
        ],
      ],
    },
    { kind: 'code', language: 'rust', text: 'fn x() {}\n' },
  ]);
});

test('tables, quotes and numbered lists are read', () => {
  const blocks = parseMarkdown('> q\n\n3. x\n\n| a | b |\n|---|---|\n| 1 | 2 |');
  expect(blocks.map(({ kind }) => kind)).toEqual(['quote', 'list', 'table']);
  expect(blocks[1]).toMatchObject({ start: 3 });
});

test('s11 HTML stays text, pictures are not loaded, and addresses that run are no links', () => {
  const evil =
    '<img src=x onerror=alert(1)> <script>alert(1)</script>\n\n![x](https://evil.example/beacon.png)';
  const tree = JSON.stringify(parseMarkdown(evil));
  expect(tree).toContain('<img src=x onerror=alert(1)>');
  expect(tree).not.toContain('"kind":"html');
  expect(tree).toContain('"kind":"image"');
  const hrefs = [
    'javascript:alert(1)',
    'data:text/html,x',
    ' java\nscript:x',
    'vbscript:x',
    'file:///etc/passwd',
    'x',
  ];
  for (const href of hrefs) expect(safeHref(href)).toBeNull();
  expect(safeHref('https://a.example/b')).toBe('https://a.example/b');
});
