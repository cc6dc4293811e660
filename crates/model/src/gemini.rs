//! Gemini `generateContent` and `streamGenerateContent`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::conversation::{Conversation, Part, Said, list};
use crate::reply::{Events, Reply, chunks, fresh_id};
use crate::tools::Tool;

/// Reads a request; the path, not the body, says the model and whether to stream.
pub(crate) fn read(path: &str, body: &Value) -> Conversation {
    let (before, _) = path.rsplit_once(':').unwrap_or((path, ""));
    let (_, model) = before.rsplit_once('/').unwrap_or(("", before));
    let mut conversation = Conversation {
        model: model.to_owned(),
        stream: path.ends_with(":streamGenerateContent"),
        structured: body["generationConfig"]["responseMimeType"] == "application/json",
        ..Conversation::default()
    };
    for declaration in list(body, "tools")
        .iter()
        .flat_map(|tool| list(tool, "functionDeclarations"))
    {
        if let Some(name) = declaration["name"].as_str() {
            let schema = [
                &declaration["parametersJsonSchema"],
                &declaration["parameters"],
            ]
            .into_iter()
            .find(|schema| schema.is_object())
            .cloned()
            .unwrap_or_default();
            let freeform = false;
            conversation.tools.insert(name, Tool { schema, freeform });
        }
    }
    for content in list(body, "contents") {
        if content["role"] != "user" {
            continue;
        }
        for part in list(content, "parts") {
            if part["functionResponse"].is_object() {
                conversation.said.push(Said::Results(1));
            } else if let Some(text) = part["text"].as_str() {
                conversation.said.push(Said::User(text.to_owned()));
            }
        }
    }
    conversation
}

pub(crate) fn write(conversation: &Conversation, parts: Vec<Part>) -> Reply {
    let pieces: Vec<(Value, Duration)> = parts.into_iter().flat_map(pieces).collect();
    let id = fresh_id("r");
    if !conversation.stream {
        let parts: Value = pieces.into_iter().map(|(part, _)| part).collect();
        return Reply::Json(answer(&id, &parts, Some("STOP")));
    }
    let mut events = Events::default();
    for (part, delay) in pieces {
        events.data(&answer(&id, &json!([part]), None));
        events.pause(delay);
    }
    events.data(&answer(&id, &json!([{"text": ""}]), Some("STOP")));
    events.into_reply()
}

fn pieces(part: Part) -> Vec<(Value, Duration)> {
    match part {
        Part::Text { text, delay } => chunks(&text)
            .into_iter()
            .map(|chunk| (json!({ "text": chunk }), delay))
            .collect(),
        Part::Thinking(text) => {
            let text = format!("**Thinking** {text}");
            vec![(json!({"text": text, "thought": true}), Duration::ZERO)]
        }
        Part::Call(call) => {
            let call = json!({"name": call.name, "args": call.input.into_arguments()});
            vec![(json!({ "functionCall": call }), Duration::ZERO)]
        }
    }
}

fn answer(id: &str, parts: &Value, finish_reason: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if let Some(reason) = finish_reason {
        candidate["finishReason"] = reason.into();
    }
    json!({
        "candidates": [candidate], "modelVersion": "scripted", "responseId": id,
        "usageMetadata": {
            "promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120,
        },
    })
}
