//! Holds one peer's connection to a relay up, for ever.
//!
//! A connection is a handshake ([`handshake`]) and then two loops that run beside each other: one
//! reads and hands over, the other gathers what is to be sent and writes it at once. Neither
//! waits for the other, so a slow owner never keeps frames from leaving.
//!
//! Frames go by a WebSocket, or by plain HTTP where none gets through ([`ways`](crate::ways)).
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
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::lanes::{Lanes, lanes};
use crate::backoff::{Backoff, Ending};
use crate::clock::Stopwatch;
use crate::rng;
use crate::socket::{self, Life, Route, Socket, Target, Trust, Unreachable};
pub use crate::socket::{Way, blames_clock};
use crate::ways::Ways;

mod connection;
mod handshake;
mod lanes;

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
    outgoing: watch::Receiver<Option<Open>>,
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

    /// Queues a frame; waits while too much is queued. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`NotConnected`] when there is no connection. A frame that was queued is dropped when the
    /// connection ends before it left.
    pub async fn send(&self, frame: Bytes) -> Result<(), NotConnected> {
        let open = self.outgoing.borrow().clone().ok_or(NotConnected)?;
        open.lanes.send(frame).await
    }

    /// Queues a frame that overtakes what [`Link::send`] has queued. For short ones.
    ///
    /// # Errors
    ///
    /// As for [`Link::send`].
    pub async fn send_first(&self, frame: Bytes) -> Result<(), NotConnected> {
        let open = self.outgoing.borrow().clone().ok_or(NotConnected)?;
        open.lanes.send_first(frame).await
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.outgoing.borrow().is_some()
    }

    /// Ends the present connection, if there is one, and dials anew after the wait that such an end
    /// calls for.
    pub fn give_up(&self, ending: Ending, code: Code, detail: &str) {
        let open = self.outgoing.borrow().clone();
        let end = End {
            ending,
            ..End::lost(code, detail)
        };
        // Told once is enough.
        drop(open.map(|open| open.given_up.try_send(end)));
    }

    /// How many bytes have come on the present connection.
    #[must_use]
    pub fn heard(&self) -> u64 {
        let open = self.outgoing.borrow();
        open.as_ref().map_or(0, |open| open.life.bytes())
    }

    /// How frames get to the relay; nothing while there is no connection.
    #[must_use]
    pub fn way(&self) -> Option<Way> {
        self.outgoing.borrow().as_ref().map(|open| open.way)
    }
}

/// An open connection, as those see it who send.
#[derive(Clone, Debug)]
struct Open {
    lanes: Lanes,
    way: Way,
    life: Arc<Life>,
    given_up: mpsc::Sender<End>,
}

struct Driver {
    options: LinkOptions,
    events: mpsc::Sender<LinkEvent>,
    publish: watch::Sender<Option<Open>>,
}

/// Why a connection ended, or never was.
#[derive(Debug)]
struct End {
    code: Code,
    detail: String,
    ending: Ending,
    /// Whether the connection was there and carried nothing.
    stuck: bool,
}

impl End {
    fn lost(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            ending: Ending::Lost,
            stuck: false,
        }
    }
}

impl From<Unreachable> for End {
    fn from(unreachable: Unreachable) -> Self {
        Self {
            stuck: unreachable.hung,
            ..Self::lost(unreachable.code, unreachable.detail)
        }
    }
}

/// What lasts from one connection to the next.
struct Lasting {
    backoff: Backoff,
    watch: Stopwatch,
    trust: Trust,
    ways: Ways,
    /// The route of the last connection.
    route: Option<Route>,
    /// A WebSocket that got through while the detour was in use.
    ready: Option<Socket>,
}

impl Driver {
    async fn run(self) {
        let mut lasting = Lasting {
            backoff: Backoff::default(),
            watch: Stopwatch::start(),
            trust: Trust::new(self.options.extra_ca.clone()),
            ways: Ways::default(),
            route: None,
            ready: None,
        };
        loop {
            let end = tokio::select! {
                biased;
                end = self.connect(&mut lasting) => end,
                () = self.events.closed() => return,
            };
            self.publish.send_replace(None);
            let now = lasting.watch.read();
            let retry_in = lasting.backoff.ended(now, end.ending, chance());
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
                () = lasting.rest(retry_in) => {}
                () = self.events.closed() => return,
            }
        }
    }

    /// One connection from its beginning to its end.
    async fn connect(&self, lasting: &mut Lasting) -> End {
        let target = match Target::parse(&self.options.relay) {
            Ok(target) => target,
            Err(wrong) => {
                return End {
                    ending: Ending::Refused,
                    ..wrong.into()
                };
            }
        };
        let mut socket = match lasting.open(&target).await {
            Ok(socket) => socket,
            Err(end) => {
                if end.stuck {
                    lasting.is_stuck(Way::WebSocket);
                }
                return end;
            }
        };
        let way = socket.way;
        lasting.route = socket.route;
        let patience = lasting.ways.patience(handshake::PATIENCE);
        let shaking = handshake::run(&mut socket, &self.options, &target.authority, patience);
        let welcome = match shaking.await {
            Ok(welcome) => welcome,
            Err(end) => {
                if end.stuck {
                    lasting.is_stuck(way);
                }
                return end;
            }
        };
        let now = lasting.watch.read();
        lasting.backoff.is_up(now);
        lasting.ways.worked(way, now, chance());
        tracing::debug!(?way, "link up");
        let (lanes, queue) = lanes();
        let (given_up, mut told) = mpsc::channel(1);
        let open = Open {
            lanes,
            way,
            life: Arc::clone(&socket.life),
            given_up,
        };
        self.publish.send_replace(Some(open));
        if self
            .events
            .send(LinkEvent::Up(welcome.clone()))
            .await
            .is_err()
        {
            return End::lost(Code::NotNow, "nobody listens");
        }
        let better = better_way(&target, lasting.trust.again(), &mut lasting.ways, now);
        tokio::select! {
            biased;
            end = connection::run(socket, &welcome, queue, &self.events, &mut lasting.watch) => end,
            Some(end) = told.recv() => end,
            found = better, if way == Way::Http => {
                lasting.ready = Some(found);
                End {
                    ending: Ending::Moved,
                    ..End::lost(Code::NotNow, "a WebSocket gets through again")
                }
            }
        }
    }
}

impl Lasting {
    /// Nothing came through.
    fn is_stuck(&mut self, way: Way) {
        self.ways.hung(way, self.watch.read(), chance());
    }

    /// Opens a connection by the way that is likely to work, and else by the other.
    async fn open(&mut self, target: &Target) -> Result<Socket, End> {
        if let Some(socket) = self.ready.take() {
            return Ok(socket);
        }
        let patience = self.ways.patience(socket::UPGRADE);
        let Self {
            trust, watch, ways, ..
        } = self;
        let first = ways.first(watch.read());
        let opening = async {
            if first == Way::Http {
                match socket::go_round(target, trust, patience).await {
                    Ok(socket) => return Ok(socket),
                    Err(unreachable) if !unreachable.answered => return Err(unreachable),
                    Err(_) => ways.hung(first, watch.read(), chance()),
                }
            }
            let refused = match socket::dial(target, trust, patience).await {
                Err(unreachable) if unreachable.answered && first == Way::WebSocket => unreachable,
                other => return other,
            };
            tracing::debug!(detail = refused.detail, "no WebSocket; trying plain HTTP");
            socket::go_round(target, trust, patience)
                .await
                .map_err(|again| {
                    // Who answers a WebSocket with an error may be hiding behind it.
                    let telling = matches!(again.code, Code::CaptivePortal | Code::Intercepted);
                    if telling { again } else { refused }
                })
        };
        // A dial that began before the machine slept waits for what will never come.
        tokio::select! {
            biased;
            opened = opening => opened.map_err(End::from),
            () = woken() => Err(End {
                ending: Ending::Moved,
                ..End::lost(Code::RelayUnreachable, "this machine slept meanwhile")
            }),
        }
    }

    /// Waits, unless the machine wakes or gets another network meanwhile.
    async fn rest(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            let next = until.min(Instant::now() + LOOK);
            tokio::time::sleep_until(next).await;
            self.watch.read();
            let moved = self.route.as_mut().is_some_and(Route::has_changed);
            if self.watch.has_slept() || moved {
                self.ways.forget();
                self.backoff.start_anew();
                if self.route.is_none_or(|route| route.is_open()) {
                    return;
                }
            }
            if Instant::now() >= until {
                return;
            }
        }
    }
}

fn chance() -> u64 {
    u64::from_be_bytes(rng::random())
}

/// Ends when the machine has slept.
async fn woken() {
    let mut watch = Stopwatch::start();
    while !watch.has_slept() {
        tokio::time::sleep(LOOK).await;
        watch.read();
    }
}

/// Tries a WebSocket now and then while the detour is in use, from `now` on, until one gets through.
async fn better_way(target: &Target, mut trust: Trust, ways: &mut Ways, now: Duration) -> Socket {
    let begun = Instant::now();
    loop {
        let elapsed = || now + begun.elapsed();
        tokio::time::sleep(ways.rest(elapsed())).await;
        match Box::pin(socket::dial(target, &mut trust, socket::UPGRADE)).await {
            Ok(socket) => return socket,
            Err(unreachable) => {
                tracing::debug!(detail = unreachable.detail, "still no WebSocket");
                ways.stuck(Way::WebSocket, elapsed(), chance());
            }
        }
    }
}

/// What to ask for where a person watches, see [`LinkOptions::dead_millis`].
pub const WATCHED_MILLIS: u64 = 4_000;
/// How often to look whether the machine has slept or moved while nothing else goes on.
const LOOK: Duration = Duration::from_millis(500);
/// Events that wait for the owner before the link stops reading.
const EVENTS: usize = 256;
