//! Signatures that peers and the relay share: Ed25519 (RFC 8032) with domain separation.
//!
//! Every signature in the protocol is over `domain || message`, where the domain is one of the
//! constants below and ends in a zero byte, so that a signature made for one purpose is never
//! valid for another.

use ed25519_dalek::{Signer as _, Verifier as _};
use zeroize::Zeroize as _;

/// A domain-separation prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(&'static [u8]);

impl Domain {
    /// A peer proves its key to a relay.
    pub const HELLO: Self = Self(b"farhelm/1/hello\0");
    /// A host signs an envelope.
    pub const ENVELOPE: Self = Self(b"farhelm/1/envelope\0");
    /// A peer signs a letter.
    pub const LETTER: Self = Self(b"farhelm/1/letter\0");
    /// A daemon proves itself to the keeper of an agent.
    pub const KEEPER: Self = Self(b"farhelm/1/keeper\0");
    /// A signer extends the roster.
    pub const ROSTER: Self = Self(b"farhelm/1/roster\0");

    /// The bytes that go before the message.
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        self.0
    }

    fn message(self, message: &[u8]) -> Vec<u8> {
        [self.0, message].concat()
    }
}

/// The signature does not belong to this key and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signature does not match")]
pub struct BadSignature;

/// The public half of a peer's signing key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// Reads a key from its 32 bytes.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when the bytes are not a point on the curve, or a weak one.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BadSignature> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| BadSignature)?;
        if key.is_weak() {
            return Err(BadSignature);
        }
        Ok(Self(key))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Checks `signature` over `message` in `domain`.
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when it was not made by this key over exactly this.
    pub fn verify(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), BadSignature> {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0
            .verify(&domain.message(message), &signature)
            .map_err(|_| BadSignature)
    }
}

impl core::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "VerifyingKey({})", crate::PeerId::of(self))
    }
}

/// A peer's signing key. Neither cloned nor printed.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Makes the key that belongs to 32 secret random bytes.
    #[must_use]
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let key = Self(ed25519_dalek::SigningKey::from_bytes(&seed));
        seed.zeroize();
        key
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs `message` in `domain`.
    #[must_use]
    pub fn sign(&self, domain: Domain, message: &[u8]) -> [u8; 64] {
        self.0.sign(&domain.message(message)).to_bytes()
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_valid_in_its_own_domain_only() {
        let key = SigningKey::from_seed([3; 32]);
        let signature = key.sign(Domain::LETTER, b"hi");
        let public = key.verifying_key();
        assert_eq!(public.verify(Domain::LETTER, b"hi", &signature), Ok(()));
        assert_eq!(
            public.verify(Domain::ENVELOPE, b"hi", &signature),
            Err(BadSignature)
        );
        assert_eq!(
            public.verify(Domain::LETTER, b"ho", &signature),
            Err(BadSignature)
        );
    }
}
