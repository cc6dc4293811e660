/**
 * Typed ids: sixteen bytes on the wire, a prefix and 32 hexadecimal digits for people and in JSON.
 * Inside the engine an id is its printed form, so that it can be a key of maps and of the database.
 */
import { type Bytes, concat, fromHex, hex, sha256, utf8 } from './bytes';

const ID_PREFIXES = {
  peer: 'peer_',
  session: 'ses_',
  stream: 'str_',
  command: 'cmd_',
  approval: 'apr_',
  turn: 'trn_',
  prompt: 'prm_',
  offer: 'off_',
} as const;

export type IdKind = keyof typeof ID_PREFIXES;

export function idText(kind: IdKind, bytes: Uint8Array): string {
  return ID_PREFIXES[kind] + hex(bytes);
}

export function idBytes(kind: IdKind, text: string): Bytes {
  const prefix = ID_PREFIXES[kind];
  const bytes = text.startsWith(prefix) ? fromHex(text.slice(prefix.length)) : null;
  if (bytes?.length !== 16) throw new Error(`not a valid id: expected ${prefix} and 32 hexadecimal digits`);
  return bytes;
}

/** The same sixteen bytes as an id of another kind: a session's stream, a host's own stream. */
export function asStream(text: string): string {
  return ID_PREFIXES.stream + text.slice(text.indexOf('_') + 1);
}

/** An id that sorts by `now`, from ten fresh random bytes (RFC 9562, UUIDv7). */
export function freshId(kind: IdKind, now: number, random: Uint8Array): string {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(now) << 16n);
  bytes.set(random.subarray(0, 10), 6);
  bytes[6] = 0x70 | ((bytes[6] ?? 0) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] ?? 0) & 0x3f);
  return idText(kind, bytes);
}

/** The id of the peer that signs with `key`. */
export async function peerOf(key: Uint8Array): Promise<string> {
  const digest = await sha256(concat(utf8('farhelm/1/peer\0'), key));
  return idText('peer', digest.subarray(0, 16));
}

/** What the relay may know of a pairing link's secret. */
export async function offerOf(secret: Uint8Array): Promise<string> {
  const digest = await sha256(concat(utf8('farhelm/1/offer\0'), secret));
  return idText('offer', digest.subarray(0, 16));
}
