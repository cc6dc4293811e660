//! OpenAI Responses, with function and custom (freeform) tools.

use serde_json::{Value, json};

use crate::conversation::{Conversation, Part, Said, list, text_of};
use crate::reply::{Events, Reply, chunks, fresh_id};
use crate::tools::{Call, Input, Tool};

pub(crate) fn read(body: &Value) -> Conversation {
    let mut conversation = Conversation {
        model: body["model"].as_str().unwrap_or_default().to_owned(),
        stream: body["stream"] == true,
        structured: body["text"]["format"]["type"] == "json_schema",
        ..Conversation::default()
    };
    for tool in list(body, "tools") {
        offer(&mut conversation, tool);
        // A namespace holds tools of its own.
        for inner in list(tool, "tools") {
            offer(&mut conversation, inner);
        }
    }
    if let Some(text) = body["input"].as_str() {
        conversation.said.push(Said::User(text.to_owned()));
    }
    for item in list(body, "input") {
        if item["role"] == "user" {
            let text = text_of(&item["content"]);
            conversation.said.push(Said::User(text));
        } else if item["type"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("_output"))
        {
            conversation.said.push(Said::Results(1));
        }
    }
    conversation
}

fn offer(conversation: &mut Conversation, tool: &Value) {
    if let Some(name) = tool["name"].as_str().or_else(|| tool["type"].as_str()) {
        let schema = tool["parameters"].clone();
        let freeform = tool["type"] == "custom";
        conversation.tools.insert(name, Tool { schema, freeform });
    }
}

pub(crate) fn write(conversation: &Conversation, parts: Vec<Part>) -> Reply {
    let mut stream = Stream::default();
    let response = json!({
        "id": fresh_id("resp_"), "object": "response", "created_at": CREATED,
        "status": "in_progress", "model": conversation.model, "output": [],
    });
    stream.send("response.created", json!({ "response": response }));
    let mut output = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        stream.index = index;
        output.push(match part {
            Part::Text { text, delay } => {
                let item = message(&text);
                stream.message(&item, &text, delay);
                item
            }
            Part::Thinking(text) => {
                let item = reasoning(&text);
                stream.reasoning(&item, &text);
                item
            }
            Part::Call(call) => {
                let item = tool_call(call);
                stream.tool_call(&item);
                item
            }
        });
    }
    let mut completed = response;
    completed["status"] = "completed".into();
    completed["output"] = output.into();
    completed["usage"] = json!({
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 20, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 120,
    });
    if !conversation.stream {
        return Reply::Json(completed);
    }
    stream.send("response.completed", json!({ "response": completed }));
    stream.events.into_reply()
}

fn message(text: &str) -> Value {
    json!({
        "id": fresh_id("msg_"), "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    })
}

fn reasoning(text: &str) -> Value {
    json!({
        "id": fresh_id("rs_"), "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}],
    })
}

fn tool_call(call: Call) -> Value {
    let call_id = fresh_id("call_");
    match call.input {
        Input::Freeform(text) => json!({
            "id": fresh_id("ctc_"), "type": "custom_tool_call", "status": "completed",
            "call_id": call_id, "name": call.name, "input": text,
        }),
        Input::Arguments(arguments) => json!({
            "id": fresh_id("fc_"), "type": "function_call", "status": "completed",
            "call_id": call_id, "name": call.name, "arguments": arguments.to_string(),
        }),
    }
}

/// The numbered events of one response.
#[derive(Default)]
struct Stream {
    events: Events,
    sequence: usize,
    index: usize,
}

impl Stream {
    fn message(&mut self, item: &Value, text: &str, delay: std::time::Duration) {
        let id = &item["id"];
        self.added(item, &[("content", json!([]))]);
        let at = json!({"item_id": id, "content_index": 0});
        let part = json!({"type": "output_text", "text": "", "annotations": []});
        self.about("response.content_part.added", &at, "part", part);
        for chunk in chunks(text) {
            self.about("response.output_text.delta", &at, "delta", chunk.into());
            self.events.pause(delay);
        }
        self.about("response.output_text.done", &at, "text", text.into());
        self.done(item);
    }

    fn reasoning(&mut self, item: &Value, text: &str) {
        self.added(item, &[("summary", json!([]))]);
        let at = json!({"item_id": item["id"], "summary_index": 0});
        let part = json!({"type": "summary_text", "text": ""});
        self.about("response.reasoning_summary_part.added", &at, "part", part);
        for chunk in chunks(text) {
            let name = "response.reasoning_summary_text.delta";
            self.about(name, &at, "delta", chunk.into());
        }
        let name = "response.reasoning_summary_text.done";
        self.about(name, &at, "text", text.into());
        self.done(item);
    }

    fn tool_call(&mut self, item: &Value) {
        let (field, prefix) = if item["type"] == "custom_tool_call" {
            ("input", "response.custom_tool_call_input")
        } else {
            ("arguments", "response.function_call_arguments")
        };
        self.added(item, &[(field, json!(""))]);
        let at = json!({ "item_id": item["id"] });
        for chunk in chunks(item[field].as_str().unwrap_or_default()) {
            self.about(&format!("{prefix}.delta"), &at, "delta", chunk.into());
        }
        self.about(&format!("{prefix}.done"), &at, field, item[field].clone());
        self.done(item);
    }

    /// Announces `item` with the fields that are yet to be filled.
    fn added(&mut self, item: &Value, empty: &[(&str, Value)]) {
        let mut item = item.clone();
        item["status"] = "in_progress".into();
        for (field, value) in empty {
            item[*field] = value.clone();
        }
        let index = self.index;
        self.send(
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
        );
    }

    fn done(&mut self, item: &Value) {
        let index = self.index;
        self.send(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }

    fn about(&mut self, name: &str, at: &Value, field: &str, value: Value) {
        let mut data = at.clone();
        data["output_index"] = self.index.into();
        data[field] = value;
        self.send(name, data);
    }

    fn send(&mut self, name: &str, mut data: Value) {
        data["type"] = name.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        self.events.named(&data);
    }
}

/// Nobody reads it; a fixed time keeps the clock out of here.
const CREATED: u64 = 1_767_225_600;
