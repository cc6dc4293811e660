//! Files beneath a session's folder: what an agent reaches through us, and what it never does.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what does not fit fails the test"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use farhelm_host::agents::FileWork;
use farhelm_host::agents::files::{FileError, perform};

#[test]
fn files_within_the_folder_are_read_and_written() {
    let world = World::new();
    assert_eq!(world.write("new/deep/file", "1"), Ok(()));
    assert_eq!(world.read("new/deep/file"), Ok("1".to_owned()));
    let absolute = world.dir().join("new/deep/file").display().to_string();
    assert_eq!(world.write(&absolute, "22"), Ok(()));
    assert_eq!(world.read(&absolute), Ok("22".to_owned()));
    assert_eq!(world.write(&absolute, "3"), Ok(()));
    assert_eq!(world.read("./new/./deep/file"), Ok("3".to_owned()));
    assert!(matches!(world.read("none"), Err(FileError::Missing(_))));
}

#[test]
fn a_file_that_is_written_over_keeps_its_permissions() {
    let world = World::new();
    let script = world.dir().join("script");
    fs::write(&script, "old").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    world.write("script", "new").unwrap();
    assert_eq!(
        fs::metadata(&script).unwrap().permissions().mode() & 0o777,
        0o750
    );
}

#[test]
fn a_link_that_stays_within_the_folder_is_followed() {
    let world = World::new();
    fs::create_dir(world.dir().join("real")).unwrap();
    symlink("real", world.dir().join("link")).unwrap();
    world.write("link/file", "x").unwrap();
    assert_eq!(world.read("real/file"), Ok("x".to_owned()));
}

#[test]
fn s27_no_path_of_the_corpus_leads_out() {
    let world = World::new();
    let outside = world.outside();
    let dir = world.dir();
    symlink(&outside, dir.join("link")).unwrap();
    symlink(outside.join("secret"), dir.join("file-link")).unwrap();
    symlink("../outside/planted", dir.join("dangling")).unwrap();
    symlink("/proc/self/root", dir.join("root")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    let secret = outside.join("secret").display().to_string();
    let sibling = format!("{}-beside/x", dir.display());
    let corpus = [
        "..",
        "../outside/secret",
        "folder/../../outside/secret",
        "./../outside/secret",
        "/etc/passwd",
        "/",
        "",
        ".",
        "folder",
        "link/secret",
        "link/planted",
        "link/sub/planted",
        "file-link",
        "dangling",
        "root/etc/passwd",
        "loop",
        "loop/x",
        "/proc/self/environ",
        "/proc/self/cwd/../outside/secret",
        "/dev/null",
        "a\0b",
        "folder/\0",
        &secret,
        &sibling,
    ];
    for path in corpus {
        assert!(world.read(path).is_err(), "read {path:?}");
        assert!(world.write(path, "x").is_err(), "written {path:?}");
    }
    assert_eq!(world.beside(), ["secret"]);
    assert_eq!(
        fs::read_to_string(outside.join("secret")).unwrap(),
        "secret"
    );
}

#[test]
fn s27_names_that_only_look_dangerous_are_plain_names() {
    let world = World::new();
    for name in [
        "%2e%2e",
        "...",
        "a..b",
        "C:\\x",
        "\\\\server\\share",
        "name.",
        "~",
        "$HOME",
        "-rf",
        " ",
    ] {
        assert_eq!(world.write(name, name), Ok(()), "{name:?}");
        assert_eq!(world.read(name), Ok(name.to_owned()));
    }
}

#[test]
fn s27_pipes_and_devices_are_refused_without_waiting() {
    let world = World::new();
    let pipe = world.dir().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(world.dir().join("socket")).unwrap();
    for name in ["pipe", "socket"] {
        assert!(
            matches!(world.read(name), Err(FileError::Refused(_))),
            "{name}"
        );
        assert!(
            matches!(world.write(name, "x"), Err(FileError::Refused(_))),
            "{name}"
        );
    }
}

#[test]
fn s27_a_file_with_a_name_outside_the_folder_is_replaced_and_not_changed() {
    let world = World::new();
    fs::hard_link(world.outside().join("secret"), world.dir().join("shared")).unwrap();
    world.write("shared", "mine").unwrap();
    assert_eq!(world.read("shared"), Ok("mine".to_owned()));
    assert_eq!(
        fs::read_to_string(world.outside().join("secret")).unwrap(),
        "secret"
    );
}

#[test]
fn s27_a_link_that_flips_while_we_look_never_lets_us_out() {
    let world = World::new();
    let (flip, safe) = (world.dir().join("flip"), world.dir().join("safe"));
    fs::create_dir(&safe).unwrap();
    fs::write(safe.join("secret"), "harmless").unwrap();
    symlink("safe", &flip).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (to_safe, to_outside) =
                (world.dir().join("to-safe"), world.dir().join("to-outside"));
            while !done.load(Ordering::Relaxed) {
                for (link, target) in [
                    (&to_safe, Path::new("safe")),
                    (&to_outside, &world.outside()),
                ] {
                    symlink(target, link).unwrap();
                    fs::rename(link, &flip).unwrap();
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(1);
        let mut reads = 0;
        while Instant::now() < until {
            if let Ok(text) = world.read("flip/secret") {
                assert_eq!(text, "harmless");
                reads += 1;
            }
            // Refused or done within: both are right.
            drop(world.write("flip/planted", "x"));
        }
        done.store(true, Ordering::Relaxed);
        assert!(reads > 0);
    });
    assert_eq!(world.beside(), ["secret"]);
}

#[test]
fn text_that_is_none_or_too_long_is_refused() {
    let world = World::new();
    fs::write(world.dir().join("bytes"), b"\xff\xfe").unwrap();
    fs::File::create(world.dir().join("huge"))
        .unwrap()
        .set_len(9 << 20)
        .unwrap();
    assert!(matches!(world.read("bytes"), Err(FileError::Refused(text)) if text.contains("UTF-8")));
    assert!(matches!(world.read("huge"), Err(FileError::Refused(text)) if text.contains("longer")));
}

/// A folder, and a secret beside it.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        fs::create_dir(world.dir()).unwrap();
        fs::create_dir(world.outside()).unwrap();
        fs::write(world.outside().join("secret"), "secret").unwrap();
        world
    }

    fn dir(&self) -> std::path::PathBuf {
        self.0.path().join("dir")
    }

    fn outside(&self) -> std::path::PathBuf {
        self.0.path().join("outside")
    }

    /// What lies outside.
    fn beside(&self) -> Vec<String> {
        fs::read_dir(self.outside())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn read(&self, path: &str) -> Result<String, FileError> {
        perform(
            &self.dir(),
            &FileWork::Read {
                path: path.to_owned(),
                line: None,
                limit: None,
            },
        )
    }

    fn write(&self, path: &str, text: &str) -> Result<(), FileError> {
        perform(
            &self.dir(),
            &FileWork::Write {
                path: path.to_owned(),
                text: text.to_owned(),
            },
        )
        .map(drop)
    }
}
