//! `farhelm doctor` names the one thing that is wrong, with its cure, for each thing that can be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use farhelm_relay::{Config, Relay};
use serde_json::Value;

use super::relays::web_page;
use crate::support::{Station, folder, free_port, wait_until};

#[test]
fn a_host_and_a_device_that_are_well_are_said_to_be() {
    let scene = Scene::new();
    scene.host.up(&scene.dir, &[]);
    let phone = scene.device("phone");
    let checks = checks(&scene.host);
    for check in [
        "state folder",
        "disk",
        "configuration",
        "daemon",
        "journal",
        "relay name",
        "relay port",
        "relay",
        "clock",
        "link",
        "round trip",
        "agent",
    ] {
        assert_eq!(state(&checks, check), "ok", "{check}: {checks}");
    }
    // Nothing of the phone runs between two commands.
    assert!(
        scene.host.ok(&["doctor"]).contains("phone"),
        "devices are named"
    );
    let checks = self::checks(&phone);
    for check in [
        "relay",
        "clock",
        "membership",
        "round trip",
        "host's clock",
        "newest events",
    ] {
        assert_eq!(state(&checks, check), "ok", "{check}: {checks}");
    }
    assert!(phone.ok(&["doctor"]).ends_with("all is well\n"));
}

#[test]
fn a_device_that_is_connected_answers_its_host() {
    let scene = Scene::new();
    let (session, _) = scene.host.up(&scene.dir, &[]);
    let phone = scene.device("phone");
    let mut follower = phone.command(&["log", &session, "--follow"]);
    let mut follower = follower
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the device answers", || {
        scene
            .host
            .ok(&["doctor"])
            .lines()
            .any(|line| line.contains("phone") && line.contains("answers within"))
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_daemon_that_does_not_run_is_named() {
    let scene = Scene::new();
    scene.host.up(&scene.dir, &[]);
    scene.host.ok(&["down"]);
    scene.host.refuses(
        &["doctor"],
        3,
        "not_running",
        &["daemon: no daemon runs here", "`farhelm up`", "farhelm.log"],
    );
    scene.host.still_works(&scene.dir);
}

#[test]
fn a_relay_that_is_down_is_named_with_its_port() {
    let scene = Scene::new();
    let port = free_port();
    scene.host.up(
        &scene.dir,
        &["--relay", &format!("http://127.0.0.1:{port}")],
    );
    let words = [
        "relay port",
        &format!("port {port} of 127.0.0.1"),
        "refused",
        "whether the relay runs",
    ];
    scene
        .host
        .refuses(&["doctor"], 3, "relay_unreachable", &words);
    scene.host.still_works(&scene.dir);
}

#[test]
fn f14_a_web_page_in_the_place_of_the_relay_is_named() {
    let scene = Scene::new();
    scene.host.up(
        &scene.dir,
        &["--relay", &format!("http://127.0.0.1:{}", web_page())],
    );
    let (_, _, message) = scene.host.fails(&["doctor"]);
    assert!(
        message.starts_with("relay: ") && message.contains("web page"),
        "{message}"
    );
}

#[test]
fn a_name_that_is_not_found_is_named() {
    let scene = Scene::new();
    scene
        .host
        .configure("agent = \"scripted\"\nrelay = \"https://no-such-name.invalid\"\n");
    scene.host.up(&scene.dir, &[]);
    scene.host.refuses(
        &["doctor"],
        3,
        "relay_unreachable",
        &["relay name", "no-such-name.invalid", "a network"],
    );
}

#[test]
fn s18_a_revoked_device_is_told_that_it_was_removed() {
    let scene = Scene::new();
    scene.host.up(&scene.dir, &[]);
    let phone = scene.device("phone");
    scene.host.ok(&["revoke", "phone"]);
    phone.refuses(
        &["doctor"],
        4,
        "revoked",
        &[
            "membership",
            "removed from the fleet",
            "`farhelm join LINK`",
        ],
    );
}

#[test]
fn a_host_that_is_away_and_one_that_is_stuck_are_told_apart() {
    let scene = Scene::new();
    let (url, _relay, _runtime) = relay();
    let (session, _) = scene
        .host
        .up(&scene.dir, &["--relay", &url, "--prompt", "hello"]);
    scene.host.wait_for_nth(&session, "approval_requested", 1);
    let phone = scene.device("phone");
    assert!(phone.ok(&["ls"]).contains("asks (1)"));
    let pid = scene.host.daemon_pid();
    let stopped = Stopped::new(pid);
    // The relay still has its connection, and says so.
    phone.refuses(
        &["doctor"],
        3,
        "host_silent",
        &["round trip", "does not answer", "`farhelm doctor` there"],
    );
    let output = phone.run(&["ls"]);
    assert!(
        output.stdout.contains("was asks (1)"),
        "i05: an old state is shown as one: {output:?}"
    );
    assert!(output.stderr.contains("does not answer"), "{output:?}");
    assert_eq!(phone.json(&["status"])["presence"]["reach"], "silent");
    drop(stopped);
    wait_until("the host answers again", || {
        phone.json(&["status"])["presence"]["reach"] == "live"
    });
    scene.host.ok(&["down"]);
    let rows = phone.json(&["ls", "--all"]);
    assert_eq!(rows.as_array().unwrap().len(), 1, "no ghosts: {rows}");
    phone.refuses(
        &["doctor"],
        3,
        "host_offline",
        &["round trip", "not connected", "`farhelm up`"],
    );
    assert_eq!(phone.json(&["ls"])[0]["presence"]["turn"]["fresh"], false);
}

#[test]
fn s30_files_that_others_could_read_are_named_with_the_command_that_helps() {
    let scene = Scene::new();
    scene.host.up(&scene.dir, &[]);
    let key = scene.host.home.join("host.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let cure = format!("chmod 600 {}", key.display());
    scene.host.refuses(
        &["doctor"],
        1,
        "state_unusable",
        &["state folder", "mode 644", &cure],
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&scene.host.home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let cure = format!("chmod 700 {}", scene.host.home.display());
    scene
        .host
        .refuses(&["doctor"], 1, "state_unusable", &["mode 755", &cure]);
    let mode = scene.host.home.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "the doctor changes nothing");
}

#[test]
fn f15_a_disk_that_is_nearly_full_is_named() {
    let scene = Scene::new();
    std::fs::create_dir_all(&scene.host.home).unwrap();
    let Some(_small) = Small::mount(scene.host.home.clone()) else {
        eprintln!("skipped: nothing can be mounted here");
        return;
    };
    scene.host.refuses(
        &["doctor"],
        1,
        "journal_failed",
        &["disk: ", "MiB are left", "free some"],
    );
}

#[test]
fn a_mistake_in_the_configuration_and_a_missing_agent_are_named() {
    let scene = Scene::new();
    scene.host.up(&scene.dir, &[]);
    scene.host.configure("agent = \"opencode\"\n");
    scene
        .host
        .refuses(&["doctor"], 1, "agent_missing", &["agent: "]);
    scene.host.configure("relai = \"https://relay.example\"\n");
    scene.host.refuses(
        &["doctor"],
        1,
        "state_unusable",
        &["configuration: ", "relai"],
    );
}

/// A state folder that was copied: to another machine, or from a backup.
#[test]
fn f25_a_copy_of_a_host_leaves_the_relay_to_the_one_that_went_on() {
    let scene = Scene::new();
    let (url, _relay, _runtime) = relay();
    scene.host.up(&scene.dir, &["--relay", &url]);
    scene.host.ok(&["down"]);
    let copy = Station::new(&folder(scene.world.path(), "elsewhere"));
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&scene.host.home)
        .arg(&copy.home)
        .status();
    assert!(copied.unwrap().success());
    scene.host.up(&scene.dir, &["--relay", &url]);
    wait_until("the host is connected", || {
        scene.host.json(&["status"])["relay"] == "up"
    });
    copy.up(&scene.dir, &["--relay", &url]);
    wait_until("the copy is found out", || {
        copy.json(&["status"])["relay_error"]
            .as_str()
            .is_some_and(|why| why.starts_with("copied: "))
    });
    let words = [
        "link: ",
        "restored from one",
        "another daemon with the same keys",
        "end one of them",
    ];
    copy.refuses(&["doctor"], 1, "copied", &words);
    // The other is told why it was sent away for a moment, if it is not back already.
    let status = scene.host.json(&["status"]);
    let why = status["relay_error"].as_str();
    assert!(
        why.is_none_or(|why| why.starts_with("superseded: ")),
        "{status}"
    );
}

/// What is started is looked up each time: another version, or another place on the PATH.
#[test]
fn an_agent_that_was_upgraded_is_started_as_it_is_then() {
    let world = tempfile::tempdir().unwrap();
    let mut host = Station::new(world.path());
    let (bin, first) = (folder(world.path(), "bin"), folder(world.path(), "first"));
    host.set(
        "PATH",
        format!("{}:{}:/usr/bin:/bin", first.display(), bin.display()),
    );
    host.configure("[agents.mine]\ncommand = \"my-agent\"\n");
    let program = env!("CARGO_BIN_EXE_farhelm");
    let agent = |dir: &PathBuf, version: &str| {
        let text = format!(
            "echo {version} >> '{}/started'\nexec '{program}' scripted-agent",
            world.path().display()
        );
        crate::support::script(&dir.join("my-agent"), &text);
    };
    let started = || std::fs::read_to_string(world.path().join("started")).unwrap_or_default();
    agent(&bin, "1");
    let dir = folder(world.path(), "project");
    let (session, _) = host.up(&dir, &["--agent", "mine"]);
    host.wait_for_nth(&session, "agent_started", 1);
    for (version, count) in [("2", 2), ("3", 3)] {
        agent(if version == "2" { &bin } else { &first }, version);
        host.ok(&["down"]);
        host.up(&folder(world.path(), "other"), &["--agent", "scripted"]);
        host.ok(&["resume", &session]);
        host.wait_for_nth(&session, "agent_started", count);
        assert_eq!(started().lines().last(), Some(version), "{}", started());
    }
    let rows = host.json(&["ls", "--all"]);
    let same = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["session"] == session.as_str())
        .count();
    assert_eq!(
        same, 1,
        "one row for a session, however often it was resumed"
    );
}

struct Scene {
    host: Station,
    dir: PathBuf,
    world: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let world = tempfile::tempdir().unwrap();
        let host = Station::new(world.path());
        host.configure("agent = \"scripted\"\n");
        std::fs::set_permissions(&host.home, std::fs::Permissions::from_mode(0o700)).unwrap();
        let dir = folder(world.path(), "project");
        Self { host, dir, world }
    }

    fn device(&self, name: &str) -> Station {
        let device = Station::new(&folder(self.world.path(), name));
        self.host.pair(&device, name);
        device
    }
}

/// What the doctor looked at.
fn checks(station: &Station) -> Value {
    station.json(&["doctor"])["checks"].clone()
}

fn state<'a>(checks: &'a Value, check: &str) -> &'a str {
    let mut rows = checks.as_array().unwrap().iter();
    let row = rows.find(|row| row["check"] == check);
    row.and_then(|row| row["state"].as_str())
        .unwrap_or("absent")
}

/// A relay of its own, so that it outlives the host.
fn relay() -> (String, Relay, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let guard = runtime.enter();
    // It takes long to notice that a peer stands still, as one behind a proxy may.
    let relay = Relay::start(Config {
        dead_millis: 600_000,
        ..Config::in_memory()
    })
    .unwrap();
    drop(guard);
    (
        format!("http://localhost:{}", relay.local_addr().port()),
        relay,
        runtime,
    )
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

/// A process that stands still for as long as this lives.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        signal("STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("CONT", self.0);
    }
}

/// A small disk, for as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"])
            .arg(&at);
        let mounted = command.stderr(std::process::Stdio::null()).status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}
