//! One host sends as fast as it can to some devices.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::child::Server;
use crate::log::{Batch, Pace};
use crate::peer::Host;

/// What a flood took.
pub(crate) struct Flood {
    /// Until every device had everything.
    pub(crate) delivered: Duration,
    /// Until the host knew that everything is stored as well.
    pub(crate) receipted: Duration,
    /// Processor time of the server.
    pub(crate) cpu: Duration,
}

/// Sends `events` events on the stream `number` to `devices` devices.
pub(crate) async fn measure(
    server: &Server,
    number: u64,
    devices: u64,
    events: u64,
    pace: Pace,
) -> anyhow::Result<Flood> {
    let pair = server.pair(number);
    let mut host = pair.host(devices, 0).await?;
    let mut reading = JoinSet::new();
    let mut readers = Vec::new();
    for device in 0..devices {
        readers.push(pair.device(device, 0).await?);
    }
    let batch = host.log.many(events);
    tokio::time::sleep(BREATH).await;

    let (cpu, begin) = (server.cpu()?, Instant::now());
    for mut device in readers {
        reading.spawn(async move { device.read_to(0, events).await.map(|()| device) });
    }
    let mut sending = JoinSet::new();
    sending.spawn(async move { send(host, &batch, pace).await });
    let mut kept = Vec::new();
    while let Some(read) = reading.join_next().await {
        kept.push(read??);
    }
    let delivered = begin.elapsed();
    while let Some(host) = sending.join_next().await {
        host??.stored(events).await?;
    }
    let receipted = begin.elapsed();
    let cpu = server.cpu()?.saturating_sub(cpu);
    Ok(Flood {
        delivered,
        receipted,
        cpu,
    })
}

/// Sends what was made before.
pub(crate) async fn send(mut host: Host, batch: &Batch, pace: Pace) -> anyhow::Result<Host> {
    for piece in batch.pieces(pace) {
        host.writer.send(piece).await?;
    }
    Ok(host)
}

/// What the server gets to come to rest.
const BREATH: Duration = Duration::from_millis(100);
