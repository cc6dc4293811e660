//! Real programs with faults between and in them: nothing is lost, doubled or told wrongly. A failure prints its seed;
//! `SEED=…` repeats it.

mod beginnings;
mod keepers;
mod kills;
mod points;
mod weather;

use std::path::Path;

use farhelm_chaos::device::Device;
use farhelm_chaos::oracle::{self, Verdict};
use farhelm_chaos::world::{Session, World, until};
use serde_json::{Value, json};

const FARHELM: &str = env!("CARGO_BIN_EXE_farhelm");

fn farhelm() -> &'static Path {
    Path::new(FARHELM)
}

/// Waits until every device was told what became of its wishes, and judges.
async fn settle(world: &World, session: &Session, devices: &[&Device]) -> anyhow::Result<Verdict> {
    for device in devices {
        let waits = || {
            device
                .told()
                .into_iter()
                .find(|wish| wish.outcome.is_none())
        };
        let told = until("everybody is told", async || waits().is_none()).await;
        told.map_err(|_| anyhow::anyhow!("{} is not told of {:?}", device.name, waits()))?;
    }
    let log = world.host_log(session).await?;
    let mut verdict = world.judge(session, devices).await?;
    for device in devices {
        verdict.absorb(oracle::wishes(&log, &device.told()));
    }
    Ok(verdict)
}

/// Says what it does, asks, and says a few numbered words.
fn turns() -> Value {
    json!([[
        {"do": "text", "text": "working on {prompt} with care"},
        {"do": "ask", "call": {"title": "may {prompt} happen?", "kind": "execute", "rawInput": {"command": "true"}}},
        {"do": "count", "to": 20},
    ]])
}
