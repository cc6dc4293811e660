/** Signatures that peers and the relay share: Ed25519 with domain separation. */
import { type Bytes, concat, utf8 } from './bytes';

/** What a signature is for; one made for one purpose is never valid for another. */
export type Domain = 'hello' | 'envelope' | 'letter' | 'roster';

export async function importVerifyingKey(raw: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey('raw', raw, 'Ed25519', true, ['verify']);
}

export async function sign(key: CryptoKey, domain: Domain, message: Uint8Array): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.sign('Ed25519', key, inDomain(domain, message)));
}

export async function verify(
  key: CryptoKey,
  domain: Domain,
  message: Uint8Array,
  signature: Bytes,
): Promise<boolean> {
  return crypto.subtle.verify('Ed25519', key, signature, inDomain(domain, message));
}

function inDomain(domain: Domain, message: Uint8Array): Bytes {
  return concat(utf8(`farhelm/1/${domain}\0`), message);
}
