//! A relay that is played: the real one, with a store in memory and connections that are handed
//! to it.

use std::sync::Arc;

use farhelm_relay::{Config, Kept, Relay};

use crate::machine::Machine;
use crate::universe::Universe;

/// A relay, across its crashes.
pub struct PlayedRelay {
    /// Where it runs.
    pub machine: Arc<Machine>,
    /// What lasts.
    pub kept: Kept,
    universe: Arc<Universe>,
}

impl PlayedRelay {
    /// A relay that is off, with a copy of what another keeps, or nothing.
    ///
    /// # Panics
    ///
    /// When there is no memory for its store.
    pub async fn new(machine: Arc<Machine>, universe: &Arc<Universe>, kept: Option<&Kept>) -> Self {
        let kept = match kept {
            Some(kept) => kept.copy(),
            None => empty(&machine).await,
        };
        Self {
            machine,
            kept,
            universe: Arc::clone(universe),
        }
    }

    /// Turns it on.
    pub fn boot(&self) {
        let life = self.machine.boot();
        let (kept, net) = (self.kept.clone(), Arc::clone(self.universe.net()));
        let inside = Arc::clone(&life);
        drop(life.run(async move {
            let config = Config {
                memory: true,
                ..Config::default()
            };
            let relay = Relay::inside(config, &kept).expect("the defaults fit together");
            let relay = Arc::new(relay);
            net.set_door(Some(Box::new(move |end| {
                if !inside.is_on() {
                    return false;
                }
                let relay = Arc::clone(&relay);
                drop(inside.run(async move { relay.attach(end).await }));
                true
            })));
        }));
    }

    /// Turns it off without warning.
    pub fn crash(&self, place: &str) {
        self.machine.crash(place);
        self.universe.net().set_door(None);
    }

    /// Loses everything that it keeps; only while it is off.
    pub async fn wipe(&mut self) {
        self.kept = empty(&self.machine).await;
    }
}

async fn empty(machine: &Arc<Machine>) -> Kept {
    machine.spare();
    let life = machine.boot();
    let kept = life.run(async { Kept::new().expect("memory") }).await;
    machine.crash("its factory");
    kept.expect("nothing is wrong yet")
}
