/** The device's side of pairing: the link, the request and the code; the twin of `core::pairing`. */
import { type Bytes, concat, fromBase64, sameBytes, sha256, utf8 } from './bytes';
import { Failure } from './codes';
import type { RawKeys } from './identity';
import { offerOf } from './ids';

const FRAGMENT = '#pair=';
const LINK_VERSION = 1;
const CHECK = 4;
/** Far more than any link has; what is pasted may be anything. */
const LONGEST = 4096;
const LINK_BYTES = 1 + 32 + 32 + 32 + CHECK;

/** What a pairing link holds. */
export type PairingLink = {
  /** Where the relay is: `https://relay.example`. */
  readonly relay: string;
  readonly host: RawKeys;
  readonly secret: Bytes;
  readonly offer: string;
};

/** Throws `Failure('bad_link')` when it is cut off, mistyped or something else. */
export async function parseLink(url: string): Promise<PairingLink> {
  if (url.length > LONGEST) throw new Failure('bad_link');
  const at = url.trim().indexOf(FRAGMENT);
  const bytes = at < 0 ? null : fromBase64(url.trim().slice(at + FRAGMENT.length));
  if (bytes?.length !== LINK_BYTES || bytes[0] !== LINK_VERSION) throw new Failure('bad_link');
  const content = bytes.subarray(0, -CHECK);
  const check = (await sha256(content)).subarray(0, CHECK);
  if (!sameBytes(check, bytes.subarray(-CHECK))) throw new Failure('bad_link');
  const secret = content.slice(65, 97);
  return {
    relay: url.trim().slice(0, at).replace(/\/+$/, ''),
    host: { signing: content.slice(1, 33), sealing: content.slice(33, 65) },
    secret,
    offer: await offerOf(secret),
  };
}

/** The six digits that both sides show. */
export async function compareCode(request: Bytes, nonce: Bytes): Promise<string> {
  const digest = await sha256(concat(utf8('farhelm/1/pair-code\0'), request, nonce));
  const number = new DataView(digest.buffer).getBigUint64(0) % 1_000_000n;
  const digits = number.toString().padStart(6, '0');
  return `${digits.slice(0, 3)} ${digits.slice(3)}`;
}
