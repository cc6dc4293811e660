//! The peer's side of `farhelm_proto::hello`.

use std::time::Duration;

use bytes::Bytes;
use farhelm_proto::frame::{Bye, Frame, Hello, Prove, Welcome};
use farhelm_proto::{Code, OLDEST_VERSION, VERSION, hello};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::{End, LinkOptions};
use crate::backoff::Ending;
use crate::socket::Socket;

/// Proves the peer's key, in bounded time.
pub(super) async fn run(
    socket: &mut Socket,
    options: &LinkOptions,
    authority: &str,
) -> Result<Welcome, End> {
    let done = tokio::time::timeout(PATIENCE, shake_hands(socket, options, authority)).await;
    done.unwrap_or_else(|_| {
        let seconds = PATIENCE.as_secs();
        Err(End::lost(
            Code::Timeout,
            format!("the relay did not finish the handshake within {seconds} s"),
        ))
    })
}

async fn shake_hands(
    socket: &mut Socket,
    options: &LinkOptions,
    authority: &str,
) -> Result<Welcome, End> {
    let signing = options.identity.signing();
    let hello = Hello {
        oldest: OLDEST_VERSION,
        newest: VERSION,
        role: options.role,
        key: (*options.identity.public().signing.as_bytes()).into(),
        agent: Some(options.agent.clone()),
        authority: authority.to_owned(),
        generation: Some(options.generation),
        dead_millis: options.dead_millis,
    };
    send(socket, &Frame::Hello(hello)).await?;
    let frame = receive(socket).await?;
    let Frame::Challenge(challenge) = frame else {
        return Err(unexpected(frame));
    };
    let ours = (OLDEST_VERSION, VERSION);
    if hello::negotiate(ours, (challenge.version, challenge.version)).is_none() {
        let detail = format!(
            "the relay wants version {} of the protocol",
            challenge.version
        );
        return Err(End {
            code: Code::UnsupportedVersion,
            detail,
            ending: Ending::Refused,
        });
    }
    let proof = hello::prove(signing, challenge.version, &challenge.nonce, authority);
    send(
        socket,
        &Frame::Prove(Prove {
            proof: proof.into(),
        }),
    )
    .await?;
    let frame = receive(socket).await?;
    let Frame::Welcome(welcome) = frame else {
        return Err(unexpected(frame));
    };
    Ok(welcome)
}

async fn send(socket: &mut Socket, frame: &Frame) -> Result<(), End> {
    socket
        .send(Message::Binary(frame.to_bytes()))
        .await
        .map_err(|error| broke(&error))
}

async fn receive(socket: &mut Socket) -> Result<Frame, End> {
    loop {
        let message = socket
            .next()
            .await
            .ok_or_else(closed)?
            .map_err(|error| broke(&error))?;
        let Some(bytes) = payload(message)? else {
            continue;
        };
        return Frame::parse(&bytes)
            .map_err(|error| End::lost(error.code(), format!("the relay sent {error}")));
    }
}

/// What a WebSocket message carries; nothing when it is about the WebSocket itself.
pub(super) fn payload(message: Message) -> Result<Option<Bytes>, End> {
    match message {
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
        Message::Close(_) => Err(closed()),
        Message::Text(_) => Err(End::lost(Code::BadFrame, "the relay sent text")),
    }
}

/// What a `Bye` means for the next attempt.
pub(super) fn end_by(bye: Bye) -> End {
    let detail = match bye.detail {
        Some(detail) => format!(
            "{} ({})",
            bye.code.sentence(),
            farhelm_core::text::clip(&detail, 200)
        ),
        None => bye.code.sentence().to_owned(),
    };
    let told = bye
        .retry_millis
        .map(|millis| Ending::Told(Duration::from_millis(millis)));
    let ending = if bye.code.may_retry() {
        told.unwrap_or(Ending::Lost)
    } else {
        Ending::Refused
    };
    End {
        code: bye.code,
        detail,
        ending,
    }
}

pub(super) fn closed() -> End {
    End::lost(Code::RelayUnreachable, "the relay closed the connection")
}

pub(super) fn broke(error: &tokio_tungstenite::tungstenite::Error) -> End {
    use tokio_tungstenite::tungstenite::Error;
    match error {
        Error::Capacity(_) => End::lost(Code::TooLarge, "the relay sent a frame that is too large"),
        Error::ConnectionClosed | Error::AlreadyClosed => closed(),
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::WriteBufferFull(_)
        | Error::Utf8(_)
        | Error::AttackAttempt
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => End::lost(
            Code::RelayUnreachable,
            format!("the connection to the relay broke: {error}"),
        ),
    }
}

fn unexpected(frame: Frame) -> End {
    if let Frame::Bye(bye) = frame {
        return end_by(bye);
    }
    End::lost(
        Code::BadFrame,
        "the relay sent something else than the handshake asks for",
    )
}

/// A relay that takes longer than this for a handshake is as good as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);
