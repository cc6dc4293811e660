//! An agent that speaks garbage between what it should: each kind is told as a fault of that agent or
//! taken for what it means, and the conversation goes on.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as it expects"
)]

mod support;

use farhelm_core::agent::Said;
use farhelm_core::event::StopReason;
use farhelm_proto::Code;

use support::playing::Playing;

/// Answers what opens a conversation; `then` is said in the first turn, and a second turn is quiet.
fn agent(then: &str) -> String {
    format!(
        r#"say() {{ printf '%s\n' "$1"; }}
read line; say '{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":1}}}}'
read line; say '{{"jsonrpc":"2.0","id":2,"result":{{"sessionId":"s"}}}}'
read line
{then}
say '{{"method":"session/update","params":{{"sessionId":"s","update":{{"sessionUpdate":"agent_message_chunk","content":{{"type":"text","text":"still here"}}}}}}}}'
say '{{"id":3,"result":{{"stopReason":"end_turn"}}}}'
read line; say '{{"id":4,"result":{{"stopReason":"end_turn"}}}}'
cat > /dev/null"#
    )
}

/// What the first of two turns amounted to.
struct Told {
    agent: Playing,
    text: String,
    /// Notices of garbage.
    noticed: Vec<String>,
    /// What was kept without being understood.
    raw: Vec<String>,
}

async fn plays(then: &str) -> Told {
    let mut agent = Playing::shell(&agent(then)).await;
    agent.started().await;
    agent.prompt("go");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn, "{then}");
    assert!(agent.text().ends_with("still here"), "{then}");
    let (mut noticed, mut raw) = (Vec::new(), Vec::new());
    for said in &agent.told {
        match said {
            Said::Notice { code, text } => {
                assert_eq!(*code, Code::AgentGarbage, "{text}");
                noticed.push(text.clone());
            }
            Said::Raw { json, .. } => raw.push(json.clone()),
            _ => {}
        }
    }
    let text = agent.text();
    agent.prompt("again");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn, "{then}");
    Told {
        agent,
        text,
        noticed,
        raw,
    }
}

#[tokio::test]
async fn f22_lines_that_are_no_messages_are_quoted_and_the_turn_goes_on() {
    let deep = "head -c 100000 /dev/zero | tr '\\0' '['; echo";
    let deep_object = "i=0; while [ $i -lt 20 ]; do u=$u'{\"a\":'; i=$((i+1)); done; i=0; while [ $i -lt 5000 ]; do printf %s \"$u\"; i=$((i+1)); done; echo";
    let table: [(&str, &[&str]); 9] = [
        ("say '{\"id\":3,\"result\"'", &["{\"id\":3,\"result\""]),
        ("printf '\\377\\376{}\\n'", &["\u{fffd}\u{fffd}{}"]),
        ("printf '{\"a\":\"\\303(\"}\\n'", &[]),
        (deep, &["[[[["]),
        (deep_object, &["{\"a\":{\"a\":"]),
        ("printf 'nul\\000nul\\n'", &["nul\0nul"]),
        (
            "printf '\\357\\273\\277{\"id\":9}\\n'",
            &["\u{feff}{\"id\":9}"],
        ),
        (
            "say '[{\"id\":3,\"result\":{}},{\"id\":3,\"result\":{}}]'; say 7; say null; say '\"x\"'",
            &["[{\"id\":3", "7", "null", "\"x\""],
        ),
        // Beyond what is held, and no string that could come in parts.
        (
            "head -c 20000000 /dev/zero | tr '\\0' x; echo",
            &["a line of 20000000 bytes"],
        ),
    ];
    for (then, expected) in table {
        let Told { noticed, .. } = plays(then).await;
        assert_eq!(noticed.len(), expected.len(), "{then}: {noticed:?}");
        for (text, begin) in noticed.iter().zip(expected) {
            assert!(text.starts_with(begin), "{then}: {noticed:?}");
            assert!(text.len() < 1000, "{then}: {} bytes are quoted", text.len());
        }
    }
}

#[tokio::test]
async fn f22_line_ends_of_other_systems_and_blank_lines_mean_nothing() {
    let then = "printf '\\r\\n\\n  \\n\\t\\r\\n'; printf '{\"method\":\"session/update\",\"params\":{\"sessionId\":\"s\",\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"crlf \"}}}}\\r\\n'";
    let Told {
        text, noticed, raw, ..
    } = plays(then).await;
    assert!(text.ends_with("crlf still here"), "{text}");
    assert!(noticed.is_empty() && raw.is_empty(), "{noticed:?} {raw:?}");
}

#[tokio::test]
async fn f22_answers_that_nobody_asked_for_are_kept_and_change_nothing() {
    let then = r#"say '{"id":999,"result":{"stopReason":"refusal"}}'
say '{"id":"never","error":{"code":1}}'
say '{"id":3.5,"result":{}}'
say '{"id":-3,"result":{}}'
say '{"id":1,"result":{"protocolVersion":7}}'
say '{"id":null,"result":{}}'
say '{}'"#;
    let Told { noticed, raw, .. } = plays(then).await;
    assert!(noticed.is_empty(), "{noticed:?}");
    assert!(raw.len() <= 7, "{raw:?}");
}

#[tokio::test]
async fn f22_requests_with_ids_of_any_kind_are_answered_by_the_same_id() {
    let ids = [
        "\"x\"",
        "0",
        "-7",
        "1.5",
        "1e300",
        "18446744073709551615",
        "true",
        "[1]",
        "{\"a\":1}",
        "\"x\"",
        "3",
    ];
    let asks: String = ids
        .iter()
        .map(|id| format!("say '{{\"id\":{id},\"method\":\"nobody/knows\",\"params\":null}}'; read line; printf '%s\\n' \"$line\" >> heard\n"))
        .collect();
    // Without an id it is told, not asked.
    let then = format!("{asks}say '{{\"id\":null,\"method\":\"nobody/knows\"}}'");
    let Told { agent, noticed, .. } = plays(&then).await;
    assert!(noticed.is_empty(), "{noticed:?}");
    let heard = std::fs::read_to_string(agent.dir().join("heard")).unwrap();
    let heard: Vec<&str> = heard.lines().collect();
    assert_eq!(heard.len(), ids.len(), "{heard:?}");
    for (line, id) in heard.iter().zip(ids) {
        let number = id.replace("1e300", "1e+300");
        assert!(
            line.contains(&format!("\"id\":{number},")) && line.contains("-32601"),
            "{id}: {line}"
        );
    }
}

#[tokio::test]
async fn f22_a_question_asked_twice_by_one_id_is_answered_twice() {
    let ask = "say '{\"id\":\"q\",\"method\":\"session/request_permission\",\"params\":{\"sessionId\":\"s\",\"toolCall\":{\"toolCallId\":\"t\",\"title\":\"T\"},\"options\":[{\"optionId\":\"y\",\"name\":\"Yes\",\"kind\":\"allow_once\"}]}}'";
    let then = format!(
        "{ask}\n{ask}\nread line; echo \"$line\" >> heard; read line; echo \"$line\" >> heard"
    );
    let mut agent = Playing::shell(&self::agent(&then)).await;
    agent.started().await;
    agent.prompt("go");
    let first = agent.asks().await;
    let second = agent.asks().await;
    assert_ne!(first.0, second.0, "each is a question of its own");
    agent.answer(first.0, first.1, "y");
    agent.answer(second.0, second.1, "y");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn);
    let heard = std::fs::read_to_string(agent.dir().join("heard")).unwrap();
    assert_eq!(heard.matches("\"id\":\"q\"").count(), 2, "{heard}");
}
