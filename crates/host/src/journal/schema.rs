//! The tables, and how older files come by them. Each step is one transaction: whenever the
//! program ends, the file is of one version or the next.

use std::sync::OnceLock;

use rusqlite::Connection;

use super::JournalError;

/// The version that this program writes.
pub(super) const VERSION: i64 = 4;

/// Migrations; the index of the next one is the version. Append only.
const MIGRATIONS: [&str; 4] = [FIRST, SUMS, AGENTS, DROPPED];

pub(super) const FIRST: &str = "
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
";

/// Each record gets a sum over its columns and its table's name. Small tables become one tree
/// each, so that a look-up and the check at the start see the same records. A blob's name is its
/// sum already.
const SUMS: &str = "
    CREATE TABLE tallies (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    -- When something happened to the file that must not be forgotten.
    CREATE TABLE notes (name TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;

    ALTER TABLE streams RENAME TO old_streams;
    -- Events up to `floor` were dropped on purpose.
    CREATE TABLE streams (
        stream BLOB PRIMARY KEY, head INTEGER NOT NULL, hash BLOB NOT NULL, base INTEGER NOT NULL,
        floor INTEGER NOT NULL, sum INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO streams SELECT stream, head, hash, base, 0, record_sum('streams', stream, head, hash, base, 0) FROM old_streams;
    DROP TABLE old_streams;

    ALTER TABLE envelopes ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
    UPDATE envelopes SET sum = record_sum('envelopes', stream, first, last, base, hash, frame);

    ALTER TABLE keys RENAME TO old_keys;
    CREATE TABLE keys (
        stream BLOB NOT NULL, epoch INTEGER NOT NULL, key BLOB NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (stream, epoch)
    ) WITHOUT ROWID;
    INSERT INTO keys SELECT stream, epoch, key, record_sum('keys', stream, epoch, key) FROM old_keys;
    DROP TABLE old_keys;

    ALTER TABLE commands RENAME TO old_commands;
    CREATE TABLE commands (id BLOB PRIMARY KEY, device BLOB, outcome TEXT NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO commands SELECT id, device, outcome, record_sum('commands', id, device, outcome) FROM old_commands;
    DROP TABLE old_commands;

    ALTER TABLE letters ADD COLUMN sum INTEGER NOT NULL DEFAULT 0;
    UPDATE letters SET sum = record_sum('letters', id, peer, frame);

    ALTER TABLE sessions RENAME TO old_sessions;
    CREATE TABLE sessions (session BLOB PRIMARY KEY, spec TEXT NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO sessions SELECT session, spec, record_sum('sessions', session, spec) FROM old_sessions;
    DROP TABLE old_sessions;
";

/// What a daemon must know to take up again what an earlier one had in hand.
const AGENTS: &str = "
    -- The run of each session's agent: the last line that was taken of it, and where its
    -- conversation was then.
    CREATE TABLE agents (session BLOB PRIMARY KEY, taken INTEGER NOT NULL, state TEXT NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    -- Lines for agents, until their pipes have taken them.
    CREATE TABLE agent_lines (session BLOB NOT NULL, number INTEGER NOT NULL, line TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (session, number)) WITHOUT ROWID;
";

/// Outputs that were dropped to keep the file within its size.
const DROPPED: &str = "
    -- Whose output it is; nobody's in a file of an earlier version.
    ALTER TABLE blobs ADD COLUMN stream BLOB;
    -- How much of each log was dropped, and how many of those bytes the log says.
    CREATE TABLE dropped (stream BLOB PRIMARY KEY, pieces INTEGER NOT NULL, bytes INTEGER NOT NULL, said INTEGER NOT NULL) WITHOUT ROWID;
";

/// The version of the file.
pub(super) fn version(db: &Connection) -> Result<i64, JournalError> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if (0..=VERSION).contains(&version) {
        Ok(version)
    } else {
        Err(JournalError::Version(version))
    }
}

/// Brings the file to the version of this program.
pub(super) fn migrate(db: &mut Connection) -> Result<(), JournalError> {
    let done = usize::try_from(version(db)?).unwrap_or(0);
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        fail::point("host.journal.before_migration");
        let step = db.transaction()?;
        step.execute_batch(migration)?;
        if index == 1 {
            let tallies = super::sum::Tallies::count(&step)?;
            tallies.store(&step, &super::sum::Tallies::default())?;
        }
        fail::point("host.journal.in_migration");
        let next = i64::try_from(index + 1).unwrap_or(i64::MAX);
        step.pragma_update(None, "user_version", next)?;
        step.commit()?;
        fail::point("host.journal.after_migration");
    }
    Ok(())
}

/// Whether the tables are those of this version; a file of an earlier one has others.
pub(super) fn is_ours(db: &Connection) -> Result<bool, JournalError> {
    if version(db)? != VERSION {
        return Ok(true);
    }
    static OURS: OnceLock<Tables> = OnceLock::new();
    let ours = match OURS.get() {
        Some(ours) => ours,
        None => {
            let mut ours = Connection::open_in_memory()?;
            super::sum::teach(&ours)?;
            migrate(&mut ours)?;
            let ours = tables(&ours)?;
            OURS.get_or_init(|| ours)
        }
    };
    Ok(tables(db)? == *ours)
}

/// Names of tables and indexes with the statements that made them.
type Tables = Vec<(String, Option<String>)>;

fn tables(db: &Connection) -> rusqlite::Result<Tables> {
    let mut query = db.prepare("SELECT name, sql FROM sqlite_master ORDER BY name, sql")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
