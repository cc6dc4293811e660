//! Peers and strangers that send anything but what they should: each loses its own connection, which
//! is one line in the log, and nobody else notices.

use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farhelm_proto::envelope::{Envelope, Header, Lane, NO_HASH, SUITE};
use farhelm_proto::frame::{Fetch, Frame, Members, OpenOffer, Role, Subscribe};
use farhelm_proto::{Code, OfferId, PeerId, StreamId, Timestamp, limits};
use farhelm_relay::Relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{Log, SOON, authority, connect, key, pair, relays, start};

#[tokio::test]
async fn f22_each_malformed_shape_is_one_line_in_the_log_and_one_connection_less() {
    let (log, _listening) = listen();
    let relay = start();
    let (mut host, mut witness) = pair(&relay).await;
    let envelope = Log::new(4, 9).next(1, 50);
    let deep = |unit: &[u8], body: u8| {
        let nested = unit.repeat(30_000);
        Bytes::from([&[0x82, 8, 0x81, 0xa1, body][..], &nested].concat())
    };
    let lie = |head: &[u8]| Bytes::from([&[0x82, 10, 0x81, 0xa2, 0, 1, 1][..], head].concat());
    let shapes: Vec<(&str, Bytes, Code)> = vec![
        ("nothing", Bytes::new(), Code::BadFrame),
        ("truncated", envelope.slice(..40), Code::BadFrame),
        (
            "lengthened",
            [&envelope[..], b"x"].concat().into(),
            Code::BadFrame,
        ),
        (
            "oversize",
            vec![0; limits::FRAME_BYTES + 1].into(),
            Code::TooLarge,
        ),
        (
            "bad UTF-8",
            Bytes::from_static(b"\x82\x08\x81\xa2\x00\x01\x04\x62\xff\xfe"),
            Code::BadFrame,
        ),
        ("JSON", "[".repeat(60_000).into(), Code::BadFrame),
        ("nested in a known field", deep(b"\x81", 0), Code::BadFrame),
        (
            "nested in an unknown field",
            deep(b"\x81", 99),
            Code::BadFrame,
        ),
        ("nested without an end", deep(b"\x9f", 99), Code::BadFrame),
        ("nested maps", deep(b"\xa1\x00", 99), Code::BadFrame),
        ("nested tags", deep(b"\xc1", 99), Code::BadFrame),
        (
            "2^64 devices",
            lie(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]),
            Code::BadFrame,
        ),
        (
            "2^64 fields",
            lie(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255]),
            Code::BadFrame,
        ),
        (
            "2^40 bytes",
            lie(&[0x5b, 0, 0, 1, 0, 0, 0, 0, 0]),
            Code::BadFrame,
        ),
        (
            "a number too large",
            Bytes::from_static(&[0x82, 0x3b, 255, 255, 255, 255, 255, 255, 255, 255, 0x81, 1]),
            Code::BadFrame,
        ),
    ];
    for (shape, bytes, code) in &shapes {
        let mut peer = connect(&relay, 4, Role::Host, 0).await.unwrap();
        let before = log.count();
        peer.send_raw(bytes.clone()).await;
        assert_eq!(peer.bye().await.code, *code, "{shape}");
        log.is_longer_by_one(before, shape).await;
    }
    let mut peer = connect(&relay, 4, Role::Device, 0).await.unwrap();
    let before = log.count();
    futures_util::SinkExt::send(&mut peer.socket, Message::Text("{}".into()))
        .await
        .unwrap();
    assert_eq!(peer.bye().await.code, Code::BadFrame);
    log.is_longer_by_one(before, "a text message").await;
    // A frame of a later version is none of these.
    let before = log.count();
    witness
        .send_raw(Bytes::from_static(&[0x82, 0x19, 0x03, 0xe7, 0x81, 0xa0]))
        .await;
    assert_eq!(witness.problem().await.code, Code::UnknownFrame);
    assert_eq!(log.count(), before);
    host.settle().await;
    witness.settle().await;
    assert!(!log.text().contains("panicked"), "{}", log.text());
}

#[tokio::test]
async fn f22_numbers_to_the_end_of_what_can_be_counted_break_nothing() {
    for (relay, _folder) in relays() {
        let (mut host, mut witness) = pair(&relay).await;
        let stream = StreamId::from_bytes([9; 16]);
        for (lane, first, last) in [
            (Lane::Durable, 1, u64::MAX),
            (Lane::Durable, 1, limits::SEQ + 1),
            (Lane::Durable, u64::MAX, u64::MAX),
            (Lane::Live, u64::MAX, 1),
            (Lane::Live, 1, u64::MAX),
        ] {
            let mut evil = connect(&relay, 4, Role::Host, 0).await.unwrap();
            evil.send_raw(numbered(4, stream, lane, first, last)).await;
            assert_eq!(
                evil.bye().await.code,
                Code::BadFrame,
                "{lane:?} {first} {last}"
            );
        }
        // What may be said is said to the end, and then there is nothing to continue.
        let mut evil = connect(&relay, 5, Role::Host, 0).await.unwrap();
        let id = evil.id;
        evil.list(u64::MAX, &[witness.id]).await;
        evil.send_raw(numbered(5, stream, Lane::Durable, 1, limits::SEQ))
            .await;
        evil.stored(stream, limits::SEQ).await;
        evil.send_raw(numbered(5, stream, Lane::Durable, 0, 0))
            .await;
        let ask = |after, tail| {
            Frame::Subscribe(Subscribe {
                host: id,
                stream,
                after,
                tail,
            })
        };
        for frame in [
            ask(Some(u64::MAX), None),
            ask(Some(u64::MAX - 1), Some(u64::MAX)),
            ask(None, Some(u64::MAX)),
            ask(None, None),
            ask(Some(limits::SEQ - 1), None),
        ] {
            witness.send(frame).await;
        }
        for (before, max_bytes) in [(u64::MAX, u64::MAX), (0, 0), (limits::SEQ, 0)] {
            witness
                .send(Frame::Fetch(Fetch {
                    request: u64::MAX,
                    host: id,
                    stream,
                    before,
                    max_bytes,
                }))
                .await;
        }
        evil.send(Frame::OpenOffer(OpenOffer {
            offer: OfferId::from_bytes([3; 16]),
            until: Timestamp(u64::MAX),
        }))
        .await;
        evil.send(Frame::Members(Members {
            version: 0,
            devices: Vec::new(),
        }))
        .await;
        evil.send(Frame::Ping(u64::MAX)).await;
        while evil.recv().await != Frame::Pong(u64::MAX) {}
        witness.send(Frame::Ping(7)).await;
        while witness.recv().await != Frame::Pong(7) {}
        host.settle().await;
        let mut log = Log::new(1, 8);
        host.write(&mut log, 3).await;
    }
}

#[tokio::test]
async fn f22_strangers_who_speak_no_http_get_an_answer_or_an_end_and_nobody_else_notices() {
    let (log, _listening) = listen();
    let relay = start();
    let (mut host, mut witness) = pair(&relay).await;
    let to = authority(&relay);
    let head = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nHost: {to}\r\n{more}\r\n").into_bytes()
    };
    let deep = "[".repeat(100_000);
    let up = |more: &str, body: &[u8]| [&head("POST /v1/up", more)[..], body].concat();
    let key = "Farhelm-Key: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\nFarhelm-Number: 0\r\n";
    let shapes: Vec<(&str, Vec<u8>)> = vec![
        ("garbage", vec![0xff; 5_000]),
        ("zeros", vec![0; 5_000]),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("no version", b"GET /\r\n\r\n".to_vec()),
        ("a later version", b"GET / HTTP/9.9\r\n\r\n".to_vec()),
        (
            "bad UTF-8",
            head("GET /\u{fffd}", "")
                .iter()
                .map(|byte| byte | 0x80)
                .collect(),
        ),
        ("a NUL", head("GET /\0", "")),
        (
            "no end",
            b"GET / HTTP/1.1\r\nX: "
                .iter()
                .copied()
                .chain([b'x'; 100_000])
                .collect(),
        ),
        ("many headers", head("GET /", &"a: b\r\n".repeat(5_000))),
        (
            "a long path",
            head(&format!("GET /{}", "a".repeat(200_000)), ""),
        ),
        ("dots", head("GET /../../../../etc/passwd", "")),
        ("escapes", head("GET /%00%ff%2e%2e%2f", "")),
        (
            "two lengths",
            up("Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"),
        ),
        (
            "a length that lies",
            up(
                &format!("{key}Content-Length: 18446744073709551616\r\n"),
                b"x",
            ),
        ),
        (
            "a negative length",
            up(&format!("{key}Content-Length: -1\r\n"), b"x"),
        ),
        (
            "a chunk that lies",
            up(
                &format!("{key}Transfer-Encoding: chunked\r\n"),
                b"ffffffffffffffffff\r\nx",
            ),
        ),
        (
            "deep JSON",
            up(
                &format!(
                    "{key}Content-Type: application/json\r\nContent-Length: {}\r\n",
                    deep.len()
                ),
                deep.as_bytes(),
            ),
        ),
        (
            "a number that is none",
            up(
                "Farhelm-Key: x\r\nFarhelm-Number: -1\r\nContent-Length: 0\r\n",
                b"",
            ),
        ),
        (
            "half an upgrade",
            head(
                "GET /v1/link",
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n",
            ),
        ),
    ];
    for (shape, bytes) in shapes {
        let answer = tokio::time::timeout(SOON, said(&relay, &bytes)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{shape} is kept waiting"));
        let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
        let refused = [
            "", "101", "200", "308", "400", "404", "405", "408", "411", "413", "414", "431", "505",
        ];
        assert!(refused.contains(&&*status), "{shape}: {answer}");
        assert!(!answer.contains("root:"), "{shape}");
    }
    host.settle().await;
    witness.settle().await;
    assert!(!log.text().contains("panicked"), "{}", log.text());
}

/// Sends bytes, says that no more come, and gives what was answered until the end.
async fn said(relay: &Relay, bytes: &[u8]) -> String {
    let stream = TcpStream::connect(relay.local_addr()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sending = async {
        // Who is refused early is not heard to the end.
        let _sent = writing.write_all(bytes).await;
        let _ended = writing.shutdown().await;
    };
    let mut answer = Vec::new();
    let hearing = async {
        let _heard = reading.read_to_end(&mut answer).await;
    };
    tokio::join!(sending, hearing);
    String::from_utf8_lossy(&answer).into_owned()
}

/// An envelope of any numbers.
fn numbered(seed: u8, stream: StreamId, lane: Lane, first: u64, last: u64) -> Bytes {
    let header = Header {
        suite: SUITE,
        lane,
        host: PeerId::of_signer(&key(seed)),
        stream,
        epoch: u32::MAX,
        first,
        last,
        prev: NO_HASH,
        base: u64::MAX,
    };
    let envelope = Envelope {
        header: header.to_bytes().into(),
        body: vec![1; 50].into(),
        signature: [0; 64].into(),
    };
    Frame::Envelope(envelope).to_bytes()
}

/// What the relay logs, and panics of this thread, which is where all tasks of the test run.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

fn listen() -> (Logged, tracing::subscriber::DefaultGuard) {
    let logged = Logged::default();
    let out = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || out.clone())
        .finish();
    let (before, out) = (std::panic::take_hook(), logged.clone());
    std::panic::set_hook(Box::new(move |panic| {
        writeln!(out.clone(), "panicked: {panic}").unwrap();
        before(panic);
    }));
    (logged, tracing::subscriber::set_default(subscriber))
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut logged = self.0.lock().map_err(|_| std::io::ErrorKind::Other)?;
        logged.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn count(&self) -> usize {
        self.text().lines().count()
    }

    async fn is_longer_by_one(&self, before: usize, shape: &str) {
        // The line stands before the farewell; nothing comes after it.
        tokio::task::yield_now().await;
        let text = self.text();
        let lines: Vec<&str> = text.lines().skip(before).collect();
        assert_eq!(lines.len(), 1, "{shape}: {lines:?}");
        assert!(lines[0].contains("peer_"), "{shape}: {lines:?}");
    }
}
