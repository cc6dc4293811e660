//! The server: a socket on loopback, and a record of what was asked.
//!
//! It runs on a thread of its own with its own runtime, so that it works the same in a plain
//! test, in an async one and in a demo, and so that dropping it ends every open stream.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use flate2::read::GzDecoder;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::conversation::{Conversation, Part};
use crate::reply::{Event, Reply, fresh_id};
use crate::scenario::Scenarios;
use crate::{anthropic, chat, gemini, responses};

/// A running model server; it ends when this is dropped.
#[derive(Debug)]
pub struct Model {
    port: u16,
    record: Arc<Record>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How to run a [`Model`].
#[derive(Debug, Default)]
pub struct Options {
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Where every request is appended as a line of JSON, keys and tokens left out.
    pub log: Option<PathBuf>,
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The scenario that its last marked prompt names.
    pub scenario: Option<String>,
    /// How many tool results came after that prompt.
    pub results: usize,
    /// The names of the tools it offers, sorted; empty for an agent's side requests.
    pub tools: Vec<String>,
    pub body: Value,
    pub delivery: Delivery,
}

/// How far the answer to a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Still streaming.
    Underway,
    /// Sent to its end.
    Complete,
    /// The agent went away before the end: it was interrupted.
    Abandoned,
}

impl Model {
    /// Serves `scenarios` on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When there is no port or no thread to be had.
    pub fn start(scenarios: Scenarios) -> io::Result<Self> {
        Self::start_with(scenarios, Options::default())
    }

    /// Serves `scenarios` as `options` say.
    ///
    /// # Errors
    ///
    /// When the port is taken, the log cannot be opened, or there is no thread to be had.
    pub fn start_with(scenarios: Scenarios, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let log = match options.log {
            Some(path) => Some(File::options().append(true).create(true).open(path)?),
            None => None,
        };
        let record = Arc::new(Record {
            requests: Mutex::default(),
            log: Mutex::new(log),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let service = Router::new()
            .fallback(handle)
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::new(Service {
                scenarios,
                record: Arc::clone(&record),
            }));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("model".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)
                        .expect("the listener does not block and the runtime has IO");
                    tokio::select! {
                        served = async { axum::serve(listener, service).await } => {
                            served.expect("serving does not end by itself");
                        }
                        // An error means that the model was dropped without a word.
                        Ok(()) | Err(_) = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            port,
            record,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// `http://127.0.0.1:<port>`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.record.requests).clone()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been reported by its own thread.
            drop(thread.join());
        }
    }
}

#[derive(Debug)]
struct Record {
    requests: Mutex<Vec<Request>>,
    log: Mutex<Option<File>>,
}

struct Service {
    scenarios: Scenarios,
    record: Arc<Record>,
}

/// What a path is for.
enum Endpoint {
    Talk(Vendor),
    CountAnthropic,
    CountGemini,
    Models,
    Unknown,
}

#[derive(Clone, Copy)]
enum Vendor {
    Anthropic,
    Chat,
    Responses,
    Gemini,
}

impl Endpoint {
    /// Goes by the end of the path: agents put different things before it.
    fn of(method: &Method, path: &str) -> Self {
        let get = method == Method::GET || method == Method::HEAD;
        match path {
            _ if get && path.ends_with("/models") => Self::Models,
            _ if get => Self::Unknown,
            _ if path.ends_with("/messages") => Self::Talk(Vendor::Anthropic),
            _ if path.ends_with("/messages/count_tokens") => Self::CountAnthropic,
            _ if path.ends_with("/chat/completions") => Self::Talk(Vendor::Chat),
            _ if path.ends_with("/responses") => Self::Talk(Vendor::Responses),
            _ if path.ends_with(":generateContent") => Self::Talk(Vendor::Gemini),
            _ if path.ends_with(":streamGenerateContent") => Self::Talk(Vendor::Gemini),
            _ if path.ends_with(":countTokens") => Self::CountGemini,
            _ => Self::Unknown,
        }
    }
}

impl Vendor {
    fn read(self, path: &str, body: &Value) -> Conversation {
        match self {
            Self::Anthropic => anthropic::read(body),
            Self::Chat => chat::read(body),
            Self::Responses => responses::read(body),
            Self::Gemini => gemini::read(path, body),
        }
    }

    fn write(self, conversation: &Conversation, parts: Vec<Part>) -> Reply {
        match self {
            Self::Anthropic => anthropic::write(conversation, parts),
            Self::Chat => chat::write(conversation, parts),
            Self::Responses => responses::write(conversation, parts),
            Self::Gemini => gemini::write(conversation, parts),
        }
    }
}

async fn handle(
    State(service): State<Arc<Service>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let path = uri.path();
    let Some(body) = decoded(&headers, &bytes) else {
        return as_json(StatusCode::BAD_REQUEST, &problem("the body is not JSON"));
    };
    let note = |conversation: &Conversation, body: Value| {
        let place = conversation.place();
        let request = Request {
            method: method.to_string(),
            path: path.to_owned(),
            scenario: place.scenario,
            results: place.results,
            tools: conversation.tools.names(),
            body,
            delivery: Delivery::Underway,
        };
        Guard::new(Arc::clone(&service.record), &headers, request)
    };
    let tokens = (bytes.len() / 4).max(1);
    let (status, answer) = match Endpoint::of(&method, path) {
        Endpoint::Talk(vendor) => {
            let conversation = vendor.read(path, &body);
            let delivery = note(&conversation, body);
            let parts = conversation.answer(&service.scenarios);
            match vendor.write(&conversation, parts) {
                Reply::Stream(events) => return streamed(events, delivery),
                Reply::Json(answer) => {
                    delivery.complete();
                    return as_json(StatusCode::OK, &answer);
                }
            }
        }
        Endpoint::CountAnthropic => (StatusCode::OK, json!({ "input_tokens": tokens })),
        Endpoint::CountGemini => (StatusCode::OK, json!({ "totalTokens": tokens })),
        Endpoint::Models => (StatusCode::OK, models()),
        Endpoint::Unknown => (StatusCode::NOT_FOUND, problem("there is nothing here")),
    };
    note(&Conversation::default(), body).complete();
    as_json(status, &answer)
}

/// One list for all vendors: each finds the fields that it looks for.
fn models() -> Value {
    let data: Vec<Value> = MODELS
        .iter()
        .map(|id| {
            json!({
                "id": id, "type": "model", "object": "model", "display_name": id,
                "created_at": "2026-01-01T00:00:00Z", "created": 0, "owned_by": "farhelm",
            })
        })
        .collect();
    let models: Vec<Value> = MODELS
        .iter()
        .map(|id| json!({"name": format!("models/{id}"), "displayName": id}))
        .collect();
    json!({
        "object": "list", "has_more": false, "first_id": MODELS[0],
        "last_id": MODELS[MODELS.len() - 1], "data": data, "models": models,
    })
}

fn streamed(events: Vec<Event>, delivery: Guard) -> Response {
    let state = (
        events.into_iter(),
        Some(delivery),
        std::time::Duration::ZERO,
    );
    let chunks = stream::unfold(state, |(mut events, mut delivery, pause)| async move {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let event = events.next();
        if event.is_none()
            && let Some(delivery) = delivery.take()
        {
            delivery.complete();
        }
        event.map(|Event { text, pause }| {
            let chunk = Ok::<_, std::convert::Infallible>(Bytes::from(text));
            (chunk, (events, delivery, pause))
        })
    });
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream".to_owned()),
        (CACHE_CONTROL.as_str(), "no-cache".to_owned()),
        ("request-id", fresh_id("req_")),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}

fn problem(message: &str) -> Value {
    json!({"error": {"type": "not_found_error", "message": message}})
}

fn as_json(status: StatusCode, value: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json")];
    (status, headers, value.to_string()).into_response()
}

fn decoded(headers: &HeaderMap, bytes: &Bytes) -> Option<Value> {
    if bytes.is_empty() {
        return Some(Value::Null);
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|it| it == "gzip") {
        let mut plain = Vec::new();
        GzDecoder::new(bytes.as_ref())
            .read_to_end(&mut plain)
            .ok()?;
        return serde_json::from_slice(&plain).ok();
    }
    serde_json::from_slice(bytes).ok()
}

impl Record {
    fn add(&self, headers: &HeaderMap, request: Request) -> usize {
        self.append(headers, &request);
        let mut requests = lock(&self.requests);
        requests.push(request);
        requests.len() - 1
    }

    fn append(&self, headers: &HeaderMap, request: &Request) {
        let mut log = lock(&self.log);
        let Some(file) = log.as_mut() else { return };
        let headers: BTreeMap<&str, &str> = headers
            .iter()
            .filter(|(name, _)| !SECRETS.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
            .collect();
        let line = json!({
            "method": request.method, "path": request.path, "scenario": request.scenario,
            "results": request.results, "tools": request.tools, "headers": headers,
            "body": request.body,
        });
        writeln!(file, "{line}").expect("the log can be written");
    }
}

/// Notes how far an answer came when the response is dropped.
struct Guard {
    record: Arc<Record>,
    number: usize,
    delivery: Delivery,
}

impl Guard {
    fn new(record: Arc<Record>, headers: &HeaderMap, request: Request) -> Self {
        let number = record.add(headers, request);
        let delivery = Delivery::Abandoned;
        Self {
            record,
            number,
            delivery,
        }
    }

    fn complete(mut self) {
        self.delivery = Delivery::Complete;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(request) = lock(&self.record.requests).get_mut(self.number) {
            request.delivery = self.delivery;
        }
    }
}

/// Nothing under these locks can be left half done, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const SECRETS: [&str; 4] = ["authorization", "cookie", "x-api-key", "x-goog-api-key"];

const MODELS: [&str; 5] = [
    "scripted",
    "claude-sonnet-4-5",
    "claude-haiku-4-5",
    "gpt-5.5",
    "gemini-2.5-pro",
];
