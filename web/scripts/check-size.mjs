/** Fails when the first load is larger than we promise: page, its scripts and styles, the worker. */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const LIMIT = 150_000;
const dist = new URL('../dist/', import.meta.url);
if (!existsSync(dist)) {
  console.error('dist is missing: run `npm run build` first');
  process.exit(1);
}

const html = readFileSync(new URL('index.html', dist), 'utf8');
const named = [...html.matchAll(/(?:src|href)="\/([^"]+\.(?:js|css))"/g)].map(([, name]) => name);
const first = new Set(['index.html', ...named]);
// Scripts that the first ones import at once, and the engine's worker.
for (const name of first) {
  if (!name.endsWith('.js')) continue;
  const text = readFileSync(new URL(name, dist), 'utf8');
  for (const [, other] of text.matchAll(/(?:from|import)\s*"\.\/([^"]+\.js)"/g)) first.add(`assets/${other}`);
}
for (const name of readdirSync(new URL('assets/', dist)))
  if (/^worker-.*\.js$/.test(name)) first.add(`assets/${name}`);

let brotli = 0;
let gzip = 0;
for (const name of first) {
  const br = statSync(new URL(`${name}.br`, dist)).size;
  const gz = gzipSync(readFileSync(new URL(name, dist)), { level: 9 }).length;
  brotli += br;
  gzip += gz;
  console.log(`${String(br).padStart(8)} br ${String(gz).padStart(8)} gz  ${name}`);
}
console.log(`${String(brotli).padStart(8)} br ${String(gzip).padStart(8)} gz  first load (limit ${LIMIT})`);
if (gzip > LIMIT) {
  console.error('the first load is too large');
  process.exit(1);
}
