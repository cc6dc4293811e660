//! One file that all events pass through: a thread takes what waits, appends it with one write,
//! syncs it when asked to, and delivers then.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::output;
use crate::serve::fan::Fan;

/// Whether events are on the disk before they are delivered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Never,
    Always,
}

/// An event on its way through the file.
pub(super) struct Entry {
    pub(super) stream: u64,
    pub(super) event: Bytes,
}

/// The writer.
pub(super) struct Log {
    file: File,
    length: u64,
    sync: Sync,
}

impl Log {
    pub(super) fn create(path: &Path, sync: Sync) -> anyhow::Result<Self> {
        Ok(Self {
            file: File::create(path).context("failed to make the log")?,
            length: 0,
            sync,
        })
    }

    /// Writes until nobody can send any more.
    pub(super) fn run(mut self, mut entries: mpsc::Receiver<Entry>, fan: &Fan) {
        let (mut group, mut buffer) = (Vec::new(), Vec::new());
        while entries.blocking_recv_many(&mut group, GROUP) > 0 {
            buffer.clear();
            group
                .iter()
                .for_each(|entry: &Entry| buffer.extend_from_slice(&entry.event));
            if let Err(error) = self.append(&buffer) {
                output::note(&format!("error: the log cannot be written: {error}"));
                return;
            }
            for run in group.chunk_by(|one, next| one.stream == next.stream) {
                self.deliver(run, fan);
            }
            group.clear();
        }
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        match self.sync {
            Sync::Never => Ok(()),
            Sync::Always => self.file.sync_data(),
        }
    }

    fn deliver(&mut self, run: &[Entry], fan: &Fan) {
        let Some(stream) = run.first().map(|entry| entry.stream) else {
            return;
        };
        let mut places = Vec::with_capacity(run.len());
        for entry in run {
            places.push((
                self.length,
                u32::try_from(entry.event.len()).unwrap_or(u32::MAX),
            ));
            self.length += entry.event.len() as u64;
        }
        for queue in fan.written(stream, &places).iter() {
            for entry in run {
                drop(queue.blocking_send(entry.event.clone()));
            }
        }
    }
}

/// Reads the events at `places`, which rise, with one call for all that lie side by side.
pub(super) fn read(path: &Path, places: &[(u64, u32)]) -> anyhow::Result<Vec<Bytes>> {
    let file = File::open(path)?;
    let mut events = Vec::with_capacity(places.len());
    for run in places.chunk_by(|one, next| one.0 + u64::from(one.1) == next.0) {
        let Some(first) = run.first() else { continue };
        let mut bytes = vec![0; run.iter().map(|place| place.1 as usize).sum()];
        file.read_exact_at(&mut bytes, first.0)?;
        let mut bytes = Bytes::from(bytes);
        events.extend(run.iter().map(|place| bytes.split_to(place.1 as usize)));
    }
    Ok(events)
}

/// Events that are written together.
const GROUP: usize = 1024;
