//! Clocks: the wall's, for people and expiries, and one that goes on while a laptop sleeps.

use std::time::Duration;

use farhelm_proto::Timestamp;
use tokio::time::Instant;

/// The time of day.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(farhelm_world::millis())
}

/// Measures how long something has lasted, sleep of the machine included.
///
/// The monotonic clock stands still while a machine is suspended and the wall clock does not, so
/// a wall clock that runs well ahead of the other one means that the machine slept.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    last: Instant,
    last_wall: Timestamp,
    total: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            last: Instant::now(),
            last_wall: now(),
            total: Duration::ZERO,
        }
    }

    /// How long it has run.
    pub(crate) fn read(&mut self) -> Duration {
        self.advance(Instant::now(), now());
        self.total
    }

    fn advance(&mut self, instant: Instant, wall: Timestamp) {
        let awake = instant.saturating_duration_since(self.last);
        let passed = Duration::from_millis(wall.millis_since(self.last_wall));
        self.total += if passed > awake + SLEPT {
            passed
        } else {
            awake
        };
        self.last = instant;
        self.last_wall = wall;
    }
}

/// Smaller differences of the two clocks are corrections of the wall clock.
const SLEPT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_of_the_machine_counts_and_a_corrected_clock_does_not() {
        let mut watch = Stopwatch::start();
        let (begin, wall) = (watch.last, watch.last_wall);
        watch.advance(begin + Duration::from_secs(1), wall.plus_millis(2_000));
        assert_eq!(watch.total, Duration::from_secs(1));
        watch.advance(begin + Duration::from_secs(2), wall.plus_millis(3_602_000));
        assert_eq!(watch.total, Duration::from_secs(3601));
        watch.advance(begin + Duration::from_secs(3), wall);
        assert_eq!(watch.total, Duration::from_secs(3602));
    }
}
