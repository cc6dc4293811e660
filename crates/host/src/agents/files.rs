//! Files beneath one folder, for agents that read and write through us.
//!
//! Nothing outside the folder is reached: not by `..`, not through a symbolic link, not through
//! `/proc`. Only regular files are touched, and a pipe or device is refused without waiting on it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::FileWork;

/// The longest text that is read or written.
pub const LONGEST_FILE: u64 = 8 << 20;

/// Why file work was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("no such file: {0}")]
    Missing(String),
    /// The path is not one that we touch.
    #[error("refused: {0}")]
    Refused(String),
    /// The system said no.
    #[error("{0}")]
    Failed(String),
}

/// Does `work` beneath `root`; the text that was read, or nothing.
///
/// # Errors
///
/// See [`FileError`].
pub fn perform(root: &Path, work: &FileWork) -> Result<String, FileError> {
    match work {
        FileWork::Read { path, line, limit } => {
            read(root, path).map(|text| excerpt(text, *line, *limit))
        }
        FileWork::Write { path, text } => write(root, path, text).map(|()| String::new()),
    }
}

fn read(root: &Path, path: &str) -> Result<String, FileError> {
    let within = within(root, path)?;
    let fail = |error: Errno| describe(path, error);
    let folder = open_root(root)?;
    let file = open_beneath(&folder, &within, OFlags::RDONLY | OFlags::NONBLOCK).map_err(fail)?;
    let file = regular(file, path)?;
    let mut bytes = Vec::new();
    file.take(LONGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(path, &error))?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(FileError::Refused(format!(
            "{path} is longer than {LONGEST_FILE} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|_| FileError::Refused(format!("{path} is not UTF-8 text")))
}

fn write(root: &Path, path: &str, text: &str) -> Result<(), FileError> {
    let within = within(root, path)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(FileError::Refused(format!(
            "{path} would be longer than {LONGEST_FILE} bytes"
        )));
    }
    let fail = |error: Errno| describe(path, error);
    let mut folder = open_root(root)?;
    let (parents, name) = match (within.parent(), within.file_name()) {
        (Some(parents), Some(name)) => (parents, Path::new(name)),
        (_, None) | (None, _) => {
            return Err(FileError::Refused(format!("{path} is the folder itself")));
        }
    };
    if !parents.as_os_str().is_empty() {
        make_folders(&folder, parents).map_err(fail)?;
        folder =
            open_beneath(&folder, parents, OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
    }
    let existing = match open_beneath(
        &open_root(root)?,
        &within,
        OFlags::WRONLY | OFlags::NONBLOCK,
    ) {
        Ok(file) => Some(regular(file, path)?),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(fail(error)),
    };
    // Work that is repeated after a crash must not touch what others may have looked at since.
    if existing.is_some() && read(root, path).is_ok_and(|held| held == text) {
        return Ok(());
    }
    match existing {
        Some(file) if links(&file).map_err(|error| failed(path, &error))? == 1 => {
            overwrite(file, text)
        }
        // Its other names may lie outside the folder: they keep what they had.
        Some(_) => replace(&folder, name, text),
        None => create(&folder, name, text),
    }
    .map_err(|error| failed(path, &error))
}

fn create(folder: &OwnedFd, name: &Path, text: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o666))?;
    File::from(file).write_all(text.as_bytes())
}

/// In place: what else looks at the file keeps looking at it, and its permissions stay.
fn overwrite(mut file: File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}

fn replace(folder: &OwnedFd, name: &Path, text: &str) -> io::Result<()> {
    let mode = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
    let beside = PathBuf::from(format!(
        ".{}.farhelm-{}",
        name.display(),
        std::process::id()
    ));
    create(folder, &beside, text)?;
    rustix::fs::chmodat(
        folder,
        &beside,
        Mode::from_raw_mode(mode & 0o7777),
        AtFlags::empty(),
    )?;
    Ok(rustix::fs::renameat(folder, &beside, folder, name)?)
}

fn links(file: &File) -> io::Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&file.metadata()?))
}

/// The path from `root`, if it is plainly one beneath it.
fn within(root: &Path, path: &str) -> Result<PathBuf, FileError> {
    if path.contains('\0') {
        return Err(FileError::Refused("a path with a NUL byte".to_owned()));
    }
    let path_given = Path::new(path);
    let relative = if path_given.is_absolute() {
        let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        path_given
            .strip_prefix(root)
            .or_else(|_| path_given.strip_prefix(&real))
            .map_err(|_| FileError::Refused(format!("{path} is outside the session's folder")))?
    } else {
        path_given
    };
    let plain = |part: &Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if relative.components().all(|part| plain(&part)) {
        Ok(relative
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect())
    } else {
        Err(FileError::Refused(format!(
            "{path} goes up and out of the session's folder"
        )))
    }
}

fn open_root(root: &Path) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty())
        .map_err(|error| FileError::Failed(format!("the session's folder: {error}")))
}

/// Opens what exists at `path` beneath `folder`. Links are followed as long as they stay beneath.
fn open_beneath(folder: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // A path that changes while it is resolved makes the kernel ask for another try.
        for _ in 0..16 {
            match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOSYS | Errno::PERM) => return open_step_by_step(folder, path, flags),
                outcome => return outcome,
            }
        }
        Err(Errno::AGAIN)
    }
    #[cfg(not(target_os = "linux"))]
    open_step_by_step(folder, path, flags)
}

/// For systems without `openat2`: one component at a time, and no link is followed at all.
fn open_step_by_step(folder: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let step = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(folder, ".", step, Mode::empty())?;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_some() {
            step
        } else {
            flags | OFlags::NOFOLLOW
        };
        at = rustix::fs::openat(&at, part.as_os_str(), flags, Mode::empty())?;
    }
    Ok(at)
}

fn make_folders(folder: &OwnedFd, parents: &Path) -> Result<(), Errno> {
    let mut made = PathBuf::new();
    for part in parents.components() {
        let parent = open_beneath(folder, &made, OFlags::RDONLY | OFlags::DIRECTORY)?;
        match rustix::fs::mkdirat(&parent, part.as_os_str(), Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => made.push(part),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn regular(file: OwnedFd, path: &str) -> Result<File, FileError> {
    let stat = rustix::fs::fstat(file.as_fd()).map_err(|error| describe(path, error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        FileType::Directory => Err(FileError::Refused(format!("{path} is a folder"))),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(FileError::Refused(format!("{path} is not a regular file"))),
    }
}

fn describe(path: &str, error: Errno) -> FileError {
    match error {
        Errno::NOENT => FileError::Missing(path.to_owned()),
        Errno::XDEV => FileError::Refused(format!("{path} leads out of the session's folder")),
        Errno::LOOP => FileError::Refused(format!(
            "{path} goes through a symbolic link that is not followed"
        )),
        // What a pipe without a reader and a socket answer.
        Errno::NXIO => FileError::Refused(format!("{path} is not a regular file")),
        Errno::ISDIR => FileError::Refused(format!("{path} is a folder")),
        error => FileError::Failed(format!("{path}: {error}")),
    }
}

fn failed(path: &str, error: &io::Error) -> FileError {
    FileError::Failed(format!("{path}: {error}"))
}

/// The lines asked for, with their line ends.
fn excerpt(text: String, line: Option<u32>, limit: Option<u32>) -> String {
    if line.is_none() && limit.is_none() {
        return text;
    }
    let first = line.unwrap_or(1).saturating_sub(1) as usize;
    let most = limit.map_or(usize::MAX, |limit| limit as usize);
    text.split_inclusive('\n').skip(first).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let text = || "a\nb\nc\nd".to_owned();
        assert_eq!(excerpt(text(), None, None), "a\nb\nc\nd");
        assert_eq!(excerpt(text(), Some(2), Some(2)), "b\nc\n");
        assert_eq!(excerpt(text(), Some(0), Some(1)), "a\n");
        assert_eq!(excerpt(text(), Some(4), None), "d");
        assert_eq!(excerpt(text(), Some(9), Some(1)), "");
        assert_eq!(excerpt(text(), None, Some(0)), "");
    }

    #[test]
    fn f01_a_write_that_is_repeated_touches_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let write = FileWork::Write {
            path: "file".to_owned(),
            text: "text".to_owned(),
        };
        perform(folder.path(), &write).unwrap();
        let path = folder.path().join("file");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        perform(folder.path(), &write).unwrap();
        assert_eq!(path.metadata().unwrap().modified().unwrap(), long_ago);
        std::fs::write(&path, "other").unwrap();
        perform(folder.path(), &write).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn s27_a_link_is_not_followed_where_the_system_cannot_confine_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
        let root = open_root(folder.path()).unwrap();
        assert!(open_step_by_step(&root, Path::new("in/file"), OFlags::RDONLY).is_ok());
        assert!(open_step_by_step(&root, Path::new("out/passwd"), OFlags::RDONLY).is_err());
        assert!(open_step_by_step(&root, Path::new("out"), OFlags::RDONLY).is_err());
    }
}
