//! The store of a relay that stands alone: one `SQLite` file in WAL mode.
//!
//! `synchronous = NORMAL`: a killed process loses nothing, a power cut may lose the last moments.
//! The hosts hold the truth and fill the gap, because a relay never claims more than it has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use farhelm_proto::{CommandId, PeerId, StreamId, Timestamp, limits};
use rusqlite::config::DbConfig;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, ToSql, Transaction, named_params};

use self::quota::Quota;
use crate::store::{Outcome, Sealed, StoreError, Tables, Waiting, Write, chunk, memory};

mod quota;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// The one connection that writes.
    Writing,
    /// One of several that read.
    Reading,
}

/// One connection to the file.
pub(crate) struct Sqlite {
    db: Connection,
    id: [u8; 16],
    quota: Quota,
}

/// Makes the folder and says where the file in it is.
pub(crate) fn prepare(data: &Path) -> anyhow::Result<PathBuf> {
    use anyhow::Context as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(data)
        .with_context(|| format!("failed to make the data folder {}", data.display()))?;
    Ok(data.join("relay.db"))
}

impl Sqlite {
    /// Opens the file, and makes it when it is missing.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or was written by a version that this one does not know.
    pub(crate) fn open(file: &Path, purpose: Use) -> Result<Self, StoreError> {
        let mut db = Connection::open_with_flags(
            file,
            OpenFlags::default() | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        db.busy_timeout(BUSY)?;
        // Else bound values make it plan the same statements again and again.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.set_prepared_statement_cache_capacity(32);
        if purpose == Use::Writing {
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "NORMAL")?;
            db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            create(&mut db)?;
        }
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let id = db.query_row("SELECT id FROM store", [], |row| row.get(0))?;
        Ok(Self {
            db,
            id,
            quota: Quota::default(),
        })
    }

    /// Bytes of envelopes that a host may have; 0 for any number.
    pub(crate) fn limit(&mut self, bytes: u64) {
        self.quota = Quota::new(bytes);
    }

    fn stream(&self, host: PeerId, stream: StreamId) -> Result<Option<i64>, StoreError> {
        Ok(stream_key(&self.db, host, stream)?)
    }
}

impl Tables for Sqlite {
    fn id(&self) -> [u8; 16] {
        self.id
    }

    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Result<Outcome, StoreError>>, StoreError> {
        let transaction = self
            .db
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(writes.len());
        for each in writes {
            fail::point("relay.store.before_write");
            match write(&transaction, each, &mut self.quota) {
                Err(refused @ (StoreError::Gap | StoreError::Quota)) => {
                    outcomes.push(Err(refused));
                }
                other => outcomes.push(Ok(other?)),
            }
        }
        fail::error("relay.store.before_commit")
            .map_err(|error| StoreError::Backend(error.to_string()))?;
        transaction.commit()?;
        fail::point("relay.store.after_commit");
        Ok(outcomes)
    }

    fn last(&mut self, host: PeerId, stream: StreamId) -> Result<Option<Sealed>, StoreError> {
        self.holding(host, stream, u64::MAX)
    }

    fn holding(
        &mut self,
        host: PeerId,
        stream: StreamId,
        seq: u64,
    ) -> Result<Option<Sealed>, StoreError> {
        let Some(key) = self.stream(host, stream)? else {
            return Ok(None);
        };
        let mut find = self.db.prepare_cached(
            "SELECT frames FROM envelopes WHERE stream = ? AND first <= ? ORDER BY first DESC LIMIT 1",
        )?;
        let row: Option<Vec<u8>> = find
            .query_row((key, number(seq)), |row| row.get(0))
            .optional()?;
        let frames = row.map(chunk::unpack).transpose()?.unwrap_or_default();
        // The last one when everything is asked for, else the one with that event.
        let wanted = |frame: &Sealed| seq == u64::MAX || (frame.first <= seq && seq <= frame.last);
        Ok(frames.into_iter().rfind(wanted))
    }

    fn after(
        &mut self,
        host: PeerId,
        stream: StreamId,
        after: u64,
        max_bytes: usize,
    ) -> Result<Vec<Sealed>, StoreError> {
        let Some(key) = self.stream(host, stream)? else {
            return Ok(Vec::new());
        };
        let mut scan = self.db.prepare_cached(
            "SELECT frames FROM envelopes WHERE stream = ?1 AND first >= coalesce(
                 (SELECT max(first) FROM envelopes WHERE stream = ?1 AND first <= ?2), 0)
             ORDER BY first",
        )?;
        let mut rows = scan.query((key, number(after)))?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            for frame in chunk::unpack(row.get(0)?)?
                .into_iter()
                .filter(|frame| frame.first > after)
            {
                if bytes >= max_bytes {
                    return Ok(found);
                }
                bytes += frame.bytes.len();
                found.push(frame);
            }
        }
        Ok(found)
    }

    fn before(
        &mut self,
        host: PeerId,
        stream: StreamId,
        before: u64,
        max_bytes: usize,
    ) -> Result<(Vec<Sealed>, bool), StoreError> {
        let Some(key) = self.stream(host, stream)? else {
            return Ok((Vec::new(), false));
        };
        let mut scan = self.db.prepare_cached(
            "SELECT frames FROM envelopes WHERE stream = ? AND first < ? ORDER BY first DESC",
        )?;
        let mut rows = scan.query((key, number(before)))?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let frames = chunk::unpack(row.get(0)?)?;
            found.extend(frames.into_iter().rev().filter(|frame| frame.last < before));
            bytes = found.iter().map(|frame: &Sealed| frame.bytes.len()).sum();
            if bytes > max_bytes {
                break;
            }
        }
        let fit = memory::fitting(found.iter().map(|frame| frame.bytes.len()), max_bytes);
        let more = fit < found.len() || (bytes > max_bytes && rows.next()?.is_some());
        found.truncate(fit);
        found.reverse();
        Ok((found, more))
    }

    fn members(&mut self, host: PeerId) -> Result<Option<(u64, Vec<PeerId>)>, StoreError> {
        let mut find = self
            .db
            .prepare_cached("SELECT version, devices FROM members WHERE host = ?")?;
        let row = find.query_row([Id(host.as_bytes())], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        });
        Ok(row.optional()?.map(|(version, devices)| {
            let devices = devices
                .as_chunks()
                .0
                .iter()
                .map(|id| PeerId::from_bytes(*id))
                .collect();
            (version.cast_unsigned(), devices)
        }))
    }

    fn letters(
        &mut self,
        to: PeerId,
        key: i64,
        max_bytes: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        let mut scan = self.db.prepare_cached(
            "SELECT key, until, frame FROM letters
             WHERE addressee = ? AND key > ? AND frame IS NOT NULL ORDER BY key",
        )?;
        let mut rows = scan.query((Id(to.as_bytes()), key))?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(row) = rows.next()?
        {
            let frame = Bytes::from(row.get::<_, Vec<u8>>(2)?);
            bytes += frame.len();
            found.push(Waiting {
                key: row.get(0)?,
                not_after: Timestamp(seq(row.get(1)?)),
                bytes: frame,
            });
        }
        Ok(found)
    }

    fn blob(&mut self, host: PeerId, name: [u8; 32]) -> Result<Option<Bytes>, StoreError> {
        let mut find = self
            .db
            .prepare_cached("SELECT bytes FROM blobs WHERE host = ? AND name = ?")?;
        let row = find.query_row((Id(host.as_bytes()), name), |row| row.get::<_, Vec<u8>>(0));
        Ok(row.optional()?.map(Bytes::from))
    }
}

/// Makes the tables, or checks that they are the ones this version knows.
fn create(db: &mut Connection) -> Result<(), StoreError> {
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        SCHEMA => {}
        0 => {
            let mut id = [0; 16];
            farhelm_world::try_fill(&mut id)
                .map_err(|error| StoreError::Backend(error.to_string()))?;
            transaction.execute_batch(include_str!("schema.sql"))?;
            fail::point("relay.store.in_creation");
            transaction.execute("INSERT INTO store (id) VALUES (?)", [id])?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
        }
        other => {
            let text = format!("its schema has version {other}, this relay knows {SCHEMA}");
            return Err(StoreError::Backend(text));
        }
    }
    Ok(transaction.commit()?)
}

fn write(db: &Transaction<'_>, write: &Write, quota: &mut Quota) -> Result<Outcome, StoreError> {
    match write {
        Write::Append {
            host,
            stream,
            frames,
        } => {
            let bytes = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
            quota.check(db, *host, bytes)?;
            let outcome = append(db, *host, *stream, frames)?;
            quota.add(*host, bytes);
            Ok(outcome)
        }
        Write::Members {
            host,
            version,
            devices,
            removed,
        } => members(db, *host, *version, devices, removed),
        Write::Post {
            to,
            from,
            id,
            not_after,
            now,
            bytes,
        } => post(db, *to, *from, *id, *not_after, *now, bytes),
        Write::Take {
            to,
            from,
            id,
            until,
        } => take(db, *to, *from, *id, *until),
        Write::Blob {
            host,
            name,
            bytes,
            quota,
        } => blob(db, *host, *name, bytes, *quota),
        Write::Prune { now } => prune(db, *now),
        Write::Trim {
            host,
            stream,
            below,
        } => trim(db, *host, *stream, *below),
    }
}

fn append(
    db: &Connection,
    host: PeerId,
    stream: StreamId,
    frames: &[Sealed],
) -> Result<Outcome, StoreError> {
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        return Ok(Outcome::Done);
    };
    let known = stream_key(db, host, stream)?;
    let head: Option<i64> = match known {
        Some(key) => db
            .prepare_cached(
                "SELECT last FROM envelopes WHERE stream = ? ORDER BY first DESC LIMIT 1",
            )?
            .query_row([key], |row| row.get(0))
            .optional()?,
        None => None,
    };
    // Beyond this SQLite could not count; no log ever gets there.
    let countable = i64::try_from(last.last).is_ok();
    if !countable || head.map_or(0, seq) + 1 != first.first {
        return Err(StoreError::Gap);
    }
    let key = match known {
        Some(key) => key,
        None => db
            .prepare_cached("INSERT INTO streams (host, stream) VALUES (?, ?)")?
            .insert((Id(host.as_bytes()), Id(stream.as_bytes())))?,
    };
    let mut insert = db.prepare_cached(
        "INSERT INTO envelopes (stream, first, last, frames) VALUES (?, ?, ?, ?)",
    )?;
    let mut left = frames;
    while let Some(first) = left.first() {
        let (row, rest) = chunk::pack(left);
        let last = left[left.len() - rest.len() - 1].last;
        insert.execute((key, number(first.first), number(last), row))?;
        left = rest;
    }
    Ok(Outcome::Done)
}

fn members(
    db: &Connection,
    host: PeerId,
    version: u64,
    devices: &[PeerId],
    removed: &[PeerId],
) -> Result<Outcome, StoreError> {
    let ids: Vec<u8> = devices
        .iter()
        .flat_map(|device| *device.as_bytes())
        .collect();
    db.prepare_cached("INSERT OR REPLACE INTO members (host, version, devices) VALUES (?, ?, ?)")?
        .execute((Id(host.as_bytes()), version.cast_signed(), ids))?;
    let mut forget = db.prepare_cached(
        "DELETE FROM letters WHERE addressee = ? AND sender = ? AND frame IS NOT NULL",
    )?;
    for device in removed {
        forget.execute((Id(host.as_bytes()), Id(device.as_bytes())))?;
        forget.execute((Id(device.as_bytes()), Id(host.as_bytes())))?;
    }
    Ok(Outcome::Done)
}

fn post(
    db: &Connection,
    to: PeerId,
    from: PeerId,
    id: CommandId,
    not_after: Timestamp,
    now: Timestamp,
    bytes: &Bytes,
) -> Result<Outcome, StoreError> {
    let name = (Id(to.as_bytes()), Id(from.as_bytes()), Id(id.as_bytes()));
    let mut find =
        db.prepare_cached("SELECT 1 FROM letters WHERE addressee = ? AND sender = ? AND id = ?")?;
    if find.exists(name)? {
        return Ok(Outcome::Again);
    }
    let (letters, size): (i64, i64) = db
        .prepare_cached(
            "SELECT count(*), coalesce(sum(size), 0) FROM letters
             WHERE addressee = ? AND frame IS NOT NULL AND (until = 0 OR until >= ?)",
        )?
        .query_row((Id(to.as_bytes()), number(now.0)), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if letters >= count(limits::MAILBOX_LETTERS)
        || size + count(bytes.len()) > count(limits::MAILBOX_BYTES)
    {
        return Ok(Outcome::Full);
    }
    db.prepare_cached(
        "INSERT INTO letters (addressee, sender, id, until, size, frame)
         VALUES (:to, :from, :id, :until, :size, :frame)",
    )?
    .execute(named_params! {
        ":to": Id(to.as_bytes()), ":from": Id(from.as_bytes()), ":id": Id(id.as_bytes()),
        ":until": number(not_after.0), ":size": count(bytes.len()), ":frame": &bytes[..],
    })?;
    Ok(Outcome::Done)
}

fn take(
    db: &Connection,
    to: PeerId,
    from: PeerId,
    id: CommandId,
    until: Timestamp,
) -> Result<Outcome, StoreError> {
    let mut mark = db.prepare_cached(
        "UPDATE letters SET frame = NULL, size = 0, until = ?
         WHERE addressee = ? AND sender = ? AND id = ? AND frame IS NOT NULL",
    )?;
    mark.execute((
        number(until.0),
        Id(to.as_bytes()),
        Id(from.as_bytes()),
        Id(id.as_bytes()),
    ))?;
    Ok(Outcome::Done)
}

fn blob(
    db: &Connection,
    host: PeerId,
    name: [u8; 32],
    bytes: &Bytes,
    quota: u64,
) -> Result<Outcome, StoreError> {
    let mut insert = db.prepare_cached(
        "INSERT OR IGNORE INTO blobs (host, name, size, bytes) VALUES (?, ?, ?, ?)",
    )?;
    if insert.execute((Id(host.as_bytes()), name, count(bytes.len()), &bytes[..]))? == 0 {
        return Ok(Outcome::Again);
    }
    let mut sizes =
        db.prepare_cached("SELECT key, size FROM blobs WHERE host = ? ORDER BY key DESC")?;
    let mut rows = sizes.query([Id(host.as_bytes())])?;
    let mut kept = 0_u64;
    while let Some(row) = rows.next()? {
        kept = kept.saturating_add(seq(row.get(1)?));
        if kept > quota {
            let newest_over: i64 = row.get(0)?;
            db.prepare_cached("DELETE FROM blobs WHERE host = ? AND key <= ?")?
                .execute((Id(host.as_bytes()), newest_over))?;
            break;
        }
    }
    Ok(Outcome::Done)
}

fn prune(db: &Connection, now: Timestamp) -> Result<Outcome, StoreError> {
    db.prepare_cached("DELETE FROM letters WHERE until <> 0 AND until < ?")?
        .execute([number(now.0)])?;
    Ok(Outcome::Done)
}

/// Rows go as wholes: one that holds anything from `below` on stays.
fn trim(
    db: &Connection,
    host: PeerId,
    stream: StreamId,
    below: u64,
) -> Result<Outcome, StoreError> {
    if let Some(key) = stream_key(db, host, stream)? {
        db.prepare_cached("DELETE FROM envelopes WHERE stream = ? AND last < ?")?
            .execute((key, number(below)))?;
    }
    Ok(Outcome::Done)
}

fn stream_key(db: &Connection, host: PeerId, stream: StreamId) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT key FROM streams WHERE host = ? AND stream = ?")?
        .query_row((Id(host.as_bytes()), Id(stream.as_bytes())), |row| {
            row.get(0)
        })
        .optional()
}

/// An id as the file holds it.
struct Id<'a>(&'a [u8; 16]);

impl ToSql for Id<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(&self.0[..]))
    }
}

/// A seq or time as the file holds it; what does not fit is later than everything.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn count(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn seq(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The version of the tables, in the file's `user_version`.
const SCHEMA: i64 = 1;
/// How long a locked file is waited for; nobody but the relay should lock it.
const BUSY: Duration = Duration::from_millis(500);
const CHECKPOINT_PAGES: i64 = 4000;
const CACHE_KIB: i64 = 1024;
