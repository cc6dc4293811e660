//! What messages and tool calls hold.

use serde::{Deserialize, Serialize};

/// A piece of a message or of a tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// Text; Markdown in an agent's messages.
    Text {
        /// The text.
        text: String,
    },
    /// Long text: its two ends here, all of it in blobs.
    Clipped {
        /// How it begins.
        head: String,
        /// How it ends.
        tail: String,
        /// How long it is, in bytes.
        #[cfg_attr(feature = "ts", ts(type = "number"))]
        bytes: u64,
        /// Where it is.
        blobs: Vec<BlobRef>,
    },
    /// A change to a file.
    Diff {
        /// The file.
        path: String,
        /// What it held; nothing when it is new.
        old: Option<String>,
        /// What it holds afterwards.
        new: String,
    },
    /// A picture.
    Image {
        /// Its MIME type.
        mime: String,
        /// Where it is.
        blobs: Vec<BlobRef>,
        /// How long it is, in bytes.
        #[cfg_attr(feature = "ts", ts(type = "number"))]
        bytes: u64,
    },
    /// Something with an address.
    Link {
        /// The address.
        uri: String,
        /// Its name.
        name: String,
    },
    /// Something that we do not know; shown as such.
    Raw {
        /// Its JSON, cut when long.
        json: String,
    },
}

/// A sealed piece of something big.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BlobRef {
    /// SHA-256 of the sealed bytes, in hexadecimal.
    pub name: String,
    /// The epoch whose content key seals it.
    pub epoch: u32,
    /// How many bytes it holds when opened.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub bytes: u64,
}

/// A tool call began or changed: fields that are absent stay as they were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ToolPatch {
    /// The agent's id of the call.
    pub id: String,
    /// What it does, in the agent's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub title: Option<String>,
    /// `read`, `edit`, `delete`, `move`, `search`, `execute`, `think`, `fetch`, or what else the
    /// agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub kind: Option<String>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub status: Option<ToolStatus>,
    /// What it shows; replaces what it showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub content: Option<Vec<Content>>,
    /// The files it touches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub locations: Option<Vec<Location>>,
    /// Its arguments: JSON, cut when long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub input: Option<String>,
    /// The call of the subagent that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub parent: Option<String>,
}

impl ToolPatch {
    /// Takes over every field that `newer` has.
    pub fn absorb(&mut self, newer: &Self) {
        fn take<T: Clone>(old: &mut Option<T>, new: Option<&T>) {
            if let Some(value) = new {
                *old = Some(value.clone());
            }
        }
        take(&mut self.title, newer.title.as_ref());
        take(&mut self.kind, newer.kind.as_ref());
        take(&mut self.status, newer.status.as_ref());
        take(&mut self.content, newer.content.as_ref());
        take(&mut self.locations, newer.locations.as_ref());
        take(&mut self.input, newer.input.as_ref());
        take(&mut self.parent, newer.parent.as_ref());
    }
}

/// How far a tool call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// Announced, or waiting for an answer.
    Pending,
    /// Running.
    InProgress,
    /// Done.
    Completed,
    /// Ended badly.
    Failed,
    /// A person or a rule said no; it has not run.
    Rejected,
}

impl ToolStatus {
    /// Whether nothing more will happen to the call.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::InProgress => false,
            Self::Completed | Self::Failed | Self::Rejected => true,
        }
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(rename = "FileLocation"))]
pub struct Location {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: Option<u32>,
}
