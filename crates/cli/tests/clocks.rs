//! Real programs on machines whose clocks are wrong, and are set while everything runs: each has a
//! time of day of its own, by libfaketime. Where that is not installed, the tests say so and end.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a story that cannot be told has failed"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use support::{Station, Talk, folder, free_port, is_alive, wait_until};

mod support;

#[test]
fn f10_machines_whose_clocks_are_hours_and_years_apart_work_together() {
    // The relay's, the host's, the device's.
    for clocks in [
        ["+1h", "-1y", "+1y"],
        ["-1h", "+1y", "-1y"],
        ["+1y", "+1h", "-1h"],
        ["-1y", "-1h", "+1h"],
        // Two of three agree, and not with the one that judges.
        ["+0", "-1y", "+0"],
        ["+0", "+1y", "+0"],
    ] {
        let Some(scene) = Scene::new(clocks, None) else {
            return;
        };
        scene.a_turn_works(1);
        let shown = scene.phone.json(&["status"]);
        assert_eq!(shown["host_online"], true, "{clocks:?}: {shown}");
        let looked = scene.phone.run(&["doctor"]);
        assert!(
            looked.stdout.contains("the host's clock is"),
            "{clocks:?}: {looked:?}"
        );
    }
}

#[test]
fn f10_clocks_that_are_set_while_all_runs_end_no_connection_and_change_no_order() {
    let Some(scene) = Scene::new(["+0", "+0", "+0"], None) else {
        return;
    };
    let mut follower = scene
        .phone
        .begin(&["log", &scene.session, "--follow", "--json"]);
    follower.hear("\"seq\":1,");
    let programs = [scene.host.daemon_pid(), follower.pid()];
    wait_until("the device's programs are connected", || {
        programs.iter().all(|pid| !connections(*pid).is_empty())
    });
    let before = programs.map(connections);
    let (begun, mut prompts) = (Instant::now(), 0);
    // For longer than a line may be silent.
    while begun.elapsed() < Duration::from_secs(11) || prompts < 6 {
        for (who, clock) in [
            (&scene.relay_clock, "+1h"),
            (&scene.host_clock, "-1y"),
            (&scene.phone_clock, "+1y"),
            (&scene.relay_clock, "-1y"),
            (&scene.host_clock, "+1h"),
            (&scene.phone_clock, "-1h"),
        ] {
            who.set(clock);
            prompts += 1;
            scene.a_turn_works(prompts);
        }
    }
    for (pid, before) in programs.iter().zip(before) {
        assert!(is_alive(*pid));
        let now = connections(*pid);
        assert!(
            before.is_subset(&now),
            "connections of {pid} were {before:?} and are {now:?}\n{}",
            scene.host.log()
        );
    }
    scene.looks_the_same(&mut follower, prompts);
}

#[test]
fn f10_a_wish_that_is_good_for_a_minute_arrives_from_a_device_that_lives_in_another_year() {
    for clock in ["-1y", "+1y"] {
        let Some(scene) = Scene::new(["+0", "+0", clock], None) else {
            return;
        };
        let send = ["send", &scene.session, "hello", "--not-after", "1m"];
        scene.phone.ok(&send);
        let question = scene.phone.wait_for_question();
        let id = question["approval"].as_str().unwrap();
        scene.phone.ok(&["approve", id, "--not-after", "1m"]);
        scene
            .host
            .wait_for_nth(&scene.session, "approval_applied", 1);
    }
}

#[test]
fn f10_a_device_whose_clock_is_wrong_is_paired() {
    for clocks in [
        ["-1y", "+0", "+0"],
        ["+1y", "+0", "+0"],
        ["+0", "+0", "-1y"],
    ] {
        let Some(scene) = Scene::new(clocks, None) else {
            return;
        };
        assert_eq!(scene.phone.json(&["ls"]).as_array().unwrap().len(), 1);
    }
}

#[test]
fn f10_a_certificate_that_a_wrong_clock_refuses_blames_the_clock() {
    for (clock, words) in [("-1y", "begins in 3"), ("+1y", "ended 3")] {
        let world = tempfile::tempdir().unwrap();
        let certificates = Certificates::for_a_month(world.path());
        let Some(mut scene) = Scene::new(["+0", "+0", "+0"], Some(&certificates)) else {
            return;
        };
        scene.host_clock.set(clock);
        scene.relay.restart();
        wait_until("the host says what is wrong", || {
            let trouble = scene.host.json(&["status"])["relay_error"].to_string();
            trouble.contains("by the clock of this machine") && trouble.contains(words)
        });
        let (_, code, message) = scene.host.fails(&["doctor"]);
        // It is the first that is wrong, in the order of the way.
        assert_eq!(code, "clock_skew", "{message}");
        assert!(
            message.contains(words) && message.contains("set it"),
            "{message}"
        );
        // And once it is right, all is well by itself.
        scene.host_clock.set("+0");
        wait_until("the host is back", || {
            scene.host.json(&["status"])["relay"] == "up"
        });
    }
}

/// A relay, a host and a device, each with a clock of its own.
struct Scene {
    host: Station,
    phone: Station,
    session: String,
    relay_clock: Clock,
    host_clock: Clock,
    phone_clock: Clock,
    relay: Relay,
    _world: tempfile::TempDir,
}

impl Scene {
    /// Nothing where clocks cannot be faked.
    fn new(clocks: [&str; 3], certificates: Option<&Certificates>) -> Option<Self> {
        let Some(library) = library() else {
            eprintln!("skipped: libfaketime is not here; install the package faketime");
            return None;
        };
        let world = tempfile::tempdir().unwrap();
        let [relay_clock, host_clock, phone_clock] = ["relay", "desk", "phone"].map(|name| Clock {
            file: folder(world.path(), name).join("clock"),
            library: library.clone(),
        });
        relay_clock.set(clocks[0]);
        host_clock.set(clocks[1]);
        phone_clock.set(clocks[2]);
        let port = free_port();
        let scheme = certificates.map_or("http", |_| "https");
        let url = format!("{scheme}://localhost:{port}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_farhelm"));
        let data = world.path().join("relay/data").display().to_string();
        let listen = format!("127.0.0.1:{port}");
        command.args(["relay", "--listen", &listen, "--public-url", &url]);
        command.args(["--data", &data]);
        let mut host = Station::new(&folder(world.path(), "desk"));
        let mut phone = Station::new(&folder(world.path(), "phone"));
        if let Some(Certificates { ca, cert, key }) = certificates {
            command.arg("--cert").arg(cert).arg("--key").arg(key);
            for station in [&mut host, &mut phone] {
                station.set("FARHELM_CA_FILE", ca.display().to_string());
            }
        }
        command.env_clear().envs(relay_clock.variables());
        let relay = Relay::start(command);
        host.set("FARHELM_SCRIPTED_SCENARIO", scenario(world.path()));
        for (station, clock) in [(&mut host, &host_clock), (&mut phone, &phone_clock)] {
            for (name, value) in clock.variables() {
                station.set(name, value);
            }
        }
        let dir = folder(world.path(), "project");
        let (session, _) = host.up(&dir, &["--agent", "scripted", "--relay", &url]);
        wait_until("the host is connected", || {
            host.json(&["status"])["relay"] == "up"
        });
        host.pair(&phone, "phone");
        Some(Self {
            host,
            phone,
            session,
            relay_clock,
            host_clock,
            phone_clock,
            relay,
            _world: world,
        })
    }

    /// The device prompts, and answers what is asked; it is the `nth` time.
    fn a_turn_works(&self, nth: usize) {
        self.phone
            .ok(&["send", &self.session, &format!("hello {nth}")]);
        let question = self.phone.wait_for_question();
        self.phone
            .ok(&["approve", question["approval"].as_str().unwrap()]);
        self.host
            .wait_for_nth(&self.session, "approval_applied", nth);
        self.host.wait_for_nth(&self.session, "turn_ended", nth);
    }

    /// A follower was shown every event once and in order, and the prompts in theirs.
    fn looks_the_same(&self, follower: &mut Talk, prompts: usize) {
        let log = self.host.log_of(&self.session);
        follower.hear(&format!("\"seq\":{},", log.len()));
        let shown: Vec<serde_json::Value> = follower
            .heard
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(shown, log);
        let texts: Vec<_> = log
            .iter()
            .filter_map(|record| record["event"]["text"].as_str())
            .filter(|text| text.starts_with("hello "))
            .collect();
        let expected: Vec<_> = (1..=prompts).map(|nth| format!("hello {nth}")).collect();
        let mut once = texts.clone();
        once.dedup();
        assert_eq!(once, expected, "{texts:?}");
    }
}

/// Each prompt brings one question.
fn scenario(world: &Path) -> String {
    let turn = json!([
        {"do": "text", "text": "working on {prompt}"},
        {"do": "ask", "call": {"title": "may {prompt} happen?", "kind": "execute", "rawInput": {"command": "true"}}},
    ]);
    let path = world.join("scenario.json");
    let text = json!({"scenarios": {"default": [turn]}}).to_string();
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A machine's time of day.
struct Clock {
    /// How far it is off.
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    fn set(&self, off: &str) {
        // Whole or not at all: it is read at any moment.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, format!("{off}\n")).unwrap();
        std::fs::rename(&fresh, &self.file).unwrap();
    }

    fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // A clock that somebody sets is another than the one that measures.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// The one for programs with threads.
fn library() -> Option<PathBuf> {
    const NAME: &str = "faketime/libfaketimeMT.so.1";
    let here = std::env::consts::ARCH;
    [
        format!("/usr/lib/{here}-linux-gnu/{NAME}"),
        format!("/usr/lib64/{NAME}"),
        format!("/usr/lib/{NAME}"),
    ]
    .into_iter()
    .map(PathBuf::from)
    .find(|path| path.exists())
}

/// A relay that ends with its scene.
struct Relay {
    command: Command,
    child: Child,
}

impl Relay {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let child = Self::spawn(&mut command);
        Self { command, child }
    }

    fn spawn(command: &mut Command) -> Child {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert!(line.contains("listening"), "{line}");
        child
    }

    /// Ends all connections.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&mut self.command);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The TCP connections of a process that are open, each by the number of its socket.
fn connections(pid: u32) -> BTreeSet<String> {
    const ESTABLISHED: &str = "01";
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let all = read("tcp") + &read("tcp6");
    let open: BTreeSet<_> = all
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[3] == ESTABLISHED)
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| open.contains(target))
        .collect()
}

/// A relay's certificate, its key, and who signed it.
struct Certificates {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Certificates {
    /// Good from yesterday on.
    fn for_a_month(folder: &Path) -> Self {
        const DAY: u64 = 24 * 3600;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&authority_key).unwrap();
        let mut certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (certificate.not_before, certificate.not_after) = (at(now - DAY), at(now + 29 * DAY));
        let key = KeyPair::generate().unwrap();
        let signed = certificate
            .signed_by(&key, &Issuer::new(authority, authority_key))
            .unwrap();
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            ca: write("ca.pem", ca.pem()),
            cert: write("cert.pem", signed.pem()),
            key: write("key.pem", key.serialize_pem()),
        }
    }
}
