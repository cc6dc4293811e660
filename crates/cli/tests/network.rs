//! Real programs in network namespaces of their own: the line dies without a word, an address
//! changes, a machine stands still. Where namespaces may not be made, the tests say so and end.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a story that cannot be told has failed"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use support::{Station, folder, wait_until};

mod support;

#[test]
fn f12_a_line_that_dies_without_a_word_is_noticed_on_both_sides_and_healed_by_itself() {
    let Some(scene) = Scene::new() else { return };
    scene.host_line("down");
    let cut = Instant::now();
    wait_until("the host notices", || scene.relay_of_host() == "down");
    eprintln!("the host noticed after {:?}", cut.elapsed());
    wait_until("the relay frees the place and says so", || {
        !scene.host_is_online()
    });
    eprintln!("the device was told after {:?}", cut.elapsed());
    let trouble = scene.host.json(&["status"])["relay_error"].clone();
    assert!(trouble.is_string(), "{trouble}");

    scene.host_line("up");
    let mended = Instant::now();
    wait_until("the host is back by itself", || {
        scene.relay_of_host() == "up" && scene.host_is_online()
    });
    eprintln!("it was back after {:?}", mended.elapsed());
    scene.a_turn_works();
}

#[test]
fn f11_a_host_whose_address_changes_is_back_by_itself() {
    let Some(scene) = Scene::new() else { return };
    assert!(scene.is_connected_from(HOST));
    let host = &scene.host_net;
    ip(&[
        "-n",
        host,
        "addr",
        "add",
        &format!("{MOVED}/24"),
        "dev",
        "line",
    ]);
    ip(&[
        "-n",
        host,
        "addr",
        "del",
        &format!("{HOST}/24"),
        "dev",
        "line",
    ]);
    let moved = Instant::now();
    // The second address goes with the first where the system does not promote it.
    let again = [
        "-n",
        host,
        "addr",
        "replace",
        &format!("{MOVED}/24"),
        "dev",
        "line",
    ];
    ip(&again);
    wait_until("the host comes from its other address", || {
        scene.is_connected_from(MOVED)
    });
    eprintln!("it was back after {:?}", moved.elapsed());
    wait_until("the device sees it", || scene.host_is_online());
    scene.a_turn_works();
}

#[test]
fn f08_a_host_that_stood_still_is_back_by_itself_when_it_goes_on() {
    let Some(scene) = Scene::new() else { return };
    let pid = scene.host.daemon_pid().to_string();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    let stopped = Instant::now();
    wait_until("the relay gives the host up", || !scene.host_is_online());
    eprintln!("the device was told after {:?}", stopped.elapsed());
    signal("-CONT");
    let woken = Instant::now();
    wait_until("the host is back", || scene.host_is_online());
    eprintln!("it was back after {:?}", woken.elapsed());
    scene.a_turn_works();
}

#[test]
fn a_host_that_starts_without_a_network_connects_once_there_is_one() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    scene.host.ok(&["down"]);
    ip(&["-n", &scene.host_net, "link", "set", "line", "down"]);
    let dir = folder(scene.world.path(), "other");
    let args = ["--agent", "scripted", "--relay", RELAY_URL];
    let (session, _) = scene.host.up(&dir, &args);
    wait_until("it says what is wrong", || {
        scene.host.json(&["status"])["relay_error"]
            .as_str()
            .is_some_and(|trouble| trouble.contains("no network"))
    });
    // A device that asks meanwhile waits, and is told.
    ip(&["-n", &scene.host_net, "link", "set", "line", "up"]);
    wait_until("the host connects", || scene.host_is_online());
    scene.session = session;
    scene.a_turn_works();
}

#[test]
fn a_device_that_follows_waits_for_a_network_for_as_long_as_it_takes() {
    let Some(scene) = Scene::new() else { return };
    let relay_net = scene.host_net.replace("-host", "-relay");
    let line = |state: &str| ip(&["-n", &relay_net, "link", "set", "to-phone", state]);
    line("down");
    let follow = ["log", &scene.session, "--follow", "--json"];
    let mut following = scene.phone.begin(&follow);
    // Longer than somebody has patience who only asks.
    let (status, _, message) = scene.phone.fails(&["ls"]);
    assert_eq!(status, 3, "{message}");
    line("up");
    following.hear("\"seq\":1");
}

const RELAY: &str = "10.77.1.1";
const HOST: &str = "10.77.1.2";
const MOVED: &str = "10.77.1.3";
const RELAY_URL: &str = "http://10.77.1.1:7420";

/// A relay, a host and a device, each in a network of its own with a line to the relay.
struct Scene {
    host: Station,
    phone: Station,
    session: String,
    world: tempfile::TempDir,
    host_net: String,
    _relay: Ended,
    _networks: Vec<Network>,
}

impl Scene {
    /// Nothing where this machine does not let us.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("farhelm-{}-{number}-{what}", std::process::id());
        let networks: Vec<_> = ["relay", "host", "phone"]
            .iter()
            .map_while(|what| Network::make(name(what)))
            .collect();
        let [relay_net, host_net, phone_net] = networks.as_slice() else {
            eprintln!("skipped: this machine does not let us make network namespaces");
            return None;
        };
        line(
            relay_net,
            "to-host",
            &format!("{RELAY}/24"),
            host_net,
            &format!("{HOST}/24"),
        );
        line(
            relay_net,
            "to-phone",
            "10.77.2.1/24",
            phone_net,
            "10.77.2.2/24",
        );
        let via = ["route", "add", RELAY, "via", "10.77.2.1"];
        ip(&[&["-n", phone_net.name.as_str()][..], &via].concat());

        let world = tempfile::tempdir().unwrap();
        let relay = start_relay(relay_net, &world.path().join("relay"));
        let mut host = Station::new(&folder(world.path(), "desk"));
        host.live_in(&host_net.name);
        let mut phone = Station::new(&folder(world.path(), "phone"));
        phone.live_in(&phone_net.name);
        let dir = folder(world.path(), "project");
        let (session, _) = host.up(&dir, &["--agent", "scripted", "--relay", RELAY_URL]);
        host.pair(&phone, "phone");
        let scene = Self {
            host,
            phone,
            session,
            host_net: host_net.name.clone(),
            world,
            _relay: relay,
            _networks: networks,
        };
        wait_until("the device sees the host", || scene.host_is_online());
        Some(scene)
    }

    /// Takes the relay's end of the host's line away, or gives it back; the host's own end keeps
    /// its address, and no connection is told.
    fn host_line(&self, state: &str) {
        let relay_net = self.host_net.replace("-host", "-relay");
        ip(&["-n", &relay_net, "link", "set", "to-host", state]);
    }

    fn relay_of_host(&self) -> String {
        let status = self.host.json(&["status"]);
        status["relay"].as_str().unwrap().to_owned()
    }

    fn host_is_online(&self) -> bool {
        let asked = self.phone.run(&["status", "--json"]);
        let status: serde_json::Value =
            serde_json::from_str(asked.stdout.trim()).unwrap_or_default();
        status["host_online"] == true
    }

    /// Whether the host has a connection to the relay from this address.
    fn is_connected_from(&self, address: &str) -> bool {
        let listed = Command::new("ip")
            .args(["netns", "exec", &self.host_net, "cat", "/proc/net/tcp"])
            .output()
            .unwrap();
        let parts: Vec<u8> = address
            .split('.')
            .map(|part| part.parse().unwrap())
            .collect();
        let local = format!(
            "{:02X}{:02X}{:02X}{:02X}:",
            parts[3], parts[2], parts[1], parts[0]
        );
        String::from_utf8(listed.stdout)
            .unwrap()
            .lines()
            .any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.len() > 3 && fields[1].starts_with(&local) && fields[3] == "01"
            })
    }

    fn a_turn_works(&self) {
        self.phone.ok(&["send", &self.session, "hello"]);
        let question = self.phone.wait_for_question();
        self.phone
            .ok(&["approve", question["approval"].as_str().unwrap()]);
        self.host.wait_for_nth(&self.session, "approval_applied", 1);
    }
}

/// A network namespace; it ends with everything in it.
struct Network {
    name: String,
}

impl Network {
    fn make(name: String) -> Option<Self> {
        let made = Command::new("ip")
            .args(["netns", "add", &name])
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return None;
        }
        let network = Self { name };
        ip(&["-n", &network.name, "link", "set", "lo", "up"]);
        Some(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .status(),
        );
    }
}

/// Lays a line between two networks; the end at `there` is called `line`.
fn line(here: &Network, end: &str, address: &str, there: &Network, other: &str) {
    let (here, there) = (here.name.as_str(), there.name.as_str());
    ip(&[
        "-n", here, "link", "add", end, "type", "veth", "peer", "name", "line", "netns", there,
    ]);
    ip(&["-n", here, "addr", "add", address, "dev", end]);
    ip(&["-n", there, "addr", "add", other, "dev", "line"]);
    ip(&["-n", here, "link", "set", end, "up"]);
    ip(&["-n", there, "link", "set", "line", "up"]);
}

fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().unwrap();
    assert!(done.status.success(), "ip {args:?}: {done:?}");
}

fn start_relay(network: &Network, data: &PathBuf) -> Ended {
    let child = Command::new("ip")
        .args([
            "netns",
            "exec",
            &network.name,
            env!("CARGO_BIN_EXE_farhelm"),
        ])
        .args([
            "relay",
            "--listen",
            "0.0.0.0:7420",
            "--public-url",
            RELAY_URL,
            "--data",
        ])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut relay = Ended(child);
    let mut line = String::new();
    let stdout = relay.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    relay
}

/// A program that ends with its scene. `ip netns exec` becomes the program itself.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
