//! The main job with our own agent: real daemon, real relay, a second device.

#![expect(clippy::unwrap_used, reason = "a story that cannot be told has failed")]

use support::{Station, Talk};

mod support;

#[test]
fn a_turn_is_approved_and_denied_from_a_second_device_through_the_relay() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    let (session, _) = host.up(&dir, &["--agent", "scripted"]);

    phone.ok(&["send", &session, "hello"]);
    let first = phone.wait_for_question();
    assert_eq!(first["ask"]["subject"]["kind"], "edit");
    phone.ok(&["approve", first["approval"].as_str().unwrap()]);
    host.wait_for_nth(&session, "approval_applied", 1);

    let second = phone.wait_for_question();
    assert_eq!(second["ask"]["subject"]["kind"], "command");
    phone.ok(&[
        "deny",
        second["approval"].as_str().unwrap(),
        "--reason",
        "not today",
    ]);
    host.wait_for_nth(&session, "turn_ended", 1);

    assert!(dir.join("farhelm-hello.txt").exists());
    let log = host.log_of(&session);
    assert_eq!(log, phone.log_of(&session), "both sides see the same log");
    let decided: Vec<_> = log
        .iter()
        .filter(|record| record["event"]["type"] == "approval_decided")
        .collect();
    assert!(
        decided
            .iter()
            .all(|record| record["event"]["by"]["name"] == "phone")
    );
    let seqs: Vec<_> = log
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(
        seqs,
        (1..=log.len() as u64).collect::<Vec<_>>(),
        "dense from 1"
    );
}

#[test]
fn a_denied_command_does_not_run() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    let scenario = world.path().join("scenario.json");
    std::fs::write(&scenario, SHELL).unwrap();
    let line = format!(
        "{} scripted-agent --scenario {}",
        env!("CARGO_BIN_EXE_farhelm"),
        scenario.display()
    );
    let (session, _) = host.up(&dir, &["--agent-cmd", &line, "--prompt", "go"]);
    let question = phone.wait_for_question();
    assert_eq!(question["ask"]["subject"]["command"], "touch it-ran");
    phone.ok(&["deny", question["approval"].as_str().unwrap()]);
    host.wait_for_nth(&session, "turn_ended", 1);
    assert!(!dir.join("it-ran").exists());
}

#[test]
fn f26_whoever_answers_first_wins_and_the_other_is_told() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    let question = phone.wait_for_question();
    let id = question["approval"].as_str().unwrap();
    host.ok(&["approve", id]);
    let (status, code, message) = phone.fails(&["deny", id]);
    assert_eq!(
        (status, code.as_str()),
        (1, "approval_not_pending"),
        "{message}"
    );
}

#[test]
fn f28_a_turn_is_stopped_from_afar_and_its_question_is_void() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    let (session, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    phone.wait_for_question();
    phone.ok(&["stop", &session]);
    let end = host.wait_for_nth(&session, "turn_ended", 1);
    assert_eq!(end["reason"], "cancelled");
    assert_eq!(phone.json(&["approvals"]), serde_json::json!([]));
    let (_, code, _) = phone.fails(&["stop", &session]);
    assert_eq!(code, "nothing_running");
}

#[test]
fn s18_a_revoked_device_is_cut_off() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    let (session, _) = host.up(&dir, &["--agent", "scripted"]);
    phone.ok(&["send", &session, "hello"]);
    host.ok(&["revoke", "phone"]);
    let (_, code, message) = phone.fails(&["ls"]);
    assert!(
        ["revoked", "not_found"].contains(&code.as_str()),
        "{code}: {message}"
    );
    assert_eq!(host.json(&["devices"])["devices"], serde_json::json!([]));
}

#[test]
fn nothing_is_written_but_what_the_agent_was_allowed_to() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = project(world.path());
    let user = world.path().join("user");
    for (folder, file) in [
        (&dir, "AGENTS.md"),
        (&dir, ".mcp.json"),
        (&user, ".claude.json"),
    ] {
        std::fs::write(folder.join(file), "{}").unwrap();
    }
    let before = [files(&dir), files(&user)];
    let (session, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    for _ in 0..2 {
        let question = host.wait_for_question();
        host.ok(&["approve", question["approval"].as_str().unwrap()]);
        host.wait_for(&session, "an applied answer", |event| {
            event["type"] == "approval_applied" && event["approval"] == question["approval"]
        });
    }
    host.wait_for_nth(&session, "turn_ended", 1);
    std::fs::remove_file(dir.join("farhelm-hello.txt")).unwrap();
    assert_eq!([files(&dir), files(&user)], before);
}

#[test]
fn a_list_says_the_branch_of_a_work_tree() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = project(world.path());
    let git = std::process::Command::new("git")
        .args(["init", "-q", "-b", "feature/lamp"])
        .current_dir(&dir)
        .status();
    assert!(git.unwrap().success());
    host.up(&dir, &["--agent", "scripted"]);
    assert_eq!(host.json(&["ls"])[0]["branch"], "feature/lamp");
}

#[test]
fn i15_a_host_listens_on_loopback_for_its_embedded_relay_and_nowhere_with_another() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = project(world.path());
    host.up(&dir, &["--agent", "scripted"]);
    assert_eq!(listening(&host), ["0100007F"], "127.0.0.1 and no other");
    let folder = world.path().join("other");
    let remote = Station::new(&folder);
    let dir = dir.to_str().unwrap();
    let relay = ["--relay", "http://127.0.0.1:1"];
    remote.json(
        &[
            &["up", "--dir", dir, "--headless", "--agent", "scripted"],
            &relay[..],
        ]
        .concat(),
    );
    assert_eq!(listening(&remote), Vec::<String>::new());
}

#[test]
fn s30_a_link_can_be_read_from_standard_input() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let phone = Station::new(&world.path().join("phone"));
    let (_, link) = host.up(&project(world.path()), &["--agent", "scripted"]);
    let mut joining = Talk::start(phone.command(&["join", "-", "--name", "phone"]));
    joining.say(&link);
    let line = joining.hear("compare with the host: ");
    let code = line.rsplit(": ").next().unwrap();
    host.ok(&["pair", "--accept", code]);
    joining.hear("is a device of");
    assert!(joining.end().success());
}

#[test]
fn a_device_that_may_manage_lets_another_one_in_and_removes_it() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, _) = paired(world.path());
    let tablet = Station::new(&world.path().join("tablet"));
    phone.pair(&tablet, "tablet");
    assert_eq!(
        tablet.json(&["devices"])["devices"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    tablet.ok(&["ls"]);
    phone.ok(&["revoke", "tablet"]);
    let left = host.json(&["devices"]);
    assert_eq!(left["devices"].as_array().unwrap().len(), 1);
    assert_eq!(left["devices"][0]["name"], "phone");
}

#[test]
fn a_session_goes_on_after_the_daemon_was_restarted() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    let (session, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    host.wait_for_question();
    let before = host.log_of(&session);
    host.ok(&["down"]);
    let other = world.path().join("other");
    std::fs::create_dir(&other).unwrap();
    host.up(&other, &["--agent", "scripted"]);
    let after = host.log_of(&session);
    assert_eq!(
        after[..before.len()],
        before[..],
        "nothing that was shown is missing or changed"
    );
    let exit = after
        .iter()
        .find(|record| record["event"]["type"] == "agent_exited");
    assert!(exit.is_some(), "the agent's end is said");
    assert_eq!(
        host.json(&["approvals"]),
        serde_json::json!([]),
        "its question is void"
    );
    phone.ok(&["send", &session, "hello again"]);
    let started = host.wait_for_nth(&session, "agent_started", 2);
    assert_eq!(started["resumed"], true);
    host.wait_for_nth(&session, "approval_requested", 2);
}

#[test]
fn the_terminal_shows_the_conversation_and_takes_prompts_and_answers() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = project(world.path());
    let command = host.command(&["up", "--dir", dir.to_str().unwrap(), "--agent", "scripted"]);
    let mut terminal = Talk::start(command);
    terminal.hear("this link works on this machine only");
    terminal.say("hello");
    terminal.hear("you> hello");
    terminal.hear("< Hello!");
    terminal.hear("[1] Allow once");
    terminal.say("y");
    terminal.hear("allowed by you");
    terminal.hear("[1] Allow once");
    terminal.say("3");
    terminal.hear("denied by you");
    terminal.hear("── done");
    terminal.say("/quit");
    assert!(terminal.end().success());
    assert!(dir.join("farhelm-hello.txt").exists());
    assert_eq!(
        host.json(&["ls"]).as_array().unwrap().len(),
        1,
        "the session goes on"
    );
}

#[test]
fn a_device_is_let_in_at_the_terminal_that_started_the_session() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let phone = Station::new(&world.path().join("phone"));
    let dir = project(world.path());
    let command = host.command(&["up", "--dir", dir.to_str().unwrap(), "--agent", "scripted"]);
    let mut terminal = Talk::start(command);
    let line = terminal.hear("pair a device");
    let link = line.split_whitespace().last().unwrap();
    let mut joining = phone.join(link, "phone");
    let code = joining.code();
    assert!(terminal.hear("phone wants in").contains(&code));
    terminal.say("y");
    assert!(joining.wait().success());
    terminal.say("/quit");
    assert!(terminal.end().success());
    assert_eq!(phone.json(&["ls"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_session_is_ended_from_afar_and_takes_nothing_more() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    let (session, _) = host.up(&dir, &["--agent", "scripted"]);
    phone.ok(&["stop", &session, "--end"]);
    host.wait_for_nth(&session, "session_ended", 1);
    assert_eq!(host.json(&["ls"]), serde_json::json!([]));
    let (_, code, _) = phone.fails(&["send", &session, "too late"]);
    assert_eq!(code, "session_ended");
    assert_eq!(
        phone.json(&["ls", "--all"]).as_array().unwrap().len(),
        2,
        "the one before it too"
    );
}

#[test]
fn s32_no_word_of_a_session_is_in_what_the_relay_keeps() {
    let world = tempfile::tempdir().unwrap();
    let (host, phone, dir) = paired(world.path());
    let (session, _) = host.up(&dir, &["--agent", "scripted"]);
    phone.ok(&["send", &session, "canary-prompt-5ce1"]);
    let question = phone.wait_for_question();
    phone.ok(&[
        "deny",
        question["approval"].as_str().unwrap(),
        "--reason",
        "canary-reason-77b2",
    ]);
    host.ok(&["down"]);
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(host.home.join("relay")).unwrap() {
        kept.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(kept.len() > 4096, "the relay has kept something");
    let has = |needle: &str| {
        kept.windows(needle.len())
            .any(|window| window == needle.as_bytes())
    };
    for canary in [
        "canary-prompt",
        "canary-reason",
        "farhelm-hello",
        "session_opened",
        "phone",
        dir.to_str().unwrap(),
    ] {
        assert!(!has(canary), "{canary}");
    }
    let log = host.log();
    assert!(
        !log.contains("canary") && !log.contains("farhelm-hello"),
        "{log}"
    );
}

/// The addresses, as the kernel writes them, on which a station's daemon listens.
fn listening(host: &Station) -> Vec<String> {
    let pid = host.json(&["status"])["pid"].as_u64().unwrap();
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            let text = link.to_str()?.strip_prefix("socket:[")?;
            Some(text.trim_end_matches(']').to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let is_ours = words
                .get(9)
                .is_some_and(|inode| sockets.iter().any(|own| own == inode));
            if is_ours && words[3] == "0A" {
                found.push(words[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    found
}

/// All files below a folder, with what they hold.
fn files(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

const SHELL: &str = r#"{"scenarios": {"default": [[
    {"do": "shell", "command": "touch it-ran"},
    {"do": "text", "text": "That was it."}
]]}}"#;

/// A host and a device joined to it.
fn paired(world: &std::path::Path) -> (Station, Station, std::path::PathBuf) {
    let host = Station::new(world);
    let phone = Station::new(&world.join("phone"));
    let dir = project(world);
    let elsewhere = world.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (session, _) = host.up(&elsewhere, &["--agent", "scripted"]);
    host.pair(&phone, "phone");
    host.ok(&["stop", &session, "--end"]);
    host.wait_for_nth(&session, "session_ended", 1);
    (host, phone, dir)
}

fn project(world: &std::path::Path) -> std::path::PathBuf {
    let dir = world.join("project");
    std::fs::create_dir(&dir).unwrap();
    dir
}
