//! The state that a host's own log describes: its name, its roster and its sessions. Hosts and
//! devices share [`Fleet::apply`].

use std::collections::BTreeMap;

use farhelm_proto::{OfferId, SessionId};
use serde::{Deserialize, Serialize};

use crate::event::{HostEvent, Summary};
use crate::roster::Entry;
use crate::session::StateVersion;

/// What there is on a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Fleet {
    /// What the state is written as.
    #[serde(default = "StateVersion::first")]
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub state_version: StateVersion,
    /// The host's name.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// The roster's entries; who shows them verifies them first.
    pub roster: Vec<Entry>,
    /// All sessions.
    pub sessions: BTreeMap<SessionId, Summary>,
    /// Devices that wait to be let in.
    pub waiting: BTreeMap<OfferId, Waiting>,
}

/// A device that waits to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Waiting {
    /// What it is called.
    pub name: String,
    /// The code that it shows.
    pub code: String,
}

impl Fleet {
    /// Takes note that `event` happened.
    pub fn apply(&mut self, event: &HostEvent) {
        match event {
            HostEvent::HostStarted { name, version } => {
                self.name.clone_from(name);
                self.version.clone_from(version);
                self.waiting.clear();
            }
            HostEvent::RosterExtended { entry } => {
                if let Ok(entry) = serde_json::from_str(entry) {
                    self.roster.push(entry);
                }
            }
            HostEvent::SessionListed { summary } => {
                self.sessions.insert(summary.session, summary.clone());
            }
            HostEvent::PairingRequested { name, code, offer } => {
                self.waiting.insert(
                    *offer,
                    Waiting {
                        name: name.clone(),
                        code: code.clone(),
                    },
                );
            }
            HostEvent::PairingSettled { offer, accepted: _ } => {
                self.waiting.remove(offer);
            }
            HostEvent::Snapshot { state } => {
                self.clone_from(state);
                self.state_version = self.state_version.max(StateVersion::CURRENT);
            }
        }
    }
}
