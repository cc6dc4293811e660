//! What a request says, whichever vendor's format it came in, and what the script answers.

use std::time::Duration;

use serde_json::Value;

use crate::scenario::{Scenarios, Step, say};
use crate::tools::{Call, Tools};

/// A request, read.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) said: Vec<Said>,
    pub(crate) tools: Tools,
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// The request wants JSON instead of prose: a side request of the agent's own.
    pub(crate) structured: bool,
}

/// One thing in a conversation that matters to the script, in order.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    User(String),
    Results(usize),
}

/// Where in which script a conversation stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub(crate) scenario: Option<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) results: usize,
}

/// A step of the answer, fitted to the tools that the request offers.
#[derive(Debug)]
pub(crate) enum Part {
    Text { text: String, delay: Duration },
    Thinking(String),
    Call(Call),
}

impl Conversation {
    pub(crate) fn place(&self) -> Place {
        let mut place = Place::default();
        for said in &self.said {
            match said {
                Said::Results(count) => place.results += count,
                Said::User(text) => {
                    if let Some(name) = last_after(text, "SCENARIO:", is_name) {
                        place.scenario = Some(name.to_owned());
                        place.results = 0;
                        if let Some(cwd) = last_after(text, "CWD:", is_path)
                            && cwd.starts_with('/')
                        {
                            place.cwd = Some(cwd.to_owned());
                        }
                    }
                }
            }
        }
        place
    }

    /// What the model answers.
    ///
    /// Requests without tools are an agent's own (titles, summaries, reviews): they get a short
    /// text that cannot be mistaken for an answer to the person.
    pub(crate) fn answer(&self, scenarios: &Scenarios) -> Vec<Part> {
        let place = self.place();
        let steps = match &place.scenario {
            _ if self.structured => say(SIDE_JSON),
            _ if self.tools.is_empty() => say("A short title"),
            Some(name) => scenarios.turn(name, place.results),
            None => say("Hello from the model. The prompt names no scenario."),
        };
        steps
            .into_iter()
            .map(|step| match step {
                Step::Text { text, delay } => Part::Text { text, delay },
                Step::Thinking(text) => Part::Thinking(text),
                Step::Call(action) => Part::Call(self.tools.resolve(&action, place.cwd.as_deref())),
            })
            .collect()
    }
}

/// All text of a content value: a string, or a list of blocks.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks
            .iter()
            .filter(|block| block["type"] != "tool_result" && block["type"] != "tool_use")
            .filter_map(|block| block.as_str().or_else(|| block["text"].as_str()))
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// The list at `value[key]`, or none.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The non-empty run of `accepted` characters after the last `marker`.
fn last_after<'a>(text: &'a str, marker: &str, accepted: fn(char) -> bool) -> Option<&'a str> {
    text.rmatch_indices(marker).find_map(|(at, _)| {
        let rest = &text[at + marker.len()..];
        let end = rest.find(|c| !accepted(c)).unwrap_or(rest.len());
        Some(&rest[..end]).filter(|found| !found.is_empty())
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn is_path(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '"' | '\'' | '<')
}

/// Holds the fields that agents look for in their own structured requests: who speaks next, which
/// model suits the task.
const SIDE_JSON: &str = r#"{"reasoning":"none","next_speaker":"user","model_choice":"flash","complexity_reasoning":"none","complexity_score":1}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(said: Vec<Said>) -> Place {
        let conversation = Conversation {
            said,
            ..Conversation::default()
        };
        conversation.place()
    }

    #[test]
    fn last_marked_prompt_starts_the_count_anew() {
        let user = |text: &str| Said::User(text.to_owned());
        assert_eq!(
            place(vec![
                user("SCENARIO:basic CWD:/a please"),
                Said::Results(2),
                user("SCENARIO:edit. Thank you"),
                Said::Results(1),
                user("a reminder without a marker"),
                Said::Results(1),
            ]),
            Place {
                scenario: Some("edit".to_owned()),
                cwd: Some("/a".to_owned()),
                results: 2,
            }
        );
        assert_eq!(place(vec![user("hello SCENARIO:")]), Place::default());
    }
}
