/**
 * The device's part of pairing with a host: asks, shows the code, and believes the answer only when
 * the roster in it verifies and holds this device's own keys. It is written down at each step, so
 * that a reload goes on where it was.
 */
import type { Clock } from '../platform/clock';
import type { Random } from '../platform/random';
import { SUITE } from '../protocol/constants';
import type { Entry, PairAnswer } from '../protocol/types';
import { type Bytes, fromBase64, parseJson, sameBytes, utf8 } from './bytes';
import { type Code, codeFromWord, Failure, mayRetry } from './codes';
import { decodeLetter, encodeFrame, encodeLetter } from './frames';
import { type Identity, keysToText } from './identity';
import { freshId, peerOf } from './ids';
import { type LetterHeader, letterHash, parseLetterHeader } from './letter';
import { compareCode, parseLink } from './pairing';
import { verifyRoster } from './roster';
import { sealLetter } from './seal';
import type { HostRow, PairingRow, Store } from './store';
import type { PairingView } from './views';

const OFFER_MILLIS = 10 * 60 * 1000;
const RETRY_MILLIS = 3_000;

export interface PairingEvents {
  changed(): void;
  send(message: Bytes): boolean;
  paired(host: HostRow): Promise<void>;
}

export class Pairing {
  readonly #identity: Identity;
  readonly #store: Store;
  readonly #world: { readonly clock: Clock; readonly random: Random };
  readonly #events: PairingEvents;
  #row: PairingRow | null = null;
  #view: PairingView = { step: 'none' };

  constructor(
    identity: Identity,
    store: Store,
    world: { readonly clock: Clock; readonly random: Random },
    events: PairingEvents,
  ) {
    this.#identity = identity;
    this.#store = store;
    this.#world = world;
    this.#events = events;
  }

  get view(): PairingView {
    return this.#view;
  }

  /** Where the pairing under way needs a connection to. */
  get relay(): string | null {
    return this.#row?.relay ?? null;
  }

  async load(): Promise<void> {
    const row = await this.#store.pairing();
    if (row === null) return;
    this.#row = row;
    this.#view = await viewOf(row);
    await this.expire();
  }

  /** Gives up what the host does not wait for any more. */
  async expire(): Promise<void> {
    if (this.#row === null) return;
    const patience = this.#row.challenge === null ? 0 : OFFER_MILLIS;
    if (this.#row.until + patience < this.#world.clock.now()) {
      await this.#end({ step: 'failed', code: 'link_expired' });
    }
  }

  /** Begins with a link; `Failure('bad_link')` shows as such. */
  async begin(url: string, name: string): Promise<void> {
    try {
      const link = await parseLink(url);
      const now = this.#world.clock.now();
      const hostPeer = await peerOf(link.host.signing);
      const header: LetterHeader = {
        suite: SUITE,
        kind: 'pair_request',
        from: this.#identity.peer,
        to: hostPeer,
        id: freshId('command', now, this.#world.random.bytes(10)),
        // The offer ends by the clocks of host and relay, which this one may differ from.
        notAfter: 0,
        offer: link.offer,
      };
      const body = utf8(JSON.stringify({ name, keys: keysToText(this.#identity.public) }));
      const letter = await sealLetter(this.#identity, link.host.sealing, header, body, link);
      const row: PairingRow = {
        relay: link.relay,
        host: link.host,
        hostPeer,
        offer: link.offer,
        name,
        until: now + OFFER_MILLIS,
        requestHash: await letterHash(letter),
        request: encodeLetter(letter),
        challenge: null,
      };
      await this.#store.putPairing(row);
      this.#row = row;
      this.#become({ step: 'asking', name });
      this.resend();
    } catch (error) {
      await this.#end({ step: 'failed', code: error instanceof Failure ? error.code : 'internal' });
    }
  }

  /** Sends the request while it is not known to have arrived. */
  resend(): void {
    if (this.#row !== null && this.#row.challenge === null) {
      this.#events.send(encodeFrame('letter', decodeLetter(this.#row.request)));
    }
  }

  /** The key that answers must be signed with. */
  hostKeys(peer: string): PairingRow['host'] | null {
    return this.#row?.hostPeer === peer ? this.#row.host : null;
  }

  /** The relay did not take the request. */
  async problem(code: Code): Promise<void> {
    if (this.#row === null || this.#row.challenge !== null) return;
    if (mayRetry(code)) {
      this.#world.clock.after(RETRY_MILLIS, () => this.resend());
      return;
    }
    // The relay knows of no such open offer: it was used, withdrawn, or its time is over.
    await this.#end({ step: 'failed', code: code === 'not_found' ? 'link_expired' : code });
  }

  /** The host's answer, from a letter that was verified and opened. */
  async answer(header: LetterHeader, plaintext: Bytes): Promise<void> {
    const row = this.#row;
    if (row === null || header.offer !== row.offer || header.from !== row.hostPeer) return;
    const answer = parseJson<PairAnswer>(plaintext);
    if (answer === null) return;
    switch (answer.type) {
      case 'challenge':
        return this.#challenged(row, answer);
      case 'accepted':
        return this.#accepted(row, answer.roster);
      case 'refused':
        return this.#end({ step: 'failed', code: codeFromWord(answer.code) });
    }
  }

  /** Stops waiting, or puts the outcome away. */
  async forget(): Promise<void> {
    await this.#end({ step: 'none' });
  }

  /** Whether a letter is the request. */
  isRequest(letter: string): boolean {
    return this.#row !== null && parseLetterHeader(decodeLetter(this.#row.request)).id === letter;
  }

  async #challenged(row: PairingRow, answer: Extract<PairAnswer, { type: 'challenge' }>): Promise<void> {
    const nonce = fromBase64(answer.nonce);
    const request = fromBase64(answer.request);
    if (row.challenge !== null || nonce?.length !== 32 || request === null) return;
    if (!sameBytes(request, row.requestHash)) return;
    const challenged = { ...row, challenge: { nonce, hostName: answer.host } };
    await this.#store.putPairing(challenged);
    this.#row = challenged;
    this.#become(await viewOf(challenged));
  }

  async #accepted(row: PairingRow, entries: readonly Entry[]): Promise<void> {
    try {
      const roster = await verifyRoster(entries, row.host);
      const me = roster.members.get(this.#identity.peer);
      if (me === undefined || me.revoked || !sameBytes(me.keys.sealing, this.#identity.public.sealing)) {
        throw new Failure('tampered');
      }
      const name = roster.members.get(row.hostPeer)?.name ?? row.challenge?.hostName ?? '';
      const host: HostRow = {
        peer: row.hostPeer,
        keys: row.host,
        name,
        relay: row.relay,
        roster: roster.head,
        lastSeen: this.#world.clock.now(),
      };
      await this.#store.putPaired(host);
      this.#row = null;
      await this.#events.paired(host);
      this.#become({ step: 'done', host: name, peer: host.peer });
    } catch (error) {
      await this.#end({ step: 'failed', code: error instanceof Failure ? error.code : 'internal' });
    }
  }

  async #end(view: PairingView): Promise<void> {
    await this.#store.putPairing(null);
    this.#row = null;
    this.#become(view);
  }

  #become(view: PairingView): void {
    this.#view = view;
    this.#events.changed();
  }
}

async function viewOf(row: PairingRow): Promise<PairingView> {
  if (row.challenge === null) return { step: 'asking', name: row.name };
  const code = await compareCode(row.requestHash, row.challenge.nonce);
  return { step: 'compare', name: row.name, host: row.challenge.hostName, code };
}
