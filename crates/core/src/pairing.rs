//! Pairing: how host and device learn each other's keys.
//!
//! 1. The host makes an [`Offer`]: a one-time secret, in a link together with its public keys.
//! 2. The device seals a [`PairRequest`] to the host with the link's secret as pre-shared key
//!    (HPKE PSK mode). The host accepts exactly one request for an offer.
//! 3. The host answers with a [`PairAnswer::Challenge`]: a nonce it made after it had the request.
//!    Both sides now show the same [`compare_code`], and a person compares.
//! 4. The person confirms at the host (or on a device that may manage); the host admits the device
//!    to its roster and answers [`PairAnswer::Accepted`], or [`PairAnswer::Refused`].
//!
//! A photographed link gives nothing once it was used or its ten minutes are over. Who uses it
//! first shows a code on the host that the person does not see on their own device. The relay,
//! which does not have the secret, can neither read nor replace a request; and it cannot grind for
//! an equal code, since the nonce that the code depends on is made after the request is fixed.

use farhelm_proto::limits::OFFER_MILLIS;
use farhelm_proto::sign::VerifyingKey;
use farhelm_proto::{Code, OfferId, PeerId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::keys::{PublicKeys, from_base64, to_base64};
use crate::roster::Entry;

const LINK_VERSION: u8 = 1;
const LINK_BYTES: usize = 1 + 32 + 32 + 32 + CHECK;
const CHECK: usize = 4;
const FRAGMENT: &str = "#pair=";

/// What a pairing link holds.
#[derive(ZeroizeOnDrop)]
pub struct Link {
    /// Where the relay is: `https://relay.example` or `http://localhost:7420`.
    #[zeroize(skip)]
    pub relay: String,
    /// The host's public keys.
    #[zeroize(skip)]
    pub host: PublicKeys,
    /// The one-time secret.
    pub secret: [u8; 32],
}

impl Link {
    /// The link as a person passes it on. The secret part is behind the `#`, which browsers do
    /// not send to servers.
    #[must_use]
    pub fn to_url(&self) -> String {
        let mut bytes = vec![LINK_VERSION];
        bytes.extend(self.host.signing.as_bytes());
        bytes.extend(self.host.sealing);
        bytes.extend(self.secret);
        bytes.extend(checksum(&bytes));
        format!(
            "{}/{FRAGMENT}{}",
            self.relay.trim_end_matches('/'),
            to_base64(&bytes)
        )
    }

    /// Reads a link.
    ///
    /// # Errors
    ///
    /// [`Code::BadLink`] when it is cut off, mistyped or something else.
    pub fn parse(url: &str) -> Result<Self, Code> {
        let (relay, fragment) = url.trim().split_once(FRAGMENT).ok_or(Code::BadLink)?;
        let bytes = from_base64(fragment).ok_or(Code::BadLink)?;
        let (content, check) = bytes.split_last_chunk::<CHECK>().ok_or(Code::BadLink)?;
        if bytes.len() != LINK_BYTES || checksum(content) != *check || content[0] != LINK_VERSION {
            return Err(Code::BadLink);
        }
        let part = |from: usize| -> [u8; 32] {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(&content[from..from + 32]);
            bytes
        };
        let signing = VerifyingKey::from_bytes(&part(1)).map_err(|_| Code::BadLink)?;
        let host = PublicKeys {
            signing,
            sealing: part(33),
        };
        Ok(Self {
            relay: relay.trim_end_matches('/').to_owned(),
            host,
            secret: part(65),
        })
    }

    /// The offer that the link is for.
    #[must_use]
    pub fn offer(&self) -> OfferId {
        offer_id(&self.secret)
    }
}

/// What the relay may know of a link's secret.
#[must_use]
pub fn offer_id(secret: &[u8; 32]) -> OfferId {
    let mut hash = Sha256::new();
    hash.update(b"farhelm/1/offer\0");
    hash.update(secret);
    let digest: [u8; 32] = hash.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    OfferId::from_bytes(id)
}

/// The six digits that both sides show, from the pair request's letter hash and the host's nonce.
#[must_use]
pub fn compare_code(request: &[u8; 32], nonce: &[u8; 32]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"farhelm/1/pair-code\0");
    hash.update(request);
    hash.update(nonce);
    let digest: [u8; 32] = hash.finalize().into();
    let number = digest[..8]
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        % 1_000_000;
    format!("{:03} {:03}", number / 1000, number % 1000)
}

/// The body of a pair request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct PairRequest {
    /// What the device calls itself.
    pub name: String,
    /// Its keys; the letter is signed by them.
    pub keys: PublicKeys,
}

/// The body of the host's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PairAnswer {
    /// The request has arrived; compare codes.
    Challenge {
        /// 32 bytes, base64url without padding.
        nonce: String,
        /// The host's name.
        host: String,
        /// [`compare_code`]'s first argument, base64url: binds the answer to the request.
        request: String,
    },
    /// The device belongs to the fleet.
    Accepted {
        /// The whole roster.
        roster: Vec<Entry>,
    },
    /// It does not.
    Refused {
        /// Why.
        code: Code,
    },
}

/// An open pairing at the host.
#[derive(ZeroizeOnDrop)]
pub struct Offer {
    secret: [u8; 32],
    #[zeroize(skip)]
    until: Timestamp,
    #[zeroize(skip)]
    state: State,
}

enum State {
    Open,
    Waiting(Box<Candidate>),
    Settled,
}

/// A device that wants in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its keys.
    pub keys: PublicKeys,
    /// What it calls itself.
    pub name: String,
    /// The code that both sides show.
    pub code: String,
}

impl Offer {
    /// Makes an offer from 32 fresh random bytes.
    #[must_use]
    pub const fn new(secret: [u8; 32], now: Timestamp) -> Self {
        Self {
            secret,
            until: now.plus_millis(OFFER_MILLIS),
            state: State::Open,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> OfferId {
        offer_id(&self.secret)
    }

    /// The one-time secret.
    #[must_use]
    pub const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// When it ends.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }

    /// A device has asked, with a letter of this hash; the first one gets a code.
    ///
    /// # Errors
    ///
    /// [`Code::LinkExpired`] or [`Code::LinkUsed`] for the device; [`Code::BadSignature`] when the
    /// keys are not the sender's.
    pub fn request(
        &mut self,
        now: Timestamp,
        from: PeerId,
        request: &PairRequest,
        letter_hash: &[u8; 32],
        nonce: &[u8; 32],
    ) -> Result<Candidate, Code> {
        if now > self.until {
            return Err(Code::LinkExpired);
        }
        if request.keys.peer() != from {
            return Err(Code::BadSignature);
        }
        match &self.state {
            State::Open => {
                let name = clean_name(&request.name);
                let code = compare_code(letter_hash, nonce);
                let candidate = Candidate {
                    keys: request.keys,
                    name,
                    code,
                };
                self.state = State::Waiting(Box::new(candidate.clone()));
                Ok(candidate)
            }
            State::Waiting(_) | State::Settled => Err(Code::LinkUsed),
        }
    }

    /// A person has decided; gives the device that waited.
    ///
    /// # Errors
    ///
    /// [`Code::NotFound`] when none waits, [`Code::LinkExpired`] when it waited too long.
    pub fn settle(&mut self, now: Timestamp) -> Result<Candidate, Code> {
        let too_late = now > self.until.plus_millis(OFFER_MILLIS);
        match core::mem::replace(&mut self.state, State::Settled) {
            State::Waiting(_) if too_late => Err(Code::LinkExpired),
            State::Waiting(candidate) => Ok(*candidate),
            State::Open => {
                self.state = State::Open;
                Err(Code::NotFound)
            }
            State::Settled => Err(Code::NotFound),
        }
    }

    /// The device that waits for a person.
    #[must_use]
    pub fn waiting(&self) -> Option<&Candidate> {
        match &self.state {
            State::Waiting(candidate) => Some(candidate),
            State::Open | State::Settled => None,
        }
    }
}

/// A name that can be shown: printable, at most 40 characters, never empty.
#[must_use]
pub fn clean_name(name: &str) -> String {
    let printable: String = name
        .chars()
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .take(40)
        .collect();
    let trimmed = printable.trim();
    if trimmed.is_empty() {
        "unnamed device".to_owned()
    } else {
        trimmed.to_owned()
    }
}

/// Format characters that reorder or hide text (Unicode Cf in common use).
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn checksum(bytes: &[u8]) -> [u8; CHECK] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Identity;

    #[test]
    fn a_link_reads_back() {
        let host = Identity::from_seed([1; 64]).unwrap();
        let link = Link {
            relay: "https://relay.example/".into(),
            host: *host.public(),
            secret: [9; 32],
        };
        let read = Link::parse(&link.to_url()).unwrap();
        assert_eq!(
            (read.relay.as_str(), read.host, read.secret),
            ("https://relay.example", link.host, link.secret)
        );
    }

    #[test]
    fn a_link_cut_off_anywhere_is_refused() {
        let host = Identity::from_seed([1; 64]).unwrap();
        let url = Link {
            relay: "http://localhost:1".into(),
            host: *host.public(),
            secret: [9; 32],
        }
        .to_url();
        for end in 0..url.len() {
            assert_eq!(Link::parse(&url[..end]).err(), Some(Code::BadLink));
        }
    }

    #[test]
    fn s16_the_second_to_use_a_link_is_refused() {
        let (mut offer, request, from) = asked();
        assert!(
            offer
                .request(Timestamp(2), from, &request, &[1; 32], &[2; 32])
                .is_ok()
        );
        let second = offer.request(Timestamp(2), from, &request, &[1; 32], &[2; 32]);
        assert_eq!(second, Err(Code::LinkUsed));
    }

    #[test]
    fn an_offer_ends_after_ten_minutes() {
        let (mut offer, request, from) = asked();
        let late = offer.request(Timestamp(600_002), from, &request, &[1; 32], &[2; 32]);
        assert_eq!(late, Err(Code::LinkExpired));
    }

    #[test]
    fn s16_a_request_with_somebody_elses_keys_is_refused() {
        let (mut offer, request, _) = asked();
        let other = Identity::from_seed([3; 64]).unwrap().peer();
        assert_eq!(
            offer.request(Timestamp(2), other, &request, &[1; 32], &[2; 32]),
            Err(Code::BadSignature)
        );
    }

    #[test]
    fn s24_names_lose_what_cannot_be_seen() {
        assert_eq!(clean_name("ph\u{202e}one\u{7}\n "), "phone");
        assert_eq!(clean_name("\u{200b}"), "unnamed device");
    }

    fn asked() -> (Offer, PairRequest, PeerId) {
        let device = Identity::from_seed([2; 64]).unwrap();
        let request = PairRequest {
            name: "phone".into(),
            keys: *device.public(),
        };
        (Offer::new([7; 32], Timestamp(1)), request, device.peer())
    }
}
