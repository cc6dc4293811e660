//! What the scripted agent remembers of a conversation, so that it can be loaded again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{state_folder, text};

/// A conversation's updates, in memory and, where there is a state folder, in a file of JSON lines.
#[derive(Debug, Default)]
pub(super) struct Memory {
    path: Option<PathBuf>,
    lines: Vec<Value>,
}

impl Memory {
    pub(super) fn begin(session: &str) -> Self {
        Self {
            path: path_of(session),
            lines: Vec::new(),
        }
    }

    /// What is known of an earlier conversation.
    pub(super) fn recall(session: &str) -> Option<Self> {
        let path = path_of(session)?;
        let text = fs::read_to_string(&path).ok()?;
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Some(Self {
            path: Some(path),
            lines,
        })
    }

    pub(super) fn keep(&mut self, update: &Value) {
        self.push(json!({"update": update}));
    }

    /// A turn of this scenario begins.
    pub(super) fn turn(&mut self, scenario: &str) {
        self.push(json!({"turn": scenario}));
    }

    fn push(&mut self, line: Value) {
        if let Some(path) = &self.path {
            let folder = path.parent().map(fs::create_dir_all);
            let file = OpenOptions::new().create(true).append(true).open(path);
            let text = format!("{line}\n");
            // A conversation that cannot be kept can still be held.
            drop((
                folder,
                file.and_then(|mut file| file.write_all(text.as_bytes())),
            ));
        }
        self.lines.push(line);
    }

    pub(super) fn updates(&self) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter_map(|line| line.get("update"))
    }

    pub(super) fn taken(&self) -> BTreeMap<String, usize> {
        let mut taken = BTreeMap::new();
        for name in self.lines.iter().filter_map(|line| text(line, "turn")) {
            *taken.entry(name.to_owned()).or_default() += 1;
        }
        taken
    }
}

fn path_of(session: &str) -> Option<PathBuf> {
    let plain = !session.is_empty()
        && session
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || char == '-');
    state_folder()
        .filter(|_| plain)
        .map(|folder| folder.join(format!("{session}.jsonl")))
}

/// A name for a new conversation.
pub(super) fn fresh_name() -> String {
    let mut bytes = [0; 16];
    // Without randomness the name is not fresh, and still one.
    getrandom::fill(&mut bytes).unwrap_or_default();
    format!("scripted-{}", crate::agents::uuid_of(&bytes))
}
