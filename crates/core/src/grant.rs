//! What a device may do, and until when.

use farhelm_proto::Timestamp;
use serde::{Deserialize, Serialize};

/// One thing a device may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Read sessions.
    View,
    /// Send prompts, stop turns, start and end sessions.
    Prompt,
    /// Answer questions of agents.
    Approve,
    /// Use terminals.
    Terminal,
    /// Read and write files.
    Files,
    /// Let devices in and out.
    Manage,
}

impl Capability {
    /// All of them: what an owner has.
    pub const ALL: [Self; 6] = [
        Self::View,
        Self::Prompt,
        Self::Approve,
        Self::Terminal,
        Self::Files,
        Self::Manage,
    ];
}

/// What a device may do until a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Grant {
    /// What it may do.
    pub capabilities: Vec<Capability>,
    /// Until when; for ever when absent.
    pub until: Option<Timestamp>,
}

impl Grant {
    /// Everything, for ever.
    #[must_use]
    pub fn owner() -> Self {
        Self {
            capabilities: Capability::ALL.to_vec(),
            until: None,
        }
    }

    /// Whether it allows `capability` at `now`.
    #[must_use]
    pub fn allows(&self, capability: Capability, now: Timestamp) -> bool {
        self.capabilities.contains(&capability) && self.until.is_none_or(|until| now <= until)
    }
}
