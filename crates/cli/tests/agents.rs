//! Real agent programs, not written by us, against a model server of ours on loopback: prompt,
//! permission approved from a second device through the relay, file on disk, second permission
//! denied, nothing happens; and a turn stopped in the middle.
//!
//! `scripts/agents.sh` installs them. Without them these tests say so and pass, unless
//! `FARHELM_AGENTS=required`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a story that cannot be told has failed"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farhelm_model::agents::{Agent, Setup, cache};
use farhelm_model::{Model, Scenarios};
use support::{PATIENCE, Station};

mod support;

#[test]
fn claude_code_is_approved_denied_and_stopped_from_afar() {
    steer(Agent::Claude);
}

#[test]
fn opencode_is_approved_denied_and_stopped_from_afar() {
    steer(Agent::OpenCode);
}

#[test]
fn gemini_cli_is_approved_denied_and_stopped_from_afar() {
    steer(Agent::Gemini);
}

#[test]
fn claude_code_asks_a_question_and_resumes_after_the_daemon_was_restarted() {
    let Some(scene) = Scene::set(Agent::Claude) else {
        return;
    };
    let (session, _) = scene.host.up(&scene.dir, &["--agent", "claude"]);
    scene.prompt(&session, "ask");
    let question = scene.phone.wait_for_question();
    assert_eq!(
        question["ask"]["subject"]["kind"], "questions",
        "{question}"
    );
    scene.phone.ok(&[
        "approve",
        question["approval"].as_str().unwrap(),
        "--answer",
        "1=Blue",
    ]);
    assert_eq!(
        scene.host.wait_for_nth(&session, "turn_ended", 1)["reason"],
        "end_turn"
    );

    scene.host.ok(&["down"]);
    scene.host.up(&scene.dir, &["--agent", "claude"]);
    scene.prompt(&session, "text");
    let started = scene.host.wait_for_nth(&session, "agent_started", 2);
    assert_eq!(started["resumed"], true);
    assert_eq!(
        scene.host.wait_for_nth(&session, "turn_ended", 2)["reason"],
        "end_turn"
    );
}

#[test]
fn f01_claude_codes_question_stays_open_over_a_kill_of_the_daemon_and_is_answered_from_afar() {
    let Some(scene) = Scene::set(Agent::Claude) else {
        return;
    };
    let (session, _) = scene.host.up(&scene.dir, &["--agent", "claude"]);
    scene.prompt(&session, "basic");
    let question = scene.phone.wait_for_question();
    let daemon = rustix::process::Pid::from_raw(scene.host.daemon_pid().cast_signed()).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    wait_until("the daemon is dead", || {
        !support::is_alive(daemon.as_raw_nonzero().get().cast_unsigned())
    });
    assert!(!scene.dir.join("hello.txt").exists());
    scene.host.up(&scene.dir, &["--agent", "scripted"]);
    scene
        .phone
        .ok(&["approve", question["approval"].as_str().unwrap()]);
    wait_until("the file is written", || {
        scene.dir.join("hello.txt").exists()
    });
    scene.host.wait_for_nth(&session, "approval_requested", 2);
    let log = scene.host.log_of(&session);
    let count = |kind: &str| {
        let kinds = log.iter().filter(|record| record["event"]["type"] == kind);
        kinds.count()
    };
    assert_eq!((count("agent_started"), count("agent_exited")), (1, 0));
    assert_eq!(count("turn_started"), 1);
    scene.phone.ok(&["stop", &session, "--end"]);
    scene.host.wait_for_nth(&session, "session_ended", 1);
}

#[test]
fn claude_codes_own_hooks_servers_and_project_files_apply_unchanged() {
    let Some(scene) = Scene::set(Agent::Claude) else {
        return;
    };
    let project = [
        (
            ".claude/settings.json",
            include_str!("support/project/settings.json"),
        ),
        (".mcp.json", include_str!("support/project/mcp.json")),
        ("lamp.mjs", include_str!("support/project/lamp.mjs")),
        ("CLAUDE.md", "The lamp is in the kitchen.\n"),
    ];
    std::fs::create_dir_all(scene.dir.join(".claude")).unwrap();
    for (name, text) in project {
        std::fs::write(scene.dir.join(name), text).unwrap();
    }
    let (session, _) = scene.host.up(&scene.dir, &["--agent", "claude"]);

    scene.prompt(&session, "project");
    let write = scene.phone.wait_for_question();
    let hooked = scene.dir.join("hooked.txt");
    assert!(!hooked.exists(), "the hook runs after the tool");
    scene
        .phone
        .ok(&["approve", write["approval"].as_str().unwrap()]);
    scene.host.wait_for_nth(&session, "approval_requested", 2);
    let switch = scene.phone.wait_for_question();
    assert_eq!(switch["ask"]["subject"]["name"], "mcp__lamp__switch");
    scene
        .phone
        .ok(&["approve", switch["approval"].as_str().unwrap()]);
    let end = scene.host.wait_for_nth(&session, "turn_ended", 1);
    assert_eq!(end["reason"], "end_turn", "{end}");

    assert_eq!(std::fs::read_to_string(hooked).unwrap(), "Write\n");
    assert_eq!(
        std::fs::read_to_string(scene.dir.join("lamp.txt")).unwrap(),
        "on\n"
    );
    let heard = |text: &str| {
        let requests = scene.model.requests();
        requests.iter().any(|r| r.body.to_string().contains(text))
    };
    assert!(heard("The lamp is in the kitchen."), "its CLAUDE.md");
    assert!(heard("the lamp is on"), "what its server answered");
    for (name, text) in project {
        assert_eq!(
            std::fs::read_to_string(scene.dir.join(name)).unwrap(),
            text,
            "{name} is the project's"
        );
    }
}

/// The main job with one agent.
fn steer(agent: Agent) {
    let Some(scene) = Scene::set(agent) else {
        return;
    };
    let (session, _) = scene.host.up(&scene.dir, &["--agent", agent.name()]);

    scene.prompt(&session, "basic");
    let first = scene.phone.wait_for_question();
    assert_eq!(first["ask"]["subject"]["kind"], "edit", "{first}");
    assert!(
        !scene.dir.join("hello.txt").exists(),
        "nothing is written before the answer"
    );
    scene
        .phone
        .ok(&["approve", first["approval"].as_str().unwrap()]);
    wait_until("the file is written", || {
        scene.dir.join("hello.txt").exists()
    });
    assert_eq!(
        std::fs::read_to_string(scene.dir.join("hello.txt")).unwrap(),
        "hello from the model\n"
    );

    scene.host.wait_for_nth(&session, "approval_requested", 2);
    let second = scene.phone.wait_for_question();
    assert_eq!(second["ask"]["subject"]["kind"], "command", "{second}");
    assert_eq!(
        second["ask"]["subject"]["command"],
        "echo ran > ran.txt && cat hello.txt"
    );
    scene.phone.ok(&[
        "deny",
        second["approval"].as_str().unwrap(),
        "--reason",
        "not from here",
    ]);
    scene.host.wait_for_nth(&session, "turn_ended", 1);
    assert!(
        !scene.dir.join("ran.txt").exists(),
        "what was denied did not run"
    );

    let log = scene.phone.log_of(&session);
    assert_eq!(log, scene.host.log_of(&session));
    let says = |text: &str| log.iter().any(|record| record.to_string().contains(text));
    assert!(
        says("I will create hello.txt, then run a command."),
        "{log:#?}"
    );
    // OpenCode ends the turn with the refusal, without another word.
    if agent != Agent::OpenCode {
        let last = "All done: a file and a command, each as you decided.";
        assert!(says(last), "{log:#?}");
    }

    scene.prompt(&session, "slow");
    wait_until("the model is asked", || {
        scene
            .model
            .requests()
            .iter()
            .any(|r| r.scenario.as_deref() == Some("slow"))
    });
    scene.phone.ok(&["stop", &session]);
    let end = scene.host.wait_for_nth(&session, "turn_ended", 2);
    assert_eq!(end["reason"], "cancelled", "{end}");
    scene.phone.ok(&["stop", &session, "--end"]);
    scene.host.wait_for_nth(&session, "session_ended", 1);
}

struct Scene {
    host: Station,
    phone: Station,
    dir: PathBuf,
    model: Model,
    _world: tempfile::TempDir,
}

impl Scene {
    /// A host with the agent's environment, and a device joined to it.
    fn set(agent: Agent) -> Option<Self> {
        let cache = cache();
        if !agent.is_installed(&cache) {
            let required =
                std::env::var_os("FARHELM_AGENTS").is_some_and(|value| value == "required");
            assert!(
                !required,
                "{} is not installed; run scripts/agents.sh",
                agent.name()
            );
            eprintln!(
                "skipped: {} is not installed; run scripts/agents.sh",
                agent.name()
            );
            return None;
        }
        Some(Self::make(agent, &cache))
    }

    fn make(agent: Agent, cache: &Path) -> Self {
        let world = tempfile::tempdir().unwrap();
        let model = Model::start(Scenarios::standard()).unwrap();
        let (dir, home) = (
            world.path().join("project"),
            world.path().join("agent-home"),
        );
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(&home).unwrap();
        let (url, asks) = (model.url(), false);
        let setup = Setup {
            cache,
            home: &home,
            cwd: &dir,
            model: &url,
            asks,
        };
        let mut launch = agent.prepare(&setup).unwrap();
        let folder = launch.program.parent().unwrap().display().to_string();
        let path = launch.env.entry("PATH".to_owned()).or_default();
        *path = format!("{folder}:{path}");
        let host = Station::new(world.path()).with_env(&launch.env);
        let phone = Station::new(&world.path().join("phone"));
        let (waiting, _) = host.up(&dir, &["--agent", "scripted"]);
        host.pair(&phone, "phone");
        host.ok(&["stop", &waiting, "--end"]);
        Self {
            host,
            phone,
            dir,
            model,
            _world: world,
        }
    }

    fn prompt(&self, session: &str, scenario: &str) {
        let text = format!("SCENARIO:{scenario} CWD:{} please", self.dir.display());
        self.phone.ok(&["send", session, &text]);
    }
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
