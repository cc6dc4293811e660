//! TCP to the first address of a name that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;

use crate::socket::Unreachable;

/// Connects to `host`, whose addresses are tried one after the other without waiting for those
/// that do not answer (RFC 8305).
pub(crate) async fn connect(host: &str, port: u16) -> Result<TcpStream, Unreachable> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|error| {
        Unreachable::because(format!(
            "the name {host} cannot be looked up; there is no network, or no such name: {error}"
        ))
    })?;
    let stream = race(interleave(found.collect())).await.map_err(|error| {
        Unreachable::because(format!(
            "no connection to {host} port {port}: {}",
            explain(&error)
        ))
    })?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small packets may be delayed");
    }
    Ok(stream)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system explains the rest"
)]
fn explain(error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there",
        io::ErrorKind::NetworkUnreachable => "this machine has no network that leads there",
        io::ErrorKind::HostUnreachable => "no way leads there",
        io::ErrorKind::TimedOut => "it does not answer",
        _ => return error.to_string(),
    };
    format!("{why} ({error})")
}

async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    loop {
        match waiting.next() {
            Some(address) => running.push(TcpStream::connect(address)),
            None if running.is_empty() => return Err(last),
            None => {}
        }
        let others = waiting.len() > 0;
        tokio::select! {
            Some(outcome) = running.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = tokio::time::sleep(HEAD_START), if others => {}
        }
    }
}

/// The families by turns, as the resolver ordered them.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut mixed: Vec<SocketAddr> = first
        .into_iter()
        .flat_map(|one| [Some(one), second.next()])
        .flatten()
        .collect();
    mixed.extend(second);
    mixed
}

/// How long an address may take before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let list = |text: &[&str]| -> Vec<SocketAddr> {
            text.iter().map(|one| one.parse().unwrap()).collect()
        };
        let mixed = interleave(list(&[
            "[::1]:1",
            "[::2]:1",
            "1.1.1.1:1",
            "2.2.2.2:1",
            "3.3.3.3:1",
        ]));
        assert_eq!(
            mixed,
            list(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "3.3.3.3:1"])
        );
    }
}
