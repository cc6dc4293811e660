//! What a device knows of a host, as it comes to know it; and the fixture that the web app's twin
//! replays.

use farhelm_core::event::Activity;
use farhelm_core::presence::{
    FRESH_MILLIS, HELD_BACK_MILLIS, Presence, Reach, SILENT_MILLIS, Sighting,
};
use farhelm_core::probe::{EVERY_MILLIS, Echo, Held, IDLE_MILLIS, Pulse};
use farhelm_proto::{Code, PeerId, SessionId, StreamId, Timestamp};

const HOST: PeerId = PeerId::from_bytes([1; 16]);
const SESSION: SessionId = SessionId::from_bytes([2; 16]);
/// The host's clock is ahead of the device's by so much.
const SKEW: u64 = 3_600_000;

fn pulse(head: u64, sent: u64, state: Activity) -> Pulse {
    Pulse {
        head,
        sent,
        state,
        keeper: None,
        agent: Some(true),
        heard: None,
        held: None,
    }
}

fn echoed(asked: u64, took: u64, pulse: Pulse) -> Sighting {
    let echo = Echo {
        nonce: "n".into(),
        now: Timestamp(asked + took / 2 + SKEW),
        every_millis: EVERY_MILLIS,
        idle_millis: IDLE_MILLIS,
        sent: Some(4),
        sessions: [(SESSION, pulse)].into(),
    };
    Sighting::Echoed {
        host: HOST,
        asked: Timestamp(asked),
        echo: Box::new(echo),
    }
}

fn told(sightings: &[(u64, Sighting)]) -> Presence {
    let mut presence = Presence::default();
    for (at, sighting) in sightings {
        presence.apply(Timestamp(*at), sighting);
    }
    presence
}

fn connected() -> Vec<(u64, Sighting)> {
    vec![
        (1_000, Sighting::Link { up: true }),
        (1_010, Sighting::Host { online: true }),
        (1_020, Sighting::Asked),
        (1_100, echoed(1_020, 80, pulse(9, 9, Activity::Running))),
    ]
}

#[test]
fn nothing_is_known_before_anything_was_heard() {
    let presence = Presence::default();
    assert_eq!(presence.reach(Timestamp(5)), Reach::Offline);
    let turn = presence.turn(SESSION, Timestamp(5));
    assert_eq!(
        (turn.state, turn.age_millis, turn.fresh),
        (None, None, false)
    );
}

#[test]
fn i05_a_relay_that_claims_presence_proves_nothing() {
    let mut presence = told(&connected()[..3]);
    assert_eq!(presence.reach(Timestamp(1_030)), Reach::Unproven);
    let late = Timestamp(1_021 + SILENT_MILLIS);
    assert_eq!(presence.reach(late), Reach::Silent);
    presence.apply(late, &Sighting::Host { online: true });
    assert_eq!(presence.reach(late), Reach::Silent);
}

#[test]
fn i05_a_turn_that_ran_is_not_shown_as_running_on_old_data() {
    let presence = told(&connected());
    let turn = presence.turn(SESSION, Timestamp(1_100));
    assert_eq!((turn.state, turn.fresh), (Some(Activity::Running), true));
    let later = Timestamp(1_021 + FRESH_MILLIS);
    let turn = presence.turn(SESSION, later);
    assert_eq!(
        turn.state,
        Some(Activity::Running),
        "the last known state stays"
    );
    assert_eq!(
        (turn.age_millis, turn.fresh),
        (Some(FRESH_MILLIS + 1), false)
    );
}

#[test]
fn losing_the_link_changes_what_is_reached_and_nothing_else() {
    let mut presence = told(&connected());
    let before = presence.sessions.clone();
    presence.apply(Timestamp(1_200), &Sighting::Link { up: false });
    assert_eq!(presence.reach(Timestamp(1_200)), Reach::Offline);
    assert_eq!(presence.sessions, before);
    assert!(!presence.turn(SESSION, Timestamp(1_200)).fresh);
    // A new connection has to prove the way again.
    presence.apply(Timestamp(1_300), &Sighting::Link { up: true });
    assert_eq!(presence.reach(Timestamp(1_300)), Reach::Unproven);
}

#[test]
fn an_echo_that_was_held_back_is_as_old_as_its_question() {
    let mut presence = told(&connected()[..3]);
    let late = 1_020 + FRESH_MILLIS + 1;
    presence.apply(
        Timestamp(late),
        &echoed(1_020, FRESH_MILLIS + 1, pulse(9, 9, Activity::Running)),
    );
    assert_ne!(presence.reach(Timestamp(late)), Reach::Live);
    assert!(!presence.turn(SESSION, Timestamp(late)).fresh);
}

#[test]
fn f10_a_clock_that_was_set_back_makes_nothing_fresh() {
    let presence = told(&connected());
    let earlier = Timestamp(500);
    assert_ne!(presence.reach(earlier), Reach::Live);
    assert!(!presence.turn(SESSION, earlier).fresh);
}

#[test]
fn the_hosts_word_stands_against_an_older_one_of_the_relay() {
    let mut presence = told(&connected());
    presence.apply(Timestamp(1_200), &Sighting::Host { online: false });
    assert_eq!(presence.reach(Timestamp(1_200)), Reach::HostAway);
    presence.apply(Timestamp(1_300), &Sighting::Asked);
    presence.apply(
        Timestamp(1_320),
        &echoed(1_300, 20, pulse(9, 9, Activity::Idle)),
    );
    assert_eq!(presence.reach(Timestamp(1_320)), Reach::Live);
}

#[test]
fn s06_a_relay_that_holds_the_newest_events_back_is_found_out() {
    let stream = StreamId::from(SESSION);
    let mut presence = told(&connected());
    presence.apply(Timestamp(1_150), &Sighting::Read { stream, head: 7 });
    presence.apply(Timestamp(2_000), &Sighting::Asked);
    presence.apply(
        Timestamp(2_050),
        &echoed(2_000, 50, pulse(9, 9, Activity::Idle)),
    );
    assert_eq!(
        presence.held_back(Timestamp(2_050)),
        [],
        "it may be on its way"
    );
    let late = Timestamp(2_051 + HELD_BACK_MILLIS);
    assert_eq!(presence.deadline(Timestamp(2_050)), Some(late));
    assert_eq!(presence.held_back(late), [(stream, 2)]);
    // Something of it arrives: what is missing may take as long again.
    presence.apply(late, &Sighting::Read { stream, head: 8 });
    assert_eq!(presence.held_back(late), []);
    presence.apply(late, &Sighting::Read { stream, head: 9 });
    assert!(presence.behind.is_empty());
}

#[test]
fn what_the_relay_was_not_handed_yet_is_not_held_back_by_it() {
    let stream = StreamId::from(SESSION);
    let mut presence = told(&connected());
    presence.apply(Timestamp(1_150), &Sighting::Read { stream, head: 7 });
    presence.apply(
        Timestamp(2_050),
        &echoed(2_000, 50, pulse(900, 7, Activity::Idle)),
    );
    assert!(presence.behind.is_empty());
}

#[test]
fn an_older_listing_does_not_replace_what_the_host_said_since() {
    let mut presence = told(&connected());
    let listed = |at: u64| Sighting::Listed {
        session: SESSION,
        state: Activity::Idle,
        at: Timestamp(at + SKEW),
    };
    presence.apply(Timestamp(1_200), &listed(900));
    assert_eq!(
        presence.sessions[&SESSION].turn.value,
        Some(Activity::Running)
    );
    presence.apply(Timestamp(1_300), &listed(1_250));
    assert_eq!(presence.sessions[&SESSION].turn.value, Some(Activity::Idle));
    assert_eq!(
        presence.sessions.len(),
        1,
        "one entry for each session for ever"
    );
}

/// A fixture that the web app's twin replays. `GOLDEN_WRITE=1` writes it anew.
#[test]
#[expect(clippy::disallowed_methods, reason = "the fixture is a file")]
fn the_fixture_for_the_twin_is_what_the_story_says() {
    let stream = StreamId::from(SESSION);
    let mut held = pulse(12, 12, Activity::Running);
    held.heard = Some(Timestamp(9_000 + SKEW));
    held.keeper = Some(true);
    held.held = Some(Held {
        code: Code::JournalFailed,
        text: "the disk is full".into(),
        since: Timestamp(8_000 + SKEW),
    });
    let mut story = connected();
    story.extend([
        (1_150, Sighting::Read { stream, head: 7 }),
        (
            1_160,
            Sighting::Read {
                stream: HOST.into(),
                head: 4,
            },
        ),
        (4_000, Sighting::Asked),
        (
            4_050,
            echoed(4_000, 50, pulse(9, 9, Activity::RequiresAction)),
        ),
        (6_100, Sighting::Read { stream, head: 8 }),
        (6_200, Sighting::Read { stream, head: 9 }),
        (7_000, Sighting::Asked),
        (9_000, Sighting::Host { online: false }),
        (9_500, echoed(7_000, 2_500, held)),
        (10_000, Sighting::Link { up: false }),
        (20_000, Sighting::Link { up: true }),
        (20_100, Sighting::Asked),
        (23_000, Sighting::Asked),
        (
            26_000,
            echoed(20_100, 5_900, pulse(12, 12, Activity::AgentGone)),
        ),
        (
            26_100,
            Sighting::Listed {
                session: SESSION,
                state: Activity::Idle,
                at: Timestamp(26_050 + SKEW),
            },
        ),
        (26_200, Sighting::Left { stream }),
        (
            40_000,
            Sighting::Listed {
                session: SESSION,
                state: Activity::Ended,
                at: Timestamp(39_000 + SKEW),
            },
        ),
        (100, Sighting::Host { online: true }),
    ]);
    let mut presence = Presence::default();
    let mut steps = Vec::new();
    for (at, sighting) in story {
        let now = Timestamp(at);
        presence.apply(now, &sighting);
        let later = now.plus_millis(SILENT_MILLIS);
        steps.push(serde_json::json!({
            "now": now, "sighting": sighting, "presence": presence,
            "reach": [presence.reach(now), presence.reach(later)],
            "turn": [presence.turn(SESSION, now), presence.turn(SESSION, later)],
            "held_back": [presence.held_back(now), presence.held_back(later)],
            "deadline": presence.deadline(now),
        }));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/presence.json");
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&steps).unwrap() + "\n").unwrap();
    }
    let fixture: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(serde_json::Value::from(steps), fixture);
}
