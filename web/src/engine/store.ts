/**
 * What a device keeps in IndexedDB: its keys, the hosts it is paired with, sealed envelopes as they
 * came, its place in each stream, and its outbox. No plaintext but the outbox's wishes.
 */
import { type DBSchema, type IDBPDatabase, openDB } from 'idb';
import type { Command } from '../protocol/types';
import type { Bytes } from './bytes';
import type { Identity, RawKeys } from './identity';
import type { Head } from './replica';
import type { RosterHead } from './roster';
import type { Stage } from './views';

/** A host that this device is paired with. */
export type HostRow = {
  readonly peer: string;
  readonly keys: RawKeys;
  readonly name: string;
  readonly relay: string;
  /** The newest roster that was verified; an older one is a rollback. */
  readonly roster: RosterHead;
  readonly lastSeen: number;
};

/** The place in one stream. */
export type StreamRow = {
  /** The highest place that was read before a leap to the end, until paging back has met it. */
  readonly left?: Head;
  readonly host: string;
  readonly stream: string;
  /** The end of what was read; also the highest that was ever seen. */
  readonly head: Head;
  /** The first event that is kept, and the hash its envelope names as predecessor. */
  readonly low: { readonly first: number; readonly prev: Bytes };
};

export type EnvelopeRow = {
  readonly host: string;
  readonly stream: string;
  readonly last: number;
  /** The encoded envelope. */
  readonly bytes: Bytes;
};

export type KeyRow = {
  readonly host: string;
  readonly stream: string;
  readonly epoch: number;
  readonly key: CryptoKey;
};

export type WishRow = {
  readonly id: string;
  readonly host: string;
  readonly command: Command;
  readonly at: number;
  readonly notAfter: number;
  /** The encoded letter; sealed again only when the host says what time it has. */
  readonly letter: Bytes;
  /** Whether the letter's end is a time on the host's clock. */
  readonly timed?: boolean;
  readonly stage: Stage;
  /** Whether a person has taken it back. */
  readonly recalled?: boolean;
  /** The wish that this one repeats. */
  readonly retries?: string;
};

/** A pairing under way, so that a reload shows the same code. */
export type PairingRow = {
  readonly relay: string;
  readonly host: RawKeys;
  readonly hostPeer: string;
  readonly offer: string;
  readonly name: string;
  readonly until: number;
  readonly requestHash: Bytes;
  /** The encoded letter. */
  readonly request: Bytes;
  readonly challenge: { readonly nonce: Bytes; readonly hostName: string } | null;
};

interface Schema extends DBSchema {
  self: { key: string; value: Identity | PairingRow };
  hosts: { key: string; value: HostRow };
  streams: { key: [string, string]; value: StreamRow };
  envelopes: { key: [string, string, number]; value: EnvelopeRow };
  keys: { key: [string, string, number]; value: KeyRow };
  outbox: { key: string; value: WishRow };
}

type Migration = (db: IDBPDatabase<Schema>) => void;

/** Append only: a migration's place is the version that it leads to. */
const MIGRATIONS: readonly Migration[] = [
  (db) => {
    db.createObjectStore('self');
    db.createObjectStore('hosts', { keyPath: 'peer' });
    db.createObjectStore('streams', { keyPath: ['host', 'stream'] });
    db.createObjectStore('envelopes', { keyPath: ['host', 'stream', 'last'] });
    db.createObjectStore('keys', { keyPath: ['host', 'stream', 'epoch'] });
    db.createObjectStore('outbox', { keyPath: 'id' });
  },
];

const STRICT = { durability: 'strict' } as const;

export class Store {
  readonly #db: IDBPDatabase<Schema>;

  private constructor(db: IDBPDatabase<Schema>) {
    this.#db = db;
  }

  /** Opens it; `gone` is called when the browser takes it away. */
  static async open(name = 'farhelm', gone: () => void = () => {}): Promise<Store> {
    const db = await openDB<Schema>(name, MIGRATIONS.length, {
      upgrade: (opened, from) => {
        for (const migrate of MIGRATIONS.slice(from)) migrate(opened);
      },
      blocking: (_now, _next, event) => {
        (event.target as IDBDatabase).close();
        gone();
      },
      terminated: gone,
    });
    return new Store(db);
  }

  close(): void {
    this.#db.close();
  }

  async identity(): Promise<Identity | null> {
    return ((await this.#db.get('self', 'identity')) as Identity | undefined) ?? null;
  }

  async putIdentity(identity: Identity): Promise<void> {
    await this.#strictly('self', (store) => store.put(identity, 'identity'));
  }

  async pairing(): Promise<PairingRow | null> {
    return ((await this.#db.get('self', 'pairing')) as PairingRow | undefined) ?? null;
  }

  async putPairing(pairing: PairingRow | null): Promise<void> {
    await this.#strictly('self', (store) =>
      pairing === null ? store.delete('pairing') : store.put(pairing, 'pairing'),
    );
  }

  async hosts(): Promise<HostRow[]> {
    return this.#db.getAll('hosts');
  }

  async putHost(host: HostRow): Promise<void> {
    await this.#strictly('hosts', (store) => store.put(host));
  }

  /** Ends a pairing: the host is known, and nothing is under way. */
  async putPaired(host: HostRow): Promise<void> {
    const tx = this.#db.transaction(['hosts', 'self'], 'readwrite', STRICT);
    await Promise.all([tx.objectStore('hosts').put(host), tx.objectStore('self').delete('pairing'), tx.done]);
  }

  /** Forgets a host and everything that came from it. */
  async forgetHost(host: string): Promise<void> {
    const tx = this.#db.transaction(['hosts', 'streams', 'envelopes', 'keys', 'outbox'], 'readwrite', STRICT);
    await tx.objectStore('hosts').delete(host);
    await tx.objectStore('streams').delete(IDBKeyRange.bound([host], [host, []]));
    await tx.objectStore('envelopes').delete(IDBKeyRange.bound([host], [host, []]));
    await tx.objectStore('keys').delete(IDBKeyRange.bound([host], [host, []]));
    for (const wish of await tx.objectStore('outbox').getAll()) {
      if (wish.host === host) await tx.objectStore('outbox').delete(wish.id);
    }
    await tx.done;
  }

  async stream(host: string, stream: string): Promise<StreamRow | null> {
    return (await this.#db.get('streams', [host, stream])) ?? null;
  }

  /** The envelope that holds the event `seq` and those before it, in rising order, up to one that is enough. */
  async envelopesBack(
    host: string,
    stream: string,
    seq: number,
    isEnough: (bytes: Bytes) => boolean,
  ): Promise<EnvelopeRow[]> {
    const { store } = this.#db.transaction('envelopes');
    const all = IDBKeyRange.bound([host, stream, seq], [host, stream, []]);
    const newest = (await store.getKey(all)) ?? [host, stream, seq];
    const rows: EnvelopeRow[] = [];
    let cursor = await store.openCursor(IDBKeyRange.bound([host, stream], newest), 'prev');
    while (cursor !== null) {
      rows.push(cursor.value);
      if (isEnough(cursor.value.bytes)) break;
      cursor = await cursor.continue();
    }
    return rows.reverse();
  }

  /** The envelopes that hold the events from `first` on, up to the one that holds `last`. */
  async envelopesOn(host: string, stream: string, first: number, last: number): Promise<EnvelopeRow[]> {
    const range = IDBKeyRange.bound([host, stream, first], [host, stream, []]);
    const rows: EnvelopeRow[] = [];
    let cursor = await this.#db.transaction('envelopes').store.openCursor(range);
    while (cursor !== null) {
      rows.push(cursor.value);
      if (cursor.value.last >= last) break;
      cursor = await cursor.continue();
    }
    return rows;
  }

  /** The oldest of the newest `limit` envelopes; nothing when there are not many more. */
  async oldestKept(host: string, stream: string, limit: number): Promise<EnvelopeRow | null> {
    const { store } = this.#db.transaction('envelopes');
    const range = IDBKeyRange.bound([host, stream], [host, stream, []]);
    const count = await store.count(range);
    if (count <= limit + limit / 4) return null;
    const cursor = await store.openCursor(range);
    return (await cursor?.advance(count - limit))?.value ?? null;
  }

  /** Makes envelopes and the place that they lead to durable together. */
  async putEnvelopes(row: StreamRow, envelopes: readonly EnvelopeRow[]): Promise<void> {
    const tx = this.#db.transaction(['streams', 'envelopes'], 'readwrite');
    const puts = envelopes.map((envelope) => tx.objectStore('envelopes').put(envelope));
    await Promise.all([tx.objectStore('streams').put(row), ...puts, tx.done]);
  }

  /** Drops envelopes that end before `first` and takes note that the stream begins there. */
  async trim(row: StreamRow): Promise<void> {
    const { host, stream, low } = row;
    const tx = this.#db.transaction(['streams', 'envelopes'], 'readwrite');
    const range = IDBKeyRange.bound([host, stream], [host, stream, low.first], false, true);
    await Promise.all([
      tx.objectStore('streams').put(row),
      tx.objectStore('envelopes').delete(range),
      tx.done,
    ]);
  }

  async keys(host: string, stream: string): Promise<Map<number, CryptoKey>> {
    const rows = await this.#db.getAll('keys', IDBKeyRange.bound([host, stream], [host, stream, []]));
    return new Map(rows.map(({ epoch, key }) => [epoch, key]));
  }

  /** Keeps content keys; the first one of an epoch counts. */
  async putKeys(rows: readonly KeyRow[]): Promise<void> {
    const tx = this.#db.transaction('keys', 'readwrite', STRICT);
    const put = async (row: KeyRow) => {
      const known = await tx.store.getKey([row.host, row.stream, row.epoch]);
      if (known === undefined) await tx.store.put(row);
    };
    await Promise.all([...rows.map(put), tx.done]);
  }

  async wishes(): Promise<WishRow[]> {
    return this.#db.getAll('outbox');
  }

  async putWish(wish: WishRow): Promise<void> {
    await this.#strictly('outbox', (store) => store.put(wish));
  }

  async dropWish(id: string): Promise<void> {
    await this.#db.delete('outbox', id);
  }

  async #strictly<N extends 'self' | 'hosts' | 'outbox'>(
    name: N,
    write: (store: StrictStore<N>) => Promise<unknown>,
  ): Promise<void> {
    const tx = this.#db.transaction(name, 'readwrite', STRICT);
    await Promise.all([write(tx.store as unknown as StrictStore<N>), tx.done]);
  }
}

/** Whether something was not written because there is no room for it. */
export function isFull(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'QuotaExceededError';
}

interface StrictStore<N extends 'self' | 'hosts' | 'outbox'> {
  put(value: Schema[N]['value'], key?: string): Promise<unknown>;
  delete(key: string): Promise<unknown>;
}
