//! Getting back from the relay what the journal has lost inside of a log. The relay need not be
//! trusted for that: the envelopes are ours, and the one after the damage names the hash of the
//! last one inside of it.

use std::collections::BTreeMap;

use farhelm_core::keys::Identity;
use farhelm_proto::StreamId;
use farhelm_proto::envelope::{Envelope, Hash, Header, Lane};
use farhelm_proto::frame::{Fetch, Frame, Page};

use crate::journal::damage::Damage;
use crate::journal::{Journal, JournalError, Op, StoredEnvelope};

/// Bytes asked for at once.
const PAGE: u64 = 512 * 1024;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Mending {
    asked: BTreeMap<u64, Missing>,
    last_request: u64,
}

/// What a page must hold.
#[derive(Clone, Copy, Debug)]
struct Missing {
    damage: Damage,
    /// Events up to here are still missing.
    last: u64,
    /// The hash of the envelope that ends there.
    hash: Hash,
}

/// What came of a page.
pub(super) enum Came {
    /// Nothing for us.
    Nothing,
    /// Ask for the next one.
    Ask(Frame),
    /// The log is whole again.
    Whole(StreamId),
}

impl Mending {
    /// Nothing of what was asked will be answered.
    pub(super) fn forget(&mut self) {
        self.asked.clear();
    }

    /// Asks for everything that is missing and was not asked for yet.
    pub(super) async fn ask(
        &mut self,
        journal: &Journal,
        host: &Identity,
    ) -> Result<Vec<Frame>, JournalError> {
        let mut frames = Vec::new();
        for damage in journal.damages().all() {
            if self.asked.values().any(|missing| missing.damage == damage) {
                continue;
            }
            let Some(hash) = hash_before(journal, damage).await? else {
                continue;
            };
            let missing = Missing {
                damage,
                last: damage.last,
                hash,
            };
            frames.push(self.fetch(missing, host));
        }
        Ok(frames)
    }

    fn fetch(&mut self, missing: Missing, host: &Identity) -> Frame {
        self.last_request += 1;
        self.asked.insert(self.last_request, missing);
        Frame::Fetch(Fetch {
            request: self.last_request,
            host: host.peer(),
            stream: missing.damage.stream,
            before: missing.last + 1,
            max_bytes: PAGE,
        })
    }

    /// The relay does not have it.
    pub(super) fn refused(&self, request: u64) {
        if let Some(Missing { damage, .. }) = self.asked.get(&request) {
            let Damage {
                stream,
                first,
                last,
            } = *damage;
            tracing::error!(%stream, first, last, "the relay does not have these events either; they are lost");
        }
    }

    /// A page came: what is in it and belongs there is written back.
    pub(super) async fn take(
        &mut self,
        page: Page,
        journal: &Journal,
        host: &Identity,
    ) -> Result<Came, JournalError> {
        let Some(missing) = self.asked.get(&page.request).copied() else {
            return Ok(Came::Nothing);
        };
        let found = believed(&page.envelopes, missing, host);
        let Some(reached) = found.last().map(|(envelope, prev)| (envelope.first, *prev)) else {
            self.refused(page.request);
            return Ok(Came::Nothing);
        };
        let ops = found.into_iter().map(|(envelope, _)| Op::Mend(envelope));
        journal.commit(ops.collect()).await?;
        let Damage { stream, first, .. } = missing.damage;
        let (reached, hash) = reached;
        if reached > first {
            self.asked.remove(&page.request);
            let rest = Missing {
                last: reached - 1,
                hash,
                ..missing
            };
            return Ok(Came::Ask(self.fetch(rest, host)));
        }
        self.asked.remove(&page.request);
        tracing::warn!(%stream, first, last = missing.damage.last, "events that the journal had lost were fetched from the relay");
        journal.damages().mended(stream);
        Ok(Came::Whole(stream))
    }
}

/// The hash of the envelope with which the damage ends, as what follows it says.
async fn hash_before(journal: &Journal, damage: Damage) -> Result<Option<Hash>, JournalError> {
    let Damage { stream, last, .. } = damage;
    let end = journal.stream(stream).await?;
    if let Some(end) = end.filter(|end| end.head == last) {
        return Ok(Some(end.hash));
    }
    let after = journal.envelopes(stream, last, 1).await?;
    let next = after.first().filter(|next| next.first == last + 1);
    Ok(next.and_then(|next| {
        let Ok(Frame::Envelope(envelope)) = Frame::parse(&next.frame) else {
            return None;
        };
        envelope.parse_header().ok().map(|header| header.prev)
    }))
}

/// Those envelopes of a page, from the newest on, that are ours and continue each other; with the
/// hash of the one before.
fn believed(
    envelopes: &[Envelope],
    missing: Missing,
    host: &Identity,
) -> Vec<(StoredEnvelope, Hash)> {
    let mut found = Vec::new();
    let (mut last, mut hash) = (missing.last, missing.hash);
    for envelope in envelopes.iter().rev() {
        let Some(header) = ours(envelope, missing.damage.stream, host) else {
            break;
        };
        if header.last != last || envelope.hash() != hash || header.last < missing.damage.first {
            break;
        }
        let stored = StoredEnvelope {
            stream: header.stream,
            first: header.first,
            last: header.last,
            base: header.base,
            hash,
            frame: Frame::Envelope(envelope.clone()).to_bytes(),
        };
        (last, hash) = (header.first.saturating_sub(1), header.prev);
        found.push((stored, hash));
    }
    found
}

fn ours(envelope: &Envelope, stream: StreamId, host: &Identity) -> Option<Header> {
    let header = envelope.parse_header().ok()?;
    let is_ours = header.host == host.peer()
        && header.stream == stream
        && header.lane == Lane::Durable
        && header.first <= header.last
        && envelope.verify(&host.public().signing).is_ok();
    is_ours.then_some(header)
}
