/**
 * What a reader checks before it believes an envelope: that the host signed it, that it continues
 * what was read before, and that it opens. The twin of `core::replica`; it reads without changing
 * anything, so that the caller can persist before it moves on.
 */
import { SUITE } from '../protocol/constants';
import { type Bytes, sameBytes } from './bytes';
import { type Code, Failure } from './codes';
import { type EnvelopeHeader, envelopeHash, NO_HASH, parseEnvelopeHeader, verifyEnvelope } from './envelope';
import type { Envelope } from './frames';
import { openEnvelope } from './seal';

/** The end of what was read. */
export type Head = { readonly seq: number; readonly hash: Bytes };

export type Accepted =
  /** The next events: the JSON text of an array of records. */
  | {
      readonly kind: 'events';
      readonly header: EnvelopeHeader;
      readonly head: Head;
      readonly plaintext: Bytes;
    }
  /** Deltas: the JSON text of an array of `Live`. */
  | { readonly kind: 'live'; readonly header: EnvelopeHeader; readonly plaintext: Bytes }
  /** Something that was read before. */
  | { readonly kind: 'repeated' }
  /** There is a hole before it; subscribing again from the cursor closes it. */
  | { readonly kind: 'gap' }
  /** The key of its epoch has not arrived. */
  | { readonly kind: 'key_missing'; readonly epoch: number; readonly lane: 'durable' | 'live' }
  /** Somebody in between altered, dropped or invented something. */
  | { readonly kind: 'tampered'; readonly code: Code };

/** Which stream is read, and with what. */
export type Reader = {
  readonly host: string;
  readonly hostKey: CryptoKey;
  readonly stream: string;
  readonly keys: ReadonlyMap<number, CryptoKey>;
};

/** Checks and opens the envelope that comes after `head`; without one, wherever it is. */
export async function accept(reader: Reader, head: Head | null, envelope: Envelope): Promise<Accepted> {
  const checked = await check(reader, envelope);
  if (checked.kind === 'tampered') return checked;
  const { header, hash } = checked;
  if (header.lane === 'durable') {
    const place = placeOf(header, head);
    if (place !== 'next') return place === 'tampered' ? { kind: place, code: 'tampered' } : { kind: place };
  }
  const opened = await open(reader, header, envelope);
  if (opened.kind !== 'opened') return opened;
  const { plaintext } = opened;
  if (header.lane === 'live') return { kind: 'live', header, plaintext };
  return { kind: 'events', header, head: { seq: header.last, hash }, plaintext };
}

/** Checks and opens a stored envelope from before the reader's place, whose successor names `hash`. */
export async function openOlder(reader: Reader, hash: Bytes, envelope: Envelope): Promise<Accepted> {
  const checked = await check(reader, envelope);
  if (checked.kind === 'tampered') return checked;
  const { header } = checked;
  if (!sameBytes(checked.hash, hash) || header.lane !== 'durable')
    return { kind: 'tampered', code: 'tampered' };
  const opened = await open(reader, header, envelope);
  if (opened.kind !== 'opened') return opened;
  return { kind: 'events', header, head: { seq: header.last, hash }, plaintext: opened.plaintext };
}

function placeOf(header: EnvelopeHeader, head: Head | null): 'next' | 'repeated' | 'gap' | 'tampered' {
  if (header.first === 0 || header.last < header.first) return 'tampered';
  if (head === null) return header.first === 1 && !sameBytes(header.prev, NO_HASH) ? 'tampered' : 'next';
  if (header.last <= head.seq) return 'repeated';
  if (header.first > head.seq + 1) return 'gap';
  return header.first <= head.seq || !sameBytes(header.prev, head.hash) ? 'tampered' : 'next';
}

type Checked = { kind: 'checked'; header: EnvelopeHeader; hash: Bytes } | { kind: 'tampered'; code: Code };

async function check(reader: Reader, envelope: Envelope): Promise<Checked> {
  let header: EnvelopeHeader;
  try {
    header = parseEnvelopeHeader(envelope);
  } catch {
    return { kind: 'tampered', code: 'bad_frame' };
  }
  const { host, stream, hostKey } = reader;
  if (header.suite !== SUITE || header.host !== host || header.stream !== stream) {
    return { kind: 'tampered', code: 'tampered' };
  }
  const hash = await envelopeHash(envelope);
  if (!(await verifyEnvelope(envelope, hash, hostKey))) return { kind: 'tampered', code: 'bad_signature' };
  return { kind: 'checked', header, hash };
}

type Opened =
  | { kind: 'opened'; plaintext: Bytes }
  | Extract<Accepted, { kind: 'key_missing' } | { kind: 'tampered' }>;

async function open(reader: Reader, header: EnvelopeHeader, envelope: Envelope): Promise<Opened> {
  const key = reader.keys.get(header.epoch);
  if (key === undefined) return { kind: 'key_missing', epoch: header.epoch, lane: header.lane };
  try {
    return { kind: 'opened', plaintext: await openEnvelope(key, envelope) };
  } catch (error) {
    return { kind: 'tampered', code: error instanceof Failure ? error.code : 'bad_seal' };
  }
}
