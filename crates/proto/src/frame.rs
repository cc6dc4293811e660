//! Frames: one WebSocket binary message each, between a peer and a relay.
//!
//! A frame is the CBOR array `[number, [body]]`. Bodies are maps with integer keys, so that a
//! receiver skips fields it does not know. A frame whose number it does not know is answered with
//! `Problem { unknown_frame }` and skipped. All numbers stand in [`Frame`], none is used twice.

use bytes::Bytes;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::{Decode, Encode};

use crate::envelope::{self, Envelope};
use crate::letter::{self, Letter};
use crate::{Code, CommandId, OfferId, PeerId, StreamId, Timestamp};

/// Fresh random bytes that a relay challenges a peer with.
pub type Nonce = [u8; 32];

/// Every frame. Since version 1 unless said otherwise.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Frame {
    /// peer → relay. Opens the handshake.
    #[n(1)]
    Hello(#[n(0)] Hello),
    /// relay → peer. Answers `Hello`.
    #[n(2)]
    Challenge(#[n(0)] Challenge),
    /// peer → relay. Answers `Challenge`.
    #[n(3)]
    Prove(#[n(0)] Prove),
    /// relay → peer. The peer is who it says.
    #[n(4)]
    Welcome(#[n(0)] Welcome),
    /// Both ways. The last frame before closing.
    #[n(5)]
    Bye(#[n(0)] Bye),
    /// Both ways. Asks for `Pong` with the same number.
    #[n(6)]
    Ping(#[n(0)] u64),
    /// Both ways. Answers `Ping`.
    #[n(7)]
    Pong(#[n(0)] u64),
    /// relay → peer. A frame was not acted on; the connection stays.
    #[n(8)]
    Problem(#[n(0)] Problem),

    /// host → relay. The devices that may read this host's streams and write to it; replaces
    /// what was said before.
    #[n(10)]
    Members(#[n(0)] Members),
    /// host → relay. Asks how far a stream is stored.
    #[n(11)]
    Locate(#[n(0)] Locate),
    /// relay → host. Answers `Locate`.
    #[n(12)]
    Located(#[n(0)] Located),
    /// host → relay → devices. A sealed batch of events or a live envelope, forwarded byte for
    /// byte.
    #[n(13)]
    Envelope(#[n(0)] Envelope),
    /// relay → host. All of the stream up to here is stored.
    #[n(14)]
    Stored(#[n(0)] Stored),

    /// device → relay. Follow a stream from a cursor.
    #[n(20)]
    Subscribe(#[n(0)] Subscribe),
    /// relay → device. Where the stream stands; envelopes follow.
    #[n(21)]
    Subscribed(#[n(0)] Subscribed),
    /// device → relay. Stop following.
    #[n(22)]
    Unsubscribe(#[n(0)] Unsubscribe),
    /// device → relay. Asks for stored envelopes, newest first.
    #[n(23)]
    Fetch(#[n(0)] Fetch),
    /// relay → device. Answers `Fetch`.
    #[n(24)]
    Page(#[n(0)] Page),
    /// relay → device. Whether a host is connected.
    #[n(25)]
    Presence(#[n(0)] Presence),

    /// peer → relay → peer. A sealed letter, forwarded byte for byte.
    #[n(30)]
    Letter(#[n(0)] Letter),
    /// relay → sender. The letter is in the mailbox.
    #[n(31)]
    Posted(#[n(0)] Posted),
    /// addressee → relay. The letter is safe here; forget it.
    #[n(32)]
    Taken(#[n(0)] Taken),

    /// host → relay. A pairing link exists; let strangers' pair requests for it through.
    #[n(40)]
    OpenOffer(#[n(0)] OpenOffer),
    /// host → relay. The pairing link is used or withdrawn.
    #[n(41)]
    CloseOffer(#[n(0)] CloseOffer),

    /// host → relay. Stores a sealed blob.
    #[n(50)]
    PutBlob(#[n(0)] PutBlob),
    /// device → relay; relay → host when it does not have it.
    #[n(51)]
    WantBlob(#[n(0)] WantBlob),
    /// relay → device. Answers `WantBlob`.
    #[n(52)]
    Blob(#[n(0)] Blob),
}

/// What a peer is, for presence and statistics; grants nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Writes streams.
    #[n(0)]
    Host,
    /// Reads streams.
    #[n(1)]
    Device,
}

/// Opens the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The oldest protocol version the peer speaks.
    #[n(0)]
    pub oldest: u16,
    /// The newest protocol version the peer speaks.
    #[n(1)]
    pub newest: u16,
    /// Whether it comes as a host or as a device.
    #[n(2)]
    pub role: Role,
    /// Its Ed25519 key.
    #[n(3)]
    pub key: ByteArray<32>,
    /// Program and version, for the operator's log.
    #[n(4)]
    pub agent: Option<String>,
    /// The authority it dialled, as signed in the proof.
    #[n(5)]
    pub authority: String,
    /// A host counts its connections up, so that the newer of two wins; others send zero.
    #[n(6)]
    pub generation: Option<u64>,
    /// The silence after which it wants the connection to count as dead, in milliseconds, when it
    /// wants to know sooner than the relay's usual peers. `Welcome` says what it gets.
    #[n(7)]
    pub dead_millis: Option<u64>,
}

/// Asks the peer to prove its key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Challenge {
    /// The version chosen.
    #[n(0)]
    pub version: u16,
    /// Fresh for this connection.
    #[n(1)]
    pub nonce: ByteArray<32>,
}

/// Proves the key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Prove {
    /// Signature over [`crate::hello::transcript`].
    #[n(0)]
    pub proof: ByteArray<64>,
}

/// The connection is open.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// Names the relay's store; another value means that it lost what it had, and the host must
    /// send it again.
    #[n(0)]
    pub store: ByteArray<16>,
    /// The relay's clock, for a warning when the peer's differs much.
    #[n(1)]
    pub now: Timestamp,
    /// The relay's program and version.
    #[n(2)]
    pub agent: String,
    /// How often the peer should send `Ping`, in milliseconds.
    #[n(3)]
    pub ping_millis: u64,
    /// Silence after which either side may give the connection up, in milliseconds.
    #[n(4)]
    pub dead_millis: u64,
}

/// The last frame before closing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Bye {
    /// Why.
    #[n(0)]
    pub code: Code,
    /// Detail for the log; never content.
    #[n(1)]
    pub detail: Option<String>,
    /// When to come back, in milliseconds.
    #[n(2)]
    pub retry_millis: Option<u64>,
}

/// A frame was not acted on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Problem {
    /// Why.
    #[n(0)]
    pub code: Code,
    /// The request it answers, of `Fetch` and `WantBlob`.
    #[n(1)]
    pub request: Option<u64>,
    /// The letter it answers.
    #[n(2)]
    pub letter: Option<CommandId>,
    /// The stream it is about.
    #[n(3)]
    pub stream: Option<StreamId>,
    /// Detail for the log; never content.
    #[n(4)]
    pub detail: Option<String>,
    /// The number of the frame that was not understood.
    #[n(5)]
    pub frame: Option<u64>,
}

/// Who may read a host's streams and write to it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Members {
    /// Counts up with each change; the relay keeps the highest.
    #[n(0)]
    pub version: u64,
    /// The devices.
    #[n(1)]
    pub devices: Vec<PeerId>,
}

/// Asks how far a stream of this host is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Locate {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
}

/// How far a stream is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Located {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// Seq of the last event stored; zero when there is none.
    #[n(1)]
    pub head: u64,
    /// Hash of the last envelope stored; empty when there is none.
    #[n(2)]
    pub hash: ByteVec,
}

/// The relay's receipt for durable envelopes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stored {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// Seq of the last event stored.
    #[n(1)]
    pub head: u64,
}

/// Follow a stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subscribe {
    /// Whose stream.
    #[n(0)]
    pub host: PeerId,
    /// Which stream.
    #[n(1)]
    pub stream: StreamId,
    /// The reader's cursor: envelopes after it are sent. None: begin at the newest snapshot, or
    /// at the head when there is none within `tail` events.
    #[n(2)]
    pub after: Option<u64>,
    /// Without a cursor: how many events before the head to begin with, when no snapshot is
    /// nearer. The envelope that holds the first of them is sent whole.
    #[n(3)]
    pub tail: Option<u64>,
}

/// The answer to `Subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subscribed {
    /// Whose stream.
    #[n(0)]
    pub host: PeerId,
    /// Which stream.
    #[n(1)]
    pub stream: StreamId,
    /// Seq of the last event stored at this moment; zero when there is none.
    #[n(2)]
    pub head: u64,
    /// Seq before the first event that will be sent.
    #[n(3)]
    pub from: u64,
    /// Seq of the newest snapshot; zero when there is none.
    #[n(4)]
    pub base: u64,
    /// The relay cannot give what follows the reader's cursor any more: `from` is beyond it, at
    /// the newest snapshot, with which the reader begins anew.
    #[n(5)]
    pub gap: Option<bool>,
}

/// Stop following a stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Unsubscribe {
    /// Whose stream.
    #[n(0)]
    pub host: PeerId,
    /// Which stream.
    #[n(1)]
    pub stream: StreamId,
}

/// Asks for stored envelopes that end before a seq.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Fetch {
    /// Chosen by the device; comes back with the answer.
    #[n(0)]
    pub request: u64,
    /// Whose stream.
    #[n(1)]
    pub host: PeerId,
    /// Which stream.
    #[n(2)]
    pub stream: StreamId,
    /// Envelopes whose last event is before this seq.
    #[n(3)]
    pub before: u64,
    /// At most so many bytes; at least one envelope is sent when there is one.
    #[n(4)]
    pub max_bytes: u64,
}

/// Stored envelopes in rising order.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Page {
    /// The request it answers.
    #[n(0)]
    pub request: u64,
    /// The envelopes that end right before the seq asked for, in rising order.
    #[n(1)]
    pub envelopes: Vec<Envelope>,
    /// Whether there are older ones.
    #[n(2)]
    pub more: bool,
}

/// Whether a host is connected to this relay.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Presence {
    /// The host.
    #[n(0)]
    pub host: PeerId,
    /// Whether it is connected.
    #[n(1)]
    pub online: bool,
    /// Since when; zero when the relay does not know.
    #[n(2)]
    pub since: Timestamp,
}

/// The relay's receipt for a letter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Posted {
    /// The letter.
    #[n(0)]
    pub id: CommandId,
}

/// The addressee has made a letter safe.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Taken {
    /// Who sent it.
    #[n(0)]
    pub from: PeerId,
    /// The letter.
    #[n(1)]
    pub id: CommandId,
}

/// A pairing link exists.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OpenOffer {
    /// Derived from the link's secret.
    #[n(0)]
    pub offer: OfferId,
    /// When it ends.
    #[n(1)]
    pub until: Timestamp,
}

/// A pairing link is used or withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CloseOffer {
    /// Which.
    #[n(0)]
    pub offer: OfferId,
    /// The stranger whose pair request was accepted and who may be written to until its pairing
    /// ends.
    #[n(1)]
    pub keep: Option<PeerId>,
}

/// Stores a blob.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PutBlob {
    /// SHA-256 of `bytes`.
    #[n(0)]
    pub name: ByteArray<32>,
    /// Nonce and ciphertext.
    #[n(1)]
    pub bytes: ByteVec,
}

/// Asks for a blob.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WantBlob {
    /// Chosen by the device; comes back with the answer.
    #[n(0)]
    pub request: u64,
    /// Whose blob.
    #[n(1)]
    pub host: PeerId,
    /// SHA-256 of the sealed bytes.
    #[n(2)]
    pub name: ByteArray<32>,
}

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Blob {
    /// The request it answers.
    #[n(0)]
    pub request: u64,
    /// Nonce and ciphertext.
    #[n(1)]
    pub bytes: ByteVec,
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is whole, but of a kind this side does not know.
    #[error("frame of unknown kind {0}")]
    Unknown(u64),
    /// The bytes are no frame at all.
    #[error("not a frame: {0}")]
    Malformed(DecodeError),
}

impl FrameError {
    /// What to tell the other side.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unknown(_) => Code::UnknownFrame,
            Self::Malformed(_) => Code::BadFrame,
        }
    }
}

impl Frame {
    /// The bytes of one WebSocket message.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        to_vec(self).into()
    }

    /// Reads one WebSocket message.
    ///
    /// # Errors
    ///
    /// [`FrameError`] when it is not exactly one frame of a known kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut decoder = Decoder::new(bytes);
        let frame: Self = decoder.decode().map_err(|error| {
            kind(bytes)
                .filter(|n| !is_known(*n))
                .map_or(FrameError::Malformed(error), FrameError::Unknown)
        })?;
        if decoder.position() == bytes.len() {
            Ok(frame)
        } else {
            Err(FrameError::Malformed(DecodeError::message(
                "bytes after the frame",
            )))
        }
    }
}

/// The number of a frame, without reading its body.
#[must_use]
pub fn kind(bytes: &[u8]) -> Option<u64> {
    let mut decoder = Decoder::new(bytes);
    (decoder.array().ok()? == Some(2))
        .then(|| decoder.u64().ok())
        .flatten()
}

/// The clear header of an envelope frame and the length of its body, without copying either;
/// nothing when the frame is of another kind.
///
/// # Errors
///
/// When the bytes are an envelope frame that is malformed.
pub fn envelope_header(bytes: &[u8]) -> Result<Option<(envelope::Header, usize)>, DecodeError> {
    if kind(bytes) != Some(13) {
        return Ok(None);
    }
    let mut decoder = body(bytes)?;
    expect_array(&mut decoder, 3)?;
    let header = minicbor::decode(decoder.bytes()?)?;
    let length = decoder.bytes()?.len();
    expect_end(&mut decoder, bytes.len(), 64)?;
    Ok(Some((header, length)))
}

/// The clear header of a letter frame and the length of its body, without copying either;
/// nothing when the frame is of another kind.
///
/// # Errors
///
/// When the bytes are a letter frame that is malformed.
pub fn letter_header(bytes: &[u8]) -> Result<Option<(letter::Header, usize)>, DecodeError> {
    if kind(bytes) != Some(30) {
        return Ok(None);
    }
    let mut decoder = body(bytes)?;
    expect_array(&mut decoder, 4)?;
    let header = minicbor::decode(decoder.bytes()?)?;
    if decoder.bytes()?.len() != 32 {
        return Err(DecodeError::message("an encapsulated key has 32 bytes"));
    }
    let length = decoder.bytes()?.len();
    expect_end(&mut decoder, bytes.len(), 64)?;
    Ok(Some((header, length)))
}

/// Encodes a value of this crate; encoding into memory cannot fail.
pub(crate) fn to_vec<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default()
}

/// A decoder that stands before the single field of a frame.
fn body(bytes: &[u8]) -> Result<Decoder<'_>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    expect_array(&mut decoder, 2)?;
    decoder.skip()?;
    expect_array(&mut decoder, 1)?;
    Ok(decoder)
}

fn expect_array(decoder: &mut Decoder<'_>, length: u64) -> Result<(), DecodeError> {
    if decoder.array()? == Some(length) {
        Ok(())
    } else {
        Err(DecodeError::message(
            "an array of another length was expected",
        ))
    }
}

fn expect_end(
    decoder: &mut Decoder<'_>,
    total: usize,
    signature: usize,
) -> Result<(), DecodeError> {
    if decoder.datatype()? == Type::Bytes
        && decoder.bytes()?.len() == signature
        && decoder.position() == total
    {
        Ok(())
    } else {
        Err(DecodeError::message(
            "a signature of 64 bytes must end the frame",
        ))
    }
}

const fn is_known(number: u64) -> bool {
    matches!(number, 1..=8 | 10..=14 | 20..=25 | 30..=32 | 40..=41 | 50..=52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Header, Lane, NO_HASH, SUITE};
    use crate::sign::SigningKey;

    #[test]
    fn an_envelope_frame_gives_its_header_without_being_read_whole() {
        let (header, frame) = sample();
        let bytes = frame.to_bytes();
        let (peeked, length) = envelope_header(&bytes).unwrap().unwrap();
        assert_eq!((peeked, length), (header, 3));
        assert_eq!(Frame::parse(&bytes).unwrap(), frame);
    }

    #[test]
    fn bytes_after_a_frame_are_refused() {
        let mut bytes = Frame::Ping(7).to_bytes().to_vec();
        bytes.push(0);
        assert!(matches!(
            Frame::parse(&bytes),
            Err(FrameError::Malformed(_))
        ));
    }

    #[test]
    fn f22_an_unknown_frame_is_named_by_its_number() {
        let bytes = minicbor::to_vec((999_u64, (1_u8,))).unwrap();
        assert!(matches!(
            Frame::parse(&bytes),
            Err(FrameError::Unknown(999))
        ));
    }

    #[test]
    fn f22_every_prefix_and_every_bit_flip_is_survived() {
        let bytes = sample().1.to_bytes().to_vec();
        for end in 0..bytes.len() {
            assert!(Frame::parse(&bytes[..end]).is_err());
            assert!(
                envelope_header(&bytes[..end])
                    .map(|found| found.is_none())
                    .unwrap_or(true)
            );
        }
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            drop(Frame::parse(&bent));
            drop(envelope_header(&bent));
        }
    }

    #[test]
    fn every_known_number_is_listed() {
        let unknown = (0..200).filter(|n| {
            let bytes = minicbor::to_vec((*n, [(); 0])).unwrap();
            matches!(Frame::parse(&bytes), Err(FrameError::Unknown(_)))
        });
        assert!(unknown.into_iter().all(|n: u64| !is_known(n)));
    }

    fn sample() -> (Header, Frame) {
        let key = SigningKey::from_seed([9; 32]);
        let host = PeerId::of_signer(&key);
        let header = Header {
            suite: SUITE,
            lane: Lane::Durable,
            host,
            stream: host.into(),
            epoch: 1,
            first: 1,
            last: 2,
            prev: NO_HASH,
            base: 0,
        };
        let envelope = Envelope::sign(header.to_bytes(), vec![1, 2, 3], &key);
        (header, Frame::Envelope(envelope))
    }
}
