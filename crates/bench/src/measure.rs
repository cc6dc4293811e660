//! The loads. Each takes a server that runs and gives the figures of one round.

pub(crate) mod beside;
pub(crate) mod catch_up;
pub(crate) mod crash;
pub(crate) mod flood;
pub(crate) mod latency;
pub(crate) mod pairs;
pub(crate) mod slow;

/// Events or bytes per second.
pub(crate) fn rate(count: u64, took: std::time::Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// Seconds per million.
pub(crate) fn per_million(used: std::time::Duration, count: u64) -> f64 {
    used.as_secs_f64() * 1e6 / count as f64
}
