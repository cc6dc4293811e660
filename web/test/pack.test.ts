/** Packing and frames survive whatever arrives. */
import { expect, test } from 'vitest';
import { utf8 } from '../src/engine/bytes';
import { decodeFrame, encodeFrame, UnknownFrame } from '../src/engine/frames';
import { letterBucket, pack, padme, unpack } from '../src/engine/pack';

test('packing reads back and hides the length', () => {
  for (const length of [0, 1, 59, 60, 500, 5_000, 70_000]) {
    const data = Uint8Array.from({ length }, (_, n) => (n % 251) ^ (n / 251));
    const packed = pack(data, padme);
    expect(unpack(packed)).toEqual(data);
    expect(padme(packed.length)).toBe(packed.length);
    expect(pack(data, letterBucket).length % 1024).toBe(0);
  }
});

test('s13 a bomb is not inflated', () => {
  const bomb = pack(new Uint8Array(17 * 1024 * 1024), (length) => length);
  expect(bomb.length).toBeLessThan(100_000);
  expect(() => unpack(bomb)).toThrow();
});

test('truncated packs are refused', () => {
  const packed = pack(utf8('hello '.repeat(40)), padme);
  for (let end = 0; end < 9; end += 1) expect(() => unpack(packed.slice(0, end))).toThrow();
});

test('f22 an unknown frame is named by its number; prefixes and bit flips are survived', () => {
  expect(() => decodeFrame(Uint8Array.of(0x82, 0x19, 0x03, 0xe7, 0x81, 0x01))).toThrow(UnknownFrame);
  const bytes = encodeFrame('presence', { host: `peer_${'01'.repeat(16)}`, online: true, since: 5 });
  for (let end = 0; end < bytes.length; end += 1) expect(() => decodeFrame(bytes.slice(0, end))).toThrow();
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const bent = bytes.slice();
    bent[bit >> 3] = (bent[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    try {
      decodeFrame(bent);
    } catch (error) {
      expect(error).toBeInstanceOf(Error);
    }
  }
});
