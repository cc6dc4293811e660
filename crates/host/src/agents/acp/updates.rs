//! `session/update`: what the agent does and says.

use farhelm_core::content::ToolStatus;
use farhelm_core::event::{AgentCommand, MessageRole};

use super::{
    Acp, Content, RawMessage, Said, State, Step, ToolPatch, Value, content, list, owned, raw, text,
};

impl Acp {
    pub(super) fn updated(&mut self, update: &Value, message: &RawMessage) -> Vec<Step> {
        let kind = text(update, "sessionUpdate").unwrap_or("session/update");
        if self.replays() && REPLAYED.contains(&kind) {
            return Vec::new();
        }
        match kind {
            "agent_message_chunk" => chunk(update, MessageRole::Agent),
            "agent_thought_chunk" => chunk(update, MessageRole::Thought),
            "user_message_chunk" => self.echoed(update),
            "tool_call" | "tool_call_update" => self.tool_updated(update, message),
            "plan" => vec![Step::Say(Said::Plan(content::plan(update)))],
            "available_commands_update" => vec![Step::Say(Said::Commands(commands(update)))],
            "current_mode_update" => {
                let mode = owned(update, "currentModeId").or_else(|| owned(update, "modeId"));
                mode.and_then(|mode| self.settings.mode_is(mode))
                    .map(Step::Say)
                    .into_iter()
                    .collect()
            }
            "config_option_update" => self.config_updated(update),
            // Without a title it is the vendor's own business.
            "session_info_update" => owned(update, "title")
                .map(|title| Step::Say(Said::Title(title)))
                .into_iter()
                .collect(),
            "usage_update" => self.usage_updated(update),
            unknown => vec![raw(unknown, message)],
        }
    }

    /// Whether what the agent says was said before: a conversation is being loaded, or was and
    /// nothing has been asked since.
    const fn replays(&self) -> bool {
        match self.state {
            State::Loading | State::Loaded => true,
            State::Starting | State::Idle | State::Turn { .. } | State::Failed => false,
        }
    }

    /// The agent repeats a person's words: the session has those of the prompt already.
    fn echoed(&mut self, update: &Value) -> Vec<Step> {
        if let (State::Turn { echo }, Some(words)) = (
            &mut self.state,
            update.pointer("/content/text").and_then(Value::as_str),
        ) && let Some(rest) = echo.strip_prefix(words)
        {
            *echo = rest.to_owned();
            return Vec::new();
        }
        chunk(update, MessageRole::User)
    }

    fn config_updated(&mut self, update: &Value) -> Vec<Step> {
        let before = self.settings.mode().map(str::to_owned);
        self.settings.offered(update);
        let mode = self
            .settings
            .mode()
            .map(str::to_owned)
            .filter(|mode| before.as_ref() != Some(mode))
            .map(Said::Mode);
        // While the start is under way, the session hears of all of it at once.
        if matches!(self.state, State::Starting) {
            return Vec::new();
        }
        [mode, self.settings.config()]
            .into_iter()
            .flatten()
            .map(Step::Say)
            .collect()
    }

    fn usage_updated(&mut self, update: &Value) -> Vec<Step> {
        self.reports_use = true;
        let number = |key: &str| update.get(key).and_then(Value::as_u64);
        let cost = update.get("cost");
        vec![Step::Say(Said::Usage {
            used: number("used"),
            size: number("size"),
            cost: cost
                .and_then(|cost| cost.get("amount"))
                .and_then(Value::as_f64),
            currency: cost.and_then(|cost| owned(cost, "currency")),
        })]
    }

    fn tool_updated(&mut self, update: &Value, message: &RawMessage) -> Vec<Step> {
        let input = message.raw_at(&["params", "update", "rawInput"]);
        // Arguments that are not whole are no arguments; what stands for a long string is longer.
        let input = input.filter(|input| !message.is_cut() || input.get().len() < WHOLE_INPUT);
        match content::tool(update, input) {
            Some(patch) => self.upsert(patch, content::output(update), message.is_cut()),
            None => vec![raw("tool_call_update", message)],
        }
    }

    /// Takes in what is said of a call, from whatever message, and passes on what is new. What is
    /// kept elsewhere already cannot be shown as growing.
    pub(super) fn upsert(
        &mut self,
        mut patch: ToolPatch,
        output: Option<Content>,
        is_kept: bool,
    ) -> Vec<Step> {
        if patch.status == Some(ToolStatus::Failed) && self.refused.contains(&patch.id) {
            patch.status = Some(ToolStatus::Rejected);
        }
        let is_new = !self.calls.contains_key(&patch.id);
        let call = self.calls.entry(patch.id.clone()).or_default();
        let shows = call
            .known
            .content
            .as_ref()
            .is_some_and(|content| !content.is_empty());
        let ends = patch.status.is_some_and(ToolStatus::is_final);
        if let (Some(output), true) = (output, patch.content.as_ref().map_or(!shows, Vec::is_empty))
        {
            patch.content = Some(vec![output]);
        } else if ends && patch.content.is_none() && call.grew {
            // What was shown as growing was not kept.
            patch.content = call.known.content.take();
        }
        let is_shown = call.known.status == Some(ToolStatus::InProgress);
        let growing = is_shown && !is_kept && is_growth(&patch);
        let grew = call.grew;
        call.grew = growing || (grew && patch.content.is_none());
        call.known.id.clone_from(&patch.id);
        strip(&mut patch, &call.known, grew);
        call.known.absorb(&patch);
        if ends {
            self.calls.remove(&patch.id);
        }
        let nothing = ToolPatch {
            id: patch.id.clone(),
            ..ToolPatch::default()
        };
        if patch == nothing && !is_new {
            return Vec::new();
        }
        vec![Step::Say(if growing {
            Said::ToolProgress(patch)
        } else {
            Said::Tool(patch)
        })]
    }
}

/// Leaves out what is known: agents repeat whole diffs with every step of a call.
fn strip(patch: &mut ToolPatch, known: &ToolPatch, content_unkept: bool) {
    fn drop_same<T: PartialEq>(new: &mut Option<T>, known: Option<&T>) {
        if new.as_ref() == known {
            *new = None;
        }
    }
    drop_same(&mut patch.title, known.title.as_ref());
    drop_same(&mut patch.kind, known.kind.as_ref());
    drop_same(&mut patch.status, known.status.as_ref());
    drop_same(&mut patch.locations, known.locations.as_ref());
    drop_same(&mut patch.input, known.input.as_ref());
    drop_same(&mut patch.parent, known.parent.as_ref());
    if !content_unkept {
        drop_same(&mut patch.content, known.content.as_ref());
    }
}

/// Whether nothing but text was added: output to be shown as it grows.
fn is_growth(patch: &ToolPatch) -> bool {
    let ToolPatch {
        id: _,
        title: None,
        kind: None,
        status: None | Some(ToolStatus::InProgress),
        content: Some(content),
        locations: None,
        input: None,
        parent: _,
    } = patch
    else {
        return false;
    };
    content
        .iter()
        .all(|content| matches!(content, Content::Text { .. }))
}

fn chunk(update: &Value, role: MessageRole) -> Vec<Step> {
    let block = update.get("content").unwrap_or(&Value::Null);
    // Thoughts and words of one answer may carry the same id.
    let message = owned(update, "messageId").map(|id| match role {
        MessageRole::Thought => format!("{id}:thought"),
        MessageRole::Agent | MessageRole::User => id,
    });
    vec![Step::Say(Said::Delta {
        message,
        role,
        content: content::block(block),
        parent: None,
    })]
}

fn commands(update: &Value) -> Vec<AgentCommand> {
    list(update, "availableCommands")
        .iter()
        .filter_map(|command| {
            let name = text(command, "name")?;
            Some(AgentCommand {
                name: name.strip_prefix('/').unwrap_or(name).to_owned(),
                description: owned(command, "description").unwrap_or_default(),
            })
        })
        .collect()
}

/// Arguments that are surely whole in a line that is not.
const WHOLE_INPUT: usize = 4 << 10;
/// What belongs to the conversation itself.
const REPLAYED: &[&str] = &[
    "agent_message_chunk",
    "agent_thought_chunk",
    "user_message_chunk",
    "tool_call",
    "tool_call_update",
    "plan",
];
