//! What the relay keeps: sealed envelopes, letters that wait, blobs, and who may read whom.
//!
//! [`Tables`] is what a backend can do, blocking and single-threaded, and what the conformance
//! suite checks. [`Store`] is how the rest of the relay uses one: writes queue up for one writer
//! that commits them in groups, reads run on a few threads of their own. A backend in memory
//! runs where it is called.
//!
//! It does not know who is connected or who may do what.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use farhelm_proto::{CommandId, PeerId, StreamId, Timestamp};
use tokio::sync::oneshot;

use crate::lock::Lock as _;
use crate::store::memory::Memory;
use crate::store::threads::{Job, Threads};

mod chunk;
pub(crate) mod memory;
pub(crate) mod sqlite;
mod threads;

#[cfg(test)]
mod conformance;

/// One stored frame: an envelope with the seqs of its events, verbatim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The whole frame as it came.
    pub(crate) bytes: Bytes,
}

/// A letter that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Rises with each letter of the store.
    pub(crate) key: i64,
    /// After this it is not delivered; zero means never.
    pub(crate) not_after: Timestamp,
    /// The whole frame as it came.
    pub(crate) bytes: Bytes,
}

/// A change to the store.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Continues a stream.
    Append {
        host: PeerId,
        stream: StreamId,
        frames: Vec<Sealed>,
    },
    /// Drops the beginning of a stream: envelopes that end before the event `below`.
    Trim {
        host: PeerId,
        stream: StreamId,
        below: u64,
    },
    /// Replaces who may read a host; letters between it and those in `removed` are dropped.
    Members {
        host: PeerId,
        version: u64,
        devices: Vec<PeerId>,
        removed: Vec<PeerId>,
    },
    /// Puts a letter into a mailbox.
    Post {
        to: PeerId,
        from: PeerId,
        id: CommandId,
        not_after: Timestamp,
        now: Timestamp,
        bytes: Bytes,
    },
    /// Empties a letter and remembers until `until` that it was taken.
    Take {
        to: PeerId,
        from: PeerId,
        id: CommandId,
        until: Timestamp,
    },
    /// Keeps a blob; drops the oldest of this host while there are more than `quota` bytes.
    Blob {
        host: PeerId,
        name: [u8; 32],
        bytes: Bytes,
        quota: u64,
    },
    /// Forgets letters and marks whose time is over.
    Prune { now: Timestamp },
}

/// What a change amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is stored.
    Done,
    /// It was stored before, or was taken already.
    Again,
    /// The mailbox has no room.
    Full,
}

/// Why a store could not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// An append does not continue what is stored.
    #[error("the sequence does not continue what is stored")]
    Gap,
    /// A host has as much as it may have.
    #[error("the host has no room left at this relay")]
    Quota,
    /// The backend failed.
    #[error("the store failed: {0}")]
    Backend(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Backend(error.to_string())
    }
}

/// What a backend can do.
pub(crate) trait Tables: Send {
    /// Names this store's life; another one after its data was lost.
    fn id(&self) -> [u8; 16];

    /// Makes all `writes` durable together, in order. A write that is refused leaves no trace,
    /// and the others stand.
    ///
    /// # Errors
    ///
    /// When nothing of the group was stored.
    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Result<Outcome, StoreError>>, StoreError>;

    /// The last envelope of a stream.
    fn last(&mut self, host: PeerId, stream: StreamId) -> Result<Option<Sealed>, StoreError>;

    /// The envelope that holds the event `seq`.
    fn holding(
        &mut self,
        host: PeerId,
        stream: StreamId,
        seq: u64,
    ) -> Result<Option<Sealed>, StoreError>;

    /// Envelopes that begin after the event `after`, rising, until `max_bytes` are reached; at
    /// least one when there is one.
    fn after(
        &mut self,
        host: PeerId,
        stream: StreamId,
        after: u64,
        max_bytes: usize,
    ) -> Result<Vec<Sealed>, StoreError>;

    /// Envelopes that end before the event `before`, rising, the newest that fit `max_bytes`; at
    /// least one when there is one. And whether there are older ones.
    fn before(
        &mut self,
        host: PeerId,
        stream: StreamId,
        before: u64,
        max_bytes: usize,
    ) -> Result<(Vec<Sealed>, bool), StoreError>;

    /// Who may read a host, and the version of that list.
    fn members(&mut self, host: PeerId) -> Result<Option<(u64, Vec<PeerId>)>, StoreError>;

    /// Letters for a peer that came after the one with `key`, in order, until `max_bytes` are
    /// reached; at least one when there is one.
    fn letters(
        &mut self,
        to: PeerId,
        key: i64,
        max_bytes: usize,
    ) -> Result<Vec<Waiting>, StoreError>;

    /// A blob of a host.
    fn blob(&mut self, host: PeerId, name: [u8; 32]) -> Result<Option<Bytes>, StoreError>;
}

/// Called once a write is durable, or is not; short, and it never blocks.
pub(crate) type Done = Box<dyn FnOnce(Result<Outcome, StoreError>) + Send>;

/// A store in memory that outlives the relay that uses it, and takes as long as a disk does: for
/// simulation.
#[derive(Clone)]
pub struct Kept {
    memory: Arc<Mutex<Memory>>,
    /// Writes take turns in the order in which they came.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Kept {
    /// An empty store.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            memory: Arc::new(Memory::new(crate::fresh()?).into()),
            turn: Arc::default(),
        })
    }

    /// Another store with the same in it.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            memory: Arc::new(self.memory.hold().clone().into()),
            turn: Arc::default(),
        }
    }

    /// Everything that is kept, one thing after the other.
    pub fn visit(&self, visit: &mut dyn FnMut(&[u8])) {
        self.memory.hold().visit(visit);
    }

    fn write(&self, jobs: Vec<(Write, Done)>) {
        let Self { memory, turn } = self.clone();
        let writing = async move {
            let _turn = turn.lock().await;
            let written = farhelm_world::disk().await;
            for (write, done) in jobs {
                done(match &written {
                    Ok(()) => threads::single(memory.hold().commit(std::slice::from_ref(&write))),
                    Err(error) => Err(StoreError::Backend(error.to_string())),
                });
            }
        };
        drop(farhelm_world::spawn(writing));
    }
}

/// A backend in use.
pub(crate) struct Store {
    id: [u8; 16],
    backend: Backend,
}

enum Backend {
    Memory(Mutex<Memory>),
    Kept(Kept),
    Threads(Threads),
}

impl Store {
    /// A store that ends with the process.
    pub(crate) fn in_memory() -> anyhow::Result<Self> {
        let memory = Memory::new(crate::fresh()?);
        Ok(Self {
            id: memory.id(),
            backend: Backend::Memory(memory.into()),
        })
    }

    /// The store that `kept` holds.
    pub(crate) fn kept(kept: &Kept) -> Self {
        Self {
            id: kept.memory.hold().id(),
            backend: Backend::Kept(kept.clone()),
        }
    }

    /// The store in the folder `data`, which is made when it is missing. Each host may have `quota`
    /// bytes of envelopes, or as many as it likes when that is 0.
    pub(crate) fn in_folder(data: &std::path::Path, quota: u64) -> anyhow::Result<Self> {
        let file = sqlite::prepare(data)?;
        let mut writer = sqlite::Sqlite::open(&file, sqlite::Use::Writing)?;
        writer.limit(quota);
        let id = writer.id();
        let readers = (0..READERS)
            .map(|_| {
                Ok(Box::new(sqlite::Sqlite::open(&file, sqlite::Use::Reading)?) as Box<dyn Tables>)
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        Ok(Self {
            id,
            backend: Backend::Threads(Threads::start(Box::new(writer), readers)?),
        })
    }

    /// Names this store's life.
    pub(crate) const fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Queues writes, in order; waits only while the queue is full.
    pub(crate) async fn write(&self, jobs: Vec<(Write, Done)>) {
        match &self.backend {
            Backend::Memory(memory) => {
                for (write, done) in jobs {
                    let outcome = memory.hold().commit(std::slice::from_ref(&write));
                    done(threads::single(outcome));
                }
            }
            Backend::Kept(kept) => kept.write(jobs),
            Backend::Threads(threads) => threads.write(jobs).await,
        }
    }

    /// Queues one write and waits for its outcome.
    pub(crate) async fn write_one(&self, write: Write) -> Result<Outcome, StoreError> {
        let (send, receive) = oneshot::channel();
        let done: Done = Box::new(move |outcome| drop(send.send(outcome)));
        self.write(vec![(write, done)]).await;
        receive.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Runs `read` against the store.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Tables) -> Result<T, StoreError> + Send + 'static,
    {
        match &self.backend {
            Backend::Memory(memory) => read(&mut *memory.hold()),
            Backend::Kept(kept) => read(&mut *kept.memory.hold()),
            Backend::Threads(threads) => {
                let (send, receive) = oneshot::channel();
                let job: Job = Box::new(move |tables| drop(send.send(read(tables))));
                threads.read(job).await;
                receive.await.unwrap_or(Err(StoreError::Closed))
            }
        }
    }

    /// Runs something that takes long on a thread where it disturbs nobody.
    pub(crate) async fn aside<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.read(move |_| Ok(work())).await
    }

    /// Writes what is queued and ends the threads.
    pub(crate) async fn close(&self) {
        match &self.backend {
            Backend::Memory(_) | Backend::Kept(_) => {}
            Backend::Threads(threads) => threads.close().await,
        }
    }
}

/// Threads that read, each on a connection of its own.
const READERS: usize = 2;
