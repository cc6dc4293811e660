//! One stream of a host: its head, what is on its way into the store, and who follows it.
//!
//! Envelopes are passed on before they are stored. So that somebody who subscribes meanwhile
//! sees each exactly once, those on their way are kept in `tail` until the store has them:
//! a reader takes what is stored from the store, then what is in the tail, then what comes.
//!
//! When the store takes nothing, what comes is still passed on to those who have everything
//! before it. Whoever lacks what was not stored is told that history is limited, and waits until
//! the host has offered it again and the store has it.

use std::collections::VecDeque;
use std::sync::Arc;

use farhelm_proto::{Code, PeerId, StreamId};

use crate::hub::{Append, Arrival};
use crate::outbox::{About, ConnId, Line, Outbox, SubId};
use crate::store::Sealed;

/// The state of a stream.
pub(crate) struct Stream {
    /// Seq of the last event in the store.
    stored: u64,
    /// Seq of the last event received.
    head: u64,
    /// Seq of the last event that was given to the store; less than `head` when it takes nothing.
    given: u64,
    /// Seq of the newest snapshot.
    base: u64,
    /// Seq of the newest snapshot in the store.
    stored_base: u64,
    /// What was given to the store and is not stored, without a gap.
    tail: VecDeque<Sealed>,
    /// Seq below which the store was told to drop what it has.
    trimmed: u64,
    /// Counts failures of the store, to tell outcomes from before and after one apart.
    run: u32,
    followers: Vec<Follower>,
}

struct Follower {
    outbox: Arc<Outbox>,
    sub: SubId,
    line: Line,
    /// Seq of the last event that was queued for it.
    at: u64,
    pace: Pace,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Gets what comes.
    Live,
    /// Is being fed from the store.
    Behind,
    /// Has all that is stored, and lacks something that was not.
    Limited,
}

/// The part of its bound by which a stream may grow beyond that before it is trimmed.
const TRIM_AT_ONCE: u64 = 8;

/// A follower that was cut off.
pub(crate) struct Cut {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) sub: SubId,
}

/// How a subscription goes on after a piece from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejoined {
    /// It gets what comes from now on.
    Live,
    /// The store has more.
    Behind,
    /// Its outbox is full again; it continues after this seq once that was sent.
    Full(u64),
    /// The store lacks what comes next; it continues when that is there.
    Limited,
}

impl Stream {
    pub(super) const fn new(head: u64, base: u64) -> Self {
        Self {
            stored: head,
            head,
            given: head,
            base,
            stored_base: base,
            tail: VecDeque::new(),
            trimmed: 0,
            run: 0,
            followers: Vec::new(),
        }
    }

    /// Seq of the last event in the store, and of the newest snapshot that can be had.
    pub(crate) const fn position(&self) -> (u64, u64) {
        let base = if self.is_limited() {
            self.stored_base
        } else {
            self.base
        };
        (self.stored, base)
    }

    const fn is_limited(&self) -> bool {
        self.given < self.head
    }

    /// The seq below which the store may drop what it has, when there are so many more events than
    /// `limit` that it is worth it. The newest snapshot that is stored always stays.
    pub(crate) fn trim(&mut self, limit: u64) -> Option<u64> {
        if limit == 0 || self.base == 0 || self.base > self.stored {
            return None;
        }
        let below = (self.stored + 1).saturating_sub(limit).min(self.base);
        let is_worth_it = below > self.trimmed + limit / TRIM_AT_ONCE;
        is_worth_it.then(|| {
            self.trimmed = below;
            below
        })
    }

    /// Adds a follower that has everything up to `at`; it is fed from the store first.
    pub(crate) fn follow(&mut self, outbox: Arc<Outbox>, sub: SubId, line: Line, at: u64) {
        self.followers.push(Follower {
            outbox,
            sub,
            line,
            at,
            pace: Pace::Behind,
        });
    }

    /// Removes a connection, with what waits for it.
    pub(super) fn leave(&mut self, conn: ConnId) {
        drop(self.remove(|follower| follower.outbox.id == conn));
    }

    /// Removes the connections of some peers.
    pub(super) fn cut(&mut self, gone: impl Fn(PeerId) -> bool) -> Vec<Cut> {
        let cut = self.remove(|follower| gone(follower.outbox.peer));
        cut.into_iter()
            .map(|follower| Cut {
                outbox: follower.outbox,
                sub: follower.sub,
            })
            .collect()
    }

    pub(super) fn outboxes(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        self.followers.iter().map(|follower| &follower.outbox)
    }

    /// Whether forgetting it loses nothing that the store does not know.
    pub(super) fn is_idle(&self) -> bool {
        self.followers.is_empty() && self.tail.is_empty()
    }

    /// Whether nothing was ever stored of it.
    pub(super) const fn is_blank(&self) -> bool {
        self.head == 0
    }

    /// Passes live envelopes on; whoever is behind does not get them.
    pub(super) fn pass(&self, arrivals: Vec<Arrival>) {
        let frames: Vec<Sealed> = arrivals.into_iter().map(|arrival| arrival.sealed).collect();
        for follower in self
            .followers
            .iter()
            .filter(|follower| follower.pace == Pace::Live)
        {
            follower.outbox.offer(follower.sub, follower.line, &frames);
        }
    }

    /// Takes durable envelopes from the host.
    pub(super) fn extend(
        &mut self,
        id: StreamId,
        arrivals: Vec<Arrival>,
        host: &Outbox,
    ) -> Option<Append> {
        let mut frames = Vec::with_capacity(arrivals.len());
        let mut fresh = Vec::new();
        for arrival in arrivals {
            let Sealed { first, last, .. } = arrival.sealed;
            if first > last {
                host.complain(Code::Gap, About::Stream(id));
                break;
            }
            if first == self.given + 1 {
                self.given = last;
                frames.push(arrival.sealed.clone());
            } else if last <= self.given {
                // What is on its way is receipted once it is stored.
                if last <= self.stored {
                    host.receipt(id, self.stored);
                }
            } else if last > self.head && first != self.head + 1 {
                host.complain(Code::Gap, About::Stream(id));
                break;
            }
            if last > self.head {
                self.head = last;
                self.base = self.base.max(arrival.base.min(last));
                fresh.push(arrival.sealed);
            }
        }
        self.fan_out(&fresh);
        if frames.is_empty() {
            return None;
        }
        self.tail.extend(frames.iter().cloned());
        Some(Append {
            stream: id,
            run: self.run,
            frames,
        })
    }

    pub(super) fn stored(&mut self, last: u64) {
        self.stored = self.stored.max(last);
        if self.base <= self.stored {
            self.stored_base = self.base;
        }
        for follower in &mut self.followers {
            if follower.pace == Pace::Limited && follower.at < self.stored {
                follower.pace = Pace::Behind;
                follower.outbox.fall_behind(follower.sub);
            }
        }
        while self.tail.front().is_some_and(|frame| frame.last <= last) {
            self.tail.pop_front();
        }
        if self.tail.is_empty() {
            self.tail = VecDeque::new();
        }
    }

    /// Forgets what could not be stored; whether that is news. It was passed on, and what comes is
    /// passed on too.
    pub(super) fn not_stored(&mut self, run: u32, first: u64) -> bool {
        if run != self.run || first > self.given {
            return false;
        }
        self.run = self.run.wrapping_add(1);
        self.tail.clear();
        self.given = self.stored;
        true
    }

    pub(super) fn rejoin(&mut self, conn: ConnId, sub: SubId, at: u64) -> Option<Rejoined> {
        let follower = self
            .followers
            .iter_mut()
            .find(|follower| follower.outbox.id == conn && follower.sub == sub)?;
        follower.at = follower.at.max(at);
        if follower.at < self.stored {
            return Some(Rejoined::Behind);
        }
        let missing: Vec<Sealed> = self
            .tail
            .iter()
            .filter(|frame| frame.last > follower.at)
            .cloned()
            .collect();
        let taken = follower.outbox.offer(sub, follower.line, &missing);
        if let Some(last) = missing[..taken].last() {
            follower.at = last.last;
        }
        if taken < missing.len() {
            return Some(Rejoined::Full(follower.at));
        }
        if follower.at < self.head {
            follower.pace = Pace::Limited;
            return Some(Rejoined::Limited);
        }
        follower.pace = Pace::Live;
        Some(Rejoined::Live)
    }

    /// Where a follower stands, and how far the store goes.
    pub(crate) fn cursor(&self, conn: ConnId, sub: SubId) -> Option<(u64, u64)> {
        let found = self
            .followers
            .iter()
            .find(|follower| follower.outbox.id == conn && follower.sub == sub);
        found.map(|follower| (follower.at, self.stored))
    }

    fn fan_out(&mut self, frames: &[Sealed]) {
        let Some(end) = frames.last().map(|frame| frame.last) else {
            return;
        };
        for follower in self
            .followers
            .iter_mut()
            .filter(|follower| follower.pace == Pace::Live)
        {
            // A relay that lost its store may be behind those who read it.
            let known = frames.partition_point(|frame| frame.last <= follower.at);
            let unseen = &frames[known..];
            let taken = follower.outbox.offer(follower.sub, follower.line, unseen);
            if taken == unseen.len() {
                follower.at = follower.at.max(end);
            } else {
                follower.at = unseen[..taken]
                    .last()
                    .map_or(follower.at, |frame| frame.last);
                follower.pace = Pace::Behind;
                follower.outbox.fall_behind(follower.sub);
            }
        }
    }

    fn remove(&mut self, gone: impl Fn(&Follower) -> bool) -> Vec<Follower> {
        let (gone, kept) = std::mem::take(&mut self.followers)
            .into_iter()
            .partition(|each| gone(each));
        self.followers = kept;
        gone
    }
}
