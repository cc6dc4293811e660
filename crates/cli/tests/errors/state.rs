//! State folders that cannot be used, and those that are in use.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::crashes::{kill, noted_agent, read_pid};
use crate::support::{PATIENCE, Station, folder, is_alive, wait_until};

#[test]
fn a_second_daemon_on_the_same_state_folder_is_refused_and_the_first_goes_on() {
    let (_world, host, dir) = world();
    let (session, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    let question = host.wait_for_question();
    let daemon = host.daemon_pid();
    let home = host.home.to_str().unwrap().to_owned();
    host.refuses(
        &["host", "run"],
        1,
        "already_running",
        &[&home, "`farhelm status`", "FARHELM_HOME"],
    );
    assert_eq!(host.daemon_pid(), daemon);
    host.ok(&["approve", question["approval"].as_str().unwrap()]);
    host.wait_for_nth(&session, "approval_requested", 2);
}

/// A daemon that is killed between the two halves of starting another program leaves its lock with that one for a moment.
#[test]
fn f01_a_daemon_waits_for_what_a_killed_one_left_and_not_for_one_that_runs() {
    let (_world, host, dir) = world();
    host.up(&dir, &["--agent", "scripted"]);
    let daemon = host.daemon_pid();
    kill(daemon, Signal::KILL);
    wait_until("the daemon is dead", || !is_alive(daemon));
    let lock = std::fs::File::open(host.home.join("farhelm.lock")).unwrap();
    lock.lock().unwrap();
    let socket = host.home.join("farhelm.sock");
    std::fs::remove_file(&socket).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let mut next = host.command(&["host", "run"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(next.try_wait().unwrap().is_none(), "{}", host.log());
    drop((lock, socket));
    wait_until("the next one runs", || {
        host.run(&["status"]).status.success()
    });
    assert_eq!(host.daemon_pid(), next.id());
    host.ok(&["down"]);
    assert!(next.wait().unwrap().success());
}

#[test]
fn a_daemon_whose_state_folder_is_removed_ends_with_what_it_started() {
    let (world, host, dir) = world();
    let (agent, pid_file) = noted_agent(world.path());
    host.up(&dir, &["--agent-cmd", &agent, "--prompt", "hello"]);
    host.wait_for_question();
    let (daemon, agent) = (host.daemon_pid(), read_pid(&pid_file));
    std::fs::remove_dir_all(&host.home).unwrap();
    let next = host.begin(&["host", "run"]);
    wait_until("the daemon has ended", || !is_alive(daemon));
    wait_until("its agent has ended", || !is_alive(agent));
    // Another one has the place, and is left alone.
    assert_eq!(host.daemon_pid(), next.pid());
    host.ok(&["down"]);
    assert!(next.end().success());
}

#[test]
fn two_terminals_that_start_at_once_share_one_daemon() {
    let (world, host, _) = world();
    let dirs = ["a", "b", "c"].map(|name| folder(world.path(), name));
    let children = dirs.map(|dir| {
        let mut command = host.command(&[
            "up",
            "--dir",
            dir.to_str().unwrap(),
            "--agent",
            "scripted",
            "--headless",
        ]);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    });
    for mut child in children {
        assert!(child.wait().unwrap().success(), "{}", host.log());
    }
    assert_eq!(host.json(&["ls"]).as_array().unwrap().len(), 3);
}

#[test]
fn a_state_folder_that_is_a_file_is_named() {
    let (_world, host, dir) = world();
    std::fs::write(&host.home, "in the way").unwrap();
    refused(&host, &dir, &[host.home.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&host.home).unwrap(), "in the way");
    std::fs::remove_file(&host.home).unwrap();
    host.still_works(&dir);
}

#[test]
fn a_state_folder_whose_path_is_too_long_for_a_socket_is_named() {
    let (world, mut host, dir) = world();
    let short = std::mem::replace(&mut host.home, world.path().join("long".repeat(30)));
    refused(&host, &dir, &["longlong", "too long", "set FARHELM_HOME"]);
    assert!(!host.home.exists());
    host.home = short;
    host.still_works(&dir);
}

#[test]
fn s30_a_state_folder_of_another_user_is_left_alone() {
    let (_world, host, dir) = world();
    if !is_root() {
        eprintln!("skipped: only root can give a folder away");
        return;
    }
    std::fs::create_dir(&host.home).unwrap();
    chown(&host.home, Some(NOBODY), None).unwrap();
    refused(&host, &dir, &["belongs to another user"]);
    assert_eq!(
        std::fs::read_dir(&host.home).unwrap().count(),
        0,
        "nothing is written there"
    );
    chown(&host.home, Some(0), None).unwrap();
    host.still_works(&dir);
}

#[test]
fn a_state_folder_that_cannot_be_written_to_is_named() {
    let (world, host, dir) = world();
    std::fs::create_dir(&host.home).unwrap();
    std::fs::set_permissions(&host.home, std::fs::Permissions::from_mode(0o500)).unwrap();
    let mut command = host.command(&[
        "up",
        "--dir",
        dir.to_str().unwrap(),
        "--agent",
        "scripted",
        "--headless",
        "--json",
    ]);
    if is_root() {
        // Root may write anywhere; somebody who may not has to be able to come here.
        std::fs::set_permissions(world.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        chown(&host.home, Some(NOBODY), None).unwrap();
        command.uid(NOBODY);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: another user cannot run what was built: {error}");
            return;
        }
    };
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("\"state_unusable\"") && said.contains("set FARHELM_HOME"),
        "{said}"
    );
    std::fs::set_permissions(&host.home, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn s30_state_that_others_could_read_is_made_private_and_keys_that_they_could_are_refused() {
    let (_world, host, dir) = world();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    std::fs::create_dir(&host.home).unwrap();
    open(&host.home, 0o755);
    host.up(&dir, &["--agent", "scripted"]);
    assert_eq!(mode(&host.home), 0o700);
    for name in [
        "host.key",
        "journal.db",
        "farhelm.sock",
        "farhelm.log",
        "farhelm.lock",
    ] {
        assert_eq!(mode(&host.home.join(name)), 0o600, "{name}");
    }
    host.ok(&["down"]);
    open(&host.home.join("host.key"), 0o644);
    refused(
        &host,
        &dir,
        &["others may read the host's keys", "chmod 600"],
    );
    open(&host.home.join("host.key"), 0o600);
    host.still_works(&dir);
}

#[test]
fn a_journal_of_a_newer_version_is_left_as_it_is() {
    let (_world, host, dir) = world();
    let (session, _) = host.up(&dir, &["--agent", "scripted"]);
    host.wait_for_nth(&session, "agent_started", 1);
    let before = host.log_of(&session);
    host.ok(&["down"]);
    let journal = host.home.join("journal.db");
    let ours = version_of(&journal);
    set_version(&journal, 99);
    refused(&host, &dir, &["version 99", "update farhelm"]);
    assert_eq!(version_of(&journal), 99);
    set_version(&journal, ours);
    host.still_works(&dir);
    assert_eq!(
        host.log_of(&session)[..before.len()],
        before[..],
        "nothing is lost"
    );
}

#[test]
fn a_journal_that_is_damaged_says_what_can_be_done() {
    let (_world, host, dir) = world();
    host.up(&dir, &["--agent", "scripted"]);
    host.ok(&["down"]);
    let journal = host.home.join("journal.db");
    let kept = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, "not a database".repeat(1000)).unwrap();
    refused(
        &host,
        &dir,
        &["not a database", "restore the state folder", "move it away"],
    );
    let (_, said) = host.complains(&[
        "up",
        "--dir",
        dir.to_str().unwrap(),
        "--agent",
        "scripted",
        "--headless",
    ]);
    assert!(!said.contains("disk space"), "{said}");
    std::fs::write(&journal, kept).unwrap();
    host.still_works(&dir);
    assert_eq!(host.json(&["ls"]).as_array().unwrap().len(), 2);
}

#[test]
fn down_ends_the_daemon_and_everything_it_started() {
    let (_world, host, dir) = world();
    host.up(&dir, &["--agent", "scripted"]);
    let daemon = host.daemon_pid();
    let begun = Instant::now();
    host.ok(&["down"]);
    assert!(begun.elapsed() < PATIENCE);
    wait_until("the daemon is gone", || !is_alive(daemon));
    assert!(!host.home.join("farhelm.sock").exists());
    host.refuses(&["down"], 3, "not_running", &["farhelm up"]);
}

/// Nobody may start here, and is told why.
fn refused(host: &Station, dir: &Path, words: &[&str]) {
    let args = [
        "up",
        "--dir",
        dir.to_str().unwrap(),
        "--agent",
        "scripted",
        "--headless",
    ];
    host.refuses(&args, 1, "state_unusable", words);
}

fn world() -> (tempfile::TempDir, Station, PathBuf) {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    (world, host, dir)
}

/// SQLite keeps the number that programs give a file at this place.
const VERSION_AT: u64 = 60;
const NOBODY: u32 = 65534;

fn version_of(journal: &Path) -> u32 {
    let bytes = std::fs::read(journal).unwrap();
    let at = usize::try_from(VERSION_AT).unwrap();
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn set_version(journal: &Path, version: u32) {
    let log = journal.with_extension("db-wal");
    assert!(
        !log.exists() || log.metadata().unwrap().len() == 0,
        "everything is in the file itself"
    );
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(journal)
        .unwrap();
    file.seek(SeekFrom::Start(VERSION_AT)).unwrap();
    file.write_all(&version.to_be_bytes()).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
