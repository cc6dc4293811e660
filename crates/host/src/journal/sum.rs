//! A checksum for each record, and a tally of each small table, so that neither a record that was
//! altered nor one that vanished goes unnoticed.
//!
//! They find what disks and files do by themselves. Against people there are the seals.

use std::collections::BTreeMap;

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};
use sha2::{Digest as _, Sha256};

/// Tables whose records are counted: a record of theirs that vanished would be missed by nobody.
pub(super) const TALLIED: [&str; 4] = ["keys", "commands", "letters", "sessions"];

/// The tally of the commits that changed one of them.
const COMMITS: &str = "commits";

/// Makes `record_sum(table, values…)` known to statements.
pub(super) fn teach(db: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("record_sum", -1, flags, |values| {
        Ok(of((0..values.len()).map(|at| values.get_raw(at))))
    })
}

/// Whether a row that was read whole (all columns in their order, then its sum) is as it was
/// written.
pub(super) fn holds(row: &Row<'_>, table: &str, columns: usize) -> bool {
    let name = std::iter::once(ValueRef::Text(table.as_bytes()));
    let values = (0..columns).map(|at| row.get_ref(at).unwrap_or(ValueRef::Null));
    row.get::<_, i64>(columns)
        .is_ok_and(|sum| sum == of(name.chain(values)))
}

pub(super) fn of<'a>(values: impl Iterator<Item = ValueRef<'a>>) -> i64 {
    let mut hash = Sha256::new();
    for value in values {
        match value {
            ValueRef::Null => hash.update([0]),
            ValueRef::Integer(number) => {
                hash.update([1]);
                hash.update(number.to_be_bytes());
            }
            ValueRef::Real(number) => {
                hash.update([2]);
                hash.update(number.to_be_bytes());
            }
            ValueRef::Text(bytes) => update(&mut hash, 3, bytes),
            ValueRef::Blob(bytes) => update(&mut hash, 4, bytes),
        }
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (first, _) = digest.split_at(8);
    first
        .iter()
        .fold(0, |number, byte| (number << 8) | i64::from(*byte))
}

fn update(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// How many records a table has, and what their sums add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rows: i64,
    pub(super) sum: i64,
}

impl Tally {
    pub(super) const fn add(&mut self, sum: i64) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(sum);
    }

    pub(super) const fn remove(&mut self, sum: i64) {
        self.rows = self.rows.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(sum);
    }
}

/// The tallies of all such tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tallies(pub(super) BTreeMap<&'static str, Tally>);

impl Tallies {
    /// What the file says; nothing of a table of which it says nothing.
    pub(super) fn load(db: &Connection) -> rusqlite::Result<Self> {
        let mut tallies = Self::default();
        for table in TALLIED.into_iter().chain([COMMITS]) {
            let found = db
                .prepare_cached("SELECT rows, sum FROM tallies WHERE name = ?1")?
                .query_row([table], |row| {
                    Ok(Tally {
                        rows: row.get(0)?,
                        sum: row.get(1)?,
                    })
                });
            if let Some(tally) = found.optional()? {
                tallies.0.insert(table, tally);
            }
        }
        Ok(tallies)
    }

    /// What the records themselves say.
    pub(super) fn count(db: &Connection) -> rusqlite::Result<Self> {
        let mut tallies = Self::default();
        for table in TALLIED {
            let mut tally = Tally::default();
            let mut query = db.prepare(&format!("SELECT sum FROM {table}"))?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                tally.add(row.get(0)?);
            }
            tallies.0.insert(table, tally);
        }
        Ok(tallies)
    }

    /// Writes down those that differ from `before`.
    pub(super) fn store(&self, db: &Connection, before: &Self) -> rusqlite::Result<()> {
        for (table, tally) in &self.0 {
            if before.0.get(table) != Some(tally) {
                db.prepare_cached("INSERT OR REPLACE INTO tallies VALUES (?1, ?2, ?3)")?
                    .execute((table, tally.rows, tally.sum))?;
            }
        }
        Ok(())
    }

    /// How many commits changed one of these tables; each is known by the tables' own tallies.
    pub(super) fn commits(&self) -> u64 {
        let commits = self.0.get(COMMITS).copied().unwrap_or_default();
        super::from_sql(commits.rows)
    }

    /// Notes that what differs from `before` is one more commit.
    pub(super) fn count_commit(&mut self, before: &Self) {
        if self != before {
            self.of(COMMITS).rows += 1;
        }
    }

    /// Goes on with the commits of another, which was written in the same file.
    pub(super) fn keep_commits(&mut self, of: &Self) {
        if let Some(commits) = of.0.get(COMMITS) {
            self.0.insert(COMMITS, *commits);
        }
    }

    pub(super) fn of(&mut self, table: &'static str) -> &mut Tally {
        self.0.entry(table).or_default()
    }
}
