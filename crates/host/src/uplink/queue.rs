//! What waits to be sent: a short line for what somebody waits for, and a long one, bounded by its
//! bytes, for logs and blobs. Within a line the order stays; the short one goes first.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes of the long line below which more is read from the journal.
const LOW: usize = 128 * 1024;
/// Bytes of the long line above which nothing more goes into it.
const HIGH: usize = 1024 * 1024;

/// Which line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Letters, answers, and the host's own log, which says what every session needs.
    First,
    /// Logs of sessions, deltas, blobs.
    Bulk,
}

/// Both lines.
#[derive(Debug, Default)]
pub(super) struct Queue {
    first: VecDeque<Bytes>,
    bulk: VecDeque<Bytes>,
    bulk_bytes: usize,
}

impl Queue {
    pub(super) fn push(&mut self, line: Line, frame: Bytes) {
        match line {
            Line::First => self.first.push_back(frame),
            Line::Bulk => {
                self.bulk_bytes += frame.len();
                self.bulk.push_back(frame);
            }
        }
    }

    /// What is sent next.
    pub(super) fn front(&self) -> Option<(Line, Bytes)> {
        let first = self.first.front().map(|frame| (Line::First, frame));
        let next = first.or_else(|| self.bulk.front().map(|frame| (Line::Bulk, frame)));
        next.map(|(line, frame)| (line, frame.clone()))
    }

    /// The front of that line was sent.
    pub(super) fn pop(&mut self, line: Line) {
        match line {
            Line::First => drop(self.first.pop_front()),
            Line::Bulk => {
                let sent = self.bulk.pop_front().map_or(0, |frame| frame.len());
                self.bulk_bytes -= sent;
            }
        }
    }

    /// Whether more should be read from the journal.
    pub(super) const fn is_low(&self) -> bool {
        self.bulk_bytes < LOW
    }

    /// Whether something new may go into the long line.
    pub(super) const fn has_room(&self) -> bool {
        self.bulk_bytes < HIGH
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f20_what_somebody_waits_for_overtakes_a_flood_and_the_flood_keeps_its_order() {
        let mut queue = Queue::default();
        let mut flood = 0_u8;
        while queue.has_room() {
            queue.push(Line::Bulk, Bytes::from(vec![flood; 100_000]));
            flood += 1;
        }
        assert_eq!(flood, 11, "bounded by bytes");
        queue.push(Line::First, Bytes::from_static(b"letter"));
        queue.push(Line::First, Bytes::from_static(b"another"));
        let mut sent = Vec::new();
        while let Some((line, frame)) = queue.front() {
            queue.pop(line);
            sent.push(frame);
        }
        assert_eq!(
            (&sent[0][..], &sent[1][..]),
            (&b"letter"[..], &b"another"[..])
        );
        let order: Vec<_> = sent[2..].iter().map(|frame| frame[0]).collect();
        assert_eq!(order, (0..flood).collect::<Vec<_>>());
        assert!(queue.is_low());
    }
}
