//! What is looked at before a journal is used, and what is saved of a damaged one.
//!
//! Small tables are read whole each time. The file's structure is checked when the file is small,
//! or when a reader met damage; envelopes and blobs are checked when they are read. What cannot be
//! read is left in a copy of the file, said in the log, and never guessed.

use std::path::{Path, PathBuf};

use farhelm_link::clock::now;
use farhelm_proto::StreamId;
use rusqlite::{Connection, Row, params};

use super::sum::{self, Tallies};
use super::{JournalError, schema};

/// Files up to this size are checked whole at each start.
const SMALL: u64 = 16 * 1024 * 1024;
/// The note that commands were lost: what is older may have been decided.
pub(super) const COMMANDS_LOST: &str = "commands_lost";

/// The file that asks for a check of the whole journal at the next start.
pub(super) fn mark(path: &Path) -> PathBuf {
    path.with_extension("check")
}

/// Whether the file should be checked whole.
pub(super) fn is_due(path: &Path) -> bool {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    size <= SMALL || mark(path).exists()
}

/// Whether the file's structure is sound.
pub(super) fn is_sound(db: &Connection) -> bool {
    let answer = db.query_row("PRAGMA integrity_check(1)", [], |row| {
        row.get::<_, String>(0)
    });
    answer.is_ok_and(|answer| answer == "ok") && schema::is_ours(db).unwrap_or(false)
}

/// Copies what can still be read into a new file and puts that in the place of the damaged one,
/// which is kept beside it.
pub(super) fn rescue(path: &Path) -> Result<Connection, JournalError> {
    let fresh = path.with_extension("rescued");
    remove(&fresh)?;
    {
        let mut to = super::writer::connect(&fresh)?;
        schema::migrate(&mut to)?;
        let from = super::writer::connect(path)?;
        if schema::version(&from)? != schema::VERSION {
            // Not one that can be told apart from garbage.
            return Err(JournalError::Corrupt("a file of an older version"));
        }
        let step = to.transaction()?;
        // Those of the damaged file count.
        step.execute("DELETE FROM tallies", [])?;
        let mut cut = Vec::new();
        for table in &TABLES {
            let (saved, is_whole) = table.copy(&from, &step)?;
            if !is_whole {
                cut.push(table.name);
            }
            tracing::error!(
                table = table.name,
                saved,
                "records of the damaged journal were saved"
            );
        }
        // Each of the two names all logs. Without both, some could be missing and nobody would know.
        if cut.contains(&"streams") && cut.contains(&"envelopes") {
            return Err(JournalError::Corrupt("too little of it can be read"));
        }
        step.commit()?;
        to.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    }
    let aside = (1..)
        .map(|n| path.with_extension(format!("damaged-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| path.with_extension("damaged"));
    for end in ["", "-wal", "-shm"] {
        let from = with_end(path, end);
        if from.exists() {
            std::fs::rename(&from, with_end(&aside, end)).map_err(unusable)?;
        }
    }
    std::fs::rename(&fresh, path).map_err(unusable)?;
    remove(&fresh)?;
    tracing::error!(kept = %aside.display(), "the journal was damaged; what could be read goes on in a new file");
    super::writer::connect(path)
}

/// Reads the small tables whole: removes records that are not as they were written, and notes
/// what that means. Gives the tallies, and the names of the tables that lost something.
pub(super) fn settle(db: &mut Connection) -> Result<(Tallies, Vec<&'static str>), JournalError> {
    let step = db.transaction()?;
    let said = Tallies::load(&step).unwrap_or_default();
    for table in TABLES.iter().filter(|table| table.is_tallied()) {
        table.drop_damaged(&step)?;
    }
    mend_ends(&step)?;
    let mut counted = Tallies::count(&step)?;
    counted.keep_commits(&said);
    let lost: Vec<_> = sum::TALLIED
        .into_iter()
        .filter(|table| counted.0.get(table) != said.0.get(table))
        .collect();
    for table in &lost {
        tracing::error!(table, "the journal has lost records of this table");
        if *table == "commands" {
            step.execute(
                "INSERT OR REPLACE INTO notes VALUES (?1, ?2)",
                params![COMMANDS_LOST, super::to_sql(now().0)],
            )?;
        }
    }
    counted.store(&step, &said)?;
    step.commit()?;
    Ok((counted, lost))
}

/// Finds the ends of streams anew where they were lost: an envelope says all that is needed.
fn mend_ends(db: &Connection) -> rusqlite::Result<()> {
    let mut bad = Vec::new();
    {
        let mut query = db.prepare("SELECT stream, head, hash, base, floor, sum FROM streams")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            if !sum::holds(row, "streams", 5) {
                bad.push(row.get::<_, Vec<u8>>(0)?);
            }
        }
    }
    for stream in &bad {
        db.execute("DELETE FROM streams WHERE stream = ?1", [stream])?;
    }
    let mut after: Vec<u8> = Vec::new();
    loop {
        let next = db
            .prepare_cached("SELECT min(stream) FROM envelopes WHERE stream > ?1")?
            .query_row([&after], |row| row.get::<_, Option<Vec<u8>>>(0))?;
        let Some(stream) = next else { return Ok(()) };
        after.clone_from(&stream);
        let known = db
            .prepare_cached("SELECT 1 FROM streams WHERE stream = ?1")?
            .exists([&stream])?;
        if !known && stream.len() == 16 {
            mend_end(db, &stream)?;
        }
    }
}

fn mend_end(db: &Connection, stream: &[u8]) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached(
        "SELECT stream, first, last, base, hash, frame, sum FROM envelopes WHERE stream = ?1 ORDER BY last DESC",
    )?;
    let mut rows = query.query([stream])?;
    while let Some(row) = rows.next()? {
        if !sum::holds(row, "envelopes", 6) {
            continue;
        }
        let (last, base, hash): (i64, i64, Vec<u8>) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let id: Option<[u8; 16]> = stream.try_into().ok();
        let stream_id = id.map(StreamId::from_bytes);
        tracing::error!(stream = ?stream_id, head = last, "the end of a log was lost and found again");
        db.execute(
            "INSERT INTO streams VALUES (?1, ?2, ?3, ?4, 0, record_sum('streams', ?1, ?2, ?3, ?4, 0))",
            params![stream, last, hash, base],
        )?;
        break;
    }
    Ok(())
}

/// A table as it is copied and checked.
struct Table {
    name: &'static str,
    /// The columns below the sum, in order.
    columns: &'static [&'static str],
    /// What its rows are named by.
    key: &'static str,
    has_sum: bool,
}

const TABLES: [Table; 12] = [
    Table::new(
        "streams",
        &["stream", "head", "hash", "base", "floor"],
        "stream",
    ),
    Table::new(
        "envelopes",
        &["stream", "first", "last", "base", "hash", "frame"],
        "rowid",
    ),
    Table::new("keys", &["stream", "epoch", "key"], "stream, epoch"),
    Table::new("commands", &["id", "device", "outcome"], "id"),
    Table::new("letters", &["id", "peer", "frame"], "number"),
    Table::new("sessions", &["session", "spec"], "session"),
    Table::new("agents", &["session", "taken", "state"], "session"),
    Table::new(
        "agent_lines",
        &["session", "number", "line"],
        "session, number",
    ),
    Table::plain("blobs", &["name", "bytes", "stream"], "rowid"),
    Table::plain("tallies", &["name", "rows", "sum"], "name"),
    Table::plain("notes", &["name", "at"], "name"),
    Table::plain("dropped", &["stream", "pieces", "bytes", "said"], "stream"),
];

impl Table {
    const fn new(name: &'static str, columns: &'static [&'static str], key: &'static str) -> Self {
        Self {
            name,
            columns,
            key,
            has_sum: true,
        }
    }

    const fn plain(
        name: &'static str,
        columns: &'static [&'static str],
        key: &'static str,
    ) -> Self {
        Self {
            name,
            columns,
            key,
            has_sum: false,
        }
    }

    fn is_tallied(&self) -> bool {
        sum::TALLIED.contains(&self.name)
    }

    fn all_columns(&self) -> String {
        let sum = self.has_sum.then_some("sum");
        let all: Vec<_> = self.columns.iter().copied().chain(sum).collect();
        all.join(", ")
    }

    /// Copies what can be read, from both ends: what lies between two damaged places is lost. Gives
    /// how many records there were, and whether all could be read.
    fn copy(&self, from: &Connection, to: &Connection) -> Result<(u64, bool), JournalError> {
        let columns = self.all_columns();
        let places = (1..=columns.split(", ").count()).map(|n| format!("?{n}"));
        let places = places.collect::<Vec<_>>().join(", ");
        let insert = format!(
            "INSERT OR IGNORE INTO {} ({columns}) VALUES ({places})",
            self.name
        );
        let falling = self.key.split(", ").map(|key| format!("{key} DESC"));
        let falling = falling.collect::<Vec<_>>().join(", ");
        let (mut saved, mut is_whole) = (0, true);
        for order in [self.key, &falling] {
            let sql = format!("SELECT {columns} FROM {} ORDER BY {order}", self.name);
            let Ok(mut query) = from.prepare(&sql) else {
                is_whole = false;
                continue;
            };
            let mut rows = query.query([])?;
            loop {
                match rows.next() {
                    Ok(Some(row)) if self.is_whole(row) => {
                        saved += self.insert(to, &insert, row)?;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        is_whole = false;
                        break;
                    }
                }
            }
        }
        Ok((saved, is_whole))
    }

    fn insert(&self, to: &Connection, sql: &str, row: &Row<'_>) -> Result<u64, JournalError> {
        let count = self.columns.len() + usize::from(self.has_sum);
        let values = (0..count).map(|at| row.get::<_, rusqlite::types::Value>(at));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let mut insert = to.prepare_cached(sql)?;
        Ok(insert.execute(rusqlite::params_from_iter(values))? as u64)
    }

    fn is_whole(&self, row: &Row<'_>) -> bool {
        if self.has_sum {
            return sum::holds(row, self.name, self.columns.len());
        }
        let blob = || {
            let (name, bytes) = (
                row.get::<_, Vec<u8>>(0).ok()?,
                row.get::<_, Vec<u8>>(1).ok()?,
            );
            Some(farhelm_core::seal::blob_name(&bytes).as_slice() == name)
        };
        self.name != "blobs" || blob().unwrap_or(false)
    }

    /// Removes the records whose sums are wrong.
    fn drop_damaged(&self, db: &Connection) -> Result<(), JournalError> {
        let select = format!(
            "SELECT {}, {} FROM {}",
            self.all_columns(),
            self.key,
            self.name
        );
        let keys: Vec<_> = self.key.split(", ").collect();
        let first_key = self.columns.len() + 1;
        let mut damaged = Vec::new();
        {
            let mut query = db.prepare(&select)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                if !sum::holds(row, self.name, self.columns.len()) {
                    let key = (first_key..first_key + keys.len())
                        .map(|at| row.get::<_, rusqlite::types::Value>(at));
                    damaged.push(key.collect::<Result<Vec<_>, _>>()?);
                }
            }
        }
        let condition = (1..).zip(&keys).map(|(n, key)| format!("{key} = ?{n}"));
        let condition = condition.collect::<Vec<_>>().join(" AND ");
        for key in damaged {
            tracing::error!(
                table = self.name,
                "a record of the journal is damaged and is left out"
            );
            db.execute(
                &format!("DELETE FROM {} WHERE {condition}", self.name),
                rusqlite::params_from_iter(key),
            )?;
        }
        Ok(())
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn remove(path: &Path) -> Result<(), JournalError> {
    for end in ["", "-wal", "-shm"] {
        match std::fs::remove_file(with_end(path, end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(unusable(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn unusable(error: std::io::Error) -> JournalError {
    JournalError::Io(error.into())
}
