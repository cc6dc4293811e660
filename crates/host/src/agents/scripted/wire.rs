//! The scripted agent's end of the wire. Lines are written whole; requests wait for their answer.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::lock;

/// The output, and the requests that wait for an answer.
pub(super) struct Wire {
    output: Mutex<Box<dyn Write + Send>>,
    record: Option<Mutex<File>>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    answers: BTreeMap<u64, mpsc::Sender<Value>>,
}

impl Wire {
    /// # Errors
    ///
    /// When the file for the record cannot be opened.
    pub(super) fn new(
        output: Box<dyn Write + Send>,
        record: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let record = record
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()
            .context("the record")?;
        Ok(Self {
            output: Mutex::new(output),
            record: record.map(Mutex::new),
            waiting: Mutex::new(Waiting::default()),
        })
    }

    /// Notes a line that came.
    pub(super) fn hears(&self, line: &str) {
        self.note('<', line);
    }

    fn note(&self, sign: char, line: &str) {
        if let Some(record) = &self.record {
            // In one piece: a process that is killed leaves whole lines.
            let text = format!("{sign} {line}\n");
            drop(lock(record).write_all(text.as_bytes()));
        }
    }

    /// Prints a line as it is. When nobody reads, there is nobody to tell.
    pub(super) fn print(&self, line: &str) {
        let mut out = lock(&self.output);
        self.note('>', line);
        drop(writeln!(out, "{line}").and_then(|()| out.flush()));
    }

    fn send(&self, message: &Value) {
        self.print(&message.to_string());
    }

    pub(super) fn respond(&self, id: &Value, result: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    pub(super) fn refuse(&self, id: &Value, code: i64, message: &str) {
        self.send(
            &json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}),
        );
    }

    pub(super) fn notify(&self, method: &str, params: &Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    pub(super) fn update(&self, session: &str, update: &Value) {
        self.notify(
            "session/update",
            &json!({"sessionId": session, "update": update}),
        );
    }

    /// Asks, and waits for the whole answer. Nothing if the turn is cancelled meanwhile.
    pub(super) fn request(&self, method: &str, params: &Value) -> Option<Value> {
        let (answer, answered) = mpsc::channel();
        let id = {
            let mut waiting = lock(&self.waiting);
            let id = waiting.next;
            waiting.next += 1;
            waiting.answers.insert(id, answer);
            id
        };
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        answered.recv().ok()
    }

    pub(super) fn answered(&self, id: &Value, message: &Value) {
        let sender = id
            .as_u64()
            .and_then(|id| lock(&self.waiting).answers.remove(&id));
        if let Some(sender) = sender {
            // A turn that was cancelled does not wait any more.
            drop(sender.send(message.clone()));
        }
    }

    /// Nobody waits any more: whoever asked is told so.
    pub(super) fn forget_requests(&self) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .answers
            .clear();
    }
}
