//! The question that comes before everything else on a connection: how far the relay has the host's
//! own log. A relay that lets the host connect and does not answer it is of no use, however lively
//! it pings. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(5);
/// How long the answer may take. Other peers are told that the host is there meanwhile, and it is not.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes by which a relay on a slow line shows that the answer stands behind something long; signs
/// of life are fewer.
const PROGRESS: u64 = 4 * 1024;

/// The question, while it is open.
#[derive(Debug, Default)]
pub(super) struct Question(Option<Open>);

#[derive(Debug)]
struct Open {
    /// Since when nothing comes that could be the reason for waiting.
    since: Instant,
    asked: Instant,
    /// Bytes that had come by `since`.
    heard: u64,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// To ask again.
    Again,
    /// To look for another connection.
    GiveUp,
}

impl Question {
    /// It was asked for the first time on this connection, on which so many bytes had come.
    pub(super) const fn begin(&mut self, now: Instant, heard: u64) {
        self.0 = Some(Open {
            since: now,
            asked: now,
            heard,
        });
    }

    /// It is answered, or nobody is there to answer it.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// The relay says that it cannot answer now.
    pub(super) const fn put_off(&mut self, now: Instant) {
        if let Some(open) = &mut self.0 {
            open.since = now;
        }
    }

    /// When to look at it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.as_ref().map(|open| open.asked + EVERY)
    }

    /// Looks at it when it is due.
    pub(super) fn look(&mut self, now: Instant, heard: u64) -> Option<Due> {
        let open = self.0.as_mut().filter(|open| open.asked + EVERY <= now)?;
        if heard.saturating_sub(open.heard) >= PROGRESS {
            open.since = now;
            open.heard = heard;
        }
        if open.since + PATIENCE <= now {
            self.0 = None;
            return Some(Due::GiveUp);
        }
        open.asked = now;
        Some(Due::Again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done, and after how many seconds, when `heard` bytes have come by then.
    fn story(
        question: &mut Question,
        begin: Instant,
        heard: impl Fn(u64) -> u64,
    ) -> Vec<(u64, Due)> {
        let mut done = Vec::new();
        while let Some(due) = question.due().filter(|due| *due < begin + PATIENCE * 4) {
            let seconds = (due - begin).as_secs();
            done.extend(question.look(due, heard(seconds)).map(|due| (seconds, due)));
        }
        done
    }

    #[test]
    fn f22_a_relay_that_only_pings_is_asked_three_times_and_given_up() {
        let (mut question, begin) = (Question::default(), Instant::now());
        question.begin(begin, 700);
        assert_eq!(question.look(begin + EVERY / 2, 700), None);
        let done = story(&mut question, begin, |seconds| 700 + 50 * seconds);
        let expected = [(5, Due::Again), (10, Due::Again), (15, Due::GiveUp)];
        assert_eq!(done, expected);
        assert_eq!(question.due(), None);
    }

    #[test]
    fn f13_a_line_that_is_slow_is_waited_for_as_long_as_something_comes() {
        let (mut question, begin) = (Question::default(), Instant::now());
        question.begin(begin, 0);
        let done = story(&mut question, begin, |seconds| 300 * seconds.min(30));
        assert_eq!(done.last(), Some(&(45, Due::GiveUp)), "{done:?}");
        question.begin(begin, 0);
        question.put_off(begin + EVERY * 2);
        let done = story(&mut question, begin, |_| 0);
        assert_eq!(done.last(), Some(&(25, Due::GiveUp)), "{done:?}");
    }
}
