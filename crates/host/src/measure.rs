//! What `farhelm-bench` measures of the host from outside. Not part of the API.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farhelm_core::keys::Identity;
use farhelm_link::rng::random;
use farhelm_proto::SessionId;

use crate::journal::{Journal, JournalError, Op};
use crate::stream::StreamWriter;

/// Seals and appends `count` batches of `events` events one after another, as a session does; gives
/// how long each took until it was on the disk.
///
/// # Errors
///
/// [`JournalError`] when the journal cannot be written.
pub async fn append(path: &Path, count: usize, events: u64) -> Result<Vec<Duration>, JournalError> {
    let journal = Journal::open(path)?;
    let identity =
        Identity::from_seed(random()).map_err(|_| JournalError::Corrupt("a fresh key"))?;
    let session = SessionId::from_bytes(random());
    let mut writer = StreamWriter::new(Arc::new(identity), session.into(), None, 0);
    let event = r#"{"seq":1,"at":1795000000000,"event":{"type":"tool_updated","tool":{"id":"toolu_1","title":"Run the tests","kind":"execute","status":"completed","input":"{\"command\":\"cargo test\"}"}}}"#;
    let count_of_events = usize::try_from(events).unwrap_or(1);
    let json = format!("[{}]", vec![event; count_of_events].join(","));
    journal.commit(writer.ready(&[])).await?;
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let Some(sealed) = writer.seal(json.as_bytes(), events, None) else {
            break;
        };
        journal
            .commit(vec![Op::Envelope(sealed.envelope.clone())])
            .await?;
        writer.advance(&sealed.envelope);
        took.push(begun.elapsed());
    }
    Ok(took)
}
