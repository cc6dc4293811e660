//! The servers that are measured, each in a process of its own: it says where it listens on its
//! first line and ends when its standard input does, so that none outlives the run.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use farhelm_relay::{Config, Relay};
use tokio::net::TcpListener;

use crate::output;
use crate::serve::fan::Fan;
use crate::serve::ws::Buffers;
use crate::target::Kind;

mod fan;
mod file;
mod tcp;
mod ws;

/// Runs one server.
pub(crate) async fn run(kind: Kind, address: SocketAddr, data: &Path) -> anyhow::Result<()> {
    std::thread::spawn(|| {
        drop(std::io::stdin().lock().read(&mut [0]));
        std::process::exit(0);
    });
    match kind {
        Kind::Farhelm => farhelm(address, data).await,
        Kind::Tcp => tcp::serve(listen(address).await?, Arc::new(Fan::direct())).await,
        Kind::Ws => {
            ws::serve(
                listen(address).await?,
                Arc::new(Fan::direct()),
                Buffers::Default,
            )
            .await
        }
        Kind::Wslean => {
            ws::serve(
                listen(address).await?,
                Arc::new(Fan::direct()),
                Buffers::Lean,
            )
            .await
        }
        Kind::Wslog => {
            let fan = Fan::through_file(data, file::Sync::Never)?;
            ws::serve(listen(address).await?, fan, Buffers::Default).await
        }
        Kind::Wslogf => {
            let fan = Fan::through_file(data, file::Sync::Always)?;
            ws::serve(listen(address).await?, fan, Buffers::Default).await
        }
    }
}

async fn farhelm(address: SocketAddr, data: &Path) -> anyhow::Result<()> {
    // As the program does it, so that a complaint of the relay is seen beside the figures.
    tracing_subscriber::fmt()
        .with_env_filter("warn")
        .with_writer(std::io::stderr)
        .init();
    let relay = Relay::start(Config {
        listen: address,
        ..Config::in_folder(data)
    })?;
    output::line(&relay.local_addr().to_string());
    std::future::pending().await
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .context("failed to listen")?;
    output::line(&listener.local_addr()?.to_string());
    Ok(listener)
}
