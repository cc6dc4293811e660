//! The actor's side of its agent: what it hears, what it tells, and how it comes by a keeper.
//!
//! What the agent said, what that decides, and the lines that the agent is told because of it are
//! one commit. Whatever is to be said to the keeper waits in the batch until that is on the disk.

use farhelm_core::agent::{Order, Said};
use farhelm_core::assemble::Made;
use farhelm_core::session::{Input, Program};
use farhelm_proto::{ApprovalId, Code};
use tokio::sync::OwnedSemaphorePermit;

use super::commit::{Batch, Farewell};
use super::running::{Row, Running, Saved, Start};
use super::{Reached, SessionActor, SessionInput};
use crate::agents::files::{self, FileError};
use crate::agents::{self, AgentError, Conversation, Deed, Interpreter, Launch, Ticket};
use crate::journal::JournalError;
use crate::keeper::{self, End, Heard, Kept};

/// An agent that was started.
#[derive(Debug)]
pub(crate) struct Launched {
    kept: Kept,
    interpreter: Interpreter,
    start: Start,
    permit: OwnedSemaphorePermit,
}

impl SessionActor {
    /// Takes what was heard of the agent.
    pub(super) fn take_heard(&mut self, heard: Heard, batch: &mut Batch) {
        let Some(agent) = &mut self.agent else { return };
        let interpreter = &mut agent.saved.interpreter;
        let deeds = match heard {
            Heard::Line { number, line } => {
                agent.place = number;
                self.vitals.heard_now();
                interpreter.line(&line)
            }
            Heard::Part { text } => {
                self.vitals.heard_now();
                return self.keep_part(&text, batch);
            }
            Heard::LongLine {
                number,
                line,
                strings,
            } => {
                agent.place = number;
                agent.join(strings);
                let deeds = agent.saved.interpreter.long_line(&line);
                self.do_all(deeds, batch);
                return self.drop_unshown(batch);
            }
            Heard::TooLong { number, bytes } => {
                agent.place = number;
                batch.drop_blobs(&std::mem::take(&mut agent.saved.parts));
                interpreter.too_long(bytes)
            }
            Heard::Silent { number } => {
                agent.place = number;
                interpreter.silent()
            }
            Heard::Written { through } => {
                agent.written(through);
                return self.note_given(batch);
            }
            Heard::Ended { number, end } => return self.take_end(number, end, batch),
            Heard::Cut => {
                // Its line will be heard again from its beginning.
                batch.drop_blobs(&std::mem::take(&mut agent.saved.parts));
                self.heard = None;
                self.vitals.keeper_is(false);
                return self.reach();
            }
            Heard::Superseded => {
                self.is_superseded = true;
                return;
            }
        };
        self.do_all(deeds, batch);
    }

    /// A line that was too long to be held has been taken; what nobody shows of it is not kept.
    fn drop_unshown(&mut self, batch: &mut Batch) {
        let Some(agent) = &mut self.agent else { return };
        for long in std::mem::take(&mut agent.longs) {
            if !long.is_shown {
                batch.drop_blobs(&long.blobs);
            }
        }
    }

    /// File work is done.
    pub(super) fn take_filed(
        &mut self,
        ticket: Ticket,
        outcome: Result<String, FileError>,
        batch: &mut Batch,
    ) {
        let Some(agent) = &mut self.agent else { return };
        let deeds = agent.saved.interpreter.filed(ticket, outcome);
        // Not to be heard again with the lines: it must be written down in any case.
        batch.must_be_kept = true;
        self.do_all(deeds, batch);
    }

    /// The agent has not come up in time.
    pub(super) fn take_late(&mut self, batch: &mut Batch) {
        let within = self.shared.start_within;
        let Some(agent) = &mut self.agent else { return };
        agent.until = None;
        let deeds = agent.saved.interpreter.late(within);
        self.do_all(deeds, batch);
    }

    /// Lets the agent leave.
    pub(super) fn dismiss(&mut self, batch: &mut Batch) {
        let Some(agent) = &mut self.agent else { return };
        let deeds = agent.saved.interpreter.dismiss();
        batch.must_be_kept = true;
        self.do_all(deeds, batch);
    }

    /// Gives the agent an order; the number of its last line, if there is one.
    pub(super) fn order(&mut self, order: Order, batch: &mut Batch) -> Option<u64> {
        let Some(agent) = &mut self.agent else {
            tracing::debug!(session = %self.id, "the agent is gone; its end is noted or on its way");
            return None;
        };
        let before = agent.saved.last_line;
        let deeds = agent.saved.interpreter.obey(order);
        self.do_all(deeds, batch);
        let after = self.agent.as_ref()?.saved.last_line;
        (after > before).then_some(after)
    }

    /// Gives the agent an answer; that it has it is noted once its pipe has taken it.
    pub(super) fn answer(&mut self, approval: ApprovalId, order: Order, batch: &mut Batch) {
        match (self.order(order, batch), &mut self.agent) {
            (Some(line), Some(agent)) => agent.saved.answers.push((approval, line)),
            (Some(_) | None, _) => self.decide(Input::Answered(approval), batch),
        }
    }

    fn note_given(&mut self, batch: &mut Batch) {
        let given = self.agent.as_mut().map(Running::given).unwrap_or_default();
        for approval in given {
            self.decide(Input::Answered(approval), batch);
        }
    }

    fn do_all(&mut self, deeds: Vec<Deed>, batch: &mut Batch) {
        for deed in deeds {
            match deed {
                Deed::Say(said) => self.take_said(said, batch),
                Deed::Write(line) => self.write_line(String::from(Box::<str>::from(line)), batch),
                Deed::File { ticket, work } => batch.files.push((ticket, work)),
                Deed::End { at_once } => batch.end = Some(at_once || batch.end == Some(true)),
            }
        }
    }

    fn write_line(&mut self, line: String, batch: &mut Batch) {
        let Some(agent) = &mut self.agent else { return };
        let (number, is_bearable) = agent.write(line.clone());
        batch.lines.push((number, line));
        if !is_bearable {
            let deeds = agent.saved.interpreter.choked();
            self.do_all(deeds, batch);
        }
    }

    fn take_said(&mut self, said: Said, batch: &mut Batch) {
        let Some(agent) = &mut self.agent else { return };
        let said = of_its_start(said, &mut agent.saved.start);
        if let Said::Started { .. } = said {
            agent.until = None;
        }
        for made in agent.saved.assembler.push(said) {
            self.take_made(made, batch);
        }
    }

    fn take_made(&mut self, made: Made, batch: &mut Batch) {
        match made {
            Made::Live(live) => self.gather_live(live),
            Made::Said(said) => self.decide_said(said, batch),
        }
    }

    pub(super) fn decide_said(&mut self, said: Said, batch: &mut Batch) {
        let said = self.shrink(said, batch);
        self.decide(Input::Said(said), batch);
    }

    /// The program has ended.
    fn take_end(&mut self, number: u64, end: End, batch: &mut Batch) {
        let Some(agent) = &mut self.agent else { return };
        agent.place = number;
        for said in agent.saved.interpreter.ended(&end) {
            self.take_said(said, batch);
        }
        self.finish_message(batch);
        let Some(agent) = self.agent.take() else {
            return;
        };
        batch.drop_blobs(&agent.saved.parts);
        self.heard = None;
        self.files.clear();
        self.vitals.agent_is(None);
        self.vitals.keeper_is(false);
        batch.gone = Some(agent.saved.run);
        batch.farewell = Some(Farewell {
            number,
            told: agent.told,
        });
        if agent.saved.start == Start::Forgotten && !self.session.ended {
            batch.start = Some(Conversation::New);
            return;
        }
        let End {
            code,
            signal,
            stderr,
        } = end;
        let exited = Input::Exited {
            code,
            signal,
            stderr,
        };
        self.decide(exited, batch);
    }

    fn finish_message(&mut self, batch: &mut Batch) {
        let made = self
            .agent
            .as_mut()
            .map(|agent| agent.saved.assembler.finish())
            .unwrap_or_default();
        for made in made {
            self.take_made(made, batch);
        }
    }

    /// Its keeper is dead, and so is the agent by now.
    fn take_loss(&mut self, batch: &mut Batch) {
        let text = Code::KeeperLost.sentence().to_owned();
        let notice = Said::Notice {
            code: Code::KeeperLost,
            text,
        };
        self.decide_said(notice, batch);
        let end = End {
            stderr: self.kept_stderr(),
            ..End::default()
        };
        let number = self.agent.as_ref().map_or(0, |agent| agent.place);
        self.take_end(number, end, batch);
    }

    /// The end of what the agent wrote to its standard error, of which nobody else is left to tell.
    fn kept_stderr(&self) -> String {
        let text = std::fs::read(self.stderr_path()).unwrap_or_default();
        let from = text.len().saturating_sub(STDERR);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }

    fn stderr_path(&self) -> std::path::PathBuf {
        self.shared
            .stderr_folder
            .join(format!("{}.stderr", self.id))
    }

    /// Starts the agent's program.
    pub(super) fn start_agent(&self, conversation: Conversation) {
        let start = match conversation {
            Conversation::New => Start::Afresh,
            Conversation::Continue(_) => Start::Resuming,
        };
        let (shared, spec, inputs) = (
            self.shared.clone(),
            self.spec.clone(),
            self.own_inputs.clone(),
        );
        let (session, stderr, stop) = (self.id, self.stderr_path(), self.stop.clone());
        let starting = async move {
            let launched = async {
                let permit = std::sync::Arc::clone(&shared.living)
                    .try_acquire_owned()
                    .map_err(|_| too_many())?;
                let agent = spec.agent.resolve(&shared.agents)?;
                let env = spec.environment.resolve(&spec.dir).await;
                let launch = Launch {
                    conversation,
                    stderr: Some(stderr),
                    ..Launch::new(session, spec.dir.clone(), env)
                };
                let (program, interpreter) = agents::prepare(&agent, launch).await?;
                let kept = shared.keepers.start(program).await?;
                Ok(Box::new(Launched {
                    kept,
                    interpreter,
                    start,
                    permit,
                }))
            };
            // A keeper that is left half-way is found by the next daemon.
            let result = tokio::select! { biased; () = stop.cancelled() => return, result = launched => result };
            fail::point("host.session.before_launched");
            drop(inputs.send(SessionInput::Launched(result)).await);
        };
        self.shared.tasks.spawn("start agent", starting);
    }

    /// The program was started, or could not be.
    pub(super) fn take_launched(
        &mut self,
        launched: Result<Box<Launched>, AgentError>,
        batch: &mut Batch,
    ) {
        match launched {
            Ok(launched) => {
                let Launched {
                    kept,
                    interpreter,
                    start,
                    permit,
                } = *launched;
                let saved = Saved::new(kept.standing.run.clone(), start, interpreter);
                self.begin(kept, saved, Some(permit), batch);
            }
            Err(error) => {
                let failed = Said::StartFailed {
                    code: error.code,
                    text: error.text,
                };
                self.decide_said(failed, batch);
                self.decide(Input::lost(), batch);
            }
        }
    }

    /// A conversation begins.
    fn begin(
        &mut self,
        kept: Kept,
        saved: Saved,
        permit: Option<OwnedSemaphorePermit>,
        batch: &mut Batch,
    ) {
        self.hold(kept, saved, 0, Vec::new(), permit, batch);
        batch.must_be_kept = true;
        let Some(agent) = &mut self.agent else { return };
        let deeds = agent.saved.interpreter.begin();
        self.do_all(deeds, batch);
        self.dismiss_unwanted(batch);
    }

    fn dismiss_unwanted(&mut self, batch: &mut Batch) {
        if self.session.ended || self.shared.ends_agents() {
            self.dismiss(batch);
        }
    }

    fn hold(
        &mut self,
        kept: Kept,
        saved: Saved,
        taken: u64,
        lines: Vec<(u64, String)>,
        permit: Option<OwnedSemaphorePermit>,
        batch: &mut Batch,
    ) {
        let Kept {
            standing,
            told,
            heard,
        } = kept;
        let mut running = Running::new(saved, &standing, told, taken, lines, permit);
        if running.saved.interpreter.is_starting() {
            running.until = Some(tokio::time::Instant::now() + self.shared.start_within);
        }
        batch.greeting = running.greeting(standing.accepted);
        batch.files.extend(running.saved.interpreter.unfinished());
        tracing::debug!(session = %self.id, pid = running.pid, "the session's agent is attached");
        self.acknowledged = taken;
        self.vitals.agent_is(Some(running.pid));
        self.vitals.keeper_is(true);
        self.agent = Some(running);
        self.heard = Some(heard);
    }

    /// Looks for the keeper that the session has, if it has one.
    pub(super) fn reach(&mut self) {
        let keepers = std::sync::Arc::clone(&self.shared.keepers);
        let id = self.id;
        let (found, reached) = tokio::sync::oneshot::channel();
        self.shared.tasks.spawn("reach agent", async move {
            drop(found.send(keepers.attach(id).await));
        });
        self.reaching = Some(reached);
    }

    /// Takes up what was found: this run goes on, or an earlier daemon's, or there is none.
    pub(super) async fn take_reached(
        &mut self,
        reached: Reached,
        batch: &mut Batch,
    ) -> Result<(), JournalError> {
        match reached {
            Ok(Some(kept)) => self.take_up(kept, batch).await?,
            Ok(None) if self.agent.is_some() => self.take_loss(batch),
            Ok(None) => self.do_without(batch).await?,
            Err(error) if error.code == Code::Superseded => {
                tracing::warn!(session = %self.id, %error, "the session is left alone");
                self.is_superseded = true;
            }
            Err(error) if error.code == Code::UnsupportedVersion => {
                self.note_foreign(error.text, batch);
                match self.agent {
                    Some(_) => self.take_loss(batch),
                    None => self.do_without(batch).await?,
                }
            }
            Err(_) if self.shared.ends_agents() => {}
            Err(error) => {
                tracing::warn!(session = %self.id, %error, "the session waits for its agent's keeper");
                self.vitals.keeper_is(false);
                tokio::time::sleep(REACH_AGAIN).await;
                self.reach();
            }
        }
        Ok(())
    }

    async fn take_up(&mut self, kept: Kept, batch: &mut Batch) -> Result<(), JournalError> {
        let standing = &kept.standing;
        if let Some(agent) = &mut self.agent
            && agent.saved.run == standing.run
        {
            // It was only out of sight.
            agent.written(standing.written);
            agent.told = kept.told;
            batch.greeting = agent.greeting(standing.accepted);
            self.heard = Some(kept.heard);
            self.vitals.keeper_is(true);
            self.note_given(batch);
            return Ok(());
        }
        let row = self.shared.journal.agent(self.id).await?;
        let taken = row.as_ref().map_or(0, |(taken, _)| *taken);
        let row = row.and_then(|(_, text)| serde_json::from_str::<Row<Saved>>(&text).ok());
        let permit = std::sync::Arc::clone(&self.shared.living)
            .try_acquire_owned()
            .ok();
        match row {
            // Never said before it was on the disk: what the journal does not have of it is lost.
            Some(Row::Running(saved))
                if saved.run == standing.run
                    && (standing.acknowledged > taken || standing.accepted > saved.last_line) =>
            {
                tracing::error!(session = %self.id, "the journal has less of the agent's run than its keeper was told");
                let (code, text) = (Code::HistoryDamaged, RUN_LOST.to_owned());
                self.decide_said(Said::Notice { code, text }, batch);
                keeper::put_away(kept).await;
                self.do_without(batch).await?;
            }
            Some(Row::Running(mut saved)) if saved.run == standing.run => {
                batch.drop_blobs(&std::mem::take(&mut saved.parts));
                let lines = self.shared.journal.agent_lines(self.id).await?;
                self.hold(kept, saved, taken, lines, permit, batch);
                self.note_given(batch);
                self.decide(Input::HostRestarted, batch);
                self.dismiss_unwanted(batch);
            }
            // It was started, and the daemon went before that was noted.
            Some(Row::Gone(ref run)) if *run == standing.run => {
                keeper::put_away(kept).await;
                self.do_without(batch).await?;
            }
            Some(Row::Running(_) | Row::Gone(_)) | None => {
                let is_wanted = matches!(self.session.program, Program::Starting { .. })
                    && standing.acknowledged == 0
                    && standing.accepted == 0;
                match serde_json::from_str(&standing.note) {
                    Ok(interpreter) if is_wanted => {
                        let start = match self.session.agent_session() {
                            Some(_) => Start::Resuming,
                            None => Start::Afresh,
                        };
                        let saved = Saved::new(standing.run.clone(), start, interpreter);
                        self.begin(kept, saved, permit, batch);
                    }
                    Ok(_) | Err(_) => {
                        tracing::error!(session = %self.id, "an agent that nobody can take up is ended");
                        keeper::put_away(kept).await;
                        self.do_without(batch).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// There is no keeper. What ran is gone; what was only to be started is started.
    async fn do_without(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        if self.session.ended {
            return Ok(());
        }
        let row = match self.shared.journal.agent(self.id).await? {
            Some((_, text)) => {
                let row = serde_json::from_str::<Row<Saved>>(&text).ok();
                if row.is_none() && matches!(self.session.program, Program::Up { .. }) {
                    self.note_foreign(UNREADABLE.to_owned(), batch);
                }
                row
            }
            None => None,
        };
        self.vitals.keeper_is(false);
        match (row, &self.session.program) {
            (Some(Row::Gone(_)) | None, Program::Starting { agent_session }) => {
                batch.start = Some(conversation(agent_session.clone()));
            }
            (Some(Row::Running(mut saved)), Program::Starting { .. } | Program::Up { .. }) => {
                // What it was in the middle of saying is all that there will ever be of it.
                for made in saved.assembler.finish() {
                    self.take_made(made, batch);
                }
                batch.drop_blobs(&saved.parts);
                batch.gone = Some(saved.run);
                self.note_lost(batch);
            }
            (Some(Row::Gone(_)) | None, Program::Up { .. }) => self.note_lost(batch),
            (Some(Row::Running(_) | Row::Gone(_)) | None, Program::Gone { .. }) => {}
        }
        Ok(())
    }

    /// Says that a run is over because another version of farhelm began it.
    fn note_foreign(&mut self, text: String, batch: &mut Batch) {
        tracing::warn!(session = %self.id, "the session's agent was another version's");
        if !self.session.ended {
            let code = Code::UnsupportedVersion;
            self.decide_said(Said::Notice { code, text }, batch);
        }
    }

    fn note_lost(&mut self, batch: &mut Batch) {
        let stderr = self.kept_stderr();
        let exited = Input::Exited {
            code: None,
            signal: None,
            stderr,
        };
        self.decide(exited, batch);
        // Nobody is left to be told.
        batch.start = None;
    }

    /// Touches a file for the agent; the next when that is done.
    pub(super) fn begin_filing(&mut self) {
        if self.filing.is_some() {
            return;
        }
        let Some((ticket, work)) = self.files.pop_front() else {
            return;
        };
        let dir = self.spec.dir.clone();
        let (told, done) = tokio::sync::oneshot::channel();
        self.shared.tasks.spawn("file work", async move {
            fail::point("host.session.before_file_work");
            let done = farhelm_world::blocking(move || files::perform(&dir, &work)).await;
            fail::point("host.session.after_file_work");
            let outcome = done.unwrap_or_else(|error| Err(FileError::Failed(error.to_string())));
            drop(told.send((ticket, outcome)));
        });
        self.filing = Some(done);
    }
}

/// What is special about the start of a program: one that does not know its conversation any more
/// will be started anew.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "nothing else is special here"
)]
fn of_its_start(said: Said, start: &mut Start) -> Said {
    match said {
        Said::Started { .. } => {
            *start = Start::Afresh;
            said
        }
        Said::StartFailed {
            code: Code::AgentRefused,
            text,
        } if *start == Start::Resuming => {
            *start = Start::Forgotten;
            let text = format!(
                "the agent could not go on with its conversation, so a new one begins: {text}"
            );
            Said::Notice {
                code: Code::AgentRefused,
                text,
            }
        }
        other => other,
    }
}

/// The conversation by the agent's name for it, if it has one.
pub(super) fn conversation(name: Option<String>) -> Conversation {
    name.map_or(Conversation::New, Conversation::Continue)
}

pub(crate) fn too_many() -> AgentError {
    AgentError::new(Code::TooManyAgents, Code::TooManyAgents.sentence())
}

/// What is said of a run that cannot be taken up.
const UNREADABLE: &str = "what is kept of the agent's run was written by another version of farhelm, so the run is \
                          over; `farhelm resume` starts the agent again with its conversation";
/// What is said of a run of which the journal has lost the newest part.
const RUN_LOST: &str = "the host's journal has lost what the agent said and was told last, so the run is over; \
                        `farhelm resume` starts the agent again with its conversation";
/// How long it is waited before a keeper that does not answer is looked for again.
const REACH_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
/// How much of a kept standard error is shown.
const STDERR: usize = 4 << 10;
