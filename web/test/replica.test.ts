/** What a reader believes; the same cases as `core::replica`. */
import { beforeAll, expect, test } from 'vitest';
import type { Bytes } from '../src/engine/bytes';
import { envelopeHash, NO_HASH } from '../src/engine/envelope';
import { decodeEnvelope, type Envelope, encodeEnvelope } from '../src/engine/frames';
import type { Identity } from '../src/engine/identity';
import { asStream } from '../src/engine/ids';
import { accept, openOlder, type Reader } from '../src/engine/replica';
import { importVerifyingKey } from '../src/engine/sign';
import { contentKey, identityFromSeed, sealEnvelope } from './support/peers';

let host: Identity;
let reader: Reader;

beforeAll(async () => {
  host = await identityFromSeed(new Uint8Array(64).fill(1));
  const hostKey = await importVerifyingKey(host.public.signing);
  reader = {
    host: host.peer,
    hostKey,
    stream: asStream(host.peer),
    keys: new Map([[1, await contentKey(5)]]),
  };
});

async function sealed(
  first: number,
  last: number,
  prev: Bytes,
  text = '[]',
  lane: 'durable' | 'live' = 'durable',
) {
  const stream = asStream(host.peer);
  const header = { suite: 1, lane, host: host.peer, stream, epoch: 1, first, last, prev, base: 0 };
  return sealEnvelope(host, await contentKey(5), header, text);
}

test('envelopes in order are read once', async () => {
  const first = await sealed(1, 2, NO_HASH);
  const accepted = await accept(reader, null, first);
  expect(accepted.kind).toBe('events');
  const head = { seq: 2, hash: await envelopeHash(first) };
  expect((await accept(reader, head, first)).kind).toBe('repeated');
  expect((await accept(reader, head, await sealed(3, 3, head.hash))).kind).toBe('events');
});

test('s06 a dropped envelope is a gap and a spliced one an alarm', async () => {
  const first = await sealed(1, 1, NO_HASH);
  const head = { seq: 1, hash: await envelopeHash(first) };
  expect(await accept(reader, head, await sealed(3, 3, NO_HASH))).toEqual({ kind: 'gap' });
  const spliced = await accept(reader, head, await sealed(2, 2, new Uint8Array(32).fill(9)));
  expect(spliced).toEqual({ kind: 'tampered', code: 'tampered' });
  const overlapping = await accept(reader, { seq: 5, hash: head.hash }, await sealed(4, 7, head.hash));
  expect(overlapping).toEqual({ kind: 'tampered', code: 'tampered' });
});

test('s05 every flipped bit is noticed', async () => {
  const whole = await sealed(1, 1, NO_HASH, '[1]');
  const bytes = encodeEnvelope(whole);
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const bent = bytes.slice();
    bent[bit >> 3] = (bent[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    let envelope: Envelope;
    try {
      envelope = decodeEnvelope(bent);
    } catch {
      continue;
    }
    const accepted = await accept(reader, null, envelope);
    expect(accepted.kind, `bit ${bit}`).not.toBe('events');
  }
});

test('s04 an envelope of another stream or host is refused', async () => {
  const envelope = await sealed(1, 1, NO_HASH);
  const elsewhere = { ...reader, stream: 'str_08080808080808080808080808080808' };
  expect(await accept(elsewhere, null, envelope)).toEqual({ kind: 'tampered', code: 'tampered' });
});

test('older envelopes are believed by the hash that their successor names', async () => {
  const older = await sealed(1, 1, NO_HASH);
  expect((await openOlder(reader, await envelopeHash(older), older)).kind).toBe('events');
  expect(await openOlder(reader, NO_HASH, older)).toEqual({ kind: 'tampered', code: 'tampered' });
});

test('a missing key is told by its epoch and lane', async () => {
  const without = { ...reader, keys: new Map<number, CryptoKey>() };
  const missing = await accept(without, null, await sealed(1, 1, NO_HASH, '[]', 'live'));
  expect(missing).toEqual({ kind: 'key_missing', epoch: 1, lane: 'live' });
});
