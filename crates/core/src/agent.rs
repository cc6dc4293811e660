//! What passes between a session and the adapter of its agent. The adapter translates a dialect
//! into [`Said`] and carries out [`Order`]; neither side decides anything for the other.

use farhelm_proto::Code;
use serde::{Deserialize, Serialize};

use crate::ask::{Ask, Verdict};
use crate::content::{Content, ToolPatch};
use crate::event::{AgentCommand, ConfigOption, MessageRole, Mode, PlanEntry, StopReason};

/// Something an agent said, in nobody's dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// The agent is up and its conversation exists.
    Started {
        /// Its own name for the conversation.
        agent_session: Option<String>,
        /// What the program calls itself.
        name: String,
        /// Its version.
        version: Option<String>,
        /// `acp` or `claude`.
        dialect: &'static str,
        /// Whether it continues an earlier conversation.
        resumed: bool,
    },
    /// It could not be brought up; the process will be ended.
    StartFailed {
        /// What kind of failure.
        code: Code,
        /// Detail for people.
        text: String,
    },
    /// The modes it offers.
    Modes {
        /// All of them.
        modes: Vec<Mode>,
        /// The current one.
        current: Option<String>,
    },
    /// The mode in force.
    Mode(String),
    /// The settings it offers, with their values.
    Config(Vec<ConfigOption>),
    /// The slash commands it offers.
    Commands(Vec<AgentCommand>),
    /// Part of a message. Without an id it belongs to the message before it of the same role, if
    /// nothing came between.
    Delta {
        /// The message's id.
        message: Option<String>,
        /// Whose words.
        role: MessageRole,
        /// The words; other content than text ends up in the message whole.
        content: Content,
        /// The subagent's call.
        parent: Option<String>,
    },
    /// A whole message; supersedes deltas with its id.
    Message {
        /// Its id.
        message: String,
        /// Whose words.
        role: MessageRole,
        /// The words.
        content: Vec<Content>,
        /// The subagent's call.
        parent: Option<String>,
    },
    /// Its plan.
    Plan(Vec<PlanEntry>),
    /// A tool call began or changed.
    Tool(ToolPatch),
    /// A tool call's output grows; to be shown, not kept.
    ToolProgress(ToolPatch),
    /// It asks something and waits.
    Asks {
        /// The adapter's handle for answering.
        request: String,
        /// The question.
        ask: Ask,
    },
    /// It does not wait for that answer any more.
    AskWithdrawn {
        /// The adapter's handle.
        request: String,
    },
    /// It has yielded.
    TurnEnded {
        /// Why.
        reason: StopReason,
        /// What it said about it, of errors.
        detail: Option<String>,
    },
    /// Use and cost.
    Usage {
        /// Tokens in use.
        used: Option<u64>,
        /// Tokens there are.
        size: Option<u64>,
        /// Cost so far.
        cost: Option<f64>,
        /// ISO 4217.
        currency: Option<String>,
    },
    /// The conversation's title, by the agent.
    Title(String),
    /// Something that the adapter does not know.
    Raw {
        /// What kind of message the agent called it.
        kind: String,
        /// Its JSON.
        json: String,
    },
    /// Something a person should know.
    Notice {
        /// What kind of thing.
        code: Code,
        /// Detail.
        text: String,
    },
}

/// Something the agent is to be told.
#[expect(clippy::large_enum_variant, reason = "orders are few and moved once")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Work on this. Only given while no turn runs.
    Prompt {
        /// Names it where the dialect wants a name.
        id: String,
        /// What the person wrote.
        text: String,
    },
    /// Stop the turn.
    Cancel,
    /// The answer to a question.
    Answer {
        /// The adapter's handle.
        request: String,
        /// The question, as asked.
        ask: Ask,
        /// The answer.
        verdict: Verdict,
    },
    /// Change the mode.
    SetMode(String),
    /// Change a setting.
    SetConfig {
        /// Which.
        option: String,
        /// To what.
        value: String,
    },
}
