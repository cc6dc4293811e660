//! Letters: who may write to whom, and how they reach their addressee.
//!
//! A letter is in the store before its sender is told so, and it stays there until its addressee
//! has taken it. Each connection of the addressee reads the mailbox by itself, in order. Probes are
//! the exception: they are passed on at once or not at all.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use farhelm_proto::frame::{Bye, Frame, Posted, Taken};
use farhelm_proto::letter::{Header, Kind};
use farhelm_proto::{Code, CommandId, PeerId, Timestamp, envelope, frame, limits};

use crate::clock;
use crate::lock::Lock as _;
use crate::peer::{OVERTAKES, Peer, bye};
use crate::store::{Done, Outcome, Write};
use crate::wire::Socket;

impl<W: Socket> Peer<W> {
    /// Puts a letter into its addressee's mailbox.
    pub(super) async fn post(&self, bytes: Bytes) -> Result<(), Bye> {
        let Ok(Some((header, length))) = frame::letter_header(&bytes) else {
            return Err(bye(Code::BadFrame, "not a letter"));
        };
        if length > limits::LETTER_BODY_BYTES {
            return Err(bye(Code::TooLarge, "a letter is too large"));
        }
        let now = clock::now();
        let not_after = kept_until(&header, now);
        if let Err(code) = self.check(&header).await {
            self.outbox.refuse(code, header.id);
            return Ok(());
        }
        let Header {
            kind, from, to, id, ..
        } = header;
        if kind == Kind::Probe {
            self.pass(to, id, bytes).await;
            return Ok(());
        }
        let (state, outbox) = (Arc::clone(&self.state), Arc::clone(&self.outbox));
        let done: Done = Box::new(move |outcome| match outcome {
            Ok(Outcome::Done) => {
                fail::point("relay.peer.before_posted");
                outbox.hasten(&Frame::Posted(Posted { id }));
                state.mail(to);
            }
            Ok(Outcome::Again) => outbox.hasten(&Frame::Posted(Posted { id })),
            Ok(Outcome::Full) => outbox.refuse(Code::Full, id),
            Err(error) => {
                tracing::warn!(%error, "a letter could not be stored");
                outbox.refuse(Code::StoreFailed, id);
            }
        });
        fail::point("relay.peer.before_post");
        self.state
            .store
            .write(vec![(
                Write::Post {
                    to,
                    from,
                    id,
                    not_after,
                    now,
                    bytes,
                },
                done,
            )])
            .await;
        Ok(())
    }

    /// Passes a probe on to whoever is connected, or says that nobody is. It is never kept: an
    /// answer that comes later would prove nothing.
    async fn pass(&self, to: PeerId, id: CommandId, bytes: Bytes) {
        let is_down = self.own.is_some() && to != self.me;
        let reached = if is_down {
            self.state.pass(to, &bytes)
        } else {
            let hub = match self.readable(to).await {
                Ok(hub) => hub,
                Err(code) => return self.outbox.refuse(code, id),
            };
            let seated = hub.hold().seated().cloned();
            seated.is_some_and(|host| host.pass(&bytes))
        };
        if !reached {
            self.outbox.refuse(Code::HostOffline, id);
        }
    }

    /// Whether a letter may be posted.
    async fn check(&self, header: &Header) -> Result<(), Code> {
        let now = self.state.uptime();
        if header.from != self.me {
            return Err(Code::NotAllowed);
        }
        if header.suite != envelope::SUITE {
            return Err(Code::UnsupportedVersion);
        }
        let belongs = match header.kind {
            Kind::PairRequest => {
                let hub = self
                    .state
                    .hub(header.to)
                    .await
                    .map_err(|_| Code::StoreFailed)?
                    .ok_or(Code::LinkExpired)?;
                return hub
                    .hold()
                    .offers
                    .admit(header.offer, self.me, header.id, now);
            }
            Kind::Command => self.writes_up(header).await?,
            Kind::Receipt | Kind::Keys => self.writes_down(header),
            Kind::Probe => self.writes_down(header) || self.writes_up(header).await?,
            Kind::PairAnswer => {
                let guest =
                    |hub: &crate::state::SharedHub| hub.hold().offers.is_guest(header.to, now);
                self.writes_down(header) || self.own.as_ref().is_some_and(guest)
            }
        };
        if belongs { Ok(()) } else { Err(Code::NotFound) }
    }

    /// Whether the addressee is a host that this peer belongs to.
    async fn writes_up(&self, header: &Header) -> Result<bool, Code> {
        match self.readable(header.to).await {
            Ok(_) => Ok(true),
            Err(Code::NotFound) => Ok(false),
            Err(code) => Err(code),
        }
    }

    /// Whether this peer is a host, and the addressee belongs to it.
    fn writes_down(&self, header: &Header) -> bool {
        self.own
            .as_ref()
            .is_some_and(|hub| hub.hold().is_member(header.to))
    }

    /// Forgets a letter that is safe with its addressee.
    pub(super) async fn taken(&self, taken: &Taken) {
        let until = clock::now().plus_millis(REMEMBERED_MILLIS);
        let write = Write::Take {
            to: self.me,
            from: taken.from,
            id: taken.id,
            until,
        };
        // Without a receipt there is nobody to tell; the letter is delivered again.
        let done: Done = Box::new(|outcome| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "a letter could not be removed");
            }
        });
        fail::point("relay.peer.before_taken");
        self.state.store.write(vec![(write, done)]).await;
    }

    /// Sends the next letters of the mailbox.
    pub(super) async fn deliver(&mut self) {
        let (me, after) = (self.me, self.last_letter);
        match self
            .state
            .store
            .read(move |tables| tables.letters(me, after, MAIL_BYTES))
            .await
        {
            Ok(letters) => {
                if !letters.is_empty() {
                    fail::point("relay.peer.before_delivered");
                }
                let now = clock::now();
                let is_over = |at: Timestamp| at.0 != 0 && now > at;
                if let Some(last) = letters.last() {
                    self.last_letter = last.key;
                }
                self.mail |= letters
                    .iter()
                    .map(|letter| letter.bytes.len())
                    .sum::<usize>()
                    >= MAIL_BYTES;
                let due = letters
                    .into_iter()
                    .filter(|letter| !is_over(letter.not_after));
                let mut letters: VecDeque<Bytes> = due.map(|letter| letter.bytes).collect();
                self.mail_ahead = true;
                if OVERTAKES {
                    std::mem::swap(&mut letters, &mut self.hand);
                }
                self.hand.append(&mut letters);
            }
            Err(error) => tracing::warn!(%error, "a mailbox could not be read"),
        }
    }
}

/// Until when a letter is kept, by the clock of this relay, which now shows `now`.
///
/// Whether its time is over is for its addressee to judge, by its own clock. A relay whose clock is
/// wrong would throw away what is wanted, and one that keeps a letter for longer does no harm: so
/// it adds how far its own clock is ahead of the one by which the letter was made, and keeps each
/// for a day.
fn kept_until(header: &Header, now: Timestamp) -> Timestamp {
    if header.not_after.0 == 0 {
        return header.not_after;
    }
    let ahead = now.millis_since(header.id.made_at());
    let over = header.not_after.plus_millis(ahead);
    over.max(now).plus_millis(SPARE_MILLIS)
}

/// How long a letter is kept at least, and beyond its time.
const SPARE_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// How long a letter that was taken is known again, so that a copy of it is not delivered.
const REMEMBERED_MILLIS: u64 = 24 * 60 * 60 * 1000;
/// What is read from a mailbox at once.
const MAIL_BYTES: usize = 64 * 1024;
