//! What an operator may set. Everything has a default; a relay runs with no configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use farhelm_proto::{PeerId, limits};
use serde::{Deserialize, Serialize};

pub mod layers;

/// The configuration of one relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where to listen. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The folder of the store. Needed unless `memory` is set; the binary chooses one.
    pub data: Option<PathBuf>,
    /// Keep everything in memory, and lose it at the end. The hosts send it again.
    pub memory: bool,
    /// Under which addresses peers reach this relay, besides loopback: `https://relay.example`.
    pub public_urls: Vec<String>,
    /// The TLS certificate chain, a PEM file. Without it the relay speaks plain HTTP, for
    /// loopback or behind a proxy.
    pub cert: Option<PathBuf>,
    /// The key of the certificate, a PEM file.
    pub key: Option<PathBuf>,
    /// The hosts that this relay serves; empty means any.
    pub hosts: Vec<PeerId>,
    /// Blobs kept for one host, in bytes; the oldest go first.
    pub blob_bytes_per_host: u64,
    /// Events kept of one stream, about; of a longer one the beginning is dropped, never the newest
    /// snapshot or what came after it. 0 keeps all.
    pub events_per_stream: u64,
    /// Envelopes kept for one host, in bytes; beyond that they are passed on and not kept. 0 for
    /// any number.
    pub envelope_bytes_per_host: u64,
    /// How often peers are asked to send a sign of life, in milliseconds.
    pub ping_millis: u64,
    /// Silence after which a peer is given up, in milliseconds.
    pub dead_millis: u64,
    /// How long a peer may take for each of TLS, request and handshake, in milliseconds.
    pub hello_millis: u64,
    /// Connections that may be open before they are authenticated.
    pub unauthenticated: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 7420).into(),
            data: None,
            memory: false,
            public_urls: Vec::new(),
            cert: None,
            key: None,
            hosts: Vec::new(),
            blob_bytes_per_host: 256 * 1024 * 1024,
            events_per_stream: 1_000_000,
            envelope_bytes_per_host: 0,
            ping_millis: 5_000,
            dead_millis: 10_000,
            hello_millis: limits::HELLO_MILLIS,
            unauthenticated: 4096,
        }
    }
}

impl Config {
    /// A relay for this process only: loopback, any port, nothing kept.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            memory: true,
            ..Self::default()
        }
    }

    /// A relay on loopback, any port, that keeps its store in `data`.
    #[must_use]
    pub fn in_folder(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            data: Some(data.into()),
            ..Self::default()
        }
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.memory || self.data.is_some(),
            "no data folder is set; set `data`, or `memory = true`"
        );
        ensure!(
            self.cert.is_some() == self.key.is_some(),
            "`cert` and `key` belong together; set both or neither"
        );
        ensure!(self.ping_millis > 0, "`ping_millis` must not be zero");
        ensure!(
            self.dead_millis >= self.ping_millis,
            "`dead_millis` must not be less than `ping_millis`"
        );
        ensure!(self.hello_millis > 0, "`hello_millis` must not be zero");
        ensure!(
            self.unauthenticated > 0,
            "`unauthenticated` must not be zero"
        );
        Ok(())
    }

    pub(crate) fn admits_host(&self, peer: PeerId) -> bool {
        self.hosts.is_empty() || self.hosts.contains(&peer)
    }

    /// How often a peer pings, and the silence after which it counts as gone, when it asked for
    /// `dead_millis`. Nobody gets more patience than usual, and nobody makes the relay restless.
    pub(crate) fn liveness(&self, dead_millis: Option<u64>) -> (u64, u64) {
        let shortest = limits::SHORTEST_DEAD_MILLIS.min(self.dead_millis);
        let dead = dead_millis.map_or(self.dead_millis, |asked| {
            asked.clamp(shortest, self.dead_millis)
        });
        (self.ping_millis.min(dead.div_ceil(2)), dead)
    }

    /// How often all connections are looked at.
    pub(crate) fn sweep(&self) -> Duration {
        Duration::from_millis((self.dead_millis / 8).clamp(10, 500))
    }

    /// Sweeps that a peer may be silent for.
    pub(crate) fn sweeps(&self, dead_millis: u64) -> u32 {
        let sweep = u64::try_from(self.sweep().as_millis()).unwrap_or(u64::MAX);
        u32::try_from(dead_millis.div_ceil(sweep)).unwrap_or(u32::MAX)
    }
}
