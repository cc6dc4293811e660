//! This machine: the state folder with what must be private in it, and room on its disk.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use farhelm_proto::Code;

use super::{Report, Trouble};

/// Files that nobody else may read.
const PRIVATE: &[&str] = &[
    "host.key",
    "journal.db",
    "farhelm.sock",
    "farhelm.log",
    "device/device.sqlite",
];
/// With less room than this the journal is about to fail.
const ROOM_BYTES: u64 = 32 * 1024 * 1024;

/// Whether the state folder can be used, and room is left there.
pub(super) fn look(home: &Path, report: &mut Report) -> bool {
    let usable = report.look("state folder", folder(home));
    if usable {
        report.look("disk", room(home));
    } else {
        report.skip("disk", "the state folder cannot be used");
    }
    usable
}

fn folder(home: &Path) -> Result<String, Trouble> {
    let shown = home.display();
    let data = home.symlink_metadata().map_err(|error| {
        let cure = "start something with `farhelm up` or `farhelm join LINK`, or set FARHELM_HOME";
        Trouble::new(Code::StateUnusable, format!("{shown}: {error}"), cure)
    })?;
    let own = rustix::process::geteuid().as_raw();
    if data.uid() != own {
        let text = format!("{shown} belongs to another user");
        return Err(Trouble::new(
            Code::StateUnusable,
            text,
            "set FARHELM_HOME to a folder of yours",
        ));
    }
    is_private(home, &data, "700")?;
    for name in PRIVATE {
        let path = home.join(name);
        if let Ok(data) = path.symlink_metadata() {
            is_private(&path, &data, "600")?;
        }
    }
    let probe = rustix::fs::access(
        home,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    );
    probe.map_err(|error| {
        let text = format!("{shown} cannot be written to: {error}");
        Trouble::new(Code::StateUnusable, text, format!("chmod u+rwx {shown}"))
    })?;
    Ok(format!("{shown}, private"))
}

fn is_private(path: &Path, data: &Metadata, mode: &str) -> Result<(), Trouble> {
    if data.mode() & 0o077 == 0 {
        return Ok(());
    }
    let text = format!(
        "{} is open to others (mode {:o})",
        path.display(),
        data.mode() & 0o777
    );
    let cure = format!("make it yours alone: chmod {mode} {}", path.display());
    Err(Trouble::new(Code::StateUnusable, text, cure))
}

fn room(home: &Path) -> Result<String, Trouble> {
    let trouble = |text: String| Trouble::new(Code::JournalFailed, text, "free some disk space");
    let stat = rustix::fs::statvfs(home).map_err(|error| trouble(error.to_string()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let shown = megabytes(free);
    if free < ROOM_BYTES {
        return Err(trouble(format!(
            "{shown} are left where the state folder is"
        )));
    }
    Ok(format!("{shown} are left"))
}

fn megabytes(bytes: u64) -> String {
    match bytes / (1024 * 1024) {
        small @ 0..10_000 => format!("{small} MiB"),
        large => format!("{} GiB", large / 1024),
    }
}
