//! An agent outlives its daemon: whatever happens to that, nothing is lost, doubled or left behind.

use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{Station, folder, is_alive, script, wait_until};

/// A scenario for our own agent in `world`.
fn play(host: &mut Station, world: &Path, turns: &Value) {
    let path = world.join("scenario.json");
    let scenario = json!({"scenarios": {"default": turns}});
    std::fs::write(&path, scenario.to_string()).unwrap();
    host.set("FARHELM_SCRIPTED_SCENARIO", path.display().to_string());
}

/// Starts the daemon without a session.
fn run(host: &Station, plan: Option<&str>) -> Daemon {
    let mut command = host.command(&["host", "run"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(plan) = plan {
        command.env("FARHELM_FAIL", plan);
    }
    let daemon = Daemon(command.spawn().unwrap());
    let pid = daemon.0.id();
    // One that is to die somewhere may do so at once.
    wait_until("the daemon runs", || {
        host.run(&["status"]).status.success() || !is_alive(pid)
    });
    daemon
}

/// A daemon that we started, and end.
struct Daemon(Child);

impl Daemon {
    fn end(&mut self, signal: Signal) {
        send(self.0.id(), signal);
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // Who is gone already needs no signal.
    kill_process(pid, signal).unwrap_or_default();
}

/// Starts a session whose agent's number is known; ends the daemon that came with it.
fn begin(host: &Station, world: &Path, prompt: &str) -> (String, u32) {
    let pid_file = world.join("agent.pid");
    let text = format!(
        "echo $$ > '{}'\nexec '{}' scripted-agent",
        pid_file.display(),
        env!("CARGO_BIN_EXE_farhelm")
    );
    let agent = script(&world.join("agent"), &text);
    let dir = folder(world, "project");
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", prompt]);
    host.wait_for_nth(&session, "agent_started", 1);
    let pid = std::fs::read_to_string(pid_file).unwrap();
    (session, pid.trim().parse().unwrap())
}

fn kill_daemon(host: &Station) {
    let daemon = host.daemon_pid();
    send(daemon, Signal::KILL);
    wait_until("the daemon is dead", || !is_alive(daemon));
}

fn count(log: &[Value], kind: &str) -> usize {
    let kinds = log.iter().filter(|record| record["event"]["type"] == kind);
    kinds.count()
}

/// What the agent has said in whole messages.
fn words(log: &[Value]) -> String {
    let messages = log.iter().map(|record| &record["event"]);
    messages
        .filter(|event| event["type"] == "message_added" && event["role"] == "agent")
        .flat_map(|event| event["content"].as_array().unwrap())
        .map(|content| content["text"].as_str().unwrap())
        .collect()
}

#[test]
fn f01_a_daemon_that_is_killed_again_and_again_while_its_agent_speaks_loses_and_doubles_nothing() {
    let world = tempfile::tempdir().unwrap();
    let mut host = Station::new(world.path());
    let turn = json!([[{"do": "count", "to": 4000, "per_second": 2000}]]);
    play(&mut host, world.path(), &turn);
    let (session, agent) = begin(&host, world.path(), "go");
    let raw = host.home.join("raw").join(format!("{session}.log"));
    let said = || raw.metadata().unwrap().len();
    kill_daemon(&host);
    for _ in 0..4 {
        let before = said();
        let mut daemon = run(&host, None);
        wait_until("the agent goes on", || {
            said() > before + 20_000 || host.log_of(&session).iter().any(is_turn_end)
        });
        daemon.end(Signal::KILL);
    }
    let _daemon = run(&host, None);
    assert_eq!(
        host.wait_for_nth(&session, "turn_ended", 1)["reason"],
        "end_turn"
    );
    let expected: String = (1..=4000).map(|number| format!("{number}\n")).collect();
    let log = host.log_of(&session);
    assert!(words(&log) == expected, "{}", words(&log));
    for kind in ["agent_started", "turn_started", "turn_ended"] {
        assert_eq!(count(&log, kind), 1, "{kind}");
    }
    assert_eq!(count(&log, "agent_exited"), 0);
    assert!(is_alive(agent));
    host.ok(&["down"]);
    assert!(!is_alive(agent));
}

fn is_turn_end(record: &Value) -> bool {
    record["event"]["type"] == "turn_ended"
}

#[test]
fn f01_an_answer_that_is_in_flight_when_the_daemon_dies_is_given_once() {
    let world = tempfile::tempdir().unwrap();
    let mut host = Station::new(world.path());
    let turn = json!([[
        {"do": "shell", "command": "echo ran >> ran.txt"},
        {"do": "text", "text": "done"}
    ]]);
    play(&mut host, world.path(), &turn);
    let (session, agent) = begin(&host, world.path(), "go");
    host.wait_for_question();
    kill_daemon(&host);
    let points = [
        "before_commit",
        "after_commit",
        "before_reply",
        "before_told",
        "before_acknowledged",
    ];
    for (round, point) in (1..).zip(points) {
        let mut daemon = run(&host, Some(&format!("host.session.{point}=kill@3")));
        if round > 1 {
            drop(host.run(&["send", &session, "again"]));
        }
        let question = json_of(&host, &["approvals"]);
        if let Some(id) = question[0]["approval"].as_str() {
            drop(host.run(&["approve", id]));
        }
        daemon.end(Signal::KILL);
        let mut daemon = run(&host, None);
        assert!(is_alive(daemon.0.id()));
        if count(&host.log_of(&session), "turn_started") < round {
            // It was never taken, or waits for a person's word.
            let waits = host.json(&["queue", &session])["prompts"] != json!([]);
            let word: &[&str] = if waits {
                &["resume", &session]
            } else {
                &["send", &session, "again"]
            };
            host.ok(word);
        }
        host.wait_for_nth(&session, "approval_requested", round);
        if let Some(id) = host.json(&["approvals"])[0]["approval"].as_str() {
            host.ok(&["approve", id]);
        }
        assert_eq!(
            host.wait_for_nth(&session, "turn_ended", round)["reason"],
            "end_turn",
            "{point}"
        );
        let log = host.log_of(&session);
        for kind in ["approval_requested", "approval_decided", "approval_applied"] {
            assert_eq!(count(&log, kind), round, "{kind} at {point}");
        }
        let ran = std::fs::read_to_string(world.path().join("project/ran.txt")).unwrap();
        assert_eq!(ran.lines().count(), round, "at {point}");
        assert_eq!(words(&log), "done".repeat(round));
        daemon.end(Signal::KILL);
    }
    assert!(is_alive(agent));
    let _daemon = run(&host, None);
    host.ok(&["down"]);
    assert!(!is_alive(agent));
}

/// The JSON of a command, or nothing when the daemon has gone.
fn json_of(host: &Station, args: &[&str]) -> Value {
    let output = host.run(&[args, &["--json"]].concat());
    serde_json::from_str(&output.stdout).unwrap_or_default()
}

#[test]
fn f06_a_daemon_that_is_asked_to_end_leaves_its_agents_to_the_next_one() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let (session, agent) = begin(&host, world.path(), "hello");
    let question = host.wait_for_question();
    let before = host.log_of(&session);
    let first = host.daemon_pid();
    send(first, Signal::TERM);
    wait_until("the daemon has ended", || !is_alive(first));
    assert!(is_alive(agent));
    let mut daemon = run(&host, None);
    send(daemon.0.id(), Signal::HUP);
    assert_eq!(host.wait_for_question()["approval"], question["approval"]);
    assert_eq!(host.log_of(&session), before);
    host.ok(&["approve", question["approval"].as_str().unwrap()]);
    host.wait_for_nth(&session, "approval_requested", 2);
    daemon.end(Signal::TERM);
    assert!(is_alive(agent));
    let _daemon = run(&host, None);
    host.ok(&["down"]);
    assert!(!is_alive(agent));
    let _daemon = run(&host, None);
    assert_eq!(
        count(&host.log_of(&session), "agent_exited"),
        1,
        "its end was noted"
    );
}

#[test]
fn f02_a_keeper_that_is_killed_takes_its_agent_along_and_the_session_says_so() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let (session, agent) = begin(&host, world.path(), "hello");
    host.wait_for_question();
    send(keeper_of(agent), Signal::KILL);
    let notice = host.wait_for_nth(&session, "noticed", 1);
    assert_eq!(notice["code"], "keeper_lost");
    host.wait_for_nth(&session, "agent_exited", 1);
    wait_until("the agent is ended", || !is_alive(agent));
    assert_eq!(host.json(&["approvals"]), json!([]));
    host.ok(&["resume", &session]);
    assert_eq!(
        host.wait_for_nth(&session, "agent_started", 2)["resumed"],
        true
    );
}

/// The keeper of an agent.
fn keeper_of(agent: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{agent}/stat")).unwrap();
    let rest = stat.rsplit_once(") ").unwrap().1;
    rest.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn f36_an_agent_of_another_version_is_ended_and_the_session_says_so_and_can_be_resumed() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    // Its keeper says to every daemon but the first that it is of another version.
    let mut first = run(&host, Some("keeper.version=error:eio@2-"));
    let (session, agent) = begin(&host, world.path(), "hello");
    host.wait_for_question();
    first.end(Signal::KILL);
    assert!(is_alive(agent));
    let _second = run(&host, None);
    let notice = host.wait_for_nth(&session, "noticed", 1);
    assert_eq!(notice["code"], "unsupported_version");
    let text = notice["text"].as_str().unwrap();
    assert!(text.contains("`farhelm resume`"), "{text}");
    host.wait_for_nth(&session, "agent_exited", 1);
    assert!(!is_alive(agent));
    assert_eq!(host.json(&["approvals"]), json!([]));
    host.ok(&["resume", &session]);
    let started = host.wait_for_nth(&session, "agent_started", 2);
    assert_eq!(started["resumed"], true);
}

#[test]
fn down_ends_the_agents_also_where_no_daemon_runs() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let (session, agent) = begin(&host, world.path(), "hello");
    host.wait_for_question();
    kill_daemon(&host);
    assert!(is_alive(agent));
    let said = host.json(&["down"]);
    assert_eq!(said, json!({"outcome": "down", "agents": 1}));
    assert!(!is_alive(agent));
    host.refuses(&["down"], 3, "not_running", &[]);
    let _daemon = run(&host, None);
    assert_eq!(count(&host.log_of(&session), "agent_exited"), 1);
}

#[test]
fn down_kills_a_keeper_that_does_not_listen_and_its_agent() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let (session, agent) = begin(&host, world.path(), "hello");
    host.wait_for_question();
    let keeper = keeper_of(agent);
    // The next daemon cannot reach it either, and says so.
    kill_daemon(&host);
    send(keeper, Signal::STOP);
    let _daemon = run(&host, None);
    wait_until("the keeper is said not to answer", || {
        host.json(&["ls"])[0]["presence"]["keeper"]["value"] == false
    });
    assert!(host.ok(&["ls"]).contains("out of reach"));
    let output = host.run(&["down"]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.contains("were killed"), "{output:?}");
    wait_until("both are gone", || !is_alive(agent) && !is_alive(keeper));
    let _daemon = run(&host, None);
    host.wait_for_nth(&session, "agent_exited", 1);
}

#[test]
fn an_agent_whose_session_nobody_knows_is_ended() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let (_, agent) = begin(&host, world.path(), "hello");
    host.wait_for_question();
    kill_daemon(&host);
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        drop(std::fs::remove_file(host.home.join(name)));
    }
    assert!(is_alive(agent));
    let _daemon = run(&host, None);
    wait_until("the agent is ended", || !is_alive(agent));
}

#[test]
fn what_the_daemon_asks_of_the_kernel_for_itself_holds_for_no_agent() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let (_, agent) = begin(&host, world.path(), "hello");
    let pages = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("THP_enabled"));
        line.map(str::to_owned)
    };
    // Where the kernel does not say, there is nothing to compare.
    let Some(own) = pages(std::process::id()) else {
        return;
    };
    assert_ne!(pages(host.daemon_pid()), Some(own));
    assert_eq!(pages(agent), Some("THP_enabled:\t1".to_owned()));
}

#[test]
fn as_many_agents_run_as_may_at_once_and_no_more() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    host.configure("agents_at_once = 1\n");
    let dir = folder(world.path(), "project");
    let (first, _) = host.up(&dir, &["--agent", "scripted"]);
    host.wait_for_nth(&first, "agent_started", 1);
    let more = [
        "up",
        "--dir",
        dir.to_str().unwrap(),
        "--agent",
        "scripted",
        "--headless",
    ];
    host.refuses(&more, 1, "too_many_agents", &["agents_at_once"]);
    host.ok(&["stop", &first, "--end"]);
    wait_until("there is room", || host.run(&more).status.success());
}

#[test]
fn s39_a_fault_of_our_own_in_one_session_ends_that_session_and_no_other() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let mut daemon = run(&host, Some("host.session.before_start=panic@2"));
    let dir = folder(world.path(), "project");
    let (first, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    let question = host.wait_for_question();
    let (second, _) = host.up(&dir, &["--agent", "scripted"]);
    host.wait_for_nth(&second, "session_ended", 1);
    let log = host.log_of(&second);
    assert!(
        log.iter()
            .any(|record| record["event"]["code"] == "internal"),
        "{log:#?}"
    );
    host.ok(&["approve", question["approval"].as_str().unwrap()]);
    host.wait_for_nth(&first, "approval_requested", 2);
    assert_eq!(host.daemon_pid(), daemon.0.id());
    host.ok(&["down"]);
    daemon.0.wait().unwrap();
}

#[test]
fn raw_lines_of_both_directions_are_kept_for_the_host_alone() {
    use std::os::unix::fs::MetadataExt as _;
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let phone = Station::new(&folder(world.path(), "phone"));
    let dir = folder(world.path(), "project");
    let (session, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    host.wait_for_question();
    let text = host.ok(&["log", &session, "--raw"]);
    assert!(
        text.contains(r#" > {"id":1,"jsonrpc":"2.0","method":"initialize""#),
        "{text}"
    );
    assert!(
        text.contains(r#"< {"id":"#) && text.contains("session/request_permission"),
        "{text}"
    );
    let lines = host.ok(&["log", &session, "--raw", "--json"]);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["by"], "farhelm");
    assert!(first["line"].as_str().unwrap().contains("initialize"));
    let file = host.home.join("raw").join(format!("{session}.log"));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    host.pair(&phone, "phone");
    phone.refuses(
        &["log", &session, "--raw"],
        1,
        "not_found",
        &["on the host alone"],
    );
}
