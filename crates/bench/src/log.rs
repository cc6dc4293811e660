//! The events that are sent: 256 bytes each, which begin with a seq and the time they were made.
//!
//! To our relay each goes in a durable envelope of its own, with the whole header and a signature
//! of the right length. The relay does not look at signatures, so a constant one will do; making
//! thousands a second would measure the measuring end.

use std::sync::LazyLock;
use std::time::Instant;

use bytes::Bytes;
use farhelm_proto::envelope::{Envelope, Header, Lane, SUITE};
use farhelm_proto::frame::{self, Frame};
use farhelm_proto::{PeerId, StreamId};

use crate::wire::Framing;

/// One stream being written.
pub(crate) struct Log {
    framing: Framing,
    sealed: Option<Header>,
    seq: u64,
    message: [u8; EVENT_BYTES],
}

/// Events that are ready to be sent.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each event ends.
    ends: Vec<usize>,
}

/// How a host hands over what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each event with a write of its own, as they come up.
    Single,
    /// As much as fits a large write, as after an outage.
    Bulk,
}

/// An event that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    /// When it was made, in nanoseconds of [`now`].
    pub(crate) made: u64,
}

impl Log {
    /// A log for a yardstick.
    pub(crate) const fn bare(framing: Framing) -> Self {
        Self {
            framing,
            sealed: None,
            seq: 0,
            message: [0; EVENT_BYTES],
        }
    }

    /// A log for our relay.
    pub(crate) const fn sealed(host: PeerId, stream: StreamId) -> Self {
        // The hash chain is for the ends; what counts here is that its bytes are there.
        let prev = [0xab; 32];
        let (suite, lane) = (SUITE, Lane::Durable);
        let header = Header {
            suite,
            lane,
            host,
            stream,
            epoch: 1,
            first: 0,
            last: 0,
            prev,
            base: 0,
        };
        Self {
            framing: Framing::WebSocket,
            sealed: Some(header),
            seq: 0,
            message: [0; EVENT_BYTES],
        }
    }

    /// Seq of the last event made.
    pub(crate) const fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether it is for our relay.
    pub(crate) const fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Goes back or forward, to send again from after `seq`.
    pub(crate) const fn rewind(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// Appends the next event, ready to be sent.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) {
        let message = self.next();
        self.framing.write(out, &message);
    }

    /// The next event, as a whole message without its framing.
    pub(crate) fn next(&mut self) -> Bytes {
        self.seq += 1;
        self.message[..8].copy_from_slice(&self.seq.to_be_bytes());
        self.message[8..16].copy_from_slice(&now().to_be_bytes());
        let Some(header) = &mut self.sealed else {
            return Bytes::copy_from_slice(&self.message);
        };
        (header.first, header.last) = (self.seq, self.seq);
        let envelope = Envelope {
            header: header.to_bytes().into(),
            body: self.message.to_vec().into(),
            signature: [0x5a; SIGNATURE_BYTES].into(),
        };
        Frame::Envelope(envelope).to_bytes()
    }

    /// Makes many events at once.
    pub(crate) fn many(&mut self, events: u64) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..events {
            self.write(&mut batch.bytes);
            batch.ends.push(batch.bytes.len());
        }
        batch
    }
}

impl Batch {
    /// What goes into each write.
    pub(crate) fn pieces(&self, pace: Pace) -> impl Iterator<Item = &[u8]> {
        let cuts: Vec<usize> = match pace {
            Pace::Single => self.ends.clone(),
            Pace::Bulk => (1..)
                .map(|n| n * BULK_BYTES)
                .take_while(|at| *at < self.bytes.len())
                .chain([self.bytes.len()])
                .collect(),
        };
        let mut from = 0;
        cuts.into_iter().map(move |to| {
            let piece = &self.bytes[from..to];
            from = to;
            piece
        })
    }

    /// How long it is.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Finds the event in a message of a log that is sealed or not; nothing when it holds something
/// else.
pub(crate) fn read(sealed: bool, message: &[u8]) -> Option<Event> {
    let body = if sealed {
        let tail = message
            .len()
            .checked_sub(EVENT_BYTES + SIGNATURE_BYTES + SIGNATURE_HEAD)?;
        &message[tail..][..if frame::kind(message)? == ENVELOPE {
            EVENT_BYTES
        } else {
            0
        }]
    } else {
        message
    };
    if body.len() != EVENT_BYTES {
        return None;
    }
    let number = |at: usize| {
        body[at..]
            .first_chunk()
            .map(|bytes| u64::from_be_bytes(*bytes))
    };
    Some(Event {
        seq: number(0)?,
        made: number(8)?,
    })
}

/// Nanoseconds since the run began.
pub(crate) fn now() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The size of one event.
pub(crate) const EVENT_BYTES: usize = 256;
/// What a host with much to send writes at once.
const BULK_BYTES: usize = 64 * 1024;
const SIGNATURE_BYTES: usize = 64;
/// What stands before a signature in CBOR.
const SIGNATURE_HEAD: usize = 2;
const ENVELOPE: u64 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_again_in_the_last_message() {
        let host = PeerId::from_bytes([1; 16]);
        for mut log in [
            Log::bare(Framing::WebSocket),
            Log::sealed(host, host.into()),
        ] {
            let mut out = Vec::new();
            log.write(&mut out);
            // A head of 4 bytes and a mask of 4.
            let event = read(log.is_sealed(), &out[8..]).unwrap();
            assert_eq!(event.seq, 1);
            assert!(event.made <= now());
            assert_eq!(read(log.is_sealed(), &[0x82; 8]), None);
        }
    }
}
