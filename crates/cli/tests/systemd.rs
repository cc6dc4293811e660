//! `farhelm service` with a real systemd, in namespaces and a control group of its own. Where this
//! machine does not let us make those, or has no systemd, the test says so and ends.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a story that cannot be told has failed"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Station, folder, is_alive, script, wait_until};

mod support;

#[test]
fn f06_a_real_systemd_starts_the_daemon_again_and_leaves_its_agents_alone() {
    let world = tempfile::tempdir().unwrap();
    let mut host = Station::new(world.path());
    host.set("XDG_RUNTIME_DIR", RUNTIME);
    let machine = match Machine::boot(world.path()) {
        Ok(machine) => machine,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    host.live_with(machine.init);
    machine.is_up(&host);
    let made = host.json(&["service", "install"]);
    assert_eq!(
        (&made["installed"], &made["enabled"]),
        (&true.into(), &true.into()),
        "{made}"
    );
    let (name, file) = (
        made["name"].as_str().unwrap(),
        made["file"].as_str().unwrap(),
    );
    wait_until("systemd was told that the daemon is ready", || runs(&host));
    let first = host.daemon_pid();
    assert_eq!(main_pid(&host, name), first);

    let dir = folder(world.path(), "project");
    let noted = world.path().join("agent.pid");
    let farhelm = env!("CARGO_BIN_EXE_farhelm");
    let text = format!(
        "echo $$ > '{}'\nexec '{farhelm}' scripted-agent",
        noted.display()
    );
    let agent = script(&world.path().join("agent"), &text);
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "hello"]);
    let question = host.wait_for_question();
    let agent = std::fs::read_to_string(&noted).unwrap().trim().to_owned();
    let lives = || host.inside("kill", &["-0", &agent]).status.success();
    assert!(lives());

    let killed = host.inside("kill", &["-9", &first.to_string()]);
    assert!(killed.status.success(), "{killed:?}");
    wait_until("systemd starts another", || {
        runs(&host) && has_another(&host, first)
    });
    let second = host.daemon_pid();
    assert_eq!(main_pid(&host, name), second);
    assert!(lives(), "the agent outlives a daemon that is killed");

    let restarted = host.inside("systemctl", &["--user", "restart", name]);
    assert!(restarted.status.success(), "{restarted:?}");
    wait_until("there is another", || has_another(&host, second));
    assert!(lives(), "the agent outlives a restart of the service");
    assert_eq!(host.wait_for_question()["approval"], question["approval"]);
    host.ok(&["approve", question["approval"].as_str().unwrap()]);
    host.wait_for_nth(&session, "approval_applied", 1);

    // The machine is started anew, and nobody logs in.
    drop(machine);
    let machine = Machine::boot(world.path()).unwrap();
    host.live_with(machine.init);
    machine.is_up(&host);
    wait_until("the daemon runs by itself", || runs(&host));
    let rows = host.json(&["ls"]);
    assert_eq!(rows.as_array().unwrap().len(), 1, "{rows}");
    assert_eq!(rows[0]["session"], session.as_str());

    let last = host.daemon_pid().to_string();
    let gone = host.json(&["service", "uninstall"]);
    assert_eq!(
        (&gone["installed"], &gone["enabled"], &gone["running"]),
        (&false.into(), &false.into(), &false.into()),
        "{gone}"
    );
    wait_until("the daemon has ended", || {
        !host.inside("kill", &["-0", &last]).status.success()
    });
    assert!(!Path::new(file).exists());
    let known = host.inside("systemctl", &["--user", "list-unit-files", "--no-legend"]);
    assert!(
        known.status.success() && !known.stdout.contains("farhelm"),
        "{known:?}"
    );
    let units = world.path().join("user/.config/systemd/user");
    let left = std::fs::read_dir(units).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        !path.is_dir() || std::fs::read_dir(path).unwrap().next().is_some()
    });
    assert_eq!(left.count(), 0, "nothing is left");
}

const RUNTIME: &str = "/run/user/0";

fn runs(host: &Station) -> bool {
    host.json(&["service", "status"])["running"] == true
}

fn has_another(host: &Station, daemon: u32) -> bool {
    let asked = host.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(asked.stdout.trim()).unwrap_or_default();
    status["pid"]
        .as_u64()
        .is_some_and(|pid| pid != u64::from(daemon))
}

/// What systemd takes for the daemon.
fn main_pid(host: &Station, name: &str) -> u32 {
    let show = ["--user", "show", "--property=MainPID", "--value", name];
    host.inside("systemctl", &show)
        .stdout
        .trim()
        .parse()
        .unwrap()
}

/// A systemd of a user, with all that it starts. It ends with everything in it.
struct Machine {
    /// The process that holds it.
    outer: Child,
    /// Its first process, as it is seen from here.
    init: u32,
    group: PathBuf,
}

impl Machine {
    /// Starts one, or says why it cannot be.
    fn boot(world: &Path) -> Result<Self, String> {
        const SYSTEMD: [&str; 2] = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"];
        let systemd = SYSTEMD.into_iter().find(|path| Path::new(path).exists());
        let systemd = systemd.ok_or("systemd is not installed")?;
        if !rustix::process::geteuid().is_root() {
            return Err("only root may give a systemd a place of its own".to_owned());
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(|e| e.to_string())?;
        let mut fields = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let unified = fields.find(|fields| fields[2] == "cgroup2");
        let unified = unified.ok_or("control groups of the second version are not mounted")?;
        let name = format!("farhelm-test-{}", std::process::id());
        let group = Path::new(unified[1]).join(name);
        std::fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        // It looks whether the machine was started by systemd, and for its control groups.
        let inner = script(
            &world.join("init"),
            &format!(
                "mount -t tmpfs none /run && mount -t cgroup2 none /sys/fs/cgroup || exit 1\n\
                 mkdir -p /run/systemd/system {RUNTIME} && chmod 700 {RUNTIME}\n\
                 '{systemd}' --user &\nwait"
            ),
        );
        let outer = script(
            &world.join("machine"),
            &format!(
                "echo $$ > '{}/cgroup.procs' || exit 1\n\
                 exec unshare --cgroup --mount --pid --fork --kill-child --mount-proc '{inner}'",
                group.display()
            ),
        );
        let outer = Command::new(outer)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", world.join("user"))
            .env("XDG_RUNTIME_DIR", RUNTIME)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut machine = Self {
            outer,
            init: 0,
            group,
        };
        let pid = machine.outer.id();
        let children = format!("/proc/{pid}/task/{pid}/children");
        wait_until("the machine has a first process, or cannot be", || {
            !is_alive(pid) || std::fs::read_to_string(&children).is_ok_and(|text| !text.is_empty())
        });
        let children = std::fs::read_to_string(&children).unwrap_or_default();
        machine.init = children
            .trim()
            .parse()
            .map_err(|_| "namespaces cannot be made here".to_owned())?;
        Ok(machine)
    }

    fn is_up(&self, host: &Station) {
        wait_until("systemd is up", || {
            assert!(is_alive(self.init), "systemd has ended");
            let asked = host.inside("systemctl", &["--user", "is-system-running"]);
            ["running", "degraded"].contains(&asked.stdout.trim())
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.outer.kill());
        drop(self.outer.wait());
        let init = self.init;
        wait_until("the machine is off", || init == 0 || !is_alive(init));
        // Once the last process is buried.
        wait_until("its control group can go", || remove(&self.group));
    }
}

/// Removes a control group with those in it.
fn remove(group: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(group) else {
        return true;
    };
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for folder in folders.filter(|path| path.is_dir()) {
        remove(&folder);
    }
    std::fs::remove_dir(group).is_ok()
}
