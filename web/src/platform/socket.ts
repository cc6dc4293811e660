/** A WebSocket that carries whole binary messages. */
export interface Socket {
  send(message: Uint8Array<ArrayBuffer>): void;
  close(): void;
}

export interface SocketEvents {
  opened(): void;
  message(message: Uint8Array<ArrayBuffer>): void;
  /** Called once, also when it never opened. */
  closed(): void;
}

export interface Sockets {
  connect(url: string, events: SocketEvents): Socket;
}

export const webSockets: Sockets = {
  connect(url, events) {
    const socket = new WebSocket(url);
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
