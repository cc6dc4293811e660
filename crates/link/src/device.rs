//! A device outside the host: what it keeps ([`Store`]), how it is let in ([`pair()`]), and how it
//! reads a host's logs and sends it commands ([`Client`]).
//!
//! A device believes nothing that the relay says of content: envelopes are checked by
//! `farhelm_core::replica`, the roster by `farhelm_core::roster`, letters by their signature. It
//! never predicts a decision: it shows how far a wish has come, and for that each wish is written
//! down before it is sent.

use farhelm_core::command::Outcome;
use farhelm_core::event::{Live, Record};
use farhelm_core::fleet::Fleet;
use farhelm_core::keys::PublicKeys;
use farhelm_core::presence::Presence;
use farhelm_core::roster::{Entry, Roster};
use farhelm_proto::{Code, CommandId, PeerId};
use tokio::sync::mpsc;

pub use crate::device::client::Client;
pub use crate::device::pair::{Patience, pair, pair_within};
pub use crate::device::store::{Pending, Store};

mod actor;
mod client;
mod home;
pub(crate) mod log;
mod pair;
mod post;
mod reader;
mod store;
mod wishes;

/// Why a device could not do as asked: a code for programs and tests, a text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DeviceError {
    /// What kind of reason.
    pub code: Code,
    /// The reason.
    pub text: String,
}

impl DeviceError {
    /// An error that says what its code means.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            text: code.sentence().to_owned(),
        }
    }

    /// An error that says more.
    #[must_use]
    pub fn because(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// A host that this device was paired with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHost {
    /// Its keys, as the pairing link had them.
    pub keys: PublicKeys,
    /// Where its relay is: `https://relay.example`.
    pub relay: String,
    /// Its name.
    pub name: String,
    /// The longest roster that was seen of it, verified.
    pub roster: Vec<Entry>,
}

impl KnownHost {
    /// Its id.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.keys.peer()
    }
}

/// A host's own log, read to its end.
#[derive(Clone, Debug)]
pub struct FleetView {
    /// What there is on the host.
    pub fleet: Fleet,
    /// Who belongs to its fleet, verified.
    pub roster: Roster,
    /// Whether the host is connected to the relay, as far as the relay says.
    pub host_online: Option<bool>,
    /// Seq of the last event.
    pub head: u64,
    /// This device.
    pub me: PeerId,
}

/// A piece of a session's log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogItem {
    /// The next event.
    Record(Box<Record>),
    /// Something that an event will supersede; only after [`Self::CaughtUp`].
    Live(Box<Live>),
    /// The relay does not have these events any more; the host has them. What follows begins with a
    /// snapshot of the open state.
    Limited {
        /// The first of them.
        first: u64,
        /// The last.
        last: u64,
    },
    /// All that was stored when the log was asked for has been given.
    CaughtUp,
}

/// How far a command has come. Stages only ever advance; not every kind of command has all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is written down here and survives a crash.
    Kept,
    /// It is in the host's mailbox.
    AtRelay,
    /// Its time was over before the host said anything: it is not known to have had an effect, and
    /// the host is asked.
    Expired,
    /// It is written down at the host, as an event; what is for the agent waits for it there.
    AtHost,
    /// The agent has been given it.
    Handed,
    /// This is what became of it.
    Done(Outcome),
}

/// A command on its way.
#[derive(Debug)]
pub struct Sent {
    /// Its id, for ever.
    pub id: CommandId,
    /// How far it has come, from [`Stage::Kept`] on; ends after [`Stage::Done`].
    pub stages: mpsc::Receiver<Stage>,
}

/// Where a client stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether there is a connection to the relay.
    pub up: bool,
    /// Why there is none, once an attempt has failed.
    pub trouble: Option<DeviceError>,
    /// What is known of the host, each fact with its time.
    pub presence: Presence,
    /// Whether the host is connected, as far as the relay says.
    pub host_online: Option<bool>,
    /// Whether the host has not said yet what its clock shows, or the relay's shows another time
    /// than this machine's and it has not said it since.
    pub clock_in_doubt: bool,
}
