//! Which way to try first: a WebSocket, or the detour by plain HTTP. Pure: time is an argument.

use std::time::Duration;

use crate::socket::Way;

/// Remembers which way worked of late.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Until when the detour is tried first.
    detour_until: Option<Duration>,
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
        self.detour_until = match way {
            Way::WebSocket => None,
            // An earlier end stays: otherwise a link that breaks often would never find out.
            Way::Http => Some(
                self.detour_until
                    .filter(|until| now < *until)
                    .unwrap_or(now + AGAIN),
            ),
        };
    }

    /// Takes note that nothing came through, although the connection was made.
    pub(crate) fn stuck(&mut self, way: Way, now: Duration) {
        self.detour_until = match way {
            Way::WebSocket => Some(now + AGAIN),
            Way::Http => None,
        };
    }

    /// The network is another one: what was learned does not hold any more.
    pub(crate) const fn forget(&mut self) {
        self.detour_until = None;
    }
}

/// How long the detour is taken before a WebSocket is tried again.
pub(crate) const AGAIN: Duration = Duration::from_secs(600);

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
        ways.stuck(Way::WebSocket, Duration::ZERO);
        assert_eq!(ways.first(Duration::ZERO), Way::Http);
        ways.stuck(Way::Http, Duration::ZERO);
        assert_eq!(ways.first(Duration::ZERO), Way::WebSocket);
        ways.worked(Way::Http, Duration::ZERO);
        ways.forget();
        assert_eq!(ways.first(Duration::ZERO), Way::WebSocket);
    }
}
