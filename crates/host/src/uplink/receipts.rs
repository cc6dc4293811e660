//! What was sent and the relay has not confirmed: a relay that swallows the last envelope of a log
//! would otherwise be noticed on the next connection only, for nothing comes after it.

use std::collections::BTreeMap;
use std::time::Duration;

use farhelm_proto::StreamId;
use tokio::time::Instant;

/// How long the relay may confirm nothing while nothing more is sent either, at first.
const FIRST: Duration = Duration::from_secs(15);
/// The longest that this becomes, while asking does not help.
const LONGEST: Duration = Duration::from_secs(120);

/// How far each log was sent and is not confirmed.
#[derive(Debug)]
pub(super) struct Receipts {
    waiting: BTreeMap<StreamId, Waiting>,
    /// How many were sent.
    count: u64,
    /// When something was sent or confirmed last.
    moved: Option<Instant>,
    patience: Duration,
}

#[derive(Debug)]
struct Waiting {
    last: u64,
    order: u64,
    /// Since when something is confirmed that was sent later.
    passed: Option<Instant>,
}

impl Default for Receipts {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            count: 0,
            moved: None,
            patience: FIRST,
        }
    }
}

impl Receipts {
    /// A log is sent up to there.
    pub(super) fn expect(&mut self, stream: StreamId, last: u64, now: Instant) {
        self.count += 1;
        let waiting = Waiting {
            last,
            order: self.count,
            passed: None,
        };
        self.waiting.insert(stream, waiting);
        self.moved = Some(now);
    }

    /// Something was written to the connection: on a slow one, no answer can be there yet.
    pub(super) const fn sent(&mut self, now: Instant) {
        self.moved = Some(now);
    }

    /// The relay has a log up to there. One that `overtakes` others says nothing about those.
    pub(super) fn confirmed(&mut self, stream: StreamId, head: u64, overtakes: bool, now: Instant) {
        self.moved = Some(now);
        if self.waiting.get(&stream).is_none_or(|own| own.last > head) {
            return;
        }
        self.patience = FIRST;
        let Some(confirmed) = self.waiting.remove(&stream).filter(|_| !overtakes) else {
            return;
        };
        for waiting in self.waiting.values_mut() {
            if waiting.order < confirmed.order {
                waiting.passed.get_or_insert(now);
            }
        }
    }

    /// The relay is asked about this log for another reason.
    pub(super) fn leave(&mut self, stream: StreamId) {
        self.waiting.remove(&stream);
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// When the relay is asked where it has what it has not confirmed.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = |waiting: &Waiting| waiting.passed.or(self.moved);
        let first = self.waiting.values().filter_map(since).min()?;
        Some(first + self.patience)
    }

    /// The logs about which it is to be asked.
    pub(super) fn over(&mut self, now: Instant) -> Vec<StreamId> {
        let (moved, patience) = (self.moved, self.patience);
        let is_over = |waiting: &Waiting| {
            let since = waiting.passed.or(moved);
            since.is_some_and(|since| since + patience <= now)
        };
        let over: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| is_over(waiting))
            .map(|(stream, _)| *stream)
            .collect();
        self.waiting.retain(|_, waiting| !is_over(waiting));
        if !over.is_empty() {
            self.patience = (self.patience * 2).min(LONGEST);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId::from_bytes([1; 16]);
    const B: StreamId = StreamId::from_bytes([2; 16]);

    #[test]
    fn s06_what_a_relay_does_not_confirm_is_asked_for_less_and_less_often() {
        let (mut receipts, mut now) = (Receipts::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..5 {
            receipts.expect(A, 7, now);
            let due = receipts.due().unwrap();
            waits.push((due - now).as_secs());
            assert_eq!(receipts.over(now), []);
            now = due;
            assert_eq!(receipts.over(now), [A]);
            assert_eq!(receipts.due(), None);
        }
        assert_eq!(waits, [15, 30, 60, 120, 120]);
        receipts.expect(A, 8, now);
        receipts.confirmed(A, 8, false, now);
        receipts.expect(A, 9, now);
        assert_eq!(receipts.due(), Some(now + FIRST));
    }

    #[test]
    fn s06_only_what_is_confirmed_is_not_asked_for_and_not_while_more_is_sent() {
        let (mut receipts, now) = (Receipts::default(), Instant::now());
        receipts.expect(A, 7, now);
        receipts.expect(B, 3, now);
        receipts.confirmed(A, 6, false, now);
        receipts.confirmed(B, 3, true, now);
        receipts.sent(now + FIRST / 2);
        assert_eq!(receipts.over(now + FIRST), []);
        assert_eq!(receipts.over(now + FIRST * 2), [A]);
    }

    #[test]
    fn s06_what_was_passed_over_is_asked_for_however_busy_the_rest_is() {
        let (mut receipts, mut now) = (Receipts::default(), Instant::now());
        receipts.expect(A, 7, now);
        for head in 1..=20 {
            receipts.expect(B, head, now);
            receipts.confirmed(B, head, false, now);
            now += Duration::from_secs(1);
        }
        assert_eq!(receipts.over(now), [A]);
    }
}
