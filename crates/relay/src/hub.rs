//! What the relay decides for one host: who may read it, which envelopes continue its streams,
//! who gets them, and which strangers may write to it. No IO: frames go into outboxes, which
//! never block, and what must be stored is returned.
//!
//! One hub per host is the unit of sharing; a flood of one host holds up nobody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use farhelm_proto::frame::{Frame, Presence};
use farhelm_proto::{Code, PeerId, StreamId, Timestamp};

use crate::hub::offers::Offers;
use crate::hub::stream::Stream;
use crate::hub::wants::Wants;
use crate::outbox::{About, ConnId, Outbox, SubId};
use crate::store::Sealed;

pub(crate) mod offers;
pub(crate) mod stream;
pub(crate) mod wants;

/// One host, whether connected or not.
pub(crate) struct Hub {
    host: PeerId,
    seat: Seat,
    /// Of the list of members; none before the host ever sent one.
    version: Option<u64>,
    members: BTreeSet<PeerId>,
    streams: BTreeMap<StreamId, Stream>,
    pub(crate) offers: Offers,
    pub(crate) wants: Wants,
}

/// Whether the host is connected, and since when it is or is not.
enum Seat {
    Empty {
        since: Timestamp,
    },
    Taken {
        outbox: Arc<Outbox>,
        generation: u64,
        since: Timestamp,
    },
}

/// A newer connection of the same host is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superseded;

/// An envelope that arrived, its header read.
pub(crate) struct Arrival {
    pub(crate) stream: StreamId,
    pub(crate) live: bool,
    /// Seq of the newest snapshot.
    pub(crate) base: u64,
    pub(crate) sealed: Sealed,
}

/// Envelopes to be stored, in order; `run` comes back with the outcome.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) stream: StreamId,
    pub(crate) run: u32,
    pub(crate) frames: Vec<Sealed>,
}

impl Hub {
    /// A host as the store knows it.
    pub(crate) fn new(host: PeerId, members: Option<(u64, Vec<PeerId>)>) -> Self {
        let (version, members) = members.unzip();
        let members = members.unwrap_or_default();
        Self {
            host,
            seat: Seat::Empty {
                since: Timestamp(0),
            },
            version,
            members: members.into_iter().collect(),
            streams: BTreeMap::new(),
            offers: Offers::default(),
            wants: Wants::default(),
        }
    }

    /// Seats a connection of the host. Returns the older one, which is to be sent away.
    ///
    /// # Errors
    ///
    /// [`Superseded`] when the one that is seated is newer.
    pub(crate) fn seat(
        &mut self,
        outbox: Arc<Outbox>,
        generation: u64,
        now: Timestamp,
    ) -> Result<Option<Arc<Outbox>>, Superseded> {
        let older = match &self.seat {
            Seat::Taken {
                generation: seated, ..
            } if *seated > generation => return Err(Superseded),
            Seat::Taken { outbox, .. } => Some(Arc::clone(outbox)),
            Seat::Empty { .. } => None,
        };
        self.seat = Seat::Taken {
            outbox,
            generation,
            since: now,
        };
        self.tell_presence();
        Ok(older)
    }

    /// Takes note that a connection of the host ended.
    pub(crate) fn unseat(&mut self, conn: ConnId, now: Timestamp) {
        if self.is_seated(conn) {
            self.seat = Seat::Empty { since: now };
            self.tell_presence();
        }
    }

    /// Whether `conn` speaks for the host.
    pub(crate) fn is_seated(&self, conn: ConnId) -> bool {
        self.seated().is_some_and(|outbox| outbox.id == conn)
    }

    /// The connection that speaks for the host.
    pub(crate) fn seated(&self) -> Option<&Arc<Outbox>> {
        match &self.seat {
            Seat::Taken { outbox, .. } => Some(outbox),
            Seat::Empty { .. } => None,
        }
    }

    /// Whether the host is connected, for its readers.
    pub(crate) fn presence(&self) -> Presence {
        let (online, since) = match self.seat {
            Seat::Empty { since } => (false, since),
            Seat::Taken { since, .. } => (true, since),
        };
        Presence {
            host: self.host,
            online,
            since,
        }
    }

    /// Whether `peer` belongs to this host: may read it, write to it and be written to.
    pub(crate) fn is_member(&self, peer: PeerId) -> bool {
        peer == self.host || self.members.contains(&peer)
    }

    /// Replaces the members; cuts off those who are not among them any more and names them.
    /// Nothing when the list is the one known, or older.
    pub(crate) fn set_members(&mut self, version: u64, devices: &[PeerId]) -> Option<Vec<PeerId>> {
        let devices: BTreeSet<PeerId> = devices.iter().copied().collect();
        if self
            .version
            .is_some_and(|known| version < known || (version == known && devices == self.members))
        {
            return None;
        }
        self.version = Some(version);
        let before = std::mem::replace(&mut self.members, devices);
        let removed: Vec<PeerId> = before.difference(&self.members).copied().collect();
        for (id, stream) in &mut self.streams {
            for cut in stream.cut(|peer| removed.contains(&peer)) {
                cut.outbox.purge(cut.sub);
                cut.outbox.complain(Code::NotFound, About::Stream(*id));
            }
        }
        self.wants.cut(|peer| removed.contains(&peer));
        Some(removed)
    }

    /// The stream, when its state was read from the store before.
    pub(crate) fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// Takes note of what the store holds of a stream, unless more is known already.
    pub(crate) fn learn(&mut self, id: StreamId, head: u64, base: u64) {
        self.streams
            .entry(id)
            .or_insert_with(|| Stream::new(head, base));
    }

    /// Takes envelopes from the host's connection: passes them on to who follows, and returns
    /// what is to be stored. Those that are stored already are receipted again; those that do
    /// not continue their stream are refused.
    pub(crate) fn arrive(&mut self, conn: ConnId, arrivals: Vec<Arrival>) -> Vec<Append> {
        let mut appends: Vec<Append> = Vec::new();
        let Some(outbox) = self.seated().filter(|outbox| outbox.id == conn).cloned() else {
            return appends;
        };
        let mut arrivals = arrivals.into_iter().peekable();
        while let Some(first) = arrivals.next() {
            let (id, live) = (first.stream, first.live);
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let mut run = vec![first];
            while let Some(next) = arrivals.next_if(|next| next.stream == id && next.live == live) {
                run.push(next);
            }
            if live {
                stream.pass(run);
            } else if let Some(append) = stream.extend(id, run, &outbox) {
                match appends.last_mut() {
                    Some(last) if last.stream == id && last.run == append.run => {
                        last.frames.extend(append.frames);
                    }
                    Some(_) | None => appends.push(append),
                }
            }
        }
        appends
    }

    /// Takes note that envelopes are stored, and tells the host.
    pub(crate) fn stored(&mut self, id: StreamId, last: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.stored(last);
            if let Some(host) = self.seated() {
                host.receipt(id, last);
            }
        }
    }

    /// Takes note that envelopes from `first` on are not stored, and tells the host, which will
    /// send them again.
    pub(crate) fn not_stored(&mut self, id: StreamId, run: u32, first: u64, code: Code) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.not_stored(run, first)
            && let Some(host) = self.seated()
        {
            host.complain(code, About::Stream(id));
        }
    }

    /// Ends every subscription of a connection.
    pub(crate) fn leave(&mut self, conn: ConnId) {
        for stream in self.streams.values_mut() {
            stream.leave(conn);
        }
        self.wants.leave(conn);
        self.forget_idle_streams();
    }

    /// Ends one subscription.
    pub(crate) fn unsubscribe(&mut self, id: StreamId, conn: ConnId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.leave(conn);
        }
        self.forget_idle_streams();
    }

    /// Continues a subscription that was fed from the store up to `at`: it gets the rest and is
    /// live, or is told where the store has more. None when it was cut off meanwhile.
    pub(crate) fn rejoin(
        &mut self,
        id: StreamId,
        conn: ConnId,
        sub: SubId,
        at: u64,
    ) -> Option<stream::Rejoined> {
        self.streams.get_mut(&id)?.rejoin(conn, sub, at)
    }

    /// Whether nothing would be lost by forgetting this hub: the store knows the rest.
    pub(crate) fn is_idle(&mut self, now: Timestamp) -> bool {
        self.forget_idle_streams();
        self.seated().is_none()
            && self.streams.is_empty()
            && self.offers.is_idle(now)
            && self.wants.is_idle()
    }

    fn forget_idle_streams(&mut self) {
        let hosted = self.seated().is_some();
        // A connected host may continue any of its streams next; asking for streams that do not
        // exist must not fill the memory.
        self.streams
            .retain(|_, stream| !stream.is_idle() || (hosted && !stream.is_blank()));
    }

    fn tell_presence(&self) {
        let presence = self.presence();
        let followers = self.streams.values().flat_map(Stream::outboxes);
        let distinct: BTreeMap<ConnId, &Arc<Outbox>> =
            followers.map(|outbox| (outbox.id, outbox)).collect();
        for outbox in distinct.values() {
            outbox.presence(presence.clone());
        }
    }

    /// Passes a frame to the host, when it is connected.
    pub(crate) fn tell_host(&self, frame: &Frame) -> bool {
        self.seated().map(|host| host.say(frame)).is_some()
    }
}

#[cfg(test)]
mod tests;
