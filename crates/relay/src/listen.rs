//! Accepts connections. What is not authenticated is limited in number and time, so that it
//! cannot crowd out those who are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::http::{self, site::Site};
use crate::state::State;
use crate::wire::Pipe;

/// What it takes to serve a connection.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) state: Arc<State>,
    pub(crate) site: Arc<Site>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) unauthenticated: Arc<Semaphore>,
}

/// Opens the port.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket
        .bind(address)
        .with_context(|| format!("failed to listen on {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

impl Door {
    /// Accepts until it is told to stop.
    pub(crate) async fn accept(self, listener: TcpListener, stop: CancellationToken) {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => self.open(stream, &stop).await,
                Err(error) => {
                    // Without a free descriptor, accepting again at once would only burn time.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Serves one stream that somebody else accepted.
    pub(crate) async fn attach<S: Pipe>(&self, io: S) {
        let Ok(permit) = Arc::clone(&self.unauthenticated).acquire_owned().await else {
            return;
        };
        let (state, site) = (Arc::clone(&self.state), Arc::clone(&self.site));
        self.state
            .tasks
            .spawn("request", Box::pin(http::serve(state, site, io, permit)));
    }

    async fn open(&self, stream: TcpStream, stop: &CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a socket refused an option");
        }
        let Some(tls) = self.tls.clone() else {
            stop.run_until_cancelled(self.attach(stream)).await;
            return;
        };
        let permit = stop
            .run_until_cancelled(Arc::clone(&self.unauthenticated).acquire_owned())
            .await;
        let Some(Ok(permit)) = permit else { return };
        let (state, site) = (Arc::clone(&self.state), Arc::clone(&self.site));
        let patience = Duration::from_millis(state.config.hello_millis);
        let secured = async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(patience, tls.accept(stream)).await {
                http::serve(state, site, stream, permit).await;
            }
        };
        self.state.tasks.spawn("request", Box::pin(secured));
    }
}

/// Looks after everything that is due now and then.
pub(crate) async fn sweep(state: Arc<State>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(state.config.sweep());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut pruned = state.uptime();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let now = state.uptime();
        state.sweep();
        if now.millis_since(pruned) > PRUNE_MILLIS {
            pruned = now;
            state.prune(clock::now()).await;
        }
    }
}

/// Connections that may wait for being accepted, as after a restart.
const BACKLOG: u32 = 8192;
/// How long accepting rests after it failed.
const PAUSE: Duration = Duration::from_millis(50);
/// How often expired letters are removed.
const PRUNE_MILLIS: u64 = 60_000;
