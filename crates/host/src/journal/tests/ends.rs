//! F17: what SQLite cuts off at the end without a word is noticed, with no relay that had it.

use super::super::{ends, read};
use super::damage::{
    EVENTS, STREAMS, chained, command, commits, folder, job, open_writer, outcome, small_file,
};
use super::*;

const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.ends"];

type Files = [Vec<u8>; 3];

fn read_files(folder: &Path) -> Files {
    FILES.map(|name| std::fs::read(folder.join(name)).unwrap_or_default())
}

/// Puts the files of a journal there, as a daemon leaves them that is killed.
fn put_files(folder: &Path, files: &Files) {
    drop(std::fs::remove_file(folder.join("journal.db-shm")));
    for (name, bytes) in FILES.iter().zip(files) {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The files after each commit of a small journal.
fn killed_after_each_commit() -> Vec<Files> {
    let folder = folder();
    let mut writer = small_file(&folder.path().join("journal.db"));
    let mut files = Vec::new();
    let mut all = commits();
    // The last one has no event.
    all.push(vec![Op::LetterPosted { id: command(101) }]);
    for ops in all {
        writer.write_group(&[job(ops)]).unwrap();
        files.push(read_files(folder.path()));
    }
    files
}

fn heads(db: &Connection) -> [u64; 2] {
    STREAMS.map(|stream| {
        let end = read::end_of(db, stream).unwrap();
        end.map_or(0, |(end, _)| end.head)
    })
}

/// In the file of the log of what was written last (SQLite's file format, 4.1), with pages of 512 bytes.
const HEADER: usize = 32;
const FRAME: usize = 24 + 512;

#[test]
fn f17_what_a_flipped_bit_in_the_write_ahead_log_cuts_off_is_named() {
    let mut files = killed_after_each_commit();
    let whole = files.pop().unwrap();
    let frames = (whole[1].len() - HEADER) / FRAME;
    assert!(frames > 40, "{frames}");
    let places = (0..frames).step_by(3).chain([frames - 1]);
    let places = places.map(|frame| HEADER + frame * FRAME + frame * 7 % FRAME);
    let folder = folder();
    let path = folder.path().join("journal.db");
    let mut cut_to = Vec::new();
    for at in places.chain([9]) {
        let mut damaged = whole.clone();
        damaged[1][at] ^= 1 << (at % 8);
        put_files(folder.path(), &damaged);
        let (writer, lost) = open_writer(&path).unwrap();
        let db = writer.db.as_ref().unwrap();
        let heads = heads(db);
        for (stream, head) in STREAMS.into_iter().zip(heads) {
            let events = Lost::Events {
                stream,
                first: head + 1,
                last: EVENTS,
            };
            assert_eq!(lost.contains(&events), head < EVENTS, "byte {at}: {lost:?}");
            let noted = ends::lost_of(db, stream).unwrap();
            assert_eq!(noted, Some(EVENTS - head), "byte {at}");
        }
        assert!(
            lost.iter().any(|lost| matches!(lost, Lost::Commits(1..))),
            "byte {at}: {lost:?}"
        );
        // What may have been decided in what is lost is not decided again.
        for n in 1..=u8::try_from(EVENTS).unwrap() {
            let outcome = outcome(db, command(n)).unwrap().unwrap();
            let is_there = outcome == format!("outcome {n}");
            assert_eq!(is_there, u64::from(n) <= heads[0], "byte {at}: {n}");
            assert!(is_there || outcome.contains("state_unusable"));
        }
        cut_to.push(heads[0]);
        // It is said at one start, and goes on to be noted until the logs say it.
        drop(writer);
        let (mut writer, lost) = open_writer(&path).unwrap();
        assert_eq!(lost, [], "byte {at}");
        let stream = STREAMS[0];
        let next = Op::Envelope(chained(stream, heads[0] + 1));
        let said = vec![next, Op::LostEndSaid { stream }];
        writer.write_group(&[job(said)]).unwrap();
        let db = writer.db.as_ref().unwrap();
        assert_eq!(ends::lost_of(db, stream).unwrap(), None);
        assert!(ends::lost_of(db, STREAMS[1]).unwrap().is_some());
    }
    cut_to.dedup();
    assert!(cut_to.len() >= 6, "{cut_to:?}");
}

/// A journal that has all that it had is not accused: after a kill between a commit and the note of it, after a
/// power cut that took the notes, or after an older program that makes none.
#[test]
fn f17_a_journal_that_is_ahead_of_what_is_known_of_it_has_lost_nothing() {
    let files = killed_after_each_commit();
    let whole = files.last().unwrap();
    let folder = folder();
    let opens_whole = |ends: Vec<u8>, what: &str| {
        let [db, log, _] = whole.clone();
        put_files(folder.path(), &[db, log, ends]);
        let (writer, lost) = open_writer(&folder.path().join("journal.db")).unwrap();
        assert_eq!(lost, [], "{what}");
        let db = writer.db.as_ref().unwrap();
        assert_eq!(heads(db), [EVENTS, EVENTS], "{what}");
        assert_eq!(outcome(db, command(99)).unwrap(), None, "{what}");
    };
    for (n, earlier) in files.iter().enumerate() {
        opens_whole(earlier[2].clone(), &format!("after commit {n}"));
    }
    let ends = &whole[2];
    opens_whole(Vec::new(), "nothing");
    opens_whole(ends[..ends.len() - 5].to_vec(), "cut");
    opens_whole(vec![0; ends.len()], "zeroes");
    for at in 0..ends.len() {
        let mut torn = ends.clone();
        torn[at] ^= 1 << (at % 8);
        opens_whole(torn, &format!("byte {at}"));
    }
}

/// What was refused is not known of as if it had been written.
#[test]
fn f17_a_commit_that_failed_is_not_missed() {
    let folder = folder();
    let path = folder.path().join("journal.db");
    let (mut writer, _) = open_writer(&path).unwrap();
    let first = || vec![Op::Envelope(chained(STREAMS[0], 1))];
    writer.write_group(&[job(first())]).unwrap();
    let mut gap = first();
    gap.push(Op::Envelope(chained(STREAMS[1], 1)));
    gap.push(Op::LetterPosted { id: command(1) });
    gap.push(Op::Envelope(chained(STREAMS[1], 3)));
    gap.remove(0);
    writer.write_group(&[job(gap)]).unwrap_err();
    drop(writer);
    assert_eq!(open_writer(&path).unwrap().1, []);
}

/// A journal that was put back alone, without what is known of it, says what it lacks.
#[test]
fn f17_an_older_journal_in_the_place_of_a_newer_one_is_noticed() {
    let files = killed_after_each_commit();
    let folder = folder();
    let [db, log, _] = files[3].clone();
    let [.., ends] = files.last().unwrap().clone();
    let path = folder.path().join("journal.db");
    put_files(folder.path(), &[db.clone(), log.clone(), ends.clone()]);
    let (_, lost) = open_writer(&path).unwrap();
    let missing = STREAMS.map(|stream| Lost::Events {
        stream,
        first: 4,
        last: EVENTS,
    });
    assert_eq!(lost[1..], missing, "{lost:?}");
    assert_eq!(lost[0], Lost::Commits(4));
    // And one that was put back with it does not.
    let [.., then] = files[3].clone();
    put_files(folder.path(), &[db, log, then]);
    assert_eq!(open_writer(&path).unwrap().1, []);
    // One that is gone altogether is a new one, which says so.
    put_files(folder.path(), &[Vec::new(), Vec::new(), ends]);
    let (writer, lost) = open_writer(&path).unwrap();
    assert_eq!(lost.len(), 3, "{lost:?}");
    let early = outcome(writer.db.as_ref().unwrap(), command(1)).unwrap();
    assert!(early.unwrap().contains("state_unusable"));
}

/// Epochs that may have begun in what is lost do not begin again with other keys.
#[tokio::test]
async fn f17_no_epoch_of_a_lost_end_is_used_twice() {
    let files = killed_after_each_commit();
    let folder = folder();
    let [db, log, _] = files[2].clone();
    let [.., ends] = files.last().unwrap().clone();
    put_files(folder.path(), &[db, log, ends]);
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let stream = STREAMS[0];
    assert_eq!(journal.lost_end(stream).await.unwrap(), Some(EVENTS - 2));
    let last = journal.last_epoch(stream).await.unwrap();
    assert!(u64::from(last) >= EVENTS, "{last}");
    let key = Op::Key {
        stream,
        epoch: last + 1,
        key: Box::new(ContentKey::from_bytes([1; 32])),
    };
    let ops = vec![key, Op::LostEndSaid { stream }];
    journal.commit(ops).await.unwrap();
    assert_eq!(journal.last_epoch(stream).await.unwrap(), last + 1);
}
