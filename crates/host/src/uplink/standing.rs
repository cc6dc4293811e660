//! What became of each log at the relay, for those who act on it: wishes for a session whose log the
//! relay has otherwise may have been done before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use farhelm_proto::StreamId;

/// How a log here stands to what the relay has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The relay has not said yet, since this daemon runs.
    Unknown,
    /// The relay has what is here, or less.
    Agrees,
    /// The relay has something else, or more.
    Forked,
}

/// All of them, as the relay said last. They outlast connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standings(Arc<Mutex<BTreeMap<StreamId, Standing>>>);

impl Standings {
    /// Of one log.
    pub(crate) fn of(&self, stream: StreamId) -> Standing {
        let known = self.with(|all| all.get(&stream).copied());
        known.unwrap_or(Standing::Unknown)
    }

    /// The logs of which the relay has something else.
    pub(crate) fn forked(&self) -> Vec<StreamId> {
        self.with(|all| {
            let forked = all.iter().filter(|(_, is)| **is == Standing::Forked);
            forked.map(|(stream, _)| *stream).collect()
        })
    }

    pub(super) fn note(&self, stream: StreamId, standing: Standing) {
        self.with(|all| all.insert(stream, standing));
    }

    fn with<T>(&self, change: impl FnOnce(&mut BTreeMap<StreamId, Standing>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
