//! Commands: wishes, imperative, with an id made by the device. And what becomes of them.

use farhelm_proto::{ApprovalId, Code, CommandId, OfferId, PeerId, PromptId, SessionId, StreamId};
use serde::{Deserialize, Serialize};

use crate::ask::Verdict;
use crate::grant::Capability;
pub use crate::session::delivery::Delivery;

/// A device's wish. The letter that carries it has its id and its expiry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Start a session.
    StartSession {
        /// The folder.
        dir: String,
        /// The agent; the host's choice when absent.
        agent: Option<String>,
        /// The first prompt.
        prompt: Option<String>,
    },
    /// Put a prompt in the session's queue.
    Prompt {
        /// Which session.
        session: SessionId,
        /// The text.
        text: String,
    },
    /// Let a waiting prompt say something else.
    EditPrompt {
        /// Which session.
        session: SessionId,
        /// Which prompt.
        prompt: PromptId,
        /// The revision that was shown; another one in force means that somebody was first.
        revision: u32,
        /// The text.
        text: String,
    },
    /// Give a waiting prompt another place.
    MovePrompt {
        /// Which session.
        session: SessionId,
        /// Which prompt.
        prompt: PromptId,
        /// The prompt that is to come after it; the end of the queue when there is none.
        before: Option<PromptId>,
    },
    /// Take a waiting prompt back.
    WithdrawPrompt {
        /// Which session.
        session: SessionId,
        /// Which prompt.
        prompt: PromptId,
    },
    /// Answer a question of the agent.
    DecideApproval {
        /// Which session.
        session: SessionId,
        /// Which question.
        approval: ApprovalId,
        /// [`crate::ask::digest`] of the ask as it was shown.
        digest: String,
        /// The answer.
        verdict: Verdict,
    },
    /// Stop the running turn.
    CancelTurn {
        /// Which session.
        session: SessionId,
    },
    /// Change the mode.
    SetMode {
        /// Which session.
        session: SessionId,
        /// The mode's id.
        mode: String,
    },
    /// Change a setting.
    SetConfig {
        /// Which session.
        session: SessionId,
        /// The setting's id.
        option: String,
        /// The value.
        value: String,
    },
    /// Call the session otherwise.
    Rename {
        /// Which session.
        session: SessionId,
        /// The title.
        title: String,
    },
    /// Go on: start the agent's program again when it has ended, and work on what waits.
    ResumeAgent {
        /// Which session.
        session: SessionId,
    },
    /// End the session and its agent.
    EndSession {
        /// Which session.
        session: SessionId,
    },
    /// Make a pairing link.
    OpenPairing {},
    /// Let a new device in, or not.
    SettlePairing {
        /// Which pairing.
        offer: OfferId,
        /// Whether it may come in.
        accept: bool,
    },
    /// Remove a device.
    RevokeDevice {
        /// Which.
        peer: PeerId,
    },
    /// Take back a command of mine: unless it had its effect, it will never have one. Its own
    /// receipt comes in any case.
    Recall {
        /// Which.
        command: CommandId,
    },
    /// Send me the content keys of a stream.
    SendKeys {
        /// Which.
        stream: StreamId,
    },
}

impl Command {
    /// What a device must be allowed to do for this.
    #[must_use]
    pub const fn needs(&self) -> Capability {
        match self {
            Self::SendKeys { .. } | Self::Recall { .. } => Capability::View,
            Self::StartSession { .. }
            | Self::Prompt { .. }
            | Self::EditPrompt { .. }
            | Self::MovePrompt { .. }
            | Self::WithdrawPrompt { .. }
            | Self::CancelTurn { .. }
            | Self::SetMode { .. }
            | Self::SetConfig { .. }
            | Self::Rename { .. }
            | Self::ResumeAgent { .. }
            | Self::EndSession { .. } => Capability::Prompt,
            Self::DecideApproval { .. } => Capability::Approve,
            Self::OpenPairing {} | Self::SettlePairing { .. } | Self::RevokeDevice { .. } => {
                Capability::Manage
            }
        }
    }

    /// The session it is for.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Prompt { session, .. }
            | Self::EditPrompt { session, .. }
            | Self::MovePrompt { session, .. }
            | Self::WithdrawPrompt { session, .. }
            | Self::DecideApproval { session, .. }
            | Self::CancelTurn { session }
            | Self::SetMode { session, .. }
            | Self::SetConfig { session, .. }
            | Self::Rename { session, .. }
            | Self::ResumeAgent { session }
            | Self::EndSession { session } => Some(*session),
            Self::StartSession { .. }
            | Self::OpenPairing {}
            | Self::SettlePairing { .. }
            | Self::RevokeDevice { .. }
            | Self::Recall { .. }
            | Self::SendKeys { .. } => None,
        }
    }
}

/// The body of a command letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct CommandBody {
    /// The wish.
    pub command: Command,
    /// The command that this one repeats, because nobody knows whether it had its effect. The host
    /// takes it only while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub retries: Option<CommandId>,
}

/// "No": typed, expected, sent back to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[error("{code}: {text}")]
pub struct Rejection {
    /// Why.
    pub code: Code,
    /// Detail for people.
    pub text: String,
}

impl Rejection {
    /// A rejection whose text is the code's own sentence.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self {
            code,
            text: code.sentence().to_owned(),
        }
    }

    /// A rejection that says more.
    #[must_use]
    pub fn because(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// How far the host has come with a command; travels in a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Receipt {
    /// Which command.
    pub command: CommandId,
    /// How far.
    pub outcome: Outcome,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// It is written down at the host and will be decided.
    Received,
    /// It is durable at the host, as an event; `delivery` says how far it has come from there.
    Applied {
        /// The stream that holds the effect.
        stream: StreamId,
        /// The last event of the effect.
        #[cfg_attr(feature = "ts", ts(type = "number"))]
        seq: u64,
        /// What the command made: a session's id, a pairing link.
        made: Option<String>,
        /// How far it has come with the agent.
        #[serde(default)]
        delivery: Delivery,
    },
    /// It will have none.
    Refused {
        /// Why.
        rejection: Rejection,
    },
}

impl Outcome {
    /// Whether nothing more will be said of the command.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Received => false,
            Self::Applied { delivery, .. } => delivery.is_final(),
            Self::Refused { .. } => true,
        }
    }

    /// The same outcome, so much further.
    #[must_use]
    pub fn advanced(self, to: Delivery) -> Self {
        match self {
            Self::Applied {
                stream, seq, made, ..
            } => Self::Applied {
                stream,
                seq,
                made,
                delivery: to,
            },
            Self::Received | Self::Refused { .. } => self,
        }
    }
}
