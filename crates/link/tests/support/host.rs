//! A host that does what a test tells it, with the real core and a real link.

use std::collections::BTreeMap;
use std::sync::Arc;

use farhelm_core::command::{Command, CommandBody, Outcome, Receipt};
use farhelm_core::event::{Event, HostEvent, HostRecord, Record};
use farhelm_core::fleet::Fleet;
use farhelm_core::grant::Grant;
use farhelm_core::keys::{ContentKey, EpochKey, Identity, KeyBundle, PublicKeys, to_base64};
use farhelm_core::pairing::{self, Offer, PairAnswer, PairRequest};
use farhelm_core::roster::{Change, Roster};
use farhelm_core::seal::{open_letter, open_pair_request, seal_envelope, seal_letter};
use farhelm_link::clock::now;
use farhelm_link::device::{KnownHost, Store};
use farhelm_link::driver::{Link, LinkOptions};
use farhelm_link::rng;
use farhelm_proto::envelope::{Envelope, Hash, Header, Lane, NO_HASH, SUITE};
use farhelm_proto::frame::{CloseOffer, Frame, Members, OpenOffer, Role, Taken};
use farhelm_proto::letter::{self, Kind, Letter};
use farhelm_proto::{Code, CommandId, OfferId, PeerId, SessionId, StreamId, Timestamp};
use serde::Serialize;

use super::{Events, frame, send, up};

pub struct Host {
    pub identity: Arc<Identity>,
    pub link: Link,
    pub events: Events,
    pub roster: Roster,
    pub logs: BTreeMap<StreamId, Log>,
    relay: String,
    members: u64,
}

/// What the host has written of one stream.
#[derive(Default)]
pub struct Log {
    pub last: u64,
    pub prev: Option<Hash>,
    pub base: u64,
    pub epoch: u32,
    pub live: u64,
}

impl Host {
    pub async fn start(relay: &str) -> Self {
        Self::with(relay, super::identity()).await
    }

    pub async fn with(relay: &str, identity: Arc<Identity>) -> Self {
        let (link, mut events) = connect(relay, &identity, 1);
        up(&mut events).await;
        let roster = Roster::found(
            *identity.public(),
            "laptop",
            Timestamp(1),
            identity.signing(),
        );
        let logs = BTreeMap::new();
        Self {
            identity,
            link,
            events,
            roster,
            logs,
            relay: relay.to_owned(),
            members: 0,
        }
    }

    pub fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    pub fn home(&self) -> StreamId {
        self.peer().into()
    }

    /// Lets a device in without a ceremony and gives it what it would know afterwards.
    pub async fn admit(&mut self, store: &Store) -> KnownHost {
        let keys = *store.identity().unwrap().public();
        self.extend_roster(keys);
        self.list_members().await;
        let known = KnownHost {
            keys: *self.identity.public(),
            relay: self.relay.clone(),
            name: "laptop".into(),
            roster: self.roster.entries().to_vec(),
        };
        store.keep_host(&known).unwrap();
        known
    }

    pub fn extend_roster(&mut self, keys: PublicKeys) {
        let change = Change::Admitted {
            keys,
            name: "phone".into(),
            grant: Grant::owner(),
        };
        let entry = self
            .roster
            .next_entry(change, now(), self.peer(), self.identity.signing());
        self.roster.extend(&entry).unwrap();
    }

    pub async fn list_members(&mut self) {
        self.members += 1;
        let devices = self.roster.devices().map(|(peer, _)| peer).collect();
        send(
            &self.link,
            &Frame::Members(Members {
                version: self.members,
                devices,
            }),
        )
        .await;
    }

    /// The fleet's state with this roster and the sessions given.
    pub fn fleet(&self) -> Fleet {
        Fleet {
            name: "laptop".into(),
            version: "1".into(),
            roster: self.roster.entries().to_vec(),
            ..Fleet::default()
        }
    }

    /// Writes a host event.
    pub async fn tell(&mut self, event: HostEvent) {
        let home = self.home();
        let seq = self.logs.entry(home).or_default().last + 1;
        if matches!(event, HostEvent::Snapshot { .. }) {
            self.logs.entry(home).or_default().base = seq;
        }
        let record = HostRecord {
            seq,
            at: now(),
            cause: None,
            event,
        };
        let envelope = self.seal(home, &[record], 1);
        self.store(home, envelope).await;
    }

    pub async fn snapshot(&mut self) {
        let state = Box::new(self.fleet());
        self.tell(HostEvent::Snapshot { state }).await;
    }

    /// Writes a snapshot into a session's log.
    pub async fn session_snapshot(&mut self, session: SessionId) {
        let stream = StreamId::from(session);
        let log = self.logs.entry(stream).or_default();
        let seq = log.last + 1;
        log.base = seq;
        let state = farhelm_core::session::Session {
            agent: "from the snapshot".into(),
            ..farhelm_core::session::Session::default()
        };
        let record = Record {
            seq,
            at: now(),
            cause: None,
            event: Event::Snapshot {
                state: Box::new(state),
            },
        };
        let envelope = self.seal(stream, &[record], 1);
        self.store(stream, envelope).await;
    }

    /// Writes titles into a session's log, all in one envelope.
    pub async fn write(&mut self, session: SessionId, titles: &[&str]) {
        let envelope = self.titles(session, titles);
        self.store(session.into(), envelope).await;
    }

    /// Seals titles of a session as its next envelope.
    pub fn titles(&mut self, session: SessionId, titles: &[&str]) -> Envelope {
        let last = self.logs.entry(session.into()).or_default().last;
        let records: Vec<Record> = (last + 1..)
            .zip(titles)
            .map(|(seq, title)| record(seq, title))
            .collect();
        self.seal(session.into(), &records, records.len())
    }

    pub fn seal<T: Serialize>(
        &mut self,
        stream: StreamId,
        records: &[T],
        count: usize,
    ) -> Envelope {
        let log = self.logs.entry(stream).or_default();
        let (first, last) = (log.last + 1, log.last + count as u64);
        let header = Header {
            suite: SUITE,
            lane: Lane::Durable,
            host: self.identity.peer(),
            stream,
            epoch: log.epoch,
            first,
            last,
            prev: log.prev.unwrap_or(NO_HASH),
            base: log.base,
        };
        let text = serde_json::to_vec(records).unwrap();
        let envelope = seal_envelope(
            &key(stream, log.epoch),
            &header,
            &text,
            rng::random(),
            &self.identity,
        );
        log.last = last;
        log.prev = Some(envelope.hash());
        envelope
    }

    /// Sends an envelope and waits until the relay has stored it.
    pub async fn store(&mut self, stream: StreamId, envelope: Envelope) {
        let last = envelope.parse_header().unwrap().last;
        send(&self.link, &Frame::Envelope(envelope)).await;
        frame(&mut self.events, |frame| match frame {
            Frame::Stored(stored) if stored.stream == stream && stored.head >= last => Some(()),
            _ => None,
        })
        .await;
    }

    /// Sends a delta.
    pub async fn live(&mut self, session: SessionId, live: &farhelm_core::event::Live) {
        let log = self.logs.entry(session.into()).or_default();
        log.live += 1;
        let header = Header {
            suite: SUITE,
            lane: Lane::Live,
            host: self.identity.peer(),
            stream: session.into(),
            epoch: log.epoch,
            first: log.last,
            last: log.live,
            prev: log.prev.unwrap_or(NO_HASH),
            base: 0,
        };
        let text = serde_json::to_vec(&[live]).unwrap();
        let key = key(session.into(), log.epoch);
        let envelope = seal_envelope(&key, &header, &text, rng::random(), &self.identity);
        send(&self.link, &Frame::Envelope(envelope)).await;
    }

    /// The next letter, taken.
    pub async fn letter(&mut self) -> (letter::Header, Letter) {
        let letter = frame(&mut self.events, |frame| match frame {
            Frame::Letter(letter) => Some(letter),
            _ => None,
        })
        .await;
        let header = letter.parse_header().unwrap();
        send(
            &self.link,
            &Frame::Taken(Taken {
                from: header.from,
                id: header.id,
            }),
        )
        .await;
        (header, letter)
    }

    /// The next command.
    pub async fn command(&mut self) -> (letter::Header, Command) {
        let (header, body) = self.command_body().await;
        (header, body.command)
    }

    pub async fn command_body(&mut self) -> (letter::Header, CommandBody) {
        let (header, letter) = loop {
            let next = self.letter().await;
            // Before a wish a device may ask what time the host has, and goes on without an answer.
            if next.0.kind != Kind::Probe {
                break next;
            }
        };
        assert_eq!(header.kind, Kind::Command);
        letter
            .verify(&self.roster.member(header.from).unwrap().keys.signing)
            .unwrap();
        let body = open_letter(&self.identity, &letter).unwrap();
        (header, serde_json::from_slice(&body).unwrap())
    }

    pub async fn receipt(&self, to: PeerId, command: CommandId, outcome: Outcome) {
        let keys = self.roster.member(to).unwrap().keys;
        self.write_to(&keys, Kind::Receipt, None, &Receipt { command, outcome })
            .await;
    }

    /// Sends the content keys of the present epoch.
    pub async fn send_keys(&self, to: PeerId, stream: StreamId) {
        let keys = self.roster.member(to).unwrap().keys;
        let epoch = self.logs.get(&stream).map_or(0, |log| log.epoch);
        let key = to_base64(key(stream, epoch).expose());
        self.write_to(
            &keys,
            Kind::Keys,
            None,
            &KeyBundle {
                stream,
                keys: vec![EpochKey { epoch, key }],
            },
        )
        .await;
    }

    pub async fn write_to(
        &self,
        to: &PublicKeys,
        kind: Kind,
        offer: Option<OfferId>,
        body: &impl Serialize,
    ) {
        let letter = self.seal_for(to, kind, offer, body);
        send(&self.link, &Frame::Letter(letter)).await;
    }

    pub fn seal_for(
        &self,
        to: &PublicKeys,
        kind: Kind,
        offer: Option<OfferId>,
        body: &impl Serialize,
    ) -> Letter {
        let id = CommandId::fresh(now(), rng::random());
        let (from, to_peer, not_after) = (self.peer(), to.peer(), Timestamp(0));
        let header = letter::Header {
            suite: SUITE,
            kind,
            from,
            to: to_peer,
            id,
            not_after,
            offer,
        };
        let body = serde_json::to_vec(body).unwrap();
        seal_letter(&self.identity, to, &header, &body, &mut rng::os_rng()).unwrap()
    }

    /// Opens an offer and makes its link.
    pub async fn offer(&self) -> (Offer, String) {
        let offer = Offer::new(rng::random(), now());
        let open = OpenOffer {
            offer: offer.id(),
            until: offer.until(),
        };
        send(&self.link, &Frame::OpenOffer(open)).await;
        let (relay, host, secret) = (self.relay.clone(), *self.identity.public(), *offer.secret());
        let url = pairing::Link {
            relay,
            host,
            secret,
        }
        .to_url();
        (offer, url)
    }

    pub async fn close_offer(&self, offer: &Offer) {
        send(
            &self.link,
            &Frame::CloseOffer(CloseOffer {
                offer: offer.id(),
                keep: None,
            }),
        )
        .await;
    }

    /// Waits for a pair request and answers it with a challenge; gives the code shown here.
    pub async fn challenge(&mut self, offer: &mut Offer) -> (PublicKeys, String) {
        let (header, letter) = self.letter().await;
        assert_eq!(header.kind, Kind::PairRequest);
        let body = open_pair_request(&self.identity, offer.secret(), offer.id(), &letter).unwrap();
        let request: PairRequest = serde_json::from_slice(&body).unwrap();
        letter.verify(&request.keys.signing).unwrap();
        let nonce: [u8; 32] = rng::random();
        let candidate = offer
            .request(now(), header.from, &request, &letter.hash(), &nonce)
            .unwrap();
        let answer = PairAnswer::Challenge {
            nonce: to_base64(&nonce),
            host: "laptop".into(),
            request: to_base64(&letter.hash()),
        };
        self.answer(&request.keys, offer, &answer).await;
        (request.keys, candidate.code)
    }

    pub async fn answer(&self, to: &PublicKeys, offer: &Offer, answer: &PairAnswer) {
        self.write_to(to, Kind::PairAnswer, Some(offer.id()), answer)
            .await;
    }

    /// Lets the device in.
    pub async fn accept(&mut self, device: PublicKeys, offer: &Offer) {
        self.extend_roster(device);
        self.list_members().await;
        let accepted = PairAnswer::Accepted {
            roster: self.roster.entries().to_vec(),
        };
        self.answer(&device, offer, &accepted).await;
    }

    pub async fn refuse(&self, device: &PublicKeys, offer: &Offer) {
        self.answer(
            device,
            offer,
            &PairAnswer::Refused {
                code: Code::PairingRefused,
            },
        )
        .await;
    }
}

pub fn connect(relay: &str, identity: &Arc<Identity>, generation: u64) -> (Link, Events) {
    Link::start(LinkOptions {
        relay: relay.to_owned(),
        identity: Arc::clone(identity),
        role: Role::Host,
        generation,
        dead_millis: None,
        agent: "test/0".into(),
        extra_ca: None,
    })
}

/// The content key of an epoch in these tests.
pub fn key(stream: StreamId, epoch: u32) -> ContentKey {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(stream.as_bytes());
    bytes[16..20].copy_from_slice(&epoch.to_be_bytes());
    ContentKey::from_bytes(bytes)
}

pub fn record(seq: u64, title: &str) -> Record {
    let event = Event::TitleChanged {
        title: title.into(),
        by: farhelm_core::event::Author::Local,
    };
    Record {
        seq,
        at: Timestamp(seq),
        cause: None,
        event,
    }
}
