//! What a host may do: list its members, write its streams, hold pairings open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use farhelm_proto::envelope::{self, Lane};
use farhelm_proto::frame::{self, Bye, CloseOffer, Frame, Located, Members, OpenOffer, Problem};
use farhelm_proto::{Code, PeerId, StreamId, limits};

use crate::hub::{Append, Arrival, Hub};
use crate::lock::Lock as _;
use crate::outbox::About;
use crate::peer::{ENVELOPE, Peer, bye};
use crate::state::SharedHub;
use crate::store::{Done, Sealed, Store, StoreError, Write};
use crate::wire::Socket;

impl<W: Socket> Peer<W> {
    /// Reads the header of an envelope; nothing when it is refused.
    pub(super) fn envelope(&self, bytes: Bytes) -> Result<Option<Arrival>, Bye> {
        if self.own.is_none() {
            self.outbox
                .complain(Code::NotAllowed, About::Frame(ENVELOPE));
            return Ok(None);
        }
        let Ok(Some((header, length))) = frame::envelope_header(&bytes) else {
            return Err(bye(Code::BadFrame, "not an envelope"));
        };
        let live = match header.lane {
            Lane::Durable => false,
            Lane::Live => true,
        };
        if length
            > if live {
                limits::LIVE_BODY_BYTES
            } else {
                limits::ENVELOPE_BODY_BYTES
            }
        {
            return Err(bye(
                Code::TooLarge,
                "an envelope is larger than its lane allows",
            ));
        }
        if header.first.max(header.last) > limits::SEQ {
            return Err(bye(Code::BadFrame, "a seq beyond what anybody counts to"));
        }
        if header.host != self.me {
            self.outbox
                .complain(Code::NotAllowed, About::Stream(header.stream));
            return Ok(None);
        }
        if header.suite != envelope::SUITE {
            self.outbox
                .complain(Code::UnsupportedVersion, About::Stream(header.stream));
            return Ok(None);
        }
        let sealed = Sealed {
            first: header.first,
            last: header.last,
            bytes,
        };
        Ok(Some(Arrival {
            stream: header.stream,
            live,
            base: header.base,
            sealed,
        }))
    }

    /// Passes envelopes on and stores them.
    pub(super) async fn ingest(&self, envelopes: &mut Vec<Arrival>) {
        let Some(hub) = &self.own else { return };
        if envelopes.is_empty() {
            return;
        }
        let appends = loop {
            // Decided under one lock: a stream that nobody uses may be forgotten at any time.
            let unknown = {
                let mut hub = hub.hold();
                match first_unknown(&mut hub, envelopes) {
                    Some(unknown) => unknown,
                    None => {
                        fail::point("relay.peer.before_passed_on");
                        break hub.arrive(self.outbox.id, std::mem::take(envelopes));
                    }
                }
            };
            if let Err(error) = learn(&self.state.store, hub, self.me, unknown).await {
                tracing::warn!(%error, "a stream could not be read");
                self.outbox
                    .complain(Code::StoreFailed, About::Stream(unknown));
                envelopes.retain(|arrival| arrival.stream != unknown);
            }
        };
        let mut jobs: Vec<(Write, Done)> = Vec::with_capacity(appends.len());
        for append in appends {
            let stream = append.stream;
            jobs.push(self.job(hub, append));
            jobs.extend(self.trim(hub, stream));
        }
        if !jobs.is_empty() {
            // The readers that were just woken go first: they stand behind this task on its thread,
            // and waking the store's thread takes longer than they do.
            tokio::task::yield_now().await;
            fail::point("relay.peer.before_stored");
            self.state.store.write(jobs).await;
        }
    }

    fn job(&self, hub: &SharedHub, append: Append) -> (Write, Done) {
        let Append {
            stream,
            run,
            frames,
        } = append;
        let first = frames.first().map_or(0, |frame| frame.first);
        let last = frames.last().map_or(0, |frame| frame.last);
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        self.storing.fetch_add(bytes, Ordering::Relaxed);
        let (hub, storing) = (Arc::clone(hub), Arc::clone(&self.storing));
        let outbox = Arc::clone(&self.outbox);
        let done: Done = Box::new(move |outcome| {
            storing.fetch_sub(bytes, Ordering::Relaxed);
            match outcome {
                Ok(_) => {
                    fail::point("relay.peer.before_receipt");
                    hub.hold().stored(stream, last);
                }
                Err(error) => {
                    tracing::warn!(%error, "envelopes could not be stored");
                    let code = match error {
                        StoreError::Quota => Code::Full,
                        StoreError::Gap | StoreError::Backend(_) | StoreError::Closed => {
                            Code::StoreFailed
                        }
                    };
                    hub.hold().not_stored(stream, run, first, code);
                }
            }
            outbox.nudge();
        });
        (
            Write::Append {
                host: self.me,
                stream,
                frames,
            },
            done,
        )
    }

    /// Drops the beginning of a stream that has become too long.
    fn trim(&self, hub: &SharedHub, stream: StreamId) -> Option<(Write, Done)> {
        let limit = self.state.config.events_per_stream;
        let below = hub.hold().stream(stream)?.trim(limit)?;
        let host = self.me;
        let done: Done = Box::new(move |outcome| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "the beginning of a stream could not be dropped");
            }
        });
        Some((
            Write::Trim {
                host,
                stream,
                below,
            },
            done,
        ))
    }

    pub(super) async fn members(&self, members: Members) {
        const NUMBER: u64 = 10;
        let Some(hub) = self.own_hub(NUMBER) else {
            return;
        };
        if members.devices.len() > limits::MEMBERS {
            self.outbox.complain(Code::TooLarge, About::Frame(NUMBER));
            return;
        }
        let Members { version, devices } = members;
        let removed = {
            let mut hub = hub.hold();
            hub.is_seated(self.outbox.id)
                .then(|| hub.set_members(version, &devices))
                .flatten()
        };
        let Some(removed) = removed else { return };
        let outbox = Arc::clone(&self.outbox);
        let done: Done = Box::new(move |outcome| {
            if let Err(error) = outcome {
                tracing::warn!(%error, "a list of members could not be stored");
                outbox.complain(Code::StoreFailed, About::Frame(NUMBER));
            }
        });
        let write = Write::Members {
            host: self.me,
            version,
            devices,
            removed,
        };
        fail::point("relay.peer.before_members");
        self.state.store.write(vec![(write, done)]).await;
    }

    pub(super) async fn locate(&self, stream: StreamId) {
        if self.own_hub(11).is_none() {
            return;
        }
        let host = self.me;
        let last = self.state.store.read(move |tables| {
            let last = tables.last(host, stream)?;
            Ok(last.map(|last| (last.last, hash_of(&last.bytes).unwrap_or_default())))
        });
        match last.await {
            Ok(last) => {
                fail::point("relay.peer.before_located");
                let (head, hash) = last.unwrap_or_default();
                self.outbox.say(&Frame::Located(Located {
                    stream,
                    head,
                    hash: hash.into(),
                }));
            }
            Err(_) => self
                .outbox
                .complain(Code::StoreFailed, About::Stream(stream)),
        }
    }

    pub(super) fn open_offer(&self, open: &OpenOffer) {
        let Some(hub) = self.own_hub(40) else { return };
        let opened = hub.hold().offers.open(open.offer, self.state.uptime());
        if let Err(code) = opened {
            self.outbox.complain(code, About::Frame(40));
        }
    }

    pub(super) fn close_offer(&self, close: &CloseOffer) {
        let Some(hub) = self.own_hub(41) else { return };
        hub.hold()
            .offers
            .close(close.offer, close.keep, self.state.uptime());
    }

    /// A host tells that it does not have a blob; anything else is for nobody.
    pub(super) fn problem(&self, problem: &Problem) {
        if let (Some(hub), Some(request)) = (&self.own, problem.request) {
            hub.hold().wants.refuse(request);
        }
    }
}

/// Reads from the store what a hub must know of a stream.
pub(super) async fn learn(
    store: &Store,
    hub: &SharedHub,
    host: PeerId,
    stream: StreamId,
) -> Result<(), StoreError> {
    let known = hub.hold().stream(stream).is_some();
    if known {
        return Ok(());
    }
    let last = store.read(move |tables| tables.last(host, stream)).await?;
    let head = last.as_ref().map_or(0, |last| last.last);
    let header = last.and_then(|last| frame::envelope_header(&last.bytes).ok().flatten());
    hub.hold()
        .learn(stream, head, header.map_or(0, |(header, _)| header.base));
    Ok(())
}

fn first_unknown(hub: &mut Hub, arrivals: &[Arrival]) -> Option<StreamId> {
    let mut known = None;
    arrivals
        .iter()
        .map(|arrival| arrival.stream)
        .find(|stream| {
            let unknown = known != Some(*stream) && hub.stream(*stream).is_none();
            known = Some(*stream);
            unknown
        })
}

/// The hash that the next envelope of the stream names.
fn hash_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let Frame::Envelope(envelope) = Frame::parse(bytes).ok()? else {
        return None;
    };
    Some(envelope.hash().to_vec())
}
