//! The folder and file of a store, and whether they are ours alone.

use std::fs::{DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use farhelm_proto::Code;

use crate::device::DeviceError;

/// Makes folder and file when they are missing, and checks them.
pub(super) fn prepare(folder: &Path) -> Result<PathBuf, DeviceError> {
    let failed = |what: &Path, error: &std::io::Error| {
        unusable(format!("{} cannot be used: {error}", what.display()))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| failed(folder, &error))?;
    let about = std::fs::metadata(folder).map_err(|error| failed(folder, &error))?;
    check_owner(folder, about.uid())?;
    if about.mode() & 0o022 != 0 {
        return Err(unusable(format!(
            "others may write to {}; take that away with `chmod go-w` if you trust what is in it",
            folder.display()
        )));
    }
    let path = folder.join(NAME);
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
    {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(&path, &error)),
    }
    let about = std::fs::symlink_metadata(&path).map_err(|error| failed(&path, &error))?;
    if !about.is_file() {
        return Err(unusable(format!("{} is not a plain file", path.display())));
    }
    check_owner(&path, about.uid())?;
    if about.mode() & 0o077 != 0 {
        return Err(unusable(format!(
            "others may read the keys in {}; pair this device again in another folder, or run `chmod 600` on the file \
             if you are sure that nobody did",
            path.display()
        )));
    }
    Ok(path)
}

fn check_owner(path: &Path, owner: u32) -> Result<(), DeviceError> {
    if owner == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(unusable(format!(
            "{} belongs to another user",
            path.display()
        )))
    }
}

fn unusable(text: String) -> DeviceError {
    DeviceError::because(Code::StateUnusable, text)
}

const NAME: &str = "device.sqlite";
