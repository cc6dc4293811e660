//! The relay dies without a warning in the middle of a flood and is started again: everything
//! that it had receipted must be there, and the host sends the rest again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::child::Server;
use crate::log::Pace;
use crate::measure::flood;
use crate::peer::Device;

/// What a crash cost.
pub(crate) struct Crash {
    /// Receipted events that were gone.
    pub(crate) lost: u64,
    /// From the end of the old process to the first event that came from the other.
    pub(crate) gap: Duration,
}

/// Kills and restarts the relay.
pub(crate) async fn measure(server: &mut Server, number: u64) -> anyhow::Result<Crash> {
    let pair = server.pair(number);
    let mut host = pair.host(1, 0).await?;
    let seen = Arc::new(AtomicU64::new(0));
    let mut reading = JoinSet::new();
    reading.spawn(read(pair.device(0, 0).await?, Arc::clone(&seen)));
    let begin = Instant::now();
    let mut out = Vec::new();
    while begin.elapsed() < FLOOD {
        out.clear();
        (0..TOGETHER).for_each(|_| host.log.write(&mut out));
        host.writer.send(&out).await?;
    }
    let killed = Instant::now();
    server.crash()?;
    drop(reading.join_next().await);
    // The host reads until its connection has ended, so this is all it was ever told.
    let (receipted, sent) = (host.ended().await, host.log.seq());
    drop(host);

    let mut host = pair.host(1, 1).await?;
    let stored = host.locate(&pair).await?;
    let lost = receipted.saturating_sub(stored);
    let seen = seen.load(Ordering::Relaxed);
    let mut device = pair.device(0, seen).await?;
    host.log.rewind(stored);
    let rest = host.log.many(sent - stored + AFTER);
    let end = host.log.seq();
    let mut sending = JoinSet::new();
    sending.spawn(async move { flood::send(host, &rest, Pace::Bulk).await });
    // Presence comes too.
    let mut first = seen;
    while first == seen {
        first = device.read_some(seen).await?;
    }
    let gap = killed.elapsed();
    device.read_to(first, end).await?;
    while let Some(host) = sending.join_next().await {
        host??.stored(end).await?;
    }
    Ok(Crash { lost, gap })
}

async fn read(mut device: Device, seen: Arc<AtomicU64>) {
    while let Ok(reached) = device.read_some(seen.load(Ordering::Relaxed)).await {
        seen.store(reached, Ordering::Relaxed);
    }
}

/// How long the relay is flooded before it dies.
const FLOOD: Duration = Duration::from_millis(700);
const TOGETHER: u64 = 64;
/// Events that nobody had sent before the crash.
const AFTER: u64 = 1000;
