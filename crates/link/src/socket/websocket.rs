//! Frames as binary messages of a WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use farhelm_proto::Code;
use farhelm_proto::limits::FRAME_BYTES;
use futures_util::{SinkExt as _, StreamExt as _, future, stream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, error::ProtocolError};

use crate::socket::{
    Broken, Life, Pipe, Route, Socket, Target, Unreachable, Way, answers::not_a_relay,
};

/// Asks for a WebSocket on `pipe`.
pub(super) async fn open(
    target: &Target,
    pipe: Box<dyn Pipe>,
    life: Arc<Life>,
    route: Option<Route>,
) -> Result<Socket, Unreachable> {
    let scheme = if target.tls { "wss" } else { "ws" };
    let wrong =
        |error| Unreachable::because(format!("{} is not an address: {error}", target.authority));
    let request = format!("{scheme}://{}{PATH}", target.authority)
        .into_client_request()
        .map_err(wrong)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(2 * FRAME_BYTES + BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES))
        .max_frame_size(Some(FRAME_BYTES));
    let upgraded = tokio_tungstenite::client_async_with_config(request, pipe, Some(config)).await;
    let (socket, _) = upgraded.map_err(|error| no_upgrade(target, &error))?;
    let (sink, messages) = socket.split();
    let sink = sink
        .with(|frame| future::ok::<_, WsError>(Message::Binary(frame)))
        .sink_map_err(|error| broken(&error));
    let frames = messages.flat_map(|message| stream::iter(payload(message)));
    Ok(Socket {
        sink: Box::pin(sink),
        frames: Box::pin(frames),
        way: Way::WebSocket,
        life,
        route,
    })
}

/// What a message carries; nothing when it is about the WebSocket itself.
fn payload(message: Result<Message, WsError>) -> Option<Result<Bytes, Broken>> {
    match message {
        Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
        Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
        Ok(Message::Close(_)) => Some(Err(Broken::Closed)),
        Ok(Message::Text(_)) => Some(Err(Broken::NoFrame)),
        Err(error) => Some(Err(broken(&error))),
    }
}

fn broken(error: &WsError) -> Broken {
    match error {
        WsError::Capacity(_) => Broken::TooLarge,
        WsError::ConnectionClosed | WsError::AlreadyClosed => Broken::Closed,
        WsError::Io(_)
        | WsError::Tls(_)
        | WsError::Protocol(_)
        | WsError::WriteBufferFull(_)
        | WsError::Utf8(_)
        | WsError::AttackAttempt
        | WsError::Url(_)
        | WsError::Http(_)
        | WsError::HttpFormat(_) => Broken::Off(error.to_string()),
    }
}

/// What answered in the relay's place.
fn no_upgrade(target: &Target, error: &WsError) -> Unreachable {
    let authority = &target.authority;
    let (code, detail) = match error {
        WsError::Http(response) => {
            return not_a_relay(target, response.status(), response.headers());
        }
        WsError::Protocol(ProtocolError::HandshakeIncomplete) => (
            Code::RelayUnreachable,
            format!("{authority} closed the connection before it answered"),
        ),
        WsError::Protocol(ProtocolError::HttparseError(_)) => {
            (Code::NotARelay, format!("{authority} does not speak HTTP"))
        }
        WsError::Protocol(_) | WsError::AttackAttempt | WsError::Capacity(_) => (
            Code::NotARelay,
            format!("{authority} is no relay, or a proxy in between spoils WebSockets: {error}"),
        ),
        WsError::ConnectionClosed
        | WsError::AlreadyClosed
        | WsError::Io(_)
        | WsError::Tls(_)
        | WsError::WriteBufferFull(_)
        | WsError::Utf8(_)
        | WsError::Url(_)
        | WsError::HttpFormat(_) => (
            Code::RelayUnreachable,
            format!("the connection to {authority} broke before the relay answered: {error}"),
        ),
    };
    Unreachable::answered(code, detail)
}

/// Where a relay takes WebSockets.
const PATH: &str = "/v1/link";
/// What a socket buffers each way; larger messages grow it for a while.
const BUFFER_BYTES: usize = 8 * 1024;
