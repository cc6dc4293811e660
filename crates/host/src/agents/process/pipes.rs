//! The tasks at an agent's pipes, and the one that touches files for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};
use tokio::process::{ChildStderr, ChildStdin};
use tokio::sync::mpsc;

use crate::agents::files::{self, FileError};
use crate::agents::stderr::{Keep, Tail};
use crate::agents::{FileWork, Ticket};

pub(super) async fn write_lines(
    stdin: ChildStdin,
    mut lines: mpsc::UnboundedReceiver<Box<RawValue>>,
    unwritten: Arc<AtomicUsize>,
) {
    let mut stdin = BufWriter::new(stdin);
    while let Some(line) = lines.recv().await {
        let wrote = async {
            stdin.write_all(line.get().as_bytes()).await?;
            stdin.write_all(b"\n").await?;
            if lines.is_empty() {
                stdin.flush().await
            } else {
                Ok(())
            }
        };
        if wrote.await.is_err() {
            return;
        }
        unwritten.fetch_sub(line.get().len(), Ordering::Relaxed);
    }
}

/// Does file work in the order in which it was asked for.
pub(super) async fn do_file_work(
    dir: PathBuf,
    mut work: mpsc::UnboundedReceiver<(Ticket, FileWork)>,
    filed: mpsc::UnboundedSender<(Ticket, Result<String, FileError>)>,
) {
    while let Some((ticket, work)) = work.recv().await {
        let dir = dir.clone();
        let outcome = tokio::task::spawn_blocking(move || files::perform(&dir, &work)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(FileError::Failed(error.to_string())));
        if filed.send((ticket, outcome)).is_err() {
            return;
        }
    }
}

pub(super) async fn read_stderr(mut stderr: ChildStderr, tail: Tail, path: Option<PathBuf>) {
    let mut keep = path.and_then(|path| {
        Keep::open(&path)
            .inspect_err(|error| tracing::warn!(%error, "an agent's standard error is not kept"))
            .ok()
    });
    let mut buffer = vec![0; 8 << 10];
    loop {
        let count = stderr.read(&mut buffer).await.unwrap_or(0);
        if count == 0 {
            return;
        }
        tail.push(&buffer[..count]);
        if keep
            .as_mut()
            .is_some_and(|keep| keep.push(&buffer[..count]).is_err())
        {
            keep = None;
        }
    }
}
