//! Our own agent, for tests and first tries: it speaks ACP on standard input and output, follows
//! a scenario, and really edits files and runs commands, after asking.
//!
//! A prompt that holds `SCENARIO:name` gets the next turn of that scenario; any other the next
//! turn of the scenario `default`. Without a scenario file there is a friendly one built in.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use serde_json::{Value, json};

use self::memory::Memory;
use self::scenario::{Scenario, Start};
use self::turn::Turn;
use self::wire::Wire;
use super::json::{list, owned, text};

mod memory;
pub mod scenario;
mod shell;
mod turn;
mod wire;

/// Speaks ACP on standard input and output until the input ends. The scenario is the file at
/// `scenario_path`, or at the path in `FARHELM_SCRIPTED_SCENARIO`, or the built-in one.
///
/// # Errors
///
/// When the scenario cannot be read, or standard input fails.
pub fn run(scenario_path: Option<PathBuf>) -> anyhow::Result<()> {
    run_on(scenario_path, io::stdin().lock(), Box::new(io::stdout()))
}

/// Like [`run`], on any input and output.
///
/// # Errors
///
/// When the scenario cannot be read, or the input fails.
pub fn run_on(
    scenario_path: Option<PathBuf>,
    input: impl io::BufRead,
    output: Box<dyn io::Write + Send>,
) -> anyhow::Result<()> {
    let configured = || std::env::var_os("FARHELM_SCRIPTED_SCENARIO").map(PathBuf::from);
    let scenario = match scenario_path.or_else(configured) {
        Some(path) => {
            Scenario::read(&path).with_context(|| format!("the scenario {}", path.display()))?
        }
        None => Scenario::built_in(),
    };
    let agent = Agent {
        wire: Arc::new(Wire::new(output, scenario.start.record.as_deref())?),
        scenario: Arc::new(scenario),
        sessions: BTreeMap::new(),
    };
    agent.serve(input)
}

struct Agent {
    scenario: Arc<Scenario>,
    wire: Arc<Wire>,
    sessions: BTreeMap<String, Arc<Mutex<Session>>>,
}

/// A conversation.
#[derive(Debug)]
struct Session {
    id: String,
    dir: PathBuf,
    mode: String,
    /// Kinds of calls that are not asked about any more.
    always: Vec<String>,
    /// How many turns of each scenario were taken.
    taken: BTreeMap<String, usize>,
    memory: Memory,
    /// Stops the turn that runs.
    cancel: Option<turn::Cancel>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    fn serve(mut self, input: impl io::BufRead) -> anyhow::Result<()> {
        for line in &self.scenario.start.garbage {
            self.wire.print(line);
        }
        for line in input.lines() {
            let line = line.context("the input")?;
            self.wire.hears(&line);
            let Ok(message) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            self.hear(&message);
        }
        Ok(())
    }

    fn hear(&mut self, message: &Value) {
        let params = message.get("params").unwrap_or(&Value::Null);
        match (text(message, "method"), message.get("id")) {
            (Some(method), Some(id)) => self.asked(id, method, params),
            (Some("session/cancel"), None) => self.cancel(params),
            (Some(_), None) => {}
            (None, Some(id)) => self.wire.answered(id, message),
            (None, None) => {}
        }
    }

    fn asked(&mut self, id: &Value, method: &str, params: &Value) {
        let Start { hang, fail, .. } = &self.scenario.start;
        if hang.as_deref() == Some(method) {
            return;
        }
        if let Some(fail) = fail.as_ref().filter(|fail| fail.method == method) {
            return self.wire.refuse(id, fail.code, &fail.message);
        }
        match method {
            "initialize" => self.wire.respond(id, &self.about()),
            "session/new" => self.open(id, params),
            "session/load" | "session/resume" => self.reopen(id, params, method == "session/load"),
            "session/set_mode" => self.set_mode(id, params),
            "session/prompt" => self.prompt(id, params),
            _ => self
                .wire
                .refuse(id, -32601, &format!("method not found: {method}")),
        }
    }

    fn about(&self) -> Value {
        let start = &self.scenario.start;
        let mut capabilities =
            json!({"loadSession": start.load, "promptCapabilities": {}, "sessionCapabilities": {}});
        if start.resume {
            capabilities["sessionCapabilities"]["resume"] = json!({});
        }
        json!({
            "protocolVersion": start.version,
            "agentCapabilities": capabilities,
            "agentInfo": {"name": "scripted", "title": "Scripted agent", "version": env!("CARGO_PKG_VERSION")},
            "authMethods": start.logins.iter().map(|name| json!({"id": name, "name": name})).collect::<Vec<_>>(),
        })
    }

    fn open(&mut self, id: &Value, params: &Value) {
        let session = memory::fresh_name();
        let memory = Memory::begin(&session);
        let modes = self.keep(session.clone(), params, memory);
        self.wire
            .respond(id, &json!({"sessionId": session, "modes": modes}));
        self.offer_commands(&session);
    }

    fn reopen(&mut self, id: &Value, params: &Value, replay: bool) {
        let session = owned(params, "sessionId").unwrap_or_default();
        let Some(memory) = Memory::recall(&session) else {
            return self
                .wire
                .refuse(id, -32002, &format!("no session {session}"));
        };
        if replay {
            for update in memory.updates() {
                self.wire.update(&session, update);
            }
        }
        let modes = self.keep(session.clone(), params, memory);
        self.wire.respond(id, &json!({"modes": modes}));
        self.offer_commands(&session);
    }

    fn keep(&mut self, id: String, params: &Value, memory: Memory) -> Value {
        let mode = self.scenario.start.mode.clone();
        let session = Session {
            dir: owned(params, "cwd").map(PathBuf::from).unwrap_or_default(),
            id: id.clone(),
            mode: mode.clone(),
            always: Vec::new(),
            taken: memory.taken(),
            memory,
            cancel: None,
        };
        self.sessions.insert(id, Arc::new(Mutex::new(session)));
        json!({
            "currentModeId": mode,
            "availableModes": [
                {"id": ASKING, "name": "Ask", "description": "Asks before it changes files or runs commands"},
                {"id": "auto", "name": "Auto", "description": "Never asks"},
            ],
        })
    }

    fn offer_commands(&self, session: &str) {
        let names = self
            .scenario
            .scenarios
            .keys()
            .filter(|name| *name != scenario::DEFAULT);
        let commands: Vec<Value> =
            names.map(|name| json!({"name": format!("SCENARIO:{name}"), "description": format!("Play scenario {name}")})).collect();
        self.wire.update(
            session,
            &json!({"sessionUpdate": "available_commands_update", "availableCommands": commands}),
        );
    }

    fn session(&self, params: &Value) -> Option<&Arc<Mutex<Session>>> {
        text(params, "sessionId").and_then(|id| self.sessions.get(id))
    }

    fn set_mode(&self, id: &Value, params: &Value) {
        let mode = text(params, "modeId").unwrap_or_default();
        match self.session(params) {
            Some(session) if [ASKING, "auto"].contains(&mode) => {
                let mut session = lock(session);
                mode.clone_into(&mut session.mode);
                self.wire.respond(id, &json!({}));
                self.wire.update(
                    &session.id,
                    &json!({"sessionUpdate": "current_mode_update", "currentModeId": mode}),
                );
            }
            Some(_) => self.wire.refuse(id, -32602, &format!("no mode {mode:?}")),
            None => self.wire.refuse(id, -32002, "no such session"),
        }
    }

    fn prompt(&self, id: &Value, params: &Value) {
        let Some(session) = self.session(params) else {
            return self.wire.refuse(id, -32002, "no such session");
        };
        let words: Vec<&str> = list(params, "prompt")
            .iter()
            .filter_map(|block| text(block, "text"))
            .collect();
        let words = words.join("\n");
        let turn = {
            let mut held = lock(session);
            let name = self.scenario.pick(&words);
            let taken = held.taken.entry(name.to_owned()).or_default();
            let steps = self.scenario.turn(name, *taken, &words);
            *taken += 1;
            let cancel = turn::Cancel::default();
            held.cancel = Some(cancel.clone());
            let said = json!({"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": words}});
            held.memory.keep(&said);
            held.memory.turn(name);
            Turn::new(
                Arc::clone(&self.wire),
                Arc::clone(session),
                &held,
                cancel,
                steps,
            )
        };
        let id = id.clone();
        drop(std::thread::spawn(move || turn.play(&id)));
    }

    fn cancel(&self, params: &Value) {
        if let Some(cancel) = self
            .session(params)
            .and_then(|session| lock(session).cancel.clone())
        {
            cancel.now();
            self.wire.forget_requests();
        }
    }
}

/// Where the scripted agent keeps what a conversation held: never in the person's folder.
fn state_folder() -> Option<PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("FARHELM_SCRIPTED_STATE")
        .or_else(|| from("XDG_STATE_HOME").map(|path| path.join("farhelm/scripted")))
        .or_else(|| from("HOME").map(|path| path.join(".local/state/farhelm/scripted")))
        .filter(|path| path != Path::new(""))
}

/// The mode in which it asks.
const ASKING: &str = "default";
