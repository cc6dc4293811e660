/** Whether two values that came as messages say the same. */
function isSame(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null) return false;
  const keys = Object.keys(one);
  if (keys.length !== Object.keys(other).length || Array.isArray(one) !== Array.isArray(other)) return false;
  return keys.every((key) => isSame((one as Json)[key], (other as Json)[key]));
}

/** The newer rows, of which those that say the same as before are the very rows of before. */
export function reuse<R extends { readonly key: string }>(before: readonly R[], rows: readonly R[]): R[] {
  const known = new Map(before.map((row) => [row.key, row]));
  return rows.map((row) => {
    const old = known.get(row.key);
    return old !== undefined && isSame(old, row) ? old : row;
  });
}

type Json = { readonly [key: string]: unknown };
