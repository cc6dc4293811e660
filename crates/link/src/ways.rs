//! Which way to try first: a WebSocket, or the detour by plain HTTP. Pure: time is an argument.

use std::time::Duration;

use crate::backoff::part;
use crate::socket::Way;

/// Remembers which way worked of late.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Until when the detour is tried first.
    detour_until: Option<Duration>,
    /// How long the detour was to be taken the last time that a WebSocket did not work.
    pause: Option<Duration>,
    /// How often in a row a WebSocket was not answered.
    hangs: u32,
    /// How often nothing came through since the last connection.
    silences: u32,
}

impl Ways {
    /// The way to try first.
    pub(crate) fn first(&self, now: Duration) -> Way {
        match self.detour_until {
            Some(until) if now < until => Way::Http,
            Some(_) | None => Way::WebSocket,
        }
    }

    /// Takes note that a connection came up; `chance` is any random number.
    pub(crate) fn worked(&mut self, way: Way, now: Duration, chance: u64) {
        match way {
            Way::WebSocket => *self = Self::default(),
            Way::Http => {
                // An earlier end stays: otherwise a link that breaks often would never find out.
                if self.first(now) == Way::WebSocket {
                    self.stuck(Way::WebSocket, now, chance);
                }
                (self.hangs, self.silences) = (0, 0);
            }
        }
    }

    /// Takes note that nothing came through, although the connection was made; `chance` is any random number. Once may be
    /// a relay that has much to do, and is not helped by being asked in two ways.
    pub(crate) fn hung(&mut self, way: Way, now: Duration, chance: u64) {
        self.hangs += 1;
        self.silences = self.silences.saturating_add(1);
        if way == Way::Http || self.hangs >= 2 {
            self.hangs = 0;
            self.stuck(way, now, chance);
        }
    }

    /// Turns to the other way for a while. Silence and errors are what a relay gives, too, that has too much to do or is just
    /// starting: then everybody is on the detour, which costs it more, and must come back from it soon and not at once.
    pub(crate) fn stuck(&mut self, way: Way, now: Duration, chance: u64) {
        match way {
            Way::WebSocket => {
                let pause = self.pause.map_or(SOON, |pause| pause * 2).min(AGAIN);
                self.pause = Some(pause);
                self.detour_until = Some(now + pause + part(pause, chance));
            }
            Way::Http => self.detour_until = None,
        }
    }

    /// How long the detour is taken from `now` on, before a WebSocket is tried again.
    pub(crate) fn rest(&self, now: Duration) -> Duration {
        self.detour_until
            .map_or(SOON, |until| until.saturating_sub(now))
    }

    /// How long the relay may take for something that should take `usual`. If whoever waits for one with too much to do
    /// always left at the same moment, nobody would ever be served: it would be busy with those who have left.
    pub(crate) fn patience(&self, usual: Duration) -> Duration {
        usual * (1 << self.silences.min(MOST_PATIENT))
    }

    /// The network is another one: what was learned does not hold any more.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// How long the detour is taken at most before a WebSocket is tried again.
const AGAIN: Duration = Duration::from_secs(600);
/// The same at first.
const SOON: Duration = Duration::from_secs(30);
/// How often patience is doubled.
const MOST_PATIENT: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_tried_first_and_again_after_a_while() {
        let mut ways = Ways::default();
        let at = Duration::from_secs;
        assert_eq!(ways.first(at(0)), Way::WebSocket);
        ways.worked(Way::Http, at(1), 0);
        assert_eq!(ways.first(at(2)), Way::Http);
        ways.worked(Way::Http, at(25), 0);
        assert_eq!(ways.first(at(30)), Way::Http);
        assert_eq!(ways.first(at(31)), Way::WebSocket);
        ways.worked(Way::WebSocket, at(32), 0);
        assert_eq!(ways.first(at(33)), Way::WebSocket);
    }

    #[test]
    fn a_websocket_that_carries_nothing_makes_the_detour_first_and_the_other_way_round() {
        let mut ways = Ways::default();
        ways.stuck(Way::WebSocket, Duration::ZERO, 0);
        assert_eq!(ways.first(Duration::ZERO), Way::Http);
        ways.stuck(Way::Http, Duration::ZERO, 0);
        assert_eq!(ways.first(Duration::ZERO), Way::WebSocket);
        ways.worked(Way::Http, Duration::ZERO, 0);
        ways.forget();
        assert_eq!(ways.first(Duration::ZERO), Way::WebSocket);
    }

    #[test]
    fn f32_the_detour_is_left_soon_and_where_nothing_else_works_less_and_less_often() {
        let mut ways = Ways::default();
        let mut now = Duration::ZERO;
        let rests: Vec<u64> = (0..7)
            .map(|_| {
                ways.stuck(Way::WebSocket, now, 0);
                ways.worked(Way::Http, now, 0);
                let rest = ways.rest(now);
                now += rest;
                assert_eq!(ways.first(now), Way::WebSocket);
                rest.as_secs()
            })
            .collect();
        assert_eq!(rests, [30, 60, 120, 240, 480, 600, 600]);
        ways.worked(Way::WebSocket, now, 0);
        // Not everybody comes back in the same moment.
        ways.stuck(Way::WebSocket, now, 29_999);
        assert_eq!(ways.rest(now).as_millis(), 59_999);
    }

    #[test]
    fn f32_patience_grows_until_a_connection_comes_up() {
        let mut ways = Ways::default();
        let (now, usual) = (Duration::ZERO, Duration::from_secs(5));
        let mut tried = Vec::new();
        for _ in 0..6 {
            let way = ways.first(now);
            tried.push((way, ways.patience(usual).as_secs()));
            ways.hung(way, now, 0);
        }
        let (socket, http) = (Way::WebSocket, Way::Http);
        assert_eq!(
            tried,
            [
                (socket, 5),
                (socket, 10),
                (http, 20),
                (socket, 20),
                (socket, 20),
                (http, 20)
            ]
        );
        ways.worked(http, now, 0);
        assert_eq!(ways.patience(usual), usual);
    }
}
