//! A wish has its effect once, and everybody sees how far it is: real daemon, relay and devices.

#![expect(clippy::unwrap_used, reason = "a story that cannot be told has failed")]

use std::path::PathBuf;
use std::sync::Arc;

use farhelm_core::command::{Command, CommandBody};
use farhelm_core::seal::seal_letter;
use farhelm_link::device::Store;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions};
use farhelm_link::rng::{os_rng, random};
use farhelm_proto::envelope::SUITE;
use farhelm_proto::frame::{Frame, Role};
use farhelm_proto::letter::{Header, Kind};
use farhelm_proto::{CommandId, SessionId, Timestamp};
use serde_json::{Value, json};

use support::{PATIENCE, Station, folder, is_alive, script, wait_until};

mod support;

const FARHELM: &str = env!("CARGO_BIN_EXE_farhelm");

#[test]
fn a_prompt_is_followed_until_the_agent_has_taken_it_on_the_host_and_from_afar() {
    let world = World::new();
    let (session, _) = world.host.up(&world.dir, &["--agent", "scripted"]);
    world.host.pair(&world.phone, "phone");
    let sent = world
        .phone
        .json(&["send", &session, "hello", "--wait", "consumed"]);
    assert_eq!(sent["stage"], "consumed", "{sent}");
    assert!(sent["command"].as_str().unwrap().starts_with("cmd_"));
    assert_eq!(world.phone.json(&["outbox"]), json!([]));

    let question = world.phone.wait_for_question();
    let id = question["approval"].as_str().unwrap();
    let approved = world.host.json(&["approve", id, "--wait", "consumed"]);
    assert_eq!(approved["stage"], "consumed", "{approved}");
    assert!(world.dir.join("farhelm-hello.txt").exists());
    world.phone.ok(&["stop", &session, "--wait", "consumed"]);
    world.host.wait_for_nth(&session, "turn_ended", 1);
}

#[test]
fn what_waits_is_seen_changed_moved_and_taken_back_and_a_stop_holds_it() {
    let world = World::new();
    let (session, _) = world
        .host
        .up(&world.dir, &["--agent", "scripted", "--prompt", "first"]);
    world.host.pair(&world.phone, "phone");
    world.host.wait_for_question();
    for text in ["two", "three", "four"] {
        world.host.ok(&["send", &session, text]);
    }
    let queue = || world.phone.json(&["queue", &session]);
    let texts = || -> Vec<String> {
        let queue = queue();
        let prompts = queue["prompts"].as_array().unwrap().iter();
        prompts
            .map(|prompt| prompt["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let id = |at: usize| {
        queue()["prompts"][at]["prompt"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(texts(), ["two", "three", "four"]);
    let (two, three, four) = (id(0), id(1), id(2));
    world
        .phone
        .ok(&["queue", "edit", &session, &two, "two and a half"]);
    world
        .phone
        .ok(&["queue", "move", &session, &four, "--before", &two]);
    world.host.ok(&["queue", "cancel", &session, &three]);
    assert_eq!(texts(), ["four", "two and a half"]);
    world.phone.refuses(
        &["queue", "cancel", &session, &three],
        1,
        "prompt_not_queued",
        &[],
    );

    world.phone.ok(&["stop", &session]);
    world.host.wait_for_nth(&session, "turn_ended", 1);
    let paused = queue();
    assert_eq!(
        (&paused["paused"], &paused["pause"]),
        (&json!(true), &json!("stopped"))
    );
    let shown = world.host.ok(&["log", &session]);
    assert!(shown.contains("paused: the turn was stopped"), "{shown}");
    world.phone.ok(&["resume", &session]);
    world.host.wait_for_nth(&session, "turn_started", 2);
    assert_eq!(texts(), ["two and a half"]);
}

#[test]
fn f02_a_prompt_whose_agent_died_is_indeterminate_and_sent_again_only_by_a_person() {
    let world = World::new();
    let pid_file = world.path("agent.pid");
    let scenario = world.path("scenario.json");
    std::fs::write(&scenario, r#"{"scenarios":{"default":[[{"do":"hang"}]]}}"#).unwrap();
    let agent = script(
        &world.path("agent"),
        &format!(
            "echo $$ > '{}'\nexec '{FARHELM}' scripted-agent --scenario '{}'",
            pid_file.display(),
            scenario.display()
        ),
    );
    let (session, _) = world.host.up(&world.dir, &["--agent-cmd", &agent]);
    world.host.pair(&world.phone, "phone");
    let sent = world
        .phone
        .json(&["send", &session, "hello", "--wait", "handed"]);
    assert_eq!(sent["stage"], "handed", "{sent}");
    let first = sent["command"].as_str().unwrap();
    let pid: u32 = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kill(pid);
    world.host.wait_for_nth(&session, "turn_ended", 1);
    wait_until("the device is told", || {
        world.phone.json(&["outbox"])[0]["stage"] == "indeterminate"
    });
    assert_eq!(
        world.count(&session, "turn_started"),
        1,
        "nothing is sent again by itself"
    );

    let again = world
        .phone
        .json(&["outbox", "retry", first, "--wait", "handed"]);
    let second = again["command"].as_str().unwrap();
    assert_ne!(first, second);
    world.host.wait_for_nth(&session, "turn_started", 2);
    wait_until("the first is settled", || {
        let outbox = world.phone.json(&["outbox"]);
        let ids = outbox.as_array().unwrap().iter();
        ids.filter(|sent| sent["command"] == first).count() == 0
    });
    world.phone.refuses(
        &["outbox", "retry", first],
        1,
        "not_found",
        &["farhelm outbox"],
    );
    world.host.ok(&["stop", &session, "--end"]);
}

#[test]
fn a_prompt_without_a_network_is_kept_and_goes_out_with_the_next_command() {
    let world = World::new();
    let (session, _) = world.host.up(&world.dir, &["--agent", "scripted"]);
    world.host.pair(&world.phone, "phone");
    let title = world.phone.json(&["ls"])[0]["title"].clone();
    world.host.ok(&["down"]);
    // By its title: which session is meant is known from when it was seen last.
    let kept = world
        .phone
        .run(&["send", title.as_str().unwrap(), "from the train", "--json"]);
    assert_eq!(kept.status.code(), Some(5), "{kept:?}");
    let said: Value = serde_json::from_str(&kept.stdout).unwrap();
    assert_eq!(said["outcome"], "kept");
    assert_eq!(said["error"]["code"], "relay_unreachable");
    let outbox = world.phone.json(&["outbox"]);
    assert_eq!(outbox[0]["stage"], "kept");
    assert_eq!(outbox[0]["command"], said["command"]);

    world.start_again();
    wait_until("it has gone out", || {
        world.phone.json(&["outbox"]) == json!([]) || world.count(&session, "prompt_queued") > 0
    });
    world.host.wait_for_nth(&session, "prompt_queued", 1);
    world.phone.ok(&["ls"]);
    assert_eq!(world.count(&session, "prompt_queued"), 1);
}

/// Device and host are never there together but for moments; what was wished meanwhile arrives
/// once, and what is too late does nothing and is said to be.
#[test]
fn f09_f27_what_is_wished_while_the_host_sleeps_arrives_once_or_is_too_late() {
    let world = World::new();
    let (session, _) = world.host.up(&world.dir, &["--agent", "scripted"]);
    world.host.pair(&world.phone, "phone");
    world.phone.ok(&["ls"]);
    world.host.ok(&["down"]);
    let send = |text: &str, within: &str| {
        let sent = world.phone.json(&[
            "send",
            &session,
            text,
            "--not-after",
            within,
            "--wait",
            "kept",
        ]);
        assert_eq!(sent["stage"], "kept", "{sent}");
        sent["command"].as_str().unwrap().to_owned()
    };
    send("in time", "1h");
    let late = send("too late", "1s");
    let taken_back = send("never mind", "1h");
    let cancelled = world.phone.run(&["outbox", "cancel", &taken_back]);
    assert_eq!(cancelled.status.code(), Some(5), "{cancelled:?}");
    wait_until("its time is over", || {
        let outbox = world.phone.json(&["outbox"]);
        let rows = outbox.as_array().unwrap();
        rows.iter()
            .any(|sent| sent["command"] == late && sent["stage"] == "expired")
    });
    world.start_again();
    wait_until("everything is settled", || {
        let outbox = world.phone.json(&["outbox"]);
        let rows = outbox.as_array().unwrap();
        rows.iter()
            .all(|sent| sent["stage"] == "host" || sent["stage"] == "handed")
    });
    let log = world.host.log_of(&session);
    let prompts: Vec<_> = log
        .iter()
        .filter(|record| record["event"]["type"] == "prompt_queued")
        .map(|record| record["event"]["text"].clone())
        .collect();
    assert_eq!(prompts, ["in time"]);
}

/// Two devices answer at the same moment, over and over: one effect each time, and everybody says
/// the same afterwards.
#[test]
fn f26_two_devices_answer_at_once_and_exactly_one_is_heard() {
    let world = World::new();
    let scenario = world.path("scenario.json");
    std::fs::write(&scenario, ASK_ON_AND_ON).unwrap();
    let line = format!("{FARHELM} scripted-agent --scenario {}", scenario.display());
    let (session, _) = world
        .host
        .up(&world.dir, &["--agent-cmd", &line, "--prompt", "go"]);
    let tablet = Station::new(&folder(world.folder.path(), "tablet"));
    world.host.pair(&world.phone, "phone");
    world.host.pair(&tablet, "tablet");
    let barrier = std::sync::Barrier::new(2);
    for round in 1..=3 {
        world
            .host
            .wait_for_nth(&session, "approval_requested", round);
        let question = world.host.wait_for_question();
        let id = question["approval"].as_str().unwrap();
        let answer = |device: &Station, word: &str| {
            barrier.wait();
            device.run(&[word, id, "--json"]).status.success()
        };
        let (phone, tablet) = std::thread::scope(|scope| {
            let phone = scope.spawn(|| answer(&world.phone, "approve"));
            let tablet = scope.spawn(|| answer(&tablet, "deny"));
            (phone.join().unwrap(), tablet.join().unwrap())
        });
        assert_ne!(phone, tablet, "round {round}: exactly one was first");
        assert_eq!(world.count(&session, "approval_decided"), round);
    }
    world.host.wait_for_nth(&session, "turn_ended", 1);
    let log = world.host.log_of(&session);
    for device in [&world.phone, &tablet] {
        wait_until("both see the same", || device.log_of(&session) == log);
    }
}

const ASK_ON_AND_ON: &str = r#"{"scenarios":{"default":[[
    {"do":"shell","command":"true"},{"do":"shell","command":"true"},{"do":"shell","command":"true"}
]]}}"#;

/// Everything that a device ever sent is sent again: now, after a restart, and after the relay has
/// lost all that it knew of it.
#[test]
fn s03_letters_that_come_again_have_no_effect_and_the_same_answer() {
    let world = World::new();
    let (session, _) = world
        .host
        .up(&world.dir, &["--agent", "scripted", "--prompt", "hello"]);
    world.host.pair(&world.phone, "phone");
    let question = world.phone.wait_for_question();
    let recorder = Recorder::new(&world.phone);
    let id: SessionId = session.parse().unwrap();
    let mut letters = vec![
        recorder.letter(Command::DecideApproval {
            session: id,
            approval: question["approval"].as_str().unwrap().parse().unwrap(),
            digest: question["digest"].as_str().unwrap().to_owned(),
            verdict: serde_json::from_value(json!({
                "kind": "selected", "allows": true, "reason": null,
                "option": question["ask"]["options"][0]["id"],
            }))
            .unwrap(),
        }),
        recorder.letter(Command::Prompt {
            session: id,
            text: "two".into(),
        }),
        recorder.letter(Command::StartSession {
            dir: world.dir.display().to_string(),
            agent: Some("scripted".into()),
            prompt: None,
        }),
        recorder.letter(Command::Rename {
            session: id,
            title: "once".into(),
        }),
    ];
    recorder.post(&letters);
    world.settled(&session, "once");
    let before = world.facts(&session);
    assert_eq!(before.sessions, 2);
    assert_eq!(world.count(&session, "approval_decided"), 1);

    // The other way round, twice, to the same daemon; then to another one, whose relay forgot them.
    for round in 0..2 {
        if round == 1 {
            world.host.ok(&["down"]);
            std::fs::remove_dir_all(world.host.home.join("relay")).unwrap();
            world.start_again();
        }
        let before = world.facts(&session);
        letters.reverse();
        recorder.post(&letters);
        recorder.post(&letters);
        let mark = format!("mark {round}");
        let last = recorder.letter(Command::Rename {
            session: id,
            title: mark.clone(),
        });
        recorder.post(&[last]);
        world.settled(&session, &mark);
        let after = world.facts(&session);
        assert_eq!(
            after,
            Facts {
                log: after.log,
                ..before.clone()
            },
            "round {round}"
        );
        assert_eq!(after.log, before.log + 1, "round {round}: only the mark");
    }
}

/// A host, a phone, and where they work.
struct World {
    host: Station,
    phone: Station,
    dir: PathBuf,
    folder: tempfile::TempDir,
}

/// What could have changed.
#[derive(Clone, Debug, PartialEq)]
struct Facts {
    log: usize,
    sessions: usize,
}

impl World {
    fn new() -> Self {
        let folder_of_all = tempfile::tempdir().unwrap();
        let world = folder_of_all.path();
        Self {
            host: Station::new(world),
            phone: Station::new(&folder(world, "phone")),
            dir: folder(world, "project"),
            folder: folder_of_all,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the daemon again, by a session that has ended when this returns.
    fn start_again(&self) {
        let number = std::fs::read_dir(self.folder.path()).unwrap().count();
        let dir = folder(self.folder.path(), &format!("other-{number}"));
        let (session, _) = self.host.up(&dir, &["--agent", "scripted"]);
        self.host.ok(&["stop", &session, "--end"]);
        self.host.wait_for_nth(&session, "session_ended", 1);
    }

    fn count(&self, session: &str, kind: &str) -> usize {
        let log = self.host.log_of(session);
        log.iter()
            .filter(|record| record["event"]["type"] == kind)
            .count()
    }

    /// Waits until the session has this title and nothing more comes of what was before.
    fn settled(&self, session: &str, title: &str) {
        self.host
            .wait_for(session, title, |event| event["title"] == title);
    }

    fn facts(&self, session: &str) -> Facts {
        let people = ["local", "device"];
        let log = self.host.log_of(session);
        let by_people = log.iter().filter(|record| {
            let by = record["event"]["by"]["kind"].as_str().unwrap_or_default();
            people.contains(&by)
        });
        let listed = self.host.json(&["ls"]);
        Facts {
            log: by_people.count(),
            sessions: listed.as_array().unwrap().len(),
        }
    }
}

/// Seals letters as a device would and posts them as often as one likes.
struct Recorder {
    store: Store,
    runtime: tokio::runtime::Runtime,
}

impl Recorder {
    fn new(device: &Station) -> Self {
        Self {
            store: Store::open(&device.home.join("device")).unwrap(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
        }
    }

    fn letter(&self, command: Command) -> Frame {
        let me = self.store.identity().unwrap();
        let host = self.store.hosts().unwrap().remove(0);
        let header = Header {
            suite: SUITE,
            kind: Kind::Command,
            from: me.peer(),
            to: host.peer(),
            id: CommandId::fresh(farhelm_link::clock::now(), random()),
            not_after: Timestamp(0),
            offer: None,
        };
        let body = CommandBody {
            command,
            retries: None,
        };
        let body = serde_json::to_vec(&body).unwrap();
        let letter = seal_letter(&me, &host.keys, &header, &body, &mut os_rng());
        Frame::Letter(letter.unwrap())
    }

    /// Posts letters on a connection of their own, until the relay has them.
    fn post(&self, letters: &[Frame]) {
        let host = self.store.hosts().unwrap().remove(0);
        let options = LinkOptions {
            relay: host.relay,
            identity: Arc::clone(&self.store.identity().unwrap()),
            role: Role::Device,
            generation: 0,
            dead_millis: None,
            agent: "test/0".into(),
            extra_ca: None,
        };
        let posting = async {
            let (link, mut events) = Link::start(options);
            let mut waiting = letters.len();
            while waiting > 0 {
                match events.recv().await.unwrap() {
                    LinkEvent::Up(_) => {
                        waiting = letters.len();
                        for letter in letters {
                            link.send(letter.to_bytes()).await.unwrap();
                        }
                    }
                    LinkEvent::Frame {
                        frame: Frame::Posted(_),
                        ..
                    } => waiting -= 1,
                    // The host may not have named its devices to a relay that forgot them.
                    LinkEvent::Frame {
                        frame: Frame::Problem(problem),
                        ..
                    } => {
                        let refused = problem.letter.unwrap();
                        let again = letters.iter().find(|letter| id_of(letter) == refused);
                        link.send(again.unwrap().to_bytes()).await.unwrap();
                    }
                    LinkEvent::Frame { .. } | LinkEvent::Down { .. } => {}
                }
            }
        };
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, posting).await })
            .unwrap();
    }
}

fn id_of(letter: &Frame) -> CommandId {
    let Frame::Letter(letter) = letter else {
        panic!("a letter")
    };
    letter.parse_header().unwrap().id
}

fn kill(pid: u32) {
    let pid_of = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid_of, rustix::process::Signal::KILL).unwrap();
    wait_until("it is dead", || !is_alive(pid));
}
