//! Stories of the ACP adapter as a pure machine: what no recorded conversation happens to show.

#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests: what does not fit fails the test"
)]

use std::collections::BTreeMap;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, Subject, Verdict};
use farhelm_core::content::{Content, ToolPatch, ToolStatus};
use farhelm_core::event::{MessageRole, StopReason};
use farhelm_host::agents::acp::{Acp, Setup};
use farhelm_host::agents::files::FileError;
use farhelm_host::agents::{Adapter as _, Conversation, RawMessage, Step, Ticket};
use farhelm_proto::Code;
use serde_json::{Value, json};

#[test]
fn a_cancel_answers_every_open_question() {
    let mut agent = Machine::in_turn();
    let first = agent.asks(json!(0), "call-1");
    let second = agent.asks(json!("zero"), "call-2");
    agent.obey(Order::Cancel);
    let cancelled = json!({"outcome": {"outcome": "cancelled"}});
    assert_eq!(
        agent.sent(),
        [
            json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "s"}}),
            json!({"jsonrpc": "2.0", "id": 0, "result": cancelled}),
            json!({"jsonrpc": "2.0", "id": "zero", "result": cancelled}),
        ]
    );
    let said = agent.said();
    for request in [&first.0, &second.0] {
        assert!(said.contains(&Said::AskWithdrawn {
            request: request.clone()
        }));
    }
    assert!(said.contains(&Said::Tool(rejected("call-1"))));
    agent.answer(first, "yes", true);
    assert_eq!(
        agent.sent(),
        [Value::Null; 0],
        "an answer that comes too late goes nowhere"
    );
    agent.hear(json!({"id": 3, "result": {"stopReason": "cancelled"}}));
    assert_eq!(
        agent.said(),
        [Said::TurnEnded {
            reason: StopReason::Cancelled,
            detail: None
        }]
    );
}

#[test]
fn an_answer_that_was_not_offered_is_a_cancellation() {
    for (option, allows) in [("other", true), ("no", true), ("yes", false)] {
        let mut agent = Machine::in_turn();
        let ask = agent.asks(json!(7), "call-1");
        agent.answer(ask, option, allows);
        assert_eq!(
            agent.sent()[0]["result"]["outcome"]["outcome"],
            "cancelled",
            "{option} {allows}"
        );
        assert_eq!(agent.said(), [Said::Tool(rejected("call-1"))]);
    }
}

#[test]
fn a_refused_call_stays_refused_whatever_the_agent_calls_it() {
    let mut agent = Machine::in_turn();
    let ask = agent.asks(json!(7), "call-1");
    agent.answer(ask, "no", false);
    agent.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "call-1", "status": "failed", "rawOutput": "refused"}));
    let said = agent.said();
    assert!(
        matches!(&said[..], [Said::Tool(_), Said::Tool(patch)] if patch.status != Some(ToolStatus::Failed)),
        "{said:?}"
    );
}

#[test]
fn a_question_the_agent_takes_back_is_withdrawn() {
    let mut agent = Machine::in_turn();
    let (request, _) = agent.asks(json!(7), "call-1");
    agent.hear(json!({"method": "$/cancel_request", "params": {"requestId": 7}}));
    assert_eq!(agent.said(), [Said::AskWithdrawn { request }]);
    assert_eq!(agent.sent()[0]["error"]["code"], -32800);
}

#[test]
fn a_command_is_asked_about_in_full_and_where_it_runs() {
    let long = "x ".repeat(100_000);
    for (input, command, dir) in [
        (json!({"command": long}), long.as_str(), "/w"),
        (
            json!({"command": ["bash", "-lc", "echo 'a b'"], "cwd": "/w/sub"}),
            r#"bash -lc 'echo '\''a b'\'''"#,
            "/w/sub",
        ),
    ] {
        let mut agent = Machine::in_turn();
        let (_, ask) = agent.permission(
            json!(1),
            json!({"toolCallId": "c", "kind": "execute", "title": "ls", "rawInput": input}),
        );
        assert_eq!(
            ask.subject,
            Subject::Command {
                command: command.to_owned(),
                dir: dir.to_owned()
            }
        );
    }
}

#[test]
fn a_title_never_stands_in_for_what_will_run() {
    let mut agent = Machine::in_turn();
    let call = json!({"toolCallId": "c", "kind": "execute", "title": "echo harmless"});
    let (_, ask) = agent.permission(json!(1), call);
    assert!(
        matches!(&ask.subject, Subject::Tool { name, input, .. } if name == "execute" && input.contains("toolCallId"))
    );
}

#[test]
fn arguments_are_shown_as_they_came() {
    let mut agent = Machine::in_turn();
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"session/request_permission","params":{"sessionId":"s","toolCall":{"toolCallId":"c","title":"t","rawInput":{"z":1.0, "a":12345678901234567890123}},"options":[]}}"#;
    agent.hear_line(line);
    let said = agent.said();
    let input = said.iter().find_map(|said| match said {
        Said::Asks {
            ask:
                Ask {
                    subject: Subject::Tool { input, .. },
                    ..
                },
            ..
        } => Some(input.as_str()),
        _ => None,
    });
    assert_eq!(input, Some(r#"{"z":1.0, "a":12345678901234567890123}"#));
}

#[test]
fn a_diff_seen_before_is_shown_with_the_question() {
    let mut agent = Machine::in_turn();
    agent.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c", "kind": "edit", "content": [{"type": "diff", "path": "/w/a", "newText": "new"}]}));
    agent.said();
    let (_, ask) = agent.permission(json!(1), json!({"toolCallId": "c"}));
    let diff = Content::Diff {
        path: "/w/a".to_owned(),
        old: None,
        new: "new".to_owned(),
    };
    assert!(
        matches!(&ask.subject, Subject::Edit { content, .. } if content == &[diff]),
        "{ask:?}"
    );
}

#[test]
fn forms_and_addresses_are_answered_in_their_own_words() {
    let form = json!({"mode": "form", "message": "m", "requestedSchema": {"type": "object", "properties": {}}, "sessionId": "s"});
    let visit = json!({"mode": "url", "message": "m", "url": "https://example.invalid", "elicitationId": "e-1", "sessionId": "s"});
    let answers = BTreeMap::from([("a".to_owned(), json!([1, true]))]);
    let select = |option: &str, allows| Verdict::Selected {
        option: option.to_owned(),
        allows,
        reason: None,
    };
    for (params, verdict, answer) in [
        (
            &form,
            Verdict::Answered { answers },
            json!({"action": "accept", "content": {"a": [1, true]}}),
        ),
        (
            &form,
            select("decline", false),
            json!({"action": "decline"}),
        ),
        (
            &form,
            Verdict::Void {
                why: "late".to_owned(),
            },
            json!({"action": "cancel"}),
        ),
        (&visit, select("accept", true), json!({"action": "accept"})),
        (
            &visit,
            select("decline", false),
            json!({"action": "decline"}),
        ),
    ] {
        let mut agent = Machine::in_turn();
        agent.hear(json!({"id": 4, "method": "elicitation/create", "params": params}));
        let (request, ask) = agent.asked();
        agent.obey(Order::Answer {
            request,
            ask,
            verdict,
        });
        assert_eq!(
            agent.sent(),
            [json!({"jsonrpc": "2.0", "id": 4, "result": answer})]
        );
    }
}

#[test]
fn an_address_that_was_dealt_with_elsewhere_needs_no_answer() {
    let mut agent = Machine::in_turn();
    let params = json!({"mode": "url", "message": "m", "url": "https://example.invalid", "elicitationId": "e-1"});
    agent.hear(json!({"id": 4, "method": "elicitation/create", "params": params}));
    let (request, _) = agent.asked();
    agent.hear(json!({"method": "elicitation/complete", "params": {"elicitationId": "e-2"}}));
    assert_eq!(agent.said(), []);
    agent.hear(json!({"method": "elicitation/complete", "params": {"elicitationId": "e-1"}}));
    assert_eq!(agent.said(), [Said::AskWithdrawn { request }]);
    assert_eq!(agent.sent()[0]["result"], json!({"action": "accept"}));
}

#[test]
fn an_elicitation_of_an_unknown_kind_is_declined_and_shown() {
    let mut agent = Machine::in_turn();
    agent.hear(json!({"id": 4, "method": "elicitation/create", "params": {"mode": "_hologram", "message": "m"}}));
    assert_eq!(agent.sent()[0]["result"], json!({"action": "cancel"}));
    assert!(matches!(&agent.said()[..], [Said::Raw { kind, .. }] if kind == "elicitation/create"));
}

#[test]
fn file_work_is_answered_with_what_came_of_it() {
    let mut agent = Machine::in_turn();
    agent.hear(json!({"id": 0, "method": "fs/read_text_file", "params": {"sessionId": "s", "path": "/w/a", "line": 2, "limit": 1}}));
    agent.hear(json!({"id": 1, "method": "fs/read_text_file", "params": {"sessionId": "s", "path": "/w/b"}}));
    agent.hear(json!({"id": 2, "method": "fs/write_text_file", "params": {"sessionId": "s", "path": "/w/c"}}));
    assert_eq!(
        agent.sent()[0]["error"]["code"],
        -32602,
        "there is nothing to write"
    );
    agent.filed(2, Err(FileError::Refused("outside".to_owned())));
    agent.filed(1, Ok("text".to_owned()));
    agent.filed(1, Ok("twice".to_owned()));
    let sent = agent.sent();
    assert_eq!(
        (&sent[0]["id"], &sent[0]["error"]["message"]),
        (&json!(1), &json!("refused: outside"))
    );
    assert_eq!(
        sent[1],
        json!({"jsonrpc": "2.0", "id": 0, "result": {"content": "text"}})
    );
    assert_eq!(sent.len(), 2);
}

#[test]
fn a_file_that_is_missing_is_so_in_the_words_of_the_protocol() {
    let mut agent = Machine::in_turn();
    agent.hear(json!({"id": 0, "method": "fs/read_text_file", "params": {"path": "/w/a"}}));
    agent.filed(1, Err(FileError::Missing("/w/a".to_owned())));
    assert_eq!(
        agent.sent()[0]["error"],
        json!({"code": -32002, "message": "Resource not found: /w/a"})
    );
}

#[test]
fn a_model_that_approves_is_put_aside_where_a_person_can_be_asked() {
    for (name, current, modes, expected) in [
        (
            "unheard-of",
            "yolo",
            &["yolo", "default"][..],
            Some("default"),
        ),
        (
            "unheard-of",
            "agent",
            &["agent", "plan", "manual"],
            Some("manual"),
        ),
        (
            "unheard-of",
            "accept-edits",
            &["accept-edits", "ask"],
            Some("ask"),
        ),
        ("unheard-of", "build", &["build", "plan"], None),
        ("unheard-of", "auto", &["auto", "plan"], None),
        (
            "@zed-industries/claude-agent-acp",
            "auto",
            &["auto", "default"],
            Some("default"),
        ),
        (
            "codex-acp",
            "agent",
            &["agent", "read-only", "default"],
            Some("read-only"),
        ),
        ("cursor-agent", "agent", &["agent", "ask"], None),
    ] {
        let mut agent = Machine::new(None);
        agent.hear(json!({"id": 1, "result": {"protocolVersion": 1, "agentInfo": {"name": name}}}));
        agent.sent();
        let offered: Vec<_> = modes
            .iter()
            .map(|id| json!({"id": id, "name": id}))
            .collect();
        agent.hear(json!({"id": 2, "result": {"sessionId": "s", "modes": {"currentModeId": current, "availableModes": offered}}}));
        let sent = agent.sent();
        assert_eq!(
            sent.first()
                .and_then(|sent| sent["params"]["modeId"].as_str()),
            expected,
            "{name} in {current}"
        );
        assert_eq!(
            agent.said().is_empty(),
            expected.is_some(),
            "it starts only when the mode is settled"
        );
    }
}

#[test]
fn a_configured_mode_goes_before_what_is_known() {
    let mut agent = Machine::new(Some("plan"));
    agent.hear(json!({"id": 1, "result": {"agentInfo": {"name": "claude"}}}));
    let modes = json!({"currentModeId": "auto", "availableModes": [{"id": "auto"}, {"id": "default"}, {"id": "plan"}]});
    agent.sent();
    agent.hear(json!({"id": 2, "result": {"sessionId": "s", "modes": modes}}));
    assert_eq!(agent.sent()[0]["params"]["modeId"], "plan");
    agent.hear(json!({"id": 3, "error": {"code": -32603, "message": "no"}}));
    let said = agent.said();
    assert!(
        matches!(said.last(), Some(Said::Notice { code: Code::AgentRefused, text }) if text.contains("without asking"))
    );
}

#[test]
fn settings_of_every_shape_are_offered_and_set() {
    let mut agent = Machine::new(None);
    agent.hear(json!({"id": 1, "result": {}}));
    agent.sent();
    let options = json!([
        {"id": "m", "name": "Model", "category": "model", "type": "select", "currentValue": "a",
            "options": [{"group": "g", "name": "G", "options": [{"value": "a", "name": "A"}, {"value": "b", "name": "B"}]}]},
        {"id": "web", "name": "Web", "type": "boolean", "currentValue": false},
        {"id": "mode", "category": "mode", "type": "select", "currentValue": "build", "options": [{"value": "build"}, {"value": "plan"}]},
        {"odd": true},
    ]);
    agent.hear(json!({"id": 2, "result": {"sessionId": "s", "configOptions": options}}));
    let said = agent.said();
    let Some(Said::Config(offered)) = said.iter().find(|said| matches!(said, Said::Config(_)))
    else {
        panic!("{said:?}")
    };
    let brief: Vec<_> = offered
        .iter()
        .map(|option| {
            (
                option.id.as_str(),
                option.current.as_str(),
                option.choices.len(),
            )
        })
        .collect();
    assert_eq!(brief, [("m", "a", 2), ("web", "false", 2)]);
    assert!(said.iter().any(
        |said| matches!(said, Said::Modes { current: Some(current), .. } if current == "build")
    ));
    agent.obey(Order::SetConfig {
        option: "web".to_owned(),
        value: "true".to_owned(),
    });
    agent.obey(Order::SetMode("plan".to_owned()));
    agent.obey(Order::SetMode("gone".to_owned()));
    let sent: Vec<_> = agent
        .sent()
        .into_iter()
        .map(|mut sent| sent["params"].take())
        .collect();
    assert_eq!(
        sent,
        [
            json!({"sessionId": "s", "configId": "web", "type": "boolean", "value": true}),
            json!({"sessionId": "s", "configId": "mode", "value": "plan"}),
        ]
    );
    assert!(matches!(
        &agent.said()[..],
        [Said::Notice {
            code: Code::UnknownMode,
            ..
        }]
    ));
    agent.hear(json!({"id": 4, "result": {}}));
    assert_eq!(agent.said(), [Said::Mode("plan".to_owned())]);
}

#[test]
fn output_that_grows_is_progress_and_kept_at_the_end() {
    let mut agent = Machine::in_turn();
    let text = |text: &str| json!([{"type": "content", "content": {"type": "text", "text": text}}]);
    agent.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c", "kind": "execute", "status": "in_progress"}));
    agent.update(
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "content": text("1")}),
    );
    agent.update(
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "content": text("1 2")}),
    );
    agent.update(
        json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "completed"}),
    );
    let said = agent.said();
    let content = Some(vec![Content::Text {
        text: "1 2".to_owned(),
    }]);
    assert!(
        matches!(&said[1..3], [Said::ToolProgress(_), Said::ToolProgress(_)]),
        "{said:?}"
    );
    assert!(
        matches!(&said[3], Said::Tool(patch) if patch.content == content && patch.status == Some(ToolStatus::Completed)),
        "{said:?}"
    );
}

/// A line of which long strings were taken: its output was kept when it came, and its arguments
/// are not whole.
#[test]
fn f20_output_that_is_not_whole_is_no_progress_and_arguments_that_are_not_are_none() {
    let mut agent = Machine::in_turn();
    let stand_in = "x".repeat(8 << 10);
    let content = json!([{"type": "content", "content": {"type": "text", "text": stand_in}}]);
    agent.update(json!({"sessionUpdate": "tool_call", "toolCallId": "c", "kind": "execute", "status": "in_progress"}));
    agent.said();
    let update = json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "content": content, "rawInput": {"command": stand_in}});
    agent.hear_cut(
        json!({"method": "session/update", "params": {"sessionId": "s", "update": update}}),
    );
    let update = json!({"sessionUpdate": "tool_call_update", "toolCallId": "c", "rawInput": {"command": "ls"}});
    agent.hear_cut(
        json!({"method": "session/update", "params": {"sessionId": "s", "update": update}}),
    );
    let said = agent.said();
    let text = Content::Text { text: stand_in };
    let patch = |content, input| {
        Said::Tool(ToolPatch {
            id: "c".to_owned(),
            content,
            input,
            ..ToolPatch::default()
        })
    };
    let input = Some(r#"{"command":"ls"}"#.to_owned());
    assert_eq!(said, [patch(Some(vec![text]), None), patch(None, input)]);
}

/// What is asked for in a line that is not whole is neither shown to a person nor done.
#[test]
fn f20_a_request_that_is_not_whole_is_refused_and_that_is_said() {
    for method in [
        "session/request_permission",
        "fs/write_text_file",
        "elicitation/create",
    ] {
        let mut agent = Machine::in_turn();
        let params = json!({"sessionId": "s", "path": "/w/f", "content": "a stand-in", "toolCall": {"toolCallId": "c"}});
        agent.hear_cut(json!({"id": 7, "method": method, "params": params}));
        assert!(
            matches!(&agent.said()[..], [Said::Notice { code: Code::AgentGarbage, text }] if text.contains(method))
        );
        let sent = agent.sent();
        assert!(
            matches!(&sent[..], [refusal] if refusal["id"] == 7 && refusal["error"]["code"] == -32602),
            "{sent:?}"
        );
    }
}

#[test]
fn pictures_never_travel_as_text() {
    let mut agent = Machine::in_turn();
    let image = json!({"type": "image", "mimeType": "image/png", "data": "A".repeat(4_000_000)});
    agent.update(json!({"sessionUpdate": "agent_message_chunk", "content": image}));
    agent.update(json!({"sessionUpdate": "hologram", "content": image}));
    let said = format!("{:?}", agent.said());
    assert!(said.len() < 1000 && said.contains("3000000"), "{said}");
}

#[test]
fn a_prompt_that_the_agent_repeats_is_not_told_twice() {
    let mut agent = Machine::in_turn();
    let echo = |text: &str| json!({"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": text}});
    agent.update(echo("do "));
    agent.update(echo("it"));
    assert_eq!(agent.said(), []);
    agent.update(echo("something else"));
    assert!(matches!(
        &agent.said()[..],
        [Said::Delta {
            role: MessageRole::User,
            ..
        }]
    ));
}

#[test]
fn an_agent_that_offers_to_resume_and_does_not_is_loaded() {
    let mut agent = Machine::with(Conversation::Continue("old".to_owned()), None);
    let capabilities = json!({"loadSession": true, "sessionCapabilities": {"resume": {}}});
    agent.hear(
        json!({"id": 1, "result": {"protocolVersion": 1, "agentCapabilities": capabilities}}),
    );
    agent.hear(json!({"id": 2, "error": {"code": -32601, "message": "Method not found"}}));
    agent
        .hear(json!({"id": 3, "error": {"code": -32603, "message": "No previous sessions found"}}));
    agent.hear(json!({"id": 4, "result": {"sessionId": "fresh"}}));
    let methods: Vec<_> = agent
        .sent()
        .iter()
        .map(|sent| sent["method"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(methods, ["session/resume", "session/load", "session/new"]);
    let said = agent.said();
    assert!(
        matches!(&said[0], Said::Notice { text, .. } if text.contains("No previous sessions found"))
    );
    assert!(
        matches!(&said[1], Said::Started { agent_session: Some(session), resumed: false, .. } if session == "fresh")
    );
}

#[test]
fn odd_shapes_lose_nothing_and_break_nothing() {
    let odd = [
        json!({"id": null, "method": "session/update", "params": null}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": 7}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "tool_call"}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "tool_call", "toolCallId": "c", "content": "text", "status": 3}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "agent_message_chunk"}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "hologram"}}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "plan", "entries": [1, {}]}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "usage_update", "used": -1}}}),
        json!({"id": 9, "method": "session/request_permission", "params": {}}),
        json!({"id": 10, "method": "session/request_permission", "params": {"toolCall": {"toolCallId": "c"}, "options": [{"name": "no id"}, 3]}}),
        json!({"id": {"a": 1}, "method": "unheard/of"}),
        json!({"id": 99, "result": {}}),
        json!({"error": {"code": -32700, "message": "Parse error"}}),
        json!({}),
    ];
    let mut agent = Machine::in_turn();
    for message in odd {
        agent.hear(message.clone());
        let answered =
            message.get("method").is_some() && message.get("id").is_some_and(|id| !id.is_null());
        let (said, sent) = (agent.said(), agent.sent());
        let answered_nothing = message.get("id") == Some(&json!(99));
        assert!(
            !said.is_empty() || !sent.is_empty() || answered_nothing,
            "lost: {message}"
        );
        assert!(
            !answered || !sent.is_empty() || matches!(&said[..], [.., Said::Asks { .. }]),
            "unanswered: {message}"
        );
    }
    agent.hear(json!({"id": 3, "result": {"stopReason": "_novel"}}));
    assert!(matches!(
        agent.said().last(),
        Some(Said::TurnEnded {
            reason: StopReason::EndTurn,
            ..
        })
    ));
}

fn rejected(id: &str) -> ToolPatch {
    ToolPatch {
        id: id.to_owned(),
        status: Some(ToolStatus::Rejected),
        ..ToolPatch::default()
    }
}

/// The adapter, and what came out of it since it was last looked at.
struct Machine {
    adapter: Acp,
    said: Vec<Said>,
    sent: Vec<Value>,
}

impl Machine {
    fn new(mode: Option<&str>) -> Self {
        Self::with(Conversation::New, mode)
    }

    fn with(conversation: Conversation, mode: Option<&str>) -> Self {
        let setup = Setup {
            dir: "/w".to_owned(),
            conversation,
            mode: mode.map(str::to_owned),
            files: true,
        };
        let mut machine = Self {
            adapter: Acp::new(setup),
            said: Vec::new(),
            sent: Vec::new(),
        };
        let steps = machine.adapter.begin();
        machine.take(steps);
        machine.sent.clear();
        machine
    }

    /// In the turn of the prompt `do it`, whose request has id 3.
    fn in_turn() -> Self {
        let mut machine = Self::new(None);
        machine.hear(json!({"id": 1, "result": {"protocolVersion": 1}}));
        machine.hear(json!({"id": 2, "result": {"sessionId": "s"}}));
        machine.obey(Order::Prompt {
            id: "prm_1".to_owned(),
            text: "do it".to_owned(),
        });
        machine.said.clear();
        machine.sent.clear();
        machine
    }

    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Say(said) => self.said.push(said),
                Step::Send(line) => self.sent.push(serde_json::from_str(line.get()).unwrap()),
                Step::File { .. } => {}
            }
        }
    }

    fn hear(&mut self, message: Value) {
        self.hear_line(&message.to_string());
    }

    fn hear_line(&mut self, line: &str) {
        let steps = self.adapter.hear(&RawMessage::parse(line).unwrap());
        self.take(steps);
    }

    fn hear_cut(&mut self, message: Value) {
        let message = RawMessage::parse(&message.to_string()).unwrap().cut();
        let steps = self.adapter.hear(&message);
        self.take(steps);
    }

    fn update(&mut self, update: Value) {
        self.hear(
            json!({"method": "session/update", "params": {"sessionId": "s", "update": update}}),
        );
    }

    fn obey(&mut self, order: Order) {
        let steps = self.adapter.obey(order);
        self.take(steps);
    }

    fn filed(&mut self, ticket: u64, outcome: Result<String, FileError>) {
        let steps = self.adapter.filed(Ticket(ticket), outcome);
        self.take(steps);
    }

    /// The agent asks about this call.
    fn permission(&mut self, id: Value, call: Value) -> (String, Ask) {
        let options = json!([
            {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
            {"optionId": "no", "name": "No", "kind": "reject_once"},
        ]);
        let params = json!({"sessionId": "s", "toolCall": call, "options": options});
        self.hear(json!({"id": id, "method": "session/request_permission", "params": params}));
        self.asked()
    }

    fn asks(&mut self, id: Value, call: &str) -> (String, Ask) {
        self.permission(id, json!({"toolCallId": call, "title": "t"}))
    }

    fn asked(&mut self) -> (String, Ask) {
        match self.said().pop() {
            Some(Said::Asks { request, ask }) => (request, ask),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, (request, ask): (String, Ask), option: &str, allows: bool) {
        let verdict = Verdict::Selected {
            option: option.to_owned(),
            allows,
            reason: None,
        };
        self.obey(Order::Answer {
            request,
            ask,
            verdict,
        });
    }

    fn said(&mut self) -> Vec<Said> {
        core::mem::take(&mut self.said)
    }

    fn sent(&mut self) -> Vec<Value> {
        core::mem::take(&mut self.sent)
    }
}
