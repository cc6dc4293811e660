/**
 * The devices that this browser has been. Browsers clear a site's database by themselves or because
 * somebody asked; the keys are gone then, and the device that had them is not this one any more.
 */
import type { Overview } from '../engine/views';
import type { Shelf } from '../platform/shelf';

const NAME = 'selves';
/** Devices that are remembered. */
const MOST = 8;

export class Selves {
  readonly #shelf: Shelf;
  readonly #peers: string[];

  constructor(shelf: Shelf) {
    this.#shelf = shelf;
    this.#peers = (shelf.get(NAME) ?? '').split(' ').filter((peer) => peer.startsWith('peer_'));
  }

  /** Takes note of what this browser is, once it is paired. */
  see({ me, hosts }: Overview): void {
    if (me === null || hosts.length === 0 || this.#peers.includes(me)) return;
    this.#peers.push(me);
    this.#shelf.put(NAME, this.#peers.slice(-MOST).join(' '));
  }

  /** Whether this browser was paired and has lost its keys. */
  haveLost({ me, hosts }: Overview): boolean {
    return hosts.length === 0 && this.#peers.length > 0 && me !== null && !this.#peers.includes(me);
  }

  /** Whether this browser was that device before it lost its keys. */
  was(peer: string, me: string | null): boolean {
    return peer !== me && this.#peers.includes(peer);
  }
}
