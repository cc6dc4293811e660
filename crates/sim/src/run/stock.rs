//! What every run would begin with: a host with some devices paired. That takes longer than the
//! run, so it is done once, for real, and copied.

use std::sync::OnceLock;

use farhelm_relay::Kept;

use super::{Run, live};
use crate::universe::Universe;

/// What is kept of a host, its devices and its relay, all of them off.
pub(super) struct Stock {
    pub(super) journal: Vec<u8>,
    pub(super) devices: Vec<Vec<u8>>,
    pub(super) relay: Kept,
}

/// A host with so many devices.
pub(super) fn of(devices: usize) -> &'static Stock {
    static STOCK: [OnceLock<Stock>; MOST] = [const { OnceLock::new() }; MOST];
    STOCK[devices.min(MOST - 1)].get_or_init(|| live(make(devices)))
}

async fn make(devices: usize) -> Stock {
    let universe = Universe::begin(0, false);
    let mut run = Run::begin(&universe, None).await;
    for _ in 0..devices {
        let pairing = run.pair().await;
        pairing.await.expect("nothing is wrong yet");
    }
    run.wait(5_000).await;
    run.host.machine.crash("the end of its making");
    run.relay.crash("the end of its making");
    for device in &run.devices {
        device.machine.crash("the end of its making");
        assert!(
            device.store.hosts().is_ok_and(|hosts| hosts.len() == 1),
            "a device was not paired: {:?}",
            universe.all_broken()
        );
    }
    // What was turned off ends.
    tokio::task::yield_now().await;
    let images = run.devices.iter().map(|device| device.store.image());
    Stock {
        journal: run.host.journal.image().expect("memory"),
        devices: images.collect::<Result<_, _>>().expect("memory"),
        relay: run.relay.kept.copy(),
    }
}

/// Devices in stock, and one.
const MOST: usize = 4;
