//! Reading the journal: every record is checked before it is believed.

use bytes::Bytes;
use farhelm_core::keys::ContentKey;
use farhelm_proto::envelope::Hash;
use farhelm_proto::{CommandId, PeerId, SessionId, StreamId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{JournalError, StoredEnvelope, StreamEnd, check, from_sql, sum, to_sql};

/// Envelopes after seq `after` in rising order, at least one if there is one, at most about
/// `bytes`; up to the first that is damaged.
pub(super) fn envelopes(
    db: &Connection,
    stream: StreamId,
    after: u64,
    bytes: usize,
) -> Result<Vec<StoredEnvelope>, JournalError> {
    let Some((end, floor)) = end_of(db, stream)? else {
        return Ok(Vec::new());
    };
    let mut query = db.prepare_cached(
        "SELECT stream, first, last, base, hash, frame, sum FROM envelopes WHERE stream = ?1 AND last > ?2 ORDER BY last",
    )?;
    let mut rows = query.query(params![stream.as_bytes(), to_sql(after)])?;
    let mut found: Vec<StoredEnvelope> = Vec::new();
    let mut size = 0;
    let mut next = after.max(floor) + 1;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) if super::is_damage(&error) => {
                return until_damage(found, stream, next, end.head);
            }
            Err(error) => return Err(error.into()),
        };
        // What it should have held is missed below.
        if !sum::holds(row, "envelopes", 6) {
            continue;
        }
        let envelope = StoredEnvelope {
            stream,
            first: from_sql(row.get(1)?),
            last: from_sql(row.get(2)?),
            base: from_sql(row.get(3)?),
            hash: row.get(4)?,
            frame: row.get::<_, Vec<u8>>(5)?.into(),
        };
        if envelope.last < next {
            continue;
        }
        if envelope.first > next {
            return until_damage(found, stream, next, envelope.first - 1);
        }
        if !found.is_empty() && size + envelope.frame.len() > bytes {
            return Ok(found);
        }
        size += envelope.frame.len();
        next = envelope.last + 1;
        found.push(envelope);
    }
    if next <= end.head {
        return until_damage(found, stream, next, end.head);
    }
    Ok(found)
}

/// What comes before the damage, or, when that is nothing, the damage itself.
fn until_damage(
    found: Vec<StoredEnvelope>,
    stream: StreamId,
    first: u64,
    last: u64,
) -> Result<Vec<StoredEnvelope>, JournalError> {
    if found.is_empty() {
        return Err(JournalError::Damaged {
            stream,
            first,
            last: last.max(first),
        });
    }
    Ok(found)
}

/// Where each stream ends.
pub(super) fn streams(db: &Connection) -> Result<Vec<(StreamId, StreamEnd)>, JournalError> {
    let mut query = db.prepare_cached("SELECT stream, head, hash, base FROM streams")?;
    let rows = query.query_map([], |row| {
        let end = StreamEnd {
            head: from_sql(row.get(1)?),
            hash: row.get(2)?,
            base: from_sql(row.get(3)?),
        };
        Ok((StreamId::from_bytes(row.get(0)?), end))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Where a stream ends, and up to where it was dropped on purpose.
pub(super) fn end_of(
    db: &Connection,
    stream: StreamId,
) -> Result<Option<(StreamEnd, u64)>, JournalError> {
    let mut query = db.prepare_cached(
        "SELECT stream, head, hash, base, floor, sum FROM streams WHERE stream = ?1",
    )?;
    let mut rows = query.query([stream.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    if !sum::holds(row, "streams", 5) {
        return Err(JournalError::Corrupt("the end of a log"));
    }
    let end = StreamEnd {
        head: from_sql(row.get(1)?),
        hash: row.get(2)?,
        base: from_sql(row.get(3)?),
    };
    Ok(Some((end, from_sql(row.get(4)?))))
}

/// The hash of the envelope of a stream that ends at `last`.
pub(super) fn hash_at(
    db: &Connection,
    stream: StreamId,
    last: u64,
) -> Result<Option<Hash>, JournalError> {
    if let Some((end, _)) = end_of(db, stream)?
        && end.head == last
    {
        return Ok(Some(end.hash));
    }
    let mut query = db.prepare_cached(
        "SELECT stream, first, last, base, hash, frame, sum FROM envelopes WHERE stream = ?1 AND last = ?2",
    )?;
    let mut rows = query.query(params![stream.as_bytes(), to_sql(last)])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    if !sum::holds(row, "envelopes", 6) {
        return Err(JournalError::Damaged {
            stream,
            first: last,
            last,
        });
    }
    Ok(Some(row.get(4)?))
}

/// The content keys of a stream.
pub(super) fn keys(
    db: &Connection,
    stream: StreamId,
) -> Result<Vec<(u32, ContentKey)>, JournalError> {
    let mut query = db.prepare_cached(
        "SELECT stream, epoch, key, sum FROM keys WHERE stream = ?1 ORDER BY epoch",
    )?;
    let mut rows = query.query([stream.as_bytes()])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        if sum::holds(row, "keys", 3) {
            keys.push((row.get(1)?, ContentKey::from_bytes(row.get(2)?)));
        }
    }
    Ok(keys)
}

/// What became of a command, if it was ever decided, and which device sent it. One that may have
/// been decided in a part of the journal that is lost is refused: it must not have its effect
/// twice.
pub(super) fn command(
    db: &Connection,
    id: CommandId,
) -> Result<Option<(Option<PeerId>, String)>, JournalError> {
    let mut query =
        db.prepare_cached("SELECT id, device, outcome, sum FROM commands WHERE id = ?1")?;
    let mut rows = query.query([id.as_bytes()])?;
    let found = match rows.next() {
        Ok(Some(row)) if sum::holds(row, "commands", 3) => {
            let device: Option<[u8; 16]> = row.get(1)?;
            return Ok(Some((device.map(PeerId::from_bytes), row.get(2)?)));
        }
        Ok(Some(_)) => true,
        Ok(None) => false,
        Err(error) if super::is_damage(&error) => true,
        Err(error) => return Err(error.into()),
    };
    let lost: Option<i64> = db
        .prepare_cached("SELECT at FROM notes WHERE name = ?1")?
        .query_row([check::COMMANDS_LOST], |row| row.get(0))
        .optional()?;
    let made = id.as_bytes()[..6]
        .iter()
        .fold(0, |millis, byte| (millis << 8) | u64::from(*byte));
    let doubtful = found || lost.is_some_and(|lost| made <= from_sql(lost));
    Ok(doubtful.then(|| (None, LOST.to_owned())))
}

/// The answer to a command of which nobody knows any more whether it was applied.
const LOST: &str = r#"{"kind":"refused","rejection":{"code":"state_unusable","text":"the host's journal was damaged, and it is not known whether this was done before; look, and ask anew"}}"#;

/// Letters that the relay has not confirmed, oldest first.
pub(super) fn letters(db: &Connection) -> Result<Vec<(CommandId, Bytes)>, JournalError> {
    let mut query =
        db.prepare_cached("SELECT id, peer, frame, sum FROM letters ORDER BY number")?;
    let mut rows = query.query([])?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next()? {
        if sum::holds(row, "letters", 3) {
            let frame: Vec<u8> = row.get(2)?;
            letters.push((CommandId::from_bytes(row.get(0)?), frame.into()));
        }
    }
    Ok(letters)
}

/// How each session is started again.
pub(super) fn sessions(db: &Connection) -> Result<Vec<(SessionId, String)>, JournalError> {
    let mut query =
        db.prepare_cached("SELECT session, spec, sum FROM sessions ORDER BY session")?;
    let mut rows = query.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        if sum::holds(row, "sessions", 2) {
            sessions.push((SessionId::from_bytes(row.get(0)?), row.get(1)?));
        }
    }
    Ok(sessions)
}

/// The last line that was taken of a session's agent, and the state of its run.
pub(super) fn agent(
    db: &Connection,
    session: SessionId,
) -> Result<Option<(u64, String)>, JournalError> {
    let mut query =
        db.prepare_cached("SELECT session, taken, state, sum FROM agents WHERE session = ?1")?;
    let mut rows = query.query([session.as_bytes()])?;
    match rows.next()? {
        Some(row) if sum::holds(row, "agents", 3) => Ok(Some((from_sql(row.get(1)?), row.get(2)?))),
        Some(_) | None => Ok(None),
    }
}

/// The lines that a session's agent may not have been written, up to the first that is damaged.
pub(super) fn agent_lines(
    db: &Connection,
    session: SessionId,
) -> Result<Vec<(u64, String)>, JournalError> {
    let mut query = db.prepare_cached(
        "SELECT session, number, line, sum FROM agent_lines WHERE session = ?1 ORDER BY number",
    )?;
    let mut rows = query.query([session.as_bytes()])?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        if !sum::holds(row, "agent_lines", 3) {
            break;
        }
        lines.push((from_sql(row.get(1)?), row.get(2)?));
    }
    Ok(lines)
}

/// A sealed blob, if it is what its name says.
pub(super) fn blob(db: &Connection, name: [u8; 32]) -> Result<Option<Vec<u8>>, JournalError> {
    let mut query = db.prepare_cached("SELECT bytes FROM blobs WHERE name = ?1")?;
    let bytes: Option<Vec<u8>> = query.query_row([name], |row| row.get(0)).optional()?;
    let whole = bytes.filter(|bytes| farhelm_core::seal::blob_name(bytes) == name);
    Ok(whole)
}
