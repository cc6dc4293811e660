//! What peers and relays send each other in the clear: frames, headers, envelopes in a row.

use bytes::Bytes;
use farhelm_core::keys::{ContentKey, Identity};
use farhelm_core::replica::{Accepted, Replica};
use farhelm_core::seal::seal_envelope;
use farhelm_proto::envelope::{self, Envelope, Hash, Lane, NO_HASH, SUITE};
use farhelm_proto::frame::{
    Bye, Fetch, Frame, FrameError, Hello, Members, OpenOffer, Page, Presence, Problem, PutBlob,
    Role, Subscribe, Welcome, envelope_header, kind, letter_header,
};
use farhelm_proto::letter::{self, Kind, Letter};
use farhelm_proto::{Code, CommandId, OfferId, PeerId, StreamId, Timestamp, limits};

/// Reads a frame as a device does, and as a relay does that only looks at headers.
pub(crate) fn frame(bytes: &[u8]) -> bool {
    let read = Frame::parse(bytes);
    match &read {
        Ok(frame) => {
            let written = frame.to_bytes();
            let again = Frame::parse(&written);
            assert!(
                again.is_ok_and(|again| again == *frame && again.to_bytes() == written),
                "what was read is written and read again"
            );
        }
        Err(FrameError::Unknown(number)) => assert_eq!(kind(bytes), Some(*number)),
        Err(FrameError::Malformed(_)) => {}
    }
    if let Ok(Some((header, length))) = envelope_header(bytes) {
        let Ok(Frame::Envelope(whole)) = &read else {
            panic!("a relay passes on what no device reads: {read:?}");
        };
        assert_eq!(whole.body.len(), length);
        assert!(whole.parse_header().is_ok_and(|whole| whole == header));
    }
    if let Ok(Some((header, length))) = letter_header(bytes) {
        let Ok(Frame::Letter(whole)) = &read else {
            panic!("a relay passes on what nobody reads: {read:?}");
        };
        assert_eq!(whole.body.len(), length);
        assert!(whole.parse_header().is_ok_and(|whole| whole == header));
    }
    read.is_ok()
}

/// Reads the clear headers of envelopes and letters.
pub(crate) fn header(bytes: &[u8]) -> bool {
    let of_envelope = Envelope {
        header: bytes.to_vec().into(),
        body: Vec::new().into(),
        signature: [0; 64].into(),
    }
    .parse_header();
    if let Ok(header) = &of_envelope {
        let again: Result<envelope::Header, _> = minicbor::decode(&header.to_bytes());
        assert!(again.is_ok_and(|again| again == *header));
    }
    let of_letter = Letter {
        header: bytes.to_vec().into(),
        enc: [0; 32].into(),
        body: Vec::new().into(),
        signature: [0; 64].into(),
    }
    .parse_header();
    if let Ok(header) = &of_letter {
        let again: Result<letter::Header, _> = minicbor::decode(&header.to_bytes());
        assert!(again.is_ok_and(|again| again == *header));
    }
    of_envelope.is_ok() || of_letter.is_ok()
}

/// Bytes that say what one envelope of [`replica`] is like.
const STEP: usize = 20;

/// Reads what a host signed whose numbers are any: the input says what they are.
pub(crate) fn replica(bytes: &[u8]) -> bool {
    let Some(host) = host() else { return false };
    let stream = StreamId::from_bytes([1; 16]);
    let mut replica = Replica::new(host.public().signing, host.peer(), stream, None);
    replica.add_key(1, ContentKey::from_bytes([5; 32]));
    let (mut prev, mut all) = (NO_HASH, true);
    for step in bytes.chunks_exact(STEP).take(16) {
        let number = |at: usize| {
            step[at..at + 8]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (how, first, last) = (step[0], number(2), number(10));
        let header = envelope::Header {
            suite: if how & 0x80 == 0 { SUITE } else { step[1] },
            lane: if how & 1 == 0 {
                Lane::Durable
            } else {
                Lane::Live
            },
            host: host.peer(),
            stream,
            epoch: if how & 2 == 0 { 1 } else { u32::from(step[1]) },
            first,
            last,
            prev: if how & 4 == 0 { prev } else { [step[1]; 32] },
            base: u64::from(step[18]),
        };
        let key = ContentKey::from_bytes([if how & 8 == 0 { 5 } else { 6 }; 32]);
        let envelope = seal_envelope(&key, &header, &step[18..], [step[19]; 12], &host);
        let before = replica.head();
        match replica.accept(&envelope) {
            Ok(Accepted::Events(_)) => {
                let after = replica.head();
                assert!(after.is_some_and(|head| head.seq == last && head.hash == envelope.hash()));
                assert!(before.is_none_or(|head| first == head.seq + 1));
                prev = envelope.hash();
            }
            Ok(Accepted::Live(_) | Accepted::Repeated) => assert_eq!(replica.head(), before),
            Err(_) => {
                assert_eq!(replica.head(), before);
                all = false;
            }
        }
        // What is said of a head from outside must not matter to what comes.
        let _checked = replica.check_head(first);
        let _older = replica.open_older(&envelope, &prev);
    }
    all
}

fn host() -> Option<Identity> {
    Identity::from_seed([1; 64]).ok()
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let peer = PeerId::from_bytes([3; 16]);
    let stream = StreamId::from_bytes([1; 16]);
    let problem = Problem {
        code: Code::NotFound,
        request: Some(u64::MAX),
        letter: Some(CommandId::from_bytes([2; 16])),
        stream: Some(stream),
        detail: Some("no such stream".to_owned()),
        frame: Some(999),
    };
    let offer = OpenOffer {
        offer: OfferId::from_bytes([9; 16]),
        until: Timestamp(u64::MAX),
    };
    let subscribe = Subscribe {
        host: peer,
        stream,
        after: Some(5),
        tail: Some(10),
    };
    let fetch = Fetch {
        request: 1,
        host: peer,
        stream,
        before: 100,
        max_bytes: 100_000,
    };
    let envelope = sample();
    let mut all = vec![
        Frame::Hello(Hello {
            oldest: 1,
            newest: 1,
            role: Role::Device,
            key: [8; 32].into(),
            agent: Some("fuzz/1".to_owned()),
            authority: "relay.example".to_owned(),
            generation: Some(7),
            dead_millis: Some(4_000),
        }),
        Frame::Welcome(Welcome {
            store: [4; 16].into(),
            now: Timestamp(1_795_000_000_000),
            agent: "relay/1".to_owned(),
            ping_millis: 5_000,
            dead_millis: 10_000,
        }),
        Frame::Bye(Bye {
            code: Code::Restarting,
            detail: Some("back soon".to_owned()),
            retry_millis: Some(1_000),
        }),
        Frame::Ping(7),
        Frame::Pong(u64::MAX),
        Frame::Problem(problem),
        Frame::Members(Members {
            version: 3,
            devices: vec![peer; 20],
        }),
        Frame::Envelope(envelope.clone()),
        Frame::Subscribe(subscribe),
        Frame::Fetch(fetch),
        Frame::Page(Page {
            request: 1,
            envelopes: vec![envelope; 3],
            more: true,
        }),
        Frame::Presence(Presence {
            host: peer,
            online: true,
            since: Timestamp(5),
        }),
        Frame::OpenOffer(offer),
        Frame::PutBlob(PutBlob {
            name: [1; 32].into(),
            bytes: vec![7; 100].into(),
        }),
    ];
    all.extend(host().map(|host| {
        Frame::Letter(Letter::sign(
            letter_of(&host),
            [1; 32],
            vec![2; 64],
            host.signing(),
        ))
    }));
    all.iter().map(Frame::to_bytes).map(Vec::from).collect()
}

fn sample() -> Envelope {
    Envelope {
        header: envelope_of(1, NO_HASH).to_bytes().into(),
        body: vec![6; 60].into(),
        signature: [9; 64].into(),
    }
}

fn envelope_of(first: u64, prev: Hash) -> envelope::Header {
    envelope::Header {
        suite: SUITE,
        lane: Lane::Durable,
        host: PeerId::from_bytes([3; 16]),
        stream: StreamId::from_bytes([1; 16]),
        epoch: 1,
        first,
        last: first + 1,
        prev,
        base: 0,
    }
}

fn letter_of(host: &Identity) -> Vec<u8> {
    letter::Header {
        suite: SUITE,
        kind: Kind::PairRequest,
        from: host.peer(),
        to: PeerId::from_bytes([3; 16]),
        id: CommandId::from_bytes([2; 16]),
        not_after: Timestamp(1_795_000_000_000),
        offer: Some(OfferId::from_bytes([9; 16])),
    }
    .to_bytes()
}

pub(crate) fn headers() -> Vec<Vec<u8>> {
    let of_letter = host().map(|host| letter_of(&host));
    [
        envelope_of(1, NO_HASH),
        envelope_of(u64::from(u32::MAX), [0xff; 32]),
    ]
    .iter()
    .map(envelope::Header::to_bytes)
    .chain(of_letter)
    .collect()
}

pub(crate) fn envelopes() -> Vec<Vec<u8>> {
    let step = |how: u8, first: u64, last: u64| {
        [
            &[how, 0],
            &first.to_be_bytes()[..],
            &last.to_be_bytes(),
            &[0, 7],
        ]
        .concat()
    };
    vec![
        [
            step(0, 1, 3),
            step(0, 4, 4),
            step(1, 4, 1),
            step(0, 4, 4),
            step(0, 5, 9),
        ]
        .concat(),
        // To the end of what can be counted.
        [
            step(0, 1, limits::SEQ - 1),
            step(0, limits::SEQ, limits::SEQ),
        ]
        .concat(),
    ]
}

/// A frame as its bytes.
pub(crate) fn control() -> Bytes {
    Frame::Ping(7).to_bytes()
}
