//! Typed ids. Sixteen bytes each; `UUIDv7` where the maker is one of us, a key hash for peers.
//!
//! On the wire an id is a CBOR byte string of length 16; for people and in JSON it is a prefix
//! and 32 hexadecimal digits, `ses_0199…`.

use core::fmt;
use core::str::FromStr;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use sha2::{Digest as _, Sha256};

use crate::sign::{SigningKey, VerifyingKey};

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: expected {prefix} and 32 hexadecimal digits")]
pub struct ParseIdError {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// What the printed form starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Wraps sixteen bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Makes an id that sorts by `now`, from ten fresh random bytes (RFC 9562, `UUIDv7`).
            #[must_use]
            pub fn fresh(now: crate::Timestamp, random: [u8; 10]) -> Self {
                let uuid = uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid();
                Self(uuid.into_bytes())
            }

            /// When it was made, by the clock of whoever made it and as far as that one is honest.
            #[must_use]
            pub const fn made_at(&self) -> crate::Timestamp {
                let [a, b, c, d, e, f, ..] = self.0;
                crate::Timestamp(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
            }

            /// The sixteen bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix)
                    .and_then(from_hex)
                    .map(Self)
                    .ok_or(ParseIdError { prefix: $prefix })
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                let at = d.position();
                let bytes = d.bytes()?;
                <[u8; 16]>::try_from(bytes)
                    .map(Self)
                    .map_err(|_| DecodeError::message("an id has sixteen bytes").at(at))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "ts")]
        impl ts_rs::TS for $name {
            type WithoutGenerics = Self;
            type OptionInnerType = Self;
            fn name(_: &ts_rs::Config) -> String {
                "string".to_owned()
            }
            fn inline(cfg: &ts_rs::Config) -> String {
                Self::name(cfg)
            }
        }
    };
}

id!(
    /// A host or device: the first 16 bytes of the SHA-256 of its signing key, so that nobody can
    /// claim an id without holding the key that belongs to it.
    PeerId,
    "peer_"
);
id!(
    /// One conversation with one agent on one host.
    SessionId,
    "ses_"
);
id!(
    /// One log of a host: a session's, or the host's own (whose id is the host's).
    StreamId,
    "str_"
);
id!(
    /// A device's wish, made by the device; has its effect at most once, for ever.
    CommandId,
    "cmd_"
);
id!(
    /// A question of an agent.
    ApprovalId,
    "apr_"
);
id!(
    /// One prompt until the agent yields.
    TurnId,
    "trn_"
);
id!(
    /// A prompt that waits or runs.
    PromptId,
    "prm_"
);
id!(
    /// An open pairing; derived from the link's secret, so that the relay can route to it.
    OfferId,
    "off_"
);

impl PeerId {
    /// The id of the peer that signs with `key`.
    #[must_use]
    pub fn of(key: &VerifyingKey) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"farhelm/1/peer\0");
        hash.update(key.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }

    /// The id of the peer that holds `key`.
    #[must_use]
    pub fn of_signer(key: &SigningKey) -> Self {
        Self::of(&key.verifying_key())
    }
}

impl From<SessionId> for StreamId {
    fn from(session: SessionId) -> Self {
        Self(session.0)
    }
}

impl From<StreamId> for SessionId {
    fn from(stream: StreamId) -> Self {
        Self(stream.0)
    }
}

impl From<PeerId> for StreamId {
    /// The host's own log: its roster and its list of sessions.
    fn from(host: PeerId) -> Self {
        Self(host.0)
    }
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn printed_ids_parse_back() {
        let id = SessionId::fresh(Timestamp(1_795_000_000_000), [7; 10]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().starts_with("ses_"));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let id = SessionId::fresh(Timestamp(1), [7; 10]).to_string();
        assert!(id.parse::<ApprovalId>().is_err());
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let early = CommandId::fresh(Timestamp(1_000), [255; 10]);
        let late = CommandId::fresh(Timestamp(2_000), [0; 10]);
        assert!(early < late);
    }
}
