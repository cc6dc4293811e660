//! The scripted agent's record: what it heard and said, by its own word.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// What an agent heard and said, over all its runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agent {
    /// The prompts that it was given, in order.
    pub heard: Vec<String>,
    /// What it said, in order.
    pub said: Vec<Message>,
    /// What it asked, in order.
    pub asked: Vec<Asked>,
    /// How often it was started.
    pub runs: usize,
}

/// A message of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// In which of its runs, from 1.
    pub run: usize,
    /// Its id.
    pub id: String,
    /// All of it.
    pub text: String,
}

/// A question of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// In which of the agent's runs, from 1.
    pub run: usize,
    /// The question's title.
    pub title: String,
    /// Every answer that it got: an option, or `cancelled`.
    pub answers: Vec<String>,
}

impl Agent {
    /// Reads a record; an agent that never ran has an empty one.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut agent = Self::default();
        // Places in `asked` by the id of the request; ids begin anew with each run.
        let mut open = BTreeMap::new();
        for line in text.lines() {
            let Some((sign, message)) = line.split_once(' ') else {
                continue;
            };
            let Ok(message) = serde_json::from_str::<Value>(message) else {
                continue;
            };
            match sign {
                "<" => agent.hears(&message, &mut open),
                _ => agent.says(&message, &mut open),
            }
        }
        agent
    }

    fn hears(&mut self, message: &Value, open: &mut BTreeMap<u64, usize>) {
        match message["method"].as_str() {
            Some("initialize") => {
                self.runs += 1;
                open.clear();
            }
            Some("session/prompt") => {
                let blocks = message["params"]["prompt"].as_array();
                let words = blocks
                    .into_iter()
                    .flatten()
                    .filter_map(|block| block["text"].as_str());
                self.heard.push(words.collect());
            }
            Some(_) => {}
            None => {
                let asked = message["id"].as_u64().and_then(|id| open.get(&id));
                if let Some(asked) = asked.and_then(|place| self.asked.get_mut(*place)) {
                    let outcome = &message["result"]["outcome"];
                    let answer = outcome["optionId"].as_str().or(outcome["outcome"].as_str());
                    asked.answers.push(answer.unwrap_or("error").to_owned());
                }
            }
        }
    }

    fn says(&mut self, message: &Value, open: &mut BTreeMap<u64, usize>) {
        match message["method"].as_str() {
            Some("session/update") => {
                let update = &message["params"]["update"];
                if update["sessionUpdate"] == "agent_message_chunk" {
                    let id = update["messageId"].as_str().unwrap_or_default();
                    let text = update["content"]["text"].as_str().unwrap_or_default();
                    match self.said.last_mut().filter(|last| last.id == id) {
                        Some(message) => message.text.push_str(text),
                        None => self.said.push(Message {
                            run: self.runs,
                            id: id.to_owned(),
                            text: text.to_owned(),
                        }),
                    }
                }
            }
            Some("session/request_permission") => {
                if let Some(id) = message["id"].as_u64() {
                    open.insert(id, self.asked.len());
                }
                let title = message["params"]["toolCall"]["title"].as_str();
                self.asked.push(Asked {
                    run: self.runs,
                    title: title.unwrap_or_default().to_owned(),
                    answers: Vec::new(),
                });
            }
            Some(_) | None => {}
        }
    }
}
