//! One request for a session's log: what was read waits here until it was taken.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use farhelm_core::event::{Event, Live, Record};
use farhelm_core::text::clip;
use farhelm_proto::{Code, CommandId, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::PollSender;

use crate::device::reader::Reader;
use crate::device::{DeviceError, LogItem};

/// What is handed over: the next item, or why there is none.
pub(crate) type Item = Result<LogItem, DeviceError>;

/// A log that somebody reads.
pub(crate) struct Log {
    pub(crate) reader: Reader,
    /// How long nothing may come, as long as it has not caught up.
    patience: Duration,
    /// When that is over.
    pub(crate) deadline: Option<Instant>,
    out: PollSender<Item>,
    backlog: VecDeque<Item>,
    from: u64,
    follow: bool,
    phase: Phase,
    /// Whether envelopes are not taken until the backlog is gone.
    paused: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    CatchingUp,
    Following,
    /// Nothing comes after what is in the backlog.
    Ended,
}

/// What came of handing over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is room again; subscribe from where it stands.
    Room,
    /// It is over.
    Gone,
}

impl Log {
    pub(crate) fn new(
        reader: Reader,
        from: u64,
        follow: bool,
        patience: Duration,
    ) -> (Self, mpsc::Receiver<Item>) {
        let (out, items) = mpsc::channel(ITEMS);
        let log = Self {
            reader,
            patience,
            deadline: Some(Instant::now() + patience),
            out: PollSender::new(out),
            backlog: VecDeque::new(),
            from,
            follow,
            phase: Phase::CatchingUp,
            paused: false,
        };
        (log, items)
    }

    /// Whether it takes envelopes.
    pub(crate) fn is_reading(&self) -> bool {
        !self.paused && self.phase != Phase::Ended
    }

    /// Takes the JSON text of an array of records.
    pub(crate) fn push_events(&mut self, text: &[u8]) -> Result<(), DeviceError> {
        let unreadable = |error: serde_json::Error| {
            let text = format!("the log cannot be read by this version: {error}");
            DeviceError::because(Code::UnsupportedVersion, text)
        };
        let records: Vec<&RawValue> = serde_json::from_slice(text).map_err(unreadable)?;
        for record in records {
            let record = read(record.get()).map_err(unreadable)?;
            if record.seq >= self.from {
                self.backlog
                    .push_back(Ok(LogItem::Record(Box::new(record))));
            }
        }
        self.paused = self.backlog.len() > BACKLOG;
        self.wait();
        Ok(())
    }

    /// Tells of events that cannot be had.
    pub(crate) fn push_limited(&mut self, first: u64, last: u64) {
        let first = first.max(self.from);
        if first <= last {
            self.backlog.push_back(Ok(LogItem::Limited { first, last }));
        }
    }

    /// Waits for the relay, unless it is the reader who keeps everybody waiting.
    fn wait(&mut self) {
        let waits = self.phase == Phase::CatchingUp && !self.paused;
        self.deadline = waits.then(|| Instant::now() + self.patience);
    }

    /// Takes the JSON text of an array of deltas. Those of a later version are left out, and all
    /// while the reader is slow: an event supersedes them.
    pub(crate) fn push_live(&mut self, text: &[u8]) {
        if self.phase != Phase::Following || self.backlog.len() > BACKLOG / 2 {
            return;
        }
        let deltas: Vec<&RawValue> = serde_json::from_slice(text).unwrap_or_default();
        let known = deltas
            .into_iter()
            .filter_map(|delta| serde_json::from_str::<Live>(delta.get()).ok());
        self.backlog
            .extend(known.map(|live| Ok(LogItem::Live(Box::new(live)))));
    }

    /// Says so when everything stored has been read. Whether it did.
    pub(crate) fn note_caught_up(&mut self) -> bool {
        if self.phase != Phase::CatchingUp || !self.reader.is_caught_up() {
            return false;
        }
        self.backlog.push_back(Ok(LogItem::CaughtUp));
        self.deadline = None;
        self.phase = if self.follow {
            Phase::Following
        } else {
            Phase::Ended
        };
        true
    }

    /// Ends it.
    pub(crate) fn fail(&mut self, error: DeviceError) {
        if self.phase != Phase::Ended {
            self.backlog.push_back(Err(error));
            self.deadline = None;
            self.phase = Phase::Ended;
        }
    }

    /// Hands over what there is room for.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Drained> {
        while !self.backlog.is_empty() {
            if ready!(self.out.poll_reserve(cx)).is_err() {
                return Poll::Ready(Drained::Gone);
            }
            let sent = self
                .backlog
                .pop_front()
                .map(|item| self.out.send_item(item));
            if sent.is_some_and(|sent| sent.is_err()) {
                return Poll::Ready(Drained::Gone);
            }
        }
        if self.phase == Phase::Ended || self.out.is_closed() {
            return Poll::Ready(Drained::Gone);
        }
        if self.paused {
            self.paused = false;
            self.wait();
            return Poll::Ready(Drained::Room);
        }
        Poll::Pending
    }
}

/// A record whose event may be of a later version.
#[derive(Deserialize)]
struct Unknown<'a> {
    seq: u64,
    at: Timestamp,
    #[serde(default)]
    cause: Option<CommandId>,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// Reads a record; an event of a later version is shown as such.
///
/// # Errors
///
/// When it is no record.
pub fn read(text: &str) -> serde_json::Result<Record> {
    serde_json::from_str(text).or_else(|_| {
        let Unknown {
            seq,
            at,
            cause,
            event,
        } = serde_json::from_str(text)?;
        let kind: serde_json::Value = serde_json::from_str(event.get())?;
        let kind = kind["type"].as_str().unwrap_or("unknown").to_owned();
        let event = Event::RawNoted {
            kind,
            json: clip(event.get(), RAW_BYTES),
        };
        Ok(Record {
            seq,
            at,
            cause,
            event,
        })
    })
}

/// Items that wait for whoever reads.
const ITEMS: usize = 256;
/// Items beyond those that may wait before the relay is asked to hold back.
const BACKLOG: usize = 2048;
/// How much of an unknown event is shown.
const RAW_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_later_version_is_shown_as_such() {
        let record = read(r#"{"seq":7,"at":5,"event":{"type":"moon_landed","crater":1}}"#).unwrap();
        let expected = Event::RawNoted {
            kind: "moon_landed".into(),
            json: r#"{"type":"moon_landed","crater":1}"#.into(),
        };
        assert_eq!((record.seq, record.event), (7, expected));
        assert!(read(r#"{"seq":7}"#).is_err());
    }
}
