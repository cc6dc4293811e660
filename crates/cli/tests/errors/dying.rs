//! A daemon ends in the very moment in which a command asks it for something: the command that may
//! start one starts another, a few times, and what it wanted is had once.

use std::fs::DirEntry;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use crate::support::{Station, folder, is_alive, wait_until};

#[test]
fn f01_up_starts_another_daemon_when_the_one_it_asks_ends_and_has_one_session() {
    let world = tempfile::tempdir().unwrap();
    for (number, plan) in [
        // The first question, before and after it had its effect; and the one for a link.
        "host.local.request_came=kill@1",
        "host.wishes.before_session_noted=kill",
        "host.wishes.after_session_noted=kill",
        "host.wishes.after_session_opened=kill",
        "host.local.before_outcome=kill@1",
        "host.local.before_outcome=kill@2",
    ]
    .into_iter()
    .enumerate()
    {
        let place = folder(world.path(), &number.to_string());
        let host = Station::new(&place);
        let dir = folder(&place, "project");
        let mut doomed = Doomed::start(&host, plan);
        let (session, link) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
        assert!(!link.is_empty(), "{plan}");
        let first = doomed.0.id();
        assert!(!doomed.0.wait().unwrap().success(), "{plan}");
        assert_ne!(host.daemon_pid(), first, "{plan}");
        let rows = host.json(&["ls"]);
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 1, "{plan}: {rows:?}");
        assert_eq!(rows[0]["session"], session.as_str(), "{plan}");
        // A prompt that waited when its daemon was killed waits on, as after any restart.
        let begun = host.wait_for(&session, "beginning", |event| {
            event["type"] == "approval_requested" || event["type"] == "queue_paused"
        });
        if begun["type"] == "queue_paused" {
            host.ok(&["resume", &session]);
        }
        host.wait_for_nth(&session, "approval_requested", 1);
        let prompts = host.log_of(&session);
        let prompts = prompts
            .iter()
            .filter(|record| record["event"]["type"] == "turn_started");
        assert_eq!(prompts.count(), 1, "{plan}");
    }
}

#[test]
fn up_does_not_start_daemons_for_ever_when_each_ends_under_its_question() {
    let world = tempfile::tempdir().unwrap();
    let mut host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    let trace = world.path().join("trace");
    host.set("FARHELM_FAIL", "host.local.request_came=kill");
    host.set("FARHELM_FAIL_TRACE", trace.display().to_string());
    let up = ["up", "--headless", "--dir", dir.to_str().unwrap()];
    host.refuses(&up, 3, "not_running", &["the daemon went away"]);
    let reached = std::fs::read_to_string(&trace).unwrap();
    let bound = reached.lines().filter(|point| *point == "host.local.bound");
    assert_eq!(bound.count(), 3, "{reached}");
}

#[test]
fn down_ends_the_agents_of_a_daemon_that_ends_under_its_question() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    // `up` asks for a session and a link, `down` how things are, and then for the end.
    let mut doomed = Doomed::start(&host, "host.local.request_came=kill@4");
    host.up(&dir, &["--agent", "scripted"]);
    let keepers = || {
        let entries = std::fs::read_dir(host.home.join("keepers"));
        entries.map_or_else(|_| Vec::new(), Iterator::collect)
    };
    wait_until("the agent has a keeper", || {
        let has_note = |keeper: &std::io::Result<DirEntry>| {
            keeper
                .as_ref()
                .is_ok_and(|keeper| keeper.path().join("note").exists())
        };
        keepers().iter().any(has_note)
    });
    let ended = host.json(&["down"]);
    assert_eq!(
        (&ended["outcome"], &ended["agents"]),
        (&"down".into(), &1.into())
    );
    assert!(!doomed.0.wait().unwrap().success());
    assert_eq!(keepers().len(), 0, "{}", host.log());
    assert!(
        !host.home.join("farhelm.sock").exists(),
        "no daemon is left"
    );
}

/// A daemon that will end somewhere.
struct Doomed(Child);

impl Doomed {
    /// It was asked nothing yet.
    fn start(host: &Station, plan: &str) -> Self {
        let mut command = host.command(&["host", "run"]);
        command.env("FARHELM_FAIL", plan);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let doomed = Self(command.spawn().unwrap());
        let (socket, pid) = (host.home.join("farhelm.sock"), doomed.0.id());
        wait_until("the daemon listens", || {
            assert!(is_alive(pid), "{plan}: {}", host.log());
            UnixStream::connect(&socket).is_ok()
        });
        doomed
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
