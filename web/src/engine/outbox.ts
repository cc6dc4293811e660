/**
 * A device's wishes on their way: kept here, at the relay, at the host, applied or refused. A wish
 * is durable before it is said to be kept, is sent until the relay has it, and its stage only ever
 * moves forward.
 */
import type { Clock } from '../platform/clock';
import type { Random } from '../platform/random';
import { SUITE } from '../protocol/constants';
import type { Command, Outcome } from '../protocol/types';
import { utf8 } from './bytes';
import { type Code, codeFromWord, mayRetry } from './codes';
import { decodeLetter, encodeFrame, encodeLetter, type Letter } from './frames';
import type { Identity } from './identity';
import { freshId } from './ids';
import { sealLetter } from './seal';
import type { HostRow, Store, WishRow } from './store';
import type { Stage, WishView } from './views';

const HOUR_MILLIS = 60 * 60 * 1000;
const DAY_MILLIS = 24 * HOUR_MILLIS;
/** How long a wish whose time is over is still believed to be on its way. */
const GRACE_MILLIS = 60_000;
/** How long a settled wish is kept for showing. */
const SETTLED_MILLIS = HOUR_MILLIS;
const RETRY_MILLIS = 5_000;

const RANKS: Record<Stage['kind'], number> = { kept: 0, posted: 1, received: 2, applied: 3, refused: 3 };

export interface OutboxEvents {
  changed(): void;
  /** Sends a frame when connected. */
  send(message: Uint8Array<ArrayBuffer>): boolean;
}

export class Outbox {
  readonly #identity: Identity;
  readonly #store: Store;
  readonly #world: { readonly clock: Clock; readonly random: Random };
  readonly #events: OutboxEvents;
  readonly #wishes = new Map<string, WishRow>();

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
      if (isOld) await this.#store.dropWish(wish.id);
      else this.#wishes.set(wish.id, wish);
    }
  }

  /** Makes a wish durable, then sends it. Saying it twice does no harm. */
  async add(id: string, host: HostRow, command: Command): Promise<void> {
    if (this.#wishes.has(id)) return;
    const at = this.#world.clock.now();
    const notAfter = at + (command.type === 'decide_approval' ? HOUR_MILLIS : DAY_MILLIS);
    const letter = encodeLetter(await this.#seal(id, host, command, notAfter));
    const wish: WishRow = { id, host: host.peer, command, at, notAfter, letter, stage: { kind: 'kept' } };
    await this.#store.putWish(wish);
    this.#wishes.set(id, wish);
    this.#events.changed();
    this.#post(wish);
  }

  /** Asks for a stream's keys: not a person's wish, so neither kept nor shown. */
  async askForKeys(host: HostRow, stream: string): Promise<void> {
    const now = this.#world.clock.now();
    const id = freshId('command', now, this.#world.random.bytes(10));
    const letter = await this.#seal(id, host, { type: 'send_keys', stream }, now + HOUR_MILLIS);
    this.#events.send(encodeFrame('letter', letter));
  }

  /** Sends everything that the relay is not known to have; after a lost store, also what it had. */
  resend(lostStore: boolean): void {
    for (const wish of this.#wishes.values()) {
      if (wish.stage.kind === 'kept' || (lostStore && wish.stage.kind === 'posted')) this.#post(wish);
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
    else await this.#advance(id, { kind: 'refused', code, text: '' });
  }

  /** The host says how far it has come. */
  async receipt(id: string, outcome: Outcome): Promise<void> {
    switch (outcome.kind) {
      case 'received':
        return this.#advance(id, { kind: 'received' });
      case 'applied':
        return this.#advance(id, { kind: 'applied', made: outcome.made });
      case 'refused': {
        const { code, text } = outcome.rejection;
        return this.#advance(id, { kind: 'refused', code: codeFromWord(code), text });
      }
    }
  }

  /** An event names the wish as its cause: it has had its effect. */
  async caused(id: string): Promise<void> {
    if (this.#wishes.get(id)?.stage.kind !== 'applied')
      await this.#advance(id, { kind: 'applied', made: null });
  }

  /** Settles wishes whose time ran out without a word from the host. */
  async expire(): Promise<void> {
    const now = this.#world.clock.now();
    for (const wish of this.#wishes.values()) {
      if (wish.notAfter + GRACE_MILLIS < now) {
        await this.#advance(wish.id, { kind: 'refused', code: 'expired', text: '' });
      }
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
    return wishes.map(({ id, host, command, at, stage }) => ({ id, host, command, at, stage }));
  }

  async #advance(id: string, stage: Stage): Promise<void> {
    const wish = this.#wishes.get(id);
    if (wish === undefined || !moves(wish.stage, stage)) return;
    const moved = { ...wish, stage };
    await this.#store.putWish(moved);
    this.#wishes.set(id, moved);
    this.#events.changed();
  }

  async #seal(id: string, host: HostRow, command: Command, notAfter: number): Promise<Letter> {
    const header = {
      suite: SUITE,
      kind: 'command' as const,
      from: this.#identity.peer,
      to: host.peer,
      id,
      notAfter,
      offer: null,
    };
    return sealLetter(this.#identity, host.keys.sealing, header, utf8(JSON.stringify({ command })));
  }

  #post(wish: WishRow): void {
    if (!isSettled(wish.stage)) this.#events.send(encodeFrame('letter', decodeLetter(wish.letter)));
  }
}

function isSettled(stage: Stage): boolean {
  return stage.kind === 'applied' || stage.kind === 'refused';
}

/** Forward only; the receipt of an applied wish may still add what it made. */
function moves(from: Stage, to: Stage): boolean {
  if (from.kind === 'applied' && to.kind === 'applied') return from.made === null && to.made !== null;
  return RANKS[to.kind] > RANKS[from.kind];
}
