//! F17, F18, F36: torn, cut and altered files; a disk that fails; upgrades that are interrupted.

use std::path::PathBuf;

use super::super::health::Gauge;
use super::super::{read, schema, sum, writer};
use super::*;

pub(super) const STREAMS: [StreamId; 2] =
    [StreamId::from_bytes([1; 16]), StreamId::from_bytes([2; 16])];
pub(super) const EVENTS: u64 = 6;

/// Everything that a small journal holds, as it is read.
#[derive(Debug, Default, PartialEq)]
struct Contents {
    envelopes: Vec<StoredEnvelope>,
    /// Ranges that were said to be lost.
    lost: Vec<(StreamId, u64, u64)>,
    heads: Vec<u64>,
    keys: Vec<(u32, [u8; 32])>,
    outcomes: Vec<Option<String>>,
    letters: Vec<(CommandId, Bytes)>,
    sessions: Vec<(SessionId, String)>,
    blob: Option<Vec<u8>>,
}

pub(super) fn folder() -> tempfile::TempDir {
    // Where syncing costs nothing, if there is such a place.
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

pub(super) fn chained(stream: StreamId, seq: u64) -> StoredEnvelope {
    StoredEnvelope {
        stream,
        first: seq,
        last: seq,
        base: 1,
        hash: [u8::try_from(seq).unwrap(); 32],
        frame: Bytes::from(vec![u8::try_from(seq).unwrap() ^ 0x55; 40]),
    }
}

/// An id begins with its time.
pub(super) fn command(n: u8) -> CommandId {
    CommandId::fresh(farhelm_proto::Timestamp(1_700_000_000_000), [n; 10])
}

/// Commits of a small journal, one after the other.
pub(super) fn commits() -> Vec<Vec<Op>> {
    let name = farhelm_core::seal::blob_name(b"sealed");
    let mut commits = vec![vec![
        Op::Session {
            session: SessionId::from_bytes([1; 16]),
            spec: "spec".to_owned(),
        },
        Op::Blob {
            name,
            stream: STREAMS[0],
            bytes: Bytes::from_static(b"sealed"),
        },
    ]];
    for seq in 1..=EVENTS {
        let n = u8::try_from(seq).unwrap();
        let mut ops: Vec<_> = STREAMS
            .iter()
            .map(|stream| Op::Envelope(chained(*stream, seq)))
            .collect();
        ops.push(Op::Command {
            id: command(n),
            device: None,
            outcome: format!("outcome {n}"),
        });
        ops.push(Op::Key {
            stream: STREAMS[0],
            epoch: u32::from(n),
            key: Box::new(ContentKey::from_bytes([n; 32])),
        });
        ops.push(Op::Letter {
            id: command(100 + n),
            to: PeerId::from_bytes([9; 16]),
            frame: Bytes::from(vec![n; 20]),
        });
        commits.push(ops);
    }
    commits
}

/// The writer alone, without its thread.
pub(super) fn open_writer(path: &Path) -> Result<(Writer, Vec<Lost>), JournalError> {
    let writer::Opened {
        db,
        tallies,
        ends,
        lost,
    } = writer::open(path)?;
    let (health, _) = Gauge::new(path);
    let writer = Writer {
        path: path.to_owned(),
        db: Some(db),
        tallies,
        ends,
        health,
        counts: Arc::default(),
        bound: crate::journal::rotate::Bound::new(u64::MAX),
        dropped: watch::channel(Dropped::default()).0,
    };
    Ok((writer, lost))
}

pub(super) fn outcome(db: &Connection, id: CommandId) -> Result<Option<String>, JournalError> {
    Ok(read::command(db, id)?.map(|(_, outcome)| outcome))
}

pub(super) fn job(ops: Vec<Op>) -> Job {
    Job {
        ops,
        done: oneshot::channel().0,
    }
}

/// A file with pages as small as they can be, so that all of it can be tried.
pub(super) fn small_file(path: &Path) -> Writer {
    let db = Connection::open(path).unwrap();
    db.pragma_update(None, "page_size", 512).unwrap();
    db.execute_batch("CREATE TABLE t (x); DROP TABLE t;")
        .unwrap();
    drop(db);
    open_writer(path).unwrap().0
}

fn contents(db: &Connection) -> Contents {
    let mut all = Contents::default();
    for stream in STREAMS {
        let mut after = 0;
        let end = read::end_of(db, stream).unwrap();
        let head = end.map_or(0, |(end, _)| end.head);
        all.heads.push(head);
        while after < head {
            match read::envelopes(db, stream, after, 1) {
                Ok(found) => {
                    after = found.last().unwrap().last;
                    all.envelopes.extend(found);
                }
                Err(JournalError::Damaged {
                    stream,
                    first,
                    last,
                }) => {
                    assert_eq!(first, after + 1);
                    all.lost.push((stream, first, last));
                    after = last;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let keys = read::keys(db, STREAMS[0]).unwrap();
    all.keys = keys
        .iter()
        .map(|(epoch, key)| (*epoch, *key.expose()))
        .collect();
    let ids = (1..=EVENTS).map(|n| command(u8::try_from(n).unwrap()));
    all.outcomes = ids.map(|id| outcome(db, id).unwrap()).collect();
    all.letters = read::letters(db).unwrap();
    all.sessions = read::sessions(db).unwrap();
    all.blob = read::blob(db, farhelm_core::seal::blob_name(b"sealed")).unwrap();
    all
}

fn write_file(path: &Path, bytes: &[u8]) {
    for end in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        std::fs::remove_file(PathBuf::from(beside)).unwrap_or_default();
    }
    std::fs::write(path, bytes).unwrap();
}

/// Opens a file that was damaged and holds it against what it was. Whether it could be used.
fn examine(path: &Path, whole: &Contents, what: &str) -> bool {
    let Ok((writer, lost)) = open_writer(path) else {
        return false;
    };
    let found = contents(writer.db.as_ref().unwrap());
    assert_eq!(found.heads, whole.heads, "{what}");
    for envelope in &whole.envelopes {
        let is_lost = found.lost.iter().any(|(stream, first, last)| {
            *stream == envelope.stream && (*first..=*last).contains(&envelope.first)
        });
        assert!(
            is_lost != found.envelopes.contains(envelope),
            "{what}: {} {}",
            envelope.stream,
            envelope.first
        );
    }
    assert!(
        found
            .envelopes
            .iter()
            .all(|each| whole.envelopes.contains(each)),
        "{what}"
    );
    for (is, was) in found.outcomes.iter().zip(&whole.outcomes) {
        let text = is.as_ref().unwrap_or_else(|| panic!("{what}: forgotten"));
        assert!(
            Some(text) == was.as_ref() || text.contains("state_unusable"),
            "{what}"
        );
    }
    let tables = [
        ("keys", found.keys.len() == whole.keys.len()),
        ("letters", found.letters.len() == whole.letters.len()),
        ("sessions", found.sessions == whole.sessions),
    ];
    for (table, is_whole) in tables {
        assert!(
            is_whole || lost.contains(&Lost::Table(table)),
            "{what}: {table}"
        );
    }
    assert!(
        found.keys.iter().all(|key| whole.keys.contains(key)),
        "{what}"
    );
    assert!(
        found
            .letters
            .iter()
            .all(|letter| whole.letters.contains(letter)),
        "{what}"
    );
    assert!(found.blob.is_none() || found.blob == whole.blob, "{what}");
    true
}

/// A small journal in one file, and what it holds.
fn whole_file(path: &Path) -> (Vec<u8>, Contents) {
    let mut writer = small_file(path);
    for ops in commits() {
        writer.write_group(&[job(ops)]).unwrap();
    }
    let whole = contents(writer.db.as_ref().unwrap());
    drop(writer);
    (std::fs::read(path).unwrap(), whole)
}

/// Each byte of the file altered: what is served is right, or it is said to be lost.
fn flip_each(part: usize) {
    let folder = folder();
    let (bytes, whole) = whole_file(&folder.path().join("whole.db"));
    assert_eq!(whole.envelopes.len(), 12);
    let path = folder.path().join("journal.db");
    let stride = if std::env::var_os("FARHELM_EXHAUSTIVE").is_some() {
        1
    } else {
        STRIDE
    };
    let places: Vec<_> = (part..bytes.len()).step_by(PARTS * stride).collect();
    let mut refused = 0;
    for at in places.iter().copied() {
        let mut damaged = bytes.clone();
        // Another bit with each byte.
        damaged[at] ^= 1 << (at.wrapping_mul(7) % 8);
        write_file(&path, &damaged);
        if !examine(&path, &whole, &format!("byte {at}")) {
            refused += 1;
        }
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap().path();
            if entry.to_string_lossy().contains("damaged") {
                std::fs::remove_file(entry).unwrap();
            }
        }
    }
    // Few bytes say what kind of file it is and where its tables are.
    assert!(refused < places.len() / 7, "{refused} of {}", places.len());
}

/// A run without `FARHELM_EXHAUSTIVE` tries one byte of so many, in each page.
const STRIDE: usize = 7;
const PARTS: usize = 2;

#[test]
fn f17_each_altered_byte_is_noticed_and_nothing_false_is_served() {
    flip_each(0);
}

#[test]
fn f17_each_altered_byte_is_noticed_and_nothing_false_is_served_in_the_other_half() {
    flip_each(1);
}

/// The file cut at each page and in the middle of each.
#[test]
fn f17_a_file_that_was_cut_gives_what_is_left_and_says_what_is_not() {
    let folder = folder();
    let (bytes, whole) = whole_file(&folder.path().join("whole.db"));
    let path = folder.path().join("journal.db");
    let mut used = 0;
    for length in (1..bytes.len()).step_by(256) {
        write_file(&path, &bytes[..length]);
        let mut allowed = Contents {
            heads: whole.heads.clone(),
            ..Contents::default()
        };
        allowed.envelopes.clone_from(&whole.envelopes);
        if let Ok((writer, _)) = open_writer(&path) {
            used += 1;
            let found = contents(writer.db.as_ref().unwrap());
            assert!(
                found
                    .envelopes
                    .iter()
                    .all(|each| whole.envelopes.contains(each))
            );
            assert!(
                found.outcomes.iter().zip(&whole.outcomes).all(|(is, was)| {
                    is == was
                        || is
                            .as_ref()
                            .is_some_and(|text| text.contains("state_unusable"))
                }),
                "cut at {length}: {:?}",
                found.outcomes
            );
            assert!(found.keys.iter().all(|key| whole.keys.contains(key)));
        }
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap().path();
            if entry.to_string_lossy().contains("damaged") {
                std::fs::remove_file(entry).unwrap();
            }
        }
    }
    assert!(used > 0);
}

/// The log of what was written last, cut at each byte as a power cut may: the journal is as it
/// was after one of its commits, and never between two.
#[test]
fn f17_a_torn_tail_is_cut_to_the_last_commit() {
    let folder = folder();
    let source = folder.path().join("whole.db");
    let mut writer = small_file(&source);
    let mut states = vec![contents(writer.db.as_ref().unwrap())];
    writer
        .db
        .as_ref()
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    for ops in commits() {
        writer.write_group(&[job(ops)]).unwrap();
        states.push(contents(writer.db.as_ref().unwrap()));
    }
    let main = std::fs::read(&source).unwrap();
    let wal = std::fs::read(folder.path().join("whole.db-wal")).unwrap();
    drop(writer);

    let path = folder.path().join("journal.db");
    let mut reached = 0;
    for length in (0..=wal.len()).step_by(37).chain([wal.len()]) {
        write_file(&path, &main);
        std::fs::write(folder.path().join("journal.db-wal"), &wal[..length]).unwrap();
        let (writer, lost) = open_writer(&path).unwrap();
        let found = contents(writer.db.as_ref().unwrap());
        let state = states.iter().position(|state| *state == found);
        let state = state.unwrap_or_else(|| panic!("cut at {length}: {found:?}"));
        assert!(state >= reached && lost.is_empty(), "cut at {length}");
        reached = state;
    }
    assert_eq!(reached, states.len() - 1);
}

#[tokio::test]
async fn f17_a_damaged_envelope_is_refused_and_other_logs_go_on() {
    let folder = folder();
    let path = folder.path().join("journal.db");
    {
        let journal = Journal::open(&path).unwrap();
        for ops in commits() {
            journal.commit(ops).await.unwrap();
        }
        journal.settle().await.unwrap();
        let db = Connection::open(&path).unwrap();
        let sql = "UPDATE envelopes SET frame = x'00' WHERE stream = ?1 AND last IN (3, 4)";
        assert_eq!(db.execute(sql, [STREAMS[0].as_bytes()]).unwrap(), 2);
        let before = journal.envelopes(STREAMS[0], 0, 1_000_000).await.unwrap();
        assert_eq!(before.last().unwrap().last, 2);
        let error = journal
            .envelopes(STREAMS[0], 2, 1_000_000)
            .await
            .unwrap_err();
        assert!(matches!(
            error,
            JournalError::Damaged {
                first: 3,
                last: 4,
                ..
            }
        ));
        assert_eq!(error.code(), Code::StateUnusable);
        assert_eq!(journal.damages().all().len(), 1);
        let rest = journal.envelopes(STREAMS[0], 4, 1_000_000).await.unwrap();
        assert_eq!((rest[0].first, rest.len()), (5, 2));
        let other = journal.envelopes(STREAMS[1], 0, 1_000_000).await.unwrap();
        assert_eq!(other.len(), 6);

        // It is put back from elsewhere.
        let again = [3, 4].map(|seq| Op::Mend(chained(STREAMS[0], seq)));
        journal.commit(again.into()).await.unwrap();
    }
    let journal = Journal::open(&path).unwrap();
    let all = journal.envelopes(STREAMS[0], 0, 1_000_000).await.unwrap();
    assert_eq!(
        all,
        (1..=6)
            .map(|seq| chained(STREAMS[0], seq))
            .collect::<Vec<_>>()
    );
}

/// A command that was decided is never decided again because its record was lost.
#[test]
fn f17_a_command_whose_record_is_lost_is_refused_and_a_later_one_is_not() {
    let folder = folder();
    let path = folder.path().join("journal.db");
    let (mut writer, _) = open_writer(&path).unwrap();
    for ops in commits() {
        writer.write_group(&[job(ops)]).unwrap();
    }
    let db = writer.db.take().unwrap();
    db.execute(
        "DELETE FROM commands WHERE id = ?1",
        [command(2).as_bytes()],
    )
    .unwrap();
    drop(db);
    let (writer, lost) = open_writer(&path).unwrap();
    assert_eq!(lost, [Lost::Table("commands")]);
    let db = writer.db.as_ref().unwrap();
    assert_eq!(
        outcome(db, command(1)).unwrap().as_deref(),
        Some("outcome 1")
    );
    // Ids begin with their time; this one is of 1970 and so is older than the loss.
    let early = CommandId::from_bytes([0; 16]);
    assert!(
        outcome(db, early)
            .unwrap()
            .unwrap()
            .contains("state_unusable")
    );
    let soon = farhelm_link::clock::now().plus_millis(60_000);
    let later = CommandId::fresh(soon, [7; 10]);
    assert_eq!(outcome(db, later).unwrap(), None);
    // The loss is said once and remembered for ever.
    drop(writer);
    let (writer, lost) = open_writer(&path).unwrap();
    assert_eq!(lost, []);
    let db = writer.db.as_ref().unwrap();
    assert!(outcome(db, early).unwrap().is_some());
}

/// A file of the first version, as it was written before there were sums.
fn first_version(path: &Path) {
    let db = Connection::open(path).unwrap();
    db.execute_batch(schema::FIRST).unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    for seq in 1..=3_u8 {
        let envelope = chained(STREAMS[0], u64::from(seq));
        db.execute(
            "INSERT INTO envelopes VALUES (?1, ?2, ?2, 1, ?3, ?4)",
            rusqlite::params![
                STREAMS[0].as_bytes(),
                seq,
                envelope.hash,
                envelope.frame.as_ref()
            ],
        )
        .unwrap();
        db.execute(
            "INSERT INTO commands VALUES (?1, NULL, ?2)",
            rusqlite::params![command(seq).as_bytes(), format!("outcome {seq}")],
        )
        .unwrap();
    }
    db.execute(
        "INSERT INTO streams VALUES (?1, 3, ?2, 1)",
        rusqlite::params![STREAMS[0].as_bytes(), [3_u8; 32]],
    )
    .unwrap();
    db.execute("INSERT INTO sessions VALUES (?1, 'spec')", [[1_u8; 16]])
        .unwrap();
}

fn is_migrated(path: &Path) {
    let (writer, lost) = open_writer(path).unwrap();
    let db = writer.db.as_ref().unwrap();
    assert_eq!(lost, []);
    let all = read::envelopes(db, STREAMS[0], 0, 1_000_000).unwrap();
    assert_eq!(
        all,
        (1..=3)
            .map(|seq| chained(STREAMS[0], seq))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        outcome(db, command(2)).unwrap().as_deref(),
        Some("outcome 2")
    );
    assert_eq!(read::sessions(db).unwrap().len(), 1);
}

/// An upgrade that is interrupted anywhere leaves the old file or the new one. What is on the disk
/// at each moment is tried by cutting the log of the upgrade at each of its bytes.
#[test]
fn f36_an_interrupted_migration_leaves_the_old_version_or_the_new() {
    let folder = folder();
    let source = folder.path().join("old.db");
    first_version(&source);
    is_migrated(&{
        let copy = folder.path().join("copy.db");
        std::fs::copy(&source, &copy).unwrap();
        copy
    });
    let old = std::fs::read(&source).unwrap();
    let keep = Connection::open(&source).unwrap();
    keep.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
        .unwrap();
    let mut db = writer::connect(&source).unwrap();
    schema::migrate(&mut db).unwrap();
    let wal = std::fs::read(folder.path().join("old.db-wal")).unwrap();
    assert!(wal.len() > 4096);
    drop((db, keep));

    let path = folder.path().join("journal.db");
    let mut versions = [0, 0, 0, 0];
    for length in (0..wal.len()).step_by(499).chain([wal.len()]) {
        write_file(&path, &old);
        std::fs::write(folder.path().join("journal.db-wal"), &wal[..length]).unwrap();
        let db = writer::connect(&path).unwrap();
        let version = schema::version(&db).unwrap();
        drop(db);
        versions[usize::try_from(version).unwrap() - 1] += 1;
        is_migrated(&path);
    }
    assert!(versions.iter().all(|count| *count > 0), "{versions:?}");
}

#[test]
fn f36_a_journal_of_a_later_version_is_refused_with_what_to_do() {
    let folder = folder();
    let path = folder.path().join("journal.db");
    drop(open_writer(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", schema::VERSION + 1)
        .unwrap();
    drop(db);
    let error = Journal::open(&path).unwrap_err();
    assert_eq!(error.code(), Code::StateUnusable);
    let text = error.to_string();
    assert!(
        text.contains("version 5") && text.contains("update farhelm"),
        "{text}"
    );
}

/// An error below SQLite fails the commit, for good: the file is opened anew, and what failed is
/// not there, neither then nor after a restart.
#[test]
fn f18_a_failed_write_is_failed_and_the_file_is_opened_anew() {
    let folder = folder();
    let path = folder.path().join("journal.db");
    let (mut writer, _) = open_writer(&path).unwrap();
    let mut commits = commits();
    writer.write_group(&[job(commits.remove(0))]).unwrap();
    let broken = rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
        None,
    );
    let error = JournalError::from(broken);
    assert!(error.is_broken() && error.may_pass() && !error.is_full());
    // What the writer does on such an error.
    writer.db = None;
    writer.health.failed(&error);
    assert!(matches!(writer.health.health(), Health::Paused(_)));
    writer.write_group(&[job(commits.remove(0))]).unwrap();
    assert_eq!(writer.health.health(), Health::Sound);
    let db = writer.db.as_ref().unwrap();
    let noted: bool = db
        .prepare("SELECT 1 FROM notes WHERE name = 'write_failed'")
        .unwrap()
        .exists([])
        .unwrap();
    assert!(
        noted,
        "something was written over the place of the failed commit"
    );
    assert_eq!(contents(db).envelopes.len(), 2);
    let mut counted = sum::Tallies::count(db).unwrap();
    counted.keep_commits(&writer.tallies);
    assert_eq!(counted, writer.tallies);
    assert_eq!(counted.commits(), 2);
}

/// T14: under a flood many commits share one wait for the disk.
#[tokio::test]
async fn t14_a_flood_waits_for_the_disk_seldom() {
    let folder = folder();
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let streams: Vec<_> = (0..50_u8).map(|n| StreamId::from_bytes([n; 16])).collect();
    // Sessions at the same time, each waiting for its own commit of 20 events.
    let tasks = streams.into_iter().map(|stream| {
        let journal = journal.clone();
        tokio::spawn(async move {
            for round in 0..20_u64 {
                let envelope = StoredEnvelope {
                    first: round * 20 + 1,
                    last: round * 20 + 20,
                    ..chained(stream, 1)
                };
                journal.commit(vec![Op::Envelope(envelope)]).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let per_thousand = journal.commits() * 1_000 / (50 * 20 * 20);
    assert!(per_thousand <= 20, "{per_thousand} waits for 1,000 events");
}
