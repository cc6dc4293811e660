//! What holds of every session, whatever people and agents do.

use std::collections::BTreeMap;

use farhelm_core::agent::Said;
use farhelm_core::ask::{Ask, Choice, ChoiceKind, Subject, Verdict, digest};
use farhelm_core::command::{Command, Delivery};
use farhelm_core::content::{ToolPatch, ToolStatus};
use farhelm_core::event::{Author, Event, MessageRole, StopReason};
use farhelm_core::session::{Effect, Input, Session};
use farhelm_core::{agent::Order, text};
use farhelm_proto::{ApprovalId, CommandId, SessionId, Timestamp};
use proptest::prelude::*;

/// Something that people or the agent may do at any time.
#[derive(Clone, Debug)]
enum Act {
    Prompt,
    Edit(usize, u32),
    Move(usize, usize),
    Restarted,
    Says,
    Withdraw(usize),
    Cancel,
    Decide {
        which: usize,
        honest: bool,
        allow: bool,
    },
    Answered(usize),
    End,
    Resume,
    Started,
    Asks,
    Withdrawn,
    TurnEnded,
    Tool(ToolStatus),
    Exited,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Prompt),
        1 => (0..4_usize, 0..2_u32).prop_map(|(at, revision)| Act::Edit(at, revision)),
        1 => (0..4_usize, 0..4_usize).prop_map(|(at, before)| Act::Move(at, before)),
        1 => Just(Act::Restarted),
        2 => Just(Act::Says),
        1 => (0..4_usize).prop_map(Act::Withdraw),
        1 => Just(Act::Cancel),
        4 => (0..3_usize, any::<bool>(), any::<bool>())
            .prop_map(|(which, honest, allow)| Act::Decide { which, honest, allow }),
        2 => (0..3_usize).prop_map(Act::Answered),
        1 => Just(Act::Resume),
        3 => Just(Act::Started),
        4 => Just(Act::Asks),
        1 => Just(Act::Withdrawn),
        3 => Just(Act::TurnEnded),
        2 => prop_oneof![Just(ToolStatus::Pending), Just(ToolStatus::Completed)].prop_map(Act::Tool),
        1 => Just(Act::Exited),
        1 => Just(Act::End),
    ]
}

/// What a reference model says about approvals and turns.
#[derive(Default)]
struct Model {
    decisions: BTreeMap<ApprovalId, u32>,
    answers: BTreeMap<ApprovalId, u32>,
    prompted: u32,
    ended_turns: u32,
    turn_is_open: bool,
    /// How far each wish has come.
    deliveries: BTreeMap<CommandId, Delivery>,
    /// Whether a person's word is needed before what waits is worked on.
    is_held: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_session_replays_to_itself_and_decides_each_question_once(acts in prop::collection::vec(act(), 1..60)) {
        let mut session = Session::default();
        let mut log = Vec::new();
        let mut model = Model::default();
        take(&mut session, &mut log, &mut model, vec![Event::SessionOpened {
            title: "t".into(), dir: "/".into(), branch: None, agent: "a".into(),
        }], None);
        let mut drawn = 0_u16;
        for (number, act) in acts.into_iter().enumerate() {
            let input = input(&session, &act);
            let cause = matches!(input, Input::Wish { .. })
                .then(|| CommandId::from_bytes([u8::try_from(number).unwrap(); 16]));
            let decided = session.decide(Timestamp(1), input, &mut || {
                drawn += 1;
                let [a, b] = drawn.to_be_bytes();
                [a, b, 0, 0, 0, 0, 0, 0, 0, 0]
            });
            if let Ok(events) = decided {
                take(&mut session, &mut log, &mut model, events, cause);
            }
            prop_assert!(model.decisions.values().all(|count| *count == 1), "each question is decided once");
            prop_assert!(model.answers.values().all(|count| *count == 1), "and answered once");
            prop_assert!(!session.ended || session.turn.is_none(), "no turn outlives its session");
            prop_assert!(session.turn.is_some() == model.turn_is_open);
            let open = model.deliveries.iter().filter(|(_, delivery)| !delivery.is_final());
            let told: BTreeMap<_, _> = open.map(|(id, delivery)| (*id, *delivery)).collect();
            let known: BTreeMap<_, _> = session.wishes.iter().map(|(id, wish)| (*id, wish.delivery)).collect();
            prop_assert_eq!(told, known, "what is open is what was told");
            prop_assert!(!session.ended || session.wishes.is_empty(), "no wish outlives its session");
        }
        let json = serde_json::to_string(&log).unwrap();
        let read: Vec<(Option<CommandId>, Event)> = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read, &log);
        let mut replayed = Session::default();
        read.iter().for_each(|(cause, event)| replayed.apply(*cause, event));
        prop_assert_eq!(replayed, session);
    }

    #[test]
    fn cutting_text_never_panics_and_never_grows_it(text in "\\PC{0,60}", at in 0..80_usize) {
        prop_assert!(text::head(&text, at).len() <= at);
        prop_assert!(text::tail(&text, at).len() <= at);
    }
}

/// Applies events and holds them against the model.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these three are counted"
)]
fn take(
    session: &mut Session,
    log: &mut Vec<(Option<CommandId>, Event)>,
    model: &mut Model,
    events: Vec<Event>,
    cause: Option<CommandId>,
) {
    for event in events {
        for (id, delivery) in session.deliveries(cause, &event) {
            let before = model.deliveries.insert(id, delivery);
            let is_step = match before {
                None => delivery == Delivery::Waiting,
                Some(Delivery::Waiting) => delivery != Delivery::Waiting,
                Some(Delivery::Handed) => delivery.is_final(),
                Some(_) => false,
            };
            assert!(is_step, "{before:?} -> {delivery:?} by {event:?}");
        }
        for effect in session.effects(&event) {
            if let Effect::Answer { approval, .. } = &effect {
                *model.answers.entry(*approval).or_default() += 1;
            }
            if let Effect::Order(Order::Prompt { .. }) = effect {
                assert!(!model.turn_is_open, "prompts are given one at a time");
                model.prompted += 1;
            }
        }
        match &event {
            Event::ApprovalDecided { approval, .. } => {
                *model.decisions.entry(*approval).or_default() += 1;
            }
            Event::QueuePaused { .. } => model.is_held = true,
            Event::QueueResumed { .. } | Event::AgentRestarting { .. } => model.is_held = false,
            Event::TurnStarted { .. } => {
                assert!(!model.is_held, "what is paused is not begun");
                model.turn_is_open = true;
            }
            Event::TurnEnded { .. } => {
                assert!(model.turn_is_open, "only a running turn ends");
                model.turn_is_open = false;
                model.ended_turns += 1;
            }
            _ => {}
        }
        session.apply(cause, &event);
        if session.queue.is_empty() {
            model.is_held = false;
        }
        log.push((cause, event));
    }
}

fn input(session: &Session, act: &Act) -> Input {
    let id = SessionId::from_bytes([1; 16]);
    let wish = |command| Input::Wish {
        command,
        by: Author::Local,
    };
    let nobody = ApprovalId::from_bytes([9; 16]);
    match act {
        Act::Prompt => wish(Command::Prompt {
            session: id,
            text: "do it".into(),
        }),
        Act::Edit(at, revision) => {
            let queued = session.queue.get(*at).map(|queued| queued.prompt);
            let prompt = queued.unwrap_or_else(|| farhelm_proto::PromptId::from_bytes([9; 16]));
            wish(Command::EditPrompt {
                session: id,
                prompt,
                revision: *revision,
                text: "do that".into(),
            })
        }
        Act::Move(at, before) => {
            let queued = session.queue.get(*at).map(|queued| queued.prompt);
            let prompt = queued.unwrap_or_else(|| farhelm_proto::PromptId::from_bytes([9; 16]));
            wish(Command::MovePrompt {
                session: id,
                prompt,
                before: session.queue.get(*before).map(|queued| queued.prompt),
            })
        }
        Act::Restarted => Input::HostRestarted,
        Act::Says => Input::Said(Said::Message {
            message: "m".into(),
            role: MessageRole::Agent,
            content: Vec::new(),
            parent: None,
        }),
        Act::Withdraw(at) => {
            let queued = session.queue.get(*at).map(|queued| queued.prompt);
            let prompt = queued.unwrap_or_else(|| farhelm_proto::PromptId::from_bytes([9; 16]));
            wish(Command::WithdrawPrompt {
                session: id,
                prompt,
            })
        }
        Act::Cancel => wish(Command::CancelTurn { session: id }),
        Act::Decide {
            which,
            honest,
            allow,
        } => {
            let open = session.approvals.iter().nth(*which);
            let approval = open.map_or(nobody, |(approval, _)| *approval);
            let shown = open
                .filter(|_| *honest)
                .map_or_else(String::new, |(_, open)| digest(&open.ask));
            let option = if *allow { "yes" } else { "no" };
            let verdict = Verdict::Selected {
                option: option.into(),
                allows: *allow,
                reason: None,
            };
            wish(Command::DecideApproval {
                session: id,
                approval,
                digest: shown,
                verdict,
            })
        }
        Act::Answered(which) => Input::Answered(
            session
                .approvals
                .keys()
                .nth(*which)
                .copied()
                .unwrap_or(nobody),
        ),
        Act::End => wish(Command::EndSession { session: id }),
        Act::Resume => wish(Command::ResumeAgent { session: id }),
        Act::Started => Input::Said(Said::Started {
            agent_session: Some("s".into()),
            name: "a".into(),
            version: None,
            dialect: "acp",
            resumed: false,
        }),
        Act::Asks => Input::Said(Said::Asks {
            request: "0".into(),
            ask: ask(),
        }),
        Act::Withdrawn => Input::Said(Said::AskWithdrawn {
            request: "0".into(),
        }),
        Act::TurnEnded => Input::Said(Said::TurnEnded {
            reason: StopReason::EndTurn,
            detail: None,
        }),
        Act::Tool(status) => Input::Said(Said::Tool(ToolPatch {
            id: "t".into(),
            status: Some(*status),
            ..ToolPatch::default()
        })),
        Act::Exited => Input::lost(),
    }
}

fn ask() -> Ask {
    let choice = |id: &str, kind| Choice {
        id: id.into(),
        name: id.into(),
        kind,
    };
    Ask {
        tool: None,
        title: "?".into(),
        subject: Subject::Command {
            command: "ls".into(),
            dir: "/".into(),
        },
        options: vec![
            choice("yes", ChoiceKind::AllowOnce),
            choice("no", ChoiceKind::RejectOnce),
        ],
        description: None,
        parent: None,
    }
}
