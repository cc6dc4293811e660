//! Events: facts in a session's log. Past tense, numbered, immutable.
//!
//! Their meaning follows the second version of the Agent Client Protocol: things are upserted by
//! id, and the end of a prompt's acknowledgement is not the end of its turn. Past the adapter
//! nobody knows which agent said it.

use std::collections::BTreeMap;

use farhelm_proto::{ApprovalId, Code, CommandId, PeerId, PromptId, Timestamp, TurnId};
use serde::{Deserialize, Serialize};

use crate::ask::Verdict;
use crate::content::{Content, ToolPatch};
use crate::session::Session;

/// An event with its place in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(rename = "LogRecord"))]
pub struct Record {
    /// Its position: dense, from 1.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub seq: u64,
    /// When the host wrote it.
    pub at: Timestamp,
    /// The command that it is the effect of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cause: Option<CommandId>,
    /// What happened.
    pub event: Event,
}

/// Something that happened in a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(rename = "SessionEvent"))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The session exists.
    SessionOpened {
        /// What people call it.
        title: String,
        /// The folder it works in.
        dir: String,
        /// The git branch of that folder, when it is a work tree.
        branch: Option<String>,
        /// The name of the agent's entry in the configuration.
        agent: String,
    },
    /// People call it otherwise from here on.
    TitleChanged {
        /// The title.
        title: String,
        /// Who changed it.
        by: Author,
    },
    /// The agent's program runs and has answered.
    AgentStarted {
        /// The agent's own name for the conversation, for resuming it.
        agent_session: Option<String>,
        /// What the program calls itself.
        name: String,
        /// Its version.
        version: Option<String>,
        /// The dialect it speaks: `acp` or `claude`.
        dialect: String,
        /// Whether it continues an earlier conversation.
        resumed: bool,
    },
    /// The agent's program ended.
    AgentExited {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// Somebody wants the agent's program started again.
    AgentRestarting {
        /// Who.
        by: Author,
    },
    /// The modes the agent offers.
    ModesOffered {
        /// All of them.
        modes: Vec<Mode>,
        /// The current one.
        current: Option<String>,
    },
    /// Somebody wants another mode; the agent has not confirmed it.
    ModeRequested {
        /// Its id.
        mode: String,
        /// Who.
        by: Author,
    },
    /// Somebody wants a setting changed; the agent has not confirmed it.
    ConfigRequested {
        /// Which setting.
        option: String,
        /// To what.
        value: String,
        /// Who.
        by: Author,
    },
    /// Another mode is in force.
    ModeChanged {
        /// Its id.
        mode: String,
        /// Who changed it.
        by: Author,
    },
    /// The settings the agent offers, with their values.
    ConfigOffered {
        /// All of them.
        options: Vec<ConfigOption>,
    },
    /// The slash commands the agent offers.
    CommandsOffered {
        /// All of them.
        commands: Vec<AgentCommand>,
    },
    /// A person wants something done; it waits until the turn before it has ended.
    PromptQueued {
        /// Its id.
        prompt: PromptId,
        /// What the person wrote.
        text: String,
        /// Who.
        by: Author,
    },
    /// A waiting prompt says something else from here on.
    PromptEdited {
        /// Which.
        prompt: PromptId,
        /// Counts its edits, from 1.
        revision: u32,
        /// What it says.
        text: String,
        /// Who changed it.
        by: Author,
    },
    /// A waiting prompt has another place in the queue.
    PromptMoved {
        /// Which.
        prompt: PromptId,
        /// The prompt that comes next after it; the end of the queue when there is none.
        before: Option<PromptId>,
        /// Who moved it.
        by: Author,
    },
    /// A waiting prompt was taken back.
    PromptWithdrawn {
        /// Which.
        prompt: PromptId,
        /// Who took it back.
        by: Author,
    },
    /// The prompts that wait are not worked on until a person says so.
    QueuePaused {
        /// Why.
        why: PauseCause,
    },
    /// The prompts that wait are worked on again.
    QueueResumed {
        /// Who said so.
        by: Author,
    },
    /// The agent works on a prompt.
    TurnStarted {
        /// The turn's id.
        turn: TurnId,
        /// The prompt that it works on.
        prompt: PromptId,
    },
    /// Somebody wants the turn to stop.
    TurnCancelRequested {
        /// Which.
        turn: TurnId,
        /// Who.
        by: Author,
    },
    /// The agent has yielded.
    TurnEnded {
        /// Which turn.
        turn: TurnId,
        /// Why.
        reason: StopReason,
        /// What the agent said about it, of errors.
        detail: Option<String>,
    },
    /// A whole message.
    MessageAdded {
        /// The message's id; a message in several parts keeps it.
        message: String,
        /// Whose words.
        role: MessageRole,
        /// The words.
        content: Vec<Content>,
        /// The tool call of the subagent that said it.
        parent: Option<String>,
    },
    /// The agent's plan is this from here on.
    PlanUpdated {
        /// All of it.
        entries: Vec<PlanEntry>,
    },
    /// A tool call began or changed.
    ToolUpdated {
        /// What is different.
        tool: ToolPatch,
    },
    /// The agent asks something and waits.
    ApprovalRequested {
        /// Its id.
        approval: ApprovalId,
        /// The adapter's handle for answering.
        request: String,
        /// The JSON of an [`crate::ask::Ask`]. Devices show what is in these very bytes, and a
        /// decision carries their digest.
        ask: String,
    },
    /// A question was answered, or became void. The first decision wins.
    ApprovalDecided {
        /// Which.
        approval: ApprovalId,
        /// Who decided.
        by: Author,
        /// What.
        verdict: Verdict,
    },
    /// The agent has been given the answer.
    ApprovalApplied {
        /// Which.
        approval: ApprovalId,
    },
    /// How much of the agent's context is used, and what it has cost.
    UsageUpdated {
        /// Tokens in use.
        #[cfg_attr(feature = "ts", ts(type = "number | null"))]
        used: Option<u64>,
        /// Tokens there are.
        #[cfg_attr(feature = "ts", ts(type = "number | null"))]
        size: Option<u64>,
        /// Cost so far, in `currency`.
        cost: Option<f64>,
        /// ISO 4217.
        currency: Option<String>,
    },
    /// The agent said something that we do not know; shown as such.
    RawNoted {
        /// What kind of message it called it.
        kind: String,
        /// The message's JSON, cut when long.
        json: String,
    },
    /// Something a person should know.
    Noticed {
        /// What kind of thing.
        code: Code,
        /// Detail.
        text: String,
    },
    /// The session is over.
    SessionEnded {
        /// Who ended it.
        by: Author,
    },
    /// All open state, so that a reader can begin here.
    Snapshot {
        /// The state after all events before this one.
        state: Box<Session>,
    },
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Author {
    /// A person with a paired device.
    Device {
        /// The device.
        peer: PeerId,
        /// Its name in the roster.
        name: String,
    },
    /// A person at the host itself.
    Local,
    /// The agent.
    Agent,
    /// The host, of its own accord: after a crash, on a cancel.
    Host,
    /// A rule of the host's policy.
    Rule {
        /// Its name.
        name: String,
    },
}

/// Why the prompts that wait are not worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum PauseCause {
    /// The agent's program ended.
    AgentEnded,
    /// The host was started again.
    HostRestarted,
    /// Somebody stopped the turn before them.
    Stopped,
}

/// Whose words a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum MessageRole {
    /// The agent's, to the person.
    Agent,
    /// The agent's, to itself.
    Thought,
    /// A person's, as the agent repeats it (a resumed conversation).
    User,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The agent has finished.
    EndTurn,
    /// Somebody stopped it.
    Cancelled,
    /// The model's answer reached its length limit.
    MaxTokens,
    /// The agent reached its limit of model requests.
    MaxTurnRequests,
    /// The model refused.
    Refusal,
    /// The agent answered with an error.
    Failed,
    /// The agent's program ended.
    AgentDied,
}

/// A mode that the agent offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Mode {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
}

/// A setting that the agent offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ConfigOption {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `model`, `mode`, `thought_level`, or what else the agent says.
    pub category: Option<String>,
    /// The value in force.
    pub current: String,
    /// The values there are.
    pub choices: Vec<ConfigChoice>,
}

/// A value of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ConfigChoice {
    /// The value.
    pub value: String,
    /// Its name.
    pub name: String,
}

/// A slash command of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct AgentCommand {
    /// Its name, without the slash.
    pub name: String,
    /// What it does.
    pub description: String,
}

/// A line of the agent's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PlanEntry {
    /// What is to be done.
    pub content: String,
    /// `pending`, `in_progress`, `completed`, or what else the agent says.
    pub status: String,
    /// `high`, `medium`, `low`, when the agent says.
    pub priority: Option<String>,
}

/// Something that happened on a host, in the host's own log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostEvent {
    /// The daemon started.
    HostStarted {
        /// The host's name.
        name: String,
        /// The daemon's version.
        version: String,
    },
    /// The roster is longer by one entry.
    RosterExtended {
        /// The JSON text of a [`crate::roster::Entry`].
        entry: String,
    },
    /// A session is new or its summary changed.
    SessionListed {
        /// The summary from here on.
        summary: Summary,
    },
    /// A new device wants in and waits for a person's word.
    PairingRequested {
        /// What the device is called.
        name: String,
        /// The code that both sides show.
        code: String,
        /// Which pairing.
        offer: farhelm_proto::OfferId,
    },
    /// That is settled.
    PairingSettled {
        /// Which pairing.
        offer: farhelm_proto::OfferId,
        /// Whether the device was let in.
        accepted: bool,
    },
    /// All of it, so that a reader can begin here.
    Snapshot {
        /// The state after all events before this one.
        state: Box<crate::fleet::Fleet>,
    },
}

/// A host event with its place in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct HostRecord {
    /// Its position: dense, from 1.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub seq: u64,
    /// When the host wrote it.
    pub at: Timestamp,
    /// The command that it is the effect of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cause: Option<CommandId>,
    /// What happened.
    pub event: HostEvent,
}

/// A session as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Summary {
    /// Which.
    pub session: farhelm_proto::SessionId,
    /// What people call it.
    pub title: String,
    /// The folder it works in.
    pub dir: String,
    /// The git branch of that folder.
    pub branch: Option<String>,
    /// The agent's name.
    pub agent: String,
    /// What it is doing.
    pub state: Activity,
    /// How many questions wait for a person.
    pub pending: u32,
    /// When something last happened.
    pub at: Timestamp,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// The agent's program is on its way up.
    Starting,
    /// The agent waits for a prompt.
    Idle,
    /// The agent works.
    Running,
    /// The agent waits for an answer.
    RequiresAction,
    /// The agent's program has ended; the next prompt starts it again.
    AgentGone,
    /// Over.
    Ended,
}

/// Something on the live lane: superseded by an event, never stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Live {
    /// A message grows.
    Text {
        /// The message's id, as its event will have.
        message: String,
        /// Whose words.
        role: MessageRole,
        /// The tool call of the subagent that says it.
        parent: Option<String>,
        /// Where `text` begins, in UTF-16 code units; a reader that has less waits for a frame
        /// that begins at or before its end.
        #[cfg_attr(feature = "ts", ts(type = "number"))]
        offset: u64,
        /// The words from there.
        text: String,
    },
    /// A tool call's output grows; never stored as such.
    Tool {
        /// What is different.
        tool: ToolPatch,
    },
    /// The host cannot write its log, so that the session and its agent wait. Said again every few
    /// seconds while that lasts; ended by the next event, a [`Event::Noticed`] with the same code.
    Paused {
        /// `disk_full` or `journal_failed`.
        code: Code,
        /// Since when.
        since: Timestamp,
        /// What is wrong and what to do.
        text: String,
    },
}

/// Answers to an agent's form, by field.
pub type Answers = BTreeMap<String, serde_json::Value>;
