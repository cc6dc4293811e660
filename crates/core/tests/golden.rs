//! Golden vectors: exact bytes that Rust and TypeScript both replay. Files are added, never
//! edited; a change that breaks one is a new protocol version.
//!
//! `GOLDEN_WRITE=1` writes a file that does not exist yet.

#![expect(
    clippy::disallowed_methods,
    reason = "golden files are read and written here"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a vector that cannot be made has failed"
)]

use std::convert::Infallible;
use std::path::Path;

use farhelm_core::ask::digest;
use farhelm_core::grant::Grant;
use farhelm_core::keys::{ContentKey, Identity, to_base64};
use farhelm_core::pairing::{Link, PairRequest, compare_code};
use farhelm_core::replica::{Accepted, Replica};
use farhelm_core::roster::{Change, Roster};
use farhelm_core::seal;
use farhelm_proto::envelope::{Header, Lane, NO_HASH, SUITE};
use farhelm_proto::frame::{Frame, Hello, Role, Subscribe};
use farhelm_proto::letter::{self, Kind};
use farhelm_proto::{CommandId, PeerId, SessionId, StreamId, Timestamp, hello};
use rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

#[test]
fn version_1_is_what_it_was() {
    let made = vectors();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.json");
    if !path.exists() && std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (name, vector) in golden.as_object().unwrap() {
        assert_eq!(&made[name], vector, "{name}");
    }
}

#[test]
fn the_golden_envelope_opens() {
    let host = host();
    let frame = Frame::parse(&envelope_frame(&host)).unwrap();
    let Frame::Envelope(envelope) = frame else {
        panic!("an envelope")
    };
    let mut replica = Replica::new(host.public().signing, host.peer(), stream(), None);
    replica.add_key(3, ContentKey::from_bytes([5; 32]));
    assert_eq!(
        replica.accept(&envelope),
        Ok(Accepted::Events(EVENTS.as_bytes().to_vec()))
    );
}

#[test]
fn the_golden_letter_opens_for_its_addressee_only() {
    let letter = command_letter();
    letter.verify(&device().public().signing).unwrap();
    assert_eq!(
        seal::open_letter(&host(), &letter).unwrap(),
        COMMAND.as_bytes()
    );
    assert!(seal::open_letter(&device(), &letter).is_err());
}

#[test]
fn s16_a_pair_request_needs_the_links_secret() {
    let link = link();
    let letter = pair_letter();
    let opened = seal::open_pair_request(&host(), &link.secret, link.offer(), &letter);
    assert_eq!(opened.unwrap(), pair_request().as_bytes());
    assert!(seal::open_pair_request(&host(), &[0; 32], link.offer(), &letter).is_err());
}

const EVENTS: &str = r#"[{"seq":1,"at":1795000000000,"event":{"type":"session_opened","title":"demo","dir":"/home/dev/demo","branch":"main","agent":"scripted"}}]"#;
const COMMAND: &str =
    r#"{"command":{"type":"cancel_turn","session":"ses_01010101010101010101010101010101"}}"#;
const ASK: &str = r#"{"tool":"t1","title":"Run ls","subject":{"kind":"command","command":"ls é –la","dir":"/demo"},"options":[],"description":null,"parent":null}"#;

fn vectors() -> Value {
    let (host, device, link) = (host(), device(), link());
    let nonce = [7; 32];
    let mut roster = Roster::found(
        *host.public(),
        "desk",
        Timestamp(1_795_000_000_000),
        host.signing(),
    );
    let change = Change::Admitted {
        keys: *device.public(),
        name: "phone".into(),
        grant: Grant::owner(),
    };
    let entry = roster.next_entry(
        change,
        Timestamp(1_795_000_000_001),
        host.peer(),
        host.signing(),
    );
    roster.extend(&entry).unwrap();
    let request = pair_letter();
    let blob = seal::seal_blob(
        &ContentKey::from_bytes([5; 32]),
        stream(),
        3,
        &[b'x'; 500],
        [4; 12],
    );
    json!({
        "host": { "seed": b64(&[1; 64]), "peer": host.peer(), "keys": host.public() },
        "device": { "seed": b64(&[2; 64]), "peer": device.peer(), "keys": device.public() },
        "hello": {
            "version": 1, "nonce": b64(&nonce), "authority": "relay.example",
            "frame": b64(&Frame::Hello(Hello {
                oldest: 1, newest: 1, role: Role::Device, key: (*device.public().signing.as_bytes()).into(),
                agent: Some("golden/1".into()), authority: "relay.example".into(), generation: None, dead_millis: None,
            }).to_bytes()),
            "transcript": b64(&hello::transcript(1, &nonce, &device.public().signing, "relay.example")),
            "proof": b64(&hello::prove(device.signing(), 1, &nonce, "relay.example")),
        },
        "subscribe": b64(&Frame::Subscribe(Subscribe {
            host: host.peer(), stream: stream(), after: Some(7), tail: None,
        }).to_bytes()),
        "envelope": {
            "frame": b64(&envelope_frame(&host)), "key": b64(&[5; 32]), "epoch": 3,
            "stream": stream(), "plaintext": EVENTS,
        },
        "letter": {
            "frame": b64(&Frame::Letter(command_letter()).to_bytes()),
            "hash": b64(&command_letter().hash()), "plaintext": COMMAND,
        },
        "pairing": {
            "link": link.to_url(), "offer": link.offer(), "secret": b64(&link.secret),
            "frame": b64(&Frame::Letter(request.clone()).to_bytes()),
            "plaintext": pair_request(), "nonce": b64(&nonce),
            "code": compare_code(&request.hash(), &nonce),
        },
        "blob": { "stream": stream(), "epoch": 3, "key": b64(&[5; 32]), "sealed": b64(&blob),
            "name": b64(&seal::blob_name(&blob)), "plaintext": b64(&[b'x'; 500]) },
        "ask": { "text": ASK, "digest": digest(ASK) },
        "roster": roster.entries(),
    })
}

fn envelope_frame(host: &Identity) -> Vec<u8> {
    let header = Header {
        suite: SUITE,
        lane: Lane::Durable,
        host: host.peer(),
        stream: stream(),
        epoch: 3,
        first: 1,
        last: 1,
        prev: NO_HASH,
        base: 0,
    };
    let key = ContentKey::from_bytes([5; 32]);
    let envelope = seal::seal_envelope(&key, &header, EVENTS.as_bytes(), [6; 12], host);
    Frame::Envelope(envelope).to_bytes().to_vec()
}

fn command_letter() -> letter::Letter {
    let header = letter_header(Kind::Command, None);
    seal::seal_letter(
        &device(),
        host().public(),
        &header,
        COMMAND.as_bytes(),
        &mut Counter(0),
    )
    .unwrap()
}

fn pair_letter() -> letter::Letter {
    let link = link();
    let header = letter_header(Kind::PairRequest, Some(link.offer()));
    let body = pair_request();
    seal::seal_pair_request(
        &device(),
        host().public(),
        &header,
        &link.secret,
        link.offer(),
        body.as_bytes(),
        &mut Counter(0),
    )
    .unwrap()
}

fn pair_request() -> String {
    serde_json::to_string(&PairRequest {
        name: "phone".into(),
        keys: *device().public(),
    })
    .unwrap()
}

fn letter_header(kind: Kind, offer: Option<farhelm_proto::OfferId>) -> letter::Header {
    letter::Header {
        suite: SUITE,
        kind,
        from: device().peer(),
        to: host().peer(),
        id: CommandId::from_bytes([8; 16]),
        not_after: Timestamp(1_795_000_060_000),
        offer,
    }
}

fn link() -> Link {
    Link {
        relay: "https://relay.example".into(),
        host: *host().public(),
        secret: [9; 32],
    }
}

fn host() -> Identity {
    Identity::from_seed([1; 64]).unwrap()
}

fn device() -> Identity {
    Identity::from_seed([2; 64]).unwrap()
}

fn stream() -> StreamId {
    SessionId::from_bytes([1; 16]).into()
}

fn b64(bytes: &[u8]) -> String {
    to_base64(bytes)
}

#[test]
fn peers_are_named_by_their_keys() {
    assert_eq!(host().peer(), PeerId::of(&host().public().signing));
}

/// Random bytes that are the same each time.
struct Counter(u64);

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(32) {
            self.0 += 1;
            let block: [u8; 32] = Sha256::digest(self.0.to_be_bytes()).into();
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}
