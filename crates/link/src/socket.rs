//! Opens a connection to a relay that carries frames: name, proxy, TLS, and then a WebSocket, or
//! the detour by plain HTTP. Every failure says what was found in the relay's place, for the
//! person who must find out why.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farhelm_proto::Code;
use futures_util::{Sink, Stream};
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use crate::socket::life::{Life, Route};
pub(crate) use crate::socket::tls::Trust;

pub use crate::socket::tls::blames_clock;

mod answers;
mod detour;
pub(crate) mod events;
mod life;
pub(crate) mod proxy;
mod tcp;
mod tls;
mod websocket;

/// A byte stream to a relay.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// How frames get to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a WebSocket.
    WebSocket,
    /// By the detour through plain HTTP.
    Http,
}

impl Way {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
        }
    }
}

/// Where frames come from.
pub(crate) type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>;
/// Where frames go.
pub(crate) type Outlet = Pin<Box<dyn Sink<Bytes, Error = Broken> + Send>>;

/// A connection that carries whole frames both ways.
pub(crate) struct Socket {
    pub(crate) sink: Outlet,
    pub(crate) frames: Frames,
    pub(crate) way: Way,
    pub(crate) life: Arc<Life>,
    pub(crate) route: Option<Route>,
}

/// Why a connection carries nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The other side closed it.
    Closed,
    /// A frame was larger than any may be.
    TooLarge,
    /// Something came that cannot be a frame.
    NoFrame,
    /// It broke off.
    Off(String),
}

/// Why there is no connection, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Unreachable {
    pub(crate) code: Code,
    pub(crate) detail: String,
    /// Whether somebody answered, so that what was asked for may be the trouble.
    pub(crate) answered: bool,
    /// Whether somebody took the question and said nothing.
    pub(crate) hung: bool,
}

impl Unreachable {
    pub(crate) fn because(detail: impl Into<String>) -> Self {
        Self::of(Code::RelayUnreachable, detail)
    }

    fn of(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            answered: false,
            hung: false,
        }
    }

    fn answered(code: Code, detail: impl Into<String>) -> Self {
        Self {
            answered: true,
            ..Self::of(code, detail)
        }
    }
}

/// Where a relay is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    uri: Uri,
    tls: bool,
    /// The host's name or address, without brackets.
    host: String,
    port: u16,
    /// What the peer signs that it dialled.
    pub(crate) authority: String,
}

impl Target {
    /// Reads `http(s)://authority`.
    pub(crate) fn parse(relay: &str) -> Result<Self, Unreachable> {
        let wrong =
            || Unreachable::because(format!("'{}' is not the address of a relay", clean(relay)));
        let uri: Uri = relay
            .trim()
            .trim_end_matches('/')
            .parse()
            .map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(wrong()),
        };
        let authority = uri
            .authority()
            .ok_or_else(wrong)?
            .as_str()
            .to_ascii_lowercase();
        let bare = uri.path() == "/" && uri.query().is_none() && !authority.contains('@');
        let host = uri
            .host()
            .filter(|host| bare && !host.is_empty())
            .ok_or_else(wrong)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            host,
            port,
            authority,
            uri,
        })
    }
}

/// Opens a WebSocket to the relay, in bounded time: whoever answers there may take `patience`.
pub(crate) async fn dial(
    target: &Target,
    trust: &mut Trust,
    patience: Duration,
) -> Result<Socket, Unreachable> {
    let life = Arc::default();
    let (pipe, route) = reach(target, trust, &life).await?;
    let upgrade = Box::pin(websocket::open(target, pipe, life, route));
    let upgraded = tokio::time::timeout(patience, upgrade).await;
    upgraded.unwrap_or_else(|_| {
        let detail = format!(
            "{} took the question for a WebSocket, and does not answer",
            target.authority
        );
        Err(Unreachable {
            hung: true,
            ..Unreachable::because(detail)
        })
    })
}

/// Opens a detour to the relay, in bounded time: whoever answers there may take `patience`.
pub(crate) async fn go_round(
    target: &Target,
    trust: &mut Trust,
    patience: Duration,
) -> Result<Socket, Unreachable> {
    let life = Arc::default();
    let (pipe, route) = reach(target, trust, &life).await?;
    let opening = Box::pin(detour::open(target, trust.again(), pipe, life, route));
    let opened = tokio::time::timeout(patience, opening).await;
    opened.unwrap_or_else(|_| {
        let detail = format!(
            "{} took the question for an event stream, and does not answer",
            target.authority
        );
        Err(Unreachable::answered(Code::RelayUnreachable, detail))
    })
}

/// A byte stream to the relay, with TLS where there is some, in bounded time.
async fn reach(
    target: &Target,
    trust: &mut Trust,
    life: &Arc<Life>,
) -> Result<(Box<dyn Pipe>, Option<Route>), Unreachable> {
    let reaching = async {
        let (stream, route) = proxy::connect(target, trust, life).await?;
        let stream = if target.tls {
            trust.wrap(stream, &target.host).await?
        } else {
            stream
        };
        Ok((stream, route))
    };
    let reached = tokio::time::timeout(PATIENCE, Box::pin(reaching)).await;
    reached.unwrap_or_else(|_| {
        Err(Unreachable::because(format!(
            "{} did not answer within {} s",
            target.authority,
            PATIENCE.as_secs()
        )))
    })
}

/// Text of a stranger, fit to be printed.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(200)
        .collect()
}

/// Name, proxy and TLS take at most so long together.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long whoever answers may take for a WebSocket or an event stream.
pub(crate) const UPGRADE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let target = Target::parse("https://Relay.Example/").unwrap();
        assert_eq!((target.tls, target.port), (true, 443));
        assert_eq!(
            (target.host.as_str(), target.authority.as_str()),
            ("relay.example", "relay.example")
        );
        let target = Target::parse("http://[::1]:7420").unwrap();
        assert_eq!((target.tls, target.port), (false, 7420));
        assert_eq!(
            (target.host.as_str(), target.authority.as_str()),
            ("::1", "[::1]:7420")
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in [
            "",
            "relay.example",
            "ftp://relay",
            "https://relay/path",
            "https://me@relay",
            "https://",
            "ws://r",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
