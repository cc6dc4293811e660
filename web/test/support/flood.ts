/** Seals very many envelopes at once with node's own cryptography: a million events in seconds. */
import { createCipheriv, createHash, createPrivateKey, randomBytes, sign } from 'node:crypto';
import { deflateRawSync } from 'node:zlib';
import { type Bytes, bigEndian32, concat, fromHex, utf8 } from '../../src/engine/bytes';
import { type EnvelopeHeader, encodeEnvelopeHeader } from '../../src/engine/envelope';
import type { Envelope } from '../../src/engine/frames';
import { idBytes } from '../../src/engine/ids';
import { padme } from '../../src/engine/pack';
import { DICTIONARY } from '../../src/protocol/constants';

const PKCS8 = fromHex('302e020100300506032b657004220420') ?? new Uint8Array();
const DOMAIN = utf8('farhelm/1/envelope\0');
const dictionary = utf8(DICTIONARY);

export class Sealer {
  readonly #key: Bytes;
  readonly #signer;

  /** `key` seals; `seed` holds the host's secret signing key. */
  constructor(key: Bytes, seed: Uint8Array) {
    this.#key = key;
    const pkcs8 = Buffer.from(concat(PKCS8, seed.subarray(0, 32)));
    this.#signer = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' });
  }

  seal(header: EnvelopeHeader, plaintext: string): { readonly envelope: Envelope; readonly hash: Bytes } {
    const bound = encodeEnvelopeHeader(header);
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce);
    cipher.setAAD(bound);
    const sealed = cipher.update(packed(plaintext));
    const body = concat(nonce, sealed, cipher.final(), cipher.getAuthTag());
    const digest = createHash('sha256').update(bigEndian32(bound.length)).update(bound).update(body).digest();
    const hash = new Uint8Array(digest);
    const signature = new Uint8Array(sign(null, concat(DOMAIN, hash), this.#signer));
    return { envelope: { header: bound, body, signature }, hash };
  }
}

/** Seals a blob of a stream; its name is the hash of what comes. */
export function sealBlob(key: Bytes, stream: string, epoch: number, plaintext: string): Bytes {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(concat(utf8('farhelm/1/blob\0'), idBytes('stream', stream), bigEndian32(epoch)));
  const sealed = cipher.update(packed(plaintext));
  return concat(nonce, sealed, cipher.final(), cipher.getAuthTag());
}

function packed(plaintext: string): Bytes {
  const deflated = deflateRawSync(plaintext, { dictionary, level: 1 });
  const bytes = new Uint8Array(padme(5 + deflated.length));
  bytes.set(concat(Uint8Array.of(1), bigEndian32(deflated.length), deflated));
  return bytes;
}
