//! A relay that a test plays itself, to do what no honest relay does.

use farhelm_proto::frame::{Challenge, Frame, Hello, Subscribe, Subscribed, Welcome};
use farhelm_proto::sign::VerifyingKey;
use farhelm_proto::{Timestamp, hello};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::soon;

pub struct Acted {
    listener: TcpListener,
    pub ping_millis: u64,
    pub dead_millis: u64,
}

pub struct Connection {
    socket: WebSocketStream<TcpStream>,
    pub hello: Hello,
}

impl Acted {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            listener,
            ping_millis: 20_000,
            dead_millis: 45_000,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// The next connection, before the handshake.
    pub async fn stranger(&self) -> WebSocketStream<TcpStream> {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        soon(tokio_tungstenite::accept_async(stream)).await.unwrap()
    }

    /// The next connection, after the handshake.
    pub async fn accept(&self) -> Connection {
        let mut socket = self.stranger().await;
        let Frame::Hello(hello) = receive(&mut socket).await.unwrap() else {
            panic!("hello comes first")
        };
        let nonce = [7; 32];
        write(
            &mut socket,
            &Frame::Challenge(Challenge {
                version: 1,
                nonce: nonce.into(),
            }),
        )
        .await;
        let Frame::Prove(prove) = receive(&mut socket).await.unwrap() else {
            panic!("a proof comes next")
        };
        let key = VerifyingKey::from_bytes(&hello.key).unwrap();
        hello::check(&key, 1, &nonce, &hello.authority, &prove.proof).unwrap();
        let welcome = Welcome {
            store: [1; 16].into(),
            now: Timestamp(1),
            agent: "acted/0".into(),
            ping_millis: self.ping_millis,
            dead_millis: self.dead_millis,
        };
        write(&mut socket, &Frame::Welcome(welcome)).await;
        Connection { socket, hello }
    }
}

impl Connection {
    pub async fn send(&mut self, frame: &Frame) {
        write(&mut self.socket, frame).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        soon(self.socket.send(message)).await.unwrap();
    }

    /// The next frame; nothing when the peer has gone.
    pub async fn receive(&mut self) -> Option<Frame> {
        receive(&mut self.socket).await
    }

    pub async fn subscribe(&mut self) -> Subscribe {
        loop {
            if let Frame::Subscribe(subscribe) = self.receive().await.unwrap() {
                return subscribe;
            }
        }
    }

    /// Answers a subscription.
    pub async fn subscribed(&mut self, ask: &Subscribe, head: u64, from: u64, base: u64) {
        let (host, stream) = (ask.host, ask.stream);
        self.send(&Frame::Subscribed(Subscribed {
            gap: None,
            host,
            stream,
            head,
            from,
            base,
        }))
        .await;
    }
}

async fn receive(socket: &mut WebSocketStream<TcpStream>) -> Option<Frame> {
    loop {
        match soon(socket.next()).await {
            Some(Ok(Message::Binary(bytes))) => return Some(Frame::parse(&bytes).unwrap()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

pub async fn write(socket: &mut WebSocketStream<TcpStream>, frame: &Frame) {
    soon(socket.send(Message::Binary(frame.to_bytes())))
        .await
        .unwrap();
}
