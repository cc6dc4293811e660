//! Letters: sealed messages from one peer to another, kept in the addressee's mailbox until it
//! has taken them.
//!
//! A device's **commands** go to the host as letters; the host's **receipts**, content **keys**
//! and the two steps of **pairing** travel the same way. On the wire a letter is the CBOR array
//! `[header, enc, body, signature]` of byte strings: `enc` is the HPKE encapsulated key, `body`
//! the HPKE ciphertext with the header's exact bytes as associated data, and the sender signs
//! [`Letter::hash`].

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::sign::{BadSignature, Domain, SigningKey, VerifyingKey};
use crate::{CommandId, OfferId, PeerId, Timestamp};

/// What a letter is, as far as the relay must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// A device's wish, to a host.
    #[n(0)]
    Command,
    /// How far a command has come, to the device that made it.
    #[n(1)]
    Receipt,
    /// Content keys, to a peer that may view.
    #[n(2)]
    Keys,
    /// A device asks to be paired; the only kind that a stranger may send, and only while the
    /// offer it names is open.
    #[n(3)]
    PairRequest,
    /// The host's answer to that, twice: first its challenge, then its verdict.
    #[n(4)]
    PairAnswer,
    /// Asks the other end to echo; proves the path.
    #[n(5)]
    Probe,
}

/// What the relay may know of a letter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Header {
    /// The cipher suite, [`crate::envelope::SUITE`].
    #[n(0)]
    pub suite: u8,
    /// What it is.
    #[n(1)]
    pub kind: Kind,
    /// Who sends it.
    #[n(2)]
    pub from: PeerId,
    /// Who may open it.
    #[n(3)]
    pub to: PeerId,
    /// Names the letter for ever; a command's id.
    #[n(4)]
    pub id: CommandId,
    /// After this it must have no effect, and the relay may drop it; zero means never.
    #[n(5)]
    pub not_after: Timestamp,
    /// The pairing it belongs to.
    #[n(6)]
    pub offer: Option<OfferId>,
}

/// A letter as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Letter {
    /// The encoded [`Header`], exactly as bound by the seal and the signature.
    #[n(0)]
    pub header: ByteVec,
    /// The HPKE encapsulated key.
    #[n(1)]
    pub enc: ByteArray<32>,
    /// The HPKE ciphertext.
    #[n(2)]
    pub body: ByteVec,
    /// The sender's signature.
    #[n(3)]
    pub signature: ByteArray<64>,
}

impl Header {
    /// The bytes that seal and signature bind.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::frame::to_vec(self)
    }

    /// Whether its time is over at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after.0 != 0 && now > self.not_after
    }
}

impl Letter {
    /// Puts a sealed body behind its header and signs both.
    #[must_use]
    pub fn sign(header: Vec<u8>, enc: [u8; 32], body: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(Domain::LETTER, &hash(&header, &enc, &body));
        Self {
            header: header.into(),
            enc: enc.into(),
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

    /// What the sender signs.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(&self.header, &self.enc, &self.body)
    }

    /// Checks the sender's signature.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when the letter is not what the sender signed.
    pub fn verify(&self, sender: &VerifyingKey) -> Result<(), BadSignature> {
        sender.verify(Domain::LETTER, &self.hash(), &self.signature)
    }
}

/// SHA-256 over the header's length (four bytes, big-endian), the header, `enc` and the body.
fn hash(header: &[u8], enc: &[u8; 32], body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(
        u32::try_from(header.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    hash.update(header);
    hash.update(enc);
    hash.update(body);
    hash.finalize().into()
}
