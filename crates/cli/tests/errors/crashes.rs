//! The terminal is closed, the daemon is killed: the session goes on, or comes back as it was.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Station, Talk, folder, in_a_terminal, is_alive, script, wait_until};

#[test]
fn f07_a_session_outlives_the_terminal_that_started_it() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    let up = host.command(&[
        "up",
        "--dir",
        dir.to_str().unwrap(),
        "--agent",
        "scripted",
        "--prompt",
        "hello",
    ]);
    let mut terminal = in_a_terminal(&up)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the daemon runs", || host.run(&["status"]).status.success());
    let question = host.wait_for_question();
    let session = question["session"].as_str().unwrap();
    let daemon = host.daemon_pid();

    // With the last hold on its other end gone, the system hangs the terminal up.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    kill(daemon, Signal::HUP);
    host.ok(&["approve", question["approval"].as_str().unwrap()]);
    host.wait_for_nth(session, "approval_requested", 2);
    assert_eq!(host.daemon_pid(), daemon);
    host.ok(&["stop", session]);
    host.wait_for_nth(session, "turn_ended", 1);
    assert!(dir.join("farhelm-hello.txt").exists());
}

#[test]
fn f06_a_daemon_that_is_killed_in_the_middle_of_a_question_comes_back_with_the_question_open() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let phone = Station::new(&folder(world.path(), "phone"));
    let dir = folder(world.path(), "project");
    let (agent, pid_file) = noted_agent(world.path());
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent]);
    host.pair(&phone, "phone");
    host.ok(&["send", &session, "hello"]);
    let question = phone.wait_for_question();
    let id = question["approval"].as_str().unwrap();
    let before = host.log_of(&session);
    let agent = read_pid(&pid_file);

    let daemon = host.daemon_pid();
    kill(daemon, Signal::KILL);
    wait_until("the daemon is dead", || !is_alive(daemon));
    host.refuses(&["approve", id], 3, "not_running", &["farhelm up"]);
    assert!(is_alive(agent), "the agent's turn goes on");
    let elsewhere = folder(world.path(), "elsewhere");
    host.up(&elsewhere, &["--agent", "scripted"]);

    assert!(is_alive(agent), "it is the same agent");
    assert_eq!(host.log_of(&session), before, "and nothing was noted");
    assert_eq!(
        host.wait_for_question()["approval"],
        question["approval"],
        "the question is open, with its own id"
    );
    assert!(!dir.join("farhelm-hello.txt").exists(), "nobody allowed it");
    phone.ok(&["approve", id]);
    host.wait_for_nth(&session, "approval_requested", 2);
    assert!(dir.join("farhelm-hello.txt").exists());
    wait_until("the device sees the same", || {
        phone.log_of(&session) == host.log_of(&session)
    });
    for station in [&host, &phone] {
        station.refuses(
            &["approve", id],
            1,
            "approval_not_pending",
            &["`farhelm approvals`"],
        );
    }
    host.ok(&["down"]);
    assert!(!is_alive(agent), "an agent ends with `farhelm down`");
    assert_eq!(keepers_in(&host.home), Vec::<String>::new());
}

#[test]
fn f02_an_agent_that_is_killed_is_said_to_be_and_its_question_cannot_be_answered_any_more() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    let (agent, pid_file) = noted_agent(world.path());
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "hello"]);
    let question = host.wait_for_question();
    let id = question["approval"].as_str().unwrap();
    let pid = read_pid(&pid_file);
    kill(pid, Signal::KILL);
    let exit = host.wait_for_nth(&session, "agent_exited", 1);
    assert_eq!(exit["signal"], 9);
    host.refuses(
        &["approve", id],
        1,
        "approval_not_pending",
        &["`farhelm approvals`"],
    );
    assert!(host.ok(&["log", &session]).contains("ended by signal 9"));
    host.ok(&["send", &session, "hello"]);
    assert_eq!(
        host.wait_for_nth(&session, "agent_started", 2)["resumed"],
        true
    );
    host.wait_for_nth(&session, "approval_requested", 2);
}

#[test]
fn terminals_that_follow_a_session_say_that_the_daemon_has_ended() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    let up = host.command(&["up", "--dir", dir.to_str().unwrap(), "--agent", "scripted"]);
    let mut up = Talk::start(in_a_terminal(&up));
    up.hear("is ready");
    let mut log = Talk::start(in_a_terminal(
        &host.command(&["log", "project", "--follow"]),
    ));
    log.hear("is ready");
    kill(host.daemon_pid(), Signal::KILL);
    for mut terminal in [up, log] {
        let said = terminal.hear("error[not_running]");
        assert!(
            said.contains("its sessions are kept") && said.contains("`farhelm up`"),
            "{said}"
        );
        assert_eq!(terminal.end().code(), Some(3));
    }
    host.still_works(&dir);
    assert_eq!(host.json(&["ls"]).as_array().unwrap().len(), 2);
}

#[test]
fn following_a_session_ends_with_it() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    let phone = Station::new(&folder(world.path(), "phone"));
    let (session, _) = host.up(&dir, &["--agent", "scripted"]);
    host.pair(&phone, "phone");
    let logs = [&host, &phone].map(|station| {
        let mut log = station.begin(&["log", &session, "--follow"]);
        log.hear("is ready");
        log
    });
    host.ok(&["stop", &session, "--end"]);
    for mut log in logs {
        log.hear("ended the session");
        assert!(log.end().success());
    }
    for station in [&host, &phone] {
        station.ok(&["log", &session, "--follow"]);
    }
}

#[test]
fn f30_a_host_that_runs_out_of_file_descriptors_keeps_its_session_and_recovers() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    let up = host.command(&[
        "up",
        "--dir",
        dir.to_str().unwrap(),
        "--agent",
        "scripted",
        "--headless",
        "--prompt",
        "hello",
    ]);
    let status = with_few_files(&up).status().unwrap();
    assert!(status.success(), "{}", host.log());
    let question = host.wait_for_question();
    let (session, daemon) = (question["session"].as_str().unwrap(), host.daemon_pid());
    let limits = std::fs::read_to_string(format!("/proc/{daemon}/limits")).unwrap();
    assert!(
        limits
            .lines()
            .any(|line| line.starts_with("Max open files") && line.contains(" 64 ")),
        "{limits}"
    );

    let url = host.json(&["status"])["url"].as_str().unwrap().to_owned();
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let crowd: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", port)))
        .collect();
    wait_until("no descriptor is left", || {
        std::fs::read_dir(format!("/proc/{daemon}/fd"))
            .unwrap()
            .count()
            >= 64
    });
    drop(crowd);
    host.ok(&["approve", question["approval"].as_str().unwrap()]);
    host.wait_for_nth(session, "approval_requested", 2);
    let phone = Station::new(&folder(world.path(), "phone"));
    host.pair(&phone, "phone");
    wait_until("the device sees the same", || {
        phone.log_of(session) == host.log_of(session)
    });
    assert_eq!(host.daemon_pid(), daemon);
}

/// The scripted agent, and the file in which its process number will stand.
pub(crate) fn noted_agent(world: &Path) -> (String, PathBuf) {
    let pid_file = world.join("agent.pid");
    let text = format!(
        "echo $$ > '{}'\nexec '{FARHELM}' scripted-agent",
        pid_file.display()
    );
    (script(&world.join("agent"), &text), pid_file)
}

const FARHELM: &str = env!("CARGO_BIN_EXE_farhelm");

pub(crate) fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// The same command with room for 64 open files.
fn with_few_files(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    shell.env_clear().envs(
        command
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    shell.stdin(Stdio::null()).stdout(Stdio::null());
    shell
}

/// The keepers that there are.
fn keepers_in(home: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(home.join("keepers")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn read_pid(path: &Path) -> u32 {
    std::fs::read_to_string(path)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}
