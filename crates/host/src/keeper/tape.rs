//! What an agent has said and nobody has acknowledged: bytes by their place from the beginning, in
//! memory up to a bound, then in files of their own.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes kept in memory before they go into a file.
const MEMORY: usize = 512 << 10;
/// Bytes of one file, about; a file is removed when all of it is acknowledged.
const FILE: u64 = 8 << 20;

/// The bytes between what is acknowledged and what was said last.
#[derive(Debug)]
pub(super) struct Tape {
    folder: PathBuf,
    /// All before it is forgotten.
    begin: u64,
    files: VecDeque<Part>,
    /// The place of the first byte in memory.
    memory_at: u64,
    memory: Vec<u8>,
}

/// A file with a part of the bytes.
#[derive(Debug)]
struct Part {
    at: u64,
    len: u64,
    file: File,
    path: PathBuf,
}

impl Tape {
    /// An empty one that puts its files into `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            begin: 0,
            files: VecDeque::new(),
            memory_at: 0,
            memory: Vec::new(),
        }
    }

    /// All before this place is forgotten.
    pub(super) const fn begin(&self) -> u64 {
        self.begin
    }

    /// The place after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.memory_at + self.memory.len() as u64
    }

    /// Whether more must wait until a file can take what is in memory.
    pub(super) fn is_full(&self) -> bool {
        self.memory.len() >= 2 * MEMORY
    }

    /// Takes the next bytes. An error says that they are in memory only, which is full soon.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.memory.extend_from_slice(bytes);
        if self.memory.len() > MEMORY {
            self.spill()
        } else {
            Ok(())
        }
    }

    /// Forgets what comes before `place`.
    pub(super) fn forget(&mut self, place: u64) {
        let place = place.clamp(self.begin, self.end());
        self.begin = place;
        while self
            .files
            .front()
            .is_some_and(|part| part.at + part.len <= place)
        {
            if let Some(part) = self.files.pop_front() {
                drop(std::fs::remove_file(part.path));
            }
        }
        if place > self.memory_at {
            let gone = usize::try_from(place - self.memory_at).unwrap_or(self.memory.len());
            drop(self.memory.drain(..gone));
            self.memory_at = place;
            if self.memory.is_empty() {
                // What a flood needed is given back.
                self.memory = Vec::new();
            }
        }
    }

    /// Up to `most` bytes from `place` on; fewer where a file ends.
    pub(super) fn read(&self, place: u64, most: usize) -> io::Result<Vec<u8>> {
        if place >= self.memory_at {
            let from = usize::try_from(place - self.memory_at).unwrap_or(usize::MAX);
            let rest = self.memory.get(from..).unwrap_or_default();
            return Ok(rest[..rest.len().min(most)].to_vec());
        }
        let Some(part) = self
            .files
            .iter()
            .find(|part| place >= part.at && place < part.at + part.len)
        else {
            return Err(io::Error::other("a part of what was said is not there"));
        };
        let left = usize::try_from(part.at + part.len - place).unwrap_or(most);
        let mut bytes = vec![0; left.min(most)];
        part.file.read_exact_at(&mut bytes, place - part.at)?;
        Ok(bytes)
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.files.back().is_none_or(|part| part.len >= FILE) {
            let part = Part::new(&self.folder, self.memory_at)?;
            self.files.push_back(part);
        }
        let Some(part) = self.files.back_mut() else {
            return Ok(());
        };
        part.file.write_all_at(&self.memory, part.len)?;
        part.len += self.memory.len() as u64;
        self.memory_at += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }
}

impl Part {
    fn new(folder: &Path, at: u64) -> io::Result<Self> {
        let path = folder.join(format!("said.{at}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            at,
            len: 0,
            file,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// Bytes that show their place.
    fn bytes(from: u64, count: usize) -> Vec<u8> {
        (from..).take(count).map(|at| (at % 251) as u8).collect()
    }

    fn whole(tape: &Tape, mut place: u64) -> Vec<u8> {
        let mut all = Vec::new();
        while place < tape.end() {
            let some = tape.read(place, 10_000).unwrap();
            place += some.len() as u64;
            all.extend(some);
        }
        all
    }

    #[test]
    fn what_is_beyond_the_memory_is_in_private_files_and_comes_back_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let mut tape = Tape::new(folder.path());
        let said = bytes(0, 20 << 20);
        for chunk in said.chunks(65_537) {
            tape.push(chunk).unwrap();
        }
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(names.len() >= 2, "{names:?}");
        for name in names {
            assert_eq!(name.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        }
        assert!(whole(&tape, 0) == said);
        assert!(whole(&tape, 12_345_678) == said[12_345_678..]);
    }

    #[test]
    fn what_is_acknowledged_is_forgotten_and_its_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut tape = Tape::new(folder.path());
        let said = bytes(0, 20 << 20);
        for chunk in said.chunks(65_536) {
            tape.push(chunk).unwrap();
        }
        tape.forget(10 << 20);
        assert!(whole(&tape, 10 << 20) == said[10 << 20..]);
        assert!(tape.read(0, 10).is_err());
        tape.forget(u64::MAX);
        assert_eq!((tape.begin(), tape.end()), (20 << 20, 20 << 20));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        tape.push(b"more").unwrap();
        assert_eq!(tape.read(20 << 20, 10).unwrap(), b"more");
    }

    #[test]
    fn f15_without_room_for_a_file_what_is_in_memory_stays_and_goes_out_later() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let mut tape = Tape::new(&gone);
        let said = bytes(0, 3 * MEMORY);
        let mut place = 0;
        while !tape.is_full() {
            let pushed = tape.push(&said[place..place + 1024]);
            place += 1024;
            assert_eq!(pushed.is_err(), place > MEMORY, "at {place}");
        }
        assert!(whole(&tape, 0) == said[..place]);
        std::fs::create_dir(&gone).unwrap();
        tape.push(&said[place..place + 1]).unwrap();
        assert!(!tape.is_full());
        assert!(whole(&tape, 0) == said[..=place]);
    }
}
