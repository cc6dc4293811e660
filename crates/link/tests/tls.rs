//! TLS under an authority of our own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::PathBuf;

use farhelm_link::driver::{Link, LinkOptions};
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

struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_file = authority.self_signed(&authority_key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority_file.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let issuer = Issuer::new(authority, authority_key);
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
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
