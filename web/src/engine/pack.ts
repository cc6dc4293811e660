/**
 * Packing: what is sealed is first one byte for the encoding (0 plain, 1 raw deflate with the
 * preset dictionary), the length in four bytes, the data, and zeros up to a bucket.
 */
import { deflateSync, Inflate, inflateSync } from 'fflate';
import { DICTIONARY, MAX_PLAINTEXT } from '../protocol/constants';
import { type Bytes, bigEndian32, concat, utf8 } from './bytes';

const PREFIX = 5;
const COMPRESS_FROM = 64;
/** Deflate cannot grow data by more than this factor. */
const MAX_GROWTH = 1032;
const CHUNK = 4096;

const dictionary = utf8(DICTIONARY);

class CannotUnpack extends Error {
  override name = 'CannotUnpack';
}

/** Packs data; `bucket` says how long the whole is to be. */
export function pack(data: Uint8Array, bucket: (length: number) => number): Bytes {
  const smaller = data.length >= COMPRESS_FROM ? deflateSync(data, { dictionary }) : null;
  const use = smaller !== null && smaller.length < data.length ? smaller : null;
  const held = use ?? data;
  const packed = new Uint8Array(bucket(PREFIX + held.length));
  packed.set(concat(Uint8Array.of(use === null ? 0 : 1), bigEndian32(held.length), held));
  return packed;
}

/** Throws `CannotUnpack` on anything that `pack` did not make, or that is too large. */
export function unpack(packed: Bytes): Bytes {
  if (packed.length < PREFIX) throw new CannotUnpack('too short');
  const length = new DataView(packed.buffer, packed.byteOffset).getUint32(1);
  if (length > packed.length - PREFIX) throw new CannotUnpack('cut off');
  const data = packed.subarray(PREFIX, PREFIX + length);
  if (packed[0] === 0) return data.slice();
  if (packed[0] === 1) return inflate(data);
  throw new CannotUnpack('unknown encoding');
}

function inflate(data: Bytes): Bytes {
  try {
    const whole =
      data.length * MAX_GROWTH <= MAX_PLAINTEXT ? inflateSync(data, { dictionary }) : inflateBounded(data);
    return new Uint8Array(whole);
  } catch (error) {
    throw new CannotUnpack(String(error));
  }
}

/** Inflates in steps, so that a bomb is noticed before it has grown. */
function inflateBounded(data: Bytes): Uint8Array {
  const chunks: Uint8Array[] = [];
  let total = 0;
  const stream = new Inflate({ dictionary }, (chunk) => {
    total += chunk.length;
    if (total > MAX_PLAINTEXT) throw new CannotUnpack('too large');
    chunks.push(chunk);
  });
  for (let at = 0; at < data.length; at += CHUNK) {
    stream.push(data.slice(at, at + CHUNK), at + CHUNK >= data.length);
  }
  return concat(...chunks);
}

/** Letters are padded to multiples of this. */
export function letterBucket(length: number): number {
  return Math.ceil(length / 1024) * 1024;
}

/** Rounds a length up by at most 12 % (Padmé, <https://arxiv.org/abs/1806.03160>, section 4). */
export function padme(length: number): number {
  if (length <= 64) return 64;
  const exponent = Math.floor(Math.log2(length));
  const step = 2 ** (exponent - (Math.floor(Math.log2(exponent)) + 1));
  return Math.ceil(length / step) * step;
}
