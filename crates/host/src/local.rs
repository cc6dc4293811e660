//! The daemon's unix socket: the CLI of the same user on the same machine, and nobody else.
//!
//! A connection is one request, a line of JSON, and its answers, a line each. Nothing is sealed
//! here: the socket is 0600 in a 0700 folder, and the kernel says who is at the other end.

use std::path::{Path, PathBuf};

use farhelm_core::command::{Command, Outcome};
use farhelm_core::content::BlobRef;
use farhelm_core::event::{Live, Record};
use farhelm_core::fleet::Fleet;
use farhelm_core::probe::Echo;
use farhelm_proto::{Code, PeerId, SessionId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::AgentChoice;
use crate::environment::Environment;

mod client;
mod server;

pub use client::{Answers, LocalClient, LocalError};
pub(crate) use server::serve;

/// Longest line either side sends, in bytes.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// What the CLI asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum LocalRequest {
    /// How the daemon is.
    Status,
    /// What is known of each session at this moment.
    Pulse,
    /// A new session with the environment of this terminal.
    Start {
        /// What it is to be called, so that who gets no answer can ask again without making two.
        #[serde(default)]
        session: Option<SessionId>,
        /// The folder.
        dir: PathBuf,
        /// The agent; the first one found when absent.
        agent: Option<AgentChoice>,
        /// The variables.
        environment: Environment,
        /// The first prompt.
        prompt: Option<String>,
    },
    /// Somebody at the host wants something.
    Wish {
        /// What.
        command: Command,
    },
    /// The list of sessions; with `follow`, again after each change.
    Fleet {
        /// Whether to go on.
        follow: bool,
    },
    /// A session's log; with `follow`, also what comes.
    Log {
        /// Which session.
        session: SessionId,
        /// The first seq wanted.
        from: u64,
        /// Whether to go on.
        follow: bool,
    },
    /// A big piece of a session's log.
    Blob {
        /// Which session.
        session: SessionId,
        /// Which piece.
        blob: BlobRef,
    },
    /// An https address for the embedded relay.
    Tunnel {
        /// `tailscale`, `cloudflared`, or a command line.
        via: String,
        /// Whether `via` is a command line.
        is_command: bool,
    },
    /// Whether the journal can be written to.
    Journal,
    /// Somebody is to answer through the relay.
    RoundTrip {
        /// Who: a device, or this host itself, by the way there and back.
        of: PeerId,
    },
    /// End the daemon and its agents.
    Down,
}

/// What the daemon answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum LocalAnswer {
    /// How the daemon is.
    Status(Box<Status>),
    /// What became of a wish.
    Outcome {
        /// It.
        outcome: Outcome,
    },
    /// The list of sessions.
    Fleet {
        /// It.
        fleet: Box<Fleet>,
    },
    /// An event of the session asked for.
    Record {
        /// It.
        record: Box<Record>,
    },
    /// A delta of the session asked for.
    Live {
        /// It.
        live: Box<Live>,
    },
    /// All that was there has been sent; what follows is new.
    CaughtUp {},
    /// A big piece, opened.
    Blob {
        /// Its bytes, in base64url without padding.
        data: String,
    },
    /// The address of a tunnel.
    Tunnelled {
        /// It.
        url: String,
    },
    /// What is known of each session.
    Pulse {
        /// The host.
        host: PeerId,
        /// The same that a device is told.
        echo: Box<Echo>,
    },
    /// It was done, or the one who was asked has answered.
    Answered {
        /// How long it took.
        millis: u64,
    },
    /// It is done.
    Done {},
    /// It cannot be done.
    Failed {
        /// Why.
        code: Code,
        /// Detail for people.
        text: String,
    },
}

/// How a daemon is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub since: Timestamp,
    /// The host's id.
    pub host: PeerId,
    /// The host's name.
    pub name: String,
    /// The address that pairing links have.
    pub url: String,
    /// The address by which the daemon reaches its relay.
    #[serde(default)]
    pub relay_url: String,
    /// The relay's state: `connecting`, `up` or `down`.
    pub relay: String,
    /// How frames get there: `websocket`, or `http` where something in between lets none through.
    #[serde(default)]
    pub relay_way: Option<String>,
    /// Why the relay is not connected.
    pub relay_error: Option<String>,
    /// Sessions that have not ended.
    pub sessions: usize,
    /// Devices of the fleet.
    pub devices: usize,
    /// Why nothing can be written and sessions wait; nothing while all is well.
    #[serde(default)]
    pub paused: Option<Paused>,
    /// Tables of the journal that had lost records when the daemon started.
    #[serde(default)]
    pub journal_lost: Vec<String>,
    /// Old outputs that were dropped to keep the journal within its size.
    #[serde(default)]
    pub journal_dropped: Outputs,
    /// By how many bytes the journal is larger than it may be though no output is left in it.
    #[serde(default)]
    pub journal_beyond: u64,
    /// Sessions of whose logs the relay has newer events than this state folder, or others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forked: Vec<farhelm_proto::SessionId>,
}

/// Outputs, or pieces of long ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// How many.
    pub pieces: u64,
    /// How large they were, sealed.
    pub bytes: u64,
}

/// Why sessions and their agents wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Paused {
    /// `disk_full` or `journal_failed`.
    pub code: Code,
    /// Since when.
    pub since: Timestamp,
    /// What is wrong and what to do.
    pub text: String,
}

/// The socket of the daemon that uses a state folder.
#[must_use]
pub fn socket_of(home: &Path) -> PathBuf {
    home.join("farhelm.sock")
}
