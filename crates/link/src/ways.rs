//! Which way to try first: a WebSocket, or the detour by plain HTTP. Pure: time is an argument.

use std::time::Duration;

use crate::backoff::part;
use crate::socket::Way;

/// Remembers which way worked of late.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Until when the detour is tried first.
    detour_until: Option<Duration>,
    /// How long the detour was taken the last time that a WebSocket carried nothing.
    pause: Option<Duration>,
}

impl Ways {
    /// The way to try first.
    pub(crate) fn first(&self, now: Duration) -> Way {
        match self.detour_until {
            Some(until) if now < until => Way::Http,
            Some(_) | None => Way::WebSocket,
        }
    }

    /// Takes note that a connection came up.
    pub(crate) fn worked(&mut self, way: Way, now: Duration) {
        match way {
            Way::WebSocket => *self = Self::default(),
            // An earlier end stays: otherwise a link that breaks often would never find out.
            Way::Http => {
                let until = self.detour_until.filter(|until| now < *until);
                self.detour_until = Some(until.unwrap_or(now + AGAIN));
            }
        }
    }

    /// Takes note that nothing came through, although the connection was made; `chance` is any random
    /// number. Silence is what a relay gives, too, that has too much to do: then everybody is on the detour, which costs it more, and must come
    /// back from it soon and not at once.
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
            .map_or(AGAIN, |until| until.saturating_sub(now))
    }

    /// The network is another one: what was learned does not hold any more.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// How long the detour is taken at most before a WebSocket is tried again.
const AGAIN: Duration = Duration::from_secs(600);
/// The same after the first silence.
const SOON: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_tried_first_and_again_after_some_minutes() {
        let mut ways = Ways::default();
        let at = Duration::from_secs;
        assert_eq!(ways.first(at(0)), Way::WebSocket);
        ways.worked(Way::Http, at(1));
        assert_eq!(ways.first(at(2)), Way::Http);
        ways.worked(Way::Http, at(500));
        assert_eq!(ways.first(at(600)), Way::Http);
        assert_eq!(ways.first(at(601)), Way::WebSocket);
        ways.worked(Way::WebSocket, at(602));
        assert_eq!(ways.first(at(603)), Way::WebSocket);
    }

    #[test]
    fn a_websocket_that_carries_nothing_makes_the_detour_first_and_the_other_way_round() {
        let mut ways = Ways::default();
        ways.stuck(Way::WebSocket, Duration::ZERO, 0);
        assert_eq!(ways.first(Duration::ZERO), Way::Http);
        ways.stuck(Way::Http, Duration::ZERO, 0);
        assert_eq!(ways.first(Duration::ZERO), Way::WebSocket);
        ways.worked(Way::Http, Duration::ZERO);
        ways.forget();
        assert_eq!(ways.first(Duration::ZERO), Way::WebSocket);
    }

    #[test]
    fn f32_a_silence_is_forgotten_soon_and_a_lasting_one_less_and_less_so() {
        let mut ways = Ways::default();
        let mut now = Duration::ZERO;
        let rests: Vec<u64> = (0..7)
            .map(|_| {
                ways.stuck(Way::WebSocket, now, 0);
                ways.worked(Way::Http, now);
                let rest = ways.rest(now);
                now += rest;
                assert_eq!(ways.first(now), Way::WebSocket);
                rest.as_secs()
            })
            .collect();
        assert_eq!(rests, [30, 60, 120, 240, 480, 600, 600]);
        ways.worked(Way::WebSocket, now);
        // Not everybody comes back in the same moment.
        ways.stuck(Way::WebSocket, now, 29_999);
        assert_eq!(ways.rest(now).as_millis(), 59_999);
    }
}
