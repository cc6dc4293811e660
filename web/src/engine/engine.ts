/**
 * Everything a device does, in one place and in order: frames from the relay and wishes from pages
 * go through one queue, what must last is made durable first, and views are posted afterwards. It
 * knows nothing of workers, tabs or the DOM.
 */
import type { KeyBundle, Receipt } from '../protocol/types';
import { type Bytes, parseJson, sameBytes } from './bytes';
import { Display } from './display';
import { type Body, type Envelope, encodeFrame, type Frame, type Letter } from './frames';
import { Host } from './host';
import { differ } from './host-clock';
import { type Identity, makeIdentity } from './identity';
import { type LetterHeader, parseLetterHeader, verifyLetter } from './letter';
import { Link, type Surroundings } from './link';
import { Outbox } from './outbox';
import { Pairing } from './pair';
import { deadlineOf } from './presence';
import { Pulse } from './pulse';
import { Queue } from './queue';
import { Reading, streamOf } from './reading';
import { openLetter } from './seal';
import { importVerifyingKey } from './sign';
import { type HostRow, isFull, type Store } from './store';
import type { FromEngine, Overview, ToEngine } from './views';

export type Emit = (message: FromEngine) => void;

const EXPIRE_MILLIS = 60_000;
/** Envelopes that are made durable together. */
const MAX_BATCH = 64;

export class Engine {
  readonly #store: Store;
  readonly #world: Surroundings;
  readonly #emit: Emit;
  readonly #identity: Identity;
  readonly #hosts = new Map<string, Host>();
  readonly #outbox: Outbox;
  readonly #pairing: Pairing;
  readonly #pulse: Pulse;
  readonly #reading: Reading;
  readonly #display: Display;
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
  /** What this connection's relay said of hosts, also of those that are not paired yet. */
  readonly #presences = new Map<string, Body<'presence'>>();
  /** What pages say comes first: who taps waits for no flood. */
  readonly #fromPages = new Queue<() => Promise<void>>();
  readonly #incoming = new Queue<() => Promise<void>>();
  readonly #frames = new Queue<Frame>();
  #working = false;
  #stopped = false;

  private constructor(identity: Identity, store: Store, world: Surroundings, emit: Emit) {
    this.#identity = identity;
    this.#store = store;
    this.#world = world;
    this.#emit = emit;
    const send = (message: Bytes) => this.#link?.send(message) ?? false;
    this.#outbox = new Outbox(identity, store, world, {
      changed: () => this.#display.touch(),
      send,
      host: (peer) => this.#hosts.get(peer)?.row ?? null,
      time: (peer) => this.#hosts.get(peer)?.time ?? null,
    });
    this.#pulse = new Pulse(identity, world, send);
    this.#display = new Display(this.#hosts, world.clock, emit, () => this.#overview());
    this.#reading = new Reading(this.#hosts, store, world.clock, {
      isConnected: () => this.#link?.view().state === 'connected',
      send,
      emit,
      enqueue: (work) => this.#enqueue(work),
      askForKeys: (host, stream) => this.#outbox.askForKeys(host, stream),
      opened: (host) => this.#display.opened(host),
      hasRoom: (has) => this.#hasRoom(has),
    });
    this.#pairing = new Pairing(identity, store, world, {
      changed: () => this.#display.touch(),
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
    this.#enqueue(() => this.#serve(from, message), this.#fromPages);
  }

  stop(): void {
    this.#stopped = true;
    this.#display.stop();
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
    this.#display.touch();
  }

  async #loadHost(row: HostRow): Promise<Host> {
    const host = await Host.load(row, this.#store, this.#world.clock, {
      now: () => this.#world.clock.now(),
      changed: (session) => this.#display.touchSession(session),
      delivered: (commands) => {
        for (const [command, delivery] of commands) {
          this.#enqueue(() => this.#outbox.delivered(command, delivery));
        }
      },
      hostChanged: () => this.#display.touch(),
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
    await this.#reading.follow();
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
        this.#display.touch();
      },
      welcome: (welcome) => this.#enqueue(() => this.#welcomed(welcome)),
      frame: (frame) => this.#takeFrame(frame),
    });
    this.#link.watch(this.#isWatched());
    this.#link.start();
  }

  #disconnected(): void {
    if (this.#link?.view().state === 'connected') return;
    this.#presences.clear();
    this.#reading.disconnected();
    this.#pulse.disconnected();
    this.#stopPulse();
    for (const host of this.#hosts.values()) host.disconnected();
  }

  async #welcomed(welcome: Body<'welcome'>): Promise<void> {
    const now = this.#world.clock.now();
    this.#clockOff = differ(welcome.now, now) ? welcome.now - now : null;
    const lost = this.#relayStore !== null && !sameBytes(this.#relayStore, welcome.store);
    this.#relayStore = welcome.store;
    this.#reading.begin();
    this.#pairing.resend();
    this.#outbox.begin(welcome.now);
    await this.#outbox.resend(lost);
    this.#pulse.disconnected();
    for (const host of this.#hosts.values()) host.sight({ type: 'link', up: true });
    await this.#reading.follow();
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
    this.#stopAging = this.#world.clock.after(Math.min(...deadlines) - now, () => this.#display.touch());
  }

  // --- frames

  #takeFrame(frame: Frame): void {
    this.#frames.push(frame);
    this.#enqueue(() => this.#drain());
  }

  /** Envelopes of one stream that came together are made durable together. */
  async #drain(): Promise<void> {
    const frame = this.#frames.take();
    if (frame === undefined) return;
    if (frame.kind !== 'envelope') return this.#act(frame);
    const stream = streamOf(frame.body);
    const run: Envelope[] = [frame.body];
    while (run.length < MAX_BATCH) {
      const next = this.#frames.peek();
      if (next?.kind !== 'envelope' || streamOf(next.body) !== stream) break;
      run.push(next.body);
      this.#frames.take();
    }
    await this.#reading.envelopes(run);
  }

  async #act(frame: Frame): Promise<void> {
    switch (frame.kind) {
      case 'subscribed':
        return this.#reading.subscribed(frame.body);
      case 'page':
        return this.#reading.page(frame.body);
      case 'presence':
        this.#presences.set(frame.body.host, frame.body);
        this.#hosts.get(frame.body.host)?.presence(frame.body.online, frame.body.since);
        return;
      case 'letter':
        return this.#letter(frame.body);
      case 'posted':
        return this.#outbox.posted(frame.body.id);
      case 'blob':
        return this.#reading.blob(frame.body);
      case 'problem':
        return this.#problem(frame.body);
      default:
        // Frames of the handshake are the link's; those between host and relay never come here.
        return;
    }
  }

  #hasRoom(has: boolean): void {
    if (this.#full !== has) return;
    this.#full = !has;
    this.#display.touch();
  }

  async #problem({ code, letter, request, stream }: Body<'problem'>): Promise<void> {
    if (letter !== null) {
      if (this.#pulse.refused(letter, this.#hosts, code === 'host_offline')) return;
      if (this.#pairing.isRequest(letter)) await this.#pairing.problem(code);
      else await this.#outbox.problem(letter, code);
    } else if (request !== null) this.#reading.refused(request, code);
    else if (stream !== null) this.#reading.troubled(stream, code);
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
        return bundle === null ? undefined : this.#reading.keys(header.from, bundle);
      }
      case 'pair_answer':
        return this.#pairing.answer(header, plaintext);
      case 'probe': {
        const host = this.#hosts.get(header.from);
        if (host === undefined || !(await this.#pulse.take(host, plaintext))) return;
        return this.#outbox.timed(host.row);
      }
      case 'command':
      case 'pair_request':
        return;
    }
  }

  // --- pages

  async #serve(from: string, message: ToEngine): Promise<void> {
    this.#pages.add(from);
    switch (message.type) {
      case 'hello':
        this.#display.hello();
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
        this.#display.close(from, message.session);
        return;
      case 'drawn':
        this.#display.drawn(from, message.session);
        return;
      case 'older': {
        const host = this.#display.hostOf(message.session);
        const log = this.#display.log(message.session);
        if (host === undefined || log === undefined) return;
        if (!(await log.older())) this.#reading.askOlder(host, log.stream.stream);
        return;
      }
      case 'newer':
        return this.#display.log(message.session)?.newer();
      case 'latest':
        return this.#display.log(message.session)?.latest();
      case 'look':
        this.#display.log(message.session)?.shownBy(from, message.following);
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
        return this.#reading.wantBlob(message);
      case 'forget_host':
        await this.#store.forgetHost(message.host);
        this.#outbox.forgetHost(message.host);
        this.#hosts.delete(message.host);
        this.#display.touch();
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
    const log = await host.session(session);
    this.#reading.subscribe(host, log.stream.stream);
    this.#display.open(from, peer, session, log);
  }

  // --- views

  #overview(): Overview {
    this.#age();
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
  #enqueue(work: () => Promise<void>, queue = this.#incoming): void {
    queue.push(work);
    if (!this.#working) this.#work().catch((error: unknown) => this.#break(error));
  }

  async #work(): Promise<void> {
    this.#working = true;
    const next = () => this.#fromPages.take() ?? this.#incoming.take();
    for (let work = next(); work !== undefined; work = next()) {
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
