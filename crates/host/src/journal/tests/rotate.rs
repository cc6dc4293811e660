//! A journal that may become only so large.

use super::*;

const STREAM: StreamId = StreamId::from_bytes([1; 16]);
const PIECE: usize = 64 * 1024;
const MOST: u64 = 4 * 1024 * 1024;

/// The n-th output, with the event that shows it.
fn output(n: u64) -> ([u8; 32], Vec<Op>) {
    let (name, blob) = piece(STREAM, n, PIECE);
    (name, vec![blob, Op::Envelope(envelope(STREAM, n, n))])
}

/// The n-th piece of an output, so large.
fn piece(stream: StreamId, n: u64, size: usize) -> ([u8; 32], Op) {
    let mut bytes = vec![7; size];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    let name = farhelm_core::seal::blob_name(&bytes);
    let blob = Op::Blob {
        name,
        stream,
        bytes: bytes.into(),
    };
    (name, blob)
}

/// How many pieces the file has.
fn pieces(path: &Path) -> u64 {
    let db = Connection::open(path).unwrap();
    let count = db.query_row("SELECT count(*) FROM blobs", [], |row| row.get(0));
    from_sql(count.unwrap())
}

/// Waits until the writer, which drops after it has answered, is done.
async fn settled(journal: &Journal) -> Dropped {
    // Whatever was before it has been looked after when this is answered.
    journal.commit(Vec::new()).await.unwrap();
    journal.dropped(STREAM).await.unwrap().unwrap_or_default()
}

#[tokio::test]
async fn f35_the_oldest_outputs_go_and_that_they_went_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open_within(&path, MOST).unwrap();
    let mut dropping = journal.dropping();
    dropping.mark_unchanged();
    let mut names = Vec::new();
    for n in 1..=400 {
        let (name, ops) = output(n);
        journal.commit(ops).await.unwrap();
        names.push(name);
        if n > 100 && n % 10 == 0 {
            settled(&journal).await;
            let kept = pieces(&path) * PIECE as u64;
            // Between two looks a mebibyte is written.
            assert!(kept > MOST / 2, "only what is too much: {kept} are kept");
        }
    }
    let dropped = settled(&journal).await;
    assert!(dropping.has_changed().unwrap() && dropped.should_be_said());
    let gone = usize::try_from(dropped.pieces).unwrap();
    assert_eq!(dropped.bytes, (gone * PIECE) as u64);
    assert!((300..400).contains(&gone), "{dropped:?}");
    assert_eq!(journal.dropped_in_all().bytes, dropped.bytes);
    for (n, name) in names.iter().enumerate() {
        let found = journal.blob(*name).await.unwrap();
        assert_eq!(found.is_some(), n >= gone, "{n}: the oldest, and no other");
    }
    let events = journal.envelopes(STREAM, 0, usize::MAX).await.unwrap();
    assert_eq!(events.len(), 400, "no event is dropped");
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 2 * MOST, "{size}");
    // It is not said again until there is as much again.
    let bytes = dropped.bytes;
    let said = Op::DroppedSaid {
        stream: STREAM,
        bytes,
    };
    journal.commit(vec![said]).await.unwrap();
    let dropped = journal.dropped(STREAM).await.unwrap().unwrap();
    assert!(!dropped.should_be_said());
    drop(journal);

    // One that is told of a smaller size when it is opened drops the rest of what is too much.
    let journal = Journal::open_within(&path, MOST / 2).unwrap();
    journal.commit(output(401).1).await.unwrap();
    let later = settled(&journal).await;
    assert!(later.pieces > dropped.pieces && later.said == dropped.bytes);
}

#[tokio::test]
async fn f35_what_is_no_output_is_kept_however_large_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open_within(&path, 1).unwrap();
    let long = |n| StoredEnvelope {
        frame: vec![9; 2 * PIECE].into(),
        ..envelope(STREAM, n, n)
    };
    for n in 1..=40 {
        let ops = vec![Op::Envelope(long(n))];
        journal.commit(ops).await.unwrap();
    }
    assert_eq!(settled(&journal).await, Dropped::default());
    let found = journal.envelopes(STREAM, 0, usize::MAX).await.unwrap();
    assert_eq!(found, (1..=40).map(long).collect::<Vec<_>>());
    // That nothing is left to drop is said while it is so.
    let beyond = journal.beyond();
    assert!(beyond > 30 * 2 * PIECE as u64, "{beyond}");
    drop(journal);
    let journal = Journal::open_within(&path, beyond + MOST).unwrap();
    settled(&journal).await;
    settled(&journal).await;
    assert_eq!(journal.beyond(), 0);
}

/// Each log is told of its own outputs; what an earlier version did not know whose it was is nobody's.
#[tokio::test]
async fn f35_each_log_is_charged_with_its_own_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let other = StreamId::from_bytes([2; 16]);
    {
        let journal = Journal::open(&path).unwrap();
        let mut ops = Vec::new();
        for n in 0..30 {
            let stream = if n < 10 { STREAM } else { other };
            ops.push(piece(stream, n, PIECE).1);
        }
        journal.commit(ops).await.unwrap();
        let db = Connection::open(&path).unwrap();
        let sql = "UPDATE blobs SET stream = NULL WHERE rowid IN (9, 10, 11)";
        assert_eq!(db.execute(sql, []).unwrap(), 3);
    }
    let journal = Journal::open_within(&path, 1).unwrap();
    // The first look comes after the first commit.
    settled(&journal).await;
    let ours = settled(&journal).await;
    assert_eq!((ours.pieces, ours.bytes), (8, 8 * PIECE as u64));
    let theirs = journal.dropped(other).await.unwrap().unwrap();
    assert_eq!((theirs.pieces, theirs.bytes), (19, 19 * PIECE as u64));
    assert_eq!(journal.dropped_in_all().pieces, 30);
}

/// What is far too much goes in steps, and each next commit goes on with it.
#[tokio::test]
async fn f35_what_is_too_much_for_one_go_is_dropped_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    {
        let journal = Journal::open(&path).unwrap();
        let ops = (0..1500).map(|n| piece(STREAM, n, 600).1).collect();
        journal.commit(ops).await.unwrap();
    }
    let journal = Journal::open_within(&path, 1).unwrap();
    settled(&journal).await;
    assert!(pieces(&path) > 0, "nobody waits for all of it");
    for _ in 0..4 {
        settled(&journal).await;
    }
    assert_eq!(pieces(&path), 0);
    assert_eq!(settled(&journal).await.pieces, 1500);
}

/// An output goes only together with the note that it went.
#[tokio::test]
async fn f35_what_cannot_be_noted_is_not_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let journal = Journal::open_within(&path, MOST).unwrap();
    let stop = "CREATE TRIGGER stop BEFORE INSERT ON dropped BEGIN SELECT raise(ABORT, 'no'); END";
    let db = Connection::open(&path).unwrap();
    db.execute_batch(stop).unwrap();
    for n in 1..=100 {
        journal.commit(output(n).1).await.unwrap();
    }
    settled(&journal).await;
    assert_eq!(pieces(&path), 100);
    db.execute_batch("DROP TRIGGER stop").unwrap();
    journal.commit(output(101).1).await.unwrap();
    let dropped = settled(&journal).await;
    assert!(dropped.pieces > 30, "{dropped:?}");
    assert_eq!(pieces(&path) + dropped.pieces, 101);
}
