/**
 * Several tabs, one engine: the tab that holds the lock leads, and the others pass their wishes to
 * it and hear its views. A leader that does not answer, because its tab was frozen, loses the lock
 * to whoever asked.
 */
import type { Clock } from '../platform/clock';
import type { Locks, Port } from '../platform/port';
import type { FromEngine, ToEngine } from './views';

const LOCK = 'farhelm-engine';
/** How long a leader may take to answer. */
const PATIENCE_MILLIS = 4_000;
const CHECK_MILLIS = 10_000;

/** What the leader runs. */
export interface Leader {
  handle(from: string, message: ToEngine): void;
  stop(): void;
}

type Passed =
  | { readonly kind: 'to_leader'; readonly from: string; readonly message: ToEngine }
  | { readonly kind: 'to_pages'; readonly message: FromEngine }
  | { readonly kind: 'alive?' }
  | { readonly kind: 'alive' };

export type TabsWorld = {
  readonly clock: Clock;
  readonly locks: Locks;
  readonly page: Port;
  readonly others: Port;
};

export class Tabs {
  readonly #me: string;
  readonly #world: TabsWorld;
  readonly #lead: (emit: (message: FromEngine) => void) => Promise<Leader>;
  #leader: Leader | null = null;
  #leading = false;
  #answered = true;

  constructor(me: string, world: TabsWorld, lead: (emit: (message: FromEngine) => void) => Promise<Leader>) {
    this.#me = me;
    this.#world = world;
    this.#lead = lead;
  }

  start(): void {
    const { page, others } = this.#world;
    page.listen((message) => this.#fromPage(message as ToEngine));
    others.listen((message) => this.#fromOthers(message as Passed));
    this.#acquire(false);
    this.#watch();
  }

  #fromPage(message: ToEngine): void {
    if (this.#leading) this.#leader?.handle(this.#me, message);
    else this.#pass({ kind: 'to_leader', from: this.#me, message });
  }

  #fromOthers(passed: Passed): void {
    switch (passed.kind) {
      case 'to_leader':
        this.#leader?.handle(passed.from, passed.message);
        return;
      case 'to_pages':
        this.#answered = true;
        this.#toPage(passed.message);
        return;
      case 'alive?':
        if (this.#leading) this.#pass({ kind: 'alive' });
        return;
      case 'alive':
        this.#answered = true;
    }
  }

  #toPage(message: FromEngine): void {
    const isForOther = message.type === 'rows_reset' && message.to !== null && message.to !== this.#me;
    if (!isForOther) this.#world.page.post(message);
  }

  #acquire(steal: boolean): void {
    this.#world.locks.acquire(
      LOCK,
      steal,
      () => this.#begin(),
      () => this.#end(),
    );
  }

  #begin(): void {
    this.#leading = true;
    const emit = (message: FromEngine) => {
      this.#toPage(message);
      this.#pass({ kind: 'to_pages', message });
    };
    this.#lead(emit).then(
      (leader) => {
        if (!this.#leading) {
          leader.stop();
          return;
        }
        this.#leader = leader;
        emit({ type: 'ready' });
      },
      (error: unknown) => emit({ type: 'broken', code: 'state_unusable', detail: String(error) }),
    );
  }

  /** Another tab took the lead while this one slept. */
  #end(): void {
    this.#leading = false;
    this.#leader?.stop();
    this.#leader = null;
    this.#acquire(false);
  }

  #watch(): void {
    this.#world.clock.after(CHECK_MILLIS, () => {
      if (!this.#leading) this.#challenge();
      this.#watch();
    });
  }

  #challenge(): void {
    this.#answered = false;
    this.#pass({ kind: 'alive?' });
    this.#world.clock.after(PATIENCE_MILLIS, () => {
      if (!this.#leading && !this.#answered) this.#acquire(true);
    });
  }

  #pass(passed: Passed): void {
    this.#world.others.post(passed);
  }
}
