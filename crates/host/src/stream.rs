//! Writing one stream: numbering, sealing and chaining what is appended.

use std::sync::Arc;

use farhelm_core::keys::{ContentKey, EpochKey, Identity, KeyBundle, PublicKeys, to_base64};
use farhelm_core::seal;
use farhelm_link::rng::{os_rng, random};
use farhelm_proto::envelope::{Header, Lane, NO_HASH, SUITE};
use farhelm_proto::frame::Frame;
use farhelm_proto::letter::{self, Kind};
use farhelm_proto::{CommandId, PeerId, StreamId, Timestamp};

use crate::journal::{Op, StoredEnvelope, StreamEnd};

/// Envelopes sealed with one key before it is changed; far below the bound for random nonces
/// (2^32, NIST SP 800-38D section 8.3).
const SEALS_PER_EPOCH: u64 = 1 << 24;

/// Where a stream is written.
pub(crate) struct StreamWriter {
    host: Arc<Identity>,
    stream: StreamId,
    end: StreamEnd,
    epoch: u32,
    key: Option<ContentKey>,
    seals: u64,
    live: u64,
}

/// A sealed batch that is not part of the stream yet.
pub(crate) struct Sealed {
    pub(crate) envelope: StoredEnvelope,
}

impl StreamWriter {
    /// Goes on where the journal ends. A new epoch begins with the first thing written, so that a
    /// restored copy of the state never repeats a key and nonce.
    pub(crate) fn new(
        host: Arc<Identity>,
        stream: StreamId,
        end: Option<StreamEnd>,
        last_epoch: u32,
    ) -> Self {
        let end = end.unwrap_or(StreamEnd {
            head: 0,
            hash: NO_HASH,
            base: 0,
        });
        Self {
            host,
            stream,
            end,
            epoch: last_epoch,
            key: None,
            seals: 0,
            live: 0,
        }
    }

    /// Seq of the last event that is part of the stream.
    pub(crate) const fn head(&self) -> u64 {
        self.end.head
    }

    /// The stream's id.
    pub(crate) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// Begins a new epoch with the next thing written.
    pub(crate) fn rekey(&mut self) {
        self.key = None;
    }

    /// The key in force; begins an epoch when there is none, and gives what must be written and
    /// sent to `readers` for it, before anything sealed with it.
    pub(crate) fn ready(&mut self, readers: &[(PeerId, PublicKeys)]) -> Vec<Op> {
        if self.key.is_some() && self.seals < SEALS_PER_EPOCH {
            return Vec::new();
        }
        self.epoch += 1;
        self.seals = 0;
        self.live = 0;
        let key = ContentKey::from_bytes(random());
        let stored = ContentKey::from_bytes(*key.expose());
        let mut ops = vec![Op::Key {
            stream: self.stream,
            epoch: self.epoch,
            key: Box::new(stored),
        }];
        ops.extend(key_letters(
            &self.host,
            self.stream,
            &[(self.epoch, &key)],
            readers,
        ));
        self.key = Some(key);
        ops
    }

    /// Seals a batch of `count` events, the JSON text of an array. `snapshot` is the place of the
    /// newest snapshot among them, counted from 1.
    pub(crate) fn seal(
        &mut self,
        json: &[u8],
        count: u64,
        snapshot: Option<u64>,
    ) -> Option<Sealed> {
        let base = snapshot.map_or(self.end.base, |place| self.end.head + place);
        let header = Header {
            suite: SUITE,
            lane: Lane::Durable,
            host: self.host.peer(),
            stream: self.stream,
            epoch: self.epoch,
            first: self.end.head + 1,
            last: self.end.head + count,
            prev: self.end.hash,
            base,
        };
        let key = self.key.as_ref()?;
        self.seals += 1;
        let envelope = seal::seal_envelope(key, &header, json, random(), &self.host);
        let hash = envelope.hash();
        let frame = Frame::Envelope(envelope).to_bytes();
        let envelope = StoredEnvelope {
            stream: self.stream,
            first: header.first,
            last: header.last,
            base,
            hash,
            frame,
        };
        Some(Sealed { envelope })
    }

    /// The sealed batch is durable: it is part of the stream from here on.
    pub(crate) fn advance(&mut self, sealed: &StoredEnvelope) {
        self.end = StreamEnd {
            head: sealed.last,
            hash: sealed.hash,
            base: sealed.base,
        };
    }

    /// Seals something for the live lane.
    pub(crate) fn seal_live(&mut self, json: &[u8]) -> Option<bytes::Bytes> {
        self.live += 1;
        let header = Header {
            suite: SUITE,
            lane: Lane::Live,
            host: self.host.peer(),
            stream: self.stream,
            epoch: self.epoch,
            first: self.end.head,
            last: self.live,
            prev: self.end.hash,
            base: self.end.base,
        };
        let key = self.key.as_ref()?;
        self.seals += 1;
        let envelope = seal::seal_envelope(key, &header, json, random(), &self.host);
        Some(Frame::Envelope(envelope).to_bytes())
    }

    /// Seals a blob of this stream; gives its name and epoch.
    pub(crate) fn seal_blob(&mut self, bytes: &[u8]) -> Option<([u8; 32], u32, Vec<u8>)> {
        let key = self.key.as_ref()?;
        self.seals += 1;
        let sealed = seal::seal_blob(key, self.stream, self.epoch, bytes, random());
        Some((seal::blob_name(&sealed), self.epoch, sealed))
    }
}

/// Letters that give `readers` the content keys of a stream.
pub(crate) fn key_letters(
    host: &Identity,
    stream: StreamId,
    keys: &[(u32, &ContentKey)],
    readers: &[(PeerId, PublicKeys)],
) -> Vec<Op> {
    let keys = keys
        .iter()
        .map(|(epoch, key)| EpochKey {
            epoch: *epoch,
            key: to_base64(key.expose()),
        })
        .collect();
    let body = serde_json::to_vec(&KeyBundle { stream, keys }).unwrap_or_default();
    readers
        .iter()
        .filter_map(|(_, reader)| letter_op(host, reader, Kind::Keys, &body, None))
        .collect()
}

/// A sealed letter that is to be sent until the relay has it.
pub(crate) fn letter_op(
    host: &Identity,
    to: &PublicKeys,
    kind: Kind,
    body: &[u8],
    offer: Option<farhelm_proto::OfferId>,
) -> Option<Op> {
    let (id, frame) = write_letter(host, to, kind, body, offer)?;
    Some(Op::Letter {
        id,
        to: to.peer(),
        frame,
    })
}

/// A sealed letter that nobody keeps.
pub(crate) fn write_letter(
    host: &Identity,
    to: &PublicKeys,
    kind: Kind,
    body: &[u8],
    offer: Option<farhelm_proto::OfferId>,
) -> Option<(CommandId, bytes::Bytes)> {
    let id = CommandId::fresh(farhelm_link::clock::now(), random());
    let header = letter::Header {
        suite: SUITE,
        kind,
        from: host.peer(),
        to: to.peer(),
        id,
        not_after: Timestamp(0),
        offer,
    };
    seal::seal_letter(host, to, &header, body, &mut os_rng())
        .ok()
        .map(|letter| (id, Frame::Letter(letter).to_bytes()))
}
