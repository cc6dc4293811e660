//! What a host takes while nothing happens: its daemon with the relay in it, and the keeper of one
//! agent.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::Host;
use crate::child::{cpu_of, pss_of};

/// What one process takes.
pub(super) struct Idle {
    name: &'static str,
    /// In MiB.
    pss: f64,
    /// In cores.
    cpu: f64,
}

/// Starts a session and leaves it alone.
pub(super) async fn measure(program: &Path) -> anyhow::Result<Vec<Idle>> {
    let host = Host::new(program)?;
    let measured = watch(&host).await;
    host.run(&["down"]).await?;
    measured
}

/// The table of the figures, in Markdown.
pub(super) fn table(idle: &[Idle]) -> String {
    let mut text =
        "\n| a host with one idle session | PSS | CPU, in cores |\n|---|---:|---:|\n".to_owned();
    for Idle { name, pss, cpu } in idle {
        text += &format!("| {name} | {pss:.1} MiB | {cpu:.4} |\n");
    }
    text
}

async fn watch(host: &Host) -> anyhow::Result<Vec<Idle>> {
    host.up(&["--agent", "scripted"]).await?;
    let daemon = host.json(&["status"]).await?["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
        .context("the daemon's process")?;
    let keeper = keeper_of(daemon).context("the keeper's process")?;
    tokio::time::sleep(REST).await;
    let both = [("daemon, with its relay", daemon), ("keeper", keeper)];
    let mut before = Vec::new();
    for (_, pid) in both {
        before.push(cpu_of(pid)?);
    }
    tokio::time::sleep(WINDOW).await;
    let mut idle = Vec::new();
    for ((name, pid), before) in both.into_iter().zip(before) {
        let used = cpu_of(pid)?.saturating_sub(before);
        idle.push(Idle {
            name,
            pss: pss_of(pid)? / KIB,
            cpu: used.as_secs_f64() / WINDOW.as_secs_f64(),
        });
    }
    Ok(idle)
}

/// The keeper that `daemon` has started.
fn keeper_of(daemon: u32) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| {
            let read = |what: &str| {
                std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default()
            };
            let stat = read("stat");
            let parent = stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            parent == Some(daemon) && read("cmdline").split('\0').any(|word| word == KEEPER)
        })
}

/// How its command line names it.
const KEEPER: &str = "keeper";
/// What it gets to come to rest.
const REST: Duration = Duration::from_secs(2);
/// How long it is watched; processor time is counted in hundredths of a second.
const WINDOW: Duration = Duration::from_secs(20);
const KIB: f64 = 1024.0;
