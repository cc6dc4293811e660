//! The relay: authenticates peers, stores the sealed envelopes of hosts and fans them out, keeps
//! letters for those who are away. It cannot read any of it: it links `farhelm-proto` only,
//! where payloads are opaque bytes.
//!
//! A connection passes through `listen` (limits, TLS), `http` (names, upgrade), `auth` (the
//! handshake) and then lives in `peer`, an actor that owns its socket. What is decided about one
//! host is decided in its `hub`, which does no IO; what is to be sent waits in each connection's
//! `outbox`, which never blocks; what is kept goes to the `store`.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let relay = farhelm_relay::Relay::start(farhelm_relay::Config::in_memory())?;
//! println!("listening on {}", relay.url());
//! relay.allow_authority("https://something.tunnel.example")?;
//! relay.shutdown().await;
//! # Ok(())
//! # }
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::authority::Authorities;
pub use crate::config::Config;
use crate::http::site::Site;
use crate::listen::Door;
use crate::state::State;
pub use crate::store::Kept;
use crate::store::Store;

mod auth;
mod authority;
#[doc(hidden)]
pub mod bare;
mod clock;
pub mod config;
mod http;
mod hub;
mod listen;
mod lock;
mod outbox;
mod peer;
pub mod program;
mod state;
mod store;
#[cfg(feature = "evil")]
pub mod tamper;
mod tasks;
mod tls;
mod wire;

/// A relay that runs. Dropping it ends every connection without waiting for them.
pub struct Relay {
    door: Door,
    address: SocketAddr,
    stop: CancellationToken,
}

impl Relay {
    /// Opens store and port and serves, on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// When the configuration does not fit together, or store, certificate or port cannot be
    /// used.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        config.check()?;
        let tls = match (&config.cert, &config.key) {
            (Some(cert), Some(key)) => Some(tls::acceptor(cert, key)?),
            (_, _) => None,
        };
        let store = match &config.data {
            Some(data) if !config.memory => Store::in_folder(data, config.envelope_bytes_per_host)
                .context("failed to open the store")?,
            Some(_) | None => Store::in_memory()?,
        };
        let listener = listen::bind(config.listen)?;
        let address = listener.local_addr()?;
        let relay = Self::open(config, store, tls, address)?;
        let accepting = relay.door.clone().accept(listener, relay.stop.clone());
        relay.door.state.tasks.spawn("accept", accepting);
        Ok(relay)
    }

    /// A relay without a port: only [`Self::attach`] brings it connections. For simulation.
    ///
    /// # Errors
    ///
    /// When the configuration does not fit together.
    pub fn inside(config: Config, kept: &Kept) -> anyhow::Result<Self> {
        config.check()?;
        let address = config.listen;
        Self::open(config, Store::kept(kept), None, address)
    }

    fn open(
        config: Config,
        store: Store,
        tls: Option<tokio_rustls::TlsAcceptor>,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        let authorities = Authorities::default();
        authorities.allow_loopback(address);
        for url in &config.public_urls {
            authorities.allow(url)?;
        }
        let unauthenticated = Arc::new(Semaphore::new(config.unauthenticated));
        let state = Arc::new(State::new(config, store, authorities));
        let stop = state.stop.clone();
        let door = Door {
            state,
            site: Arc::new(Site::embedded()),
            tls,
            unauthenticated,
        };
        door.state.tasks.spawn(
            "sweep",
            listen::sweep(Arc::clone(&door.state), stop.clone()),
        );
        Ok(Self {
            door,
            address,
            stop,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its address for this machine.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.door.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// Allows peers and pages to reach the relay under another name: a URL without a path, or an
    /// authority. Takes effect at once.
    ///
    /// # Errors
    ///
    /// When `authority` is not an address.
    pub fn allow_authority(&self, authority: &str) -> anyhow::Result<()> {
        self.door.state.authorities.allow(authority)
    }

    /// Serves a byte stream that was accepted elsewhere, such as one of a simulated network, as
    /// if it had come to the relay's own port.
    pub async fn attach<S>(&self, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + Sync + 'static,
    {
        self.door.attach(stream).await;
    }

    /// Stops accepting, tells every peer when to come back, waits for them to go, and closes the
    /// store.
    pub async fn shutdown(self) {
        self.stop_all();
        if tokio::time::timeout(DRAIN, self.door.state.tasks.ended())
            .await
            .is_err()
        {
            tracing::warn!("some connections did not end in time");
        }
        self.door.state.store.close().await;
    }

    fn stop_all(&self) {
        self.stop.cancel();
        self.door.state.close_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.stop_all();
        }
    }
}

/// Fresh random bytes.
pub(crate) fn fresh<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    farhelm_world::try_fill(&mut bytes).context("the system gives no randomness")?;
    Ok(bytes)
}

/// How long a shutdown waits for connections to end.
const DRAIN: Duration = Duration::from_secs(5);
