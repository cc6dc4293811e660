/** The vectors that Rust made, replayed: bytes, hashes, signatures, sealing, pairing, roster. */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { askDigest } from '../src/engine/ask';
import { type Bytes, fromBase64, fromUtf8, sha256, toBase64, utf8 } from '../src/engine/bytes';
import { parseEnvelopeHeader } from '../src/engine/envelope';
import { type Body, decodeFrame, encodeFrame, type Frame } from '../src/engine/frames';
import { prove, transcript } from '../src/engine/hello';
import { type Identity, keysFromText, keysToText, type RawKeys } from '../src/engine/identity';
import { idBytes } from '../src/engine/ids';
import { encodeLetterHeader, letterHash, parseLetterHeader, verifyLetter } from '../src/engine/letter';
import { compareCode, parseLink } from '../src/engine/pairing';
import { accept } from '../src/engine/replica';
import { verifyRoster } from '../src/engine/roster';
import { importContentKey, openBlob, openLetter, sealLetter } from '../src/engine/seal';
import { importVerifyingKey } from '../src/engine/sign';
import { identityFromSeed } from './support/peers';

const golden = JSON.parse(
  readFileSync(new URL('../../crates/core/tests/golden/v1.json', import.meta.url), 'utf8'),
);
let host: Identity;
let device: Identity;
let hostKey: CryptoKey;

beforeAll(async () => {
  host = await identityFromSeed(b64(golden.host.seed));
  device = await identityFromSeed(b64(golden.device.seed));
  hostKey = await importVerifyingKey(host.public.signing);
});

describe('peers', () => {
  test('keys and ids are the same', () => {
    expect([host.peer, keysToText(host.public)]).toEqual([golden.host.peer, golden.host.keys]);
    expect([device.peer, keysToText(device.public)]).toEqual([golden.device.peer, golden.device.keys]);
  });
});

describe('frames', () => {
  test('hello has the same bytes, and its proof the same signature', async () => {
    const body: Body<'hello'> = {
      oldest: 1,
      newest: 1,
      role: 'device',
      key: device.public.signing,
      agent: 'golden/1',
      authority: 'relay.example',
      generation: null,
      deadMillis: null,
    };
    expect(toBase64(encodeFrame('hello', body))).toBe(golden.hello.frame);
    expect(decodeFrame(b64(golden.hello.frame))).toEqual({ kind: 'hello', body });
    const nonce = b64(golden.hello.nonce);
    expect(toBase64(transcript(1, nonce, device.public.signing, 'Relay.example'))).toBe(
      golden.hello.transcript,
    );
    expect(toBase64(await prove(device, 1, nonce, 'relay.example'))).toBe(golden.hello.proof);
  });

  test('subscribe leaves absent fields out', () => {
    const stream = 'str_01010101010101010101010101010101';
    const frame = encodeFrame('subscribe', { host: host.peer, stream, after: 7, tail: null });
    expect(toBase64(frame)).toBe(golden.subscribe);
  });

  test.each(['envelope', 'letter', 'pairing'])('%s survives a round trip', (name) => {
    const { kind, body } = decodeFrame(b64(golden[name].frame));
    expect(toBase64(encodeFrame(kind, body as never))).toBe(golden[name].frame);
  });
});

describe('sealing', () => {
  test('the envelope is believed and opens', async () => {
    const { body } = only('envelope', golden.envelope.frame);
    expect(parseEnvelopeHeader(body)).toMatchObject({ epoch: 3, first: 1, last: 1, lane: 'durable' });
    const keys = new Map([[3, await importContentKey(b64(golden.envelope.key))]]);
    const reader = { host: host.peer, hostKey, stream: golden.envelope.stream, keys };
    const accepted = await accept(reader, null, body);
    expect(accepted.kind).toBe('events');
    if (accepted.kind === 'events') expect(fromUtf8(accepted.plaintext)).toBe(golden.envelope.plaintext);
  });

  test('the letter is signed, opens for its addressee and for nobody else', async () => {
    const { body } = only('letter', golden.letter.frame);
    expect(toBase64(await letterHash(body))).toBe(golden.letter.hash);
    const deviceKey = await importVerifyingKey(device.public.signing);
    expect(await verifyLetter(body, deviceKey)).toBe(true);
    expect(await verifyLetter(body, hostKey)).toBe(false);
    expect(fromUtf8(await openLetter(host, body))).toBe(golden.letter.plaintext);
    await expect(openLetter(device, body)).rejects.toMatchObject({ code: 'bad_seal' });
  });

  test('a letter made here has the same header bytes and opens', async () => {
    const header = parseLetterHeader(only('letter', golden.letter.frame).body);
    expect(encodeLetterHeader(header)).toEqual(only('letter', golden.letter.frame).body.header);
    const made = await sealLetter(device, host.public.sealing, header, utf8(golden.letter.plaintext));
    expect(made.body.length % 1024).toBe(16);
    expect(fromUtf8(await openLetter(host, made))).toBe(golden.letter.plaintext);
  });

  test('the blob opens by its name, stream and epoch', async () => {
    const { sealed, stream, epoch, key, name, plaintext } = golden.blob;
    expect(toBase64(await sha256(b64(sealed)))).toBe(name);
    const content = await importContentKey(b64(key));
    expect(toBase64(await openBlob(content, stream, epoch, b64(sealed)))).toBe(plaintext);
    await expect(openBlob(content, stream, 4, b64(sealed))).rejects.toMatchObject({ code: 'bad_seal' });
  });
});

describe('pairing', () => {
  test('the link reads back', async () => {
    const link = await parseLink(golden.pairing.link);
    expect(link).toEqual({
      relay: 'https://relay.example',
      host: host.public,
      secret: b64(golden.pairing.secret),
      offer: golden.pairing.offer,
    });
  });

  test('a link cut off anywhere is refused', async () => {
    const link: string = golden.pairing.link;
    for (let end = 0; end < link.length; end += 1) {
      await expect(parseLink(link.slice(0, end))).rejects.toMatchObject({ code: 'bad_link' });
    }
  });

  test('the request opens with the secret only, and gives the code', async () => {
    const { body } = only('letter', golden.pairing.frame);
    const psk = { secret: b64(golden.pairing.secret), offer: golden.pairing.offer };
    expect(fromUtf8(await openLetter(host, body, psk))).toBe(golden.pairing.plaintext);
    const wrong = { ...psk, secret: new Uint8Array(32) };
    await expect(openLetter(host, body, wrong)).rejects.toMatchObject({ code: 'bad_seal' });
    expect(await compareCode(await letterHash(body), b64(golden.pairing.nonce))).toBe(golden.pairing.code);
  });

  test('a request made here opens at the host', async () => {
    const psk = { secret: b64(golden.pairing.secret), offer: golden.pairing.offer };
    const header = parseLetterHeader(only('letter', golden.pairing.frame).body);
    const made = await sealLetter(device, host.public.sealing, header, utf8(golden.pairing.plaintext), psk);
    expect(fromUtf8(await openLetter(host, made, psk))).toBe(golden.pairing.plaintext);
  });
});

test('an ask has the same digest', async () => {
  expect(await askDigest(golden.ask.text)).toBe(golden.ask.digest);
});

describe('the roster', () => {
  test('verifies from its first entry', async () => {
    const roster = await verifyRoster(golden.roster, host.public);
    expect([...roster.members.keys()]).toEqual([host.peer, device.peer]);
    expect(roster.members.get(device.peer)?.name).toBe('phone');
  });

  test('s17 s36 forged, missing and swapped entries are noticed', async () => {
    const [first, second] = golden.roster;
    const broken = [
      [],
      [second],
      [second, first],
      [first, { ...second, signer: device.peer }],
      [first, { ...second, body: second.body.replace('phone', 'evil') }],
    ];
    for (const entries of broken) {
      await expect(verifyRoster(entries, host.public)).rejects.toMatchObject({ code: 'tampered' });
    }
    const other = keysFromText(golden.device.keys) as RawKeys;
    await expect(verifyRoster(golden.roster, other)).rejects.toMatchObject({ code: 'tampered' });
  });
});

test('ids of another kind are refused', () => {
  expect(() => idBytes('session', golden.host.peer)).toThrow();
});

function only<K extends Frame['kind']>(kind: K, base64: string): Extract<Frame, { kind: K }> {
  const frame = decodeFrame(b64(base64));
  if (frame.kind !== kind) throw new Error(`a frame of kind ${kind}`);
  return frame as Extract<Frame, { kind: K }>;
}

function b64(text: string): Bytes {
  return fromBase64(text) ?? new Uint8Array();
}
