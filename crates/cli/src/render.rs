//! Events as plain lines for a terminal. Whatever an agent wrote is shown with its control
//! characters made visible, so that it cannot move the cursor, hide text or pose as us.

use std::fmt::Write as _;

use farhelm_core::ask::{Ask, ChoiceKind, Subject, Verdict};
use farhelm_core::content::{Content, ToolPatch, ToolStatus};
use farhelm_core::event::{Author, Event, Live, MessageRole, PauseCause, Record, StopReason};
use farhelm_core::session::parse_ask;

use crate::resolve::short;

/// Lines of a diff or output that are shown.
const LINES: usize = 40;

/// Turns events into text; knows what of a growing message was shown already.
#[derive(Default)]
pub(crate) struct Renderer {
    growing: Option<(String, u64)>,
    titles: std::collections::BTreeMap<String, String>,
    /// Tool calls of which no end was told.
    open: Vec<String>,
}

impl Renderer {
    /// What to print for an event; empty when there is nothing to say.
    pub(crate) fn record(&mut self, record: &Record) -> String {
        let text = self.event(&record.event);
        let starts_afresh = !text.is_empty() && !matches!(record.event, Event::MessageAdded { .. });
        if starts_afresh {
            self.end_growing() + &text
        } else {
            text
        }
    }

    /// What to print for a delta.
    pub(crate) fn live(&mut self, live: &Live) -> String {
        let Live::Text {
            message,
            role,
            offset,
            text,
            parent: _,
        } = live
        else {
            return String::new();
        };
        let shown = match &self.growing {
            Some((growing, shown)) if growing == message => *shown,
            Some(_) | None => 0,
        };
        if *offset > shown {
            return String::new();
        }
        let begins = self
            .growing
            .as_ref()
            .is_none_or(|(growing, _)| growing != message);
        let fresh = skip_units(text, shown - offset);
        let end = if begins {
            self.end_growing()
        } else {
            String::new()
        };
        self.growing = Some((message.clone(), offset + text.encode_utf16().count() as u64));
        let lead = if begins { mark(*role) } else { "" };
        format!("{end}{lead}{}", visible(fresh))
    }

    fn end_growing(&mut self) -> String {
        if self.growing.take().is_some() {
            "\n".to_owned()
        } else {
            String::new()
        }
    }

    fn event(&mut self, event: &Event) -> String {
        match event {
            Event::SessionOpened {
                dir, branch, agent, ..
            } => {
                let branch = branch
                    .as_ref()
                    .map(|branch| format!(" on {}", visible(branch)))
                    .unwrap_or_default();
                format!(
                    "── session: {} in {}{branch}\n",
                    visible(agent),
                    visible(dir)
                )
            }
            // The first prompt, which is there already.
            Event::TitleChanged {
                by: Author::Host, ..
            } => String::new(),
            Event::TitleChanged { title, .. } => format!("── title: {}\n", visible(title)),
            Event::AgentStarted {
                name,
                version,
                resumed,
                ..
            } => {
                let how = if *resumed { "resumed" } else { "ready" };
                let version = version.as_deref().unwrap_or("");
                format!("── {} {} is {how}\n", visible(name), visible(version))
            }
            Event::AgentExited {
                code,
                signal,
                stderr,
            } => {
                let how = match (code, signal) {
                    (_, Some(signal)) => format!("was ended by signal {signal}"),
                    (Some(code), None) => format!("ended with status {code}"),
                    (None, None) => "is gone".to_owned(),
                };
                let stderr = stderr.trim();
                let detail = if stderr.is_empty() {
                    String::new()
                } else {
                    indent(&visible(stderr), LINES)
                };
                format!(
                    "{}── the agent {how}; `farhelm resume` or the next prompt starts it again\n{detail}",
                    self.end_tools()
                )
            }
            Event::AgentRestarting { by } => format!("── {} starts the agent again\n", author(by)),
            Event::ModeChanged { mode, .. } => format!("── mode: {}\n", visible(mode)),
            Event::PromptQueued { text, by, .. } => format!("{}> {}\n", author(by), visible(text)),
            Event::PromptEdited { text, by, .. } => {
                let by = author(by);
                format!(
                    "── {by} changed a waiting prompt\n{by}> {}\n",
                    visible(text)
                )
            }
            Event::PromptMoved { by, .. } => {
                format!("── {} moved a waiting prompt\n", author(by))
            }
            Event::PromptWithdrawn { by, .. } => {
                format!("── {} took a waiting prompt back\n", author(by))
            }
            Event::QueuePaused { why } => {
                let why = match why {
                    PauseCause::AgentEnded => "the agent has ended",
                    PauseCause::HostRestarted => "the host was started again",
                    PauseCause::Stopped => "the turn was stopped",
                };
                format!("── paused: {why}; what waits goes on with `farhelm resume`\n")
            }
            Event::QueueResumed { by } => format!("── {} lets what waits go on\n", author(by)),
            Event::TurnCancelRequested { by, .. } => format!("── {} stops the turn\n", author(by)),
            Event::TurnEnded { reason, detail, .. } => {
                self.end_tools() + &turn_end(*reason, detail.as_deref())
            }
            Event::MessageAdded {
                message,
                role,
                content,
                ..
            } => self.message(message, *role, content),
            Event::PlanUpdated { entries } => {
                entries
                    .iter()
                    .fold("── plan:\n".to_owned(), |mut text, entry| {
                        let mark = match entry.status.as_str() {
                            "completed" => "x",
                            "in_progress" => ">",
                            _ => " ",
                        };
                        writeln!(text, "   [{mark}] {}", visible(&entry.content))
                            .unwrap_or_default();
                        text
                    })
            }
            Event::ToolUpdated { tool } => self.tool(tool),
            Event::ApprovalRequested { approval, ask, .. } => {
                let ask = parse_ask(ask);
                ask.map_or_else(
                    || {
                        format!(
                            "? {} a question of a kind that this version does not know\n",
                            short(approval)
                        )
                    },
                    |ask| question(&short(approval), &ask),
                )
            }
            Event::ApprovalDecided {
                approval,
                by,
                verdict,
            } => {
                let what = match verdict {
                    Verdict::Selected { allows: true, .. } => format!("allowed by {}", author(by)),
                    Verdict::Selected {
                        allows: false,
                        reason: Some(reason),
                        ..
                    } => {
                        format!("denied by {}: {}", author(by), visible(reason))
                    }
                    Verdict::Selected {
                        allows: false,
                        reason: None,
                        ..
                    } => format!("denied by {}", author(by)),
                    Verdict::Answered { answers } => {
                        let text = |value: &serde_json::Value| {
                            value
                                .as_str()
                                .map_or_else(|| value.to_string(), str::to_owned)
                        };
                        let answers: Vec<_> = answers.values().map(text).collect();
                        format!(
                            "answered by {}: {}",
                            author(by),
                            visible(&answers.join(", "))
                        )
                    }
                    Verdict::Void { why } => format!("is void: {}", visible(why)),
                };
                format!("= {} {what}\n", short(approval))
            }
            Event::RawNoted { kind, .. } => {
                format!("── the agent sent something unknown: {}\n", visible(kind))
            }
            Event::Noticed { code, text } => format!("! [{code}] {}\n", visible(text)),
            Event::SessionEnded { by } => {
                format!("{}── {} ended the session\n", self.end_tools(), author(by))
            }
            Event::ModesOffered { .. }
            | Event::ModeRequested { .. }
            | Event::ConfigRequested { .. }
            | Event::ConfigOffered { .. }
            | Event::CommandsOffered { .. }
            | Event::TurnStarted { .. }
            | Event::ApprovalApplied { .. }
            | Event::UsageUpdated { .. }
            | Event::Snapshot { .. } => String::new(),
        }
    }

    fn message(&mut self, message: &str, role: MessageRole, content: &[Content]) -> String {
        let text: String = content.iter().map(plain).collect();
        match self.growing.take() {
            Some((growing, shown)) if growing == message => {
                format!("{}\n", visible(skip_units(&text, shown)))
            }
            Some(_) => format!("\n{}{}\n", mark(role), visible(&text)),
            None => format!("{}{}\n", mark(role), visible(&text)),
        }
    }

    fn tool(&mut self, tool: &ToolPatch) -> String {
        if let Some(title) = &tool.title {
            self.titles.insert(tool.id.clone(), title.clone());
        }
        let Some(status) = tool.status else {
            return String::new();
        };
        self.open.retain(|id| *id != tool.id);
        if !status.is_final() {
            self.open.push(tool.id.clone());
        }
        let title = self.titles.get(&tool.id).map_or("a tool", String::as_str);
        let (mark, shows) = match status {
            ToolStatus::Pending | ToolStatus::InProgress => return String::new(),
            ToolStatus::Completed => ("+", true),
            ToolStatus::Failed => ("-", true),
            ToolStatus::Rejected => ("x", false),
        };
        let content = tool
            .content
            .iter()
            .flatten()
            .filter(|_| shows)
            .map(block)
            .collect::<String>();
        format!("{mark} {}\n{content}", visible(title))
    }

    /// What was not said to have ended does not go on without a turn, and neither is its title
    /// needed any more.
    fn end_tools(&mut self) -> String {
        let titles = std::mem::take(&mut self.titles);
        let open = std::mem::take(&mut self.open);
        let line = |id: &String| {
            let title = titles.get(id).map_or("a tool", String::as_str);
            format!("… {}: no end was reported\n", visible(title))
        };
        open.iter().map(line).collect()
    }
}

/// A question with its options, as it waits for an answer.
pub(crate) fn question(id: &str, ask: &Ask) -> String {
    let mut text = format!("? {id} {}\n", visible(&ask.title));
    match &ask.subject {
        Subject::Command { command, dir } => {
            text += &indent(&format!("$ {}", visible(command)), usize::MAX);
            text += &format!("    in {}\n", visible(dir));
        }
        Subject::Edit { content, .. } => text.extend(content.iter().map(block)),
        Subject::Tool {
            name,
            input,
            content,
        } => {
            text += &indent(&format!("{} {}", visible(name), visible(input)), LINES);
            text.extend(content.iter().map(block));
        }
        Subject::Plan { text: plan } => text += &indent(&visible(plan), usize::MAX),
        Subject::Questions { questions } => {
            for question in questions {
                text += &indent(&visible(&question.text), LINES);
                for choice in &question.choices {
                    let description = choice.description.as_deref().unwrap_or("");
                    text += &format!(
                        "      - {}  {}\n",
                        visible(&choice.label),
                        visible(description)
                    );
                }
            }
        }
        Subject::Form { message, schema } => {
            if *message != ask.title {
                text += &indent(&visible(message), LINES);
            }
            let fields = crate::form::fields(schema);
            let lines = fields.iter().map(|field| format!("    {}\n", field.line()));
            text += &if fields.is_empty() {
                indent(&visible(schema), LINES)
            } else {
                lines.collect::<String>()
            };
            if let Some(field) = fields.first() {
                text += &format!(
                    "    answer with `farhelm approve {id} --answer {}=…`\n",
                    visible(&field.name)
                );
            }
        }
        Subject::Visit { message, url } => {
            text += &indent(&format!("{}\n{}", visible(message), visible(url)), LINES);
        }
    }
    if let Some(description) = &ask.description {
        text += &format!("    the agent says: {}\n", visible(description));
    }
    let options: Vec<_> = ask
        .options
        .iter()
        .enumerate()
        .map(|(at, choice)| format!("[{}] {}", at + 1, visible(&choice.name)))
        .collect();
    if !options.is_empty() {
        text += &format!("    {}\n", options.join("  "));
    }
    text
}

/// The option that a word stands for: its number, `y`, `n`, id or name.
pub(crate) fn option_of<'a>(ask: &'a Ask, word: &str) -> Option<&'a farhelm_core::ask::Choice> {
    let by_kind = |kinds: [ChoiceKind; 2]| {
        kinds
            .iter()
            .find_map(|kind| ask.options.iter().find(|choice| choice.kind == *kind))
    };
    match word.to_ascii_lowercase().as_str() {
        "y" | "yes" => by_kind([ChoiceKind::AllowOnce, ChoiceKind::AllowAlways]),
        "n" | "no" => by_kind([ChoiceKind::RejectOnce, ChoiceKind::RejectAlways]),
        _ => match word.parse::<usize>() {
            Ok(number) => ask.options.get(number.checked_sub(1)?),
            Err(_) => ask
                .options
                .iter()
                .find(|choice| choice.id == word || choice.name == word),
        },
    }
}

/// Who it was.
pub(crate) fn author(by: &Author) -> String {
    match by {
        Author::Device { name, .. } => visible(name),
        Author::Local => "you".to_owned(),
        Author::Agent => "the agent".to_owned(),
        Author::Host => "farhelm".to_owned(),
        Author::Rule { name } => format!("rule {}", visible(name)),
    }
}

/// Text whose control, reordering and invisible characters are shown instead of obeyed.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => {}
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('?')),
            '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}' => {
                write!(out, "⟨U+{:04X}⟩", u32::from(c)).unwrap_or_default();
            }
            _ => out.push(c),
        }
    }
    out
}

const fn mark(role: MessageRole) -> &'static str {
    match role {
        MessageRole::Agent => "< ",
        MessageRole::Thought => "~ ",
        MessageRole::User => "> ",
    }
}

fn turn_end(reason: StopReason, detail: Option<&str>) -> String {
    let what = match reason {
        StopReason::EndTurn => "done",
        StopReason::Cancelled => "stopped",
        StopReason::MaxTokens => "the answer reached its length limit",
        StopReason::MaxTurnRequests => "the agent reached its limit of requests",
        StopReason::Refusal => "the model refused",
        StopReason::Failed => "the agent failed",
        StopReason::AgentDied => "the agent ended in the middle",
    };
    let detail = detail
        .map(|detail| format!(": {}", visible(detail)))
        .unwrap_or_default();
    format!("── {what}{detail}\n")
}

/// A piece of a message as text.
fn plain(content: &Content) -> String {
    match content {
        Content::Text { text } => text.clone(),
        Content::Clipped {
            head, tail, bytes, ..
        } => format!("{head}\n… {bytes} bytes in all …\n{tail}"),
        Content::Diff { path, .. } => format!("[change of {path}]"),
        Content::Image { mime, .. } => format!("[{mime}]"),
        Content::Link { uri, name } => format!("[{name}]({uri})"),
        Content::Raw { json } => json.clone(),
    }
}

/// A piece of a tool call, indented.
fn block(content: &Content) -> String {
    match content {
        Content::Diff { path, old, new } => {
            let old = old.as_deref().unwrap_or("");
            let diff = similar::TextDiff::from_lines(old, new)
                .unified_diff()
                .header(path, path)
                .to_string();
            indent(&visible(&diff), LINES)
        }
        other @ (Content::Text { .. }
        | Content::Clipped { .. }
        | Content::Image { .. }
        | Content::Link { .. }
        | Content::Raw { .. }) => indent(&visible(&plain(other)), LINES),
    }
}

/// Indents, and says how many lines are left out beyond `most`.
fn indent(text: &str, most: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    let mut out: String = lines
        .iter()
        .take(most)
        .map(|line| format!("    {line}\n"))
        .collect();
    if lines.len() > most {
        out += &format!("    … {} lines more\n", lines.len() - most);
    }
    out
}

/// The text after its first `units` UTF-16 code units.
fn skip_units(text: &str, units: u64) -> &str {
    let mut left = units;
    let start = text.char_indices().find(|(_, c)| {
        let done = left == 0;
        left = left.saturating_sub(c.len_utf16() as u64);
        done
    });
    start.map_or("", |(at, _)| &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s24_nothing_an_agent_writes_reaches_the_terminal_as_a_control() {
        assert_eq!(
            visible("a\u{1b}[2Jb\u{202e}c\rd\u{7f}"),
            "a␛[2Jb⟨U+202E⟩cd⟨U+007F⟩"
        );
    }

    #[test]
    fn a_growing_message_is_printed_once() {
        let mut renderer = Renderer::default();
        let delta = |offset, text: &str| Live::Text {
            message: "m".into(),
            role: MessageRole::Agent,
            parent: None,
            offset,
            text: text.into(),
        };
        assert_eq!(renderer.live(&delta(0, "Hé")), "< Hé");
        assert_eq!(renderer.live(&delta(2, "llo")), "llo");
        assert_eq!(renderer.live(&delta(0, "Héllo w")), " w");
        let whole = renderer.message(
            "m",
            MessageRole::Agent,
            &[Content::Text {
                text: "Héllo world".into(),
            }],
        );
        assert_eq!(whole, "orld\n");
    }

    #[test]
    fn i05_a_tool_call_of_which_no_end_was_told_is_said_to_be_one_when_its_turn_ends() {
        let mut renderer = Renderer::default();
        let patch = |id: &str, status| ToolPatch {
            title: Some(format!("run {id}")),
            status: Some(status),
            id: id.to_owned(),
            ..ToolPatch::default()
        };
        let end = Event::TurnEnded {
            turn: farhelm_proto::TurnId::from_bytes([1; 16]),
            reason: StopReason::EndTurn,
            detail: None,
        };
        assert_eq!(renderer.tool(&patch("a", ToolStatus::InProgress)), "");
        assert_eq!(renderer.tool(&patch("b", ToolStatus::Pending)), "");
        assert_eq!(
            renderer.tool(&patch("b", ToolStatus::Completed)),
            "+ run b\n"
        );
        let said = renderer.event(&end);
        assert_eq!(said, "… run a: no end was reported\n── done\n");
        assert_eq!(renderer.event(&end), "── done\n", "once");
    }

    #[test]
    fn a_delta_after_a_gap_waits_for_the_whole() {
        let mut renderer = Renderer::default();
        let late = Live::Text {
            message: "m".into(),
            role: MessageRole::Agent,
            parent: None,
            offset: 7,
            text: "x".into(),
        };
        assert_eq!(renderer.live(&late), "");
    }
}
