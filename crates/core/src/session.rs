//! A session: one conversation with one agent. What it decides about a wish or about something
//! its agent said, and what it becomes by an event.
//!
//! [`Session::decide`] changes nothing; [`Session::apply`] decides nothing. Hosts and devices
//! share `apply`; only the host calls `decide`. What a shell must do follows from each event by
//! [`Session::effects`].

use std::collections::BTreeMap;

use farhelm_proto::{ApprovalId, Code, CommandId, PromptId, Timestamp, TurnId};
use serde::{Deserialize, Serialize};

use crate::agent::{Order, Said};
use crate::ask::{Ask, Verdict};
use crate::command::{Command, Rejection};
use crate::content::ToolPatch;
use crate::event::{
    Activity, AgentCommand, Author, ConfigOption, Event, Mode, PauseCause, PlanEntry, StopReason,
};

mod approvals;
mod decide;
pub(crate) mod delivery;
mod effects;
mod queue;

pub use delivery::{Aim, Delivery, Wish};

/// Prompts that may wait in one session.
pub const MAX_QUEUE: usize = 64;

/// What a state is written as. A reader that does not know a version says so and does not guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateVersion(pub u32);

impl StateVersion {
    /// The version that this program writes and the newest that it reads.
    pub const CURRENT: Self = Self(2);

    /// What states had before they said it.
    pub(crate) const fn first() -> Self {
        Self(1)
    }

    /// Whether a later program wrote the state.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        self > Self::CURRENT
    }
}

impl Default for StateVersion {
    fn default() -> Self {
        Self::CURRENT
    }
}

/// The open state of a session: all that a late reader must know to go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Session {
    /// What the state is written as.
    #[serde(default = "StateVersion::first")]
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub version: StateVersion,
    /// What people call it.
    pub title: String,
    /// Whether somebody gave it that title; until then it is the folder's name.
    #[serde(default)]
    pub titled: bool,
    /// The folder it works in.
    pub dir: String,
    /// The git branch of that folder.
    pub branch: Option<String>,
    /// The name of the agent's entry.
    pub agent: String,
    /// The agent's program.
    pub program: Program,
    /// The modes the agent offers.
    pub modes: Vec<Mode>,
    /// The mode in force.
    pub mode: Option<String>,
    /// The settings the agent offers.
    pub config: Vec<ConfigOption>,
    /// The slash commands the agent offers.
    pub commands: Vec<AgentCommand>,
    /// Prompts that wait.
    pub queue: Vec<Queued>,
    /// Whether the queue waits for a person to say that it goes on.
    pub paused: bool,
    /// Why it does.
    #[serde(default)]
    pub pause: Option<PauseCause>,
    /// The turn that runs.
    pub turn: Option<Turn>,
    /// Questions that are not settled.
    pub approvals: BTreeMap<ApprovalId, Approval>,
    /// The agent's plan.
    pub plan: Vec<PlanEntry>,
    /// Tool calls that have not ended, without what they show.
    pub tools: BTreeMap<String, ToolPatch>,
    /// Wishes for the agent that it is not known to have taken.
    #[serde(default)]
    pub wishes: BTreeMap<CommandId, Wish>,
    /// Whether it is over.
    pub ended: bool,
}

/// The agent's program, as far as the log knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Program {
    /// It is being started.
    Starting {
        /// Its own name for the conversation that it is to resume.
        agent_session: Option<String>,
    },
    /// It has answered.
    Up {
        /// Its own name for the conversation.
        agent_session: Option<String>,
    },
    /// It has ended; the next prompt starts it again.
    Gone {
        /// Its own name for the conversation, for resuming.
        agent_session: Option<String>,
    },
}

impl Default for Program {
    fn default() -> Self {
        Self::Starting {
            agent_session: None,
        }
    }
}

/// A prompt that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Queued {
    /// Its id.
    pub prompt: PromptId,
    /// The text.
    pub text: String,
    /// Who wrote it.
    pub by: Author,
    /// How often it was edited.
    #[serde(default)]
    pub revision: u32,
}

/// The turn that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Turn {
    /// Its id.
    pub turn: TurnId,
    /// The prompt it works on.
    pub prompt: PromptId,
    /// Whether it was asked to stop.
    pub cancelling: bool,
}

/// A question that is not settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Approval {
    /// The adapter's handle.
    pub request: String,
    /// The ask's JSON.
    pub ask: String,
    /// The verdict, when it was decided and the agent has not been told yet.
    pub decided: Option<Verdict>,
}

/// Something a session must decide about.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Somebody wants something.
    Wish {
        /// What.
        command: Command,
        /// Who.
        by: Author,
    },
    /// The agent said something. Deltas do not come here; see [`crate::assemble`].
    Said(Said),
    /// The agent's program ended.
    Exited {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
        /// The end of its standard error.
        stderr: String,
    },
    /// The agent has been given an answer.
    Answered(ApprovalId),
    /// The host was started again and the agent's program was still there.
    HostRestarted,
}

/// Something a shell must do because of an event. Doing it twice does no harm.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start the agent's program, resuming its conversation when it has one.
    StartAgent {
        /// The agent's name for the conversation.
        resume: Option<String>,
    },
    /// Tell the agent.
    Order(Order),
    /// Give the agent an answer, then report [`Input::Answered`].
    Answer {
        /// Which question.
        approval: ApprovalId,
        /// With what.
        order: Order,
    },
    /// End the agent's program.
    StopAgent,
}

impl Session {
    /// Decides what `input` amounts to at `now`; changes nothing. `random` gives fresh bytes for
    /// ids.
    ///
    /// # Errors
    ///
    /// A [`Rejection`] when a wish is not to be. What an agent says is never rejected.
    pub fn decide(
        &self,
        now: Timestamp,
        input: Input,
        random: &mut dyn FnMut() -> [u8; 10],
    ) -> Result<Vec<Event>, Rejection> {
        let mut events = match input {
            Input::Wish { command, by } => self.decide_wish(now, command, by, random)?,
            Input::Said(said) => self.decide_said(now, said, random),
            Input::Exited {
                code,
                signal,
                stderr,
            } => self.decide_exit(code, signal, stderr),
            Input::Answered(approval) if self.approvals.contains_key(&approval) => {
                vec![Event::ApprovalApplied { approval }]
            }
            Input::Answered(_) => Vec::new(),
            Input::HostRestarted => self.pause(PauseCause::HostRestarted).into_iter().collect(),
        };
        if events.iter().any(may_free_the_agent) {
            let mut after = self.clone();
            for event in &events {
                after.apply(None, event);
            }
            events.extend(after.next_turn(now, random));
        }
        Ok(events)
    }

    /// Takes note that `event` happened because of the command `cause`; the only function that
    /// mutates.
    pub fn apply(&mut self, cause: Option<CommandId>, event: &Event) {
        self.note_deliveries(cause, event);
        match event {
            Event::SessionOpened {
                title,
                dir,
                branch,
                agent,
            } => {
                self.title.clone_from(title);
                self.dir.clone_from(dir);
                self.branch.clone_from(branch);
                self.agent.clone_from(agent);
            }
            Event::TitleChanged { title, by: _ } => {
                self.title.clone_from(title);
                self.titled = true;
            }
            Event::AgentStarted { agent_session, .. } => {
                self.program = Program::Up {
                    agent_session: agent_session.clone(),
                };
            }
            Event::AgentExited { .. } => {
                self.program = Program::Gone {
                    agent_session: self.agent_session().map(ToOwned::to_owned),
                };
                self.hold(PauseCause::AgentEnded);
                self.tools.clear();
                // Whom an answer was on its way to is not there any more.
                self.approvals.clear();
            }
            Event::ModesOffered { modes, current } => {
                self.modes.clone_from(modes);
                if current.is_some() {
                    self.mode.clone_from(current);
                }
            }
            Event::ModeChanged { mode, by: _ } => self.mode = Some(mode.clone()),
            Event::ConfigOffered { options } => self.config.clone_from(options),
            Event::CommandsOffered { commands } => self.commands.clone_from(commands),
            Event::PromptQueued { .. }
            | Event::PromptEdited { .. }
            | Event::PromptMoved { .. }
            | Event::PromptWithdrawn { .. }
            | Event::QueuePaused { .. }
            | Event::QueueResumed { .. } => self.apply_to_queue(event),
            Event::AgentRestarting { .. } => {
                self.release();
                self.restart();
            }
            Event::TurnStarted { turn, prompt } => {
                self.queue.retain(|queued| queued.prompt != *prompt);
                self.turn = Some(Turn {
                    turn: *turn,
                    prompt: *prompt,
                    cancelling: false,
                });
            }
            Event::TurnCancelRequested { .. } => {
                if let Some(turn) = &mut self.turn {
                    turn.cancelling = true;
                }
            }
            Event::TurnEnded { .. } => {
                self.turn = None;
                self.tools.clear();
            }
            Event::PlanUpdated { entries } => self.plan.clone_from(entries),
            Event::ToolUpdated { tool } => self.apply_tool(tool),
            Event::ApprovalRequested {
                approval,
                request,
                ask,
            } => {
                let open = Approval {
                    request: request.clone(),
                    ask: ask.clone(),
                    decided: None,
                };
                self.approvals.insert(*approval, open);
            }
            Event::ApprovalDecided {
                approval,
                verdict,
                by: _,
            } => {
                if let Some(open) = self.approvals.get_mut(approval) {
                    open.decided = Some(verdict.clone());
                }
            }
            Event::ApprovalApplied { approval } => {
                self.approvals.remove(approval);
            }
            Event::SessionEnded { .. } => {
                self.ended = true;
                self.queue.clear();
                self.release();
            }
            Event::Snapshot { state } => {
                self.clone_from(state);
                self.version = self.version.max(StateVersion::CURRENT);
            }
            Event::ModeRequested { .. }
            | Event::ConfigRequested { .. }
            | Event::MessageAdded { .. }
            | Event::UsageUpdated { .. }
            | Event::RawNoted { .. }
            | Event::Noticed { .. } => {}
        }
    }

    /// What the session is doing, for a list.
    #[must_use]
    pub fn activity(&self) -> Activity {
        if self.ended {
            return Activity::Ended;
        }
        match (&self.program, &self.turn) {
            (Program::Gone { .. }, _) => Activity::AgentGone,
            (Program::Starting { .. }, _) => Activity::Starting,
            (Program::Up { .. }, _) if self.pending() > 0 => Activity::RequiresAction,
            (Program::Up { .. }, Some(_)) => Activity::Running,
            (Program::Up { .. }, None) => Activity::Idle,
        }
    }

    /// How many questions wait for a person.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.approvals
            .values()
            .filter(|approval| approval.decided.is_none())
            .count()
    }

    /// The agent's own name for the conversation.
    #[must_use]
    pub fn agent_session(&self) -> Option<&str> {
        match &self.program {
            Program::Starting { agent_session }
            | Program::Up { agent_session }
            | Program::Gone { agent_session } => agent_session.as_deref(),
        }
    }

    /// A program that has ended is on its way up again.
    fn restart(&mut self) {
        if let Program::Gone { agent_session } = &mut self.program {
            self.program = Program::Starting {
                agent_session: agent_session.take(),
            };
        }
    }

    fn apply_tool(&mut self, tool: &ToolPatch) {
        let is_final = tool
            .status
            .is_some_and(crate::content::ToolStatus::is_final);
        if is_final {
            self.tools.remove(&tool.id);
            return;
        }
        let open = self.tools.entry(tool.id.clone()).or_default();
        open.id.clone_from(&tool.id);
        open.absorb(&ToolPatch {
            content: None,
            input: None,
            ..tool.clone()
        });
    }
}

/// Reads an ask back; one that this version cannot read is shown by its JSON.
#[must_use]
pub fn parse_ask(ask: &str) -> Option<Ask> {
    serde_json::from_str(ask).ok()
}

const fn may_free_the_agent(event: &Event) -> bool {
    matches!(
        event,
        Event::PromptQueued { .. }
            | Event::QueueResumed { .. }
            | Event::TurnEnded { .. }
            | Event::AgentStarted { .. }
            | Event::AgentRestarting { .. }
    )
}

/// The rejection for a wish about a session that is over.
fn over() -> Rejection {
    Rejection::new(Code::SessionEnded)
}

/// Why a turn ends when the agent's program does.
const DIED: StopReason = StopReason::AgentDied;
