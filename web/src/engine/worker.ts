/** The module worker in which the engine lives: puts the real browser under it. */
import { systemClock } from '../platform/clock';
import { detours } from '../platform/detour';
import { channel, type Port, webLocks } from '../platform/port';
import { systemRandom } from '../platform/random';
import { webSockets } from '../platform/socket';
import { hex } from './bytes';
import { Engine } from './engine';
import { Store } from './store';
import { Tabs } from './tabs';
import type { FromEngine } from './views';

const scope = self as unknown as DedicatedWorkerGlobalScope;

const page: Port = {
  post: (message) => scope.postMessage(message),
  listen: (heard) => {
    scope.onmessage = ({ data }) => heard(data);
  },
};

const surroundings = { clock: systemClock, random: systemRandom, sockets: webSockets, detours };
const me = hex(systemRandom.bytes(8));

async function lead(emit: (message: FromEngine) => void): Promise<Engine> {
  const gone = () => emit({ type: 'broken', code: 'storage_gone', detail: '' });
  return Engine.start(await Store.open('farhelm', gone), surroundings, emit);
}

new Tabs(me, { clock: systemClock, locks: webLocks, page, others: channel('farhelm-engine') }, lead).start();
