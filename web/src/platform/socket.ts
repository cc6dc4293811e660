/** A connection that carries whole binary messages. */
export interface Socket {
  send(message: Uint8Array<ArrayBuffer>): void;
  close(): void;
}

export interface SocketEvents {
  opened(): void;
  message(message: Uint8Array<ArrayBuffer>): void;
  /** Called once, also when it never opened; says so when a page of the network was in the way. */
  closed(why?: 'portal'): void;
}

export interface Sockets {
  /** `url` has scheme and authority, and nothing more. */
  connect(url: string, events: SocketEvents): Socket;
}

export const webSockets: Sockets = {
  connect(url, events) {
    const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/v1/link`);
    socket.binaryType = 'arraybuffer';
    let done = false;
    const closed = () => {
      if (done) return;
      done = true;
      events.closed();
    };
    socket.onopen = () => events.opened();
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer && !done) events.message(new Uint8Array(data));
    };
    socket.onclose = closed;
    socket.onerror = closed;
    return {
      send: (message) => {
        if (socket.readyState === WebSocket.OPEN) socket.send(message);
      },
      close: () => {
        socket.close();
        closed();
      },
    };
  },
};
