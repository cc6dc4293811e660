//! Pairing links that were used, cut off, changed or refused.

use std::path::PathBuf;

use farhelm_core::pairing::Link;
use farhelm_proto::limits::OPEN_OFFERS;
use serde_json::Value;

use crate::support::{Station, folder, free_port};

#[test]
fn s16_a_link_lets_in_one_device_only() {
    let scene = Scene::new();
    let link = scene.link();
    let mut first = scene.phone.join(&link, "phone");
    let code = first.code();
    let second = scene.station("second");
    second.refuses(
        &["join", &link, "--name", "second"],
        1,
        "link_used",
        &["already used", "`farhelm pair`"],
    );
    let waiting = scene.host.json(&["devices"])["waiting"].clone();
    assert_eq!(
        waiting.as_array().unwrap().len(),
        1,
        "the first still waits: {waiting}"
    );
    scene.host.ok(&["pair", "--accept", &code]);
    assert!(first.wait().success());
    second.refuses(
        &["join", &link, "--name", "second"],
        1,
        "link_used",
        &["already used", "`farhelm pair`"],
    );
    assert_eq!(scene.phone.json(&["ls"]).as_array().unwrap().len(), 1);
    assert_eq!(
        scene.host.json(&["devices"])["devices"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn a_link_that_is_cut_off_or_none_at_all_is_to_be_copied_whole() {
    let scene = Scene::new();
    let link = scene.link();
    for wrong in [
        &link[..link.len() - 1],
        &link[..link.len() / 2],
        "https://relay.example/",
        "nonsense",
        "",
    ] {
        scene.phone.refuses(
            &["join", wrong],
            1,
            "bad_link",
            &["cut off", "copy it whole"],
        );
    }
    let mistyped = if link.ends_with('A') { "B" } else { "A" };
    let mistyped = format!("{}{mistyped}", &link[..link.len() - 1]);
    scene
        .phone
        .refuses(&["join", &mistyped], 1, "bad_link", &["copy it whole"]);
    scene
        .phone
        .refuses(&["ls"], 3, "not_running", &["`farhelm join LINK`"]);
    scene.joins(&link);
}

#[test]
fn s16_a_link_with_another_secret_opens_nothing() {
    let scene = Scene::new();
    let link = scene.link();
    let mut forged = Link::parse(&link).unwrap();
    forged.secret[0] ^= 1;
    let output = scene.phone.run(&["join", &forged.to_url(), "--json"]);
    let error: Value = serde_json::from_str(&output.stdout).unwrap();
    // The relay knows a link by a hash of its secret: one that was never made is like one that is over.
    assert_eq!(error["error"]["code"], "link_expired", "{output:?}");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("`farhelm pair`"),
        "{output:?}"
    );
    assert_eq!(
        scene.host.json(&["devices"])["waiting"],
        serde_json::json!([])
    );
    scene.joins(&link);
}

#[test]
fn s16_a_link_that_names_another_host_is_not_answered_by_this_one() {
    let scene = Scene::new();
    let link = scene.link();
    let other = scene.station("other");
    let dir = folder(scene.world.path(), "theirs");
    let (_, theirs) = other.up(&dir, &["--agent", "scripted"]);
    let mut forged = Link::parse(&link).unwrap();
    forged.host = Link::parse(&theirs).unwrap().host;
    let (status, code, message) = scene.phone.fails(&["join", &forged.to_url()]);
    assert_eq!((status, code.as_str()), (1, "link_expired"), "{message}");
    assert_eq!(
        scene.host.json(&["devices"])["waiting"],
        serde_json::json!([])
    );
    scene.joins(&link);
}

#[test]
fn a_device_whose_code_was_refused_is_told_and_another_may_come() {
    let scene = Scene::new();
    let mut joining = scene.phone.join(&scene.link(), "phone");
    let code = joining.code();
    let settled = scene.host.json(&["pair", "--refuse", &code]);
    assert_eq!(
        (&settled["accepted"], &settled["name"]),
        (&Value::from(false), &Value::from("phone"))
    );
    let answer = joining.line();
    assert_eq!(answer["error"]["code"], "pairing_refused", "{answer}");
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("refused on the host"),
        "{answer}"
    );
    assert_eq!(joining.wait().code(), Some(4));
    assert_eq!(
        scene.host.json(&["devices"])["devices"],
        serde_json::json!([])
    );
    scene.host.refuses(
        &["pair", "--accept", &code],
        1,
        "not_found",
        &["no device that waits shows"],
    );
    scene.joins(&scene.link());
}

#[test]
fn a_code_that_nobody_shows_lets_nobody_in() {
    let scene = Scene::new();
    let mut joining = scene.phone.join(&scene.link(), "phone");
    let code = joining.code();
    let wrong = if code == "000 000" {
        "000 001"
    } else {
        "000 000"
    };
    scene.host.refuses(
        &["pair", "--accept", wrong],
        1,
        "not_found",
        &[wrong, "`farhelm devices`"],
    );
    assert_eq!(
        scene.host.json(&["devices"])["devices"],
        serde_json::json!([])
    );
    scene.host.ok(&["pair", "--accept", &code.replace(' ', "")]);
    assert!(joining.wait().success());
}

#[test]
fn s16_a_new_link_takes_the_place_of_the_oldest_that_nobody_has_used() {
    let scene = Scene::new();
    let mut waiting = scene.phone.join(&scene.link(), "phone");
    let code = waiting.code();
    let oldest = scene.link();
    // As many as may be open, with the one that is being used.
    let newer: Vec<String> = (1..OPEN_OFFERS).map(|_| scene.link()).collect();
    let late = scene.station("late");
    late.refuses(&["join", &oldest], 1, "link_used", &["`farhelm pair`"]);
    scene.host.ok(&["pair", "--accept", &code]);
    assert!(waiting.wait().success(), "the one in use is left alone");
    let mut joining = late.join(&newer[0], "late");
    let code = joining.code();
    scene.host.ok(&["pair", "--accept", &code]);
    assert!(joining.wait().success());
}

#[test]
fn a_link_whose_relay_is_not_there_says_where_it_looked() {
    let scene = Scene::new();
    let link = scene.link();
    let mut elsewhere = Link::parse(&link).unwrap();
    let port = free_port();
    elsewhere.relay = format!("http://127.0.0.1:{port}");
    scene.phone.refuses(
        &["join", &elsewhere.to_url()],
        3,
        "relay_unreachable",
        &[&format!("127.0.0.1 port {port}")],
    );
    scene.joins(&link);
}

struct Scene {
    host: Station,
    phone: Station,
    world: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let world = tempfile::tempdir().unwrap();
        let host = Station::new(world.path());
        let phone = Station::new(&folder(world.path(), "phone"));
        let dir: PathBuf = folder(world.path(), "project");
        host.up(&dir, &["--agent", "scripted"]);
        Self { host, phone, world }
    }

    fn station(&self, name: &str) -> Station {
        Station::new(&folder(self.world.path(), name))
    }

    fn link(&self) -> String {
        self.host.json(&["pair", "--no-wait"])["link"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A good link works from beginning to end.
    fn joins(&self, link: &str) {
        let mut joining = self.phone.join(link, "phone");
        let code = joining.code();
        self.host.ok(&["pair", "--accept", &code]);
        assert!(joining.wait().success());
        assert_eq!(self.phone.json(&["ls"]).as_array().unwrap().len(), 1);
    }
}
