/** How this device proves its key to a relay; the twin of `farhelm_proto::hello`. */
import { type Bytes, concat, utf8 } from './bytes';
import type { Identity } from './identity';
import { sign } from './sign';

/** Version (two bytes, big-endian), nonce, key, and the authority it dialled in lower case. */
export function transcript(version: number, nonce: Bytes, key: Bytes, authority: string): Bytes {
  const lower = authority.replace(/[A-Z]/g, (char) => char.toLowerCase());
  return concat(Uint8Array.of(version >> 8, version & 0xff), nonce, key, utf8(lower));
}

export async function prove(
  identity: Identity,
  version: number,
  nonce: Bytes,
  authority: string,
): Promise<Bytes> {
  return sign(
    identity.signing.privateKey,
    'hello',
    transcript(version, nonce, identity.public.signing, authority),
  );
}
