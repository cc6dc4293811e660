/**
 * The detour: frames by plain HTTP, where something in between lets no WebSocket through. They
 * come in an event stream that stays open, and go in numbered requests, one after the other, each
 * again until it was answered.
 */
import type { Sockets } from './socket';

/** How long to wait before the same request is sent again, at most. */
const LONGEST_WAIT_MILLIS = 2_000;
/** A request this long takes no further frame along. */
const GATHERED_BYTES = 16 * 1024;
const RETRIED = new Set([408, 429, 502, 503, 504]);

export const detours: Sockets = {
  connect(url, events) {
    const ended = new AbortController();
    let done = false;
    const close = (why?: 'portal') => {
      if (done) return;
      done = true;
      ended.abort();
      events.closed(why);
    };
    const requests = new Requests(`${url}/v1/up`, ended.signal, close);
    listen(`${url}/v1/down`, ended.signal, (name, data) => {
      if (done) return;
      if (name === 'open') {
        requests.key = data;
        events.opened();
      } else if (data !== '') {
        events.message(bytesOf(data));
      }
    }).then(close, () => close());
    return { send: (message) => requests.send(message), close: () => close() };
  },
};

/** Reads an event stream to its end; says so when a page of the network answered instead. */
async function listen(
  url: string,
  signal: AbortSignal,
  heard: (name: string, data: string) => void,
): Promise<'portal' | undefined> {
  const answer = await fetch(url, {
    headers: { accept: 'text/event-stream' },
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'manual',
    signal,
  });
  const type = answer.headers.get('content-type') ?? '';
  if (answer.type === 'opaqueredirect' || (answer.ok && type.startsWith('text/html'))) return 'portal';
  if (!answer.ok || !type.startsWith('text/event-stream') || answer.body === null) return undefined;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const lines = new Lines(heard);
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return undefined;
    lines.take(value);
  }
}

/** Takes an event stream apart. */
export class Lines {
  readonly #heard: (name: string, data: string) => void;
  #rest = '';
  #name = '';
  #data = '';

  constructor(heard: (name: string, data: string) => void) {
    this.#heard = heard;
  }

  take(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line.replace(/\r$/, ''));
  }

  #line(line: string): void {
    if (line === '') {
      if (this.#data !== '') this.#heard(this.#name, this.#data);
      this.#name = '';
      this.#data = '';
    } else if (line.startsWith('data:')) this.#data += line.slice(5).trimStart();
    else if (line.startsWith('event:')) this.#name = line.slice(6).trimStart();
  }
}

/** What goes to the relay: one request after the other. */
class Requests {
  readonly #url: string;
  readonly #signal: AbortSignal;
  readonly #over: () => void;
  readonly #waiting: Uint8Array<ArrayBuffer>[] = [];
  #number = 0;
  #busy = false;
  key = '';

  constructor(url: string, signal: AbortSignal, over: () => void) {
    this.#url = url;
    this.#signal = signal;
    this.#over = over;
  }

  send(message: Uint8Array<ArrayBuffer>): void {
    this.#waiting.push(message);
    if (!this.#busy) this.#work();
  }

  #work(): void {
    this.#busy = true;
    this.#drain().then(
      () => {
        this.#busy = false;
      },
      () => this.#over(),
    );
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      await this.#post(this.#gather());
      this.#number += 1;
    }
  }

  #gather(): Blob {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let size = 0;
    while (size < GATHERED_BYTES) {
      const message = this.#waiting.shift();
      if (message === undefined) break;
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, message.length);
      parts.push(length, message);
      size += message.length;
    }
    return new Blob(parts, { type: 'application/octet-stream' });
  }

  async #post(body: Blob): Promise<void> {
    for (let wait = 100; ; wait = Math.min(wait * 2, LONGEST_WAIT_MILLIS)) {
      const headers = { 'farhelm-key': this.key, 'farhelm-number': String(this.#number) };
      const options = { method: 'POST', headers, body, signal: this.#signal } as const;
      const status = await fetch(this.#url, { ...options, cache: 'no-store', credentials: 'omit' }).then(
        (answer) => answer.status,
        () => 503,
      );
      if (status === 204) return;
      if (this.#signal.aborted || !RETRIED.has(status)) throw new Error(`the request was answered ${status}`);
      await new Promise((then) => setTimeout(then, wait));
    }
  }
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
