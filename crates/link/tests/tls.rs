//! TLS under an authority of our own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use farhelm_link::driver::{Link, LinkOptions, blames_clock};
use farhelm_proto::Code;
use farhelm_proto::frame::Role;
use farhelm_relay::{Config, Relay};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use support::{down, options, up};

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named() {
    let certificates = Certificates::make(&["localhost", "127.0.0.1"]);
    let relay = certificates.relay();
    let address = format!("https://localhost:{}", relay.local_addr().port());
    let (_link, mut events) = Link::start(with_ca(&address, Some(certificates.authority())));
    up(&mut events).await;
    relay.shutdown().await;
}

#[tokio::test]
async fn s14_an_authority_that_nobody_named_is_not_trusted() {
    let certificates = Certificates::make(&["localhost"]);
    let relay = certificates.relay();
    let address = format!("https://localhost:{}", relay.local_addr().port());
    let (_link, mut events) = Link::start(with_ca(&address, None));
    let (code, detail, _) = down(&mut events).await;
    assert_eq!(code, Code::Intercepted);
    assert!(detail.contains("trust"), "{detail}");
    relay.shutdown().await;
}

#[tokio::test]
async fn s14_a_certificate_for_another_name_is_refused() {
    let certificates = Certificates::make(&["relay.example"]);
    let relay = certificates.relay();
    let address = format!("https://localhost:{}", relay.local_addr().port());
    let (_link, mut events) = Link::start(with_ca(&address, Some(certificates.authority())));
    let (code, detail, _) = down(&mut events).await;
    assert_eq!(code, Code::Intercepted);
    assert_eq!(
        detail,
        "the certificate that localhost shows is for another name"
    );
    relay.shutdown().await;
}

#[tokio::test]
async fn a_relay_without_tls_is_not_taken_for_one_with_it() {
    let relay = support::relay();
    let address = format!("https://localhost:{}", relay.local_addr().port());
    let certificates = Certificates::make(&["localhost"]);
    let (_link, mut events) = Link::start(with_ca(&address, Some(certificates.authority())));
    let (code, detail, _) = down(&mut events).await;
    assert_eq!(code, Code::NotARelay);
    assert!(detail.contains("TLS"), "{detail}");
    relay.shutdown().await;
}

#[tokio::test]
async fn a_file_of_authorities_that_is_missing_or_empty_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let relay = support::relay();
    let address = format!("https://localhost:{}", relay.local_addr().port());
    for (file, expected) in [
        (folder.path().join("missing.pem"), "cannot be read"),
        (empty, "holds no certificate"),
    ] {
        let (_link, mut events) = Link::start(with_ca(&address, Some(file)));
        let (_, detail, _) = down(&mut events).await;
        assert!(
            detail.starts_with("the file of authorities ") && detail.contains(expected),
            "{detail}"
        );
    }
    relay.shutdown().await;
}

#[tokio::test]
async fn f10_a_certificate_whose_time_it_is_not_blames_the_clock() {
    const DAY: u64 = 24 * 3600;
    let today = farhelm_link::clock::now().0 / 1000;
    for (from, to, code, words) in [
        (
            today - 40 * DAY,
            today - 20 * DAY,
            Code::RelayUnreachable,
            "ended 20 days ago",
        ),
        (
            today + 10 * DAY + 60,
            today + 20 * DAY,
            Code::ClockSkew,
            "begins in 10 days",
        ),
    ] {
        let certificates = Certificates::between(&["localhost"], from, to);
        let relay = certificates.relay();
        let address = format!("https://localhost:{}", relay.local_addr().port());
        let (_link, mut events) = Link::start(with_ca(&address, Some(certificates.authority())));
        let (said, detail, _) = down(&mut events).await;
        assert_eq!(said, code, "{detail}");
        assert!(detail.contains(words) && blames_clock(&detail), "{detail}");
        relay.shutdown().await;
    }
}

struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make(names: &[&str]) -> Self {
        Self::between(names, 0, u64::from(u32::MAX))
    }

    /// Certificates that are good between two times, in seconds since 1970.
    fn between(names: &[&str], from: u64, to: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_file = authority.self_signed(&authority_key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority_file.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let issuer = Issuer::new(authority, authority_key);
        let mut certificate = CertificateParams::new(names).unwrap();
        let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        (certificate.not_before, certificate.not_after) = (at(from), at(to));
        let certificate = certificate.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self { folder }
    }

    fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn relay(&self) -> Relay {
        let (cert, key) = (
            self.folder.path().join("cert.pem"),
            self.folder.path().join("key.pem"),
        );
        Relay::start(Config {
            cert: Some(cert),
            key: Some(key),
            ..Config::in_memory()
        })
        .unwrap()
    }
}

fn with_ca(relay: &str, extra_ca: Option<PathBuf>) -> LinkOptions {
    LinkOptions {
        extra_ca,
        ..options(relay, Role::Host)
    }
}
