//! What the yardsticks share: a host's events go to whoever follows its stream, through one
//! bounded queue for each device. A full queue holds the host up; that is what bare servers do.
//!
//! A peer opens with [`Opening`]; the answer is the length of the log in events, eight bytes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::serve::file::{self, Entry, Log};

/// One device's queue.
pub(super) type Queue = mpsc::Sender<Bytes>;

/// A peer's first message: role (1, zero is a host), stream (8), cursor (8), big-endian.
pub(super) struct Opening {
    pub(super) host: bool,
    pub(super) stream: u64,
    pub(super) after: u64,
}

/// Who follows what.
pub(super) struct Fan {
    streams: Mutex<HashMap<u64, Stream>>,
    /// Where events pass through before they are delivered.
    log: Option<mpsc::Sender<Entry>>,
    path: Option<std::path::PathBuf>,
}

/// The devices of one stream and, with a log, where its events are in the file.
#[derive(Default)]
struct Stream {
    queues: Arc<Vec<Queue>>,
    places: Vec<(u64, u32)>,
}

impl Fan {
    /// Delivers at once.
    pub(super) fn direct() -> Self {
        Self {
            streams: Mutex::default(),
            log: None,
            path: None,
        }
    }

    /// Appends to a file in `data` and delivers then.
    pub(super) fn through_file(data: &Path, sync: file::Sync) -> anyhow::Result<Arc<Self>> {
        let path = data.join("events.log");
        let log = Log::create(&path, sync)?;
        let (send, entries) = mpsc::channel(WAITING);
        let fan = Arc::new(Self {
            streams: Mutex::default(),
            log: Some(send),
            path: Some(path),
        });
        let told = Arc::clone(&fan);
        std::thread::spawn(move || log.run(entries, &told));
        Ok(fan)
    }

    /// Takes an event from a host.
    pub(super) async fn publish(&self, stream: u64, event: Bytes) {
        if let Some(log) = &self.log {
            drop(log.send(Entry { stream, event }).await);
            return;
        }
        for queue in self.queues(stream).iter() {
            drop(queue.send(event.clone()).await);
        }
    }

    /// Notes where a stream's events were written, and says who gets them.
    pub(super) fn written(&self, stream: u64, places: &[(u64, u32)]) -> Arc<Vec<Queue>> {
        let mut streams = self.lock();
        let known = streams.entry(stream).or_default();
        known.places.extend_from_slice(places);
        Arc::clone(&known.queues)
    }

    /// Follows a stream: the queue of what comes, and the piece of the file that holds the rest.
    pub(super) fn follow(
        &self,
        opening: &Opening,
    ) -> (mpsc::Receiver<Bytes>, u64, Vec<(u64, u32)>) {
        let (send, receive) = mpsc::channel(QUEUE);
        let mut streams = self.lock();
        let stream = streams.entry(opening.stream).or_default();
        let mut queues: Vec<Queue> = stream
            .queues
            .iter()
            .filter(|queue| !queue.is_closed())
            .cloned()
            .collect();
        queues.push(send);
        stream.queues = Arc::new(queues);
        let after = usize::try_from(opening.after)
            .unwrap_or(usize::MAX)
            .min(stream.places.len());
        (
            receive,
            stream.places.len() as u64,
            stream.places[after..].to_vec(),
        )
    }

    /// Reads events back, in one go.
    pub(super) async fn read(&self, places: Vec<(u64, u32)>) -> anyhow::Result<Vec<Bytes>> {
        let Some(path) = self.path.clone().filter(|_| !places.is_empty()) else {
            return Ok(Vec::new());
        };
        tokio::task::spawn_blocking(move || file::read(&path, &places)).await?
    }

    fn queues(&self, stream: u64) -> Arc<Vec<Queue>> {
        self.lock()
            .get(&stream)
            .map(|stream| Arc::clone(&stream.queues))
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opening {
    /// Reads a first message.
    pub(super) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let [role, rest @ ..] = bytes else {
            anyhow::bail!("an empty first message")
        };
        let (stream, after) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| anyhow::anyhow!("a short first message"))?;
        Ok(Self {
            host: *role == 0,
            stream: u64::from_be_bytes(*stream),
            after: u64::from_be_bytes(after.try_into()?),
        })
    }
}

/// Events that wait for one device.
const QUEUE: usize = 1024;
/// Events that wait for the file.
const WAITING: usize = 4096;
/// Events that are handed to a socket together.
pub(super) const GATHER: usize = 256;
