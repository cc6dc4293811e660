//! The state folder: `$FARHELM_HOME`, one per host or device on a machine.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use farhelm_core::keys::Identity;
use farhelm_proto::Code;
use rustix::fs::{FlockOperation, flock};

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct HomeError {
    /// What kind of failure.
    pub code: Code,
    /// Detail, and what to do.
    pub text: String,
}

/// What every system allows for the path of a unix socket.
const SOCKET_PATH: usize = 103;

impl HomeError {
    fn unusable(path: &Path, why: impl std::fmt::Display) -> Self {
        let text = format!(
            "state folder {}: {why}; set FARHELM_HOME to a folder of yours",
            path.display()
        );
        Self {
            code: Code::StateUnusable,
            text,
        }
    }
}

/// A state folder that belongs to this user alone.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// Held by the daemon that uses a state folder.
#[derive(Debug)]
pub struct HomeLock {
    file: File,
    path: PathBuf,
}

impl HomeLock {
    /// Whether the folder is no more, or another one has its place: then the next daemon there finds
    /// the lock free, and what this one writes is kept nowhere.
    #[must_use]
    pub fn is_void(&self) -> bool {
        let held = self.file.metadata();
        let there = std::fs::metadata(&self.path);
        match (held, there) {
            (Ok(held), Ok(there)) => (held.dev(), held.ino()) != (there.dev(), there.ino()),
            (_, Err(error)) => error.kind() == std::io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => false,
        }
    }
}

impl Home {
    /// Opens the folder, making it when it does not exist.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when it is not a folder that this user owns and can write to.
    pub fn open(path: PathBuf) -> Result<Self, HomeError> {
        let socket = crate::local::socket_of(&path);
        if socket.as_os_str().len() > SOCKET_PATH {
            let text = format!(
                "a socket's path may have {SOCKET_PATH} bytes, and {} is too long",
                socket.display()
            );
            return Err(HomeError::unusable(&path, text));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| HomeError::unusable(&path, error))?;
        let data = path
            .metadata()
            .map_err(|error| HomeError::unusable(&path, error))?;
        if data.uid() != rustix::process::geteuid().as_raw() {
            return Err(HomeError::unusable(&path, "it belongs to another user"));
        }
        if data.mode() & 0o077 != 0 {
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(&path, private)
                .map_err(|error| HomeError::unusable(&path, error))?;
        }
        let probe = path.join(".writable");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&probe);
        written.map_err(|error| HomeError::unusable(&path, error))?;
        drop(std::fs::remove_file(&probe));
        Ok(Self(path))
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        crate::local::socket_of(&self.0)
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.db")
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("farhelm.log")
    }

    /// The user's configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// Makes sure that no other daemon uses the folder.
    ///
    /// # Errors
    ///
    /// [`Code::AlreadyRunning`] when one does.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let path = self.0.join("farhelm.lock");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| HomeError::unusable(&path, error))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let text = format!(
                "another daemon uses {}; see `farhelm status`, or set FARHELM_HOME",
                self.0.display()
            );
            return Err(HomeError {
                code: Code::AlreadyRunning,
                text,
            });
        }
        let noted = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        noted.map_err(|error| HomeError::unusable(&path, error))?;
        Ok(HomeLock { file, path })
    }

    /// The number of this start of a daemon, higher than that of the last, also when the file with
    /// that was lost. Only for the holder of the lock.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when it cannot be written down.
    pub fn next_generation(&self) -> Result<u64, HomeError> {
        let path = self.0.join("generation");
        let last = std::fs::read_to_string(&path).ok();
        let last: u64 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let next = farhelm_link::clock::now().0.max(last + 1);
        let beside = self.0.join("generation.new");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| {
                writeln!(file, "{next}")?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&beside, &path));
        written.map_err(|error| HomeError::unusable(&path, error))?;
        Ok(next)
    }

    /// The process that locked the folder last.
    #[must_use]
    pub fn locked_by(&self) -> Option<u32> {
        std::fs::read_to_string(self.0.join("farhelm.lock"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// The host's keys, made on first use by the holder of the lock.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the file cannot be read or made, or others may read it.
    pub fn identity(&self) -> Result<Identity, HomeError> {
        let path = self.0.join("host.key");
        if !path.exists() {
            let seed: [u8; 64] = farhelm_link::rng::random();
            // There whole or not at all, whenever this process dies.
            let beside = self.0.join("host.key.new");
            let made = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside);
            fail::point("host.home.key_made");
            let written = made.and_then(|mut file| {
                file.write_all(&seed)?;
                file.sync_all()?;
                fail::point("host.home.key_written");
                std::fs::rename(&beside, &path)?;
                File::open(&self.0)?.sync_all()
            });
            written.map_err(|error| HomeError::unusable(&path, error))?;
        }
        let mut file = File::open(&path).map_err(|error| HomeError::unusable(&path, error))?;
        let data = file
            .metadata()
            .map_err(|error| HomeError::unusable(&path, error))?;
        if data.mode() & 0o077 != 0 || data.uid() != rustix::process::geteuid().as_raw() {
            let text = format!(
                "others may read the host's keys in {0}; if nobody has, make them yours alone: chmod 600 {0}",
                path.display()
            );
            return Err(HomeError {
                code: Code::StateUnusable,
                text,
            });
        }
        let mut seed = [0; 64];
        file.read_exact(&mut seed)
            .map_err(|error| HomeError::unusable(&path, error))?;
        Identity::from_seed(seed).map_err(|error| HomeError::unusable(&path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s30_the_folder_and_the_keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        let first = home.identity().unwrap().peer();
        assert_eq!(home.identity().unwrap().peer(), first);
        assert_eq!(home.path().metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            home.path().join("host.key").metadata().unwrap().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_second_daemon_on_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().to_owned()).unwrap();
        let _lock = home.lock().unwrap();
        assert_eq!(home.lock().unwrap_err().code, Code::AlreadyRunning);
    }

    #[test]
    fn a_lock_is_void_when_its_folder_is_gone_or_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let home = Home::open(path.clone()).unwrap();
        let lock = home.lock().unwrap();
        assert!(!lock.is_void());
        std::fs::remove_dir_all(&path).unwrap();
        assert!(lock.is_void());
        let next = Home::open(path).unwrap().lock().unwrap();
        assert!(lock.is_void());
        assert!(!next.is_void());
    }

    #[test]
    fn a_file_in_the_way_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::write(&path, "in the way").unwrap();
        let error = Home::open(path).unwrap_err();
        assert_eq!(error.code, Code::StateUnusable);
        assert!(error.text.contains("set FARHELM_HOME"), "{error}");
    }
}
