//! What a device that stops reading costs the one beside it: how long events take while it reads
//! and while it does not, in turns, so that both have the same of what else the machine does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::child::Server;
use crate::log::now;
use crate::peer::{Device, Host};

/// The reading device's latencies of one turn, in nanoseconds.
pub(crate) struct Turn {
    /// While the other reads.
    pub(crate) reading: Histogram<u64>,
    /// While it does not.
    pub(crate) stopped: Histogram<u64>,
}

/// Stops one of two devices again and again.
pub(crate) async fn measure(server: &Server, number: u64) -> anyhow::Result<Vec<Turn>> {
    let pair = server.pair(number);
    let host = pair.host(2, 0).await?;
    let (quick, slow) = (pair.device(0, 0).await?, pair.device(1, 0).await?);
    let (go, sending) = (watch::Sender::new(true), Arc::new(AtomicBool::new(true)));
    let (phase, slow_seq) = (
        Arc::new(AtomicUsize::new(NOTHING)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut others = JoinSet::new();
    others.spawn(read_slowly(slow, go.subscribe(), Arc::clone(&slow_seq)));
    let mut ends = JoinSet::new();
    ends.spawn(send(host, Arc::clone(&sending)));
    let mut timing = JoinSet::new();
    timing.spawn(time(quick, Arc::clone(&phase), Arc::clone(&sending)));

    for turn in 0..TURNS {
        tokio::time::sleep(SETTLE).await;
        phase.store(turn * 2, Ordering::Relaxed);
        tokio::time::sleep(WINDOW).await;
        phase.store(NOTHING, Ordering::Relaxed);
        let before = slow_seq.load(Ordering::Relaxed);
        go.send_replace(false);
        tokio::time::sleep(FILL).await;
        phase.store(turn * 2 + 1, Ordering::Relaxed);
        tokio::time::sleep(WINDOW).await;
        phase.store(NOTHING, Ordering::Relaxed);
        go.send_replace(true);
        let begun = Instant::now();
        while slow_seq.load(Ordering::Relaxed) <= before {
            ensure!(
                begun.elapsed() < PATIENCE,
                "the stopped device does not come back"
            );
            if let Some(ended) = others.try_join_next() {
                ended??;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    sending.store(false, Ordering::Relaxed);
    let found = timing.join_next().await.context("nobody timed")??;
    ends.join_next().await.context("nobody sent")???;
    found
}

/// Sends at an even pace for as long as it is told to, and one event more.
async fn send(mut host: Host, sending: Arc<AtomicBool>) -> anyhow::Result<Host> {
    let mut out = Vec::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while sending.load(Ordering::Relaxed) {
        ticks.tick().await;
        out.clear();
        (0..EVENTS_PER_TICK).for_each(|_| host.log.write(&mut out));
        host.writer.send(&out).await?;
    }
    // So that who times is woken.
    out.clear();
    host.log.write(&mut out);
    host.writer.send(&out).await?;
    Ok(host)
}

async fn time(
    mut device: Device,
    phase: Arc<AtomicUsize>,
    sending: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Turn>> {
    let empty = Histogram::new_with_max(LONGEST, 3)?;
    let mut found = vec![empty; TURNS * 2];
    while sending.load(Ordering::Relaxed) {
        let mut present = found.get_mut(phase.load(Ordering::Relaxed));
        device
            .events(|event| {
                if let Some(found) = &mut present {
                    found.saturating_record(now().saturating_sub(event.made));
                }
            })
            .await?;
    }
    let turns = found.chunks_exact(2).map(|pair| Turn {
        reading: pair[0].clone(),
        stopped: pair[1].clone(),
    });
    Ok(turns.collect())
}

async fn read_slowly(
    mut device: Device,
    mut go: watch::Receiver<bool>,
    seq: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    loop {
        go.wait_for(|go| *go).await?;
        let reached = device.read_some(seq.load(Ordering::Relaxed)).await?;
        seq.store(reached, Ordering::Relaxed);
    }
}

/// Between the windows of a turn; the others are numbered.
const NOTHING: usize = usize::MAX;
const TURNS: usize = 4;
/// How long each state is measured in each turn.
const WINDOW: Duration = Duration::from_millis(300);
/// What both get after the stopped one has begun to read again.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the buffers of the system take to fill.
const FILL: Duration = Duration::from_millis(800);
const PATIENCE: Duration = Duration::from_secs(30);
/// What takes longer counts as this, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// 20,000 events a second.
const TICK: Duration = Duration::from_millis(1);
const EVENTS_PER_TICK: u64 = 20;
