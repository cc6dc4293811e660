//! What a shell must do because of an event. Effects follow from events alone, so that a crash
//! between writing and acting is repaired by replay.

use super::{Effect, Event, Program, Session, parse_ask};
use crate::agent::Order;
use crate::ask::Verdict;

impl Session {
    /// What `event` makes necessary, in the state before it was applied.
    #[must_use]
    pub fn effects(&self, event: &Event) -> Vec<Effect> {
        match event {
            Event::SessionOpened { .. } => vec![Effect::StartAgent { resume: None }],
            Event::PromptQueued { .. } => match &self.program {
                // What waits before it needs a person's word first.
                Program::Gone { .. } if self.paused => Vec::new(),
                Program::Gone { agent_session } => vec![Effect::StartAgent {
                    resume: agent_session.clone(),
                }],
                Program::Starting { .. } | Program::Up { .. } => Vec::new(),
            },
            Event::AgentRestarting { .. } => {
                vec![Effect::StartAgent {
                    resume: self.agent_session().map(ToOwned::to_owned),
                }]
            }
            Event::TurnStarted { prompt, .. } => {
                let queued = self.queue.iter().find(|queued| queued.prompt == *prompt);
                let order = queued.map(|queued| Order::Prompt {
                    id: prompt.to_string(),
                    text: queued.text.clone(),
                });
                order.map(Effect::Order).into_iter().collect()
            }
            Event::TurnCancelRequested { .. } => vec![Effect::Order(Order::Cancel)],
            Event::ApprovalDecided {
                approval,
                verdict,
                by: _,
            } => {
                let Some(open) = self.approvals.get(approval) else {
                    return Vec::new();
                };
                self.answer(*approval, &open.request, &open.ask, verdict)
            }
            Event::ModeRequested { mode, by: _ } => {
                vec![Effect::Order(Order::SetMode(mode.clone()))]
            }
            Event::ConfigRequested {
                option,
                value,
                by: _,
            } => {
                vec![Effect::Order(Order::SetConfig {
                    option: option.clone(),
                    value: value.clone(),
                })]
            }
            Event::SessionEnded { .. } => vec![Effect::StopAgent],
            Event::TitleChanged { .. }
            | Event::AgentStarted { .. }
            | Event::AgentExited { .. }
            | Event::ModesOffered { .. }
            | Event::ModeChanged { .. }
            | Event::ConfigOffered { .. }
            | Event::CommandsOffered { .. }
            | Event::PromptEdited { .. }
            | Event::PromptMoved { .. }
            | Event::PromptWithdrawn { .. }
            | Event::QueuePaused { .. }
            | Event::QueueResumed { .. }
            | Event::TurnEnded { .. }
            | Event::MessageAdded { .. }
            | Event::PlanUpdated { .. }
            | Event::ToolUpdated { .. }
            | Event::ApprovalRequested { .. }
            | Event::ApprovalApplied { .. }
            | Event::UsageUpdated { .. }
            | Event::RawNoted { .. }
            | Event::Noticed { .. }
            | Event::Snapshot { .. } => Vec::new(),
        }
    }

    fn answer(
        &self,
        approval: farhelm_proto::ApprovalId,
        request: &str,
        ask: &str,
        verdict: &Verdict,
    ) -> Vec<Effect> {
        let Some(ask) = parse_ask(ask) else {
            return Vec::new();
        };
        let order = Order::Answer {
            request: request.to_owned(),
            ask,
            verdict: verdict.clone(),
        };
        vec![Effect::Answer { approval, order }]
    }
}
