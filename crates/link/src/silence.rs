//! Notices a connection that has died silently. Pure: time is an argument.

use std::time::Duration;

use farhelm_proto::frame::Welcome;

/// What the passing of time calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// A ping with this number.
    Ping(u64),
    /// The other side has been silent for too long.
    Dead,
    /// There was reason to doubt that it is still there, and it did not answer.
    Gone,
}

/// Watches one connection.
#[derive(Debug)]
pub(crate) struct Silence {
    every: Duration,
    dead: Duration,
    heard: Duration,
    pinged: Duration,
    number: u64,
    /// Whether a ping is due in any case.
    due: bool,
    /// The ping whose answer ends a doubt, and until when it must be there.
    doubt: Option<(u64, Duration)>,
}

impl Silence {
    /// Follows what the relay asks for, within bounds that keep a strange one from doing harm.
    pub(crate) fn new(welcome: &Welcome, now: Duration) -> Self {
        let every = Duration::from_millis(welcome.ping_millis).clamp(SHORTEST_PING, LONGEST_PING);
        let dead = Duration::from_millis(welcome.dead_millis).clamp(every * 2, LONGEST_DEAD);
        Self {
            every,
            dead,
            heard: now,
            pinged: now,
            number: 0,
            due: false,
            doubt: None,
        }
    }

    /// Takes note of a reason to doubt that the other side is still there: what came before, and
    /// what was on its way, says nothing any more. It is pinged at once and has little time.
    pub(crate) fn suspect(&mut self, now: Duration) {
        let patience = PATIENCE.min(self.dead);
        self.doubt.get_or_insert((self.number + 1, now + patience));
        self.due = true;
    }

    /// Takes note of the answer to a ping.
    pub(crate) fn answered(&mut self, number: u64) {
        self.doubt = self.doubt.filter(|(awaited, _)| number < *awaited);
    }

    /// Takes note that something arrived.
    pub(crate) const fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// What is due. `listening` says whether arrivals could have been noticed of late.
    pub(crate) fn check(&mut self, now: Duration, listening: bool) -> Due {
        if !listening {
            self.heard = now;
            self.doubt = None;
        }
        if self.doubt.is_some_and(|(_, until)| now >= until) {
            Due::Gone
        } else if now.saturating_sub(self.heard) >= self.dead {
            Due::Dead
        } else if self.due || now.saturating_sub(self.pinged) >= self.every {
            self.due = false;
            self.pinged = now;
            self.number += 1;
            Due::Ping(self.number)
        } else {
            Due::Nothing
        }
    }

    /// How often to check; often enough to notice soon that the machine has slept.
    pub(crate) fn interval(&self) -> Duration {
        (self.every / 2).min(LONGEST_CHECK)
    }
}

/// How long the answer may take when there is reason to doubt that it will come.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest time between two checks.
pub(crate) const LONGEST_CHECK: Duration = Duration::from_millis(500);
const SHORTEST_PING: Duration = Duration::from_millis(100);
const LONGEST_PING: Duration = Duration::from_secs(300);
const LONGEST_DEAD: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_is_pinged_and_then_given_up() {
        let mut silence = Silence::new(&welcome(10_000, 25_000), seconds(0));
        assert_eq!(silence.check(seconds(9), true), Due::Nothing);
        assert_eq!(silence.check(seconds(10), true), Due::Ping(1));
        assert_eq!(silence.check(seconds(20), true), Due::Ping(2));
        assert_eq!(silence.check(seconds(25), true), Due::Dead);
    }

    #[test]
    fn whatever_arrives_is_a_sign_of_life() {
        let mut silence = Silence::new(&welcome(10_000, 25_000), seconds(0));
        silence.heard(seconds(24));
        assert_eq!(silence.check(seconds(48), true), Due::Ping(1));
        assert_eq!(silence.check(seconds(49), true), Due::Dead);
    }

    #[test]
    fn a_slow_reader_of_ours_does_not_make_the_relay_dead() {
        let mut silence = Silence::new(&welcome(10_000, 25_000), seconds(0));
        assert_eq!(silence.check(seconds(60), false), Due::Ping(1));
        assert_eq!(silence.check(seconds(61), true), Due::Nothing);
    }

    #[test]
    fn f08_f11_a_doubt_is_ended_by_the_answer_to_its_own_ping_alone() {
        let mut silence = Silence::new(&welcome(10_000, 25_000), seconds(0));
        silence.suspect(seconds(5));
        assert_eq!(silence.check(seconds(5), true), Due::Ping(1));
        // What was on its way before.
        silence.heard(seconds(5));
        silence.answered(0);
        silence.suspect(seconds(5));
        assert_eq!(silence.check(seconds(5), true), Due::Ping(2));
        assert_eq!(silence.check(seconds(6), true), Due::Gone);
        silence.answered(1);
        assert_eq!(silence.check(seconds(6), true), Due::Nothing);
        assert_eq!(silence.check(seconds(15), true), Due::Ping(3));
    }

    #[test]
    fn numbers_of_a_strange_relay_do_no_harm() {
        let mut silence = Silence::new(&welcome(0, 0), seconds(0));
        assert_eq!(silence.check(Duration::from_millis(1), true), Due::Nothing);
        assert!(silence.interval() >= Duration::from_millis(50));
        let never = Silence::new(&welcome(u64::MAX, u64::MAX), seconds(0));
        assert!(never.dead <= LONGEST_DEAD);
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn welcome(ping_millis: u64, dead_millis: u64) -> Welcome {
        let (store, now) = ([0; 16].into(), farhelm_proto::Timestamp(0));
        Welcome {
            store,
            now,
            agent: String::new(),
            ping_millis,
            dead_millis,
        }
    }
}
