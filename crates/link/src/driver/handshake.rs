//! The peer's side of `farhelm_proto::hello`.

use std::time::Duration;

use farhelm_proto::frame::{Bye, Frame, Hello, Prove, Welcome};
use farhelm_proto::{Code, OLDEST_VERSION, VERSION, hello};
use futures_util::{SinkExt as _, StreamExt as _};

use super::{End, LinkOptions};
use crate::backoff::Ending;
use crate::socket::{Broken, Socket};

/// Proves the peer's key, within `patience`.
pub(super) async fn run(
    socket: &mut Socket,
    options: &LinkOptions,
    authority: &str,
    patience: Duration,
) -> Result<Welcome, End> {
    let done = tokio::time::timeout(patience, shake_hands(socket, options, authority)).await;
    done.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        let detail = format!("the relay did not finish the handshake within {seconds} s");
        Err(End {
            stuck: true,
            ..End::lost(Code::Timeout, detail)
        })
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
            ending: Ending::Refused,
            ..End::lost(Code::UnsupportedVersion, detail)
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
    socket.sink.send(frame.to_bytes()).await.map_err(broke)
}

async fn receive(socket: &mut Socket) -> Result<Frame, End> {
    let next = socket.frames.next().await;
    let bytes = next.ok_or_else(closed)?.map_err(broke)?;
    Frame::parse(&bytes).map_err(|error| End::lost(error.code(), format!("the relay sent {error}")))
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
        ending,
        ..End::lost(bye.code, detail)
    }
}

pub(super) fn closed() -> End {
    End::lost(Code::RelayUnreachable, "the relay closed the connection")
}

pub(super) fn broke(broken: Broken) -> End {
    match broken {
        Broken::Closed => closed(),
        Broken::TooLarge => End::lost(Code::TooLarge, "the relay sent a frame that is too large"),
        Broken::NoFrame => End::lost(Code::BadFrame, "the relay sent something that is no frame"),
        Broken::Off(why) => End::lost(
            Code::RelayUnreachable,
            format!("the connection to the relay broke: {why}"),
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

/// A relay that takes longer than this for a handshake is as good as unreachable, at first.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);
