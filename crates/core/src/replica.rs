//! What a reader checks before it believes an envelope: that the host signed it, that it continues
//! what was read before, and that it opens.

use std::collections::BTreeMap;

use farhelm_proto::envelope::{Envelope, Hash, Header, Lane, NO_HASH, SUITE};
use farhelm_proto::sign::VerifyingKey;
use farhelm_proto::{Code, PeerId, StreamId, limits};

use crate::keys::ContentKey;
use crate::seal::open_envelope;

/// A reader's place in one stream of one host, with the keys it has for it.
#[derive(Debug)]
pub struct Replica {
    host: PeerId,
    host_key: VerifyingKey,
    stream: StreamId,
    keys: BTreeMap<u32, ContentKey>,
    head: Option<Head>,
    /// The highest signed seq that was ever seen, also by an earlier run of the reader.
    seen: Option<Head>,
}

/// The end of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Seq of the last event.
    pub seq: u64,
    /// Hash of the last envelope.
    pub hash: Hash,
}

/// What an envelope turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The next events: the JSON text of an array of records.
    Events(Vec<u8>),
    /// Deltas: the JSON text of an array of [`crate::event::Live`].
    Live(Vec<u8>),
    /// Something that was read before.
    Repeated,
}

/// Why an envelope is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The relay, or somebody else in between, altered, dropped or invented something.
    #[error("envelope is not what the host wrote next: {0}")]
    Tampered(Code),
    /// There is a hole before it; subscribing again from the cursor closes it.
    #[error("envelope does not continue what was read")]
    Gap,
    /// The key of its epoch has not arrived.
    #[error("no key for epoch {0}")]
    KeyMissing(u32),
}

impl Replica {
    /// A reader that has read up to `head` and has ever seen `seen`.
    #[must_use]
    pub const fn new(
        host_key: VerifyingKey,
        host: PeerId,
        stream: StreamId,
        head: Option<Head>,
    ) -> Self {
        Self {
            host,
            host_key,
            stream,
            keys: BTreeMap::new(),
            head,
            seen: head,
        }
    }

    /// Takes a content key. The first one of an epoch counts: another can only be of a host that was
    /// put back to what it was before.
    pub fn add_key(&mut self, epoch: u32, key: ContentKey) {
        self.keys.entry(epoch).or_insert(key);
    }

    /// The key of an epoch.
    #[must_use]
    pub fn key(&self, epoch: u32) -> Option<&ContentKey> {
        self.keys.get(&epoch)
    }

    /// Up to where it has read.
    #[must_use]
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// Where the relay says the stream stands, on a new subscription; it must not be older than
    /// what was seen before.
    ///
    /// # Errors
    ///
    /// [`Code::RolledBack`] when it is.
    pub const fn check_head(&self, head: u64) -> Result<(), Code> {
        match self.seen {
            Some(seen) if head < seen.seq => Err(Code::RolledBack),
            Some(_) | None => Ok(()),
        }
    }

    /// Begins anew before the envelope that comes next, wherever it is in the stream.
    pub const fn begin_anywhere(&mut self) {
        self.head = None;
    }

    /// Checks and opens one envelope.
    ///
    /// # Errors
    ///
    /// [`Refused`] says what to do: ask again, wait for a key, or raise the alarm.
    pub fn accept(&mut self, envelope: &Envelope) -> Result<Accepted, Refused> {
        let header = self.check(envelope)?;
        match header.lane {
            Lane::Live => self.open(&header, envelope).map(Accepted::Live),
            Lane::Durable => self.accept_durable(&header, envelope),
        }
    }

    /// Opens a stored envelope from before the reader's place, whose successor names `hash`.
    ///
    /// # Errors
    ///
    /// [`Refused`] when it is not the one that was there.
    pub fn open_older(
        &self,
        envelope: &Envelope,
        hash: &Hash,
    ) -> Result<(Header, Vec<u8>), Refused> {
        let header = self.check(envelope)?;
        if envelope.hash() != *hash {
            return Err(Refused::Tampered(Code::Tampered));
        }
        let events = self.open(&header, envelope)?;
        Ok((header, events))
    }

    fn accept_durable(
        &mut self,
        header: &Header,
        envelope: &Envelope,
    ) -> Result<Accepted, Refused> {
        let tampered = Refused::Tampered(Code::Tampered);
        if header.first == 0 || header.last < header.first || header.last > limits::SEQ {
            return Err(tampered);
        }
        match self.head {
            Some(head) if header.last <= head.seq => return Ok(Accepted::Repeated),
            Some(head) if header.first > head.seq + 1 => return Err(Refused::Gap),
            Some(head) if header.first <= head.seq || header.prev != head.hash => {
                return Err(tampered);
            }
            None if header.first == 1 && header.prev != NO_HASH => return Err(tampered),
            Some(_) | None => {}
        }
        let events = self.open(header, envelope)?;
        let head = Head {
            seq: header.last,
            hash: envelope.hash(),
        };
        self.head = Some(head);
        if self.seen.is_none_or(|seen| seen.seq < head.seq) {
            self.seen = Some(head);
        }
        Ok(Accepted::Events(events))
    }

    fn check(&self, envelope: &Envelope) -> Result<Header, Refused> {
        let header = envelope
            .parse_header()
            .map_err(|_| Refused::Tampered(Code::BadFrame))?;
        if header.suite != SUITE || header.host != self.host || header.stream != self.stream {
            return Err(Refused::Tampered(Code::Tampered));
        }
        envelope
            .verify(&self.host_key)
            .map_err(|_| Refused::Tampered(Code::BadSignature))?;
        Ok(header)
    }

    fn open(&self, header: &Header, envelope: &Envelope) -> Result<Vec<u8>, Refused> {
        let key = self
            .keys
            .get(&header.epoch)
            .ok_or(Refused::KeyMissing(header.epoch))?;
        open_envelope(key, envelope).map_err(|_| Refused::Tampered(Code::BadSeal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Identity;
    use crate::seal::seal_envelope;

    #[test]
    fn envelopes_in_order_are_read_once() {
        let (host, mut reader) = reader();
        let first = sealed(&host, 1, 2, NO_HASH, b"[1,2]");
        let second = sealed(&host, 3, 3, first.hash(), b"[3]");
        assert_eq!(
            reader.accept(&first),
            Ok(Accepted::Events(b"[1,2]".to_vec()))
        );
        assert_eq!(reader.accept(&first), Ok(Accepted::Repeated));
        assert_eq!(
            reader.accept(&second),
            Ok(Accepted::Events(b"[3]".to_vec()))
        );
        assert_eq!(reader.head().map(|head| head.seq), Some(3));
    }

    #[test]
    fn s06_a_dropped_envelope_is_a_gap_and_a_spliced_one_an_alarm() {
        let (host, mut reader) = reader();
        let first = sealed(&host, 1, 1, NO_HASH, b"[1]");
        let second = sealed(&host, 2, 2, first.hash(), b"[2]");
        let third = sealed(&host, 3, 3, second.hash(), b"[3]");
        let other_second = sealed(&host, 2, 2, [9; 32], b"[x]");
        reader.accept(&first).unwrap();
        assert_eq!(reader.accept(&third), Err(Refused::Gap));
        assert_eq!(
            reader.accept(&other_second),
            Err(Refused::Tampered(Code::Tampered))
        );
    }

    #[test]
    fn s05_every_flipped_bit_is_noticed() {
        let (host, reader) = reader();
        let whole = sealed(&host, 1, 1, NO_HASH, b"[1]");
        let bytes = minicbor::to_vec(&whole).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            if let Ok(envelope) = minicbor::decode::<Envelope>(&bent) {
                let mut fresh = Replica::new(reader.host_key, reader.host, reader.stream, None);
                fresh.add_key(1, ContentKey::from_bytes([5; 32]));
                assert!(
                    envelope == whole || fresh.accept(&envelope).is_err(),
                    "bit {bit}"
                );
            }
        }
    }

    #[test]
    fn s04_an_envelope_of_another_stream_is_refused() {
        let (host, reader) = reader();
        let envelope = sealed(&host, 1, 1, NO_HASH, b"[1]");
        let elsewhere = StreamId::from_bytes([8; 16]);
        let mut other = Replica::new(reader.host_key, reader.host, elsewhere, None);
        other.add_key(1, ContentKey::from_bytes([5; 32]));
        assert_eq!(
            other.accept(&envelope),
            Err(Refused::Tampered(Code::Tampered))
        );
    }

    #[test]
    fn s36_an_older_head_than_was_seen_is_a_rollback() {
        let (host, mut reader) = reader();
        let first = sealed(&host, 1, 5, NO_HASH, b"[1]");
        reader.accept(&first).unwrap();
        assert_eq!(reader.check_head(4), Err(Code::RolledBack));
        assert_eq!(reader.check_head(5), Ok(()));
    }

    fn reader() -> (Identity, Replica) {
        let host = Identity::from_seed([1; 64]).unwrap();
        let stream = host.peer().into();
        let mut reader = Replica::new(host.public().signing, host.peer(), stream, None);
        reader.add_key(1, ContentKey::from_bytes([5; 32]));
        (host, reader)
    }

    fn sealed(host: &Identity, first: u64, last: u64, prev: Hash, text: &[u8]) -> Envelope {
        let header = Header {
            suite: SUITE,
            lane: Lane::Durable,
            host: host.peer(),
            stream: host.peer().into(),
            epoch: 1,
            first,
            last,
            prev,
            base: 0,
        };
        seal_envelope(
            &ContentKey::from_bytes([5; 32]),
            &header,
            text,
            [9; 12],
            host,
        )
    }
}
