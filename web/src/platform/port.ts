/** A two-way road for messages: a page and its worker, or the tabs of one browser. */
export interface Port {
  post(message: unknown): void;
  listen(heard: (message: unknown) => void): void;
}

/** Who of several tabs leads; the lock is free again when its holder is gone. */
export interface Locks {
  /** Calls `lead` once the lock is held; `lost` when somebody took it away. */
  acquire(name: string, steal: boolean, lead: () => void, lost: () => void): void;
}

export function channel(name: string): Port {
  const broadcast = new BroadcastChannel(name);
  return {
    post: (message) => broadcast.postMessage(message),
    listen: (heard) => {
      broadcast.onmessage = ({ data }) => heard(data);
    },
  };
}

export const webLocks: Locks = {
  acquire(name, steal, lead, lost) {
    const held = () =>
      new Promise<void>(() => {
        lead();
      });
    navigator.locks.request(name, { steal }, held).catch(lost);
  },
};
