//! Claude Code by its stdio control protocol: JSON by lines, both ways.
//!
//! 1. We send `control_request initialize`; its response says what the program offers. Commands
//!    and models are known then, the conversation's name was given on the command line.
//! 2. A prompt is a `user` line. The agent sends `stream_event`s, whole `assistant` messages, tool
//!    results as `user` messages, and a `result` at the end of the turn.
//! 3. It asks by `control_request can_use_tool` and waits for our `control_response`.
//!    `control_cancel_request` takes a question back.
//! 4. `control_request interrupt` stops a turn; modes and models are set by requests likewise.

use std::collections::{BTreeMap, BTreeSet};

use farhelm_core::agent::{Order, Said};
use farhelm_core::event::{ConfigChoice, ConfigOption, StopReason};
use farhelm_proto::Code;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::asks::Open;
use self::messages::Current;
use self::offers::{command, model, modes};
use self::result::{QUIET, QUIET_SYSTEM, reason};
use self::tools::Call;
use super::files::FileError;
use super::json::{brief, line, list, owned, text};
use super::{Adapter, Conversation, FileWork, RawMessage, Step, Ticket};

mod arguments;
mod asks;
mod messages;
mod offers;
mod result;
mod tools;

pub use arguments::{Features, arguments, probe};

/// What Claude Code is started for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The folder it works in.
    pub dir: String,
    /// Its name for the conversation: a UUID.
    pub session: String,
    /// Whether it has held the conversation before.
    pub resumed: bool,
    /// The permission mode it starts in.
    pub mode: String,
}

impl Setup {
    /// What to start it with: a conversation without a name gets `fresh`.
    #[must_use]
    pub fn new(
        dir: String,
        conversation: Conversation,
        mode: Option<String>,
        fresh: String,
    ) -> Self {
        let (session, resumed) = match conversation {
            Conversation::New => (fresh, false),
            Conversation::Continue(session) => (session, true),
        };
        Self {
            dir,
            session,
            resumed,
            mode: mode.unwrap_or_else(|| ASKING.to_owned()),
        }
    }
}

/// The adapter for Claude Code.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claude {
    setup: Setup,
    state: State,
    next_request: u64,
    /// What our requests were for.
    requests: BTreeMap<String, Purpose>,
    mode: String,
    model: Option<ConfigOption>,
    /// Open questions by the agent's id of the request.
    asks: BTreeMap<String, Open>,
    /// Questions that wait for the old text of a file.
    filing: BTreeMap<Ticket, String>,
    next_ticket: u64,
    /// Calls that have no result yet.
    calls: BTreeMap<String, Call>,
    /// Calls that a person refused.
    refused: BTreeSet<String>,
    /// The message under way, by the call of the subagent that says it.
    #[serde(with = "super::json::pairs")]
    current: BTreeMap<Option<String>, Current>,
    /// The ids of the prompts that we sent, until they are repeated.
    prompts: BTreeSet<String>,
    /// Tokens in use after the newest answer of the main agent.
    used: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Purpose {
    Initialize,
    Interrupt,
    Mode(String),
    Model(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// The program is on its way up.
    Starting,
    /// It waits.
    Idle,
    /// It works on a prompt.
    Turn {
        /// Whether it was told to stop.
        interrupted: bool,
    },
    /// It did not come up.
    Failed,
}

impl Claude {
    /// An adapter at the beginning.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            mode: setup.mode.clone(),
            setup,
            state: State::Starting,
            next_request: 1,
            requests: BTreeMap::new(),
            model: None,
            asks: BTreeMap::new(),
            filing: BTreeMap::new(),
            next_ticket: 1,
            calls: BTreeMap::new(),
            refused: BTreeSet::new(),
            current: BTreeMap::new(),
            prompts: BTreeSet::new(),
            used: None,
        }
    }

    fn request(&mut self, request: &Value, purpose: Purpose) -> Step {
        let id = format!("farhelm_{}", self.next_request);
        self.next_request += 1;
        self.requests.insert(id.clone(), purpose);
        Step::Send(line(
            &json!({"type": "control_request", "request_id": id, "request": request}),
        ))
    }

    fn responded(&mut self, message: &RawMessage) -> Vec<Step> {
        let response = message.value().get("response").unwrap_or(&Value::Null);
        let Some(purpose) = text(response, "request_id").and_then(|id| self.requests.remove(id))
        else {
            return Vec::new();
        };
        let result = response.get("response").unwrap_or(&Value::Null);
        let error = (text(response, "subtype") == Some("error"))
            .then(|| owned(response, "error").unwrap_or_else(|| brief(response)));
        match (purpose, error) {
            (Purpose::Initialize, None) => self.initialized(result),
            (Purpose::Initialize, Some(error)) => self.fail(Code::AgentRefused, error),
            (Purpose::Interrupt, None) => Vec::new(),
            (Purpose::Interrupt, Some(error)) => {
                vec![notice(format!("the turn could not be stopped: {error}"))]
            }
            (Purpose::Mode(mode), None) => self.mode_is(owned(result, "mode").unwrap_or(mode)),
            (Purpose::Mode(mode), Some(error)) => {
                vec![notice(format!("mode {mode:?} was not taken: {error}"))]
            }
            (Purpose::Model(model), None) => self.model_is(owned(result, "model").unwrap_or(model)),
            (Purpose::Model(model), Some(error)) => {
                vec![notice(format!("model {model:?} was not taken: {error}"))]
            }
        }
    }

    fn initialized(&mut self, result: &Value) -> Vec<Step> {
        self.state = State::Idle;
        if let Some(mode) = text(result, "current_permission_mode") {
            mode.clone_into(&mut self.mode);
        }
        let models = list(result, "models");
        let choices: Vec<ConfigChoice> = models.iter().filter_map(model).collect();
        if let Some(first) = choices.first() {
            self.model = Some(ConfigOption {
                id: MODEL.to_owned(),
                name: "Model".to_owned(),
                category: Some(MODEL.to_owned()),
                current: first.value.clone(),
                choices,
            });
        }
        let started = Said::Started {
            agent_session: Some(self.setup.session.clone()),
            name: "Claude Code".to_owned(),
            version: owned(result, "claude_code_version"),
            dialect: "claude",
            resumed: self.setup.resumed,
        };
        let mut said = vec![
            started,
            Said::Modes {
                modes: modes(),
                current: Some(self.mode.clone()),
            },
        ];
        said.extend(self.model.clone().map(|model| Said::Config(vec![model])));
        said.push(Said::Commands(
            list(result, "commands")
                .iter()
                .filter_map(command)
                .collect(),
        ));
        let mut steps: Vec<Step> = said.into_iter().map(Step::Say).collect();
        if self.mode != self.setup.mode {
            let mode = self.setup.mode.clone();
            let request = json!({"subtype": "set_permission_mode", "mode": mode});
            steps.push(self.request(&request, Purpose::Mode(mode)));
        }
        steps
    }

    fn fail(&mut self, code: Code, text: String) -> Vec<Step> {
        self.state = State::Failed;
        vec![Step::Say(Said::StartFailed { code, text })]
    }

    fn mode_is(&mut self, mode: String) -> Vec<Step> {
        if self.mode == mode {
            return Vec::new();
        }
        self.mode.clone_from(&mode);
        vec![Step::Say(Said::Mode(mode))]
    }

    fn model_is(&mut self, chosen: String) -> Vec<Step> {
        let Some(model) = &mut self.model else {
            return Vec::new();
        };
        model.current = chosen;
        vec![Step::Say(Said::Config(vec![model.clone()]))]
    }

    fn system(&mut self, message: &RawMessage) -> Vec<Step> {
        let value = message.value();
        match text(value, "subtype").unwrap_or_default() {
            "init" | "status" => owned(value, "permissionMode")
                .map(|mode| self.mode_is(mode))
                .unwrap_or_default(),
            "task_notification" => Vec::new(),
            quiet if QUIET_SYSTEM.contains(&quiet) => Vec::new(),
            unknown => vec![raw(&format!("system/{unknown}"), message)],
        }
    }

    fn result(&mut self, value: &Value) -> Vec<Step> {
        let detail = owned(value, "result")
            .filter(|text| !text.is_empty())
            .or_else(|| {
                let errors: Vec<&str> = list(value, "errors")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                (!errors.is_empty()).then(|| errors.join("\n"))
            });
        if self.state == State::Starting {
            return self.fail(Code::AgentRefused, detail.unwrap_or_else(|| brief(value)));
        }
        let mut steps = vec![self.usage(value)];
        let State::Turn { interrupted } = self.state else {
            // The end of work that nobody asked for, such as after a subagent's report.
            return steps;
        };
        self.state = State::Idle;
        let reason = reason(value, interrupted);
        let detail = detail.filter(|_| reason == StopReason::Failed);
        if detail.as_ref().is_some_and(|text| text.contains("/login")) {
            let text = detail.clone().unwrap_or_default();
            steps.push(Step::Say(Said::Notice {
                code: Code::AgentLoginNeeded,
                text,
            }));
        }
        steps.push(Step::Say(Said::TurnEnded { reason, detail }));
        steps
    }

    fn usage(&self, value: &Value) -> Step {
        let models = value.get("modelUsage").and_then(Value::as_object);
        let sizes = models
            .into_iter()
            .flat_map(|models| models.values())
            .filter_map(|model| model.get("contextWindow")?.as_u64());
        Step::Say(Said::Usage {
            used: self.used,
            size: sizes.max(),
            cost: value.get("total_cost_usd").and_then(Value::as_f64),
            currency: Some("USD".to_owned()),
        })
    }

    fn prompt(&mut self, id: &str, text: &str) -> Vec<Step> {
        self.state = State::Turn { interrupted: false };
        let mut line_out = json!({
            "type": "user",
            "session_id": "",
            "parent_tool_use_id": null,
            "message": {"role": "user", "content": text},
        });
        if let Some(uuid) = uuid(id) {
            line_out["uuid"] = json!(uuid);
            self.prompts.insert(uuid);
        }
        vec![Step::Send(line(&line_out))]
    }

    fn cancel(&mut self) -> Vec<Step> {
        if let State::Turn { interrupted } = &mut self.state {
            *interrupted = true;
        }
        vec![self.request(&json!({"subtype": "interrupt"}), Purpose::Interrupt)]
    }
}

impl Adapter for Claude {
    fn begin(&mut self) -> Vec<Step> {
        vec![self.request(
            &json!({"subtype": "initialize", "hooks": null}),
            Purpose::Initialize,
        )]
    }

    fn hear(&mut self, message: &RawMessage) -> Vec<Step> {
        let value = message.value();
        match text(value, "type").unwrap_or_default() {
            "control_response" => self.responded(message),
            "control_request" => self.asked(message),
            "control_cancel_request" => {
                self.withdrawn(text(value, "request_id").unwrap_or_default())
            }
            "stream_event" => self.streamed(value),
            "assistant" => self.assistant(message),
            "user" => self.user(message),
            "system" => self.system(message),
            "result" => self.result(value),
            quiet if QUIET.contains(&quiet) => Vec::new(),
            unknown => vec![raw(unknown, message)],
        }
    }

    fn obey(&mut self, order: Order) -> Vec<Step> {
        match order {
            Order::Prompt { id, text } => self.prompt(&id, &text),
            Order::Cancel => self.cancel(),
            Order::Answer {
                request,
                ask: _,
                verdict,
            } => self.answer(&request, &verdict),
            Order::SetMode(mode) => {
                let request = json!({"subtype": "set_permission_mode", "mode": mode});
                vec![self.request(&request, Purpose::Mode(mode))]
            }
            Order::SetConfig { option, value } if option == MODEL => {
                let request = json!({"subtype": "set_model", "model": value});
                vec![self.request(&request, Purpose::Model(value))]
            }
            Order::SetConfig { option, value: _ } => {
                vec![notice(format!("there is no setting {option:?}"))]
            }
        }
    }

    fn filed(&mut self, ticket: Ticket, outcome: Result<String, FileError>) -> Vec<Step> {
        let request = self.filing.remove(&ticket);
        request
            .map(|request| self.old_text_known(&request, outcome))
            .unwrap_or_default()
    }
}

/// A prompt's id as the UUID that the dialect wants: the digits at its end.
fn uuid(id: &str) -> Option<String> {
    let digits: Vec<u8> = id
        .rsplit('_')
        .next()?
        .bytes()
        .filter(|byte| *byte != b'-')
        .collect();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?))
        .collect();
    Some(super::uuid_of(&pairs?.try_into().ok()?))
}

fn notice(text: String) -> Step {
    Step::Say(Said::Notice {
        code: Code::AgentRefused,
        text,
    })
}

fn raw(kind: &str, message: &RawMessage) -> Step {
    Step::Say(Said::Raw {
        kind: kind.to_owned(),
        json: brief(message.value()),
    })
}

/// The mode in which a person is asked.
const ASKING: &str = "default";
/// The id of the only setting.
const MODEL: &str = "model";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompts_id_becomes_a_uuid() {
        let expected = Some("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".to_owned());
        assert_eq!(uuid("prm_0199a1b2c3d47e5f8a9b0c1d2e3f4a5b"), expected);
        assert_eq!(uuid("0199a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"), expected);
        assert_eq!(uuid("p1"), None);
        assert_eq!(uuid("prm_é"), None);
    }
}
