/**
 * A device's wishes on their way: kept here, at the relay, at the host, with the agent, taken; or
 * refused, taken back, or in the dark. A wish is durable before it is said to be kept, is sent until
 * the relay has it, and its stage only ever moves forward. Nothing here sends a wish a second time
 * under another id but a person.
 */
import type { Clock } from '../platform/clock';
import type { Random } from '../platform/random';
import { SUITE } from '../protocol/constants';
import type { Command, CommandBody, Delivery, Outcome } from '../protocol/types';
import { utf8 } from './bytes';
import { type Code, codeFromWord, mayRetry } from './codes';
import { decodeLetter, encodeFrame, encodeLetter, type Letter } from './frames';
import { differ, type HostClock } from './host-clock';
import type { Identity } from './identity';
import { freshId } from './ids';
import { parseLetterHeader } from './letter';
import { sealLetter } from './seal';
import { type HostRow, isFull, type Store, type WishRow } from './store';
import type { Stage, WishView } from './views';

const HOUR_MILLIS = 60 * 60 * 1000;
const DAY_MILLIS = 24 * HOUR_MILLIS;
/** How long a settled wish is kept for showing. */
const SETTLED_MILLIS = HOUR_MILLIS;
const RETRY_MILLIS = 5_000;
/** How long a wish waits for the host's word on what time it has, when clocks seem to differ. */
const CLOCK_MILLIS = 1_000;
/** How long after its time a wish is believed to be over: clocks differ. */
const GRACE_MILLIS = 2_000;
/** How long the question what became of a wish may wait for the host. */
const RECALL_MILLIS = 7 * DAY_MILLIS;

/** What stage follows which; the last ones end it. */
const RANKS: Record<Stage['kind'], number> = {
  kept: 0,
  posted: 1,
  expired: 2,
  received: 3,
  handed: 4,
  consumed: 5,
  applied: 5,
  refused: 5,
  void: 5,
  indeterminate: 5,
  retried: 6,
};

export interface OutboxEvents {
  changed(): void;
  /** Sends a frame when connected. */
  send(message: Uint8Array<ArrayBuffer>): boolean;
  /** The host that a wish is for, while it is paired. */
  host(peer: string): HostRow | null;
  /** What time the host has; nothing while it has not said so. */
  time(peer: string): HostClock | null;
}

export class Outbox {
  readonly #identity: Identity;
  readonly #store: Store;
  readonly #world: { readonly clock: Clock; readonly random: Random };
  readonly #events: OutboxEvents;
  readonly #wishes = new Map<string, WishRow>();
  /** Wishes that have never left this device. */
  readonly #unsent = new Set<string>();
  /** Hosts that said what time they have, while wishes wait for that; nothing when they do not. */
  #settled: Set<string> | null = null;
  #stopWaiting: () => void = () => {};

  constructor(
    identity: Identity,
    store: Store,
    world: { readonly clock: Clock; readonly random: Random },
    events: OutboxEvents,
  ) {
    this.#identity = identity;
    this.#store = store;
    this.#world = world;
    this.#events = events;
  }

  async load(): Promise<void> {
    const now = this.#world.clock.now();
    for (const wish of await this.#store.wishes()) {
      const isOld = isSettled(wish.stage) && wish.at + SETTLED_MILLIS < now;
      if (isOld && wish.stage.kind !== 'indeterminate') await this.#store.dropWish(wish.id);
      else this.#wishes.set(wish.id, wish);
    }
  }

  /** Makes a wish durable, then sends it. Saying it twice does no harm. */
  async add(id: string, host: HostRow, command: Command, retries: string | null = null): Promise<void> {
    if (this.#wishes.has(id)) return;
    const at = this.#world.clock.now();
    const notAfter = at + (command.type === 'decide_approval' ? HOUR_MILLIS : DAY_MILLIS);
    const body = retries === null ? { command } : { command, retries };
    const sealed = await this.#sealWish(id, host, body, notAfter);
    const kept: WishRow = { id, host: host.peer, command, at, notAfter, ...sealed, stage: { kind: 'kept' } };
    const wish = retries === null ? kept : { ...kept, retries };
    await this.#store.putWish(wish);
    this.#wishes.set(id, wish);
    this.#unsent.add(id);
    this.#events.changed();
    this.#post(wish);
  }

  /** Sends a wish again, as another one, of which nobody knows whether it had its effect. */
  async retry(id: string, fresh: string): Promise<void> {
    const wish = this.#wishes.get(id);
    const host = wish === undefined ? null : this.#events.host(wish.host);
    if (wish === undefined || host === null || wish.stage.kind !== 'indeterminate') return;
    await this.add(fresh, host, wish.command, id);
  }

  /** Takes a wish back: unless it had its effect, it will have none. The host has the last word. */
  async recall(id: string): Promise<void> {
    const wish = this.#wishes.get(id);
    if (wish === undefined || isSettled(wish.stage)) return;
    if (this.#unsent.has(id)) {
      await this.#advance(id, { kind: 'refused', code: 'recalled', text: '' });
      return;
    }
    await this.#put({ ...wish, recalled: true });
    await this.#ask(wish);
  }

  /** Asks for a stream's keys: not a person's wish, so neither kept nor shown. */
  async askForKeys(host: HostRow, stream: string): Promise<void> {
    await this.#say(host, { type: 'send_keys', stream }, HOUR_MILLIS);
  }

  /**
   * A connection begins, on which the relay says that it has `time`. That moves no time, but when it
   * is far from what is shown here, wishes wait a moment for what the host says.
   */
  begin(time: number): void {
    const { clock } = this.#world;
    this.#stopWaiting();
    this.#settled = differ(time, clock.now()) ? new Set() : null;
    this.#stopWaiting = clock.after(CLOCK_MILLIS, () => {
      const waited = this.#settled;
      this.#settled = null;
      if (waited === null) return;
      for (const wish of this.#wishes.values()) {
        if (!waited.has(wish.host) && wish.stage.kind === 'kept') this.#post(wish);
      }
    });
  }

  /** The host has said what time it has: wishes that are still here end by its clock. */
  async timed(host: HostRow): Promise<void> {
    const isAwaited = this.#settled !== null && !this.#settled.has(host.peer);
    this.#settled?.add(host.peer);
    for (const wish of this.#wishes.values()) {
      if (wish.host !== host.peer || wish.stage.kind !== 'kept') continue;
      const { id, command, retries, notAfter } = wish;
      const isRight = wish.timed === true || this.#events.time(host.peer)?.translate(notAfter) === notAfter;
      if (isRight && !isAwaited) continue;
      const body = retries === undefined ? { command } : { command, retries };
      const timed = isRight ? wish : { ...wish, ...(await this.#sealWish(id, host, body, notAfter)) };
      if (!isRight) await this.#put(timed);
      this.#post(timed);
    }
  }

  /** Sends everything that the relay is not known to have; after a lost store, also what it had. */
  async resend(lostStore: boolean): Promise<void> {
    for (const wish of this.#wishes.values()) {
      if (isSettled(wish.stage)) continue;
      if (isDoubted(wish)) await this.#ask(wish);
      else if (wish.stage.kind === 'kept' || lostStore) this.#post(wish);
    }
  }

  async posted(id: string): Promise<void> {
    await this.#advance(id, { kind: 'posted' });
  }

  /** The relay did not take a letter. */
  async problem(id: string, code: Code): Promise<void> {
    const wish = this.#wishes.get(id);
    if (wish === undefined || wish.stage.kind !== 'kept') return;
    // The relay's clock does not say what is over: the host may have another, and is waited for.
    const isInTime = code === 'expired' && !this.#isOver(wish);
    if (mayRetry(code) || isInTime)
      this.#world.clock.after(RETRY_MILLIS, () => this.#post(this.#wishes.get(id) ?? wish));
    else if (code === 'expired') await this.#advance(id, { kind: 'expired' });
    else await this.#advance(id, { kind: 'refused', code, text: '' });
  }

  /** The host says how far it has come. */
  async receipt(id: string, outcome: Outcome): Promise<void> {
    switch (outcome.kind) {
      case 'received':
        return this.#advance(id, { kind: 'received' });
      case 'applied':
        return this.#advance(id, stageOf(outcome.delivery ?? 'done', outcome.made));
      case 'refused': {
        const { code, text } = outcome.rejection;
        return this.#advance(id, { kind: 'refused', code: codeFromWord(code), text });
      }
    }
  }

  /** The log says how far it has come. */
  async delivered(id: string, delivery: Delivery): Promise<void> {
    await this.#advance(id, stageOf(delivery, null));
  }

  /** Doubts wishes whose time ran out without a word from the host, and asks for that word. */
  async expire(): Promise<void> {
    for (const wish of this.#wishes.values()) {
      if (!this.#isOver(wish) || RANKS[wish.stage.kind] >= RANKS.expired) continue;
      await this.#advance(wish.id, { kind: 'expired' });
      await this.#ask(wish);
    }
  }

  async dismiss(id: string): Promise<void> {
    const wish = this.#wishes.get(id);
    if (wish === undefined || !isSettled(wish.stage)) return;
    await this.#store.dropWish(id);
    this.#wishes.delete(id);
    this.#events.changed();
  }

  forgetHost(host: string): void {
    for (const wish of this.#wishes.values()) if (wish.host === host) this.#wishes.delete(wish.id);
  }

  views(): WishView[] {
    const wishes = [...this.#wishes.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    return wishes.map(({ id, host, command, at, stage, recalled }) => ({
      id,
      host,
      command,
      at,
      stage,
      recalled: recalled === true && !isSettled(stage),
    }));
  }

  async #advance(id: string, stage: Stage): Promise<void> {
    const wish = this.#wishes.get(id);
    if (wish === undefined || !moves(wish.stage, stage)) return;
    await this.#put({ ...wish, stage });
    const isTaken = RANKS[stage.kind] >= RANKS.received && stage.kind !== 'refused';
    if (wish.retries !== undefined && isTaken) await this.#advance(wish.retries, { kind: 'retried' });
  }

  async #put(wish: WishRow): Promise<void> {
    try {
      await this.#store.putWish(wish);
    } catch (error) {
      // It will be told again how far it is; only what was wished must not be lost.
      if (!isFull(error)) throw error;
    }
    this.#wishes.set(wish.id, wish);
    this.#events.changed();
  }

  /** Asks the host what became of a wish, and that nothing more does. */
  async #ask(wish: WishRow): Promise<void> {
    const host = this.#events.host(wish.host);
    if (host !== null) await this.#say(host, { type: 'recall', command: wish.id }, RECALL_MILLIS);
  }

  /** Says something to a host that is no person's wish. */
  async #say(host: HostRow, command: Command, millis: number): Promise<void> {
    const now = this.#world.clock.now();
    const id = freshId('command', now, this.#world.random.bytes(10));
    const until = this.#events.time(host.peer)?.translate(now + millis) ?? now + millis;
    this.#events.send(encodeFrame('letter', await this.#seal(id, host, { command }, until)));
  }

  /** The host judges by its own clock, as far as it has said what that shows. */
  async #sealWish(
    id: string,
    host: HostRow,
    body: CommandBody,
    notAfter: number,
  ): Promise<Pick<WishRow, 'letter' | 'timed'>> {
    const time = this.#events.time(host.peer);
    const letter = await this.#seal(id, host, body, time?.translate(notAfter) ?? notAfter);
    return { letter: encodeLetter(letter), timed: time !== null && time.now() !== null };
  }

  /** Whether a wish's time is over: by the host's clock, when that is known and the letter says it. */
  #isOver(wish: WishRow): boolean {
    const host = this.#events.time(wish.host)?.now() ?? null;
    // The one that is here will end by the host's clock, once that is asked.
    const isJudged = wish.timed === true || wish.stage.kind !== 'kept';
    if (host === null || !isJudged) return wish.notAfter + GRACE_MILLIS < this.#world.clock.now();
    return parseLetterHeader(decodeLetter(wish.letter)).notAfter + GRACE_MILLIS < host;
  }

  async #seal(id: string, host: HostRow, body: CommandBody, notAfter: number): Promise<Letter> {
    const header = {
      suite: SUITE,
      kind: 'command' as const,
      from: this.#identity.peer,
      to: host.peer,
      id,
      notAfter,
      offer: null,
    };
    return sealLetter(this.#identity, host.keys.sealing, header, utf8(JSON.stringify(body)));
  }

  #post(wish: WishRow): void {
    if (isSettled(wish.stage) || isDoubted(wish)) return;
    // It goes when the host has said what time it has, or has been waited for.
    if (this.#settled !== null && !this.#settled.has(wish.host)) return;
    if (this.#events.send(encodeFrame('letter', decodeLetter(wish.letter)))) this.#unsent.delete(wish.id);
  }
}

function stageOf(delivery: Delivery, made: string | null): Stage {
  switch (delivery) {
    case 'done':
      return { kind: 'applied', made };
    case 'waiting':
      return { kind: 'received' };
    case 'handed':
    case 'consumed':
    case 'indeterminate':
    case 'void':
    case 'retried':
      return { kind: delivery };
  }
}

function isSettled(stage: Stage): boolean {
  return RANKS[stage.kind] >= RANKS.applied;
}

/** Whether the wish is no longer sent, and the host is asked for its word. */
function isDoubted(wish: WishRow): boolean {
  return wish.recalled === true || wish.stage.kind === 'expired';
}

/** Forward only; the receipt of an applied wish may still add what it made. */
function moves(from: Stage, to: Stage): boolean {
  if (from.kind === 'applied' && to.kind === 'applied') return from.made === null && to.made !== null;
  if (to.kind === 'retried') return from.kind === 'indeterminate';
  return RANKS[to.kind] > RANKS[from.kind];
}
