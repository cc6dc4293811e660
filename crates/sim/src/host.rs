//! A host that is played: the real daemon with a journal in memory, and keepers beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use farhelm_core::command::{Command, Outcome};
use farhelm_core::fleet::Fleet;
use farhelm_core::keys::Identity;
use farhelm_host::agents::AgentEntry;
use farhelm_host::config::Config;
use farhelm_host::journal::Journal;
use farhelm_host::keeper::Keepers;
use farhelm_host::stage::{self, Desk, Stage};

use crate::agent::Ledger;
use crate::device::hold;
use crate::keep::Keep;
use crate::machine::Machine;
use crate::universe::Universe;

/// A host, across its crashes.
pub struct Host {
    /// Where its daemon runs.
    pub machine: Arc<Machine>,
    /// Where its keepers and agents run.
    pub workshop: Arc<Machine>,
    /// Its keys.
    pub identity: Arc<Identity>,
    /// What lasts.
    pub journal: Journal,
    /// What its agents said and were told.
    pub ledger: Arc<Ledger>,
    /// Its keepers.
    pub keep: Arc<Keep>,
    universe: Arc<Universe>,
    config: Arc<Config>,
    /// Whoever sits at it.
    pub front: Front,
}

/// Whoever sits at a host, across its crashes.
#[derive(Clone)]
pub struct Front {
    machine: Arc<Machine>,
    desk: Arc<Mutex<Option<Desk>>>,
}

impl Host {
    /// A host that is off, with a journal that begins with an image.
    ///
    /// # Panics
    ///
    /// When there is no memory for its journal.
    #[must_use]
    pub fn new(
        machine: Arc<Machine>,
        workshop: Arc<Machine>,
        universe: &Arc<Universe>,
        image: Option<&[u8]>,
    ) -> Self {
        // The same in every run: what is in stock was made with it.
        let identity = Identity::from_seed([7; 64]).expect("any seed gives keys");
        let entry = AgentEntry {
            command: Some("/bin/sh".to_owned()),
            ..AgentEntry::default()
        };
        let config = Config {
            name: Some(format!("host {}", universe.canary)),
            agents: BTreeMap::from([("played".to_owned(), entry)]),
            ..Config::default()
        };
        let ledger = Arc::new(Ledger::default());
        let keep = Keep::new(universe, workshop.boot(), Arc::clone(&ledger));
        let front = Front {
            machine: Arc::clone(&machine),
            desk: Arc::default(),
        };
        Self {
            machine,
            workshop,
            identity: Arc::new(identity),
            journal: Journal::in_memory(image).expect("memory"),
            ledger,
            keep,
            universe: Arc::clone(universe),
            config: Arc::new(config),
            front,
        }
    }

    /// Takes the power away from its keepers and agents.
    pub fn black_out(&self) {
        self.workshop.crash("a blackout");
        for session in self.ledger.pages().into_keys() {
            self.ledger.write(session, |page| {
                page.is_busy = false;
                page.is_lossy = true;
            });
        }
    }

    /// Turns it on.
    pub fn boot(&mut self) {
        if !self.workshop.is_up() {
            self.keep = Keep::new(
                &self.universe,
                self.workshop.boot(),
                Arc::clone(&self.ledger),
            );
        }
        // As it is read from a disk.
        let image = self.journal.image().expect("memory");
        self.journal = Journal::in_memory(Some(&image)).expect("memory");
        let life = self.machine.boot();
        let stage = Stage {
            identity: Arc::clone(&self.identity),
            journal: self.journal.clone(),
            folder: folder().to_owned(),
            keepers: Arc::clone(&self.keep) as Arc<dyn Keepers>,
            config: Arc::clone(&self.config),
            url: URL.to_owned(),
        };
        let (desk, machine) = (Arc::clone(&self.front.desk), Arc::clone(&self.machine));
        let universe = Arc::clone(&self.universe);
        *hold(&desk) = None;
        drop(life.run(async move {
            let ended = match stage::start(stage).await {
                Ok((daemon, at)) => {
                    *hold(&desk) = Some(at);
                    daemon.run().await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            universe.note(&format!("the daemon ended: {ended:?}"));
            machine.crash("its own end");
        }));
    }
}

impl Front {
    /// Somebody at the host wants something. Nothing when nobody answers.
    pub async fn wish(&self, command: Command) -> Option<Outcome> {
        let desk = self.desk()?;
        let patience = std::time::Duration::from_secs(20);
        tokio::time::timeout(patience, desk.wish(command))
            .await
            .ok()?
    }

    /// What there is, as somebody at the host is shown.
    #[must_use]
    pub fn fleet(&self) -> Option<Arc<Fleet>> {
        Some(self.desk()?.fleet())
    }

    fn desk(&self) -> Option<Desk> {
        hold(&self.desk).clone().filter(|_| self.machine.is_up())
    }
}

/// The state folder of all hosts: nothing that counts is in it.
fn folder() -> &'static Path {
    static FOLDER: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    FOLDER
        .get_or_init(|| tempfile::tempdir().expect("a temporary folder"))
        .path()
}

/// Where the relay is.
pub const URL: &str = "http://127.0.0.1:7420";
