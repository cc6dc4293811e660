//! Wishes, what the agent says, and the end of its program.

use farhelm_proto::{ApprovalId, Code, PromptId, Timestamp, TurnId};

use super::queue::check_text;
use super::{DIED, Event, Input, MAX_QUEUE, Program, Session, over};
use crate::agent::Said;
use crate::command::{Command, Rejection};
use crate::event::{Author, PauseCause, StopReason};
use crate::text::clip;

/// Longest title, in bytes.
const MAX_TITLE: usize = 200;
/// Characters of a first prompt that become a title.
const FIRST_WORDS: usize = 60;
/// Longest raw message that is kept, in bytes.
const MAX_RAW: usize = 8 * 1024;

impl Session {
    pub(super) fn decide_wish(
        &self,
        now: Timestamp,
        command: Command,
        by: Author,
        random: &mut dyn FnMut() -> [u8; 10],
    ) -> Result<Vec<Event>, Rejection> {
        if self.ended {
            return Err(over());
        }
        match command {
            Command::Prompt { session: _, text } => self.decide_prompt(now, text, by, random),
            Command::EditPrompt {
                session: _,
                prompt,
                revision,
                text,
            } => self.decide_edit(prompt, revision, text, by),
            Command::MovePrompt {
                session: _,
                prompt,
                before,
            } => self.decide_move(prompt, before, by),
            Command::WithdrawPrompt { session: _, prompt } => self.decide_withdraw(prompt, by),
            Command::DecideApproval {
                session: _,
                approval,
                digest,
                verdict,
            } => self.decide_approval(approval, &digest, verdict, by),
            Command::CancelTurn { session: _ } => self.decide_cancel(&by),
            Command::SetMode { session: _, mode } => {
                if self.modes.iter().any(|offered| offered.id == mode) {
                    Ok(vec![Event::ModeRequested { mode, by }])
                } else {
                    Err(Rejection::new(Code::UnknownMode))
                }
            }
            Command::SetConfig {
                session: _,
                option,
                value,
            } => {
                let offered = self.config.iter().find(|offered| offered.id == option);
                let known = offered.is_some_and(|offered| {
                    offered.choices.iter().any(|choice| choice.value == value)
                });
                let event = known.then_some(Event::ConfigRequested { option, value, by });
                event
                    .map(|event| vec![event])
                    .ok_or_else(|| Rejection::new(Code::UnknownOption))
            }
            Command::Rename { session: _, title } => {
                let title = clip(title.trim(), MAX_TITLE);
                if title.is_empty() {
                    return Err(Rejection::because(
                        Code::BadCommand,
                        "a title cannot be empty",
                    ));
                }
                Ok(vec![Event::TitleChanged { title, by }])
            }
            Command::ResumeAgent { session: _ } => self.decide_resume(by),
            Command::EndSession { session: _ } => {
                let mut events = self.stop_turn(&by).unwrap_or_default();
                if let Some(turn) = &self.turn {
                    events.push(Event::TurnEnded {
                        turn: turn.turn,
                        reason: StopReason::Cancelled,
                        detail: None,
                    });
                }
                events.push(Event::SessionEnded { by });
                Ok(events)
            }
            Command::StartSession { .. }
            | Command::OpenPairing {}
            | Command::SettlePairing { .. }
            | Command::RevokeDevice { .. }
            | Command::Recall { .. }
            | Command::SendKeys { .. } => Err(Rejection::because(
                Code::BadCommand,
                "not a wish to a session",
            )),
        }
    }

    pub(super) fn decide_said(
        &self,
        now: Timestamp,
        said: Said,
        random: &mut dyn FnMut() -> [u8; 10],
    ) -> Vec<Event> {
        match said {
            Said::Started {
                agent_session,
                name,
                version,
                dialect,
                resumed,
            } => {
                let dialect = dialect.to_owned();
                vec![Event::AgentStarted {
                    agent_session,
                    name,
                    version,
                    dialect,
                    resumed,
                }]
            }
            Said::StartFailed { code, text } | Said::Notice { code, text } => {
                vec![Event::Noticed {
                    code,
                    text: clip(&text, MAX_RAW),
                }]
            }
            Said::Modes { modes, current } => vec![Event::ModesOffered { modes, current }],
            Said::Mode(mode) if self.mode.as_deref() == Some(&mode) => Vec::new(),
            Said::Mode(mode) => vec![Event::ModeChanged {
                mode,
                by: Author::Agent,
            }],
            Said::Config(options) if self.config == options => Vec::new(),
            Said::Config(options) => vec![Event::ConfigOffered { options }],
            Said::Commands(commands) if self.commands == commands => Vec::new(),
            Said::Commands(commands) => vec![Event::CommandsOffered { commands }],
            Said::Message {
                message,
                role,
                content,
                parent,
            } => {
                vec![Event::MessageAdded {
                    message,
                    role,
                    content,
                    parent,
                }]
            }
            Said::Plan(entries) => vec![Event::PlanUpdated { entries }],
            Said::Tool(tool) => vec![Event::ToolUpdated { tool }],
            Said::Asks { request, ask } => {
                let ask = serde_json::to_string(&ask).unwrap_or_default();
                let approval = ApprovalId::fresh(now, random());
                vec![Event::ApprovalRequested {
                    approval,
                    request,
                    ask,
                }]
            }
            Said::AskWithdrawn { request } => self.withdraw_asks(&request),
            Said::TurnEnded { reason, detail } => self.decide_turn_end(reason, detail),
            Said::Usage {
                used,
                size,
                cost,
                currency,
            } => {
                vec![Event::UsageUpdated {
                    used,
                    size,
                    cost,
                    currency,
                }]
            }
            Said::Title(title) if title.trim().is_empty() || title == self.title => Vec::new(),
            Said::Title(title) => vec![Event::TitleChanged {
                title: clip(&title, MAX_TITLE),
                by: Author::Agent,
            }],
            Said::Raw { kind, json } => vec![Event::RawNoted {
                kind,
                json: clip(&json, MAX_RAW),
            }],
            // Deltas are shown, not kept; whole messages follow them.
            Said::Delta { .. } | Said::ToolProgress(_) => Vec::new(),
        }
    }

    pub(super) fn decide_exit(
        &self,
        code: Option<i32>,
        signal: Option<i32>,
        stderr: String,
    ) -> Vec<Event> {
        if let Program::Gone { .. } = self.program {
            return Vec::new();
        }
        let mut events = self.void_approvals(&Author::Host, "the agent's program ended");
        events.push(Event::AgentExited {
            code,
            signal,
            stderr,
        });
        if let Some(turn) = &self.turn {
            events.push(Event::TurnEnded {
                turn: turn.turn,
                reason: DIED,
                detail: None,
            });
        }
        events.extend(self.pause(PauseCause::AgentEnded));
        events
    }

    /// Begins the next turn when the agent is free and a prompt waits.
    pub(super) fn next_turn(
        &self,
        now: Timestamp,
        random: &mut dyn FnMut() -> [u8; 10],
    ) -> Option<Event> {
        let is_up = matches!(self.program, Program::Up { .. });
        let is_free = is_up && self.turn.is_none() && !self.ended && !self.paused;
        let next = self.queue.first().filter(|_| is_free)?;
        Some(Event::TurnStarted {
            turn: TurnId::fresh(now, random()),
            prompt: next.prompt,
        })
    }

    fn decide_prompt(
        &self,
        now: Timestamp,
        text: String,
        by: Author,
        random: &mut dyn FnMut() -> [u8; 10],
    ) -> Result<Vec<Event>, Rejection> {
        check_text(&text)?;
        if self.queue.len() >= MAX_QUEUE {
            return Err(Rejection::new(Code::QueueFull));
        }
        let prompt = PromptId::fresh(now, random());
        let title = (!self.titled).then(|| first_words(&text));
        let titled = title.map(|title| Event::TitleChanged {
            title,
            by: Author::Host,
        });
        let queued = Event::PromptQueued { prompt, text, by };
        Ok([Some(queued), titled].into_iter().flatten().collect())
    }

    fn decide_cancel(&self, by: &Author) -> Result<Vec<Event>, Rejection> {
        let mut events = self.stop_turn(by)?;
        // Who stops a turn does not mean: go on with the next prompt.
        events.extend(self.pause(PauseCause::Stopped));
        Ok(events)
    }

    /// Stops the turn, once however often that is wished.
    fn stop_turn(&self, by: &Author) -> Result<Vec<Event>, Rejection> {
        let turn = self
            .turn
            .as_ref()
            .ok_or_else(|| Rejection::new(Code::NothingRunning))?;
        let stop = Event::TurnCancelRequested {
            turn: turn.turn,
            by: by.clone(),
        };
        let mut events: Vec<_> = (!turn.cancelling).then_some(stop).into_iter().collect();
        events.extend(self.void_approvals(by, "the turn was stopped"));
        Ok(events)
    }

    fn decide_turn_end(&self, reason: StopReason, detail: Option<String>) -> Vec<Event> {
        let Some(turn) = &self.turn else {
            return Vec::new();
        };
        let mut events = self.void_main_approvals("the turn ended");
        events.push(Event::TurnEnded {
            turn: turn.turn,
            reason,
            detail,
        });
        events
    }
}

/// What a session is called after its first prompt: the prompt's first line, or how it begins.
fn first_words(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default().trim_end();
    if line.chars().count() <= FIRST_WORDS {
        return line.to_owned();
    }
    let cut: String = line.chars().take(FIRST_WORDS).collect();
    let whole_words = cut
        .rsplit_once(' ')
        .map_or(cut.as_str(), |(words, _)| words);
    format!("{whole_words}…")
}

impl Input {
    /// The end of a program that nobody saw end: the host itself was restarted.
    #[must_use]
    pub const fn lost() -> Self {
        Self::Exited {
            code: None,
            signal: None,
            stderr: String::new(),
        }
    }
}
