//! One stream of a host: its head, what is on its way into the store, and who follows it.
//!
//! Envelopes are passed on before they are stored. So that somebody who subscribes meanwhile
//! sees each exactly once, those on their way are kept in `tail` until the store has them:
//! a reader takes what is stored from the store, then what is in the tail, then what comes.

use std::collections::VecDeque;
use std::sync::Arc;

use farhelm_proto::{Code, PeerId, StreamId};

use crate::hub::{Append, Arrival};
use crate::outbox::{About, ConnId, Outbox, SubId};
use crate::store::Sealed;

/// The state of a stream.
pub(crate) struct Stream {
    /// Seq of the last event in the store.
    stored: u64,
    /// Seq of the last event received.
    head: u64,
    /// Seq of the newest snapshot.
    base: u64,
    /// What was received and is not stored, without a gap up to `head`.
    tail: VecDeque<Sealed>,
    /// Counts failures of the store, to tell outcomes from before and after one apart.
    run: u32,
    followers: Vec<Follower>,
}

struct Follower {
    outbox: Arc<Outbox>,
    sub: SubId,
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
}

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
}

impl Stream {
    pub(super) const fn new(head: u64, base: u64) -> Self {
        Self {
            stored: head,
            head,
            base,
            tail: VecDeque::new(),
            run: 0,
            followers: Vec::new(),
        }
    }

    /// Seq of the last event in the store, and of the newest snapshot received.
    pub(crate) const fn position(&self) -> (u64, u64) {
        (self.stored, self.base)
    }

    /// Adds a follower that has everything up to `at`; it is fed from the store first.
    pub(crate) fn follow(&mut self, outbox: Arc<Outbox>, sub: SubId, at: u64) {
        self.followers.push(Follower {
            outbox,
            sub,
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
            follower.outbox.offer(follower.sub, &frames);
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
        for arrival in arrivals {
            let Sealed { first, last, .. } = arrival.sealed;
            if last <= self.head && first <= last {
                // What is on its way is receipted once it is stored.
                if last <= self.stored {
                    host.receipt(id, self.stored);
                }
            } else if first == self.head + 1 && first <= last {
                self.head = last;
                self.base = self.base.max(arrival.base.min(last));
                frames.push(arrival.sealed);
            } else {
                host.complain(Code::Gap, About::Stream(id));
                break;
            }
        }
        if frames.is_empty() {
            return None;
        }
        self.fan_out(&frames);
        self.tail.extend(frames.iter().cloned());
        Some(Append {
            stream: id,
            run: self.run,
            frames,
        })
    }

    pub(super) fn stored(&mut self, last: u64) {
        self.stored = self.stored.max(last);
        while self.tail.front().is_some_and(|frame| frame.last <= last) {
            self.tail.pop_front();
        }
        if self.tail.is_empty() {
            self.tail = VecDeque::new();
        }
    }

    /// Forgets what could not be stored; whether that is news.
    pub(super) fn not_stored(&mut self, run: u32, first: u64) -> bool {
        if run != self.run || first > self.head {
            return false;
        }
        self.run = self.run.wrapping_add(1);
        self.tail.clear();
        self.head = self.stored;
        if self.base > self.head {
            // The next envelope names the newest snapshot again.
            self.base = 0;
        }
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
        let taken = follower.outbox.offer(sub, &missing);
        if let Some(last) = missing[..taken].last() {
            follower.at = last.last;
        }
        if taken < missing.len() {
            return Some(Rejoined::Full(follower.at));
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
            // After a failure of the store the host sends again what a follower may already have.
            let known = frames.partition_point(|frame| frame.last <= follower.at);
            let unseen = &frames[known..];
            let taken = follower.outbox.offer(follower.sub, unseen);
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
