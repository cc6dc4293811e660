//! JSON-RPC 2.0 as agents speak it: ids of both directions in separate spaces, numbers or texts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Step;
use super::json::{RawMessage, line, text};

/// A request's id, as its maker wrote it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RpcId(String);

impl RpcId {
    /// The id in a JSON value.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        Self(value.to_string())
    }

    fn raw(&self) -> Box<RawValue> {
        RawValue::from_string(self.0.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

/// What a message amounts to.
#[derive(Debug)]
pub(super) enum Incoming<'a, P> {
    /// The agent wants an answer.
    Request {
        id: RpcId,
        method: &'a str,
        params: &'a Value,
    },
    /// The agent tells something.
    Notification { method: &'a str, params: &'a Value },
    /// The agent answers the request that was made for this purpose.
    Answer {
        purpose: P,
        outcome: Result<&'a Value, RpcError>,
    },
    /// None of these.
    Other,
}

/// An error as an agent answers it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RpcError {
    pub code: i64,
    pub message: String,
    pub data: Option<Value>,
}

impl RpcError {
    /// The error in a JSON value, however incomplete.
    fn of(value: &Value) -> Self {
        Self {
            code: value
                .get("code")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
            message: text(value, "message").map_or_else(|| value.to_string(), str::to_owned),
            data: value.get("data").filter(|data| !data.is_null()).cloned(),
        }
    }

    /// The error for people: agents put what matters into `data`.
    pub(super) fn describe(&self) -> String {
        let detail = self.data.as_ref().and_then(|data| {
            ["details", "message", "error", "reason"]
                .iter()
                .find_map(|key| text(data, key))
                .or_else(|| data.as_str())
                .map(str::to_owned)
                .or_else(|| Some(super::json::brief(data)))
        });
        match detail {
            Some(detail) if !self.message.contains(&detail) => {
                format!("{}: {detail} ({})", self.message, self.code)
            }
            Some(_) | None => format!("{} ({})", self.message, self.code),
        }
    }
}

/// Our end of a JSON-RPC conversation: remembers what each of our requests was for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Peer<P> {
    next: u64,
    open: BTreeMap<u64, P>,
}

impl<P> Peer<P> {
    pub(super) const fn new() -> Self {
        Self {
            next: 1,
            open: BTreeMap::new(),
        }
    }

    /// A request; its answer will come back with `purpose`.
    pub(super) fn request(&mut self, method: &str, params: &Value, purpose: P) -> Step {
        let id = self.next;
        self.next += 1;
        self.open.insert(id, purpose);
        Step::Send(line(
            &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}),
        ))
    }

    /// Sorts a message of the agent.
    pub(super) fn sort<'a>(&mut self, message: &'a RawMessage) -> Incoming<'a, P> {
        let value = message.value();
        let id = value.get("id").filter(|id| !id.is_null());
        let params = value.get("params").unwrap_or(&Value::Null);
        match (text(value, "method"), id) {
            (Some(method), Some(id)) => Incoming::Request {
                id: RpcId::of(id),
                method,
                params,
            },
            (Some(method), None) => Incoming::Notification { method, params },
            (None, Some(id)) => self.answer(value, id),
            (None, None) => Incoming::Other,
        }
    }

    fn answer<'a>(&mut self, value: &'a Value, id: &Value) -> Incoming<'a, P> {
        // Some agents turn our numbers into texts.
        let number = id
            .as_u64()
            .or_else(|| id.as_str().and_then(|id| id.parse().ok()));
        let Some(purpose) = number.and_then(|id| self.open.remove(&id)) else {
            return Incoming::Other;
        };
        let outcome = match value.get("error").filter(|error| !error.is_null()) {
            Some(error) => Err(RpcError::of(error)),
            None => Ok(value.get("result").unwrap_or(&Value::Null)),
        };
        Incoming::Answer { purpose, outcome }
    }
}

/// A notification.
pub(super) fn notify(method: &str, params: &Value) -> Step {
    Step::Send(line(
        &json!({"jsonrpc": "2.0", "method": method, "params": params}),
    ))
}

/// The answer to a request of the agent.
pub(super) fn respond(id: &RpcId, result: &Value) -> Step {
    #[derive(Serialize)]
    struct Response<'a> {
        jsonrpc: &'static str,
        id: Box<RawValue>,
        result: &'a Value,
    }
    Step::Send(line(&Response {
        jsonrpc: "2.0",
        id: id.raw(),
        result,
    }))
}

/// The refusal of a request of the agent.
pub(super) fn refuse(id: &RpcId, code: i64, message: &str) -> Step {
    #[derive(Serialize)]
    struct Response<'a> {
        jsonrpc: &'static str,
        id: Box<RawValue>,
        error: Refusal<'a>,
    }
    #[derive(Serialize)]
    struct Refusal<'a> {
        code: i64,
        message: &'a str,
    }
    Step::Send(line(&Response {
        jsonrpc: "2.0",
        id: id.raw(),
        error: Refusal { code, message },
    }))
}

pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
pub(super) const CANCELLED: i64 = -32800;
pub(super) const AUTH_REQUIRED: i64 = -32000;
pub(super) const NO_SUCH_RESOURCE: i64 = -32002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_both_directions_are_separate() {
        let mut peer = Peer::new();
        let Step::Send(sent) = peer.request("initialize", &json!({}), "init") else {
            panic!()
        };
        assert_eq!(
            sent.get(),
            r#"{"id":1,"jsonrpc":"2.0","method":"initialize","params":{}}"#
        );
        let theirs =
            RawMessage::parse(r#"{"jsonrpc":"2.0","id":1,"method":"fs/read_text_file"}"#).unwrap();
        assert!(matches!(
            peer.sort(&theirs),
            Incoming::Request {
                method: "fs/read_text_file",
                ..
            }
        ));
        let answer = RawMessage::parse(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#).unwrap();
        assert!(matches!(
            peer.sort(&answer),
            Incoming::Answer {
                purpose: "init",
                outcome: Ok(_)
            }
        ));
        assert!(matches!(peer.sort(&answer), Incoming::Other));
    }

    #[test]
    fn an_answer_repeats_the_id_as_it_came() {
        for id in ["0", "\"per_1\"", "-7", "1.5"] {
            let message = RawMessage::parse(&format!(r#"{{"id":{id},"method":"x"}}"#)).unwrap();
            let Incoming::Request { id: found, .. } = Peer::<()>::new().sort(&message) else {
                panic!()
            };
            let Step::Send(sent) = respond(&found, &json!({})) else {
                panic!()
            };
            assert_eq!(
                sent.get(),
                format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
            );
        }
    }

    #[test]
    fn an_error_is_described_with_what_its_data_says() {
        let error = RpcError::of(
            &json!({"code": -32603, "message": "Internal error", "data": {"details": "no model"}}),
        );
        assert_eq!(error.describe(), "Internal error: no model (-32603)");
        assert_eq!(RpcError::of(&json!("odd")).describe(), "\"odd\" (0)");
    }
}
