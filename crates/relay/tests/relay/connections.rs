//! The handshake, limits before and after it, and how connections end.

use bytes::Bytes;
use farhelm_proto::frame::{Frame, Hello, Members, PutBlob, Role};
use farhelm_proto::letter::Kind;
use farhelm_proto::{Code, PeerId, Timestamp, hello, limits};
use farhelm_relay::{Config, Relay};
use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{
    Log, SOON, authority, connect, device, greet, host, key, open_socket, pair, recv, send, start,
};

#[tokio::test]
async fn a_proven_peer_is_welcomed() {
    let relay = start();
    let peer = device(&relay, 1).await;
    assert_eq!(
        (peer.welcome.ping_millis, peer.welcome.dead_millis),
        (5_000, 10_000)
    );
    assert!(peer.welcome.agent.starts_with("farhelm-relay/") && peer.welcome.now > Timestamp(0));
}

#[tokio::test]
async fn a_wrong_proof_is_refused() {
    let relay = start();
    let ours = authority(&relay);
    let proofs: [fn(&Hello, &[u8; 32]) -> [u8; 64]; 3] = [
        |_, _| [7; 64],
        |hello, nonce| hello::prove(&key(9), 1, nonce, &hello.authority),
        // A recorded proof: right in all but the nonce.
        |hello, _| hello::prove(&key(1), 1, &[3; 32], &hello.authority),
    ];
    for proof in proofs {
        let mut socket = open_socket(&relay).await;
        let hello = a_hello(&ours);
        send(&mut socket, &Frame::Hello(hello.clone())).await;
        let Some(Frame::Challenge(challenge)) = recv(&mut socket).await else {
            panic!("a challenge")
        };
        let proof = proof(&hello, &challenge.nonce).into();
        send(
            &mut socket,
            &Frame::Prove(farhelm_proto::frame::Prove { proof }),
        )
        .await;
        let Some(Frame::Bye(bye)) = recv(&mut socket).await else {
            panic!("a refusal")
        };
        assert_eq!(bye.code, Code::BadProof);
        assert_eq!(recv(&mut socket).await, None);
    }
}

#[tokio::test]
async fn a_proof_made_for_another_relay_is_refused() {
    let relay = start();
    for theirs in ["evil.example:443", "localhost:1", ""] {
        let socket = open_socket(&relay).await;
        let refused = greet(socket, key(1), Role::Device, 0, theirs)
            .await
            .err()
            .unwrap();
        assert_eq!(refused.code, Code::BadProof);
    }
    relay.allow_authority("https://Tunnel.example").unwrap();
    for ours in ["TUNNEL.example", "tunnel.example:443"] {
        assert!(
            greet(open_socket(&relay).await, key(1), Role::Device, 0, ours)
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn only_the_handshake_is_accepted_before_the_proof() {
    let relay = start();
    let ours = authority(&relay);
    let mut long = Frame::Hello(Hello {
        agent: Some("x".repeat(limits::HELLO_FRAME_BYTES)),
        ..a_hello(&ours)
    })
    .to_bytes();
    let table = [
        (
            Message::Binary(Bytes::from_static(b"garbage")),
            Code::BadFrame,
        ),
        (Message::Binary(Bytes::new()), Code::BadFrame),
        (Message::Text("hello".into()), Code::BadFrame),
        (Message::Binary(Frame::Ping(1).to_bytes()), Code::NotNow),
        (
            Message::Binary(Bytes::from_static(&[0x82, 0x19, 0x03, 0xe7, 0x81, 0x01])),
            Code::NotNow,
        ),
        (
            Message::Binary(
                Frame::Hello(Hello {
                    oldest: 2,
                    newest: 9,
                    ..a_hello(&ours)
                })
                .to_bytes(),
            ),
            Code::UnsupportedVersion,
        ),
        (
            Message::Binary(
                Frame::Hello(Hello {
                    key: [0; 32].into(),
                    ..a_hello(&ours)
                })
                .to_bytes(),
            ),
            Code::BadProof,
        ),
        (Message::Binary(long.split_off(0)), Code::TooLarge),
    ];
    for (message, code) in table {
        let mut socket = open_socket(&relay).await;
        socket.send(message.clone()).await.unwrap();
        let Some(Frame::Bye(bye)) = recv(&mut socket).await else {
            panic!("a refusal of {message:?}")
        };
        assert_eq!(bye.code, code, "{message:?}");
        assert_eq!(recv(&mut socket).await, None);
    }
}

#[tokio::test]
async fn s20_the_newer_connection_of_a_host_wins() {
    let relay = start();
    let mut first = connect(&relay, 1, Role::Host, 5).await.unwrap();
    let refused = connect(&relay, 1, Role::Host, 4).await.err().unwrap();
    assert_eq!(refused.code, Code::Superseded);
    first.settle().await;
    let mut second = connect(&relay, 1, Role::Host, 5).await.unwrap();
    assert_eq!(first.bye().await.code, Code::Superseded);
    let mut third = connect(&relay, 1, Role::Host, 6).await.unwrap();
    assert_eq!(second.bye().await.code, Code::Superseded);
    third.settle().await;
    // Nobody else can send it away, and devices may come as often as they like.
    let mut other = connect(&relay, 2, Role::Host, 9).await.unwrap();
    let mut tabs = [device(&relay, 3).await, device(&relay, 3).await];
    for peer in tabs.iter_mut().chain([&mut third, &mut other]) {
        peer.settle().await;
    }
}

#[tokio::test]
async fn only_listed_hosts_are_served_when_hosts_are_listed() {
    let listed = PeerId::of_signer(&key(1));
    let relay = Relay::start(Config {
        hosts: vec![listed],
        ..Config::in_memory()
    })
    .unwrap();
    assert!(connect(&relay, 1, Role::Host, 0).await.is_ok());
    assert_eq!(
        connect(&relay, 2, Role::Host, 0).await.err().unwrap().code,
        Code::NotAllowed
    );
    assert!(connect(&relay, 2, Role::Device, 0).await.is_ok());
}

#[tokio::test]
async fn s12_each_kind_of_frame_has_its_own_cap() {
    let relay = start();
    let mut witness = device(&relay, 9).await;
    let stream = Log::new(1, 9).stream;
    let control = |length: usize| {
        let text = "x".repeat(length);
        let bye = farhelm_proto::frame::Bye {
            code: Code::Internal,
            detail: Some(text),
            retry_millis: None,
        };
        let overhead = Frame::Problem(problem(&bye)).to_bytes().len() - length;
        (overhead, Frame::Problem(problem(&bye)).to_bytes())
    };
    let overhead = control(limits::CONTROL_FRAME_BYTES - 100).0;
    let envelope = |body| Log::new(1, 9).next(1, body);
    let live = |body| Log::new(1, 9).live(body);
    let blob = |length| {
        Frame::PutBlob(PutBlob {
            name: [0; 32].into(),
            bytes: vec![0; length].into(),
        })
        .to_bytes()
    };
    let peer = host(&relay, 1).await;
    let letter = |body: usize| {
        let header = farhelm_proto::letter::Header {
            suite: 1,
            kind: Kind::Probe,
            from: peer.id,
            to: peer.id,
            id: farhelm_proto::CommandId::from_bytes([1; 16]),
            not_after: Timestamp(0),
            offer: None,
        };
        let letter =
            farhelm_proto::letter::Letter::sign(header.to_bytes(), [0; 32], vec![0; body], &key(1));
        Frame::Letter(letter).to_bytes()
    };
    let table: [(&str, Bytes, Bytes); 5] = [
        (
            "control",
            control(limits::CONTROL_FRAME_BYTES - overhead).1,
            control(limits::CONTROL_FRAME_BYTES - overhead + 1).1,
        ),
        (
            "envelope",
            envelope(limits::ENVELOPE_BODY_BYTES),
            envelope(limits::ENVELOPE_BODY_BYTES + 1),
        ),
        (
            "live",
            live(limits::LIVE_BODY_BYTES),
            live(limits::LIVE_BODY_BYTES + 1),
        ),
        (
            "letter",
            letter(limits::LETTER_BODY_BYTES),
            letter(limits::LETTER_BODY_BYTES + 1),
        ),
        (
            "blob",
            blob(limits::BLOB_BYTES),
            blob(limits::BLOB_BYTES + 1),
        ),
    ];
    for (kind, fits, too_large) in table {
        let mut peer = host(&relay, 1).await;
        peer.send_raw(fits).await;
        peer.send(Frame::Ping(77)).await;
        while peer.recv().await != Frame::Pong(77) {}
        peer.send_raw(too_large).await;
        assert_eq!(peer.bye().await.code, Code::TooLarge, "{kind}");
    }
    let mut peer = host(&relay, 1).await;
    peer.send_raw(Bytes::from(vec![0; limits::FRAME_BYTES + 1]))
        .await;
    assert_eq!(peer.bye().await.code, Code::TooLarge, "{stream}");
    witness.settle().await;
}

#[tokio::test]
async fn s12_a_claim_of_a_giant_message_is_refused_at_once() {
    let relay = start();
    let mut raw = upgraded(&relay).await;
    raw.write_all(&[0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4])
        .await
        .unwrap();
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap();
    let bye = Frame::parse(&answer[2..2 + usize::from(answer[1])]).unwrap();
    assert!(matches!(bye, Frame::Bye(bye) if bye.code == Code::TooLarge));
}

#[tokio::test]
async fn s14_silent_and_slow_strangers_are_closed() {
    let relay = Relay::start(Config {
        hello_millis: 100,
        ..Config::in_memory()
    })
    .unwrap();
    let mut nothing = TcpStream::connect(relay.local_addr()).await.unwrap();
    let mut half = TcpStream::connect(relay.local_addr()).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHos")
        .await
        .unwrap();
    let mut silent = upgraded(&relay).await;
    for socket in [&mut nothing, &mut half, &mut silent] {
        let mut rest = Vec::new();
        tokio::time::timeout(SOON, socket.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
    }
    let mut peer = open_socket(&relay).await;
    send(&mut peer, &Frame::Hello(a_hello(&authority(&relay)))).await;
    assert!(matches!(recv(&mut peer).await, Some(Frame::Challenge(_))));
    assert!(matches!(recv(&mut peer).await, Some(Frame::Bye(bye)) if bye.code == Code::Timeout));
}

#[tokio::test]
async fn s14_strangers_cannot_use_up_all_places() {
    let config = Config {
        hello_millis: 300,
        unauthenticated: 4,
        ..Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    let mut peer = device(&relay, 1).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(TcpStream::connect(relay.local_addr()).await.unwrap());
    }
    peer.settle().await;
    drop(crowd);
    assert!(connect(&relay, 2, Role::Device, 0).await.is_ok());
}

#[tokio::test]
async fn f12_a_silent_peer_is_given_up_and_one_that_pings_is_not() {
    let config = Config {
        ping_millis: 100,
        dead_millis: 400,
        ..Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    let mut silent = device(&relay, 1).await;
    let mut lively = device(&relay, 2).await;
    let pinging = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            ticks.tick().await;
            lively.settle().await;
        }
    };
    let bye = tokio::select! {
        bye = silent.bye() => bye,
        () = pinging => unreachable!(),
    };
    assert_eq!(bye.code, Code::Timeout);
    lively.settle().await;
}

#[tokio::test]
async fn f12_a_peer_may_ask_to_be_given_up_sooner_within_bounds() {
    let relay = start();
    for (asked, granted) in [
        (Some(4_000), (2_000, 4_000)),
        (Some(0), (1_500, limits::SHORTEST_DEAD_MILLIS)),
        (Some(u64::MAX), (5_000, 10_000)),
        (None, (5_000, 10_000)),
    ] {
        let mut socket = open_socket(&relay).await;
        let hello = Hello {
            dead_millis: asked,
            ..a_hello(&authority(&relay))
        };
        send(&mut socket, &Frame::Hello(hello.clone())).await;
        let Some(Frame::Challenge(challenge)) = recv(&mut socket).await else {
            panic!("a challenge")
        };
        let proof = hello::prove(&key(1), 1, &challenge.nonce, &hello.authority).into();
        let prove = farhelm_proto::frame::Prove { proof };
        send(&mut socket, &Frame::Prove(prove)).await;
        let Some(Frame::Welcome(welcome)) = recv(&mut socket).await else {
            panic!("a welcome")
        };
        assert_eq!((welcome.ping_millis, welcome.dead_millis), granted);
    }
}

#[tokio::test]
async fn f13_a_long_message_on_a_thin_line_is_a_sign_of_life_both_ways() {
    let config = Config {
        ping_millis: 100,
        dead_millis: 400,
        ..Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    let mut peer = host(&relay, 1).await;
    let envelope = Log::new(1, 9).next(1, 40_000);
    let mut wire = vec![0x82, 0xff];
    wire.extend((envelope.len() as u64).to_be_bytes());
    wire.extend([0; 4]);
    wire.extend_from_slice(&envelope);
    // Twice the silence that the relay allows, and not one whole message in it.
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(40));
    for piece in wire.chunks(wire.len() / 20 + 1) {
        ticks.tick().await;
        peer.socket.get_mut().write_all(piece).await.unwrap();
    }
    let mut signs = 0;
    loop {
        match peer.recv().await {
            Frame::Pong(0) => signs += 1,
            Frame::Stored(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(signs >= 3, "{signs} signs of life");
}

#[tokio::test]
async fn f22_malformed_frames_end_one_connection_and_unknown_ones_none() {
    let relay = start();
    let (mut host, mut witness) = pair(&relay).await;
    let unknown = Bytes::from_static(&[0x82, 0x19, 0x03, 0xe7, 0x81, 0xa0]);
    witness.send_raw(unknown).await;
    let problem = witness.problem().await;
    assert_eq!(
        (problem.code, problem.frame),
        (Code::UnknownFrame, Some(999))
    );
    witness.send(Frame::Welcome(witness.welcome.clone())).await;
    assert_eq!(witness.problem().await.code, Code::NotNow);

    let mut deep = vec![0x82, 0x08, 0x81];
    deep.resize(50_000, 0x81);
    let envelope = Log::new(1, 9).next(1, 50);
    let mut bent = envelope.to_vec();
    bent[6] ^= 0xff;
    let table: [Bytes; 8] = [
        Bytes::new(),
        Bytes::from_static(b"\xff\xff\xff"),
        Bytes::from_static(&[0x82]),
        Bytes::from_static(&[0x82, 0x14, 0x81, 0xa1]),
        deep.into(),
        envelope.slice(..envelope.len() - 1),
        bent.into(),
        [envelope, Bytes::from_static(b"x")].concat().into(),
    ];
    for bytes in table {
        let mut peer = connect(&relay, 4, Role::Host, 0).await.unwrap();
        peer.send_raw(bytes.clone()).await;
        assert_eq!(peer.bye().await.code, Code::BadFrame, "{bytes:?}");
    }
    let mut peer = device(&relay, 5).await;
    peer.socket.send(Message::Text("hi".into())).await.unwrap();
    assert_eq!(peer.bye().await.code, Code::BadFrame);
    host.settle().await;
    witness.settle().await;
}

#[tokio::test]
async fn every_prefix_and_bit_flip_of_a_frame_is_survived() {
    let relay = start();
    let members = Frame::Members(Members {
        version: 1,
        devices: vec![PeerId::from_bytes([1; 16])],
    })
    .to_bytes();
    let letter = {
        let peer = device(&relay, 4).await;
        peer.letter(Kind::Probe, peer.id, 1, Timestamp(0), None)
    };
    for frame in [members, Log::new(4, 9).next(1, 3), letter] {
        let mut peer = host(&relay, 4).await;
        for bit in (0..frame.len().min(120) * 8).step_by(3) {
            let mut bent = frame.to_vec();
            bent[bit / 8] ^= 1 << (bit % 8);
            if peer
                .socket
                .send(Message::Binary(bent.into()))
                .await
                .is_err()
            {
                peer = host(&relay, 4).await;
            }
        }
    }
    let mut witness = device(&relay, 5).await;
    witness.settle().await;
}

#[tokio::test]
async fn pings_of_the_websocket_itself_are_answered() {
    use futures_util::StreamExt as _;
    let relay = start();
    let mut peer = device(&relay, 1).await;
    peer.socket
        .send(Message::Ping(Bytes::from_static(b"ab")))
        .await
        .unwrap();
    let pong = tokio::time::timeout(SOON, peer.socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(pong, Message::Pong(Bytes::from_static(b"ab")));
}

#[tokio::test]
async fn shutdown_tells_everybody_when_to_come_back() {
    let relay = start();
    let (mut host, mut device) = pair(&relay).await;
    let ended = tokio::spawn(relay.shutdown());
    for peer in [&mut host, &mut device] {
        let bye = peer.bye().await;
        assert_eq!(bye.code, Code::Restarting);
        assert!(
            bye.retry_millis
                .is_some_and(|millis| (250..500).contains(&millis))
        );
    }
    drop((host, device));
    tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
}

fn problem(bye: &farhelm_proto::frame::Bye) -> farhelm_proto::frame::Problem {
    let detail = bye.detail.clone();
    farhelm_proto::frame::Problem {
        code: bye.code,
        request: None,
        letter: None,
        stream: None,
        detail,
        frame: None,
    }
}

fn a_hello(authority: &str) -> Hello {
    Hello {
        oldest: 1,
        newest: 1,
        role: Role::Device,
        key: (*key(1).verifying_key().as_bytes()).into(),
        agent: None,
        authority: authority.to_owned(),
        generation: None,
        dead_millis: None,
    }
}

/// A raw socket after the upgrade.
async fn upgraded(relay: &Relay) -> TcpStream {
    let mut raw = TcpStream::connect(relay.local_addr()).await.unwrap();
    let request = format!(
        "GET /v1/link HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        authority(relay)
    );
    raw.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(raw.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{head}"
    );
    raw
}
