//! Scenarios: what the scripted agent does, as JSON.
//!
//! ```json
//! {"scenarios": {"default": [
//!   [{"do": "text", "text": "I will write a file."}, {"do": "write", "path": "a.txt", "text": "hello\n"}],
//!   [{"do": "shell", "command": "cat a.txt"}]
//! ]}}
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// A scenario file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// How the agent comes up.
    #[serde(default)]
    pub start: Start,
    /// Lists of turns by name; a turn is a list of steps. After the last turn comes the first.
    pub scenarios: BTreeMap<String, Vec<Vec<Step>>>,
}

/// How the agent comes up.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Start {
    /// Lines that it prints before anything else.
    pub garbage: Vec<String>,
    /// The method that it never answers.
    pub hang: Option<String>,
    /// The method that it refuses.
    pub fail: Option<Refusal>,
    /// The version of the protocol that it answers with.
    pub version: u64,
    /// Whether it offers `session/load`.
    pub load: bool,
    /// Whether it offers `session/resume`.
    pub resume: bool,
    /// The mode that it starts in: `default` or `auto`.
    pub mode: String,
    /// The ways to log in that it names.
    pub logins: Vec<String>,
    /// The file to which it appends every line that it hears (`< …`) and says (`> …`), before it acts on it.
    pub record: Option<PathBuf>,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            garbage: Vec::new(),
            hang: None,
            fail: None,
            version: 1,
            load: true,
            resume: false,
            mode: "default".to_owned(),
            logins: Vec::new(),
            record: None,
        }
    }
}

/// An error in answer to a method.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The method.
    pub method: String,
    /// The error's code.
    pub code: i64,
    /// The error's message.
    pub message: String,
}

/// Something that the agent does.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Say something, in pieces.
    Text {
        /// The words.
        text: String,
        /// How long it waits before each piece.
        #[serde(default)]
        delay_ms: u64,
    },
    /// Think aloud, in pieces.
    Thought {
        /// The words.
        text: String,
        /// How long it waits before each piece.
        #[serde(default)]
        delay_ms: u64,
    },
    /// Show a plan: lines with their status.
    Plan {
        /// Pairs of status and content.
        entries: Vec<(String, String)>,
    },
    /// Write a file, after asking.
    Write {
        /// The file, from the session's folder.
        path: String,
        /// What it holds afterwards.
        text: String,
        /// Whether the client does it, by `fs/write_text_file`.
        #[serde(default)]
        client: bool,
    },
    /// Change a file, after asking.
    Edit {
        /// The file, from the session's folder.
        path: String,
        /// What is replaced.
        old: String,
        /// What replaces it.
        new: String,
    },
    /// Run a command, after asking.
    Shell {
        /// The command.
        command: String,
    },
    /// Read a file.
    Read {
        /// The file, from the session's folder.
        path: String,
        /// Whether the client does it, by `fs/read_text_file`.
        #[serde(default)]
        client: bool,
    },
    /// Ask for permission, in these words.
    Ask {
        /// The tool call: `title`, `kind`, `rawInput`, `content`.
        call: Value,
        /// The options, if not the usual ones.
        #[serde(default)]
        options: Option<Value>,
    },
    /// Have a form filled in, and repeat what was answered.
    Question {
        /// What it says.
        message: String,
        /// The JSON schema.
        schema: Value,
    },
    /// Have an address opened, and repeat what was answered.
    Visit {
        /// What it says.
        message: String,
        /// The address.
        url: String,
    },
    /// A tool with this much output.
    Output {
        /// How much.
        bytes: usize,
    },
    /// Numbered outputs.
    Count {
        /// How many.
        to: u64,
        /// How many a second; as fast as they go if 0.
        #[serde(default)]
        per_second: u64,
        /// Whether they are a tool's output, not the agent's words.
        #[serde(default)]
        tool: bool,
    },
    /// Change its own mode.
    Mode {
        /// To what.
        mode: String,
    },
    /// Send this update.
    Update {
        /// The update.
        update: Value,
    },
    /// Send this notification.
    Notify {
        /// Its method.
        method: String,
        /// Its parameters.
        #[serde(default)]
        params: Value,
    },
    /// Send this request, and repeat what was answered.
    Request {
        /// Its method.
        method: String,
        /// Its parameters.
        #[serde(default)]
        params: Value,
    },
    /// Report use and cost.
    Usage {
        /// Tokens in use.
        used: u64,
        /// Tokens there are.
        size: u64,
        /// Cost so far, in USD.
        #[serde(default)]
        cost: Option<f64>,
    },
    /// Print a line that is not the protocol.
    Garbage {
        /// The line.
        text: String,
        /// How many times.
        #[serde(default = "once")]
        times: u32,
    },
    /// Print a line of this many bytes.
    LongLine {
        /// How many.
        bytes: usize,
    },
    /// Write to standard error.
    Stderr {
        /// What.
        text: String,
    },
    /// Do nothing for a while.
    Sleep {
        /// How long.
        ms: u64,
    },
    /// End the program.
    Crash {
        /// By this signal.
        #[serde(default)]
        signal: Option<i32>,
        /// With this code.
        #[serde(default)]
        code: i32,
    },
    /// Do nothing until the turn is cancelled.
    Hang {},
    /// Answer the prompt with an error.
    Error {
        /// Its code.
        code: i64,
        /// Its message.
        message: String,
    },
    /// End the turn for this reason.
    Stop {
        /// ACP's word for it.
        reason: String,
    },
}

impl Step {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others repeat nothing")]
    fn fill_in(&mut self, prompt: &str) {
        match self {
            Self::Text { text, .. } | Self::Thought { text, .. } => {
                *text = text.replace(PROMPT, prompt);
            }
            Self::Shell { command } => *command = command.replace(PROMPT, prompt),
            Self::Ask { call, .. } => {
                if let Some(Value::String(title)) = call.get_mut("title") {
                    *title = title.replace(PROMPT, prompt);
                }
            }
            _ => {}
        }
    }
}

const fn once() -> u32 {
    1
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not a scenario.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        serde_json::from_str(&text).context("it is not a scenario")
    }

    /// The one for first tries.
    #[must_use]
    pub fn built_in() -> Self {
        serde_json::from_str(BUILT_IN).unwrap_or_default()
    }

    /// The scenario that a prompt asks for.
    pub(super) fn pick<'a>(&self, prompt: &'a str) -> &'a str {
        let named = prompt
            .split_once("SCENARIO:")
            .map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default());
        named
            .filter(|name| self.scenarios.contains_key(*name))
            .unwrap_or(DEFAULT)
    }

    /// The steps of a turn, with the words of the prompt where they say `{prompt}`.
    pub(super) fn turn(&self, name: &str, taken: usize, prompt: &str) -> Vec<Step> {
        let turns = self.scenarios.get(name).map_or(&[][..], Vec::as_slice);
        let steps = turns.get(taken.checked_rem(turns.len()).unwrap_or_default());
        let mut steps = steps.cloned().unwrap_or_default();
        for step in &mut steps {
            step.fill_in(prompt);
        }
        steps
    }
}

pub(super) const DEFAULT: &str = "default";
/// Where a step repeats the prompt.
const PROMPT: &str = "{prompt}";

/// What a first try shows, in any folder.
const BUILT_IN: &str = include_str!("built_in.json");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_scenario_can_be_read_and_turns_come_round() {
        let scenario = Scenario::built_in();
        let turns = scenario.scenarios[DEFAULT].len();
        assert!(turns > 1);
        assert_eq!(
            scenario.turn(DEFAULT, 0, "").len(),
            scenario.turn(DEFAULT, turns, "").len()
        );
        assert!(scenario.turn("nothing", 3, "").is_empty());
    }

    #[test]
    fn a_step_repeats_the_prompt_where_it_says_so() {
        let scenario: Scenario = serde_json::from_str(
            r#"{"scenarios":{"default":[[{"do":"text","text":"doing {prompt}"},{"do":"ask","call":{"title":"{prompt}?"}}]]}}"#,
        )
        .unwrap();
        let steps = scenario.turn(DEFAULT, 0, "m17");
        assert!(matches!(&steps[0], Step::Text { text, .. } if text == "doing m17"));
        assert!(matches!(&steps[1], Step::Ask { call, .. } if call["title"] == "m17?"));
    }

    #[test]
    fn the_demo_can_be_read_and_its_edit_fits_its_file() {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo");
        let scenario = Scenario::read(&demo.join("scenario.json")).unwrap();
        let mut edits = 0;
        for step in scenario.scenarios.into_values().flatten().flatten() {
            if let Step::Edit { path, old, .. } = step {
                assert!(
                    std::fs::read_to_string(demo.join(path))
                        .unwrap()
                        .contains(&old)
                );
                edits += 1;
            }
        }
        assert_eq!(edits, 1);
    }

    #[test]
    fn a_prompt_names_its_scenario() {
        let scenario: Scenario =
            serde_json::from_str(r#"{"scenarios":{"default":[],"crash":[]}}"#).unwrap();
        assert_eq!(scenario.pick("please SCENARIO:crash now"), "crash");
        assert_eq!(scenario.pick("SCENARIO:unknown"), DEFAULT);
        assert_eq!(scenario.pick("hello"), DEFAULT);
    }
}
