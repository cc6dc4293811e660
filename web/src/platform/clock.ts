/** Time and timers. */
export interface Clock {
  now(): number;
  /** Milliseconds since some moment, on a clock that nobody sets. */
  steady(): number;
  /** Calls `then` once after `millis`; the result takes it back. */
  after(millis: number, then: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  steady: () => performance.now(),
  after: (millis, then) => {
    const timer = setTimeout(then, millis);
    return () => clearTimeout(timer);
  },
};
