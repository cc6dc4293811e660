/**
 * The clock of a host, as it said itself what time it has; the twin of `link::clock::HostClock`.
 * The end of a wish's time is for the host to judge, on its own clock. A device whose clock shows
 * another time would send wishes that are over when they arrive, or far too late.
 */
import type { Clock } from '../platform/clock';

/** Clocks of machines are apart by less, as a rule. */
const APART_MILLIS = 60_000;

/** Whether two clocks are so far apart that it matters. */
export function differ(one: number, other: number): boolean {
  return Math.abs(one - other) > APART_MILLIS;
}

export class HostClock {
  /** What the host said, and when that was on a clock that nobody sets. */
  #said: { readonly time: number; readonly at: number } | null = null;
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The host says, at this moment, that it has `time`. */
  says(time: number): void {
    this.#said = { time, at: this.#clock.steady() };
  }

  /**
   * What it shows at this moment; nothing while the host has said nothing. While a machine sleeps
   * it is taken to stand still: what the host says next puts that right.
   */
  now(): number | null {
    return this.#said === null ? null : this.#said.time + (this.#clock.steady() - this.#said.at);
  }

  /**
   * A time on the own clock as the host's will show it then. Clocks that are less than a minute
   * apart are taken for equal, and zero means never.
   */
  translate(time: number): number {
    const host = this.now();
    const own = this.#clock.now();
    if (time === 0 || host === null || !differ(host, own)) return time;
    return Math.max(1, Math.round(time + host - own));
  }
}
