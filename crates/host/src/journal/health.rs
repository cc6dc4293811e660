//! Whether the journal can be written, as people are told.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farhelm_link::clock::now;
use farhelm_proto::{Code, Timestamp};
use tokio::sync::watch;

use super::JournalError;

/// Whether the journal takes what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It does.
    Sound,
    /// It does not; sessions wait, and agents with them.
    Paused(Pause),
}

/// Why nothing can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) since: Timestamp,
    /// [`Code::DiskFull`] or [`Code::JournalFailed`].
    pub(crate) code: Code,
    /// What is wrong and what to do.
    pub(crate) text: String,
}

/// Keeps [`Health`] for those who write, and tells those who look.
#[derive(Debug)]
pub(super) struct Gauge {
    path: Box<Path>,
    known: Mutex<Known>,
    told: watch::Sender<Health>,
}

/// A failure and slowness are facts of their own: the end of one is not the end of the other.
#[derive(Debug, Default)]
struct Known {
    failed: Option<Pause>,
    /// Since the disk has not answered somebody, and how many still wait for longer than they should.
    slow: Option<(Pause, usize)>,
}

impl Known {
    fn health(&self) -> Health {
        let slow = self.slow.as_ref().map(|(pause, _)| pause);
        let pause = self.failed.as_ref().or(slow);
        pause.map_or(Health::Sound, |pause| Health::Paused(pause.clone()))
    }
}

impl Gauge {
    pub(super) fn new(path: &Path) -> (Arc<Self>, watch::Receiver<Health>) {
        let (told, seen) = watch::channel(Health::Sound);
        let gauge = Self {
            path: path.into(),
            known: Mutex::default(),
            told,
        };
        (Arc::new(gauge), seen)
    }

    /// Something was written.
    pub(super) fn sound(&self) {
        self.change(|known| known.failed = None);
    }

    /// Notes that a write has not come back for `waited`: the disk may answer yet. That is so until
    /// the last of those that wait like this is over.
    pub(super) fn slow(self: &Arc<Self>, waited: Duration) -> Slow {
        let text = format!(
            "the disk of {} has not answered a write for {} s; agents wait until it does",
            self.folder().display(),
            waited.as_secs()
        );
        self.change(|known| {
            let (_, waiting) = known.slow.get_or_insert_with(|| {
                let since = now().0.saturating_sub(waited.as_secs() * 1000);
                let (since, code) = (Timestamp(since), Code::JournalFailed);
                (Pause { since, code, text }, 0)
            });
            *waiting += 1;
        });
        Slow(Arc::clone(self))
    }

    /// Notes a failure; since when is when it began.
    pub(super) fn failed(&self, error: &JournalError) {
        let folder = self.folder();
        let (code, text) = if error.is_full() {
            let free = rustix::fs::statvfs(folder)
                .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
                .unwrap_or(0);
            let text = format!(
                "the disk of {} is full ({free} bytes are free); agents wait until there is room again",
                folder.display()
            );
            (Code::DiskFull, text)
        } else {
            let text = format!(
                "the journal in {} cannot be written ({error}); agents wait until it can",
                folder.display()
            );
            (Code::JournalFailed, text)
        };
        self.change(|known| {
            let since = match known.health() {
                Health::Paused(pause) => pause.since,
                Health::Sound => now(),
            };
            known.failed = Some(Pause { since, code, text });
        });
    }

    #[cfg(test)]
    pub(super) fn health(&self) -> Health {
        self.told.borrow().clone()
    }

    /// How many wait for longer than they should.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.slow.as_ref().map_or(0, |(_, waiting)| *waiting)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let health = known.health();
        self.told.send_if_modified(|told| {
            let is_news = *told != health;
            *told = health;
            is_news
        });
    }
}

/// Somebody who waits for a disk that does not answer.
#[derive(Debug)]
pub(super) struct Slow(Arc<Gauge>);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.change(|known| {
            known.slow = known
                .slow
                .take()
                .map(|(pause, waiting)| (pause, waiting.saturating_sub(1)))
                .filter(|(_, waiting)| *waiting > 0);
        });
    }
}
