//! One host's hub, told what happens and watched through outboxes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::hub::stream::Rejoined;

const HOST: PeerId = PeerId::from_bytes([1; 16]);
const DEVICE: PeerId = PeerId::from_bytes([2; 16]);
const STREAM: StreamId = StreamId::from_bytes([3; 16]);
const NOW: Timestamp = Timestamp(1_000);

#[test]
fn a_reader_that_comes_between_fan_out_and_commit_sees_everything_once() {
    let (mut hub, host) = hosted();
    let appends = hub.arrive(host.id, arrivals(1..=3));
    assert_eq!((appends.len(), appends[0].frames.len()), (1, 3));
    hub.stored(STREAM, 2);
    let reader = outbox(10, DEVICE);
    hub.stream(STREAM)
        .unwrap()
        .follow(Arc::clone(&reader), 1, crate::outbox::Line::Bulk, 0);
    // The store has events 1 and 2, the third is on its way, the fourth comes.
    assert_eq!(hub.rejoin(STREAM, 10, 1, 0), Some(Rejoined::Behind));
    hub.arrive(host.id, arrivals(4..=4));
    assert_eq!(hub.rejoin(STREAM, 10, 1, 2), Some(Rejoined::Live));
    hub.arrive(host.id, arrivals(5..=5));
    assert_eq!(seen(&reader), [3, 4, 5]);
}

#[test]
fn f04_after_a_failure_of_the_store_nothing_is_receipted_or_seen_twice() {
    let (mut hub, host) = hosted();
    let reader = outbox(10, DEVICE);
    hub.stream(STREAM)
        .unwrap()
        .follow(Arc::clone(&reader), 1, crate::outbox::Line::Bulk, 0);
    assert_eq!(hub.rejoin(STREAM, 10, 1, 0), Some(Rejoined::Live));
    let first = hub.arrive(host.id, arrivals(1..=2)).remove(0);
    let second = hub.arrive(host.id, arrivals(3..=4)).remove(0);
    hub.not_stored(STREAM, first.run, 1, Code::StoreFailed);
    assert!(hub.arrive(host.id, arrivals(5..=5)).is_empty());
    let again = hub.arrive(host.id, arrivals(1..=4)).remove(0);
    // The outcome of what came before the failure is old news by then.
    hub.not_stored(STREAM, second.run, 3, Code::StoreFailed);
    hub.stored(STREAM, 4);
    assert_eq!(again.frames.len(), 4);
    assert_eq!(hub.stream(STREAM).unwrap().position(), (4, 0));
    assert_eq!(seen(&reader), [1, 2, 3, 4, 5]);
}

#[test]
fn f16_while_the_store_takes_nothing_what_comes_is_passed_on_and_a_late_reader_is_told() {
    let (mut hub, host) = hosted();
    let (early, late) = (outbox(10, DEVICE), outbox(11, DEVICE));
    let follow = |hub: &mut Hub, reader: &Arc<Outbox>| {
        let stream = hub.stream(STREAM).unwrap();
        stream.follow(Arc::clone(reader), 1, crate::outbox::Line::Bulk, 0);
    };
    follow(&mut hub, &early);
    assert_eq!(hub.rejoin(STREAM, 10, 1, 0), Some(Rejoined::Live));
    let kept = hub.arrive(host.id, arrivals(1..=2)).remove(0);
    hub.stored(STREAM, kept.frames[1].last);
    let lost = hub.arrive(host.id, arrivals(3..=3)).remove(0);
    hub.not_stored(STREAM, lost.run, 3, Code::Full);
    assert!(hub.arrive(host.id, arrivals(4..=9)).is_empty());
    assert_eq!(seen(&early), (1..=9).collect::<Vec<_>>());
    // Somebody who comes now gets what is stored, is told, and never sees a gap.
    follow(&mut hub, &late);
    assert_eq!(hub.rejoin(STREAM, 11, 1, 2), Some(Rejoined::Limited));
    hub.arrive(host.id, arrivals(10..=10));
    assert_eq!(seen(&late), [0; 0]);
    assert_eq!(seen(&early), [10]);
    // The host offers it again, and now there is room.
    let again = hub.arrive(host.id, arrivals(3..=10)).remove(0);
    assert_eq!(again.frames.len(), 8);
    assert_eq!(seen(&early), [0; 0]);
    hub.stored(STREAM, 10);
    assert_eq!(late.errands().behind, [1]);
    assert_eq!(hub.rejoin(STREAM, 11, 1, 10), Some(Rejoined::Live));
    hub.arrive(host.id, arrivals(11..=11));
    assert_eq!((seen(&early), seen(&late)), (vec![11], vec![11]));
}

#[test]
fn f19_a_reader_that_is_too_slow_goes_on_where_it_stopped() {
    let (mut hub, host) = hosted();
    let reader = outbox(10, DEVICE);
    hub.stream(STREAM)
        .unwrap()
        .follow(Arc::clone(&reader), 1, crate::outbox::Line::Bulk, 0);
    assert_eq!(hub.rejoin(STREAM, 10, 1, 0), Some(Rejoined::Live));
    hub.arrive(host.id, arrivals(1..=4_000));
    hub.stored(STREAM, 4_000);
    let got = seen(&reader);
    let reached = *got.last().unwrap();
    assert!(reached < 4_000 && got.len() as u64 == reached);
    assert_eq!(reader.errands().behind, [1]);
    assert_eq!(
        hub.stream(STREAM).unwrap().cursor(10, 1),
        Some((reached, 4_000))
    );
    hub.arrive(host.id, arrivals(4_001..=4_001));
    assert!(seen(&reader).is_empty());
    assert_eq!(hub.rejoin(STREAM, 10, 1, 4_000), Some(Rejoined::Live));
    assert_eq!(seen(&reader), [4_001]);
}

#[test]
fn a_removed_member_gets_nothing_that_waited() {
    let (mut hub, host) = hosted();
    hub.set_members(1, &[DEVICE]);
    let reader = outbox(10, DEVICE);
    hub.stream(STREAM)
        .unwrap()
        .follow(Arc::clone(&reader), 1, crate::outbox::Line::Bulk, 0);
    hub.rejoin(STREAM, 10, 1, 0);
    hub.arrive(host.id, arrivals(1..=3));
    assert_eq!(hub.set_members(1, &[DEVICE]), None);
    assert_eq!(hub.set_members(0, &[]), None);
    assert_eq!(hub.set_members(2, &[]), Some(vec![DEVICE]));
    assert!(seen(&reader).is_empty());
    assert_eq!(hub.rejoin(STREAM, 10, 1, 0), None);
}

#[test]
fn s20_only_the_seated_connection_writes() {
    let (mut hub, old) = hosted();
    let new = outbox(5, HOST);
    assert!(
        hub.seat(Arc::clone(&new), 1, NOW)
            .unwrap()
            .is_some_and(|older| older.id == old.id)
    );
    assert!(hub.arrive(old.id, arrivals(1..=1)).is_empty());
    hub.unseat(old.id, NOW);
    assert!(hub.is_seated(new.id));
    assert_eq!(hub.arrive(new.id, arrivals(1..=1)).len(), 1);
    assert!(hub.seat(outbox(6, HOST), 0, NOW).is_err());
}

#[test]
fn a_hub_is_forgotten_only_when_the_store_knows_it_all() {
    let (mut hub, host) = hosted();
    hub.arrive(host.id, arrivals(1..=1));
    assert!(!hub.is_idle(NOW));
    hub.unseat(host.id, NOW);
    assert!(
        !hub.is_idle(NOW),
        "an envelope is on its way into the store"
    );
    hub.stored(STREAM, 1);
    assert!(hub.is_idle(NOW));
}

fn hosted() -> (Hub, Arc<Outbox>) {
    let mut hub = Hub::new(HOST, None);
    let host = outbox(1, HOST);
    assert!(
        hub.seat(Arc::clone(&host), 0, NOW)
            .is_ok_and(|older| older.is_none())
    );
    hub.learn(STREAM, 0, 0);
    (hub, host)
}

fn outbox(id: ConnId, peer: PeerId) -> Arc<Outbox> {
    Arc::new(Outbox::new(id, peer, 1))
}

fn arrivals(seqs: std::ops::RangeInclusive<u64>) -> Vec<Arrival> {
    let arrival = |seq: u64| {
        let bytes = Bytes::copy_from_slice(&[&seq.to_be_bytes()[..], &[0; 500]].concat());
        Arrival {
            stream: STREAM,
            live: false,
            base: 0,
            sealed: Sealed {
                first: seq,
                last: seq,
                bytes,
            },
        }
    };
    seqs.map(arrival).collect()
}

/// The seqs of the envelopes that wait in an outbox.
fn seen(outbox: &Outbox) -> Vec<u64> {
    let mut hand = VecDeque::new();
    loop {
        let before = hand.len();
        outbox.take(&mut hand);
        if hand.len() == before {
            break;
        }
    }
    let seq = |bytes: &Bytes| {
        (bytes.len() == 508).then(|| bytes.first_chunk().map(|seq| u64::from_be_bytes(*seq)))
    };
    hand.iter().filter_map(seq).flatten().collect()
}
