//! How long an event takes from one host to one device, at a rate that keeps nothing busy.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::log::now;
use crate::peer::Pair;

/// Latencies of `events` events, in nanoseconds.
pub(crate) async fn measure(pair: Pair, events: u64) -> anyhow::Result<Histogram<u64>> {
    let mut host = pair.host(1, 0).await?;
    let mut device = pair.device(0, 0).await?;
    let end = WARM_UP + events;
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let mut ticks = tokio::time::interval(BETWEEN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut out = Vec::new();
        while host.log.seq() < end {
            ticks.tick().await;
            out.clear();
            host.log.write(&mut out);
            host.writer.send(&out).await?;
        }
        anyhow::Ok(host)
    });
    let mut found = Histogram::new_with_max(LONGEST, 3)?;
    let mut seq = 0;
    while seq < end {
        device
            .events(|event| {
                seq = event.seq;
                if seq > WARM_UP {
                    found.saturating_record(now().saturating_sub(event.made));
                }
            })
            .await?;
    }
    while let Some(sent) = sending.join_next().await {
        drop(sent??);
    }
    Ok(found)
}

/// What takes longer counts as this, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// 200 events a second.
const BETWEEN: Duration = Duration::from_millis(5);
/// Events that do not count.
const WARM_UP: u64 = 50;
