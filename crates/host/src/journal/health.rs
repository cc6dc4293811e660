//! Whether the journal can be written, as people are told.

use std::path::Path;
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

impl Health {
    pub(super) fn sound(health: &watch::Sender<Self>) {
        health.send_if_modified(|health| {
            let was = std::mem::replace(health, Self::Sound);
            was != Self::Sound
        });
    }

    /// Notes that a write has not come back for `waited`: the disk may answer yet.
    pub(super) fn slow(health: &watch::Sender<Self>, path: &Path, waited: Duration) {
        let text = format!(
            "the disk of {} has not answered a write for {} s; agents wait until it does",
            path.parent().unwrap_or(path).display(),
            waited.as_secs()
        );
        health.send_if_modified(|health| {
            let is_news = *health == Self::Sound;
            if is_news {
                let since = now().0.saturating_sub(waited.as_secs() * 1000);
                let since = Timestamp(since);
                let code = Code::JournalFailed;
                *health = Self::Paused(Pause { since, code, text });
            }
            is_news
        });
    }

    /// Notes a failure; since when is when it began.
    pub(super) fn failed(health: &watch::Sender<Self>, path: &Path, error: &JournalError) {
        let folder = path.parent().unwrap_or(path);
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
        health.send_if_modified(|health| {
            let since = match health {
                Self::Paused(pause) => pause.since,
                Self::Sound => now(),
            };
            let pause = Self::Paused(Pause { since, code, text });
            let changed = *health != pause;
            *health = pause;
            changed
        });
    }
}
