//! Questions of Claude Code (`can_use_tool`) and how they are answered.

use farhelm_core::ask::{Answer, Ask, Choice, ChoiceKind, Question, Subject, Verdict};
use farhelm_core::content::{Content, ToolPatch, ToolStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::tools::Call;
use super::{
    Claude, FileError, FileWork, RawMessage, Said, Step, Ticket, Value, json, line, list, owned,
    raw, text,
};

/// A question that waits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Open {
    tool: String,
    call: Call,
    title: String,
    description: Option<String>,
    /// What the agent would remember, by the option that chooses it.
    lasting: Vec<(Choice, Value)>,
}

/// The answer to a request of the agent.
#[derive(Serialize)]
struct Response<'a, T> {
    r#type: &'static str,
    response: Success<'a, T>,
}

#[derive(Serialize)]
struct Success<'a, T> {
    subtype: &'static str,
    request_id: &'a str,
    response: T,
}

#[derive(Serialize)]
struct Allow<'a> {
    behavior: &'static str,
    #[serde(rename = "updatedInput")]
    input: &'a RawValue,
    #[serde(rename = "updatedPermissions", skip_serializing_if = "Option::is_none")]
    permissions: Option<Vec<&'a Value>>,
}

/// The refusal of a request.
fn refusal(id: &str, error: &str) -> Step {
    let response = json!({"subtype": "error", "request_id": id, "error": error});
    Step::Send(line(
        &json!({"type": "control_response", "response": response}),
    ))
}

impl Claude {
    pub(super) fn asked(&mut self, message: &RawMessage) -> Vec<Step> {
        let value = message.value();
        let id = text(value, "request_id").unwrap_or_default();
        let request = value.get("request").unwrap_or(&Value::Null);
        match text(request, "subtype").unwrap_or_default() {
            subtype if message.is_cut() => {
                let text = format!("the agent's request {subtype:?} is too long, and was refused");
                let code = farhelm_proto::Code::AgentGarbage;
                let notice = Step::Say(Said::Notice { code, text });
                vec![refusal(id, "the request is too long"), notice]
            }
            "can_use_tool" => self.permission_asked(id, request, message),
            unknown => {
                let refusal = refusal(id, &format!("unsupported request: {unknown}"));
                vec![refusal, raw(&format!("control_request/{unknown}"), message)]
            }
        }
    }

    fn permission_asked(&mut self, id: &str, request: &Value, message: &RawMessage) -> Vec<Step> {
        let tool = owned(request, "tool_use_id").unwrap_or_else(|| id.to_owned());
        let known = self.calls.get(&tool);
        let input = message
            .raw_at(&["request", "input"])
            .map_or("{}", RawValue::get)
            .to_owned();
        let call = Call::new(
            owned(request, "tool_name").unwrap_or_default(),
            input,
            known.and_then(|call| call.parent.clone()),
        );
        let open = Open {
            title: owned(request, "title").unwrap_or_else(|| call.title()),
            description: description(request),
            lasting: list(request, "permission_suggestions")
                .iter()
                .enumerate()
                .filter_map(lasting)
                .collect(),
            tool: tool.clone(),
            call: call.clone(),
        };
        self.asks.insert(id.to_owned(), open);
        let mut steps = Vec::new();
        // What is asked about may differ from what was called: somebody's hook had a say.
        let differs = known.is_none_or(|known| call.input != "{}" && known.input != call.input);
        if differs {
            steps.push(Step::Say(Said::Tool(call.patch(&tool))));
            self.calls.insert(tool, call.clone());
        }
        // A file that is written over is shown with what it holds.
        if let ("Write", Some(path)) = (call.name.as_str(), call.file()) {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            self.filing.insert(ticket, id.to_owned());
            steps.push(Step::File {
                ticket,
                work: FileWork::Read {
                    path: path.to_owned(),
                    line: None,
                    limit: None,
                },
            });
        } else {
            steps.extend(self.ask(id, None));
        }
        steps
    }

    /// The file that a question is about was read, or not.
    pub(super) fn old_text_known(
        &self,
        request: &str,
        outcome: Result<String, FileError>,
    ) -> Vec<Step> {
        let changes = self.asks.get(request).map(|open| match outcome {
            Ok(old) => open.call.changes(Some(&old)),
            Err(FileError::Missing(_)) => open.call.changes(None),
            Err(error @ (FileError::Refused(_) | FileError::Failed(_))) => {
                let text = format!("What the file holds so far is not shown: {error}.");
                [open.call.changes(None), vec![Content::Text { text }]].concat()
            }
        });
        changes
            .map(|changes| self.ask(request, Some(changes)))
            .unwrap_or_default()
    }

    fn ask(&self, request: &str, changes: Option<Vec<Content>>) -> Vec<Step> {
        let Some(open) = self.asks.get(request) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        if let Some(changes) = &changes {
            let patch = ToolPatch {
                id: open.tool.clone(),
                content: Some(changes.clone()),
                ..ToolPatch::default()
            };
            steps.push(Step::Say(Said::Tool(patch)));
        }
        let ask = Ask {
            tool: Some(open.tool.clone()),
            title: open.title.clone(),
            subject: self.subject(open, changes),
            options: options(open),
            description: open.description.clone(),
            parent: open.call.parent.clone(),
        };
        steps.push(Step::Say(Said::Asks {
            request: request.to_owned(),
            ask,
        }));
        steps
    }

    fn subject(&self, open: &Open, changes: Option<Vec<Content>>) -> Subject {
        let call = &open.call;
        match call.name.as_str() {
            "Bash" | "PowerShell" => match owned(&call.value, "command") {
                Some(command) => Subject::Command {
                    command,
                    dir: self.setup.dir.clone(),
                },
                None => plain(call),
            },
            "AskUserQuestion" => Subject::Questions {
                questions: list(&call.value, "questions")
                    .iter()
                    .map(question)
                    .collect(),
            },
            // The request may leave the plan out that the call has.
            "ExitPlanMode" => {
                let called = self
                    .calls
                    .get(&open.tool)
                    .and_then(|call| owned(&call.value, "plan"));
                Subject::Plan {
                    text: owned(&call.value, "plan").or(called).unwrap_or_default(),
                }
            }
            _ if call.is_edit() => Subject::Edit {
                content: changes.unwrap_or_else(|| call.changes(None)),
                input: call.input.clone(),
            },
            _ => plain(call),
        }
    }

    /// Carries a verdict to the agent. One about a question that does not wait goes nowhere.
    pub(super) fn answer(&mut self, request: &str, verdict: &Verdict) -> Vec<Step> {
        let Some(open) = self.asks.remove(request) else {
            return Vec::new();
        };
        match verdict {
            Verdict::Selected {
                option,
                allows: true,
                ..
            } => match allowed(&open, option) {
                Some(permissions) => vec![allow(request, &open.call.input, permissions)],
                None => self.deny(request, &open, NOT_OFFERED),
            },
            Verdict::Selected {
                allows: false,
                reason,
                ..
            } => self.deny(
                request,
                &open,
                reason
                    .as_deref()
                    .filter(|reason| !reason.trim().is_empty())
                    .unwrap_or(REFUSED),
            ),
            Verdict::Answered { answers } if open.call.name == "AskUserQuestion" => {
                let mut input = open.call.value.clone();
                let answers: serde_json::Map<String, Value> = answers
                    .iter()
                    .map(|(question, answer)| (question.clone(), Value::String(spoken(answer))))
                    .collect();
                if let Some(input) = input.as_object_mut() {
                    input.insert("answers".to_owned(), Value::Object(answers));
                }
                vec![allow(request, line(&input).get(), None)]
            }
            Verdict::Answered { .. } => self.deny(request, &open, NOT_OFFERED),
            Verdict::Void { why } => self.deny(request, &open, &format!("Nobody decided: {why}")),
        }
    }

    fn deny(&mut self, request: &str, open: &Open, message: &str) -> Vec<Step> {
        self.refused.insert(open.tool.clone());
        let denial = json!({"behavior": "deny", "message": message});
        let patch = ToolPatch {
            id: open.tool.clone(),
            status: Some(ToolStatus::Rejected),
            ..ToolPatch::default()
        };
        vec![respond(request, denial), Step::Say(Said::Tool(patch))]
    }

    /// The agent does not wait for an answer any more.
    pub(super) fn withdrawn(&mut self, request: &str) -> Vec<Step> {
        let Some(open) = self.asks.remove(request) else {
            return Vec::new();
        };
        let waited_for_file = self.filing.values().any(|waiting| waiting == request);
        self.filing.retain(|_, waiting| waiting != request);
        self.refused.insert(open.tool.clone());
        let patch = ToolPatch {
            id: open.tool,
            status: Some(ToolStatus::Rejected),
            ..ToolPatch::default()
        };
        let mut steps = vec![Step::Say(Said::Tool(patch))];
        if !waited_for_file {
            steps.push(Step::Say(Said::AskWithdrawn {
                request: request.to_owned(),
            }));
        }
        steps
    }
}

fn respond<T: Serialize>(request: &str, response: T) -> Step {
    let success = Success {
        subtype: "success",
        request_id: request,
        response,
    };
    Step::Send(line(&Response {
        r#type: "control_response",
        response: success,
    }))
}

/// The go-ahead for exactly these arguments.
fn allow(request: &str, input: &str, permissions: Option<Vec<&Value>>) -> Step {
    let input = RawValue::from_string(input.to_owned()).unwrap_or_else(|_| line(&json!({})));
    respond(
        request,
        Allow {
            behavior: "allow",
            input: &input,
            permissions,
        },
    )
}

/// What goes along with an option that allows; nothing if there is no such option.
fn allowed<'a>(open: &'a Open, option: &str) -> Option<Option<Vec<&'a Value>>> {
    if option == ALLOW {
        return Some(None);
    }
    open.lasting
        .iter()
        .find(|(choice, _)| choice.id == option)
        .map(|(_, permission)| Some(vec![permission]))
}

fn options(open: &Open) -> Vec<Choice> {
    let reject = |name: &str| choice(REJECT, name, ChoiceKind::RejectOnce);
    match open.call.name.as_str() {
        "AskUserQuestion" => vec![reject("Do not answer")],
        "ExitPlanMode" => vec![
            choice(ALLOW, "Carry it out", ChoiceKind::AllowOnce),
            reject("Keep planning"),
        ],
        _ => {
            let lasting = open.lasting.iter().map(|(choice, _)| choice.clone());
            [choice(ALLOW, "Allow once", ChoiceKind::AllowOnce)]
                .into_iter()
                .chain(lasting)
                .chain([reject("Reject")])
                .collect()
        }
    }
}

fn choice(id: &str, name: &str, kind: ChoiceKind) -> Choice {
    Choice {
        id: id.to_owned(),
        name: name.to_owned(),
        kind,
    }
}

/// An option for something that the agent would remember.
fn lasting((at, suggestion): (usize, &Value)) -> Option<(Choice, Value)> {
    let scope = scope(text(suggestion, "destination").unwrap_or_default());
    let name = match text(suggestion, "type") {
        Some("setMode") => match text(suggestion, "mode")? {
            "acceptEdits" => format!("Allow, and accept all edits {scope}"),
            // It would ask nobody about anything.
            "bypassPermissions" => return None,
            mode => format!("Allow, and switch to mode {mode}"),
        },
        Some("addRules") if text(suggestion, "behavior") == Some("allow") => {
            let rules: Vec<String> = list(suggestion, "rules").iter().map(rule).collect();
            format!("Always allow {} {scope}", rules.join(", "))
        }
        Some("addDirectories") => {
            let folders: Vec<&str> = list(suggestion, "directories")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            format!("Allow, and give access to {} {scope}", folders.join(", "))
        }
        Some(_) | None => return None,
    };
    Some((
        choice(
            &format!("always-{at}"),
            name.trim_end(),
            ChoiceKind::AllowAlways,
        ),
        suggestion.clone(),
    ))
}

fn rule(rule: &Value) -> String {
    let tool = text(rule, "toolName").unwrap_or_default();
    text(rule, "ruleContent").map_or_else(
        || format!("`{tool}`"),
        |content| format!("`{tool}({content})`"),
    )
}

/// Where the agent would remember it.
fn scope(destination: &str) -> &'static str {
    match destination {
        "session" => "in this session",
        "localSettings" => "in this project",
        "projectSettings" => "in this project, for everybody",
        "userSettings" => "everywhere",
        _ => "",
    }
}

fn plain(call: &Call) -> Subject {
    Subject::Tool {
        name: call.name.clone(),
        input: call.input.clone(),
        content: Vec::new(),
    }
}

/// What the agent says about it.
fn description(request: &Value) -> Option<String> {
    let said: Vec<&str> = ["description", "decision_reason"]
        .iter()
        .filter_map(|key| text(request, key))
        .collect();
    (!said.is_empty()).then(|| said.join("\n"))
}

/// A question; it is named by its words, as the answers are.
fn question(question: &Value) -> Question {
    let text_of = |key: &str| owned(question, key).unwrap_or_default();
    Question {
        id: text_of("question"),
        header: text_of("header"),
        text: text_of("question"),
        choices: list(question, "options")
            .iter()
            .map(|option| Answer {
                label: owned(option, "label").unwrap_or_default(),
                description: owned(option, "description"),
            })
            .collect(),
        multiple: question
            .get("multiSelect")
            .and_then(Value::as_bool)
            .unwrap_or_default(),
    }
}

/// An answer as the agent reads it.
fn spoken(answer: &Value) -> String {
    match answer {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(spoken).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => answer.to_string(),
    }
}

const ALLOW: &str = "allow";
const REJECT: &str = "reject";
const REFUSED: &str = "The person refused this. It was not done.";
const NOT_OFFERED: &str = "The answer did not fit the question. It was not done.";
