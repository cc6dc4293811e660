//! One device stops reading while the host sends much: does another notice, what does the server
//! keep for the stopped one, and how does that one come back?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::child::Server;
use crate::log::now;
use crate::measure::rate;
use crate::peer::{Device, Host};

/// What became of both.
pub(crate) struct Slow {
    /// The reading device's rate while the other was stopped, against before.
    pub(crate) ratio: f64,
    /// Its longest pause meanwhile.
    pub(crate) stall: Duration,
    /// KiB that the server had more at most meanwhile than at most before.
    pub(crate) gained: f64,
    /// KiB that it had at most meanwhile.
    pub(crate) peak: f64,
    /// What the stopped one had missed when it began to read again.
    pub(crate) missed: u64,
    /// How long it then took to reach the head.
    pub(crate) back: Duration,
}

/// What the reading device's task shows.
#[derive(Default)]
struct Watched {
    seq: AtomicU64,
    /// When the last event came.
    last: AtomicU64,
    longest: AtomicU64,
}

/// Stops one of two devices for `stopped`.
pub(crate) async fn measure(
    server: &Server,
    number: u64,
    stopped: Duration,
) -> anyhow::Result<Slow> {
    let pair = server.pair(number);
    let host = pair.host(2, 0).await?;
    let (quick, slow) = (pair.device(0, 0).await?, pair.device(1, 0).await?);
    let (go, flooding) = (watch::Sender::new(true), Arc::new(AtomicBool::new(true)));
    let (watched, slow_seq) = (Arc::new(Watched::default()), Arc::new(AtomicU64::new(0)));
    let mut devices = JoinSet::new();
    devices.spawn(watch_quick(quick, Arc::clone(&watched)));
    let mut slow_reading = JoinSet::new();
    slow_reading.spawn(read_slowly(slow, go.subscribe(), Arc::clone(&slow_seq)));
    let mut sending = JoinSet::new();
    sending.spawn(flood(host, Arc::clone(&flooding)));

    tokio::time::sleep(WARM_UP).await;
    let (before, usual) = watch(server, &watched, BEFORE).await?;
    go.send_replace(false);
    tokio::time::sleep(FILL).await;
    watched.longest.store(0, Ordering::Relaxed);
    let (during, highest) = watch(server, &watched, stopped).await?;
    let pause = now().saturating_sub(watched.last.load(Ordering::Relaxed));
    let stall = Duration::from_nanos(watched.longest.load(Ordering::Relaxed).max(pause));

    let missed = watched.seq.load(Ordering::Relaxed) - slow_seq.load(Ordering::Relaxed);
    let begin = Instant::now();
    flooding.store(false, Ordering::Relaxed);
    go.send_replace(true);
    let host = sending.join_next().await.context("nobody sent")???;
    while slow_seq.load(Ordering::Relaxed) < host.log.seq() {
        anyhow::ensure!(
            begin.elapsed() < PATIENCE,
            "the stopped device did not reach the head"
        );
        if let Some(ended) = slow_reading.try_join_next() {
            ended??;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let back = begin.elapsed();
    Ok(Slow {
        ratio: during / before,
        stall,
        gained: (highest - usual).max(0.0),
        peak: highest,
        missed,
        back,
    })
}

/// The reading device's rate in a window, and the most memory that the server had in it, in KiB.
async fn watch(server: &Server, watched: &Watched, window: Duration) -> anyhow::Result<(f64, f64)> {
    let (begin, from) = (Instant::now(), watched.seq.load(Ordering::Relaxed));
    let mut highest: f64 = 0.0;
    while begin.elapsed() < window {
        tokio::time::sleep(SAMPLE).await;
        highest = highest.max(server.pss()?);
    }
    Ok((
        rate(watched.seq.load(Ordering::Relaxed) - from, begin.elapsed()),
        highest,
    ))
}

/// Sends at an even pace for as long as it is told to. Flat out, the disk would decide the rate,
/// which falls while a file grows, and not the stopped device.
async fn flood(mut host: Host, flooding: Arc<AtomicBool>) -> anyhow::Result<Host> {
    let mut out = Vec::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while flooding.load(Ordering::Relaxed) {
        ticks.tick().await;
        out.clear();
        (0..EVENTS_PER_TICK).for_each(|_| host.log.write(&mut out));
        host.writer.send(&out).await?;
    }
    Ok(host)
}

async fn watch_quick(mut device: Device, watched: Arc<Watched>) -> anyhow::Result<()> {
    loop {
        let seq = watched.seq.load(Ordering::Relaxed);
        let reached = device.read_some(seq).await?;
        let (at, last) = (now(), watched.last.load(Ordering::Relaxed));
        if last > 0 {
            watched.longest.fetch_max(at - last, Ordering::Relaxed);
        }
        watched.last.store(at, Ordering::Relaxed);
        watched.seq.store(reached, Ordering::Relaxed);
    }
}

/// Reads while `go` says so; fails when an event is missing.
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

const WARM_UP: Duration = Duration::from_millis(500);
/// How long both are watched reading.
const BEFORE: Duration = Duration::from_millis(1000);
/// How long the buffers of the system take to fill.
const FILL: Duration = Duration::from_millis(500);
const SAMPLE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);
/// 50,000 events a second.
const TICK: Duration = Duration::from_millis(1);
const EVENTS_PER_TICK: u64 = 50;
