//! Where each log ended when something was last committed, in a small file beside the journal.
//!
//! SQLite believes its write-ahead log up to the first frame that is not as it was written, and says
//! nothing of what stood behind that. So the journal is held against this file when it is opened. It
//! is written in place once a commit has returned, and never waits for the disk: what it knows of
//! was durable, and a journal that is behind it has lost something. A file that is behind the journal
//! or not there says nothing: so it is after a kill between the two, after a power cut, and where the
//! journal alone was copied.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use farhelm_link::clock::now;
use farhelm_proto::StreamId;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::sum::{self, Tallies};
use super::{JournalError, Lost, Op, check, from_sql, read, to_sql};

/// Bytes of a record: whose end it is, which number, and a sum over both. None crosses a sector.
const RECORD: usize = 32;
/// Under this id stands how many commits changed what is tallied; no log has it.
const COMMITS: StreamId = StreamId::from_bytes([0; 16]);

fn path_of(journal: &Path) -> PathBuf {
    journal.with_extension("ends")
}

/// The ends that are known, by log.
pub(super) type Known = BTreeMap<StreamId, u64>;

/// What the file knows; nothing where there is none.
pub(super) fn known(journal: &Path) -> Known {
    let mut known = Known::new();
    let bytes = std::fs::read(path_of(journal)).unwrap_or_default();
    for record in bytes.chunks_exact(RECORD) {
        if let Some((stream, number)) = parse(record) {
            let end = known.entry(stream).or_default();
            *end = number.max(*end);
        }
    }
    known
}

fn parse(record: &[u8]) -> Option<(StreamId, u64)> {
    let (stream, rest) = record.split_first_chunk::<16>()?;
    let (number, sum) = rest.split_first_chunk::<8>()?;
    let (stream, number) = (StreamId::from_bytes(*stream), u64::from_be_bytes(*number));
    (sum_of(stream, number) == *sum).then_some((stream, number))
}

fn record_of(stream: StreamId, number: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..16].copy_from_slice(stream.as_bytes());
    record[16..24].copy_from_slice(&number.to_be_bytes());
    record[24..].copy_from_slice(&sum_of(stream, number));
    record
}

fn sum_of(stream: StreamId, number: u64) -> [u8; 8] {
    let values = [
        ValueRef::Text(b"ends"),
        ValueRef::Blob(stream.as_bytes()),
        ValueRef::Integer(to_sql(number)),
    ];
    sum::of(values.into_iter()).to_be_bytes()
}

/// The ends in the journal itself.
fn kept(db: &Connection, tallies: &Tallies) -> Result<Known, JournalError> {
    let ends = read::streams(db)?.into_iter();
    let mut kept: Known = ends.map(|(stream, end)| (stream, end.head)).collect();
    kept.insert(COMMITS, tallies.commits());
    Ok(kept)
}

/// Holds the journal against what was known of it. What it does not have is noted in it: for each
/// log to say, and so that no command is decided again that was decided in what is lost.
pub(super) fn compare(
    db: &mut Connection,
    known: &Known,
    tallies: &Tallies,
) -> Result<Vec<Lost>, JournalError> {
    let kept = kept(db, tallies)?;
    let missing = |(stream, last): (&StreamId, &u64)| {
        let has = kept.get(stream).copied().unwrap_or_default();
        (*last > has).then_some((*stream, has + 1, *last))
    };
    let missing: Vec<_> = known.iter().filter_map(missing).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let step = db.transaction()?;
    step.execute(
        "INSERT OR REPLACE INTO notes VALUES (?1, ?2)",
        params![check::COMMANDS_LOST, to_sql(now().0)],
    )?;
    for stream in known.keys().chain(kept.keys()) {
        let range = missing.iter().find(|(of, ..)| of == stream);
        let events = range.map_or(0, |(_, first, last)| last - first + 1);
        step.execute(
            "INSERT INTO notes VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET at = max(at, ?2)",
            params![note_of(*stream), to_sql(events)],
        )?;
    }
    step.commit()?;
    let lost = missing.into_iter().map(|(stream, first, last)| {
        tracing::error!(%stream, first, last, "the journal has lost its end: the last that was written to this log is not there");
        if stream == COMMITS {
            Lost::Commits(last - first + 1)
        } else {
            Lost::Events {
                stream,
                first,
                last,
            }
        }
    });
    Ok(lost.collect())
}

fn note_of(stream: StreamId) -> String {
    format!("end_lost {stream}")
}

/// How many events of a log are known to have been lost with the journal's end, until it says so; none may be.
pub(super) fn lost_of(db: &Connection, stream: StreamId) -> Result<Option<u64>, JournalError> {
    let mut query = db.prepare_cached("SELECT at FROM notes WHERE name = ?1")?;
    let lost = query.query_row([note_of(stream)], |row| row.get(0));
    Ok(lost.optional()?.map(from_sql))
}

/// The log says so.
pub(super) fn said(db: &Connection, stream: StreamId) -> Result<(), JournalError> {
    db.prepare_cached("DELETE FROM notes WHERE name = ?1")?
        .execute([note_of(stream)])?;
    Ok(())
}

/// The file, as it is kept up.
#[derive(Debug)]
pub(super) struct Ends {
    /// Nothing when it could not be made: then what is lost goes unnoticed, and nothing else.
    file: Option<File>,
    /// Where the record of each log is.
    places: BTreeMap<StreamId, u64>,
    commits: u64,
}

impl Ends {
    /// Begins with what the journal has.
    pub(super) fn begin(
        journal: &Path,
        db: &Connection,
        tallies: &Tallies,
    ) -> Result<Self, JournalError> {
        let kept = kept(db, tallies)?;
        let records = kept
            .iter()
            .flat_map(|(stream, end)| record_of(*stream, *end));
        let records: Vec<u8> = records.collect();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path_of(journal));
        let file = file.and_then(|file| {
            file.write_all_at(&records, 0)?;
            file.set_len(records.len() as u64)?;
            Ok(file)
        });
        if let Err(error) = &file {
            tracing::warn!(%error, "where the logs end cannot be kept beside the journal");
        }
        Ok(Self {
            file: file.ok(),
            places: kept.into_keys().zip((0..).step_by(RECORD)).collect(),
            commits: tallies.commits(),
        })
    }

    /// These are on the disk.
    pub(super) fn committed<'a>(&mut self, ops: impl Iterator<Item = &'a Op>, tallies: &Tallies) {
        let mut ends = Known::new();
        for op in ops {
            if let Op::Envelope(envelope) = op {
                ends.insert(envelope.stream, envelope.last);
            }
        }
        if tallies.commits() != self.commits {
            self.commits = tallies.commits();
            ends.insert(COMMITS, self.commits);
        }
        for (stream, end) in ends {
            self.write(stream, end);
        }
    }

    fn write(&mut self, stream: StreamId, end: u64) {
        let next = (self.places.len() * RECORD) as u64;
        let place = *self.places.entry(stream).or_insert(next);
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(&record_of(stream, end), place) {
            tracing::debug!(%error, "where a log ends could not be noted");
        }
    }
}
