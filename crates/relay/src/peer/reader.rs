//! What somebody who reads a host may do: follow its streams and page back in them.

use std::sync::Arc;

use bytes::Bytes;
use farhelm_proto::frame::{Fetch, Frame, Subscribe, Subscribed};
use farhelm_proto::{Code, PeerId, StreamId, limits};

use crate::hub::stream::Rejoined;
use crate::lock::Lock as _;
use crate::outbox::{About, Line, SubId};
use crate::peer::{Handled, Peer, Sub, host};
use crate::state::SharedHub;
use crate::store::{Sealed, StoreError, Tables};
use crate::wire::Socket;

mod page;

impl<W: Socket> Peer<W> {
    /// The hub of a host that this peer belongs to. A host that does not exist and one that is
    /// somebody else's are the same from here.
    pub(super) async fn readable(&self, host: PeerId) -> Result<SharedHub, Code> {
        let hub = self.state.hub(host).await.map_err(|_| Code::StoreFailed)?;
        hub.filter(|hub| hub.hold().is_member(self.me))
            .ok_or(Code::NotFound)
    }

    pub(super) async fn subscribe(&mut self, ask: Subscribe) {
        if let Err(code) = self.try_subscribe(&ask).await {
            self.outbox.complain(code, About::Stream(ask.stream));
        }
    }

    async fn try_subscribe(&mut self, ask: &Subscribe) -> Result<(), Code> {
        let (host, stream) = (ask.host, ask.stream);
        let hub = self.readable(host).await?;
        self.unsubscribe(host, stream);
        if self.subs.len() >= limits::SUBSCRIPTIONS {
            return Err(Code::Full);
        }
        loop {
            host::learn(&self.state.store, &hub, host, stream)
                .await
                .map_err(|_| Code::StoreFailed)?;
            let Some((head, base)) = hub.hold().stream(stream).map(|state| state.position()) else {
                continue;
            };
            let (from, gap) = match begin(ask, head, base) {
                Begin::After(seq) => (seq, false),
                Begin::Holding(seq) => {
                    let place = self
                        .state
                        .store
                        .read(move |tables| place(tables, host, stream, (seq, base)))
                        .await;
                    place.map_err(|_| Code::StoreFailed)?
                }
            };
            // Who has no cursor misses nothing that it has asked for.
            let gap = (gap && ask.after.is_some()).then_some(true);
            // Membership and stream may have gone while the store was asked.
            let mut decided = hub.hold();
            if !decided.is_member(self.me) {
                return Err(Code::NotFound);
            }
            fail::point("relay.peer.before_subscribed");
            let presence = decided.presence();
            let Some(state) = decided.stream(stream) else {
                continue;
            };
            let (head, base) = state.position();
            self.next_sub += 1;
            self.outbox.say(&Frame::Subscribed(Subscribed {
                host,
                stream,
                head,
                from,
                base,
                gap,
            }));
            self.outbox.presence(presence);
            let line = Line::of(host, stream);
            state.follow(Arc::clone(&self.outbox), self.next_sub, line, from);
            drop(decided);
            // Not fed before what the outbox holds now, which is the answer above, was sent.
            self.outbox.fall_behind(self.next_sub);
            self.subs.push(Sub {
                id: self.next_sub,
                host,
                stream,
                hub,
            });
            return Ok(());
        }
    }

    pub(super) fn unsubscribe(&mut self, host: PeerId, stream: StreamId) {
        let found = self
            .subs
            .iter()
            .position(|sub| sub.host == host && sub.stream == stream);
        if let Some(at) = found {
            let sub = self.subs.swap_remove(at);
            sub.hub.hold().unsubscribe(stream, self.outbox.id);
            self.outbox.purge(sub.id);
            self.feeding.retain(|feeding| *feeding != sub.id);
        }
    }

    pub(super) async fn fetch(&self, fetch: Fetch) {
        let answer = match self.readable(fetch.host).await {
            Ok(_) => self.page(&fetch).await.map_err(|_| Code::StoreFailed),
            Err(code) => Err(code),
        };
        match answer {
            Ok(page) => self.outbox.say_raw(page),
            Err(code) => self.outbox.complain(code, About::Request(fetch.request)),
        }
    }

    async fn page(&self, fetch: &Fetch) -> Result<Bytes, StoreError> {
        let &Fetch {
            request,
            host,
            stream,
            before,
            max_bytes,
        } = fetch;
        let max_bytes = usize::try_from(max_bytes)
            .unwrap_or(usize::MAX)
            .min(page::LARGEST);
        self.state
            .store
            .read(move |tables| {
                let (frames, more) = tables.before(host, stream, before, max_bytes)?;
                page::encode(request, &frames, more)
                    .ok_or_else(|| StoreError::Backend("not an envelope".to_owned()))
            })
            .await
    }

    /// Fetches the next piece for somebody who is behind, or the next letters.
    pub(super) async fn feed(&mut self) -> Handled {
        if self.mail {
            self.mail = false;
            self.deliver().await;
        }
        if let Some(sub) = self.feeding.pop_front()
            && let Err(code) = self.feed_stream(sub).await
            && let Some(at) = self.subs.iter().position(|known| known.id == sub)
        {
            let sub = self.subs.swap_remove(at);
            sub.hub.hold().unsubscribe(sub.stream, self.outbox.id);
            self.outbox.complain(code, About::Stream(sub.stream));
        }
        Ok(())
    }

    async fn feed_stream(&mut self, id: SubId) -> Result<(), Code> {
        let Some(sub) = self.subs.iter().find(|sub| sub.id == id) else {
            return Ok(());
        };
        let (host, stream, hub) = (sub.host, sub.stream, Arc::clone(&sub.hub));
        let cursor = hub
            .hold()
            .stream(stream)
            .and_then(|state| state.cursor(self.outbox.id, id));
        let Some((at, stored)) = cursor else {
            return Ok(());
        };
        let mut piece: Vec<Sealed> = if at < stored {
            let piece = self
                .state
                .store
                .read(move |tables| tables.after(host, stream, at, PIECE_BYTES))
                .await;
            piece.map_err(|_| Code::StoreFailed)?
        } else {
            Vec::new()
        };
        let is_empty = piece.is_empty();
        let line = Line::of(host, stream);
        if line == Line::First {
            // What comes next of this stream would overtake what is in the hand.
            let taken = self.outbox.offer(id, line, &piece);
            piece.truncate(taken);
        }
        let reached = piece.last().map_or(at, |frame| frame.last);
        let rejoined = hub.hold().rejoin(stream, self.outbox.id, id, reached);
        match rejoined {
            // It was cut off meanwhile, and must not get the piece any more.
            None => {
                self.outbox.purge(id);
                return Ok(());
            }
            // The store said that there was more than it then gave.
            Some(Rejoined::Behind) if is_empty && at < stored => {
                return Err(Code::StoreFailed);
            }
            // There was no room in its line.
            Some(Rejoined::Behind) if piece.is_empty() => self.outbox.fall_behind(id),
            Some(Rejoined::Behind) => self.feeding.push_back(id),
            Some(Rejoined::Full(_)) => self.outbox.fall_behind(id),
            // Whoever holds this history is told that it is not all there is.
            Some(Rejoined::Limited) => self
                .outbox
                .complain(Code::HistoryLimited, About::Stream(stream)),
            Some(Rejoined::Live) => {}
        }
        if line == Line::Bulk {
            self.hand.extend(piece.into_iter().map(|frame| frame.bytes));
        }
        Ok(())
    }
}

/// The seq before the envelope that holds the event `wanted`; when that was dropped, before the one
/// with the newest snapshot, and that it is so.
fn place(
    tables: &mut dyn Tables,
    host: PeerId,
    stream: StreamId,
    (wanted, base): (u64, u64),
) -> Result<(u64, bool), StoreError> {
    let before = |frame: Sealed| frame.first.saturating_sub(1);
    if let Some(frame) = tables.holding(host, stream, wanted)? {
        return Ok((before(frame), false));
    }
    let snapshot = tables.holding(host, stream, base.max(wanted))?;
    let found = match snapshot {
        Some(frame) => Some(frame),
        None => tables.after(host, stream, wanted, 1)?.into_iter().next(),
    };
    Ok(found.map_or((wanted.saturating_sub(1), false), |frame| {
        (before(frame), true)
    }))
}

/// Where a subscription begins.
#[derive(Debug, PartialEq)]
enum Begin {
    /// After this seq, which is where an envelope ends.
    After(u64),
    /// With the envelope that holds this seq.
    Holding(u64),
}

/// Applies the rules of [`Subscribe`] to a stream that is stored up to `head`.
fn begin(ask: &Subscribe, head: u64, base: u64) -> Begin {
    match (ask.after, ask.tail) {
        (Some(after), _) if after >= head => Begin::After(after),
        (Some(after), _) => Begin::Holding(after + 1),
        // The newest snapshot is on its way into the store, and will be seen.
        (None, _) if base > head || head == 0 => Begin::After(head),
        (None, tail) if base > 0 && tail.is_none_or(|tail| head - base <= tail.max(NEAR)) => {
            Begin::Holding(base)
        }
        (None, Some(0)) => Begin::After(head),
        (None, tail) => Begin::Holding((head + 1).saturating_sub(tail.unwrap_or(TAIL)).max(1)),
    }
}

/// A snapshot so near is always a better beginning than the middle of the log.
const NEAR: u64 = 2000;
/// Events before the head that somebody gets who asks for nothing particular.
const TAIL: u64 = 200;
/// What is read from the store at once for somebody who is behind.
const PIECE_BYTES: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_at_its_cursor_or_the_snapshot_or_the_tail() {
        let table = [
            ((Some(0), None), (0, 0), Begin::After(0)),
            ((Some(9), None), (9, 0), Begin::After(9)),
            ((Some(12), None), (9, 0), Begin::After(12)),
            ((Some(4), None), (9, 7), Begin::Holding(5)),
            ((None, None), (0, 0), Begin::After(0)),
            ((None, None), (9, 7), Begin::Holding(7)),
            ((None, None), (900_000, 7), Begin::Holding(7)),
            ((None, Some(10)), (2_007, 7), Begin::Holding(7)),
            ((None, Some(10)), (2_008, 7), Begin::Holding(1_999)),
            ((None, Some(0)), (5_000, 0), Begin::After(5_000)),
            ((None, Some(5_000)), (5_007, 7), Begin::Holding(7)),
            ((None, None), (1_000, 0), Begin::Holding(801)),
            ((None, None), (100, 0), Begin::Holding(1)),
            ((None, Some(10)), (100, 0), Begin::Holding(91)),
            ((None, None), (100, 105), Begin::After(100)),
        ];
        for ((after, tail), (head, base), expected) in table {
            let host = PeerId::from_bytes([1; 16]);
            let ask = Subscribe {
                host,
                stream: host.into(),
                after,
                tail,
            };
            assert_eq!(
                begin(&ask, head, base),
                expected,
                "{after:?} {tail:?} {head} {base}"
            );
        }
    }
}
