//! What an agent writes to its standard error: the end of it in memory, more of it in a file,
//! both bounded.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How much of the end is at hand.
const TAIL: usize = 4 << 10;
/// How large a file may grow; with the one before it, twice as much is kept.
const FILE: u64 = 128 << 10;

/// The end of an agent's standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let excess = self.0.len().saturating_sub(TAIL);
        drop(self.0.drain(..excess));
    }

    /// The end, from the first whole line if it was cut.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let cut = bytes.len() == TAIL;
        let text = String::from_utf8_lossy(&bytes);
        match text.split_once('\n') {
            Some((_, rest)) if cut && !rest.is_empty() => rest.to_owned(),
            Some(_) | None => text.into_owned(),
        }
    }
}

/// A file that is set aside when it is full, in the place of the one set aside before.
#[derive(Debug)]
pub(super) struct Keep {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Keep {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
        })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.len + bytes.len() as u64 > FILE {
            fs::rename(&self.path, self.path.with_extension("1"))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_begins_with_a_whole_line() {
        let mut tail = Tail::default();
        for number in 0..10_000 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        let text = tail.text();
        assert!(
            text.len() <= TAIL && text.starts_with("line ") && text.ends_with("line 9999\n"),
            "{text}"
        );
    }
}
