//! Scripts: what the model says and does, turn by turn, in words that fit every agent.
//!
//! A scenario file maps a name to turns; a turn is a list of steps; a step is one of
//!
//! ```json
//! {"text": "…", "delay": 0.1}                              seconds between chunks
//! {"thinking": "…"}
//! {"do": "write", "path": "a.txt", "content": "…"}
//! {"do": "edit", "path": "a.txt", "old": "…", "new": "…"}
//! {"do": "read", "path": "a.txt"}
//! {"do": "shell", "command": "…", "escalate": true}        ask to leave the agent's sandbox
//! {"do": "ask", "question": "…", "header": "…", "choices": ["…"]}
//! {"do": "todo", "items": ["…"]}
//! {"do": "subagent", "prompt": "…"}
//! {"tool": "ExactName", "input": {…}}                      as it stands
//! ```
//!
//! Which tool of which agent a `do` becomes is for the tools module to know.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// Every scenario by name.
#[derive(Clone, Debug, Default)]
pub struct Scenarios(BTreeMap<String, Vec<Turn>>);

pub(crate) type Turn = Vec<Step>;

/// One thing the model says or does within a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Prose, streamed in chunks with `delay` after each.
    Text { text: String, delay: Duration },
    /// Reasoning.
    Thinking(String),
    /// A tool call, which the agent answers with a result.
    Call(Action),
}

/// What a tool call is to achieve.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates a file.
    Write { path: String, content: String },
    /// Replaces one piece of a file.
    Edit {
        path: String,
        old: String,
        new: String,
    },
    /// Reads a file.
    Read { path: String },
    /// Runs a shell command.
    Shell { command: String, escalate: bool },
    /// Asks the person a question with choices.
    Ask {
        question: String,
        header: String,
        choices: Vec<String>,
    },
    /// Writes a list of things to do, the first of them in progress.
    Todo(Vec<String>),
    /// Hands a prompt to a subagent.
    Subagent(String),
    /// Calls this tool with exactly this input.
    Exact { tool: String, input: Value },
}

impl Scenarios {
    /// The scenarios that come with this crate: `crates/model/scenarios.json`.
    #[must_use]
    pub fn standard() -> Self {
        Self::parse(include_str!("../scenarios.json")).expect("the file is checked by a test")
    }

    /// Reads a scenario file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or does not say what a scenario file says.
    pub fn load(path: &Path) -> io::Result<Self> {
        std::fs::read_to_string(path)
            .and_then(|text| Self::parse(&text))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Parses the text of a scenario file.
    ///
    /// # Errors
    ///
    /// When the text is not JSON, a step has fields that make no sense together, or a turn before
    /// the last calls no tool: nothing would ever bring the model past it.
    pub fn parse(text: &str) -> io::Result<Self> {
        let raw: BTreeMap<String, Vec<Vec<RawStep>>> =
            serde_json::from_str(text).map_err(|error| invalid(&error.to_string()))?;
        let mut scenarios = Self::default();
        for (name, turns) in raw {
            let turns = turns
                .into_iter()
                .map(|turn| turn.into_iter().map(RawStep::resolve).collect())
                .collect::<Result<Vec<Turn>, String>>()
                .map_err(|error| invalid(&format!("scenario {name}: {error}")))?;
            scenarios.insert(&name, turns)?;
        }
        Ok(scenarios)
    }

    /// Adds or replaces a scenario.
    ///
    /// # Errors
    ///
    /// When a turn before the last calls no tool.
    pub fn insert(&mut self, name: &str, turns: Vec<Vec<Step>>) -> io::Result<()> {
        let before_last = turns.len().saturating_sub(1);
        let stuck = turns[..before_last]
            .iter()
            .position(|turn| calls(turn) == 0);
        if let Some(index) = stuck {
            return Err(invalid(&format!(
                "scenario {name}: turn {} calls no tool, so the turns after it are never played",
                index + 1
            )));
        }
        self.0.insert(name.to_owned(), turns);
        Ok(())
    }

    /// The names of all scenarios, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The turn to play after `results` tool results.
    pub(crate) fn turn(&self, name: &str, results: usize) -> Turn {
        let Some(turns) = self.0.get(name) else {
            return say(&format!("There is no scenario called {name}."));
        };
        let mut calls_before = 0;
        for turn in turns {
            if calls_before >= results {
                return turn.clone();
            }
            calls_before += calls(turn);
        }
        say("The script ends here.")
    }
}

pub(crate) fn say(text: &str) -> Turn {
    vec![Step::Text {
        text: text.to_owned(),
        delay: Duration::ZERO,
    }]
}

fn calls(turn: &Turn) -> usize {
    turn.iter()
        .filter(|step| matches!(step, Step::Call(_)))
        .count()
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A step as it stands in the file: one flat table, so that a mistake is named instead of
/// matching none of several shapes.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawStep {
    text: Option<String>,
    delay: Option<f64>,
    thinking: Option<String>,
    #[serde(rename = "do")]
    action: Option<String>,
    path: Option<String>,
    content: Option<String>,
    old: Option<String>,
    new: Option<String>,
    command: Option<String>,
    #[serde(default)]
    escalate: bool,
    question: Option<String>,
    header: Option<String>,
    choices: Option<Vec<String>>,
    items: Option<Vec<String>>,
    prompt: Option<String>,
    tool: Option<String>,
    input: Option<Value>,
}

impl RawStep {
    fn resolve(self) -> Result<Step, String> {
        let Some(action) = &self.action else {
            return self.resolve_plain();
        };
        let missing = |field: &str| format!("do: {action} needs {field}");
        Ok(Step::Call(match action.as_str() {
            "write" => Action::Write {
                path: self.path.ok_or_else(|| missing("path"))?,
                content: self.content.ok_or_else(|| missing("content"))?,
            },
            "edit" => Action::Edit {
                path: self.path.ok_or_else(|| missing("path"))?,
                old: self.old.ok_or_else(|| missing("old"))?,
                new: self.new.ok_or_else(|| missing("new"))?,
            },
            "read" => Action::Read {
                path: self.path.ok_or_else(|| missing("path"))?,
            },
            "shell" => Action::Shell {
                command: self.command.ok_or_else(|| missing("command"))?,
                escalate: self.escalate,
            },
            "ask" => Action::Ask {
                question: self.question.ok_or_else(|| missing("question"))?,
                header: self.header.unwrap_or_else(|| "Question".to_owned()),
                choices: self.choices.ok_or_else(|| missing("choices"))?,
            },
            "todo" => Action::Todo(self.items.ok_or_else(|| missing("items"))?),
            "subagent" => Action::Subagent(self.prompt.ok_or_else(|| missing("prompt"))?),
            other => return Err(format!("nothing is known of do: {other}")),
        }))
    }

    fn resolve_plain(self) -> Result<Step, String> {
        match (self.text, self.thinking, self.tool) {
            (Some(text), None, None) => Ok(Step::Text {
                text,
                delay: Duration::try_from_secs_f64(self.delay.unwrap_or(0.0))
                    .map_err(|error| format!("delay: {error}"))?,
            }),
            (None, Some(thinking), None) => Ok(Step::Thinking(thinking)),
            (None, None, Some(tool)) => Ok(Step::Call(Action::Exact {
                tool,
                input: self.input.unwrap_or_else(|| serde_json::json!({})),
            })),
            _ => Err("a step is exactly one of text, thinking, do, tool".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Scenarios, String> {
        Scenarios::parse(text).map_err(|error| error.to_string())
    }

    #[test]
    fn standard_file_holds_every_scenario_the_tests_name() {
        let scenarios = Scenarios::standard();
        let names: Vec<_> = scenarios.names().collect();
        for name in [
            "ask", "basic", "edit", "parallel", "plan", "slow", "sleepcmd", "subagent", "text",
            "think", "todo",
        ] {
            assert!(names.contains(&name), "{name} is missing from {names:?}");
        }
    }

    #[test]
    fn turn_follows_from_the_number_of_results() {
        let scenarios = parsed(
            r#"{"two": [
                [{"do": "read", "path": "a"}, {"do": "read", "path": "b"}],
                [{"do": "read", "path": "c"}],
                [{"text": "end"}]
            ]}"#,
        )
        .unwrap();
        let calls = |results| scenarios.turn("two", results).len();
        assert_eq!(calls(0), 2);
        assert_eq!(scenarios.turn("two", 1), scenarios.turn("two", 2));
        assert_eq!(scenarios.turn("two", 3), say("end"));
        assert_eq!(scenarios.turn("two", 4), say("The script ends here."));
        assert_eq!(
            scenarios.turn("none", 0),
            say("There is no scenario called none.")
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text| parsed(text).unwrap_err();
        assert_eq!(
            error(r#"{"a": [[{"do": "write", "path": "x"}]]}"#),
            "scenario a: do: write needs content"
        );
        assert_eq!(
            error(r#"{"a": [[{"do": "fly"}]]}"#),
            "scenario a: nothing is known of do: fly"
        );
        assert_eq!(
            error(r#"{"a": [[{"text": "x", "tool": "y"}]]}"#),
            "scenario a: a step is exactly one of text, thinking, do, tool"
        );
        assert_eq!(
            error(r#"{"a": [[{"text": "x"}], [{"text": "y"}]]}"#),
            "scenario a: turn 1 calls no tool, so the turns after it are never played"
        );
        assert!(error(r#"{"a": [[{"txt": "x"}]]}"#).contains("unknown field `txt`"));
    }
}
