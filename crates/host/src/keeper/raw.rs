//! Every line that passed between an agent and its session, for people who look for a fault: in a
//! private file that is set aside when it is full. It is no part of the truth: when the disk does
//! not take it, it is not there.
//!
//! A line is the time in milliseconds, `<` for what the agent said or `>` for what it was told,
//! and the line as it was, cut where it is too long.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use farhelm_proto::SessionId;

/// How large a file may grow; with the one before it, twice as much is kept.
const FILE: u64 = 8 << 20;
/// What is kept of one line.
const LINE: usize = 256 << 10;

/// The file of one session, with the line that the agent is in the middle of.
#[derive(Debug)]
pub(super) struct Raw {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    line: Vec<u8>,
    cut: u64,
}

/// The files of a session, the older first.
#[must_use]
pub fn files_of(home: &Path, session: SessionId) -> [PathBuf; 2] {
    let path = home.join("raw").join(format!("{session}.log"));
    [path.with_extension("1"), path]
}

impl Raw {
    pub(super) fn open(home: &Path, session: SessionId) -> Self {
        let folder = home.join("raw");
        drop(
            fs::DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(&folder),
        );
        let [_, path] = files_of(home, session);
        let mut raw = Self {
            path,
            file: None,
            len: 0,
            line: Vec::new(),
            cut: 0,
        };
        raw.reopen();
        raw
    }

    /// The agent printed these bytes.
    pub(super) fn said(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (piece, false),
            };
            let room = LINE.saturating_sub(self.line.len()).min(text.len());
            self.line.extend_from_slice(&text[..room]);
            self.cut += (text.len() - room) as u64;
            if ends {
                let line = std::mem::take(&mut self.line);
                let cut = std::mem::take(&mut self.cut);
                self.write('<', &line, cut);
            }
        }
    }

    /// The agent was told this line.
    pub(super) fn told(&mut self, line: &[u8]) {
        let kept = line.len().min(LINE);
        self.write('>', &line[..kept], (line.len() - kept) as u64);
    }

    fn write(&mut self, direction: char, line: &[u8], cut: u64) {
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis());
        let mut entry = format!("{at} {direction} ").into_bytes();
        entry.extend_from_slice(line);
        if cut > 0 {
            entry.extend_from_slice(format!(" … and {cut} bytes more").as_bytes());
        }
        entry.push(b'\n');
        if self.len + entry.len() as u64 > FILE {
            drop(fs::rename(&self.path, self.path.with_extension("1")));
            self.reopen();
        }
        if let Some(file) = &mut self.file
            && file.write_all(&entry).is_ok()
        {
            self.len += entry.len() as u64;
        }
    }

    fn reopen(&mut self) {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path);
        self.len = 0;
        self.file = file.ok();
        if let Some(data) = self.file.as_ref().and_then(|file| file.metadata().ok()) {
            self.len = data.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn session() -> SessionId {
        SessionId::from_bytes([7; 16])
    }

    #[test]
    fn both_directions_are_kept_by_the_line_in_a_private_file() {
        let home = tempfile::tempdir().unwrap();
        let mut raw = Raw::open(home.path(), session());
        raw.said(b"{\"a\":");
        raw.told(b"{\"b\":2}");
        raw.said(b"1}\n{\"c\":3}\n");
        let [_, path] = files_of(home.path(), session());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(lines, ["> {\"b\":2}", "< {\"a\":1}", "< {\"c\":3}"]);
    }

    #[test]
    fn the_files_are_bounded_and_so_is_a_line() {
        let home = tempfile::tempdir().unwrap();
        let mut raw = Raw::open(home.path(), session());
        let long = [vec![b'x'; 3 * LINE], vec![b'\n']].concat();
        for _ in 0..100 {
            raw.said(&long);
        }
        let [older, newer] = files_of(home.path(), session());
        for path in [&older, &newer] {
            assert!(path.metadata().unwrap().len() <= FILE);
        }
        let text = fs::read_to_string(older).unwrap();
        assert!(
            text.lines()
                .all(|line| line.ends_with(&format!(" … and {} bytes more", 2 * LINE)))
        );
    }
}
