//! Envelopes: what a host writes and its devices read, sealed, in two lanes.
//!
//! 1. **Durable lane.** One envelope carries the events `first..=last` of a stream. Each names
//!    the hash of the one before it, and the host signs each, so that nobody who can read a
//!    stream can write it, and nobody in between can drop, reorder or splice.
//! 2. **Live lane.** Deltas and progress that a later event supersedes. Signed too, never stored.
//!
//! The header is clear, and the seal binds its exact bytes as associated data. On the wire an
//! envelope is the CBOR array `[header, body, signature]` of three byte strings, where `header`
//! holds the CBOR array [`Header`] and `body` is a 12-byte nonce and the AES-256-GCM ciphertext.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::sign::{BadSignature, Domain, SigningKey, VerifyingKey};
use crate::{PeerId, StreamId};

/// The cipher suite of this version: HPKE X25519/HKDF-SHA256/AES-256-GCM, Ed25519, AES-256-GCM.
pub const SUITE: u8 = 1;

/// A SHA-256 over an envelope; links it to the next.
pub type Hash = [u8; 32];

/// The hash that the first envelope of a stream names as its predecessor.
pub const NO_HASH: Hash = [0; 32];

/// Which road an envelope takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Lane {
    /// Events that last.
    #[n(0)]
    Durable,
    /// Deltas that an event supersedes.
    #[n(1)]
    Live,
}

/// What the relay may know of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Header {
    /// The cipher suite, [`SUITE`].
    #[n(0)]
    pub suite: u8,
    /// Durable or live.
    #[n(1)]
    pub lane: Lane,
    /// Who writes the stream.
    #[n(2)]
    pub host: PeerId,
    /// Which stream.
    #[n(3)]
    pub stream: StreamId,
    /// Which content key seals the body.
    #[n(4)]
    pub epoch: u32,
    /// Durable: seq of the first event inside. Live: seq of the last event that came before it.
    #[n(5)]
    pub first: u64,
    /// Durable: seq of the last event inside. Live: counts the live envelopes of this epoch.
    #[n(6)]
    pub last: u64,
    /// Durable: hash of the envelope before, [`NO_HASH`] for the first. Live: hash of the newest
    /// durable one.
    #[n(7)]
    #[cbor(with = "hash_bytes")]
    pub prev: Hash,
    /// Seq of the newest snapshot event at or before `last`; 0 when there is none. A reader
    /// without a cursor may begin there.
    #[n(8)]
    pub base: u64,
}

/// An envelope as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Envelope {
    /// The encoded [`Header`], exactly as bound by the seal and the signature.
    #[n(0)]
    pub header: ByteVec,
    /// Nonce and ciphertext.
    #[n(1)]
    pub body: ByteVec,
    /// The host's Ed25519 signature over [`Envelope::hash`].
    #[n(2)]
    pub signature: ByteArray<64>,
}

impl Header {
    /// The bytes that seal and signature bind.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::frame::to_vec(self)
    }
}

impl Envelope {
    /// Puts a sealed body behind its header and signs both.
    #[must_use]
    pub fn sign(header: Vec<u8>, body: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(Domain::ENVELOPE, &hash(&header, &body));
        Self {
            header: header.into(),
            body: body.into(),
            signature: signature.into(),
        }
    }

    /// Reads the clear header.
    ///
    /// # Errors
    ///
    /// When the header is not one of this version.
    pub fn parse_header(&self) -> Result<Header, minicbor::decode::Error> {
        minicbor::decode(&self.header)
    }

    /// What the next envelope of the stream names as `prev`, and what the host signs.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash(&self.header, &self.body)
    }

    /// Checks the host's signature.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when header or body is not what the host signed.
    pub fn verify(&self, host: &VerifyingKey) -> Result<(), BadSignature> {
        host.verify(Domain::ENVELOPE, &self.hash(), &self.signature)
    }
}

/// SHA-256 over the header's length (four bytes, big-endian), the header and the body.
#[must_use]
pub fn hash(header: &[u8], body: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update(
        u32::try_from(header.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    hash.update(header);
    hash.update(body);
    hash.finalize().into()
}

pub(crate) mod hash_bytes {
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    pub(crate) fn encode<C, W: Write>(
        hash: &[u8; 32],
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(hash)?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<[u8; 32], DecodeError> {
        let at = d.position();
        d.bytes()?
            .try_into()
            .map_err(|_| DecodeError::message("expected 32 bytes").at(at))
    }
}
