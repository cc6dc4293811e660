//! Connections against real relays, and against what is found in their place.

mod support;

use std::time::Duration;

use farhelm_link::backoff::Ending;
use farhelm_link::driver::{Link, LinkEvent, NotConnected};
use farhelm_proto::frame::{Bye, Frame, Role, Subscribe};
use farhelm_proto::{Code, PeerId, StreamId};
use farhelm_relay::{Config, Relay};
use support::acted::Acted;
use support::{down, frame, options, relay, send, soon, up, url};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_peer_connects_and_is_welcomed() {
    let relay = relay();
    let (link, mut events) = Link::start(options(&url(&relay), Role::Host));
    assert!(!link.is_up());
    let welcome = up(&mut events).await;
    assert!(welcome.agent.starts_with("farhelm-relay/"));
    assert!(link.is_up());
    relay.shutdown().await;
}

#[tokio::test]
async fn nothing_is_sent_while_there_is_no_connection() {
    let (link, mut events) = Link::start(options("http://127.0.0.1:1", Role::Host));
    down(&mut events).await;
    assert_eq!(
        link.send(Frame::Ping(1).to_bytes()).await,
        Err(NotConnected)
    );
}

#[tokio::test]
async fn f22_a_connection_that_is_given_up_ends_for_that_reason_and_another_is_dialled() {
    let relay = relay();
    let (link, mut events) = Link::start(options(&url(&relay), Role::Host));
    link.give_up(Ending::Useless, Code::RelaySilent, "there is none yet");
    for _ in 0..2 {
        up(&mut events).await;
        assert!(link.heard() > 0);
        link.give_up(Ending::Useless, Code::RelaySilent, "of no use");
        let (code, detail, retry_in) = down(&mut events).await;
        assert_eq!((code, detail.as_str()), (Code::RelaySilent, "of no use"));
        assert!(retry_in <= Duration::from_millis(500));
        assert_eq!(link.heard(), 0);
    }
    relay.shutdown().await;
}

#[tokio::test]
async fn a_closed_port_is_named_and_tried_again() {
    let (_link, mut events) = Link::start(options("http://127.0.0.1:1", Role::Host));
    for _ in 0..3 {
        let (code, detail, retry_in) = down(&mut events).await;
        assert_eq!(code, Code::RelayUnreachable);
        assert!(
            detail.starts_with("no connection to 127.0.0.1 port 1: "),
            "{detail}"
        );
        assert!(retry_in <= Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_so() {
    let (_link, mut events) = Link::start(options("https://relay.invalid", Role::Host));
    let (code, detail, _) = down(&mut events).await;
    assert_eq!(code, Code::RelayUnreachable);
    assert!(
        detail.contains("relay.invalid") || detail.contains("proxy"),
        "{detail}"
    );
}

#[tokio::test]
async fn an_address_that_is_none_is_said_so() {
    let (_link, mut events) = Link::start(options("relay.example/path", Role::Host));
    let (code, detail, _) = down(&mut events).await;
    assert_eq!(
        (code, detail.as_str()),
        (
            Code::RelayUnreachable,
            "'relay.example/path' is not the address of a relay"
        )
    );
}

#[tokio::test]
async fn f14_what_answers_in_the_relays_place_is_named_and_told_nothing() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    let moved =
        "HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n";
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let broken = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
    for (answer, code, expected) in [
        (page, Code::CaptivePortal, "a web page answered"),
        (
            moved,
            Code::CaptivePortal,
            "redirects to 'http://portal.example/login' (HTTP 302)",
        ),
        (
            missing,
            Code::NotARelay,
            "answers HTTP 404 Not Found; there is no relay",
        ),
        (
            broken,
            Code::RelayUnreachable,
            "answers HTTP 502 Bad Gateway; the relay behind it seems to be down",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n\r\n",
            Code::NotARelay,
            "does not speak HTTP",
        ),
        ("", Code::RelayUnreachable, "closed the connection"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let options = options(&address, Role::Host);
        let key = *options.identity.public().signing.as_bytes();
        let (_link, mut events) = Link::start(options);
        // Both ways are tried, twice.
        for way in ["/v1/link", "/v1/down", "/v1/link", "/v1/down"] {
            let (mut stream, _) = soon(listener.accept()).await.unwrap();
            let mut request = vec![0; 4096];
            let read = soon(stream.read(&mut request)).await.unwrap();
            request.truncate(read);
            assert!(request.starts_with(format!("GET {way} HTTP/1.1\r\n").as_bytes()));
            assert!(!request.windows(32).any(|part| part == key));
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // Nothing more is said to a stranger.
            let mut more = Vec::new();
            drop(soon(stream.read_to_end(&mut more)).await);
            assert!(more.is_empty(), "{more:?}");
            if way == "/v1/down" {
                let (found, detail, _) = down(&mut events).await;
                assert_eq!(found, code, "{detail}");
                assert!(detail.contains(expected), "{detail} instead of {expected}");
            }
        }
    }
}

#[tokio::test]
async fn f11_a_peer_comes_back_when_the_relay_has_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let first = Relay::start(Config::in_folder(folder.path())).unwrap();
    let address = first.local_addr();
    let (link, mut events) = Link::start(options(&url(&first), Role::Host));
    let before = up(&mut events).await;
    first.shutdown().await;
    let (code, _, retry_in) = down(&mut events).await;
    assert_eq!(code, Code::Restarting);
    assert!(retry_in >= Duration::from_millis(250));
    assert!(!link.is_up());
    let second = Relay::start(Config {
        listen: address,
        ..Config::in_folder(folder.path())
    })
    .unwrap();
    let after = up(&mut events).await;
    assert_eq!(before.store, after.store);
    second.shutdown().await;
}

#[tokio::test]
async fn the_older_of_two_connections_of_a_host_is_told_and_comes_back_slowly() {
    let relay = relay();
    // The same keys, as after a restart of a host whose old connection lingers.
    let identity = support::identity();
    let (_older, mut older_events) = support::host::connect(&url(&relay), &identity, 1);
    up(&mut older_events).await;
    let (_newer, mut newer_events) = support::host::connect(&url(&relay), &identity, 2);
    up(&mut newer_events).await;
    let (code, _, retry_in) = down(&mut older_events).await;
    assert_eq!(code, Code::Superseded);
    assert!(retry_in >= Duration::from_secs(30));
    relay.shutdown().await;
}

#[tokio::test]
async fn a_host_that_is_not_served_is_told() {
    let config = Config {
        hosts: vec![PeerId::from_bytes([1; 16])],
        ..Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    let (_link, mut events) = Link::start(options(&url(&relay), Role::Host));
    let (code, detail, retry_in) = down(&mut events).await;
    assert_eq!(code, Code::NotAllowed);
    assert!(
        detail.starts_with("this relay does not serve this peer"),
        "{detail}"
    );
    assert!(retry_in >= Duration::from_secs(30));
    relay.shutdown().await;
}

#[tokio::test]
async fn frames_go_out_and_answers_come_in() {
    let relay = relay();
    let (link, mut events) = Link::start(options(&url(&relay), Role::Device));
    up(&mut events).await;
    let (host, stream) = (PeerId::from_bytes([1; 16]), StreamId::from_bytes([2; 16]));
    send(
        &link,
        &Frame::Subscribe(Subscribe {
            host,
            stream,
            after: None,
            tail: None,
        }),
    )
    .await;
    let code = frame(&mut events, |frame| {
        if let Frame::Problem(problem) = frame {
            Some((problem.code, problem.stream))
        } else {
            None
        }
    });
    assert_eq!(code.await, (Code::NotFound, Some(stream)));
    relay.shutdown().await;
}

#[tokio::test]
async fn a_flood_of_frames_arrives_whole_and_in_order() {
    let relay = Acted::start().await;
    let (link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    up(&mut events).await;
    let sender = tokio::spawn(async move {
        for number in 0..5_000 {
            send(&link, &Frame::Pong(number)).await;
        }
        link
    });
    for expected in 0..5_000 {
        assert_eq!(connection.receive().await, Some(Frame::Pong(expected)));
    }
    drop(soon(sender).await.unwrap());
    assert_eq!(connection.receive().await, None);
}

#[tokio::test]
async fn f12_a_relay_that_falls_silent_is_given_up() {
    let mut relay = Acted::start().await;
    (relay.ping_millis, relay.dead_millis) = (100, 2_000);
    let (_link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    up(&mut events).await;
    for _ in 0..3 {
        assert!(matches!(connection.receive().await, Some(Frame::Ping(_))));
    }
    let (code, detail, _) = down(&mut events).await;
    assert_eq!(
        (code, detail.as_str()),
        (Code::Timeout, "the relay has been silent for too long")
    );
    relay.accept().await;
}

#[tokio::test]
async fn f12_a_relay_that_answers_pings_is_kept() {
    let mut relay = Acted::start().await;
    (relay.ping_millis, relay.dead_millis) = (100, 1_500);
    let (link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    up(&mut events).await;
    for _ in 0..25 {
        let Some(Frame::Ping(number)) = connection.receive().await else {
            panic!("pings go on")
        };
        connection.send(&Frame::Pong(number)).await;
    }
    assert!(link.is_up());
    connection.send(&Frame::Ping(77)).await;
    while connection.receive().await != Some(Frame::Pong(77)) {}
}

#[tokio::test]
async fn f22_an_unknown_frame_is_answered_and_the_connection_stays() {
    let relay = Acted::start().await;
    let (_link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    let unknown = minicbor::to_vec((999_u64, (1_u8,))).unwrap();
    connection.send_raw(Message::Binary(unknown.into())).await;
    let Some(Frame::Problem(problem)) = connection.receive().await else {
        panic!("the frame is answered")
    };
    assert_eq!(
        (problem.code, problem.frame),
        (Code::UnknownFrame, Some(999))
    );
    up(&mut events).await;
    connection
        .send_raw(Message::Binary(vec![1, 2, 3].into()))
        .await;
    assert_eq!(down(&mut events).await.0, Code::BadFrame);
}

#[tokio::test]
async fn f22_a_frame_beyond_the_limit_ends_the_connection() {
    let relay = Acted::start().await;
    let (_link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    up(&mut events).await;
    let huge = vec![0; farhelm_proto::limits::FRAME_BYTES + 1];
    let sending = connection.send_raw(Message::Binary(huge.into()));
    let (code, _, _) = tokio::select! {
        ended = down(&mut events) => ended,
        () = async { sending.await; std::future::pending().await } => unreachable!(),
    };
    assert_eq!(code, Code::TooLarge);
}

#[tokio::test]
async fn a_version_that_nobody_knows_is_said_so() {
    let relay = Acted::start().await;
    let (_link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut socket = relay.stranger().await;
    let challenge = farhelm_proto::frame::Challenge {
        version: 9,
        nonce: [0; 32].into(),
    };
    support::acted::write(&mut socket, &Frame::Challenge(challenge)).await;
    let (code, detail, retry_in) = down(&mut events).await;
    assert_eq!(
        (code, detail.as_str()),
        (
            Code::UnsupportedVersion,
            "the relay wants version 9 of the protocol"
        )
    );
    assert!(retry_in >= Duration::from_secs(30));
}

#[tokio::test]
async fn a_farewell_says_why_and_when_to_come_back() {
    let relay = Acted::start().await;
    let (_link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    let bye = Bye {
        code: Code::RateLimited,
        detail: Some("calm down".into()),
        retry_millis: Some(1_234),
    };
    connection.send(&Frame::Bye(bye)).await;
    let (code, detail, retry_in) = down(&mut events).await;
    assert_eq!(
        (code, detail.as_str()),
        (
            Code::RateLimited,
            "too many requests; wait a little (calm down)"
        )
    );
    assert!(retry_in >= Duration::from_millis(1_234));
}

#[tokio::test]
async fn the_link_ends_with_its_handle() {
    let relay = Acted::start().await;
    let (link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    up(&mut events).await;
    drop(link);
    assert_eq!(connection.receive().await, None);
    assert!(soon(events.recv()).await.is_none());
}

#[tokio::test]
async fn the_link_ends_with_its_receiver() {
    let relay = Acted::start().await;
    let (link, events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    drop(events);
    assert_eq!(connection.receive().await, None);
    drop(link);
}

#[tokio::test]
async fn a_slow_owner_loses_nothing_and_keeps_sending() {
    let relay = Acted::start().await;
    let (link, mut events) = Link::start(options(&relay.url(), Role::Host));
    let mut connection = relay.accept().await;
    up(&mut events).await;
    let many = 2_000;
    let store = farhelm_proto::frame::Stored {
        stream: StreamId::from_bytes([1; 16]),
        head: 0,
    };
    let flood = async {
        for head in 0..many {
            connection
                .send(&Frame::Stored(farhelm_proto::frame::Stored {
                    head,
                    ..store.clone()
                }))
                .await;
        }
    };
    // Nobody takes events here, and the link is asked to send all the same.
    let (_, ()) = tokio::join!(send(&link, &Frame::Pong(1)), flood);
    assert_eq!(connection.receive().await, Some(Frame::Pong(1)));
    for expected in 0..many {
        let LinkEvent::Frame {
            frame: Frame::Stored(stored),
            raw,
        } = soon(events.recv()).await.unwrap()
        else {
            panic!("a receipt");
        };
        assert_eq!(stored.head, expected);
        assert_eq!(Frame::parse(&raw).unwrap(), Frame::Stored(stored));
    }
}
