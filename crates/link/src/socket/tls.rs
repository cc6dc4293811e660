//! TLS by the system's trust store, and by one more authority that the operator may name.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use farhelm_proto::Code;
use rustls::{CertificateError, ClientConfig, Error as TlsError};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;

use crate::socket::{Pipe, Unreachable};

/// Whom to believe. Made when it is first needed and anew after each failure, so that an
/// authority added in between is found.
pub(crate) struct Trust {
    extra_ca: Option<PathBuf>,
    config: Option<Arc<ClientConfig>>,
}

impl Trust {
    pub(crate) const fn new(extra_ca: Option<PathBuf>) -> Self {
        Self {
            extra_ca,
            config: None,
        }
    }

    /// The same for another connection.
    pub(crate) fn again(&self) -> Self {
        Self {
            extra_ca: self.extra_ca.clone(),
            config: self.config.clone(),
        }
    }

    /// Speaks TLS with `host` over `stream`.
    pub(crate) async fn wrap(
        &mut self,
        stream: Box<dyn Pipe>,
        host: &str,
    ) -> Result<Box<dyn Pipe>, Unreachable> {
        let config = match self.config.take() {
            Some(config) => config,
            None => Arc::new(self.load()?),
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Unreachable::because(format!("'{host}' cannot stand in a certificate")))?;
        match TlsConnector::from(Arc::clone(&config))
            .connect(name, stream)
            .await
        {
            Ok(stream) => {
                self.config = Some(config);
                Ok(Box::new(stream))
            }
            Err(error) => Err(explain(host, &error)),
        }
    }

    fn load(&self) -> Result<ClientConfig, Unreachable> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let failed = |error: TlsError| {
            Unreachable::because(format!("the trusted authorities cannot be read: {error}"))
        };
        let verifier =
            Verifier::new_with_extra_roots(self.extra()?, Arc::clone(&provider)).map_err(failed)?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous() // The name is rustls's own; the verifier is the system's.
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn extra(&self) -> Result<Vec<CertificateDer<'static>>, Unreachable> {
        let Some(path) = &self.extra_ca else {
            return Ok(Vec::new());
        };
        let read =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = read.map_err(|error| {
            Unreachable::because(format!(
                "the file of authorities {} cannot be read: {error}",
                path.display()
            ))
        })?;
        if found.is_empty() {
            return Err(Unreachable::because(format!(
                "the file of authorities {} holds no certificate",
                path.display()
            )));
        }
        Ok(found)
    }
}

/// Why there is no TLS, in words for people.
fn explain(host: &str, error: &io::Error) -> Unreachable {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>());
    match inner {
        Some(TlsError::InvalidCertificate(certificate)) => distrust(host, certificate),
        Some(TlsError::InvalidMessage(_)) => Unreachable::of(
            Code::NotARelay,
            format!("{host} does not speak TLS; is it http:// and not https://?"),
        ),
        Some(other) => Unreachable::because(format!("no TLS with {host}: {other}")),
        None => Unreachable::because(format!(
            "the connection to {host} broke before TLS was ready: {error}"
        )),
    }
}

/// Whether a reason for a failure is that the clock of this machine may be wrong.
#[must_use]
pub fn blames_clock(detail: &str) -> bool {
    detail.contains(BY_CLOCK)
}

const BY_CLOCK: &str = "by the clock of this machine";

/// How far the time is from that of a certificate.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other error is about the time"
)]
fn when(error: &CertificateError) -> String {
    let apart = |from: UnixTime, to: UnixTime| {
        let minutes = to.as_secs().saturating_sub(from.as_secs()) / 60;
        match minutes {
            0..120 => format!("{minutes} minutes"),
            120..2880 => format!("{} hours", minutes / 60),
            _ => format!("{} days", minutes / 60 / 24),
        }
    };
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            format!("ended {} ago", apart(*not_after, *time))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("begins in {}", apart(*time, *not_before))
        }
        CertificateError::NotValidYet => "has not begun".to_owned(),
        _ => "has ended".to_owned(),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the rest is explained by rustls well enough"
)]
fn distrust(host: &str, certificate: &CertificateError) -> Unreachable {
    let (code, detail) = match certificate {
        CertificateError::UnknownIssuer => (
            Code::Intercepted,
            format!(
                "the certificate of {host} was signed by nobody this machine trusts; a private authority can be \
                 named with FARHELM_CA_FILE"
            ),
        ),
        // Nobody here can tell which of the two it is.
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            Code::RelayUnreachable,
            format!(
                "the certificate of {host} {}, {BY_CLOCK}: either that is wrong, or nobody has renewed the certificate",
                when(certificate)
            ),
        ),
        // Nobody hands out certificates for the future.
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            Code::ClockSkew,
            format!(
                "the certificate of {host} {}, {BY_CLOCK}, which is wrong",
                when(certificate)
            ),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            Code::Intercepted,
            format!("the certificate that {host} shows is for another name"),
        ),
        other => (
            Code::Intercepted,
            format!("the certificate of {host} is not good: {other}"),
        ),
    };
    Unreachable::of(code, detail)
}
