//! The machine is kept awake while a turn runs, by a program of the system; here by a stand-in.

use std::path::PathBuf;

use crate::support::{Station, folder, is_alive, script, wait_until};

#[test]
fn the_machine_is_kept_awake_while_a_turn_runs_and_no_longer() {
    let scene = Scene::new();
    let (session, _) = scene.host.up(&scene.dir, &["--agent", "scripted"]);
    assert_eq!(scene.held(), None, "nothing runs yet");
    scene.host.ok(&["send", &session, "hello"]);
    wait_until("it is held", || scene.held().is_some_and(is_alive));
    let asked = std::fs::read_to_string(scene.path("asked")).unwrap();
    assert_eq!(
        asked.trim(),
        "--what=sleep:idle --who=Farhelm --why=an agent works --mode=block cat"
    );
    let first = scene.held().unwrap();
    scene.host.wait_for_nth(&session, "approval_requested", 1);
    assert!(
        is_alive(first),
        "a question that waits is a part of the turn"
    );
    scene.host.ok(&["stop", &session]);
    scene.host.wait_for_nth(&session, "turn_ended", 1);
    wait_until("it is let go", || !is_alive(first));
}

#[test]
fn f06_nothing_is_held_by_a_daemon_that_was_killed() {
    let scene = Scene::new();
    let (session, _) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--prompt", "hello"]);
    scene.host.wait_for_nth(&session, "approval_requested", 1);
    wait_until("it is held", || scene.held().is_some_and(is_alive));
    let held = scene.held().unwrap();
    let daemon = scene.host.daemon_pid().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-KILL", &daemon])
            .status()
            .unwrap()
            .success()
    );
    wait_until("it is let go", || !is_alive(held));
}

#[test]
fn it_can_be_turned_off_and_an_absent_program_is_one_line_in_the_log() {
    let scene = Scene::new();
    scene.host.configure("keep_awake = false\n");
    scene.turn();
    assert_eq!(scene.held(), None);
    scene.host.ok(&["down"]);

    scene.host.configure("");
    std::fs::remove_file(scene.path("bin/systemd-inhibit")).unwrap();
    scene.turn();
    scene.turn();
    let lines = scene
        .host
        .log()
        .lines()
        .filter(|line| line.contains("may go to sleep"))
        .count();
    assert_eq!(lines, 1, "{}", scene.host.log());
}

struct Scene {
    host: Station,
    dir: PathBuf,
    world: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let world = tempfile::tempdir().unwrap();
        let mut host = Station::new(world.path());
        let dir = folder(world.path(), "project");
        let bin = folder(world.path(), "bin");
        // The real one is not to be found.
        for program in ["sh", "cat", "uname", "git"] {
            let found = ["/bin", "/usr/bin"].map(|dir| std::path::Path::new(dir).join(program));
            if let Some(found) = found.into_iter().find(|path| path.exists()) {
                std::os::unix::fs::symlink(found, bin.join(program)).unwrap();
            }
        }
        host.set("PATH", bin.to_str().unwrap());
        let here = world.path().display();
        let text = format!("echo \"$*\" > '{here}/asked'\necho $$ > '{here}/held'\nexec cat");
        script(&bin.join("systemd-inhibit"), &text);
        Self { host, dir, world }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path().join(name)
    }

    /// The process that keeps the machine awake, or did.
    fn held(&self) -> Option<u32> {
        std::fs::read_to_string(self.path("held"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// A whole turn.
    fn turn(&self) {
        let (session, _) = self
            .host
            .up(&self.dir, &["--agent", "scripted", "--prompt", "hello"]);
        self.host.wait_for_nth(&session, "approval_requested", 1);
        self.host.ok(&["stop", &session]);
        self.host.wait_for_nth(&session, "turn_ended", 1);
    }
}
