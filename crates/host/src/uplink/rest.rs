//! Streams that the relay could not store: what comes is still sent, and passed on by it; what it
//! did not keep is offered again after a while, each time a longer one.

use std::collections::BTreeMap;
use std::time::Duration;

use farhelm_proto::StreamId;
use tokio::time::Instant;

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Wait {
    due: Option<Instant>,
    next: Duration,
}

/// What rests, and until when.
#[derive(Debug, Default)]
pub(super) struct Rest(BTreeMap<StreamId, Wait>);

impl Rest {
    /// The relay could not store something of this stream.
    pub(super) fn begin(&mut self, stream: StreamId, now: Instant) {
        let wait = self.0.entry(stream).or_insert(Wait {
            due: None,
            next: FIRST,
        });
        if wait.due.is_none() {
            wait.due = Some(now + wait.next);
            wait.next = (wait.next * 2).min(LONGEST);
        }
    }

    /// It stores again.
    pub(super) fn end(&mut self, stream: StreamId) {
        self.0.remove(&stream);
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// When the next one is over.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.values().filter_map(|wait| wait.due).min()
    }

    /// Those that are over; they stay known until the relay stores them.
    pub(super) fn over(&mut self, now: Instant) -> Vec<StreamId> {
        let mut over = Vec::new();
        for (stream, wait) in &mut self.0 {
            if wait.due.is_some_and(|due| due <= now) {
                wait.due = None;
                over.push(*stream);
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_a_stream_that_is_not_stored_is_offered_again_less_and_less_often() {
        let mut rest = Rest::default();
        let stream = StreamId::from_bytes([1; 16]);
        let mut waits = Vec::new();
        let mut now = Instant::now();
        for _ in 0..9 {
            rest.begin(stream, now);
            rest.begin(stream, now);
            let due = rest.due().unwrap();
            assert_eq!(rest.over(now), []);
            waits.push((due - now).as_secs());
            now = due;
            assert_eq!(rest.over(now), [stream]);
            assert_eq!(rest.due(), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        rest.end(stream);
        rest.begin(stream, now);
        assert_eq!(rest.due(), Some(now + FIRST));
    }
}
