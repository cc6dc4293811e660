//! A run: rounds through all loads, each load on one server after the other.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::child::Server;
use crate::log::Pace;
use crate::measure::{beside, catch_up, crash, flood, latency, pairs, per_million, rate, slow};
use crate::output::note;
use crate::results::{Metric, Results};
use crate::target::Kind;

/// How much is measured.
pub(crate) struct Plan {
    rounds: usize,
    limit: Duration,
    kinds: Vec<Kind>,
    latency_events: u64,
    flood_events: u64,
    fan_events: u64,
    pairs: u64,
    pair_events: u64,
    idle: Duration,
    long_events: u64,
    stopped: Duration,
}

impl Plan {
    pub(crate) fn new(full: bool, rounds: usize, limit: Option<u64>, kinds: Vec<Kind>) -> Self {
        let quick = Self {
            rounds,
            limit: Duration::from_secs(limit.unwrap_or(170)),
            kinds,
            latency_events: 500,
            flood_events: 200_000,
            fan_events: 30_000,
            pairs: 1000,
            pair_events: 100,
            idle: Duration::from_millis(1000),
            long_events: 200_000,
            stopped: Duration::from_millis(1500),
        };
        if !full {
            return quick;
        }
        Self {
            limit: Duration::from_secs(limit.unwrap_or(900)),
            latency_events: 2000,
            flood_events: 500_000,
            fan_events: 60_000,
            pairs: 5000,
            pair_events: 40,
            idle: Duration::from_secs(10),
            long_events: 1_000_000,
            stopped: Duration::from_secs(15),
            ..quick
        }
    }
}

/// Measures everything that the plan asks for.
pub(crate) async fn relay(plan: &Plan) -> anyhow::Result<Results> {
    let mut results = Results::default();
    let pairs = raise_limit(plan.pairs)?;
    results.notes.push(("pairs", pairs.to_string()));
    results
        .notes
        .push(("cores", std::thread::available_parallelism()?.to_string()));
    results.notes.push(("load before", load()));
    let begin = Instant::now();
    // Once only, and first: they take a fixed time, and the rounds fill the rest.
    if plan.kinds.contains(&Kind::Farhelm) {
        note("once: a crash, a long stream");
        let found = once(plan, &mut results).await;
        keep(&mut results, "once", found);
    }
    for round in 1..=plan.rounds {
        let (since, rounds) = (Instant::now(), plan.rounds);
        note(&format!(
            "round {round} of {rounds}, {} s so far",
            begin.elapsed().as_secs()
        ));
        one_round(plan, pairs, &mut results).await;
        if round < rounds && begin.elapsed() + since.elapsed() > plan.limit {
            results
                .failures
                .push(format!("only {round} of {rounds} rounds fit the time"));
            break;
        }
    }
    results.notes.push(("load after", load()));
    results
        .notes
        .push(("seconds", begin.elapsed().as_secs().to_string()));
    Ok(results)
}

/// Every load on every server, one load after the other.
async fn one_round(plan: &Plan, pairs: u64, results: &mut Results) {
    let mut servers = Vec::new();
    for kind in &plan.kinds {
        let started = Server::start(*kind);
        if let Some(server) = keep(results, kind.name(), started) {
            servers.push((*kind, server));
        }
    }
    for load in [
        Load::Latency,
        Load::Flood,
        Load::Bulk,
        Load::Fan,
        Load::CatchUp,
    ] {
        for (kind, server) in &servers {
            let found = within(apply(plan, load, *kind, server, results)).await;
            keep(results, kind.name(), found);
        }
    }
    drop(servers);
    for kind in &plan.kinds {
        let found = within(busy_pairs(plan, *kind, pairs, results)).await;
        keep(results, kind.name(), found);
    }
    if plan.kinds.contains(&Kind::Farhelm) {
        let found = within(one_stopped(plan, Kind::Farhelm, results)).await;
        keep(results, "a stopped device", found);
        let found = within(beside_stopped(results)).await;
        keep(results, "a device beside a stopped one", found);
    }
}

/// What one server of each kind can take after the other; each is a stream of its own.
#[derive(Clone, Copy)]
enum Load {
    Latency = 1,
    Flood,
    Bulk,
    Fan,
    CatchUp,
}

async fn apply(
    plan: &Plan,
    load: Load,
    kind: Kind,
    server: &Server,
    results: &mut Results,
) -> anyhow::Result<()> {
    let number = load as u64;
    match load {
        Load::Latency => {
            let found = latency::measure(server.pair(number), plan.latency_events).await?;
            results.add_latencies(kind, &found)?;
        }
        Load::Flood => {
            let events = plan.flood_events;
            let found = flood::measure(server, number, 1, events, Pace::Single).await?;
            results.add(Metric::FloodRate, kind, rate(events, found.delivered));
            results.add(Metric::FloodCpu, kind, per_million(found.cpu, events));
            if kind == Kind::Farhelm {
                results.add(Metric::DurableRate, kind, rate(events, found.receipted));
            }
        }
        Load::Bulk => {
            let events = plan.flood_events;
            let found = flood::measure(server, number, 1, events, Pace::Bulk).await?;
            results.add(Metric::BulkRate, kind, rate(events, found.delivered));
            results.add(Metric::BulkCpu, kind, per_million(found.cpu, events));
        }
        Load::Fan => {
            let deliveries = plan.fan_events * FAN_DEVICES;
            let found =
                flood::measure(server, number, FAN_DEVICES, plan.fan_events, Pace::Single).await?;
            results.add(Metric::FanRate, kind, rate(deliveries, found.delivered));
            results.add(Metric::FanCpu, kind, per_million(found.cpu, deliveries));
        }
        Load::CatchUp if kind.stores() => {
            let found = catch_up::measure(server, number, MISSED_EVENTS).await?;
            results.add(Metric::CatchUp, kind, millis(found));
        }
        Load::CatchUp => {}
    }
    Ok(())
}

async fn busy_pairs(
    plan: &Plan,
    kind: Kind,
    pairs: u64,
    results: &mut Results,
) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    let found = pairs::measure(&server, pairs, plan.pair_events, plan.idle).await?;
    let events = pairs * plan.pair_events;
    results.add(Metric::BasePss, kind, found.base / KIB);
    results.add(Metric::PairPss, kind, found.each);
    results.add(Metric::IdleCpu, kind, found.idle);
    results.add(Metric::ConnectTime, kind, found.connected.as_secs_f64());
    results.add(Metric::PairsRate, kind, rate(events, found.busy));
    results.add(Metric::PairsCpu, kind, per_million(found.cpu, events));
    Ok(())
}

async fn one_stopped(plan: &Plan, kind: Kind, results: &mut Results) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    let found = slow::measure(&server, 1, plan.stopped).await?;
    results.add(Metric::SlowRate, kind, found.ratio);
    results.add(Metric::SlowStall, kind, millis(found.stall));
    results.add(Metric::SlowPeak, kind, found.peak / KIB);
    results.add(Metric::SlowMemory, kind, found.gained / KIB);
    results.add(Metric::SlowMissed, kind, found.missed as f64);
    results.add(Metric::SlowCatchUp, kind, found.back.as_secs_f64());
    results.add(Metric::SlowBackRate, kind, rate(found.missed, found.back));
    Ok(())
}

/// What a stopped device costs another one in time.
async fn beside_stopped(results: &mut Results) -> anyhow::Result<()> {
    let kind = Kind::Farhelm;
    let server = Server::start(kind)?;
    let p99 = |found: &Histogram<u64>| found.value_at_quantile(0.99) as f64 / 1e6;
    for turn in beside::measure(&server, 1).await? {
        let (reading, stopped) = (p99(&turn.reading), p99(&turn.stopped));
        results.add(Metric::BesideP99, kind, reading);
        results.add(Metric::BesideStoppedP99, kind, stopped);
        results.add(Metric::BesideRatio, kind, stopped / reading);
    }
    Ok(())
}

/// What one round is enough for.
async fn once(plan: &Plan, results: &mut Results) -> anyhow::Result<()> {
    if plan.kinds.contains(&Kind::Ws) {
        let found = within(one_stopped(plan, Kind::Ws, results)).await;
        keep(results, "ws with a stopped device", found);
    }
    let kind = Kind::Farhelm;
    let mut server = Server::start(kind)?;
    results.add(Metric::WireBytes, kind, wire_bytes(&server).await?);
    for number in 1..=CRASHES {
        let crash = within(crash::measure(&mut server, number))
            .await
            .context("kill -9")?;
        results.add(Metric::CrashLost, kind, crash.lost as f64);
        results.add(Metric::CrashGap, kind, crash.gap.as_secs_f64());
    }
    let server = Server::start(kind)?;
    within(catch_up::write(&server, 1, plan.long_events))
        .await
        .context("a long stream")?;
    for _ in 0..TAIL_ROUNDS {
        let found = within(catch_up::tail(&server, 1, plan.long_events))
            .await
            .context("the end of a long stream")?;
        results.add(Metric::Tail, kind, millis(found));
        let found = within(catch_up::read(&server, 1, plan.long_events))
            .await
            .context("all of a long stream")?;
        results.add(Metric::LongRate, kind, rate(plan.long_events, found));
    }
    Ok(())
}

/// What an event of an envelope of its own weighs on the wire, against its plaintext.
async fn wire_bytes(server: &Server) -> anyhow::Result<f64> {
    let mut host = server.pair(0).host(0, 0).await?;
    host.log.rewind(100_000);
    // A device's masked head is four bytes longer than what the relay sends.
    Ok((host.log.many(1).len() - 4) as f64 / crate::log::EVENT_BYTES as f64)
}

/// Gives every load an end.
async fn within<T>(load: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(PATIENCE, load)
        .await
        .context("it took too long")?
}

/// Notes a failure; one server's must not end the run.
fn keep<T>(results: &mut Results, of: &str, found: anyhow::Result<T>) -> Option<T> {
    found
        .map_err(|error| {
            let failure = format!("{of}: {error:#}");
            note(&failure);
            results.failures.push(failure);
        })
        .ok()
}

/// Lets this process and the servers open as many connections as `pairs` need; the number of
/// pairs that is possible.
pub(crate) fn raise_limit(pairs: u64) -> anyhow::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .context("failed to raise the limit of files")?;
    let possible = maximum.map_or(pairs, |files| files.saturating_sub(SPARE_FILES) / 2);
    if possible < pairs {
        note(&format!(
            "only {possible} pairs fit the limit of open files"
        ));
    }
    Ok(pairs.min(possible))
}

fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

const KIB: f64 = 1024.0;
const FAN_DEVICES: u64 = 20;
const MISSED_EVENTS: u64 = 10_000;
const TAIL_ROUNDS: usize = 3;
const CRASHES: u64 = 2;
const SPARE_FILES: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(90);
