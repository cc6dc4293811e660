//! Who is there, as a device can know it: independent facts, each with the time at which it was
//! true for certain, and each possibly unknown.
//!
//! Losing a connection changes what can be reached and nothing else: a turn's last known state
//! stays, and grows old. What is old says so ([`Presence::turn`]), so that nothing is shown as
//! running that only was.
//!
//! Times are the device's own. An [`Echo`] proves its facts for the moment at which it was asked
//! for, not for that at which it came: a relay that holds one back makes it old.

use std::collections::BTreeMap;

use farhelm_proto::{PeerId, SessionId, StreamId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::Activity;
use crate::probe::{Echo, Held};

/// How long an echo counts as the present, in milliseconds.
pub const FRESH_MILLIS: u64 = 10_000;
/// How long a probe may be without its echo before the host counts as silent, in milliseconds.
pub const SILENT_MILLIS: u64 = 5_000;
/// How long what the relay was handed may take to arrive, in milliseconds, while nothing else of
/// that log arrives.
pub const HELD_BACK_MILLIS: u64 = 2_000;

/// A fact, and when it was last known to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Fact<T> {
    /// The value; unknown when absent.
    pub value: Option<T>,
    /// When it last was so for certain; never, when absent.
    pub seen: Option<Timestamp>,
}

/// What a device knows of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Presence {
    /// Whether this device is connected to the relay.
    pub link: Fact<bool>,
    /// Whether the host is, by the relay's word.
    pub host: Fact<bool>,
    /// Whether the host answers, by its own.
    pub path: Path,
    /// Its sessions, one entry for each for ever.
    pub sessions: BTreeMap<SessionId, SessionPresence>,
    /// Logs of which the relay was handed more than has arrived.
    pub behind: BTreeMap<StreamId, Behind>,
    /// How far the logs were read that are followed.
    pub read: BTreeMap<StreamId, Read>,
}

/// The way to the host and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Path {
    /// The host was there after this.
    pub proven: Option<Timestamp>,
    /// How long the last echo took.
    #[cfg_attr(feature = "ts", ts(type = "number | null"))]
    pub millis: Option<u64>,
    /// When the oldest probe was sent that has no echo.
    pub waiting: Option<Timestamp>,
    /// How far the host's clock is ahead of this one, in milliseconds.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub skew: i64,
}

/// What is known of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct SessionPresence {
    /// Whether the process that holds its agent's pipes answers.
    pub keeper: Fact<bool>,
    /// Whether its agent's program runs.
    pub agent: Fact<bool>,
    /// What it is doing.
    pub turn: Fact<Activity>,
    /// When its agent last said something.
    pub heard: Option<Timestamp>,
    /// Why it waits although nobody was asked.
    pub held: Option<Held>,
}

/// How far a log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Read {
    /// Seq of the last event.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub head: u64,
    /// When it came.
    pub at: Timestamp,
}

/// What of a log has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Behind {
    /// How much of it the relay was handed.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub sent: u64,
    /// Since when it has been so and nothing of it arrived.
    pub since: Timestamp,
}

/// What a device has come to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Sighting {
    /// The connection to the relay is up, or is not.
    Link {
        /// Whether it is.
        up: bool,
    },
    /// The relay says whether the host is connected.
    Host {
        /// Whether it is.
        online: bool,
    },
    /// A probe was sent.
    Asked,
    /// The echo to a probe of this connection came.
    Echoed {
        /// Which host.
        host: PeerId,
        /// When the probe was sent.
        asked: Timestamp,
        /// It.
        echo: Box<Echo>,
    },
    /// A log that is followed was read so far.
    Read {
        /// Which.
        stream: StreamId,
        /// Seq of the last event.
        #[cfg_attr(feature = "ts", ts(type = "number"))]
        head: u64,
    },
    /// A log is not followed any more.
    Left {
        /// Which.
        stream: StreamId,
    },
    /// The host's log says what a session was doing.
    Listed {
        /// Which.
        session: SessionId,
        /// What.
        state: Activity,
        /// When, by the host's clock.
        at: Timestamp,
    },
}

/// How far a device reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The host answers.
    Live,
    /// It is not known yet whether the host answers.
    Unproven,
    /// The relay answers and the host does not, whatever the relay says of it.
    Silent,
    /// The relay says that the host is not connected.
    HostAway,
    /// The relay cannot be reached.
    Offline,
}

/// What is shown of a session's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct TurnSeen {
    /// What it is doing, or was doing last.
    pub state: Option<Activity>,
    /// How old that is, in milliseconds; unknown when absent.
    #[cfg_attr(feature = "ts", ts(type = "number | null"))]
    pub age_millis: Option<u64>,
    /// Whether it is the present.
    pub fresh: bool,
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self {
            value: None,
            seen: None,
        }
    }
}

impl<T> Fact<T> {
    const fn known(value: T, seen: Timestamp) -> Self {
        Self {
            value: Some(value),
            seen: Some(seen),
        }
    }
}

impl Presence {
    /// Takes note of what came to be known at `now`.
    pub fn apply(&mut self, now: Timestamp, sighting: &Sighting) {
        match sighting {
            Sighting::Link { up } => self.take_link(now, *up),
            Sighting::Host { online } => self.host = Fact::known(*online, now),
            Sighting::Asked => {
                self.path.waiting.get_or_insert(now);
            }
            Sighting::Echoed { host, asked, echo } => self.take_echo(now, *host, *asked, echo),
            Sighting::Read { stream, head } => self.take_read(now, *stream, *head),
            Sighting::Left { stream } => {
                self.read.remove(stream);
                self.behind.remove(stream);
            }
            Sighting::Listed { session, state, at } => {
                let at = self.ours(*at);
                let known = self.sessions.entry(*session).or_default();
                if known.turn.seen.is_none_or(|seen| seen < at) {
                    known.turn = Fact::known(*state, at);
                }
            }
        }
    }

    /// How far this device reaches at `now`.
    #[must_use]
    pub fn reach(&self, now: Timestamp) -> Reach {
        if self.link.value != Some(true) {
            return Reach::Offline;
        }
        let proven = self
            .path
            .proven
            .filter(|proven| self.link.seen <= Some(*proven));
        // The host's own word stands against an older one of the relay.
        if self.host.value == Some(false) && proven <= self.host.seen {
            return Reach::HostAway;
        }
        let asked = self.path.waiting;
        if asked.is_some_and(|asked| !is_within(asked, now, SILENT_MILLIS)) {
            return Reach::Silent;
        }
        if proven.is_some_and(|proven| is_within(proven, now, FRESH_MILLIS)) {
            return Reach::Live;
        }
        Reach::Unproven
    }

    /// What is to be shown of a session's turn at `now`: its last known state, how old that is,
    /// and whether it is the present.
    #[must_use]
    pub fn turn(&self, session: SessionId, now: Timestamp) -> TurnSeen {
        let turn = self
            .sessions
            .get(&session)
            .map(|known| known.turn)
            .unwrap_or_default();
        let is_over = turn.value == Some(Activity::Ended);
        let is_recent = turn
            .seen
            .is_some_and(|seen| is_within(seen, now, FRESH_MILLIS));
        TurnSeen {
            state: turn.value,
            age_millis: turn.seen.map(|seen| now.millis_since(seen)),
            fresh: is_over || (is_recent && self.reach(now) == Reach::Live),
        }
    }

    /// The logs of which the newest part is held back at `now`, with how many events.
    #[must_use]
    pub fn held_back(&self, now: Timestamp) -> Vec<(StreamId, u64)> {
        if self.link.value != Some(true) {
            return Vec::new();
        }
        let late = self.behind.iter().filter(|(_, behind)| {
            behind.since > now || !is_within(behind.since, now, HELD_BACK_MILLIS)
        });
        late.map(|(stream, behind)| {
            let read = self.read.get(stream).map_or(0, |read| read.head);
            (*stream, behind.sent.saturating_sub(read))
        })
        .collect()
    }

    /// When [`Self::held_back`] or [`Self::reach`] may next change by time alone.
    #[must_use]
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let held = self
            .behind
            .values()
            .map(|behind| behind.since.plus_millis(HELD_BACK_MILLIS + 1));
        let silent = self
            .path
            .waiting
            .map(|asked| asked.plus_millis(SILENT_MILLIS + 1));
        let stale = self
            .path
            .proven
            .map(|proven| proven.plus_millis(FRESH_MILLIS + 1));
        held.chain(silent).chain(stale).filter(|at| *at > now).min()
    }

    fn take_link(&mut self, now: Timestamp, up: bool) {
        if self.link.value != Some(up) {
            self.link = Fact::known(up, now);
        }
        // Neither is known across a connection's end: what waited is lost, and nobody speaks for
        // the relay.
        self.path.waiting = None;
        self.host.value = None;
        for behind in self.behind.values_mut() {
            behind.since = now;
        }
    }

    fn take_echo(&mut self, now: Timestamp, host: PeerId, asked: Timestamp, echo: &Echo) {
        self.path.waiting = self.path.waiting.filter(|waiting| *waiting > asked);
        if self
            .path
            .proven
            .is_some_and(|proven| proven > asked && proven <= now)
        {
            return;
        }
        let millis = now.millis_since(asked);
        self.path.proven = Some(asked);
        self.path.millis = Some(millis);
        // The host's clock was read somewhere between the two.
        let middle = asked.plus_millis(millis / 2);
        self.path.skew = signed(echo.now).saturating_sub(signed(middle));
        if let Some(sent) = echo.sent {
            self.note_sent(now, host.into(), sent);
        }
        for (session, pulse) in &echo.sessions {
            self.note_sent(now, (*session).into(), pulse.sent);
            let heard = pulse.heard.map(|at| self.ours(at));
            let known = self.sessions.entry(*session).or_default();
            known.keeper = Fact {
                value: pulse.keeper,
                seen: Some(asked),
            };
            known.agent = Fact {
                value: pulse.agent,
                seen: Some(asked),
            };
            known.turn = Fact::known(pulse.state, asked);
            known.heard = heard;
            known.held.clone_from(&pulse.held);
        }
    }

    /// Only a log that is followed can be behind.
    fn note_sent(&mut self, now: Timestamp, stream: StreamId, sent: u64) {
        let Some(read) = self.read.get(&stream) else {
            return;
        };
        if read.head >= sent {
            self.behind.remove(&stream);
            return;
        }
        let behind = self
            .behind
            .entry(stream)
            .or_insert(Behind { sent, since: now });
        behind.sent = behind.sent.max(sent);
    }

    fn take_read(&mut self, now: Timestamp, stream: StreamId, head: u64) {
        let read = self.read.entry(stream).or_insert(Read { head, at: now });
        let grew = head > read.head;
        if grew {
            *read = Read { head, at: now };
        }
        if let Some(behind) = self.behind.get_mut(&stream) {
            if head >= behind.sent {
                self.behind.remove(&stream);
            } else if grew {
                behind.since = now;
            }
        }
    }

    /// A time of the host by this device's clock.
    fn ours(&self, at: Timestamp) -> Timestamp {
        let ours = signed(at).saturating_sub(self.path.skew);
        Timestamp(u64::try_from(ours).unwrap_or(0))
    }
}

/// Whether `then` is at most so long ago; never when it is in the future, as after a clock was
/// set back.
fn is_within(then: Timestamp, now: Timestamp, millis: u64) -> bool {
    then <= now && now.millis_since(then) <= millis
}

fn signed(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}
