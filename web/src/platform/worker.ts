/** Starts the engine's worker, under Trusted Types where the browser has them. */
import workerUrl from '../engine/worker.ts?worker&url';
import type { Port } from './port';

type Policy = { createScriptURL(url: string): unknown };
type Factory = { createPolicy(name: string, rules: { createScriptURL(url: string): string }): Policy };

/** Only addresses of this very site become scripts. */
function policy(): Policy {
  const rules = {
    createScriptURL: (url: string) => {
      const whole = new URL(url, location.href);
      if (whole.origin !== location.origin) throw new TypeError('a script from elsewhere');
      return whole.href;
    },
  };
  const factory = (globalThis as { trustedTypes?: Factory }).trustedTypes;
  return factory?.createPolicy('farhelm', rules) ?? rules;
}

const scripts = policy();

export function startEngine(): Port {
  const worker = new Worker(scripts.createScriptURL(workerUrl) as string, { type: 'module', name: 'engine' });
  return {
    post: (message) => worker.postMessage(message),
    listen: (heard) => {
      worker.onmessage = ({ data }) => heard(data);
      worker.onerror = (event) => {
        heard({ type: 'broken', code: 'internal', detail: event.message || 'the engine did not start' });
      };
    },
  };
}

/** Keeps the app's own files for the next time without a network. */
export function registerServiceWorker(): void {
  if (!('serviceWorker' in navigator) || !import.meta.env.PROD) return;
  // Without it the app works as long as the relay answers.
  navigator.serviceWorker.register(scripts.createScriptURL('/sw.js') as string).catch(() => {});
}
