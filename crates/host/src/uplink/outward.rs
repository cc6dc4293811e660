//! What goes to the relay: what the daemon says, and what the journal holds beyond what the relay
//! has.

use std::ops::Bound;
use std::sync::atomic::Ordering;

use farhelm_proto::StreamId;
use farhelm_proto::frame::{CloseOffer, Frame, OpenOffer, Taken};
use tokio::time::Instant;

use super::handle::Input;
use super::queue::Line;
use super::{Position, UplinkActor};
use crate::journal::{JournalError, StoredEnvelope};

/// Bytes read from the journal at a time.
const CHUNK: usize = 512 * 1024;

impl UplinkActor {
    pub(super) fn take_input(&mut self, input: Input) {
        match input {
            Input::Publish(envelope) => {
                self.waiting
                    .fetch_sub(envelope.frame.len(), Ordering::Relaxed);
                self.publish(envelope);
            }
            Input::Behind(stream) => match self.streams.get(&stream) {
                None if self.is_up => self.locate(stream),
                Some(Position::Next(_)) => drop(self.behind.insert(stream)),
                None | Some(Position::Asked | Position::Forked) => {}
            },
            Input::Live(frame) if self.is_up && self.queue.has_room() => {
                self.queue.push(Line::Bulk, frame);
            }
            Input::Live(_) => {}
            Input::Letter(frame) => {
                if self.is_up {
                    self.queue.push(Line::First, frame);
                }
            }
            Input::AskForMail => self.inbox.leave_out(),
            Input::Taken(from, id) => self.say(&Frame::Taken(Taken { from, id })),
            Input::Members(members) => {
                self.members = Some(members.clone());
                self.say(&Frame::Members(members));
            }
            Input::OpenOffer(offer, until) => {
                self.offers.insert(offer, until);
                self.say(&Frame::OpenOffer(OpenOffer { offer, until }));
            }
            Input::CloseOffer(offer, keep) => {
                self.offers.remove(&offer);
                self.say(&Frame::CloseOffer(CloseOffer { offer, keep }));
            }
        }
    }

    /// Sends an envelope at once when the relay has everything before it.
    fn publish(&mut self, envelope: StoredEnvelope) {
        if !self.is_up {
            return;
        }
        match self.streams.get(&envelope.stream).copied() {
            None => {
                self.locate(envelope.stream);
            }
            Some(Position::Next(next))
                if next == envelope.first && !self.behind.contains(&envelope.stream) =>
            {
                let line = self.line_of(envelope.stream);
                if line == Line::First || self.queue.has_room() {
                    self.send_on(line, envelope);
                } else {
                    self.behind.insert(envelope.stream);
                }
            }
            Some(Position::Next(next)) if next <= envelope.last => {
                self.behind.insert(envelope.stream);
            }
            Some(Position::Next(_) | Position::Asked | Position::Forked) => {}
        }
    }

    /// Queues the next envelope of a stream.
    fn send_on(&mut self, line: Line, envelope: StoredEnvelope) {
        self.streams
            .insert(envelope.stream, Position::Next(envelope.last + 1));
        let now = Instant::now();
        self.receipts.expect(envelope.stream, envelope.last, now);
        let frame = self.sent.mark(envelope);
        self.queue.push(line, frame);
    }

    /// Says something that somebody waits for.
    pub(super) fn say(&mut self, frame: &Frame) {
        if self.is_up {
            self.queue.push(Line::First, frame.to_bytes());
        }
    }

    /// Reads what the relay lacks, a piece at a time, each stream in its turn.
    pub(super) async fn refill(&mut self) -> Result<(), JournalError> {
        while self.is_up && self.queue.is_low() {
            let Some(stream) = self.next_behind() else {
                return Ok(());
            };
            let Some(Position::Next(next)) = self.streams.get(&stream).copied() else {
                self.behind.remove(&stream);
                continue;
            };
            fail::point("host.uplink.before_refill");
            let read = self.journal.envelopes(stream, next - 1, CHUNK).await;
            let envelopes = match read {
                Ok(envelopes) if !envelopes.is_empty() => envelopes,
                nothing => {
                    self.behind.remove(&stream);
                    nothing?;
                    continue;
                }
            };
            self.filled = Some(stream);
            let line = self.line_of(stream);
            for envelope in envelopes {
                self.send_on(line, envelope);
            }
        }
        Ok(())
    }

    /// The host's own log first, the others in turns.
    fn next_behind(&self) -> Option<StreamId> {
        if self.behind.contains(&self.own) {
            return Some(self.own);
        }
        let after = self.filled.and_then(|filled| {
            let after = (Bound::Excluded(filled), Bound::Unbounded);
            self.behind.range(after).next()
        });
        after.or_else(|| self.behind.first()).copied()
    }
}
