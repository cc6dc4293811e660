//! Agents as real processes: our scripted one and small shell programs, started, spoken to,
//! misbehaving and ended.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests: what does not fit fails the test"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::PathBuf;

use farhelm_core::agent::{Order, Said};
use farhelm_core::ask::{Subject, Verdict};
use farhelm_core::content::{Content, ToolStatus};
use farhelm_core::event::StopReason;
use farhelm_host::agents::{Agent, AgentEntry, Conversation, Launch, Registry, prepare, scripted};
use farhelm_host::keeper::Keepers as _;
use farhelm_proto::{Code, SessionId};
use serde_json::json;

mod support;

use support::playing::{Playing, World, shell_spec};

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
    agent.stop();
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
    let mut agent = Playing::begin(&world, Conversation::New).await;
    let session = agent.started().await.unwrap();
    agent.prompt("one");
    agent.turn_ended().await;
    agent.stop();
    agent.exited().await;
    let mut agent = Playing::begin(&world, Conversation::Continue(session.clone())).await;
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
    let mut agent =
        Playing::begin(&world, Conversation::Continue("scripted-gone".to_owned())).await;
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
    let mut agent = Playing::begin(&world, Conversation::New).await;
    agent.lose_patience();
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
    let mut agent = Playing::begin(&world, Conversation::New).await;
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
    let mut agent = Playing::shell("echo 'no config found' >&2; exit 7").await;
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
        Playing::shell("trap '' TERM; sleep 1000 & echo up; while :; do sleep 1000; done").await;
    let pid = i32::try_from(agent.kept.standing.pid).unwrap();
    let group = rustix::process::Pid::from_raw(pid).unwrap();
    // Its trap is set: it says so in what is no message.
    agent
        .until(|said| matches!(said, Said::Notice { .. }))
        .await;
    agent.stop();
    assert_eq!(agent.exited().await.1, Some(9));
    // Init may take a moment to collect the dead.
    while rustix::process::test_kill_process_group(group).is_ok() {
        tokio::task::yield_now().await;
    }
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
    let mut agent = Playing::of(spec, folder.path().to_owned(), Conversation::New).await;
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
    let launch = |dir: PathBuf| Launch::new(support::session(), dir, env.clone());
    let error = prepare(&gemini, launch(folder.path().to_owned()))
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
    let (start, _) = prepare(&shell, launch(folder.path().join("gone")))
        .await
        .unwrap();
    let home = support::Home::new();
    let error = home.keepers(1).start(start).await.unwrap_err();
    assert_eq!(error.code, Code::FolderMissing);
    // Nothing of it is left.
    assert_eq!(home.keepers(1).list().await, Vec::<SessionId>::new());
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
    let launch = Launch::new(support::session(), folder.path().to_owned(), env);
    let (start, interpreter) = prepare(&agent, launch).await.unwrap();
    let mut agent = Playing::with(start, interpreter).await;
    assert_eq!(agent.exited().await.2, "[] [] [kept] [more]\n");
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
    let mut agent = Playing::begin(&world, Conversation::New).await;
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

/// Whether a call with this status shows this.
fn shows(said: &Said, text: &str, status: ToolStatus) -> bool {
    let expected = [Content::Text {
        text: text.to_owned(),
    }];
    matches!(said, Said::Tool(patch) if patch.status == Some(status) && patch.content.as_deref() == Some(&expected))
}
