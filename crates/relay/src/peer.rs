//! One authenticated connection, whatever carries it: a task that owns its socket, sends what is in its outbox, and
//! acts on what the peer sends.
//!
//! Reading and sending go on side by side, so that a peer that reads slowly is still heard. When
//! too much waits for it, it is not read any more; when too much of its own is on the way into
//! the store, neither.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farhelm_proto::frame::{self, Bye, Frame, FrameError, Role};
use farhelm_proto::{Code, PeerId, StreamId, limits};

use crate::auth::{self, Proven, Refusal};
use crate::clock;
use crate::lock::Lock as _;
use crate::outbox::{About, Outbox, SubId};
use crate::state::{SharedHub, State};
use crate::wire::{Socket, WireError};

mod blobs;
mod host;
mod letters;
mod reader;

/// A connection whose peer proved its key.
pub(crate) struct Peer<W> {
    state: Arc<State>,
    wire: W,
    me: PeerId,
    outbox: Arc<Outbox>,
    /// The hub of this host, when the peer is one.
    own: Option<SharedHub>,
    /// Bytes of envelopes that are on the way into the store.
    storing: Arc<AtomicUsize>,
    subs: Vec<Sub>,
    next_sub: SubId,
    /// What is sent next.
    hand: VecDeque<Bytes>,
    /// What came and was not acted on.
    arrived: Vec<Bytes>,
    /// Why nothing more comes.
    ended: Option<WireError>,
    /// The relay's tick at which a long message was last seen to be under way.
    under_way: Option<u32>,
    /// Subscriptions that are fed from the store, in turns.
    feeding: VecDeque<SubId>,
    /// Whether letters wait, beyond the last one sent.
    mail: bool,
    /// Whether letters were put before what is not sent yet.
    mail_ahead: bool,
    last_letter: i64,
    /// Frames in the hand that an evil relay has seen.
    #[cfg(feature = "evil")]
    spoiled: usize,
}

/// A stream that the peer follows.
struct Sub {
    id: SubId,
    host: PeerId,
    stream: StreamId,
    hub: SharedHub,
}

/// What a handler returns: why the connection must end.
type Handled = Result<(), Bye>;

/// Runs a connection from its upgrade to its end.
pub(crate) async fn serve<W: Socket>(
    state: Arc<State>,
    mut wire: W,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let patience = Duration::from_millis(state.config.hello_millis);
    let proven = tokio::time::timeout(patience, auth::handshake(&state, &mut wire)).await;
    let late = Bye {
        code: Code::Timeout,
        detail: None,
        retry_millis: None,
    };
    let admitted = match proven.unwrap_or(Err(Some(late))) {
        Ok(proven) => admit(&state, proven).await.map_err(Some),
        Err(refusal) => Err(refusal),
    };
    drop(permit);
    match admitted {
        Ok((proven, outbox, own)) => {
            wire.set_limit(limits::FRAME_BYTES);
            Peer::new(state, wire, proven, outbox, own).run().await;
        }
        Err(Some(bye)) => wire.close(Some(Frame::Bye(bye).to_bytes()), FAREWELL).await,
        Err(None) => {}
    }
}

/// Lists the connection everywhere it has to be known.
async fn admit(
    state: &Arc<State>,
    proven: Proven,
) -> Result<(Proven, Arc<Outbox>, Option<SharedHub>), Bye> {
    fail::point("relay.peer.proven");
    let (_, dead_millis) = state.config.liveness(proven.dead_millis);
    let outbox = state.outbox(proven.peer, dead_millis);
    outbox.say(&auth::welcome(state, proven.dead_millis));
    let own = match proven.role {
        Role::Host => {
            let hub = state
                .hub_of_host(proven.peer)
                .await
                .map_err(|_| bye(Code::StoreFailed, "store"))?;
            let seated = hub
                .hold()
                .seat(Arc::clone(&outbox), proven.generation, clock::now());
            match seated {
                Ok(Some(older)) => {
                    older.close(bye(Code::Superseded, "a newer connection of this host"));
                }
                Ok(None) => {}
                Err(crate::hub::Superseded) => {
                    return Err(bye(Code::Superseded, "a newer connection is there"));
                }
            }
            Some(hub)
        }
        Role::Device => None,
    };
    outbox.mail();
    state.enter(&outbox);
    Ok((proven, outbox, own))
}

impl<W: Socket> Peer<W> {
    fn new(
        state: Arc<State>,
        wire: W,
        proven: Proven,
        outbox: Arc<Outbox>,
        own: Option<SharedHub>,
    ) -> Self {
        tracing::debug!(peer = %proven.peer, role = ?proven.role, "connected");
        Self {
            state,
            wire,
            me: proven.peer,
            outbox,
            own,
            storing: Arc::default(),
            subs: Vec::new(),
            next_sub: crate::outbox::CONTROL,
            hand: VecDeque::new(),
            arrived: Vec::new(),
            ended: None,
            under_way: None,
            feeding: VecDeque::new(),
            mail: false,
            mail_ahead: false,
            last_letter: 0,
            #[cfg(feature = "evil")]
            spoiled: 0,
        }
    }

    async fn run(mut self) {
        let refusal = loop {
            if let Err(refusal) = poll_fn(|cx| self.poll_turn(cx)).await {
                break refusal;
            }
            // Boxed, so that a connection that waits does not carry the largest handler.
            if let Err(bye) = Box::pin(self.act()).await {
                break Some(bye);
            }
        };
        self.leave();
        tracing::debug!(peer = %self.me, code = ?refusal.as_ref().map(|bye| bye.code), "disconnected");
        let Some(bye) = refusal else { return };
        if matches!(bye.code, Code::BadFrame | Code::TooLarge) {
            // Of peers that proved their key. Strangers could fill the log.
            tracing::info!(peer = %self.me, code = %bye.code, detail = bye.detail, "a peer sent what is no frame, and was closed");
        }
        let Self {
            mut wire,
            outbox,
            mut hand,
            ..
        } = self;
        let farewell = async {
            outbox.take(&mut hand);
            poll_fn(|cx| wire.poll_send(cx, &mut hand)).await.is_ok()
        };
        if tokio::time::timeout(FAREWELL, farewell).await == Ok(true) {
            wire.close(Some(Frame::Bye(bye).to_bytes()), FAREWELL).await;
        }
    }

    /// Moves bytes both ways. Ready when there is something to act on, or an end.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        self.outbox.register(cx.waker());
        if let Some(bye) = self.outbox.bye() {
            return Poll::Ready(Err(Some(bye)));
        }
        let read = self.poll_read(cx);
        let sent = match self.poll_write(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => {
                self.ended.get_or_insert(error);
                false
            }
            Poll::Pending => false,
        };
        if !self.arrived.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(auth::bye_for(error)));
        }
        // Letters overtake what waits, one piece of them at a time.
        self.mail_ahead &= !sent;
        let due = self.mail && !self.mail_ahead;
        if due || (sent && !self.feeding.is_empty()) {
            return Poll::Ready(Ok(()));
        }
        if !read && self.may_read() {
            // What was sent made room, and nobody else would wake this task to read.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn may_read(&self) -> bool {
        self.storing.load(Ordering::Relaxed) <= STORING_BYTES && !self.outbox.is_full()
    }

    /// Reads what there is, unless too much is under way; whether it did.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.may_read() {
            return false;
        }
        let mut bytes = 0;
        while self.ended.is_none() && self.arrived.len() < TURN_FRAMES && bytes < TURN_BYTES {
            match self.wire.poll_recv(cx) {
                Poll::Ready(Ok(message)) => {
                    bytes += message.len();
                    #[cfg(not(feature = "evil"))]
                    self.arrived.push(message);
                    #[cfg(feature = "evil")]
                    self.arrived.extend(crate::tamper::heard(
                        &self.state,
                        self.me,
                        self.outbox.id,
                        message,
                    ));
                }
                Poll::Ready(Err(error)) => self.ended = Some(error),
                Poll::Pending => break,
            }
        }
        if self.wire.stirred() {
            self.note_life();
        }
        true
    }

    /// Bytes came. A peer on a thin line that sends something long cannot ask for a sign of life
    /// meanwhile, so it is given one.
    fn note_life(&mut self) {
        let tick = self.state.tick();
        self.outbox.see(tick);
        if !self.arrived.is_empty() {
            self.under_way = None;
        } else if self.under_way.is_some_and(|before| before != tick) {
            self.under_way = Some(tick);
            self.outbox.say(&Frame::Pong(0));
        } else {
            self.under_way = Some(tick);
        }
    }

    /// Ready when everything that waited was sent.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            if self.hand.is_empty() {
                self.outbox.take(&mut self.hand);
            } else if OVERTAKES {
                self.outbox.take_first(&mut self.hand);
            }
            let errands = self.outbox.errands();
            self.feeding.extend(errands.behind);
            self.mail |= errands.mail;
            let more = !self.hand.is_empty();
            if more {
                fail::point("relay.peer.before_send");
            }
            #[cfg(feature = "evil")]
            crate::tamper::said(
                &self.state,
                self.me,
                self.outbox.id,
                &mut self.hand,
                self.spoiled,
            );
            let sent = self.wire.poll_send(cx, &mut self.hand);
            #[cfg(feature = "evil")]
            {
                self.spoiled = self.hand.len();
            }
            std::task::ready!(sent)?;
            if more {
                fail::point("relay.peer.after_send");
            }
            if !more {
                return Poll::Ready(Ok(()));
            }
            if self.mail || (self.hand.is_empty() && !self.feeding.is_empty()) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Acts on what came, or fetches more to send.
    async fn act(&mut self) -> Handled {
        if self.arrived.is_empty() {
            return self.feed().await;
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut envelopes = Vec::new();
        for bytes in arrived.drain(..) {
            let number = frame::kind(&bytes).ok_or_else(|| bye(Code::BadFrame, "not a frame"))?;
            if bytes.len() > largest(number) {
                return Err(bye(
                    Code::TooLarge,
                    "a frame is larger than its kind may be",
                ));
            }
            if number == ENVELOPE {
                envelopes.extend(self.envelope(bytes)?);
                continue;
            }
            self.ingest(&mut envelopes).await;
            if number == LETTER {
                self.post(bytes).await?;
            } else {
                self.control(number, &bytes).await?;
            }
        }
        self.ingest(&mut envelopes).await;
        if arrived.capacity() <= KEPT_CAPACITY {
            self.arrived = arrived;
        }
        Ok(())
    }

    async fn control(&mut self, number: u64, bytes: &[u8]) -> Handled {
        let frame = match Frame::parse(bytes) {
            Ok(frame) => frame,
            Err(FrameError::Unknown(number)) => {
                self.outbox
                    .complain(Code::UnknownFrame, About::Frame(number));
                return Ok(());
            }
            Err(FrameError::Malformed(_)) => return Err(bye(Code::BadFrame, "not a frame")),
        };
        match frame {
            Frame::Ping(n) => self.outbox.hasten(&Frame::Pong(n)),
            Frame::Pong(_) => {}
            Frame::Bye(_) => self.ended = Some(WireError::Ended),
            Frame::Problem(problem) => self.problem(&problem),
            Frame::Members(members) => self.members(members).await,
            Frame::Locate(locate) => self.locate(locate.stream).await,
            Frame::OpenOffer(open) => self.open_offer(&open),
            Frame::CloseOffer(close) => self.close_offer(&close),
            Frame::PutBlob(put) => self.put_blob(put).await?,
            Frame::Subscribe(ask) => self.subscribe(ask).await,
            Frame::Unsubscribe(stop) => self.unsubscribe(stop.host, stop.stream),
            Frame::Fetch(fetch) => self.fetch(fetch).await,
            Frame::WantBlob(want) => self.want_blob(want).await,
            Frame::Taken(taken) => self.taken(&taken).await,
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Prove(_)
            | Frame::Welcome(_)
            | Frame::Located(_)
            | Frame::Envelope(_)
            | Frame::Stored(_)
            | Frame::Subscribed(_)
            | Frame::Page(_)
            | Frame::Presence(_)
            | Frame::Letter(_)
            | Frame::Posted(_)
            | Frame::Blob(_) => self.outbox.complain(Code::NotNow, About::Frame(number)),
        }
        Ok(())
    }

    /// The hub of this host; a device is told that it may not do what it tried.
    fn own_hub(&self, number: u64) -> Option<SharedHub> {
        if self.own.is_none() {
            self.outbox.complain(Code::NotAllowed, About::Frame(number));
        }
        self.own.clone()
    }

    fn leave(&mut self) {
        if let Some(own) = &self.own {
            own.hold().unseat(self.outbox.id, clock::now());
        }
        for sub in self.subs.drain(..) {
            sub.hub.hold().leave(self.outbox.id);
        }
        self.state.leave(self.outbox.id, self.me);
    }
}

fn bye(code: Code, detail: &str) -> Bye {
    Bye {
        code,
        detail: Some(detail.to_owned()),
        retry_millis: None,
    }
}

/// The most that a frame of a kind may have.
const fn largest(number: u64) -> usize {
    match number {
        ENVELOPE | LETTER | PUT_BLOB => limits::FRAME_BYTES,
        _ => limits::CONTROL_FRAME_BYTES,
    }
}

const ENVELOPE: u64 = 13;
const LETTER: u64 = 30;
const PUT_BLOB: u64 = 50;
/// Whether something may be put before what is in the hand; an evil relay remembers places in it.
const OVERTAKES: bool = !cfg!(feature = "evil");
/// Frames acted on at once.
const TURN_FRAMES: usize = 256;
const TURN_BYTES: usize = 256 * 1024;
/// A list of frames larger than this is given back between floods.
const KEPT_CAPACITY: usize = 8;
/// Envelopes of one connection that may be on the way into the store.
const STORING_BYTES: usize = 2 * 1024 * 1024;
/// How long a peer that is sent away may take to hear why.
const FAREWELL: Duration = Duration::from_secs(1);
