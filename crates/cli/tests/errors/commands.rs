//! Commands with nobody to ask, or that name what is not there.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Station, folder, wait_until};

#[test]
fn down_with_nothing_running_says_so() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    host.refuses(
        &["down"],
        3,
        "not_running",
        &["no daemon is running", "farhelm up"],
    );
    assert!(
        !host.home.join("farhelm.lock").exists(),
        "asking makes no state"
    );
}

#[test]
fn commands_on_a_machine_that_is_neither_host_nor_joined_say_how_to_begin() {
    let world = tempfile::tempdir().unwrap();
    let nobody = Station::new(world.path());
    let commands: &[&[&str]] = &[
        &["pair"],
        &["devices"],
        &["revoke", "phone"],
        &["ls"],
        &["log", "x"],
        &["send", "x", "hello"],
        &["approvals"],
        &["approve", "x"],
        &["deny", "x"],
        &["stop", "x"],
        &["status"],
    ];
    for command in commands {
        nobody.refuses(
            command,
            3,
            "not_running",
            &["`farhelm up`", "`farhelm join LINK`"],
        );
    }
    let (_, said) = nobody.complains(&["ls"]);
    assert!(
        said.starts_with("error[not_running]: no daemon runs here"),
        "{said}"
    );
    assert!(!said.contains("hint:"), "nothing is said twice: {said}");
}

#[test]
fn what_is_named_and_is_not_there_is_quoted_with_where_to_look() {
    let (world, host, dir) = world();
    let (session, _) = host.up(&dir, &["--agent", "scripted"]);
    host.refuses(
        &["log", "nothing"],
        1,
        "session_not_found",
        &["\"nothing\"", "`farhelm ls --all`"],
    );
    host.refuses(
        &["send", "nothing", "hello"],
        1,
        "session_not_found",
        &["`farhelm ls --all`"],
    );
    host.refuses(
        &["stop", "nothing"],
        1,
        "session_not_found",
        &["`farhelm ls --all`"],
    );
    let foreign = "ses_00000000000000000000000000000001";
    host.refuses(
        &["log", foreign],
        1,
        "session_not_found",
        &["no such session"],
    );
    host.refuses(
        &["send", foreign, "hello"],
        1,
        "session_not_found",
        &["no such session"],
    );
    host.refuses(
        &["approve", "nothing"],
        1,
        "approval_not_pending",
        &["\"nothing\"", "`farhelm approvals`"],
    );
    host.refuses(
        &["deny", "nothing"],
        1,
        "approval_not_pending",
        &["`farhelm approvals`"],
    );
    host.refuses(
        &["revoke", "nobody"],
        1,
        "not_found",
        &["\"nobody\"", "`farhelm devices`"],
    );
    host.refuses(
        &["pair", "--accept", "123 456"],
        1,
        "not_found",
        &["123 456", "`farhelm devices`"],
    );
    host.refuses(
        &["stop", &session],
        1,
        "nothing_running",
        &["no turn is running"],
    );
    host.refuses(&["send", &session, " "], 1, "bad_command", &["empty"]);
    host.still_works(&dir);
    drop(world);
}

#[test]
fn a_title_that_two_sessions_have_is_ambiguous_and_an_id_decides() {
    let (_world, host, dir) = world();
    let (first, _) = host.up(&dir, &["--agent", "scripted"]);
    let (second, _) = host.up(&dir, &["--agent", "scripted"]);
    host.refuses(
        &["log", "project"],
        1,
        "ambiguous",
        &["\"project\"", "2 sessions", "more of its id"],
    );
    for session in [first, second] {
        let end = &session[session.len() - 6..];
        // Its agent may still be on its way up.
        assert_eq!(host.log_of(end)[0], host.log_of(&session)[0]);
    }
}

#[test]
fn an_option_or_answer_that_the_agent_does_not_offer_leaves_the_question_open() {
    let (_world, host, dir) = world();
    host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    let question = host.wait_for_question();
    let id = question["approval"].as_str().unwrap();
    host.refuses(
        &["approve", id, "--option", "sometimes"],
        1,
        "unknown_option",
        &["`farhelm approvals`", "--option"],
    );
    host.refuses(
        &["approve", id, "--answer", "blue"],
        1,
        "unknown_option",
        &["QUESTION=ANSWER"],
    );
    assert_eq!(host.wait_for_question()["approval"], question["approval"]);
    host.ok(&["approve", id]);
}

#[test]
fn a_log_begins_where_it_is_asked_to() {
    let (_world, host, dir) = world();
    let (session, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    host.wait_for_question();
    host.ok(&["stop", &session]);
    host.wait_for_nth(&session, "turn_ended", 1);
    let phone = Station::new(&folder(host.home.parent().unwrap(), "phone"));
    host.pair(&phone, "phone");
    let whole = host.log_of(&session);
    let from = |station: &Station, seq: usize| -> Vec<Value> {
        let text = station.ok(&["log", &session, "--from", &seq.to_string(), "--json"]);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    for station in [&host, &phone] {
        for seq in [
            0,
            1,
            2,
            whole.len() - 1,
            whole.len(),
            whole.len() + 1,
            whole.len() + 100,
        ] {
            assert_eq!(
                from(station, seq),
                whole[whole.len().min(seq.max(1) - 1)..],
                "from {seq}"
            );
        }
    }
    let output = host.run(&["log", &session, "--from", "some"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn with_json_every_error_is_json_on_standard_output_and_nothing_else() {
    let (_world, host, dir) = world();
    host.up(&dir, &["--agent", "scripted"]);
    let wrong: &[(&[&str], i32, &str)] = &[
        (&["up", "--dir", "/nonexistent"], 1, "folder_missing"),
        (
            &["up", "--agent", "nobody", "--headless"],
            1,
            "agent_unknown",
        ),
        (
            &["up", "--relay", "http://127.0.0.1:1", "--headless"],
            1,
            "already_running",
        ),
        (&["join", "nonsense"], 1, "bad_link"),
        (&["pair", "--accept", "000 000"], 1, "not_found"),
        (&["pair", "--refuse", "000 000"], 1, "not_found"),
        (&["revoke", "nobody"], 1, "not_found"),
        (&["log", "nothing"], 1, "session_not_found"),
        (&["send", "nothing", "hello"], 1, "session_not_found"),
        (&["stop", "nothing"], 1, "session_not_found"),
        (&["approve", "nothing"], 1, "approval_not_pending"),
        (&["deny", "nothing"], 1, "approval_not_pending"),
        (&["--host", "elsewhere", "status"], 4, "not_paired"),
        (&["join"], 2, "bad_command"),
        (&["frobnicate"], 2, "bad_command"),
        (&["log"], 2, "bad_command"),
        (
            &["pair", "--accept", "1", "--refuse", "1"],
            2,
            "bad_command",
        ),
    ];
    for (args, status, code) in wrong {
        let output = host.run(&[*args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(*status), "{args:?}: {output:?}");
        assert_eq!(output.stdout.lines().count(), 1, "{args:?}: {output:?}");
        let error: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(error["error"]["code"], *code, "{args:?}: {output:?}");
        assert!(!error["error"]["message"].as_str().unwrap().is_empty());
        assert_eq!(output.stderr, "", "{args:?}");
    }
    host.still_works(&dir);
}

#[test]
fn a_machine_that_is_joined_to_several_hosts_asks_which() {
    let world = tempfile::tempdir().unwrap();
    let phone = Station::new(&folder(world.path(), "phone"));
    let hosts = ["desk", "lab"].map(|name| {
        let host = Station::new(&folder(world.path(), name));
        host.configure(&format!("name = \"{name}\"\n"));
        host.up(
            &folder(world.path(), &format!("work-of-{name}")),
            &["--agent", "scripted"],
        );
        host.pair(&phone, "phone");
        host
    });
    phone.refuses(&["ls"], 1, "ambiguous", &["desk", "lab", "--host"]);
    phone.refuses(
        &["--host", "attic", "ls"],
        4,
        "not_paired",
        &["\"attic\"", "desk", "lab"],
    );
    for (host, name) in hosts.iter().zip(["desk", "lab"]) {
        wait_until("the list is the same", || {
            sessions(&phone, &["--host", name, "ls"]) == sessions(host, &["ls"])
        });
        assert_eq!(phone.json(&["--host", name, "status"])["name"], name);
    }
}

/// The list without what each machine knows by itself: when it last heard of whom.
fn sessions(station: &Station, args: &[&str]) -> Value {
    let mut list = station.json(args);
    for row in list.as_array_mut().unwrap() {
        row.as_object_mut().unwrap().remove("presence").unwrap();
    }
    list
}

fn world() -> (tempfile::TempDir, Station, PathBuf) {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    (world, host, dir)
}
