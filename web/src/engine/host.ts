/** A paired host as this device has it: its own log, its verified roster, and its sessions. */

import type { Clock } from '../platform/clock';
import type { Fleet, HostRecord, Presence, Sighting } from '../protocol/types';
import { Failure } from './codes';
import { applyHostEvent, EMPTY_FLEET } from './fleet';
import { HostClock } from './host-clock';
import { asStream } from './ids';
import { NOTHING_KNOWN, sight } from './presence';
import { continues, type Roster, verifyRoster } from './roster';
import { isLaterState } from './session';
import { SessionLog, type SessionLogEvents } from './session-log';
import { importVerifyingKey } from './sign';
import type { HostRow, Store } from './store';
import { Stream } from './stream';
import type { DeviceView, HostView, PresenceView, SyncView } from './views';

/** How often the moment when a host was last heard is written down. */
const SEEN_MILLIS = 60_000;

export class Host {
  row: HostRow;
  readonly key: CryptoKey;
  readonly log: Stream<HostRecord>;
  readonly sessions = new Map<string, SessionLog>();
  /** What time the host has. */
  readonly time: HostClock;
  #fleet: Fleet = EMPTY_FLEET;
  #complete = false;
  /** What was read while the beginning of the open state is still missing. */
  #records: HostRecord[] = [];
  #roster: Roster | null = null;
  /** Why the roster is not believed. */
  #distrust: Failure | null = null;
  #presence: PresenceView;
  #known: Presence = NOTHING_KNOWN;
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #events: SessionLogEvents;

  private constructor(
    row: HostRow,
    key: CryptoKey,
    keys: Map<number, CryptoKey>,
    store: Store,
    clock: Clock,
    events: SessionLogEvents,
  ) {
    this.row = row;
    this.key = key;
    this.#store = store;
    this.#clock = clock;
    this.time = new HostClock(clock);
    this.#events = events;
    this.#presence = { state: 'unknown', lastSeen: row.lastSeen };
    this.log = new Stream<HostRecord>(row.peer, key, asStream(row.peer), keys, store, {
      records: (records) => this.#append(records),
      olderRecords: (records) => this.#prepend(records),
      live: () => {},
      changed: () => events.hostChanged(),
    });
  }

  static async load(row: HostRow, store: Store, clock: Clock, events: SessionLogEvents): Promise<Host> {
    const key = await importVerifyingKey(row.keys.signing);
    const keys = await store.keys(row.peer, asStream(row.peer));
    const host = new Host(row, key, keys, store, clock, events);
    await host.log.load();
    await host.checkRoster();
    return host;
  }

  /** Whether the list of sessions is known in full. */
  get complete(): boolean {
    return this.#complete;
  }

  /** The sessions worth following without being opened: not ended, newest first. */
  recent(limit: number): string[] {
    const open = Object.values(this.#fleet.sessions).filter(({ state }) => state !== 'ended');
    return open
      .sort((a, b) => b.at - a.at)
      .slice(0, limit)
      .map(({ session }) => session);
  }

  /** The session's log; read back from the store when it is asked for the first time. */
  async session(session: string): Promise<SessionLog> {
    const known = this.sessions.get(session);
    if (known !== undefined) return known;
    const stream = asStream(session);
    const keys = await this.#store.keys(this.row.peer, stream);
    const host = { peer: this.row.peer, key: this.key };
    const log = new SessionLog(host, session, stream, keys, this.#store, this.#events);
    this.sessions.set(session, log);
    await log.stream.load();
    return log;
  }

  /** The host's own log or a session's that is being read. */
  streamOf(stream: string): Stream<HostRecord> | SessionLog['stream'] | null {
    if (stream === this.log.stream) return this.log;
    for (const log of this.sessions.values()) if (log.stream.stream === stream) return log.stream;
    return null;
  }

  streams(): (Stream<HostRecord> | SessionLog['stream'])[] {
    return [this.log, ...[...this.sessions.values()].map((log) => log.stream)];
  }

  disconnected(): void {
    if (this.#presence.state === 'online') this.#see(this.#clock.now());
    this.#presence = { state: 'unknown', lastSeen: this.row.lastSeen };
    if (this.#known.link.value !== false) this.sight({ type: 'link', up: false });
    for (const stream of this.streams()) stream.disconnected();
  }

  presence(online: boolean, since: number): void {
    this.sight({ type: 'host', online });
    if (online) {
      this.#presence = { state: 'online', since };
      this.heard();
    } else {
      if (since > this.row.lastSeen) this.#see(since);
      this.#presence = { state: 'offline', lastSeen: this.row.lastSeen };
    }
    this.#events.hostChanged();
  }

  /** What is known of the host, each fact with its time. */
  get known(): Presence {
    return this.#known;
  }

  /** Takes note of something that came to be known. */
  sight(sighting: Sighting): void {
    this.#known = sight(this.#known, this.#clock.now(), sighting);
    this.#events.hostChanged();
  }

  /** A log was read so far. */
  sightRead(stream: string): void {
    const { sync, cursor } = this.streamOf(stream) ?? { sync: null, cursor: null };
    // What waits for a key has arrived, and cannot be counted.
    const isRead = sync?.state === 'current' || sync?.state === 'reading';
    const head = cursor ?? 0;
    this.sight(isRead ? { type: 'read', stream, head } : { type: 'left', stream });
  }

  /** Something signed by the host has just arrived. */
  heard(): void {
    const now = this.#clock.now();
    if (now - this.row.lastSeen > SEEN_MILLIS) this.#see(now);
  }

  /** Verifies the roster that the log gives, and refuses one that is older than was seen. */
  async checkRoster(): Promise<void> {
    if (!this.#complete || this.#fleet.roster.length === 0) return;
    if (this.#roster !== null && this.#roster.head.number === this.#fleet.roster.length) return;
    try {
      const roster = await verifyRoster(this.#fleet.roster, this.row.keys);
      if (!continues(roster, this.row.roster)) {
        const isShorter = roster.head.number < this.row.roster.number;
        throw new Failure(isShorter ? 'rolled_back' : 'tampered');
      }
      this.#roster = roster;
      this.#distrust = null;
      if (roster.head.number > this.row.roster.number) {
        await this.#write({ ...this.row, roster: roster.head });
      }
    } catch (error) {
      this.#distrust = error instanceof Failure ? error : new Failure('tampered');
    }
    if (this.#fleet.name !== '' && this.#fleet.name !== this.row.name) {
      await this.#write({ ...this.row, name: this.#fleet.name });
    }
    this.#events.hostChanged();
  }

  view(me: string): HostView {
    const fleet = this.#fleet;
    const mine = this.#roster?.members.get(me);
    return {
      peer: this.row.peer,
      name: fleet.name === '' ? this.row.name : fleet.name,
      version: fleet.version,
      presence: this.#presence,
      known: this.#known,
      sync: this.#syncView(),
      sessions: Object.values(fleet.sessions).sort((a, b) => b.at - a.at),
      devices: this.#devices(me),
      waiting: Object.entries(fleet.waiting).map(([offer, { name, code }]) => ({ offer, name, code })),
      grant: mine === undefined || mine.revoked ? null : mine.grant,
    };
  }

  #syncView(): SyncView {
    if (this.#distrust !== null) return { state: 'alarm', code: this.#distrust.code };
    const { sync } = this.log;
    return sync.state === 'current' && !this.#complete ? { state: 'reading' } : sync;
  }

  #devices(me: string): DeviceView[] {
    const members = [...(this.#roster?.members ?? [])];
    return members.map(([peer, { name, grant, revoked, since }]) => ({
      peer,
      name,
      role: peer === this.row.peer ? ('host' as const) : ('device' as const),
      self: peer === me,
      revoked,
      since,
      grant,
    }));
  }

  #append(records: readonly HostRecord[]): void {
    if (records.some(({ event }) => isLaterState(event))) this.log.alarm('unsupported_version');
    if (!this.#complete) this.#records.push(...records);
    for (const record of records) this.#apply(record);
    if (this.#complete) this.#records = [];
    this.#events.delivered(
      new Map(records.flatMap(({ cause }) => (cause === undefined ? [] : [[cause, 'done']]))),
    );
    this.#events.hostChanged();
  }

  #prepend(records: readonly HostRecord[]): void {
    this.#records.unshift(...records);
    this.#fleet = EMPTY_FLEET;
    for (const record of this.#records) this.#apply(record);
    if (this.#complete) this.#records = [];
    this.#events.hostChanged();
  }

  #apply(record: HostRecord): void {
    if (record.event.type === 'session_listed') {
      const { session, state, at } = record.event.summary;
      this.#known = sight(this.#known, this.#clock.now(), { type: 'listed', session, state, at });
    }
    if (record.seq === 1 || record.event.type === 'snapshot') this.#complete = true;
    this.#fleet = applyHostEvent(this.#fleet, record.event);
  }

  #see(at: number): void {
    this.row = { ...this.row, lastSeen: at };
    // The moment is for people; the next one is written in a minute anyway.
    this.#store.putHost(this.row).catch(() => {});
  }

  async #write(row: HostRow): Promise<void> {
    await this.#store.putHost(row);
    this.row = row;
  }
}
