//! What is measured.

use clap::ValueEnum;

use crate::wire::Framing;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Raw TCP fan-out
    Tcp,
    /// Bare axum WebSocket fan-out
    Ws,
    /// The same with small buffers
    Wslean,
    /// `ws` that appends to a file first
    Wslog,
    /// `wslog` that also syncs the file first
    Wslogf,
    /// Our relay with its store on disk
    Farhelm,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Tcp,
        Self::Ws,
        Self::Wslean,
        Self::Wslog,
        Self::Wslogf,
        Self::Farhelm,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ws => "ws",
            Self::Wslean => "wslean",
            Self::Wslog => "wslog",
            Self::Wslogf => "wslogf",
            Self::Farhelm => "farhelm",
        }
    }

    pub(crate) const fn framing(self) -> Framing {
        match self {
            Self::Tcp => Framing::Length,
            Self::Ws | Self::Wslean | Self::Wslog | Self::Wslogf | Self::Farhelm => {
                Framing::WebSocket
            }
        }
    }

    /// Whether it can give back what a device missed.
    pub(crate) const fn stores(self) -> bool {
        match self {
            Self::Tcp | Self::Ws | Self::Wslean => false,
            Self::Wslog | Self::Wslogf | Self::Farhelm => true,
        }
    }
}
