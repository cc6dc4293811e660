//! Prompts that wait: queued, edited, moved, taken back; paused and released. What waits is worked
//! on by itself only while nothing unexpected has happened; else a person says that it goes on.

use farhelm_proto::{Code, PromptId};

use super::{Event, Program, Queued, Session};
use crate::command::Rejection;
use crate::event::{Author, PauseCause};

/// Longest prompt, in bytes.
const MAX_PROMPT: usize = 256 * 1024;

impl Session {
    pub(super) fn decide_edit(
        &self,
        prompt: PromptId,
        revision: u32,
        text: String,
        by: Author,
    ) -> Result<Vec<Event>, Rejection> {
        check_text(&text)?;
        let queued = self.queued(prompt)?;
        if queued.revision != revision {
            return Err(Rejection::new(Code::PromptChanged));
        }
        let revision = revision + 1;
        Ok(vec![Event::PromptEdited {
            prompt,
            revision,
            text,
            by,
        }])
    }

    pub(super) fn decide_move(
        &self,
        prompt: PromptId,
        before: Option<PromptId>,
        by: Author,
    ) -> Result<Vec<Event>, Rejection> {
        self.queued(prompt)?;
        if let Some(next) = before {
            self.queued(next)?;
        }
        Ok(vec![Event::PromptMoved { prompt, before, by }])
    }

    pub(super) fn decide_withdraw(
        &self,
        prompt: PromptId,
        by: Author,
    ) -> Result<Vec<Event>, Rejection> {
        self.queued(prompt)?;
        Ok(vec![Event::PromptWithdrawn { prompt, by }])
    }

    /// Goes on: starts the agent again when it has ended, and works on what waits.
    pub(super) fn decide_resume(&self, by: Author) -> Result<Vec<Event>, Rejection> {
        match self.program {
            Program::Gone { .. } => Ok(vec![Event::AgentRestarting { by }]),
            Program::Starting { .. } | Program::Up { .. } if self.paused => {
                Ok(vec![Event::QueueResumed { by }])
            }
            Program::Starting { .. } | Program::Up { .. } => Err(Rejection::because(
                Code::NothingRunning,
                "the agent is already running, and nothing is paused",
            )),
        }
    }

    /// What is to be said when prompts wait that must not be worked on by themselves.
    pub(super) fn pause(&self, why: PauseCause) -> Option<Event> {
        let waits = !self.queue.is_empty() && !self.paused;
        waits.then_some(Event::QueuePaused { why })
    }

    pub(super) fn apply_to_queue(&mut self, event: &Event) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "called for these only")]
        match event {
            Event::PromptQueued { prompt, text, by } => {
                self.queue.push(Queued {
                    prompt: *prompt,
                    text: text.clone(),
                    by: by.clone(),
                    revision: 0,
                });
                if !self.paused {
                    self.restart();
                }
            }
            Event::PromptEdited {
                prompt,
                revision,
                text,
                by: _,
            } => {
                let queued = self.queue.iter_mut().find(|each| each.prompt == *prompt);
                if let Some(queued) = queued {
                    queued.text.clone_from(text);
                    queued.revision = *revision;
                }
            }
            Event::PromptMoved { prompt, before, .. } => self.move_prompt(*prompt, *before),
            Event::PromptWithdrawn { prompt, by: _ } => {
                self.queue.retain(|queued| queued.prompt != *prompt);
                if self.queue.is_empty() {
                    self.release();
                }
            }
            Event::QueuePaused { why } => self.hold(*why),
            Event::QueueResumed { .. } => self.release(),
            _ => {}
        }
    }

    /// Holds what waits, if anything does.
    pub(super) fn hold(&mut self, why: PauseCause) {
        if !self.queue.is_empty() {
            self.paused = true;
            self.pause = Some(why);
        }
    }

    pub(super) const fn release(&mut self) {
        self.paused = false;
        self.pause = None;
    }

    fn queued(&self, prompt: PromptId) -> Result<&Queued, Rejection> {
        self.queue
            .iter()
            .find(|queued| queued.prompt == prompt)
            .ok_or_else(|| Rejection::new(Code::PromptNotQueued))
    }

    fn move_prompt(&mut self, prompt: PromptId, before: Option<PromptId>) {
        let Some(from) = self.queue.iter().position(|each| each.prompt == prompt) else {
            return;
        };
        let moved = self.queue.remove(from);
        let to = before
            .and_then(|next| self.queue.iter().position(|each| each.prompt == next))
            // Before itself is where it was; before nobody is the end.
            .unwrap_or(if before == Some(prompt) {
                from
            } else {
                self.queue.len()
            });
        self.queue.insert(to, moved);
    }
}

/// Whether a prompt can be taken.
pub(super) fn check_text(text: &str) -> Result<(), Rejection> {
    if text.trim().is_empty() {
        return Err(Rejection::because(
            Code::BadCommand,
            "a prompt cannot be empty",
        ));
    }
    if text.len() > MAX_PROMPT {
        return Err(Rejection::because(
            Code::TooLarge,
            "a prompt may have at most 256 KiB",
        ));
    }
    Ok(())
}
