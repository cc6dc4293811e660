//! Many hosts with one device each: connected, idle, and all busy at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::child::Server;
use crate::peer::{Device, Host, Pair};
use crate::target::Kind;

/// What pairs cost.
pub(crate) struct Pairs {
    /// KiB before the first came.
    pub(crate) base: f64,
    /// KiB for each, after it has exchanged one event.
    pub(crate) each: f64,
    /// Until all were connected.
    pub(crate) connected: Duration,
    /// Cores in use while all were idle.
    pub(crate) idle: f64,
    /// Until all busy ones were done.
    pub(crate) busy: Duration,
    /// Processor time while they were busy.
    pub(crate) cpu: Duration,
}

/// Connects `pairs` pairs and lets each send `events` events, one at a time.
pub(crate) async fn measure(
    server: &Server,
    pairs: u64,
    events: u64,
    idle: Duration,
) -> anyhow::Result<Pairs> {
    tokio::time::sleep(REST).await;
    let base = server.pss()?;
    let begin = Instant::now();
    let peers = connect(server, pairs).await?;
    let connected = begin.elapsed();
    let mut peers = exchange(peers, 0, 1).await?;
    tokio::time::sleep(REST).await;
    let each = (server.pss()? - base) / pairs as f64;

    let (cpu, begin) = (server.cpu()?, Instant::now());
    keep_alive(server.pair(0).kind, &mut peers, idle).await?;
    let idle = server.cpu()?.saturating_sub(cpu).as_secs_f64() / begin.elapsed().as_secs_f64();

    let (cpu, begin) = (server.cpu()?, Instant::now());
    let peers = exchange(peers, 1, 1 + events).await?;
    let (busy, cpu) = (begin.elapsed(), server.cpu()?.saturating_sub(cpu));
    drop(peers);
    Ok(Pairs {
        base,
        each,
        connected,
        idle,
        busy,
        cpu,
    })
}

async fn connect(server: &Server, pairs: u64) -> anyhow::Result<Vec<(Host, Device)>> {
    let mut connecting = JoinSet::new();
    let mut peers = Vec::new();
    let at_once = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    for number in 0..pairs {
        let permit = Arc::clone(&at_once).acquire_owned().await?;
        let pair = server.pair(number);
        connecting.spawn(async move {
            let opened = open(pair).await;
            drop(permit);
            opened
        });
    }
    while let Some(pair) = connecting.join_next().await {
        peers.push(pair??);
    }
    Ok(peers)
}

async fn open(pair: Pair) -> anyhow::Result<(Host, Device)> {
    Ok((pair.host(1, 0).await?, pair.device(0, 0).await?))
}

/// Lets every host send the events after `from` up to `to`, each on its own, and every device
/// read them.
async fn exchange(
    peers: Vec<(Host, Device)>,
    from: u64,
    to: u64,
) -> anyhow::Result<Vec<(Host, Device)>> {
    let mut busy = JoinSet::new();
    for (mut host, mut device) in peers {
        busy.spawn(async move {
            let sending = async {
                let mut out = Vec::new();
                while host.log.seq() < to {
                    out.clear();
                    host.log.write(&mut out);
                    host.writer.send(&out).await?;
                    // The others' turn.
                    tokio::task::yield_now().await;
                }
                anyhow::Ok(())
            };
            let (sent, read) = tokio::join!(sending, device.read_to(from, to));
            sent?;
            read?;
            anyhow::Ok((host, device))
        });
    }
    let mut peers = Vec::new();
    while let Some(pair) = busy.join_next().await {
        peers.push(pair??);
    }
    Ok(peers)
}

/// Waits, and sends the signs of life that our relay asks its peers for. The yardsticks ask for
/// none.
async fn keep_alive(
    kind: Kind,
    peers: &mut [(Host, Device)],
    idle: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + idle;
    if kind != Kind::Farhelm {
        tokio::time::sleep(idle).await;
        return Ok(());
    }
    let each = PING / u32::try_from(peers.len() * 2)?;
    let mut ticks = tokio::time::interval(each);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    'idle: loop {
        for (host, device) in &mut *peers {
            for ping in [true, false] {
                ticks.tick().await;
                if Instant::now() >= end {
                    break 'idle;
                }
                if ping {
                    device.ping().await?;
                } else {
                    host.ping().await?;
                }
            }
        }
    }
    Ok(())
}

/// How often our relay asks each peer to send a sign of life.
const PING: Duration = Duration::from_secs(5);
/// Pairs that connect at the same time.
const AT_ONCE: usize = 128;
/// What a server gets to come to rest.
const REST: Duration = Duration::from_millis(400);
