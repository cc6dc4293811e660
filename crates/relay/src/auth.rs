//! The handshake, from the relay's side: see [`farhelm_proto::hello`]. Until it is done a peer
//! may send two small frames, and has little time.

use farhelm_proto::frame::{Bye, Challenge, Frame, FrameError, Hello, Role, Welcome};
use farhelm_proto::sign::VerifyingKey;
use farhelm_proto::{Code, PeerId, hello};

use crate::clock;
use crate::state::State;
use crate::wire::{Socket, WireError};

/// A peer that proved its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proven {
    pub(crate) peer: PeerId,
    pub(crate) role: Role,
    /// Of a host's connections the one with the highest wins.
    pub(crate) generation: u64,
    /// The silence after which it asked to be given up.
    pub(crate) dead_millis: Option<u64>,
}

/// Why a peer is not let in; none when it left by itself.
pub(crate) type Refusal = Option<Bye>;

/// Lets a peer prove its key.
pub(crate) async fn handshake<W: Socket>(state: &State, wire: &mut W) -> Result<Proven, Refusal> {
    let Frame::Hello(hello) = next(wire).await? else {
        return Err(Some(refusal(Code::NotNow, "expected hello")));
    };
    let Hello {
        oldest,
        newest,
        role,
        key,
        authority,
        generation,
        dead_millis,
        agent: _,
    } = hello;
    let ours = (farhelm_proto::OLDEST_VERSION, farhelm_proto::VERSION);
    let version = hello::negotiate(ours, (oldest, newest))
        .ok_or_else(|| Some(refusal(Code::UnsupportedVersion, "no version in common")))?;
    let key =
        VerifyingKey::from_bytes(&key).map_err(|_| Some(refusal(Code::BadProof, "not a key")))?;
    let nonce: [u8; 32] =
        crate::fresh().map_err(|_| Some(refusal(Code::Internal, "no randomness")))?;
    send(
        wire,
        &Frame::Challenge(Challenge {
            version,
            nonce: nonce.into(),
        }),
    )
    .await?;
    let Frame::Prove(prove) = next(wire).await? else {
        return Err(Some(refusal(Code::NotNow, "expected proof")));
    };
    hello::check(&key, version, &nonce, &authority, &prove.proof)
        .map_err(|_| Some(refusal(Code::BadProof, "the signature does not match")))?;
    if !state.authorities.allows(&authority) {
        return Err(Some(refusal(
            Code::BadProof,
            "the relay is not known by the address that was dialled",
        )));
    }
    let peer = PeerId::of(&key);
    if role == Role::Host && !state.config.admits_host(peer) {
        return Err(Some(refusal(
            Code::NotAllowed,
            "this relay serves listed hosts only",
        )));
    }
    Ok(Proven {
        peer,
        role,
        generation: generation.unwrap_or(0),
        dead_millis,
    })
}

/// What a peer is greeted with that asked for `dead_millis`.
pub(crate) fn welcome(state: &State, dead_millis: Option<u64>) -> Frame {
    let (ping_millis, dead_millis) = state.config.liveness(dead_millis);
    Frame::Welcome(Welcome {
        store: state.store.id().into(),
        now: clock::now(),
        agent: concat!("farhelm-relay/", env!("CARGO_PKG_VERSION")).to_owned(),
        ping_millis,
        dead_millis,
    })
}

async fn next<W: Socket>(wire: &mut W) -> Result<Frame, Refusal> {
    let bytes = wire.recv().await.map_err(|error| bye_for(&error))?;
    Frame::parse(&bytes).map_err(|error| match error {
        FrameError::Unknown(_) => Some(refusal(Code::NotNow, "expected a handshake")),
        FrameError::Malformed(_) => Some(refusal(Code::BadFrame, "not a frame")),
    })
}

async fn send<W: Socket>(wire: &mut W, frame: &Frame) -> Result<(), Refusal> {
    wire.send(frame.to_bytes())
        .await
        .map_err(|error| bye_for(&error))
}

/// What to tell a peer whose socket gave something unusable.
pub(crate) fn bye_for(error: &WireError) -> Refusal {
    match error {
        WireError::Ended => None,
        WireError::TooLarge => Some(refusal(Code::TooLarge, "a frame is too large")),
        WireError::Malformed => Some(refusal(Code::BadFrame, "not a binary message")),
    }
}

fn refusal(code: Code, detail: &str) -> Bye {
    Bye {
        code,
        detail: Some(detail.to_owned()),
        retry_millis: None,
    }
}
