//! Asks: what an agent wants to know, as a person is shown it, and the verdict on it.
//!
//! An ask travels as the text of its JSON. Devices show what they parse out of exactly these
//! bytes, and a decision carries their [`digest`], so that what was shown is what is answered.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::content::Content;
use crate::event::Answers;

/// A question of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Ask {
    /// The tool call that waits for the answer.
    pub tool: Option<String>,
    /// What it is about, in the agent's words; never instead of `subject`.
    pub title: String,
    /// What it is about.
    pub subject: Subject,
    /// The answers the agent offers.
    pub options: Vec<Choice>,
    /// What the agent says about it, labelled as such.
    pub description: Option<String>,
    /// The call of the subagent that asks.
    pub parent: Option<String>,
}

/// What an ask is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// A command is to run.
    Command {
        /// The command, exactly.
        command: String,
        /// Where.
        dir: String,
    },
    /// Files are to change.
    Edit {
        /// The changes.
        content: Vec<Content>,
        /// The tool's arguments: JSON.
        input: String,
    },
    /// Another tool is to run.
    Tool {
        /// Its name.
        name: String,
        /// Its arguments: JSON.
        input: String,
        /// What else the agent showed.
        content: Vec<Content>,
    },
    /// A plan is to be carried out.
    Plan {
        /// The plan, Markdown.
        text: String,
    },
    /// The agent has questions for the person.
    Questions {
        /// Them.
        questions: Vec<Question>,
    },
    /// The agent, or a server of its, wants a form filled in.
    Form {
        /// What it says.
        message: String,
        /// JSON schema of an object with plain fields.
        schema: String,
    },
    /// The person is to open an address.
    Visit {
        /// What it says.
        message: String,
        /// The address.
        url: String,
    },
}

/// A question with answers to choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Question {
    /// Names it in the answers.
    pub id: String,
    /// A word or two.
    pub header: String,
    /// The question.
    pub text: String,
    /// The answers to choose from; a person may also write another.
    pub choices: Vec<Answer>,
    /// Whether several may be chosen.
    pub multiple: bool,
}

/// An answer to choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Answer {
    /// The answer.
    pub label: String,
    /// What it means.
    pub description: Option<String>,
}

/// An option that the agent offers: shown by name, answered by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Choice {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it amounts to.
    pub kind: ChoiceKind,
}

/// What an option amounts to; several options may share a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum ChoiceKind {
    /// Yes, this once.
    AllowOnce,
    /// Yes, and the agent will not ask again for such things.
    AllowAlways,
    /// No, this once.
    RejectOnce,
    /// No, and the agent will not ask again for such things.
    RejectAlways,
    /// Something else; shown without colour.
    Other,
}

impl ChoiceKind {
    /// Whether it lets the agent go ahead.
    #[must_use]
    pub const fn allows(self) -> bool {
        match self {
            Self::AllowOnce | Self::AllowAlways => true,
            Self::RejectOnce | Self::RejectAlways | Self::Other => false,
        }
    }

    /// Whether it stops the agent.
    #[must_use]
    pub const fn rejects(self) -> bool {
        match self {
            Self::RejectOnce | Self::RejectAlways => true,
            Self::AllowOnce | Self::AllowAlways | Self::Other => false,
        }
    }
}

/// The answer to an ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// One of the options.
    Selected {
        /// Its id.
        option: String,
        /// Whether that lets the agent go ahead.
        allows: bool,
        /// What the person adds, for the agent to read.
        reason: Option<String>,
    },
    /// Answers to questions or a form, by question or field.
    Answered {
        /// Them.
        #[cfg_attr(feature = "ts", ts(type = "Record<string, unknown>"))]
        answers: Answers,
    },
    /// Nobody's decision: the turn was stopped, the agent died or took the question back.
    Void {
        /// Why.
        why: String,
    },
}

/// The digest that a decision carries: SHA-256 over a domain and the ask's bytes, in hexadecimal.
#[must_use]
pub fn digest(ask: &str) -> String {
    use core::fmt::Write as _;
    let mut hash = Sha256::new();
    hash.update(b"farhelm/1/ask\0");
    hash.update(ask.as_bytes());
    hash.finalize()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap_or_default();
            text
        })
}
