//! Programs that outlived a daemon which was killed. Nobody answers for them any more, so the next
//! daemon on the same state folder ends them before it starts others.
//!
//! A program is noted with its process group, its session (the daemon leads one, which nobody
//! joins from outside) and the boot: numbers are used again, but not all of these together.
//! Where the system does not say which boot it is, nothing is noted and nothing is ended.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

/// Notes which programs run, in a folder of small files.
#[derive(Clone, Debug)]
pub(crate) struct Leftovers {
    folder: PathBuf,
}

impl Leftovers {
    pub(crate) fn new(folder: PathBuf) -> Self {
        drop(fs::create_dir_all(&folder));
        Self { folder }
    }

    /// The leader of a process group runs; without this note it is only not ended after a crash.
    pub(crate) fn note(&self, name: &str, group: u32) {
        let (Some(boot), Some(session)) = (boot(), own_session()) else {
            return;
        };
        let text = format!("{boot} {session} {group}\n");
        if let Err(error) = fs::write(self.folder.join(name), text) {
            tracing::warn!(%error, "a running program could not be noted");
        }
    }

    /// It has ended.
    pub(crate) fn forget(&self, name: &str) {
        drop(fs::remove_file(self.folder.join(name)));
    }

    /// Ends what an earlier daemon left running. Only for the holder of the folder's lock.
    pub(crate) fn end_all(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let noted = read(&entry.path());
            if let Some((session, group)) = noted
                && has_member(session, group)
            {
                tracing::warn!(
                    group = group.as_raw_nonzero(),
                    "a program of an earlier daemon still ran; it is ended"
                );
                rustix::process::kill_process_group(group, Signal::KILL).unwrap_or_default();
            }
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Session and group of a note that was made since the machine started.
fn read(path: &Path) -> Option<(u32, Pid)> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let same_boot = words.next()? == boot()?;
    let session = words.next()?.parse().ok()?;
    let group = Pid::from_raw(words.next()?.parse().ok()?)?;
    same_boot.then_some((session, group))
}

/// Whether anybody is left in a group of that session; its leader may be gone.
fn has_member(session: u32, group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .any(|stat| membership(&stat) == Some((session, group)))
}

/// Session and group of a process, from its line in `/proc`: the name, which may hold anything,
/// ends with the last bracket; then state, parent, group, session. A session whose leader is
/// outside this container has the number 0, which `getsid` of the safe crates does not expect.
fn membership(stat: &str) -> Option<(u32, Pid)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split_whitespace().skip(2);
    let group = Pid::from_raw(words.next()?.parse().ok()?)?;
    let session = words.next()?.parse().ok()?;
    Some((session, group))
}

/// The session that this process belongs to.
fn own_session() -> Option<u32> {
    Some(membership(&fs::read_to_string("/proc/self/stat").ok()?)?.0)
}

/// Names the time since the machine started.
fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn f02_what_an_earlier_daemon_left_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut left = sleeper();
        Leftovers::new(folder.path().join("running")).note("ses_1", left.id());
        Leftovers::new(folder.path().join("running")).end_all();
        assert!(!left.wait().unwrap().success());
        assert_eq!(
            fs::read_dir(folder.path().join("running")).unwrap().count(),
            0
        );
    }

    #[test]
    fn a_program_with_the_same_number_in_another_session_or_boot_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let leftovers = Leftovers::new(folder.path().to_owned());
        let mut other = sleeper();
        let boot = boot().unwrap();
        let session = own_session().unwrap();
        let another = session + 1;
        fs::write(
            folder.path().join("a"),
            format!("{boot} {another} {}", other.id()),
        )
        .unwrap();
        fs::write(
            folder.path().join("b"),
            format!("another-boot {session} {}", other.id()),
        )
        .unwrap();
        fs::write(folder.path().join("c"), "nonsense").unwrap();
        leftovers.end_all();
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("600")
            .process_group(0)
            .spawn()
            .unwrap()
    }
}
