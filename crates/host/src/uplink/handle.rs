//! What the daemon has of the uplink: calls that never wait. What does not fit into the queue is
//! named only, and read from the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use farhelm_link::driver::Way;
use farhelm_proto::frame::Members;
use farhelm_proto::{CommandId, OfferId, PeerId, StreamId, Timestamp};
use tokio::sync::{mpsc, watch};

use super::inbox::Inbox;
use super::mend::Mending;
use super::question::Question;
use super::queue::Queue;
use super::receipts::Receipts;
use super::rest::Rest;
use super::sent::Sent;
use super::{Mail, RelayState, Standings, UplinkActor};
use crate::journal::{Journal, StoredEnvelope};

/// Inputs that may wait; beyond that the journal is read again.
const WAITING: usize = 1024;
/// Bytes of envelopes among them; beyond that only their stream is named.
const WAITING_BYTES: usize = 2 * 1024 * 1024;

/// What an uplink is told.
#[derive(Debug)]
pub(super) enum Input {
    Publish(StoredEnvelope),
    /// The journal has more of this stream.
    Behind(StreamId),
    Live(Bytes),
    Letter(Bytes),
    Taken(PeerId, CommandId),
    Members(Members),
    OpenOffer(OfferId, Timestamp),
    CloseOffer(OfferId, Option<PeerId>),
    AskForMail,
}

/// A handle to the uplink; its calls never wait.
#[derive(Clone, Debug)]
pub(crate) struct Uplink {
    inputs: mpsc::Sender<Input>,
    lagging: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
    state: watch::Receiver<RelayState>,
    sent: Sent,
    standings: Standings,
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
        let (sent, standings) = (Sent::default(), Standings::default());
        let actor = UplinkActor {
            journal,
            inputs,
            lagging: Arc::clone(&lagging),
            waiting: Arc::clone(&waiting),
            state,
            letters_in,
            streams: BTreeMap::new(),
            standings: standings.clone(),
            sent: sent.clone(),
            behind: BTreeSet::new(),
            filled: None,
            queue: Queue::default(),
            rest: Rest::default(),
            receipts: Receipts::default(),
            located: Receipts::default(),
            question: Question::default(),
            mending: Mending::default(),
            own,
            is_copy: false,
            retry: None,
            members: None,
            offers: BTreeMap::new(),
            inbox: Inbox::default(),
            way: Way::WebSocket,
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
                standings,
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

    /// How each log here stands to what the relay has of it.
    pub(crate) const fn standings(&self) -> &Standings {
        &self.standings
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

    /// Letters were not taken that the relay gives again on another connection only.
    pub(crate) fn ask_for_mail(&self) {
        self.offer(Input::AskForMail);
    }

    fn offer(&self, input: Input) -> bool {
        let taken = self.inputs.try_send(input).is_ok();
        if !taken {
            self.lagging.store(true, Ordering::Release);
        }
        taken
    }
}
