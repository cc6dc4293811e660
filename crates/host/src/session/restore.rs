//! Bringing a session back from the journal.

use std::panic::AssertUnwindSafe;

use farhelm_core::event::Record;
use farhelm_core::seal::open_envelope;
use farhelm_core::session::Session;
use farhelm_proto::frame::Frame;
use farhelm_proto::{SessionId, Timestamp};
use futures_util::FutureExt as _;
use tokio::sync::mpsc;

use super::{SessionActor, SessionHandle, Shared, Spec};
use crate::journal::{Journal, JournalError, StoredEnvelope};
use crate::stream::StreamWriter;

/// Bytes of envelopes read at a time.
const CHUNK: usize = 4 * 1024 * 1024;

/// Brings a session back as its log says. Whether its agent still runs, its keeper knows.
pub(crate) async fn restore(
    id: SessionId,
    spec: Spec,
    shared: Shared,
) -> Result<Option<(SessionActor, SessionHandle)>, JournalError> {
    let Some(end) = shared.journal.stream(id.into()).await? else {
        return Ok(None);
    };
    let mut session = Session::default();
    let mut since_snapshot = 0;
    let mut at = Timestamp(0);
    let mut after = end.base.saturating_sub(1);
    while after < end.head {
        let envelopes = shared.journal.envelopes(id.into(), after, CHUNK).await?;
        let Some(last) = envelopes.last() else { break };
        after = last.last;
        for record in open_records::<Record>(&shared.journal, &envelopes).await? {
            session.apply(record.cause, &record.event);
            since_snapshot = record.seq.saturating_sub(end.base);
            at = record.at;
        }
    }
    let epoch = shared.journal.last_epoch(id.into()).await?;
    let lost_end = shared.journal.lost_end(id.into()).await?;
    let writer = StreamWriter::new(
        std::sync::Arc::clone(&shared.host),
        id.into(),
        Some(end),
        epoch,
    );
    let (mut actor, handle) =
        SessionActor::new(id, shared, spec, session, writer, since_snapshot, at);
    actor.has_lost(lost_end);
    Ok(Some((actor, handle)))
}

/// Lives a session's life. A fault of our own ends that session, with an event, and no other: it is
/// brought back from the journal for that.
pub(crate) async fn guard(
    id: SessionId,
    spec: Spec,
    shared: Shared,
    life: impl Future<Output = ()> + Send,
    replace: mpsc::Sender<crate::daemon::Request>,
) {
    let Err(_) = AssertUnwindSafe(life).catch_unwind().await else {
        return;
    };
    tracing::error!(session = %id, "a fault of our own in a session; it is ended");
    match restore(id, spec, shared).await {
        Ok(Some((actor, handle))) => {
            let request = crate::daemon::Request::Replaced {
                session: id,
                handle,
            };
            drop(replace.send(request).await);
            if AssertUnwindSafe(actor.end_broken())
                .catch_unwind()
                .await
                .is_err()
            {
                tracing::error!(session = %id, "the session cannot even be ended");
            }
        }
        Ok(None) => {}
        Err(error) => tracing::error!(session = %id, %error, "the session cannot be ended"),
    }
}

/// Opens stored envelopes of one stream.
pub(crate) async fn open_records<R: serde::de::DeserializeOwned>(
    journal: &Journal,
    envelopes: &[StoredEnvelope],
) -> Result<Vec<R>, JournalError> {
    let Some(first) = envelopes.first() else {
        return Ok(Vec::new());
    };
    let keys = journal.keys(first.stream).await?;
    let mut records = Vec::new();
    for stored in envelopes {
        let Ok(Frame::Envelope(envelope)) = Frame::parse(&stored.frame) else {
            return Err(JournalError::Corrupt("an envelope"));
        };
        let header = envelope
            .parse_header()
            .map_err(|_| JournalError::Corrupt("a header"))?;
        let key = keys.iter().find(|(epoch, _)| *epoch == header.epoch);
        let (_, key) = key.ok_or(JournalError::Corrupt("the key of an envelope is missing"))?;
        let json = open_envelope(key, &envelope)
            .map_err(|_| JournalError::Corrupt("a sealed envelope"))?;
        let batch: Vec<R> =
            serde_json::from_slice(&json).map_err(|_| JournalError::Corrupt("an event"))?;
        records.extend(batch);
    }
    Ok(records)
}
