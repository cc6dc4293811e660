//! Opens a WebSocket to a relay: name, proxy, TLS, upgrade. Every failure says what was found in
//! the relay's place, for the person who must find out why.

use std::time::Duration;

use farhelm_proto::limits::FRAME_BYTES;
use http::{HeaderMap, StatusCode, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, error::ProtocolError};

pub(crate) use crate::socket::tls::Trust;

mod proxy;
mod tcp;
mod tls;

/// A byte stream that carries a WebSocket.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

pub(crate) type Socket = WebSocketStream<Box<dyn Pipe>>;

/// Why there is no connection, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unreachable(pub(crate) String);

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
        let wrong = || Unreachable(format!("'{}' is not the address of a relay", clean(relay)));
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

/// Opens a WebSocket to the relay, in bounded time.
pub(crate) async fn dial(target: &Target, trust: &mut Trust) -> Result<Socket, Unreachable> {
    let opened = tokio::time::timeout(PATIENCE, Box::pin(open(target, trust))).await;
    opened.unwrap_or_else(|_| {
        Err(Unreachable(format!(
            "{} did not answer within {} s",
            target.authority,
            PATIENCE.as_secs()
        )))
    })
}

async fn open(target: &Target, trust: &mut Trust) -> Result<Socket, Unreachable> {
    let stream = proxy::connect(target, trust).await?;
    let stream = if target.tls {
        trust.wrap(stream, &target.host).await?
    } else {
        stream
    };
    upgrade(target, stream).await
}

async fn upgrade(target: &Target, stream: Box<dyn Pipe>) -> Result<Socket, Unreachable> {
    let scheme = if target.tls { "wss" } else { "ws" };
    let request = format!("{scheme}://{}{PATH}", target.authority)
        .into_client_request()
        .map_err(|error| Unreachable(format!("{} is not an address: {error}", target.authority)))?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(2 * FRAME_BYTES + BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES))
        .max_frame_size(Some(FRAME_BYTES));
    let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    upgraded
        .map(|(socket, _)| socket)
        .map_err(|error| Unreachable(no_upgrade(&target.authority, &error)))
}

/// What answered in the relay's place.
fn no_upgrade(authority: &str, error: &WsError) -> String {
    match error {
        WsError::Http(response) => not_a_relay(authority, response.status(), response.headers()),
        WsError::Protocol(ProtocolError::HandshakeIncomplete) => {
            format!("{authority} closed the connection before it answered")
        }
        WsError::Protocol(ProtocolError::HttparseError(_)) => {
            format!("{authority} does not speak HTTP")
        }
        WsError::Protocol(_) | WsError::AttackAttempt | WsError::Capacity(_) => {
            format!("{authority} is no relay, or a proxy in between spoils WebSockets: {error}")
        }
        WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::Io(_)
        | WsError::Tls(_)
        | WsError::WriteBufferFull(_)
        | WsError::Utf8(_)
        | WsError::Url(_)
        | WsError::HttpFormat(_) => {
            format!("the connection to {authority} broke before the relay answered: {error}")
        }
    }
}

fn not_a_relay(authority: &str, status: StatusCode, headers: &HeaderMap) -> String {
    let text = |name: header::HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if status.is_redirection() {
        let place = clean(text(header::LOCATION));
        return format!(
            "{authority} redirects to '{place}' (HTTP {}); a network may want you to sign in first",
            status.as_u16()
        );
    }
    if text(header::CONTENT_TYPE)
        .to_ascii_lowercase()
        .starts_with("text/html")
    {
        return format!(
            "a web page answered at {authority} and no relay (HTTP {status}); a network may want you to sign in first"
        );
    }
    if status.is_server_error() {
        return format!("{authority} answers HTTP {status}; the relay behind it seems to be down");
    }
    format!("{authority} answers HTTP {status}; there is no relay at that address")
}

/// Text of a stranger, fit to be printed.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(200)
        .collect()
}

/// Where a relay takes links.
const PATH: &str = "/v1/link";
/// What a socket buffers each way; larger messages grow it for a while.
const BUFFER_BYTES: usize = 8 * 1024;
/// Name, proxy, TLS and upgrade take at most so long together.
const PATIENCE: Duration = Duration::from_secs(20);

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

    #[test]
    fn a_redirect_and_a_page_are_named() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::LOCATION,
            "http://portal.example/login".parse().unwrap(),
        );
        let text = not_a_relay("relay.example", StatusCode::FOUND, &headers);
        assert!(
            text.contains("redirects to 'http://portal.example/login' (HTTP 302)"),
            "{text}"
        );
        headers.clear();
        headers.insert(
            header::CONTENT_TYPE,
            "text/html; charset=utf-8".parse().unwrap(),
        );
        let text = not_a_relay("relay.example", StatusCode::OK, &headers);
        assert!(
            text.starts_with("a web page answered at relay.example"),
            "{text}"
        );
    }
}
