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
import type { Identity } from './identity';
import { freshId } from './ids';
import { sealLetter } from './seal';
import { type HostRow, isFull, type Store, type WishRow } from './store';
import type { Stage, WishView } from './views';

const HOUR_MILLIS = 60 * 60 * 1000;
const DAY_MILLIS = 24 * HOUR_MILLIS;
/** How long a settled wish is kept for showing. */
const SETTLED_MILLIS = HOUR_MILLIS;
const RETRY_MILLIS = 5_000;

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
}

export class Outbox {
  readonly #identity: Identity;
  readonly #store: Store;
  readonly #world: { readonly clock: Clock; readonly random: Random };
  readonly #events: OutboxEvents;
  readonly #wishes = new Map<string, WishRow>();
  /** Wishes that have never left this device. */
  readonly #unsent = new Set<string>();

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
    const letter = encodeLetter(await this.#seal(id, host, body, notAfter));
    const kept: WishRow = { id, host: host.peer, command, at, notAfter, letter, stage: { kind: 'kept' } };
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
    await this.#say(host, { type: 'send_keys', stream });
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
    if (mayRetry(code)) this.#world.clock.after(RETRY_MILLIS, () => this.#post(this.#wishes.get(id) ?? wish));
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
    const now = this.#world.clock.now();
    for (const wish of this.#wishes.values()) {
      if (wish.notAfter >= now || RANKS[wish.stage.kind] >= RANKS.expired) continue;
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
    if (host !== null) await this.#say(host, { type: 'recall', command: wish.id });
  }

  /** Says something to a host that is no person's wish. */
  async #say(host: HostRow, command: Command): Promise<void> {
    const now = this.#world.clock.now();
    const id = freshId('command', now, this.#world.random.bytes(10));
    const letter = await this.#seal(id, host, { command }, now + HOUR_MILLIS);
    this.#events.send(encodeFrame('letter', letter));
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
