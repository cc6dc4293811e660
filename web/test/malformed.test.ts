/**
 * The decoders of the app survive any bytes: what is valid, bent a thousand times from a seed, and shapes
 * that are hostile. A decoder throws an `Error` or gives a value; nothing hangs, and nothing grows.
 */
import { expect, test } from 'vitest';
import { sha256, utf8 } from '../src/engine/bytes';
import { encodeEnvelopeHeader, parseEnvelopeHeader } from '../src/engine/envelope';
import {
  decodeEnvelope,
  decodeFrame,
  decodeLetter,
  encodeEnvelope,
  encodeFrame,
  encodeLetter,
} from '../src/engine/frames';
import { encodeLetterHeader, parseLetterHeader } from '../src/engine/letter';
import { letterBucket, pack, unpack } from '../src/engine/pack';
import { parseLink } from '../src/engine/pairing';
import { MAX_PLAINTEXT } from '../src/protocol/constants';

const peer = `peer_${'03'.repeat(16)}`;
const stream = `str_${'01'.repeat(16)}`;
const header = encodeEnvelopeHeader({
  suite: 1,
  lane: 'durable',
  host: peer,
  stream,
  epoch: 1,
  first: 1,
  last: 2,
  prev: new Uint8Array(32),
  base: 0,
});
const envelope = { header, body: new Uint8Array(60).fill(6), signature: new Uint8Array(64).fill(9) };
const letterHeader = encodeLetterHeader({
  suite: 1,
  kind: 'receipt',
  from: peer,
  to: peer,
  id: `cmd_${'02'.repeat(16)}`,
  notAfter: 5,
  offer: null,
});
const letter = { ...envelope, header: letterHeader, enc: new Uint8Array(32) };

const frames = [
  encodeFrame('presence', { host: peer, online: true, since: 5 }),
  encodeFrame('envelope', envelope),
  encodeFrame('letter', letter),
  encodeFrame('page', { request: 1, envelopes: [envelope, envelope], more: true }),
  encodeFrame('subscribed', { host: peer, stream, head: 9, from: 1, base: 0, gap: null }),
  encodeFrame('welcome', {
    store: new Uint8Array(16),
    now: 5,
    agent: 'relay/1',
    pingMillis: 5_000,
    deadMillis: 10_000,
  }),
];

const decoders: [string, Uint8Array[], (bytes: Uint8Array<ArrayBuffer>) => unknown][] = [
  ['frames', frames, decodeFrame],
  ['envelopes', [encodeEnvelope(envelope)], decodeEnvelope],
  ['letters', [encodeLetter(letter)], decodeLetter],
  ['headers of envelopes', [header], (bytes) => parseEnvelopeHeader({ ...envelope, header: bytes })],
  ['headers of letters', [letterHeader], (bytes) => parseLetterHeader({ ...letter, header: bytes })],
  [
    'packed plaintext',
    [pack(utf8('[{"seq":1}]'), letterBucket), pack(utf8('{"seq":1,"at":5}'.repeat(400)), letterBucket)],
    unpack,
  ],
];

test.each(decoders)(
  'f22 %s survive whatever arrives',
  (_, valid, decode) => {
    for (const bytes of valid) expect(() => decode(bytes.slice())).not.toThrow();
    const chance = random(22);
    for (const bytes of hostile()) survive(bytes, decode);
    let read = 0;
    for (let round = 0; round < 2_000; round += 1) read += survive(bend(valid, chance), decode);
    expect(read).toBeLessThan(2_000);
  },
  60_000,
);

test('f22 pairing links survive whatever is pasted', async () => {
  const bytes = new Uint8Array(101).fill(7);
  bytes[0] = 1;
  bytes.set((await sha256(bytes.subarray(0, 97))).subarray(0, 4), 97);
  const base64 = btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '');
  const link = `https://relay.example/#pair=${base64}`;
  expect((await parseLink(link)).relay).toBe('https://relay.example');
  const chance = random(22);
  const texts = Array.from({ length: 500 }, () => new TextDecoder().decode(bend([utf8(link)], chance)));
  for (const text of [
    ...texts,
    '',
    '#pair=',
    'x'.repeat(1_000_000),
    `${'/'.repeat(500_000)}x#pair=${base64}`,
  ]) {
    await parseLink(text).catch((error: unknown) => expect(error).toBeInstanceOf(Error));
  }
}, 60_000);

/** Whether it was read. */
function survive(
  bytes: Uint8Array<ArrayBuffer>,
  decode: (bytes: Uint8Array<ArrayBuffer>) => unknown,
): number {
  const begun = performance.now();
  try {
    const value = decode(bytes);
    if (value instanceof Uint8Array) expect(value.length).toBeLessThanOrEqual(MAX_PLAINTEXT);
    return 1;
  } catch (error) {
    expect(error, String(bytes.subarray(0, 200))).toBeInstanceOf(Error);
    return 0;
  } finally {
    expect(performance.now() - begun, String(bytes.subarray(0, 200))).toBeLessThan(20_000);
  }
}

/** Nested 10^5 deep, lengths and counts that lie, bombs. */
function hostile(): Uint8Array<ArrayBuffer>[] {
  const deep = (...unit: number[]) =>
    Uint8Array.from({ length: 100_000 * unit.length }, (_, at) => unit[at % unit.length] ?? 0);
  const much = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
  const lies = [0x5b, 0x7b, 0x9b, 0xbb, 0xdb].flatMap((head) => [
    Uint8Array.of(head, ...much),
    Uint8Array.of(head, 0, 0, 0, 0, ...much.slice(4)),
    Uint8Array.of(0x82, 0x18, 0x19, 0x81, 0xa1, 0x00, head, 0, 0, 0, 0, 0x7f, ...much.slice(5)),
  ]);
  const bomb = pack(new Uint8Array(MAX_PLAINTEXT * 2), (length) => length);
  const nested = [
    deep(0x81),
    deep(0xa1, 0x00),
    deep(0xc1),
    deep(0x9f),
    deep(0x82, 0x08, 0x81),
    deep(0),
    deep(1),
    deep(0xff),
  ];
  return [new Uint8Array(), ...lies, ...nested, bomb, Uint8Array.of(1, ...much), Uint8Array.of(0, ...much)];
}

/** Cuts, lengthens, flips, splices, and writes numbers that lie. */
function bend(valid: readonly Uint8Array[], chance: (end: number) => number): Uint8Array<ArrayBuffer> {
  let bytes = new Uint8Array(valid[chance(valid.length)] ?? []);
  for (let times = chance(3); times >= 0; times -= 1) {
    const at = chance(bytes.length + 1);
    const before = bytes.slice(0, at);
    const after = bytes.slice(at);
    const other = new Uint8Array(valid[chance(valid.length)] ?? []);
    const put = (middle: ArrayLike<number>, skipped = 0) =>
      Uint8Array.from([...before, ...Array.from(middle), ...after.slice(skipped)]);
    const how = chance(6);
    if (how === 0) bytes = before;
    else if (how === 1) bytes = put([chance(256), chance(256), chance(256)]);
    else if (how === 2) bytes = put([(after[0] ?? 0) ^ (1 << chance(8))], 1);
    else if (how === 3) bytes = Uint8Array.from([...before, ...other.slice(chance(other.length + 1))]);
    else if (how === 4) bytes = put([0x1b, 255, 255, 255, 255, 255, 255, 255, 255], chance(9));
    else bytes = put([], 1 + chance(8));
  }
  return bytes;
}

/** Numbers below an end, the same from the same seed (mulberry32). */
function random(seed: number): (end: number) => number {
  let state = seed;
  return (end) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % Math.max(end, 1);
  };
}
