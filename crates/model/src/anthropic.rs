//! Anthropic Messages.

use serde_json::{Value, json};

use crate::conversation::{Conversation, Part, Said, list, text_of};
use crate::reply::{Events, Reply, chunks, fresh_id};
use crate::tools::Tool;

pub(crate) fn read(body: &Value) -> Conversation {
    let mut conversation = Conversation {
        model: body["model"].as_str().unwrap_or_default().to_owned(),
        stream: body["stream"] == true,
        ..Conversation::default()
    };
    for tool in list(body, "tools") {
        if let Some(name) = tool["name"].as_str() {
            let schema = tool["input_schema"].clone();
            let freeform = false;
            conversation.tools.insert(name, Tool { schema, freeform });
        }
    }
    for message in list(body, "messages") {
        if message["role"] != "user" {
            continue;
        }
        let results = list(message, "content")
            .iter()
            .filter(|block| block["type"] == "tool_result")
            .count();
        if results > 0 {
            conversation.said.push(Said::Results(results));
        }
        let text = text_of(&message["content"]);
        conversation.said.push(Said::User(text));
    }
    conversation
}

pub(crate) fn write(conversation: &Conversation, parts: Vec<Part>) -> Reply {
    let called = parts.iter().any(|part| matches!(part, Part::Call(_)));
    let stop_reason = if called { "tool_use" } else { "end_turn" };
    let message = json!({
        "id": fresh_id("msg_"), "type": "message", "role": "assistant",
        "model": conversation.model, "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": 100, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": 20,
        },
    });
    if conversation.stream {
        stream(&message, stop_reason, parts)
    } else {
        whole(message, stop_reason, parts)
    }
}

fn whole(mut message: Value, stop_reason: &str, parts: Vec<Part>) -> Reply {
    let blocks = parts.into_iter().map(|part| match part {
        Part::Text { text, .. } => json!({"type": "text", "text": text}),
        Part::Thinking(text) => {
            json!({"type": "thinking", "thinking": text, "signature": SIGNATURE})
        }
        Part::Call(call) => json!({
            "type": "tool_use", "id": fresh_id("toolu_"),
            "name": call.name, "input": call.input.into_arguments(),
        }),
    });
    message["content"] = blocks.collect();
    message["stop_reason"] = stop_reason.into();
    Reply::Json(message)
}

fn stream(message: &Value, stop_reason: &str, parts: Vec<Part>) -> Reply {
    let mut events = Events::default();
    events.named(&json!({"type": "message_start", "message": message}));
    events.named(&json!({"type": "ping"}));
    for (index, part) in parts.into_iter().enumerate() {
        let start = |block: Value| {
            json!({
                "type": "content_block_start", "index": index, "content_block": block
            })
        };
        let delta = |delta: Value| {
            json!({
                "type": "content_block_delta", "index": index, "delta": delta
            })
        };
        match part {
            Part::Text { text, delay } => {
                events.named(&start(json!({"type": "text", "text": ""})));
                for chunk in chunks(&text) {
                    events.named(&delta(json!({"type": "text_delta", "text": chunk})));
                    events.pause(delay);
                }
            }
            Part::Thinking(text) => {
                let empty = json!({"type": "thinking", "thinking": "", "signature": ""});
                events.named(&start(empty));
                for chunk in chunks(&text) {
                    events.named(&delta(json!({"type": "thinking_delta", "thinking": chunk})));
                }
                let signature = json!({"type": "signature_delta", "signature": SIGNATURE});
                events.named(&delta(signature));
            }
            Part::Call(call) => {
                events.named(&start(json!({
                    "type": "tool_use", "id": fresh_id("toolu_"), "name": call.name, "input": {},
                })));
                for chunk in chunks(&call.input.into_arguments().to_string()) {
                    let json = json!({"type": "input_json_delta", "partial_json": chunk});
                    events.named(&delta(json));
                }
            }
        }
        events.named(&json!({"type": "content_block_stop", "index": index}));
    }
    events.named(&json!({
        "type": "message_delta",
        "delta": {"stop_reason": stop_reason, "stop_sequence": null},
        "usage": {"output_tokens": 20},
    }));
    events.named(&json!({"type": "message_stop"}));
    events.into_reply()
}

/// Any base64 will do: nobody but the real service can check it.
const SIGNATURE: &str = "c2lnbmF0dXJl";
