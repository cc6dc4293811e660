//! A turn of the scripted agent: its steps, one after the other.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::scenario::Step;
use super::wire::Wire;
use super::{Session, lock, owned, text};
use crate::agents::FileWork;
use crate::agents::files;

/// Whether the turn is to stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancel(Arc<(Mutex<bool>, Condvar)>);

impl Cancel {
    pub(super) fn now(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    pub(super) fn is_set(&self) -> bool {
        *lock(&self.0.0)
    }

    /// Waits; whether the turn goes on.
    fn sleep(&self, time: Duration) -> Result<(), Halt> {
        let waited = self
            .0
            .1
            .wait_timeout_while(lock(&self.0.0), time, |set| !*set);
        let (set, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *set { Err(Halt::Cancelled) } else { Ok(()) }
    }
}

/// Why a turn does not go on.
#[derive(Debug)]
pub(super) enum Halt {
    Cancelled,
    Stopped(String),
    Failed { code: i64, message: String },
}

pub(super) struct Turn {
    wire: Arc<Wire>,
    session: Arc<Mutex<Session>>,
    id: String,
    pub(super) dir: PathBuf,
    pub(super) cancel: Cancel,
    steps: Vec<Step>,
    /// Numbers the calls and messages, beginning where the conversation is.
    next: u64,
    turn: usize,
}

impl Turn {
    pub(super) fn new(
        wire: Arc<Wire>,
        session: Arc<Mutex<Session>>,
        held: &Session,
        cancel: Cancel,
        steps: Vec<Step>,
    ) -> Self {
        let (id, dir, turn) = (held.id.clone(), held.dir.clone(), held.taken.values().sum());
        Self {
            wire,
            session,
            id,
            dir,
            cancel,
            steps,
            next: 1,
            turn,
        }
    }

    /// Plays the turn and answers the prompt.
    pub(super) fn play(mut self, prompt: &Value) {
        let steps = core::mem::take(&mut self.steps);
        let halt = steps.into_iter().try_for_each(|step| self.step(step)).err();
        let done = |reason: &str| self.wire.respond(prompt, &json!({"stopReason": reason}));
        match halt {
            None => done("end_turn"),
            Some(Halt::Cancelled) => done("cancelled"),
            Some(Halt::Stopped(reason)) => done(&reason),
            Some(Halt::Failed { code, message }) => self.wire.refuse(prompt, code, &message),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), Halt> {
        if self.cancel.is_set() {
            return Err(Halt::Cancelled);
        }
        match step {
            Step::Text { text, delay_ms } => self.say("agent_message_chunk", &text, delay_ms),
            Step::Thought { text, delay_ms } => self.say("agent_thought_chunk", &text, delay_ms),
            Step::Plan { entries } => {
                let entry = |(status, content): &(String, String)| json!({"content": content, "status": status, "priority": "medium"});
                self.tell(&json!({"sessionUpdate": "plan", "entries": entries.iter().map(entry).collect::<Vec<_>>()}));
                Ok(())
            }
            Step::Write { path, text, client } => self.write(&path, None, &text, client),
            Step::Edit { path, old, new } => self.edit(&path, &old, &new),
            Step::Shell { command } => self.shell(&command),
            Step::Read { path, client } => self.read(&path, client),
            Step::Ask { call, options } => self.ask_as_written(call, options),
            Step::Question { message, schema } => {
                self.elicit(json!({"mode": "form", "message": message, "requestedSchema": schema}))
            }
            Step::Visit { message, url } => self.elicit(
                json!({"mode": "url", "message": message, "url": url, "elicitationId": "visit-1"}),
            ),
            Step::Output { bytes } => self.output(bytes),
            Step::Count {
                to,
                per_second,
                tool,
            } => self.count(to, per_second, tool),
            Step::Mode { mode } => {
                lock(&self.session).mode.clone_from(&mode);
                self.tell(&json!({"sessionUpdate": "current_mode_update", "currentModeId": mode}));
                Ok(())
            }
            Step::Update { update } => {
                self.tell(&update);
                Ok(())
            }
            Step::Notify { method, params } => {
                self.wire.notify(&method, &params);
                Ok(())
            }
            Step::Request { method, params } => {
                let answer = self.wire.request(&method, &params).ok_or(Halt::Cancelled)?;
                let shown = answer
                    .get("result")
                    .or_else(|| answer.get("error"))
                    .cloned()
                    .unwrap_or_default();
                self.say("agent_message_chunk", &shown.to_string(), 0)
            }
            Step::Usage { used, size, cost } => {
                let cost = cost.map(|amount| json!({"amount": amount, "currency": "USD"}));
                self.tell(&json!({"sessionUpdate": "usage_update", "used": used, "size": size, "cost": cost}));
                Ok(())
            }
            Step::Garbage { text, times } => {
                (0..times).for_each(|_| self.wire.print(&text));
                Ok(())
            }
            Step::LongLine { bytes } => {
                self.wire.print(&"x".repeat(bytes));
                Ok(())
            }
            Step::Stderr { text } => {
                // There is nobody to tell.
                drop(std::io::stderr().write_all(text.as_bytes()));
                Ok(())
            }
            Step::Sleep { ms } => self.cancel.sleep(Duration::from_millis(ms)),
            Step::Crash { signal, code } => crash(signal, code),
            Step::Hang {} => loop {
                self.cancel.sleep(Duration::from_secs(3600))?;
            },
            Step::Error { code, message } => Err(Halt::Failed { code, message }),
            Step::Stop { reason } => Err(Halt::Stopped(reason)),
        }
    }

    /// Sends an update and remembers it, as far as it belongs to the conversation.
    fn tell(&self, update: &Value) {
        let kind = text(update, "sessionUpdate").unwrap_or_default();
        if [
            "agent_message_chunk",
            "agent_thought_chunk",
            "tool_call",
            "tool_call_update",
            "plan",
        ]
        .contains(&kind)
        {
            lock(&self.session).memory.keep(update);
        }
        self.wire.update(&self.id, update);
    }

    fn name(&mut self, kind: &str) -> String {
        let name = format!("{kind}-{}-{}", self.turn, self.next);
        self.next += 1;
        name
    }

    fn say(&mut self, kind: &str, words: &str, delay_ms: u64) -> Result<(), Halt> {
        let message = self.name("message");
        for piece in words.split_inclusive(' ').collect::<Vec<_>>().chunks(4) {
            self.cancel.sleep(Duration::from_millis(delay_ms))?;
            let content = json!({"type": "text", "text": piece.concat()});
            self.tell(&json!({"sessionUpdate": kind, "messageId": message, "content": content}));
        }
        Ok(())
    }

    /// Announces a call and asks for it unless it need not be asked. Whether it may go ahead.
    pub(super) fn begin(
        &mut self,
        call: &mut Value,
        options: Option<Value>,
        ask: bool,
    ) -> Result<bool, Halt> {
        call["toolCallId"] = json!(self.name("call"));
        call["status"] = json!("pending");
        let mut announced = call.clone();
        announced["sessionUpdate"] = json!("tool_call");
        self.tell(&announced);
        let kind = owned(call, "kind").unwrap_or_default();
        let unasked = {
            let session = lock(&self.session);
            session.mode != super::ASKING || session.always.contains(&kind)
        };
        let allowed = !ask || unasked || self.permitted(call, &kind, options)?;
        self.progress(call, if allowed { "in_progress" } else { "failed" }, None);
        Ok(allowed)
    }

    fn permitted(&self, call: &Value, kind: &str, options: Option<Value>) -> Result<bool, Halt> {
        let usual = || {
            json!([
                {"optionId": "allow-once", "name": "Allow once", "kind": "allow_once"},
                {"optionId": "allow-always", "name": format!("Always allow calls of kind {kind}"), "kind": "allow_always"},
                {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
            ])
        };
        let options = options.unwrap_or_else(usual);
        let params = json!({"sessionId": self.id, "toolCall": call, "options": options});
        let answer = self
            .wire
            .request("session/request_permission", &params)
            .ok_or(Halt::Cancelled)?;
        let outcome = answer
            .pointer("/result/outcome")
            .cloned()
            .unwrap_or_default();
        let Some(chosen) = text(&outcome, "optionId") else {
            return if self.cancel.is_set() {
                Err(Halt::Cancelled)
            } else {
                Ok(false)
            };
        };
        let chosen = options
            .as_array()
            .into_iter()
            .flatten()
            .find(|option| text(option, "optionId") == Some(chosen));
        let chosen = chosen
            .and_then(|option| text(option, "kind"))
            .unwrap_or_default();
        if chosen == "allow_always" {
            lock(&self.session).always.push(kind.to_owned());
        }
        Ok(chosen.starts_with("allow"))
    }

    pub(super) fn progress(&self, call: &Value, status: &str, shown: Option<&str>) {
        let mut update = json!({"sessionUpdate": "tool_call_update", "toolCallId": call["toolCallId"], "status": status});
        if let Some(shown) = shown {
            update["content"] =
                json!([{"type": "content", "content": {"type": "text", "text": shown}}]);
        }
        self.tell(&update);
    }

    fn absolute(&self, path: &str) -> String {
        self.dir.join(path).to_string_lossy().into_owned()
    }

    fn write(
        &mut self,
        path: &str,
        old: Option<String>,
        new: &str,
        client: bool,
    ) -> Result<(), Halt> {
        let file = self.absolute(path);
        let read = FileWork::Read {
            path: file.clone(),
            line: None,
            limit: None,
        };
        let old = old.or_else(|| files::perform(&self.dir, &read).ok());
        let mut call = json!({
            "title": format!("Write {path}"),
            "kind": "edit",
            "rawInput": {"path": file},
            "content": [{"type": "diff", "path": file, "oldText": old, "newText": new}],
            "locations": [{"path": file}],
        });
        if !self.begin(&mut call, None, true)? {
            return Ok(());
        }
        let failure = if client {
            let params = json!({"sessionId": self.id, "path": file, "content": new});
            let answer = self
                .wire
                .request("fs/write_text_file", &params)
                .ok_or(Halt::Cancelled)?;
            answer.pointer("/error/message").map(Value::to_string)
        } else {
            let work = FileWork::Write {
                path: file,
                text: new.to_owned(),
            };
            files::perform(&self.dir, &work)
                .err()
                .map(|error| error.to_string())
        };
        match failure {
            None => self.progress(&call, "completed", None),
            Some(failure) => self.progress(&call, "failed", Some(&failure)),
        }
        Ok(())
    }

    fn edit(&mut self, path: &str, old: &str, new: &str) -> Result<(), Halt> {
        let work = FileWork::Read {
            path: self.absolute(path),
            line: None,
            limit: None,
        };
        match files::perform(&self.dir, &work) {
            Ok(held) if held.contains(old) => {
                let changed = held.replacen(old, new, 1);
                self.write(path, Some(held), &changed, false)
            }
            Ok(_) => self.fail(path, "what is to be replaced is not in it"),
            Err(error) => self.fail(path, &error.to_string()),
        }
    }

    fn fail(&mut self, path: &str, why: &str) -> Result<(), Halt> {
        let mut call = json!({"title": format!("Edit {path}"), "kind": "edit"});
        self.begin(&mut call, None, false)?;
        self.progress(&call, "failed", Some(why));
        Ok(())
    }

    fn read(&mut self, path: &str, client: bool) -> Result<(), Halt> {
        let file = self.absolute(path);
        let mut call = json!({"title": format!("Read {path}"), "kind": "read", "rawInput": {"path": file}, "locations": [{"path": file}]});
        self.begin(&mut call, None, false)?;
        let outcome = if client {
            let params = json!({"sessionId": self.id, "path": path, "path": file});
            let answer = self
                .wire
                .request("fs/read_text_file", &params)
                .ok_or(Halt::Cancelled)?;
            let failure = || {
                answer
                    .pointer("/error/message")
                    .and_then(Value::as_str)
                    .unwrap_or("failed")
                    .to_owned()
            };
            answer
                .pointer("/result/content")
                .and_then(Value::as_str)
                .map(str::to_owned)
                .ok_or_else(failure)
        } else {
            let work = FileWork::Read {
                path: file,
                line: None,
                limit: None,
            };
            files::perform(&self.dir, &work).map_err(|error| error.to_string())
        };
        match outcome {
            Ok(shown) => self.progress(&call, "completed", Some(&shown)),
            Err(failure) => self.progress(&call, "failed", Some(&failure)),
        }
        Ok(())
    }

    fn ask_as_written(&mut self, mut call: Value, options: Option<Value>) -> Result<(), Halt> {
        let allowed = self.begin(&mut call, options, true)?;
        if allowed {
            self.progress(&call, "completed", None);
        }
        self.say(
            "agent_message_chunk",
            if allowed {
                "It was allowed."
            } else {
                "It was not allowed."
            },
            0,
        )
    }

    fn elicit(&mut self, mut params: Value) -> Result<(), Halt> {
        params["sessionId"] = json!(self.id);
        let answer = self
            .wire
            .request("elicitation/create", &params)
            .ok_or(Halt::Cancelled)?;
        let answer = answer.get("result").cloned().unwrap_or_default();
        let words = match text(&answer, "action") {
            Some("accept") => format!(
                "You answered {}.",
                answer.get("content").unwrap_or(&Value::Null)
            ),
            Some(_) | None => "You did not answer.".to_owned(),
        };
        self.say("agent_message_chunk", &words, 0)
    }

    fn output(&mut self, bytes: usize) -> Result<(), Halt> {
        let mut call = json!({"title": format!("Put out {bytes} bytes"), "kind": "execute"});
        self.begin(&mut call, None, false)?;
        let mut shown = String::with_capacity(bytes + 1024);
        let mut line = 1_u64;
        // Of short lines a very long output would take longer to make than to take.
        let dots = ".".repeat(if bytes > LONG_OUTPUT { 1000 } else { 0 });
        while shown.len() < bytes {
            shown.push_str(&format!("line {line}{dots}\n"));
            line += 1;
        }
        shown.truncate(bytes);
        self.progress(&call, "completed", Some(&shown));
        Ok(())
    }

    fn count(&mut self, to: u64, per_second: u64, tool: bool) -> Result<(), Halt> {
        let mut call = json!({"title": format!("Count to {to}"), "kind": "execute"});
        if tool {
            self.begin(&mut call, None, false)?;
        }
        let message = self.name("message");
        let pause = 1_000_000_u64
            .checked_div(per_second)
            .map(Duration::from_micros)
            .unwrap_or_default();
        let begun = Instant::now();
        for number in 1..=to {
            // By the clock: the system sleeps for longer than it is asked to.
            let due = pause.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
            self.cancel.sleep(due.saturating_sub(begun.elapsed()))?;
            let words = format!("{number}\n");
            if tool {
                self.progress(&call, "in_progress", Some(&words));
            } else {
                let content = json!({"type": "text", "text": words});
                self.tell(&json!({"sessionUpdate": "agent_message_chunk", "messageId": message, "content": content}));
            }
        }
        if tool {
            self.progress(&call, "completed", Some(&format!("{to}\n")));
        }
        Ok(())
    }
}

/// Ends the program.
fn crash(signal: Option<i32>, code: i32) -> ! {
    let signal = signal.and_then(Signal::from_named_raw);
    if let Some(signal) = signal {
        // If the signal does not end us, the code does.
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap_or_default();
        std::thread::sleep(Duration::from_secs(1));
    }
    std::process::exit(code)
}

/// An output of more bytes has long lines.
const LONG_OUTPUT: usize = 8 << 20;
