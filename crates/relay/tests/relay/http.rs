//! The HTTP side, with raw requests: names, origins, methods, headers, TLS.

use farhelm_proto::frame::Role;
use farhelm_relay::{Config, Relay};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::common::{authority, greet, key, start};

/// Every route that the relay tells apart, and two of the web app's.
const ROUTES: [&str; 7] = [
    "/",
    "/healthz",
    "/v1/link",
    "/v1/down",
    "/v1/up",
    "/assets/x.js",
    "/some/page",
];

#[test]
fn s01_every_route_has_a_row_here() {
    let source = include_str!("../../src/http.rs");
    let table = source.split_once("fn of(path: &str)").unwrap().1;
    let table = table.split_once("_ => ").unwrap().0;
    let routes: Vec<_> = table.split('"').skip(1).step_by(2).collect();
    assert!(
        routes.len() >= 4 && routes.iter().all(|route| ROUTES.contains(route)),
        "{routes:?}"
    );
}

#[tokio::test]
async fn s08_a_foreign_host_is_refused_on_every_route() {
    let relay = start();
    let port = relay.local_addr().port();
    for route in ROUTES {
        for host in [
            "evil.example",
            &format!("evil.example:{port}"),
            "localhost",
            "localhost:1",
            "",
            "a@localhost",
        ] {
            let answer = ask(
                &relay,
                &format!("GET {route} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            )
            .await;
            assert_eq!(status(&answer), 421, "{route} {host}");
        }
        let twice =
            format!("GET {route} HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n");
        assert_eq!(status(&ask(&relay, &twice).await), 421);
        let target =
            format!("GET http://evil.example{route} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
        assert_eq!(status(&ask(&relay, &target).await), 421);
        for host in ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"] {
            let answer = ask(
                &relay,
                &format!("GET {route} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"),
            )
            .await;
            assert_ne!(status(&answer), 421, "{route} {host}");
        }
    }
    assert_eq!(
        status(&ask(&relay, "GET / HTTP/1.1\r\nHost: tunnel.example\r\n\r\n").await),
        421
    );
    relay.allow_authority("https://tunnel.example").unwrap();
    assert_eq!(
        status(&ask(&relay, "GET / HTTP/1.1\r\nHost: tunnel.example\r\n\r\n").await),
        200
    );
}

#[tokio::test]
async fn s07_a_foreign_origin_is_refused_before_the_upgrade() {
    let relay = start();
    let ours = authority(&relay);
    let with_origin = |origin: &str| {
        format!(
            "GET /v1/link HTTP/1.1\r\nHost: {ours}\r\nOrigin: {origin}\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    for foreign in [
        "https://evil.example",
        "null",
        "http://localhost:1",
        "http://localhost",
        "file://",
    ] {
        assert_eq!(
            status(&ask(&relay, &with_origin(foreign)).await),
            403,
            "{foreign}"
        );
    }
    assert_eq!(
        status(&ask(&relay, &with_origin(&format!("http://{ours}"))).await),
        101
    );
    for route in ROUTES {
        let foreign =
            format!("GET {route} HTTP/1.1\r\nHost: {ours}\r\nOrigin: https://evil.example\r\n\r\n");
        assert_eq!(status(&ask(&relay, &foreign).await), 403, "{route}");
    }
}

#[tokio::test]
async fn s09_a_route_is_asked_in_its_own_manner_only() {
    let relay = start();
    let ours = authority(&relay);
    for route in ROUTES {
        for method in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW",
        ] {
            let may = match route {
                "/v1/up" => method == "POST",
                "/v1/down" => method == "GET",
                _ => matches!(method, "GET" | "HEAD"),
            };
            let answer = ask(
                &relay,
                &format!("{method} {route} HTTP/1.1\r\nHost: {ours}\r\n\r\n"),
            )
            .await;
            assert_eq!(status(&answer) != 405, may, "{method} {route}");
        }
    }
    let head = ask(
        &relay,
        &format!("HEAD /healthz HTTP/1.1\r\nHost: {ours}\r\n\r\n"),
    )
    .await;
    assert!(status(&head) == 200 && head.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let relay = start();
    let ours = authority(&relay);
    for route in ROUTES {
        for host in [ours.as_str(), "evil.example"] {
            let answer = ask(
                &relay,
                &format!("GET {route} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            )
            .await
            .to_lowercase();
            for expected in [
                "content-security-policy: default-src 'none'; script-src 'self';",
                "frame-ancestors 'none'; require-trusted-types-for 'script'",
                "x-content-type-options: nosniff",
                "referrer-policy: no-referrer",
                "cross-origin-opener-policy: same-origin",
                "cross-origin-resource-policy: same-origin",
                "x-frame-options: deny",
                "permissions-policy: camera=(self)",
            ] {
                assert!(answer.contains(expected), "{route}: {expected} in {answer}");
            }
            assert!(!answer.contains("access-control-allow"));
        }
    }
}

#[tokio::test]
async fn the_page_or_what_to_do_for_it_is_served() {
    let relay = start();
    let ours = authority(&relay);
    for route in ["/", "/hosts/peer_00"] {
        let answer = ask(
            &relay,
            &format!("GET {route} HTTP/1.1\r\nHost: {ours}\r\n\r\n"),
        )
        .await;
        assert_eq!(status(&answer), 200);
        assert!(
            answer.contains("cache-control: no-cache")
                && answer.to_lowercase().contains("<!doctype html>")
        );
    }
    assert_eq!(
        status(
            &ask(
                &relay,
                &format!("GET /missing.js HTTP/1.1\r\nHost: {ours}\r\n\r\n")
            )
            .await
        ),
        404
    );
    let link = ask(
        &relay,
        &format!("GET /v1/link HTTP/1.1\r\nHost: {ours}\r\n\r\n"),
    )
    .await;
    assert_eq!(status(&link), 426);
}

#[tokio::test]
async fn s12_a_request_head_has_a_limit() {
    let relay = start();
    let long = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nX: {}\r\n\r\n",
        authority(&relay),
        "x".repeat(20_000)
    );
    assert_eq!(status(&ask(&relay, &long).await), 431);
}

#[tokio::test]
async fn peers_connect_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let mut of_ca = CertificateParams::default();
    of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(of_ca, KeyPair::generate().unwrap()).unwrap();
    let own = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["relay.example".to_owned()])
        .unwrap()
        .signed_by(&own, &ca)
        .unwrap();
    let (cert_file, key_file) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, own.serialize_pem()).unwrap();
    let config = Config {
        cert: Some(cert_file),
        key: Some(key_file),
        hello_millis: 500,
        public_urls: vec!["https://relay.example".to_owned()],
        ..Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    assert!(relay.url().starts_with("https://"));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let connector = TlsConnector::from(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ));
    let stream = TcpStream::connect(relay.local_addr()).await.unwrap();
    let stream = connector
        .connect("relay.example".try_into().unwrap(), stream)
        .await
        .unwrap();
    let (socket, _) = tokio_tungstenite::client_async("wss://relay.example/v1/link", stream)
        .await
        .unwrap();
    let mut peer = greet(socket, key(1), Role::Host, 0, "relay.example")
        .await
        .unwrap();
    peer.settle().await;
    let mut log = crate::common::Log::new(1, 9);
    peer.write(&mut log, 100).await;

    // Somebody who does not speak TLS, and somebody who says nothing at all.
    assert!(
        !ask(&relay, "GET / HTTP/1.1\r\nHost: relay.example\r\n\r\n")
            .await
            .contains("200")
    );
    assert_eq!(ask(&relay, "").await, "");
    peer.settle().await;
}

/// Sends a raw request, and returns what comes until the end or a whole head and body.
async fn ask(relay: &Relay, request: &str) -> String {
    let mut stream = TcpStream::connect(relay.local_addr()).await.unwrap();
    let request = request.replacen(
        "\r\n\r\n",
        "\r\nConnection: close\r\n\r\n",
        usize::from(!request.contains("Upgrade")),
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&answer) {
        match tokio::time::timeout(crate::common::SOON, stream.read(&mut buffer))
            .await
            .unwrap()
        {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether head and body came; an upgrade has no body.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    status(head) == 101 || length.is_some_and(|length| length.parse() == Ok(body.len()))
}

fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}
