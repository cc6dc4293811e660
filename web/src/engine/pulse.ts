/**
 * Asks hosts whether they are there, and answers them; the twin of `link::device::actor::pulse`.
 * An echo counts for the probe whose nonce it names, once.
 */
import type { Clock } from '../platform/clock';
import type { Random } from '../platform/random';
import { SUITE } from '../protocol/constants';
import type { Echo, ProbeBody } from '../protocol/types';
import { type Bytes, parseJson, toBase64, utf8 } from './bytes';
import { encodeFrame } from './frames';
import type { Host } from './host';
import type { Identity } from './identity';
import { freshId } from './ids';
import { sealLetter } from './seal';

/** How often a host is asked while somebody looks, and while nobody does, unless it wants less. */
const EVERY_MILLIS = 3_000;
const IDLE_MILLIS = 60_000;
/** A host cannot ask for longer pauses than this. */
const AT_MOST_MILLIS = 60_000;
const NONCE = 16;
/** Probes whose echoes are known. */
const ASKED = 16;

type Asked = {
  readonly host: string;
  readonly nonce: string;
  readonly letter: string;
  readonly at: number;
};

export class Pulse {
  readonly #identity: Identity;
  readonly #world: { readonly clock: Clock; readonly random: Random };
  readonly #send: (message: Bytes) => boolean;
  #asked: Asked[] = [];
  #every = EVERY_MILLIS;
  #idle = IDLE_MILLIS;

  constructor(
    identity: Identity,
    world: { readonly clock: Clock; readonly random: Random },
    send: (message: Bytes) => boolean,
  ) {
    this.#identity = identity;
    this.#world = world;
    this.#send = send;
  }

  /** When hosts are to be asked next. */
  pause(watched: boolean): number {
    return watched ? this.#every : this.#idle;
  }

  /** A connection ended: what was asked on it is lost. */
  disconnected(): void {
    this.#asked = [];
  }

  async ask(host: Host): Promise<void> {
    const nonce = toBase64(this.#world.random.bytes(NONCE));
    const letter = await this.#write(host, { type: 'probe', nonce });
    if (letter === null) return;
    const at = this.#world.clock.now();
    this.#asked = [...this.#asked, { host: host.row.peer, nonce, letter, at }].slice(-ASKED);
    host.sight({ type: 'asked' });
  }

  /** The host asks, or answers; whether it answered, and so said what time it has. */
  async take(host: Host, plaintext: Bytes): Promise<boolean> {
    const body = parseJson<ProbeBody>(plaintext);
    if (body?.type === 'probe') {
      const now = this.#world.clock.now();
      const echo = { nonce: body.nonce, now, every_millis: EVERY_MILLIS, idle_millis: IDLE_MILLIS };
      await this.#write(host, { type: 'echo', ...echo, sessions: {} });
    }
    return body?.type === 'echo' && this.#echoed(host, body);
  }

  /** The relay did not pass a letter on; whether it was a probe. */
  refused(letter: string, hosts: ReadonlyMap<string, Host>, isAway: boolean): boolean {
    const asked = this.#asked.find((known) => known.letter === letter);
    if (asked === undefined) return false;
    this.#asked = this.#asked.filter((known) => known !== asked);
    if (isAway) hosts.get(asked.host)?.sight({ type: 'host', online: false });
    return true;
  }

  #echoed(host: Host, echo: Echo): boolean {
    const asked = this.#asked.find(({ nonce, host: of }) => nonce === echo.nonce && of === host.row.peer);
    // One that nothing was asked for is an earlier one, played again.
    if (asked === undefined) return false;
    this.#asked = this.#asked.filter((known) => known !== asked);
    this.#every = clamp(echo.every_millis, EVERY_MILLIS);
    this.#idle = clamp(echo.idle_millis, IDLE_MILLIS);
    host.time.says(echo.now);
    host.sight({ type: 'echoed', host: host.row.peer, asked: asked.at, echo });
    return true;
  }

  /** Sends it at once, or not at all; an answer that comes late proves nothing. */
  async #write(host: Host, body: ProbeBody): Promise<string | null> {
    const { clock, random } = this.#world;
    const id = freshId('command', clock.now(), random.bytes(10));
    const header = {
      suite: SUITE,
      kind: 'probe' as const,
      from: this.#identity.peer,
      to: host.row.peer,
      id,
      notAfter: 0,
      offer: null,
    };
    const letter = await sealLetter(
      this.#identity,
      host.row.keys.sealing,
      header,
      utf8(JSON.stringify(body)),
    );
    return this.#send(encodeFrame('letter', letter)) ? id : null;
  }
}

function clamp(wanted: number, least: number): number {
  return Math.min(AT_MOST_MILLIS, Math.max(least, wanted));
}
