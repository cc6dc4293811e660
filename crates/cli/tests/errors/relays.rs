//! Relays that are not there, are something else, or speak another version.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use farhelm_proto::Code;
use farhelm_proto::frame::{Bye, Frame};
use farhelm_relay::{Config, Relay};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Station, folder, free_port, wait_until};

#[test]
fn a_host_works_without_its_relay_and_connects_by_itself_when_that_appears() {
    let scene = Scene::new();
    let port = free_port();
    let relay = format!("http://127.0.0.1:{port}");
    let (session, _) = scene.host.up(
        &scene.dir,
        &[
            "--agent", "scripted", "--relay", &relay, "--prompt", "hello",
        ],
    );
    let question = scene.host.wait_for_question();
    let trouble = scene.trouble();
    assert!(
        trouble.contains("relay_unreachable")
            && trouble.contains(&format!("127.0.0.1 port {port}: nothing listens there")),
        "{trouble}"
    );
    let shown = scene.host.ok(&["status"]);
    assert!(
        shown.contains("relay     down at ") && shown.contains(&relay),
        "{shown}"
    );
    scene
        .host
        .ok(&["approve", question["approval"].as_str().unwrap()]);
    scene.host.wait_for_nth(&session, "approval_applied", 1);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let _relay = Relay::start(Config {
        listen: ([127, 0, 0, 1], port).into(),
        ..Config::in_memory()
    })
    .unwrap();
    wait_until("the host connects", || scene.status()["relay"] == "up");
    assert_eq!(scene.status()["relay_error"], Value::Null);
    let phone = Station::new(&folder(scene.world.path(), "phone"));
    scene.host.pair(&phone, "phone");
    wait_until("the device sees the same", || {
        phone.log_of(&session) == scene.host.log_of(&session)
    });
}

#[test]
fn a_relay_of_another_version_is_told_from_one_that_is_not_there() {
    let scene = Scene::new();
    let (port, _server) = websocket_that_answers(&Frame::Bye(Bye {
        code: Code::UnsupportedVersion,
        detail: Some("this relay speaks 7 to 9".to_owned()),
        retry_millis: None,
    }));
    let relay = format!("http://127.0.0.1:{port}");
    let (_, link) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--relay", &relay]);
    let trouble = scene.trouble();
    assert!(
        trouble.contains("unsupported_version") && trouble.contains("update the older one"),
        "{trouble}"
    );
    assert!(trouble.contains("this relay speaks 7 to 9"), "{trouble}");
    let phone = Station::new(&folder(scene.world.path(), "phone"));
    phone.refuses(
        &["join", &link],
        1,
        "unsupported_version",
        &["update the older one"],
    );
    scene.host.still_works(&scene.dir);
}

#[test]
fn a_web_page_in_the_place_of_a_relay_is_called_one() {
    let scene = Scene::new();
    let port = web_page();
    let relay = format!("http://127.0.0.1:{port}");
    let (_, link) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--relay", &relay]);
    let trouble = scene.trouble();
    assert!(
        trouble.contains("captive_portal") && trouble.contains("a web page answered"),
        "{trouble}"
    );
    let phone = Station::new(&folder(scene.world.path(), "phone"));
    phone.refuses(&["join", &link], 3, "captive_portal", &["sign in first"]);
    scene.host.still_works(&scene.dir);
}

#[test]
fn what_is_no_address_of_a_relay_is_refused_at_once() {
    let scene = Scene::new();
    let dir = scene.dir.to_str().unwrap();
    for wrong in [
        "relay.example",
        "ftp://relay.example",
        "https://relay.example/path",
        "https://",
    ] {
        let args = [
            "up",
            "--dir",
            dir,
            "--agent",
            "scripted",
            "--headless",
            "--relay",
            wrong,
        ];
        scene.host.refuses(
            &args,
            3,
            "relay_unreachable",
            &[wrong.trim_end_matches('/'), "https://relay.example"],
        );
    }
    scene.host.still_works(&scene.dir);
}

#[test]
fn another_relay_than_the_running_daemon_uses_is_not_taken_in_silence() {
    let scene = Scene::new();
    scene.host.up(&scene.dir, &["--agent", "scripted"]);
    let dir = scene.dir.to_str().unwrap();
    let args = [
        "up",
        "--dir",
        dir,
        "--agent",
        "scripted",
        "--headless",
        "--relay",
        "https://relay.example",
    ];
    scene.host.refuses(
        &args,
        1,
        "already_running",
        &["http://localhost:", "`farhelm down` first"],
    );
    scene.host.still_works(&scene.dir);
}

#[test]
fn a_device_whose_relay_is_gone_keeps_what_it_was_told_to_do() {
    let scene = Scene::new();
    let (session, _) = scene.host.up(&scene.dir, &["--agent", "scripted"]);
    let phone = Station::new(&folder(scene.world.path(), "phone"));
    scene.host.pair(&phone, "phone");
    phone.ok(&["ls"]);
    scene.host.ok(&["down"]);
    phone.refuses(&["ls"], 3, "relay_unreachable", &["localhost"]);
    scene.host.up(
        &folder(scene.world.path(), "other"),
        &["--agent", "scripted"],
    );
    phone.ok(&["send", &session, "hello"]);
    scene.host.wait_for_nth(&session, "approval_requested", 1);
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
        let dir = folder(world.path(), "project");
        Self { host, dir, world }
    }

    fn status(&self) -> Value {
        self.host.json(&["status"])
    }

    /// Waits until the host says why it has no relay.
    fn trouble(&self) -> String {
        wait_until("the relay is said to be down", || {
            self.status()["relay"] == "down"
        });
        self.status()["relay_error"].as_str().unwrap().to_owned()
    }
}

/// A server that answers the first frame of each connection with this one.
fn websocket_that_answers(frame: &Frame) -> (u16, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = frame.to_bytes();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
                continue;
            };
            drop(socket.next().await);
            drop(socket.send(Message::Binary(answer.clone())).await);
        }
    });
    (port, runtime)
}

/// A web server that knows nothing but a page, for as long as the test runs.
pub(crate) fn web_page() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = |mut stream: TcpStream| {
        let mut request = [0; 4096];
        let read = stream.read(&mut request).unwrap_or_default();
        let page = "<html>Please sign in</html>";
        let answer =
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length:";
        if read > 0 {
            drop(stream.write_all(format!("{answer} {}\r\n\r\n{page}", page.len()).as_bytes()));
        }
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}
