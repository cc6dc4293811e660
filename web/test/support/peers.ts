/** Peers with known keys, for tests that play both ends. */
import { concat, fromHex, utf8 } from '../../src/engine/bytes';
import { type EnvelopeHeader, encodeEnvelopeHeader, envelopeHash } from '../../src/engine/envelope';
import type { Envelope } from '../../src/engine/frames';
import { type Identity, identityOf } from '../../src/engine/identity';
import { importContentKey, sealBody } from '../../src/engine/seal';
import { sign } from '../../src/engine/sign';

/** The identity that belongs to 64 secret bytes, as `core::keys::Identity::from_seed`. */
export async function identityFromSeed(seed: Uint8Array): Promise<Identity> {
  const signing = await pair('Ed25519', '302e020100300506032b657004220420', seed.subarray(0, 32), ['sign']);
  const sealing = await pair('X25519', '302e020100300506032b656e04220420', seed.subarray(32), ['deriveBits']);
  return identityOf(signing, sealing);
}

/** The key that seals in tests. */
export async function contentKey(byte: number): Promise<CryptoKey> {
  return importContentKey(new Uint8Array(32).fill(byte), ['encrypt', 'decrypt']);
}

export async function sealEnvelope(
  host: Identity,
  key: CryptoKey,
  header: EnvelopeHeader,
  plaintext: string,
): Promise<Envelope> {
  const bound = encodeEnvelopeHeader(header);
  const nonce = crypto.getRandomValues(new Uint8Array(12));
  const body = await sealBody(key, bound, utf8(plaintext), nonce);
  const hash = await envelopeHash({ header: bound, body });
  return { header: bound, body, signature: await sign(host.signing.privateKey, 'envelope', hash) };
}

async function pair(
  algorithm: 'Ed25519' | 'X25519',
  prefix: string,
  secret: Uint8Array,
  usages: KeyUsage[],
): Promise<CryptoKeyPair> {
  const pkcs8 = concat(fromHex(prefix) ?? new Uint8Array(), secret);
  const exportable = await crypto.subtle.importKey('pkcs8', pkcs8, algorithm, true, usages);
  const { x } = await crypto.subtle.exportKey('jwk', exportable);
  const jwk = { kty: 'OKP', crv: algorithm, x: x ?? '' };
  const publicUsages: KeyUsage[] = algorithm === 'Ed25519' ? ['verify'] : [];
  const publicKey = await crypto.subtle.importKey('jwk', jwk, algorithm, true, publicUsages);
  const privateKey = await crypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, usages);
  return { publicKey, privateKey };
}
