//! What is known of a host at this moment, for people and scripts: how far it is reached, and of
//! each session whether what is shown is the present or only the last that was known.

use farhelm_core::event::{Activity, Summary};
use farhelm_core::fleet::Fleet;
use farhelm_core::presence::{Presence, Reach, Sighting};
use farhelm_proto::{SessionId, Timestamp};
use serde_json::{Value, json};

use crate::commands::duration;

/// What is known, and when that was asked.
pub(crate) struct Seen {
    presence: Presence,
    now: Timestamp,
}

impl Seen {
    /// What is known at `now`, with what the host's log says of its sessions.
    pub(crate) fn new(mut presence: Presence, fleet: &Fleet, now: Timestamp) -> Self {
        for summary in fleet.sessions.values() {
            let sighting = Sighting::Listed {
                session: summary.session,
                state: summary.state,
                at: summary.at,
            };
            presence.apply(now, &sighting);
        }
        Self { presence, now }
    }

    /// How far the host is reached.
    pub(crate) fn reach(&self) -> Reach {
        self.presence.reach(self.now)
    }

    /// How long the last echo took, in milliseconds.
    pub(crate) fn millis(&self) -> Option<u64> {
        self.presence.path.millis
    }

    /// How far the host's clock is ahead of this one, in milliseconds, once it has answered.
    pub(crate) fn skew(&self) -> Option<i64> {
        self.presence.path.proven.map(|_| self.presence.path.skew)
    }

    /// How the way to the host is, in words.
    pub(crate) fn way(&self) -> String {
        let seen = |at: Option<Timestamp>| at.map(|at| self.ago(at));
        match self.reach() {
            Reach::Live => format!(
                "the host answers ({} ms)",
                self.millis().unwrap_or_default()
            ),
            Reach::Unproven => "the host has not answered yet".to_owned(),
            Reach::Silent => match seen(self.presence.path.proven) {
                Some(ago) => format!("the host does not answer; it last did {ago}"),
                None => "the host does not answer, whatever the relay says".to_owned(),
            },
            Reach::HostAway => {
                "the host is not connected to the relay; commands wait for it".to_owned()
            }
            Reach::Offline => "the relay is not connected".to_owned(),
        }
    }

    /// What a person must know before reading on.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.reach() != Reach::Live {
            warnings.push(format!("{}; this is how it was", self.way()));
        }
        let missing = self.withheld();
        if missing > 0 {
            warnings.push(format!(
                "withheld: the relay has {missing} newer events of the host and does not pass them on"
            ));
        }
        warnings
    }

    /// How many events the relay holds back.
    pub(crate) fn withheld(&self) -> u64 {
        self.presence
            .held_back(self.now)
            .iter()
            .map(|(_, count)| count)
            .sum()
    }

    /// A session's state for a table: the present, or what it was and how long ago.
    pub(crate) fn state(&self, summary: &Summary) -> String {
        let turn = self.presence.turn(summary.session, self.now);
        let state = turn.state.unwrap_or(summary.state);
        let word = match state {
            Activity::Starting => "starting".to_owned(),
            Activity::Idle => "idle".to_owned(),
            Activity::Running => "running".to_owned(),
            Activity::RequiresAction if summary.pending > 0 => {
                format!("asks ({})", summary.pending)
            }
            Activity::RequiresAction => "asks".to_owned(),
            Activity::AgentGone => "agent gone".to_owned(),
            Activity::Ended => "ended".to_owned(),
        };
        let known = self.presence.sessions.get(&summary.session);
        if let Some(held) = known.and_then(|known| known.held.as_ref()) {
            return format!("{word}, held: {}", held.code);
        }
        if turn.fresh && self.is_out_of_reach(summary) {
            return format!("{word}, out of reach");
        }
        match turn.age_millis {
            _ if turn.fresh => word,
            Some(age) => format!("was {word} {} ago", duration(age / 1000)),
            None => format!("was {word}"),
        }
    }

    /// Whether the session has an agent whose keeper does not answer.
    fn is_out_of_reach(&self, summary: &Summary) -> bool {
        let turn = self.presence.turn(summary.session, self.now);
        let known = self.presence.sessions.get(&summary.session);
        let has_agent = matches!(
            turn.state.unwrap_or(summary.state),
            Activity::Idle | Activity::Running | Activity::RequiresAction
        );
        has_agent && known.and_then(|known| known.keeper.value) == Some(false)
    }

    /// One line about a session: its turn, its agent, and when that was heard last.
    pub(crate) fn line(&self, summary: &Summary) -> String {
        let known = self.presence.sessions.get(&summary.session);
        let agent = match known.and_then(|known| known.agent.value) {
            _ if self.is_out_of_reach(summary) => {
                "its agent is out of reach, for its keeper does not answer"
            }
            Some(true) => "its agent runs",
            Some(false) => "no agent runs",
            None => "it is not known whether its agent runs",
        };
        let heard = known
            .and_then(|known| known.heard)
            .map(|at| format!(", last heard {}", self.ago(at)))
            .unwrap_or_default();
        let held = known.and_then(|known| known.held.as_ref());
        let held = held
            .map(|held| format!("; it waits: {}", held.text))
            .unwrap_or_default();
        format!(
            "{}; {agent}{heard}{held}; {}",
            self.state(summary),
            self.way()
        )
    }

    /// The facts about the way, for scripts.
    pub(crate) fn json(&self) -> Value {
        let Presence {
            link, host, path, ..
        } = &self.presence;
        json!({
            "reach": self.reach(), "link": link, "host": host,
            "proven": path.proven, "millis": path.millis, "skew_millis": self.skew(),
            "withheld": self.withheld(),
        })
    }

    /// The facts about a session, for scripts.
    pub(crate) fn json_of(&self, session: SessionId) -> Value {
        let turn = self.presence.turn(session, self.now);
        let known = self
            .presence
            .sessions
            .get(&session)
            .cloned()
            .unwrap_or_default();
        let held_back = self.presence.held_back(self.now);
        let withheld = held_back
            .iter()
            .find(|(stream, _)| *stream == session.into());
        json!({
            "reach": self.reach(), "turn": turn, "keeper": known.keeper, "agent": known.agent,
            "heard": known.heard, "held": known.held, "withheld": withheld.map_or(0, |(_, count)| *count),
        })
    }

    fn ago(&self, at: Timestamp) -> String {
        format!("{} ago", duration(self.now.millis_since(at) / 1000))
    }
}

#[cfg(test)]
mod tests {
    use farhelm_core::probe::{EVERY_MILLIS, Echo, IDLE_MILLIS, Pulse};
    use farhelm_proto::PeerId;

    use super::*;

    const SESSION: SessionId = SessionId::from_bytes([2; 16]);

    fn summary(state: Activity, at: u64) -> Summary {
        Summary {
            session: SESSION,
            title: "demo".into(),
            dir: "/demo".into(),
            branch: None,
            agent: "scripted".into(),
            state,
            pending: 0,
            at: Timestamp(at),
        }
    }

    fn known(asked: u64) -> Presence {
        let pulse = Pulse {
            head: 1,
            sent: 1,
            state: Activity::Running,
            keeper: None,
            agent: Some(true),
            heard: Some(Timestamp(asked)),
            held: None,
        };
        let echo = Echo {
            nonce: String::new(),
            now: Timestamp(asked),
            every_millis: EVERY_MILLIS,
            idle_millis: IDLE_MILLIS,
            sent: None,
            sessions: [(SESSION, pulse)].into(),
        };
        let mut presence = Presence::default();
        presence.apply(Timestamp(asked), &Sighting::Link { up: true });
        let host = PeerId::from_bytes([1; 16]);
        let asked = Timestamp(asked);
        presence.apply(
            asked,
            &Sighting::Echoed {
                host,
                asked,
                echo: Box::new(echo),
            },
        );
        presence
    }

    fn fleet(summary: Summary) -> Fleet {
        let mut fleet = Fleet::default();
        fleet.sessions.insert(SESSION, summary);
        fleet
    }

    #[test]
    fn i05_an_old_state_is_never_shown_as_the_present() {
        let summary = summary(Activity::Running, 1_000);
        let seen = Seen::new(known(1_000), &fleet(summary.clone()), Timestamp(2_000));
        assert_eq!(seen.state(&summary), "running");
        assert!(seen.warnings().is_empty());
        let seen = Seen::new(known(1_000), &fleet(summary.clone()), Timestamp(181_000));
        assert_eq!(seen.state(&summary), "was running 3 min ago");
        assert_eq!(
            seen.warnings(),
            ["the host has not answered yet; this is how it was"]
        );
        assert_eq!(seen.json_of(SESSION)["turn"]["fresh"], false);
    }

    #[test]
    fn i05_an_agent_whose_keeper_does_not_answer_is_out_of_reach_and_one_that_ended_is_not() {
        let mut presence = known(1_000);
        if let Some(session) = presence.sessions.get_mut(&SESSION) {
            session.keeper.value = Some(false);
            session.agent.value = Some(false);
        }
        let running = summary(Activity::Running, 1_000);
        let seen = Seen::new(presence.clone(), &fleet(running.clone()), Timestamp(2_000));
        assert_eq!(seen.state(&running), "running, out of reach");
        assert!(seen.line(&running).contains("its agent is out of reach"));
        if let Some(session) = presence.sessions.get_mut(&SESSION) {
            session.turn.value = Some(Activity::AgentGone);
        }
        let gone = summary(Activity::AgentGone, 1_000);
        let seen = Seen::new(presence, &fleet(gone.clone()), Timestamp(2_000));
        assert_eq!(seen.state(&gone), "agent gone");
        assert!(seen.line(&gone).contains("no agent runs"));
    }

    #[test]
    fn what_was_never_heard_of_is_unknown() {
        let summary = summary(Activity::Idle, 1_000);
        let seen = Seen::new(
            Presence::default(),
            &fleet(summary.clone()),
            Timestamp(2_000),
        );
        assert_eq!(seen.state(&summary), "was idle 1 s ago");
        assert!(
            seen.line(&summary)
                .contains("not known whether its agent runs")
        );
        assert_eq!(seen.json_of(SESSION)["agent"]["value"], Value::Null);
    }
}
