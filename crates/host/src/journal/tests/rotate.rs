//! A journal that may become only so large.

use super::*;

const STREAM: StreamId = StreamId::from_bytes([1; 16]);
const PIECE: usize = 64 * 1024;
const MOST: u64 = 4 * 1024 * 1024;

/// The n-th output, with the event that shows it.
fn output(n: u64) -> ([u8; 32], Vec<Op>) {
    let mut bytes = vec![7; PIECE];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    let name = farhelm_core::seal::blob_name(&bytes);
    let blob = Op::Blob {
        name,
        stream: STREAM,
        bytes: bytes.into(),
    };
    (name, vec![blob, Op::Envelope(envelope(STREAM, n, n))])
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
    let journal = Journal::open_within(&folder.path().join("journal.db"), 1).unwrap();
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
}
