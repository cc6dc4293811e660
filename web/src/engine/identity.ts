/**
 * The keys of this device. They are made here, cannot be exported, and leave the worker only as
 * structured clones into IndexedDB.
 */
import type { PublicKeys } from '../protocol/types';
import { type Bytes, fromBase64, toBase64 } from './bytes';
import { peerOf } from './ids';

export type Identity = {
  readonly peer: string;
  readonly signing: CryptoKeyPair;
  readonly sealing: CryptoKeyPair;
  readonly public: RawKeys;
};

/** Public halves as bytes: Ed25519 and X25519. */
export type RawKeys = { readonly signing: Bytes; readonly sealing: Bytes };

export async function makeIdentity(): Promise<Identity> {
  const signing = (await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])) as CryptoKeyPair;
  const sealing = (await crypto.subtle.generateKey('X25519', false, ['deriveBits'])) as CryptoKeyPair;
  return identityOf(signing, sealing);
}

export async function identityOf(signing: CryptoKeyPair, sealing: CryptoKeyPair): Promise<Identity> {
  const raw = { signing: await rawKey(signing.publicKey), sealing: await rawKey(sealing.publicKey) };
  return { peer: await peerOf(raw.signing), signing, sealing, public: raw };
}

export function keysToText(keys: RawKeys): PublicKeys {
  return { signing: toBase64(keys.signing), sealing: toBase64(keys.sealing) };
}

export function keysFromText(keys: PublicKeys): RawKeys | null {
  const signing = fromBase64(keys.signing);
  const sealing = fromBase64(keys.sealing);
  return signing?.length === 32 && sealing?.length === 32 ? { signing, sealing } : null;
}

async function rawKey(key: CryptoKey): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.exportKey('raw', key));
}
