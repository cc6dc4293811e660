//! An answer on its way out: JSON at once, or server-sent events with pauses.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

/// What the server sends back.
#[derive(Debug)]
pub(crate) enum Reply {
    Json(Value),
    Stream(Vec<Event>),
}

/// One server-sent event and the pause after it.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) text: String,
    pub(crate) pause: Duration,
}

/// Collects the events of a stream.
#[derive(Debug, Default)]
pub(crate) struct Events(Vec<Event>);

impl Events {
    /// An event whose name is the `type` in its data, as Anthropic and OpenAI Responses do it.
    pub(crate) fn named(&mut self, data: &Value) {
        let name = data["type"].as_str().unwrap_or_default();
        self.push(format!("event: {name}\ndata: {data}\n\n"));
    }

    /// An event without a name.
    pub(crate) fn data(&mut self, data: &Value) {
        self.push(format!("data: {data}\n\n"));
    }

    /// The end marker of OpenAI Chat Completions.
    pub(crate) fn done(&mut self) {
        self.push("data: [DONE]\n\n".to_owned());
    }

    /// Waits after the event before.
    pub(crate) fn pause(&mut self, pause: Duration) {
        if let Some(last) = self.0.last_mut() {
            last.pause = pause;
        }
    }

    pub(crate) fn into_reply(self) -> Reply {
        Reply::Stream(self.0)
    }

    fn push(&mut self, text: String) {
        let pause = Duration::ZERO;
        self.0.push(Event { text, pause });
    }
}

/// The pieces in which a text is streamed; at least one.
pub(crate) fn chunks(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters
        .chunks(CHUNK_CHARACTERS)
        .map(|chunk| chunk.iter().collect())
        .collect()
}

/// A fresh id. Agents store them in their sessions, so they must not repeat when another server
/// continues a conversation.
pub(crate) fn fresh_id(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{prefix}{:016x}{count:04x}",
        RandomState::new().hash_one(count)
    )
}

const CHUNK_CHARACTERS: usize = 24;
