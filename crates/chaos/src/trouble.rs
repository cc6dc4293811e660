//! Trouble by chance: roads are cut, the relay, the daemon and agents are killed.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::chance::Chance;
use crate::world::World;

/// How often each kind happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Roads that were cut, each with all its connections.
    pub cuts: u64,
    /// Kills of the relay.
    pub relays: u64,
    /// Kills of the daemon.
    pub hosts: u64,
    /// Kills of agents.
    pub agents: u64,
}

/// Makes one piece of trouble, and starts again what was killed.
///
/// # Errors
///
/// When it does not start.
pub async fn one(
    world: &mut World,
    chance: &mut Chance,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    match chance.below(10) {
        0..=4 => {
            counts.cuts += 1;
            let roads = [&world.host_road, &world.device_road];
            if let Some(road) = chance.pick(&roads) {
                road.cut();
            }
        }
        5 | 6 => {
            counts.relays += 1;
            world.relay.kill().await;
            world.start_relay(&[]).await?;
        }
        7 | 8 => {
            counts.hosts += 1;
            world.host.kill().await;
            world.start_host(&[]).await?;
        }
        _ => {
            if let Some(agent) = chance.pick(&world.agents()) {
                counts.agents += 1;
                // It may have ended meanwhile.
                kill_process(*agent, Signal::KILL).unwrap_or_default();
            }
        }
    }
    Ok(())
}

/// How long it is quiet until the next one.
pub const fn pause(chance: &mut Chance) -> Duration {
    Duration::from_millis(500 + chance.below(2500))
}

/// Processes whose command line has this in it.
#[must_use]
pub fn processes(with: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&line).contains(with).then_some(pid)
        })
        .collect()
}

/// Whether a process is there and has not ended.
#[must_use]
pub fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The process that started another.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}
