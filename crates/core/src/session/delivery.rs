//! How far the wishes of people have come: a fact of the log like any other.
//!
//! A wish is durable at the host with the event that it caused. Some wishes are for the agent:
//! they are handed over, and consumed once the agent has shown that it took them. When the agent's
//! program ends in between, nobody knows, and that is said: [`Delivery::Indeterminate`]. Nothing
//! here repeats a wish; that is for a person to decide.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a wish is moved by the few events that name what it is for"
)]

use farhelm_proto::{ApprovalId, CommandId, PromptId, TurnId};
use serde::{Deserialize, Serialize};

use super::{Event, Session, parse_ask};
use crate::ask::Verdict;
use crate::content::{ToolPatch, ToolStatus};
use crate::event::{MessageRole, StopReason};

/// How far a wish has come that is durable at the host. It only advances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// It has all of its effect: nothing has to be handed to the agent.
    #[default]
    Done,
    /// It will be handed to the agent.
    Waiting,
    /// The agent has been given it.
    Handed,
    /// The agent has shown that it took it.
    Consumed,
    /// It was on its way to the agent when that ended: whether it had its effect is not known.
    Indeterminate,
    /// It will not be handed over: it was taken back, or there is nobody any more to take it.
    Void,
    /// It was indeterminate and was sent again, under another id.
    Retried,
}

impl Delivery {
    /// Whether it stays so, unless a person sends it again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Waiting | Self::Handed => false,
            Self::Done | Self::Consumed | Self::Indeterminate | Self::Void | Self::Retried => true,
        }
    }
}

/// A wish for the agent that it is not known to have taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Wish {
    /// What the agent is to take.
    pub aim: Aim,
    /// How far it has come.
    pub delivery: Delivery,
}

/// What of a wish the agent is to take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Aim {
    /// A prompt: handed over with its turn, consumed with the turn's first output or its end.
    Prompt {
        /// Which.
        prompt: PromptId,
    },
    /// An answer: handed over when it is applied, consumed with the progress of the tool call that
    /// waited for it, or with the end of the turn.
    Answer {
        /// To which question.
        approval: ApprovalId,
        /// The tool call that waits; any output of the agent counts when there is none.
        tool: Option<String>,
    },
    /// A stop: consumed when the turn ends.
    Stop {
        /// Of which turn.
        turn: TurnId,
    },
    /// A mode: consumed when it is in force.
    Mode {
        /// Its id.
        mode: String,
    },
    /// A setting: consumed when the agent says what is in force.
    Setting {
        /// Its id.
        option: String,
    },
    /// A start of the agent's program: consumed when it has answered.
    Restart,
}

impl Session {
    /// What `event` makes of wishes, in the state before it was applied.
    #[must_use]
    pub fn deliveries(
        &self,
        cause: Option<CommandId>,
        event: &Event,
    ) -> Vec<(CommandId, Delivery)> {
        let begun = cause
            .zip(self.begins(event))
            .map(|(cause, _)| (cause, Delivery::Waiting));
        let advanced = self.wishes.iter().filter_map(|(id, wish)| {
            let next = self.advance(wish, event)?;
            (next != wish.delivery).then_some((*id, next))
        });
        begun.into_iter().chain(advanced).collect()
    }

    /// Keeps account of wishes; called before the event is applied to anything else.
    pub(super) fn note_deliveries(&mut self, cause: Option<CommandId>, event: &Event) {
        let aim = self.begins(event);
        for (id, delivery) in self.deliveries(cause, event) {
            if delivery.is_final() {
                self.wishes.remove(&id);
            } else if let Some(wish) = self.wishes.get_mut(&id) {
                wish.delivery = delivery;
            } else if let Some(aim) = aim.clone() {
                self.wishes.insert(id, Wish { aim, delivery });
            }
        }
    }

    /// What the agent is to take because of an event that a wish caused.
    fn begins(&self, event: &Event) -> Option<Aim> {
        match event {
            Event::PromptQueued { prompt, .. } => Some(Aim::Prompt { prompt: *prompt }),
            Event::ApprovalDecided {
                approval, verdict, ..
            } => match verdict {
                Verdict::Selected { .. } | Verdict::Answered { .. } => {
                    let open = self.approvals.get(approval)?;
                    let tool = parse_ask(&open.ask).and_then(|ask| ask.tool);
                    Some(Aim::Answer {
                        approval: *approval,
                        tool,
                    })
                }
                Verdict::Void { .. } => None,
            },
            Event::TurnCancelRequested { turn, .. } => Some(Aim::Stop { turn: *turn }),
            Event::ModeRequested { mode, .. } => Some(Aim::Mode { mode: mode.clone() }),
            Event::ConfigRequested { option, .. } => Some(Aim::Setting {
                option: option.clone(),
            }),
            Event::AgentRestarting { .. } => Some(Aim::Restart),
            _ => None,
        }
    }

    /// How far a wish is after an event, when that says anything about it.
    fn advance(&self, wish: &Wish, event: &Event) -> Option<Delivery> {
        let is_handed = wish.delivery == Delivery::Handed;
        match &wish.aim {
            Aim::Prompt { prompt } => self.advance_prompt(*prompt, is_handed, event),
            Aim::Answer { approval, tool } => {
                advance_answer(*approval, tool.as_deref(), is_handed, event)
            }
            Aim::Stop { turn } => match event {
                // Also when the agent's program has ended: nothing runs any more.
                Event::TurnEnded { turn: ended, .. } if ended == turn => Some(Delivery::Consumed),
                Event::SessionEnded { .. } => Some(Delivery::Void),
                _ => None,
            },
            Aim::Mode { mode } => match event {
                Event::ModeChanged { mode: current, .. } if current == mode => {
                    Some(Delivery::Consumed)
                }
                event => lost(event),
            },
            Aim::Setting { option } => match event {
                Event::ConfigOffered { options }
                    if options.iter().any(|offered| offered.id == *option) =>
                {
                    Some(Delivery::Consumed)
                }
                event => lost(event),
            },
            Aim::Restart => match event {
                Event::AgentStarted { .. } => Some(Delivery::Consumed),
                Event::AgentExited { .. } | Event::SessionEnded { .. } => Some(Delivery::Void),
                _ => None,
            },
        }
    }

    fn advance_prompt(&self, prompt: PromptId, is_handed: bool, event: &Event) -> Option<Delivery> {
        match event {
            Event::PromptWithdrawn {
                prompt: withdrawn, ..
            } if *withdrawn == prompt => Some(Delivery::Void),
            Event::TurnStarted {
                prompt: started, ..
            } if *started == prompt => Some(Delivery::Handed),
            Event::TurnEnded { turn, reason, .. } if is_handed => {
                let running = self.turn.as_ref()?;
                if running.turn != *turn || running.prompt != prompt {
                    return None;
                }
                Some(match reason {
                    StopReason::AgentDied => Delivery::Indeterminate,
                    StopReason::EndTurn
                    | StopReason::Cancelled
                    | StopReason::MaxTokens
                    | StopReason::MaxTurnRequests
                    | StopReason::Refusal
                    | StopReason::Failed => Delivery::Consumed,
                })
            }
            Event::SessionEnded { .. } => Some(if is_handed {
                Delivery::Indeterminate
            } else {
                Delivery::Void
            }),
            event if is_handed && is_output(event) => Some(Delivery::Consumed),
            _ => None,
        }
    }
}

fn advance_answer(
    approval: ApprovalId,
    tool: Option<&str>,
    is_handed: bool,
    event: &Event,
) -> Option<Delivery> {
    match (event, tool) {
        (
            Event::ApprovalApplied {
                approval: applied, ..
            },
            _,
        ) if *applied == approval => Some(Delivery::Handed),
        (Event::AgentExited { .. } | Event::SessionEnded { .. }, _) => {
            Some(Delivery::Indeterminate)
        }
        (
            Event::TurnEnded {
                reason: StopReason::AgentDied,
                ..
            },
            _,
        ) => Some(Delivery::Indeterminate),
        (Event::TurnEnded { .. }, _) if is_handed => Some(Delivery::Consumed),
        (Event::ToolUpdated { tool: patch }, Some(tool)) if is_handed && patch.id == tool => {
            has_moved(patch).then_some(Delivery::Consumed)
        }
        (event, None) if is_handed && is_output(event) => Some(Delivery::Consumed),
        _ => None,
    }
}

/// What becomes of a wish that is on its way when its addressee ends.
fn lost(event: &Event) -> Option<Delivery> {
    let is_over = matches!(
        event,
        Event::AgentExited { .. } | Event::SessionEnded { .. }
    );
    is_over.then_some(Delivery::Indeterminate)
}

/// Whether the main agent has said or done something.
fn is_output(event: &Event) -> bool {
    match event {
        Event::MessageAdded { role, parent, .. } => *role != MessageRole::User && parent.is_none(),
        Event::ToolUpdated { tool } => tool.parent.is_none(),
        Event::PlanUpdated { .. } | Event::ApprovalRequested { .. } => true,
        _ => false,
    }
}

/// Whether a tool call is not where it waited for an answer.
fn has_moved(patch: &ToolPatch) -> bool {
    patch.content.is_some()
        || patch
            .status
            .is_some_and(|status| status != ToolStatus::Pending)
}
