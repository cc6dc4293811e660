//! The agents: somebody else's programs, each spoken to in its own dialect.
//!
//! A dialect is an [`Adapter`]: a pure machine that turns the agent's lines into [`Said`] and
//! [`Order`]s into lines. [`Interpreter`] is what all of them have in common: how far the program
//! is, what waits, what is no message at all. The session is its shell, and a keeper
//! ([`crate::keeper`]) holds the program. [`registry`] knows which program an agent's name stands
//! for. Past this module nobody knows which agent it was.
//!
//! Nothing here decides for a person: policy, queueing and approvals are the session's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use farhelm_core::agent::{Order, Said};
use farhelm_proto::{Code, SessionId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::keeper::Start;

pub mod acp;
pub mod claude;
mod environment;
pub mod files;
mod interpreter;
mod json;
pub mod lines;
mod long;
pub mod registry;
mod rpc;
pub mod scripted;
mod words;

pub use environment::clean as clean_environment;
pub use interpreter::{Deed, Interpreter};
pub use json::RawMessage;
pub use long::LongString;
pub use registry::{Agent, AgentEntry, Dialect, Registry};
pub use rpc::RpcId;
pub use words::{WordsError, split as split_words};

/// Translates one agent's dialect. A pure machine: no IO, no clock; lines in, [`Step`]s out.
pub trait Adapter: Send {
    /// The requests that open the conversation.
    fn begin(&mut self) -> Vec<Step>;

    /// The agent printed `message`.
    fn hear(&mut self, message: &RawMessage) -> Vec<Step>;

    /// The session wants something of the agent.
    fn obey(&mut self, order: Order) -> Vec<Step>;

    /// The work that a [`Step::File`] asked for is done.
    fn filed(&mut self, ticket: Ticket, outcome: Result<String, files::FileError>) -> Vec<Step>;
}

/// Something that an adapter wants done; steps are carried out in order.
#[derive(Debug)]
pub enum Step {
    /// Tell the session.
    Say(Said),
    /// Send the agent a line.
    Send(Box<RawValue>),
    /// Touch a file, then call [`Adapter::filed`].
    File {
        /// Names the work.
        ticket: Ticket,
        /// The work.
        work: FileWork,
    },
}

/// Names a piece of file work between an adapter and its shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// Work on a file beneath the session's folder.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileWork {
    /// Read text.
    Read {
        /// The file, absolute or from the folder.
        path: String,
        /// The first line wanted, from 1.
        line: Option<u32>,
        /// How many lines are wanted.
        limit: Option<u32>,
    },
    /// Write text; folders on the way are made.
    Write {
        /// The file, absolute or from the folder.
        path: String,
        /// What it holds afterwards.
        text: String,
    },
}

impl fmt::Debug for FileWork {
    /// Without the text: it may be long, and it is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, line, limit } => write!(f, "read {path:?} {line:?} {limit:?}"),
            Self::Write { path, text } => write!(f, "write {path:?} ({} bytes)", text.len()),
        }
    }
}

/// Why an agent could not be started, or an agent's entry not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct AgentError {
    /// What kind of failure.
    pub code: Code,
    /// Detail for people.
    pub text: String,
}

impl AgentError {
    /// An error of this kind.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// Which conversation an agent is started for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conversation {
    /// One that does not exist yet.
    New,
    /// One that the agent has held before, by the agent's own name for it.
    Continue(String),
}

/// What a session gives to start its agent.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The session.
    pub session: SessionId,
    /// The folder to work in.
    pub dir: PathBuf,
    /// The session's environment, as it was where the session was opened.
    pub env: BTreeMap<OsString, OsString>,
    /// The conversation.
    pub conversation: Conversation,
    /// Where the agent's standard error is kept.
    pub stderr: Option<PathBuf>,
}

/// How long an agent may take to come up unless configured otherwise: slow ones need 13 s on a
/// loaded machine.
pub const START_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to end after its standard input was closed, and again after it was asked
/// to terminate; then it is killed.
const GRACE: Duration = Duration::from_secs(3);

impl Launch {
    /// A new conversation in `dir` with nothing configured.
    #[must_use]
    pub const fn new(session: SessionId, dir: PathBuf, env: BTreeMap<OsString, OsString>) -> Self {
        Self {
            session,
            dir,
            env,
            conversation: Conversation::New,
            stderr: None,
        }
    }
}

/// What is to be started for a session's `agent`, and who interprets it.
///
/// # Errors
///
/// [`Code::AgentMissing`] when its program is not installed.
pub async fn prepare(agent: &Agent, launch: Launch) -> Result<(Start, Interpreter), AgentError> {
    let mut env = environment::clean(launch.env);
    env.extend(
        agent
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    let program = registry::find_program(agent, env.get(&OsString::from("PATH")), &launch.dir)?;
    let dir = launch.dir.to_string_lossy().into_owned();
    let (args, interpreter): (Vec<String>, Interpreter) = match agent.dialect {
        Dialect::Acp => {
            let setup = acp::Setup {
                dir,
                conversation: launch.conversation,
                mode: agent.mode.clone(),
                files: agent.files,
            };
            (agent.args.clone(), Interpreter::acp(setup))
        }
        Dialect::Claude => {
            let features = claude::probe(&program, &env, &launch.dir).await;
            let setup =
                claude::Setup::new(dir, launch.conversation, agent.mode.clone(), fresh_uuid()?);
            let args = agent
                .args
                .iter()
                .cloned()
                .chain(claude::arguments(&setup, features))
                .collect();
            (args, Interpreter::claude(setup))
        }
    };
    let start = Start {
        session: launch.session,
        run: farhelm_core::text::hex(&farhelm_world::random::<8>()),
        note: serde_json::to_string(&interpreter).unwrap_or_default(),
        program,
        args,
        env: env.into_iter().collect(),
        dir: launch.dir,
        stderr: launch.stderr,
        grace_millis: u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX),
    };
    Ok((start, interpreter))
}

/// A random UUID, which is how the `claude` dialect names conversations.
fn fresh_uuid() -> Result<String, AgentError> {
    let mut bytes = [0; 16];
    farhelm_world::try_fill(&mut bytes)
        .map_err(|error| AgentError::new(Code::Internal, format!("no random bytes: {error}")))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(uuid_of(&bytes))
}

/// Sixteen bytes as a UUID is written.
fn uuid_of(bytes: &[u8; 16]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}
