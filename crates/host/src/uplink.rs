//! The host's side of the relay: sends what the journal holds and the relay lacks, passes letters
//! to the daemon, and never makes anybody wait. The journal is the truth; what does not fit into
//! the queue here is read from it again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use farhelm_core::keys::Identity;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions, Way};
use farhelm_proto::frame::{
    CloseOffer, Frame, Locate, Located, Members, OpenOffer, Problem, PutBlob, Taken, WantBlob,
};
use farhelm_proto::letter::Letter;
use farhelm_proto::limits::{MAILBOX_BYTES, MAILBOX_LETTERS};
use farhelm_proto::{Code, CommandId, OfferId, PeerId, StreamId, Timestamp};
use tokio::sync::{mpsc, watch};

use self::mend::{Came, Mending};
use self::queue::{Line, Queue};
use self::receipts::Receipts;
use self::rest::Rest;
use self::sent::Sent;
use crate::journal::{Journal, JournalError, Op, StoredEnvelope};

mod mend;
mod queue;
mod receipts;
mod rest;
mod sent;

/// Inputs that may wait; beyond that the journal is read again.
const WAITING: usize = 1024;
/// Bytes of envelopes among them; beyond that only their stream is named.
const WAITING_BYTES: usize = 2 * 1024 * 1024;
/// Bytes read from the journal at a time.
const CHUNK: usize = 512 * 1024;
/// When letters are sent again that the relay could not take, as when its disk was full.
const RETRY: std::time::Duration = std::time::Duration::from_secs(3);
/// What the relay link is doing, as people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RelayState {
    /// Not connected yet.
    Connecting,
    /// Connected since then, in that way.
    Up(Timestamp, Way),
    /// Not connected.
    Down {
        /// Why.
        code: Code,
        /// Detail for people.
        detail: String,
        /// Since when.
        since: Timestamp,
    },
}

#[derive(Debug)]
enum Input {
    Publish(StoredEnvelope),
    /// The journal has more of this stream.
    Behind(StreamId),
    Live(Bytes),
    Letter(Bytes),
    Taken(PeerId, CommandId),
    Members(Members),
    OpenOffer(OfferId, Timestamp),
    CloseOffer(OfferId, Option<PeerId>),
}

/// What comes for the daemon.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A letter.
    Letter(Letter),
    /// The addressee of a probe is not connected.
    Away(CommandId),
}

/// A handle to the uplink; its calls never wait.
#[derive(Clone, Debug)]
pub(crate) struct Uplink {
    inputs: mpsc::Sender<Input>,
    lagging: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
    state: watch::Receiver<RelayState>,
    sent: Sent,
}

/// The actor behind [`Uplink`].
pub(crate) struct UplinkActor {
    journal: Journal,
    inputs: mpsc::Receiver<Input>,
    lagging: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
    state: watch::Sender<RelayState>,
    letters_in: mpsc::Sender<Mail>,
    streams: BTreeMap<StreamId, Position>,
    sent: Sent,
    behind: BTreeSet<StreamId>,
    /// The stream that was filled up last; the others come before it again.
    filled: Option<StreamId>,
    queue: Queue,
    rest: Rest,
    receipts: Receipts,
    mending: Mending,
    own: StreamId,
    /// Whether another daemon has gone on with this host's own log.
    is_copy: bool,
    /// When letters are sent again that the relay could not take.
    retry: Option<tokio::time::Instant>,
    members: Option<Members>,
    offers: BTreeMap<OfferId, Timestamp>,
    /// Letters that came before it was known that this is no copy.
    early: Vec<Letter>,
    /// Whether there is a connection.
    is_linked: bool,
    /// Whether there is one, and the relay has of the host's own log what is here. Nothing but that question is sent before:
    /// a copy would let in whom the other one has removed, and do once more what that has done.
    is_up: bool,
}

/// How far the relay has a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// The relay was asked.
    Asked,
    /// The next seq to send.
    Next(u64),
    /// The relay has something else than the journal: nothing more is sent.
    Forked,
}

impl Uplink {
    /// Makes the two halves.
    pub(crate) fn new(
        journal: Journal,
        own: StreamId,
        letters_in: mpsc::Sender<Mail>,
    ) -> (Self, UplinkActor) {
        let (sender, inputs) = mpsc::channel(WAITING);
        let (state, state_seen) = watch::channel(RelayState::Connecting);
        let lagging = Arc::new(AtomicBool::new(false));
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = Sent::default();
        let actor = UplinkActor {
            journal,
            inputs,
            lagging: Arc::clone(&lagging),
            waiting: Arc::clone(&waiting),
            state,
            letters_in,
            streams: BTreeMap::new(),
            sent: sent.clone(),
            behind: BTreeSet::new(),
            filled: None,
            queue: Queue::default(),
            rest: Rest::default(),
            receipts: Receipts::default(),
            mending: Mending::default(),
            own,
            is_copy: false,
            retry: None,
            members: None,
            offers: BTreeMap::new(),
            early: Vec::new(),
            is_linked: false,
            is_up: false,
        };
        (
            Self {
                inputs: sender,
                lagging,
                waiting,
                state: state_seen,
                sent,
            },
            actor,
        )
    }

    /// What the relay link is doing.
    pub(crate) fn state(&self) -> watch::Receiver<RelayState> {
        self.state.clone()
    }

    /// How far each stream was written to the relay on this connection. A letter that is given to
    /// the uplink afterwards arrives there after it.
    pub(crate) fn sent(&self) -> BTreeMap<StreamId, u64> {
        self.sent.heads()
    }

    /// A durable envelope is to be sent.
    pub(crate) fn publish(&self, envelope: StoredEnvelope) {
        let bytes = envelope.frame.len();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= WAITING_BYTES || before == 0 {
            if !self.offer(Input::Publish(envelope)) {
                self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            }
        } else {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.offer(Input::Behind(envelope.stream));
        }
    }

    /// A live envelope is to be sent, if there is room.
    pub(crate) fn live(&self, frame: Bytes) {
        drop(self.inputs.try_send(Input::Live(frame)));
    }

    /// A letter that the journal holds is to be sent.
    pub(crate) fn letter(&self, frame: Bytes) {
        self.offer(Input::Letter(frame));
    }

    /// A letter that came is safe.
    pub(crate) fn taken(&self, from: PeerId, id: CommandId) {
        self.offer(Input::Taken(from, id));
    }

    /// These devices belong to the fleet.
    pub(crate) fn members(&self, members: Members) {
        self.offer(Input::Members(members));
    }

    /// A pairing link exists.
    pub(crate) fn open_offer(&self, offer: OfferId, until: Timestamp) {
        self.offer(Input::OpenOffer(offer, until));
    }

    /// A pairing link is used or withdrawn.
    pub(crate) fn close_offer(&self, offer: OfferId, keep: Option<PeerId>) {
        self.offer(Input::CloseOffer(offer, keep));
    }

    fn offer(&self, input: Input) -> bool {
        let taken = self.inputs.try_send(input).is_ok();
        if !taken {
            self.lagging.store(true, Ordering::Release);
        }
        taken
    }
}

impl UplinkActor {
    /// Runs until every [`Uplink`] is gone.
    pub(crate) async fn run(mut self, options: LinkOptions) -> Result<(), JournalError> {
        let identity = Arc::clone(&options.identity);
        let (link, mut events) = Link::start(options);
        let mut damages = self.journal.damages().watch();
        loop {
            let front = self.queue.front().filter(|_| self.is_linked);
            let due = self.rest.due();
            let unconfirmed = self.receipts.due().filter(|_| self.is_up);
            let done = tokio::select! {
                biased;
                event = events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.take_event(event, link.way(), &identity).await
                }
                input = self.inputs.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    self.take_input(input);
                    Ok(())
                }
                Ok(()) = damages.changed() => self.ask_for_lost(&identity).await,
                () = until(due), if due.is_some() => {
                    for stream in self.rest.over(tokio::time::Instant::now()) {
                        self.locate(stream);
                    }
                    Ok(())
                }
                () = until(unconfirmed), if unconfirmed.is_some() => {
                    for stream in self.receipts.over(tokio::time::Instant::now()) {
                        tracing::warn!(%stream, "the relay does not confirm what it was sent; it is asked");
                        self.locate(stream);
                    }
                    Ok(())
                }
                () = until(self.retry), if self.retry.is_some() => {
                    self.retry = None;
                    self.send_letters().await
                }
                (line, sent) = send(&link, front) => {
                    if sent {
                        self.queue.pop(line);
                        self.receipts.sent(tokio::time::Instant::now());
                    } else {
                        self.is_gone();
                    }
                    Ok(())
                }
            };
            self.settle(done)?;
            if self.is_copy {
                drop((link, events));
                return self.stand_aside().await;
            }
            if self.is_up && self.lagging.swap(false, Ordering::AcqRel) {
                let begun = self.begin(&identity).await;
                self.settle(begun)?;
            }
            let filled = self.refill().await;
            self.settle(filled)?;
        }
    }

    /// The relay has more of this host's own log than this state folder, or something else: another
    /// daemon with the same keys has written it, here or on another machine. Two writers of one
    /// log must not be, and this one is behind, so it leaves the relay to the other.
    async fn stand_aside(mut self) -> Result<(), JournalError> {
        self.is_gone();
        let detail = "the relay has newer events of this host than this state folder: it is a copy, or was \
                      restored from one, and another daemon with the same keys has gone on; this daemon leaves \
                      the relay to that one until it is started again";
        tracing::error!(detail, "two daemons with the keys of one host");
        self.state.send_replace(RelayState::Down {
            code: Code::Copied,
            detail: detail.to_owned(),
            since: farhelm_link::clock::now(),
        });
        while let Some(input) = self.inputs.recv().await {
            self.take_input(input);
        }
        Ok(())
    }

    /// What cannot be read or written for the moment, or of one log, must not keep everything
    /// else from the relay.
    fn settle(&self, done: Result<(), JournalError>) -> Result<(), JournalError> {
        match done {
            Err(JournalError::Closed) => Err(JournalError::Closed),
            Err(error) => {
                tracing::warn!(%error, "something is not sent to the relay now");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Asks the relay for what the journal has lost.
    async fn ask_for_lost(&mut self, identity: &Identity) -> Result<(), JournalError> {
        if self.is_up {
            for frame in self.mending.ask(&self.journal, identity).await? {
                self.queue.push(Line::First, frame.to_bytes());
            }
        }
        Ok(())
    }

    async fn take_event(
        &mut self,
        event: LinkEvent,
        way: Option<Way>,
        identity: &Identity,
    ) -> Result<(), JournalError> {
        match event {
            LinkEvent::Up(_) => {
                self.is_linked = true;
                let way = way.unwrap_or(Way::WebSocket);
                tracing::info!(way = way.as_str(), "connected to the relay");
                self.state
                    .send_replace(RelayState::Up(farhelm_link::clock::now(), way));
                fail::point("host.uplink.up");
                self.forget();
                self.locate(self.own);
                Ok(())
            }
            LinkEvent::Down { code, detail, .. } => {
                self.is_gone();
                self.state.send_if_modified(|state| {
                    let since = match state {
                        RelayState::Down { since, .. } => *since,
                        RelayState::Connecting | RelayState::Up(..) => farhelm_link::clock::now(),
                    };
                    let down = RelayState::Down {
                        code,
                        detail,
                        since,
                    };
                    let changed = *state != down;
                    // Once for each reason; the same again would fill the log of a long night.
                    if changed && let RelayState::Down { code, detail, .. } = &down {
                        tracing::warn!(%code, detail, "no connection to the relay");
                    }
                    *state = down;
                    changed
                });
                Ok(())
            }
            LinkEvent::Frame { frame, .. } => self.take_frame(frame, identity).await,
        }
    }

    /// The connection is no more.
    fn is_gone(&mut self) {
        self.is_linked = false;
        self.is_up = false;
        self.early.clear();
        self.sent.forget();
        self.queue.clear();
    }

    /// What was known of the relay is known no more.
    fn forget(&mut self) {
        self.queue.clear();
        self.behind.clear();
        self.streams.clear();
        self.sent.forget();
        self.rest.forget();
        self.receipts.forget();
        self.mending.forget();
    }

    /// Says who belongs, sends what waits, and asks where each stream stands.
    async fn begin(&mut self, identity: &Identity) -> Result<(), JournalError> {
        self.forget();
        if let Some(members) = self.members.clone() {
            self.say(&Frame::Members(members));
        }
        for (offer, until) in self.offers.clone() {
            self.say(&Frame::OpenOffer(OpenOffer { offer, until }));
        }
        self.send_letters().await?;
        self.ask_for_lost(identity).await?;
        let mut streams: Vec<_> = self
            .journal
            .streams()
            .await?
            .into_iter()
            .map(|(stream, _)| stream)
            .collect();
        streams.sort_by_key(|stream| (*stream != self.own, std::cmp::Reverse(*stream)));
        for stream in streams {
            self.locate(stream);
        }
        Ok(())
    }

    /// Sends every letter that the relay has not confirmed.
    async fn send_letters(&mut self) -> Result<(), JournalError> {
        for (_, frame) in self.journal.letters().await? {
            if self.is_up {
                self.queue.push(Line::First, frame);
            }
        }
        Ok(())
    }

    /// Forgets a letter that the relay has, or will never take. When that cannot be written, as on
    /// a full disk, it is sent again, which does no harm.
    async fn forget_letter(&mut self, id: CommandId) {
        if let Err(error) = self.journal.commit(vec![Op::LetterPosted { id }]).await {
            tracing::warn!(%error, "that a letter has left could not be noted");
            self.retry
                .get_or_insert(tokio::time::Instant::now() + RETRY);
        }
    }

    fn locate(&mut self, stream: StreamId) {
        self.streams.insert(stream, Position::Asked);
        if self.is_linked {
            let ask = Frame::Locate(Locate { stream });
            self.queue.push(Line::First, ask.to_bytes());
        }
    }

    /// The line of a log: what the host's own says is never kept behind the others.
    fn line_of(&self, stream: StreamId) -> Line {
        if stream == self.own {
            Line::First
        } else {
            Line::Bulk
        }
    }

    fn take_input(&mut self, input: Input) {
        match input {
            Input::Publish(envelope) => {
                self.waiting
                    .fetch_sub(envelope.frame.len(), Ordering::Relaxed);
                self.publish(envelope);
            }
            Input::Behind(stream) => match self.streams.get(&stream) {
                None if self.is_up => self.locate(stream),
                Some(Position::Next(_)) => drop(self.behind.insert(stream)),
                None | Some(Position::Asked | Position::Forked) => {}
            },
            Input::Live(frame) if self.is_up && self.queue.has_room() => {
                self.queue.push(Line::Bulk, frame);
            }
            Input::Live(_) => {}
            Input::Letter(frame) => {
                if self.is_up {
                    self.queue.push(Line::First, frame);
                }
            }
            Input::Taken(from, id) => self.say(&Frame::Taken(Taken { from, id })),
            Input::Members(members) => {
                self.members = Some(members.clone());
                self.say(&Frame::Members(members));
            }
            Input::OpenOffer(offer, until) => {
                self.offers.insert(offer, until);
                self.say(&Frame::OpenOffer(OpenOffer { offer, until }));
            }
            Input::CloseOffer(offer, keep) => {
                self.offers.remove(&offer);
                self.say(&Frame::CloseOffer(CloseOffer { offer, keep }));
            }
        }
    }

    /// Sends an envelope at once when the relay has everything before it.
    fn publish(&mut self, envelope: StoredEnvelope) {
        if !self.is_up {
            return;
        }
        match self.streams.get(&envelope.stream).copied() {
            None => {
                self.locate(envelope.stream);
            }
            Some(Position::Next(next))
                if next == envelope.first && !self.behind.contains(&envelope.stream) =>
            {
                let line = self.line_of(envelope.stream);
                if line == Line::First || self.queue.has_room() {
                    self.send_on(line, envelope);
                } else {
                    self.behind.insert(envelope.stream);
                }
            }
            Some(Position::Next(next)) if next <= envelope.last => {
                self.behind.insert(envelope.stream);
            }
            Some(Position::Next(_) | Position::Asked | Position::Forked) => {}
        }
    }

    /// Queues the next envelope of a stream.
    fn send_on(&mut self, line: Line, envelope: StoredEnvelope) {
        self.streams
            .insert(envelope.stream, Position::Next(envelope.last + 1));
        let now = tokio::time::Instant::now();
        self.receipts.expect(envelope.stream, envelope.last, now);
        let frame = self.sent.mark(envelope);
        self.queue.push(line, frame);
    }

    /// Says something that somebody waits for.
    fn say(&mut self, frame: &Frame) {
        if self.is_up {
            self.queue.push(Line::First, frame.to_bytes());
        }
    }

    async fn take_frame(&mut self, frame: Frame, identity: &Identity) -> Result<(), JournalError> {
        match frame {
            Frame::Located(located) => self.take_located(located, identity).await?,
            Frame::Posted(posted) => {
                fail::point("host.uplink.before_posted");
                self.forget_letter(posted.id).await;
                fail::point("host.uplink.after_posted");
            }
            // The daemon is gone only when all of us are.
            Frame::Letter(letter) => {
                fail::point("host.uplink.letter_came");
                if self.is_up {
                    drop(self.letters_in.send(Mail::Letter(letter)).await);
                } else {
                    let held: usize = self.early.iter().map(|letter| letter.body.len()).sum();
                    // The relay keeps what is too much for now.
                    if self.early.len() < MAILBOX_LETTERS && held < MAILBOX_BYTES {
                        self.early.push(letter);
                    }
                }
            }
            Frame::WantBlob(wanted) => self.give_blob(wanted).await?,
            Frame::Problem(problem) => {
                tracing::debug!(code = %problem.code, detail = problem.detail, "the relay did not act on a frame");
                if let (
                    Some(id),
                    Code::NotFound | Code::LinkExpired | Code::LinkUsed | Code::Expired,
                ) = (problem.letter, problem.code)
                {
                    self.forget_letter(id).await;
                }
                if let (Some(_), Code::StoreFailed | Code::Full | Code::RateLimited) =
                    (problem.letter, problem.code)
                {
                    let due = tokio::time::Instant::now() + RETRY;
                    self.retry.get_or_insert(due);
                }
                if let (Some(id), Code::HostOffline) = (problem.letter, problem.code) {
                    drop(self.letters_in.send(Mail::Away(id)).await);
                }
                match (problem.stream, problem.code) {
                    (Some(stream), Code::Gap) => self.locate(stream),
                    // What comes is sent on and passed on; what was not stored, later.
                    (Some(stream), Code::StoreFailed | Code::Full) => {
                        self.rest.begin(stream, tokio::time::Instant::now());
                        self.receipts.leave(stream);
                    }
                    (Some(_) | None, _) => {}
                }
                if let Some(request) = problem.request {
                    self.mending.refused(request);
                }
            }
            Frame::Page(page) => match self.mending.take(page, &self.journal, identity).await? {
                Came::Nothing => {}
                Came::Ask(frame) => self.say(&frame),
                Came::Whole(stream) => self.locate(stream),
            },
            Frame::Stored(stored) => {
                self.rest.end(stored.stream);
                let now = tokio::time::Instant::now();
                let overtakes = self.line_of(stored.stream) == Line::First;
                self.receipts
                    .confirmed(stored.stream, stored.head, overtakes, now);
            }
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Prove(_)
            | Frame::Welcome(_)
            | Frame::Bye(_)
            | Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Members(_)
            | Frame::Locate(_)
            | Frame::Envelope(_)
            | Frame::Subscribe(_)
            | Frame::Subscribed(_)
            | Frame::Unsubscribe(_)
            | Frame::Fetch(_)
            | Frame::Presence(_)
            | Frame::Taken(_)
            | Frame::OpenOffer(_)
            | Frame::CloseOffer(_)
            | Frame::PutBlob(_)
            | Frame::Blob(_) => {}
        }
        Ok(())
    }

    /// The relay says how far it has a stream; what it has must be what the journal holds.
    async fn take_located(
        &mut self,
        located: Located,
        identity: &Identity,
    ) -> Result<(), JournalError> {
        let Located { stream, head, hash } = located;
        fail::point("host.uplink.located");
        let ours = self.journal.stream(stream).await?;
        let agrees = match head {
            0 => true,
            head => self
                .journal
                .hash_at(stream, head)
                .await?
                .is_some_and(|ours| hash.as_slice() == ours),
        };
        if !agrees {
            tracing::error!(%stream, head, "the relay holds another history of this stream; was the state restored from a copy?");
            self.streams.insert(stream, Position::Forked);
            self.is_copy |= stream == self.own;
            return Ok(());
        }
        if !self.is_up && stream == self.own {
            self.is_up = true;
            self.begin(identity).await?;
            for letter in std::mem::take(&mut self.early) {
                drop(self.letters_in.send(Mail::Letter(letter)).await);
            }
        }
        self.streams.insert(stream, Position::Next(head + 1));
        self.sent.located(stream, head);
        if ours.is_some_and(|ours| ours.head > head) {
            self.behind.insert(stream);
        }
        Ok(())
    }

    async fn give_blob(&mut self, wanted: WantBlob) -> Result<(), JournalError> {
        let name = *wanted.name;
        if let Some(bytes) = self.journal.blob(name).await? {
            let put = Frame::PutBlob(PutBlob {
                name: name.into(),
                bytes: bytes.into(),
            });
            self.queue.push(Line::Bulk, put.to_bytes());
        } else {
            self.say(&Frame::Problem(unknown_blob(wanted.request)));
        }
        Ok(())
    }

    /// Reads what the relay lacks, a piece at a time, each stream in its turn.
    async fn refill(&mut self) -> Result<(), JournalError> {
        while self.is_up && self.queue.is_low() {
            let Some(stream) = self.next_behind() else {
                return Ok(());
            };
            let Some(Position::Next(next)) = self.streams.get(&stream).copied() else {
                self.behind.remove(&stream);
                continue;
            };
            fail::point("host.uplink.before_refill");
            let read = self.journal.envelopes(stream, next - 1, CHUNK).await;
            let envelopes = match read {
                Ok(envelopes) if !envelopes.is_empty() => envelopes,
                nothing => {
                    self.behind.remove(&stream);
                    nothing?;
                    continue;
                }
            };
            self.filled = Some(stream);
            let line = self.line_of(stream);
            for envelope in envelopes {
                self.send_on(line, envelope);
            }
        }
        Ok(())
    }

    /// The host's own log first, the others in turns.
    fn next_behind(&self) -> Option<StreamId> {
        if self.behind.contains(&self.own) {
            return Some(self.own);
        }
        let after = self.filled.and_then(|filled| {
            let after = (Bound::Excluded(filled), Bound::Unbounded);
            self.behind.range(after).next()
        });
        after.or_else(|| self.behind.first()).copied()
    }
}

/// Sends one frame, or waits for ever when there is none. Says whether it went out.
async fn send(link: &Link, frame: Option<(Line, Bytes)>) -> (Line, bool) {
    let Some((line, frame)) = frame else {
        return std::future::pending().await;
    };
    fail::point("host.uplink.before_send");
    let sent = match line {
        Line::First => link.send_first(frame).await,
        Line::Bulk => link.send(frame).await,
    };
    fail::point("host.uplink.after_send");
    (line, sent.is_ok())
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

const fn unknown_blob(request: u64) -> Problem {
    Problem {
        code: Code::NotFound,
        request: Some(request),
        letter: None,
        stream: None,
        detail: None,
        frame: None,
    }
}
