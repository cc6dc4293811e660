//! OpenAI Chat Completions.

use serde_json::{Value, json};

use crate::conversation::{Conversation, Part, Said, list, text_of};
use crate::reply::{Events, Reply, chunks, fresh_id};
use crate::tools::Tool;

pub(crate) fn read(body: &Value) -> Conversation {
    let mut conversation = Conversation {
        model: body["model"].as_str().unwrap_or_default().to_owned(),
        stream: body["stream"] == true,
        structured: matches!(
            body["response_format"]["type"].as_str(),
            Some("json_object" | "json_schema")
        ),
        ..Conversation::default()
    };
    for tool in list(body, "tools") {
        let function = &tool["function"];
        if let Some(name) = function["name"].as_str() {
            let schema = function["parameters"].clone();
            let freeform = false;
            conversation.tools.insert(name, Tool { schema, freeform });
        }
    }
    for message in list(body, "messages") {
        match message["role"].as_str() {
            Some("user") => {
                let text = text_of(&message["content"]);
                conversation.said.push(Said::User(text));
            }
            Some("tool") => conversation.said.push(Said::Results(1)),
            Some(_) | None => {}
        }
    }
    conversation
}

pub(crate) fn write(conversation: &Conversation, parts: Vec<Part>) -> Reply {
    let called = parts.iter().any(|part| matches!(part, Part::Call(_)));
    let finish_reason = if called { "tool_calls" } else { "stop" };
    let base = json!({
        "id": fresh_id("chatcmpl-"), "created": CREATED, "model": conversation.model,
    });
    if conversation.stream {
        stream(&base, finish_reason, parts)
    } else {
        whole(base, finish_reason, parts)
    }
}

fn whole(mut answer: Value, finish_reason: &str, parts: Vec<Part>) -> Reply {
    let mut content = String::new();
    let mut calls = Vec::new();
    for part in parts {
        match part {
            Part::Text { text, .. } => content.push_str(&text),
            Part::Thinking(_) => {}
            Part::Call(call) => calls.push(json!({
                "id": fresh_id("call_"), "type": "function",
                "function": {
                    "name": call.name, "arguments": call.input.into_arguments().to_string(),
                },
            })),
        }
    }
    let mut message = json!({"role": "assistant", "content": content});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    answer["object"] = "chat.completion".into();
    answer["choices"] = json!([{"index": 0, "message": message, "finish_reason": finish_reason}]);
    answer["usage"] = usage();
    Reply::Json(answer)
}

fn stream(base: &Value, finish_reason: &str, parts: Vec<Part>) -> Reply {
    let mut events = Events::default();
    let chunk = |choices: Value| {
        let mut chunk = base.clone();
        chunk["object"] = "chat.completion.chunk".into();
        chunk["choices"] = choices;
        chunk
    };
    let delta = |delta: Value| chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]));
    events.data(&delta(json!({"role": "assistant", "content": ""})));
    let mut calls = 0;
    for part in parts {
        match part {
            Part::Text { text, delay } => {
                for piece in chunks(&text) {
                    events.data(&delta(json!({ "content": piece })));
                    events.pause(delay);
                }
            }
            Part::Thinking(text) => {
                for piece in chunks(&text) {
                    events.data(&delta(json!({ "reasoning_content": piece })));
                }
            }
            Part::Call(call) => {
                let function = json!({"name": call.name, "arguments": ""});
                events.data(&delta(json!({"tool_calls": [{
                    "index": calls, "id": fresh_id("call_"), "type": "function",
                    "function": function,
                }]})));
                for piece in chunks(&call.input.into_arguments().to_string()) {
                    let function = json!({ "arguments": piece });
                    let call = json!({"index": calls, "function": function});
                    events.data(&delta(json!({ "tool_calls": [call] })));
                }
                calls += 1;
            }
        }
    }
    events.data(&chunk(
        json!([{"index": 0, "delta": {}, "finish_reason": finish_reason}]),
    ));
    let mut last = chunk(json!([]));
    last["usage"] = usage();
    events.data(&last);
    events.done();
    events.into_reply()
}

fn usage() -> Value {
    json!({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120})
}

/// Nobody reads it; a fixed time keeps the clock out of here.
const CREATED: u64 = 1_767_225_600;
