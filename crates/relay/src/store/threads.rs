//! The threads of a blocking backend: one that writes in groups, a few that read.
//!
//! Both queues are bounded; whoever fills them waits. A thread that panics closes its queue, so
//! that callers are told instead of waiting for ever.

use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::lock::Lock as _;
use crate::store::{Done, Outcome, StoreError, Tables, Write};

/// Something to do with a reader's connection.
pub(super) type Job = Box<dyn FnOnce(&mut dyn Tables) + Send>;

type Batch = Vec<(Write, Done)>;

/// The queues in front of the threads.
pub(super) struct Threads {
    writes: Mutex<Option<mpsc::Sender<Batch>>>,
    reads: Mutex<Option<mpsc::Sender<Job>>>,
    /// Each thread holds a sender; when all are gone, `recv` ends.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Threads {
    /// Starts one writer and as many readers as there are connections.
    pub(super) fn start(
        writer: Box<dyn Tables>,
        readers: Vec<Box<dyn Tables>>,
    ) -> std::io::Result<Self> {
        let (writes, batches) = mpsc::channel(WRITE_BATCHES);
        let (reads, jobs) = mpsc::channel(READ_JOBS);
        let (alive, ended) = mpsc::channel(1);
        let guard = alive.clone();
        thread("relay-writer", move || {
            write_loop(writer, batches);
            drop(guard);
        })?;
        let jobs = Arc::new(Mutex::new(jobs));
        for reader in readers {
            let (jobs, guard) = (Arc::clone(&jobs), alive.clone());
            thread("relay-reader", move || {
                read_loop(reader, &jobs);
                drop(guard);
            })?;
        }
        Ok(Self {
            writes: Some(writes).into(),
            reads: Some(reads).into(),
            ended: ended.into(),
        })
    }

    pub(super) async fn write(&self, batch: Batch) {
        let queue = self.writes.hold().clone();
        let refused = match queue {
            Some(queue) => queue.send(batch).await.err().map(|refused| refused.0),
            None => Some(batch),
        };
        for (_, done) in refused.into_iter().flatten() {
            done(Err(StoreError::Closed));
        }
    }

    pub(super) async fn read(&self, job: Job) {
        let queue = self.reads.hold().clone();
        if let Some(queue) = queue {
            // A job that nobody takes is dropped, and with it the sender its caller waits for.
            drop(queue.send(job).await);
        }
    }

    /// Lets the threads finish what is queued.
    pub(super) async fn close(&self) {
        drop(self.writes.hold().take());
        drop(self.reads.hold().take());
        self.ended.lock().await.recv().await;
    }
}

/// The only outcome of a commit of one write.
pub(super) fn single(
    outcome: Result<Vec<Result<Outcome, StoreError>>, StoreError>,
) -> Result<Outcome, StoreError> {
    outcome?.pop().unwrap_or(Err(StoreError::Closed))
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
}

/// Takes all that is waiting, commits it together, and only then tells.
fn write_loop(mut tables: Box<dyn Tables>, mut batches: mpsc::Receiver<Batch>) {
    while let Some(batch) = batches.blocking_recv() {
        let mut group = batch;
        while group.len() < GROUP_WRITES
            && let Ok(batch) = batches.try_recv()
        {
            group.extend(batch);
        }
        let (writes, dones): (Vec<Write>, Vec<Done>) = group.into_iter().unzip();
        match tables.commit(&writes) {
            Ok(outcomes) => dones.into_iter().zip(outcomes).for_each(|(done, outcome)| {
                fail::point("relay.store.before_told");
                done(outcome);
            }),
            // One write that cannot be stored must not fail the others of its group.
            Err(error) => {
                tracing::warn!(%error, writes = writes.len(), "a group of writes failed; trying one by one");
                for (done, write) in dones.into_iter().zip(&writes) {
                    done(single(tables.commit(std::slice::from_ref(write))));
                }
            }
        }
    }
}

fn read_loop(mut tables: Box<dyn Tables>, jobs: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let job = jobs.hold().blocking_recv();
        let Some(job) = job else { break };
        fail::point("relay.store.before_read");
        job(&mut *tables);
    }
}

/// Batches that wait for the writer; each connection also bounds what it has under way.
const WRITE_BATCHES: usize = 256;
/// Writes of one transaction.
const GROUP_WRITES: usize = 4096;
/// Reads that wait for a thread.
const READ_JOBS: usize = 256;
