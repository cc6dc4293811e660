/**
 * Keeps the app's own files, so that it opens without a network. It caches nothing else: what the
 * relay says never passes through here. `SHELL` is filled in by the build.
 */
const SHELL = /* shell */ { version: 'dev', files: [] };
const CACHE = `farhelm-${SHELL.version}`;
/** How long the network may take before the kept page is shown. */
const PATIENCE_MILLIS = 3000;

addEventListener('install', (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(SHELL.files))
      .then(() => skipWaiting()),
  );
});

addEventListener('activate', (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name))))
      .then(() => clients.claim()),
  );
});

addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  if (request.mode === 'navigate') event.respondWith(page(request));
  else if (SHELL.files.includes(url.pathname)) event.respondWith(kept(request));
});

/** The newest page when the relay answers in time, else the kept one. */
async function page(request) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), PATIENCE_MILLIS);
  try {
    const response = await fetch(request, { signal: controller.signal });
    if (response.ok) return response;
  } catch {
    // The relay is away.
  } finally {
    clearTimeout(timer);
  }
  return (await caches.match('/', { cacheName: CACHE })) ?? Response.error();
}

/** Names of files change with their content, so a kept one is always right. */
async function kept(request) {
  return (await caches.match(request, { cacheName: CACHE })) ?? fetch(request);
}
