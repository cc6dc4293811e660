//! What Claude Code says: streamed pieces, whole messages, tool calls and their results.

use farhelm_core::content::{Content, ToolPatch, ToolStatus};
use farhelm_core::event::MessageRole;
use serde::{Deserialize, Serialize};

use super::tools::{self, Call};
use super::{Claude, RawMessage, Said, Step, Value, brief, list, owned, raw, text};

/// The answer of the model that is under way. Its blocks become messages of their own, named by
/// the answer's id and their place in it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Current {
    id: String,
    /// The blocks that were streamed: their place and kind, until the whole block comes.
    streamed: Vec<(u64, String)>,
    /// The place of the next block that was not streamed.
    next: u64,
}

impl Current {
    fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ..Self::default()
        }
    }

    /// The place of a whole block: that of the first streamed block of its kind.
    fn place(&mut self, kind: &str) -> u64 {
        let streamed = self
            .streamed
            .iter()
            .position(|(_, streamed)| streamed == kind);
        let place = streamed.map_or(self.next, |at| self.streamed.remove(at).0);
        self.next = self.next.max(place + 1);
        place
    }
}

impl Claude {
    pub(super) fn streamed(&mut self, value: &Value) -> Vec<Step> {
        let parent = owned(value, "parent_tool_use_id");
        let event = value.get("event").unwrap_or(&Value::Null);
        let index = event
            .get("index")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        match text(event, "type") {
            Some("message_start") => {
                let id = event
                    .pointer("/message/id")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                self.current.insert(parent, Current::of(id));
                Vec::new()
            }
            Some("content_block_start") => {
                let kind = event
                    .pointer("/content_block/type")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                self.current
                    .entry(parent)
                    .or_default()
                    .streamed
                    .push((index, kind.to_owned()));
                Vec::new()
            }
            Some("content_block_delta") => {
                self.delta(parent, index, event.get("delta").unwrap_or(&Value::Null))
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn delta(&self, parent: Option<String>, index: u64, delta: &Value) -> Vec<Step> {
        let (role, words) = match text(delta, "type") {
            Some("text_delta") => (MessageRole::Agent, owned(delta, "text")),
            Some("thinking_delta") => (MessageRole::Thought, owned(delta, "thinking")),
            Some(_) | None => return Vec::new(),
        };
        let message = self
            .current
            .get(&parent)
            .map(|current| format!("{}:{index}", current.id));
        let Some(words) = words.filter(|words| !words.is_empty()) else {
            return Vec::new();
        };
        vec![Step::Say(Said::Delta {
            message,
            role,
            content: Content::Text { text: words },
            parent,
        })]
    }

    pub(super) fn assistant(&mut self, message: &RawMessage) -> Vec<Step> {
        let parent = owned(message.value(), "parent_tool_use_id");
        let answer = message.value().get("message").unwrap_or(&Value::Null);
        if parent.is_none() {
            self.used = tokens(answer).or(self.used);
        }
        let id = text(answer, "id").unwrap_or_default();
        if self
            .current
            .get(&parent)
            .is_none_or(|current| current.id != id)
        {
            self.current.insert(parent.clone(), Current::of(id));
        }
        let blocks = list(answer, "content");
        blocks
            .iter()
            .enumerate()
            .flat_map(|(at, block)| self.block(id, at, block, parent.as_ref(), message))
            .collect()
    }

    fn block(
        &mut self,
        id: &str,
        at: usize,
        block: &Value,
        parent: Option<&String>,
        message: &RawMessage,
    ) -> Vec<Step> {
        let kind = text(block, "type").unwrap_or_default();
        let parent = parent.cloned();
        let place = self.current.entry(parent.clone()).or_default().place(kind);
        let whole = |role, words: &str| {
            let content = vec![Content::Text {
                text: words.to_owned(),
            }];
            vec![Step::Say(Said::Message {
                message: format!("{id}:{place}"),
                role,
                content,
                parent: parent.clone(),
            })]
        };
        match kind {
            "text" => whole(MessageRole::Agent, text(block, "text").unwrap_or_default()),
            "thinking" => match text(block, "thinking") {
                Some(words) if !words.is_empty() => whole(MessageRole::Thought, words),
                Some(_) | None => Vec::new(),
            },
            "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                let input = message
                    .raw_at(&["message"])
                    .and_then(|answer| tools::raw_input(answer, at));
                self.called(block, input, parent)
            }
            "tool_result" | "mcp_tool_result" | "web_search_tool_result" => {
                self.returned(block, &Value::Null)
            }
            // Not for reading.
            "redacted_thinking" | "fallback" => Vec::new(),
            unknown => vec![Step::Say(Said::Raw {
                kind: format!("assistant/{unknown}"),
                json: brief(block),
            })],
        }
    }

    fn called(
        &mut self,
        block: &Value,
        input: Option<String>,
        parent: Option<String>,
    ) -> Vec<Step> {
        let Some(id) = owned(block, "id") else {
            return Vec::new();
        };
        let name = owned(block, "name").unwrap_or_default();
        let call = Call::new(name, input.unwrap_or_else(|| "{}".to_owned()), parent);
        let mut steps = vec![Step::Say(Said::Tool(call.patch(&id)))];
        if call.name == "TodoWrite" {
            steps.push(Step::Say(Said::Plan(tools::todos(&call.value))));
        }
        self.calls.insert(id, call);
        steps
    }

    pub(super) fn user(&mut self, message: &RawMessage) -> Vec<Step> {
        let value = message.value();
        if value
            .get("isReplay")
            .and_then(Value::as_bool)
            .unwrap_or_default()
            && self.is_ours(value)
        {
            return Vec::new();
        }
        let content = value.pointer("/message/content").unwrap_or(&Value::Null);
        if let Some(words) = content.as_str() {
            return self.spoken(value, words);
        }
        let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
        let mut steps = Vec::new();
        for block in blocks {
            steps.extend(match text(block, "type") {
                Some("tool_result") => self.returned(block, value),
                Some("text") => self.spoken(value, text(block, "text").unwrap_or_default()),
                Some("image" | "document") => Vec::new(),
                Some(_) | None => vec![raw("user", message)],
            });
        }
        steps
    }

    /// Whether a repeated message is a prompt that we sent.
    fn is_ours(&mut self, value: &Value) -> bool {
        text(value, "uuid").is_none_or(|uuid| self.prompts.remove(uuid))
    }

    /// Words in a person's place: a subagent's task, or the output of a slash command.
    fn spoken(&self, value: &Value, words: &str) -> Vec<Step> {
        if words.trim().is_empty() || words.starts_with("[Request interrupted by user") {
            return Vec::new();
        }
        let output = ["local-command-stdout", "local-command-stderr"]
            .iter()
            .find_map(|tag| {
                words
                    .trim()
                    .strip_prefix(&format!("<{tag}>"))?
                    .strip_suffix(&format!("</{tag}>"))
            });
        let (role, words) = output.map_or((MessageRole::User, words), |output| {
            (MessageRole::Agent, output)
        });
        let message = owned(value, "uuid").unwrap_or_default();
        let content = vec![Content::Text {
            text: words.to_owned(),
        }];
        vec![Step::Say(Said::Message {
            message,
            role,
            content,
            parent: owned(value, "parent_tool_use_id"),
        })]
    }

    /// A call has its result.
    fn returned(&mut self, block: &Value, value: &Value) -> Vec<Step> {
        let Some(id) = owned(block, "tool_use_id") else {
            return Vec::new();
        };
        let call = self.calls.remove(&id);
        let failed = block
            .get("is_error")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        let meta = list(value, "tool_result_meta")
            .iter()
            .find(|meta| text(meta, "id") == Some(&id));
        let unexecuted = meta.is_some_and(|meta| text(meta, "non_execution_kind").is_some());
        let refused = self.refused.remove(&id);
        let status = match (failed, unexecuted || refused) {
            (true, true) => ToolStatus::Rejected,
            (true, false) => ToolStatus::Failed,
            (false, _) => ToolStatus::Completed,
        };
        let shown = tools::result(block.get("content").unwrap_or(&Value::Null));
        let content = match &call {
            // What an edit shows is the change; the result only says that it was made.
            Some(call) if call.is_edit() && !failed => call.settled(value.get("tool_use_result")),
            Some(_) | None => Some(shown),
        };
        vec![Step::Say(Said::Tool(ToolPatch {
            id,
            status: Some(status),
            content,
            ..ToolPatch::default()
        }))]
    }
}

/// How many tokens an answer brought into use.
fn tokens(answer: &Value) -> Option<u64> {
    let usage = answer.get("usage")?;
    let kinds = [
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "output_tokens",
    ];
    Some(
        kinds
            .iter()
            .filter_map(|kind| usage.get(kind)?.as_u64())
            .sum(),
    )
}
