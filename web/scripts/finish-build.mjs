/** After Vite: writes the service worker with its list of files, and a .br beside each text file. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';

const dist = new URL('../dist', import.meta.url).pathname;
const COMPRESSED = /\.(html|js|css|svg|json|webmanifest)$/;
const DEFERRED = /\.map$/;

const files = walk(dist).filter((file) => !DEFERRED.test(file) && !file.endsWith('.br') && file !== 'sw.js');
const shell = files.map((file) => (file === 'index.html' ? '/' : `/${file}`)).sort();
const hash = createHash('sha256');
for (const file of files.sort()) hash.update(file).update(readFileSync(join(dist, file)));
const version = hash.digest('hex').slice(0, 16);

const source = readFileSync(new URL('../src/sw/sw.js', import.meta.url), 'utf8');
const marker = /\/\* shell \*\/ \{[^}]*\}/;
if (!marker.test(source)) throw new Error('sw.js has no place for its list of files');
writeFileSync(join(dist, 'sw.js'), source.replace(marker, JSON.stringify({ version, files: shell })));

for (const file of walk(dist).filter((name) => COMPRESSED.test(name))) {
  const bytes = readFileSync(join(dist, file));
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  writeFileSync(join(dist, `${file}.br`), brotliCompressSync(bytes, { params }));
}

function walk(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return walk(path);
    return [relative(dist, path).split(sep).join('/')];
  });
}
