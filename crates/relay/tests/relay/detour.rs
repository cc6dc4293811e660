//! The detour by plain HTTP, with raw requests, as a stranger would write it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farhelm_proto::frame::{Frame, Hello, Prove, Role, Subscribe};
use farhelm_proto::letter::{Kind, Letter};
use farhelm_proto::sign::SigningKey;
use farhelm_proto::{Code, PeerId, Timestamp, hello, limits};
use farhelm_relay::{Config, Relay};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::common::{Log, SOON, authority, device, host, key, start};

#[tokio::test]
async fn f14_a_peer_without_websockets_writes_and_reads_by_plain_http() {
    let relay = start();
    let mut writer = host(&relay, 1).await;
    let mut detour = Detour::open(&relay).await;
    let id = detour.greet(&key(2), Role::Device).await;
    writer.list(1, &[id]).await;
    let mut log = Log::new(1, 9);
    for _ in 0..20 {
        writer.write(&mut log, 5_000).await;
    }
    let (host, stream) = (writer.id, log.stream);
    let ask = Subscribe {
        host,
        stream,
        after: Some(0),
        tail: None,
    };
    detour.post_frame(&Frame::Subscribe(ask)).await;
    let mut seen = 0;
    while seen < 20 {
        if matches!(detour.frame().await, Frame::Envelope(_)) {
            seen += 1;
        }
    }
    // Up, too: something as large as a letter may be.
    let header = farhelm_proto::letter::Header {
        suite: 1,
        kind: Kind::Command,
        from: id,
        to: host,
        id: farhelm_proto::CommandId::from_bytes([1; 16]),
        not_after: Timestamp(0),
        offer: None,
    };
    let text = vec![0; limits::LETTER_BODY_BYTES];
    let letter = Letter::sign(header.to_bytes(), [0; 32], text, &key(2));
    let letter = Frame::Letter(letter).to_bytes();
    assert_eq!(detour.post(std::slice::from_ref(&letter)).await, 204);
    while !matches!(detour.frame().await, Frame::Posted(_)) {}
    while writer.recv_raw().await != letter {}
}

#[tokio::test]
async fn f14_requests_that_come_twice_or_too_early_are_acted_on_once_and_in_order() {
    let relay = start();
    let mut detour = Detour::open(&relay).await;
    detour.greet(&key(1), Role::Device).await;
    let pings = |from: u64| {
        [
            Frame::Ping(from).to_bytes(),
            Frame::Ping(from + 1).to_bytes(),
        ]
    };
    let next = detour.number;
    assert_eq!(detour.post_as(next + 1, &pings(30)).await, 409);
    // The answer to the first was lost, and the same comes again, also at the same time.
    let first = detour.request(next, &body(&pings(10)));
    let (one, two) = tokio::join!(
        exchange(&relay, first.clone()),
        exchange(&relay, first.clone())
    );
    assert!([one, two].iter().all(|status| [204, 429].contains(status)));
    assert_eq!(exchange(&relay, first).await, 204);
    assert_eq!(detour.post_as(next + 1, &pings(20)).await, 204);
    for expected in [10, 11, 20, 21] {
        assert_eq!(detour.frame().await, Frame::Pong(expected));
    }
}

#[tokio::test]
async fn s01_without_the_key_of_the_connection_nothing_is_accepted() {
    let relay = start();
    let mut detour = Detour::open(&relay).await;
    detour.greet(&key(1), Role::Device).await;
    let ours = authority(&relay);
    let ping = body(&[Frame::Ping(66).to_bytes()]);
    let other = Detour::open(&relay).await;
    for key in [
        "",
        "garbage",
        &"A".repeat(43),
        &detour.key[..42],
        &format!("{} ", &detour.key[1..]),
        // Of a connection that has proved nothing: it counts there, and only for a handshake.
        &other.key,
    ] {
        let head = format!(
            "POST /v1/up HTTP/1.1\r\nHost: {ours}\r\nFarhelm-Key: {key}\r\nFarhelm-Number: {}\r\n",
            detour.number
        );
        let status = exchange(&relay, with_body(&head, &ping)).await;
        assert!([404, 409].contains(&status), "{key}: {status}");
    }
    // A key is worth nothing in an address.
    let in_path = format!(
        "POST /v1/up?key={} HTTP/1.1\r\nHost: {ours}\r\nFarhelm-Number: {}\r\n",
        detour.key, detour.number
    );
    assert_eq!(exchange(&relay, with_body(&in_path, &ping)).await, 404);
    assert_eq!(detour.post_frame(&Frame::Ping(1)).await, 204);
    assert_eq!(detour.frame().await, Frame::Pong(1));
    // It ends with its connection.
    let late = detour.request(detour.number, &ping);
    drop(detour);
    loop {
        if exchange(&relay, late.clone()).await == 404 {
            break;
        }
    }
}

#[tokio::test]
async fn s03_before_the_proof_only_a_handshake_is_accepted() {
    let relay = start();
    let mut eager = Detour::open(&relay).await;
    assert_eq!(eager.post_frame(&Frame::Ping(1)).await, 204);
    assert!(matches!(eager.frame().await, Frame::Bye(bye) if bye.code == Code::NotNow));
    eager.ended().await;
    // A proof that was recorded elsewhere.
    let mut replayed = Detour::open(&relay).await;
    replayed
        .post_frame(&Frame::Hello(replayed.hello(&key(1), Role::Device)))
        .await;
    assert!(matches!(replayed.frame().await, Frame::Challenge(_)));
    let proof = hello::prove(&key(1), 1, &[3; 32], &replayed.authority);
    replayed
        .post_frame(&Frame::Prove(Prove {
            proof: proof.into(),
        }))
        .await;
    assert!(matches!(replayed.frame().await, Frame::Bye(bye) if bye.code == Code::BadProof));
    replayed.ended().await;
}

#[tokio::test]
async fn s07_s09_pages_from_elsewhere_open_and_post_nothing() {
    let relay = start();
    let mut detour = Detour::open(&relay).await;
    detour.greet(&key(1), Role::Device).await;
    let ping = body(&[Frame::Ping(1).to_bytes()]);
    for foreign in ["https://evil.example", "null", "http://localhost:1"] {
        let post = detour
            .head(detour.number)
            .replace("Farhelm-Key", &format!("Origin: {foreign}\r\nFarhelm-Key"));
        assert_eq!(exchange(&relay, with_body(&post, &ping)).await, 403);
        let open = format!(
            "GET /v1/down HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nOrigin: {foreign}\r\n\r\n",
            detour.authority
        );
        assert_eq!(exchange(&relay, open.into()).await, 403);
    }
    // What a picture or a script of another page can ask for has no such header.
    let plain = format!(
        "GET /v1/down HTTP/1.1\r\nHost: {}\r\nAccept: image/*\r\n\r\n",
        detour.authority
    );
    assert_eq!(exchange(&relay, plain.into()).await, 406);
    assert_eq!(detour.post_frame(&Frame::Ping(2)).await, 204);
    assert_eq!(detour.frame().await, Frame::Pong(2));
}

#[tokio::test]
async fn s12_requests_have_limits_before_and_after_the_proof() {
    let relay = start();
    let mut witness = device(&relay, 9).await;
    let stranger = Detour::open(&relay).await;
    let long = vec![0; 2 * limits::HELLO_FRAME_BYTES];
    assert_eq!(exchange(&relay, stranger.request(0, &long)).await, 413);
    let mut detour = Detour::open(&relay).await;
    detour.greet(&key(1), Role::Device).await;
    let longer = vec![0; 2 * limits::FRAME_BYTES];
    assert_eq!(
        exchange(&relay, detour.request(detour.number, &longer)).await,
        413
    );
    // Without a length, it is found out on the way.
    let mut chunked = detour.head(detour.number).into_bytes();
    chunked.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..40 {
        chunked.extend(b"10000\r\n");
        chunked.extend(vec![0; 0x1_0000]);
        chunked.extend(b"\r\n");
    }
    assert_eq!(exchange(&relay, chunked).await, 413);
    // A frame beyond the cap of its kind ends the connection, as on a WebSocket.
    let control = Frame::Members(farhelm_proto::frame::Members {
        version: 1,
        devices: vec![PeerId::from_bytes([1; 16]); limits::CONTROL_FRAME_BYTES / 16],
    });
    assert_eq!(detour.post_frame(&control).await, 204);
    assert!(matches!(detour.frame().await, Frame::Bye(bye) if bye.code == Code::TooLarge));
    // So does a length that lies.
    let mut liar = Detour::open(&relay).await;
    liar.greet(&key(3), Role::Device).await;
    let claim = [0xff, 0xff, 0xff, 0xff, 0];
    assert_eq!(
        exchange(&relay, liar.request(liar.number, &claim)).await,
        400
    );
    assert!(matches!(liar.frame().await, Frame::Bye(bye) if bye.code == Code::TooLarge));
    witness.settle().await;
}

#[tokio::test]
async fn s14_event_streams_that_prove_nothing_and_slow_requests_are_closed() {
    let relay = Relay::start(Config {
        hello_millis: 100,
        unauthenticated: 2,
        ..Config::in_memory()
    })
    .unwrap();
    let mut silent = Detour::open(&relay).await;
    assert!(matches!(silent.frame().await, Frame::Bye(bye) if bye.code == Code::Timeout));
    silent.ended().await;
    // A request that never ends holds no place, for a peer, and is answered in time.
    let mut peer = Detour::open(&relay).await;
    peer.greet(&key(1), Role::Device).await;
    let slow = format!("{}Content-Length: 100\r\n\r\nx", peer.head(peer.number));
    assert_eq!(exchange(&relay, slow.into()).await, 408);
    assert_eq!(peer.post_frame(&Frame::Ping(3)).await, 204);
    assert_eq!(peer.frame().await, Frame::Pong(3));
    // Peers on detours take no place of those who come.
    let mut others = Vec::new();
    for seed in 2..8 {
        let mut other = Detour::open(&relay).await;
        other.greet(&key(seed), Role::Device).await;
        others.push(other);
    }
    device(&relay, 9).await.settle().await;
}

#[tokio::test]
async fn f12_a_detour_that_falls_silent_is_given_up() {
    let config = Config {
        ping_millis: 100,
        dead_millis: 400,
        ..Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    let mut detour = Detour::open(&relay).await;
    detour.greet(&key(1), Role::Device).await;
    assert!(matches!(detour.frame().await, Frame::Bye(bye) if bye.code == Code::Timeout));
    detour.ended().await;
}

#[tokio::test]
async fn f24_a_relay_that_ends_tells_detours_too() {
    let relay = start();
    let mut detour = Detour::open(&relay).await;
    detour.greet(&key(1), Role::Device).await;
    detour.post_frame(&Frame::Ping(3)).await;
    assert_eq!(detour.frame().await, Frame::Pong(3));
    let ended = tokio::spawn(relay.shutdown());
    assert!(matches!(detour.frame().await, Frame::Bye(bye) if bye.code == Code::Restarting));
    detour.ended().await;
    tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
}

/// A peer by plain HTTP.
struct Detour {
    stream: BufReader<TcpStream>,
    events: Vec<u8>,
    address: std::net::SocketAddr,
    authority: String,
    key: String,
    number: u64,
}

impl Detour {
    async fn open(relay: &Relay) -> Self {
        let address = relay.local_addr();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let authority = authority(relay);
        let request = format!(
            "GET /v1/down HTTP/1.1\r\nHost: {authority}\r\nAccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = BufReader::new(stream);
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        for expected in [
            "content-type: text/event-stream",
            "cache-control: no-store, no-transform",
            "x-accel-buffering: no",
            "x-content-type-options: nosniff",
        ] {
            assert!(head.contains(expected), "{head}");
        }
        let mut detour = Self {
            stream,
            events: Vec::new(),
            address,
            authority,
            key: String::new(),
            number: 0,
        };
        let padding = detour.event().await.unwrap();
        assert!(padding.starts_with(": ") && padding.len() > 2_000);
        let open = detour.event().await.unwrap();
        detour.key = open.strip_prefix("event: open\ndata: ").unwrap().to_owned();
        detour
    }

    fn hello(&self, key: &SigningKey, role: Role) -> Hello {
        Hello {
            oldest: 1,
            newest: 1,
            role,
            key: (*key.verifying_key().as_bytes()).into(),
            agent: None,
            authority: self.authority.clone(),
            generation: None,
            dead_millis: None,
        }
    }

    /// The handshake.
    async fn greet(&mut self, key: &SigningKey, role: Role) -> PeerId {
        let hello = self.hello(key, role);
        assert_eq!(self.post_frame(&Frame::Hello(hello)).await, 204);
        let Frame::Challenge(challenge) = self.frame().await else {
            panic!("a challenge")
        };
        let proof = hello::prove(key, challenge.version, &challenge.nonce, &self.authority);
        let prove = Prove {
            proof: proof.into(),
        };
        assert_eq!(self.post_frame(&Frame::Prove(prove)).await, 204);
        assert!(matches!(self.frame().await, Frame::Welcome(_)));
        PeerId::of_signer(key)
    }

    /// The next event; none when the stream has ended.
    async fn event(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.events.windows(2).position(|two| two == b"\n\n") {
                let rest = self.events.split_off(end + 2);
                let mut event = std::mem::replace(&mut self.events, rest);
                event.truncate(end);
                return Some(String::from_utf8(event).unwrap());
            }
            let chunk = async {
                let mut line = String::new();
                self.stream.read_line(&mut line).await.unwrap();
                let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
                let mut chunk = vec![0; length + 2];
                self.stream.read_exact(&mut chunk).await.ok()?;
                chunk.truncate(length);
                Some(chunk)
            };
            let chunk = tokio::time::timeout(SOON, chunk).await.unwrap()?;
            if chunk.is_empty() {
                return None;
            }
            self.events.extend(chunk);
        }
    }

    /// The next frame, past comments.
    async fn frame(&mut self) -> Frame {
        loop {
            let event = self.event().await.expect("an open stream");
            if let Some(data) = event.strip_prefix("data: ") {
                return Frame::parse(&STANDARD.decode(data).unwrap()).unwrap();
            }
        }
    }

    async fn ended(&mut self) {
        while self.event().await.is_some() {}
    }

    fn head(&self, number: u64) -> String {
        format!(
            "POST /v1/up HTTP/1.1\r\nHost: {}\r\nFarhelm-Key: {}\r\nFarhelm-Number: {number}\r\n",
            self.authority, self.key
        )
    }

    fn request(&self, number: u64, body: &[u8]) -> Vec<u8> {
        with_body(&self.head(number), body)
    }

    async fn post_as(&mut self, number: u64, frames: &[Bytes]) -> u16 {
        let status = exchange_at(self.address, self.request(number, &body(frames))).await;
        if status == 204 {
            self.number = number + 1;
        }
        status
    }

    async fn post(&mut self, frames: &[Bytes]) -> u16 {
        self.post_as(self.number, frames).await
    }

    async fn post_frame(&mut self, frame: &Frame) -> u16 {
        self.post(&[frame.to_bytes()]).await
    }
}

fn body(frames: &[Bytes]) -> Vec<u8> {
    let piece = |frame: &Bytes| {
        [
            &u32::try_from(frame.len()).unwrap().to_be_bytes(),
            &frame[..],
        ]
        .concat()
    };
    frames.iter().flat_map(piece).collect()
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), length.as_bytes(), body].concat()
}

async fn exchange(relay: &Relay, request: Vec<u8>) -> u16 {
    exchange_at(relay.local_addr(), request).await
}

/// Sends a whole request on a connection of its own, and gives the answer's status.
async fn exchange_at(address: std::net::SocketAddr, request: Vec<u8>) -> u16 {
    let (reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
    let sending = tokio::spawn(async move {
        // An answer may come before all was sent, and the rest is not wanted then.
        let sent = writing.write_all(&request).await;
        (sent, writing)
    });
    let mut reading = BufReader::new(reading);
    let head = tokio::time::timeout(SOON, head(&mut reading))
        .await
        .unwrap();
    sending.abort();
    head.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

async fn head<R: tokio::io::AsyncBufRead + Unpin>(stream: &mut R) -> String {
    let mut head = String::new();
    loop {
        let before = head.len();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_line(&mut head));
        if read.await.unwrap().unwrap_or(0) == 0 || head[before..].trim().is_empty() {
            return head.to_lowercase().replacen("http/1.1", "HTTP/1.1", 1);
        }
    }
}
