//! How far each log was written to this connection: what is only queued does not count, because
//! letters overtake it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farhelm_proto::StreamId;

use crate::journal::StoredEnvelope;

/// The heads, shared with frames on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Counts connections: what is left of an earlier one does not count.
    life: u64,
    heads: BTreeMap<StreamId, u64>,
}

impl Sent {
    /// A connection began or ended.
    pub(super) fn forget(&self) {
        self.with(|state| {
            state.life += 1;
            state.heads.clear();
        });
    }

    pub(super) fn heads(&self) -> BTreeMap<StreamId, u64> {
        self.with(|state| state.heads.clone())
    }

    /// The relay has the stream so far.
    pub(super) fn located(&self, stream: StreamId, head: u64) {
        self.with(|state| {
            state.heads.insert(stream, head);
        });
    }

    /// The frame of an envelope; it counts once it was written, which is when nobody holds it any
    /// more.
    pub(super) fn mark(&self, envelope: StoredEnvelope) -> Bytes {
        Bytes::from_owner(Marked {
            frame: envelope.frame,
            stream: envelope.stream,
            last: envelope.last,
            life: self.with(|state| state.life),
            sent: self.clone(),
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Marked {
    frame: Bytes,
    stream: StreamId,
    last: u64,
    life: u64,
    sent: Sent,
}

impl AsRef<[u8]> for Marked {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let (stream, last, life) = (self.stream, self.last, self.life);
        self.sent.with(|state| {
            if state.life == life {
                state.heads.insert(stream, last);
            }
        });
    }
}
