//! Stories of the Claude Code adapter as a pure machine: what no recorded conversation happens to
//! show.

#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests: what does not fit fails the test"
)]

use std::collections::BTreeMap;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, ChoiceKind, Subject, Verdict};
use farhelm_core::content::{Content, ToolStatus};
use farhelm_core::event::{MessageRole, StopReason};
use farhelm_host::agents::claude::{Claude, Setup};
use farhelm_host::agents::files::FileError;
use farhelm_host::agents::{Adapter as _, Conversation, FileWork, RawMessage, Step, Ticket};
use farhelm_proto::Code;
use serde_json::{Value, json};

#[test]
fn what_is_allowed_is_what_was_asked_byte_for_byte() {
    let mut agent = Machine::in_turn();
    let input = r#"{"command":"ls","timeout":1.0,"big":12345678901234567890123}"#;
    agent.hear_line(&format!(r#"{{"type":"control_request","request_id":"r","request":{{"subtype":"can_use_tool","tool_name":"Bash","input":{input},"tool_use_id":"t"}}}}"#));
    let ask = agent.asked();
    agent.select(ask, "allow", true, None);
    assert!(
        agent.lines[0].contains(&format!(r#""updatedInput":{input}"#)),
        "{}",
        agent.lines[0]
    );
}

#[test]
fn lasting_answers_are_offered_by_readable_names_and_sent_as_suggested() {
    let suggestions = json!([
        {"type": "setMode", "mode": "acceptEdits", "destination": "session"},
        {"type": "setMode", "mode": "bypassPermissions", "destination": "session"},
        {"type": "addRules", "rules": [{"toolName": "WebFetch"}], "behavior": "allow", "destination": "userSettings"},
        {"type": "addRules", "rules": [{"toolName": "Bash", "ruleContent": "rm *"}], "behavior": "deny", "destination": "userSettings"},
        {"type": "replaceEverything"},
    ]);
    let mut agent = Machine::in_turn();
    let ask = agent.permission("Bash", json!({"command": "ls"}), suggestions.clone());
    let names: Vec<_> = ask
        .1
        .options
        .iter()
        .map(|choice| choice.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "Allow once",
            "Allow, and accept all edits in this session",
            "Always allow `WebFetch` everywhere",
            "Reject"
        ]
    );
    agent.select(ask, "always-2", true, None);
    assert_eq!(
        agent.response()["updatedPermissions"],
        json!([suggestions[2]])
    );
}

#[test]
fn a_refusal_carries_the_reason_or_a_plain_one() {
    for (reason, expected) in [
        (Some("use git mv"), "use git mv"),
        (Some(" "), "The person refused this. It was not done."),
        (None, "The person refused this. It was not done."),
    ] {
        let mut agent = Machine::in_turn();
        let ask = agent.permission("Bash", json!({"command": "mv a b"}), json!([]));
        agent.select(ask, "reject", false, reason);
        assert_eq!(
            agent.response(),
            json!({"behavior": "deny", "message": expected})
        );
    }
}

#[test]
fn an_option_that_was_not_offered_allows_nothing() {
    let mut agent = Machine::in_turn();
    let ask = agent.permission("Bash", json!({"command": "ls"}), json!([]));
    agent.select(ask, "always-0", true, None);
    assert_eq!(agent.response()["behavior"], "deny");
}

#[test]
fn a_file_that_is_written_over_is_shown_with_what_it_holds() {
    let mut agent = Machine::in_turn();
    agent.request(
        "Write",
        json!({"file_path": "/w/a", "content": "new"}),
        json!([]),
    );
    assert_eq!(
        agent.files,
        [(
            Ticket(1),
            FileWork::Read {
                path: "/w/a".to_owned(),
                line: None,
                limit: None
            }
        )]
    );
    assert!(
        !agent
            .said
            .iter()
            .any(|said| matches!(said, Said::Asks { .. })),
        "it is asked when the file is known"
    );
    agent.filed(1, Ok("old".to_owned()));
    let (_, ask) = agent.asked();
    let diff = Content::Diff {
        path: "/w/a".to_owned(),
        old: Some("old".to_owned()),
        new: "new".to_owned(),
    };
    assert!(
        matches!(&ask.subject, Subject::Edit { content, .. } if content == &[diff]),
        "{ask:?}"
    );
}

#[test]
fn a_file_that_cannot_be_shown_is_not_taken_for_a_new_one() {
    let mut agent = Machine::in_turn();
    agent.request(
        "Write",
        json!({"file_path": "/elsewhere/a", "content": "new"}),
        json!([]),
    );
    agent.filed(
        1,
        Err(FileError::Refused(
            "/elsewhere/a is outside the session's folder".to_owned(),
        )),
    );
    let (_, ask) = agent.asked();
    assert!(
        matches!(&ask.subject, Subject::Edit { content, .. } if matches!(&content[..], [Content::Diff { .. }, Content::Text { text }] if text.contains("outside")))
    );
}

#[test]
fn a_question_taken_back_before_it_was_asked_is_never_asked() {
    let mut agent = Machine::in_turn();
    agent.request(
        "Write",
        json!({"file_path": "/w/a", "content": "new"}),
        json!([]),
    );
    agent.hear(json!({"type": "control_cancel_request", "request_id": "r"}));
    agent.filed(1, Ok("old".to_owned()));
    assert!(
        !agent
            .said
            .iter()
            .any(|said| matches!(said, Said::Asks { .. } | Said::AskWithdrawn { .. })),
        "{:?}",
        agent.said
    );
}

#[test]
fn edits_are_diffs_and_other_tools_show_their_arguments() {
    let diff = |old: &str, new: &str| Content::Diff {
        path: "/w/a".to_owned(),
        old: Some(old.to_owned()),
        new: new.to_owned(),
    };
    for (name, input, expected) in [
        (
            "Edit",
            json!({"file_path": "/w/a", "old_string": "1", "new_string": "2"}),
            vec![diff("1", "2")],
        ),
        (
            "MultiEdit",
            json!({"file_path": "/w/a", "edits": [{"old_string": "1", "new_string": "2"}, {"old_string": "3", "new_string": "4"}]}),
            vec![diff("1", "2"), diff("3", "4")],
        ),
        (
            "NotebookEdit",
            json!({"notebook_path": "/w/a", "new_source": "x"}),
            vec![diff("", "x")],
        ),
    ] {
        let mut agent = Machine::in_turn();
        let (_, ask) = agent.permission(name, input, json!([]));
        assert!(
            matches!(&ask.subject, Subject::Edit { content, .. } if *content == expected),
            "{ask:?}"
        );
    }
    let mut agent = Machine::in_turn();
    let (_, ask) = agent.permission("mcp__db__drop", json!({"table": "users"}), json!([]));
    assert!(
        matches!(&ask.subject, Subject::Tool { name, input, .. } if name == "mcp__db__drop" && input == r#"{"table":"users"}"#)
    );
}

#[test]
fn several_answers_to_a_question_are_read_as_one() {
    let mut agent = Machine::in_turn();
    let questions = json!([{"question": "Which?", "header": "H", "options": [{"label": "a"}, {"label": "b"}], "multiSelect": true}]);
    let (request, ask) = agent.permission(
        "AskUserQuestion",
        json!({"questions": questions}),
        json!([]),
    );
    assert!(
        matches!(&ask.subject, Subject::Questions { questions } if questions[0].multiple && questions[0].id == "Which?")
    );
    let answers = BTreeMap::from([("Which?".to_owned(), json!(["a", "b"]))]);
    agent.obey(Order::Answer {
        request,
        ask,
        verdict: Verdict::Answered { answers },
    });
    assert_eq!(
        agent.response()["updatedInput"],
        json!({"questions": questions, "answers": {"Which?": "a, b"}})
    );
}

#[test]
fn a_plan_can_be_sent_back() {
    let mut agent = Machine::in_turn();
    let ask = agent.permission("ExitPlanMode", json!({"plan": "1. do it"}), json!([]));
    assert_eq!(
        ask.1.subject,
        Subject::Plan {
            text: "1. do it".to_owned()
        }
    );
    assert_eq!(
        ask.1
            .options
            .iter()
            .map(|choice| choice.kind)
            .collect::<Vec<_>>(),
        [ChoiceKind::AllowOnce, ChoiceKind::RejectOnce]
    );
    agent.select(ask, "reject", false, Some("smaller steps"));
    assert_eq!(agent.response()["message"], "smaller steps");
}

#[test]
fn results_say_why_a_turn_ended() {
    for (result, interrupted, expected) in [
        (
            json!({"subtype": "success", "stop_reason": "end_turn"}),
            false,
            StopReason::EndTurn,
        ),
        (
            json!({"subtype": "success", "stop_reason": "max_tokens"}),
            false,
            StopReason::MaxTokens,
        ),
        (
            json!({"subtype": "success", "stop_reason": "refusal"}),
            false,
            StopReason::Refusal,
        ),
        (
            json!({"subtype": "success", "is_error": true, "result": "overloaded"}),
            false,
            StopReason::Failed,
        ),
        (
            json!({"subtype": "error_max_turns", "is_error": true}),
            false,
            StopReason::MaxTurnRequests,
        ),
        (
            json!({"subtype": "error_during_execution", "is_error": true, "errors": ["x"]}),
            false,
            StopReason::Failed,
        ),
        (
            json!({"subtype": "error_during_execution", "is_error": true}),
            true,
            StopReason::Cancelled,
        ),
        (
            json!({"subtype": "error_during_execution", "terminal_reason": "aborted_tools"}),
            false,
            StopReason::Cancelled,
        ),
    ] {
        let mut agent = Machine::in_turn();
        if interrupted {
            agent.obey(Order::Cancel);
        }
        let mut result = result;
        result["type"] = json!("result");
        agent.hear(result.clone());
        let ended = agent.said.iter().find_map(|said| match said {
            Said::TurnEnded { reason, .. } => Some(*reason),
            _ => None,
        });
        assert_eq!(ended, Some(expected), "{result}");
    }
}

#[test]
fn a_login_that_is_needed_is_a_notice_of_its_own() {
    let mut agent = Machine::in_turn();
    agent.hear(json!({"type": "result", "subtype": "success", "is_error": true, "result": "Invalid API key · Please run /login"}));
    assert!(agent.said.iter().any(|said| matches!(
        said,
        Said::Notice {
            code: Code::AgentLoginNeeded,
            ..
        }
    )));
}

#[test]
fn a_session_that_is_unknown_does_not_start() {
    let mut agent = Machine::new(Conversation::Continue("u-0".to_owned()));
    agent.hear(json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "errors": ["No conversation found with session ID: u-0"]}));
    assert!(
        matches!(&agent.said[..], [Said::StartFailed { code: Code::AgentRefused, text }] if text.contains("u-0"))
    );
}

#[test]
fn a_mode_other_than_the_wanted_one_is_set_right_at_the_start() {
    let mut agent = Machine::new(Conversation::New);
    agent.hear(json!({"type": "control_response", "response": {"subtype": "success", "request_id": "farhelm_1", "response": {"current_permission_mode": "auto"}}}));
    assert!(
        agent
            .lines
            .iter()
            .any(|line| line.contains(r#""mode":"default""#)),
        "{:?}",
        agent.lines
    );
}

#[test]
fn todos_are_a_plan() {
    let mut agent = Machine::in_turn();
    let input = json!({"todos": [{"content": "one", "status": "completed"}, {"content": "two", "status": "in_progress"}]});
    agent.hear(json!({"type": "assistant", "message": {"id": "m", "content": [{"type": "tool_use", "id": "t", "name": "TodoWrite", "input": input}]}}));
    assert!(agent.said.iter().any(|said| matches!(said, Said::Plan(entries) if entries.len() == 2 && entries[1].status == "in_progress")));
}

#[test]
fn what_a_subagent_says_carries_its_call() {
    let mut agent = Machine::in_turn();
    agent.hear(json!({"type": "stream_event", "parent_tool_use_id": "task", "event": {"type": "message_start", "message": {"id": "inner"}}}));
    agent.hear(json!({"type": "stream_event", "parent_tool_use_id": null, "event": {"type": "message_start", "message": {"id": "outer"}}}));
    for parent in [Some("task"), None] {
        agent.hear(json!({"type": "stream_event", "parent_tool_use_id": parent, "event": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}}));
    }
    let deltas: Vec<_> = agent
        .said
        .iter()
        .filter_map(|said| match said {
            Said::Delta {
                message,
                parent,
                role: MessageRole::Agent,
                ..
            } => Some((message.as_deref(), parent.as_deref())),
            _ => None,
        })
        .collect();
    assert_eq!(
        deltas,
        [(Some("inner:0"), Some("task")), (Some("outer:0"), None)]
    );
}

#[test]
fn a_write_that_went_over_a_file_shows_both_in_the_end() {
    let mut agent = Machine::in_turn();
    let call = json!({"type": "tool_use", "id": "t", "name": "Write", "input": {"file_path": "/w/a", "content": "new"}});
    agent.hear(json!({"type": "assistant", "message": {"id": "m", "content": [call]}}));
    agent.said.clear();
    let result = json!({"type": "tool_result", "tool_use_id": "t", "content": "ok"});
    agent.hear(json!({"type": "user", "message": {"content": [result]}, "tool_use_result": {"type": "update", "originalFile": "old"}}));
    let expected = vec![Content::Diff {
        path: "/w/a".to_owned(),
        old: Some("old".to_owned()),
        new: "new".to_owned(),
    }];
    assert!(
        matches!(&agent.said[..], [Said::Tool(patch)] if patch.content.as_ref() == Some(&expected) && patch.status == Some(ToolStatus::Completed))
    );
}

#[test]
fn known_noise_is_quiet_and_the_unknown_is_kept() {
    let mut agent = Machine::in_turn();
    for quiet in [
        json!({"type": "keep_alive"}),
        json!({"type": "system", "subtype": "thinking_tokens"}),
        json!({"type": "rate_limit_event"}),
    ] {
        agent.hear(quiet);
    }
    assert_eq!(agent.said, []);
    agent.hear(json!({"type": "hologram", "depth": 3}));
    agent.hear(json!({"type": "system", "subtype": "hologram"}));
    agent.hear(
        json!({"type": "control_request", "request_id": "q", "request": {"subtype": "hologram"}}),
    );
    let kinds: Vec<_> = agent
        .said
        .iter()
        .filter_map(|said| match said {
            Said::Raw { kind, .. } => Some(kind.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        kinds,
        ["hologram", "system/hologram", "control_request/hologram"]
    );
    assert!(
        agent.lines[0].contains(r#""subtype":"error""#),
        "a request is always answered"
    );
}

#[test]
fn odd_shapes_break_nothing() {
    let mut agent = Machine::in_turn();
    for odd in [
        json!({}),
        json!({"type": 7}),
        json!({"type": "assistant"}),
        json!({"type": "assistant", "message": {"content": "text"}}),
        json!({"type": "assistant", "message": {"content": [7, {"type": "tool_use"}, {"type": "hologram"}]}}),
        json!({"type": "user", "message": {"content": [{"type": "tool_result"}, {"type": "tool_result", "tool_use_id": "unheard-of"}]}}),
        json!({"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta"}}}),
        json!({"type": "control_request"}),
        json!({"type": "control_request", "request_id": "q", "request": {"subtype": "can_use_tool"}}),
        json!({"type": "control_response", "response": {"request_id": "unheard-of"}}),
        json!({"type": "control_cancel_request"}),
        json!({"type": "result"}),
        json!({"type": "result"}),
    ] {
        agent.hear(odd);
    }
    let ends = agent
        .said
        .iter()
        .filter(|said| matches!(said, Said::TurnEnded { .. }))
        .count();
    assert_eq!(ends, 1);
}

/// The adapter, and what came out of it.
/// What is asked for in a line that is not whole is neither shown to a person nor done.
#[test]
fn f20_a_request_that_is_not_whole_is_refused_and_that_is_said() {
    let mut agent = Machine::in_turn();
    let request = json!({"subtype": "can_use_tool", "tool_name": "Write", "input": {"file_path": "/w/f", "content": "a stand-in"}, "tool_use_id": "t"});
    let message = json!({"type": "control_request", "request_id": "r", "request": request});
    let message = RawMessage::parse(&message.to_string()).unwrap().cut();
    let steps = agent.adapter.hear(&message);
    agent.take(steps);
    assert!(
        matches!(&agent.said[..], [Said::Notice { code: Code::AgentGarbage, text }] if text.contains("can_use_tool"))
    );
    let sent: Value = serde_json::from_str(&agent.lines[0]).unwrap();
    let response =
        json!({"subtype": "error", "request_id": "r", "error": "the request is too long"});
    assert_eq!(
        sent,
        json!({"type": "control_response", "response": response})
    );
}

struct Machine {
    adapter: Claude,
    said: Vec<Said>,
    lines: Vec<String>,
    files: Vec<(Ticket, FileWork)>,
}

impl Machine {
    fn new(conversation: Conversation) -> Self {
        let setup = Setup::new("/w".to_owned(), conversation, None, "u-1".to_owned());
        let mut machine = Self {
            adapter: Claude::new(setup),
            said: Vec::new(),
            lines: Vec::new(),
            files: Vec::new(),
        };
        let steps = machine.adapter.begin();
        machine.take(steps);
        machine
    }

    fn in_turn() -> Self {
        let mut machine = Self::new(Conversation::New);
        machine.hear(json!({"type": "control_response", "response": {"subtype": "success", "request_id": "farhelm_1", "response": {}}}));
        machine.obey(Order::Prompt {
            id: "p".to_owned(),
            text: "do it".to_owned(),
        });
        machine.said.clear();
        machine.lines.clear();
        machine
    }

    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Say(said) => self.said.push(said),
                Step::Send(line) => self.lines.push(line.get().to_owned()),
                Step::File { ticket, work } => self.files.push((ticket, work)),
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

    fn obey(&mut self, order: Order) {
        let steps = self.adapter.obey(order);
        self.take(steps);
    }

    fn filed(&mut self, ticket: u64, outcome: Result<String, FileError>) {
        let steps = self.adapter.filed(Ticket(ticket), outcome);
        self.take(steps);
    }

    fn request(&mut self, tool: &str, input: Value, suggestions: Value) {
        let request = json!({"subtype": "can_use_tool", "tool_name": tool, "input": input, "permission_suggestions": suggestions, "tool_use_id": "t"});
        self.hear(json!({"type": "control_request", "request_id": "r", "request": request}));
    }

    fn permission(&mut self, tool: &str, input: Value, suggestions: Value) -> (String, Ask) {
        self.request(tool, input, suggestions);
        self.asked()
    }

    fn asked(&mut self) -> (String, Ask) {
        match self.said.pop() {
            Some(Said::Asks { request, ask }) => (request, ask),
            other => panic!("{other:?}"),
        }
    }

    fn select(
        &mut self,
        (request, ask): (String, Ask),
        option: &str,
        allows: bool,
        reason: Option<&str>,
    ) {
        let verdict = Verdict::Selected {
            option: option.to_owned(),
            allows,
            reason: reason.map(str::to_owned),
        };
        self.obey(Order::Answer {
            request,
            ask,
            verdict,
        });
    }

    /// The newest answer to a request of the agent.
    fn response(&self) -> Value {
        let mut line: Value = serde_json::from_str(self.lines.last().unwrap()).unwrap();
        line["response"]["response"].take()
    }
}
