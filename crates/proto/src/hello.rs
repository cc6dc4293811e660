//! How a peer proves its key to a relay.
//!
//! 1. peer → relay: [`Hello`](crate::frame::Hello) with the versions it speaks and its signing key.
//! 2. relay → peer: [`Challenge`](crate::frame::Challenge) with a fresh nonce and the version chosen.
//! 3. peer → relay: [`Prove`](crate::frame::Prove), a signature over [`transcript`].
//! 4. relay → peer: [`Welcome`](crate::frame::Welcome), or `Bye` with `bad_proof`.
//!
//! Nothing else is accepted before step 4. No secret is in a URL, and a recorded proof is worth
//! nothing: the nonce is new each time, and the authority that the peer dialled is signed too, so
//! that one relay cannot present a peer's proof to another.

use crate::frame::Nonce;
use crate::sign::{BadSignature, Domain, SigningKey, VerifyingKey};

/// The bytes a peer signs: version (two bytes, big-endian), nonce (32), key (32), and the
/// authority it dialled in lower case (`relay.example` or `localhost:7420`).
#[must_use]
pub fn transcript(version: u16, nonce: &Nonce, key: &VerifyingKey, authority: &str) -> Vec<u8> {
    let authority = authority.to_ascii_lowercase();
    [
        &version.to_be_bytes(),
        nonce.as_slice(),
        key.as_bytes(),
        authority.as_bytes(),
    ]
    .concat()
}

/// Makes the proof.
#[must_use]
pub fn prove(key: &SigningKey, version: u16, nonce: &Nonce, authority: &str) -> [u8; 64] {
    key.sign(
        Domain::HELLO,
        &transcript(version, nonce, &key.verifying_key(), authority),
    )
}

/// Checks the proof.
///
/// # Errors
///
/// [`BadSignature`] when it was not made by `key` for this connection.
pub fn check(
    key: &VerifyingKey,
    version: u16,
    nonce: &Nonce,
    authority: &str,
    proof: &[u8; 64],
) -> Result<(), BadSignature> {
    key.verify(
        Domain::HELLO,
        &transcript(version, nonce, key, authority),
        proof,
    )
}

/// The version two sides share: the highest both know.
#[must_use]
pub fn negotiate(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let highest = ours.1.min(theirs.1);
    (highest >= ours.0 && highest >= theirs.0).then_some(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_bound_to_nonce_and_authority() {
        let key = SigningKey::from_seed([1; 32]);
        let public = key.verifying_key();
        let proof = prove(&key, 1, &[5; 32], "Relay.example");
        assert_eq!(check(&public, 1, &[5; 32], "relay.example", &proof), Ok(()));
        assert_eq!(
            check(&public, 1, &[6; 32], "relay.example", &proof),
            Err(BadSignature)
        );
        assert_eq!(
            check(&public, 1, &[5; 32], "evil.example", &proof),
            Err(BadSignature)
        );
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(negotiate((1, 3), (2, 5)), Some(3));
        assert_eq!(negotiate((1, 1), (2, 2)), None);
    }
}
