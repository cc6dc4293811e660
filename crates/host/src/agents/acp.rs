//! The Agent Client Protocol, version 1: JSON-RPC 2.0 by lines. We are its client.
//!
//! 1. `initialize`, then `session/new`, or `session/resume` or `session/load` for a conversation
//!    that the agent has held before.
//! 2. `session/set_mode` where the agent would otherwise start in a mode that asks nobody.
//! 3. For each prompt `session/prompt`; its answer is the end of the turn. In between the agent
//!    sends `session/update`s and asks (`session/request_permission`, `elicitation/create`).
//! 4. `session/cancel` stops a turn; all open questions are answered `cancelled` with it.
//!
//! What the agent sends is read leniently: a field of an odd shape is as good as absent, and a
//! message of an unknown kind is passed on as such.

use std::collections::{BTreeMap, BTreeSet};

use farhelm_core::agent::{Order, Said};
use farhelm_core::content::{Content, ToolPatch};
use farhelm_core::event::StopReason;
use farhelm_proto::Code;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::asks::Open;
use self::settings::Settings;
use super::files::FileError;
use super::json::{brief, list, owned, small, text};
use super::rpc::{self, Incoming, Peer, RpcError, RpcId};
use super::{Adapter, Conversation, FileWork, RawMessage, Step, Ticket};

mod asks;
mod content;
mod opening;
mod settings;
mod updates;

/// What an ACP agent is started for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The folder it works in.
    pub dir: String,
    /// The conversation.
    pub conversation: Conversation,
    /// The mode it is put into; without one, a mode in which a person is asked.
    pub mode: Option<String>,
    /// Whether it is offered to read and write files through us.
    pub files: bool,
}

/// The adapter for agents that speak ACP.
#[derive(Debug, Serialize, Deserialize)]
pub struct Acp {
    setup: Setup,
    peer: Peer<Purpose>,
    state: State,
    /// What the agent said of itself.
    about: About,
    /// The agent's name for the conversation.
    session: String,
    resumed: bool,
    settings: Settings,
    /// Open questions by the handle that the session answers with.
    asks: BTreeMap<String, Open>,
    next_ask: u64,
    /// Calls of this turn that have not ended, with all that is known of them.
    calls: BTreeMap<String, Call>,
    /// Calls of this turn that were refused.
    refused: BTreeSet<String>,
    /// File work that the agent waits for.
    filing: BTreeMap<Ticket, (RpcId, bool)>,
    next_ticket: u64,
    /// Whether the agent reports its use by itself.
    reports_use: bool,
}

/// A call that has not ended.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Call {
    /// All that is known of it.
    known: ToolPatch,
    /// Whether what it shows was only told as growing.
    grew: bool,
}

/// What a request of ours was for.
#[derive(Debug, Serialize, Deserialize)]
enum Purpose {
    Initialize,
    Open(Opening),
    /// The mode that is set before anything else.
    FirstMode(String),
    Mode(String),
    Config {
        option: String,
        value: String,
    },
    Prompt,
}

/// How the conversation is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Opening {
    New,
    Resume,
    Load,
}

#[derive(Debug, Serialize, Deserialize)]
enum State {
    /// The program is on its way up.
    Starting,
    /// It replays a conversation, all of which the session has already.
    Loading,
    /// It replayed one; stragglers may come until the next prompt.
    Loaded,
    /// It waits.
    Idle,
    /// It works on a prompt. What is left of its text, should the agent repeat it.
    Turn { echo: String },
    /// It did not come up.
    Failed,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct About {
    name: String,
    version: Option<String>,
    can_load: bool,
    can_resume: bool,
    logins: Vec<String>,
}

impl Acp {
    /// An adapter at the beginning.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            peer: Peer::new(),
            state: State::Starting,
            about: About::default(),
            session: String::new(),
            resumed: false,
            settings: Settings::default(),
            asks: BTreeMap::new(),
            next_ask: 1,
            calls: BTreeMap::new(),
            refused: BTreeSet::new(),
            filing: BTreeMap::new(),
            next_ticket: 1,
            reports_use: false,
        }
    }

    fn answered(&mut self, purpose: Purpose, outcome: Result<&Value, RpcError>) -> Vec<Step> {
        match (purpose, outcome) {
            (Purpose::Initialize, Ok(result)) => self.initialized(result),
            (Purpose::Initialize, Err(error)) if error.code == rpc::AUTH_REQUIRED => {
                self.login_needed(&error)
            }
            (Purpose::Initialize, Err(error)) => self.fail(Code::AgentRefused, error.describe()),
            (Purpose::Open(opening), Ok(result)) => self.opened(opening, result),
            (Purpose::Open(opening), Err(error)) => self.not_opened(opening, &error),
            (Purpose::FirstMode(mode), Ok(result)) => {
                self.settings.mode_is(mode);
                self.settings.offered(result);
                self.start()
            }
            (Purpose::FirstMode(mode), Err(error)) => {
                let text = format!(
                    "the agent did not take mode {mode:?} and may act without asking: {}",
                    error.describe()
                );
                let mut steps = self.start();
                steps.push(notice(Code::AgentRefused, text));
                steps
            }
            (Purpose::Mode(mode), Ok(_)) => self
                .settings
                .mode_is(mode)
                .map(Step::Say)
                .into_iter()
                .collect(),
            (Purpose::Mode(mode), Err(error)) => {
                vec![notice(
                    Code::AgentRefused,
                    format!("the agent did not take mode {mode:?}: {}", error.describe()),
                )]
            }
            (Purpose::Config { option, value }, Ok(result)) => {
                self.settings.value_is(&option, value);
                self.settings.offered(result);
                self.settings.config().map(Step::Say).into_iter().collect()
            }
            (Purpose::Config { option, value }, Err(error)) => {
                let text = format!(
                    "the agent did not set {option:?} to {value:?}: {}",
                    error.describe()
                );
                vec![notice(Code::AgentRefused, text)]
            }
            (Purpose::Prompt, Ok(result)) => self.turn_ended(result),
            (Purpose::Prompt, Err(error)) => self.turn_failed(&error),
        }
    }

    fn turn_ended(&mut self, result: &Value) -> Vec<Step> {
        let (reason, detail) = match text(result, "stopReason") {
            Some("end_turn") | None => (StopReason::EndTurn, None),
            Some("max_tokens") => (StopReason::MaxTokens, None),
            Some("max_turn_requests") => (StopReason::MaxTurnRequests, None),
            Some("refusal") => (StopReason::Refusal, None),
            Some("cancelled") => (StopReason::Cancelled, None),
            Some(other) => (StopReason::EndTurn, Some(other.to_owned())),
        };
        let mut steps = Vec::new();
        if let Some(used) = result
            .pointer("/usage/totalTokens")
            .and_then(Value::as_u64)
            .filter(|_| !self.reports_use)
        {
            steps.push(Step::Say(Said::Usage {
                used: Some(used),
                size: None,
                cost: None,
                currency: None,
            }));
        }
        steps.extend(self.end_turn(reason, detail));
        steps
    }

    fn turn_failed(&mut self, error: &RpcError) -> Vec<Step> {
        let mut steps = Vec::new();
        if error.code == rpc::AUTH_REQUIRED {
            steps.push(notice(Code::AgentLoginNeeded, error.describe()));
        }
        let reason = if error.code == rpc::CANCELLED {
            StopReason::Cancelled
        } else {
            StopReason::Failed
        };
        steps.extend(self.end_turn(reason, Some(error.describe())));
        steps
    }

    fn end_turn(&mut self, reason: StopReason, detail: Option<String>) -> Vec<Step> {
        let mut steps = self.withdraw_all();
        self.state = State::Idle;
        self.calls.clear();
        self.refused.clear();
        steps.push(Step::Say(Said::TurnEnded { reason, detail }));
        steps
    }

    fn asked(
        &mut self,
        id: RpcId,
        method: &str,
        params: &Value,
        message: &RawMessage,
    ) -> Vec<Step> {
        if message.is_cut() {
            let refusal = rpc::refuse(&id, rpc::INVALID_PARAMS, "the request is too long");
            let text = format!("the agent's request {method:?} is too long, and was refused");
            return vec![refusal, notice(Code::AgentGarbage, text)];
        }
        match method {
            "session/request_permission" => self.permission_asked(id, params, message),
            "elicitation/create" => self.elicitation_asked(id, params, message),
            "fs/read_text_file" => self.file_asked(id, params, |path| {
                Some(FileWork::Read {
                    path,
                    line: small(params, "line"),
                    limit: small(params, "limit"),
                })
            }),
            "fs/write_text_file" => self.file_asked(id, params, |path| {
                owned(params, "content").map(|text| FileWork::Write { path, text })
            }),
            unknown => vec![rpc::refuse(
                &id,
                rpc::METHOD_NOT_FOUND,
                &format!("method not found: {unknown}"),
            )],
        }
    }

    fn file_asked(
        &mut self,
        id: RpcId,
        params: &Value,
        work: impl FnOnce(String) -> Option<FileWork>,
    ) -> Vec<Step> {
        let Some(work) = owned(params, "path").and_then(work) else {
            return vec![rpc::refuse(
                &id,
                rpc::INVALID_PARAMS,
                "`path`, or `content` to write, is missing",
            )];
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.filing
            .insert(ticket, (id, matches!(work, FileWork::Read { .. })));
        vec![Step::File { ticket, work }]
    }

    fn told(&mut self, method: &str, params: &Value, message: &RawMessage) -> Vec<Step> {
        match method {
            "session/update" => self.updated(params.get("update").unwrap_or(&Value::Null), message),
            "elicitation/complete" => self.elicitation_completed(params),
            "$/cancel_request" => self.request_cancelled(params),
            unknown => vec![raw(unknown, message)],
        }
    }

    fn prompt(&mut self, text: String) -> Vec<Step> {
        let params = json!({"sessionId": self.session, "prompt": [{"type": "text", "text": text}]});
        self.state = State::Turn { echo: text };
        vec![
            self.peer
                .request("session/prompt", &params, Purpose::Prompt),
        ]
    }

    fn cancel(&mut self) -> Vec<Step> {
        let mut steps = vec![rpc::notify(
            "session/cancel",
            &json!({"sessionId": self.session}),
        )];
        steps.extend(self.withdraw_all());
        steps
    }

    fn set_mode(&mut self, mode: String) -> Vec<Step> {
        match self.settings.mode_request(&self.session, &mode) {
            Some((method, params)) => vec![self.peer.request(method, &params, Purpose::Mode(mode))],
            None => vec![notice(
                Code::UnknownMode,
                format!("the agent offers no mode {mode:?}"),
            )],
        }
    }

    fn set_config(&mut self, option: String, value: String) -> Vec<Step> {
        let (method, params) = self.settings.config_request(&self.session, &option, &value);
        vec![
            self.peer
                .request(method, &params, Purpose::Config { option, value }),
        ]
    }
}

impl Adapter for Acp {
    fn begin(&mut self) -> Vec<Step> {
        let params = json!({
            "protocolVersion": 1,
            "clientCapabilities": {
                "fs": {"readTextFile": self.setup.files, "writeTextFile": self.setup.files},
                "terminal": false,
                "elicitation": {"form": {}, "url": {}},
            },
            "clientInfo": {"name": "farhelm", "title": "Farhelm", "version": env!("CARGO_PKG_VERSION")},
        });
        vec![
            self.peer
                .request("initialize", &params, Purpose::Initialize),
        ]
    }

    fn hear(&mut self, message: &RawMessage) -> Vec<Step> {
        match self.peer.sort(message) {
            Incoming::Request { id, method, params } => self.asked(id, method, params, message),
            Incoming::Notification { method, params } => self.told(method, params, message),
            Incoming::Answer { purpose, outcome } => self.answered(purpose, outcome),
            // An answer to nothing, such as an error about a notification.
            Incoming::Other if message.value().get("error").is_some() => {
                vec![raw("error", message)]
            }
            Incoming::Other if message.value().get("id").is_some() => Vec::new(),
            Incoming::Other => vec![raw("unknown", message)],
        }
    }

    fn obey(&mut self, order: Order) -> Vec<Step> {
        match order {
            Order::Prompt { id: _, text } => self.prompt(text),
            Order::Cancel => self.cancel(),
            Order::Answer {
                request,
                ask: _,
                verdict,
            } => self.answer(&request, &verdict),
            Order::SetMode(mode) => self.set_mode(mode),
            Order::SetConfig { option, value } => self.set_config(option, value),
        }
    }

    fn filed(&mut self, ticket: Ticket, outcome: Result<String, FileError>) -> Vec<Step> {
        let Some((id, reading)) = self.filing.remove(&ticket) else {
            return Vec::new();
        };
        vec![match outcome {
            Ok(text) if reading => rpc::respond(&id, &json!({"content": text})),
            Ok(_) => rpc::respond(&id, &json!({})),
            // The protocol's own words: agents know by them that a file is new.
            Err(FileError::Missing(path)) => rpc::refuse(
                &id,
                rpc::NO_SUCH_RESOURCE,
                &format!("Resource not found: {path}"),
            ),
            Err(error @ (FileError::Refused(_) | FileError::Failed(_))) => {
                rpc::refuse(&id, rpc::INVALID_PARAMS, &error.to_string())
            }
        }]
    }
}

fn notice(code: Code, text: String) -> Step {
    Step::Say(Said::Notice { code, text })
}

fn raw(kind: &str, message: &RawMessage) -> Step {
    Step::Say(Said::Raw {
        kind: kind.to_owned(),
        json: brief(message.value()),
    })
}
