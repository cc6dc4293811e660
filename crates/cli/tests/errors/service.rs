//! `farhelm service` with stand-ins for the service managers' programs: what it writes, what it
//! asks for, and that a daemon which was started without a terminal has its sessions again.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Station, folder, script, wait_until};

#[test]
fn a_service_is_installed_once_and_said_to_be() {
    let scene = Scene::new(true);
    let made = scene.host.json(&["service", "install"]);
    assert_eq!(made["kind"], "systemd");
    assert_eq!(
        (
            &made["installed"],
            &made["enabled"],
            &made["running"],
            &made["lingers"]
        ),
        (&true.into(), &true.into(), &true.into(), &false.into())
    );
    let text = std::fs::read_to_string(made["file"].as_str().unwrap()).unwrap();
    let exec = format!(
        "ExecStart=\"{}\" --home \"{}\" host run --wait",
        env!("CARGO_BIN_EXE_farhelm"),
        scene.host.home.display()
    );
    for line in [
        exec.as_str(),
        "KillMode=process",
        "Restart=always",
        "Type=notify",
        "WantedBy=default.target",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("canary-secret"), "nothing secret in {text}");
    let name = made["name"].as_str().unwrap();
    let asked = scene.asked();
    assert_eq!(
        asked,
        [
            "systemctl --user daemon-reload".to_owned(),
            format!("systemctl --user enable {name}"),
            format!("systemctl --user start --no-block {name}")
        ]
    );
    // Again: the file stays as it is, and nothing is read anew.
    scene.host.ok(&["service", "install"]);
    assert!(
        !scene.asked()[3..]
            .iter()
            .any(|line| line.contains("daemon-reload")),
        "{:?}",
        scene.asked()
    );
    let shown = scene.host.run(&["service", "status"]);
    assert!(
        shown.stdout.contains("running   yes") && shown.stderr.contains("loginctl enable-linger"),
        "{shown:?}"
    );
    let made = scene.host.json(&["service", "install", "--linger"]);
    assert_eq!(made["lingers"], true);

    let gone = scene.host.json(&["service", "uninstall"]);
    assert_eq!(
        (&gone["installed"], &gone["enabled"], &gone["running"]),
        (&false.into(), &false.into(), &false.into())
    );
    assert!(
        scene
            .asked()
            .iter()
            .any(|line| line == &format!("systemctl --user disable --now {name}"))
    );
    scene.host.ok(&["service", "uninstall"]);
}

#[test]
fn systemd_itself_finds_nothing_wrong_with_the_unit() {
    let scene = Scene::new(true);
    let file = scene.host.json(&["service", "install"])["file"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut verify = Command::new("systemd-analyze");
    let output = match verify
        .args(["--user", "--no-pager", "verify", &file])
        .env("XDG_RUNTIME_DIR", scene.world.path())
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: systemd-analyze: {error}");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let about_it: Vec<_> = said
        .lines()
        .filter(|line| line.contains(&file) || line.contains("farhelm-"))
        .collect();
    assert!(about_it.is_empty(), "{said}");
}

#[test]
fn a_manager_that_refuses_is_quoted() {
    let scene = Scene::new(true);
    std::fs::write(scene.world.path().join("broken"), "").unwrap();
    scene.host.refuses(
        &["service", "install"],
        1,
        "no_service",
        &[
            "systemctl --user daemon-reload",
            "Failed to connect to bus",
            "`farhelm up`",
        ],
    );
}

#[test]
fn without_a_manager_it_says_what_to_do() {
    let scene = Scene::new(false);
    for action in ["install", "uninstall", "status"] {
        scene.host.refuses(
            &["service", action],
            1,
            "no_service",
            &["neither systemctl nor launchctl", "`farhelm up`"],
        );
    }
}

#[test]
fn a_launch_agent_is_written_where_launchd_is() {
    let scene = Scene::new(false);
    scene.stand_in("launchctl", "case $1 in version|bootstrap|bootout|enable) exit 0;; print) echo 'state = running';; esac");
    let made = scene.host.json(&["service", "install"]);
    assert_eq!(
        (&made["kind"], &made["running"]),
        (&"launchd".into(), &true.into())
    );
    let text = std::fs::read_to_string(made["file"].as_str().unwrap()).unwrap();
    assert!(
        text.contains("<key>KeepAlive</key>") && text.contains(env!("CARGO_BIN_EXE_farhelm")),
        "{text}"
    );
    assert!(
        scene
            .asked()
            .iter()
            .any(|line| line.starts_with("launchctl bootstrap gui/")),
        "{:?}",
        scene.asked()
    );
}

/// What a service manager does: runs the unit's command line, without a terminal and with next to
/// nothing in its environment, and waits to be told that it is ready.
#[test]
fn f06_a_service_without_a_terminal_has_the_sessions_again() {
    let scene = Scene::new(true);
    let dir = folder(scene.world.path(), "project");
    let (session, _) = scene
        .host
        .up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    scene.host.wait_for_nth(&session, "approval_requested", 1);
    scene.host.ok(&["down"]);
    let file = scene.host.json(&["service", "install"])["file"]
        .as_str()
        .unwrap()
        .to_owned();
    let text = std::fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .unwrap();
    let words: Vec<_> = line
        .split_whitespace()
        .map(|word| word.trim_matches('"'))
        .collect();
    let told = scene.world.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&told).unwrap();
    socket
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let mut daemon = Command::new(words[0]);
    daemon
        .args(&words[1..])
        .env_clear()
        .env("HOME", scene.world.path().join("user"))
        .env("PATH", "/usr/bin:/bin")
        .env("NOTIFY_SOCKET", &told)
        .env("WATCHDOG_USEC", "100000");
    let mut daemon = daemon.stdin(std::process::Stdio::null()).spawn().unwrap();
    let mut buffer = [0; 64];
    for wanted in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), wanted);
    }
    let rows = scene.host.json(&["ls"]);
    assert_eq!(
        rows.as_array().unwrap().len(),
        1,
        "one row for one session: {rows}"
    );
    assert_eq!(rows[0]["session"], session.as_str());
    scene.host.ok(&["send", &session, "and on"]);
    wait_until("the session goes on", || {
        scene.host.json(&["ls"])[0]["presence"]["agent"]["value"] == true
    });
    assert_eq!(scene.host.daemon_pid(), daemon.id());
    scene.host.ok(&["down"]);
    assert!(daemon.wait().unwrap().success());
}

struct Scene {
    host: Station,
    world: tempfile::TempDir,
}

impl Scene {
    fn new(systemd: bool) -> Self {
        let world = tempfile::tempdir().unwrap();
        let host = Station::new(world.path());
        let mut scene = Self { host, world };
        let bin = folder(scene.world.path(), "bin");
        // Nothing but what is needed, so that no manager of this machine is found.
        for program in ["sh", "cat", "touch", "rm", "echo", "env"] {
            let found = ["/bin", "/usr/bin"].map(|dir| Path::new(dir).join(program));
            let found = found.into_iter().find(|path| path.exists()).unwrap();
            std::os::unix::fs::symlink(found, bin.join(program)).unwrap();
        }
        scene.host.set("PATH", bin.to_str().unwrap());
        scene.host.set("SOME_API_KEY", "canary-secret");
        if systemd {
            scene.systemd();
        }
        scene
    }

    fn asked_file(&self) -> PathBuf {
        self.world.path().join("asked")
    }

    /// What the managers were asked to do, without the questions how things are.
    fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.asked_file()).unwrap_or_default();
        let is_question = |line: &str| {
            ["--version", "is-", "show-user", "print", "version"]
                .iter()
                .any(|word| line.contains(word))
        };
        text.lines()
            .filter(|line| !is_question(line))
            .map(str::to_owned)
            .collect()
    }

    fn stand_in(&self, program: &str, text: &str) {
        let path = self.world.path().join("bin").join(program);
        let log = self.asked_file();
        script(
            &path,
            &format!("echo \"{program} $*\" >> '{}'\n{text}", log.display()),
        );
    }

    /// Programs that remember what they were asked, in files.
    fn systemd(&self) {
        let world = self.world.path().display().to_string();
        self.stand_in(
            "systemctl",
            &format!(
                "cd '{world}'\n\
                 [ -e broken ] && [ \"$1\" = --user ] && {{ echo 'Failed to connect to bus' >&2; exit 1; }}\n\
                 case \"$2\" in\n\
                 enable) touch enabled;; start) touch active;; disable) rm -f enabled active;;\n\
                 is-enabled) [ -e enabled ] && echo enabled || {{ echo disabled; exit 1; }};;\n\
                 is-active) [ -e active ] && echo active || {{ echo inactive; exit 3; }};;\n\
                 esac"
            ),
        );
        self.stand_in(
            "loginctl",
            &format!(
                "cd '{world}'\n\
                 case \"$1\" in enable-linger) touch lingers;; show-user) [ -e lingers ] && echo yes || echo no;; esac"
            ),
        );
    }
}
