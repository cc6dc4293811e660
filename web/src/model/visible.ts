/**
 * Makes characters visible that hide, reorder or impersonate. What an approval shows must differ
 * whenever its bytes differ, so in `exact` texts everything that is not plainly itself is marked
 * with its code point.
 */

export type Segment =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'mark'; readonly label: string; readonly title: string };

/**
 * `exact` for what runs; `code` for files, where tabs, indentation and typographic punctuation are
 * ordinary; `prose` for words, where emoji and foreign scripts are too.
 */
export type Mode = 'exact' | 'code' | 'prose';

/** Format, control and private characters, unusual spaces, line separators, combining marks, fillers. */
const HIDDEN =
  /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}\p{M}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]/u;
/** In prose: what reorders or hides text, but not what emoji and accents are made of. */
const HIDDEN_PROSE =
  /[\u034f\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e01ef}]/u;
/** Letters of other scripts that look like ASCII ones. */
const LOOK_ALIKE =
  /[аАВсСеЕһНіІјЈкКМоОрРԛѕЅТуУԝхХѵԁɡɑɩıոսցհԼՏαΑΒεΕΖηΗιΙΚκΜΝνοΟρΡΤτΥυΧχγοо᎐ꓐꓑꓒꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓨꓪꓫꓬꓮꓰꓱꓲꓳꓴⲟⲢⲤⲥⲣ‐‑‒–—―−⁃˗∕⁄⧸∖⧵ǀ∣ⵏ․‥…‚ʹʼʻˈ′‵‘’‛´＇“”„‟″¦；：‹›]/u;
/** Letters of scripts that are rare in what agents run, and that hold many doubles of Latin. */
const RARE_LETTER =
  /(?![\p{Script=Latin}\p{Script=Greek}\p{Script=Cyrillic}\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Devanagari}\p{Script=Thai}\p{Script=Common}])[\p{L}\p{N}]/u;
const TAB_OR_BREAK = /[\t\n]/;
const PLAIN = /^[\n\x20-\x7e]*$/;
/** Punctuation of ordinary writing, which differs visibly from its ASCII cousins. */
const TYPOGRAPHIC = /[‐‑‒–—―…‘’“”„′″‹›]/u;
/** Spaces or empty lines in a row that hide what comes after them. */
const GAPS = { exact: /( {8,}|\n{4,})/, code: /(?<=\S)( {40,})/, prose: /( {200,}|\n{40,})/ } as const;

const NAMES: Readonly<Record<number, string>> = {
  0: '␀',
  7: '␇',
  8: '␈',
  9: '␉',
  11: '␋',
  12: '␌',
  13: '␍',
  27: '␛',
  127: '␡',
  160: 'NBSP',
  173: 'SHY',
  8203: 'ZWSP',
  8204: 'ZWNJ',
  8205: 'ZWJ',
  8206: 'LRM',
  8207: 'RLM',
  8234: 'LRE',
  8235: 'RLE',
  8236: 'PDF',
  8237: 'LRO',
  8238: 'RLO',
  8232: 'LINE SEP',
  8233: 'PARA SEP',
  8288: 'WJ',
  8294: 'LRI',
  8295: 'RLI',
  8296: 'FSI',
  8297: 'PDI',
  65279: 'BOM',
};

/** Splits a text into what is shown as it is and what is shown by name. */
export function segments(text: string, mode: Mode): Segment[] {
  if (PLAIN.test(text)) return markGaps([{ kind: 'text', text }], GAPS[mode]);
  const found: Segment[] = [];
  let plain = '';
  for (const char of text) {
    const marked = mode === 'prose' ? markProse(char) : markExact(char, mode);
    if (marked === null) {
      plain += char;
      continue;
    }
    if (plain !== '') found.push({ kind: 'text', text: plain });
    plain = '';
    found.push(marked);
  }
  if (plain !== '') found.push({ kind: 'text', text: plain });
  return markGaps(found, GAPS[mode]);
}

export function countMarks(found: readonly Segment[]): number {
  return found.filter(({ kind }) => kind === 'mark').length;
}

/** The marks as plain text, for titles and attributes that cannot hold elements. */
export function visibleText(text: string): string {
  return segments(text, 'exact')
    .map((segment) => (segment.kind === 'text' ? segment.text : `⟨${segment.label}⟩`))
    .join('');
}

function markExact(char: string, mode: 'exact' | 'code'): Segment | null {
  if (char === '\n' || (mode === 'code' && (char === '\t' || TYPOGRAPHIC.test(char)))) return null;
  if (char === '\t' || HIDDEN.test(char)) return mark(char);
  const code = char.codePointAt(0) ?? 0;
  if (code < 0x7f) return null;
  // What a compatibility mapping turns into something else, and letters that look like ASCII.
  const impersonates = char.normalize('NFKC') !== char || LOOK_ALIKE.test(char) || RARE_LETTER.test(char);
  return impersonates
    ? { kind: 'mark', label: `${char} ${point(code)}`, title: `look-alike ${point(code)}` }
    : null;
}

function markProse(char: string): Segment | null {
  return TAB_OR_BREAK.test(char) || !HIDDEN_PROSE.test(char) ? null : mark(char);
}

function mark(char: string): Segment {
  const code = char.codePointAt(0) ?? 0;
  const name = NAMES[code];
  if (name === undefined)
    return { kind: 'mark', label: point(code), title: `hidden character ${point(code)}` };
  const label = name.length === 1 ? name : `${name} ${point(code)}`;
  return { kind: 'mark', label, title: `hidden character ${point(code)}` };
}

function markGaps(found: readonly Segment[], long: RegExp): Segment[] {
  return found.flatMap((segment): Segment[] => {
    if (segment.kind === 'mark' || !long.test(segment.text)) return [segment];
    return segment.text
      .split(long)
      .filter((part) => part !== '')
      .map((part) => (/^( {8,}|\n{4,})$/.test(part) ? gap(part) : { kind: 'text', text: part }));
  });
}

function gap(part: string): Segment {
  const what = part.startsWith('\n') ? '⏎' : '␠';
  return { kind: 'mark', label: `${what}×${part.length}`, title: `${part.length} in a row` };
}

function point(code: number): string {
  return `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
}
