//! Whether the host is there: proved by an echo of the host, whatever the relay says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use farhelm_core::command::Command;
use farhelm_core::event::Activity;
use farhelm_core::presence::{Presence, Reach};
use farhelm_core::probe::{Echo, Probe, ProbeBody, Pulse};
use farhelm_core::seal::open_letter;
use farhelm_link::clock::now;
use farhelm_link::device::{Client, KnownHost, Stage as Reached, Store};
use farhelm_proto::frame::Frame;
use farhelm_proto::letter::{Kind, Letter};
use farhelm_proto::{SessionId, StreamId, Timestamp};
use farhelm_world::World;
use support::acted::{Acted, Connection};
use support::host::Host;
use support::skewed::Skewed;
use support::{relay, soon, url};

mod support;

const SESSION: SessionId = SessionId::from_bytes([5; 16]);
const OFTEN: Option<Duration> = Some(Duration::from_millis(100));
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_echo_proves_the_way_and_brings_what_the_host_knows() {
    let relay = relay();
    let mut stage = Stage::set(&url(&relay)).await;
    let client = stage.client(&stage.known.relay.clone()).await;
    soon(client.fleet()).await.unwrap();
    let (presence, ()) = tokio::join!(client.probe(PATIENCE), async {
        let probe = stage.probe().await;
        stage.echo(&probe.nonce, 7).await;
    });
    let presence = presence.unwrap();
    assert_eq!(presence.reach(now()), Reach::Live);
    let turn = presence.turn(SESSION, now());
    assert_eq!((turn.state, turn.fresh), (Some(Activity::Running), true));
    assert_eq!(presence.sessions[&SESSION].agent.value, Some(true));
    assert_eq!(
        presence.sessions[&SESSION].keeper.value, None,
        "unknown is legal"
    );
}

#[tokio::test]
async fn f12_a_host_that_is_away_is_said_to_be_at_once() {
    let relay = relay();
    let stage = Stage::set(&url(&relay)).await;
    let known = stage.known.clone();
    let store = stage.store.clone();
    let _folder = stage.folder;
    drop(stage.host);
    let client = Client::connect(store, known, None).await.unwrap();
    // The relay may take a moment to notice that the host went.
    loop {
        let presence = soon(client.probe(Duration::from_secs(1))).await.unwrap();
        if presence.reach(now()) == Reach::HostAway {
            break;
        }
    }
}

#[tokio::test]
async fn a_device_answers_its_host() {
    let relay = relay();
    let mut stage = Stage::set(&url(&relay)).await;
    let client = stage.client(&stage.known.relay.clone()).await;
    soon(client.fleet()).await.unwrap();
    let probe = ProbeBody::Probe(Probe {
        nonce: "from the host".into(),
        sessions: None,
    });
    let me = *stage.store.identity().unwrap().public();
    stage.host.write_to(&me, Kind::Probe, None, &probe).await;
    let body = stage.body().await;
    assert!(
        matches!(body, ProbeBody::Echo(echo) if echo.nonce == "from the host"),
        "an echo"
    );
}

#[tokio::test]
async fn s03_an_echo_is_good_for_one_probe_and_cannot_be_made_by_the_relay() {
    let acted = Acted::start().await;
    let relay = relay();
    let stage = Stage::set(&url(&relay)).await;
    let client = stage.client(&acted.url()).await;
    client.probe_every(OFTEN).await;
    let mut connection = soon(acted.accept()).await;
    let first = stage.probe_at(&mut connection).await;
    // One that the relay makes with keys of its own is not believed.
    let stranger = support::identity();
    let forged = stage.seal_echo(&first.nonce, 7, &stranger);
    connection.send(&Frame::Letter(forged)).await;
    let honest = stage.seal_echo(&first.nonce, 7, &stage.host.identity);
    connection.send(&Frame::Letter(honest.clone())).await;
    let presence = seen(&client, |presence| presence.path.proven.is_some()).await;
    let proven = presence.path.proven;
    // From here on the relay answers each probe with the echo that it has kept.
    for _ in 0..3 {
        stage.probe_at(&mut connection).await;
        connection.send(&Frame::Letter(honest.clone())).await;
    }
    let presence = client.status().borrow().presence.clone();
    assert_eq!(presence.path.proven, proven, "nothing was proved since");
    let silent = seen(&client, |presence| presence.reach(now()) == Reach::Silent).await;
    assert_eq!(
        silent.sessions[&SESSION].turn.value,
        Some(Activity::Running),
        "and it stays known"
    );
    assert!(!silent.turn(SESSION, now()).fresh);
}

#[tokio::test]
async fn s06_a_relay_that_freezes_a_log_while_it_passes_echoes_is_found_out() {
    let acted = Acted::start().await;
    let relay = relay();
    let mut stage = Stage::set(&url(&relay)).await;
    let client = stage.client(&acted.url()).await;
    client.probe_every(OFTEN).await;
    let mut log = client.log(SESSION, None, true).await;
    let mut connection = soon(acted.accept()).await;
    let shown = stage.host.titles(SESSION, &["shown"]);
    // The host writes on, and the relay keeps it to itself.
    stage.host.titles(SESSION, &["kept", "back"]);
    let me = *stage.store.identity().unwrap().public();
    let keys = stage.host.seal_for(&me, Kind::Keys, None, &stage.keys());
    connection.send(&Frame::Letter(keys)).await;
    let serve = async {
        loop {
            match connection.receive().await {
                Some(Frame::Subscribe(ask)) if ask.stream == StreamId::from(SESSION) => {
                    let after = ask.after.unwrap_or_default();
                    connection.subscribed(&ask, 1, after, 0).await;
                    if after == 0 {
                        connection.send(&Frame::Envelope(shown.clone())).await;
                    }
                }
                Some(Frame::Letter(letter)) => {
                    if let Some(probe) = stage.open(&letter) {
                        let echo = stage.seal_echo(&probe.nonce, 3, &stage.host.identity);
                        connection.send(&Frame::Letter(echo)).await;
                    }
                }
                Some(_) => {}
                None => break,
            }
        }
    };
    let found = async {
        soon(log.recv()).await.unwrap().unwrap();
        seen(&client, |presence| !presence.held_back(now()).is_empty()).await
    };
    let presence = tokio::select! {
        presence = found => presence,
        () = serve => panic!("the device went away"),
    };
    assert_eq!(presence.held_back(now()), [(SESSION.into(), 2)]);
    assert_eq!(
        presence.reach(now()),
        Reach::Live,
        "the host is there, and that is no excuse"
    );
}

#[tokio::test]
async fn f10_a_wishs_time_is_over_when_it_is_over_on_the_hosts_clock_whatever_the_devices_shows() {
    const HOUR: u64 = 3_600_000;
    let days = i64::try_from(48 * HOUR).unwrap();
    let relay = relay();
    for wrong in [-days, days] {
        let mut stage = Stage::set(&url(&relay)).await;
        let world = Arc::new(Skewed::default());
        world.millis.store(wrong, Ordering::Relaxed);
        let client = farhelm_world::within(Arc::clone(&world) as Arc<dyn World>, async {
            stage.client(&stage.known.relay.clone()).await
        })
        .await;
        soon(client.fleet()).await.unwrap();
        assert!(client.status().borrow().clock_in_doubt);
        let prompt = Command::Prompt {
            session: SESSION,
            text: "within the hour".into(),
        };
        let own = now().0.saturating_add_signed(wrong);
        let (sent, ()) = tokio::join!(client.send(prompt, Timestamp(own + HOUR)), async {
            let probe = stage.probe().await;
            stage.echo(&probe.nonce, 1).await;
        });
        let (header, _) = soon(stage.host.command()).await;
        assert_eq!(header.id, sent.unwrap().id);
        let off = header.not_after.0.abs_diff(now().0 + HOUR);
        assert!(off < HOUR / 2, "{off} ms off, for a clock {wrong} ms off");
        let pending = soon(client.pending()).await.unwrap();
        let wish = pending.iter().find(|wish| wish.id == header.id).unwrap();
        assert_eq!(wish.not_after.0, own + HOUR, "shown on the own clock");
        soon(client.close()).await;
    }
}

#[tokio::test]
async fn f10_a_wish_that_waits_is_not_over_because_somebody_set_the_devices_clock() {
    const HOUR: u64 = 3_600_000;
    let relay = relay();
    let mut stage = Stage::set(&url(&relay)).await;
    let world = Arc::new(Skewed::default());
    let client = farhelm_world::within(Arc::clone(&world) as Arc<dyn World>, async {
        stage.client(&stage.known.relay.clone()).await
    })
    .await;
    soon(client.fleet()).await.unwrap();
    let prompt = |text: &str| Command::Prompt {
        session: SESSION,
        text: text.into(),
    };
    let within_an_hour = |client: Client, text: &'static str, own: u64| async move {
        let sent = client.send(prompt(text), Timestamp(own + HOUR)).await;
        (client, sent.unwrap().id)
    };
    // The relay's clock is the device's, and still it is the host that is asked.
    let ((client, first), ()) = tokio::join!(within_an_hour(client, "one", now().0), async {
        let probe = stage.probe().await;
        stage.echo(&probe.nonce, 1).await;
    });
    let two_days = i64::try_from(48 * HOUR).unwrap();
    world.millis.store(two_days, Ordering::Relaxed);
    let (client, second) = within_an_hour(client, "two", now().0 + 48 * HOUR).await;
    let pending = soon(client.pending()).await.unwrap();
    let stages: Vec<_> = pending.iter().map(|wish| (wish.id, &wish.stage)).collect();
    assert!(
        matches!(stages[..], [(a, Reached::Kept | Reached::AtRelay), (b, Reached::Kept | Reached::AtRelay)]
            if a == first && b == second),
        "{stages:?}"
    );
    // The clock is set back again: the order stays.
    world.millis.store(-two_days, Ordering::Relaxed);
    let (client, third) = within_an_hour(client, "three", now().0 - 48 * HOUR).await;
    let pending = soon(client.pending()).await.unwrap();
    let order: Vec<_> = pending.iter().map(|wish| wish.id).collect();
    assert_eq!(order, [first, second, third]);
    soon(client.close()).await;
}

/// Waits until what is known is so.
async fn seen(client: &Client, holds: impl Fn(&Presence) -> bool) -> Presence {
    let mut status = client.status();
    let known = soon(status.wait_for(|status| holds(&status.presence))).await;
    known.unwrap().presence.clone()
}

struct Stage {
    host: Host,
    folder: tempfile::TempDir,
    store: Store,
    known: KnownHost,
}

impl Stage {
    async fn set(relay: &str) -> Self {
        let mut host = Host::start(relay).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let known = host.admit(&store).await;
        host.snapshot().await;
        let me = store.identity().unwrap().peer();
        host.send_keys(me, host.home()).await;
        Self {
            host,
            folder,
            store,
            known,
        }
    }

    async fn client(&self, relay: &str) -> Client {
        let known = KnownHost {
            relay: relay.to_owned(),
            ..self.known.clone()
        };
        Client::connect(self.store.clone(), known, None)
            .await
            .unwrap()
    }

    fn keys(&self) -> farhelm_core::keys::KeyBundle {
        let stream = StreamId::from(SESSION);
        let key = farhelm_core::keys::to_base64(support::host::key(stream, 0).expose());
        let epoch = self.host.logs.get(&stream).map_or(0, |log| log.epoch);
        farhelm_core::keys::KeyBundle {
            stream,
            keys: vec![farhelm_core::keys::EpochKey { epoch, key }],
        }
    }

    /// The probe in a letter, when it is one.
    fn open(&self, letter: &Letter) -> Option<Probe> {
        let header = letter.parse_header().unwrap();
        if header.kind != Kind::Probe {
            return None;
        }
        let body = open_letter(&self.host.identity, letter).unwrap();
        match serde_json::from_slice(&body).unwrap() {
            ProbeBody::Probe(probe) => Some(probe),
            ProbeBody::Echo(_) => None,
        }
    }

    /// What the next Probe letter to the host holds.
    async fn body(&mut self) -> ProbeBody {
        let (header, letter) = self.host.letter().await;
        assert_eq!(header.kind, Kind::Probe);
        serde_json::from_slice(&open_letter(&self.host.identity, &letter).unwrap()).unwrap()
    }

    async fn probe(&mut self) -> Probe {
        match self.body().await {
            ProbeBody::Probe(probe) => probe,
            ProbeBody::Echo(_) => panic!("a probe"),
        }
    }

    /// The next probe that reaches an acted relay.
    async fn probe_at(&self, connection: &mut Connection) -> Probe {
        loop {
            if let Frame::Letter(letter) = connection.receive().await.unwrap()
                && let Some(probe) = self.open(&letter)
            {
                return probe;
            }
        }
    }

    async fn echo(&self, nonce: &str, sent: u64) {
        let letter = self.seal_echo(nonce, sent, &self.host.identity);
        support::send(&self.host.link, &Frame::Letter(letter)).await;
    }

    /// An echo in the host's name, signed by `signer`.
    fn seal_echo(&self, nonce: &str, sent: u64, signer: &farhelm_core::keys::Identity) -> Letter {
        let pulse = Pulse {
            head: sent,
            sent,
            state: Activity::Running,
            keeper: None,
            agent: Some(true),
            heard: Some(now()),
            held: None,
        };
        let echo = Echo {
            nonce: nonce.to_owned(),
            now: now(),
            every_millis: 100,
            idle_millis: 100,
            sent: Some(1),
            sessions: [(SESSION, pulse)].into(),
        };
        let header = farhelm_proto::letter::Header {
            suite: farhelm_proto::envelope::SUITE,
            kind: Kind::Probe,
            from: self.host.peer(),
            to: self.store.identity().unwrap().peer(),
            id: farhelm_proto::CommandId::fresh(now(), farhelm_link::rng::random()),
            not_after: farhelm_proto::Timestamp(0),
            offer: None,
        };
        let body = serde_json::to_vec(&ProbeBody::Echo(Box::new(echo))).unwrap();
        let to = *self.store.identity().unwrap().public();
        farhelm_core::seal::seal_letter(
            signer,
            &to,
            &header,
            &body,
            &mut farhelm_link::rng::os_rng(),
        )
        .unwrap()
    }
}
