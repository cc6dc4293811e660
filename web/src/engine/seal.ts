/** Sealing and opening: the only place where plaintext and ciphertext meet; the twin of `core::seal`. */
import { AEAD_AES_256_GCM, CipherSuite, KDF_HKDF_SHA256, KEM_DHKEM_X25519_HKDF_SHA256 } from 'hpke';
import { type Bytes, bigEndian32, concat, utf8 } from './bytes';
import { Failure } from './codes';
import type { Envelope, Letter } from './frames';
import type { Identity } from './identity';
import { idBytes } from './ids';
import { encodeLetterHeader, type LetterHeader, signLetter } from './letter';
import { letterBucket, pack, padme, unpack } from './pack';

const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_256_GCM);
const LETTER_INFO = utf8('farhelm/1/letter');
const PAIRING_INFO = utf8('farhelm/1/pairing');
const NONCE = 12;

/** A link's secret and the offer it belongs to: who has both can make a pair request. */
export type Psk = { readonly secret: Bytes; readonly offer: string };

/** A content key that can open (and, in tests, seal), but never be read. */
export async function importContentKey(raw: Bytes, usages: KeyUsage[] = ['decrypt']): Promise<CryptoKey> {
  return crypto.subtle.importKey('raw', raw, 'AES-GCM', false, usages);
}

/** Opens an envelope whose signature has been checked. */
export async function openEnvelope(key: CryptoKey, envelope: Envelope): Promise<Bytes> {
  return unpackOr(await decrypt(key, envelope.header, envelope.body));
}

/** Opens a blob of a stream. */
export async function openBlob(key: CryptoKey, stream: string, epoch: number, sealed: Bytes): Promise<Bytes> {
  return unpackOr(await decrypt(key, blobContext(stream, epoch), sealed));
}

/** Seals a letter to a peer's X25519 key and signs it; with a link's secret, a pair request. */
export async function sealLetter(
  from: Identity,
  to: Bytes,
  header: LetterHeader,
  plaintext: Uint8Array,
  psk?: Psk,
): Promise<Letter> {
  const bound = encodeLetterHeader(header);
  const key = await suite.DeserializePublicKey(to);
  const sealed = await suite.Seal(key, pack(plaintext, letterBucket), { ...mode(psk), aad: bound });
  const letter = { header: bound, enc: bytesOf(sealed.encapsulatedSecret), body: bytesOf(sealed.ciphertext) };
  return signLetter(letter, from.signing.privateKey);
}

/** Opens a letter whose signature has been checked. */
export async function openLetter(to: Identity, letter: Letter, psk?: Psk): Promise<Bytes> {
  try {
    const options = { ...mode(psk), aad: letter.header };
    return unpackOr(bytesOf(await suite.Open(to.sealing, letter.enc, letter.body, options)));
  } catch (error) {
    throw error instanceof Failure ? error : new Failure('bad_seal');
  }
}

/** Seals for tests and fixtures that play the host. */
export async function sealBody(
  key: CryptoKey,
  header: Bytes,
  plaintext: Uint8Array,
  nonce: Bytes,
): Promise<Bytes> {
  const params = { name: 'AES-GCM', iv: nonce, additionalData: header };
  return concat(nonce, new Uint8Array(await crypto.subtle.encrypt(params, key, pack(plaintext, padme))));
}

function mode(psk: Psk | undefined) {
  if (psk === undefined) return { info: LETTER_INFO };
  return { info: PAIRING_INFO, psk: psk.secret, pskId: idBytes('offer', psk.offer) };
}

async function decrypt(key: CryptoKey, context: Bytes, body: Bytes): Promise<Bytes> {
  if (body.length < NONCE) throw new Failure('bad_seal');
  const params = { name: 'AES-GCM', iv: body.subarray(0, NONCE), additionalData: context };
  try {
    return new Uint8Array(await crypto.subtle.decrypt(params, key, body.subarray(NONCE)));
  } catch {
    throw new Failure('bad_seal');
  }
}

function unpackOr(packed: Bytes): Bytes {
  try {
    return unpack(packed);
  } catch {
    throw new Failure('bad_seal');
  }
}

function blobContext(stream: string, epoch: number): Bytes {
  return concat(utf8('farhelm/1/blob\0'), idBytes('stream', stream), bigEndian32(epoch));
}

function bytesOf(value: Uint8Array): Bytes {
  return new Uint8Array(value);
}
