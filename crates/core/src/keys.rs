//! The keys of a peer and of a stream.
//!
//! A peer has an Ed25519 key for signing and an X25519 key for being written to (HPKE, RFC 9180).
//! A stream has a content key for each epoch; it is wrapped in a letter for each peer that may
//! view.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farhelm_proto::PeerId;
use farhelm_proto::sign::{SigningKey, VerifyingKey};
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, ZeroizeOnDrop};

pub(crate) type Kem = hpke::kem::X25519HkdfSha256;

/// A peer's secret keys. Neither cloned nor printed.
pub struct Identity {
    signing: SigningKey,
    sealing: <Kem as hpke::Kem>::PrivateKey,
    public: PublicKeys,
}

/// Bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid key")]
pub struct BadKey;

impl Identity {
    /// The keys that belong to 64 secret random bytes.
    ///
    /// # Errors
    ///
    /// [`BadKey`] when the bytes cannot be a key, which random bytes practically never are.
    pub fn from_seed(mut seed: [u8; 64]) -> Result<Self, BadKey> {
        let mut signing_seed = [0; 32];
        signing_seed.copy_from_slice(&seed[..32]);
        let signing = SigningKey::from_seed(signing_seed);
        let sealing =
            <Kem as hpke::Kem>::PrivateKey::from_bytes(&seed[32..]).map_err(|_| BadKey)?;
        seed.zeroize();
        signing_seed.zeroize();
        let mut sealing_public = [0; 32];
        sealing_public.copy_from_slice(&Kem::sk_to_pk(&sealing).to_bytes());
        let public = PublicKeys {
            signing: signing.verifying_key(),
            sealing: sealing_public,
        };
        Ok(Self {
            signing,
            sealing,
            public,
        })
    }

    /// Who this is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.public.peer()
    }

    /// The public halves.
    #[must_use]
    pub const fn public(&self) -> &PublicKeys {
        &self.public
    }

    /// The signing key.
    #[must_use]
    pub const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    pub(crate) const fn sealing(&self) -> &<Kem as hpke::Kem>::PrivateKey {
        &self.sealing
    }
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Identity({})", self.peer())
    }
}

/// The public halves of a peer's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PublicKeysText", into = "PublicKeysText")]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(as = "PublicKeysText"))]
pub struct PublicKeys {
    /// Ed25519.
    pub signing: VerifyingKey,
    /// X25519.
    pub sealing: [u8; 32],
}

impl PublicKeys {
    /// Whose they are.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        PeerId::of(&self.signing)
    }

    pub(crate) fn sealing_key(&self) -> Result<<Kem as hpke::Kem>::PublicKey, BadKey> {
        <Kem as hpke::Kem>::PublicKey::from_bytes(&self.sealing).map_err(|_| BadKey)
    }
}

/// Public keys as JSON has them: base64url without padding.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(rename = "PublicKeys"))]
pub struct PublicKeysText {
    /// Ed25519.
    pub signing: String,
    /// X25519.
    pub sealing: String,
}

impl From<PublicKeys> for PublicKeysText {
    fn from(keys: PublicKeys) -> Self {
        Self {
            signing: to_base64(keys.signing.as_bytes()),
            sealing: to_base64(&keys.sealing),
        }
    }
}

impl TryFrom<PublicKeysText> for PublicKeys {
    type Error = BadKey;

    fn try_from(text: PublicKeysText) -> Result<Self, BadKey> {
        let signing = from_base64(&text.signing)
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(BadKey)?;
        let sealing = from_base64(&text.sealing)
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(BadKey)?;
        let keys = Self {
            signing: VerifyingKey::from_bytes(&signing).map_err(|_| BadKey)?,
            sealing,
        };
        keys.sealing_key()?;
        Ok(keys)
    }
}

/// The key that seals one epoch of a stream.
#[derive(ZeroizeOnDrop)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// The key of 32 secret random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for wrapping and for the store.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl core::fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ContentKey(***)")
    }
}

/// The body of a `Keys` letter: content keys of one stream.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct KeyBundle {
    /// The stream they are for.
    pub stream: farhelm_proto::StreamId,
    /// The keys.
    pub keys: Vec<EpochKey>,
}

/// One content key as it travels inside a sealed letter.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct EpochKey {
    /// Its epoch.
    pub epoch: u32,
    /// The key, base64url without padding.
    pub key: String,
}

/// Base64url without padding (RFC 4648 section 5).
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url without padding.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
