/**
 * Everything a device does, in one place and in order: frames from the relay and wishes from pages
 * go through one queue, what must last is made durable first, and views are posted afterwards. It
 * knows nothing of workers, tabs or the DOM.
 */
import type { BlobRef, KeyBundle, Receipt } from '../protocol/types';
import { type Bytes, fromBase64, fromHex, parseJson, sameBytes, sha256 } from './bytes';
import { Failure, mayRetry } from './codes';
import { parseEnvelopeHeader } from './envelope';
import { type Body, type Envelope, encodeFrame, type Frame, type Letter } from './frames';
import { Host } from './host';
import { type Identity, makeIdentity } from './identity';
import { type LetterHeader, parseLetterHeader, verifyLetter } from './letter';
import { Link, type Surroundings } from './link';
import { Outbox } from './outbox';
import { Pairing } from './pair';
import { deadlineOf } from './presence';
import { Pulse } from './pulse';
import { importContentKey, openBlob, openLetter } from './seal';
import type { SessionLog } from './session-log';
import { importVerifyingKey } from './sign';
import { type HostRow, isFull, type Store } from './store';
import type { Need } from './stream';
import type { FromEngine, Overview, ToEngine } from './views';

export type Emit = (message: FromEngine) => void;

/** Sessions of a host that are followed without being opened. */
const FOLLOWED = 20;
/** Events to begin with when a stream is read for the first time. */
const TAIL = 200;
const PAGE_BYTES = 256 * 1024;
/** How long changes are gathered before pages hear of them. */
const GATHER_MILLIS = 25;
const RESUBSCRIBE_MILLIS = 1_000;
const LONGEST_RESUBSCRIBE_MILLIS = 60_000;
const KEYS_AGAIN_MILLIS = 20_000;
const EXPIRE_MILLIS = 60_000;
/** Clocks that differ by more than this make expiries wrong. */
const CLOCK_OFF_MILLIS = 60_000;
/** Envelopes that are made durable together. */
const MAX_BATCH = 64;

type Asked =
  | { readonly kind: 'older'; readonly host: string; readonly stream: string }
  | {
      readonly kind: 'blob';
      readonly request: string;
      readonly host: string;
      readonly stream: string;
      readonly blob: BlobRef;
    };

export class Engine {
  readonly #store: Store;
  readonly #world: Surroundings;
  readonly #emit: Emit;
  readonly #identity: Identity;
  readonly #hosts = new Map<string, Host>();
  readonly #outbox: Outbox;
  readonly #pairing: Pairing;
  readonly #pulse: Pulse;
  /** Pages at which somebody looks; one that never said so counts. */
  readonly #unwatched = new Set<string>();
  readonly #pages = new Set<string>();
  /** Takes back the next time at which hosts are asked, and at which something grows old. */
  #stopPulse: () => void = () => {};
  #stopAging: () => void = () => {};
  #link: Link | null = null;
  #linkRelay: string | null = null;
  #relayStore: Bytes | null = null;
  #clockOff: number | null = null;
  /** Whether what was read could not be written for want of room. */
  #full = false;
  /** Streams that this connection follows. */
  readonly #followed = new Set<string>();
  /** Sessions that pages show: on which host, and which pages. */
  readonly #opened = new Map<string, { readonly host: string; readonly pages: Set<string> }>();
  /** What this connection's relay said of hosts, also of those that are not paired yet. */
  readonly #presences = new Map<string, Body<'presence'>>();
  readonly #asked = new Map<number, Asked>();
  #requests = 0;
  /** When keys of a stream were last asked for. */
  readonly #keysAsked = new Map<string, number>();
  /** Streams that will be subscribed to again in a while. */
  readonly #retrying = new Set<string>();
  /** How often a stream was subscribed to again in vain. */
  readonly #retries = new Map<string, number>();
  readonly #incoming: (() => Promise<void>)[] = [];
  #frames: Frame[] = [];
  #working = false;
  #dirtyOverview = false;
  readonly #dirtySessions = new Set<string>();
  #flushing = false;
  #stopped = false;

  private constructor(identity: Identity, store: Store, world: Surroundings, emit: Emit) {
    this.#identity = identity;
    this.#store = store;
    this.#world = world;
    this.#emit = emit;
    const send = (message: Bytes) => this.#link?.send(message) ?? false;
    this.#outbox = new Outbox(identity, store, world, {
      changed: () => this.#touch(),
      send,
      host: (peer) => this.#hosts.get(peer)?.row ?? null,
    });
    this.#pulse = new Pulse(identity, world, send);
    this.#pairing = new Pairing(identity, store, world, {
      changed: () => this.#touch(),
      send,
      paired: (row) => this.#addHost(row),
    });
  }

  static async start(store: Store, world: Surroundings, emit: Emit): Promise<Engine> {
    let identity = await store.identity();
    if (identity === null) {
      identity = await makeIdentity();
      await store.putIdentity(identity);
    }
    const engine = new Engine(identity, store, world, emit);
    await engine.#load();
    return engine;
  }

  /** Takes what a page says; `from` names the page. */
  handle(from: string, message: ToEngine): void {
    this.#enqueue(() => this.#serve(from, message));
  }

  stop(): void {
    this.#stopped = true;
    this.#stopPulse();
    this.#stopAging();
    this.#link?.stop();
    this.#store.close();
  }

  async #load(): Promise<void> {
    await this.#outbox.load();
    await this.#pairing.load();
    for (const row of await this.#store.hosts()) await this.#loadHost(row);
    this.#dial();
    this.#expire();
    this.#touch();
  }

  async #loadHost(row: HostRow): Promise<Host> {
    const host = await Host.load(row, this.#store, this.#world.clock, {
      now: () => this.#world.clock.now(),
      changed: (session) => this.#touchSession(session),
      delivered: (commands) => {
        for (const [command, delivery] of commands) {
          this.#enqueue(() => this.#outbox.delivered(command, delivery));
        }
      },
      hostChanged: () => this.#touch(),
    });
    this.#hosts.set(row.peer, host);
    const presence = this.#presences.get(row.peer);
    if (this.#link?.view().state === 'connected') host.sight({ type: 'link', up: true });
    if (presence !== undefined) host.presence(presence.online, presence.since);
    return host;
  }

  async #addHost(row: HostRow): Promise<void> {
    const known = this.#hosts.get(row.peer);
    if (known === undefined) await this.#loadHost(row);
    else known.row = row;
    this.#dial();
    await this.#follow();
    await this.#beat();
  }

  /** Connects to the relay that the pairing under way or the hosts are at. */
  #dial(): void {
    const relay = this.#pairing.relay ?? this.#hosts.values().next().value?.row.relay ?? null;
    if (relay === null || relay === this.#linkRelay) return;
    this.#link?.stop();
    this.#linkRelay = relay;
    this.#link = new Link(this.#identity, relay, this.#world, {
      changed: (view) => {
        if (view.state !== 'connected') this.#enqueue(async () => this.#disconnected());
        this.#touch();
      },
      welcome: (welcome) => this.#enqueue(() => this.#welcomed(welcome)),
      frame: (frame) => this.#takeFrame(frame),
    });
    this.#link.watch(this.#isWatched());
    this.#link.start();
  }

  #disconnected(): void {
    if (this.#link?.view().state === 'connected') return;
    this.#followed.clear();
    this.#presences.clear();
    for (const asked of this.#asked.values()) this.#fail(asked);
    this.#asked.clear();
    this.#pulse.disconnected();
    this.#stopPulse();
    for (const host of this.#hosts.values()) host.disconnected();
  }

  async #welcomed(welcome: Body<'welcome'>): Promise<void> {
    const off = welcome.now - this.#world.clock.now();
    this.#clockOff = Math.abs(off) > CLOCK_OFF_MILLIS ? off : null;
    const lost = this.#relayStore !== null && !sameBytes(this.#relayStore, welcome.store);
    this.#relayStore = welcome.store;
    this.#followed.clear();
    this.#keysAsked.clear();
    this.#retries.clear();
    this.#pairing.resend();
    await this.#outbox.resend(lost);
    this.#pulse.disconnected();
    for (const host of this.#hosts.values()) host.sight({ type: 'link', up: true });
    await this.#follow();
    await this.#beat();
  }

  // --- whether hosts are there

  /** Asks every host, and again after a while; more often while somebody looks. */
  async #beat(): Promise<void> {
    this.#stopPulse();
    if (this.#stopped || this.#link?.view().state !== 'connected') return;
    for (const host of this.#hosts.values()) await this.#pulse.ask(host);
    const pause = this.#pulse.pause(this.#isWatched());
    this.#stopPulse = this.#world.clock.after(pause, () => this.#enqueue(() => this.#beat()));
  }

  #isWatched(): boolean {
    return this.#pages.size === 0 || [...this.#pages].some((page) => !this.#unwatched.has(page));
  }

  /** Tells pages again when what is known grows old by itself. */
  #age(): void {
    this.#stopAging();
    const now = this.#world.clock.now();
    const deadlines = [...this.#hosts.values()].flatMap((host) => deadlineOf(host.known, now) ?? []);
    if (deadlines.length === 0) return;
    this.#stopAging = this.#world.clock.after(Math.min(...deadlines) - now, () => this.#touch());
  }

  // --- following streams

  async #follow(): Promise<void> {
    for (const host of this.#hosts.values()) {
      this.#subscribe(host, host.log.stream);
      const opened = [...this.#opened].flatMap(([session, shown]) =>
        shown.host === host.row.peer ? session : [],
      );
      for (const session of new Set([...opened, ...host.recent(FOLLOWED)])) {
        const log = await host.session(session);
        this.#subscribe(host, log.stream.stream);
      }
    }
  }

  #subscribe(host: Host, stream: string): void {
    if (this.#followed.has(stream)) return;
    const after = host.streamOf(stream)?.cursor ?? null;
    const tail = after === null ? TAIL : null;
    const frame = encodeFrame('subscribe', { host: host.row.peer, stream, after, tail });
    if (this.#send(frame)) this.#followed.add(stream);
  }

  #resubscribe(host: Host, stream: string): void {
    this.#send(encodeFrame('unsubscribe', { host: host.row.peer, stream }));
    this.#followed.delete(stream);
    this.#subscribe(host, stream);
  }

  #resubscribeLater(host: Host, stream: string): void {
    if (this.#retrying.has(stream)) return;
    this.#retrying.add(stream);
    const tries = this.#retries.get(stream) ?? 0;
    this.#retries.set(stream, tries + 1);
    const wait = Math.min(RESUBSCRIBE_MILLIS * 2 ** tries, LONGEST_RESUBSCRIBE_MILLIS);
    this.#world.clock.after(wait, () => {
      this.#retrying.delete(stream);
      this.#enqueue(async () => {
        if (this.#followed.has(stream)) this.#resubscribe(host, stream);
      });
    });
  }

  /** Pages backwards until the open state of everything that is followed is known in full. */
  #complete(host: Host): void {
    if (!host.complete && host.log.sync.state === 'current') this.#askOlder(host, host.log.stream);
    for (const log of host.sessions.values()) {
      if (!log.complete && log.stream.sync.state === 'current') this.#askOlder(host, log.stream.stream);
    }
  }

  #askOlder(host: Host, stream: string): void {
    if (this.#link?.view().state !== 'connected') return;
    const ask = host.streamOf(stream)?.askOlder() ?? null;
    if (ask === null) return;
    const request = this.#ask({ kind: 'older', host: host.row.peer, stream });
    const fetch = { request, host: host.row.peer, stream, before: ask.before, maxBytes: PAGE_BYTES };
    this.#send(encodeFrame('fetch', fetch));
  }

  #ask(asked: Asked): number {
    this.#requests += 1;
    this.#asked.set(this.#requests, asked);
    return this.#requests;
  }

  // --- frames

  #takeFrame(frame: Frame): void {
    this.#frames.push(frame);
    this.#enqueue(() => this.#drain());
  }

  /** Envelopes of one stream that came together are made durable together. */
  async #drain(): Promise<void> {
    const frame = this.#frames.shift();
    if (frame === undefined) return;
    if (frame.kind !== 'envelope') return this.#act(frame);
    const stream = streamOf(frame.body);
    const run: Envelope[] = [frame.body];
    while (run.length < MAX_BATCH) {
      const next = this.#frames[0];
      if (next?.kind !== 'envelope' || streamOf(next.body) !== stream) break;
      run.push(next.body);
      this.#frames.shift();
    }
    await this.#envelopes(run);
  }

  async #act(frame: Frame): Promise<void> {
    switch (frame.kind) {
      case 'subscribed':
        return this.#subscribed(frame.body);
      case 'page':
        return this.#page(frame.body);
      case 'presence':
        this.#presences.set(frame.body.host, frame.body);
        this.#hosts.get(frame.body.host)?.presence(frame.body.online, frame.body.since);
        return;
      case 'letter':
        return this.#letter(frame.body);
      case 'posted':
        return this.#outbox.posted(frame.body.id);
      case 'blob':
        return this.#blob(frame.body);
      case 'problem':
        return this.#problem(frame.body);
      default:
        // Frames of the handshake are the link's; those between host and relay never come here.
        return;
    }
  }

  async #envelopes(envelopes: readonly Envelope[]): Promise<void> {
    const [first] = envelopes;
    if (first === undefined) return;
    const host = this.#hosts.get(hostOf(first));
    const stream = host?.streamOf(streamOf(first)) ?? null;
    if (host === undefined || stream === null) return;
    host.heard();
    try {
      const need = await stream.take(envelopes);
      this.#hasRoom(true);
      host.sightRead(stream.stream);
      await this.#after(host, stream.stream, need);
    } catch (error) {
      if (!isFull(error)) throw error;
      await this.#makeRoom(host, stream);
    }
  }

  /** Forgets what can be had again, and tries later: nothing is shown that is not durable. */
  async #makeRoom(host: Host, stream: { readonly stream: string; pause(): void }): Promise<void> {
    this.#hasRoom(false);
    for (const each of this.#hosts.values()) for (const kept of each.streams()) await kept.makeRoom();
    stream.pause();
    this.#resubscribeLater(host, stream.stream);
  }

  #hasRoom(has: boolean): void {
    if (this.#full !== has) return;
    this.#full = !has;
    this.#touch();
  }

  async #subscribed({ host: peer, stream, head, base, gap }: Body<'subscribed'>): Promise<void> {
    const host = this.#hosts.get(peer);
    const need = host?.streamOf(stream)?.subscribed(head, base, gap === true) ?? { kind: 'nothing' };
    if (host === undefined) return;
    host.sightRead(stream);
    await this.#after(host, stream, need);
  }

  async #page({ request, envelopes, more }: Body<'page'>): Promise<void> {
    const asked = this.#asked.get(request);
    this.#asked.delete(request);
    const host = asked === undefined ? undefined : this.#hosts.get(asked.host);
    const stream = asked === undefined ? null : (host?.streamOf(asked.stream) ?? null);
    if (host === undefined || stream === null) return;
    try {
      await this.#after(host, stream.stream, await stream.takeOlder(envelopes, more));
    } catch (error) {
      if (!isFull(error)) throw error;
      await this.#makeRoom(host, stream);
    }
  }

  /** Does what a stream needs, and what follows from what it has read. */
  async #after(host: Host, stream: string, need: Need): Promise<void> {
    if (need.kind === 'resubscribe') this.#resubscribe(host, stream);
    if (need.kind === 'keys') await this.#askKeys(host, stream);
    const sync = host.streamOf(stream)?.sync.state;
    if (sync === 'alarm' || need.kind === 'later') this.#resubscribeLater(host, stream);
    if (sync === 'current') this.#retries.delete(stream);
    if (stream === host.log.stream) {
      await host.checkRoster();
      await this.#follow();
    }
    this.#complete(host);
  }

  async #askKeys(host: Host, stream: string): Promise<void> {
    const now = this.#world.clock.now();
    if (now - (this.#keysAsked.get(stream) ?? Number.NEGATIVE_INFINITY) < KEYS_AGAIN_MILLIS) return;
    this.#keysAsked.set(stream, now);
    await this.#outbox.askForKeys(host.row, stream);
  }

  async #problem({ code, letter, request, stream }: Body<'problem'>): Promise<void> {
    if (letter !== null) {
      if (this.#pulse.refused(letter, this.#hosts, code === 'host_offline')) return;
      if (this.#pairing.isRequest(letter)) await this.#pairing.problem(code);
      else await this.#outbox.problem(letter, code);
    } else if (request !== null) {
      const asked = this.#asked.get(request);
      this.#asked.delete(request);
      if (asked !== undefined) this.#fail(asked, code);
    } else if (stream !== null) {
      for (const host of this.#hosts.values()) {
        if (host.streamOf(stream) === null) continue;
        // A relay that has not heard of a fresh pairing yet does not know this device.
        const fresh = code === 'not_found' && host.log.cursor === null;
        if (code === 'history_limited') host.streamOf(stream)?.limited();
        else if (!fresh && !mayRetry(code)) host.streamOf(stream)?.alarm(code);
        this.#resubscribeLater(host, stream);
      }
    }
  }

  #fail(asked: Asked, code: Failure['code'] = 'relay_unreachable'): void {
    if (asked.kind === 'older') this.#hosts.get(asked.host)?.streamOf(asked.stream)?.olderFailed();
    else this.#emit({ type: 'blob_failed', request: asked.request, code });
  }

  // --- letters

  /** Acts on a letter that its sender signed and sealed for us; in any case it has been taken. */
  async #letter(letter: Letter): Promise<void> {
    let header: LetterHeader;
    try {
      header = parseLetterHeader(letter);
    } catch {
      return;
    }
    const keys = this.#hosts.get(header.from)?.row.keys ?? this.#pairing.hostKeys(header.from);
    if (keys !== null && header.to === this.#identity.peer) {
      const signer = await importVerifyingKey(keys.signing);
      try {
        if (await verifyLetter(letter, signer)) await this.#believe(header, letter);
      } catch (error) {
        // It comes again on the next connection.
        if (isFull(error)) return;
        throw error;
      }
    }
    // Nobody keeps a probe, so nobody is told that it is safe.
    if (header.kind !== 'probe') this.#send(encodeFrame('taken', { from: header.from, id: header.id }));
  }

  async #believe(header: LetterHeader, letter: Letter): Promise<void> {
    const expired = header.notAfter !== 0 && this.#world.clock.now() > header.notAfter;
    if (expired) return;
    let plaintext: Bytes;
    try {
      plaintext = await openLetter(this.#identity, letter);
    } catch {
      return;
    }
    this.#hosts.get(header.from)?.heard();
    switch (header.kind) {
      case 'receipt': {
        const receipt = parseJson<Receipt>(plaintext);
        return receipt === null ? undefined : this.#outbox.receipt(receipt.command, receipt.outcome);
      }
      case 'keys': {
        const bundle = parseJson<KeyBundle>(plaintext);
        return bundle === null ? undefined : this.#keys(header.from, bundle);
      }
      case 'pair_answer':
        return this.#pairing.answer(header, plaintext);
      case 'probe': {
        const host = this.#hosts.get(header.from);
        return host === undefined ? undefined : this.#pulse.take(host, plaintext);
      }
      case 'command':
      case 'pair_request':
        return;
    }
  }

  async #keys(peer: string, bundle: KeyBundle): Promise<void> {
    const rows = await Promise.all(
      bundle.keys.flatMap(({ epoch, key }) => {
        const raw = fromBase64(key);
        const row = async (bytes: Bytes) => ({
          host: peer,
          stream: bundle.stream,
          epoch,
          key: await importContentKey(bytes),
        });
        return raw?.length === 32 ? [row(raw)] : [];
      }),
    );
    await this.#store.putKeys(rows);
    const host = this.#hosts.get(peer);
    if (host === undefined) return;
    for (const { epoch, key } of rows) {
      const stream = host.streamOf(bundle.stream);
      if (stream !== null) await this.#after(host, bundle.stream, await stream.addKey(epoch, key));
    }
  }

  // --- pages

  async #serve(from: string, message: ToEngine): Promise<void> {
    this.#pages.add(from);
    switch (message.type) {
      case 'hello':
        this.#emit({ type: 'overview', overview: this.#overview() });
        return;
      case 'pair':
        await this.#pairing.begin(message.link, message.name);
        this.#dial();
        this.#pairing.resend();
        return;
      case 'forget_pairing':
        return this.#pairing.forget();
      case 'open':
        return this.#open(from, message.host, message.session);
      case 'close':
        this.#close(from, message.session);
        return;
      case 'older': {
        const host = this.#hosts.get(this.#opened.get(message.session)?.host ?? '');
        const log = this.#shown(message.session);
        if (host === undefined || log === undefined) return;
        if (!(await log.older())) this.#askOlder(host, log.stream.stream);
        return;
      }
      case 'newer':
        return this.#shown(message.session)?.newer();
      case 'latest':
        return this.#shown(message.session)?.latest();
      case 'look':
        this.#shown(message.session)?.shownBy(from, message.following);
        return;
      case 'wish': {
        const host = this.#hosts.get(message.host);
        if (host === undefined) return;
        try {
          await this.#outbox.add(message.id, host.row, message.command);
          this.#emit({ type: 'kept', id: message.id });
        } catch (error) {
          if (!isFull(error)) throw error;
          this.#emit({ type: 'not_kept', id: message.id, code: 'storage_full' });
        }
        return;
      }
      case 'dismiss':
        return this.#outbox.dismiss(message.id);
      case 'recall':
        return this.#outbox.recall(message.id);
      case 'retry':
        return this.#outbox.retry(message.id, message.fresh);
      case 'want_blob':
        return this.#wantBlob(message);
      case 'forget_host':
        await this.#store.forgetHost(message.host);
        this.#outbox.forgetHost(message.host);
        this.#hosts.delete(message.host);
        this.#touch();
        return;
      case 'watched': {
        const before = this.#isWatched();
        if (message.watched) this.#unwatched.delete(from);
        else this.#unwatched.add(from);
        this.#link?.watch(this.#isWatched());
        if (this.#isWatched() && !before) await this.#beat();
        return;
      }
      case 'nudge':
        this.#link?.nudge();
        return this.#beat();
    }
  }

  async #open(from: string, peer: string, session: string): Promise<void> {
    const host = this.#hosts.get(peer);
    if (host === undefined) return;
    const shown = this.#opened.get(session) ?? { host: peer, pages: new Set<string>() };
    shown.pages.add(from);
    this.#opened.set(session, shown);
    const log = await host.session(session);
    log.shownBy(from, true);
    this.#subscribe(host, log.stream.stream);
    this.#reset(session, log, from);
  }

  /** A session that a page shows. */
  #shown(session: string): SessionLog | undefined {
    return this.#hosts.get(this.#opened.get(session)?.host ?? '')?.sessions.get(session);
  }

  #close(from: string, session: string): void {
    const shown = this.#opened.get(session);
    this.#shown(session)?.hiddenBy(from);
    shown?.pages.delete(from);
    if (shown?.pages.size === 0) this.#opened.delete(session);
  }

  async #wantBlob(message: Extract<ToEngine, { type: 'want_blob' }>): Promise<void> {
    const { request, host, session, blob } = message;
    const log = this.#hosts.get(host)?.sessions.get(session);
    const name = fromHex(blob.name);
    if (log === undefined || name?.length !== 32) {
      this.#emit({ type: 'blob_failed', request, code: 'not_found' });
      return;
    }
    const asked: Asked = { kind: 'blob', request, host, stream: log.stream.stream, blob };
    const number = this.#ask(asked);
    if (!this.#send(encodeFrame('want_blob', { request: number, host, name }))) {
      this.#asked.delete(number);
      this.#fail(asked);
    }
  }

  async #blob({ request, bytes }: Body<'blob'>): Promise<void> {
    const asked = this.#asked.get(request);
    this.#asked.delete(request);
    if (asked?.kind !== 'blob') return;
    const { stream, blob } = asked;
    const key = this.#hosts.get(asked.host)?.streamOf(stream)?.key(blob.epoch);
    try {
      if (key === undefined) throw new Failure('key_missing');
      if (!sameBytes(await sha256(bytes), fromHex(blob.name) ?? new Uint8Array()))
        throw new Failure('tampered');
      const opened = await openBlob(key, stream, blob.epoch, bytes);
      this.#emit({ type: 'blob', request: asked.request, bytes: opened });
    } catch (error) {
      this.#fail(asked, error instanceof Failure ? error.code : 'internal');
    }
  }

  // --- views

  #overview(): Overview {
    const hosts = [...this.#hosts.values()];
    return {
      me: this.#identity.peer,
      link: this.#link?.view() ?? { state: 'idle' },
      hosts: hosts.map((host) => host.view(this.#identity.peer)),
      pairing: this.#pairing.view,
      wishes: this.#outbox.views(),
      approvals: hosts.flatMap((host) => [...host.sessions.values()].flatMap((log) => log.pending())),
      clockOff: this.#clockOff,
      full: this.#full,
    };
  }

  #touch(): void {
    this.#dirtyOverview = true;
    this.#schedule();
  }

  #touchSession(session: string): void {
    this.#dirtySessions.add(session);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#flushing || this.#stopped) return;
    this.#flushing = true;
    this.#world.clock.after(GATHER_MILLIS, () => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    if (this.#stopped) return;
    for (const session of this.#dirtySessions) this.#post(session);
    this.#dirtySessions.clear();
    if (this.#dirtyOverview) this.#age();
    if (this.#dirtyOverview) {
      this.#dirtyOverview = false;
      this.#emit({ type: 'overview', overview: this.#overview() });
    }
  }

  #post(session: string): void {
    const log = this.#shown(session);
    if (log === undefined) return;
    const changed = log.takeChanged();
    if (changed === null) this.#reset(session, log, null);
    else this.#emit({ type: 'rows_changed', session, changed, state: log.state() });
  }

  #reset(session: string, log: SessionLog, to: string | null): void {
    this.#emit({ type: 'rows_reset', session, rows: [...log.rows], state: log.state(), to });
  }

  #expire(): void {
    this.#world.clock.after(EXPIRE_MILLIS, () => {
      if (this.#stopped) return;
      this.#enqueue(() => this.#outbox.expire());
      this.#enqueue(() => this.#pairing.expire());
      this.#expire();
    });
  }

  // --- order

  #send(message: Bytes): boolean {
    return this.#link?.send(message) ?? false;
  }

  /** One thing after another; a failure stops the engine rather than passing lost data. */
  #enqueue(work: () => Promise<void>): void {
    this.#incoming.push(work);
    if (!this.#working) this.#work().catch((error: unknown) => this.#break(error));
  }

  async #work(): Promise<void> {
    this.#working = true;
    for (let work = this.#incoming.shift(); work !== undefined; work = this.#incoming.shift()) {
      if (!this.#stopped) await work();
    }
    this.#working = false;
  }

  #break(error: unknown): void {
    // What was under way when the database was closed fails, and nobody misses it.
    if (this.#stopped) return;
    const code = error instanceof DOMException ? 'state_unusable' : 'internal';
    this.#emit({ type: 'broken', code, detail: String(error) });
    this.stop();
  }
}

function streamOf(envelope: Envelope): string {
  try {
    return parseEnvelopeHeader(envelope).stream;
  } catch {
    return '';
  }
}

function hostOf(envelope: Envelope): string {
  try {
    return parseEnvelopeHeader(envelope).host;
  } catch {
    return '';
  }
}
