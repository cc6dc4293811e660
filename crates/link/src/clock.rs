//! Clocks: the wall's, for people and expiries, and one that goes on while a laptop sleeps.

use std::time::Duration;

use farhelm_proto::Timestamp;
use tokio::time::Instant;

/// The time of day.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(farhelm_world::millis())
}

/// Measures how long something has lasted, sleep of the machine included, and notices sleep.
///
/// The monotonic clock stands still while a machine is suspended. Where the system counts the time
/// since it was started, that count says how long it slept; elsewhere a wall clock that runs
/// ahead of the monotonic one is a hint, and no more: somebody may have set it.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    last: Reading,
    total: Duration,
    slept: bool,
}

/// What the clocks showed.
#[derive(Clone, Copy, Debug)]
struct Reading {
    instant: Instant,
    /// Since the machine was started, sleep included.
    boot: Option<Duration>,
    wall: Timestamp,
}

impl Reading {
    fn take() -> Self {
        Self {
            instant: Instant::now(),
            boot: farhelm_world::since_boot(),
            wall: now(),
        }
    }
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            last: Reading::take(),
            total: Duration::ZERO,
            slept: false,
        }
    }

    /// How long it has run.
    pub(crate) fn read(&mut self) -> Duration {
        self.advance(Reading::take());
        self.total
    }

    /// Whether the machine slept, or may have, since this was last asked.
    pub(crate) const fn has_slept(&mut self) -> bool {
        std::mem::replace(&mut self.slept, false)
    }

    fn advance(&mut self, reading: Reading) {
        let awake = reading.instant.saturating_duration_since(self.last.instant);
        let passed = match (reading.boot, self.last.boot) {
            (Some(boot), Some(last)) => boot.saturating_sub(last),
            (_, _) => Duration::from_millis(reading.wall.millis_since(self.last.wall)),
        };
        let slept = passed > awake + SLEPT;
        self.slept |= slept;
        // A wall clock is believed for a hint, and never for a length of time.
        self.total += if slept && reading.boot.is_some() {
            passed
        } else {
            awake
        };
        self.last = reading;
    }
}

/// Smaller differences of the two clocks are corrections of one of them.
const SLEPT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f08_sleep_of_the_machine_counts_and_is_noticed_once() {
        let mut watch = Stopwatch::start();
        let begin = Reading {
            boot: Some(Duration::from_secs(50)),
            ..watch.last
        };
        watch.last = begin;
        let later = |awake: u64, boot: u64| Reading {
            instant: begin.instant + Duration::from_secs(awake),
            boot: Some(Duration::from_secs(50 + boot)),
            ..begin
        };
        watch.advance(later(1, 2));
        assert_eq!(
            (watch.total, watch.has_slept()),
            (Duration::from_secs(1), false)
        );
        watch.advance(later(2, 3602));
        assert_eq!(watch.total, Duration::from_secs(3601));
        assert!(watch.has_slept() && !watch.has_slept());
    }

    #[test]
    fn f10_a_wall_clock_that_jumps_is_a_hint_at_most_and_never_a_length_of_time() {
        const YEAR: u64 = 365 * 24 * 3_600_000;
        let mut watch = Stopwatch::start();
        for boot in [None, Some(Duration::from_secs(50))] {
            watch = Stopwatch::start();
            watch.last.boot = boot;
            let begin = watch.last;
            for (second, wall) in [
                (1, begin.wall.plus_millis(3_600_000)),
                (2, begin.wall),
                (3, begin.wall.plus_millis(YEAR)),
                (4, Timestamp(begin.wall.0 - YEAR)),
            ] {
                let passed = Duration::from_secs(second);
                watch.advance(Reading {
                    instant: begin.instant + passed,
                    boot: boot.map(|boot| boot + passed),
                    wall,
                });
                assert_eq!(watch.total, passed);
            }
            assert_eq!(watch.has_slept(), boot.is_none());
        }
        assert!(!watch.has_slept());
    }
}
