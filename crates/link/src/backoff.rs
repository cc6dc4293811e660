//! When to try a connection again. Pure: time and chance are arguments.

use std::time::Duration;

/// How a connection, or the attempt at one, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It broke, or never came up; it may work again at any moment.
    Lost,
    /// The relay asked to be left alone for so long.
    Told(Duration),
    /// The machine slept or its network changed; the next attempt may well succeed.
    Moved,
    /// It was up and of no use, however long it lasted.
    Useless,
    /// The relay will say the same again until a person changes something.
    Refused,
}

/// Full-jitter exponential backoff: each wait is a random part of a window that doubles.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    /// When the present connection came up, on the clock of the caller.
    up_since: Option<Duration>,
}

impl Backoff {
    /// Takes note that a connection is up.
    pub const fn is_up(&mut self, now: Duration) {
        self.up_since = Some(now);
    }

    /// Takes note that what failed before says nothing any more: the machine slept, or its network
    /// is another one.
    pub const fn start_anew(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now that it has ended; `chance` is any random number.
    pub fn ended(&mut self, now: Duration, ending: Ending, chance: u64) -> Duration {
        let stable = self
            .up_since
            .take()
            .is_some_and(|since| now.saturating_sub(since) >= STABLE);
        let stable = stable && ending != Ending::Useless;
        self.failures = if stable { 0 } else { self.failures };
        let window = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        match ending {
            Ending::Lost | Ending::Useless => part(window, chance),
            Ending::Moved => {
                self.failures = 0;
                Duration::ZERO
            }
            Ending::Told(wait) => wait.min(LONGEST_TOLD) + part(window, chance),
            Ending::Refused => LONGEST + part(LONGEST, chance),
        }
    }
}

/// A random part of `window`, to the millisecond.
pub(crate) fn part(window: Duration, chance: u64) -> Duration {
    let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(chance % millis.saturating_add(1))
}

/// The first window.
const FIRST: Duration = Duration::from_millis(250);
/// Windows grow no longer than this.
const LONGEST: Duration = Duration::from_secs(30);
/// A relay that asks for more is not believed.
const LONGEST_TOLD: Duration = Duration::from_secs(600);
/// A connection that lasted this long was a good one, and the windows begin anew. A relay that falls over when everybody comes
/// does so sooner; whoever's road breaks every minute waits no longer for that.
const STABLE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = u64::MAX;

    #[test]
    fn windows_double_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let longest: Vec<u64> = (0..10).map(|_| widest(&mut backoff)).collect();
        assert_eq!(
            longest,
            [
                250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000
            ]
        );
    }

    #[test]
    fn one_that_lasted_and_was_of_no_use_does_not_begin_anew() {
        let mut backoff = Backoff::default();
        let mut windows = Vec::new();
        for at in (0..4).map(|n| Duration::from_secs(100 * n)) {
            backoff.is_up(at);
            let up = at + STABLE * 3;
            let failures = backoff.failures;
            let wait = (0..=4_000).map(|chance| {
                backoff.failures = failures;
                backoff.up_since = Some(at);
                backoff.ended(up, Ending::Useless, chance)
            });
            windows.push(wait.max().unwrap().as_millis());
        }
        assert_eq!(windows, [250, 500, 1_000, 2_000]);
    }

    #[test]
    fn a_wait_is_a_random_part_of_its_window() {
        let wait = |chance| Backoff::default().ended(Duration::ZERO, Ending::Lost, chance);
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(100), Duration::from_millis(100));
        assert!((0..10_000).all(|chance| wait(chance * 7919) <= FIRST));
    }

    #[test]
    fn only_a_connection_that_lasted_begins_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.ended(Duration::ZERO, Ending::Lost, 0);
        }
        backoff.is_up(Duration::from_secs(100));
        assert_eq!(
            backoff.ended(Duration::from_secs(104), Ending::Lost, 8_000),
            Duration::from_secs(8)
        );
        backoff.is_up(Duration::from_secs(200));
        assert!(backoff.ended(Duration::from_secs(205), Ending::Lost, MOST) <= FIRST);
    }

    #[test]
    fn what_the_relay_asks_for_is_respected_within_reason() {
        let mut backoff = Backoff::default();
        let told = |seconds| Ending::Told(Duration::from_secs(seconds));
        assert!(backoff.ended(Duration::ZERO, told(5), 3) >= Duration::from_secs(5));
        assert!(backoff.ended(Duration::ZERO, told(1_000_000), 0) <= LONGEST_TOLD);
    }

    #[test]
    fn f08_after_sleep_there_is_no_wait_and_windows_begin_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..9 {
            backoff.ended(Duration::ZERO, Ending::Lost, 0);
        }
        assert_eq!(
            backoff.ended(Duration::ZERO, Ending::Moved, MOST),
            Duration::ZERO
        );
        assert!(backoff.ended(Duration::ZERO, Ending::Lost, MOST) <= FIRST);
    }

    #[test]
    fn a_refusal_is_tried_again_slowly() {
        let mut backoff = Backoff::default();
        let wait = backoff.ended(Duration::ZERO, Ending::Refused, MOST);
        assert!(wait >= LONGEST && wait <= LONGEST * 2);
    }

    /// The longest wait that any chance gives in the next window.
    fn widest(backoff: &mut Backoff) -> u64 {
        let failures = backoff.failures;
        let longest = (0..40_000).step_by(250).map(|chance| {
            backoff.failures = failures;
            backoff.ended(Duration::ZERO, Ending::Lost, chance)
        });
        u64::try_from(longest.max().unwrap().as_millis()).unwrap()
    }
}
