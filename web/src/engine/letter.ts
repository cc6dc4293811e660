/** Letters from outside: clear header, hash and signature; the twin of `farhelm_proto::letter`. */
import { type Bytes, bigEndian32, sha256 } from './bytes';
import { field, fromCbor, id, maybe, type Of, toCbor, tuple, uint, words } from './cbor';
import type { Letter } from './frames';
import { sign, verify } from './sign';

const header = tuple({
  suite: field(0, uint),
  kind: field(
    1,
    words({ 0: 'command', 1: 'receipt', 2: 'keys', 3: 'pair_request', 4: 'pair_answer', 5: 'probe' }),
  ),
  from: field(2, id('peer')),
  to: field(3, id('peer')),
  id: field(4, id('command')),
  notAfter: field(5, uint),
  offer: maybe(6, id('offer')),
});

/** What the relay may know of a letter. */
export type LetterHeader = Of<typeof header>;

export function encodeLetterHeader(value: LetterHeader): Bytes {
  return toCbor(header, value);
}

/** Throws `Malformed` when the header is not one of this version. */
export function parseLetterHeader(letter: Letter): LetterHeader {
  return fromCbor(header, letter.header);
}

/** What the sender signs. */
export async function letterHash(letter: Omit<Letter, 'signature'>): Promise<Bytes> {
  return sha256(bigEndian32(letter.header.length), letter.header, letter.enc, letter.body);
}

export async function signLetter(letter: Omit<Letter, 'signature'>, key: CryptoKey): Promise<Letter> {
  return { ...letter, signature: await sign(key, 'letter', await letterHash(letter)) };
}

export async function verifyLetter(letter: Letter, sender: CryptoKey): Promise<boolean> {
  return verify(sender, 'letter', await letterHash(letter), letter.signature);
}
