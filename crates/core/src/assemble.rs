//! Makes whole messages out of deltas. Deltas are shown at once on the live lane; the message they
//! grow into becomes an event when it is whole.

use serde::{Deserialize, Serialize};

use crate::agent::Said;
use crate::content::Content;
use crate::event::{Live, MessageRole};

/// Longest text of one message event, in bytes; a longer message comes in several parts.
const MAX_PART: usize = 64 * 1024;

/// What came of something said.
#[derive(Clone, Debug, PartialEq)]
pub enum Made {
    /// Show this now.
    Live(Live),
    /// Decide about this.
    Said(Said),
}

/// The message that is growing, if any.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Assembler {
    open: Option<Open>,
    unnamed: u64,
    run: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Open {
    message: String,
    named: bool,
    role: MessageRole,
    parent: Option<String>,
    text: String,
    units: u64,
    others: Vec<Content>,
}

impl Assembler {
    /// An assembler whose messages without an id are named after `run`, which must be new each
    /// time the agent's program starts.
    #[must_use]
    pub const fn new(run: String) -> Self {
        Self {
            open: None,
            unnamed: 0,
            run,
        }
    }

    /// Takes what the agent said; gives what is to be shown and decided, in order.
    pub fn push(&mut self, said: Said) -> Vec<Made> {
        match said {
            Said::Delta {
                message,
                role,
                content,
                parent,
            } => self.grow(message, role, content, parent),
            Said::Message {
                message,
                role,
                content,
                parent,
            } => {
                let is_same = self
                    .open
                    .as_ref()
                    .is_some_and(|open| open.message == message);
                let mut made = if is_same { Vec::new() } else { self.finish() };
                if is_same {
                    self.open = None;
                }
                made.push(Made::Said(Said::Message {
                    message,
                    role,
                    content,
                    parent,
                }));
                made
            }
            Said::ToolProgress(tool) => vec![Made::Live(Live::Tool { tool })],
            // These say nothing about the order of the conversation.
            said @ (Said::Usage { .. }
            | Said::Commands(_)
            | Said::Config(_)
            | Said::Modes { .. }
            | Said::Mode(_)
            | Said::Title(_)
            | Said::Raw { .. }) => vec![Made::Said(said)],
            said @ (Said::Started { .. }
            | Said::StartFailed { .. }
            | Said::Plan(_)
            | Said::Tool(_)
            | Said::Asks { .. }
            | Said::AskWithdrawn { .. }
            | Said::TurnEnded { .. }
            | Said::Notice { .. }) => {
                let mut made = self.finish();
                made.push(Made::Said(said));
                made
            }
        }
    }

    /// Ends the message that is growing: the agent has said something else, or is gone.
    pub fn finish(&mut self) -> Vec<Made> {
        self.open
            .take()
            .and_then(Open::into_message)
            .map(Made::Said)
            .into_iter()
            .collect()
    }

    /// The whole text of the message that is growing, for readers that came late.
    #[must_use]
    pub fn growing(&self) -> Option<Live> {
        let open = self.open.as_ref().filter(|open| !open.text.is_empty())?;
        Some(open.live(0, open.text.clone()))
    }

    fn grow(
        &mut self,
        message: Option<String>,
        role: MessageRole,
        content: Content,
        parent: Option<String>,
    ) -> Vec<Made> {
        let goes_on = self
            .open
            .as_ref()
            .is_some_and(|open| open.takes(message.as_deref(), role, parent.as_deref()));
        let mut made = if goes_on { Vec::new() } else { self.finish() };
        if self.open.is_none() {
            self.open = Some(self.begin(message, role, parent));
        }
        let Some(open) = &mut self.open else {
            return made;
        };
        match content {
            Content::Text { text } => {
                made.push(Made::Live(open.live(open.units, text.clone())));
                open.units += text.encode_utf16().count() as u64;
                open.text.push_str(&text);
            }
            other @ (Content::Clipped { .. }
            | Content::Diff { .. }
            | Content::Image { .. }
            | Content::Link { .. }
            | Content::Raw { .. }) => open.others.push(other),
        }
        if open.text.len() >= MAX_PART {
            made.extend(self.finish());
        }
        made
    }

    fn begin(
        &mut self,
        message: Option<String>,
        role: MessageRole,
        parent: Option<String>,
    ) -> Open {
        let named = message.is_some();
        let message = message.unwrap_or_else(|| {
            self.unnamed += 1;
            format!("{}-{}", self.run, self.unnamed)
        });
        Open {
            message,
            named,
            role,
            parent,
            text: String::new(),
            units: 0,
            others: Vec::new(),
        }
    }
}

impl Open {
    fn takes(&self, message: Option<&str>, role: MessageRole, parent: Option<&str>) -> bool {
        let same_id = message.map_or(!self.named, |id| id == self.message);
        same_id && self.role == role && self.parent.as_deref() == parent
    }

    fn live(&self, offset: u64, text: String) -> Live {
        Live::Text {
            message: self.message.clone(),
            role: self.role,
            parent: self.parent.clone(),
            offset,
            text,
        }
    }

    fn into_message(self) -> Option<Said> {
        let mut content = Vec::new();
        if !self.text.is_empty() {
            content.push(Content::Text { text: self.text });
        }
        content.extend(self.others);
        (!content.is_empty()).then_some(Said::Message {
            message: self.message,
            role: self.role,
            content,
            parent: self.parent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StopReason;

    #[test]
    fn deltas_grow_into_one_message() {
        let mut assembler = Assembler::new("run".into());
        let first = assembler.push(delta("Hé"));
        assert!(matches!(
            &first[..],
            [Made::Live(Live::Text { offset: 0, .. })]
        ));
        let second = assembler.push(delta("llo"));
        assert!(matches!(
            &second[..],
            [Made::Live(Live::Text { offset: 2, .. })]
        ));
        let end = assembler.push(Said::TurnEnded {
            reason: StopReason::EndTurn,
            detail: None,
        });
        let [
            Made::Said(Said::Message {
                content, message, ..
            }),
            Made::Said(Said::TurnEnded { .. }),
        ] = &end[..]
        else {
            panic!("a whole message and the end of the turn, but got {end:?}");
        };
        assert_eq!(
            content,
            &[Content::Text {
                text: "Héllo".into()
            }]
        );
        assert_eq!(message, "run-1");
    }

    #[test]
    fn a_thought_and_an_answer_are_two_messages() {
        let mut assembler = Assembler::new("run".into());
        assembler.push(Said::Delta {
            message: None,
            role: MessageRole::Thought,
            content: Content::Text { text: "hm".into() },
            parent: None,
        });
        let made = assembler.push(delta("yes"));
        assert!(matches!(
            &made[0],
            Made::Said(Said::Message {
                role: MessageRole::Thought,
                ..
            })
        ));
    }

    #[test]
    fn a_whole_message_supersedes_its_deltas() {
        let mut assembler = Assembler::new("run".into());
        assembler.push(Said::Delta {
            message: Some("m1".into()),
            role: MessageRole::Agent,
            content: Content::Text { text: "par".into() },
            parent: None,
        });
        let whole = Said::Message {
            message: "m1".into(),
            role: MessageRole::Agent,
            content: vec![Content::Text {
                text: "partial".into(),
            }],
            parent: None,
        };
        assert_eq!(assembler.push(whole.clone()), vec![Made::Said(whole)]);
        assert_eq!(assembler.finish(), vec![]);
    }

    fn delta(text: &str) -> Said {
        Said::Delta {
            message: None,
            role: MessageRole::Agent,
            content: Content::Text { text: text.into() },
            parent: None,
        }
    }
}
