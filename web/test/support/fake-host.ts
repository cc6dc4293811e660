/** A host in memory, for tests: writes logs, pairs devices, answers commands. */

import { type Bytes, concat, fromUtf8, hex, sha256, toBase64, utf8 } from '../../src/engine/bytes';
import type { Letter } from '../../src/engine/frames';
import { type Identity, keysFromText, keysToText, type RawKeys } from '../../src/engine/identity';
import { asStream, freshId, offerOf } from '../../src/engine/ids';
import { type LetterHeader, letterHash, parseLetterHeader } from '../../src/engine/letter';
import { compareCode } from '../../src/engine/pairing';
import { importContentKey, openLetter, sealLetter } from '../../src/engine/seal';
import { sign } from '../../src/engine/sign';
import type {
  BlobRef,
  Change,
  Command,
  CommandBody,
  Echo,
  Entry,
  HostEvent,
  Live,
  Outcome,
  PairRequest,
  SessionEvent,
} from '../../src/protocol/types';
import type { FakeRelay } from './fake-relay';
import { Sealer, sealBlob } from './flood';
import { identityFromSeed, sealEnvelope } from './peers';

type Log = { key: CryptoKey; raw: Bytes; epoch: number; lives: number; seq: number };

export type Wish = {
  id: string;
  from: string;
  command: Command;
  /** When it is over, by the host's clock. */
  notAfter: number;
  retries?: string | undefined;
};

export class FakeHost {
  readonly identity: Identity;
  readonly relay: FakeRelay;
  readonly entries: Entry[] = [];
  readonly wishes: Wish[] = [];
  readonly devices = new Map<string, RawKeys>();
  /** What becomes of a command; by default it is applied. */
  onWish: (wish: Wish) => Promise<Outcome | null> = async () => ({
    kind: 'applied',
    stream: asStream(this.identity.peer),
    seq: 1,
    made: null,
    delivery: 'done',
  });
  /** The person at the host; by default lets everybody in. */
  onPairing: (code: string, name: string) => Promise<boolean> = async () => true;
  /** Whether probes are answered. */
  answers = true;
  /** What echoes say of sessions. */
  pulses: Echo['sessions'] = {};
  /** Echoes that were sent, for playing them again. */
  readonly echoes: Letter[] = [];
  /** Whether content keys are sent as soon as they exist. */
  sendsKeys = true;
  readonly #logs = new Map<string, Log>();
  #secret: Bytes = new Uint8Array();
  #at = 1_795_000_000_000;
  #letters: Promise<void> = Promise.resolve();
  readonly #seed: Uint8Array;

  private constructor(identity: Identity, relay: FakeRelay, seed: Uint8Array) {
    this.identity = identity;
    this.relay = relay;
    this.#seed = seed;
  }

  static async start(relay: FakeRelay, name = 'desk', seed = 1): Promise<FakeHost> {
    const secret = new Uint8Array(64).fill(seed);
    const host = new FakeHost(await identityFromSeed(secret), relay, secret);
    relay.host = host.identity.peer;
    relay.toHost = (letter) => {
      host.#letters = host.#letters.then(() => host.#letter(letter));
    };
    await host.#extend({ type: 'founded', keys: keysToText(host.identity.public), name });
    await host.tell({ type: 'host_started', name, version: '0.1.0' });
    return host;
  }

  get now(): number {
    this.#at += 1_000;
    return this.#at;
  }

  set now(at: number) {
    this.#at = at;
  }

  /** Everything that came so far has been dealt with. */
  async idle(): Promise<void> {
    await this.#letters;
  }

  /** A fresh pairing link. */
  async link(base = `http://${this.relay.authority}`): Promise<string> {
    this.#secret = crypto.getRandomValues(new Uint8Array(32));
    const { signing, sealing } = this.identity.public;
    const content = concat(Uint8Array.of(1), signing, sealing, this.#secret);
    const check = (await sha256(content)).subarray(0, 4);
    return `${base}/#pair=${toBase64(concat(content, check))}`;
  }

  /** Writes host events to the host's own log. */
  async tell(...events: HostEvent[]): Promise<void> {
    await this.#append(asStream(this.identity.peer), events, false);
  }

  /** Writes events to a session's log. */
  async say(session: string, events: SessionEvent[], cause?: string): Promise<void> {
    const isSnapshot = events.some(({ type }) => type === 'snapshot');
    await this.#append(asStream(session), events, isSnapshot, cause);
  }

  /** Writes very many events, in envelopes as they are given; followers hear of each. */
  async flood(session: string, groups: Iterable<SessionEvent[]>): Promise<void> {
    const stream = asStream(session);
    const log = await this.#log(stream);
    const sealer = new Sealer(log.raw, this.#seed);
    const { peer } = this.identity;
    let { hash: prev } = this.relay.headOf(stream);
    for (const events of groups) {
      const first = log.seq + 1;
      const records = events.map((event, at) => ({ seq: first + at, at: this.now, event }));
      log.seq += events.length;
      const isSnapshot = events.some(({ type }) => type === 'snapshot');
      const place = { epoch: log.epoch, first, last: log.seq, prev, base: isSnapshot ? first : 0 };
      const header = { suite: 1, lane: 'durable' as const, host: peer, stream, ...place };
      const { envelope, hash } = sealer.seal(header, JSON.stringify(records));
      this.relay.keep(envelope, hash);
      this.relay.fan(stream, envelope);
      prev = hash;
    }
  }

  /** Keeps what is too long for an event, part by part. */
  async keep(session: string, parts: Iterable<string>): Promise<BlobRef[]> {
    const stream = asStream(session);
    const log = await this.#log(stream);
    const blobs: BlobRef[] = [];
    for (const part of parts) {
      const sealed = sealBlob(log.raw, stream, log.epoch, part);
      const name = hex(await sha256(sealed));
      this.relay.blobs.set(name, sealed);
      blobs.push({ name, epoch: log.epoch, bytes: utf8(part).length });
    }
    return blobs;
  }

  /** Begins a session's log anew, under the same key: what an honest host never does. */
  forget(session: string): void {
    const log = this.#logs.get(asStream(session));
    if (log !== undefined) log.seq = 0;
  }

  async live(session: string, ...deltas: Live[]): Promise<void> {
    const stream = asStream(session);
    const log = await this.#log(stream);
    log.lives += 1;
    const head = this.relay.headOf(stream);
    const header = {
      suite: 1,
      lane: 'live' as const,
      host: this.identity.peer,
      stream,
      epoch: log.epoch,
      first: log.seq,
      last: log.lives,
      prev: head.hash,
      base: 0,
    };
    await this.relay.write(await sealEnvelope(this.identity, log.key, header, JSON.stringify(deltas)));
  }

  /** A new epoch begins, as when the daemon restarts. */
  async rekey(session: string): Promise<void> {
    const stream = asStream(session);
    const log = await this.#log(stream);
    const raw = crypto.getRandomValues(new Uint8Array(32));
    const key = await importContentKey(raw, ['encrypt']);
    this.#logs.set(stream, { ...log, raw, key, epoch: log.epoch + 1, lives: 0 });
    if (this.sendsKeys) for (const peer of this.devices.keys()) await this.sendKeys(peer, stream);
  }

  async admit(name: string, keys: RawKeys, peer: string): Promise<void> {
    this.devices.set(peer, keys);
    const grant = {
      capabilities: ['view', 'prompt', 'approve', 'terminal', 'files', 'manage'] as const,
      until: null,
    };
    const change = { type: 'admitted' as const, keys: keysToText(keys), name };
    await this.#extend({ ...change, grant: { ...grant, capabilities: [...grant.capabilities] } });
  }

  async revoke(peer: string): Promise<void> {
    await this.#extend({ type: 'revoked', peer });
  }

  async sendKeys(peer: string, stream: string): Promise<void> {
    const log = await this.#log(stream);
    const bundle = { stream, keys: [{ epoch: log.epoch, key: toBase64(log.raw) }] };
    await this.send(peer, 'keys', bundle);
  }

  async send(
    peer: string,
    kind: LetterHeader['kind'],
    body: unknown,
    offer: string | null = null,
    keys = this.devices.get(peer),
  ): Promise<void> {
    if (keys === undefined) return;
    const id = freshId('command', this.now, crypto.getRandomValues(new Uint8Array(10)));
    const header = { suite: 1, kind, from: this.identity.peer, to: peer, id, notAfter: 0, offer };
    const letter = await sealLetter(this.identity, keys.sealing, header, utf8(JSON.stringify(body)));
    this.relay.deliver(letter);
  }

  async #append(
    stream: string,
    events: readonly (HostEvent | SessionEvent)[],
    isSnapshot: boolean,
    cause?: string,
  ): Promise<void> {
    const log = await this.#log(stream);
    const first = log.seq + 1;
    const records = events.map((event, at) => ({
      seq: first + at,
      at: this.now,
      ...(cause === undefined ? {} : { cause }),
      event,
    }));
    log.seq += events.length;
    const header = {
      suite: 1,
      lane: 'durable' as const,
      host: this.identity.peer,
      stream,
      epoch: log.epoch,
      first,
      last: log.seq,
      prev: this.relay.headOf(stream).hash,
      base: isSnapshot ? first : 0,
    };
    await this.relay.write(await sealEnvelope(this.identity, log.key, header, JSON.stringify(records)));
  }

  async #log(stream: string): Promise<Log> {
    const known = this.#logs.get(stream);
    if (known !== undefined) return known;
    const raw = crypto.getRandomValues(new Uint8Array(32));
    const key = await importContentKey(raw, ['encrypt']);
    const log = { key, raw, epoch: 1, lives: 0, seq: 0 };
    this.#logs.set(stream, log);
    if (this.sendsKeys) for (const peer of this.devices.keys()) await this.sendKeys(peer, stream);
    return log;
  }

  async #extend(change: Change): Promise<void> {
    const before = this.entries.at(-1);
    const prev = before === undefined ? '' : hex(await sha256(utf8(before.body)));
    const body = JSON.stringify({ prev, number: this.entries.length + 1, at: this.now, change });
    const signature = toBase64(await sign(this.identity.signing.privateKey, 'roster', utf8(body)));
    const entry = { body, signer: this.identity.peer, signature };
    this.entries.push(entry);
    await this.tell({ type: 'roster_extended', entry: JSON.stringify(entry) });
  }

  async #letter(letter: Letter): Promise<void> {
    const header = parseLetterHeader(letter);
    if (header.kind === 'pair_request') return this.#pair(header, letter);
    if (header.kind === 'probe') return this.#probe(header, letter);
    const opened = JSON.parse(fromUtf8(await openLetter(this.identity, letter))) as CommandBody;
    const { command, retries } = opened;
    const { id, from, notAfter } = header;
    const wish = { id, from, command, notAfter, retries };
    if (wish.command.type === 'send_keys') return this.sendKeys(header.from, wish.command.stream);
    const isRepeated = this.wishes.some(({ id }) => id === wish.id);
    if (!isRepeated) this.wishes.push(wish);
    const outcome = isRepeated ? null : await this.onWish(wish);
    if (outcome !== null) await this.send(header.from, 'receipt', { command: wish.id, outcome });
  }

  async #probe(header: LetterHeader, letter: Letter): Promise<void> {
    const keys = this.devices.get(header.from);
    if (!this.answers || keys === undefined) return;
    const { nonce } = JSON.parse(fromUtf8(await openLetter(this.identity, letter))) as { nonce: string };
    const echo: Echo = {
      nonce,
      now: Date.now(),
      every_millis: 3_000,
      idle_millis: 60_000,
      sessions: this.pulses,
    };
    const id = freshId('command', Date.now(), crypto.getRandomValues(new Uint8Array(10)));
    const route = { from: this.identity.peer, to: header.from, id, notAfter: 0, offer: null };
    const body = utf8(JSON.stringify({ type: 'echo', ...echo }));
    const answer = await sealLetter(this.identity, keys.sealing, { suite: 1, kind: 'probe', ...route }, body);
    this.echoes.push(answer);
    this.relay.deliver(answer);
  }

  async #pair(header: LetterHeader, letter: Letter): Promise<void> {
    const offer = await offerOf(this.#secret);
    const opened = await openLetter(this.identity, letter, { secret: this.#secret, offer });
    const request = JSON.parse(fromUtf8(opened)) as PairRequest;
    const keys = keysFromText(request.keys);
    if (keys === null || header.offer !== offer) return;
    const hash = await letterHash(letter);
    const nonce = crypto.getRandomValues(new Uint8Array(32));
    const challenge = { type: 'challenge', nonce: toBase64(nonce), host: 'desk', request: toBase64(hash) };
    await this.send(header.from, 'pair_answer', challenge, offer, keys);
    const accepted = await this.onPairing(await compareCode(hash, nonce), request.name);
    if (!accepted) {
      await this.send(header.from, 'pair_answer', { type: 'refused', code: 'pairing_refused' }, offer, keys);
      return;
    }
    await this.admit(request.name, keys, header.from);
    await this.send(header.from, 'pair_answer', { type: 'accepted', roster: this.entries }, offer, keys);
    for (const stream of this.#logs.keys()) await this.sendKeys(header.from, stream);
  }
}
