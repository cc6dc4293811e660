/**
 * One device's connection to its relay: handshake, liveness, and reconnecting for ever. The twin
 * of `link::driver`. It says "connected" only between the relay's `Welcome` and the first silence
 * that lasts longer than the relay allows.
 */
import type { Clock } from '../platform/clock';
import type { Random } from '../platform/random';
import type { Socket, Sockets } from '../platform/socket';
import { OLDEST_VERSION, VERSION } from '../protocol/constants';
import type { Bytes } from './bytes';
import type { Code } from './codes';
import { type Body, decodeFrame, encodeFrame, type Frame, UnknownFrame } from './frames';
import { prove } from './hello';
import type { Identity } from './identity';
import type { LinkView, Way } from './views';

/** What a link needs from outside. */
export type Surroundings = {
  readonly clock: Clock;
  readonly random: Random;
  readonly sockets: Sockets;
  /** The way by plain HTTP, where there is one. */
  readonly detours?: Sockets;
};

export interface LinkEvents {
  changed(view: LinkView): void;
  /** The relay has let this device in. */
  welcome(welcome: Body<'welcome'>): void;
  /** A frame that is not about the connection itself. */
  frame(frame: Frame): void;
}

type State =
  | { readonly kind: 'idle' }
  | { readonly kind: 'opening'; readonly socket: Socket }
  | { readonly kind: 'proving'; readonly socket: Socket }
  | {
      readonly kind: 'open';
      readonly socket: Socket;
      readonly since: number;
      readonly welcome: Body<'welcome'>;
    }
  | { readonly kind: 'waiting'; readonly until: number; readonly code: Code };

const AGENT = 'farhelm-web/0.1';
/** Longest time from dialling to `Welcome`. */
const HANDSHAKE_MILLIS = 8_000;
/** The silence after which a connection is to count as dead while somebody looks. */
const WATCHED_MILLIS = 4_000;
/** How long nobody may have looked before a connection is exchanged for one of the usual pace. */
const REST_MILLIS = 60_000;
/** A thin line may be busy with one long message; patience grows with each loss, up to here. */
const MOST_PATIENCE_MILLIS = 64_000;
/** Signs of life in a row after which patience is as at first. */
const STEADY_SIGNS = 30;
/** How long the detour is taken at first before a WebSocket is tried again: a relay that has too much to do looks like one that is blocked. */
const SOON_MILLIS = 60_000;
/** And how long at most, where each WebSocket fails. */
const AGAIN_MILLIS = 600_000;
/** How soon an answer must come after a nudge. */
const NUDGE_MILLIS = 3_000;
const FIRST_RETRY_MILLIS = 500;
const LONGEST_RETRY_MILLIS = 30_000;

export class Link {
  readonly #identity: Identity;
  readonly #relay: URL;
  readonly #world: Surroundings;
  readonly #events: LinkEvents;
  #state: State = { kind: 'idle' };
  #tries = 0;
  /** Messages that came. A count and no time: clocks jump. */
  #heard = 0;
  /** How often patience was doubled, and signs of life since then. */
  #strained = 0;
  #signs = 0;
  #way: Way = 'websocket';
  /** Whether the detour is tried first. */
  #prefersDetour = false;
  #detourMillis = SOON_MILLIS;
  #isWatched = true;
  /** Whether the connection was asked to count as dead early. */
  #isQuick = false;
  #pings = 0;
  #stopTick: () => void = () => {};
  #stopRest: () => void = () => {};
  readonly #timers = new Set<() => void>();
  /** Names the connection, so that what an older one still says is not listened to. */
  #era = 0;

  constructor(identity: Identity, relay: string, world: Surroundings, events: LinkEvents) {
    this.#identity = identity;
    this.#relay = new URL(relay);
    this.#world = world;
    this.#events = events;
  }

  start(): void {
    if (this.#state.kind === 'idle') this.#dial();
  }

  stop(): void {
    this.#drop();
    this.#become({ kind: 'idle' });
  }

  /** Tries at once when it waits; asks for a sign of life when it believes to be connected. */
  nudge(): void {
    if (this.#state.kind === 'waiting') this.#dial();
    else if (this.#state.kind === 'open') this.#probe(NUDGE_MILLIS);
  }

  /**
   * Whether somebody looks. A relay gives up what is silent for as long as was agreed at the
   * beginning, so a slower pace needs another connection; a faster one needs only this side.
   */
  watch(isWatched: boolean): void {
    if (this.#isWatched === isWatched) return;
    this.#isWatched = isWatched;
    this.#rest();
    if (this.#state.kind === 'open') this.#tick(this.#state.welcome);
  }

  /** Sends when connected, and says whether it did. */
  send(message: Bytes): boolean {
    if (this.#state.kind !== 'open') return false;
    this.#state.socket.send(message);
    return true;
  }

  view(): LinkView {
    switch (this.#state.kind) {
      case 'idle':
        return { state: 'idle' };
      case 'opening':
      case 'proving':
        return { state: 'connecting', tries: this.#tries };
      case 'open':
        return {
          state: 'connected',
          since: this.#state.since,
          relay: this.#relay.host,
          way: this.#way,
        };
      case 'waiting':
        return { state: 'waiting', until: this.#state.until, code: this.#state.code, tries: this.#tries };
    }
  }

  #dial(way: Way = this.#prefersDetour ? 'http' : 'websocket'): void {
    this.#drop();
    const era = this.#era;
    const { sockets, detours } = this.#world;
    const by = (way === 'http' ? detours : undefined) ?? sockets;
    this.#way = by === sockets ? 'websocket' : 'http';
    const socket = by.connect(this.#relay.origin, {
      opened: () => this.#during(era, () => this.#hello()),
      message: (message) => this.#during(era, () => this.#hear(message)),
      closed: (why) =>
        this.#during(era, () => this.#failed(why === 'portal' ? 'captive_portal' : 'relay_unreachable')),
    });
    this.#timer(HANDSHAKE_MILLIS, () => this.#failed('timeout'));
    this.#become({ kind: 'opening', socket });
  }

  /** Nothing came of this way, or it broke: one that never worked is not the only one. */
  #failed(code: Code): void {
    const { detours } = this.#world;
    if (this.#state.kind === 'open' || detours === undefined) this.#lost(code);
    else if (this.#way === 'websocket' && !this.#prefersDetour) this.#dial('http');
    else {
      this.#prefersDetour = false;
      this.#lost(code);
    }
  }

  /** Tries now and then, while the detour is in use, whether a WebSocket gets through. */
  #tryAgain(): void {
    const wait = partly(this.#detourMillis, this.#world.random);
    this.#detourMillis = Math.min(this.#detourMillis * 2, AGAIN_MILLIS);
    this.#timer(wait, () => {
      const era = this.#era;
      const socket = this.#world.sockets.connect(this.#relay.origin, {
        opened: () => {
          socket.close();
          this.#during(era, () => {
            this.#prefersDetour = false;
            this.#dial();
          });
        },
        message: () => {},
        closed: () => this.#during(era, () => this.#tryAgain()),
      });
      this.#timer(HANDSHAKE_MILLIS, () => socket.close());
    });
  }

  #hello(): void {
    if (this.#state.kind !== 'opening') return;
    const { socket } = this.#state;
    this.#become({ kind: 'proving', socket });
    this.#isQuick = this.#isWatched;
    const hello = encodeFrame('hello', {
      oldest: OLDEST_VERSION,
      newest: VERSION,
      role: 'device',
      key: this.#identity.public.signing,
      agent: AGENT,
      authority: this.#relay.host,
      generation: null,
      deadMillis: this.#isQuick ? this.#patience(WATCHED_MILLIS) : null,
    });
    socket.send(hello);
  }

  #hear(message: Bytes): void {
    this.#heard += 1;
    this.#signs += 1;
    if (this.#signs > STEADY_SIGNS) this.#strained = 0;
    let frame: Frame;
    try {
      frame = decodeFrame(message);
    } catch (error) {
      if (error instanceof UnknownFrame) return;
      this.#lost('bad_frame');
      return;
    }
    this.#act(frame);
  }

  #act(frame: Frame): void {
    const state = this.#state;
    if (frame.kind === 'bye') {
      this.#lost(frame.body.code, frame.body.retryMillis ?? undefined);
    } else if (state.kind === 'proving') {
      this.#shake(state.socket, frame);
    } else if (state.kind === 'open') {
      if (frame.kind === 'ping') state.socket.send(encodeFrame('pong', frame.body));
      else if (frame.kind !== 'pong') this.#events.frame(frame);
    }
  }

  #shake(socket: Socket, frame: Frame): void {
    if (frame.kind === 'challenge') {
      const { version, nonce } = frame.body;
      const era = this.#era;
      prove(this.#identity, version, nonce, this.#relay.host).then(
        (proof) => this.#during(era, () => socket.send(encodeFrame('prove', { proof }))),
        () => this.#during(era, () => this.#lost('bad_proof')),
      );
    } else if (frame.kind === 'welcome') {
      this.#tries = 0;
      this.#clearTimers();
      this.#prefersDetour = this.#way === 'http';
      if (this.#prefersDetour) this.#tryAgain();
      else this.#detourMillis = SOON_MILLIS;
      this.#become({ kind: 'open', socket, since: this.#world.clock.now(), welcome: frame.body });
      this.#tick(frame.body);
      this.#rest();
      this.#events.welcome(frame.body);
    }
  }

  #tick(welcome: Body<'welcome'>): void {
    const most = this.#isWatched ? this.#patience(WATCHED_MILLIS) : welcome.deadMillis;
    const dead = Math.min(welcome.deadMillis, most);
    const every = Math.min(welcome.pingMillis, dead / 2);
    this.#stopTick();
    this.#stopTick = this.#timer(every, () => {
      this.#probe(this.#patience(Math.max(dead - every, 1_000)));
      this.#tick(welcome);
    });
  }

  /** Nobody looks: after a while there is less to say, so that a phone may sleep. */
  #rest(): void {
    this.#stopRest();
    if (this.#isWatched || !this.#isQuick || this.#state.kind !== 'open') return;
    this.#stopRest = this.#timer(REST_MILLIS, () => this.#dial());
  }

  /** Asks for a sign of life; without one within `patience` the connection is given up. */
  #probe(patience: number): void {
    if (this.#state.kind !== 'open') return;
    const before = this.#heard;
    this.#pings += 1;
    this.#state.socket.send(encodeFrame('ping', this.#pings));
    this.#timer(patience, () => {
      if (this.#heard > before) return;
      this.#strained += 1;
      this.#signs = 0;
      this.#lost('timeout');
    });
  }

  #patience(millis: number): number {
    return Math.min(millis * 2 ** Math.min(this.#strained, 10), MOST_PATIENCE_MILLIS);
  }

  #lost(code: Code, retryMillis?: number): void {
    this.#drop();
    const wait = retryMillis ?? backoff(this.#tries, this.#world.random);
    this.#tries += 1;
    this.#timer(wait, () => this.#dial());
    this.#become({ kind: 'waiting', until: this.#world.clock.now() + wait, code });
  }

  #drop(): void {
    this.#era += 1;
    this.#clearTimers();
    if ('socket' in this.#state) this.#state.socket.close();
  }

  #become(state: State): void {
    this.#state = state;
    this.#events.changed(this.view());
  }

  #during(era: number, act: () => void): void {
    if (era === this.#era) act();
  }

  #timer(millis: number, then: () => void): () => void {
    const era = this.#era;
    const cancel = this.#world.clock.after(millis, () => {
      this.#timers.delete(cancel);
      this.#during(era, then);
    });
    this.#timers.add(cancel);
    return () => {
      this.#timers.delete(cancel);
      cancel();
    };
  }

  #clearTimers(): void {
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
  }
}

/** Doubling waits, half of each by chance, so that devices do not come back all at once. */
export function backoff(tries: number, random: Random): number {
  return partly(Math.min(LONGEST_RETRY_MILLIS, FIRST_RETRY_MILLIS * 2 ** Math.min(tries, 10)), random);
}

/** A wait of which half is by chance. */
function partly(longest: number, random: Random): number {
  const chance = (random.bytes(1)[0] ?? 0) / 255;
  return Math.round(longest / 2 + (longest / 2) * chance);
}
