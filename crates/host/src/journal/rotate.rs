//! Keeps the file within its size: the oldest outputs go first, and that they went is written down
//! in the same transaction, until the log they belong to says so.
//!
//! Room in the file is used again, so it stays about as large as it ever was. Logs, keys and what
//! became of commands are never dropped.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{JournalError, StreamId, from_sql, to_sql};

/// Outputs dropped in one transaction, each at most 256 KiB: nobody waits long for it.
const STEP: usize = 64;
/// Transactions between two groups of commits.
const STEPS: usize = 8;
/// Bytes that are written between two looks at the size.
const LOOK_EVERY: u64 = 1024 * 1024;
/// Bytes dropped that a log leaves unsaid, at most.
const UNSAID: u64 = 1024 * 1024 * 1024;

/// What was dropped of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Pieces of outputs, ever.
    pub(crate) pieces: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Of those, how many the log says.
    pub(crate) said: u64,
}

impl Dropped {
    /// Whether the log should say more: early, then each time that it has doubled.
    pub(crate) fn should_be_said(&self) -> bool {
        let unsaid = self.bytes.saturating_sub(self.said);
        unsaid > 0 && unsaid >= self.said.min(UNSAID)
    }
}

/// How large the file may be, and when that is looked at next.
#[derive(Debug)]
pub(super) struct Bound {
    most: u64,
    /// Bytes written since the last look.
    written: u64,
    /// By how much the file was too large at the last look with nothing left to drop.
    beyond: u64,
}

impl Bound {
    pub(super) const fn new(most: u64) -> Self {
        Self {
            most,
            written: LOOK_EVERY,
            beyond: 0,
        }
    }

    /// By how many bytes what is never dropped is too large by itself.
    pub(super) const fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Takes note of bytes that were written.
    pub(super) const fn wrote(&mut self, bytes: u64) {
        self.written = self.written.saturating_add(bytes);
    }

    /// Drops the oldest outputs while the file holds too much. Gives what was dropped ever, if that became
    /// more.
    pub(super) fn hold(&mut self, db: &mut Connection) -> Result<Option<Dropped>, JournalError> {
        if self.written < LOOK_EVERY {
            return Ok(None);
        }
        let mut has_dropped = false;
        for _ in 0..STEPS {
            let over = used(db)?.saturating_sub(self.most);
            if over == 0 || !drop_oldest(db, over)? {
                self.beyond = over;
                self.written = 0;
                break;
            }
            has_dropped = true;
        }
        has_dropped.then(|| in_all(db)).transpose()
    }
}

/// Bytes of the file that hold something.
fn used(db: &Connection) -> rusqlite::Result<u64> {
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(from_sql(pages.saturating_mul(number("page_size")?)))
}

/// Drops the oldest outputs of about `over` bytes, in one transaction.
fn drop_oldest(db: &mut Connection, over: u64) -> Result<bool, JournalError> {
    let step = db.transaction()?;
    let mut oldest: Vec<(i64, u64, Option<Vec<u8>>)> = Vec::new();
    {
        let mut query = step.prepare_cached(
            "SELECT rowid, length(bytes), stream FROM blobs ORDER BY rowid LIMIT ?1",
        )?;
        let mut rows = query.query([to_sql(STEP as u64)])?;
        let mut size = 0;
        while let Some(row) = rows.next()?
            && size < over
        {
            let bytes = from_sql(row.get(1)?);
            size += bytes;
            oldest.push((row.get(0)?, bytes, row.get(2)?));
        }
    }
    for (row, bytes, stream) in &oldest {
        step.prepare_cached("DELETE FROM blobs WHERE rowid = ?1")?
            .execute([row])?;
        // One of an earlier version, which did not say whose it was, counts for the host.
        step.prepare_cached(
            "INSERT INTO dropped VALUES (?1, 1, ?2, 0)
             ON CONFLICT (stream) DO UPDATE SET pieces = pieces + 1, bytes = bytes + ?2",
        )?
        .execute(params![
            stream.as_deref().unwrap_or_default(),
            to_sql(*bytes)
        ])?;
    }
    step.commit()?;
    Ok(!oldest.is_empty())
}

/// What was dropped of a log, if anything was.
pub(super) fn of(db: &Connection, stream: StreamId) -> Result<Option<Dropped>, JournalError> {
    let mut query =
        db.prepare_cached("SELECT pieces, bytes, said FROM dropped WHERE stream = ?1")?;
    let dropped = query.query_row([stream.as_bytes()], |row| {
        Ok(Dropped {
            pieces: from_sql(row.get(0)?),
            bytes: from_sql(row.get(1)?),
            said: from_sql(row.get(2)?),
        })
    });
    Ok(dropped.optional()?)
}

/// What was dropped of all logs together.
pub(super) fn in_all(db: &Connection) -> Result<Dropped, JournalError> {
    let mut query = db.prepare_cached("SELECT total(pieces), total(bytes) FROM dropped")?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, which SQLite adds up as a real so that it cannot overflow"
    )]
    let all = query.query_row([], |row| {
        Ok(Dropped {
            pieces: row.get::<_, f64>(0)? as u64,
            bytes: row.get::<_, f64>(1)? as u64,
            said: 0,
        })
    })?;
    Ok(all)
}

/// Notes that the log says so.
pub(super) fn said(db: &Connection, stream: StreamId, bytes: u64) -> Result<(), JournalError> {
    db.prepare_cached("UPDATE dropped SET said = ?2 WHERE stream = ?1")?
        .execute(params![stream.as_bytes(), to_sql(bytes)])?;
    Ok(())
}
