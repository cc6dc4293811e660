//! A typed peer over a real socket, and a relay to talk to.

use std::time::Duration;

use bytes::Bytes;
use farhelm_proto::envelope::{Envelope, Header, Lane, NO_HASH, SUITE};
use farhelm_proto::frame::{
    Bye, Frame, Hello, Members, Problem, Prove, Role, Subscribe, Subscribed, Welcome,
};
use farhelm_proto::letter::{self, Kind, Letter};
use farhelm_proto::sign::SigningKey;
use farhelm_proto::{Code, CommandId, OfferId, PeerId, StreamId, Timestamp, hello};
use farhelm_relay::{Config, Relay};
use futures_util::{Sink as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Nothing that a test waits for takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn start() -> Relay {
    Relay::start(Config::in_memory()).unwrap()
}

/// The same test on both stores.
pub(crate) fn relays() -> Vec<(Relay, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = Relay::start(Config::in_folder(folder.path())).unwrap();
    vec![(start(), None), (on_disk, Some(folder))]
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

pub(crate) fn authority(relay: &Relay) -> String {
    format!("localhost:{}", relay.local_addr().port())
}

/// An authenticated peer.
pub(crate) struct Peer<S = TcpStream> {
    pub(crate) key: SigningKey,
    pub(crate) id: PeerId,
    pub(crate) welcome: Welcome,
    pub(crate) socket: WebSocketStream<S>,
}

pub(crate) async fn host(relay: &Relay, seed: u8) -> Peer {
    connect(relay, seed, Role::Host, 0).await.unwrap()
}

pub(crate) async fn device(relay: &Relay, seed: u8) -> Peer {
    connect(relay, seed, Role::Device, 0).await.unwrap()
}

/// A host and a device that belongs to it.
pub(crate) async fn pair(relay: &Relay) -> (Peer, Peer) {
    let mut host = host(relay, 1).await;
    let device = device(relay, 2).await;
    host.list(1, &[device.id]).await;
    (host, device)
}

pub(crate) async fn open_socket(relay: &Relay) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(relay.local_addr()).await.unwrap();
    let url = format!("ws://{}/v1/link", authority(relay));
    tokio_tungstenite::client_async(url, stream)
        .await
        .unwrap()
        .0
}

pub(crate) async fn connect(
    relay: &Relay,
    seed: u8,
    role: Role,
    generation: u64,
) -> Result<Peer, Bye> {
    let socket = open_socket(relay).await;
    greet(socket, key(seed), role, generation, &authority(relay)).await
}

/// The handshake, on any open socket.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    key: SigningKey,
    role: Role,
    generation: u64,
    authority: &str,
) -> Result<Peer<S>, Bye> {
    let verifying = key.verifying_key();
    let hello = Hello {
        oldest: 1,
        newest: 1,
        role,
        key: (*verifying.as_bytes()).into(),
        agent: None,
        authority: authority.to_owned(),
        generation: Some(generation),
        dead_millis: None,
    };
    send(&mut socket, &Frame::Hello(hello)).await;
    let challenge = match recv(&mut socket).await.unwrap() {
        Frame::Challenge(challenge) => challenge,
        Frame::Bye(bye) => return Err(bye),
        other => panic!("expected a challenge, got {other:?}"),
    };
    let proof = hello::prove(&key, challenge.version, &challenge.nonce, authority);
    send(
        &mut socket,
        &Frame::Prove(Prove {
            proof: proof.into(),
        }),
    )
    .await;
    match recv(&mut socket).await.unwrap() {
        Frame::Welcome(welcome) => Ok(Peer {
            id: PeerId::of_signer(&key),
            key,
            welcome,
            socket,
        }),
        Frame::Bye(bye) => Err(bye),
        other => panic!("expected a welcome, got {other:?}"),
    }
}

pub(crate) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    frame: &Frame,
) {
    socket
        .send(Message::Binary(frame.to_bytes()))
        .await
        .unwrap();
}

/// The next frame; none when the connection ended.
pub(crate) async fn recv<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Option<Frame> {
    recv_bytes(socket)
        .await
        .map(|bytes| Frame::parse(&bytes).unwrap())
}

pub(crate) async fn recv_bytes<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Option<Bytes> {
    match tokio::time::timeout(SOON, socket.next())
        .await
        .expect("a frame in time")
    {
        Some(Ok(Message::Binary(bytes))) => Some(bytes),
        Some(Ok(Message::Close(_)) | Err(_)) | None => None,
        Some(Ok(other)) => panic!("unexpected {other:?}"),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn send(&mut self, frame: Frame) {
        send(&mut self.socket, &frame).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: Bytes) {
        self.socket.send(Message::Binary(bytes)).await.unwrap();
    }

    /// Queues without flushing.
    pub(crate) async fn feed_raw(&mut self, bytes: Bytes) {
        self.socket.feed(Message::Binary(bytes)).await.unwrap();
    }

    pub(crate) async fn flush(&mut self) {
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut self.socket).poll_flush(cx))
            .await
            .unwrap();
    }

    pub(crate) async fn recv(&mut self) -> Frame {
        recv(&mut self.socket).await.expect("an open connection")
    }

    pub(crate) async fn recv_raw(&mut self) -> Bytes {
        recv_bytes(&mut self.socket)
            .await
            .expect("an open connection")
    }

    /// The next frame that is not presence.
    pub(crate) async fn answer(&mut self) -> Frame {
        loop {
            match self.recv().await {
                Frame::Presence(_) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn problem(&mut self) -> Problem {
        match self.answer().await {
            Frame::Problem(problem) => problem,
            other => panic!("expected a problem, got {other:?}"),
        }
    }

    pub(crate) async fn bye(&mut self) -> Bye {
        loop {
            if let Frame::Bye(bye) = self.recv().await {
                return bye;
            }
        }
    }

    /// Returns once everything sent before has been handled.
    pub(crate) async fn settle(&mut self) {
        self.send(Frame::Ping(4_242)).await;
        assert_eq!(self.answer().await, Frame::Pong(4_242));
    }

    pub(crate) async fn list(&mut self, version: u64, devices: &[PeerId]) {
        self.send(Frame::Members(Members {
            version,
            devices: devices.to_vec(),
        }))
        .await;
        self.settle().await;
    }

    pub(crate) async fn subscribe(
        &mut self,
        host: PeerId,
        stream: StreamId,
        after: Option<u64>,
    ) -> Subscribed {
        self.send(Frame::Subscribe(Subscribe {
            host,
            stream,
            after,
            tail: None,
        }))
        .await;
        match self.answer().await {
            Frame::Subscribed(subscribed) => subscribed,
            other => panic!("expected to be subscribed, got {other:?}"),
        }
    }

    /// The next envelope's bytes and header.
    pub(crate) async fn envelope(&mut self) -> (Bytes, Header) {
        loop {
            let bytes = self.recv_raw().await;
            if let Some((header, _)) = farhelm_proto::frame::envelope_header(&bytes).unwrap() {
                return (bytes, header);
            }
            match Frame::parse(&bytes).unwrap() {
                Frame::Presence(_) => {}
                other => panic!("expected an envelope, got {other:?}"),
            }
        }
    }

    /// Sends durable envelopes and waits until they are stored.
    pub(crate) async fn write(&mut self, log: &mut Log, envelopes: u64) -> Vec<Bytes> {
        let frames: Vec<Bytes> = (0..envelopes).map(|_| log.next(1, 100)).collect();
        for frame in &frames {
            self.feed_raw(frame.clone()).await;
        }
        self.flush().await;
        self.stored(log.stream, log.head).await;
        frames
    }

    pub(crate) async fn stored(&mut self, stream: StreamId, head: u64) {
        loop {
            match self.answer().await {
                Frame::Stored(stored) if stored.stream == stream && stored.head == head => return,
                Frame::Stored(_) => {}
                other => panic!("expected a receipt, got {other:?}"),
            }
        }
    }

    pub(crate) fn letter(
        &self,
        kind: Kind,
        to: PeerId,
        id: u8,
        not_after: Timestamp,
        offer: Option<OfferId>,
    ) -> Bytes {
        let id = CommandId::from_bytes([id; 16]);
        let header = letter::Header {
            suite: SUITE,
            kind,
            from: self.id,
            to,
            id,
            not_after,
            offer,
        };
        Frame::Letter(Letter::sign(
            header.to_bytes(),
            [7; 32],
            vec![9; 64],
            &self.key,
        ))
        .to_bytes()
    }
}

/// Writes the envelopes of one stream.
pub(crate) struct Log {
    pub(crate) key: SigningKey,
    pub(crate) stream: StreamId,
    pub(crate) head: u64,
    pub(crate) base: u64,
    live: u64,
}

impl Log {
    pub(crate) fn new(seed: u8, stream: u8) -> Self {
        Self {
            key: key(seed),
            stream: StreamId::from_bytes([stream; 16]),
            head: 0,
            base: 0,
            live: 0,
        }
    }

    pub(crate) fn next(&mut self, events: u64, body: usize) -> Bytes {
        let first = self.head + 1;
        self.head += events;
        self.frame(Lane::Durable, first, self.head, body)
    }

    pub(crate) fn live(&mut self, body: usize) -> Bytes {
        self.live += 1;
        self.frame(Lane::Live, self.head, self.live, body)
    }

    fn frame(&self, lane: Lane, first: u64, last: u64, body: usize) -> Bytes {
        let host = PeerId::of_signer(&self.key);
        let (stream, base) = (self.stream, self.base);
        let header = Header {
            suite: SUITE,
            lane,
            host,
            stream,
            epoch: 1,
            first,
            last,
            prev: NO_HASH,
            base,
        };
        // Not signed: the relay does not look, and thousands of signatures take long.
        let envelope = Envelope {
            header: header.to_bytes().into(),
            body: vec![u8::try_from(last % 251).unwrap(); body].into(),
            signature: [0; 64].into(),
        };
        Frame::Envelope(envelope).to_bytes()
    }
}

pub(crate) fn not_found(stream: StreamId) -> Problem {
    Problem {
        code: Code::NotFound,
        request: None,
        letter: None,
        stream: Some(stream),
        detail: None,
        frame: None,
    }
}
