/**
 * What pages are told, and when: which page shows which session, what changed since it was told,
 * and which page has not drawn the last rows yet. A page gets no rows before it has drawn those
 * before them, so that it never has more to draw than what is shown at the moment.
 */
import type { Clock } from '../platform/clock';
import type { Host } from './host';
import type { SessionLog } from './session-log';
import type { FromEngine, Overview } from './views';

/** How long changes are gathered before pages hear of them. */
const GATHER_MILLIS = 25;
/** How long a page may take to draw before the others no longer wait for it. */
const DRAW_MILLIS = 500;

type Shown = {
  readonly host: string;
  readonly pages: Set<string>;
  /** Pages that have not drawn the last rows yet, and since when. */
  readonly drawing: Set<string>;
  since: number;
};

export class Display {
  readonly #hosts: ReadonlyMap<string, Host>;
  readonly #clock: Clock;
  readonly #emit: (message: FromEngine) => void;
  readonly #overview: () => Overview;
  readonly #shown = new Map<string, Shown>();
  readonly #dirty = new Set<string>();
  #dirtyOverview = false;
  #flushing = false;
  #waking = false;
  #stopped = false;

  constructor(
    hosts: ReadonlyMap<string, Host>,
    clock: Clock,
    emit: (message: FromEngine) => void,
    overview: () => Overview,
  ) {
    this.#hosts = hosts;
    this.#clock = clock;
    this.#emit = emit;
    this.#overview = overview;
  }

  stop(): void {
    this.#stopped = true;
  }

  /** A page shows a session from now on. */
  open(page: string, host: string, session: string, log: SessionLog): void {
    const shown = this.#shown.get(session) ?? { host, pages: new Set(), drawing: new Set(), since: 0 };
    shown.pages.add(page);
    this.#shown.set(session, shown);
    log.shownBy(page, true);
    this.#reset(session, log, page);
  }

  close(page: string, session: string): void {
    const shown = this.#shown.get(session);
    this.log(session)?.hiddenBy(page);
    shown?.pages.delete(page);
    shown?.drawing.delete(page);
    if (shown?.pages.size === 0) this.#shown.delete(session);
  }

  /** A page has drawn the rows that it was told. */
  drawn(page: string, session: string): void {
    this.#shown.get(session)?.drawing.delete(page);
    if (this.#dirty.has(session)) this.#schedule();
  }

  /** The sessions of a host that pages show. */
  opened(host: string): string[] {
    return [...this.#shown].flatMap(([session, shown]) => (shown.host === host ? session : []));
  }

  /** A session that a page shows, and its host. */
  log(session: string): SessionLog | undefined {
    return this.hostOf(session)?.sessions.get(session);
  }

  hostOf(session: string): Host | undefined {
    return this.#hosts.get(this.#shown.get(session)?.host ?? '');
  }

  /** The overview changed. */
  touch(): void {
    this.#dirtyOverview = true;
    this.#schedule();
  }

  /** Rows of a session, or what is known of it, changed. */
  touchSession(session: string): void {
    this.#dirty.add(session);
    this.#schedule();
  }

  /** Tells everything at once, for a page that has just come. */
  hello(): void {
    this.#emit({ type: 'overview', overview: this.#overview() });
  }

  #schedule(): void {
    if (this.#flushing || this.#stopped) return;
    this.#flushing = true;
    this.#clock.after(GATHER_MILLIS, () => this.#flush());
  }

  #flush(): void {
    this.#flushing = false;
    if (this.#stopped) return;
    for (const session of [...this.#dirty]) this.#post(session);
    if (this.#dirtyOverview) {
      this.#dirtyOverview = false;
      this.hello();
    }
    this.#wake();
  }

  /** Who is still drawing says so when it has; a page that sleeps does not. */
  #wake(): void {
    if (this.#dirty.size === 0 || this.#waking) return;
    this.#waking = true;
    this.#clock.after(DRAW_MILLIS, () => {
      this.#waking = false;
      this.#schedule();
    });
  }

  #post(session: string): void {
    const shown = this.#shown.get(session);
    const log = this.log(session);
    if (shown === undefined || log === undefined) {
      this.#dirty.delete(session);
      return;
    }
    const waited = this.#clock.now() - shown.since;
    if (shown.drawing.size > 0 && waited >= 0 && waited < DRAW_MILLIS) return;
    this.#dirty.delete(session);
    const changed = log.takeChanged();
    if (changed === null) this.#reset(session, log, null);
    else {
      this.#draws(shown, shown.pages);
      this.#emit({ type: 'rows_changed', session, changed, state: log.state() });
    }
  }

  #reset(session: string, log: SessionLog, to: string | null): void {
    const shown = this.#shown.get(session);
    if (shown !== undefined) this.#draws(shown, to === null ? shown.pages : [to]);
    this.#emit({ type: 'rows_reset', session, rows: [...log.rows], state: log.state(), to });
  }

  #draws(shown: Shown, pages: Iterable<string>): void {
    for (const page of pages) shown.drawing.add(page);
    shown.since = this.#clock.now();
  }
}
