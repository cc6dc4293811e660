//! What a Probe letter holds: a question that proves the path, and the answer with what the
//! answering end knows at that moment.
//!
//! 1. Either end seals a [`Probe`] with a fresh nonce for the other. The relay passes it on at
//!    once, or says at once that the other is not connected; it never keeps one.
//! 2. The other end answers with an [`Echo`] that names the nonce, sealed and signed like every
//!    letter. The relay can neither make one nor use an earlier one again.
//!
//! Both take the way that commands and receipts take, so that an echo proves that way and not
//! merely that two sockets are open. It does not know when a probe is due, nor what an answer
//! means for what is shown: that is [`crate::presence`].

use std::collections::BTreeMap;

use farhelm_proto::{Code, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::Activity;

/// How often a device in the foreground may ask, in milliseconds. The host's answer says so.
pub const EVERY_MILLIS: u64 = 3_000;
/// How often one that nobody looks at may ask, in milliseconds.
pub const IDLE_MILLIS: u64 = 60_000;
/// Bytes of a nonce, before it is written as text.
pub const NONCE_BYTES: usize = 16;

/// The body of a Probe letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ProbeBody {
    /// Answer this.
    Probe(Probe),
    /// The answer.
    Echo(Box<Echo>),
}

/// Asks the other end to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Probe {
    /// Fresh random bytes, base64url; the answer repeats it.
    pub nonce: String,
    /// The sessions that the asker wants to hear about; all that are open when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub sessions: Option<Vec<SessionId>>,
}

/// The answer to a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Echo {
    /// The probe's nonce.
    pub nonce: String,
    /// The clock of whoever answers.
    pub now: Timestamp,
    /// How often it may be asked by somebody who looks, in milliseconds.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub every_millis: u64,
    /// How often otherwise, in milliseconds.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub idle_millis: u64,
    /// How much of the host's own log the relay was handed before this answer; none from a
    /// device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub sent: Option<u64>,
    /// The sessions asked for that are open.
    #[serde(default)]
    pub sessions: BTreeMap<SessionId, Pulse>,
}

/// What a host knows of one of its sessions at the moment of an [`Echo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Pulse {
    /// Seq of the last event of its log.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub head: u64,
    /// How much of its log the relay was handed before this answer.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub sent: u64,
    /// What it is doing.
    pub state: Activity,
    /// Whether the process that holds the agent's pipes answers; unknown when absent.
    #[serde(default)]
    pub keeper: Option<bool>,
    /// Whether the agent's program runs; unknown when absent.
    #[serde(default)]
    pub agent: Option<bool>,
    /// When the agent last said something, by the host's clock.
    #[serde(default)]
    pub heard: Option<Timestamp>,
    /// Why the session waits although nobody was asked.
    #[serde(default)]
    pub held: Option<Held>,
}

/// Something that keeps a session waiting and ends by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Held {
    /// What kind of reason.
    pub code: Code,
    /// The reason, and what a person can do.
    pub text: String,
    /// Since when, by the host's clock.
    pub since: Timestamp,
}
