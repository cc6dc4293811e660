//! What `farhelm-sim` needs of the host from outside. Not part of the API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use farhelm_core::command::{Command, Outcome};
use farhelm_core::event::{HostRecord, Record};
use farhelm_core::fleet::Fleet;
use farhelm_core::keys::Identity;
use farhelm_proto::StreamId;
use tokio::sync::oneshot;

use crate::config::Config;
use crate::daemon::{Daemon, DaemonError, DaemonHandle, Parts, RelayChoice, Request};
use crate::journal::{Journal, JournalError};
use crate::keeper::Keepers;
use crate::session::open_records;

/// What a played host is made of.
pub struct Stage {
    /// Its keys.
    pub identity: Arc<Identity>,
    /// Its journal, which outlives its daemon.
    pub journal: Journal,
    /// Its state folder; nothing that counts is in it.
    pub folder: PathBuf,
    /// Who holds its agents, and outlives its daemon, too.
    pub keepers: Arc<dyn Keepers>,
    /// Its configuration.
    pub config: Arc<Config>,
    /// Its relay's address.
    pub url: String,
}

/// Somebody at the host.
#[derive(Clone)]
pub struct Desk(DaemonHandle);

/// Brings a host up.
///
/// # Errors
///
/// [`DaemonError`] when the journal cannot be used.
pub async fn start(stage: Stage) -> Result<(Daemon, Desk), DaemonError> {
    let Stage {
        identity,
        journal,
        folder,
        keepers,
        config,
        url,
    } = stage;
    let parts = Parts {
        identity,
        journal,
        folder,
        config,
        relay: RelayChoice::Remote { url },
        version: "1".to_owned(),
        keepers,
    };
    let (daemon, handle) = Daemon::assemble(parts).await?;
    Ok((daemon, Desk(handle)))
}

impl Desk {
    /// Wants something, as at the local socket. Nothing when the daemon did not answer.
    pub async fn wish(&self, command: Command) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        let wish = Request::Wish { command, reply };
        self.0.requests.send(wish).await.ok()?;
        outcome.await.ok()
    }

    /// What there is on the host.
    #[must_use]
    pub fn fleet(&self) -> Arc<Fleet> {
        self.0.fleet.borrow().clone()
    }
}

/// What a host's journal holds, read on and on.
#[derive(Default)]
pub struct Truth {
    /// The host's own log.
    pub host: Vec<HostRecord>,
    /// Its sessions' logs.
    pub sessions: BTreeMap<StreamId, Vec<Record>>,
}

impl Truth {
    /// Reads what is new.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when it cannot be read.
    pub async fn read(&mut self, journal: &Journal, own: StreamId) -> Result<(), JournalError> {
        for (stream, end) in journal.streams().await? {
            let known = if stream == own {
                self.host.last().map_or(0, |record| record.seq)
            } else {
                let known = self.sessions.get(&stream).and_then(|log| log.last());
                known.map_or(0, |record| record.seq)
            };
            if known >= end.head {
                continue;
            }
            let envelopes = journal.envelopes(stream, known, usize::MAX).await?;
            if stream == own {
                let records = open_records(journal, &envelopes).await?;
                self.host.extend(records);
            } else {
                let records = open_records(journal, &envelopes).await?;
                self.sessions.entry(stream).or_default().extend(records);
            }
        }
        Ok(())
    }
}

/// Letters of a journal that the relay has not confirmed.
///
/// # Errors
///
/// [`JournalError`] when it cannot be read.
pub async fn letters(journal: &Journal) -> Result<usize, JournalError> {
    Ok(journal.letters().await?.len())
}
