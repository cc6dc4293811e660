//! The host's side of the relay: sends what the journal holds and the relay lacks, passes letters
//! to the daemon, and never makes anybody wait. The journal is the truth; what does not fit into
//! the queue here is read from it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farhelm_core::keys::Identity;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions, Way};
use farhelm_proto::frame::{
    CloseOffer, Frame, Locate, Located, Members, OpenOffer, PutBlob, Taken, WantBlob,
};
use farhelm_proto::letter::Letter;
use farhelm_proto::{Code, CommandId, OfferId, PeerId, StreamId, Timestamp};
use tokio::sync::{mpsc, watch};

use crate::journal::{Journal, JournalError, Op, StoredEnvelope};

/// Inputs that may wait; beyond that the journal is read again.
const WAITING: usize = 1024;
/// Frames in the outgoing queue below which more is read from the journal.
const LOW: usize = 32;
/// Bytes read from the journal at a time.
const CHUNK: usize = 512 * 1024;
/// Frames in the outgoing queue above which live frames are dropped.
const HIGH: usize = 512;

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
    state: watch::Receiver<RelayState>,
    sent: Arc<Mutex<BTreeMap<StreamId, u64>>>,
}

/// The actor behind [`Uplink`].
pub(crate) struct UplinkActor {
    journal: Journal,
    inputs: mpsc::Receiver<Input>,
    lagging: Arc<AtomicBool>,
    state: watch::Sender<RelayState>,
    letters_in: mpsc::Sender<Mail>,
    streams: BTreeMap<StreamId, Position>,
    /// How far each stream was handed to the relay on this connection.
    sent: Arc<Mutex<BTreeMap<StreamId, u64>>>,
    behind: BTreeSet<StreamId>,
    queue: VecDeque<Bytes>,
    members: Option<Members>,
    offers: BTreeMap<OfferId, Timestamp>,
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
    pub(crate) fn new(journal: Journal, letters_in: mpsc::Sender<Mail>) -> (Self, UplinkActor) {
        let (sender, inputs) = mpsc::channel(WAITING);
        let (state, state_seen) = watch::channel(RelayState::Connecting);
        let lagging = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(Mutex::new(BTreeMap::new()));
        let actor = UplinkActor {
            journal,
            inputs,
            lagging: Arc::clone(&lagging),
            state,
            letters_in,
            streams: BTreeMap::new(),
            sent: Arc::clone(&sent),
            behind: BTreeSet::new(),
            queue: VecDeque::new(),
            members: None,
            offers: BTreeMap::new(),
            is_up: false,
        };
        (
            Self {
                inputs: sender,
                lagging,
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

    /// How far each stream was handed to the relay on this connection. A letter that is given to
    /// the uplink afterwards arrives there after it.
    pub(crate) fn sent(&self) -> BTreeMap<StreamId, u64> {
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A durable envelope is to be sent.
    pub(crate) fn publish(&self, envelope: StoredEnvelope) {
        self.offer(Input::Publish(envelope));
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

    fn offer(&self, input: Input) {
        if self.inputs.try_send(input).is_err() {
            self.lagging.store(true, Ordering::Release);
        }
    }
}

impl UplinkActor {
    /// Runs until every [`Uplink`] is gone.
    pub(crate) async fn run(mut self, options: LinkOptions) -> Result<(), JournalError> {
        let identity = Arc::clone(&options.identity);
        let (link, mut events) = Link::start(options);
        loop {
            let front = self.queue.front().cloned().filter(|_| self.is_up);
            tokio::select! {
                biased;
                event = events.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    self.take_event(event, link.way(), &identity).await?;
                }
                input = self.inputs.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    self.take_input(input);
                }
                sent = send(&link, front) => {
                    if sent { self.queue.pop_front(); } else { self.is_up = false; self.queue.clear(); }
                }
            }
            if self.is_up && self.lagging.swap(false, Ordering::AcqRel) {
                self.begin(&identity).await?;
            }
            self.refill().await?;
        }
    }

    async fn take_event(
        &mut self,
        event: LinkEvent,
        way: Option<Way>,
        identity: &Identity,
    ) -> Result<(), JournalError> {
        match event {
            LinkEvent::Up(_) => {
                self.is_up = true;
                self.state.send_replace(RelayState::Up(
                    farhelm_link::clock::now(),
                    way.unwrap_or(Way::WebSocket),
                ));
                self.begin(identity).await
            }
            LinkEvent::Down { code, detail, .. } => {
                self.is_up = false;
                self.queue.clear();
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
                    *state = down;
                    changed
                });
                Ok(())
            }
            LinkEvent::Frame { frame, .. } => self.take_frame(frame).await,
        }
    }

    /// A new connection: say who belongs, send what waits, and ask where each stream stands.
    async fn begin(&mut self, identity: &Identity) -> Result<(), JournalError> {
        fail::point("host.uplink.up");
        self.queue.clear();
        self.behind.clear();
        self.streams.clear();
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let members = self.members.clone();
        self.queue
            .extend(members.map(|members| Frame::Members(members).to_bytes()));
        for (offer, until) in &self.offers {
            self.queue.push_back(
                Frame::OpenOffer(OpenOffer {
                    offer: *offer,
                    until: *until,
                })
                .to_bytes(),
            );
        }
        let letters = self.journal.letters().await?;
        self.queue
            .extend(letters.into_iter().map(|(_, frame)| frame));
        let own: StreamId = identity.peer().into();
        let mut streams: Vec<_> = self
            .journal
            .streams()
            .await?
            .into_iter()
            .map(|(stream, _)| stream)
            .collect();
        streams.sort_by_key(|stream| (*stream != own, std::cmp::Reverse(*stream)));
        for stream in streams {
            self.locate(stream);
        }
        Ok(())
    }

    fn locate(&mut self, stream: StreamId) {
        self.streams.insert(stream, Position::Asked);
        self.queue
            .push_back(Frame::Locate(Locate { stream }).to_bytes());
    }

    fn take_input(&mut self, input: Input) {
        match input {
            Input::Publish(envelope) => self.publish(envelope),
            Input::Live(frame) if self.queue.len() < HIGH => self.push(frame),
            Input::Live(_) => {}
            Input::Letter(frame) => self.push(frame),
            Input::Taken(from, id) => self.push(Frame::Taken(Taken { from, id }).to_bytes()),
            Input::Members(members) => {
                self.members = Some(members.clone());
                self.push(Frame::Members(members).to_bytes());
            }
            Input::OpenOffer(offer, until) => {
                self.offers.insert(offer, until);
                self.push(Frame::OpenOffer(OpenOffer { offer, until }).to_bytes());
            }
            Input::CloseOffer(offer, keep) => {
                self.offers.remove(&offer);
                self.push(Frame::CloseOffer(CloseOffer { offer, keep }).to_bytes());
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
                if self.queue.len() < HIGH {
                    self.is_sent(envelope.stream, envelope.last);
                    self.queue.push_back(envelope.frame);
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

    /// The relay has the stream so far, or has it in the queue.
    fn is_sent(&mut self, stream: StreamId, head: u64) {
        self.streams.insert(stream, Position::Next(head + 1));
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(stream, head);
    }

    fn push(&mut self, frame: Bytes) {
        if self.is_up {
            self.queue.push_back(frame);
        }
    }

    async fn take_frame(&mut self, frame: Frame) -> Result<(), JournalError> {
        match frame {
            Frame::Located(located) => self.take_located(located).await?,
            Frame::Posted(posted) => {
                fail::point("host.uplink.before_posted");
                self.journal
                    .commit(vec![Op::LetterPosted { id: posted.id }])
                    .await?;
                fail::point("host.uplink.after_posted");
            }
            // The daemon is gone only when all of us are.
            Frame::Letter(letter) => {
                fail::point("host.uplink.letter_came");
                drop(self.letters_in.send(Mail::Letter(letter)).await);
            }
            Frame::WantBlob(wanted) => self.give_blob(wanted).await?,
            Frame::Problem(problem) => {
                tracing::debug!(code = %problem.code, detail = problem.detail, "the relay did not act on a frame");
                if let (
                    Some(id),
                    Code::NotFound | Code::LinkExpired | Code::LinkUsed | Code::Expired,
                ) = (problem.letter, problem.code)
                {
                    self.journal.commit(vec![Op::LetterPosted { id }]).await?;
                }
                if let (Some(id), Code::HostOffline) = (problem.letter, problem.code) {
                    drop(self.letters_in.send(Mail::Away(id)).await);
                }
                if let (Some(stream), Code::Gap | Code::StoreFailed) =
                    (problem.stream, problem.code)
                {
                    self.locate(stream);
                }
            }
            Frame::Stored(_)
            | Frame::Hello(_)
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
            | Frame::Page(_)
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
    async fn take_located(&mut self, located: Located) -> Result<(), JournalError> {
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
            return Ok(());
        }
        self.is_sent(stream, head);
        if ours.is_some_and(|ours| ours.head > head) {
            self.behind.insert(stream);
        }
        Ok(())
    }

    async fn give_blob(&mut self, wanted: WantBlob) -> Result<(), JournalError> {
        let name = *wanted.name;
        if let Some(bytes) = self.journal.blob(name).await? {
            self.push(
                Frame::PutBlob(PutBlob {
                    name: name.into(),
                    bytes: bytes.into(),
                })
                .to_bytes(),
            );
        }
        Ok(())
    }

    /// Reads what the relay lacks, a piece at a time.
    async fn refill(&mut self) -> Result<(), JournalError> {
        while self.is_up && self.queue.len() < LOW {
            let Some(stream) = self.behind.first().copied() else {
                return Ok(());
            };
            let Some(Position::Next(next)) = self.streams.get(&stream).copied() else {
                self.behind.remove(&stream);
                continue;
            };
            fail::point("host.uplink.before_refill");
            let envelopes = self.journal.envelopes(stream, next - 1, CHUNK).await?;
            let Some(last) = envelopes.last() else {
                self.behind.remove(&stream);
                continue;
            };
            self.is_sent(stream, last.last);
            self.queue
                .extend(envelopes.into_iter().map(|envelope| envelope.frame));
        }
        Ok(())
    }
}

/// Sends one frame, or waits for ever when there is none. Says whether it went out.
async fn send(link: &Link, frame: Option<Bytes>) -> bool {
    match frame {
        Some(frame) => {
            fail::point("host.uplink.before_send");
            let sent = link.send(frame).await.is_ok();
            fail::point("host.uplink.after_send");
            sent
        }
        None => std::future::pending().await,
    }
}
