//! Every lie is found, and the truth is not taken for one.

use farhelm_core::command::Rejection;
use farhelm_proto::{Code, StreamId};
use serde_json::json;

use super::*;
use crate::record::{Asked, Message};

#[test]
fn the_truth_is_clean() {
    assert!(agent(&log(), &record()).is_clean());
    assert!(transcript("phone", &log(), &log()).is_clean());
    assert!(wishes(&log(), &[wish(Some(applied(1)))]).is_clean());
}

#[test]
fn what_the_agent_heard_twice_or_never_is_found() {
    let mut record = record();
    record.heard.push("m1".to_owned());
    assert_eq!(agent(&log(), &record).doubled.len(), 1);
    record.heard.clear();
    assert_eq!(agent(&log(), &record).lost.len(), 1);
    record.heard.push("m2".to_owned());
    assert_eq!(agent(&log(), &record).misreported.len(), 1);
}

#[test]
fn a_byte_that_was_changed_lost_or_doubled_is_found() {
    let mut other = record();
    other.said[0].text.push('!');
    assert_eq!(agent(&log(), &other).misreported.len(), 1);
    other = record();
    other.said.push(message("b", "more"));
    assert_eq!(agent(&log(), &other).lost.len(), 1);
    other.said.clear();
    assert_eq!(agent(&log(), &other).doubled.len(), 1);
}

#[test]
fn an_answer_that_was_changed_doubled_or_made_up_is_found() {
    let mut other = record();
    other.asked[0].answers = vec!["reject".to_owned()];
    assert_eq!(agent(&log(), &other).misreported.len(), 1);
    other.asked[0].answers = vec!["allow-once".to_owned(), "allow-once".to_owned()];
    assert_eq!(agent(&log(), &other).doubled.len(), 1);
    other.asked[0].answers.clear();
    assert_eq!(agent(&log(), &other).misreported.len(), 1);
    other.asked[0].title = "another?".to_owned();
    assert_eq!(agent(&log(), &other).lost.len(), 1);
    assert_eq!(agent(&log(), &other).doubled.len(), 1);
}

#[test]
fn a_transcript_with_a_hole_a_change_or_too_little_is_found() {
    let mut shown = log();
    shown.remove(2);
    assert!(!transcript("phone", &log(), &shown).is_clean());
    shown = log();
    shown.pop();
    assert_eq!(transcript("phone", &log(), &shown).lost.len(), 1);
    shown = log();
    shown[3]["event"]["content"] = json!([]);
    assert_eq!(transcript("phone", &log(), &shown).misreported.len(), 1);
}

#[test]
fn a_wish_that_was_told_otherwise_than_it_was_is_found() {
    let refused = Outcome::Refused {
        rejection: Rejection::new(Code::Expired),
    };
    assert_eq!(wishes(&log(), &[wish(Some(refused))]).misreported.len(), 1);
    assert_eq!(wishes(&log(), &[wish(None)]).lost.len(), 1);
    assert_eq!(
        wishes(&log(), &[wish(Some(applied(2)))]).misreported.len(),
        1
    );
    let mut stranger = wish(Some(applied(1)));
    stranger.id = "cmd_b".to_owned();
    assert_eq!(wishes(&log(), &[stranger]).lost.len(), 1);
}

#[test]
fn only_the_last_words_of_a_run_before_the_last_may_be_missing() {
    let mut other = record();
    other.runs = 2;
    other.said.push(message("b", "unheard"));
    assert!(agent(&log(), &other).is_clean());
    other.said[0] = message("z", "before");
    other.said[1] = message("a", "half whole");
    assert!(
        !agent(&log(), &other).is_clean(),
        "something later of the same run is shown"
    );
    other.said[0].run = 2;
    assert!(!agent(&log(), &other).is_clean());
}

fn message(id: &str, text: &str) -> Message {
    Message {
        run: 1,
        id: id.to_owned(),
        text: text.to_owned(),
    }
}

fn applied(seq: u64) -> Outcome {
    Outcome::Applied {
        stream: StreamId::from_bytes([1; 16]),
        seq,
        made: None,
        delivery: farhelm_core::command::Delivery::Consumed,
    }
}

fn wish(outcome: Option<Outcome>) -> Wish {
    Wish {
        id: "cmd_a".to_owned(),
        what: "m1".to_owned(),
        outcome,
    }
}

fn log() -> Vec<Value> {
    let events = [
        json!({"type": "prompt_queued", "prompt": "p", "text": "m1"}),
        json!({"type": "turn_started", "turn": "t", "prompt": "p"}),
        json!({"type": "message_added", "message": "a", "role": "agent", "content": [{"kind": "text", "text": "half "}]}),
        json!({"type": "message_added", "message": "a", "role": "agent", "content": [{"kind": "text", "text": "whole"}]}),
        json!({"type": "approval_requested", "approval": "q", "ask": json!({"title": "may m1?"}).to_string()}),
        json!({"type": "approval_decided", "approval": "q", "verdict": {"kind": "selected", "option": "allow-once"}}),
        json!({"type": "turn_ended", "turn": "t", "reason": "end_turn"}),
    ];
    let records = (1..)
        .zip(events)
        .map(|(seq, event)| json!({"seq": seq, "event": event}));
    let mut records: Vec<Value> = records.collect();
    records[0]["cause"] = json!("cmd_a");
    records
}

fn record() -> Agent {
    Agent {
        heard: vec!["m1".to_owned()],
        said: vec![message("a", "half whole")],
        asked: vec![Asked {
            run: 1,
            title: "may m1?".to_owned(),
            answers: vec!["allow-once".to_owned()],
        }],
        runs: 1,
    }
}
