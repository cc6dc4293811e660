//! What must hold after each step, whatever people and the world did. The truth is what the
//! host's journal holds; everything else is compared with it.
//!
//! The numbers are those of DESIGN.md section 10 (D) and of THREATS (I).

use std::collections::BTreeMap;
use std::sync::Arc;

use farhelm_core::ask::{Ask, Verdict, digest};
use farhelm_core::command::{Command, Outcome};
use farhelm_core::event::{Author, Event, HostEvent, Record};
use farhelm_core::fleet::Fleet;
use farhelm_core::roster::Roster;
use farhelm_host::stage::Truth;
use farhelm_link::device::Stage;
use farhelm_proto::{ApprovalId, CommandId, PeerId, PromptId, SessionId, StreamId};

use crate::agent::Page;
use crate::device::{Device, hold};
use crate::host::Host;
use crate::universe::Universe;

/// What is known of a run so far.
pub struct Oracle {
    universe: Arc<Universe>,
    /// What the journal holds.
    pub truth: Truth,
    /// What the host's own log says.
    pub fleet: Fleet,
    /// Who belongs.
    pub roster: Option<Roster>,
    host_seen: usize,
    seen: BTreeMap<StreamId, usize>,
    /// Sessions in the order in which they appeared.
    pub sessions: Vec<SessionId>,
    causes: BTreeMap<CommandId, Cause>,
    approvals: BTreeMap<ApprovalId, Question>,
    prompts: BTreeMap<PromptId, String>,
    /// Prompts that were handed to an agent, as the log says.
    started: BTreeMap<SessionId, Vec<String>>,
    revoked: BTreeMap<PeerId, Revoked>,
}

/// The events that a command led to.
struct Cause {
    stream: StreamId,
    last: u64,
}

/// A question of an agent.
struct Question {
    session: SessionId,
    digest: String,
    call: String,
    decided: Option<(Author, Verdict)>,
}

/// A device that was removed.
struct Revoked {
    at: u64,
    /// How far the logs were, once it must have been cut off.
    heads: Option<BTreeMap<StreamId, u64>>,
}

impl Oracle {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(universe: &Arc<Universe>) -> Self {
        Self {
            universe: Arc::clone(universe),
            truth: Truth::default(),
            fleet: Fleet::default(),
            roster: None,
            host_seen: 0,
            seen: BTreeMap::new(),
            sessions: Vec::new(),
            causes: BTreeMap::new(),
            approvals: BTreeMap::new(),
            prompts: BTreeMap::new(),
            started: BTreeMap::new(),
            revoked: BTreeMap::new(),
        }
    }

    /// Whether a device belongs to the fleet.
    #[must_use]
    pub fn is_member(&self, peer: PeerId) -> bool {
        let roster = self.roster.as_ref();
        roster.is_some_and(|roster| roster.member(peer).is_some())
    }

    /// What was asked in a session, by the call that it was about, with the option that was chosen.
    #[must_use]
    pub fn calls(&self, session: SessionId) -> BTreeMap<String, Option<String>> {
        let questions = self.approvals.values();
        questions
            .filter(|question| question.session == session)
            .map(|question| {
                let decided = question.decided.as_ref();
                let option = decided.and_then(|(_, verdict)| option_of(verdict));
                (question.call.clone(), option.map(str::to_owned))
            })
            .collect()
    }

    /// Looks at everything.
    pub async fn check(&mut self, host: &Host, devices: &[Device]) {
        let own = host.identity.peer().into();
        if let Err(error) = self.truth.read(&host.journal, own).await {
            self.broken(format!("the journal cannot be read: {error}"));
            return;
        }
        self.take_host_log(host);
        self.take_sessions();
        self.check_ledger(&host.ledger.pages());
        for device in devices {
            self.check_device(device);
        }
        self.note_revoked(devices);
    }

    fn take_host_log(&mut self, host: &Host) {
        let mut news = false;
        for record in &self.truth.host[self.host_seen..] {
            self.fleet.apply(&record.event);
            news |= matches!(record.event, HostEvent::RosterExtended { .. });
            if let Some(cause) = record.cause {
                note_cause(
                    &mut self.causes,
                    &self.universe,
                    cause,
                    host.identity.peer().into(),
                    record.seq,
                );
            }
        }
        self.host_seen = self.truth.host.len();
        if !news {
            return;
        }
        match Roster::verify(&self.fleet.roster, host.identity.public()) {
            Ok(roster) => self.roster = Some(roster),
            Err(error) => self.broken(format!("the roster does not verify: {error}")),
        }
    }

    fn take_sessions(&mut self) {
        let sessions = std::mem::take(&mut self.truth.sessions);
        for (stream, log) in &sessions {
            let seen = self.seen.get(stream).copied().unwrap_or(0);
            let session = SessionId::from_bytes(*stream.as_bytes());
            if seen == 0 && !log.is_empty() {
                self.sessions.push(session);
            }
            for (at, record) in log.iter().enumerate().skip(seen) {
                if record.seq != at as u64 + 1 {
                    self.broken(format!(
                        "D1: the log of {session} has {} where {} should be",
                        record.seq,
                        at + 1
                    ));
                }
                self.take_record(session, *stream, record);
            }
            self.seen.insert(*stream, log.len());
        }
        self.truth.sessions = sessions;
    }

    fn take_record(&mut self, session: SessionId, stream: StreamId, record: &Record) {
        if let Some(cause) = record.cause {
            note_cause(&mut self.causes, &self.universe, cause, stream, record.seq);
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others promise nothing")]
        match &record.event {
            Event::PromptQueued { prompt, text, by } => {
                self.check_author(by, "a prompt");
                if self.prompts.values().any(|known| known == text) {
                    self.broken(format!("I6: a prompt was queued twice: {text}"));
                }
                self.prompts.insert(*prompt, text.clone());
            }
            Event::TurnStarted { prompt, .. } => {
                let text = self.prompts.get(prompt).cloned().unwrap_or_default();
                let started = self.started.entry(session).or_default();
                if started.contains(&text) {
                    self.universe
                        .broken(format!("I6: a prompt was worked on twice: {text}"));
                }
                started.push(text);
            }
            Event::ApprovalRequested { approval, ask, .. } => {
                let call = serde_json::from_str::<Ask>(ask)
                    .ok()
                    .and_then(|ask| ask.tool)
                    .unwrap_or_default();
                let question = Question {
                    session,
                    digest: digest(ask),
                    call: call.clone(),
                    decided: None,
                };
                let twice = self
                    .approvals
                    .values()
                    .any(|known| known.session == session && known.call == call);
                if twice || self.approvals.insert(*approval, question).is_some() {
                    self.broken(format!("D3: the question about {call} was noted twice"));
                }
            }
            Event::ApprovalDecided {
                approval,
                by,
                verdict,
            } => {
                self.check_author(by, "an answer");
                let Some(question) = self.approvals.get_mut(approval) else {
                    self.broken(format!("D3: {approval} was decided and never asked"));
                    return;
                };
                let again = question.decided.is_some();
                question.decided = Some((by.clone(), verdict.clone()));
                if again {
                    self.broken(format!("D3: {approval} was decided twice"));
                }
            }
            _ => {}
        }
    }

    /// Whoever has an effect belongs to the fleet.
    fn check_author(&self, by: &Author, what: &str) {
        let Author::Device { peer, name } = by else {
            return;
        };
        let revoked = self.revoked.get(peer).is_some_and(|revoked| {
            // What had arrived before may still be on its way through the host.
            self.universe.passed() > revoked.at + GRACE
        });
        if revoked
            || self
                .roster
                .as_ref()
                .is_none_or(|roster| roster.anybody(*peer).is_none())
        {
            self.broken(format!("D4: {name}, which does not belong, gave {what}"));
        }
    }

    /// What agents said and were told is in the log, and was there first.
    fn check_ledger(&self, pages: &BTreeMap<SessionId, Page>) {
        for (session, page) in pages {
            let started = self.started.get(session);
            for prompt in &page.prompts {
                if !started.is_some_and(|started| started.contains(prompt)) {
                    self.broken(format!(
                        "I2: the agent was told what is not in the log: {prompt}"
                    ));
                }
            }
            for (call, option) in &page.answered {
                let question = self
                    .approvals
                    .values()
                    .find(|known| known.session == *session && known.call == *call);
                let verdict = question.and_then(|question| question.decided.as_ref());
                let chosen = match verdict {
                    Some((_, Verdict::Selected { option, .. })) => Some(option),
                    Some((_, Verdict::Answered { .. } | Verdict::Void { .. })) | None => None,
                };
                if chosen != option.as_ref() || (option.is_some() && verdict.is_none()) {
                    self.broken(format!(
                        "I8: the agent was answered {option:?} about {call}, and the log says {verdict:?}"
                    ));
                }
            }
        }
    }

    fn check_device(&self, device: &Device) {
        let name = &device.machine.name;
        let mut shown = hold(&device.shown);
        for (session, open) in &mut shown.sessions {
            let stream = StreamId::from(*session);
            let log = self
                .truth
                .sessions
                .get(&stream)
                .map_or(&[][..], Vec::as_slice);
            for (at, record) in open.records.iter().enumerate().skip(open.checked) {
                match log.get(at) {
                    Some(truth) if truth == record => {}
                    Some(_) => self.broken(format!(
                        "I4: {name} shows another event {} of {session} than the host wrote",
                        record.seq
                    )),
                    None => self.broken(format!(
                        "I2: {name} was shown event {} of {session} before the host had it",
                        record.seq
                    )),
                }
            }
            open.checked = open.records.len();
            let revoked = self.revoked.get(&device.peer);
            let allowed = revoked.and_then(|revoked| revoked.heads.as_ref());
            let allowed = allowed.map(|heads| heads.get(&stream).copied().unwrap_or(0));
            if allowed.is_some_and(|allowed| open.records.len() as u64 > allowed) {
                self.broken(format!(
                    "I13: {name} was removed and read on, up to event {} of {session}",
                    open.records.len()
                ));
            }
        }
        for (id, wish) in &shown.wishes {
            self.check_wish(name, *id, &wish.command, &wish.stages);
        }
    }

    fn check_wish(&self, name: &str, id: CommandId, command: &Command, stages: &[Stage]) {
        let cause = self.causes.get(&id);
        match stages.last() {
            Some(Stage::Done(Outcome::Applied { stream, seq, .. })) => {
                #[expect(
                    clippy::wildcard_enum_match_arm,
                    reason = "all others leave events of their own"
                )]
                let missing = match command {
                    // These leave no event of their own.
                    Command::OpenPairing {}
                    | Command::SendKeys { .. }
                    | Command::StartSession { .. } => false,
                    // What is being stopped already needs no other event.
                    Command::CancelTurn { .. } if cause.is_none() => false,
                    _ => cause.is_none_or(|cause| cause.stream != *stream || cause.last > *seq),
                };
                if missing {
                    self.broken(format!(
                        "D2: {name} shows {id} as applied with event {seq}, and it was not: {command:?}"
                    ));
                }
            }
            Some(Stage::Done(Outcome::Refused { rejection })) => {
                if cause.is_some() {
                    self.broken(format!(
                        "D2: {name} shows {id} as refused ({}), and it had its effect: {command:?}",
                        rejection.code
                    ));
                }
            }
            Some(_) | None => {}
        }
        if let (
            Some(_),
            Command::DecideApproval {
                approval,
                digest,
                verdict,
                ..
            },
        ) = (cause, command)
        {
            let question = self.approvals.get(approval);
            let same = question.is_some_and(|question| {
                question.digest == *digest
                    && question
                        .decided
                        .as_ref()
                        .is_some_and(|(_, decided)| option_of(decided) == option_of(verdict))
            });
            if !same {
                self.broken(format!("I8: {id} decided something else than was shown"));
            }
        }
    }

    fn note_revoked(&mut self, devices: &[Device]) {
        let now = self.universe.passed();
        let Some(roster) = &self.roster else { return };
        for device in devices {
            let member = roster.anybody(device.peer);
            if member.is_some_and(|member| member.revoked) {
                let revoked = Revoked {
                    at: now,
                    heads: None,
                };
                self.revoked.entry(device.peer).or_insert(revoked);
            }
        }
        let logs = self.truth.sessions.iter();
        let heads: BTreeMap<StreamId, u64> = logs
            .map(|(stream, log)| (*stream, log.len() as u64))
            .collect();
        for revoked in self.revoked.values_mut() {
            if revoked.heads.is_none() && now > revoked.at + GRACE {
                revoked.heads = Some(heads.clone());
            }
        }
    }

    fn broken(&self, promise: String) {
        self.universe.broken(promise);
    }
}

/// Takes note of an event that a command led to; all of them come together.
fn note_cause(
    causes: &mut BTreeMap<CommandId, Cause>,
    universe: &Universe,
    id: CommandId,
    stream: StreamId,
    seq: u64,
) {
    let cause = causes.entry(id).or_insert(Cause {
        stream,
        last: seq - 1,
    });
    if cause.stream != stream || seq != cause.last + 1 {
        universe.broken(format!("D2: command {id} had its effect twice"));
    }
    cause.last = seq;
}

fn option_of(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Selected { option, .. } => Some(option),
        Verdict::Answered { .. } | Verdict::Void { .. } => None,
    }
}

/// How long a removed device may still have an effect or read what was written before, in
/// milliseconds: what had arrived is on its way through the host.
const GRACE: u64 = 2_000;
