//! Thin lines: what a phone in the countryside has. A line of ours lets so many bytes through in
//! a second and no more.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farhelm_core::event::HostEvent;
use farhelm_link::device::Store;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions};
use farhelm_proto::frame::{Fetch, Frame, Role, Subscribe};
use farhelm_relay::{Config, Relay};
use support::acted::Acted;
use support::host::Host;
use support::{frame, options, send, soon, up, url};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A line to `to`; what comes down it is counted.
struct Line {
    address: SocketAddr,
    down: Arc<AtomicUsize>,
    _accepting: tokio_util::task::AbortOnDropHandle<()>,
}

impl Line {
    /// `bytes` go through in each twentieth of a second, both ways.
    async fn to(to: SocketAddr, bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let down = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&down);
        let accepting = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let far = TcpStream::connect(to).await.unwrap();
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    let up = AtomicUsize::new(0);
                    tokio::select! {
                        () = trickle(near_in, far_out, bytes, &up) => {}
                        () = trickle(far_in, near_out, bytes, &count) => {}
                    }
                });
            }
        });
        Self {
            address,
            down,
            _accepting: tokio_util::task::AbortOnDropHandle::new(accepting),
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn trickle(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    bytes: usize,
    count: &AtomicUsize,
) {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut buffer = vec![0; bytes];
    loop {
        ticks.tick().await;
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => {
                count.fetch_add(read, Ordering::Relaxed);
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn f13_a_long_message_that_comes_slowly_is_a_sign_of_life() {
    let mut relay = Acted::start().await;
    (relay.ping_millis, relay.dead_millis) = (100, 500);
    let line = Line::to(relay.url()["http://".len()..].parse().unwrap(), 2_000).await;
    let (link, mut events) = Link::start(options(&line.url(), Role::Device));
    let mut connection = relay.accept().await;
    up(&mut events).await;
    // Three times the silence that is allowed, and nothing but one message in it. The relay does
    // not even answer pings.
    let page = Frame::Blob(farhelm_proto::frame::Blob {
        request: 1,
        bytes: vec![7; 60_000].into(),
    });
    connection.send(&page).await;
    let LinkEvent::Frame { frame, .. } = soon(events.recv()).await.unwrap() else {
        panic!("the connection stays");
    };
    assert_eq!(frame, page);
    assert!(link.is_up());
}

#[tokio::test]
async fn f13_a_long_message_that_goes_slowly_keeps_the_connection() {
    let relay = Relay::start(Config {
        ping_millis: 100,
        dead_millis: 500,
        ..Config::in_memory()
    })
    .unwrap();
    let line = Line::to(relay.local_addr(), 2_000).await;
    relay.allow_authority(&line.address.to_string()).unwrap();
    let (link, mut events) = Link::start(options(&line.url(), Role::Host));
    up(&mut events).await;
    let blob = vec![7_u8; 60_000];
    let name: [u8; 32] = farhelm_core::seal::blob_name(&blob);
    let put = Frame::PutBlob(farhelm_proto::frame::PutBlob {
        name: name.into(),
        bytes: blob.into(),
    });
    send(&link, &put).await;
    // What is asked behind it is answered on the same connection.
    let locate = farhelm_proto::frame::Locate {
        stream: farhelm_proto::StreamId::from_bytes([9; 16]),
    };
    send(&link, &Frame::Locate(locate)).await;
    let LinkEvent::Frame { frame, .. } = soon(events.recv()).await.unwrap() else {
        panic!("the connection stays");
    };
    assert!(matches!(frame, Frame::Located(_)), "{frame:?}");
}

#[tokio::test]
async fn f13_on_a_thin_line_the_present_comes_first_and_history_when_it_is_asked_for() {
    let relay = support::relay();
    let line = Line::to(relay.local_addr(), 1_000).await;
    relay.allow_authority(&line.address.to_string()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut host = Host::start(&url(&relay)).await;
    host.admit(&store).await;
    for _ in 0..200 {
        host.tell(HostEvent::HostStarted {
            name: "x".repeat(4_000),
            version: "1".to_owned(),
        })
        .await;
    }
    host.snapshot().await;
    let base = host.logs[&host.home()].last;
    host.tell(HostEvent::HostStarted {
        name: "the present".to_owned(),
        version: "1".to_owned(),
    })
    .await;
    let identity = store.identity().unwrap();
    let (link, mut events) = Link::start(LinkOptions {
        identity,
        ..options(&line.url(), Role::Device)
    });
    up(&mut events).await;
    let (host_id, stream) = (host.peer(), host.home());
    let ask = Frame::Subscribe(Subscribe {
        host: host_id,
        stream,
        after: None,
        tail: None,
    });
    send(&link, &ask).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&(base + 1)) {
        let header = frame(&mut events, |frame| {
            let Frame::Envelope(envelope) = frame else {
                return None;
            };
            envelope.parse_header().ok()
        })
        .await;
        seen.push(header.last);
    }
    assert_eq!(seen, [base, base + 1]);
    // A megabyte of history did not come before it.
    let came = line.down.load(Ordering::Relaxed);
    assert!(came < 30_000, "{came} bytes came first");
    let fetch = Fetch {
        request: 5,
        host: host_id,
        stream,
        before: base,
        max_bytes: 10_000,
    };
    send(&link, &Frame::Fetch(fetch)).await;
    let page = frame(&mut events, |frame| {
        let Frame::Page(page) = frame else {
            return None;
        };
        Some(page)
    })
    .await;
    assert!(page.more && page.request == 5);
}
