/** What an approval shows differs whenever its bytes differ. */
import { expect, test } from 'vitest';
import { segments, visibleText } from '../src/model/visible';

test('s24 control, bidirectional, zero-width and tag characters are shown by name', () => {
  expect(visibleText('a\u202eb')).toBe('a⟨RLO U+202E⟩b');
  expect(visibleText('a\u200bb')).toBe('a⟨ZWSP U+200B⟩b');
  expect(visibleText('\u001b[31mred')).toBe('⟨␛⟩[31mred');
  expect(visibleText('a\rb\u0007')).toBe('a⟨␍⟩b⟨␇⟩');
  expect(visibleText('x\u{e0041}')).toBe('x⟨U+E0041⟩');
  expect(visibleText('a\u00a0b\ufeff')).toBe('a⟨NBSP U+00A0⟩b⟨BOM U+FEFF⟩');
  expect(visibleText('e\u0301')).toBe('e⟨U+0301⟩');
  expect(visibleText('\ud800')).toBe('⟨U+D800⟩');
});

test('s24 look-alikes and compatibility forms are marked, ordinary words are not', () => {
  expect(visibleText('сurl')).toBe('⟨с U+0441⟩url');
  expect(visibleText('ｒｍ')).toBe('⟨ｒ U+FF52⟩⟨ｍ U+FF4D⟩');
  expect(visibleText('Ꭺ')).toBe('⟨Ꭺ U+13AA⟩');
  expect(visibleText('echo "grüße, 你好"')).toBe('echo "grüße, 你好"');
});

test('s24 long gaps that push things out of sight are counted', () => {
  expect(visibleText(`ls${' '.repeat(200)}; rm -rf /`)).toBe('ls⟨␠×200⟩; rm -rf /');
  expect(visibleText(`ls${'\n'.repeat(50)}rm`)).toBe('ls⟨⏎×50⟩rm');
});

test('code keeps its indentation and punctuation, prose its emoji', () => {
  expect(segments('\t        let x = “y”; // …', 'code')).toEqual([
    { kind: 'text', text: '\t        let x = “y”; // …' },
  ]);
  expect(segments('👩‍💻 ok', 'prose')).toEqual([{ kind: 'text', text: '👩‍💻 ok' }]);
  expect(segments('a\u202eb', 'prose')).toHaveLength(3);
});

test('s24 two different texts are never shown the same', () => {
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed % below;
  };
  const pool = [
    ...'ab c\n\t\r',
    '\u200b',
    '\u200c',
    '\u202e',
    '\u2066',
    'а',
    'е',
    '\u0301',
    'é',
    'ａ',
    '\u00a0',
    '\u00ad',
  ];
  const text = () => Array.from({ length: 1 + random(6) }, () => pool[random(pool.length)]).join('');
  const shown = new Map<string, string>();
  for (let n = 0; n < 20_000; n += 1) {
    const made = text();
    const key = visibleText(made);
    expect(shown.get(key) ?? made).toBe(made);
    shown.set(key, made);
  }
});
