//! Envelopes from a host to its readers: stored, fanned out, caught up with, cut off.

use bytes::Bytes;
use farhelm_proto::envelope::{Header, Lane};
use farhelm_proto::frame::{
    self, Fetch, Frame, Locate, Located, Page, Presence, Subscribe, Unsubscribe,
};
use farhelm_proto::{Code, PeerId, StreamId};
use farhelm_relay::{Config, Relay};

use crate::common::{Log, connect, device, host, not_found, pair, relays, start};

#[tokio::test]
async fn envelopes_reach_a_follower_byte_for_byte_and_are_receipted() {
    for (relay, _folder) in relays() {
        let (mut host, mut device) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        let subscribed = device.subscribe(host.id, log.stream, None).await;
        assert_eq!(
            (subscribed.head, subscribed.from, subscribed.base),
            (0, 0, 0)
        );
        for frame in host.write(&mut log, 3).await {
            assert_eq!(device.envelope().await.0, frame);
        }
        let live = log.live(50);
        host.send_raw(live.clone()).await;
        assert_eq!(device.envelope().await.0, live);
    }
}

#[tokio::test]
async fn a_reader_catches_up_from_its_cursor_and_then_is_live() {
    for (relay, _folder) in relays() {
        let (mut host, mut device) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        let mut sent = host.write(&mut log, 40).await;
        let subscribed = device.subscribe(host.id, log.stream, Some(15)).await;
        assert_eq!((subscribed.head, subscribed.from), (40, 15));
        sent.extend(host.write(&mut log, 5).await);
        for frame in &sent[15..] {
            assert_eq!(device.envelope().await.0, *frame);
        }
    }
}

#[tokio::test]
async fn f16_what_was_dropped_from_a_long_stream_is_a_gap_and_the_snapshot_follows() {
    let folder = tempfile::tempdir().unwrap();
    for config in [Config::in_memory(), Config::in_folder(folder.path())] {
        let relay = Relay::start(Config {
            events_per_stream: 10,
            ..config
        })
        .unwrap();
        let (mut host, mut device) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        for base in [0, 21, 41] {
            log.base = base;
            for _ in 0..20 {
                host.write(&mut log, 1).await;
            }
        }
        host.settle().await;
        let from_the_start = device.subscribe(host.id, log.stream, Some(0)).await;
        assert_eq!(from_the_start.gap, Some(true));
        assert_eq!((from_the_start.head, from_the_start.base), (60, 41));
        assert!(
            (20..=40).contains(&from_the_start.from),
            "{from_the_start:?}"
        );
        let (_, first) = device.envelope().await;
        assert_eq!(first.first, from_the_start.from + 1);
        let near = again(&mut device, &host, log.stream, Some(45)).await;
        assert_eq!((near.from, near.gap), (45, None));
        let anywhere = again(&mut device, &host, log.stream, None).await;
        assert_eq!((anywhere.from, anywhere.gap), (40, None));
    }
}

/// Subscribes anew in the middle of what an earlier subscription brings.
async fn again(
    device: &mut crate::common::Peer,
    host: &crate::common::Peer,
    stream: StreamId,
    after: Option<u64>,
) -> frame::Subscribed {
    let (host, tail) = (host.id, None);
    device
        .send(Frame::Subscribe(Subscribe {
            host,
            stream,
            after,
            tail,
        }))
        .await;
    loop {
        let bytes = device.recv_raw().await;
        if let Ok(Frame::Subscribed(subscribed)) = Frame::parse(&bytes) {
            return subscribed;
        }
    }
}

#[tokio::test]
async fn a_stream_without_a_snapshot_loses_nothing_however_long_it_is() {
    let config = Config {
        events_per_stream: 10,
        ..Config::in_memory()
    };
    let relay = Relay::start(config).unwrap();
    let (mut host, mut device) = pair(&relay).await;
    let mut log = Log::new(1, 9);
    for _ in 0..40 {
        host.write(&mut log, 1).await;
    }
    let whole = device.subscribe(host.id, log.stream, Some(0)).await;
    assert_eq!((whole.from, whole.gap), (0, None));
    assert_eq!(device.envelope().await.1.first, 1);
}

#[tokio::test]
async fn a_reader_without_a_cursor_begins_with_the_envelope_of_the_snapshot() {
    for (relay, _folder) in relays() {
        let (mut host, mut device) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        for _ in 0..10 {
            host.send_raw(log.next(10, 20)).await;
        }
        log.base = 45;
        host.send_raw(log.next(1, 20)).await;
        host.stored(log.stream, 101).await;
        let subscribed = device.subscribe(host.id, log.stream, None).await;
        assert_eq!(
            (subscribed.head, subscribed.from, subscribed.base),
            (101, 40, 45)
        );
        assert_eq!(device.envelope().await.1.first, 41);

        let ask = Subscribe {
            host: host.id,
            stream: log.stream,
            after: Some(57),
            tail: None,
        };
        device.send(Frame::Subscribe(ask)).await;
        let subscribed = loop {
            let bytes = device.recv_raw().await;
            if let Ok(Frame::Subscribed(subscribed)) = Frame::parse(&bytes) {
                break subscribed;
            }
        };
        assert_eq!(
            subscribed.from, 50,
            "the envelope that holds event 58 is sent whole"
        );
        assert_eq!(device.envelope().await.1.first, 51);
    }
}

#[tokio::test]
async fn a_gap_is_refused_and_a_repetition_is_receipted_again() {
    for (relay, _folder) in relays() {
        let mut host = host(&relay, 1).await;
        let mut log = Log::new(1, 9);
        let sent = host.write(&mut log, 3).await;
        host.send_raw(sent[1].clone()).await;
        host.stored(log.stream, 3).await;
        drop(log.next(1, 10));
        host.send_raw(log.next(1, 10)).await;
        let problem = host.problem().await;
        assert_eq!(
            (problem.code, problem.stream),
            (Code::Gap, Some(log.stream))
        );
        let mut overlap = Log::new(1, 9);
        overlap.head = 2;
        host.send_raw(overlap.next(4, 10)).await;
        assert_eq!(host.problem().await.code, Code::Gap);
        log.head = 3;
        host.write(&mut log, 1).await;
    }
}

#[tokio::test]
async fn the_host_learns_how_far_a_stream_is_stored() {
    for (relay, _folder) in relays() {
        let mut host = host(&relay, 1).await;
        let mut log = Log::new(1, 9);
        host.send(Frame::Locate(Locate { stream: log.stream }))
            .await;
        let nothing = Located {
            stream: log.stream,
            head: 0,
            hash: Vec::new().into(),
        };
        assert_eq!(host.answer().await, Frame::Located(nothing));
        let sent = host.write(&mut log, 3).await;
        host.send(Frame::Locate(Locate { stream: log.stream }))
            .await;
        let Frame::Envelope(last) = Frame::parse(&sent[2]).unwrap() else {
            panic!("an envelope")
        };
        let found = Located {
            stream: log.stream,
            head: 3,
            hash: last.hash().to_vec().into(),
        };
        assert_eq!(host.answer().await, Frame::Located(found));
    }
}

#[tokio::test]
async fn s19_a_foreign_and_a_missing_stream_are_answered_alike() {
    for (relay, _folder) in relays() {
        let (mut host, _member) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        host.write(&mut log, 3).await;
        let mut stranger = device(&relay, 7).await;
        for host in [host.id, PeerId::from_bytes([0xee; 16])] {
            let stream = log.stream;
            stranger
                .send(Frame::Subscribe(Subscribe {
                    host,
                    stream,
                    after: None,
                    tail: None,
                }))
                .await;
            assert_eq!(stranger.answer().await, Frame::Problem(not_found(stream)));
            stranger
                .send(Frame::Fetch(Fetch {
                    request: 5,
                    host,
                    stream,
                    before: 9,
                    max_bytes: 9,
                }))
                .await;
            let problem = stranger.problem().await;
            assert_eq!(
                (problem.code, problem.request, problem.stream),
                (Code::NotFound, Some(5), None)
            );
        }
    }
}

#[tokio::test]
async fn s22_a_device_may_not_do_what_hosts_do() {
    let relay = start();
    let (mut host, mut device) = pair(&relay).await;
    let mut log = Log::new(1, 9);
    device.send_raw(log.next(1, 10)).await;
    assert_eq!(device.problem().await.code, Code::NotAllowed);
    for (number, frame) in [
        (
            10,
            Frame::Members(farhelm_proto::frame::Members {
                version: 9,
                devices: vec![],
            }),
        ),
        (11, Frame::Locate(Locate { stream: log.stream })),
        (
            50,
            Frame::PutBlob(frame::PutBlob {
                name: [0; 32].into(),
                bytes: vec![1].into(),
            }),
        ),
    ] {
        device.send(frame).await;
        let problem = device.problem().await;
        assert_eq!(
            (problem.code, problem.frame),
            (Code::NotAllowed, Some(number))
        );
    }
    // A host may not write the stream of another.
    let mut foreign = Log::new(3, 9);
    host.send_raw(foreign.next(1, 10)).await;
    assert_eq!(host.problem().await.code, Code::NotAllowed);
}

#[tokio::test]
async fn a_removed_device_is_cut_off_at_once() {
    for (relay, _folder) in relays() {
        let (mut host, mut device) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        device.subscribe(host.id, log.stream, None).await;
        host.write(&mut log, 1).await;
        device.envelope().await;
        // An older list changes nothing.
        host.list(0, &[]).await;
        host.write(&mut log, 1).await;
        device.envelope().await;
        host.list(2, &[]).await;
        host.write(&mut log, 1).await;
        assert_eq!(device.answer().await, Frame::Problem(not_found(log.stream)));
        device.settle().await;
        let ask = Subscribe {
            host: host.id,
            stream: log.stream,
            after: Some(0),
            tail: None,
        };
        device.send(Frame::Subscribe(ask)).await;
        assert_eq!(device.answer().await, Frame::Problem(not_found(log.stream)));
    }
}

#[tokio::test]
async fn followers_see_their_host_come_and_go() {
    let relay = start();
    let (host, mut device) = pair(&relay).await;
    let stream = StreamId::from_bytes([9; 16]);
    device.subscribe(host.id, stream, None).await;
    let online = |frame| match frame {
        Frame::Presence(Presence {
            online, host: of, ..
        }) if of == host.id => online,
        other => panic!("expected presence, got {other:?}"),
    };
    assert!(online(device.recv().await));
    drop(host.socket);
    assert!(!online(device.recv().await));
    let again = connect(&relay, 1, frame::Role::Host, 0).await.unwrap();
    assert_eq!(again.id, host.id);
    assert!(online(device.recv().await));
}

#[tokio::test]
async fn after_unsubscribing_nothing_more_comes() {
    let relay = start();
    let (mut host, mut device) = pair(&relay).await;
    let mut log = Log::new(1, 9);
    device.subscribe(host.id, log.stream, None).await;
    host.write(&mut log, 1).await;
    device.envelope().await;
    device
        .send(Frame::Unsubscribe(Unsubscribe {
            host: host.id,
            stream: log.stream,
        }))
        .await;
    device.settle().await;
    host.write(&mut log, 3).await;
    device.settle().await;
}

#[tokio::test]
async fn pages_go_backwards_without_gap_or_overlap() {
    for (relay, _folder) in relays() {
        let (mut host, mut device) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        let sent = host.write(&mut log, 50).await;
        let (mut before, mut pages) = (u64::MAX, Vec::new());
        loop {
            let fetch = Fetch {
                request: before,
                host: host.id,
                stream: log.stream,
                before,
                max_bytes: 2_000,
            };
            device.send(Frame::Fetch(fetch)).await;
            let Frame::Page(Page {
                request,
                envelopes,
                more,
            }) = device.answer().await
            else {
                panic!("a page")
            };
            assert_eq!(request, before);
            let first = envelopes.first().unwrap().parse_header().unwrap().first;
            let page: Vec<Bytes> = envelopes
                .into_iter()
                .map(|each| Frame::Envelope(each).to_bytes())
                .collect();
            assert!(page.len() < 12);
            pages.push(page);
            before = first;
            if !more {
                break;
            }
        }
        pages.reverse();
        assert_eq!(pages.concat(), sent);
        let fetch = Fetch {
            request: 1,
            host: host.id,
            stream: log.stream,
            before: 1,
            max_bytes: 2_000,
        };
        device.send(Frame::Fetch(fetch)).await;
        assert_eq!(
            device.answer().await,
            Frame::Page(Page {
                request: 1,
                envelopes: vec![],
                more: false
            })
        );
    }
}

/// Readers come at any moment of a flood; each sees every event after its cursor exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_come_during_a_flood_see_every_event_once() {
    const EVENTS: u64 = 6_000;
    for (relay, _folder) in relays() {
        let (mut host, first_reader) = pair(&relay).await;
        let mut log = Log::new(1, 9);
        let (id, stream) = (host.id, log.stream);
        drop(first_reader);
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let mut device = device(&relay, 2).await;
            readers.spawn(async move {
                let mut rounds = 0;
                let mut at = 0;
                // Reads a while, forgets the subscription, and goes on at the cursor.
                while at < EVENTS {
                    rounds += 1;
                    device
                        .send(Frame::Subscribe(Subscribe {
                            host: id,
                            stream,
                            after: Some(at),
                            tail: None,
                        }))
                        .await;
                    loop {
                        let bytes = device.recv_raw().await;
                        if let Ok(Frame::Subscribed(subscribed)) = Frame::parse(&bytes) {
                            assert_eq!(subscribed.from, at);
                            break;
                        }
                    }
                    let until = (at + 700).min(EVENTS);
                    while at < until {
                        let header = device.envelope().await.1;
                        assert_eq!(header.first, at + 1);
                        at = header.last;
                    }
                }
                rounds
            });
        }
        let writer = tokio::spawn(async move {
            for n in 0..EVENTS {
                host.feed_raw(log.next(1, 200)).await;
                if n % 64 == 0 {
                    host.flush().await;
                }
            }
            host.flush().await;
            host.stored(stream, EVENTS).await;
        });
        assert!(
            readers
                .join_all()
                .await
                .into_iter()
                .all(|rounds| rounds > 7)
        );
        writer.await.unwrap();
    }
}

/// One device stops reading while a host floods: another is not held up, and the slow one gets
/// everything once it reads again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f19_a_slow_device_disturbs_nobody_and_loses_nothing() {
    const EVENTS: u64 = 8_000;
    const BODY: usize = 3_000;
    for (relay, _folder) in relays() {
        let (mut host, mut quick) = pair(&relay).await;
        let mut slow = device(&relay, 2).await;
        let mut log = Log::new(1, 9);
        let stream = log.stream;
        quick.subscribe(host.id, stream, Some(0)).await;
        slow.subscribe(host.id, stream, Some(0)).await;
        let writer = tokio::spawn(async move {
            for _ in 0..EVENTS {
                host.feed_raw(log.next(1, BODY)).await;
                host.feed_raw(log.live(10)).await;
            }
            host.flush().await;
            host.stored(stream, EVENTS).await;
            host
        });
        let mut at = 0;
        while at < EVENTS {
            at = advance(at, &quick.envelope().await.1);
        }
        let _host = writer.await.unwrap();
        let mut at = 0;
        let mut live = 0;
        while at < EVENTS {
            let header = slow.envelope().await.1;
            live += u64::from(header.lane == Lane::Live);
            at = advance(at, &header);
        }
        assert!(
            live < EVENTS,
            "what is superseded was dropped for the slow one"
        );
    }
}

/// The next cursor; fails when an event is missing or comes twice.
fn advance(at: u64, header: &Header) -> u64 {
    match header.lane {
        Lane::Live => at,
        Lane::Durable => {
            assert_eq!(header.first, at + 1);
            header.last
        }
    }
}
