//! What waits to be sent on one connection. Everybody may put something in without ever waiting;
//! the connection's own task takes it out as fast as its socket allows.
//!
//! Envelopes are bounded: when they are too many, the outbox refuses them, and the stream they
//! belong to is fed from the store later. Receipts and presence replace what they supersede.
//! Answers are bounded by what the connection may ask for before it is not read any more.
//!
//! What somebody waits for, and the log of a host itself, go before everything else, in their own
//! order: a flood of one session keeps back no letter and no other session's question.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use farhelm_proto::frame::{Bye, Frame, Presence, Problem, Stored};
use farhelm_proto::{Code, PeerId, StreamId};
use futures_util::task::AtomicWaker;

use crate::lock::Lock as _;
use crate::store::Sealed;

/// Names a connection for as long as the relay runs.
pub(crate) type ConnId = u64;
/// Names a subscription of one connection, also after it ended.
pub(crate) type SubId = u32;

/// The queue of one connection.
pub(crate) struct Outbox {
    pub(crate) id: ConnId,
    pub(crate) peer: PeerId,
    inner: Mutex<Inner>,
    waker: AtomicWaker,
    /// The relay's tick at which something came from the peer.
    seen: AtomicU32,
    /// Ticks that the peer may be silent for.
    patience: u32,
}

#[derive(Default)]
struct Inner {
    first: VecDeque<(SubId, Bytes)>,
    queue: VecDeque<(SubId, Bytes)>,
    /// What both weigh.
    weight: usize,
    receipts: Vec<Stored>,
    presence: Vec<Presence>,
    behind: Vec<SubId>,
    mail: bool,
    bye: Option<Bye>,
}

/// What else there is to do for a connection, apart from sending.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Errands {
    /// Subscriptions to feed from the store.
    pub(crate) behind: Vec<SubId>,
    /// Whether letters wait.
    pub(crate) mail: bool,
}

impl Outbox {
    pub(crate) fn new(id: ConnId, peer: PeerId, patience: u32) -> Self {
        Self {
            id,
            peer,
            inner: Mutex::default(),
            waker: AtomicWaker::new(),
            seen: AtomicU32::new(0),
            patience,
        }
    }

    /// Queues as many envelopes of a subscription as fit, in order, and says how many.
    pub(crate) fn offer(&self, sub: SubId, line: Line, frames: &[Sealed]) -> usize {
        let mut inner = self.inner.hold();
        let taken = frames
            .iter()
            .take_while(|frame| inner.push(sub, line, &frame.bytes))
            .count();
        fail::point("relay.outbox.after_offer");
        drop(inner);
        if taken > 0 {
            self.waker.wake();
        }
        taken
    }

    /// Marks a subscription as one to be fed from the store.
    pub(crate) fn fall_behind(&self, sub: SubId) {
        self.inner.hold().behind.push(sub);
        self.waker.wake();
    }

    /// Drops what waits of a subscription that was cut off.
    pub(crate) fn purge(&self, sub: SubId) {
        let mut inner = self.inner.hold();
        let Inner {
            first,
            queue,
            weight,
            behind,
            ..
        } = &mut *inner;
        for line in [first, queue] {
            line.retain(|(of, bytes)| {
                let keep = *of != sub;
                *weight -= if keep { 0 } else { weigh(bytes) };
                keep
            });
        }
        behind.retain(|of| *of != sub);
    }

    /// Queues an answer.
    pub(crate) fn say(&self, frame: &Frame) {
        self.say_raw(frame.to_bytes());
    }

    /// Queues the bytes of an answer.
    pub(crate) fn say_raw(&self, bytes: Bytes) {
        let mut inner = self.inner.hold();
        fail::point("relay.outbox.before_answer");
        inner.weight += weigh(&bytes);
        inner.queue.push_back((CONTROL, bytes));
        drop(inner);
        self.waker.wake();
    }

    /// Queues what somebody else sent and nobody keeps, if there is room; says whether.
    pub(crate) fn pass(&self, bytes: &Bytes) -> bool {
        let taken = self.inner.hold().push(CONTROL, Line::Bulk, bytes);
        if taken {
            self.waker.wake();
        }
        taken
    }

    /// Queues an answer that says nothing about a stream, before what waits.
    pub(crate) fn hasten(&self, frame: &Frame) {
        let bytes = frame.to_bytes();
        let mut inner = self.inner.hold();
        fail::point("relay.outbox.before_answer");
        inner.weight += weigh(&bytes);
        inner.first.push_back((CONTROL, bytes));
        drop(inner);
        self.waker.wake();
    }

    /// Queues a problem with a letter, before what waits.
    pub(crate) fn refuse(&self, code: Code, letter: farhelm_proto::CommandId) {
        self.hasten(&Frame::Problem(About::Letter(letter).problem(code)));
    }

    /// Queues a problem.
    pub(crate) fn complain(&self, code: Code, about: About) {
        self.say(&Frame::Problem(about.problem(code)));
    }

    /// Queues the receipt of a stream, or moves the one that waits.
    pub(crate) fn receipt(&self, stream: StreamId, head: u64) {
        let mut inner = self.inner.hold();
        match inner
            .receipts
            .iter_mut()
            .find(|receipt| receipt.stream == stream)
        {
            Some(receipt) => receipt.head = receipt.head.max(head),
            None => inner.receipts.push(Stored { stream, head }),
        }
        drop(inner);
        self.waker.wake();
    }

    /// Queues the presence of a host, or replaces the one that waits.
    pub(crate) fn presence(&self, presence: Presence) {
        let mut inner = self.inner.hold();
        match inner
            .presence
            .iter_mut()
            .find(|waiting| waiting.host == presence.host)
        {
            Some(waiting) => *waiting = presence,
            None => inner.presence.push(presence),
        }
        drop(inner);
        self.waker.wake();
    }

    /// Says that letters wait.
    pub(crate) fn mail(&self) {
        self.inner.hold().mail = true;
        self.waker.wake();
    }

    /// Makes the connection look again whether it may go on reading.
    pub(crate) fn nudge(&self) {
        self.waker.wake();
    }

    /// Ends the connection; the first reason stands.
    pub(crate) fn close(&self, bye: Bye) {
        self.inner.hold().bye.get_or_insert(bye);
        self.waker.wake();
    }

    /// Why the connection is to end.
    pub(crate) fn bye(&self) -> Option<Bye> {
        self.inner.hold().bye.clone()
    }

    /// Whether so much waits that nothing more should be asked for.
    pub(crate) fn is_full(&self) -> bool {
        self.inner.hold().weight >= WEIGHT
    }

    /// Moves what goes first before what is in the hand of the connection's task.
    pub(crate) fn take_first(&self, hand: &mut VecDeque<Bytes>) {
        let mut inner = self.inner.hold();
        let Inner {
            first,
            weight,
            receipts,
            ..
        } = &mut *inner;
        if first.is_empty() && receipts.is_empty() {
            return;
        }
        let receipts = receipts.drain(..).map(Frame::Stored);
        let mut ahead: VecDeque<Bytes> = receipts.map(|frame| frame.to_bytes()).collect();
        for (_, bytes) in first.drain(..) {
            *weight -= weigh(&bytes);
            ahead.push_back(bytes);
        }
        if first.capacity() > IDLE_CAPACITY {
            *first = VecDeque::new();
        }
        drop(inner);
        if hand.is_empty() {
            hand.append(&mut ahead);
        } else {
            ahead.append(hand);
            *hand = ahead;
        }
    }

    /// Moves what fits into the hand of the connection's task.
    pub(crate) fn take(&self, hand: &mut VecDeque<Bytes>) {
        self.take_first(hand);
        let mut inner = self.inner.hold();
        let mut bytes = 0;
        while bytes < HAND_BYTES
            && let Some((_, front)) = inner.queue.pop_front()
        {
            bytes += front.len();
            inner.weight -= weigh(&front);
            hand.push_back(front);
        }
        if inner.queue.is_empty() && inner.queue.capacity() > IDLE_CAPACITY {
            inner.queue = VecDeque::new();
        }
        // Behind the answer to whoever has just asked.
        let presence = inner.presence.drain(..).map(Frame::Presence);
        hand.extend(presence.map(|frame| frame.to_bytes()));
    }

    /// What else is to do: letters at once, streams once everything queued was sent.
    pub(crate) fn errands(&self) -> Errands {
        let mut inner = self.inner.hold();
        let behind = if inner.queue.is_empty() && inner.first.is_empty() {
            std::mem::take(&mut inner.behind)
        } else {
            Vec::new()
        };
        Errands {
            behind,
            mail: std::mem::take(&mut inner.mail),
        }
    }

    /// Wakes this task whenever something is put in.
    pub(crate) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Notes that the peer gave a sign of life.
    pub(crate) fn see(&self, tick: u32) {
        self.seen.store(tick, Ordering::Relaxed);
    }

    /// Whether there was no sign of life for too long.
    pub(crate) fn is_dead(&self, tick: u32) -> bool {
        tick.saturating_sub(self.seen.load(Ordering::Relaxed)) > self.patience
    }
}

impl Inner {
    fn push(&mut self, sub: SubId, line: Line, bytes: &Bytes) -> bool {
        let weight = weigh(bytes);
        let (queue, most) = match line {
            // A flood must not fill the place of what goes first.
            Line::First => (&mut self.first, WEIGHT + FIRST_WEIGHT),
            Line::Bulk => (&mut self.queue, WEIGHT),
        };
        if !queue.is_empty() && self.weight + weight > most {
            return false;
        }
        self.weight += weight;
        queue.push_back((sub, bytes.clone()));
        true
    }
}

/// Where an envelope waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Before everything else: the log of a host itself, which says which session needs somebody.
    First,
    /// In turn.
    Bulk,
}

impl Line {
    /// The line of a stream of `host`.
    pub(crate) fn of(host: PeerId, stream: StreamId) -> Self {
        if stream == StreamId::from(host) {
            Self::First
        } else {
            Self::Bulk
        }
    }
}

/// What a problem is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About {
    Letter(farhelm_proto::CommandId),
    Stream(StreamId),
    Request(u64),
    /// The number of a frame.
    Frame(u64),
}

impl About {
    fn problem(self, code: Code) -> Problem {
        let mut problem = Problem {
            code,
            request: None,
            letter: None,
            stream: None,
            detail: None,
            frame: None,
        };
        match self {
            Self::Letter(id) => problem.letter = Some(id),
            Self::Stream(stream) => problem.stream = Some(stream),
            Self::Request(request) => problem.request = Some(request),
            Self::Frame(number) => problem.frame = Some(number),
        }
        problem
    }
}

/// What a queued frame counts: a short one may keep a whole read buffer alive.
fn weigh(bytes: &Bytes) -> usize {
    bytes.len().max(256)
}

/// The mark of frames that belong to no subscription.
pub(crate) const CONTROL: SubId = 0;
/// The most that waits in one outbox before envelopes are refused.
const WEIGHT: usize = 512 * 1024;
/// What may wait beyond that of the log of a host itself.
const FIRST_WEIGHT: usize = 128 * 1024;
/// The most that a connection's task takes at once.
const HAND_BYTES: usize = 64 * 1024;
/// An empty queue larger than this is given back.
const IDLE_CAPACITY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f19_a_full_outbox_refuses_envelopes_and_keeps_answers() {
        let outbox = Outbox::new(1, PeerId::from_bytes([1; 16]), 1);
        let frame = |seq| Sealed {
            first: seq,
            last: seq,
            bytes: Bytes::from(vec![0; 100_000]),
        };
        let frames: Vec<_> = (1..=20).map(frame).collect();
        assert_eq!(outbox.offer(5, Line::Bulk, &frames), WEIGHT / 100_000);
        assert_eq!(outbox.offer(5, Line::Bulk, &frames), 0);
        outbox.say(&Frame::Pong(1));
        let mut hand = VecDeque::new();
        outbox.take(&mut hand);
        assert_eq!(hand.len(), 1);
        outbox.purge(5);
        outbox.take(&mut hand);
        assert_eq!(hand.back(), Some(&Frame::Pong(1).to_bytes()));
    }

    #[test]
    fn f20_what_somebody_waits_for_overtakes_a_flood() {
        let outbox = Outbox::new(1, PeerId::from_bytes([1; 16]), 1);
        let frame = |seq| Sealed {
            first: seq,
            last: seq,
            bytes: Bytes::from(vec![0; 60_000]),
        };
        let flood: Vec<_> = (1..=20).map(frame).collect();
        let taken = outbox.offer(5, Line::Bulk, &flood);
        let mut hand = VecDeque::new();
        outbox.take(&mut hand);
        let in_hand = hand.len();
        let own = Sealed {
            first: 1,
            last: 1,
            bytes: Bytes::from_static(b"own log"),
        };
        assert_eq!(outbox.offer(6, Line::First, &[own]), 1);
        outbox.hasten(&Frame::Pong(1));
        outbox.mail();
        assert!(outbox.errands().mail, "letters wait for nobody");
        outbox.take_first(&mut hand);
        assert_eq!(&hand[0][..], b"own log");
        assert_eq!(hand[1], Frame::Pong(1).to_bytes());
        assert_eq!(hand.len(), in_hand + 2);
        while outbox.inner.hold().weight > 0 {
            outbox.take(&mut hand);
        }
        assert_eq!(hand.len(), taken + 2, "nothing is lost");
    }

    #[test]
    fn a_newer_receipt_or_presence_replaces_the_one_that_waits() {
        let outbox = Outbox::new(1, PeerId::from_bytes([1; 16]), 1);
        let host = PeerId::from_bytes([2; 16]);
        let presence = |online| Presence {
            host,
            online,
            since: farhelm_proto::Timestamp(1),
        };
        outbox.receipt(host.into(), 5);
        outbox.receipt(host.into(), 9);
        outbox.presence(presence(true));
        outbox.presence(presence(false));
        let mut hand = VecDeque::new();
        outbox.take(&mut hand);
        let frames: Vec<_> = hand
            .iter()
            .map(|bytes| Frame::parse(bytes).unwrap())
            .collect();
        let receipt = Stored {
            stream: host.into(),
            head: 9,
        };
        assert_eq!(
            frames,
            [Frame::Stored(receipt), Frame::Presence(presence(false))]
        );
    }
}
