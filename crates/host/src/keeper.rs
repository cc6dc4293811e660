//! What passes between a session and the keeper of its agent: numbered lines, and nothing else.
//!
//! A keeper holds the pipes of one run of an agent's program. It outlives the daemon. What the
//! agent says is numbered, and kept until it is acknowledged; what the agent is told is numbered
//! by the session, and written once, in order. Neither side knows a dialect here.
//!
//! [`Keepers`] is how a session gets at one. Real keepers are processes of their own behind a
//! socket; a simulation implements the same in memory, and lets them survive its host.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use farhelm_proto::SessionId;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::agents::{AgentError, LongString};

mod folder;
mod hold;
mod processes;
mod raw;
mod stderr;
mod tape;
pub(crate) mod wire;

pub use folder::{end_by_force, living};
pub use hold::{Spec, main, run};
pub use processes::{Processes, Spawn};
pub use raw::files_of as raw_files;

/// Where sessions get their keepers from.
pub trait Keepers: Send + Sync {
    /// Starts an agent's program, held by a keeper of its own. A session has one at a time.
    ///
    /// Fails when the program does not run, or when the session's last keeper has not gone.
    fn start(&self, start: Start) -> BoxFuture<'_, Result<Kept, AgentError>>;

    /// Takes over the keeper that a session has. When there is none, or it is dead, whatever it
    /// left running has been ended when this returns.
    ///
    /// Fails when there is one that does not let this daemon in, or does not answer; it may later.
    fn attach(&self, session: SessionId) -> BoxFuture<'_, Result<Option<Kept>, AgentError>>;

    /// The sessions for which there is a keeper, or was one that nobody cleared away.
    fn list(&self) -> BoxFuture<'_, Vec<SessionId>>;
}

/// What an agent's program is started with.
#[derive(Clone, Serialize, Deserialize)]
pub struct Start {
    /// The session that it is for.
    pub session: SessionId,
    /// Names this run of the program; no other run has the name.
    pub run: String,
    /// Whatever the session wants to be told again by [`Standing::note`].
    pub note: String,
    /// The program's file.
    pub program: PathBuf,
    /// What it is started with.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<(OsString, OsString)>,
    /// The folder it works in.
    pub dir: PathBuf,
    /// Where its standard error is kept, bounded.
    pub stderr: Option<PathBuf>,
    /// How long it may take to end after its standard input was closed, and again after it was
    /// asked to terminate; then it is killed.
    pub grace_millis: u64,
}

impl fmt::Debug for Start {
    /// Without arguments, environment and note: they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "start {:?} for {}", self.program, self.session)
    }
}

/// A keeper that is attached. Dropping it leaves the keeper alone with its agent.
#[derive(Debug)]
pub struct Kept {
    /// How things stand.
    pub standing: Standing,
    /// What it is told. It always takes what it is told, soon, also while nobody hears it.
    pub told: mpsc::Sender<Told>,
    /// What it says, from [`Told::Hear`] on. It waits while nobody listens, and so does its agent.
    pub heard: mpsc::Receiver<Heard>,
}

/// How things stand when a keeper is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The run of the program, as it was named at its start.
    pub run: String,
    /// The note that was given at its start.
    pub note: String,
    /// All lines up to this number are forgotten: they were acknowledged.
    pub acknowledged: u64,
    /// The last line that the keeper has accepted to write; it wants those after it again.
    pub accepted: u64,
    /// The last line that the agent's pipe has taken whole.
    pub written: u64,
    /// The process id of the program, which is also that of its group.
    pub pid: u32,
}

/// What a keeper is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Say what came after this number, and go on. Said once, first.
    Hear {
        /// The last number that is not wanted again; 0 at the beginning.
        after: u64,
    },
    /// Write a line to the agent. A number that was accepted before is not written again.
    Write {
        /// One more than that of the line before it; the first has 1.
        number: u64,
        /// The line, without its newline.
        line: String,
    },
    /// Nothing up to this number will be wanted again. With the number of [`Heard::Ended`] the
    /// keeper goes.
    Acknowledge {
        /// The last number.
        through: u64,
    },
    /// End the agent: close its standard input, then, each after the grace, ask its process group
    /// to terminate, and kill it. [`Heard::Ended`] follows.
    End {
        /// Whether to begin with asking to terminate.
        at_once: bool,
    },
}

/// What a keeper says. Numbers rise and need not be dense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The agent printed a line.
    Line {
        /// Its number.
        number: u64,
        /// The line, without its newline.
        line: String,
    },
    /// A part of a string of the line that the agent is in the middle of, which is too long to be
    /// held. Not numbered: said again with its line.
    Part {
        /// The part, unescaped, of about 256 KiB. Those of one string follow each other.
        text: String,
    },
    /// The agent printed a line that is too long to be held, of which the long strings came before.
    LongLine {
        /// Its number.
        number: u64,
        /// The line, with something shorter in the place of each long string.
        line: String,
        /// Those strings, in order.
        strings: Vec<LongString>,
    },
    /// The agent printed a line that was too long, which was skipped; parts that came of it are
    /// nobody's.
    TooLong {
        /// Its number.
        number: u64,
        /// How long it was.
        bytes: u64,
    },
    /// The agent closed its standard output: no line follows.
    Silent {
        /// Its number.
        number: u64,
    },
    /// The agent's pipe has taken everything up to this line. Not numbered: said again when attached.
    Written {
        /// The last line.
        through: u64,
    },
    /// The program has ended, and with it everything in its process group. The last thing said.
    Ended {
        /// Its number.
        number: u64,
        /// How.
        end: End,
    },
    /// The keeper cannot be heard any more, though it may live: attach again.
    Cut,
    /// A later daemon has taken the session over. Nothing follows.
    Superseded,
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The end of what it wrote to its standard error.
    pub stderr: String,
}

/// Ends an agent that nobody wants, and lets its keeper go.
pub(crate) async fn put_away(mut kept: Kept) {
    let after = kept.standing.acknowledged;
    for told in [Told::Hear { after }, Told::End { at_once: false }] {
        drop(kept.told.send(told).await);
    }
    while let Some(heard) = kept.heard.recv().await {
        if let Heard::Ended { number, .. } = heard {
            drop(kept.told.send(Told::Acknowledge { through: number }).await);
            return;
        }
        if matches!(heard, Heard::Cut | Heard::Superseded) {
            return;
        }
    }
}
