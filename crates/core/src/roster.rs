//! The roster: the signed, hash-chained list of who belongs to a fleet and may do what.
//!
//! Every peer verifies it from its first entry, which the host founds by its own signature; the
//! relay can neither add anybody nor take an entry back unnoticed. An entry's body is the text of
//! a JSON object, signed as it stands.

use std::collections::BTreeMap;

use farhelm_proto::sign::{Domain, SigningKey};
use farhelm_proto::{Code, PeerId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::grant::{Capability, Grant};
use crate::keys::{PublicKeys, from_base64, to_base64};
use crate::text::hex;

/// An entry of the roster as it is stored and sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Entry {
    /// The JSON text of an [`EntryBody`].
    pub body: String,
    /// Who signed it.
    pub signer: PeerId,
    /// Ed25519 over the body, base64url without padding.
    pub signature: String,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct EntryBody {
    /// SHA-256 over the body of the entry before it, in hexadecimal; empty in the first.
    pub prev: String,
    /// Counts from 1.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// What changes.
    pub change: Change,
}

/// What an entry changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Change {
    /// A host begins the fleet.
    Founded {
        /// Its keys.
        keys: PublicKeys,
        /// Its name.
        name: String,
    },
    /// A device belongs to the fleet, or its grant is another.
    Admitted {
        /// Its keys.
        keys: PublicKeys,
        /// Its name.
        name: String,
        /// What it may do.
        grant: Grant,
    },
    /// A device does not belong to it any more.
    Revoked {
        /// Which.
        peer: PeerId,
    },
}

/// Why an entry does not continue the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the roster does not continue: {0}")]
pub struct BadEntry(&'static str);

impl BadEntry {
    /// What to tell people.
    #[must_use]
    pub const fn code(self) -> Code {
        Code::Tampered
    }
}

/// A device or host of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its keys.
    pub keys: PublicKeys,
    /// Its name.
    pub name: String,
    /// What it may do; a host needs no grant.
    pub grant: Grant,
    /// Whether it was removed.
    pub revoked: bool,
    /// When it came.
    pub since: Timestamp,
}

/// The verified roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    entries: Vec<Entry>,
    head: [u8; 32],
    host: PeerId,
    members: BTreeMap<PeerId, Member>,
}

impl Roster {
    /// Begins a fleet with the host that holds `key`.
    #[must_use]
    pub fn found(host: PublicKeys, name: &str, at: Timestamp, key: &SigningKey) -> Self {
        let change = Change::Founded {
            keys: host,
            name: name.to_owned(),
        };
        let body = EntryBody {
            prev: String::new(),
            number: 1,
            at,
            change,
        };
        let entry = sign(&body, host.peer(), key);
        let member = Member {
            keys: host,
            name: name.to_owned(),
            grant: Grant::owner(),
            revoked: false,
            since: at,
        };
        Self {
            head: digest(&entry.body),
            entries: vec![entry],
            host: host.peer(),
            members: BTreeMap::from([(host.peer(), member)]),
        }
    }

    /// Verifies a whole roster that `host` began.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] when an entry is forged, missing or out of order.
    pub fn verify(entries: &[Entry], host: &PublicKeys) -> Result<Self, BadEntry> {
        let (first, rest) = entries.split_first().ok_or(BadEntry("it is empty"))?;
        let body = parse(first)?;
        let Change::Founded { keys, name } = body.change else {
            return Err(BadEntry("the first entry founds nothing"));
        };
        if keys != *host || first.signer != host.peer() || body.number != 1 || !body.prev.is_empty()
        {
            return Err(BadEntry("another host founded it"));
        }
        check_signature(first, host)?;
        let member = Member {
            keys,
            name,
            grant: Grant::owner(),
            revoked: false,
            since: body.at,
        };
        let mut roster = Self {
            entries: vec![first.clone()],
            head: digest(&first.body),
            host: host.peer(),
            members: BTreeMap::from([(host.peer(), member)]),
        };
        for entry in rest {
            roster.extend(entry)?;
        }
        Ok(roster)
    }

    /// Takes one more entry.
    ///
    /// # Errors
    ///
    /// [`BadEntry`] when it does not continue the roster, or its signer may not do that.
    pub fn extend(&mut self, entry: &Entry) -> Result<(), BadEntry> {
        let body = parse(entry)?;
        if body.number != self.number() + 1 || body.prev != hex(&self.head) {
            return Err(BadEntry("an entry is missing or out of order"));
        }
        let signer = self
            .members
            .get(&entry.signer)
            .ok_or(BadEntry("a stranger signed it"))?;
        let may_sign = !signer.revoked && signer.grant.allows(Capability::Manage, body.at);
        if !may_sign {
            return Err(BadEntry("its signer may not manage"));
        }
        check_signature(entry, &signer.keys)?;
        match body.change {
            Change::Founded { .. } => return Err(BadEntry("the fleet is founded twice")),
            Change::Admitted { keys, name, grant } => {
                if keys.peer() == self.host {
                    return Err(BadEntry("a host is not admitted"));
                }
                let member = Member {
                    keys,
                    name,
                    grant,
                    revoked: false,
                    since: body.at,
                };
                self.members.insert(keys.peer(), member);
            }
            Change::Revoked { peer } => {
                if peer == self.host {
                    return Err(BadEntry("a host does not revoke itself"));
                }
                self.members
                    .get_mut(&peer)
                    .ok_or(BadEntry("nobody of that id"))?
                    .revoked = true;
            }
        }
        self.head = digest(&entry.body);
        self.entries.push(entry.clone());
        Ok(())
    }

    /// The entry that would make `change`, signed by the host's key.
    #[must_use]
    pub fn next_entry(
        &self,
        change: Change,
        at: Timestamp,
        signer: PeerId,
        key: &SigningKey,
    ) -> Entry {
        let body = EntryBody {
            prev: hex(&self.head),
            number: self.number() + 1,
            at,
            change,
        };
        sign(&body, signer, key)
    }

    /// How many entries there are.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.entries.len() as u64
    }

    /// All entries, to be sent to a new device.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The host that founded it.
    #[must_use]
    pub const fn host(&self) -> PeerId {
        self.host
    }

    /// A member that has not been revoked.
    #[must_use]
    pub fn member(&self, peer: PeerId) -> Option<&Member> {
        self.members.get(&peer).filter(|member| !member.revoked)
    }

    /// Somebody who is or was a member.
    #[must_use]
    pub fn anybody(&self, peer: PeerId) -> Option<&Member> {
        self.members.get(&peer)
    }

    /// The devices that have not been revoked.
    pub fn devices(&self) -> impl Iterator<Item = (PeerId, &Member)> {
        self.members
            .iter()
            .filter(|(peer, member)| **peer != self.host && !member.revoked)
            .map(|(p, m)| (*p, m))
    }

    /// Whether `peer` may do `capability` at `now`.
    #[must_use]
    pub fn allows(&self, peer: PeerId, capability: Capability, now: Timestamp) -> bool {
        self.member(peer)
            .is_some_and(|member| member.grant.allows(capability, now))
    }
}

fn sign(body: &EntryBody, signer: PeerId, key: &SigningKey) -> Entry {
    let body = serde_json::to_string(body).unwrap_or_default();
    let signature = to_base64(&key.sign(Domain::ROSTER, body.as_bytes()));
    Entry {
        body,
        signer,
        signature,
    }
}

fn parse(entry: &Entry) -> Result<EntryBody, BadEntry> {
    serde_json::from_str(&entry.body).map_err(|_| BadEntry("an entry cannot be read"))
}

fn check_signature(entry: &Entry, signer: &PublicKeys) -> Result<(), BadEntry> {
    let signature =
        from_base64(&entry.signature).and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let signature = signature.ok_or(BadEntry("a signature is malformed"))?;
    signer
        .signing
        .verify(Domain::ROSTER, entry.body.as_bytes(), &signature)
        .map_err(|_| BadEntry("a signature does not match"))
}

fn digest(body: &str) -> [u8; 32] {
    Sha256::digest(body.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Identity;

    #[test]
    fn a_roster_verifies_from_its_entries() {
        let (host, roster) = with_phone();
        let read = Roster::verify(roster.entries(), host.public()).unwrap();
        assert_eq!(read, roster);
        assert!(read.allows(phone().peer(), Capability::Approve, Timestamp(5)));
    }

    #[test]
    fn s17_a_stranger_cannot_admit_anybody() {
        let (_, mut roster) = with_phone();
        let evil = Identity::from_seed([66; 64]).unwrap();
        let change = Change::Admitted {
            keys: *evil.public(),
            name: "evil".into(),
            grant: Grant::owner(),
        };
        let by_stranger =
            roster.next_entry(change.clone(), Timestamp(9), evil.peer(), evil.signing());
        assert!(roster.extend(&by_stranger).is_err());
        let in_the_hosts_name =
            roster.next_entry(change, Timestamp(9), roster.host(), evil.signing());
        assert!(roster.extend(&in_the_hosts_name).is_err());
    }

    #[test]
    fn s36_a_missing_or_swapped_entry_is_noticed() {
        let (host, roster) = with_phone();
        let mut entries = roster.entries().to_vec();
        let revoke = Change::Revoked {
            peer: phone().peer(),
        };
        entries.push(roster.next_entry(revoke, Timestamp(9), host.peer(), host.signing()));
        assert!(Roster::verify(&entries, host.public()).is_ok());
        let without_second = [entries[0].clone(), entries[2].clone()];
        assert!(Roster::verify(&without_second, host.public()).is_err());
        entries.swap(1, 2);
        assert!(Roster::verify(&entries, host.public()).is_err());
    }

    #[test]
    fn s18_a_revoked_device_may_nothing() {
        let (host, mut roster) = with_phone();
        let revoke = Change::Revoked {
            peer: phone().peer(),
        };
        roster
            .extend(&roster.next_entry(revoke, Timestamp(9), host.peer(), host.signing()))
            .unwrap();
        assert!(!roster.allows(phone().peer(), Capability::View, Timestamp(9)));
        assert_eq!(roster.devices().count(), 0);
    }

    fn phone() -> Identity {
        Identity::from_seed([2; 64]).unwrap()
    }

    fn with_phone() -> (Identity, Roster) {
        let host = Identity::from_seed([1; 64]).unwrap();
        let mut roster = Roster::found(*host.public(), "desk", Timestamp(1), host.signing());
        let change = Change::Admitted {
            keys: *phone().public(),
            name: "phone".into(),
            grant: Grant::owner(),
        };
        let entry = roster.next_entry(change, Timestamp(2), host.peer(), host.signing());
        roster.extend(&entry).unwrap();
        (host, roster)
    }
}
