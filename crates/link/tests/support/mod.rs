//! What the tests of this crate share: a relay, a host that does as it is told, and a relay that
//! a test plays itself.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(
    clippy::missing_panics_doc,
    clippy::wildcard_enum_match_arm,
    reason = "these are tests"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use farhelm_core::keys::Identity;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions};
use farhelm_link::rng;
use farhelm_proto::Code;
use farhelm_proto::frame::{Frame, Role, Welcome};
use farhelm_relay::{Config, Relay};
use tokio::sync::mpsc;

pub mod acted;
pub mod host;
pub mod skewed;

pub fn relay() -> Relay {
    Relay::start(Config::in_memory()).unwrap()
}

pub fn url(relay: &Relay) -> String {
    format!("http://{}", relay.local_addr())
}

pub fn identity() -> Arc<Identity> {
    Arc::new(Identity::from_seed(rng::random()).unwrap())
}

pub fn options(relay: &str, role: Role) -> LinkOptions {
    let agent = "test/0".to_owned();
    LinkOptions {
        relay: relay.to_owned(),
        identity: identity(),
        role,
        generation: 1,
        dead_millis: None,
        agent,
        extra_ca: None,
    }
}

/// Everything in these tests happens soon or never.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("this happens soon")
}

pub type Events = mpsc::Receiver<LinkEvent>;

pub async fn up(events: &mut Events) -> Welcome {
    loop {
        if let LinkEvent::Up(welcome) = soon(events.recv()).await.unwrap() {
            return welcome;
        }
    }
}

pub async fn down(events: &mut Events) -> (Code, String, Duration) {
    loop {
        if let LinkEvent::Down {
            code,
            detail,
            retry_in,
        } = soon(events.recv()).await.unwrap()
        {
            return (code, detail, retry_in);
        }
    }
}

/// The next frame that `pick` picks; others are passed over.
pub async fn frame<T>(events: &mut Events, mut pick: impl FnMut(Frame) -> Option<T>) -> T {
    loop {
        if let LinkEvent::Frame { frame, .. } = soon(events.recv()).await.unwrap()
            && let Some(picked) = pick(frame)
        {
            return picked;
        }
    }
}

pub async fn send(link: &Link, frame: &Frame) {
    link.send(frame.to_bytes()).await.unwrap();
}
