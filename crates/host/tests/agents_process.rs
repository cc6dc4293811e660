//! Agents as real processes: our scripted one and small shell programs, started, spoken to,
//! misbehaving and ended.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests: what does not fit fails the test"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Ask, Subject, Verdict};
use farhelm_core::content::{Content, ToolStatus};
use farhelm_core::event::StopReason;
use farhelm_host::agents::acp::{Acp, Setup};
use farhelm_host::agents::{
    Agent, AgentEntry, AgentHandle, AgentOutput, AgentProcess, AgentSpec, Conversation, Launch,
    Registry, launch, scripted,
};
use farhelm_proto::Code;
use serde_json::{Value, json};
use tokio::sync::mpsc;

#[tokio::test]
async fn an_allowed_call_changes_the_file_on_disk() {
    let mut agent = Playing::start(&json!([[{"do": "write", "path": "deep/a.txt", "text": "hello\n"}, {"do": "shell", "command": "cat deep/a.txt"}]])).await;
    agent.prompt("go");
    let (request, ask) = agent.asks().await;
    assert!(
        matches!(&ask.subject, Subject::Edit { content, .. } if matches!(&content[..], [Content::Diff { old: None, new, .. }] if new == "hello\n"))
    );
    assert!(
        !agent.dir().join("deep").exists(),
        "nothing is done before the answer"
    );
    agent.answer(request, ask, "allow-once");
    let (request, ask) = agent.asks().await;
    assert_eq!(
        ask.subject,
        Subject::Command {
            command: "cat deep/a.txt".to_owned(),
            dir: agent.dir().display().to_string()
        }
    );
    agent.answer(request, ask, "allow-once");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn);
    assert_eq!(
        fs::read_to_string(agent.dir().join("deep/a.txt")).unwrap(),
        "hello\n"
    );
    assert!(
        agent
            .told
            .iter()
            .any(|said| shows(said, "hello\n", ToolStatus::Completed)),
        "{:?}",
        agent.told
    );
}

#[tokio::test]
async fn a_refused_call_changes_nothing_and_the_turn_goes_on() {
    let mut agent = Playing::start(&json!([[{"do": "write", "path": "a.txt", "text": "x"}, {"do": "text", "text": "still here"}]])).await;
    agent.prompt("go");
    let (request, ask) = agent.asks().await;
    let tool = ask.tool.clone().unwrap();
    agent.answer(request, ask, "reject");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn);
    assert!(!agent.dir().join("a.txt").exists());
    let last = agent.told.iter().rev().find_map(|said| match said {
        Said::Tool(patch) if patch.id == tool => patch.status,
        _ => None,
    });
    assert_eq!(last, Some(ToolStatus::Rejected));
    assert!(agent.text().contains("still here"));
}

#[tokio::test]
async fn a_cancelled_turn_takes_its_question_back() {
    let mut agent = Playing::start(
        &json!([[{"do": "shell", "command": "touch ran"}], [{"do": "text", "text": "again"}]]),
    )
    .await;
    agent.prompt("go");
    let (request, _) = agent.asks().await;
    agent.order(Order::Cancel);
    assert_eq!(agent.turn_ended().await, StopReason::Cancelled);
    assert!(agent.told.contains(&Said::AskWithdrawn { request }));
    assert!(!agent.dir().join("ran").exists());
    agent.prompt("go on");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn);
}

#[tokio::test]
async fn a_running_command_ends_with_its_turn() {
    let mut agent =
        Playing::start(&json!([[{"do": "shell", "command": "echo begun; sleep 1000"}]])).await;
    agent.prompt("go");
    let (request, ask) = agent.asks().await;
    agent.answer(request, ask, "allow-once");
    agent
        .until(|said| matches!(said, Said::ToolProgress(patch) if patch.content.is_some()))
        .await;
    agent.order(Order::Cancel);
    assert_eq!(agent.turn_ended().await, StopReason::Cancelled);
}

#[tokio::test]
async fn allow_always_and_the_mode_auto_ask_no_more() {
    let write = |path: &str| json!({"do": "write", "path": path, "text": "x"});
    let mut agent =
        Playing::start(&json!([[write("a"), write("b")], [{"do": "shell", "command": "touch c"}]]))
            .await;
    agent.prompt("go");
    let (request, ask) = agent.asks().await;
    agent.answer(request, ask, "allow-always");
    agent.turn_ended().await;
    agent.order(Order::SetMode("auto".to_owned()));
    agent
        .until(|said| *said == Said::Mode("auto".to_owned()))
        .await;
    agent.prompt("go");
    agent.turn_ended().await;
    assert!(
        ["a", "b", "c"]
            .iter()
            .all(|name| agent.dir().join(name).exists())
    );
}

#[tokio::test]
async fn a_form_is_filled_in_and_an_address_opened() {
    let schema = json!({"type": "object", "properties": {"colour": {"type": "string"}}});
    let mut agent = Playing::start(&json!([[
        {"do": "question", "message": "Which?", "schema": schema},
        {"do": "visit", "message": "Log in", "url": "https://example.invalid/x"},
    ]]))
    .await;
    agent.prompt("go");
    let (request, ask) = agent.asks().await;
    assert!(matches!(&ask.subject, Subject::Form { message, .. } if message == "Which?"));
    let answers = BTreeMap::from([("colour".to_owned(), json!("blue"))]);
    agent.order(Order::Answer {
        request,
        ask,
        verdict: Verdict::Answered { answers },
    });
    let (request, ask) = agent.asks().await;
    assert!(
        matches!(&ask.subject, Subject::Visit { url, .. } if url == "https://example.invalid/x")
    );
    agent.order(Order::Answer {
        request,
        ask,
        verdict: Verdict::Selected {
            option: "decline".to_owned(),
            allows: false,
            reason: None,
        },
    });
    agent.turn_ended().await;
    assert!(
        agent.text().contains(r#"You answered {"colour":"blue"}."#),
        "{}",
        agent.text()
    );
    assert!(agent.text().contains("You did not answer."));
}

#[tokio::test]
async fn f02_a_crash_in_a_turn_is_told_with_its_signal_and_last_words() {
    let mut agent = Playing::start(
        &json!([[{"do": "stderr", "text": "something broke\n"}, {"do": "crash", "signal": 9}]]),
    )
    .await;
    agent.prompt("go");
    assert_eq!(
        agent.exited().await,
        (None, Some(9), "something broke\n".to_owned())
    );
    assert!(agent.handle.order(Order::Cancel).is_err());
}

#[tokio::test]
async fn f02_a_crash_with_a_code_is_told_with_it() {
    let mut agent = Playing::start(&json!([[{"do": "crash", "code": 3}]])).await;
    agent.prompt("go");
    assert_eq!(agent.exited().await.0, Some(3));
}

#[tokio::test]
async fn garbage_is_noted_a_few_times_and_then_counted() {
    let mut agent = Playing::start(&json!([[{"do": "garbage", "text": "npm WARN something", "times": 12}, {"do": "garbage", "text": "[1]"}, {"do": "text", "text": "unharmed"}]])).await;
    agent.prompt("go");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn);
    assert!(agent.text().contains("unharmed"));
    let notices = |told: &[Said]| {
        told.iter()
            .filter_map(|said| match said {
                Said::Notice {
                    code: Code::AgentGarbage,
                    text,
                } => Some(text.clone()),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(notices(&agent.told), vec!["npm WARN something"; 5]);
    agent.handle.stop();
    agent.exited().await;
    assert_eq!(
        notices(&agent.told).last().unwrap(),
        "and 8 more such lines"
    );
}

#[tokio::test]
async fn a_line_beyond_the_bound_is_skipped_and_one_within_it_comes_whole() {
    const LONG: usize = 7 << 20;
    let mut agent = Playing::start(
        &json!([[{"do": "long_line", "bytes": 20 << 20}, {"do": "output", "bytes": LONG}]]),
    )
    .await;
    agent.prompt("go");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn);
    assert!(agent.told.iter().any(|said| matches!(said, Said::Notice { code: Code::AgentGarbage, text } if text.contains("20971520"))));
    let longest = agent.told.iter().filter_map(|said| match said {
        Said::Tool(patch) => match patch.content.as_deref() {
            Some([Content::Text { text }]) => Some(text.len()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(longest.max(), Some(LONG));
}

#[tokio::test]
async fn an_order_gets_through_while_nobody_reads_a_flood_of_outputs() {
    let mut agent = Playing::start(&json!([[{"do": "count", "to": 10_000_000}]])).await;
    agent.prompt("go");
    agent.until(|said| matches!(said, Said::Delta { .. })).await;
    agent.order(Order::Cancel);
    assert_eq!(agent.turn_ended().await, StopReason::Cancelled);
}

#[tokio::test]
async fn unknown_messages_are_kept_and_unknown_requests_answered() {
    let mut agent = Playing::start(&json!([[
        {"do": "update", "update": {"sessionUpdate": "hologram", "depth": 3}},
        {"do": "notify", "method": "_vendor/thing", "params": {"a": 1}},
        {"do": "request", "method": "terminal/create", "params": {}},
    ]]))
    .await;
    agent.prompt("go");
    agent.turn_ended().await;
    let raw: Vec<_> = agent
        .told
        .iter()
        .filter_map(|said| match said {
            Said::Raw { kind, json } => Some((kind.as_str(), json.as_str())),
            _ => None,
        })
        .collect();
    assert!(
        matches!(raw[..], [("hologram", first), ("_vendor/thing", second)] if first.contains("\"depth\":3") && second.contains("\"a\":1")),
        "{raw:?}"
    );
    assert!(agent.text().contains("-32601"), "{}", agent.text());
}

#[tokio::test]
async fn an_error_on_a_prompt_ends_the_turn_and_not_the_agent() {
    let mut agent =
        Playing::start(&json!([[{"do": "error", "code": -32603, "message": "no such model"}], []]))
            .await;
    agent.prompt("go");
    assert_eq!(agent.turn_ended().await, StopReason::Failed);
    assert!(
        matches!(agent.told.last(), Some(Said::TurnEnded { detail: Some(detail), .. }) if detail.contains("no such model"))
    );
    agent.prompt("go");
    assert_eq!(agent.turn_ended().await, StopReason::EndTurn);
}

#[tokio::test]
async fn a_conversation_is_continued_without_being_told_again() {
    let world = World::new(
        &json!({"scenarios": {"default": [[{"do": "text", "text": "first"}], [{"do": "text", "text": "second"}]]}}),
    );
    let mut agent = Playing::begin(&world, Conversation::New);
    let session = agent.started().await.unwrap();
    agent.prompt("one");
    agent.turn_ended().await;
    agent.handle.stop();
    agent.exited().await;
    let mut agent = Playing::begin(&world, Conversation::Continue(session.clone()));
    assert_eq!(agent.started().await, Some(session));
    assert!(
        agent
            .told
            .iter()
            .any(|said| matches!(said, Said::Started { resumed: true, .. }))
    );
    agent.prompt("two");
    agent.turn_ended().await;
    assert_eq!(agent.text(), "second");
}

#[tokio::test]
async fn a_conversation_that_is_gone_is_begun_anew_and_that_is_said() {
    let world = World::new(&json!({"scenarios": {"default": [[]]}}));
    let mut agent = Playing::begin(&world, Conversation::Continue("scripted-gone".to_owned()));
    assert_ne!(agent.started().await.as_deref(), Some("scripted-gone"));
    assert!(agent.told.iter().any(|said| matches!(
        said,
        Said::Notice {
            code: Code::AgentRefused,
            ..
        }
    )));
    assert!(
        agent
            .told
            .iter()
            .any(|said| matches!(said, Said::Started { resumed: false, .. }))
    );
}

#[tokio::test]
async fn an_agent_that_does_not_answer_its_first_request_is_ended() {
    let world = World::new(&json!({"start": {"hang": "initialize"}, "scenarios": {}}));
    let mut spec = world.spec();
    spec.start_within = Duration::from_millis(50);
    let mut agent = Playing::of(&spec, world.dir(), Conversation::New);
    agent
        .until(|said| {
            matches!(
                said,
                Said::StartFailed {
                    code: Code::AgentSilent,
                    ..
                }
            )
        })
        .await;
    assert_eq!(agent.exited().await.1, Some(15));
}

#[tokio::test]
async fn an_agent_that_wants_a_login_says_which() {
    let world = World::new(&json!({
        "start": {"fail": {"method": "session/new", "code": -32000, "message": "Authentication required"}, "logins": ["API key", "Browser"]},
        "scenarios": {},
    }));
    let mut agent = Playing::begin(&world, Conversation::New);
    let said = agent
        .until(|said| matches!(said, Said::StartFailed { .. }))
        .await;
    let Said::StartFailed { code, text } = said else {
        unreachable!()
    };
    assert_eq!(code, Code::AgentLoginNeeded);
    assert!(text.contains("API key, Browser"), "{text}");
    agent.exited().await;
}

#[tokio::test]
async fn an_agent_that_ends_at_once_says_why() {
    let mut agent = Playing::shell("echo 'no config found' >&2; exit 7");
    let said = agent
        .until(|said| matches!(said, Said::StartFailed { .. }))
        .await;
    assert!(
        matches!(&said, Said::StartFailed { code: Code::AgentExited, text } if text.contains("code 7") && text.contains("no config found")),
        "{said:?}"
    );
    assert_eq!(agent.exited().await.0, Some(7));
}

#[tokio::test]
async fn a_stubborn_agent_is_killed_with_all_it_started() {
    let mut agent =
        Playing::shell("trap '' TERM; sleep 1000 & echo up >&2; while :; do sleep 1000; done");
    let group = rustix::process::Pid::from_raw(i32::try_from(agent.handle.pid()).unwrap()).unwrap();
    while !agent.handle.stderr_tail().contains("up") {
        tokio::task::yield_now().await;
    }
    agent.handle.stop();
    assert_eq!(agent.exited().await.1, Some(9));
    // Init may take a moment to collect the dead.
    while rustix::process::test_kill_process_group(group).is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_handle_ends_the_agent() {
    let mut agent = Playing::start(&json!([[{"do": "hang"}]])).await;
    agent.prompt("go");
    let Playing {
        handle,
        mut outputs,
        ..
    } = agent;
    drop(handle);
    while let Some(output) = outputs.recv().await {
        if let AgentOutput::Exited { .. } = output {
            return;
        }
    }
    panic!("it was not said to have exited");
}

#[tokio::test]
async fn standard_error_is_kept_and_its_file_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("agent.stderr");
    let mut spec = shell_spec(
        folder.path(),
        "i=0; while [ $i -lt 400 ]; do printf '%01000d\\n' $i >&2; i=$((i+1)); done",
    );
    spec.stderr = Some(kept.clone());
    let mut agent = Playing::of(&spec, folder.path().to_owned(), Conversation::New);
    let (_, _, tail) = agent.exited().await;
    assert!(tail.len() <= 4096 && tail.ends_with("0399\n"));
    assert!(fs::metadata(&kept).unwrap().len() <= 128 << 10);
    assert!(fs::metadata(folder.path().join("agent.1")).unwrap().len() <= 128 << 10);
}

#[tokio::test]
async fn a_missing_program_or_folder_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let env = BTreeMap::from([(OsString::from("PATH"), OsString::from("/nonexistent"))]);
    let gemini = Registry::default().find("gemini").unwrap();
    let error = launch(&gemini, Launch::new(folder.path().to_owned(), env.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::AgentMissing);
    assert!(
        error.text.contains("npm install -g @google/gemini-cli"),
        "{error}"
    );
    let shell = Agent {
        command: "/bin/sh".to_owned(),
        ..gemini
    };
    let error = launch(&shell, Launch::new(folder.path().join("gone"), env))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::FolderMissing);
}

#[tokio::test]
async fn a_configured_agent_gets_a_clean_environment_and_its_own_additions() {
    let folder = tempfile::tempdir().unwrap();
    let entry = AgentEntry {
        command: Some("/bin/sh".to_owned()),
        args: Some(vec![
            "-c".to_owned(),
            "echo \"[$CLAUDECODE] [$FARHELM_TOKEN] [$API_KEY] [$EXTRA]\" >&2".to_owned(),
        ]),
        env: BTreeMap::from([("EXTRA".to_owned(), "more".to_owned())]),
        ..AgentEntry::default()
    };
    let agent = Registry::new(BTreeMap::from([("mine".to_owned(), entry)]))
        .find("mine")
        .unwrap();
    let env = [
        ("CLAUDECODE", "1"),
        ("FARHELM_TOKEN", "secret"),
        ("API_KEY", "kept"),
    ];
    let env = env
        .map(|(name, value)| (OsString::from(name), OsString::from(value)))
        .into();
    let (_handle, mut outputs) = launch(&agent, Launch::new(folder.path().to_owned(), env))
        .await
        .unwrap();
    loop {
        if let AgentOutput::Exited { stderr, .. } = outputs.recv().await.unwrap() {
            assert_eq!(stderr, "[] [] [kept] [more]\n");
            break;
        }
    }
}

#[tokio::test]
async fn s27_an_agent_reaches_nothing_outside_the_folder_through_us() {
    let world = World::new(&json!({"scenarios": {"default": [[
        {"do": "read", "path": "../secret", "client": true},
        {"do": "read", "path": "/etc/passwd", "client": true},
        {"do": "read", "path": "link/secret", "client": true},
        {"do": "read", "path": "pipe", "client": true},
        {"do": "write", "path": "link/planted", "text": "x", "client": true},
        {"do": "read", "path": "inside", "client": true},
    ]]}, "start": {"mode": "auto"}}));
    fs::write(world.outside().join("secret"), "secret").unwrap();
    fs::write(world.dir().join("inside"), "fine").unwrap();
    std::os::unix::fs::symlink(world.outside(), world.dir().join("link")).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(world.dir().join("pipe"))
            .status()
            .unwrap()
            .success()
    );
    let mut agent = Playing::begin(&world, Conversation::New);
    agent.started().await;
    agent.order(Order::SetMode("auto".to_owned()));
    agent
        .until(|said| *said == Said::Mode("auto".to_owned()))
        .await;
    agent.prompt("go");
    agent.turn_ended().await;
    let ends: Vec<_> = agent
        .told
        .iter()
        .filter_map(|said| match said {
            Said::Tool(patch) => patch.status.filter(|status| status.is_final()),
            _ => None,
        })
        .collect();
    assert_eq!(
        ends,
        [[ToolStatus::Failed; 5].as_slice(), &[ToolStatus::Completed]].concat()
    );
    assert!(!world.outside().join("planted").exists());
    assert!(
        !format!("{:?}", agent.told).contains("\"secret\""),
        "{:?}",
        agent.told
    );
}

/// Not a test: what the other tests start as their agent.
#[test]
fn the_scripted_agent() {
    if std::env::var_os("FARHELM_SCRIPTED_SCENARIO").is_some() {
        // The test harness prints on standard output, so the wire is elsewhere.
        let wire = File::options().write(true).open("/dev/fd/3").unwrap();
        scripted::run_on(None, std::io::stdin().lock(), Box::new(wire)).unwrap();
        std::process::exit(0);
    }
}

/// A session's folder, something beside it, and a scenario.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new(scenario: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["dir", "outside"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("scenario.json"), scenario.to_string()).unwrap();
        Self { folder }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("dir")
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// This very program again, as the agent.
    fn spec(&self) -> AgentSpec {
        let program = std::env::current_exe().unwrap();
        let mut spec = shell_spec(
            &self.dir(),
            "exec 3>&1 >/dev/null; exec \"$0\" --exact the_scripted_agent --nocapture",
        );
        spec.args.push(program.display().to_string());
        let path = |name: &str| self.folder.path().join(name).into_os_string();
        spec.env
            .insert("FARHELM_SCRIPTED_SCENARIO".into(), path("scenario.json"));
        spec.env
            .insert("FARHELM_SCRIPTED_STATE".into(), path("state"));
        spec
    }
}

fn shell_spec(dir: &Path, script: &str) -> AgentSpec {
    let args = vec!["-c".to_owned(), script.to_owned()];
    let mut spec = AgentSpec::new("/bin/sh".into(), args, dir.to_owned());
    spec.env
        .extend(std::env::var_os("PATH").map(|path| ("PATH".into(), path)));
    spec.grace = Duration::from_millis(300);
    spec
}

/// An agent, and what it has said so far.
struct Playing {
    handle: AgentHandle,
    outputs: mpsc::Receiver<AgentOutput>,
    told: Vec<Said>,
    dir: PathBuf,
    world: Option<World>,
    end: Option<(Option<i32>, Option<i32>, String)>,
}

impl Playing {
    /// The scripted agent with these turns, started.
    async fn start(turns: &Value) -> Self {
        let world = World::new(&json!({"scenarios": {"default": turns}}));
        let mut playing = Self::begin(&world, Conversation::New);
        playing.world = Some(world);
        playing.started().await;
        playing
    }

    fn begin(world: &World, conversation: Conversation) -> Self {
        Self::of(&world.spec(), world.dir(), conversation)
    }

    fn shell(script: &str) -> Self {
        let world = World::new(&json!({}));
        let mut playing = Self::of(
            &shell_spec(&world.dir(), script),
            world.dir(),
            Conversation::New,
        );
        playing.world = Some(world);
        playing
    }

    fn of(spec: &AgentSpec, dir: PathBuf, conversation: Conversation) -> Self {
        let setup = Setup {
            dir: dir.display().to_string(),
            conversation,
            mode: None,
            files: true,
        };
        let (handle, outputs) = AgentProcess::start(spec, Box::new(Acp::new(setup))).unwrap();
        Self {
            handle,
            outputs,
            told: Vec::new(),
            dir,
            world: None,
            end: None,
        }
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn order(&self, order: Order) {
        self.handle.order(order).unwrap();
    }

    fn prompt(&mut self, text: &str) {
        self.told.clear();
        self.order(Order::Prompt {
            id: "prm_1".to_owned(),
            text: text.to_owned(),
        });
    }

    fn answer(&self, request: String, ask: Ask, option: &str) {
        let allows = ask
            .options
            .iter()
            .find(|choice| choice.id == option)
            .unwrap()
            .kind
            .allows();
        let verdict = Verdict::Selected {
            option: option.to_owned(),
            allows,
            reason: None,
        };
        self.order(Order::Answer {
            request,
            ask,
            verdict,
        });
    }

    /// The next output, remembered; nothing after the end.
    async fn next(&mut self) -> Option<Said> {
        let output = tokio::time::timeout(Duration::from_secs(30), self.outputs.recv()).await;
        match output.unwrap_or_else(|_| panic!("nothing more was said after {:?}", self.told)) {
            Some(AgentOutput::Said(said)) => {
                self.told.push(said.clone());
                Some(said)
            }
            Some(AgentOutput::Exited {
                code,
                signal,
                stderr,
            }) => {
                self.end = Some((code, signal, stderr));
                None
            }
            None => None,
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Said) -> bool) -> Said {
        loop {
            match self.next().await {
                Some(said) if wanted(&said) => return said,
                Some(_) => {}
                None => panic!("it ended: {:?} after {:?}", self.end, self.told),
            }
        }
    }

    async fn started(&mut self) -> Option<String> {
        match self
            .until(|said| matches!(said, Said::Started { .. }))
            .await
        {
            Said::Started { agent_session, .. } => agent_session,
            _ => unreachable!(),
        }
    }

    async fn asks(&mut self) -> (String, Ask) {
        match self.until(|said| matches!(said, Said::Asks { .. })).await {
            Said::Asks { request, ask } => (request, ask),
            _ => unreachable!(),
        }
    }

    async fn turn_ended(&mut self) -> StopReason {
        match self
            .until(|said| matches!(said, Said::TurnEnded { .. }))
            .await
        {
            Said::TurnEnded { reason, .. } => reason,
            _ => unreachable!(),
        }
    }

    async fn exited(&mut self) -> (Option<i32>, Option<i32>, String) {
        while self.next().await.is_some() {}
        self.end.clone().unwrap()
    }

    /// The agent's words in this turn.
    fn text(&self) -> String {
        self.told
            .iter()
            .filter_map(|said| match said {
                Said::Delta {
                    content: Content::Text { text },
                    ..
                } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// Whether a call with this status shows this.
fn shows(said: &Said, text: &str, status: ToolStatus) -> bool {
    let expected = [Content::Text {
        text: text.to_owned(),
    }];
    matches!(said, Said::Tool(patch) if patch.status == Some(status) && patch.content.as_deref() == Some(&expected))
}
