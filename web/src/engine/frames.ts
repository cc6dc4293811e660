/**
 * Frames: one WebSocket binary message each, between a peer and a relay. The twin of
 * `farhelm_proto::frame`: the CBOR array `[number, [body]]`, all numbers in one table.
 */

import type { Bytes } from './bytes';
import type { Codec, Of } from './cbor';
import {
  bytes,
  code,
  field,
  flag,
  fromCbor,
  id,
  list,
  Malformed,
  maybe,
  struct,
  text,
  toCbor,
  tuple,
  uint,
  words,
} from './cbor';

const role = words({ 0: 'host', 1: 'device' });

/** Header, body and signature of an envelope, each as it was sealed and signed. */
const envelope = tuple({
  header: field(0, bytes()),
  body: field(1, bytes()),
  signature: field(2, bytes(64)),
});

/** Header, encapsulated key, body and signature of a letter. */
const letter = tuple({
  header: field(0, bytes()),
  enc: field(1, bytes(32)),
  body: field(2, bytes()),
  signature: field(3, bytes(64)),
});

const FRAMES = {
  hello: {
    number: 1,
    body: struct({
      oldest: field(0, uint),
      newest: field(1, uint),
      role: field(2, role),
      key: field(3, bytes(32)),
      agent: maybe(4, text),
      authority: field(5, text),
      generation: maybe(6, uint),
      deadMillis: maybe(7, uint),
    }),
  },
  challenge: { number: 2, body: struct({ version: field(0, uint), nonce: field(1, bytes(32)) }) },
  prove: { number: 3, body: struct({ proof: field(0, bytes(64)) }) },
  welcome: {
    number: 4,
    body: struct({
      store: field(0, bytes(16)),
      now: field(1, uint),
      agent: field(2, text),
      pingMillis: field(3, uint),
      deadMillis: field(4, uint),
    }),
  },
  bye: {
    number: 5,
    body: struct({ code: field(0, code), detail: maybe(1, text), retryMillis: maybe(2, uint) }),
  },
  ping: { number: 6, body: uint },
  pong: { number: 7, body: uint },
  problem: {
    number: 8,
    body: struct({
      code: field(0, code),
      request: maybe(1, uint),
      letter: maybe(2, id('command')),
      stream: maybe(3, id('stream')),
      detail: maybe(4, text),
      frame: maybe(5, uint),
    }),
  },
  members: { number: 10, body: struct({ version: field(0, uint), devices: field(1, list(id('peer'))) }) },
  locate: { number: 11, body: struct({ stream: field(0, id('stream')) }) },
  located: {
    number: 12,
    body: struct({ stream: field(0, id('stream')), head: field(1, uint), hash: field(2, bytes()) }),
  },
  envelope: { number: 13, body: envelope },
  stored: { number: 14, body: struct({ stream: field(0, id('stream')), head: field(1, uint) }) },
  subscribe: {
    number: 20,
    body: struct({
      host: field(0, id('peer')),
      stream: field(1, id('stream')),
      after: maybe(2, uint),
      tail: maybe(3, uint),
    }),
  },
  subscribed: {
    number: 21,
    body: struct({
      host: field(0, id('peer')),
      stream: field(1, id('stream')),
      head: field(2, uint),
      from: field(3, uint),
      base: field(4, uint),
      gap: maybe(5, flag),
    }),
  },
  unsubscribe: { number: 22, body: struct({ host: field(0, id('peer')), stream: field(1, id('stream')) }) },
  fetch: {
    number: 23,
    body: struct({
      request: field(0, uint),
      host: field(1, id('peer')),
      stream: field(2, id('stream')),
      before: field(3, uint),
      maxBytes: field(4, uint),
    }),
  },
  page: {
    number: 24,
    body: struct({ request: field(0, uint), envelopes: field(1, list(envelope)), more: field(2, flag) }),
  },
  presence: {
    number: 25,
    body: struct({ host: field(0, id('peer')), online: field(1, flag), since: field(2, uint) }),
  },
  letter: { number: 30, body: letter },
  posted: { number: 31, body: struct({ id: field(0, id('command')) }) },
  taken: { number: 32, body: struct({ from: field(0, id('peer')), id: field(1, id('command')) }) },
  open_offer: { number: 40, body: struct({ offer: field(0, id('offer')), until: field(1, uint) }) },
  close_offer: { number: 41, body: struct({ offer: field(0, id('offer')), keep: maybe(1, id('peer')) }) },
  put_blob: { number: 50, body: struct({ name: field(0, bytes(32)), bytes: field(1, bytes()) }) },
  want_blob: {
    number: 51,
    body: struct({ request: field(0, uint), host: field(1, id('peer')), name: field(2, bytes(32)) }),
  },
  blob: { number: 52, body: struct({ request: field(0, uint), bytes: field(1, bytes()) }) },
} as const;

type Kind = keyof typeof FRAMES;

/** The body of one kind of frame. */
export type Body<K extends Kind> = Of<(typeof FRAMES)[K]['body']>;
export type Frame = { [K in Kind]: { readonly kind: K; readonly body: Body<K> } }[Kind];
export type Envelope = Body<'envelope'>;
export type Letter = Body<'letter'>;

export class UnknownFrame extends Error {
  override name = 'UnknownFrame';
  readonly number: number;

  constructor(number: number) {
    super(`frame of unknown kind ${number}`);
    this.number = number;
  }
}

export function encodeFrame<K extends Kind>(kind: K, body: Body<K>): Bytes {
  const { number, body: codec } = FRAMES[kind];
  const whole: Codec<Body<K>> = {
    to: (value) => [number, [(codec as Codec<Body<K>>).to(value)]],
    from: () => body,
  };
  return toCbor(whole, body);
}

/** Throws `UnknownFrame` for a whole frame of a newer kind, `Malformed` for anything else. */
export function decodeFrame(message: Uint8Array): Frame {
  return fromCbor(frame, message);
}

const frame: Codec<Frame> = {
  to: ({ kind, body }) => [FRAMES[kind].number, [(FRAMES[kind].body as Codec<unknown>).to(body)]],
  from: (raw) => {
    if (!Array.isArray(raw) || raw.length !== 2 || !Array.isArray(raw[1])) throw new Malformed('not a frame');
    const number = uint.from(raw[0]);
    const kind = KINDS.get(number);
    if (kind === undefined) throw new UnknownFrame(number);
    const body = (FRAMES[kind].body as Codec<unknown>).from((raw[1] as unknown[])[0]);
    return { kind, body } as Frame;
  },
};

const KINDS: ReadonlyMap<number, Kind> = new Map(
  (Object.keys(FRAMES) as Kind[]).map((kind) => [FRAMES[kind].number, kind]),
);

/** The bytes of an envelope for storage; the same as inside its frame. */
export function encodeEnvelope(value: Envelope): Bytes {
  return toCbor(envelope, value);
}

export function decodeEnvelope(stored: Uint8Array): Envelope {
  return fromCbor(envelope, stored);
}

export function encodeLetter(value: Letter): Bytes {
  return toCbor(letter, value);
}

export function decodeLetter(stored: Uint8Array): Letter {
  return fromCbor(letter, stored);
}
