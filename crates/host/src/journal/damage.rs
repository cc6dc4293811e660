//! Which parts of which logs were found damaged, until they are mended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use farhelm_proto::StreamId;
use tokio::sync::watch;

/// Events of a log that are not as they were written, or not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) stream: StreamId,
    /// Seq of the first event that is lost.
    pub(crate) first: u64,
    /// Seq of the last one.
    pub(crate) last: u64,
}

/// What is known to be damaged. Readers add to it, whoever mends takes away.
#[derive(Clone, Debug)]
pub(crate) struct Damages {
    found: Arc<Mutex<BTreeMap<(StreamId, u64), u64>>>,
    changed: Arc<watch::Sender<()>>,
}

impl Default for Damages {
    fn default() -> Self {
        let (changed, _) = watch::channel(());
        Self {
            found: Arc::default(),
            changed: changed.into(),
        }
    }
}

impl Damages {
    /// Notes damage; says it once.
    pub(crate) fn note(&self, damage: Damage) {
        let Damage {
            stream,
            first,
            last,
        } = damage;
        let before = self.hold().insert((stream, first), last);
        if before.is_none() {
            tracing::error!(%stream, first, last, "events of this log are damaged in the journal");
        }
        if before != Some(last) {
            self.changed.send_replace(());
        }
    }

    /// Takes note that the log of `stream` has its event `seq` again.
    pub(crate) fn mended(&self, stream: StreamId) {
        self.hold().retain(|(damaged, _), _| *damaged != stream);
        self.changed.send_replace(());
    }

    /// What is known, in order.
    pub(crate) fn all(&self) -> Vec<Damage> {
        let found = self.hold();
        found
            .iter()
            .map(|((stream, first), last)| Damage {
                stream: *stream,
                first: *first,
                last: *last,
            })
            .collect()
    }

    /// Wakes when something was found or mended.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn hold(&self) -> std::sync::MutexGuard<'_, BTreeMap<(StreamId, u64), u64>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
