/** An engine on a bench: a fake relay and host around it, and what it said. */
import 'fake-indexeddb/auto';
import { Engine } from '../../src/engine/engine';
import { freshId } from '../../src/engine/ids';
import type { Row } from '../../src/engine/rows';
import { Store } from '../../src/engine/store';
import type { ConversationState, FromEngine, HostView, Overview, WishView } from '../../src/engine/views';
import { systemClock } from '../../src/platform/clock';
import { systemRandom } from '../../src/platform/random';
import type { Command } from '../../src/protocol/types';
import { FakeHost } from './fake-host';
import { FakeRelay } from './fake-relay';

let databases = 0;

function freshDatabase(): string {
  databases += 1;
  return `test-${databases}`;
}

export class Bench {
  readonly relay: FakeRelay;
  readonly host: FakeHost;
  engine!: Engine;
  overview: Overview | null = null;
  rows = new Map<string, Row[]>();
  states = new Map<string, ConversationState>();
  said: FromEngine[] = [];
  /** How far this device's clock is ahead of everybody else's. */
  skew = 0;
  /** Whether pages say that they have drawn what they were told. */
  draws = true;
  #store!: Store;
  readonly #database = freshDatabase();

  private constructor(relay: FakeRelay, host: FakeHost) {
    this.relay = relay;
    this.host = host;
  }

  static async start(skew = 0): Promise<Bench> {
    const relay = new FakeRelay();
    const bench = new Bench(relay, await FakeHost.start(relay));
    bench.skew = skew;
    await bench.boot();
    return bench;
  }

  /** A bench whose engine is paired and has read the host's log. */
  static async paired(skew = 0): Promise<Bench> {
    const bench = await Bench.start(skew);
    bench.engine.handle('page', { type: 'pair', link: await bench.host.link(), name: 'phone' });
    await bench.until(() => bench.hostView?.sync.state === 'current' && bench.hostView.devices.length === 2);
    return bench;
  }

  /** Starts the engine on what the store holds, as after a reload. */
  async boot(): Promise<void> {
    this.overview = null;
    this.rows.clear();
    this.#store = await Store.open(this.#database);
    const clock = { ...systemClock, now: () => Date.now() + this.skew };
    const world = { clock, random: systemRandom, sockets: this.relay.sockets };
    this.engine = await Engine.start(this.#store, world, (message) => this.#hear(message));
  }

  stop(): void {
    this.engine.stop();
  }

  get hostView(): HostView | undefined {
    return this.overview?.hosts[0];
  }

  open(session: string): void {
    this.engine.handle('page', { type: 'open', host: this.host.identity.peer, session });
  }

  wish(command: Command): string {
    const id = freshId('command', Date.now(), systemRandom.bytes(10));
    this.engine.handle('page', { type: 'wish', id, host: this.host.identity.peer, command });
    return id;
  }

  stage(id: string): WishView['stage'] | undefined {
    return this.overview?.wishes.find((wish) => wish.id === id)?.stage;
  }

  async until(holds: () => boolean, millis = 5_000): Promise<void> {
    const end = Date.now() + millis;
    while (!holds()) {
      if (Date.now() > end) throw new Error(`waited in vain for ${holds}: ${JSON.stringify(this.overview)}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  #hear(message: FromEngine): void {
    // What a page gets has been through a structured clone.
    const heard = structuredClone(message);
    this.said.push(heard);
    if (heard.type === 'overview') this.overview = heard.overview;
    if (heard.type === 'rows_reset') {
      this.rows.set(heard.session, [...heard.rows]);
      this.states.set(heard.session, heard.state);
    }
    if (heard.type === 'rows_changed') {
      const rows = this.rows.get(heard.session) ?? [];
      for (const [at, row] of heard.changed) rows[at] = row;
      this.rows.set(heard.session, rows);
      this.states.set(heard.session, heard.state);
    }
    if (this.draws && (heard.type === 'rows_reset' || heard.type === 'rows_changed'))
      this.engine.handle('page', { type: 'drawn', session: heard.session });
    if (heard.type === 'broken') throw new Error(heard.detail);
  }
}

export const SESSION = 'ses_01990000000070008000000000000001';
