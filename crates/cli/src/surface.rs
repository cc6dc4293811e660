//! The terminal surface of `farhelm up`: the conversation in plain lines, prompts and answers from
//! standard input.

use std::collections::{BTreeMap, VecDeque};

use farhelm_core::ask::{Ask, Subject, Verdict, digest};
use farhelm_core::command::{Command, Outcome};
use farhelm_core::event::Event;
use farhelm_core::fleet::Fleet;
use farhelm_core::session::parse_ask;
use farhelm_host::local::{Answers, LocalAnswer, LocalClient, LocalRequest};
use farhelm_proto::{ApprovalId, Code, OfferId, SessionId};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::form;
use crate::output;
use crate::render::{Renderer, option_of, visible};

/// Lines that may wait.
const LINES: usize = 64;

const HELP: &str = "\
type a prompt; when a question waits: y, n, a number, or the words of an answer
/stop  stop the running turn     /end   end the session and its agent
/resume  start the agent again, and go on with what waits
/quit  leave; the session goes on (so does closing this terminal)";

struct Surface {
    local: LocalClient,
    session: SessionId,
    renderer: Renderer,
    questions: VecDeque<(ApprovalId, String, Option<Ask>)>,
    waiting: BTreeMap<OfferId, farhelm_core::fleet::Waiting>,
    ended: bool,
}

/// Shows a session until the person leaves or it ends.
pub(crate) async fn run(local: LocalClient, session: SessionId) -> Result<(), Failure> {
    let mut log = local
        .ask(&LocalRequest::Log {
            session,
            from: 1,
            follow: true,
        })
        .await?;
    let mut fleets = local.ask(&LocalRequest::Fleet { follow: true }).await?;
    let mut lines = read_lines();
    let mut surface = Surface {
        local,
        session,
        renderer: Renderer::default(),
        questions: VecDeque::new(),
        waiting: BTreeMap::new(),
        ended: false,
    };
    output::note(HELP);
    loop {
        tokio::select! {
            answer = log.next() => match answer? {
                Some(answer) => surface.show(answer),
                None => return Err(gone()),
            },
            fleet = next_fleet(&mut fleets) => surface.show_fleet(&*fleet?),
            line = lines.recv() => match line {
                Some(line) => {
                    if !surface.take_line(line.trim()).await? {
                        return Ok(());
                    }
                }
                None => return surface.finish(&mut log).await,
            },
        }
        if surface.ended {
            return Ok(());
        }
    }
}

impl Surface {
    fn show(&mut self, answer: LocalAnswer) {
        match answer {
            LocalAnswer::Record { record } => {
                self.note(&record.event);
                output::print(&self.renderer.record(&record));
            }
            LocalAnswer::Live { live } => output::print(&self.renderer.live(&live)),
            LocalAnswer::CaughtUp {}
            | LocalAnswer::Blob { .. }
            | LocalAnswer::Status(_)
            | LocalAnswer::Outcome { .. }
            | LocalAnswer::Fleet { .. }
            | LocalAnswer::Tunnelled { .. }
            | LocalAnswer::Pulse { .. }
            | LocalAnswer::Answered { .. }
            | LocalAnswer::Done {}
            | LocalAnswer::Failed { .. } => {}
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other event changes what waits for an answer"
    )]
    fn note(&mut self, event: &Event) {
        match event {
            Event::ApprovalRequested { approval, ask, .. } => {
                self.questions
                    .push_back((*approval, ask.clone(), parse_ask(ask)));
            }
            Event::ApprovalDecided { approval, .. } => {
                self.questions.retain(|(id, _, _)| id != approval);
            }
            Event::SessionEnded { .. } => self.ended = true,
            _ => {}
        }
    }

    fn show_fleet(&mut self, fleet: &Fleet) {
        for (offer, waiting) in &fleet.waiting {
            if !self.waiting.contains_key(offer) {
                let name = visible(&waiting.name);
                output::line(&format!(
                    "* {name} wants in and shows {}: is that the code on it? [y/n]",
                    waiting.code
                ));
            }
        }
        for (offer, waiting) in &self.waiting {
            if !fleet.waiting.contains_key(offer) {
                output::line(&format!("* {}: settled", visible(&waiting.name)));
            }
        }
        self.waiting.clone_from(&fleet.waiting);
    }

    /// Acts on a line; false when the person leaves.
    async fn take_line(&self, line: &str) -> Result<bool, Failure> {
        let session = self.session;
        match line {
            "" => {}
            "/quit" | "/q" => return Ok(false),
            "/help" => output::note(HELP),
            "/stop" => self.wish(Command::CancelTurn { session }).await?,
            "/resume" => self.wish(Command::ResumeAgent { session }).await?,
            "/end" => self.wish(Command::EndSession { session }).await?,
            line => {
                if let Some(command) = self.answer(line) {
                    self.wish(command).await?;
                } else {
                    self.wish(Command::Prompt {
                        session,
                        text: line.to_owned(),
                    })
                    .await?;
                }
            }
        }
        Ok(true)
    }

    /// What a line answers: a device that waits, then the oldest question.
    fn answer(&self, line: &str) -> Option<Command> {
        if let Some(offer) = self.waiting.keys().next() {
            match line.to_ascii_lowercase().as_str() {
                "y" | "yes" => {
                    return Some(Command::SettlePairing {
                        offer: *offer,
                        accept: true,
                    });
                }
                "n" | "no" => {
                    return Some(Command::SettlePairing {
                        offer: *offer,
                        accept: false,
                    });
                }
                _ => {}
            }
        }
        let (approval, text, ask) = self.questions.front()?;
        let verdict = verdict_of(ask.as_ref()?, line)?;
        Some(Command::DecideApproval {
            session: self.session,
            approval: *approval,
            digest: digest(text),
            verdict,
        })
    }

    async fn wish(&self, command: Command) -> Result<(), Failure> {
        match self.local.ask_once(&LocalRequest::Wish { command }).await {
            Ok(LocalAnswer::Outcome {
                outcome: Outcome::Refused { rejection },
            }) => {
                output::note(&format!("[{}] {}", rejection.code, rejection.text));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Standard input has ended: show what is still coming of the running turn, then leave.
    async fn finish(&mut self, log: &mut Answers) -> Result<(), Failure> {
        loop {
            let fleet = self
                .local
                .ask_once(&LocalRequest::Fleet { follow: false })
                .await?;
            let LocalAnswer::Fleet { fleet } = fleet else {
                return Ok(());
            };
            let busy = fleet.sessions.get(&self.session).is_some_and(|summary| {
                use farhelm_core::event::Activity::{Running, Starting};
                matches!(summary.state, Starting | Running)
            });
            let wait = std::time::Duration::from_millis(if busy { 1_000 } else { 100 });
            match tokio::time::timeout(wait, log.next()).await {
                Ok(Ok(Some(answer))) => self.show(answer),
                Ok(Ok(None)) => return Err(gone()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if busy => {}
                Err(_) => return Ok(()),
            }
            if self.ended {
                return Ok(());
            }
        }
    }
}

/// The daemon ended before the session did.
pub(crate) fn gone() -> Failure {
    Failure::new(
        Code::NotRunning,
        "the daemon has ended; its sessions are kept, and `farhelm up` starts it again",
    )
}

/// The verdict that a line is on an ask; nothing when it is none.
pub(crate) fn verdict_of(ask: &Ask, line: &str) -> Option<Verdict> {
    if let Subject::Questions { questions } = &ask.subject
        && let [question] = &questions[..]
    {
        let chosen = line
            .parse::<usize>()
            .ok()
            .and_then(|number| question.choices.get(number.checked_sub(1)?));
        let answer = chosen.map_or_else(|| line.to_owned(), |choice| choice.label.clone());
        return Some(Verdict::Answered {
            answers: BTreeMap::from([(question.id.clone(), answer.into())]),
        });
    }
    let choice = option_of(ask, line);
    if let (None, Subject::Form { schema, .. }) = (choice, &ask.subject)
        && let [field] = &form::fields(schema)[..]
    {
        return Some(Verdict::Answered {
            answers: BTreeMap::from([(field.name.clone(), field.value(line))]),
        });
    }
    let choice = choice?;
    Some(Verdict::Selected {
        option: choice.id.clone(),
        allows: choice.kind.allows(),
        reason: None,
    })
}

async fn next_fleet(fleets: &mut Answers) -> Result<Box<Fleet>, Failure> {
    loop {
        match fleets.next().await? {
            Some(LocalAnswer::Fleet { fleet }) => return Ok(fleet),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Reads standard input on a thread of its own, which no runtime waits for.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES);
    let read = move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    // Without the thread there is no input, which is what an ended one looks like.
    drop(
        std::thread::Builder::new()
            .name("stdin".to_owned())
            .spawn(read),
    );
    receiver
}
