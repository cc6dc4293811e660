/** Envelopes from outside: clear header, hash and signature; the twin of `farhelm_proto::envelope`. */
import { type Bytes, bigEndian32, sha256 } from './bytes';
import { bytes, field, fromCbor, id, type Of, toCbor, tuple, uint, words } from './cbor';
import type { Envelope } from './frames';
import { verify } from './sign';

/** What the first envelope of a stream names as its predecessor. */
export const NO_HASH: Bytes = new Uint8Array(32);

const header = tuple({
  suite: field(0, uint),
  lane: field(1, words({ 0: 'durable', 1: 'live' })),
  host: field(2, id('peer')),
  stream: field(3, id('stream')),
  epoch: field(4, uint),
  first: field(5, uint),
  last: field(6, uint),
  prev: field(7, bytes(32)),
  base: field(8, uint),
});

/** What the relay may know of an envelope. */
export type EnvelopeHeader = Of<typeof header>;

export function encodeEnvelopeHeader(value: EnvelopeHeader): Bytes {
  return toCbor(header, value);
}

/** Throws `Malformed` when the header is not one of this version. */
export function parseEnvelopeHeader(envelope: Envelope): EnvelopeHeader {
  return fromCbor(header, envelope.header);
}

/** What the next envelope names as `prev`, and what the host signs. */
export async function envelopeHash(envelope: Pick<Envelope, 'header' | 'body'>): Promise<Bytes> {
  return sha256(bigEndian32(envelope.header.length), envelope.header, envelope.body);
}

export async function verifyEnvelope(envelope: Envelope, hash: Bytes, host: CryptoKey): Promise<boolean> {
  return verify(host, 'envelope', hash, envelope.signature);
}
