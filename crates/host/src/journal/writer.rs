//! The journal's one writer: takes what waits, writes it in one transaction, tells everybody.

use std::path::Path;

use rusqlite::{Connection, Transaction, params};
use tokio::sync::mpsc;

use super::{Job, JournalError, Op, StoredEnvelope, to_sql};

/// Jobs in one transaction, at most.
const GROUP: usize = 256;

/// Migrations; the index of the next one is the version. Append only.
const MIGRATIONS: &[&str] = &["
    -- Where each stream ends; changes with every envelope.
    CREATE TABLE streams (stream BLOB PRIMARY KEY, head INTEGER NOT NULL, hash BLOB NOT NULL, base INTEGER NOT NULL);
    -- Sealed envelopes, byte for byte as the relay gets them.
    CREATE TABLE envelopes (
        stream BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        base INTEGER NOT NULL, hash BLOB NOT NULL, frame BLOB NOT NULL
    );
    CREATE UNIQUE INDEX envelopes_by_end ON envelopes (stream, last);
    -- Content keys by epoch.
    CREATE TABLE keys (stream BLOB NOT NULL, epoch INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (stream, epoch));
    -- What became of each command; an id is decided once, for ever.
    CREATE TABLE commands (id BLOB PRIMARY KEY, device BLOB, outcome TEXT NOT NULL);
    -- Letters on their way out.
    CREATE TABLE letters (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, peer BLOB NOT NULL, frame BLOB NOT NULL);
    -- How each session is started again: agent, folder, environment.
    CREATE TABLE sessions (session BLOB PRIMARY KEY, spec TEXT NOT NULL);
    CREATE TABLE blobs (name BLOB PRIMARY KEY, bytes BLOB NOT NULL);
"];

/// Opens the file for writing and brings it to the current version.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    restrict(path);
    set_up(Connection::open(path)?)
}

/// Brings a database to the current version.
pub(super) fn set_up(mut db: Connection) -> Result<Connection, JournalError> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if version > known || version < 0 {
        return Err(JournalError::Version(version));
    }
    let done = usize::try_from(version).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        fail::point("host.journal.before_migration");
        let step = db.transaction()?;
        step.execute_batch(migration)?;
        fail::point("host.journal.in_migration");
        step.pragma_update(
            None,
            "user_version",
            i64::try_from(index + 1).unwrap_or(i64::MAX),
        )?;
        step.commit()?;
        fail::point("host.journal.after_migration");
    }
    Ok(db)
}

/// Writes until nobody can send any more.
pub(super) fn run(mut db: Connection, mut jobs: mpsc::Receiver<Job>) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        fail::point("host.journal.before_group");
        match write_group(&mut db, &group) {
            Ok(()) => group.drain(..).for_each(|job| {
                fail::point("host.journal.before_told");
                drop(job.done.send(Ok(())));
            }),
            // One job's failure must not fail its neighbours: each alone.
            Err(_) => {
                for job in group.drain(..) {
                    let result = write_group(&mut db, std::slice::from_ref(&job));
                    drop(
                        job.done
                            .send(result.map_err(|error| (error, Some(job.ops)))),
                    );
                }
            }
        }
    }
}

fn write_group(db: &mut Connection, group: &[Job]) -> Result<(), JournalError> {
    write_all(db, group.iter().flat_map(|job| &job.ops))
}

/// Writes all of it, or nothing.
pub(super) fn write_all<'a>(
    db: &mut Connection,
    ops: impl IntoIterator<Item = &'a Op>,
) -> Result<(), JournalError> {
    let step = db.transaction()?;
    for op in ops {
        fail::point("host.journal.before_write");
        write(&step, op)?;
    }
    fail::error("host.journal.before_commit").map_err(|error| injected(&error))?;
    step.commit()?;
    fail::point("host.journal.after_commit");
    Ok(())
}

/// What SQLite would say to such an error.
fn injected(error: &std::io::Error) -> JournalError {
    let code = if error.kind() == std::io::ErrorKind::StorageFull {
        rusqlite::ffi::SQLITE_FULL
    } else {
        rusqlite::ffi::SQLITE_IOERR
    };
    let failure = rusqlite::ffi::Error::new(code);
    rusqlite::Error::SqliteFailure(failure, Some(error.to_string())).into()
}

fn write(db: &Transaction<'_>, op: &Op) -> Result<(), JournalError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<usize, JournalError> {
        Ok(db.prepare_cached(sql)?.execute(values)?)
    };
    match op {
        Op::Envelope(envelope) => return write_envelope(db, envelope),
        Op::Key { stream, epoch, key } => run(
            "INSERT INTO keys VALUES (?1, ?2, ?3)",
            &[stream.as_bytes(), epoch, key.expose()],
        )?,
        Op::Command {
            id,
            device,
            outcome,
        } => {
            let device = device.map(|device| *device.as_bytes());
            run(
                "INSERT INTO commands VALUES (?1, ?2, ?3)",
                &[id.as_bytes(), &device, outcome],
            )?
        }
        Op::CommandMoved { id, outcome } => run(
            "UPDATE commands SET outcome = ?2 WHERE id = ?1",
            &[id.as_bytes(), outcome],
        )?,
        Op::Letter { id, to, frame } => run(
            "INSERT OR IGNORE INTO letters (id, peer, frame) VALUES (?1, ?2, ?3)",
            &[id.as_bytes(), to.as_bytes(), &frame.as_ref()],
        )?,
        Op::LetterPosted { id } => run("DELETE FROM letters WHERE id = ?1", &[id.as_bytes()])?,
        Op::LettersDropped { to } => run("DELETE FROM letters WHERE peer = ?1", &[to.as_bytes()])?,
        Op::Session { session, spec } => run(
            "INSERT OR REPLACE INTO sessions VALUES (?1, ?2)",
            &[session.as_bytes(), spec],
        )?,
        Op::Blob { name, bytes } => run(
            "INSERT OR IGNORE INTO blobs VALUES (?1, ?2)",
            &[name, &bytes.as_ref()],
        )?,
    };
    Ok(())
}

/// An envelope is written only where the stream ends.
fn write_envelope(db: &Transaction<'_>, envelope: &StoredEnvelope) -> Result<(), JournalError> {
    let stream = envelope.stream.as_bytes();
    let end = params![
        stream,
        to_sql(envelope.last),
        envelope.hash,
        to_sql(envelope.base),
        to_sql(envelope.first.saturating_sub(1)),
    ];
    let advanced = if envelope.first == 1 {
        let first = params![
            stream,
            to_sql(envelope.last),
            envelope.hash,
            to_sql(envelope.base)
        ];
        db.prepare_cached("INSERT OR IGNORE INTO streams VALUES (?1, ?2, ?3, ?4)")?
            .execute(first)?
    } else {
        db.prepare_cached(
            "UPDATE streams SET head = ?2, hash = ?3, base = ?4 WHERE stream = ?1 AND head = ?5",
        )?
        .execute(end)?
    };
    if advanced != 1 {
        return Err(JournalError::Corrupt(
            "an envelope does not continue its stream",
        ));
    }
    db.prepare_cached("INSERT INTO envelopes VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            stream,
            to_sql(envelope.first),
            to_sql(envelope.last),
            to_sql(envelope.base),
            envelope.hash,
            envelope.frame.as_ref(),
        ])?;
    Ok(())
}

/// The file holds keys and content: nobody else may read it, from the moment it exists.
fn restrict(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path);
    drop(made); // When it cannot be made, opening it says why.
}
