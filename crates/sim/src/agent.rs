//! An agent of any provider, played: it speaks ACP by lines, follows a script that comes from the
//! seed, and writes down all that it says and all that it is told, for the oracle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farhelm_proto::SessionId;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::universe::Universe;

/// What all agents said and were told, in their own order.
#[derive(Default)]
pub struct Ledger {
    inner: Mutex<BTreeMap<SessionId, Page>>,
}

/// What the agents of one session said and were told.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// All text of the agent's messages, one after the other.
    pub text: String,
    /// Questions by the id of the call that they are about.
    pub asked: Vec<String>,
    /// The options that were chosen, by the same id; none when it was told that nobody answers.
    pub answered: BTreeMap<String, Option<String>>,
    /// Prompts that it was given.
    pub prompts: Vec<String>,
    /// Whether a turn runs.
    pub is_busy: bool,
    /// Whether a program of this session was killed.
    pub was_killed: bool,
    /// Whether its keeper was lost, and with it what it had not handed over.
    pub is_lossy: bool,
}

impl Ledger {
    /// Writes something on a session's page.
    pub fn write(&self, session: SessionId, write: impl FnOnce(&mut Page)) {
        write(self.hold().entry(session).or_default());
    }

    /// All pages.
    pub fn pages(&self) -> BTreeMap<SessionId, Page> {
        self.hold().clone()
    }

    fn hold(&self) -> MutexGuard<'_, BTreeMap<SessionId, Page>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent's end of its pipes.
pub(crate) struct Pipes {
    pub(crate) stdin: mpsc::UnboundedReceiver<String>,
    pub(crate) stdout: Box<dyn Fn(String) + Send>,
}

/// A running agent.
pub(crate) struct Agent {
    session: SessionId,
    run: u64,
    pipes: Pipes,
    universe: Arc<Universe>,
    ledger: Arc<Ledger>,
    next_request: u64,
    next_call: u64,
}

/// What became of waiting.
enum Waited {
    /// The time is over.
    Over,
    /// A question was answered: which, and by which option.
    Answer(u64, Option<String>),
    /// The turn is to be stopped.
    Cancelled,
    /// Nobody speaks with the agent any more.
    Left,
}

impl Agent {
    pub(crate) fn new(
        session: SessionId,
        pipes: Pipes,
        universe: &Arc<Universe>,
        ledger: &Arc<Ledger>,
    ) -> Self {
        Self {
            session,
            run: universe.chance(|chance| chance.below(1 << 32)),
            pipes,
            universe: Arc::clone(universe),
            ledger: Arc::clone(ledger),
            next_request: 1,
            next_call: 1,
        }
    }

    /// Runs until its standard input is closed.
    pub(crate) async fn run(mut self) {
        while let Some(line) = self.pipes.stdin.recv().await {
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            let id = message["id"].clone();
            match message["method"].as_str() {
                Some("initialize") => self.answer(
                    &id,
                    &json!({
                        "protocolVersion": 1,
                        "agentCapabilities": {"sessionCapabilities": {"resume": {}}},
                        "agentInfo": {"name": "played", "version": "1"},
                    }),
                ),
                Some("session/new") => {
                    let name = format!("conversation-{:x}", self.run);
                    self.answer(&id, &json!({"sessionId": name}));
                }
                Some("session/resume") => self.answer(&id, &json!({})),
                Some("session/prompt") => {
                    let text = message["params"]["prompt"][0]["text"].as_str();
                    let text = text.unwrap_or_default();
                    self.take_prompt(text);
                    let Some(reason) = self.turn().await else {
                        return;
                    };
                    self.ledger.write(self.session, |page| page.is_busy = false);
                    self.answer(&id, &json!({"stopReason": reason}));
                }
                // A turn that has ended meanwhile, or an answer that came too late for one.
                Some("session/cancel") | None => {}
                Some(other) => self.refuse(&id, other),
            }
        }
    }

    fn take_prompt(&self, text: &str) {
        let mut again = false;
        self.ledger.write(self.session, |page| {
            again = page.prompts.iter().any(|known| known == text);
            page.prompts.push(text.to_owned());
            page.is_busy = true;
        });
        if again {
            self.universe.broken(format!(
                "I6: the agent was given the same prompt twice: {text}"
            ));
        }
    }

    /// Works on a prompt; gives why it stopped.
    async fn turn(&mut self) -> Option<&'static str> {
        let steps = self.universe.chance(|chance| chance.between(1, 4));
        for _ in 0..steps {
            let (kind, pause) = self
                .universe
                .chance(|chance| (chance.below(8), chance.below(400)));
            let ended = match kind {
                0..=3 => self.speak().await,
                4 | 5 => self.ask().await,
                _ => self.work().await,
            };
            if let Some(reason) = ended? {
                return Some(reason);
            }
            match self.wait(pause).await {
                Waited::Cancelled => return Some("cancelled"),
                Waited::Left => return None,
                Waited::Over | Waited::Answer(..) => {}
            }
        }
        Some("end_turn")
    }

    /// Says a message in pieces. The outer none: it is over; the inner: it goes on.
    async fn speak(&mut self) -> Option<Option<&'static str>> {
        let pieces = self.universe.chance(|chance| chance.between(1, 3));
        for piece in 0..pieces {
            let number = self.universe.chance(|chance| chance.below(1_000_000));
            let text = format!("[{} {number}.{piece}]", self.universe.canary);
            self.ledger
                .write(self.session, |page| page.text.push_str(&text));
            self.update(&json!({
                "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text},
            }));
            let pause = self.universe.chance(|chance| chance.below(60));
            match self.wait(pause).await {
                Waited::Cancelled => return Some(Some("cancelled")),
                Waited::Left => return None,
                Waited::Over | Waited::Answer(..) => {}
            }
        }
        Some(None)
    }

    /// Uses a tool without asking.
    async fn work(&mut self) -> Option<Option<&'static str>> {
        let call = self.call();
        self.update(&json!({
            "sessionUpdate": "tool_call", "toolCallId": call, "status": "in_progress",
            "title": format!("look {}", self.universe.canary), "kind": "read",
        }));
        let pause = self.universe.chance(|chance| chance.below(200));
        let waited = self.wait(pause).await;
        self.update(&json!({
            "sessionUpdate": "tool_call_update", "toolCallId": call, "status": "completed",
            "content": [{"type": "content", "content": {"type": "text", "text": self.universe.canary}}],
        }));
        match waited {
            Waited::Cancelled => Some(Some("cancelled")),
            Waited::Left => None,
            Waited::Over | Waited::Answer(..) => Some(None),
        }
    }

    /// Asks for permission, and waits as long as it takes.
    async fn ask(&mut self) -> Option<Option<&'static str>> {
        let call = self.call();
        let id = self.next_request;
        self.next_request += 1;
        self.ledger
            .write(self.session, |page| page.asked.push(call.clone()));
        let command = format!("run {} {call}", self.universe.canary);
        self.say(&json!({
            "jsonrpc": "2.0", "id": id, "method": "session/request_permission",
            "params": {
                "sessionId": "x",
                "toolCall": {
                    "toolCallId": call, "title": command, "kind": "execute", "status": "pending",
                    "rawInput": {"command": command},
                },
                "options": [
                    {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
                    {"optionId": "always", "name": "Always", "kind": "allow_always"},
                    {"optionId": "no", "name": "No", "kind": "reject_once"},
                ],
            },
        }));
        let mut cancelled = false;
        loop {
            match self.wait(u64::MAX).await {
                Waited::Answer(answered, option) if answered == id => {
                    self.take_answer(&call, option);
                    return Some(cancelled.then_some("cancelled"));
                }
                // The question is still answered, as cancelled.
                Waited::Cancelled => cancelled = true,
                Waited::Left => return None,
                Waited::Over | Waited::Answer(..) => {}
            }
        }
    }

    fn take_answer(&self, call: &str, option: Option<String>) {
        let mut before = None;
        self.ledger.write(self.session, |page| {
            before = page.answered.insert(call.to_owned(), option);
        });
        if before.is_some() {
            self.universe
                .broken(format!("I6: the question about {call} was answered twice"));
        }
    }

    async fn wait(&mut self, millis: u64) -> Waited {
        let until = (millis != u64::MAX).then(|| Instant::now() + Duration::from_millis(millis));
        loop {
            let line = match until {
                Some(until) => {
                    match tokio::time::timeout_at(until, self.pipes.stdin.recv()).await {
                        Ok(line) => line,
                        Err(_) => return Waited::Over,
                    }
                }
                None => self.pipes.stdin.recv().await,
            };
            let Some(line) = line else {
                return Waited::Left;
            };
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            match (message["method"].as_str(), message["id"].as_u64()) {
                (Some("session/cancel"), _) => return Waited::Cancelled,
                (Some("session/prompt"), _) => self
                    .universe
                    .broken("the agent was given a prompt in the middle of a turn".to_owned()),
                (Some(other), _) => self.refuse(&message["id"], other),
                (None, Some(id)) => {
                    let option = message["result"]["outcome"]["optionId"].as_str();
                    return Waited::Answer(id, option.map(str::to_owned));
                }
                (None, None) => {}
            }
        }
    }

    fn call(&mut self) -> String {
        self.next_call += 1;
        format!("call-{:x}-{}", self.run, self.next_call)
    }

    fn update(&self, update: &Value) {
        self.say(&json!({
            "jsonrpc": "2.0", "method": "session/update",
            "params": {"sessionId": "x", "update": update},
        }));
    }

    fn answer(&self, id: &Value, result: &Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn refuse(&self, id: &Value, method: &str) {
        let text = format!("method not found: {method}");
        self.say(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": text}}));
    }

    fn say(&self, message: &Value) {
        (self.pipes.stdout)(message.to_string());
    }
}
