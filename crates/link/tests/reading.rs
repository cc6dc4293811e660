//! A device reads its host's logs through a relay, honest and not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use farhelm_core::command::{Command, Outcome, Rejection};
use farhelm_core::event::{Event, HostEvent, Live, MessageRole, Record};
use farhelm_link::device::{Client, DeviceError, KnownHost, LogItem, Store};
use farhelm_proto::frame::{Frame, Subscribe};
use farhelm_proto::{Code, SessionId, StreamId};
use farhelm_relay::{Config, Relay};
use support::acted::Acted;
use support::host::Host;
use support::{relay, soon, up, url};
use tokio::sync::mpsc;

const SESSION: SessionId = SessionId::from_bytes([5; 16]);

#[tokio::test]
async fn the_fleet_is_read_from_its_newest_snapshot() {
    let mut stage = Stage::set().await;
    stage
        .host
        .tell(HostEvent::HostStarted {
            name: "laptop".into(),
            version: "1".into(),
        })
        .await;
    stage.host.snapshot().await;
    stage
        .host
        .tell(HostEvent::HostStarted {
            name: "desk".into(),
            version: "2".into(),
        })
        .await;
    stage.host.send_keys(stage.me(), stage.host.home()).await;
    let client = stage.client().await;
    let view = soon(client.fleet()).await.unwrap();
    assert_eq!(
        (view.fleet.name.as_str(), view.head, view.host_online),
        ("desk", 3, Some(true))
    );
    assert_eq!(view.roster, stage.host.roster);
    assert_eq!(view.me, stage.me());
}

#[tokio::test]
async fn a_fleet_without_a_snapshot_is_read_from_its_beginning() {
    let mut stage = Stage::set().await;
    for entry in stage.host.roster.entries().to_vec() {
        let entry = serde_json::to_string(&entry).unwrap();
        stage.host.tell(HostEvent::RosterExtended { entry }).await;
    }
    for number in 0..300 {
        stage
            .host
            .tell(HostEvent::HostStarted {
                name: format!("n{number}"),
                version: "1".into(),
            })
            .await;
    }
    stage.host.send_keys(stage.me(), stage.host.home()).await;
    let view = soon(stage.client().await.fleet()).await.unwrap();
    assert_eq!((view.fleet.name.as_str(), view.head), ("n299", 302));
}

#[tokio::test]
async fn what_happens_later_is_in_the_fleet_and_a_longer_roster_is_kept() {
    let mut stage = Stage::with_fleet().await;
    let client = stage.client().await;
    soon(client.fleet()).await.unwrap();
    stage.host.extend_roster(*support::identity().public());
    let entry = serde_json::to_string(stage.host.roster.entries().last().unwrap()).unwrap();
    stage.host.tell(HostEvent::RosterExtended { entry }).await;
    let expected = stage.host.roster.clone();
    soon(async { while client.fleet().await.unwrap().roster != expected {} }).await;
    client.close().await;
    assert_eq!(stage.store.hosts().unwrap()[0].roster, expected.entries());
}

#[tokio::test]
async fn f20_missing_keys_are_asked_for_once_and_reading_goes_on_when_they_come() {
    let mut stage = Stage::set().await;
    stage.host.snapshot().await;
    let client = stage.client().await;
    let me = stage.me();
    let home = stage.host.home();
    let (view, ()) = tokio::join!(client.fleet(), async {
        let (_, command) = stage.host.command().await;
        assert_eq!(command, Command::SendKeys { stream: home });
        stage.host.send_keys(me, home).await;
    });
    assert_eq!(view.unwrap().fleet.name, "laptop");
    // The key stays for the next run, which asks for nothing.
    client.close().await;
    let again = stage.client().await;
    assert_eq!(soon(again.fleet()).await.unwrap().head, 1);
}

#[tokio::test]
async fn s18_keys_that_the_host_refuses_are_said_so() {
    let mut stage = Stage::set().await;
    stage.host.snapshot().await;
    let client = stage.client().await;
    let me = stage.me();
    let (view, ()) = tokio::join!(client.fleet(), async {
        let (header, _) = stage.host.command().await;
        let rejection = Rejection::new(Code::Forbidden);
        stage
            .host
            .receipt(me, header.id, Outcome::Refused { rejection })
            .await;
    });
    assert_eq!(view.unwrap_err().code, Code::Forbidden);
}

#[tokio::test]
async fn a_key_that_only_an_absent_host_has_is_said_so() {
    let mut stage = Stage::set().await;
    stage.host.snapshot().await;
    let Stage {
        relay,
        host,
        store,
        known,
        folder: _folder,
    } = stage;
    drop(host.link);
    let client = Client::connect(store, known, None).await.unwrap();
    let error = soon(client.fleet_within(Duration::from_secs(1)))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::HostOffline);
    relay.shutdown().await;
}

#[tokio::test]
async fn a_relay_that_cannot_be_reached_is_said_so() {
    let stage = Stage::set().await;
    let known = KnownHost {
        relay: "http://127.0.0.1:1".into(),
        ..stage.known.clone()
    };
    let client = Client::connect(stage.store.clone(), known, None)
        .await
        .unwrap();
    let error = soon(client.fleet_within(Duration::from_millis(500)))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::RelayUnreachable);
    assert!(error.text.starts_with("no connection to"), "{error}");
    let mut log = client
        .log_within(SESSION, None, false, Duration::from_millis(100))
        .await;
    assert_eq!(
        soon(log.recv()).await.unwrap().unwrap_err().code,
        Code::RelayUnreachable
    );
    assert!(soon(log.recv()).await.is_none());
    assert_eq!(
        client
            .status()
            .borrow()
            .trouble
            .as_ref()
            .map(|trouble| trouble.code),
        Some(Code::RelayUnreachable)
    );
}

#[tokio::test]
async fn s18_a_device_that_was_removed_reads_nothing_and_is_told() {
    let mut stage = Stage::with_fleet().await;
    let nobody = farhelm_proto::frame::Members {
        version: 99,
        devices: vec![],
    };
    support::send(&stage.host.link, &Frame::Members(nobody)).await;
    stage.host.snapshot().await;
    let client = stage.client().await;
    let error = soon(client.fleet_within(Duration::from_secs(1)))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn a_log_is_read_from_its_beginning_or_from_any_event() {
    let mut stage = Stage::with_session().await;
    stage.host.write(SESSION, &["one", "two"]).await;
    stage.host.write(SESSION, &["three", "four", "five"]).await;
    let client = stage.client().await;
    let mut all = client.log(SESSION, None, false).await;
    assert_eq!(
        titles(&mut all).await,
        ["one", "two", "three", "four", "five"]
    );
    assert!(soon(all.recv()).await.is_none());
    let mut some = client.log(SESSION, Some(4), false).await;
    assert_eq!(titles(&mut some).await, ["four", "five"]);
    let mut none = client.log(SESSION, Some(6), false).await;
    assert_eq!(titles(&mut none).await, Vec::<String>::new());
    let mut empty = client
        .log(SessionId::from_bytes([9; 16]), None, false)
        .await;
    assert_eq!(titles(&mut empty).await, Vec::<String>::new());
}

#[tokio::test]
async fn f16_events_that_the_relay_has_dropped_are_said_to_be_missing_and_the_state_is_whole() {
    let relay = Relay::start(Config {
        events_per_stream: 10,
        ..Config::in_memory()
    })
    .unwrap();
    let mut stage = Stage::on(relay).await;
    stage.host.snapshot().await;
    stage.host.send_keys(stage.me(), stage.host.home()).await;
    stage.host.send_keys(stage.me(), SESSION.into()).await;
    for n in 0..30 {
        stage.host.write(SESSION, &[&format!("title {n}")]).await;
    }
    stage.host.session_snapshot(SESSION).await;
    for n in 30..50 {
        stage.host.write(SESSION, &[&format!("title {n}")]).await;
    }
    let client = stage.client().await;
    let mut log = client.log(SESSION, None, false).await;
    let first = soon(log.recv()).await.unwrap().unwrap();
    let LogItem::Limited { first, last } = first else {
        panic!("what is missing is said first, not {first:?}")
    };
    assert_eq!(first, 1);
    assert!((10..=30).contains(&last), "{last}");
    let mut state = farhelm_core::session::Session::default();
    while let LogItem::Record(record) = soon(log.recv()).await.unwrap().unwrap() {
        state.apply(record.cause, &record.event);
    }
    assert_eq!(state.title, "title 49");
    assert_eq!(state.agent, "from the snapshot");
}

#[tokio::test]
async fn a_log_that_is_followed_goes_on_with_events_and_deltas() {
    let mut stage = Stage::with_session().await;
    stage.host.write(SESSION, &["one"]).await;
    let client = stage.client().await;
    let mut log = client.log(SESSION, None, true).await;
    assert_eq!(titles(&mut log).await, ["one"]);
    let delta = Live::Text {
        message: "m".into(),
        role: MessageRole::Agent,
        parent: None,
        offset: 0,
        text: "hi".into(),
    };
    stage.host.live(SESSION, &delta).await;
    stage.host.write(SESSION, &["two"]).await;
    assert_eq!(
        soon(log.recv()).await,
        Some(Ok(LogItem::Live(Box::new(delta))))
    );
    assert_eq!(title(soon(log.recv()).await.unwrap().unwrap()), "two");
}

#[tokio::test]
async fn two_readers_of_one_log_each_get_all_of_it() {
    let mut stage = Stage::with_session().await;
    stage.host.write(SESSION, &["one", "two"]).await;
    let client = stage.client().await;
    let mut first = client.log(SESSION, Some(3), true).await;
    assert_eq!(titles(&mut first).await, Vec::<String>::new());
    let mut second = client.log(SESSION, None, true).await;
    assert_eq!(titles(&mut second).await, ["one", "two"]);
    stage.host.write(SESSION, &["three"]).await;
    for log in [&mut first, &mut second] {
        assert_eq!(title(soon(log.recv()).await.unwrap().unwrap()), "three");
    }
}

#[tokio::test]
async fn a_long_log_is_held_back_while_its_reader_is_slow_and_arrives_whole() {
    let mut stage = Stage::with_session().await;
    for batch in 0..40 {
        let batch: Vec<String> = (1..=250).map(|n| (batch * 250 + n).to_string()).collect();
        stage
            .host
            .write(
                SESSION,
                &batch.iter().map(String::as_str).collect::<Vec<_>>(),
            )
            .await;
    }
    let client = stage.client().await;
    let mut log = client.log(SESSION, None, true).await;
    // While nobody takes anything, the client still answers.
    soon(client.fleet()).await.unwrap();
    let expected: Vec<String> = (1..=10_000).map(|n: u32| n.to_string()).collect();
    assert_eq!(titles(&mut log).await, expected);
}

#[tokio::test]
async fn f11_a_log_goes_on_after_the_relay_restarted() {
    let data = tempfile::tempdir().unwrap();
    let first = Relay::start(Config::in_folder(data.path())).unwrap();
    let address = first.local_addr();
    let mut stage = Stage::on(first).await;
    stage.host.write(SESSION, &["one"]).await;
    stage.host.send_keys(stage.me(), SESSION.into()).await;
    let client = stage.client().await;
    let mut log = client.log(SESSION, None, true).await;
    assert_eq!(titles(&mut log).await, ["one"]);
    let Stage {
        relay, mut host, ..
    } = stage;
    relay.shutdown().await;
    let second = Relay::start(Config {
        listen: address,
        ..Config::in_folder(data.path())
    })
    .unwrap();
    up(&mut host.events).await;
    host.write(SESSION, &["two"]).await;
    assert_eq!(title(soon(log.recv()).await.unwrap().unwrap()), "two");
    second.shutdown().await;
}

#[tokio::test]
async fn f11_a_relay_that_forgot_everything_is_read_again_once_the_host_is_back() {
    let first = relay();
    let address = first.local_addr();
    let stage = Stage::on(first).await;
    let client = stage.client().await;
    let mut status = client.status();
    soon(status.wait_for(|status| status.up)).await.unwrap();
    let Stage {
        relay, mut host, ..
    } = stage;
    relay.shutdown().await;
    let second = Relay::start(Config {
        listen: address,
        ..Config::in_memory()
    })
    .unwrap();
    soon(status.wait_for(|status| status.up && status.trouble.is_some()))
        .await
        .unwrap();
    up(&mut host.events).await;
    host.list_members().await;
    host.snapshot().await;
    let client_peer = host.roster.devices().next().unwrap().0;
    host.send_keys(client_peer, host.home()).await;
    assert_eq!(soon(client.fleet()).await.unwrap().head, 1);
    assert_eq!(status.borrow_and_update().trouble, None);
    second.shutdown().await;
}

#[tokio::test]
async fn s36_a_relay_that_shows_an_older_state_than_was_seen_is_noticed() {
    let mut stage = Stage::with_fleet().await;
    stage.host.snapshot().await;
    let client = stage.client().await;
    assert_eq!(soon(client.fleet()).await.unwrap().head, 2);
    client.close().await;
    let acted = Acted::start().await;
    let client = stage.client_at(&acted.url()).await;
    let older = async {
        let mut connection = acted.accept().await;
        loop {
            let ask = connection.subscribe().await;
            connection.subscribed(&ask, 1, 0, 1).await;
        }
    };
    tokio::select! {
        view = client.fleet() => assert_eq!(view.unwrap_err(), DeviceError::new(Code::RolledBack)),
        () = older => {}
    }
}

#[tokio::test]
async fn s36_a_relay_that_shows_another_past_than_was_seen_is_noticed() {
    let mut stage = Stage::with_session().await;
    stage.host.write(SESSION, &["one"]).await;
    let client = stage.client().await;
    titles(&mut client.log(SESSION, None, false).await).await;
    client.close().await;
    // The same host writes its log anew, as after a restored backup.
    stage.host.logs.remove(&SESSION.into());
    let other_past = stage.host.titles(SESSION, &["another one"]);
    let envelopes = vec![other_past];
    assert_eq!(
        stage.read_from_acted(envelopes, 1).await.unwrap_err().code,
        Code::Tampered
    );
}

#[tokio::test]
async fn s05_an_envelope_that_was_altered_is_noticed() {
    let mut stage = Stage::with_session().await;
    let mut envelope = stage.host.titles(SESSION, &["one"]);
    let last = envelope.body.len() - 1;
    let mut body = envelope.body.to_vec();
    body[last] ^= 1;
    envelope.body = body.into();
    let error = stage.read_from_acted(vec![envelope], 1).await.unwrap_err();
    assert_eq!(error.code, Code::Tampered);
    assert!(error.text.contains("bad_signature"), "{error}");
}

#[tokio::test]
async fn s06_envelopes_in_another_order_are_noticed() {
    let mut stage = Stage::with_session().await;
    let first = stage.host.titles(SESSION, &["one"]);
    let second = stage.host.titles(SESSION, &["two"]);
    let third = stage.host.titles(SESSION, &["three"]);
    let error = stage
        .read_from_acted(vec![first, third, second], 3)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Tampered);
}

#[tokio::test]
async fn s06_a_log_without_its_beginning_is_noticed() {
    let mut stage = Stage::with_session().await;
    stage.host.titles(SESSION, &["one"]);
    let second = stage.host.titles(SESSION, &["two"]);
    let error = stage.read_from_acted(vec![second], 2).await.unwrap_err();
    assert_eq!(error.code, Code::Tampered);
}

#[tokio::test]
async fn honest_envelopes_from_an_acted_relay_are_read() {
    let mut stage = Stage::with_session().await;
    let first = stage.host.titles(SESSION, &["one"]);
    let second = stage.host.titles(SESSION, &["two"]);
    assert_eq!(
        stage.read_from_acted(vec![first, second], 2).await.unwrap(),
        ["one", "two"]
    );
}

/// A relay, a host and a paired device.
struct Stage {
    relay: Relay,
    host: Host,
    folder: tempfile::TempDir,
    store: Store,
    known: KnownHost,
}

impl Stage {
    async fn set() -> Self {
        Self::on(relay()).await
    }

    async fn on(relay: Relay) -> Self {
        let mut host = Host::start(&url(&relay)).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let known = host.admit(&store).await;
        Self {
            relay,
            host,
            folder,
            store,
            known,
        }
    }

    /// With a fleet that the device can read.
    async fn with_fleet() -> Self {
        let mut stage = Self::set().await;
        stage.host.snapshot().await;
        stage.host.send_keys(stage.me(), stage.host.home()).await;
        stage
    }

    /// With a fleet and a session that the device can read.
    async fn with_session() -> Self {
        let stage = Self::with_fleet().await;
        stage.host.send_keys(stage.me(), SESSION.into()).await;
        stage
    }

    fn me(&self) -> farhelm_proto::PeerId {
        self.store.identity().unwrap().peer()
    }

    async fn client(&self) -> Client {
        Client::connect(self.store.clone(), self.known.clone(), None)
            .await
            .unwrap()
    }

    async fn client_at(&self, relay: &str) -> Client {
        let known = KnownHost {
            relay: relay.to_owned(),
            ..self.known.clone()
        };
        Client::connect(self.store.clone(), known, None)
            .await
            .unwrap()
    }

    /// Reads the session from a relay that serves exactly these envelopes.
    async fn read_from_acted(
        &self,
        envelopes: Vec<farhelm_proto::envelope::Envelope>,
        head: u64,
    ) -> Result<Vec<String>, DeviceError> {
        let acted = Acted::start().await;
        let client = self.client_at(&acted.url()).await;
        let mut log = client.log(SESSION, None, false).await;
        let keys = self.host.seal_for(
            self.store.identity().unwrap().public(),
            farhelm_proto::letter::Kind::Keys,
            None,
            &keys_of(SESSION.into()),
        );
        let serve = async {
            let mut connection = acted.accept().await;
            connection.send(&Frame::Letter(keys)).await;
            loop {
                let ask: Subscribe = connection.subscribe().await;
                if ask.stream != StreamId::from(SESSION) {
                    continue;
                }
                let after = ask.after.unwrap_or_default();
                connection.subscribed(&ask, head, after, 0).await;
                for envelope in &envelopes {
                    let first = envelope.parse_header().unwrap().first;
                    if first > after {
                        connection.send(&Frame::Envelope(envelope.clone())).await;
                    }
                }
            }
        };
        let read = async {
            let mut titles = Vec::new();
            while let Some(item) = soon(log.recv()).await {
                match item? {
                    LogItem::CaughtUp => break,
                    item @ (LogItem::Record(_) | LogItem::Live(_) | LogItem::Limited { .. }) => {
                        titles.push(title(item));
                    }
                }
            }
            Ok(titles)
        };
        tokio::select! {
            read = read => read,
            () = serve => unreachable!(),
        }
    }
}

fn keys_of(stream: StreamId) -> farhelm_core::keys::KeyBundle {
    let key = farhelm_core::keys::to_base64(support::host::key(stream, 0).expose());
    farhelm_core::keys::KeyBundle {
        stream,
        keys: vec![farhelm_core::keys::EpochKey { epoch: 0, key }],
    }
}

/// The titles up to the end of what was stored.
async fn titles(log: &mut mpsc::Receiver<Result<LogItem, DeviceError>>) -> Vec<String> {
    let mut titles = Vec::new();
    loop {
        match soon(log.recv()).await.unwrap().unwrap() {
            LogItem::CaughtUp => return titles,
            item @ (LogItem::Record(_) | LogItem::Live(_) | LogItem::Limited { .. }) => {
                titles.push(title(item));
            }
        }
    }
}

fn title(item: LogItem) -> String {
    match item {
        LogItem::Record(record) => match *record {
            Record {
                event: Event::TitleChanged { title, .. },
                ..
            } => title,
            other => panic!("a title, but got {other:?}"),
        },
        other @ (LogItem::Live(_) | LogItem::CaughtUp | LogItem::Limited { .. }) => {
            panic!("a record, but got {other:?}")
        }
    }
}

#[tokio::test]
async fn letters_of_another_host_on_the_same_relay_are_left_for_it() {
    let stage = Stage::with_fleet().await;
    let mut other = Host::start(&url(&stage.relay)).await;
    other.admit(&stage.store).await;
    other.snapshot().await;
    other.send_keys(stage.me(), other.home()).await;
    let client = stage.client().await;
    soon(client.fleet()).await.unwrap();
    client.close().await;
    let known = stage.store.host(other.peer()).unwrap().unwrap();
    let client = Client::connect(stage.store.clone(), known, None)
        .await
        .unwrap();
    assert_eq!(soon(client.fleet()).await.unwrap().head, 1);
}
