//! A device that was away reads what it missed.

use std::time::{Duration, Instant};

use crate::child::Server;
use crate::log::Pace;
use crate::measure::flood;

/// How long a device takes that missed `events` events, from its question to the last of them.
pub(crate) async fn measure(server: &Server, number: u64, events: u64) -> anyhow::Result<Duration> {
    write(server, number, events).await?;
    read(server, number, events).await
}

/// Writes a stream of `events` events.
pub(crate) async fn write(server: &Server, number: u64, events: u64) -> anyhow::Result<()> {
    let pair = server.pair(number);
    let mut host = pair.host(1, 0).await?;
    let mut watching = pair.device(0, 0).await?;
    let batch = host.log.many(events);
    let (host, read) = tokio::join!(
        flood::send(host, &batch, Pace::Bulk),
        watching.read_to(0, events)
    );
    read?;
    host?.stored(events).await
}

/// Reads a whole stream.
pub(crate) async fn read(server: &Server, number: u64, events: u64) -> anyhow::Result<Duration> {
    let mut device = server.pair(number).idle_device(0).await?;
    let begin = Instant::now();
    device.follow(Some(0), None).await?;
    device.read_to(0, events).await?;
    Ok(begin.elapsed())
}

/// How long a device without a cursor waits for the newest events of a stream of `events` events.
pub(crate) async fn tail(server: &Server, number: u64, events: u64) -> anyhow::Result<Duration> {
    let mut device = server.pair(number).idle_device(0).await?;
    let begin = Instant::now();
    device.follow(None, Some(TAIL)).await?;
    device.read_to(events - TAIL, events).await?;
    Ok(begin.elapsed())
}

/// What fits a screen.
const TAIL: u64 = 200;
