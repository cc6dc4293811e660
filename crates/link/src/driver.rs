//! Holds one peer's connection to a relay up, for ever.
//!
//! A connection is a handshake ([`handshake`]) and then two loops that run beside each other: one
//! reads and hands over, the other gathers what is to be sent and writes it at once. Neither
//! waits for the other, so a slow owner never keeps frames from leaving.
//!
//! It knows frames, and nothing of what they are for: what was not sent when a connection ends is
//! dropped, and whoever needs it to arrive keeps it until it was acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farhelm_core::keys::Identity;
use farhelm_proto::Code;
use farhelm_proto::frame::{Frame, Role, Welcome};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::{Backoff, Ending};
use crate::clock::Stopwatch;
use crate::rng;
use crate::socket::{self, Target, Trust};

mod connection;
mod handshake;

/// Which relay, and as whom.
#[derive(Debug)]
pub struct LinkOptions {
    /// `http(s)://authority`, no path.
    pub relay: String,
    /// Who connects.
    pub identity: Arc<Identity>,
    /// As a host or as a device.
    pub role: Role,
    /// A host counts its connections up, so that the newer of two wins; zero for devices.
    pub generation: u64,
    /// The silence after which the connection is to count as dead, in milliseconds, where somebody
    /// watches; otherwise the relay's word is taken.
    pub dead_millis: Option<u64>,
    /// Program and version, for the operator's log.
    pub agent: String,
    /// A file of authorities to trust beside the system's.
    pub extra_ca: Option<PathBuf>,
}

/// What a link has to say.
#[derive(Debug)]
pub enum LinkEvent {
    /// The relay has accepted this peer. What was sent before and not acknowledged may be lost.
    Up(Welcome),
    /// There is no connection; another one is tried after `retry_in`.
    Down {
        /// What kind of reason.
        code: Code,
        /// The reason, in words for people.
        detail: String,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// The relay sent something that is not for the link itself.
    Frame {
        /// What it says.
        frame: Frame,
        /// The same, as it came.
        raw: Bytes,
    },
}

/// There is no connection at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not connected to the relay")]
pub struct NotConnected;

/// One peer's connection to a relay, across reconnects. Ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    outgoing: watch::Receiver<Option<mpsc::Sender<Bytes>>>,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    /// Begins to connect, on the current runtime. It ends, too, when the receiver is dropped.
    #[must_use]
    pub fn start(options: LinkOptions) -> (Self, mpsc::Receiver<LinkEvent>) {
        let (events, received) = mpsc::channel(EVENTS);
        let (publish, outgoing) = watch::channel(None);
        let driver = Driver {
            options,
            events,
            publish,
        };
        let task = AbortOnDropHandle::new(farhelm_world::spawn(driver.run()));
        (
            Self {
                outgoing,
                _task: task,
            },
            received,
        )
    }

    /// Queues a frame; waits while the queue is full. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`NotConnected`] when there is no connection. A frame that was queued is dropped when the
    /// connection ends before it left.
    pub async fn send(&self, frame: Bytes) -> Result<(), NotConnected> {
        let queue = self.outgoing.borrow().clone().ok_or(NotConnected)?;
        queue.send(frame).await.map_err(|_| NotConnected)
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.outgoing.borrow().is_some()
    }
}

struct Driver {
    options: LinkOptions,
    events: mpsc::Sender<LinkEvent>,
    publish: watch::Sender<Option<mpsc::Sender<Bytes>>>,
}

/// Why a connection ended, or never was.
#[derive(Debug)]
struct End {
    code: Code,
    detail: String,
    ending: Ending,
}

impl End {
    fn lost(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            ending: Ending::Lost,
        }
    }
}

impl Driver {
    async fn run(self) {
        let mut backoff = Backoff::default();
        let mut watch = Stopwatch::start();
        let mut trust = Trust::new(self.options.extra_ca.clone());
        loop {
            let end = tokio::select! {
                biased;
                end = self.connect(&mut trust, &mut backoff, &mut watch) => end,
                () = self.events.closed() => return,
            };
            self.publish.send_replace(None);
            let chance = u64::from_be_bytes(rng::random());
            let retry_in = backoff.ended(watch.read(), end.ending, chance);
            tracing::debug!(code = %end.code, detail = end.detail, ?retry_in, "link down");
            let down = LinkEvent::Down {
                code: end.code,
                detail: end.detail,
                retry_in,
            };
            if self.events.send(down).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(retry_in) => {}
                () = self.events.closed() => return,
            }
        }
    }

    /// One connection from its beginning to its end.
    async fn connect(
        &self,
        trust: &mut Trust,
        backoff: &mut Backoff,
        watch: &mut Stopwatch,
    ) -> End {
        let unreachable = |socket::Unreachable(detail)| End::lost(Code::RelayUnreachable, detail);
        let target = match Target::parse(&self.options.relay).map_err(unreachable) {
            Ok(target) => target,
            Err(end) => {
                return End {
                    ending: Ending::Refused,
                    ..end
                };
            }
        };
        let mut socket = match socket::dial(&target, trust).await.map_err(unreachable) {
            Ok(socket) => socket,
            Err(end) => return end,
        };
        let welcome = match handshake::run(&mut socket, &self.options, &target.authority).await {
            Ok(welcome) => welcome,
            Err(end) => return end,
        };
        backoff.is_up(watch.read());
        let (outgoing, queue) = mpsc::channel(QUEUE);
        self.publish.send_replace(Some(outgoing));
        if self
            .events
            .send(LinkEvent::Up(welcome.clone()))
            .await
            .is_err()
        {
            return End::lost(Code::NotNow, "nobody listens");
        }
        connection::run(socket, &welcome, queue, &self.events, watch).await
    }
}

/// What to ask for where a person watches, see [`LinkOptions::dead_millis`].
pub const WATCHED_MILLIS: u64 = 4_000;
/// Events that wait for the owner before the link stops reading.
const EVENTS: usize = 256;
/// Frames that wait to be written before senders wait.
const QUEUE: usize = 256;
