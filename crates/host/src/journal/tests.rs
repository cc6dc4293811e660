//! What the journal keeps, and what it says about a file that is not as it was left.

use super::*;

#[tokio::test]
async fn what_is_committed_is_read_back_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    let stream = StreamId::from_bytes([1; 16]);
    {
        let journal = Journal::open(&path).unwrap();
        let ops = vec![
            Op::Envelope(envelope(stream, 1, 2)),
            Op::Envelope(envelope(stream, 3, 3)),
        ];
        journal.commit(ops).await.unwrap();
    }
    let journal = Journal::open(&path).unwrap();
    let found = journal.envelopes(stream, 2, 1_000_000).await.unwrap();
    assert_eq!(found, vec![envelope(stream, 3, 3)]);
    assert_eq!(journal.stream(stream).await.unwrap().unwrap().head, 3);
}

#[tokio::test]
async fn an_envelope_that_does_not_continue_the_stream_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let stream = StreamId::from_bytes([1; 16]);
    let ops = vec![
        Op::Blob {
            name: [1; 32],
            stream,
            bytes: Bytes::from_static(b"x"),
        },
        Op::Envelope(envelope(stream, 2, 2)),
    ];
    assert!(journal.commit(ops).await.is_err());
    assert_eq!(journal.blob([1; 32]).await.unwrap(), None);
}

#[tokio::test]
async fn a_command_has_one_outcome_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
    let id = CommandId::from_bytes([3; 16]);
    let op = |outcome: &str| Op::Command {
        id,
        device: None,
        outcome: outcome.to_owned(),
    };
    journal.commit(vec![op("first")]).await.unwrap();
    assert!(journal.commit(vec![op("second")]).await.is_err());
    assert_eq!(journal.outcome(id).await.unwrap().as_deref(), Some("first"));
}

fn envelope(stream: StreamId, first: u64, last: u64) -> StoredEnvelope {
    StoredEnvelope {
        stream,
        first,
        last,
        base: 0,
        hash: [7; 32],
        frame: Bytes::from_static(b"frame"),
    }
}

mod damage;
mod disk;
mod ends;
mod rotate;
