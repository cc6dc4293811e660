//! The basic scenario in each vendor's streaming format: three turns, the vendor's own tool
//! names, read back by a client that knows nothing of how the server is made.

#![expect(clippy::unwrap_used, reason = "in a test every surprise may panic")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use farhelm_model::{Delivery, Model, Scenarios};
use serde_json::{Value, json};

const PROMPT: &str = "SCENARIO:basic CWD:/work please";
const COMMAND: &str = "echo ran > ran.txt && cat hello.txt";

/// What a turn amounts to, whoever's format it came in.
#[derive(Debug, PartialEq)]
struct Turn {
    text: String,
    calls: Vec<(String, Value)>,
    stop: String,
}

fn turn(text: &str, calls: Vec<(&str, Value)>, stop: &str) -> Turn {
    Turn {
        text: text.to_owned(),
        calls: calls
            .into_iter()
            .map(|(name, input)| (name.to_owned(), input))
            .collect(),
        stop: stop.to_owned(),
    }
}

const TEXTS: [&str; 3] = [
    "I will create hello.txt, then run a command.",
    "The file is written. A shell command is next.",
    "All done: a file and a command, each as you decided.",
];

#[test]
fn anthropic_messages_play_three_turns() {
    let model = Model::start(Scenarios::standard()).unwrap();
    let tools = json!([
        {"name": "Write", "input_schema": schema(&["file_path", "content"])},
        {"name": "Bash", "input_schema": schema(&["command", "description"])},
    ]);
    let mut messages = vec![json!({"role": "user", "content": PROMPT})];
    let mut turns = Vec::new();
    for _ in 0..3 {
        let body = json!({
            "model": "m", "stream": true, "tools": tools, "messages": messages, "max_tokens": 9,
        });
        let events = stream(&model, "/v1/messages?beta=true", &body);
        let turn = anthropic(&events);
        messages.push(json!({"role": "assistant", "content": []}));
        messages.push(json!({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "any", "content": "done"},
            {"type": "text", "text": "<system-reminder>not a prompt</system-reminder>"},
        ]}));
        turns.push(turn);
    }
    let write = json!({"file_path": "/work/hello.txt", "content": "hello from the model\n"});
    let shell = json!({"command": COMMAND, "description": "Run a command"});
    assert_eq!(
        turns,
        [
            turn(TEXTS[0], vec![("Write", write)], "tool_use"),
            turn(TEXTS[1], vec![("Bash", shell)], "tool_use"),
            turn(TEXTS[2], vec![], "end_turn"),
        ]
    );
    let counted = whole(
        &model,
        "/v1/messages/count_tokens",
        &json!({"messages": []}),
    );
    assert!(counted["input_tokens"].is_u64(), "{counted}");
}

#[test]
fn chat_completions_play_three_turns() {
    let model = Model::start(Scenarios::standard()).unwrap();
    let tools = json!([
        {"type": "function", "function":
            {"name": "write", "parameters": schema(&["filePath", "content"])}},
        {"type": "function", "function": {"name": "bash", "parameters": schema(&["command"])}},
    ]);
    let mut messages = vec![json!({"role": "user", "content": [{"type": "text", "text": PROMPT}]})];
    let mut turns = Vec::new();
    for _ in 0..3 {
        let body = json!({"model": "m", "stream": true, "tools": tools, "messages": messages});
        turns.push(chat(&stream(&model, "/v1/chat/completions", &body)));
        messages.push(json!({"role": "tool", "tool_call_id": "any", "content": "done"}));
    }
    let write = json!({"filePath": "/work/hello.txt", "content": "hello from the model\n"});
    assert_eq!(
        turns,
        [
            turn(TEXTS[0], vec![("write", write)], "tool_calls"),
            turn(
                TEXTS[1],
                vec![("bash", json!({"command": COMMAND}))],
                "tool_calls"
            ),
            turn(TEXTS[2], vec![], "stop"),
        ]
    );
}

#[test]
fn responses_play_three_turns_with_a_freeform_tool() {
    let model = Model::start(Scenarios::standard()).unwrap();
    let tools = json!([
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
        {"type": "function", "name": "exec_command", "parameters":
            schema(&["cmd", "sandbox_permissions"])},
    ]);
    let content = json!([{"type": "input_text", "text": PROMPT}]);
    let mut input = vec![json!({"type": "message", "role": "user", "content": content})];
    let mut turns = Vec::new();
    for _ in 0..3 {
        let body = json!({"model": "m", "stream": true, "tools": tools, "input": input});
        turns.push(responses(&stream(&model, "/v1/responses", &body)));
        input.push(json!({"type": "function_call_output", "call_id": "any", "output": "done"}));
    }
    let patch = "*** Begin Patch\n*** Add File: /work/hello.txt\n+hello from the model\n\
                 *** End Patch";
    let shell = json!({"cmd": COMMAND, "sandbox_permissions": "require_escalated"});
    assert_eq!(
        turns,
        [
            turn(TEXTS[0], vec![("apply_patch", json!(patch))], "completed"),
            turn(TEXTS[1], vec![("exec_command", shell)], "completed"),
            turn(TEXTS[2], vec![], "completed"),
        ]
    );
}

#[test]
fn gemini_plays_three_turns() {
    let model = Model::start(Scenarios::standard()).unwrap();
    let tools = json!([{"functionDeclarations": [
        {"name": "write_file", "parametersJsonSchema": schema(&["file_path", "content"])},
        {"name": "run_shell_command", "parameters": schema(&["command"])},
    ]}]);
    let mut contents = vec![json!({"role": "user", "parts": [{"text": PROMPT}]})];
    let mut turns = Vec::new();
    let path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse";
    for _ in 0..3 {
        let body = json!({"contents": contents, "tools": tools});
        turns.push(gemini(&stream(&model, path, &body)));
        let result = json!({"functionResponse": {"name": "any", "response": {}}});
        contents.push(json!({"role": "user", "parts": [result]}));
    }
    let write = json!({"file_path": "/work/hello.txt", "content": "hello from the model\n"});
    assert_eq!(
        turns,
        [
            turn(TEXTS[0], vec![("write_file", write)], "STOP"),
            turn(
                TEXTS[1],
                vec![("run_shell_command", json!({"command": COMMAND}))],
                "STOP"
            ),
            turn(TEXTS[2], vec![], "STOP"),
        ]
    );
    let title = whole(
        &model,
        "/v1beta/models/gemini-2.5-flash:generateContent",
        &json!({"contents": contents}),
    );
    assert_eq!(
        title["candidates"][0]["content"]["parts"][0]["text"],
        "A short title"
    );
    let counted = whole(&model, "/v1beta/models/x:countTokens", &json!({}));
    assert!(counted["totalTokens"].is_u64(), "{counted}");
}

#[test]
fn every_request_is_recorded() {
    let model = Model::start(Scenarios::standard()).unwrap();
    let tools = json!([{"name": "Write", "input_schema": {}}]);
    let messages = json!([{"role": "user", "content": "SCENARIO:text"}]);
    let body = json!({"stream": true, "tools": tools, "messages": messages});
    stream(&model, "/v1/messages", &body);
    let models = exchange(&model, "GET", "/v1/models", "");
    assert!(models.contains(r#""id":"gemini-2.5-pro""#), "{models}");
    let requests = model.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].path, "/v1/messages");
    assert_eq!(requests[0].scenario.as_deref(), Some("text"));
    assert_eq!(requests[0].tools, ["Write"]);
    assert_eq!(requests[0].delivery, Delivery::Complete);
    assert_eq!(requests[1].path, "/v1/models");
}

#[test]
fn interrupted_answer_is_recorded_as_abandoned() {
    let model = Model::start(Scenarios::standard()).unwrap();
    let tools = json!([{"name": "Write", "input_schema": {}}]);
    let messages = json!([{"role": "user", "content": "SCENARIO:slow"}]);
    let body = json!({"stream": true, "tools": tools, "messages": messages}).to_string();
    let mut socket = send(&model, "POST", "/v1/messages", &body);
    let mut some = [0; 64];
    socket.read_exact(&mut some).unwrap();
    drop(socket);
    let deadline = Instant::now() + Duration::from_secs(10);
    while model.requests()[0].delivery != Delivery::Abandoned {
        assert!(Instant::now() < deadline, "{:?}", model.requests());
        std::thread::yield_now();
    }
}

#[test]
fn dropping_the_model_ends_open_streams() {
    let model = Model::start(Scenarios::standard()).unwrap();
    let tools = json!([{"name": "Write", "input_schema": {}}]);
    let messages = json!([{"role": "user", "content": "SCENARIO:slow"}]);
    let body = json!({"stream": true, "tools": tools, "messages": messages}).to_string();
    let mut socket = send(&model, "POST", "/v1/messages", &body);
    let mut some = [0; 64];
    socket.read_exact(&mut some).unwrap();
    drop(model);
    let mut rest = String::new();
    // The connection is cut, cleanly or not.
    drop(socket.read_to_string(&mut rest));
    assert!(!rest.contains("message_stop"), "{rest}");
}

fn schema(names: &[&str]) -> Value {
    let properties: serde_json::Map<String, Value> = names
        .iter()
        .map(|&name| (name.to_owned(), json!({"type": "string"})))
        .collect();
    json!({"type": "object", "properties": properties, "required": names})
}

fn anthropic(events: &[Value]) -> Turn {
    let mut out = turn("", vec![], "");
    let mut input = String::new();
    for event in events {
        match event["type"].as_str().unwrap() {
            "content_block_start" if event["content_block"]["type"] == "tool_use" => {
                let name = event["content_block"]["name"].as_str().unwrap();
                out.calls.push((name.to_owned(), Value::Null));
                input.clear();
            }
            "content_block_delta" => match event["delta"]["type"].as_str().unwrap() {
                "text_delta" => out.text += event["delta"]["text"].as_str().unwrap(),
                "input_json_delta" => {
                    input += event["delta"]["partial_json"].as_str().unwrap();
                }
                other => panic!("unexpected delta {other}"),
            },
            "content_block_stop" if !input.is_empty() => {
                out.calls.last_mut().unwrap().1 = serde_json::from_str(&input).unwrap();
            }
            "message_delta" => out.stop = event["delta"]["stop_reason"].as_str().unwrap().into(),
            _ => {}
        }
    }
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    out
}

fn chat(events: &[Value]) -> Turn {
    let mut out = turn("", vec![], "");
    let mut arguments: Vec<String> = Vec::new();
    for choice in events.iter().filter_map(|event| event["choices"].get(0)) {
        out.text += choice["delta"]["content"].as_str().unwrap_or_default();
        for call in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if let Some(name) = call["function"]["name"].as_str() {
                out.calls.push((name.to_owned(), Value::Null));
                arguments.push(String::new());
            }
            *arguments.last_mut().unwrap() += call["function"]["arguments"].as_str().unwrap();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            out.stop = reason.to_owned();
        }
    }
    for (call, arguments) in out.calls.iter_mut().zip(arguments) {
        call.1 = serde_json::from_str(&arguments).unwrap();
    }
    assert_eq!(events.last().unwrap(), &json!("[DONE]"));
    out
}

fn responses(events: &[Value]) -> Turn {
    let mut out = turn("", vec![], "");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
        match event["type"].as_str().unwrap() {
            "response.output_text.delta" => out.text += event["delta"].as_str().unwrap(),
            "response.output_item.done" if event["item"]["call_id"].is_string() => {
                let item = &event["item"];
                let input = match item["type"].as_str().unwrap() {
                    "custom_tool_call" => item["input"].clone(),
                    "function_call" => {
                        serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap()
                    }
                    other => panic!("unexpected item {other}"),
                };
                let name = item["name"].as_str().unwrap().to_owned();
                out.calls.push((name, input));
            }
            "response.completed" => {
                out.stop = event["response"]["status"].as_str().unwrap().into();
            }
            _ => {}
        }
    }
    out
}

fn gemini(events: &[Value]) -> Turn {
    let mut out = turn("", vec![], "");
    for event in events {
        let candidate = &event["candidates"][0];
        let part = &candidate["content"]["parts"][0];
        out.text += part["text"].as_str().unwrap_or_default();
        if let Some(call) = part["functionCall"].as_object() {
            let name = call["name"].as_str().unwrap().to_owned();
            out.calls.push((name, call["args"].clone()));
        }
        if let Some(reason) = candidate["finishReason"].as_str() {
            out.stop = reason.to_owned();
        }
    }
    out
}

/// The data of every event of a streamed answer; what is no JSON, as a string.
fn stream(model: &Model, path: &str, body: &Value) -> Vec<Value> {
    let answer = exchange(model, "POST", path, &body.to_string());
    let events: Vec<Value> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data)))
        .collect();
    assert!(!events.is_empty(), "{answer}");
    events
}

fn whole(model: &Model, path: &str, body: &Value) -> Value {
    serde_json::from_str(&exchange(model, "POST", path, &body.to_string())).unwrap()
}

/// The body of the answer. HTTP/1.0 keeps it free of chunk headers.
fn exchange(model: &Model, method: &str, path: &str, body: &str) -> String {
    let mut answer = String::new();
    send(model, method, path, body)
        .read_to_string(&mut answer)
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    body.to_owned()
}

fn send(model: &Model, method: &str, path: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(("127.0.0.1", model.port())).unwrap();
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.0\r\nhost: model\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    socket
}
