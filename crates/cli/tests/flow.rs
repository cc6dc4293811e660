//! Floods, full disks and damaged files, with real programs.

#![expect(clippy::unwrap_used, reason = "a story that cannot be told has failed")]

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use support::{Station, folder, wait_until};

mod support;

/// A disk of a few megabytes that is taken away at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing when this user may not mount.
    fn new(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size},mode=700"))
            .arg("farhelm-test")
            .arg(at)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
        {
            eprintln!("skipped: only root may mount a small disk");
        }
        None
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        for size in [65_536, 4_096, 512, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The daemon has ended by then; what still holds it lets go later.
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

fn scripted(world: &Path, scenario: &str) -> String {
    let file = world.join("scenario.json");
    std::fs::write(&file, scenario).unwrap();
    format!(
        "{} scripted-agent --scenario {}",
        env!("CARGO_BIN_EXE_farhelm"),
        file.display()
    )
}

/// The disk of the host fills up in the middle of a turn: nothing is shown that is not written, the
/// agent waits, everybody can see why, and all goes on when there is room again.
#[test]
fn f15_a_full_disk_pauses_the_session_visibly_and_it_goes_on_by_itself() {
    let world = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(&world.path().join("disk"), "12m") else {
        return;
    };
    let host = Station::new(&disk.0);
    let phone = Station::new(&folder(world.path(), "phone"));
    let dir = folder(world.path(), "project");
    let agent = scripted(
        world.path(),
        r#"{"scenarios": {"default": [[
            {"do": "ask", "call": {"title": "Go on?", "kind": "other"}},
            {"do": "count", "to": 300, "tool": true},
            {"do": "text", "text": "all three hundred"}
        ]]}}"#,
    );
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    host.pair(&phone, "phone");
    let question = phone.wait_for_question();
    let before = host.log_of(&session).len();

    disk.fill();
    let approval = question["approval"].as_str().unwrap();
    let mut waiting = host.command(&["approve", approval]).spawn().unwrap();
    wait_until("the pause is seen", || {
        host.json(&["status"])["paused"]["code"] == "disk_full"
    });
    let paused = host.json(&["status"])["paused"].clone();
    let text = paused["text"].as_str().unwrap();
    assert!(
        text.contains("is full") && text.contains("agents wait"),
        "{text}"
    );
    assert!(host.ok(&["status"]).contains("paused    for "));
    assert_eq!(host.log_of(&session).len(), before, "nothing was shown");
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "nobody was answered\n{}",
        host.log()
    );

    disk.free();
    assert!(waiting.wait().unwrap().success());
    let noted = phone.wait_for(&session, "note of the pause", |event| {
        event["type"] == "noticed" && event["code"] == "disk_full"
    });
    assert!(
        noted["text"]
            .as_str()
            .unwrap()
            .contains("nothing could be written")
    );
    host.wait_for_nth(&session, "turn_ended", 1);
    assert!(host.json(&["status"])["paused"].is_null());
    let log = host.log_of(&session);
    let seqs: Vec<_> = log
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>());
    assert!(
        log.iter()
            .any(|record| record.to_string().contains("all three hundred"))
    );
    phone.wait_for_nth(&session, "turn_ended", 1);
    assert_eq!(log, phone.log_of(&session));
    host.ok(&["down"]);
}

/// Events that the journal has lost are fetched from the relay, and the session comes back; one
/// that nobody has any more is refused by name, and the others go on.
#[test]
fn f17_a_damaged_log_is_mended_from_the_relay_and_other_sessions_go_on() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let dir = folder(world.path(), "project");
    let agent = scripted(
        world.path(),
        r#"{"scenarios": {"default": [[{"do": "text", "text": "said before"}]]}}"#,
    );
    let relay = support_relay(world.path());
    let more = [
        "--relay",
        &relay.url,
        "--agent-cmd",
        &agent,
        "--prompt",
        "go",
    ];
    let (first, _) = host.up(&dir, &more);
    let (second, _) = host.up(&dir, &more);
    for session in [&first, &second] {
        host.wait_for_nth(session, "turn_ended", 1);
    }
    let whole = host.log_of(&first);
    wait_until("the relay has it", || {
        let stored = rusqlite::Connection::open(relay.data.join("relay.db")).unwrap();
        let rows: i64 = stored
            .query_row(
                "SELECT coalesce(sum(last - first + 1), 0) FROM envelopes",
                [],
                |row| row.get(0),
            )
            .unwrap();
        rows >= 2 * i64::try_from(whole.len()).unwrap()
    });
    host.ok(&["down"]);
    let journal = host.home.join("journal.db");
    let damaged = damage(&journal, &first);
    assert!(damaged >= 2);

    let again = host.up(&dir, &more).0;
    host.wait_for_nth(&again, "turn_ended", 1);
    host.ok(&["send", &second, "go on"]);
    host.wait_for_nth(&second, "turn_ended", 2);
    wait_until("the first is mended", || {
        host.run(&["send", &first, "go on"]).status.success()
    });
    host.wait_for_nth(&first, "turn_ended", 2);
    assert_eq!(
        host.log_of(&first)[..whole.len()],
        whole[..],
        "the very same events"
    );
    host.ok(&["down"]);
}

/// A flipped bit in the file of what was written last cuts off all behind it, and no relay has that: the
/// daemon says so, in its status and in each log, takes nothing up that it does not know, and goes on.
#[test]
fn f17_a_flipped_bit_in_the_write_ahead_log_is_said_and_all_goes_on() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let dir = folder(world.path(), "project");
    let agent = scripted(
        world.path(),
        r#"{"scenarios": {"default": [
            [{"do": "text", "text": "the first turn"}],
            [{"do": "text", "text": "the second turn"}],
            [{"do": "text", "text": "the third turn"}]
        ]}}"#,
    );
    let more = ["--agent-cmd", &agent, "--prompt", "go"];
    let (session, _) = host.up(&dir, &more);
    host.wait_for_nth(&session, "turn_ended", 1);
    let log = host.home.join("journal.db-wal");
    let until_then = std::fs::metadata(&log).unwrap().len();
    let before = host.log_of(&session);
    host.ok(&["send", &session, "go on"]);
    host.wait_for_nth(&session, "turn_ended", 2);
    let whole = host.log_of(&session);
    signal(host.daemon_pid(), Signal::KILL);
    let socket = host.home.join("farhelm.sock");
    wait_until("nobody listens any more", || {
        UnixStream::connect(&socket).is_err()
    });
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[usize::try_from(until_then).unwrap() + 5_000] ^= 4;
    std::fs::write(&log, bytes).unwrap();
    for entry in std::fs::read_dir(host.home.join("relay")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }

    let (other, _) = host.up(&dir, &more);
    host.wait_for_nth(&other, "turn_ended", 1);
    let status = host.json(&["status"]);
    let lost = status["journal_lost"].to_string();
    let events = format!("to {} of {session}", whole.len());
    assert!(lost.contains(&events), "{lost}");
    let said = host.ok(&["status"]);
    assert!(said.contains("was damaged and has lost: "), "{said}");
    host.refuses(
        &["doctor"],
        1,
        "history_damaged",
        &["journal: ", "has lost: ", "look at what was done last"],
    );
    assert_eq!(status["relay"], "up", "the relay gets what there is");
    host.wait_for(&session, "note of the loss", |event| {
        event["type"] == "noticed"
            && event["code"] == "history_damaged"
            && event["text"]
                .as_str()
                .unwrap()
                .contains("of this log are missing")
    });
    // The agent knows more than the journal does: that run is over, and its conversation is not.
    host.wait_for_nth(&session, "agent_exited", 1);
    host.ok(&["send", &session, "again"]);
    host.wait_for_nth(&session, "turn_ended", 2);
    let now = host.log_of(&session);
    assert_eq!(now[..before.len()], before[..], "what was kept stays");
    host.ok(&["down"]);
    host.up(&dir, &more);
    let again = host.json(&["status"]);
    assert_eq!(
        again["journal_lost"].as_array().unwrap().len(),
        0,
        "{again}"
    );
    host.ok(&["down"]);
}

/// A long output is kept whole, shown by its ends, and read by ranges, here and from afar.
#[test]
fn f20_a_long_output_is_kept_whole_and_read_by_ranges() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let phone = Station::new(&folder(world.path(), "phone"));
    let dir = folder(world.path(), "project");
    let agent = scripted(
        world.path(),
        r#"{"scenarios": {"default": [[{"do": "output", "bytes": 3000000}]]}}"#,
    );
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    host.pair(&phone, "phone");
    host.wait_for_nth(&session, "turn_ended", 1);
    let log = host.log_of(&session);
    let shown = log
        .iter()
        .find(|record| record["event"]["tool"]["content"][0]["kind"] == "clipped")
        .unwrap();
    let tool = shown["event"]["tool"]["id"].as_str().unwrap();
    let content = &shown["event"]["tool"]["content"][0];
    assert_eq!(content["bytes"], 3_000_000);
    assert!(content["head"].as_str().unwrap().len() <= 4_096);

    let whole = host.ok(&["output", &session, tool]);
    assert_eq!(whole.len(), 3_000_000);
    assert!(whole.starts_with(content["head"].as_str().unwrap()));
    assert!(whole.ends_with(content["tail"].as_str().unwrap()));
    // Across the border of two pieces, and from a device, which fetches only those two.
    let part = phone.ok(&["output", &session, tool, "--range", "262000-262300"]);
    assert_eq!(part, whole[262_000..262_300]);
    let end = phone.json(&["output", &session, tool, "--range", "2999990-"]);
    assert_eq!(end["text"], whole[2_999_990..]);
    assert_eq!(end["bytes"], 3_000_000);
    host.refuses(
        &["output", &session, "nothing"],
        1,
        "not_found",
        &["farhelm log"],
    );
}

/// A hundred megabytes in one line of an agent: all of it is kept and none of it is held, others are
/// answered in the middle of it, and any part is read, here and from afar.
#[test]
fn f20_a_hundred_megabytes_in_one_call_are_kept_whole_and_read_by_ranges() {
    const BYTES: usize = 100_000_000;
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let phone = Station::new(&folder(world.path(), "phone"));
    let dir = folder(world.path(), "project");
    let (asked, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    host.pair(&phone, "phone");
    let question = phone.wait_for_question();
    let daemon = host.daemon_pid();
    let before = most_memory(daemon);

    let output =
        format!(r#"{{"scenarios": {{"default": [[{{"do": "output", "bytes": {BYTES}}}]]}}}}"#);
    let (pid, agent) = noted(world.path(), &scripted(world.path(), &output));
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    let journal = rusqlite::Connection::open(host.home.join("journal.db")).unwrap();
    wait_until("the first of it is on the disk", || blobs(&journal) > 0);
    let pid = std::fs::read_to_string(pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    signal(pid, Signal::STOP);
    phone.ok(&["approve", question["approval"].as_str().unwrap()]);
    phone.wait_for_nth(&asked, "approval_applied", 1);
    let is_clipped =
        |record: &serde_json::Value| record["event"]["tool"]["content"][0]["kind"] == "clipped";
    assert!(!host.log_of(&session).iter().any(is_clipped), "it goes on");
    signal(pid, Signal::CONT);
    host.wait_for_nth(&session, "turn_ended", 1);

    let log = host.log_of(&session);
    let shown = log.iter().find(|record| is_clipped(record)).unwrap();
    let content = &shown["event"]["tool"]["content"][0];
    assert_eq!(content["bytes"], BYTES);
    let blobs = content["blobs"].as_array().unwrap();
    let sizes = blobs.iter().map(|blob| blob["bytes"].as_u64().unwrap());
    assert_eq!(sizes.sum::<u64>(), BYTES as u64);
    assert_eq!(self::blobs(&journal), blobs.len(), "nothing else is kept");
    let grown = most_memory(daemon) - before;
    assert!(grown < BYTES * 3 / 2, "{grown} bytes for it");

    let whole = put_out(BYTES);
    assert!(whole.starts_with(content["head"].as_str().unwrap()));
    assert!(whole.ends_with(content["tail"].as_str().unwrap()));
    let tool = shown["event"]["tool"]["id"].as_str().unwrap();
    for (who, from, to) in [
        (&host, 0, 1_000_000),
        (&host, 50_000_000, 51_000_000),
        (&phone, 77_777_777, 78_000_000),
        (&phone, BYTES - 100_000, BYTES),
    ] {
        let range = format!("{from}-{to}");
        let part = who.ok(&["output", &session, tool, "--range", &range]);
        assert!(part == whole[from..to], "{range}");
    }
    host.ok(&["down"]);
}

/// What is long in a line and shown nowhere whole is not kept, and that something is left out is
/// said: words of the agent, and an output that comes twice.
#[test]
fn f20_of_long_strings_only_those_that_are_shown_are_kept() {
    const BYTES: usize = 9 << 20;
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let dir = folder(world.path(), "project");
    let put_out = "é".repeat(BYTES / 2);
    let call = serde_json::json!({
        "sessionUpdate": "tool_call", "toolCallId": "c", "title": "long", "status": "completed",
        "content": [{"type": "content", "content": {"type": "text", "text": put_out}}],
        "rawOutput": format!("{put_out}, raw"),
    });
    let steps = serde_json::json!([
        {"do": "text", "text": "w".repeat(BYTES)}, {"do": "update", "update": call}
    ]);
    let scenario = serde_json::json!({"scenarios": {"default": [steps]}}).to_string();
    let agent = scripted(world.path(), &scenario);
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    host.wait_for_nth(&session, "turn_ended", 1);
    let log = host.log_of(&session);
    let said = log.iter().find(|record| record.to_string().contains("www"));
    let said = said.unwrap().to_string();
    let left_out = format!("… {BYTES} bytes in all, SHA-256 ");
    assert!(said.contains(&left_out) && said.len() < 20_000, "{said}");
    let mut shown = log
        .iter()
        .map(|record| &record["event"]["tool"]["content"][0]);
    let shown = shown.find(|content| content["kind"] == "clipped").unwrap();
    assert_eq!(shown["bytes"], BYTES);
    let journal = rusqlite::Connection::open(host.home.join("journal.db")).unwrap();
    assert_eq!(blobs(&journal), shown["blobs"].as_array().unwrap().len());
    assert!(host.ok(&["output", &session, "c"]) == put_out);
    host.ok(&["down"]);
}

/// The daemon dies in the middle of a long line: the next one hears it from its beginning.
#[test]
fn f20_a_long_line_survives_its_daemon() {
    const BYTES: usize = 24_000_000;
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let dir = folder(world.path(), "project");
    let output =
        format!(r#"{{"scenarios": {{"default": [[{{"do": "output", "bytes": {BYTES}}}]]}}}}"#);
    let (pid, agent) = noted(world.path(), &scripted(world.path(), &output));
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    let journal = rusqlite::Connection::open(host.home.join("journal.db")).unwrap();
    wait_until("the first of it is on the disk", || blobs(&journal) > 0);
    let pid = std::fs::read_to_string(pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    signal(pid, Signal::STOP);
    let daemon = host.daemon_pid();
    signal(daemon, Signal::KILL);
    // Its first thread may be gone before its socket is.
    let socket = host.home.join("farhelm.sock");
    wait_until("nobody listens any more", || {
        UnixStream::connect(&socket).is_err()
    });
    signal(pid, Signal::CONT);
    host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    host.wait_for_nth(&session, "turn_ended", 1);
    let log = host.log_of(&session);
    let content = |record: &serde_json::Value| record["event"]["tool"]["content"][0].clone();
    let shown: Vec<_> = log
        .iter()
        .filter(|record| content(record)["kind"] == "clipped")
        .collect();
    assert_eq!(shown.len(), 1, "once");
    let kept = content(shown[0])["blobs"].as_array().unwrap().len();
    let tool = shown[0]["event"]["tool"]["id"].as_str().unwrap();
    assert!(host.ok(&["output", &session, tool]) == put_out(BYTES));
    assert_eq!(
        blobs(&journal),
        kept,
        "what the first one had of it is gone"
    );
    host.ok(&["down"]);
}

/// The agent dies with its daemon in the middle of a long line, as with the machine: nobody will ever
/// show what had come of it, and it is not kept.
#[test]
fn f20_what_came_of_a_long_line_goes_with_its_agent() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let dir = folder(world.path(), "project");
    let output = r#"{"scenarios": {"default": [[{"do": "output", "bytes": 24000000}]]}}"#;
    let (pid, agent) = noted(world.path(), &scripted(world.path(), output));
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    let journal = rusqlite::Connection::open(host.home.join("journal.db")).unwrap();
    wait_until("the first of it is on the disk", || blobs(&journal) > 0);
    let pid: u32 = std::fs::read_to_string(pid)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    signal(pid, Signal::STOP);
    signal(host.daemon_pid(), Signal::KILL);
    let socket = host.home.join("farhelm.sock");
    wait_until("nobody listens any more", || {
        UnixStream::connect(&socket).is_err()
    });
    signal(parent(pid), Signal::KILL);
    host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    host.wait_for_nth(&session, "agent_exited", 1);
    wait_until("nothing of it is kept", || blobs(&journal) == 0);
    host.ok(&["down"]);
}

/// Who started a process.
fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.unwrap().trim().parse().unwrap()
}

/// An agent's command that notes its process in a file first.
fn noted(world: &Path, command: &str) -> (PathBuf, String) {
    let file = world.join("agent.pid");
    // What it would remember of a long output takes it time.
    let text = format!(
        "echo $$ > '{}'\nunset HOME FARHELM_SCRIPTED_STATE\nexec {command}",
        file.display()
    );
    let agent = support::script(&world.join("agent"), &text);
    (file, agent)
}

/// What our own agent puts out when it is to be that much.
fn put_out(bytes: usize) -> String {
    let dots = ".".repeat(1000);
    let mut text = String::with_capacity(bytes + 1024);
    let mut line = 1;
    while text.len() < bytes {
        text.push_str(&format!("line {line}{dots}\n"));
        line += 1;
    }
    text.truncate(bytes);
    text
}

/// How many blobs the host has.
fn blobs(journal: &rusqlite::Connection) -> usize {
    let count = "SELECT count(*) FROM blobs";
    let count: i64 = journal.query_row(count, [], |row| row.get(0)).unwrap();
    usize::try_from(count).unwrap()
}

/// The most memory that a process has had; 0 where the system does not say.
fn most_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.map(|line| line.trim().trim_end_matches(" kB").parse::<usize>());
    kib.map_or(0, |kib| kib.unwrap() * 1024)
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A flood in one session keeps nobody waiting in another: a question is asked, answered from
/// afar and applied while it goes on.
#[test]
fn f20_a_question_is_answered_from_afar_in_the_middle_of_a_flood() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let phone = Station::new(&folder(world.path(), "phone"));
    let dir = folder(world.path(), "project");
    let agent = scripted(
        world.path(),
        r#"{"scenarios": {"default": [[{"do": "count", "to": 100000000, "per_second": 10000, "tool": true}]]}}"#,
    );
    let (flood, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    host.pair(&phone, "phone");
    let (asked, _) = host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    let question = phone.wait_for_question();
    phone.ok(&["approve", question["approval"].as_str().unwrap()]);
    phone.wait_for_nth(&asked, "approval_applied", 1);
    let ended = host
        .log_of(&flood)
        .iter()
        .any(|record| record["event"]["type"] == "turn_ended");
    assert!(!ended, "the flood goes on");
    phone.ok(&["stop", &flood]);
    phone.wait_for_nth(&flood, "turn_ended", 1);
}

/// Alters envelopes of a session in its journal; says how many.
fn damage(journal: &Path, session: &str) -> usize {
    let db = rusqlite::Connection::open(journal).unwrap();
    let hex = session.strip_prefix("ses_").unwrap();
    db.execute(
        "UPDATE envelopes SET frame = zeroblob(40) WHERE hex(stream) = upper(?1) AND last > 2",
        [hex],
    )
    .unwrap()
}

/// A relay of its own.
struct OwnRelay {
    child: std::process::Child,
    url: String,
    data: PathBuf,
}

fn support_relay(world: &Path) -> OwnRelay {
    let port = support::free_port();
    let data = folder(world, "relay");
    let child = Command::new(env!("CARGO_BIN_EXE_farhelm"))
        .args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(&data)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("http://127.0.0.1:{port}");
    wait_until("the relay listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    OwnRelay { child, url, data }
}

impl Drop for OwnRelay {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An agent puts out much more than the journal may hold: the oldest outputs go, and everything says
/// so; events, memory and the newest output are as ever, here, from afar and after a restart.
#[test]
fn f35_the_journal_stays_within_its_size_and_says_what_was_dropped() {
    const BYTES: usize = 5_000_000;
    const OUTPUTS: usize = 32;
    const MIB: u64 = 1024 * 1024;
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let phone = Station::new(&folder(world.path(), "phone"));
    let dir = folder(world.path(), "project");
    host.configure("journal_mib = 20\n");
    host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    host.pair(&phone, "phone");
    let daemon = host.daemon_pid();
    let before = most_memory(daemon);
    let output = format!(r#"{{"do": "output", "bytes": {BYTES}}}"#);
    let outputs = vec![output; OUTPUTS].join(", ");
    let scenario = format!(r#"{{"scenarios": {{"default": [[{outputs}]]}}}}"#);
    let agent = scripted(world.path(), &scenario);
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    host.wait_for_nth(&session, "turn_ended", 1);

    let size = std::fs::metadata(host.home.join("journal.db"))
        .unwrap()
        .len();
    assert!(size < 40 * MIB, "{size} bytes of 20 MiB");
    let grown = most_memory(daemon).saturating_sub(before);
    assert!(grown < BYTES * OUTPUTS * 3 / 4, "{grown} bytes for it");
    let noted = phone.wait_for(&session, "what was dropped", |event| {
        event["type"] == "noticed" && event["code"] == "history_dropped"
    });
    assert!(noted["text"].as_str().unwrap().contains("journal_mib"));
    let dropped = host.json(&["status"])["journal_dropped"].clone();
    assert!(
        dropped["bytes"].as_u64().unwrap() > 10 * MIB && dropped["pieces"].as_u64().unwrap() > 320,
        "{dropped}"
    );
    assert!(host.ok(&["status"]).contains("has dropped the oldest"));

    host.ok(&["down"]);
    host.up(&dir, &["--agent", "scripted", "--prompt", "hello"]);
    let again = host.json(&["status"])["journal_dropped"].clone();
    assert_eq!(again, dropped, "it is not forgotten");
    let log = host.log_of(&session);
    assert_eq!(phone.log_of(&session).len(), log.len(), "no event is gone");
    let tools: Vec<_> = log
        .iter()
        .filter(|record| record["event"]["tool"]["content"][0]["kind"] == "clipped")
        .map(|record| &record["event"]["tool"])
        .collect();
    assert_eq!(tools.len(), OUTPUTS);
    host.refuses(
        &["output", &session, tools[0]["id"].as_str().unwrap()],
        1,
        "history_dropped",
        &["journal_mib"],
    );
    let newest = tools[OUTPUTS - 1];
    let tail = newest["content"][0]["tail"].as_str().unwrap();
    let range = format!("{}-", BYTES - tail.len());
    for who in [&host, &phone] {
        let id = newest["id"].as_str().unwrap();
        let part = who.ok(&["output", &session, id, "--range", &range]);
        assert_eq!(part, tail, "the newest is there");
    }
    host.ok(&["down"]);
}

/// Logs that alone are larger than the journal may be: that is said with what to do, until there is room.
#[test]
fn f35_logs_that_are_too_large_by_themselves_are_named_until_there_is_room() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(&folder(world.path(), "host"));
    let dir = folder(world.path(), "project");
    host.configure("journal_mib = 1\n");
    let agent = scripted(
        world.path(),
        r#"{"scenarios": {"default": [[{"do": "text", "text": "heard"}]]}}"#,
    );
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent]);
    assert_eq!(host.json(&["status"])["journal_beyond"], 0);
    // Nothing that could be made smaller.
    let mut seed = 1_u64;
    let mut digit = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + u8::try_from((seed >> 33) % 90).unwrap())
    };
    for turn in 1..=40 {
        let text: String = (0..60_000).map(|_| digit()).collect();
        host.ok(&["send", &session, "--", &text]);
        host.wait_for_nth(&session, "turn_ended", turn);
        if host.json(&["status"])["journal_beyond"] != 0 {
            break;
        }
    }
    assert!(
        host.ok(&["status"])
            .contains("larger than `journal_mib` allows")
    );
    host.refuses(
        &["doctor"],
        1,
        "journal_full",
        &["journal: ", "raise `journal_mib` in config.toml"],
    );
    let told = host.log().matches("the logs alone are larger").count();
    assert_eq!(told, 1, "once");
    host.ok(&["down"]);
    host.configure("journal_mib = 100\n");
    host.up(&dir, &["--agent-cmd", &agent]);
    assert_eq!(host.json(&["status"])["journal_beyond"], 0);
    let looked = host.run(&["doctor"]).stdout;
    assert!(looked.contains("ok    journal"), "{looked}");
    host.ok(&["down"]);
}

/// A disk that does not answer is named while it does not, and the log says so afterwards.
#[test]
fn f18_a_disk_that_hangs_is_named_and_all_goes_on_when_it_answers() {
    if !cfg!(debug_assertions) {
        return;
    }
    let world = tempfile::tempdir().unwrap();
    let mut host = Station::new(&folder(world.path(), "host"));
    let dir = folder(world.path(), "project");
    // Each is at least one commit, and none is when the daemon starts.
    let steps = vec![r#"{"do": "count", "to": 2, "per_second": 5, "tool": true}"#; 60].join(", ");
    let scenario = format!(r#"{{"scenarios": {{"default": [[{steps}]]}}}}"#);
    let agent = scripted(world.path(), &scenario);
    let plan = "host.journal.before_commit=hang:15s@40";
    host.set("FARHELM_FAIL", plan);
    let (session, _) = host.up(&dir, &["--agent-cmd", &agent, "--prompt", "go"]);
    wait_until("the disk is named", || {
        let paused = host.json(&["status"])["paused"].clone();
        let text = paused["text"].as_str().unwrap_or_default();
        paused["code"] == "journal_failed" && text.contains("has not answered a write for 5 s")
    });
    host.wait_for(&session, "note of the pause", |event| {
        event["type"] == "noticed" && event["code"] == "journal_failed"
    });
    host.wait_for_nth(&session, "turn_ended", 1);
    assert!(host.json(&["status"])["paused"].is_null());
    host.ok(&["down"]);
}
