//! The host's durable copy of its logs: SQLite, one writer, group commit.
//!
//! Envelopes are kept as they are sealed, so that a relay that lost everything is given the very
//! same bytes again; the content keys are beside them. What is committed together ([`Journal::commit`])
//! is there together or not at all, and is on the disk (`synchronous=FULL`) when the call returns.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farhelm_core::keys::ContentKey;
use farhelm_proto::envelope::Hash;
use farhelm_proto::{Code, CommandId, PeerId, SessionId, StreamId};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot};

mod writer;

/// Why the journal could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk is full, broken or read-only.
    #[error("journal: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// A newer version of the program made it.
    #[error("journal has version {0}, which this program does not know; update farhelm")]
    Version(i64),
    /// What it holds is not what was written.
    #[error("journal holds something unreadable: {0}")]
    Corrupt(&'static str),
    /// The writer has stopped.
    #[error("journal is closed")]
    Closed,
}

impl JournalError {
    /// What people are told to do about it.
    #[must_use]
    pub fn code(&self) -> Code {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Self::Sqlite(error) => match error.sqlite_error_code() {
                Some(DatabaseCorrupt | NotADatabase) => Code::StateUnusable,
                Some(_) | None => Code::JournalFailed,
            },
            Self::Version(_) | Self::Corrupt(_) => Code::StateUnusable,
            Self::Closed => Code::JournalFailed,
        }
    }
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// Something to write.
#[derive(Debug)]
pub(crate) enum Op {
    /// The next envelope of a stream.
    Envelope(StoredEnvelope),
    /// A content key.
    Key {
        stream: StreamId,
        epoch: u32,
        key: Box<ContentKey>,
    },
    /// What became of a command.
    Command {
        id: CommandId,
        device: Option<PeerId>,
        outcome: String,
    },
    /// It came further.
    CommandMoved { id: CommandId, outcome: String },
    /// A letter on its way out.
    Letter {
        id: CommandId,
        to: PeerId,
        frame: Bytes,
    },
    /// The relay has that letter.
    LetterPosted { id: CommandId },
    /// Letters to a peer that is no member any more.
    LettersDropped { to: PeerId },
    /// How a session is started again.
    Session { session: SessionId, spec: String },
    /// A sealed blob.
    Blob { name: [u8; 32], bytes: Bytes },
}

/// An envelope with what its header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredEnvelope {
    pub(crate) stream: StreamId,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) base: u64,
    pub(crate) hash: Hash,
    /// The whole frame.
    pub(crate) frame: Bytes,
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamEnd {
    pub(crate) head: u64,
    pub(crate) hash: Hash,
    pub(crate) base: u64,
}

struct Job {
    ops: Vec<Op>,
    done: oneshot::Sender<Result<(), (JournalError, Option<Vec<Op>>)>>,
}

/// A handle to the journal.
#[derive(Clone)]
pub struct Journal {
    writer: Writer,
    reader: Arc<Mutex<Connection>>,
}

#[derive(Clone)]
enum Writer {
    /// A thread that owns a connection.
    Thread(mpsc::Sender<Job>),
    /// The readers' connection, in turns.
    Here(Arc<tokio::sync::Mutex<()>>),
}

/// Commits that may wait; each is one sender's, and senders wait for theirs.
const WAITING: usize = 1024;

impl Journal {
    /// Opens or makes the journal.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let connection = writer::open(path)?;
        let reader = Connection::open(path)?;
        reader.busy_timeout(std::time::Duration::from_secs(10))?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let run = move || writer::run(connection, receiver);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(run)
            .map_err(|_| JournalError::Closed)?;
        Ok(Self {
            writer: Writer::Thread(sender),
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    /// A journal that lasts as long as one of its clones, and takes as long as a disk does: for
    /// simulation.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when it cannot be made.
    pub fn in_memory() -> Result<Self, JournalError> {
        let connection = writer::set_up(Connection::open_in_memory()?)?;
        Ok(Self {
            writer: Writer::Here(Arc::default()),
            reader: Arc::new(Mutex::new(connection)),
        })
    }

    /// Writes all of `ops`, or nothing; returns when they are on the disk.
    pub(crate) async fn commit(&self, ops: Vec<Op>) -> Result<(), JournalError> {
        self.try_commit(ops).await.map_err(|(error, _)| error)
    }

    /// Writes all of `ops`, or nothing; gives them back when that failed, to be tried again.
    pub(crate) async fn try_commit(
        &self,
        ops: Vec<Op>,
    ) -> Result<(), (JournalError, Option<Vec<Op>>)> {
        let writer = match &self.writer {
            Writer::Thread(writer) => writer,
            Writer::Here(turn) => {
                let _turn = turn.lock().await;
                return self.commit_here(ops).await;
            }
        };
        let (done, result) = oneshot::channel();
        writer
            .send(Job { ops, done })
            .await
            .map_err(|_| (JournalError::Closed, None))?;
        result.await.map_err(|_| (JournalError::Closed, None))?
    }

    async fn commit_here(&self, ops: Vec<Op>) -> Result<(), (JournalError, Option<Vec<Op>>)> {
        if farhelm_world::disk().await.is_err() {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            let error = rusqlite::Error::SqliteFailure(full, None);
            return Err((error.into(), Some(ops)));
        }
        let mut db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer::write_all(&mut db, &ops);
        written.map_err(|error| (error, Some(ops)))
    }

    /// Envelopes after seq `after` in rising order, at least one if there is one, at most about
    /// `bytes`.
    pub(crate) async fn envelopes(
        &self,
        stream: StreamId,
        after: u64,
        bytes: usize,
    ) -> Result<Vec<StoredEnvelope>, JournalError> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT first, last, base, hash, frame FROM envelopes WHERE stream = ?1 AND last > ?2 ORDER BY last",
            )?;
            let mut rows = query.query(params![stream.as_bytes(), to_sql(after)])?;
            let mut found = Vec::new();
            let mut size = 0;
            while let Some(row) = rows.next()? {
                let frame: Vec<u8> = row.get(4)?;
                if !found.is_empty() && size + frame.len() > bytes {
                    break;
                }
                size += frame.len();
                found.push(StoredEnvelope {
                    stream,
                    first: from_sql(row.get(0)?),
                    last: from_sql(row.get(1)?),
                    base: from_sql(row.get(2)?),
                    hash: row.get(3)?,
                    frame: frame.into(),
                });
            }
            Ok(found)
        })
        .await
    }

    /// Where each stream ends.
    pub(crate) async fn streams(&self) -> Result<Vec<(StreamId, StreamEnd)>, JournalError> {
        self.read(|db| {
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
        })
        .await
    }

    /// Where a stream ends.
    pub(crate) async fn stream(&self, stream: StreamId) -> Result<Option<StreamEnd>, JournalError> {
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT head, hash, base FROM streams WHERE stream = ?1")?;
            let end = query.query_row([stream.as_bytes()], |row| {
                Ok(StreamEnd {
                    head: from_sql(row.get(0)?),
                    hash: row.get(1)?,
                    base: from_sql(row.get(2)?),
                })
            });
            Ok(end.optional()?)
        })
        .await
    }

    /// The hash of the envelope of a stream that ends at `last`.
    pub(crate) async fn hash_at(
        &self,
        stream: StreamId,
        last: u64,
    ) -> Result<Option<Hash>, JournalError> {
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT hash FROM envelopes WHERE stream = ?1 AND last = ?2")?;
            Ok(query
                .query_row(params![stream.as_bytes(), to_sql(last)], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// The content keys of a stream.
    pub(crate) async fn keys(
        &self,
        stream: StreamId,
    ) -> Result<Vec<(u32, ContentKey)>, JournalError> {
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT epoch, key FROM keys WHERE stream = ?1 ORDER BY epoch")?;
            let rows = query.query_map([stream.as_bytes()], |row| {
                Ok((row.get(0)?, ContentKey::from_bytes(row.get(1)?)))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// What became of a command, if it was ever decided, and which device sent it.
    pub(crate) async fn command(
        &self,
        id: CommandId,
    ) -> Result<Option<(Option<PeerId>, String)>, JournalError> {
        self.read(move |db| {
            let mut query =
                db.prepare_cached("SELECT device, outcome FROM commands WHERE id = ?1")?;
            let row = query.query_row([id.as_bytes()], |row| {
                let device: Option<[u8; 16]> = row.get(0)?;
                Ok((device.map(PeerId::from_bytes), row.get(1)?))
            });
            Ok(row.optional()?)
        })
        .await
    }

    /// What became of a command, if it was ever decided.
    pub(crate) async fn outcome(&self, id: CommandId) -> Result<Option<String>, JournalError> {
        self.read(move |db| {
            let mut query = db.prepare_cached("SELECT outcome FROM commands WHERE id = ?1")?;
            Ok(query
                .query_row([id.as_bytes()], |row| row.get(0))
                .optional()?)
        })
        .await
    }

    /// Letters that the relay has not confirmed, oldest first.
    pub(crate) async fn letters(&self) -> Result<Vec<(CommandId, Bytes)>, JournalError> {
        self.read(|db| {
            let mut query = db.prepare_cached("SELECT id, frame FROM letters ORDER BY number")?;
            let rows = query.query_map([], |row| {
                let frame: Vec<u8> = row.get(1)?;
                Ok((CommandId::from_bytes(row.get(0)?), frame.into()))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// How each session is started again.
    pub(crate) async fn sessions(&self) -> Result<Vec<(SessionId, String)>, JournalError> {
        self.read(|db| {
            let mut query =
                db.prepare_cached("SELECT session, spec FROM sessions ORDER BY session")?;
            let rows = query.query_map([], |row| {
                Ok((SessionId::from_bytes(row.get(0)?), row.get(1)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// A sealed blob.
    pub(crate) async fn blob(&self, name: [u8; 32]) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(move |db| {
            let mut query = db.prepare_cached("SELECT bytes FROM blobs WHERE name = ?1")?;
            Ok(query.query_row([name], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Moves everything into the one file, for whoever copies it. What is committed is safe without.
    pub(crate) async fn settle(&self) -> Result<(), JournalError> {
        self.read(|db| Ok(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?))
            .await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let reader = Arc::clone(&self.reader);
        let run = move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner));
        farhelm_world::blocking(run)
            .await
            .map_err(|_| JournalError::Closed)?
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Journal")
    }
}

/// SQLite's integers are signed; seqs stay far below the difference.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_committed_is_read_back_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let stream = StreamId::from_bytes([1; 16]);
        {
            let journal = Journal::open(&path).unwrap();
            let ops = vec![
                Op::Envelope(envelope(stream, 1, 2)),
                Op::Envelope(envelope(stream, 3, 3)),
            ];
            journal.commit(ops).await.unwrap();
        }
        let journal = Journal::open(&path).unwrap();
        let found = journal.envelopes(stream, 2, 1_000_000).await.unwrap();
        assert_eq!(found, vec![envelope(stream, 3, 3)]);
        assert_eq!(journal.stream(stream).await.unwrap().unwrap().head, 3);
    }

    #[tokio::test]
    async fn an_envelope_that_does_not_continue_the_stream_is_refused_whole() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
        let stream = StreamId::from_bytes([1; 16]);
        let ops = vec![
            Op::Blob {
                name: [1; 32],
                bytes: Bytes::from_static(b"x"),
            },
            Op::Envelope(envelope(stream, 2, 2)),
        ];
        assert!(journal.commit(ops).await.is_err());
        assert_eq!(journal.blob([1; 32]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_command_has_one_outcome_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
        let id = CommandId::from_bytes([3; 16]);
        let op = |outcome: &str| Op::Command {
            id,
            device: None,
            outcome: outcome.to_owned(),
        };
        journal.commit(vec![op("first")]).await.unwrap();
        assert!(journal.commit(vec![op("second")]).await.is_err());
        assert_eq!(journal.outcome(id).await.unwrap().as_deref(), Some("first"));
    }

    fn envelope(stream: StreamId, first: u64, last: u64) -> StoredEnvelope {
        StoredEnvelope {
            stream,
            first,
            last,
            base: 0,
            hash: [7; 32],
            frame: Bytes::from_static(b"frame"),
        }
    }
}
