//! How far wishes come, told by events; and what two people at once can do to one session.

#![expect(clippy::unwrap_used, reason = "what cannot be told has failed")]

use std::collections::BTreeMap;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, Choice, ChoiceKind, Subject, Verdict, digest};
use farhelm_core::command::{Command, Delivery, Rejection};
use farhelm_core::content::{Content, ToolPatch, ToolStatus};
use farhelm_core::event::{Author, Event, MessageRole, PauseCause, StopReason};
use farhelm_core::session::{Effect, Input, Session, StateVersion};
use farhelm_proto::{ApprovalId, Code, CommandId, PeerId, PromptId, SessionId, Timestamp};

/// A host in small: a session, what became of each command, and how far wishes have come.
#[derive(Default)]
struct Host {
    session: Session,
    outcomes: BTreeMap<CommandId, Result<(), Code>>,
    told: BTreeMap<CommandId, Vec<Delivery>>,
    events: Vec<Event>,
    effects: Vec<Effect>,
    drawn: u32,
}

impl Host {
    fn begin() -> Self {
        let mut host = Self::default();
        host.take(
            None,
            &Event::SessionOpened {
                title: "demo".into(),
                dir: "/demo".into(),
                branch: None,
                agent: "scripted".into(),
            },
        );
        host.started();
        host
    }

    fn take(&mut self, cause: Option<CommandId>, event: &Event) {
        for (id, delivery) in self.session.deliveries(cause, event) {
            self.told.entry(id).or_default().push(delivery);
        }
        self.effects.extend(self.session.effects(event));
        self.session.apply(cause, event);
        self.events.push(event.clone());
    }

    fn decide(&mut self, cause: Option<CommandId>, input: Input) -> Result<(), Rejection> {
        let drawn = &mut self.drawn;
        let events = self.session.decide(Timestamp(1), input, &mut || {
            *drawn += 1;
            let mut fresh = [0; 10];
            fresh[..4].copy_from_slice(&drawn.to_be_bytes());
            fresh
        })?;
        for event in events {
            self.take(cause, &event);
        }
        Ok(())
    }

    /// A command arrives, perhaps not for the first time.
    fn arrives(&mut self, id: CommandId, command: Command, by: Author) -> Result<(), Code> {
        if let Some(earlier) = self.outcomes.get(&id) {
            return *earlier;
        }
        let decided = self.decide(Some(id), Input::Wish { command, by });
        let outcome = decided.map_err(|rejection| rejection.code);
        self.outcomes.insert(id, outcome);
        outcome
    }

    fn wish(&mut self, number: u8, command: Command) -> Result<(), Code> {
        self.arrives(id(number), command, Author::Local)
    }

    fn prompt(&mut self, number: u8) -> PromptId {
        let text = format!("prompt {number}");
        let command = Command::Prompt {
            session: session(),
            text,
        };
        self.wish(number, command).unwrap();
        for event in self.events.iter().rev() {
            if let Event::PromptQueued { prompt, .. } = event {
                return *prompt;
            }
        }
        panic!("a prompt is queued")
    }

    fn says(&mut self, said: Said) {
        self.decide(None, Input::Said(said)).unwrap();
    }

    fn started(&mut self) {
        self.says(Said::Started {
            agent_session: Some("a".into()),
            name: "scripted".into(),
            version: None,
            dialect: "acp",
            resumed: false,
        });
    }

    fn message(&mut self) {
        self.says(Said::Message {
            message: "m".into(),
            role: MessageRole::Agent,
            content: vec![Content::Text { text: "hi".into() }],
            parent: None,
        });
    }

    fn ends(&mut self, reason: StopReason) {
        self.says(Said::TurnEnded {
            reason,
            detail: None,
        });
    }

    fn dies(&mut self) {
        self.decide(None, Input::lost()).unwrap();
    }

    fn asks(&mut self) -> (ApprovalId, String) {
        self.says(Said::Asks {
            request: "0".into(),
            ask: ask(),
        });
        let (approval, open) = self.session.approvals.last_key_value().unwrap();
        (*approval, digest(&open.ask))
    }

    fn told(&self, number: u8) -> &[Delivery] {
        self.told.get(&id(number)).map_or(&[], Vec::as_slice)
    }

    fn prompts_given(&self) -> usize {
        let is_prompt = |effect: &&Effect| matches!(effect, Effect::Order(Order::Prompt { .. }));
        self.effects.iter().filter(is_prompt).count()
    }

    fn pauses(&self) -> Vec<PauseCause> {
        let mut causes = Vec::new();
        for event in &self.events {
            if let Event::QueuePaused { why } = event {
                causes.push(*why);
            }
        }
        causes
    }
}

#[test]
fn a_prompt_is_handed_over_with_its_turn_and_consumed_with_the_first_output() {
    let mut host = Host::begin();
    host.prompt(1);
    host.prompt(2);
    assert_eq!(host.told(1), [Delivery::Waiting, Delivery::Handed]);
    assert_eq!(host.told(2), [Delivery::Waiting]);
    host.message();
    assert_eq!(host.told(1).last(), Some(&Delivery::Consumed));
    host.ends(StopReason::EndTurn);
    assert_eq!(host.told(2), [Delivery::Waiting, Delivery::Handed]);
    host.ends(StopReason::EndTurn);
    assert_eq!(host.told(2).last(), Some(&Delivery::Consumed));
    assert!(host.session.wishes.is_empty(), "nothing is on its way");
}

#[test]
fn a_prompt_whose_agent_died_before_it_said_anything_is_indeterminate_and_not_sent_again() {
    let mut host = Host::begin();
    host.prompt(1);
    host.prompt(2);
    host.dies();
    assert_eq!(host.told(1).last(), Some(&Delivery::Indeterminate));
    assert_eq!(host.told(2), [Delivery::Waiting]);
    host.wish(3, resume()).unwrap();
    host.started();
    assert_eq!(host.told(3).last(), Some(&Delivery::Consumed));
    assert_eq!(
        host.prompts_given(),
        2,
        "the first was given once, the second after it was released"
    );
    assert_eq!(host.told(2).last(), Some(&Delivery::Handed));
}

#[test]
fn a_prompt_that_the_agent_has_begun_stays_consumed_when_it_dies() {
    let mut host = Host::begin();
    host.prompt(1);
    host.message();
    host.dies();
    assert_eq!(host.told(1).last(), Some(&Delivery::Consumed));
}

#[test]
fn an_answer_is_handed_over_when_applied_and_consumed_with_the_progress_of_its_tool_call() {
    let mut host = Host::begin();
    host.prompt(1);
    let (approval, digest) = host.asks();
    host.wish(2, answer(approval, &digest, "yes")).unwrap();
    assert_eq!(host.told(2), [Delivery::Waiting]);
    host.decide(None, Input::Answered(approval)).unwrap();
    assert_eq!(host.told(2).last(), Some(&Delivery::Handed));
    host.message();
    assert_eq!(
        host.told(2).last(),
        Some(&Delivery::Handed),
        "its tool call has not moved"
    );
    host.says(Said::Tool(ToolPatch {
        id: "t1".into(),
        status: Some(ToolStatus::Completed),
        ..ToolPatch::default()
    }));
    assert_eq!(host.told(2).last(), Some(&Delivery::Consumed));
}

#[test]
fn an_answer_whose_agent_died_is_indeterminate_before_and_after_it_was_handed_over() {
    for handed in [false, true] {
        let mut host = Host::begin();
        host.prompt(1);
        let (approval, digest) = host.asks();
        host.wish(2, answer(approval, &digest, "yes")).unwrap();
        if handed {
            host.decide(None, Input::Answered(approval)).unwrap();
        }
        host.dies();
        assert_eq!(host.told(2).last(), Some(&Delivery::Indeterminate));
    }
}

#[test]
fn a_stop_is_consumed_when_the_turn_ends_however_it_ends() {
    for dies in [false, true] {
        let mut host = Host::begin();
        host.prompt(1);
        host.wish(2, stop()).unwrap();
        assert_eq!(host.told(2), [Delivery::Waiting]);
        if dies {
            host.dies();
        } else {
            host.ends(StopReason::Cancelled);
        }
        assert_eq!(host.told(2).last(), Some(&Delivery::Consumed));
    }
}

#[test]
fn a_prompt_that_is_taken_back_or_whose_session_ends_is_void() {
    let mut host = Host::begin();
    host.prompt(1);
    let second = host.prompt(2);
    host.prompt(3);
    let withdraw = Command::WithdrawPrompt {
        session: session(),
        prompt: second,
    };
    host.wish(4, withdraw).unwrap();
    assert_eq!(host.told(2).last(), Some(&Delivery::Void));
    let end = Command::EndSession { session: session() };
    host.wish(5, end).unwrap();
    assert_eq!(host.told(3).last(), Some(&Delivery::Void));
    assert!(host.session.wishes.is_empty());
}

#[test]
fn f28_a_stop_is_had_once_and_beats_the_prompts_that_wait() {
    let mut host = Host::begin();
    host.prompt(1);
    host.prompt(2);
    host.wish(3, stop()).unwrap();
    host.wish(4, stop()).unwrap();
    let stops = host
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Order(Order::Cancel)));
    assert_eq!(stops.count(), 1);
    host.ends(StopReason::Cancelled);
    assert!(host.session.turn.is_none(), "the next prompt is not begun");
    assert_eq!(host.pauses(), [PauseCause::Stopped]);
    assert_eq!(host.session.pause, Some(PauseCause::Stopped));
    host.wish(5, resume()).unwrap();
    assert_eq!(host.prompts_given(), 2);
    assert!(!host.session.paused);
}

#[test]
fn what_waits_when_the_agent_ends_is_paused_and_only_a_persons_word_releases_it() {
    let mut host = Host::begin();
    host.prompt(1);
    host.prompt(2);
    host.dies();
    assert_eq!(host.pauses(), [PauseCause::AgentEnded]);
    host.prompt(3);
    let is_start = |effect: &&Effect| matches!(effect, Effect::StartAgent { .. });
    assert_eq!(
        host.effects.iter().filter(is_start).count(),
        1,
        "another prompt releases nothing by surprise"
    );
    assert_eq!(host.session.queue.len(), 2);
    host.wish(4, resume()).unwrap();
    host.started();
    assert_eq!(host.prompts_given(), 2);
}

#[test]
fn what_waits_when_the_host_is_started_again_is_paused_though_the_agent_lives() {
    let mut host = Host::begin();
    host.prompt(1);
    host.prompt(2);
    host.decide(None, Input::HostRestarted).unwrap();
    host.ends(StopReason::EndTurn);
    assert!(host.session.turn.is_none());
    assert_eq!(host.pauses(), [PauseCause::HostRestarted]);
    host.wish(3, resume()).unwrap();
    assert!(host.session.turn.is_some());
}

#[test]
fn a_prompt_is_edited_by_whoever_saw_its_newest_words() {
    let mut host = Host::begin();
    host.prompt(1);
    let prompt = host.prompt(2);
    let edit = |revision, text: &str| Command::EditPrompt {
        session: session(),
        prompt,
        revision,
        text: text.into(),
    };
    host.wish(3, edit(0, "mine")).unwrap();
    assert_eq!(host.wish(4, edit(0, "yours")), Err(Code::PromptChanged));
    assert_eq!(host.session.queue[0].text, "mine");
    host.wish(5, edit(1, "yours")).unwrap();
    host.ends(StopReason::EndTurn);
    let Some(Effect::Order(Order::Prompt { text, .. })) = host.effects.last() else {
        panic!("the prompt is given")
    };
    assert_eq!(text, "yours");
    assert_eq!(host.wish(6, edit(2, "late")), Err(Code::PromptNotQueued));
}

#[test]
fn a_prompt_is_moved_before_another_or_to_the_end() {
    let mut host = Host::begin();
    host.prompt(1);
    let [a, b, c] = [2, 3, 4].map(|number| host.prompt(number));
    let shift = |prompt, before| Command::MovePrompt {
        session: session(),
        prompt,
        before,
    };
    let order = |host: &Host| {
        let order = host.session.queue.iter().map(|queued| queued.prompt);
        order.collect::<Vec<_>>()
    };
    host.wish(5, shift(c, Some(a))).unwrap();
    assert_eq!(order(&host), [c, a, b]);
    host.wish(6, shift(a, None)).unwrap();
    assert_eq!(order(&host), [c, b, a]);
    host.wish(7, shift(b, Some(b))).unwrap();
    assert_eq!(order(&host), [c, b, a]);
    let gone = PromptId::from_bytes([9; 16]);
    assert_eq!(
        host.wish(8, shift(b, Some(gone))),
        Err(Code::PromptNotQueued)
    );
}

#[test]
fn a_state_says_its_version_and_one_from_before_that_is_read_as_the_first() {
    let state = serde_json::to_value(Session::default()).unwrap();
    assert_eq!(state["version"], 2);
    let mut old = state.as_object().unwrap().clone();
    for newer in ["version", "wishes", "pause"] {
        old.remove(newer);
    }
    let read: Session = serde_json::from_value(old.into()).unwrap();
    assert_eq!(read.version, StateVersion(1));
    let mut after = Session::default();
    let state = Box::new(read);
    after.apply(None, &Event::Snapshot { state });
    assert_eq!(after.version, StateVersion::CURRENT);
    assert!(StateVersion(3).is_unknown());
}

/// Two people answer the same question at the same moment; everything may arrive in any order and
/// several times. Ten thousand tries with a generator of our own, so that each is quick.
#[test]
fn f26_of_two_answers_at_once_exactly_one_has_an_effect_and_both_sides_agree() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let begun = {
        let mut host = Host::begin();
        host.prompt(1);
        host.asks();
        host.session
    };
    let (approval, open) = begun.approvals.first_key_value().unwrap();
    let digest = digest(&open.ask);
    for round in 0..10_000 {
        let mut host = Host {
            session: begun.clone(),
            ..Host::default()
        };
        let answers = [
            (id(10), answer(*approval, &digest, "yes"), device(1)),
            (id(11), answer(*approval, &digest, "no"), device(2)),
        ];
        let mut told = [None, None];
        for _ in 0..2 + chance.below(6) {
            let which = chance.below(2);
            let (id, command, by) = answers[which].clone();
            let answered = host.arrives(id, command, by);
            assert!(
                told[which].is_none_or(|before| before == answered),
                "round {round}: a command has one outcome"
            );
            told[which] = Some(answered);
        }
        for (id, command, by) in answers {
            let last = host.arrives(id, command, by);
            assert_eq!(Some(&last), host.outcomes.get(&id));
        }
        let effects = host.effects.iter();
        let answered = effects.filter(|effect| matches!(effect, Effect::Answer { .. }));
        assert_eq!(answered.count(), 1, "round {round}: one effect");
        let mut outcomes: Vec<_> = host.outcomes.values().collect();
        outcomes.sort();
        assert_eq!(outcomes, [&Ok(()), &Err(Code::ApprovalNotPending)]);
        let decided = host.session.approvals[approval].decided.clone();
        let mut elsewhere = begun.clone();
        for event in &host.events {
            elsewhere.apply(None, event);
        }
        assert_eq!(elsewhere.approvals[approval].decided, decided);
    }
}

/// A generator of numbers that is the same each time: xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

fn id(number: u8) -> CommandId {
    CommandId::from_bytes([number; 16])
}

fn session() -> SessionId {
    SessionId::from_bytes([1; 16])
}

fn device(number: u8) -> Author {
    Author::Device {
        peer: PeerId::from_bytes([number; 16]),
        name: format!("device {number}"),
    }
}

fn stop() -> Command {
    Command::CancelTurn { session: session() }
}

fn resume() -> Command {
    Command::ResumeAgent { session: session() }
}

fn answer(approval: ApprovalId, digest: &str, option: &str) -> Command {
    Command::DecideApproval {
        session: session(),
        approval,
        digest: digest.into(),
        verdict: Verdict::Selected {
            option: option.into(),
            allows: true,
            reason: None,
        },
    }
}

fn ask() -> Ask {
    let choice = |id: &str, kind| Choice {
        id: id.into(),
        name: id.into(),
        kind,
    };
    Ask {
        tool: Some("t1".into()),
        title: "Run ls".into(),
        subject: Subject::Command {
            command: "ls".into(),
            dir: "/demo".into(),
        },
        options: vec![
            choice("yes", ChoiceKind::AllowOnce),
            choice("no", ChoiceKind::RejectOnce),
        ],
        description: None,
        parent: None,
    }
}
