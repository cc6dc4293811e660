/** Time and timers. */
export interface Clock {
  now(): number;
  /** Calls `then` once after `millis`; the result takes it back. */
  after(millis: number, then: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  after: (millis, then) => {
    const timer = setTimeout(then, millis);
    return () => clearTimeout(timer);
  },
};
