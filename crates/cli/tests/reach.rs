//! Phones and other machines reach the host through https: by a tunnel program to the embedded
//! relay, or by a relay of one's own with certificates; a relay may go, come back, and lose all.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a story that cannot be told has failed"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farhelm_core::pairing::Link;
use farhelm_relay::{Config, Relay};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use support::{Station, Talk, folder, free_port, in_a_terminal, is_alive, wait_until};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

mod support;

#[test]
fn a_tunnel_gives_the_embedded_relay_an_https_address_and_a_device_steers_through_it() {
    let scene = Scene::new();
    let (port_file, public) = (scene.path("port"), free_port());
    let command = scene.tunnel(&port_file, public, "exec sleep 600");
    let (session, link) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--via-cmd", &command]);
    assert!(
        link.starts_with(&format!("https://localhost:{public}/#pair=")),
        "{link}"
    );
    assert_eq!(
        scene.host.json(&["status"])["url"],
        format!("https://localhost:{public}")
    );
    let inner = std::fs::read_to_string(&port_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    scene.pipe(public, inner);

    let stranger = scene.station("stranger");
    stranger.refuses(
        &["join", &link],
        3,
        "intercepted",
        &["the certificate of localhost", "FARHELM_CA_FILE"],
    );

    let phone = scene.device("phone");
    scene.host.pair(&phone, "phone");
    scene.steer(&phone, &session);
}

/// With the very block that docs/operating.md shows.
#[test]
fn nginx_in_front_of_a_relay_passes_a_turn_and_may_be_restarted() {
    let scene = Scene::new();
    let public = free_port();
    let Some(mut nginx) = scene.nginx(public, true) else {
        return;
    };
    let url = format!("https://localhost:{public}");
    let (session, link) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--relay", &url]);
    assert!(link.starts_with(&format!("{url}/#pair=")), "{link}");
    let phone = scene.device("phone");
    scene.host.pair(&phone, "phone");
    phone.ok(&["send", &session, "hello"]);
    let first = phone.wait_for_question();

    nginx.stop();
    wait_until("the host notices", || scene.status()["relay"] == "down");
    nginx.start();
    wait_until("the host comes back by itself", || {
        scene.status()["relay"] == "up"
    });
    phone.ok(&["approve", first["approval"].as_str().unwrap()]);
    scene.finish(&phone, &session);
}

/// Without the three lines that pass WebSockets on, as nginx does unless it is told.
#[test]
fn f14_nginx_that_passes_no_websocket_on_passes_a_turn_all_the_same() {
    let scene = Scene::new();
    let public = free_port();
    let Some(_nginx) = scene.nginx(public, false) else {
        return;
    };
    let url = format!("https://localhost:{public}");
    let (session, _) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--relay", &url]);
    let phone = scene.device("phone");
    scene.host.pair(&phone, "phone");
    assert_eq!(scene.status()["relay_way"], "http");
    scene.steer(&phone, &session);
}

#[test]
fn through_a_tunnel_no_warning_is_given_and_without_one_it_is() {
    let scene = Scene::new();
    let dir = scene.dir.to_str().unwrap();
    let warning = "works on this machine only";
    let said = scene
        .host
        .ok(&["up", "--dir", dir, "--agent", "scripted", "--headless"]);
    assert!(
        said.contains(warning)
            && said.contains("--via tailscale")
            && said.contains("--relay https://"),
        "{said}"
    );
    let command = "sh -c 'echo ready: https://some-words.tunnel.example/; exec sleep 600'";
    let said = scene.host.ok(&[
        "up",
        "--dir",
        dir,
        "--agent",
        "scripted",
        "--headless",
        "--via-cmd",
        command,
    ]);
    assert!(
        said.contains("https://some-words.tunnel.example/#pair=") && !said.contains(warning),
        "{said}"
    );
    let made = scene.host.json(&["pair"]);
    assert_eq!(made["link_works_on_phones"], true, "{made}");
}

#[test]
fn a_tunnel_that_is_open_is_used_again_and_one_that_ended_is_opened_again() {
    let scene = Scene::new();
    let pid_file = scene.path("pid");
    let line = "echo https://tunnel.example; exec sleep 600";
    let command = format!("sh -c 'echo $$ >> {}; {line}'", pid_file.display());
    let up = || {
        scene
            .host
            .up(&scene.dir, &["--agent", "scripted", "--via-cmd", &command])
            .1
    };
    let pids = || -> Vec<u32> {
        std::fs::read_to_string(&pid_file)
            .unwrap()
            .lines()
            .map(|line| line.parse().unwrap())
            .collect()
    };
    assert!(up().starts_with("https://tunnel.example/"));
    assert!(up().starts_with("https://tunnel.example/"));
    assert_eq!(pids().len(), 1, "one program is enough");
    kill(pids()[0]);
    wait_until("the end of the tunnel is noticed", || {
        scene.host.json(&["status"])["url"]
            .as_str()
            .unwrap()
            .starts_with("http://localhost:")
    });
    assert!(up().starts_with("https://tunnel.example/"));
    let second = pids()[1];
    assert!(is_alive(second));
    scene.host.ok(&["down"]);
    assert!(!is_alive(second), "the tunnel ends with the daemon");
}

#[test]
fn a_tunnel_that_gives_no_address_is_a_clear_error_and_the_host_goes_on() {
    let scene = Scene::new();
    let dir = scene.dir.to_str().unwrap();
    let up = |via: &[&str], words: &[&str]| {
        let args = [
            &["up", "--dir", dir, "--agent", "scripted", "--headless"],
            via,
        ]
        .concat();
        scene.host.refuses(&args, 1, "tunnel_failed", words);
    };
    up(
        &["--via-cmd", "no-such-tunnel {port}"],
        &["no-such-tunnel", "is it installed?"],
    );
    up(
        &[
            "--via-cmd",
            "sh -c 'echo you must log in first >&2; exit 1'",
        ],
        &["ended without", "you must log in first"],
    );
    up(&["--via-cmd", ""], &["the command is empty"]);
    up(&["--via-cmd", "it's"], &["a quotation mark is not closed"]);
    up(
        &["--via", "nonsense"],
        &["\"nonsense\"", "tailscale and cloudflared", "--via-cmd"],
    );
    scene.host.still_works(&scene.dir);
    assert_eq!(
        scene.host.json(&["ls"]).as_array().unwrap().len(),
        1,
        "no session was begun without its tunnel"
    );
}

#[test]
fn a_tunnel_is_refused_beside_a_relay_of_ones_own() {
    let scene = Scene::new();
    let relay = scene.relay(free_port(), &scene.path("relay"));
    scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--relay", &relay.url]);
    let args = [
        "up",
        "--dir",
        scene.dir.to_str().unwrap(),
        "--agent",
        "scripted",
        "--headless",
        "--via-cmd",
        "true",
    ];
    scene.host.refuses(
        &args,
        1,
        "tunnel_failed",
        &["for the embedded relay", &relay.url],
    );
    scene.host.still_works(&scene.dir);
}

#[test]
fn a_relay_of_ones_own_with_certificates_carries_a_whole_turn() {
    let scene = Scene::new();
    let relay = scene.relay(free_port(), &scene.path("relay"));
    let (session, link) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--relay", &relay.url]);
    assert!(link.starts_with(&relay.url), "{link}");
    assert_eq!(Link::parse(&link).unwrap().relay, relay.url);
    let phone = scene.device("phone");
    scene.host.pair(&phone, "phone");
    scene.steer(&phone, &session);
}

#[test]
fn a_turn_goes_on_when_its_relay_is_stopped_and_started_again() {
    let scene = Scene::new();
    scene.interrupt(&scene.path("relay"), &scene.path("relay"));
}

#[test]
fn f05_a_relay_that_has_lost_everything_is_given_it_again_and_no_device_has_to_be_paired_anew() {
    let scene = Scene::new();
    scene.interrupt(&scene.path("relay"), &scene.path("empty"));
}

#[test]
fn f05_a_command_that_waited_at_a_relay_which_then_lost_everything_arrives_once() {
    let scene = Scene::new();
    let relay = scene.relay(free_port(), &scene.path("relay"));
    let (session, _) = scene
        .host
        .up(&scene.dir, &["--agent", "scripted", "--relay", &relay.url]);
    let phone = scene.device("phone");
    scene.host.pair(&phone, "phone");
    phone.ok(&["ls"]);
    scene.host.ok(&["down"]);
    let mut sending = Talk::start(in_a_terminal(&phone.command(&[
        "send",
        &session,
        "hello from afar",
    ])));
    sending.hear("at the relay");
    let (port, url) = (relay.port, relay.url.clone());
    scene.runtime.block_on(relay.relay.shutdown());
    let _again = scene.relay(port, &scene.path("empty"));
    scene.host.up(
        &folder(scene.world.path(), "other"),
        &["--agent", "scripted", "--relay", &url],
    );
    sending.hear("sent");
    assert!(sending.end().success());
    scene.host.wait_for_nth(&session, "approval_requested", 1);
    let log = scene.host.log_of(&session);
    let prompts = log
        .iter()
        .filter(|record| record["event"]["type"] == "prompt_queued")
        .count();
    assert_eq!(prompts, 1);
}

/// A host, certificates that its environment trusts, and servers within this process.
struct Scene {
    host: Station,
    dir: PathBuf,
    runtime: Runtime,
    world: tempfile::TempDir,
}

/// A relay with certificates.
struct OwnRelay {
    relay: Relay,
    url: String,
    port: u16,
}

impl Scene {
    fn new() -> Self {
        let world = tempfile::tempdir().unwrap();
        make_certificates(world.path());
        let mut host = Station::new(world.path());
        host.set(
            "FARHELM_CA_FILE",
            world.path().join("ca.pem").to_str().unwrap(),
        );
        let dir = folder(world.path(), "project");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self {
            host,
            dir,
            runtime,
            world,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path().join(name)
    }

    fn station(&self, name: &str) -> Station {
        Station::new(&folder(self.world.path(), name))
    }

    /// A machine that trusts the authority.
    fn device(&self, name: &str) -> Station {
        let mut device = self.station(name);
        device.set("FARHELM_CA_FILE", self.path("ca.pem").to_str().unwrap());
        device
    }

    /// A command that notes the relay's port and says the tunnel's address.
    fn tunnel(&self, port_file: &Path, public: u16, then: &str) -> String {
        format!(
            "sh -c 'echo {{port}} > {}; echo https://localhost:{public}; {then}'",
            port_file.display()
        )
    }

    /// Ends TLS at `public` and passes the bytes on to `inner`: all that a tunnel does.
    fn pipe(&self, public: u16, inner: u16) {
        let acceptor = acceptor(self.world.path());
        let listener = self
            .runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, public)))
            .unwrap();
        self.runtime.spawn(async move {
            while let Ok((outer, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut outer) = acceptor.accept(outer).await else {
                        return;
                    };
                    let Ok(mut inner) = TcpStream::connect((Ipv4Addr::LOCALHOST, inner)).await
                    else {
                        return;
                    };
                    drop(tokio::io::copy_bidirectional(&mut outer, &mut inner).await);
                });
            }
        });
    }

    fn relay(&self, port: u16, data: &Path) -> OwnRelay {
        let _guard = self.runtime.enter();
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let listen = (Ipv4Addr::LOCALHOST, port).into();
        let config = Config {
            listen,
            cert: Some(cert),
            key: Some(key),
            ..Config::in_folder(data)
        };
        OwnRelay {
            relay: Relay::start(config).unwrap(),
            url: format!("https://localhost:{port}"),
            port,
        }
    }

    /// A relay on loopback, and nginx in front of it at `public`; nothing where nginx is not installed.
    fn nginx(&self, public: u16, websockets: bool) -> Option<Nginx> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from);
        let Some(program) = program.into_iter().find(|path| path.exists()) else {
            eprintln!("skipped: nginx is not installed");
            return None;
        };
        let relay = self.behind(public);
        self.configure_nginx(public, relay.local_addr(), websockets);
        let mut nginx = Nginx {
            program,
            folder: self.world.path().to_owned(),
            public,
            child: None,
            _relay: relay,
        };
        nginx.start();
        Some(nginx)
    }

    /// A relay on loopback that is called by another address.
    fn behind(&self, public: u16) -> Relay {
        let config = Config {
            public_urls: vec![format!("https://localhost:{public}")],
            ..Config::in_memory()
        };
        let _guard = self.runtime.enter();
        Relay::start(config).unwrap()
    }

    /// Writes nginx's configuration: the page's block, with this machine's names in it, and with
    /// what it needs for WebSockets or without.
    fn configure_nginx(&self, public: u16, relay: SocketAddr, websockets: bool) {
        let operating = include_str!("../../../docs/operating.md");
        let (_, block) = operating.split_once("```nginx\n").unwrap();
        let (block, _) = block.split_once("```").unwrap();
        let changes = [
            ("listen 443", format!("listen 127.0.0.1:{public}")),
            ("relay.example", "localhost".to_owned()),
            (
                "# ssl_certificate, ssl_certificate_key …",
                "ssl_certificate cert.pem; ssl_certificate_key key.pem;".to_owned(),
            ),
            ("127.0.0.1:7420", relay.to_string()),
        ];
        let block = changes.iter().fold(block.to_owned(), |block, (old, new)| {
            assert!(block.contains(old), "docs/operating.md says {old}");
            block.replace(old, new)
        });
        let of_websockets = ["proxy_http_version", "Upgrade", "\"upgrade\""];
        let block: String = block
            .lines()
            .filter(|line| websockets || !of_websockets.iter().any(|word| line.contains(word)))
            .flat_map(|line| [line, "\n"])
            .collect();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log nginx.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{block}}}\n"
        );
        std::fs::write(self.path("nginx.conf"), config).unwrap();
    }

    /// The main job from the device.
    fn steer(&self, device: &Station, session: &str) {
        device.ok(&["send", session, "hello"]);
        let first = device.wait_for_question();
        device.ok(&["approve", first["approval"].as_str().unwrap()]);
        self.finish(device, session);
    }

    /// The second question of the turn is denied, and both sides have the same log.
    fn finish(&self, device: &Station, session: &str) {
        self.host.wait_for_nth(session, "approval_requested", 2);
        let second = device.wait_for_question();
        device.ok(&[
            "deny",
            second["approval"].as_str().unwrap(),
            "--reason",
            "not from here",
        ]);
        self.host.wait_for_nth(session, "turn_ended", 1);
        assert!(self.dir.join("farhelm-hello.txt").exists());
        let log = self.host.log_of(session);
        wait_until("both sides see the same log", || {
            device.log_of(session) == log
        });
        let seqs: Vec<_> = log
            .iter()
            .map(|record| record["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(
            seqs,
            (1..=log.len() as u64).collect::<Vec<_>>(),
            "nothing is lost or doubled"
        );
        for kind in ["approval_requested", "approval_decided", "approval_applied"] {
            assert_eq!(
                log.iter()
                    .filter(|record| record["event"]["type"] == kind)
                    .count(),
                2,
                "{kind}"
            );
        }
    }

    /// The relay goes in the middle of a turn, and another one comes in its place.
    fn interrupt(&self, before: &Path, after: &Path) {
        let relay = self.relay(free_port(), before);
        let (session, _) = self
            .host
            .up(&self.dir, &["--agent", "scripted", "--relay", &relay.url]);
        let phone = self.device("phone");
        self.host.pair(&phone, "phone");
        phone.ok(&["send", &session, "hello"]);
        let first = phone.wait_for_question();
        let port = relay.port;
        self.runtime.block_on(relay.relay.shutdown());
        wait_until("the host notices", || self.status()["relay"] == "down");

        // What happens meanwhile reaches the device later.
        self.host
            .ok(&["approve", first["approval"].as_str().unwrap()]);
        self.host.wait_for_nth(&session, "approval_requested", 2);
        let again = self.relay(port, after);
        wait_until("the host comes back by itself", || {
            self.status()["relay"] == "up"
        });
        self.finish(&phone, &session);
        assert_eq!(self.status()["devices"], 1);
        drop(again);
    }

    fn status(&self) -> Value {
        self.host.json(&["status"])
    }
}

/// A reverse proxy, and the relay behind it.
struct Nginx {
    program: PathBuf,
    folder: PathBuf,
    public: u16,
    child: Option<std::process::Child>,
    _relay: Relay,
}

impl Nginx {
    fn start(&mut self) {
        let mut command = std::process::Command::new(&self.program);
        let folder = self.folder.to_str().unwrap();
        command.args(["-p", folder, "-c", "nginx.conf", "-e", "nginx.log"]);
        self.child = Some(command.spawn().unwrap());
        wait_until("nginx listens", || {
            std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.public)).is_ok()
        });
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// An authority of ours, and a certificate of it for localhost.
fn make_certificates(into: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_file = authority.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let leaf = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    std::fs::write(into.join("ca.pem"), authority_file.pem()).unwrap();
    std::fs::write(into.join("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(into.join("key.pem"), key.serialize_pem()).unwrap();
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let chain: Vec<_> = CertificateDer::pem_file_iter(folder.join("cert.pem"))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    TlsAcceptor::from(Arc::new(
        config
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap(),
    ))
}
