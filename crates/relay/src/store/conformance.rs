//! What every backend must do, run on each of them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use farhelm_proto::{CommandId, PeerId, StreamId, Timestamp, limits};

use crate::store::memory::Memory;
use crate::store::sqlite::{self, Sqlite, Use};
use crate::store::{Outcome, Sealed, StoreError, Tables, Write};

const HOST: PeerId = PeerId::from_bytes([1; 16]);
const OTHER: PeerId = PeerId::from_bytes([2; 16]);
const STREAM: StreamId = StreamId::from_bytes([3; 16]);
const NEVER: Timestamp = Timestamp(0);
const NOW: Timestamp = Timestamp(1_000);

/// Runs a check on an empty store of each kind.
fn check(run: impl Fn(&mut dyn Tables)) {
    run(&mut Memory::new([7; 16]));
    let folder = tempfile::tempdir().unwrap();
    let file = sqlite::prepare(folder.path()).unwrap();
    run(&mut Sqlite::open(&file, Use::Writing).unwrap());
}

#[test]
fn a_stream_is_read_back_as_it_was_written() {
    check(|store| {
        assert_eq!(store.last(HOST, STREAM).unwrap(), None);
        assert_eq!(store.after(HOST, STREAM, 0, 1_000).unwrap(), []);
        assert_eq!(
            store.before(HOST, STREAM, 9, 1_000).unwrap(),
            (vec![], false)
        );
        let frames = log(1, 300, 2, 1_000);
        append(store, &frames[..10]).unwrap();
        append(store, &frames[10..11]).unwrap();
        append(store, &frames[11..]).unwrap();
        assert_eq!(store.last(HOST, STREAM).unwrap().as_ref(), frames.last());
        assert_eq!(store.after(HOST, STREAM, 0, usize::MAX).unwrap(), frames);
        for skip in [1, 9, 10, 11, 12, 150, 299, 300] {
            let after = (skip * 2) as u64;
            assert_eq!(
                store.after(HOST, STREAM, after, usize::MAX).unwrap(),
                frames[skip..],
                "{skip}"
            );
            assert_eq!(
                store.before(HOST, STREAM, after + 1, usize::MAX).unwrap(),
                (frames[..skip].to_vec(), false)
            );
            assert_eq!(
                store.holding(HOST, STREAM, after).unwrap().as_ref(),
                frames.get(skip - 1)
            );
            assert_eq!(
                store.holding(HOST, STREAM, after - 1).unwrap().as_ref(),
                frames.get(skip - 1)
            );
        }
        assert_eq!(store.holding(HOST, STREAM, 601).unwrap(), None);
        // Another host's stream of the same name is another stream.
        assert_eq!(store.last(OTHER, STREAM).unwrap(), None);
    });
}

#[test]
fn pieces_are_bounded_and_never_empty_while_there_is_more() {
    check(|store| {
        let frames = log(1, 100, 1, 1_000);
        append(store, &frames).unwrap();
        assert_eq!(store.after(HOST, STREAM, 5, 1).unwrap(), frames[5..6]);
        assert_eq!(store.after(HOST, STREAM, 5, 3_000).unwrap(), frames[5..8]);
        assert_eq!(
            store.before(HOST, STREAM, 6, 1).unwrap(),
            (frames[4..5].to_vec(), true)
        );
        assert_eq!(
            store.before(HOST, STREAM, 6, 3_000).unwrap(),
            (frames[2..5].to_vec(), true)
        );
        assert_eq!(
            store.before(HOST, STREAM, 4, 3_000).unwrap(),
            (frames[..3].to_vec(), false)
        );
        assert_eq!(
            store.before(HOST, STREAM, 1, 3_000).unwrap(),
            (vec![], false)
        );
        assert_eq!(
            store.before(HOST, STREAM, u64::MAX, 1).unwrap(),
            (frames[99..].to_vec(), true)
        );
    });
}

#[test]
fn only_what_continues_a_stream_is_stored_and_the_rest_of_the_group_stands() {
    check(|store| {
        let frames = log(1, 5, 1, 10);
        assert!(matches!(append(store, &frames[1..2]), Err(StoreError::Gap)));
        let mut group = [&frames[..2], &frames[3..4], &frames[1..3], &frames[2..3]]
            .map(write)
            .to_vec();
        group.push(Write::Append {
            host: OTHER,
            stream: STREAM,
            frames: log(1, 1, 1, 10),
        });
        let outcomes = store.commit(&group).unwrap();
        let stored: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(stored, [true, false, false, true, true]);
        assert_eq!(
            store.after(HOST, STREAM, 0, usize::MAX).unwrap(),
            frames[..3]
        );
        let far = Sealed {
            first: 4,
            last: u64::MAX,
            bytes: Bytes::from_static(b"x"),
        };
        drop(append(store, &[far]));
    });
}

#[test]
fn letters_wait_in_order_until_they_are_taken() {
    check(|store| {
        for n in 1..=3 {
            assert_eq!(post(store, n, NEVER, 100), Outcome::Done);
        }
        assert_eq!(post(store, 2, NEVER, 100), Outcome::Again);
        let waiting = store.letters(HOST, 0, usize::MAX).unwrap();
        assert_eq!(waiting.len(), 3);
        assert!(waiting.is_sorted_by_key(|letter| letter.key));
        assert_eq!(
            store.letters(HOST, waiting[0].key, usize::MAX).unwrap(),
            waiting[1..]
        );
        assert_eq!(store.letters(HOST, 0, 150).unwrap(), waiting[..2]);
        assert_eq!(store.letters(OTHER, 0, usize::MAX).unwrap(), []);
        take(store, 2);
        assert_eq!(post(store, 2, NEVER, 100), Outcome::Again);
        assert_eq!(store.letters(HOST, 0, usize::MAX).unwrap().len(), 2);
    });
}

#[test]
fn what_is_over_is_forgotten() {
    check(|store| {
        post(store, 1, Timestamp(2_000), 10);
        post(store, 2, NEVER, 10);
        post(store, 3, NEVER, 10);
        take(store, 3);
        store
            .commit(&[Write::Prune {
                now: Timestamp(2_001),
            }])
            .unwrap();
        assert_eq!(store.letters(HOST, 0, usize::MAX).unwrap().len(), 1);
        assert_eq!(post(store, 3, NEVER, 10), Outcome::Again);
        store
            .commit(&[Write::Prune {
                now: Timestamp(5_001),
            }])
            .unwrap();
        assert_eq!(post(store, 3, NEVER, 10), Outcome::Done);
    });
}

#[test]
fn the_beginning_of_a_stream_is_dropped_and_the_rest_goes_on() {
    check(|store| {
        for n in 0..30 {
            append(store, &log(n * 10 + 1, 1, 10, 100)).unwrap();
        }
        let below = 95;
        let trim = Write::Trim {
            host: HOST,
            stream: STREAM,
            below,
        };
        for _ in 0..2 {
            store.commit(std::slice::from_ref(&trim)).unwrap();
        }
        assert_eq!(store.holding(HOST, STREAM, 90).unwrap(), None);
        let first = store.holding(HOST, STREAM, below).unwrap().unwrap();
        assert_eq!((first.first, first.last), (91, 100));
        assert_eq!(store.after(HOST, STREAM, 0, 1).unwrap(), [first]);
        append(store, &log(301, 1, 10, 100)).unwrap();
        assert_eq!(store.last(HOST, STREAM).unwrap().unwrap().last, 310);
        let (older, more) = store.before(HOST, STREAM, 111, usize::MAX).unwrap();
        assert_eq!((older.len(), more), (2, false));
    });
}

#[test]
fn a_mailbox_is_bounded_in_letters_and_bytes() {
    check(|store| {
        for n in 0..32 {
            assert_eq!(post(store, n, NEVER, 500 * 1024), Outcome::Done);
        }
        assert_eq!(post(store, 32, NEVER, 500 * 1024), Outcome::Full);
        take(store, 0);
        assert_eq!(post(store, 32, NEVER, 500 * 1024), Outcome::Done);
    });
    check(|store| {
        let letters =
            (0..limits::MAILBOX_LETTERS).map(|n| letter(u64::try_from(n).unwrap(), NEVER, 1));
        assert!(
            store
                .commit(&letters.collect::<Vec<_>>())
                .unwrap()
                .iter()
                .all(Result::is_ok)
        );
        assert_eq!(post(store, 1 << 40, NEVER, 1), Outcome::Full);
        take(store, 7);
        assert_eq!(post(store, 1 << 40, NEVER, 1), Outcome::Done);
    });
}

#[test]
fn members_replace_each_other_and_take_letters_along() {
    check(|store| {
        assert_eq!(store.members(HOST).unwrap(), None);
        members(store, 1, &[OTHER], &[]);
        assert_eq!(store.members(HOST).unwrap(), Some((1, vec![OTHER])));
        post(store, 1, NEVER, 10);
        post(store, 2, NEVER, 10);
        take(store, 2);
        members(store, u64::MAX, &[], &[OTHER]);
        assert_eq!(store.members(HOST).unwrap(), Some((u64::MAX, vec![])));
        assert_eq!(store.letters(HOST, 0, usize::MAX).unwrap(), []);
        assert_eq!(post(store, 1, NEVER, 10), Outcome::Done);
        assert_eq!(post(store, 2, NEVER, 10), Outcome::Again);
    });
}

#[test]
fn the_oldest_blobs_go_first() {
    check(|store| {
        let put = |store: &mut dyn Tables, host, n| {
            let bytes = Bytes::from(vec![n; 100]);
            let write = Write::Blob {
                host,
                name: [n; 32],
                bytes,
                quota: 250,
            };
            store.commit(&[write]).unwrap().remove(0).unwrap()
        };
        put(store, OTHER, 1);
        for n in [1, 2, 3] {
            assert_eq!(put(store, HOST, n), Outcome::Done);
        }
        assert_eq!(put(store, HOST, 3), Outcome::Again);
        assert_eq!(store.blob(HOST, [1; 32]).unwrap(), None);
        assert_eq!(
            store.blob(HOST, [3; 32]).unwrap(),
            Some(Bytes::from(vec![3; 100]))
        );
        assert!(store.blob(OTHER, [1; 32]).unwrap().is_some());
    });
}

#[test]
fn a_store_keeps_its_name_and_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = sqlite::prepare(folder.path()).unwrap();
    let mut first = Sqlite::open(&file, Use::Writing).unwrap();
    append(&mut first, &log(1, 3, 1, 10)).unwrap();
    let id = first.id();
    drop(first);
    let mut again = Sqlite::open(&file, Use::Writing).unwrap();
    assert_eq!(
        (again.id(), again.last(HOST, STREAM).unwrap().unwrap().last),
        (id, 3)
    );
    let mut reader = Sqlite::open(&file, Use::Reading).unwrap();
    append(&mut again, &log(4, 1, 1, 10)).unwrap();
    assert_eq!(reader.last(HOST, STREAM).unwrap().unwrap().last, 4);
}

/// The time is generous, for debug builds on busy machines; the benchmark measures it.
#[test]
fn t10_catching_up_is_one_scan() {
    check(|store| {
        let frames = log(1, 10_000, 1, 256);
        for piece in frames.chunks(100) {
            append(store, piece).unwrap();
        }
        let begin = Instant::now();
        let (mut at, mut found) = (0, 0);
        while at < 10_000 {
            let piece = store.after(HOST, STREAM, at, 128 * 1024).unwrap();
            found += piece.len();
            at = piece.last().unwrap().last;
        }
        assert_eq!(found, 10_000);
        assert!(
            begin.elapsed() < Duration::from_millis(500),
            "{:?}",
            begin.elapsed()
        );
    });
}

fn log(first: u64, envelopes: u64, events: u64, size: usize) -> Vec<Sealed> {
    let frame = |n| {
        let first = first + n * events;
        let bytes = Bytes::from(vec![u8::try_from(n % 256).unwrap(); size]);
        Sealed {
            first,
            last: first + events - 1,
            bytes,
        }
    };
    (0..envelopes).map(frame).collect()
}

fn write(frames: &[Sealed]) -> Write {
    Write::Append {
        host: HOST,
        stream: STREAM,
        frames: frames.to_vec(),
    }
}

fn append(store: &mut dyn Tables, frames: &[Sealed]) -> Result<Outcome, StoreError> {
    store.commit(&[write(frames)])?.remove(0)
}

fn letter(n: u64, not_after: Timestamp, size: usize) -> Write {
    let bytes = Bytes::from(vec![0; size]);
    Write::Post {
        to: HOST,
        from: OTHER,
        id: id(n),
        not_after,
        now: NOW,
        bytes,
    }
}

fn post(store: &mut dyn Tables, n: u64, not_after: Timestamp, size: usize) -> Outcome {
    store
        .commit(&[letter(n, not_after, size)])
        .unwrap()
        .remove(0)
        .unwrap()
}

fn take(store: &mut dyn Tables, n: u64) {
    let take = Write::Take {
        to: HOST,
        from: OTHER,
        id: id(n),
        until: Timestamp(5_000),
    };
    store.commit(&[take]).unwrap().remove(0).unwrap();
}

fn members(store: &mut dyn Tables, version: u64, devices: &[PeerId], removed: &[PeerId]) {
    let write = Write::Members {
        host: HOST,
        version,
        devices: devices.to_vec(),
        removed: removed.to_vec(),
    };
    store.commit(&[write]).unwrap().remove(0).unwrap();
}

fn id(n: u64) -> CommandId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    CommandId::from_bytes(bytes)
}
