//! Real programs in temporary folders: a host, devices joined to it, and nothing of this machine.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a world that cannot be made is a failure"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its part of this"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take; agents are slow on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A state folder with the commands that use it; a daemon that runs there ends with it.
pub(crate) struct Station {
    pub(crate) home: PathBuf,
    env: BTreeMap<String, String>,
    /// The program with its arguments that runs its commands in another place; none for here.
    place: Vec<String>,
}

/// What a command printed.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Station {
    /// A station whose state is in `folder`, with a bare environment.
    pub(crate) fn new(folder: &Path) -> Self {
        let user_home = folder.join("user");
        std::fs::create_dir_all(&user_home).unwrap();
        let env = BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
            ("HOME".to_owned(), user_home.display().to_string()),
            (
                "FARHELM_SCRIPTED_STATE".to_owned(),
                folder.join("scripted").display().to_string(),
            ),
        ]);
        Self {
            home: folder.join("farhelm"),
            env,
            place: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    pub(crate) fn with_env(mut self, env: &BTreeMap<String, String>) -> Self {
        self.env.extend(env.clone());
        self
    }

    /// Runs its commands in a network namespace from here on.
    pub(crate) fn live_in(&mut self, network: &str) {
        let place = ["/usr/sbin/ip", "netns", "exec", network];
        self.place = place.map(str::to_owned).to_vec();
    }

    /// Runs its commands in the namespaces of a process from here on.
    pub(crate) fn live_with(&mut self, pid: u32) {
        let target = pid.to_string();
        let place = [
            "nsenter", "--target", &target, "--mount", "--pid", "--cgroup", "--",
        ];
        self.place = place.map(str::to_owned).to_vec();
    }

    /// Another program where its commands run, with what they are given.
    pub(crate) fn inside(&self, program: &str, args: &[&str]) -> Output {
        output(self.program(program).args(args))
    }

    fn program(&self, program: &str) -> Command {
        let mut words = self.place.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .env_clear()
            .envs(&self.env)
            .env("FARHELM_HOME", &self.home)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::create_dir_all(&self.home).unwrap();
        std::fs::write(self.home.join("config.toml"), text).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_farhelm"));
        command.args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        output(&mut self.command(args))
    }

    /// Runs a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "farhelm {args:?}: {output:?}\n{}",
            self.log()
        );
        output.stdout
    }

    /// Runs a command that must succeed, for its JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// Runs a command that must fail; gives the exit status and the error's code.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.run(&[args, &["--json"]].concat());
        assert!(
            !output.status.success(),
            "farhelm {args:?} should fail: {output:?}"
        );
        let last = output.stdout.lines().last().unwrap_or_default();
        let value: Value =
            serde_json::from_str(last).unwrap_or_else(|_| panic!("an error as JSON: {output:?}"));
        let word = value["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let message = value["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (output.status.code().unwrap_or(-1), word, message)
    }

    /// Runs a command that must fail; gives the exit status and what a person reads.
    pub(crate) fn complains(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(
            !output.status.success(),
            "farhelm {args:?} should fail: {output:?}"
        );
        (output.status.code().unwrap_or(-1), output.stderr)
    }

    /// Runs a command that must fail with this exit status and code, and says each of `words`.
    pub(crate) fn refuses(&self, args: &[&str], status: i32, code: &str, words: &[&str]) {
        let (found, word, message) = self.fails(args);
        assert_eq!(
            (found, word.as_str()),
            (status, code),
            "farhelm {args:?}: {message}\n{}",
            self.log()
        );
        for word in words {
            assert!(
                message.contains(word),
                "farhelm {args:?} does not say {word:?}: {message}"
            );
        }
    }

    /// Starts a session; gives its id and the pairing link.
    pub(crate) fn up(&self, dir: &Path, more: &[&str]) -> (String, String) {
        let dir = dir.to_str().unwrap();
        let made = self.json(&[&["up", "--dir", dir, "--headless"], more].concat());
        (
            made["session"].as_str().unwrap().to_owned(),
            made["link"].as_str().unwrap().to_owned(),
        )
    }

    /// The events of a session.
    pub(crate) fn log_of(&self, session: &str) -> Vec<Value> {
        let text = self.ok(&["log", session, "--json"]);
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until the session's log has an event for which `wanted` holds; gives it.
    pub(crate) fn wait_for(
        &self,
        session: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut child = self
            .command(&["log", session, "--follow", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(&mut child);
        let mut seen = Vec::new();
        let found = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = lines.recv_timeout(left) else {
                break None;
            };
            let record: Value = serde_json::from_str(&line).unwrap();
            if wanted(&record["event"]) {
                break Some(record["event"].clone());
            }
            seen.push(line);
        };
        end(&mut child);
        found.unwrap_or_else(|| panic!("no {what} in\n{}\n{}", seen.join("\n"), self.log()))
    }

    /// Waits for an event of this type; `count` says the how manieth.
    pub(crate) fn wait_for_nth(&self, session: &str, kind: &str, count: usize) -> Value {
        let seen = std::cell::Cell::new(0);
        self.wait_for(session, kind, |event| {
            if event["type"] == kind {
                seen.set(seen.get() + 1);
            }
            seen.get() == count
        })
    }

    /// Waits until a question waits; gives its id.
    pub(crate) fn wait_for_question(&self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let waiting = self.json(&["approvals"]);
            if let Some(first) = waiting.as_array().and_then(|rows| rows.first()) {
                return first.clone();
            }
            assert!(
                Instant::now() < deadline,
                "no question waits\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes `device` a device of this host, with the codes compared.
    pub(crate) fn pair(&self, device: &Self, name: &str) {
        let link = self.json(&["pair", "--no-wait"])["link"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut joining = device.join(&link, name);
        let code = joining.code();
        self.ok(&["pair", "--accept", &code]);
        assert!(joining.wait().success());
    }

    /// Begins to join; the person has not confirmed yet.
    pub(crate) fn join(&self, link: &str, name: &str) -> Joining {
        let mut child = self
            .command(&["join", link, "--name", name, "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(&mut child);
        Joining { child, lines }
    }

    /// Begins a command that goes on, with its standard output in hand.
    pub(crate) fn begin(&self, args: &[&str]) -> Talk {
        Talk::start(self.command(args))
    }

    /// A turn of the scripted agent works from beginning to end: nothing was lost or stuck.
    pub(crate) fn still_works(&self, dir: &Path) {
        let (session, _) = self.up(dir, &["--agent", "scripted", "--prompt", "hello"]);
        self.wait_for_nth(&session, "approval_requested", 1);
        self.ok(&["stop", &session]);
        assert_eq!(
            self.wait_for_nth(&session, "turn_ended", 1)["reason"],
            "cancelled"
        );
    }

    /// The process of the daemon.
    pub(crate) fn daemon_pid(&self) -> u32 {
        u32::try_from(self.json(&["status"])["pid"].as_u64().unwrap()).unwrap()
    }

    /// The daemon's log, for a failure's message.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("farhelm.log")).unwrap_or_default()
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if self.home.join("farhelm.sock").exists() {
            drop(self.run(&["down"]));
        }
    }
}

/// A device that wants in.
pub(crate) struct Joining {
    child: Child,
    lines: Receiver<String>,
}

impl Joining {
    /// The code that it shows.
    pub(crate) fn code(&self) -> String {
        let line = self
            .lines
            .recv_timeout(PATIENCE)
            .expect("the device shows a code");
        let value: Value = serde_json::from_str(&line).unwrap();
        value["code"]
            .as_str()
            .unwrap_or_else(|| panic!("a code, not {line}"))
            .to_owned()
    }

    /// The next thing it prints.
    pub(crate) fn line(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).expect("a line")).unwrap()
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

/// What a test does not wait for ends with it.
impl Drop for Joining {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A program with its input and output in hand.
pub(crate) struct Talk {
    child: Child,
    lines: Receiver<String>,
    pub(crate) heard: Vec<String>,
}

impl Talk {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(&mut child);
        Self {
            child,
            lines,
            heard: Vec::new(),
        }
    }

    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for a line that contains `wanted`.
    pub(crate) fn hear(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("no {wanted:?} in {:#?}", self.heard));
            self.heard.push(line.clone());
            if line.contains(wanted) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().unwrap()
    }
}

/// What a test does not end itself ends with it.
impl Drop for Talk {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    Output {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits until something holds.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process runs; one that is dead and not yet buried does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A script that runs by itself.
pub(crate) fn script(path: &Path, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A folder to work in.
pub(crate) fn folder(world: &Path, name: &str) -> PathBuf {
    let dir = world.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// A port of this machine on which nobody listens.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The same command in a pseudo-terminal whose other end is `script`'s.
pub(crate) fn in_a_terminal(command: &Command) -> Command {
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote)
        .collect();
    let mut script = Command::new("script");
    script
        .args(["-qec", &format!("exec {}", words.join(" ")), "/dev/null"])
        .env_clear();
    script
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("SHELL", "/bin/sh");
    script.stderr(Stdio::null());
    script
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let reader = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}
