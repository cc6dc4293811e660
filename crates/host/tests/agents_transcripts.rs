//! Recorded conversations with real agents, played again through the adapters: what the session is
//! told, and that we say what was said then.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what does not fit fails the test"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, Subject, Verdict};
use farhelm_core::content::{Content, Location, ToolPatch};
use farhelm_host::agents::acp::{self, Acp};
use farhelm_host::agents::claude::{self, Claude};
use farhelm_host::agents::files::FileError;
use farhelm_host::agents::{Adapter, Conversation, FileWork, RawMessage, Step};
use serde_json::{Value, json};

mod acp_agents {
    use super::*;

    #[test]
    fn claude_agent_acp_allows_one_call_and_is_refused_another() {
        check_acp("acp-claude-acp-basic", Conversation::New);
    }

    #[test]
    fn codex_acp_ends_the_turn_when_a_call_is_refused() {
        check_acp("acp-codex-acp-basic", Conversation::New);
    }

    #[test]
    fn gemini_announces_calls_by_asking_for_them() {
        check_acp("acp-gemini-basic", Conversation::New);
    }

    #[test]
    fn opencode_writes_through_us() {
        check_acp("acp-opencode-basic", Conversation::New);
    }

    #[test]
    fn a_loaded_conversation_of_claude_agent_acp_is_not_told_again() {
        check_acp(
            "acp-claude-acp-load",
            Conversation::Continue("e7b8e2df-7db7-4ef7-a60c-acb744855119".to_owned()),
        );
    }

    #[test]
    fn a_loaded_conversation_of_opencode_is_not_told_again() {
        check_acp(
            "acp-opencode-kill-load",
            Conversation::Continue("ses_df9ef8bbeffe6IZFmRszuEAYv5".to_owned()),
        );
    }

    #[test]
    fn an_agent_that_only_speaks_version_2_does_not_start() {
        check_acp("acp-claude-acp-v2", Conversation::New);
    }
}

mod claude_code {
    use super::*;

    #[test]
    fn one_call_is_allowed_and_another_refused() {
        check_claude("claude-stdio-basic");
    }

    #[test]
    fn questions_are_answered_by_their_words() {
        check_claude("claude-ask");
    }

    #[test]
    fn an_interrupt_withdraws_the_open_question() {
        check_claude("claude-interrupt-perm");
    }

    #[test]
    fn an_interrupt_cuts_a_message_short() {
        check_claude("claude-interrupt-text");
    }

    #[test]
    fn a_killed_session_goes_on() {
        check_claude("claude-kill-resume");
    }

    #[test]
    fn modes_and_models_are_changed_and_one_is_refused() {
        check_claude("claude-modes");
    }

    #[test]
    fn two_calls_at_once_are_asked_one_after_the_other() {
        check_claude("claude-parallel");
    }

    #[test]
    fn words_and_thoughts_of_one_answer_are_messages_of_their_own() {
        check_claude("claude-partial");
    }

    #[test]
    fn a_plan_is_approved() {
        check_claude("claude-plan");
    }

    #[test]
    fn prompts_follow_one_another() {
        check_claude("claude-queue");
    }

    #[test]
    fn a_resumed_session_goes_on() {
        check_claude("claude-resume");
    }

    #[test]
    fn a_subagents_calls_carry_their_parent() {
        check_claude("claude-subagent");
    }
}

/// A line of a transcript.
struct Line {
    ours: bool,
    message: Value,
}

fn transcript(name: &str) -> Vec<Line> {
    let path = format!(
        "{}/tests/transcripts/{name}.jsonl",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            Line {
                ours: line["dir"] == ">",
                message: line["msg"].take(),
            }
        })
        .collect()
}

/// An adapter under test: what it said, and what it sent and was not yet expected.
struct Play {
    adapter: Box<dyn Adapter>,
    told: String,
    sent: Vec<Value>,
    asks: Vec<(String, Ask)>,
    /// The recorded ids of our requests, with those that they have here.
    ids: BTreeMap<String, Value>,
}

impl Play {
    fn new(adapter: Box<dyn Adapter>) -> Self {
        Self {
            adapter,
            told: String::new(),
            sent: Vec::new(),
            asks: Vec::new(),
            ids: BTreeMap::new(),
        }
    }

    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Say(said) => {
                    writeln!(self.told, "{}", brief_said(&said)).unwrap();
                    if let Said::Asks { request, ask } = said {
                        self.asks.push((request, ask));
                    }
                }
                Step::Send(line) => {
                    let line: Value = serde_json::from_str(line.get()).unwrap();
                    writeln!(self.told, "    > {}", brief_sent(&line)).unwrap();
                    self.sent.push(line);
                }
                Step::File { ticket, work } => {
                    writeln!(self.told, "    file: {work:?}").unwrap();
                    let outcome = match work {
                        FileWork::Read { path, .. } => Err(FileError::Missing(path)),
                        FileWork::Write { .. } => Ok(String::new()),
                    };
                    let steps = self.adapter.filed(ticket, outcome);
                    self.take(steps);
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        let steps = self.adapter.obey(order);
        self.take(steps);
    }

    fn hear(&mut self, message: &Value) {
        let steps = self
            .adapter
            .hear(&RawMessage::parse(&message.to_string()).unwrap());
        self.take(steps);
    }

    fn answer(&mut self, verdict: Verdict) {
        let (request, ask) = self.asks.remove(0);
        self.obey(Order::Answer {
            request,
            ask,
            verdict,
        });
    }

    /// Whether we sent something that `matches`; it is not expected any more.
    fn expect(&mut self, matches: impl Fn(&Value) -> bool) -> Option<Value> {
        let at = self.sent.iter().position(matches)?;
        Some(self.sent.remove(at))
    }
}

fn check_acp(name: &str, conversation: Conversation) {
    let setup = acp::Setup {
        dir: "/home/dev/demo".to_owned(),
        conversation,
        mode: None,
        files: true,
    };
    let mut play = Play::new(Box::new(Acp::new(setup)));
    let steps = play.adapter.begin();
    play.take(steps);
    for line in transcript(name) {
        if line.ours {
            play_acp_line(&mut play, &line.message);
        } else if let Some(mut message) = with_our_id(&play, line.message) {
            // Resuming would come first, and replays nothing.
            message
                .pointer_mut("/result/agentCapabilities/sessionCapabilities")
                .map(Value::take);
            play.hear(&message);
            if play.told.contains("start failed") {
                break;
            }
        }
    }
    assert!(
        play.sent.is_empty(),
        "{name}: not sent then: {:?}",
        play.sent
    );
    insta::assert_snapshot!(name.to_owned(), play.told);
}

/// We said `line` then, and are to say it again.
fn play_acp_line(play: &mut Play, line: &Value) {
    let method = line["method"].as_str();
    if let Some(outcome) = line.pointer("/result/outcome") {
        let allows = outcome["optionId"]
            .as_str()
            .is_some_and(|id| id.contains("allow") || id.contains("once"));
        let option = outcome["optionId"].as_str().unwrap().to_owned();
        play.answer(Verdict::Selected {
            option,
            allows,
            reason: None,
        });
    }
    if method == Some("session/prompt") {
        let text = line
            .pointer("/params/prompt/0/text")
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned();
        play.obey(Order::Prompt {
            id: "prm_1".to_owned(),
            text,
        });
    }
    let Some(method) = method else {
        assert!(
            play.expect(|sent| sent == line).is_some(),
            "not answered as then: {line}, but {:?}",
            play.sent
        );
        return;
    };
    let sent = play.expect(|sent| sent["method"] == method);
    match sent {
        Some(sent) => {
            if method != "initialize" {
                assert_eq!(sent["params"], line["params"], "{method}");
            }
            play.ids.insert(line["id"].to_string(), sent["id"].clone());
        }
        // It was in that mode already.
        None => assert_eq!(method, "session/set_mode"),
    }
}

/// An answer of the agent with the id that our request has here; nothing if we made none.
fn with_our_id(play: &Play, mut message: Value) -> Option<Value> {
    if message.get("method").is_none() && message.get("id").is_some() {
        message["id"] = play.ids.get(&message["id"].to_string())?.clone();
    }
    Some(message)
}

fn check_claude(name: &str) {
    let conversation = Conversation::Continue("0a1b2c3d-0000-4000-8000-000000000000".to_owned());
    let setup = claude::Setup::new(
        "/home/dev/demo".to_owned(),
        conversation,
        None,
        String::new(),
    );
    let mut play = Play::new(Box::new(Claude::new(setup)));
    let steps = play.adapter.begin();
    play.take(steps);
    let mut queue: Vec<Value> = Vec::new();
    let mut busy = false;
    for mut line in transcript(name) {
        if line.ours && line.message["type"] == "user" && busy {
            queue.push(line.message);
            continue;
        }
        if line.ours {
            busy |= line.message["type"] == "user";
            play_claude_line(&mut play, &line.message);
            continue;
        }
        if let Some(id) = line.message.pointer_mut("/response/request_id")
            && let Some(ours) = play.ids.get(&id.to_string())
        {
            *id = ours.clone();
        }
        play.hear(&line.message);
        if line.message["type"] == "result" {
            busy = false;
            if !queue.is_empty() {
                busy = true;
                play_claude_line(&mut play, &queue.remove(0));
            }
        }
    }
    assert!(
        play.sent.is_empty(),
        "{name}: not sent then: {:?}",
        play.sent
    );
    insta::assert_snapshot!(name.to_owned(), play.told);
}

fn play_claude_line(play: &mut Play, line: &Value) {
    match (
        line["type"].as_str().unwrap(),
        line.pointer("/request/subtype").and_then(Value::as_str),
    ) {
        ("user", _) => {
            let text = line
                .pointer("/message/content")
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned();
            let id = line["uuid"].as_str().unwrap_or("p").to_owned();
            play.obey(Order::Prompt { id, text });
            let sent = play
                .expect(|sent| sent["message"] == line["message"])
                .unwrap();
            assert_eq!(sent.get("uuid"), line.get("uuid"));
        }
        ("control_response", _) => {
            let response = &line["response"]["response"];
            play.answer(verdict(response));
            assert!(
                play.expect(|sent| sent == line).is_some(),
                "not answered as then: {line}, but {:?}",
                play.sent
            );
        }
        ("control_request", Some(subtype)) => {
            match subtype {
                "interrupt" => play.obey(Order::Cancel),
                "set_permission_mode" => play.obey(Order::SetMode(
                    line["request"]["mode"].as_str().unwrap().to_owned(),
                )),
                "set_model" => {
                    let value = line["request"]["model"].as_str().unwrap().to_owned();
                    play.obey(Order::SetConfig {
                        option: "model".to_owned(),
                        value,
                    });
                }
                "initialize" => {}
                // Tried out then; nothing that we would ask.
                _ => return,
            }
            let sent = play
                .expect(|sent| sent["request"] == line["request"])
                .unwrap();
            play.ids
                .insert(line["request_id"].to_string(), sent["request_id"].clone());
        }
        other => panic!("{other:?}"),
    }
}

fn verdict(response: &Value) -> Verdict {
    if let Some(answers) = response
        .pointer("/updatedInput/answers")
        .and_then(Value::as_object)
    {
        return Verdict::Answered {
            answers: answers.clone().into_iter().collect(),
        };
    }
    let allows = response["behavior"] == "allow";
    let option = if allows { "allow" } else { "reject" }.to_owned();
    Verdict::Selected {
        option,
        allows,
        reason: response["message"].as_str().map(str::to_owned),
    }
}

fn brief_sent(line: &Value) -> String {
    let mut line = line.clone();
    if line["method"] == "initialize" {
        line["params"]["clientInfo"]["version"] = json!("…");
    }
    line.to_string()
}

/// What the session is told, in a line.
fn brief_said(said: &Said) -> String {
    match said {
        Said::Started {
            agent_session,
            name,
            version,
            dialect,
            resumed,
        } => {
            let session = agent_session.as_deref().unwrap_or("-");
            format!(
                "started {name} {} {dialect} {session} resumed={resumed}",
                version.as_deref().unwrap_or("-")
            )
        }
        Said::StartFailed { code, text } => format!("start failed {code}: {text}"),
        Said::Modes { modes, current } => {
            let ids: Vec<_> = modes.iter().map(|mode| mode.id.as_str()).collect();
            format!("modes {ids:?} current={current:?}")
        }
        Said::Mode(mode) => format!("mode {mode}"),
        Said::Config(options) => {
            let options: Vec<_> = options
                .iter()
                .map(|option| {
                    format!(
                        "{}={} of {}",
                        option.id,
                        option.current,
                        option.choices.len()
                    )
                })
                .collect();
            format!("config {options:?}")
        }
        Said::Commands(commands) => format!(
            "commands {:?}",
            commands
                .iter()
                .map(|command| &command.name)
                .collect::<Vec<_>>()
        ),
        Said::Delta {
            message,
            role,
            content,
            parent,
        } => {
            format!(
                "delta {role:?} {} {}{}",
                message.as_deref().unwrap_or("-"),
                brief_content(content),
                brief_parent(parent.as_ref())
            )
        }
        Said::Message {
            message,
            role,
            content,
            parent,
        } => {
            let content: Vec<_> = content.iter().map(brief_content).collect();
            format!(
                "message {role:?} {message} {}{}",
                content.join(" "),
                brief_parent(parent.as_ref())
            )
        }
        Said::Plan(entries) => format!("plan {entries:?}"),
        Said::Tool(patch) => format!("tool {}", brief_patch(patch)),
        Said::ToolProgress(patch) => format!("tool progress {}", brief_patch(patch)),
        Said::Asks { request, ask } => format!("asks {request} {}", brief_ask(ask)),
        Said::AskWithdrawn { request } => format!("ask withdrawn {request}"),
        Said::TurnEnded { reason, detail } => format!(
            "turn ended {reason:?} {}",
            detail.as_deref().unwrap_or_default()
        ),
        Said::Usage {
            used,
            size,
            cost,
            currency,
        } => {
            let show = |number: &Option<u64>| {
                number.map_or_else(|| "-".to_owned(), |number| number.to_string())
            };
            format!(
                "usage {}/{} {} {}",
                show(used),
                show(size),
                cost.unwrap_or_default(),
                currency.as_deref().unwrap_or("-")
            )
        }
        Said::Title(title) => format!("title {title}"),
        Said::Raw { kind, .. } => format!("raw {kind}"),
        Said::Notice { code, text } => format!("notice {code}: {text}"),
    }
}

fn brief_parent(parent: Option<&String>) -> String {
    parent
        .map(|parent| format!(" in {parent}"))
        .unwrap_or_default()
}

fn brief_content(content: &Content) -> String {
    match content {
        Content::Text { text } => format!("{text:?}"),
        Content::Diff { path, old, new } => format!("[diff {path} {old:?} -> {new:?}]"),
        Content::Link { uri, .. } => format!("[link {uri}]"),
        Content::Raw { json } => format!("[raw {json}]"),
        Content::Clipped { .. } | Content::Image { .. } => "[blob]".to_owned(),
    }
}

fn brief_patch(patch: &ToolPatch) -> String {
    let paths = |places: &Vec<Location>| {
        places
            .iter()
            .map(|place| place.path.clone())
            .collect::<Vec<_>>()
    };
    let parts = [
        Some(patch.id.clone()),
        patch.status.map(|status| format!("{status:?}")),
        patch.kind.clone(),
        patch.title.as_ref().map(|title| format!("{title:?}")),
        patch.content.as_deref().map(brief_contents),
        patch
            .locations
            .as_ref()
            .map(|places| format!("at {:?}", paths(places))),
        patch.input.as_ref().map(|input| format!("input {input}")),
        patch.parent.as_ref().map(|parent| format!("in {parent}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn brief_contents(content: &[Content]) -> String {
    content
        .iter()
        .map(brief_content)
        .collect::<Vec<_>>()
        .join(" ")
}

fn brief_ask(ask: &Ask) -> String {
    let subject = match &ask.subject {
        Subject::Command { command, dir } => format!("command {command:?} in {dir}"),
        Subject::Edit { content, .. } => format!(
            "edit {}",
            content
                .iter()
                .map(brief_content)
                .collect::<Vec<_>>()
                .join(" ")
        ),
        Subject::Tool { name, input, .. } => format!("tool {name} {input}"),
        Subject::Plan { text } => format!("plan {text:?}"),
        Subject::Questions { questions } => format!("questions {questions:?}"),
        Subject::Form { message, schema } => format!("form {message:?} {schema}"),
        Subject::Visit { message, url } => format!("visit {message:?} {url}"),
    };
    let options: Vec<_> = ask
        .options
        .iter()
        .map(|choice| format!("{}: {} ({:?})", choice.id, choice.name, choice.kind))
        .collect();
    let parent = brief_parent(ask.parent.as_ref());
    format!(
        "for {} {:?}: {subject}\n    options {options:?}\n    says {:?}{parent}",
        ask.tool.as_deref().unwrap_or("-"),
        ask.title,
        ask.description
    )
}
