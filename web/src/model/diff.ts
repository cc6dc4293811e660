/** Line differences between two texts (Myers, "An O(ND) Difference Algorithm", 1986). */

export type DiffLine =
  | { readonly kind: 'same'; readonly old: number; readonly new: number; readonly text: string }
  | { readonly kind: 'removed'; readonly old: number; readonly text: string }
  | { readonly kind: 'added'; readonly new: number; readonly text: string };

/** A stretch that is shown, or unchanged lines that are not. */
type Hunk =
  | { readonly kind: 'lines'; readonly lines: readonly DiffLine[] }
  | { readonly kind: 'gap'; readonly lines: readonly DiffLine[] };

export type Diff = {
  readonly hunks: readonly Hunk[];
  readonly added: number;
  readonly removed: number;
  /** Whether the texts were too different for lines to be matched. */
  readonly wholesale: boolean;
};

/** Edits beyond which matching lines is not worth its time. */
const MAX_EDITS = 600;
const CONTEXT = 3;

export function diffTexts(old: string, fresh: string): Diff {
  const a = linesOf(old);
  const b = linesOf(fresh);
  const matched = diffLines(a, b);
  const lines = matched ?? [
    ...a.map((text, at): DiffLine => ({ kind: 'removed', old: at + 1, text })),
    ...b.map((text, at): DiffLine => ({ kind: 'added', new: at + 1, text })),
  ];
  return {
    hunks: intoHunks(lines),
    added: lines.filter(({ kind }) => kind === 'added').length,
    removed: lines.filter(({ kind }) => kind === 'removed').length,
    wholesale: matched === null,
  };
}

/** Lines with their ends, so that a missing newline is a difference. */
function linesOf(text: string): string[] {
  return text === '' ? [] : text.split(/(?<=\n)/);
}

function diffLines(a: readonly string[], b: readonly string[]): DiffLine[] | null {
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const middle = middleEdits(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  if (middle === null) return null;
  const lines: DiffLine[] = [];
  let x = 0;
  let y = 0;
  const same = () => {
    lines.push({ kind: 'same', old: x + 1, new: y + 1, text: a[x] ?? '' });
    x += 1;
    y += 1;
  };
  while (x < head) same();
  for (const edit of middle) {
    if (edit === 'same') {
      same();
    } else if (edit === 'removed') {
      lines.push({ kind: 'removed', old: x + 1, text: a[x] ?? '' });
      x += 1;
    } else {
      lines.push({ kind: 'added', new: y + 1, text: b[y] ?? '' });
      y += 1;
    }
  }
  while (x < a.length) same();
  return lines;
}

type Edit = 'same' | 'removed' | 'added';

function middleEdits(a: readonly string[], b: readonly string[]): Edit[] | null {
  const limit = Math.min(a.length + b.length, MAX_EDITS);
  const furthest = new Map<number, number>([[1, 0]]);
  const trace: Map<number, number>[] = [];
  for (let edits = 0; edits <= limit; edits += 1) {
    trace.push(new Map(furthest));
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && at(furthest, k - 1) < at(furthest, k + 1));
      let x = down ? at(furthest, k + 1) : at(furthest, k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      furthest.set(k, x);
      if (x >= a.length && x - k >= b.length) return walkBack(trace, a.length, b.length);
    }
  }
  return null;
}

function walkBack(trace: readonly Map<number, number>[], endX: number, endY: number): Edit[] {
  const edits: Edit[] = [];
  let x = endX;
  let y = endY;
  for (let d = trace.length - 1; d >= 0; d -= 1) {
    const furthest = trace[d] ?? new Map<number, number>();
    const k = x - y;
    const down = k === -d || (k !== d && at(furthest, k - 1) < at(furthest, k + 1));
    const previousX = at(furthest, down ? k + 1 : k - 1);
    const previousY = previousX - (down ? k + 1 : k - 1);
    while (x > Math.max(previousX, 0) && y > Math.max(previousY, 0)) {
      edits.push('same');
      x -= 1;
      y -= 1;
    }
    if (d > 0) edits.push(down ? 'added' : 'removed');
    x = previousX;
    y = previousY;
  }
  return edits.reverse();
}

function at(furthest: ReadonlyMap<number, number>, k: number): number {
  return furthest.get(k) ?? -1;
}

function intoHunks(lines: readonly DiffLine[]): Hunk[] {
  const near = new Set<number>();
  for (const [place, { kind }] of lines.entries()) {
    if (kind === 'same') continue;
    for (let close = place - CONTEXT; close <= place + CONTEXT; close += 1) near.add(close);
  }
  const hunks: { kind: Hunk['kind']; lines: DiffLine[] }[] = [];
  for (const [place, line] of lines.entries()) {
    const kind = near.has(place) ? 'lines' : 'gap';
    const last = hunks.at(-1);
    if (last?.kind === kind) last.lines.push(line);
    else hunks.push({ kind, lines: [line] });
  }
  return hunks;
}
