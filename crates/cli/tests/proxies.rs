//! Networks that lead out through a proxy only: with and without a login, with exceptions, with
//! one that lets no WebSocket through; for the daemon and for a device.

#![expect(clippy::unwrap_used, reason = "a story that cannot be told has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farhelm_relay::{Config, Relay};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::{Station, folder, wait_until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

mod support;

/// A name that no name server knows: whoever gets there went through the proxy.
const URL: &str = "https://relay.invalid";
const PLAIN_URL: &str = "http://relay.invalid";

#[test]
fn a_turn_goes_through_a_proxy_by_the_certificates_of_the_system() {
    let scene = Scene::new(true, None, false);
    let (mut host, mut phone) = (scene.station("desk"), scene.station("phone"));
    for station in [&mut host, &mut phone] {
        station.set("HTTPS_PROXY", scene.proxy_url(None));
        // What the system's store is on Linux, for a test that cannot add to the real one.
        station.set("SSL_CERT_FILE", scene.ca());
    }
    scene.a_turn_works(&host, &phone, URL);
    assert!(scene.passed.load(Ordering::Relaxed) >= 3);
}

#[test]
fn a_proxy_that_wants_a_login_gets_it_and_one_that_is_not_given_it_is_named() {
    let scene = Scene::new(true, Some("Basic bWU6c2VjcmV0"), false);
    let (mut host, mut phone) = (scene.station("desk"), scene.station("phone"));
    for station in [&mut host, &mut phone] {
        station.set("https_proxy", scene.proxy_url(Some("me:secret")));
        station.set("FARHELM_CA_FILE", scene.ca());
    }
    scene.a_turn_works(&host, &phone, URL);

    let mut stranger = scene.station("stranger");
    stranger.set("FARHELM_CA_FILE", scene.ca());
    for login in [None, Some("me:wrong")] {
        stranger.set("HTTPS_PROXY", scene.proxy_url(login));
        let link = host.json(&["pair", "--no-wait"])["link"]
            .as_str()
            .unwrap()
            .to_owned();
        stranger.refuses(
            &["join", &link],
            3,
            "relay_unreachable",
            &["the proxy wants a name and a password"],
        );
    }
}

#[test]
fn a_turn_goes_through_a_proxy_that_is_itself_spoken_to_by_https_with_a_login() {
    for url in [URL, PLAIN_URL] {
        let tls = url == URL;
        let scene = Scene::behind(
            Outlet {
                login: Some("Basic bWU6c2VjcmV0"),
                tls: true,
                ..Outlet::default()
            },
            tls,
        );
        let (mut host, mut phone) = (scene.station("desk"), scene.station("phone"));
        for station in [&mut host, &mut phone] {
            let name = if tls { "HTTPS_PROXY" } else { "HTTP_PROXY" };
            station.set(name, scene.proxy_url(Some("me:secret")));
            station.set("FARHELM_CA_FILE", scene.ca());
        }
        scene.a_turn_works(&host, &phone, url);
        assert!(scene.passed.load(Ordering::Relaxed) >= 3);
        let looked = host.run(&["doctor"]).stdout;
        assert!(
            looked.contains("by the proxy") && !looked.contains("secret"),
            "{looked}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_proxy_that_is_spoken_to_by_https_is_named() {
    let of = |tls| {
        Scene::behind(
            Outlet {
                login: Some("Basic bWU6c2VjcmV0"),
                tls,
                ..Outlet::default()
            },
            true,
        )
    };
    let (scene, plain) = (of(true), of(false));
    let mut host = scene.station("desk");
    host.set("HTTPS_PROXY", scene.proxy_url(Some("me:secret")));
    host.set("FARHELM_CA_FILE", scene.ca());
    host.up(&scene.dir, &["--agent", "scripted", "--relay", URL]);
    let plain_by_https = plain
        .proxy_url(Some("me:secret"))
        .replace("http:", "https:");
    let right = scene.proxy_url(Some("me:secret"));
    let cases = [
        (
            scene.proxy_url(None),
            true,
            "relay_unreachable",
            "wants a name and a password",
        ),
        (
            scene.proxy_url(Some("me:wrong")),
            true,
            "relay_unreachable",
            "wants a name and a password",
        ),
        (
            right,
            false,
            "intercepted",
            "the certificate of 127.0.0.1 was signed by nobody",
        ),
        (
            plain_by_https,
            true,
            "not_a_relay",
            "127.0.0.1 does not speak TLS",
        ),
    ];
    // Each has patience of its own, so all at once.
    std::thread::scope(|scope| {
        for (number, (proxy, ca, code, words)) in cases.into_iter().enumerate() {
            let mut stranger = scene.station(&format!("stranger{number}"));
            stranger.set("HTTPS_PROXY", proxy);
            if ca {
                stranger.set("FARHELM_CA_FILE", scene.ca());
            }
            let made = host.json(&["pair", "--no-wait"]);
            scope.spawn(move || {
                let join = ["join", made["link"].as_str().unwrap()];
                stranger.refuses(&join, 3, code, &["the proxy", words]);
            });
        }
    });
    // Nobody's login was said to who showed no good certificate.
    assert_eq!(plain.read_along.load(Ordering::Relaxed), 0);
}

#[test]
fn what_no_proxy_excepts_is_dialled_straight() {
    let scene = Scene::new(true, None, false);
    let mut host = scene.station("desk");
    host.set("HTTPS_PROXY", scene.proxy_url(None));
    host.set("NO_PROXY", "example.com,relay.invalid");
    host.up(&scene.dir, &["--agent", "scripted", "--relay", URL]);
    wait_until("the name is looked up, which nobody knows", || {
        host.json(&["status"])["relay_error"]
            .as_str()
            .is_some_and(|trouble| trouble.contains("relay.invalid cannot be looked up"))
    });
    assert_eq!(scene.passed.load(Ordering::Relaxed), 0);
}

#[test]
fn f14_a_turn_goes_through_a_proxy_that_lets_no_websocket_through() {
    let scene = Scene::new(false, None, true);
    let (mut host, mut phone) = (scene.station("desk"), scene.station("phone"));
    for station in [&mut host, &mut phone] {
        station.set("HTTP_PROXY", scene.proxy_url(None));
    }
    scene.a_turn_works(&host, &phone, PLAIN_URL);
    let status = host.json(&["status"]);
    assert_eq!(status["relay_way"], "http", "{status}");
    let said = host.ok(&["status"]);
    assert!(said.contains("by plain HTTP"), "{said}");
}

#[test]
fn f14_a_proxy_that_reads_along_is_named_and_told_nothing() {
    let scene = Scene::new(true, None, false);
    let (mut host, mut phone) = (scene.station("desk"), scene.station("phone"));
    // Nobody said that this authority is to be trusted.
    host.set("HTTPS_PROXY", scene.proxy_url(None));
    phone.set("HTTPS_PROXY", scene.proxy_url(None));
    let (_, link) = host.up(&scene.dir, &["--agent", "scripted", "--relay", URL]);
    wait_until("the host says what is wrong", || {
        host.json(&["status"])["relay_error"]
            .as_str()
            .is_some_and(|trouble| {
                trouble.contains("intercepted") && trouble.contains("FARHELM_CA_FILE")
            })
    });
    let log = host.log();
    assert!(
        log.contains("no connection to the relay code=intercepted"),
        "{log}"
    );
    phone.refuses(&["join", &link], 3, "intercepted", &["signed by nobody"]);
}

/// What a proxy is like.
#[derive(Clone, Copy, Default)]
struct Outlet {
    /// The login that it wants.
    login: Option<&'static str>,
    /// Whether it lets no WebSocket through.
    spoils: bool,
    /// Whether it is spoken to by https.
    tls: bool,
}

/// A relay that is reached through a proxy only.
struct Scene {
    world: tempfile::TempDir,
    dir: std::path::PathBuf,
    proxy: SocketAddr,
    /// Tunnels that were opened.
    passed: Arc<AtomicUsize>,
    /// Tunnels that were asked for in the clear.
    read_along: Arc<AtomicUsize>,
    https: bool,
    _relay: Relay,
    _runtime: Runtime,
}

impl Scene {
    fn new(tls: bool, login: Option<&'static str>, spoils: bool) -> Self {
        let outlet = Outlet {
            login,
            spoils,
            ..Outlet::default()
        };
        Self::behind(outlet, tls)
    }

    /// A relay, with TLS or without, behind a proxy.
    fn behind(outlet: Outlet, tls: bool) -> Self {
        let world = tempfile::tempdir().unwrap();
        make_certificates(world.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let relay = Relay::start(Config {
            cert: tls.then(|| world.path().join("cert.pem")),
            key: tls.then(|| world.path().join("key.pem")),
            public_urls: vec![URL.to_owned(), PLAIN_URL.to_owned()],
            ..Config::in_memory()
        })
        .unwrap();
        drop(guard);
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .unwrap();
        let proxy = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        let read_along = Arc::new(AtomicUsize::new(0));
        let to = relay.local_addr();
        let (count, clear) = (Arc::clone(&passed), Arc::clone(&read_along));
        let acceptor = outlet.tls.then(|| acceptor(world.path()));
        runtime.spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (count, clear) = (Arc::clone(&count), Arc::clone(&clear));
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        let mut first = [0; 1];
                        let spoken = near.peek(&mut first).await;
                        if spoken.is_ok() && first == *b"C" {
                            clear.fetch_add(1, Ordering::Relaxed);
                            drop(tunnel(near, to, outlet, &count).await);
                        } else {
                            let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n";
                            drop(near.write_all(refusal).await);
                        }
                        return;
                    };
                    if let Ok(near) = acceptor.accept(near).await {
                        drop(tunnel(near, to, outlet, &count).await);
                    }
                });
            }
        });
        let dir = folder(world.path(), "project");
        Self {
            world,
            dir,
            proxy,
            passed,
            read_along,
            https: outlet.tls,
            _relay: relay,
            _runtime: runtime,
        }
    }

    fn station(&self, name: &str) -> Station {
        Station::new(&folder(self.world.path(), name))
    }

    fn ca(&self) -> String {
        self.world.path().join("ca.pem").display().to_string()
    }

    fn proxy_url(&self, login: Option<&str>) -> String {
        let login = login.map(|login| format!("{login}@")).unwrap_or_default();
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{login}{}", self.proxy)
    }

    fn a_turn_works(&self, host: &Station, phone: &Station, url: &str) {
        let (session, _) = host.up(&self.dir, &["--agent", "scripted", "--relay", url]);
        host.pair(phone, "phone");
        phone.ok(&["send", &session, "hello"]);
        let question = phone.wait_for_question();
        phone.ok(&["approve", question["approval"].as_str().unwrap()]);
        host.wait_for_nth(&session, "approval_applied", 1);
    }
}

/// One connection through the proxy: `CONNECT`, and then bytes.
async fn tunnel(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    to: SocketAddr,
    Outlet { login, spoils, .. }: Outlet,
    count: &AtomicUsize,
) -> std::io::Result<()> {
    let asked = read_head(&mut near).await?;
    let known = login.is_none_or(|login| {
        asked
            .lines()
            .any(|line| line.eq_ignore_ascii_case(&format!("Proxy-Authorization: {login}")))
    });
    if !asked.starts_with("CONNECT relay.invalid:") || !known {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                       Proxy-Authenticate: Basic realm=\"out\"\r\nContent-Length: 0\r\n\r\n";
        near.write_all(refusal.as_bytes()).await?;
        return near.shutdown().await;
    }
    count.fetch_add(1, Ordering::Relaxed);
    let mut far = TcpStream::connect(to).await?;
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    if spoils {
        let head = read_head(&mut near).await?;
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            near.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                .await?;
            return near.shutdown().await;
        }
        far.write_all(head.as_bytes()).await?;
    }
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn make_certificates(folder: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            certificate.signed_by(&key, &issuer).unwrap().pem(),
            key.serialize_pem(),
        )
    };
    let (relay, proxy) = (issue("relay.invalid"), issue("127.0.0.1"));
    for (name, text) in [
        ("ca.pem", ca.pem()),
        ("cert.pem", relay.0),
        ("key.pem", relay.1),
        ("proxy.pem", proxy.0),
        ("proxy-key.pem", proxy.1),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// TLS as the proxy speaks it.
fn acceptor(folder: &Path) -> TlsAcceptor {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let chain = CertificateDer::pem_slice_iter(&read("proxy.pem"))
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("proxy-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
