//! Where the keepers of a state folder are found, and what they have running.
//!
//! `keepers/SESSION/` has the lock that a keeper holds as long as it lives, its note, and what its
//! agent said beyond the memory's bound. Its socket is `k/NAME`, since a socket's path is short.
//!
//! A keeper leads a process session of its own, so whatever its agent has started can be found by
//! the session's number, also when the keeper is dead. Numbers are used again: a process counts
//! only if it started after the keeper in the same boot, and the number's holder is no other.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farhelm_proto::SessionId;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// The keeper's folder of one session.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    home: PathBuf,
    path: PathBuf,
}

/// Held by a keeper as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(
    #[expect(dead_code, reason = "the lock lasts as long as the file is open")] File,
);

/// What a keeper writes down before it starts anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Names the time since the machine started.
    pub(super) boot: Option<String>,
    /// The keeper's process, which leads a session.
    pub(super) pid: u32,
    /// When it started, in the kernel's ticks since the boot.
    pub(super) started: Option<u64>,
    /// The name of its socket.
    pub(super) socket: String,
}

impl Folder {
    pub(super) fn of(home: &Path, session: SessionId) -> Self {
        Self {
            home: home.to_owned(),
            path: home.join("keepers").join(session.to_string()),
        }
    }

    /// The sessions that have one.
    pub(super) fn list(home: &Path) -> Vec<SessionId> {
        let Ok(entries) = fs::read_dir(home.join("keepers")) else {
            return Vec::new();
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn socket(&self, note: &Note) -> PathBuf {
        self.home.join("k").join(&note.socket)
    }

    pub(super) fn make(&self) -> io::Result<()> {
        let mut private = DirBuilder::new();
        private.mode(0o700).recursive(true);
        private.create(&self.path)?;
        private.create(self.home.join("k"))
    }

    /// Takes the lock; nothing when a living keeper has it.
    pub(super) fn lock(&self) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join("lock"))?;
        Ok(flock(&file, FlockOperation::NonBlockingLockExclusive)
            .is_ok()
            .then_some(Lock(file)))
    }

    /// Writes the note; it is there whole or not at all.
    pub(super) fn write(&self, note: &Note) -> io::Result<()> {
        let beside = self.path.join("note.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&serde_json::to_vec(note).unwrap_or_default())?;
        fs::rename(beside, self.path.join("note"))
    }

    pub(super) fn note(&self) -> Option<Note> {
        serde_json::from_slice(&fs::read(self.path.join("note")).ok()?).ok()
    }

    /// Kills a living keeper and all that its agent has started, and clears its folder away; whether
    /// it is gone. Nobody is killed whom the note does not name beyond doubt.
    pub(super) fn end_by_force(&self) -> bool {
        let Some(note) = self.note() else {
            return false;
        };
        note.end_keeper();
        let deadline = Instant::now() + GONE_WITHIN;
        // The kernel gives the lock back when the keeper is gone.
        while Instant::now() < deadline {
            if let Ok(Some(_lock)) = self.lock() {
                note.end_all();
                self.clear();
                return true;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        false
    }

    /// Removes everything of a keeper that is going, or dead; only for the holder of the lock.
    pub(super) fn clear(&self) {
        if let Some(note) = self.note() {
            drop(fs::remove_file(self.socket(&note)));
        }
        drop(fs::remove_dir_all(&self.path));
    }
}

/// The sessions of a state folder whose keepers live.
#[must_use]
pub fn living(home: &Path) -> Vec<SessionId> {
    let mut sessions = Folder::list(home);
    sessions.retain(|session| matches!(Folder::of(home, *session).lock(), Ok(None)));
    sessions
}

/// Ends by force the keepers that still live, with everything that their agents started. For the
/// holder of the state folder's lock, when a daemon could not end them: nobody is asked, and what
/// an agent said last stays for the next daemon only as far as a session's log has it.
///
/// Says for how many sessions that was done.
pub fn end_by_force(home: &Path) -> usize {
    // One whose end was taken is on its way out.
    let deadline = Instant::now() + LEAVES_WITHIN;
    while !living(home).is_empty() && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
    let folders = living(home).into_iter().map(|id| Folder::of(home, id));
    folders.filter(Folder::end_by_force).count()
}

impl Note {
    /// The note of this process, which leads a session.
    pub(super) fn of_this_process(socket: String) -> Self {
        let pid = std::process::id();
        Self {
            boot: boot(),
            pid,
            started: Process::read(pid).map(|process| process.started),
            socket,
        }
    }

    /// Ends the keeper itself, if its number is still its own.
    fn end_keeper(&self) {
        let is_it = self.boot.is_some()
            && self.boot == boot()
            && self.started.is_some()
            && Process::read(self.pid).map(|process| process.started) == self.started;
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (is_it, pid) {
            rustix::process::kill_process(pid, Signal::KILL).unwrap_or_default();
        }
    }

    /// Ends whatever a dead keeper has left running; says how many processes that were.
    pub(super) fn end_all(&self) -> usize {
        let mut ended = 0;
        // Who is being ended may start another in that moment.
        for _ in 0..ROUNDS {
            let left = self.left();
            if left.is_empty() {
                break;
            }
            ended += left.len();
            for pid in left {
                rustix::process::kill_process(pid, Signal::KILL).unwrap_or_default();
            }
        }
        ended
    }

    /// The processes in the keeper's session, but for itself.
    fn left(&self) -> Vec<Pid> {
        let (Some(started), true) = (self.started, self.boot.is_some() && self.boot == boot())
        else {
            return Vec::new();
        };
        // Whoever has the keeper's number and started later has its session's number, too.
        if Process::read(self.pid).is_some_and(|holder| holder.started != started) {
            return Vec::new();
        }
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let numbers = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers
            .filter(|pid| *pid != self.pid)
            .filter(|pid| {
                Process::read(*pid).is_some_and(|process| {
                    process.session == self.pid && process.started >= started && !process.is_dead
                })
            })
            .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .collect()
    }
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    is_dead: bool,
    session: u32,
    started: u64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// A line of `/proc/PID/stat`: the name, which may hold anything, ends with the last bracket;
    /// then state, parent, group, session, and as the twentieth the time of the start.
    fn parse(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            is_dead: matches!(*words.first()?, "Z" | "X"),
            session: words.get(3)?.parse().ok()?,
            started: words.get(19)?.parse().ok()?,
        })
    }
}

/// Names the time since the machine started.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// How long a keeper that was let go may take to be gone.
const LEAVES_WITHIN: Duration = Duration::from_secs(3);
/// How long one that is killed may take.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How long it is waited before the next look.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How often it is looked for processes that are left.
const ROUNDS: usize = 64;

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn what_a_dead_keeper_left_is_ended_and_a_number_that_was_used_again_is_left_alone() {
        let (mut child, leader) = session();
        let started = Process::read(leader).unwrap().started;
        let note = |started, boot: Option<String>| Note {
            boot,
            pid: leader,
            started,
            socket: String::new(),
        };
        let inner = inner_of(leader);
        assert_eq!(
            note(Some(started + 1), boot()).end_all(),
            0,
            "another start"
        );
        assert_eq!(note(Some(started), Some("another".into())).end_all(), 0);
        assert_eq!(note(None, boot()).end_all(), 0);
        assert!(note(Some(started), boot()).end_all() >= 1);
        let gone = || Process::read(inner).is_none_or(|process| process.is_dead);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !gone() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert!(gone());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_confuse() {
        let stat = "12 (a) b (c) S 1 12 77 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let process = Process::parse(stat).unwrap();
        assert_eq!(
            process,
            Process {
                is_dead: false,
                session: 77,
                started: 4242
            }
        );
        assert_eq!(Process::parse("nonsense"), None);
    }

    /// A process that leads a session, with another in it.
    fn session() -> (Child, u32) {
        let child = Command::new("setsid")
            .args(["sh", "-c", "sleep 600 & exec sleep 600"])
            .spawn()
            .unwrap();
        let leader = child.id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while Process::read(leader).is_none_or(|process| process.session != leader)
            || find_inner(leader).is_none()
        {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        (child, leader)
    }

    fn find_inner(leader: u32) -> Option<u32> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let mut numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.find(|pid| {
            *pid != leader && Process::read(*pid).is_some_and(|process| process.session == leader)
        })
    }

    fn inner_of(leader: u32) -> u32 {
        find_inner(leader).unwrap()
    }
}
