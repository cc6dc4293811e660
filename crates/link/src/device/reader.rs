//! A place in one stream of the host, with every check there is. Pure: it asks for frames to be
//! sent and is told what came.

use farhelm_core::keys::ContentKey;
use farhelm_core::replica::{Accepted, Head, Refused, Replica};
use farhelm_proto::envelope::{Envelope, Lane};
use farhelm_proto::frame::{Frame, Subscribe, Subscribed};
use farhelm_proto::{Code, StreamId};

use crate::device::{DeviceError, KnownHost};

/// Where to begin when nothing has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the newest snapshot.
    Snapshot,
    /// With the envelope that holds this seq.
    At(u64),
}

/// What came of an envelope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next events.
    Events(Vec<u8>),
    /// Deltas.
    Live(Vec<u8>),
    /// Nothing that matters.
    Nothing,
    /// Something is missing: subscribe again.
    Again,
    /// The relay seems to be behind: subscribe again a little later.
    Later,
    /// The key of this epoch is missing.
    KeyMissing(u32),
    /// The relay does not have these events any more; what comes begins with a snapshot.
    Limited {
        /// The first of them.
        first: u64,
        /// The last.
        last: u64,
    },
}

/// A reader of one stream.
#[derive(Debug)]
pub(crate) struct Reader {
    replica: Replica,
    subscribe: Subscribe,
    start: Start,
    /// The highest head that an earlier run has seen.
    seen: Option<Head>,
    /// Where the relay said the stream stands, and where it begins to send.
    subscribed: Option<(u64, u64)>,
    /// The epoch whose key is missing.
    blocked: Option<u32>,
    /// Subscriptions without any progress between them.
    gaps: u32,
    /// Times that the relay named an older head than was seen.
    older: u32,
}

impl Reader {
    pub(crate) fn new(
        host: &KnownHost,
        stream: StreamId,
        start: Start,
        seen: Option<Head>,
    ) -> Self {
        let mut replica = Replica::new(host.keys.signing, host.peer(), stream, seen);
        replica.begin_anywhere();
        let subscribe = Subscribe {
            host: host.peer(),
            stream,
            after: None,
            tail: None,
        };
        Self {
            replica,
            subscribe,
            start,
            seen,
            subscribed: None,
            blocked: None,
            gaps: 0,
            older: 0,
        }
    }

    pub(crate) const fn stream(&self) -> StreamId {
        self.subscribe.stream
    }

    /// Where it stands.
    pub(crate) const fn head(&self) -> Option<Head> {
        self.replica.head()
    }

    /// The epoch it waits for.
    pub(crate) const fn blocked(&self) -> Option<u32> {
        self.blocked
    }

    /// Takes a key; it can be subscribed again if it waited for this one.
    pub(crate) fn add_key(&mut self, epoch: u32, key: ContentKey) -> bool {
        self.replica.add_key(epoch, key);
        let waited = self.blocked == Some(epoch);
        if waited {
            self.blocked = None;
        }
        waited
    }

    /// The cursor to subscribe with; nothing for the newest snapshot.
    pub(crate) fn after(&self) -> Option<u64> {
        match (self.replica.head(), self.start) {
            (Some(head), _) => Some(head.seq),
            (None, Start::At(seq)) => Some(seq.saturating_sub(1)),
            (None, Start::Snapshot) => None,
        }
    }

    /// The frame that subscribes, when this is the stream's only reader.
    pub(crate) fn subscribe(&mut self) -> Frame {
        self.subscribes();
        Frame::Subscribe(Subscribe {
            after: self.after(),
            ..self.subscribe.clone()
        })
    }

    /// A new subscription is on its way; what comes before its answer belongs to an older one.
    pub(crate) const fn subscribes(&mut self) {
        self.subscribed = None;
    }

    /// The connection ended, and with it the subscription.
    pub(crate) const fn is_cut(&mut self) {
        self.subscribed = None;
        self.gaps = 0;
        self.older = 0;
    }

    /// The relay says where the stream stands.
    ///
    /// # Errors
    ///
    /// [`Code::RolledBack`] when that is older than what was seen, again and again: a relay may be
    /// a moment behind what it passed on.
    pub(crate) fn subscribed(&mut self, answer: &Subscribed) -> Result<Step, DeviceError> {
        if self.replica.check_head(answer.head).is_err() {
            self.older += 1;
            if self.older > OLDER {
                return Err(DeviceError::new(Code::RolledBack));
            }
            return Ok(Step::Later);
        }
        self.older = 0;
        if let Some(after) = self.after()
            && answer.gap == Some(true)
            && answer.from > after
        {
            // It begins anew, and only with the whole open state.
            self.replica.begin_anywhere();
            self.start = Start::Snapshot;
            self.subscribed = Some((answer.head, answer.from));
            return Ok(Step::Limited {
                first: after + 1,
                last: answer.from,
            });
        }
        if self.after().is_some_and(|after| answer.from > after) {
            // The answer to a subscription that an earlier cursor has replaced.
            return Ok(Step::Nothing);
        }
        if self.after().is_none() && answer.base == 0 && answer.from > 0 {
            // Without a snapshot, all of it is needed.
            self.start = Start::At(1);
            return Ok(Step::Again);
        }
        self.subscribed = Some((answer.head, answer.from));
        Ok(Step::Nothing)
    }

    /// Whether everything was read that was stored when it subscribed.
    pub(crate) fn is_caught_up(&self) -> bool {
        let Some((head, from)) = self.subscribed else {
            return false;
        };
        self.blocked.is_none() && self.replica.head().map_or(from, |at| at.seq) >= head
    }

    /// Checks and opens an envelope.
    ///
    /// # Errors
    ///
    /// [`Code::Tampered`] and its like when it is not what the host wrote next.
    pub(crate) fn accept(&mut self, envelope: &Envelope) -> Result<Step, DeviceError> {
        if self.blocked.is_some() || self.subscribed.is_none() {
            return Ok(Step::Nothing);
        }
        let header = envelope
            .parse_header()
            .map_err(|_| tampered(Code::BadFrame))?;
        let is_durable = header.lane == Lane::Durable;
        if is_durable && self.begins_late(header.first, header.base) {
            return self.gap();
        }
        match self.replica.accept(envelope) {
            Ok(Accepted::Events(events)) => {
                self.check_seen(header.first, header.last, envelope)?;
                self.gaps = 0;
                Ok(Step::Events(events))
            }
            Ok(Accepted::Live(live)) => Ok(Step::Live(live)),
            Ok(Accepted::Repeated) => Ok(Step::Nothing),
            Err(Refused::KeyMissing(_)) if !is_durable => Ok(Step::Nothing),
            Err(Refused::KeyMissing(epoch)) => {
                self.blocked = Some(epoch);
                Ok(Step::KeyMissing(epoch))
            }
            Err(Refused::Gap) => self.gap(),
            Err(Refused::Tampered(code)) => Err(tampered(code)),
        }
    }

    /// Whether the first envelope leaves out what should come before it.
    fn begins_late(&self, first: u64, base: u64) -> bool {
        match (self.replica.head(), self.start) {
            (Some(_), _) => false,
            (None, Start::At(seq)) => first > seq,
            (None, Start::Snapshot) => first > base.max(1),
        }
    }

    fn gap(&mut self) -> Result<Step, DeviceError> {
        self.gaps += 1;
        if self.gaps > GAPS {
            let text = "the relay leaves out a part of the log; it may be altering it";
            return Err(DeviceError::because(Code::Tampered, text));
        }
        self.subscribed = None;
        Ok(Step::Again)
    }

    /// Where an earlier run has been, the log must be the same.
    fn check_seen(&self, first: u64, last: u64, envelope: &Envelope) -> Result<(), DeviceError> {
        match self.seen {
            Some(seen)
                if (first..=last).contains(&seen.seq)
                    && (last != seen.seq || envelope.hash() != seen.hash) =>
            {
                Err(tampered(Code::Tampered))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn tampered(code: Code) -> DeviceError {
    let sentence = Code::Tampered.sentence();
    let text = if code == Code::Tampered {
        sentence.to_owned()
    } else {
        format!("{sentence} ({code})")
    };
    DeviceError::because(Code::Tampered, text)
}

/// Holes in a row after which the relay is not believed any more.
const GAPS: u32 = 3;
/// Older heads in a row after which the relay is not believed any more.
const OLDER: u32 = 3;
