//! Clocks: the wall's, for people and expiries, and one that goes on while a laptop sleeps.

use std::time::Duration;

use farhelm_proto::Timestamp;
use tokio::time::Instant;

/// The time of day.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp(farhelm_world::millis())
}

/// The clock of a host, as it said itself what time it has.
///
/// The end of a wish's time is for the host to judge, on its own clock. A device whose clock shows
/// another time would send wishes that are over when they arrive, or far too late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostClock {
    said: Timestamp,
    at: Instant,
}

impl HostClock {
    /// The host says, at this moment, that it has `said`.
    pub(crate) const fn new(said: Timestamp, at: Instant) -> Self {
        Self { said, at }
    }

    /// What it shows at this moment.
    ///
    /// While a machine sleeps the host's clock is taken to stand still: too early is safe.
    pub(crate) fn shows(self, at: Instant) -> Timestamp {
        let passed = u64::try_from(at.saturating_duration_since(self.at).as_millis());
        self.said.plus_millis(passed.unwrap_or(u64::MAX))
    }

    /// A time on the own clock, which shows `own` at this moment, as the host's clock will show it
    /// then. Clocks that are less than a minute apart are taken for equal, and zero means never.
    pub(crate) fn translate(self, time: Timestamp, own: Timestamp, at: Instant) -> Timestamp {
        let host = self.shows(at);
        if time.0 == 0 || !differ(host, own) {
            return time;
        }
        Timestamp(time.0.saturating_add(host.0).saturating_sub(own.0).max(1))
    }
}

/// Whether two clocks are so far apart that it matters.
pub(crate) const fn differ(one: Timestamp, other: Timestamp) -> bool {
    one.0.abs_diff(other.0) > APART_MILLIS
}

/// Clocks of machines are apart by less, as a rule.
const APART_MILLIS: u64 = 60_000;

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
    fn f10_a_time_is_translated_to_the_hosts_clock_however_the_own_one_jumps() {
        const HOUR: u64 = 3_600_000;
        let begin = Instant::now();
        let host = HostClock::new(Timestamp(1_000 * HOUR), begin);
        let later = begin + Duration::from_secs(1);
        let in_an_hour = |own: u64, at| host.translate(Timestamp(own + HOUR), Timestamp(own), at).0;
        assert_eq!(in_an_hour(1_000 * HOUR, begin), 1_001 * HOUR);
        // Less than a minute apart, nothing is changed.
        assert_eq!(
            in_an_hour(1_000 * HOUR + 59_000, begin),
            1_001 * HOUR + 59_000
        );
        for own in [900 * HOUR, 1_002 * HOUR, 1_000_000 * HOUR, 0] {
            assert_eq!(in_an_hour(own, begin), 1_001 * HOUR, "{own}");
            assert_eq!(in_an_hour(own, later), 1_001 * HOUR + 1_000, "{own}");
        }
        let never = host.translate(Timestamp(0), Timestamp(5), later);
        assert_eq!(never, Timestamp(0));
        // What is over by the own clock stays over, and does not become "never".
        let over = host.translate(Timestamp(1), Timestamp(2_000 * HOUR), begin);
        assert_eq!(over, Timestamp(1));
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
