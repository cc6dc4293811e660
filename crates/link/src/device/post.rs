//! Letters between this device and one host: sealing commands, opening what the host wrote.

use farhelm_core::command::CommandBody;
use farhelm_core::keys::{Identity, PublicKeys};
use farhelm_core::seal::{open_letter, seal_letter};
use farhelm_proto::envelope::SUITE;
use farhelm_proto::frame::{Frame, Taken};
use farhelm_proto::letter::{Header, Kind, Letter};
use farhelm_proto::{Code, CommandId, Timestamp, limits};

use crate::device::DeviceError;
use crate::rng;

/// A letter of the host, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
}

impl Opened {
    /// Tells the relay that the letter is safe here.
    pub(crate) fn taken(&self) -> Frame {
        Frame::Taken(Taken {
            from: self.header.from,
            id: self.header.id,
        })
    }
}

/// Why a letter is not believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// It is somebody else's business.
    NotOurs,
    /// It names the host as its sender, and is not from the host, or was altered.
    Forged(Code),
}

/// Opens a letter that `host` wrote to `me`.
pub(crate) fn open(me: &Identity, host: &PublicKeys, letter: &Letter) -> Result<Opened, Distrust> {
    let header = letter
        .parse_header()
        .map_err(|_| Distrust::Forged(Code::BadFrame))?;
    if header.to != me.peer() || header.from != host.peer() {
        return Err(Distrust::NotOurs);
    }
    letter
        .verify(&host.signing)
        .map_err(|_| Distrust::Forged(Code::BadSignature))?;
    if header.suite != SUITE {
        return Err(Distrust::Forged(Code::UnsupportedVersion));
    }
    let body = open_letter(me, letter).map_err(|_| Distrust::Forged(Code::BadSeal))?;
    Ok(Opened { header, body })
}

/// Seals a command for `host`.
pub(crate) fn seal(
    me: &Identity,
    host: &PublicKeys,
    body: &CommandBody,
    id: CommandId,
    not_after: Timestamp,
) -> Result<Letter, DeviceError> {
    let body = serde_json::to_vec(body).map_err(|error| {
        DeviceError::because(
            Code::BadCommand,
            format!("the command cannot be written: {error}"),
        )
    })?;
    seal_body(me, host, Kind::Command, &body, id, not_after)
}

/// Seals a letter of any kind for `host`.
pub(crate) fn seal_body(
    me: &Identity,
    host: &PublicKeys,
    kind: Kind,
    body: &[u8],
    id: CommandId,
    not_after: Timestamp,
) -> Result<Letter, DeviceError> {
    let header = Header {
        suite: SUITE,
        kind,
        from: me.peer(),
        to: host.peer(),
        id,
        not_after,
        offer: None,
    };
    let letter = seal_letter(me, host, &header, body, &mut rng::os_rng()).map_err(|_| {
        DeviceError::because(
            Code::BadSeal,
            "the host's key cannot be sealed for; pair again",
        )
    })?;
    if letter.body.len() > limits::LETTER_BODY_BYTES {
        let most = limits::LETTER_BODY_BYTES / 1024;
        return Err(DeviceError::because(
            Code::TooLarge,
            format!("a command may have {most} KiB at most"),
        ));
    }
    Ok(letter)
}
