//! Questions of an ACP agent: permissions and elicitations, and how they are answered.

use farhelm_core::ask::{Ask, Choice, ChoiceKind, Subject, Verdict};
use farhelm_core::content::ToolStatus;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Acp, BTreeMap, Content, RawMessage, RpcId, Said, Step, ToolPatch, Value, brief, content, list,
    owned, raw, rpc, text,
};

/// A question that waits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Open {
    id: RpcId,
    kind: Kind,
}

#[derive(Debug, Serialize, Deserialize)]
enum Kind {
    /// May this call go ahead?
    Permission { tool: String, options: Vec<Choice> },
    /// A form.
    Form,
    /// An address to open.
    Visit { elicitation: Option<String> },
}

impl Acp {
    pub(super) fn permission_asked(
        &mut self,
        id: RpcId,
        params: &Value,
        message: &RawMessage,
    ) -> Vec<Step> {
        let call = params.get("toolCall").unwrap_or(&Value::Null);
        let input = message.raw_at(&["params", "toolCall", "rawInput"]);
        let Some(patch) = content::tool(call, input) else {
            return vec![rpc::refuse(
                &id,
                rpc::INVALID_PARAMS,
                "`toolCall` is missing or has no id",
            )];
        };
        let tool = patch.id.clone();
        let mut steps = self.upsert(patch, None, false);
        let known = self
            .calls
            .get(&tool)
            .map(|call| call.known.clone())
            .unwrap_or_default();
        let options: Vec<Choice> = list(params, "options").iter().filter_map(choice).collect();
        let ask = Ask {
            tool: Some(tool.clone()),
            title: known.title.clone().unwrap_or_default(),
            subject: self.subject(&known, call),
            options: options.clone(),
            description: None,
            parent: known.parent,
        };
        steps.push(self.ask(
            Open {
                id,
                kind: Kind::Permission { tool, options },
            },
            ask,
        ));
        steps
    }

    /// What a call is about, from all that the agent has said of it.
    fn subject(&self, call: &ToolPatch, asked: &Value) -> Subject {
        let input: Value = call
            .input
            .as_ref()
            .and_then(|input| serde_json::from_str(input).ok())
            .unwrap_or_default();
        let content = call.content.clone().unwrap_or_default();
        let kind = call.kind.as_deref().unwrap_or_default();
        if let (Some(command), "execute") = (content::command(&input), kind) {
            let dir = ["cwd", "workdir", "directory"]
                .iter()
                .find_map(|key| owned(&input, key));
            return Subject::Command {
                command,
                dir: dir.unwrap_or_else(|| self.setup.dir.clone()),
            };
        }
        if let (Some(command), true) = (&call.title, self.is_geminis_shell(call)) {
            let (command, dir) = (command.clone(), self.setup.dir.clone());
            return Subject::Command { command, dir };
        }
        // Without arguments, the request itself is all there is to show.
        let shown = call.input.clone().unwrap_or_else(|| brief(asked));
        if content
            .iter()
            .any(|content| matches!(content, Content::Diff { .. }))
        {
            return Subject::Edit {
                content,
                input: shown,
            };
        }
        if let (Some(text), "switch_mode") = (owned(&input, "plan"), kind) {
            return Subject::Plan { text };
        }
        let name = owned(asked, "name").or_else(|| (!kind.is_empty()).then(|| kind.to_owned()));
        Subject::Tool {
            name: name.or_else(|| call.title.clone()).unwrap_or_default(),
            input: shown,
            content,
        }
    }

    /// Gemini gives no arguments, but the title of its shell tool is the command itself.
    fn is_geminis_shell(&self, call: &ToolPatch) -> bool {
        self.settings.agent.starts_with("gemini-cli")
            && call.input.is_none()
            && call.kind.as_deref() == Some("execute")
            && call.id.starts_with("run_shell_command")
    }

    pub(super) fn elicitation_asked(
        &mut self,
        id: RpcId,
        params: &Value,
        message: &RawMessage,
    ) -> Vec<Step> {
        let said = owned(params, "message").unwrap_or_default();
        let decline = option("decline", "Decline", ChoiceKind::RejectOnce);
        let (kind, subject, options) = match (text(params, "mode"), owned(params, "url")) {
            (Some("url"), Some(url)) => {
                let kind = Kind::Visit {
                    elicitation: owned(params, "elicitationId"),
                };
                let opened = option("accept", "I have opened it", ChoiceKind::AllowOnce);
                (
                    kind,
                    Subject::Visit {
                        message: said.clone(),
                        url,
                    },
                    vec![opened, decline],
                )
            }
            (Some("form") | None, _) if params.get("requestedSchema").is_some() => {
                let schema = message
                    .raw_at(&["params", "requestedSchema"])
                    .map(|schema| schema.get().to_owned());
                (
                    Kind::Form,
                    Subject::Form {
                        message: said.clone(),
                        schema: schema.unwrap_or_default(),
                    },
                    vec![decline],
                )
            }
            // Of a kind that we did not offer: nobody is asked, and a person may see that.
            (_, _) => {
                return vec![
                    rpc::respond(&id, &json!({"action": "cancel"})),
                    raw("elicitation/create", message),
                ];
            }
        };
        let tool = owned(params, "toolCallId");
        let ask = Ask {
            tool,
            title: said,
            subject,
            options,
            description: None,
            parent: None,
        };
        vec![self.ask(Open { id, kind }, ask)]
    }

    fn ask(&mut self, open: Open, ask: Ask) -> Step {
        let request = self.next_ask.to_string();
        self.next_ask += 1;
        self.asks.insert(request.clone(), open);
        Step::Say(Said::Asks { request, ask })
    }

    /// Carries a verdict to the agent. One about a question that does not wait goes nowhere.
    pub(super) fn answer(&mut self, request: &str, verdict: &Verdict) -> Vec<Step> {
        let Some(open) = self.asks.remove(request) else {
            return Vec::new();
        };
        match &open.kind {
            Kind::Permission { tool, options } => {
                self.permission_answered(&open.id, tool, options, verdict)
            }
            Kind::Form | Kind::Visit { .. } => {
                vec![rpc::respond(&open.id, &elicited(&open.kind, verdict))]
            }
        }
    }

    fn permission_answered(
        &mut self,
        id: &RpcId,
        tool: &str,
        options: &[Choice],
        verdict: &Verdict,
    ) -> Vec<Step> {
        let chosen = match verdict {
            Verdict::Selected { option, allows, .. } => options
                .iter()
                .find(|choice| choice.id == *option && choice.kind.allows() == *allows),
            Verdict::Answered { .. } | Verdict::Void { .. } => None,
        };
        let outcome = match chosen {
            Some(choice) => json!({"outcome": {"outcome": "selected", "optionId": choice.id}}),
            None => cancelled(),
        };
        let mut steps = vec![rpc::respond(id, &outcome)];
        if chosen.is_none_or(|choice| choice.kind.rejects()) {
            steps.push(self.refuse_call(tool));
        }
        steps
    }

    /// Some agents say nothing more of a call that was refused.
    fn refuse_call(&mut self, tool: &str) -> Step {
        self.refused.insert(tool.to_owned());
        let patch = ToolPatch {
            id: tool.to_owned(),
            status: Some(ToolStatus::Rejected),
            ..ToolPatch::default()
        };
        if let Some(call) = self.calls.get_mut(tool) {
            call.known.absorb(&patch);
        }
        Step::Say(Said::Tool(patch))
    }

    /// Answers all open questions `cancelled`: the turn is over or is to be.
    pub(super) fn withdraw_all(&mut self) -> Vec<Step> {
        let open = core::mem::take(&mut self.asks);
        open.into_iter()
            .flat_map(|(request, open)| self.withdraw(request, &open))
            .collect()
    }

    fn withdraw(&mut self, request: String, open: &Open) -> Vec<Step> {
        let mut steps = match &open.kind {
            Kind::Permission { tool, .. } => {
                vec![rpc::respond(&open.id, &cancelled()), self.refuse_call(tool)]
            }
            Kind::Form | Kind::Visit { .. } => {
                vec![rpc::respond(&open.id, &json!({"action": "cancel"}))]
            }
        };
        steps.push(Step::Say(Said::AskWithdrawn { request }));
        steps
    }

    /// The agent takes a question back.
    pub(super) fn request_cancelled(&mut self, params: &Value) -> Vec<Step> {
        let id = params.get("requestId").map(RpcId::of);
        let Some(request) = self
            .asks
            .iter()
            .find(|(_, open)| Some(&open.id) == id.as_ref())
            .map(|(request, _)| request.clone())
        else {
            return Vec::new();
        };
        let mut steps = vec![Step::Say(Said::AskWithdrawn {
            request: request.clone(),
        })];
        if let Some(open) = self.asks.remove(&request) {
            steps.insert(0, rpc::refuse(&open.id, rpc::CANCELLED, "cancelled"));
        }
        steps
    }

    /// The person has done at the address what the agent waited for.
    pub(super) fn elicitation_completed(&mut self, params: &Value) -> Vec<Step> {
        let completed = owned(params, "elicitationId");
        let matches = |open: &Open| match &open.kind {
            Kind::Visit { elicitation } => elicitation.is_some() && *elicitation == completed,
            Kind::Permission { .. } | Kind::Form => false,
        };
        let requests: Vec<String> = self
            .asks
            .iter()
            .filter(|(_, open)| matches(open))
            .map(|(request, _)| request.clone())
            .collect();
        let open = requests
            .into_iter()
            .filter_map(|request| self.asks.remove(&request).map(|open| (request, open)));
        open.flat_map(|(request, open)| {
            [
                rpc::respond(&open.id, &json!({"action": "accept"})),
                Step::Say(Said::AskWithdrawn { request }),
            ]
        })
        .collect()
    }
}

fn cancelled() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}

/// The answer to an elicitation.
fn elicited(kind: &Kind, verdict: &Verdict) -> Value {
    match (kind, verdict) {
        (Kind::Form, Verdict::Answered { answers }) => {
            let answers: &BTreeMap<String, Value> = answers;
            json!({"action": "accept", "content": answers})
        }
        (Kind::Visit { .. }, Verdict::Answered { .. } | Verdict::Selected { allows: true, .. }) => {
            json!({"action": "accept"})
        }
        // A form that was not filled in was not accepted.
        (Kind::Form | Kind::Visit { .. } | Kind::Permission { .. }, Verdict::Selected { .. }) => {
            json!({"action": "decline"})
        }
        (Kind::Permission { .. }, Verdict::Answered { .. })
        | (Kind::Form | Kind::Visit { .. } | Kind::Permission { .. }, Verdict::Void { .. }) => {
            json!({"action": "cancel"})
        }
    }
}

fn option(id: &str, name: &str, kind: ChoiceKind) -> Choice {
    Choice {
        id: id.to_owned(),
        name: name.to_owned(),
        kind,
    }
}

fn choice(offered: &Value) -> Option<Choice> {
    let id = owned(offered, "optionId")?;
    let kind = match text(offered, "kind") {
        Some("allow_once") => ChoiceKind::AllowOnce,
        Some("allow_always") => ChoiceKind::AllowAlways,
        Some("reject_once") => ChoiceKind::RejectOnce,
        Some("reject_always") => ChoiceKind::RejectAlways,
        Some(_) | None => ChoiceKind::Other,
    };
    Some(Choice {
        name: owned(offered, "name").unwrap_or_else(|| id.clone()),
        kind,
        id,
    })
}
