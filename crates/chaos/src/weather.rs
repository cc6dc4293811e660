//! What becomes of each frame that passes a proxy.

use std::time::Duration;

use bytes::Bytes;

use crate::chance::Chance;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From a peer to the relay.
    Up,
    /// From the relay to a peer.
    Down,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// It passes.
    Pass,
    /// It waits first, and what is behind it too.
    Wait(Duration),
    /// The connection ends in its place, without a word.
    Cut,
    /// Nothing passes any more on this connection, either way, and nobody is told.
    Stall,
    /// It vanishes, which a TCP connection never does.
    Drop,
    /// It passes twice.
    Twice,
    /// It passes after the next one.
    Swap,
    /// These pass in its place.
    Replace(Vec<Bytes>),
}

/// Decides about frames.
pub trait Weather: Send {
    /// What becomes of a frame of the connection `link`, which counts the proxy's connections.
    fn act(&mut self, link: u64, way: Way, frame: &Bytes) -> Act;
}

impl<F: FnMut(u64, Way, &Bytes) -> Act + Send> Weather for F {
    fn act(&mut self, link: u64, way: Way, frame: &Bytes) -> Act {
        self(link, way, frame)
    }
}

/// Nothing happens.
#[derive(Clone, Copy, Debug)]
pub struct Fair;

impl Weather for Fair {
    fn act(&mut self, _: u64, _: Way, _: &Bytes) -> Act {
        Act::Pass
    }
}

/// Faults by chance: how many frames of a thousand meet each.
#[derive(Clone, Debug, Default)]
pub struct Odds {
    /// The connection is cut.
    pub cut: u64,
    /// It goes dead without being cut.
    pub stall: u64,
    /// The frame waits up to [`Self::wait_millis`].
    pub wait: u64,
    /// The longest wait.
    pub wait_millis: u64,
    /// The frame passes twice.
    pub twice: u64,
    /// It passes after the next one.
    pub swap: u64,
    /// It vanishes.
    pub lost: u64,
    /// Bytes a second, both ways together; no limit if 0.
    pub rate: u64,
}

impl Odds {
    /// A bad network that a TCP connection hides as far as it can: cuts and delays.
    #[must_use]
    pub fn rough() -> Self {
        Self {
            cut: 8,
            wait: 60,
            wait_millis: 120,
            ..Self::default()
        }
    }

    /// The same, and a middle box that breaks what TCP promises.
    #[must_use]
    pub fn broken() -> Self {
        Self {
            twice: 15,
            swap: 15,
            ..Self::rough()
        }
    }

    /// Weather with these odds.
    #[must_use]
    pub fn with(self, chance: Chance) -> Storm {
        Storm {
            odds: self,
            chance,
            breaks: u64::MAX,
            unharmed: u64::MAX,
        }
    }
}

/// Weather by chance.
#[derive(Debug)]
pub struct Storm {
    odds: Odds,
    chance: Chance,
    /// How many more connections may come to harm.
    breaks: u64,
    /// How many more frames may pass before the first comes to harm.
    unharmed: u64,
}

impl Storm {
    /// The same, but after so many connections that were broken it only delays. Each of a row of
    /// breaks makes a peer wait about twice as long as the one before, up to half a minute.
    #[must_use]
    pub fn breaking_at_most(self, breaks: u64) -> Self {
        Self { breaks, ..self }
    }

    /// The same, but by that frame one connection was broken, however kind chance is.
    #[must_use]
    pub fn breaking_by(self, frame: u64) -> Self {
        Self {
            unharmed: frame,
            ..self
        }
    }
}

impl Weather for Storm {
    fn act(&mut self, _: u64, _: Way, frame: &Bytes) -> Act {
        let Odds {
            cut,
            stall,
            wait,
            wait_millis,
            twice,
            swap,
            lost,
            rate,
        } = self.odds;
        let mut dice = self.chance.below(1000);
        let mut falls = |odds: u64| {
            let hit = dice < odds;
            dice = dice.wrapping_sub(odds);
            hit
        };
        let harm = if falls(cut) {
            Some(Act::Cut)
        } else if falls(stall) {
            Some(Act::Stall)
        } else if falls(twice) {
            Some(Act::Twice)
        } else if falls(swap) {
            Some(Act::Swap)
        } else {
            falls(lost).then_some(Act::Drop)
        };
        let waits = falls(wait);
        self.unharmed = self.unharmed.saturating_sub(1);
        let harm = harm.or_else(|| (self.unharmed == 0).then_some(Act::Cut));
        if let Some(harm) = harm.filter(|_| self.breaks > 0) {
            self.breaks -= 1;
            self.unharmed = u64::MAX;
            harm
        } else if waits {
            Act::Wait(Duration::from_millis(self.chance.below(wait_millis + 1)))
        } else {
            let micros = (frame.len() as u64 * 1_000_000).checked_div(rate);
            micros.map_or(Act::Pass, |micros| Act::Wait(Duration::from_micros(micros)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_weather() {
        let odds = Odds::broken();
        let acts = |seed| -> Vec<Act> {
            let mut storm = odds.clone().with(Chance::new(seed));
            let frame = Bytes::from_static(b"frame");
            (0..2000).map(|_| storm.act(1, Way::Up, &frame)).collect()
        };
        assert_eq!(acts(7), acts(7));
        assert_ne!(acts(7), acts(8));
        let cuts = acts(7).iter().filter(|act| **act == Act::Cut).count();
        assert!((4..40).contains(&cuts), "{cuts} of 2,000 at 8 per mille");
        let mut tamed = odds.clone().with(Chance::new(7)).breaking_at_most(3);
        let frame = Bytes::from_static(b"frame");
        let harms = (0..2000).filter(|_| {
            let act = tamed.act(1, Way::Up, &frame);
            !matches!(act, Act::Pass | Act::Wait(_))
        });
        assert_eq!(harms.count(), 3);
    }

    #[test]
    fn kind_weather_breaks_something_in_time() {
        let frame = Bytes::from_static(b"frame");
        let first = |mut storm: Storm| {
            let mut acts = (1..=600).map(|_| storm.act(1, Way::Up, &frame));
            acts.position(|act| act == Act::Cut)
        };
        let storm = |seed| Odds::rough().with(Chance::new(seed));
        let kind = (0..).find(|seed| first(storm(*seed)).is_none()).unwrap();
        assert_eq!(first(storm(kind).breaking_by(200)), Some(199));
        assert_eq!(first(storm(7).breaking_by(600)), first(storm(7)));
    }
}
