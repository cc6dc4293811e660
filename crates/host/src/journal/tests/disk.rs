//! F18: what people are told of a disk that does not answer.

use super::super::health::Gauge;
use super::*;

/// A journal whose writer is the test: it answers when that likes.
fn unanswered(path: &Path) -> (Journal, mpsc::Receiver<Job>, Arc<Gauge>) {
    let (sender, jobs) = mpsc::channel(WAITING);
    let (gauge, seen) = Gauge::new(path);
    let journal = Journal {
        way: Way::Thread(sender, Arc::clone(&gauge)),
        health: seen,
        ..Journal::in_memory(None).unwrap()
    };
    (journal, jobs, gauge)
}

/// Whoever looks while the disk hangs is told until the last of those is answered that have waited
/// for too long: not only the first, and not by one that was quick.
#[tokio::test]
async fn f18_a_disk_counts_as_hanging_until_the_last_that_waits_for_long_is_answered() {
    let (journal, mut jobs, gauge) = unanswered(Path::new("/nowhere/journal.db"));
    let commit = || {
        let journal = journal.clone();
        tokio::spawn(async move { journal.commit(Vec::new()).await })
    };
    let is_sound = || *journal.health().borrow() == Health::Sound;
    let (first, second) = (commit(), commit());
    let one = jobs.recv().await.unwrap().done;
    let two = jobs.recv().await.unwrap().done;
    assert!(is_sound(), "nobody has waited for long");
    let both = async {
        while gauge.waiting() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(12 * SLOW, both).await.unwrap();
    assert!(!is_sound());
    let third = commit();
    let three = jobs.recv().await.unwrap().done;

    // The writer has got the first group through.
    gauge.sound();
    one.send(Ok(())).unwrap();
    first.await.unwrap().unwrap();
    assert!(!is_sound(), "the second waits for longer than it should");
    // One that gives up waits no longer, and one that has waited shortly is none of them.
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    drop(two);
    assert!(is_sound());
    three.send(Ok(())).unwrap();
    third.await.unwrap().unwrap();
}

/// A disk that is full and then hangs is full until something was written.
#[test]
fn f18_a_failure_outlasts_the_wait_that_came_with_it() {
    let (gauge, seen) = Gauge::new(Path::new("/nowhere/journal.db"));
    let code = || match seen.borrow().clone() {
        Health::Sound => None,
        Health::Paused(pause) => Some(pause.code),
    };
    let slow = gauge.slow(SLOW);
    assert_eq!(code(), Some(Code::JournalFailed));
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let full = rusqlite::Error::SqliteFailure(full, None);
    gauge.failed(&full.into());
    assert_eq!(code(), Some(Code::DiskFull));
    drop(slow);
    assert_eq!(code(), Some(Code::DiskFull));
    gauge.sound();
    assert_eq!(code(), None);
}

#[tokio::test]
async fn f18_a_disk_that_does_not_answer_is_named_while_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open(&path).unwrap();
    let mut health = journal.health();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writing = tokio::spawn({
        let journal = journal.clone();
        let stream = StreamId::from_bytes([1; 16]);
        async move {
            journal
                .commit(vec![Op::Envelope(envelope(stream, 1, 1))])
                .await
        }
    });
    let named = health.wait_for(|health| *health != Health::Sound);
    let named = tokio::time::timeout(Duration::from_secs(60), named).await;
    let Health::Paused(pause) = named.unwrap().unwrap().clone() else {
        panic!("a pause")
    };
    assert_eq!(pause.code, Code::JournalFailed);
    assert!(pause.text.contains("has not answered"), "{}", pause.text);
    other.execute_batch("ROLLBACK").unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(*journal.health().borrow(), Health::Sound);
}
