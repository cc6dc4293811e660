/** Starts the page: takes a pairing link out of the address, then the engine, then the screens. */
import { mount } from 'svelte';
import { Client } from './model/client.svelte';
import { parseRoute } from './model/route';
import { systemClock } from './platform/clock';
import { systemRandom } from './platform/random';
import { browserShelf, tabShelf } from './platform/shelf';
import { hasKeys } from './platform/support';
import { registerServiceWorker, startEngine } from './platform/worker';
import { strings } from './strings';
import App from './ui/App.svelte';
import './ui/app.css';
import Notice from './ui/Notice.svelte';

const initial = parseRoute(location.hash);
// The secret must not stay in the address or the history.
if (initial.screen === 'pair' && initial.link !== null) history.replaceState(null, '', location.pathname);

const target = document.getElementById('app') ?? document.body;

async function start(): Promise<void> {
  if (!isSecureContext) {
    const { title, why, steps } = strings.insecure;
    mount(Notice, { target, props: { title, why, steps, code: 'insecure_context' } });
    return;
  }
  if (!(await hasKeys())) {
    mount(Notice, { target, props: { ...strings.unsupported, code: 'unsupported_browser' } });
    return;
  }
  registerServiceWorker();
  const world = { clock: systemClock, random: systemRandom, tab: tabShelf, browser: browserShelf };
  const client = new Client(startEngine(), world);
  mount(App, { target, props: { client, initial } });
}

start().catch((error: unknown) => {
  mount(Notice, {
    target,
    props: { title: strings.broken.title, why: String(error), code: 'internal', reload: true },
  });
});
