//! Stories: scripts of inputs, and the events that come of them.

#![expect(clippy::unwrap_used, reason = "a story that cannot be told has failed")]

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, Choice, ChoiceKind, Subject, Verdict, digest};
use farhelm_core::command::{Command, Rejection};
use farhelm_core::content::{ToolPatch, ToolStatus};
use farhelm_core::event::{
    Activity, AgentCommand, Author, ConfigChoice, ConfigOption, Event, Mode, PlanEntry, StopReason,
};
use farhelm_core::session::{Effect, Input, Session};
use farhelm_proto::{ApprovalId, Code, CommandId, SessionId, Timestamp};

/// A session under test, with everything that came of what it was told.
struct Story {
    session: Session,
    events: Vec<(Option<CommandId>, Event)>,
    log: Vec<String>,
    effects: Vec<Effect>,
    drawn: u8,
    wishes: u8,
}

impl Story {
    fn begin() -> Self {
        let mut story = Self {
            session: Session::default(),
            events: Vec::new(),
            log: Vec::new(),
            effects: Vec::new(),
            drawn: 0,
            wishes: 0,
        };
        story.take(
            None,
            &Event::SessionOpened {
                title: "demo".into(),
                dir: "/demo".into(),
                branch: None,
                agent: "scripted".into(),
            },
        );
        story.tell(Input::Said(Said::Started {
            agent_session: Some("a1".into()),
            name: "scripted".into(),
            version: None,
            dialect: "acp",
            resumed: false,
        }));
        story
    }

    fn try_tell(&mut self, cause: Option<CommandId>, input: Input) -> Result<(), Rejection> {
        let drawn = &mut self.drawn;
        let events = self.session.decide(Timestamp(1_000), input, &mut || {
            *drawn += 1;
            [*drawn; 10]
        })?;
        for event in events {
            self.take(cause, &event);
        }
        Ok(())
    }

    fn tell(&mut self, input: Input) {
        self.try_tell(None, input).unwrap();
    }

    fn wish(&mut self, command: Command) -> Result<(), Rejection> {
        self.wishes += 1;
        let cause = CommandId::from_bytes([self.wishes; 16]);
        let by = Author::Local;
        self.try_tell(Some(cause), Input::Wish { command, by })
    }

    fn take(&mut self, cause: Option<CommandId>, event: &Event) {
        self.effects.extend(self.session.effects(event));
        self.session.apply(cause, event);
        self.events.push((cause, event.clone()));
        let value = serde_json::to_value(event).unwrap();
        self.log.push(value["type"].as_str().unwrap().to_owned());
    }

    fn prompt(&mut self, text: &str) {
        self.wish(Command::Prompt {
            session: session(),
            text: text.into(),
        })
        .unwrap();
    }

    fn ask(&mut self) -> (ApprovalId, String) {
        self.tell(Input::Said(Said::Asks {
            request: "0".into(),
            ask: ask(),
        }));
        let (approval, open) = self.session.approvals.last_key_value().unwrap();
        (*approval, digest(&open.ask))
    }

    fn decide(
        &mut self,
        approval: ApprovalId,
        digest: &str,
        option: &str,
    ) -> Result<(), Rejection> {
        let verdict = Verdict::Selected {
            option: option.into(),
            allows: true,
            reason: None,
        };
        self.wish(Command::DecideApproval {
            session: session(),
            approval,
            digest: digest.into(),
            verdict,
        })
    }
}

#[test]
fn a_prompt_is_worked_on_and_ends() {
    let mut story = Story::begin();
    story.prompt("hello");
    assert_eq!(story.session.activity(), Activity::Running);
    story.tell(Input::Said(Said::TurnEnded {
        reason: StopReason::EndTurn,
        detail: None,
    }));
    insta::assert_snapshot!(story.log.join(" "), @"session_opened agent_started prompt_queued title_changed turn_started turn_ended");
    assert_eq!(story.session.activity(), Activity::Idle);
}

#[test]
fn a_session_is_called_after_its_first_prompt_unless_somebody_named_it() {
    let mut story = Story::begin();
    story.prompt(
        "fix the light that blinks too often at night, and then tell me all about it\nplease",
    );
    assert_eq!(
        story.session.title,
        "fix the light that blinks too often at night, and then tell…"
    );
    story
        .wish(Command::Rename {
            session: session(),
            title: "lights".into(),
        })
        .unwrap();
    story.prompt("and now the bell");
    assert_eq!(story.session.title, "lights");
}

#[test]
fn a_subagents_question_outlives_the_turn_that_started_it() {
    let mut story = Story::begin();
    story.prompt("hello");
    story.ask();
    let ask = Ask {
        parent: Some("task".into()),
        ..ask()
    };
    story.tell(Input::Said(Said::Asks {
        request: "1".into(),
        ask,
    }));
    story.tell(Input::Said(Said::TurnEnded {
        reason: StopReason::EndTurn,
        detail: None,
    }));
    assert_eq!(story.session.pending(), 1);
}

#[test]
fn a_prompt_in_the_middle_of_a_turn_waits_for_its_end() {
    let mut story = Story::begin();
    story.prompt("one");
    story.prompt("two");
    assert_eq!(story.session.queue.len(), 1);
    story.tell(Input::Said(Said::TurnEnded {
        reason: StopReason::EndTurn,
        detail: None,
    }));
    assert_eq!(story.session.queue.len(), 0);
    let prompts = story
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Order(Order::Prompt { .. })));
    assert_eq!(prompts.count(), 2);
}

#[test]
fn an_approval_is_requested_decided_and_applied() {
    let mut story = Story::begin();
    story.prompt("hello");
    let (approval, digest) = story.ask();
    assert_eq!(story.session.activity(), Activity::RequiresAction);
    story.decide(approval, &digest, "yes").unwrap();
    story.tell(Input::Answered(approval));
    insta::assert_snapshot!(
        story.log.join(" "),
        @"session_opened agent_started prompt_queued title_changed turn_started approval_requested approval_decided approval_applied"
    );
    assert!(story.session.approvals.is_empty());
}

#[test]
fn f26_second_device_to_answer_is_told_it_was_late() {
    let mut story = Story::begin();
    story.prompt("hello");
    let (approval, digest) = story.ask();
    story.decide(approval, &digest, "yes").unwrap();
    let late = story.decide(approval, &digest, "no").unwrap_err();
    assert_eq!(late.code, Code::ApprovalNotPending);
}

#[test]
fn s23_a_decision_about_something_else_than_was_shown_is_refused() {
    let mut story = Story::begin();
    story.prompt("hello");
    let (approval, _) = story.ask();
    let other = story
        .decide(approval, &digest("something else"), "yes")
        .unwrap_err();
    assert_eq!(other.code, Code::DigestMismatch);
    assert_eq!(story.session.pending(), 1);
}

#[test]
fn s21_a_device_cannot_say_that_a_rejection_allows() {
    let mut story = Story::begin();
    story.prompt("hello");
    let (approval, digest) = story.ask();
    story.decide(approval, &digest, "no").unwrap();
    let open = &story.session.approvals[&approval];
    assert!(matches!(
        open.decided,
        Some(Verdict::Selected { allows: false, .. })
    ));
}

#[test]
fn f02_a_dead_agent_voids_its_questions_and_they_cannot_be_used_later() {
    let mut story = Story::begin();
    story.prompt("hello");
    let (approval, digest) = story.ask();
    story.tell(Input::Exited {
        code: None,
        signal: Some(9),
        stderr: "oh".into(),
    });
    insta::assert_snapshot!(
        story.log[5..].join(" "),
        @"approval_requested approval_decided agent_exited turn_ended"
    );
    assert_eq!(
        story.decide(approval, &digest, "yes").unwrap_err().code,
        Code::ApprovalNotPending
    );
    assert_eq!(story.session.activity(), Activity::AgentGone);
}

#[test]
fn the_next_prompt_resumes_a_dead_agent_by_its_own_session() {
    let mut story = Story::begin();
    story.tell(Input::lost());
    story.prompt("again");
    assert_eq!(
        story.effects.last(),
        Some(&Effect::StartAgent {
            resume: Some("a1".into())
        })
    );
    assert!(story.session.turn.is_none());
}

#[test]
fn f28_stopping_a_turn_answers_every_open_question_and_is_told_when_nothing_runs() {
    let mut story = Story::begin();
    story.prompt("hello");
    story.ask();
    story
        .wish(Command::CancelTurn { session: session() })
        .unwrap();
    let orders = story.effects.iter().filter(|effect| {
        matches!(
            effect,
            Effect::Order(Order::Cancel)
                | Effect::Answer {
                    order: Order::Answer { .. },
                    ..
                }
        )
    });
    assert_eq!(orders.count(), 2);
    story.tell(Input::Said(Said::TurnEnded {
        reason: StopReason::Cancelled,
        detail: None,
    }));
    let nothing = story
        .wish(Command::CancelTurn { session: session() })
        .unwrap_err();
    assert_eq!(nothing.code, Code::NothingRunning);
}

#[test]
fn an_ended_session_takes_no_more_wishes() {
    let mut story = Story::begin();
    story
        .wish(Command::EndSession { session: session() })
        .unwrap();
    assert_eq!(story.effects.last(), Some(&Effect::StopAgent));
    let late = story
        .wish(Command::Prompt {
            session: session(),
            text: "hi".into(),
        })
        .unwrap_err();
    assert_eq!(late.code, Code::SessionEnded);
}

#[test]
fn a_withdrawn_prompt_is_never_worked_on() {
    let mut story = Story::begin();
    story.prompt("one");
    story.prompt("two");
    let prompt = story.session.queue[0].prompt;
    story
        .wish(Command::WithdrawPrompt {
            session: session(),
            prompt,
        })
        .unwrap();
    story.tell(Input::Said(Said::TurnEnded {
        reason: StopReason::EndTurn,
        detail: None,
    }));
    assert!(story.session.turn.is_none());
    let twice = story
        .wish(Command::WithdrawPrompt {
            session: session(),
            prompt,
        })
        .unwrap_err();
    assert_eq!(twice.code, Code::PromptNotQueued);
}

#[test]
fn replaying_the_log_gives_the_same_state() {
    let mut story = Story::begin();
    story.prompt("hello");
    story.ask();
    let text = serde_json::to_string(&Event::Snapshot {
        state: Box::new(story.session.clone()),
    })
    .unwrap();
    let mut replayed = Session::default();
    replayed.apply(None, &serde_json::from_str(&text).unwrap());
    assert_eq!(replayed, story.session);
}

/// A fixture that the web app's twin replays: the events of a long story, and the state after each.
/// `GOLDEN_WRITE=1` writes it anew when the state has grown a field.
#[test]
#[expect(clippy::disallowed_methods, reason = "the fixture is a file")]
fn the_fixture_for_the_twin_is_what_the_story_says() {
    let mut story = long_story();
    let events = std::mem::take(&mut story.events);
    let mut state = Session::default();
    let mut steps = Vec::new();
    for (cause, event) in events {
        state.apply(cause, &event);
        steps.push(
            serde_json::json!({ "cause": cause, "event": event, "state": state, "activity": state.activity() }),
        );
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/story.json");
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&steps).unwrap() + "\n").unwrap();
    }
    let fixture: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(serde_json::Value::from(steps), fixture);
}

/// Every kind of event that changes a session.
fn long_story() -> Story {
    let mut story = Story::begin();
    let mode = |id: &str| Mode {
        id: id.into(),
        name: id.into(),
        description: None,
    };
    let modes = vec![mode("ask"), mode("auto")];
    story.tell(Input::Said(Said::Modes {
        modes,
        current: Some("ask".into()),
    }));
    let choices = vec![ConfigChoice {
        value: "small".into(),
        name: "Small".into(),
    }];
    let option = ConfigOption {
        id: "model".into(),
        name: "Model".into(),
        category: None,
        current: "small".into(),
        choices,
    };
    story.tell(Input::Said(Said::Config(vec![option])));
    let command = AgentCommand {
        name: "review".into(),
        description: "Review".into(),
    };
    story.tell(Input::Said(Said::Commands(vec![command])));
    story.prompt("one");
    story.prompt("two");
    story.prompt("three");
    let (two, three) = (story.session.queue[0].prompt, story.session.queue[1].prompt);
    let (edit, text) = (0, "two and a half".to_owned());
    story
        .wish(Command::EditPrompt {
            session: session(),
            prompt: two,
            revision: edit,
            text,
        })
        .unwrap();
    story
        .wish(Command::MovePrompt {
            session: session(),
            prompt: three,
            before: Some(two),
        })
        .unwrap();
    story.tell(Input::HostRestarted);
    story
        .wish(Command::ResumeAgent { session: session() })
        .unwrap();
    let entry = PlanEntry {
        content: "think".into(),
        status: "pending".into(),
        priority: None,
    };
    story.tell(Input::Said(Said::Plan(vec![entry])));
    let tool = |status| ToolPatch {
        id: "t1".into(),
        title: Some("Run ls".into()),
        status: Some(status),
        ..ToolPatch::default()
    };
    story.tell(Input::Said(Said::Tool(tool(ToolStatus::Pending))));
    let (approval, digest) = story.ask();
    story.decide(approval, &digest, "yes").unwrap();
    story.tell(Input::Answered(approval));
    story.tell(Input::Said(Said::Tool(tool(ToolStatus::Completed))));
    story
        .wish(Command::SetMode {
            session: session(),
            mode: "auto".into(),
        })
        .unwrap();
    story.tell(Input::Said(Said::Mode("auto".into())));
    story.tell(Input::Said(Said::TurnEnded {
        reason: StopReason::EndTurn,
        detail: None,
    }));
    story.ask();
    story.prompt("three");
    story
        .wish(Command::CancelTurn { session: session() })
        .unwrap();
    story.tell(Input::Exited {
        code: None,
        signal: Some(9),
        stderr: "oh".into(),
    });
    story
        .wish(Command::ResumeAgent { session: session() })
        .unwrap();
    story.tell(Input::lost());
    story
        .wish(Command::Rename {
            session: session(),
            title: "named".into(),
        })
        .unwrap();
    let prompt = story.session.queue[0].prompt;
    story
        .wish(Command::WithdrawPrompt {
            session: session(),
            prompt,
        })
        .unwrap();
    let state = Box::new(story.session.clone());
    story.take(None, &Event::Snapshot { state });
    story
        .wish(Command::EndSession { session: session() })
        .unwrap();
    story
}

fn session() -> SessionId {
    SessionId::from_bytes([1; 16])
}

fn ask() -> Ask {
    Ask {
        tool: Some("t1".into()),
        title: "Run ls".into(),
        subject: Subject::Command {
            command: "ls".into(),
            dir: "/demo".into(),
        },
        options: vec![
            Choice {
                id: "yes".into(),
                name: "Yes".into(),
                kind: ChoiceKind::AllowOnce,
            },
            Choice {
                id: "no".into(),
                name: "No".into(),
                kind: ChoiceKind::RejectOnce,
            },
        ],
        description: None,
        parent: None,
    }
}
