//! Networks that let no WebSocket through: a proxy of ours stands between peer and relay and does
//! what such proxies do.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farhelm_link::driver::{Link, LinkEvent, Way};
use farhelm_proto::Code;
use farhelm_proto::frame::{Frame, Role};
use farhelm_relay::Relay;
use support::{down, frame, options, relay, send, soon, up, url};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What a proxy does with those who ask for a WebSocket.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Leaves `Upgrade` out, so that the relay sees a plain request.
    Strips,
    /// Answers in the relay's place.
    Answers(&'static str),
    /// Takes the question and never answers.
    Hangs,
    /// Lets the upgrade through, and nothing after it.
    Swallows,
}

/// A proxy before a relay.
struct Proxy {
    address: SocketAddr,
    /// Requests that it cut off before the answer to them came.
    cut: Arc<AtomicUsize>,
    _accepting: tokio_util::task::AbortOnDropHandle<()>,
}

impl Proxy {
    /// `every` so many posts loses the answer to one, once the relay has it.
    async fn before(relay: &Relay, manner: Manner, every: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        relay.allow_authority(&address.to_string()).unwrap();
        let to = relay.local_addr();
        let (cut, posts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let lost = Arc::clone(&cut);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (posts, lost) = (Arc::clone(&posts), Arc::clone(&lost));
                tokio::spawn(async move {
                    drop(pass(near, to, manner, every, &posts, &lost).await);
                });
            }
        });
        Self {
            address,
            cut,
            _accepting: tokio_util::task::AbortOnDropHandle::new(accepting),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// One connection through the proxy, request by request.
async fn pass(
    mut near: TcpStream,
    to: SocketAddr,
    manner: Manner,
    every: usize,
    posts: &AtomicUsize,
    lost: &AtomicUsize,
) -> std::io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    let head = read_head(&mut near).await?;
    if head.starts_with("GET /v1/link") {
        match manner {
            Manner::Strips => {
                let kept: Vec<&str> = head
                    .split("\r\n")
                    .filter(|line| !line.to_ascii_lowercase().contains("upgrade"))
                    .collect();
                far.write_all(kept.join("\r\n").as_bytes()).await?;
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            }
            Manner::Answers(answer) => {
                near.write_all(answer.as_bytes()).await?;
                near.shutdown().await?;
                drop(tokio::io::copy(&mut near, &mut tokio::io::sink()).await);
            }
            Manner::Hangs => drop(tokio::io::copy(&mut near, &mut tokio::io::sink()).await),
            Manner::Swallows => {
                far.write_all(head.as_bytes()).await?;
                let answer = read_head(&mut far).await?;
                near.write_all(answer.as_bytes()).await?;
                drop(tokio::io::copy(&mut near, &mut tokio::io::sink()).await);
            }
        }
        return Ok(());
    }
    if !head.starts_with("POST") {
        far.write_all(head.as_bytes()).await?;
        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        return Ok(());
    }
    let mut head = head;
    loop {
        let length = head
            .to_ascii_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        near.read_exact(&mut body).await?;
        far.write_all(head.as_bytes()).await?;
        far.write_all(&body).await?;
        let answer = read_head(&mut far).await?;
        let number = posts.fetch_add(1, Ordering::Relaxed);
        if every > 0 && number % every == every - 1 {
            // The relay has the request, and the peer never hears of it.
            lost.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        near.write_all(answer.as_bytes()).await?;
        head = read_head(&mut near).await?;
    }
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";

#[tokio::test]
async fn f14_where_websockets_are_blocked_the_link_takes_the_detour_by_itself() {
    let manners = [
        Manner::Strips,
        Manner::Answers(PAGE),
        Manner::Answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
        Manner::Answers("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        Manner::Answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Manner::Answers(""),
        Manner::Answers("garbage\r\n\r\n"),
        Manner::Hangs,
        Manner::Swallows,
    ];
    let each = manners.map(|manner| async move {
        let relay = relay();
        let proxy = Proxy::before(&relay, manner, 0).await;
        let (link, mut events) = Link::start(options(&proxy.url(), Role::Device));
        up(&mut events).await;
        assert_eq!(link.way(), Some(Way::Http), "{manner:?}");
        send(&link, &Frame::Unsubscribe(nothing())).await;
        send(&link, &Frame::Subscribe(no_stream())).await;
        let answered = frame(&mut events, |frame| {
            let Frame::Problem(problem) = frame else {
                return None;
            };
            Some(problem.code)
        });
        assert_eq!(answered.await, Code::NotFound, "{manner:?}");
        relay.shutdown().await;
        assert_eq!(down(&mut events).await.0, Code::Restarting, "{manner:?}");
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn where_websockets_work_no_detour_is_taken() {
    let relay = relay();
    let (link, mut events) = Link::start(options(&url(&relay), Role::Device));
    up(&mut events).await;
    assert_eq!(link.way(), Some(Way::WebSocket));
}

#[tokio::test]
async fn f14_on_a_detour_that_loses_answers_every_frame_arrives_once_and_in_order() {
    let relay = relay();
    let proxy = Proxy::before(&relay, Manner::Strips, 3).await;
    let (link, mut events) = Link::start(options(&proxy.url(), Role::Device));
    up(&mut events).await;
    let count = 3_000;
    let asking = async {
        for request in 0..count {
            let mut fetch = no_page();
            fetch.request = request;
            send(&link, &Frame::Fetch(fetch)).await;
            if request % 20 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    let answers = async {
        for expected in 0..count {
            let LinkEvent::Frame { frame, .. } = soon(events.recv()).await.unwrap() else {
                panic!("the connection stays")
            };
            let Frame::Problem(problem) = frame else {
                panic!("unexpected {frame:?}")
            };
            assert_eq!(problem.request, Some(expected));
        }
    };
    tokio::join!(asking, answers);
    assert!(proxy.cut.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn f12_a_detour_is_kept_by_its_pings() {
    let config = farhelm_relay::Config {
        ping_millis: 100,
        dead_millis: 2_000,
        ..farhelm_relay::Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    let proxy = Proxy::before(&relay, Manner::Strips, 0).await;
    let (link, mut events) = Link::start(options(&proxy.url(), Role::Device));
    up(&mut events).await;
    // Nothing happens for longer than silence may last.
    let quiet = tokio::time::timeout(std::time::Duration::from_secs(5), events.recv());
    assert!(quiet.await.is_err());
    assert!(link.is_up());
}

fn no_stream() -> farhelm_proto::frame::Subscribe {
    farhelm_proto::frame::Subscribe {
        host: farhelm_proto::PeerId::from_bytes([1; 16]),
        stream: farhelm_proto::StreamId::from_bytes([2; 16]),
        after: None,
        tail: None,
    }
}

fn nothing() -> farhelm_proto::frame::Unsubscribe {
    farhelm_proto::frame::Unsubscribe {
        host: no_stream().host,
        stream: no_stream().stream,
    }
}

fn no_page() -> farhelm_proto::frame::Fetch {
    farhelm_proto::frame::Fetch {
        request: 0,
        host: no_stream().host,
        stream: no_stream().stream,
        before: 1,
        max_bytes: 1,
    }
}
