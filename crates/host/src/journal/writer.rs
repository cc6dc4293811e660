//! The journal's one writer: takes what waits, writes it in one transaction, tells everybody.
//!
//! A write that failed below SQLite is never tried again on the same connection: the system may
//! have dropped pages that it could not write, and the next success would say nothing about them.
//! The failed commit is answered as failed, the file is opened anew, and a small record of ours is
//! committed first, over the place where the failed one might stand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farhelm_link::clock::now;
use farhelm_proto::Code;
use rusqlite::{Connection, Transaction, params};
use tokio::sync::{mpsc, watch};

use super::ends::{self, Ends};
use super::rotate::{self, Bound, Dropped};
use super::sum::Tallies;
use super::{Job, JournalError, Lost, Op, StoredEnvelope, check, health, schema, sum, to_sql};

/// Jobs in one transaction, at most.
const GROUP: usize = 256;
/// The note that a write failed and the file was opened anew.
const WRITE_FAILED: &str = "write_failed";

/// A connection that knows our sums.
pub(super) fn connect(path: &Path) -> Result<Connection, JournalError> {
    restrict(path);
    let db = Connection::open(path)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    sum::teach(&db)?;
    Ok(db)
}

/// A journal that can be used.
pub(super) struct Opened {
    pub(super) db: Connection,
    pub(super) tallies: Tallies,
    pub(super) ends: Ends,
    pub(super) lost: Vec<Lost>,
}

/// Opens the file for writing: checks it, saves what can be saved when it is damaged, and brings
/// it to the version of this program.
pub(super) fn open(path: &Path) -> Result<Opened, JournalError> {
    // SQLite takes less than this for a file that nothing was written to yet.
    if std::fs::metadata(path).is_ok_and(|file| (1..512).contains(&file.len())) {
        return Err(JournalError::Corrupt("the file was cut off"));
    }
    let mut db = connect(path)?;
    schema::version(&db)?;
    if check::is_due(path) && !check::is_sound(&db) {
        drop(db);
        db = check::rescue(path)?;
    }
    prepare(&db)?;
    schema::migrate(&mut db)?;
    let (tallies, tables) = check::settle(&mut db)?;
    let mut lost: Vec<_> = tables.into_iter().map(Lost::Table).collect();
    lost.extend(ends::compare(&mut db, &ends::known(path), &tallies)?);
    let ends = Ends::begin(path, &db, &tallies)?;
    std::fs::remove_file(check::mark(path)).unwrap_or_default();
    Ok(Opened {
        db,
        tallies,
        ends,
        lost,
    })
}

fn prepare(db: &Connection) -> Result<(), JournalError> {
    schema::version(db)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    Ok(())
}

/// How often the writer went to the disk.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Transactions, each with one `fsync` of the log.
    pub(super) commits: AtomicU64,
    /// What was written in them.
    pub(super) ops: AtomicU64,
    /// By how many bytes the file is too large though no output is left in it.
    pub(super) beyond: AtomicU64,
}

/// The writer and what it knows.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    /// Nothing after a failure, until it was opened anew.
    pub(super) db: Option<Connection>,
    pub(super) tallies: Tallies,
    pub(super) ends: Ends,
    pub(super) health: Arc<health::Gauge>,
    pub(super) counts: Arc<Counts>,
    pub(super) bound: Bound,
    /// What was dropped ever; wakes those whose logs are to say it.
    pub(super) dropped: watch::Sender<Dropped>,
}

impl Writer {
    /// Writes until nobody can send any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP);
        while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
            fail::point("host.journal.before_group");
            match self.write_group(&group) {
                Ok(()) => group.drain(..).for_each(|job| {
                    fail::point("host.journal.before_told");
                    drop(job.done.send(Ok(())));
                }),
                Err(error) if self.db.is_none() => {
                    group.drain(..).for_each(|job| job.fail(error.clone()));
                }
                // One job's failure must not fail its neighbours: each alone.
                Err(_) => {
                    for job in group.drain(..) {
                        match self.write_group(std::slice::from_ref(&job)) {
                            Ok(()) => drop(job.done.send(Ok(()))),
                            Err(error) => job.fail(error),
                        }
                    }
                }
            }
            self.rotate();
        }
    }

    /// Drops what is too much; whoever committed has been told by then.
    pub(super) fn rotate(&mut self) {
        let Some(db) = &mut self.db else { return };
        let held = self.bound.hold(db);
        let beyond = self.bound.beyond();
        match (self.counts.beyond.swap(beyond, Ordering::Relaxed), beyond) {
            (0, 1..) => tracing::warn!(
                code = %Code::JournalFull,
                beyond,
                "the logs alone are larger than `journal_mib` allows: outputs are dropped at once, and the journal grows on"
            ),
            (1.., 0) => tracing::info!("the journal is within its size again"),
            (0, 0) | (1.., 1..) => {}
        }
        match held {
            Ok(None) => {}
            Ok(Some(dropped)) => drop(self.dropped.send_replace(dropped)),
            Err(error) => {
                tracing::error!(%error, "old outputs cannot be dropped");
                // It may have failed below SQLite: see above.
                if error.is_broken() {
                    self.db = None;
                }
            }
        }
    }

    pub(super) fn write_group(&mut self, group: &[Job]) -> Result<(), JournalError> {
        let written = self.try_write(group);
        match &written {
            Ok(()) => self.health.sound(),
            Err(error) if error.is_full() => self.health.failed(error),
            Err(error) if error.is_broken() => {
                tracing::error!(%error, "the journal could not be written; it is opened anew");
                self.db = None;
                self.health.failed(error);
            }
            Err(_) => {}
        }
        written
    }

    fn try_write(&mut self, group: &[Job]) -> Result<(), JournalError> {
        let mut db = match self.db.take() {
            Some(db) => db,
            None => self.reopen()?,
        };
        let result = self.transact(&mut db, group);
        self.db = Some(db);
        result
    }

    fn transact(&mut self, db: &mut Connection, group: &[Job]) -> Result<(), JournalError> {
        let all = || group.iter().flat_map(|job| &job.ops);
        write_all(db, &mut self.tallies, all())?;
        self.ends.committed(all(), &self.tallies);
        for op in all() {
            self.bound.wrote(op.size());
        }
        let ops: usize = group.iter().map(|job| job.ops.len()).sum();
        self.counts.commits.fetch_add(1, Ordering::Relaxed);
        self.counts.ops.fetch_add(ops as u64, Ordering::Relaxed);
        Ok(())
    }

    fn reopen(&mut self) -> Result<Connection, JournalError> {
        let db = connect(&self.path)?;
        prepare(&db)?;
        fail::error("host.journal.reopened").map_err(|error| injected(&error))?;
        db.execute(
            "INSERT OR REPLACE INTO notes VALUES (?1, ?2)",
            params![WRITE_FAILED, to_sql(now().0)],
        )?;
        self.tallies = Tallies::load(&db)?;
        Ok(db)
    }
}

/// Writes all of it, or nothing.
pub(super) fn write_all<'a>(
    db: &mut Connection,
    tallies: &mut Tallies,
    ops: impl IntoIterator<Item = &'a Op>,
) -> Result<(), JournalError> {
    let mut after = tallies.clone();
    let step = db.transaction()?;
    for op in ops {
        fail::point("host.journal.before_write");
        write(&step, op, &mut after)?;
    }
    after.count_commit(tallies);
    after.store(&step, tallies)?;
    fail::error("host.journal.before_commit").map_err(|error| injected(&error))?;
    step.commit()?;
    fail::point("host.journal.after_commit");
    *tallies = after;
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

/// The sums of the records that a statement wrote or removed.
fn sums(
    db: &Transaction<'_>,
    sql: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<i64>, JournalError> {
    let mut query = db.prepare_cached(sql)?;
    let sums = query.query_map(values, |row| row.get(0))?;
    Ok(sums.collect::<Result<_, _>>()?)
}

fn write(db: &Transaction<'_>, op: &Op, tallies: &mut Tallies) -> Result<(), JournalError> {
    let mut add = |table, sql, values: &[&dyn rusqlite::ToSql]| -> Result<(), JournalError> {
        for sum in sums(db, sql, values)? {
            tallies.of(table).add(sum);
        }
        Ok(())
    };
    match op {
        Op::Envelope(envelope) => write_envelope(db, envelope),
        Op::Mend(envelope) => mend(db, envelope),
        Op::Key { stream, epoch, key } => add(
            "keys",
            "INSERT INTO keys VALUES (?1, ?2, ?3, record_sum('keys', ?1, ?2, ?3)) RETURNING sum",
            &[stream.as_bytes(), epoch, key.expose()],
        ),
        Op::Command {
            id,
            device,
            outcome,
        } => {
            let device = device.map(|device| *device.as_bytes());
            add(
                "commands",
                "INSERT INTO commands VALUES (?1, ?2, ?3, record_sum('commands', ?1, ?2, ?3)) RETURNING sum",
                &[id.as_bytes(), &device, outcome],
            )
        }
        Op::CommandMoved { id, outcome } => {
            let sql = "SELECT sum FROM commands WHERE id = ?1";
            remove(db, tallies, "commands", sql, &[id.as_bytes()])?;
            let sql = "UPDATE commands SET outcome = ?2, sum = record_sum('commands', id, device, ?2) WHERE id = ?1 RETURNING sum";
            for sum in sums(db, sql, &[id.as_bytes(), outcome])? {
                tallies.of("commands").add(sum);
            }
            Ok(())
        }
        Op::Letter { id, to, frame } => add(
            "letters",
            "INSERT OR IGNORE INTO letters (id, peer, frame, sum) VALUES (?1, ?2, ?3, record_sum('letters', ?1, ?2, ?3)) RETURNING sum",
            &[id.as_bytes(), to.as_bytes(), &frame.as_ref()],
        ),
        Op::LetterPosted { id } => {
            let sql = "DELETE FROM letters WHERE id = ?1 RETURNING sum";
            remove(db, tallies, "letters", sql, &[id.as_bytes()])
        }
        Op::LettersDropped { to } => {
            let sql = "DELETE FROM letters WHERE peer = ?1 RETURNING sum";
            remove(db, tallies, "letters", sql, &[to.as_bytes()])
        }
        Op::Session { session, spec } => {
            let sql = "DELETE FROM sessions WHERE session = ?1 RETURNING sum";
            remove(db, tallies, "sessions", sql, &[session.as_bytes()])?;
            let sql = "INSERT INTO sessions VALUES (?1, ?2, record_sum('sessions', ?1, ?2)) RETURNING sum";
            for sum in sums(db, sql, &[session.as_bytes(), spec])? {
                tallies.of("sessions").add(sum);
            }
            Ok(())
        }
        Op::Blob {
            name,
            stream,
            bytes,
        } => {
            db.prepare_cached("INSERT OR IGNORE INTO blobs VALUES (?1, ?2, ?3)")?
                .execute(params![name, bytes.as_ref(), stream.as_bytes()])?;
            Ok(())
        }
        Op::DroppedSaid { stream, bytes } => rotate::said(db, *stream, *bytes),
        Op::LostEndSaid { stream } => ends::said(db, *stream),
        Op::BlobDropped { name } => {
            db.prepare_cached("DELETE FROM blobs WHERE name = ?1")?
                .execute(params![name])?;
            Ok(())
        }
        Op::Agent { .. } | Op::AgentLine { .. } | Op::AgentWritten { .. } => write_agent(db, op),
    }
}

/// The run of an agent, and lines for it.
#[expect(clippy::wildcard_enum_match_arm, reason = "called for these only")]
fn write_agent(db: &Transaction<'_>, op: &Op) -> Result<(), JournalError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<(), JournalError> {
        db.prepare_cached(sql)?.execute(values)?;
        Ok(())
    };
    match op {
        Op::Agent {
            session,
            taken,
            state: Some(state),
        } => run(
            "INSERT OR REPLACE INTO agents VALUES (?1, ?2, ?3, record_sum('agents', ?1, ?2, ?3))",
            &[session.as_bytes(), &to_sql(*taken), state],
        ),
        Op::Agent {
            session,
            taken,
            state: None,
        } => run(
            "UPDATE agents SET taken = ?2, sum = record_sum('agents', session, ?2, state) WHERE session = ?1",
            &[session.as_bytes(), &to_sql(*taken)],
        ),
        Op::AgentLine {
            session,
            number,
            line,
        } => run(
            "INSERT INTO agent_lines VALUES (?1, ?2, ?3, record_sum('agent_lines', ?1, ?2, ?3))",
            &[session.as_bytes(), &to_sql(*number), line],
        ),
        Op::AgentWritten { session, through } => run(
            "DELETE FROM agent_lines WHERE session = ?1 AND number <= ?2",
            &[session.as_bytes(), &to_sql(*through)],
        ),
        _ => Ok(()),
    }
}

fn remove(
    db: &Transaction<'_>,
    tallies: &mut Tallies,
    table: &'static str,
    sql: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<(), JournalError> {
    for sum in sums(db, sql, values)? {
        tallies.of(table).remove(sum);
    }
    Ok(())
}

/// An envelope is written only where the stream ends.
fn write_envelope(db: &Transaction<'_>, envelope: &StoredEnvelope) -> Result<(), JournalError> {
    let stream = envelope.stream.as_bytes();
    let (last, base) = (to_sql(envelope.last), to_sql(envelope.base));
    let advanced = if envelope.first == 1 {
        db.prepare_cached(
            "INSERT OR IGNORE INTO streams VALUES (?1, ?2, ?3, ?4, 0, record_sum('streams', ?1, ?2, ?3, ?4, 0))",
        )?
        .execute(params![stream, last, envelope.hash, base])?
    } else {
        let before = to_sql(envelope.first.saturating_sub(1));
        db.prepare_cached(
            "UPDATE streams SET head = ?2, hash = ?3, base = ?4, sum = record_sum('streams', ?1, ?2, ?3, ?4, floor)
             WHERE stream = ?1 AND head = ?5",
        )?
        .execute(params![stream, last, envelope.hash, base, before])?
    };
    if advanced != 1 {
        return Err(JournalError::Corrupt(
            "an envelope does not continue its stream",
        ));
    }
    insert(db, envelope)
}

/// Puts an envelope back that was lost inside of its stream.
fn mend(db: &Transaction<'_>, envelope: &StoredEnvelope) -> Result<(), JournalError> {
    db.prepare_cached("DELETE FROM envelopes WHERE stream = ?1 AND last >= ?2 AND first <= ?3")?
        .execute(params![
            envelope.stream.as_bytes(),
            to_sql(envelope.first),
            to_sql(envelope.last),
        ])?;
    insert(db, envelope)
}

fn insert(db: &Transaction<'_>, envelope: &StoredEnvelope) -> Result<(), JournalError> {
    db.prepare_cached(
        "INSERT INTO envelopes VALUES (?1, ?2, ?3, ?4, ?5, ?6, record_sum('envelopes', ?1, ?2, ?3, ?4, ?5, ?6))",
    )?
    .execute(params![
        envelope.stream.as_bytes(),
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
