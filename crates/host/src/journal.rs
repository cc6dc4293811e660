//! The host's durable copy of its logs: SQLite, one writer, group commit.
//!
//! Envelopes are kept as they are sealed, so that a relay that lost everything is given the very
//! same bytes again; the content keys are beside them. What is committed together ([`Journal::commit`])
//! is there together or not at all, and is on the disk (`synchronous=FULL`) when the call returns.
//!
//! Each record has a checksum. One that is not as it was written is never given to anybody: the
//! range is said to be lost, fetched from the relay where that still has it, and everything else
//! goes on.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farhelm_core::keys::ContentKey;
use farhelm_proto::envelope::Hash;
use farhelm_proto::{Code, CommandId, PeerId, SessionId, StreamId};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::damage::{Damage, Damages};
use self::health::Health;
pub(crate) use self::rotate::Dropped;
use self::sum::Tallies;
use self::writer::{Counts, Writer};

mod check;
pub(crate) mod damage;
mod ends;
pub(crate) mod health;
mod read;
mod rotate;
mod schema;
mod sum;
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
    /// Some events of a log are not as they were written, or not there.
    #[error("events {first} to {last} of a log are damaged in the journal")]
    Damaged {
        /// The log.
        stream: StreamId,
        /// Seq of the first event that is lost.
        first: u64,
        /// Seq of the last one.
        last: u64,
    },
    /// A file beside it cannot be used.
    #[error("journal: {0}")]
    Io(Arc<std::io::Error>),
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
            Self::Version(_) | Self::Corrupt(_) | Self::Damaged { .. } => Code::StateUnusable,
            Self::Closed | Self::Io(_) => Code::JournalFailed,
        }
    }

    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_of(&[rusqlite::ErrorCode::DiskFull])
    }

    /// Whether the system failed at writing.
    fn is_broken(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, OperationInterrupted, ReadOnly, SystemIoFailure};
        self.is_of(&[SystemIoFailure, ReadOnly, CannotOpen, OperationInterrupted])
    }

    /// Whether the same thing may be written later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.is_full() || self.is_broken()
    }

    fn is_of(&self, codes: &[rusqlite::ErrorCode]) -> bool {
        let Self::Sqlite(error) = self else {
            return false;
        };
        error
            .sqlite_error_code()
            .is_some_and(|code| codes.contains(&code))
    }

    const fn damage(&self) -> Option<Damage> {
        if let Self::Damaged {
            stream,
            first,
            last,
        } = *self
        {
            return Some(Damage {
                stream,
                first,
                last,
            });
        }
        None
    }
}

/// Whether the file is not what it should be.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase)
    )
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
    Blob {
        name: [u8; 32],
        stream: StreamId,
        bytes: Bytes,
    },
    /// A log says that so many bytes of its outputs were dropped.
    DroppedSaid { stream: StreamId, bytes: u64 },
    /// A log says that its end was lost.
    LostEndSaid { stream: StreamId },
    /// A blob to which nothing refers.
    BlobDropped { name: [u8; 32] },
    /// An envelope that was lost inside of its stream.
    Mend(StoredEnvelope),
    /// The run of a session's agent, as of the last line taken; without a state, that stays.
    Agent {
        session: SessionId,
        taken: u64,
        state: Option<String>,
    },
    /// A line for a session's agent.
    AgentLine {
        session: SessionId,
        number: u64,
        line: String,
    },
    /// The agent has been written all lines up to this one.
    AgentWritten { session: SessionId, through: u64 },
}

impl Op {
    /// About how many bytes it adds.
    const fn size(&self) -> u64 {
        if let Self::Envelope(StoredEnvelope { frame: bytes, .. }) | Self::Blob { bytes, .. } = self
        {
            return bytes.len() as u64;
        }
        256
    }
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

/// What was found to be lost when the journal was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Records of this table.
    Table(&'static str),
    /// The last events of a log.
    Events {
        stream: StreamId,
        first: u64,
        last: u64,
    },
    /// The last commits with something that is no event.
    Commits(u64),
}

struct Job {
    ops: Vec<Op>,
    done: oneshot::Sender<Result<(), (JournalError, Option<Vec<Op>>)>>,
}

impl Job {
    fn fail(self, error: JournalError) {
        drop(self.done.send(Err((error, Some(self.ops)))));
    }
}

/// A handle to the journal.
#[derive(Clone)]
pub struct Journal {
    way: Way,
    reader: Arc<Mutex<Connection>>,
    path: Arc<Path>,
    health: watch::Receiver<Health>,
    damages: Damages,
    lost: Arc<[Lost]>,
    dropped: watch::Receiver<Dropped>,
    counts: Arc<Counts>,
}

/// How commits get into the file.
#[derive(Clone)]
enum Way {
    /// Through a thread that owns a connection.
    Thread(mpsc::Sender<Job>, Arc<health::Gauge>),
    /// Over the readers' connection, in turns.
    Here(Arc<tokio::sync::Mutex<Tallies>>),
}

/// Commits that may wait; each is one sender's, and senders wait for theirs.
const WAITING: usize = 1024;
/// How long a disk that takes nothing is left alone before the next try.
const RETRY: Duration = Duration::from_secs(1);
/// How long a write may take until people are told that the disk does not answer.
const SLOW: Duration = Duration::from_secs(5);

/// Epochs that are left out after the end of the journal was lost: more than can have begun in it. Devices may
/// have their keys, and keep the first one of an epoch.
const EPOCHS_LOST: u32 = 1 << 16;

impl Journal {
    /// Opens or makes the journal.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        Self::open_within(path, u64::MAX)
    }

    /// Opens or makes the journal, and drops the oldest outputs while it holds more than `most` bytes.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when the file cannot be used.
    pub fn open_within(path: &Path, most: u64) -> Result<Self, JournalError> {
        let opened = writer::open(path)?;
        let reader = writer::connect(path)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let (health, health_seen) = health::Gauge::new(path);
        let counts = Arc::new(Counts::default());
        let (dropped, dropped_seen) = watch::channel(rotate::in_all(&opened.db)?);
        let writer = Writer {
            path: path.to_owned(),
            db: Some(opened.db),
            tallies: opened.tallies,
            ends: opened.ends,
            health: Arc::clone(&health),
            counts: Arc::clone(&counts),
            bound: rotate::Bound::new(most),
            dropped,
        };
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(|_| JournalError::Closed)?;
        Ok(Self {
            way: Way::Thread(sender, health),
            reader: Arc::new(Mutex::new(reader)),
            path: path.into(),
            health: health_seen,
            damages: Damages::default(),
            lost: opened.lost.into(),
            dropped: dropped_seen,
            counts,
        })
    }

    /// A journal that lasts as long as one of its clones, and takes as long as a disk does: for
    /// simulation. It begins with an [`Self::image`] of another.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when it cannot be made.
    pub fn in_memory(image: Option<&[u8]>) -> Result<Self, JournalError> {
        let mut db = Connection::open_in_memory()?;
        if let Some(image) = image {
            db.deserialize_read_exact("main", image, image.len(), false)?;
        }
        sum::teach(&db)?;
        schema::migrate(&mut db)?;
        let tallies = Tallies::load(&db)?;
        Ok(Self {
            way: Way::Here(Arc::new(tokio::sync::Mutex::new(tallies))),
            reader: Arc::new(Mutex::new(db)),
            path: Path::new("").into(),
            health: watch::channel(Health::Sound).1,
            damages: Damages::default(),
            lost: Arc::default(),
            dropped: watch::channel(Dropped::default()).1,
            counts: Arc::default(),
        })
    }

    /// All that it holds.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when it cannot be read.
    pub fn image(&self) -> Result<Vec<u8>, JournalError> {
        let mut db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(db.serialize("main")?.to_vec())
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
        let (writer, health) = match &self.way {
            Way::Thread(writer, health) => (writer, health),
            Way::Here(tallies) => {
                let mut tallies = tallies.lock().await;
                return self.commit_here(ops, &mut tallies).await;
            }
        };
        let written = async {
            let (done, result) = oneshot::channel();
            let job = Job { ops, done };
            let sent = writer.send(job).await;
            sent.map_err(|_| (JournalError::Closed, None))?;
            result.await.map_err(|_| (JournalError::Closed, None))?
        };
        let mut written = std::pin::pin!(written);
        if let Ok(written) = tokio::time::timeout(SLOW, &mut written).await {
            return written;
        }
        // The writer can say nothing while the system does not let it go on.
        let _slow = health.slow(SLOW);
        written.await
    }

    async fn commit_here(
        &self,
        ops: Vec<Op>,
        tallies: &mut Tallies,
    ) -> Result<(), (JournalError, Option<Vec<Op>>)> {
        if farhelm_world::disk().await.is_err() {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            let error = rusqlite::Error::SqliteFailure(full, None);
            return Err((error.into(), Some(ops)));
        }
        let mut db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer::write_all(&mut db, tallies, &ops);
        written.map_err(|error| (error, Some(ops)))
    }

    /// Writes all of `ops`; waits as long as the disk takes nothing, unless `stop` is pulled.
    pub(crate) async fn commit_in_time(
        &self,
        mut ops: Vec<Op>,
        stop: &CancellationToken,
    ) -> Result<(), JournalError> {
        loop {
            match self.try_commit(ops).await {
                Ok(()) => return Ok(()),
                Err((error, Some(again))) if error.may_pass() => {
                    ops = again;
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Err(error),
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Whether it can be written.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// What was found damaged.
    pub(crate) const fn damages(&self) -> &Damages {
        &self.damages
    }

    /// What was lost when it was opened, for whoever looks after the host.
    pub(crate) fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// How many transactions were written since it was opened; each waited for the disk once.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.counts.commits.load(Ordering::Relaxed)
    }

    /// Envelopes after seq `after` in rising order, at least one if there is one, at most about
    /// `bytes`. Nothing is left out: where some are damaged, the answer ends before them, or is
    /// [`JournalError::Damaged`].
    pub(crate) async fn envelopes(
        &self,
        stream: StreamId,
        after: u64,
        bytes: usize,
    ) -> Result<Vec<StoredEnvelope>, JournalError> {
        self.read(move |db| read::envelopes(db, stream, after, bytes))
            .await
    }

    /// Where each stream ends.
    pub(crate) async fn streams(&self) -> Result<Vec<(StreamId, StreamEnd)>, JournalError> {
        self.read(read::streams).await
    }

    /// Where a stream ends.
    pub(crate) async fn stream(&self, stream: StreamId) -> Result<Option<StreamEnd>, JournalError> {
        self.read(move |db| Ok(read::end_of(db, stream)?.map(|(end, _)| end)))
            .await
    }

    /// The hash of the envelope of a stream that ends at `last`.
    pub(crate) async fn hash_at(
        &self,
        stream: StreamId,
        last: u64,
    ) -> Result<Option<Hash>, JournalError> {
        self.read(move |db| read::hash_at(db, stream, last)).await
    }

    /// The content keys of a stream.
    pub(crate) async fn keys(
        &self,
        stream: StreamId,
    ) -> Result<Vec<(u32, ContentKey)>, JournalError> {
        self.read(move |db| read::keys(db, stream)).await
    }

    /// The last epoch of a stream that can have begun, also in what the journal has lost of its end.
    pub(crate) async fn last_epoch(&self, stream: StreamId) -> Result<u32, JournalError> {
        let last = self
            .keys(stream)
            .await?
            .last()
            .map_or(0, |(epoch, _)| *epoch);
        let is_cut = self.lost_end(stream).await?.is_some();
        Ok(if is_cut { last + EPOCHS_LOST } else { last })
    }

    /// How many events of a log are known to have been lost with the journal's end, until the log
    /// says so; where only something else was lost, none.
    pub(crate) async fn lost_end(&self, stream: StreamId) -> Result<Option<u64>, JournalError> {
        self.read(move |db| ends::lost_of(db, stream)).await
    }

    /// What became of a command, if it was ever decided, and which device sent it.
    pub(crate) async fn command(
        &self,
        id: CommandId,
    ) -> Result<Option<(Option<PeerId>, String)>, JournalError> {
        self.read(move |db| read::command(db, id)).await
    }

    /// What became of a command, if it was ever decided.
    pub(crate) async fn outcome(&self, id: CommandId) -> Result<Option<String>, JournalError> {
        Ok(self.command(id).await?.map(|(_, outcome)| outcome))
    }

    /// Letters that the relay has not confirmed, oldest first.
    pub(crate) async fn letters(&self) -> Result<Vec<(CommandId, Bytes)>, JournalError> {
        self.read(read::letters).await
    }

    /// How each session is started again.
    pub(crate) async fn sessions(&self) -> Result<Vec<(SessionId, String)>, JournalError> {
        self.read(read::sessions).await
    }

    /// The last line that was taken of a session's agent, and the state of its run.
    pub(crate) async fn agent(
        &self,
        session: SessionId,
    ) -> Result<Option<(u64, String)>, JournalError> {
        self.read(move |db| read::agent(db, session)).await
    }

    /// The lines that a session's agent may not have been written.
    pub(crate) async fn agent_lines(
        &self,
        session: SessionId,
    ) -> Result<Vec<(u64, String)>, JournalError> {
        self.read(move |db| read::agent_lines(db, session)).await
    }

    /// A sealed blob.
    pub(crate) async fn blob(&self, name: [u8; 32]) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(move |db| read::blob(db, name)).await
    }

    /// Wakes when outputs were dropped to keep the file within its size, and at first.
    pub(crate) fn dropping(&self) -> watch::Receiver<Dropped> {
        let mut dropped = self.dropped.clone();
        if dropped.has_changed().is_ok() {
            dropped.mark_changed();
        }
        dropped
    }

    /// What was dropped of a log to keep the file within its size.
    pub(crate) async fn dropped(&self, stream: StreamId) -> Result<Option<Dropped>, JournalError> {
        self.read(move |db| rotate::of(db, stream)).await
    }

    /// What was dropped of all logs together.
    pub(crate) fn dropped_in_all(&self) -> Dropped {
        *self.dropped.borrow()
    }

    /// By how many bytes it is larger than it may be though no output is left to drop.
    pub(crate) fn beyond(&self) -> u64 {
        self.counts.beyond.load(Ordering::Relaxed)
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
        let found = farhelm_world::blocking(run)
            .await
            .map_err(|_| JournalError::Closed)?;
        if let Err(error) = &found {
            self.note(error);
        }
        found
    }

    /// Remembers damage, and has the file checked whole at the next start.
    fn note(&self, error: &JournalError) {
        let broken = matches!(error, JournalError::Sqlite(error) if is_damage(error));
        if let Some(damage) = error.damage() {
            self.damages.note(damage);
        }
        if broken || error.damage().is_some() {
            drop(std::fs::File::create(check::mark(&self.path)));
        }
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
mod tests;
