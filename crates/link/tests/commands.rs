//! A device's commands: how far they have come, and that none is lost or doubled.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use farhelm_core::command::{Command, Delivery, Outcome, Rejection};
use farhelm_link::clock::now;
use farhelm_link::device::{Client, KnownHost, Sent, Stage, Store};
use farhelm_proto::frame::{Frame, Posted, Problem};
use farhelm_proto::letter::{Kind, Letter};
use farhelm_proto::{Code, SessionId, Timestamp};
use farhelm_relay::Relay;
use support::acted::{Acted, Connection};
use support::host::Host;
use support::{relay, soon, url};

#[tokio::test]
async fn a_command_advances_to_its_end() {
    let mut scene = Scene::set().await;
    let client = scene.client(&scene.known).await;
    let mut sent = client.send(prompt("hello"), later()).await.unwrap();
    let (header, command) = scene.host.command().await;
    assert_eq!((header.id, command), (sent.id, prompt("hello")));
    assert_eq!(stage(&mut sent).await, Stage::Kept);
    assert_eq!(stage(&mut sent).await, Stage::AtRelay);
    scene
        .host
        .receipt(header.from, sent.id, Outcome::Received)
        .await;
    assert_eq!(stage(&mut sent).await, Stage::AtHost);
    assert_eq!(client.pending().await.unwrap()[0].stage, Stage::AtHost);
    let applied = Outcome::Applied {
        stream: session().into(),
        seq: 7,
        made: None,
        delivery: Delivery::Done,
    };
    scene
        .host
        .receipt(header.from, sent.id, applied.clone())
        .await;
    assert_eq!(stage(&mut sent).await, Stage::Done(applied.clone()));
    assert!(soon(sent.stages.recv()).await.is_none());
    assert_eq!(client.pending().await.unwrap(), vec![]);
    assert_eq!(scene.store.outcome(sent.id).unwrap(), Some(applied));
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn a_command_that_is_refused_says_why() {
    let mut scene = Scene::set().await;
    let client = scene.client(&scene.known).await;
    let mut sent = client.send(prompt("hello"), later()).await.unwrap();
    let (header, _) = scene.host.command().await;
    let refused = Outcome::Refused {
        rejection: Rejection::new(Code::SessionEnded),
    };
    scene
        .host
        .receipt(header.from, sent.id, refused.clone())
        .await;
    assert_eq!(end(&mut sent).await, refused);
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn f19_a_command_outlives_this_process_and_keeps_its_id() {
    let mut scene = Scene::set().await;
    let nowhere = KnownHost {
        relay: "http://127.0.0.1:1".into(),
        ..scene.known.clone()
    };
    let client = scene.client(&nowhere).await;
    let mut sent = client.send(prompt("hello"), later()).await.unwrap();
    assert_eq!(stage(&mut sent).await, Stage::Kept);
    drop(client);
    let store = Store::open(scene.folder.path()).unwrap();
    let pending = store.pending(scene.host.peer()).unwrap();
    assert_eq!(
        (pending[0].id, pending[0].kind.as_str(), &pending[0].stage),
        (sent.id, "prompt", &Stage::Kept)
    );
    let client = Client::connect(store, scene.known.clone(), None)
        .await
        .unwrap();
    let (header, command) = scene.host.command().await;
    assert_eq!((header.id, command), (sent.id, prompt("hello")));
    let applied = Outcome::Applied {
        stream: session().into(),
        seq: 7,
        made: None,
        delivery: Delivery::Done,
    };
    scene
        .host
        .receipt(header.from, sent.id, applied.clone())
        .await;
    soon(async { while !client.pending().await.unwrap().is_empty() {} }).await;
    assert_eq!(scene.store.outcome(sent.id).unwrap(), Some(applied));
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn f19_a_command_is_sent_again_until_the_host_has_it_and_not_afterwards() {
    let scene = Scene::set().await;
    let acted = Acted::start().await;
    let client = scene.client(&scene.at(&acted)).await;
    let mut connection = acted.accept().await;
    let sent = client.send(prompt("hello"), later()).await.unwrap();
    let first = letter(&mut connection).await;
    connection
        .send(&Frame::Posted(Posted { id: sent.id }))
        .await;
    drop(connection);
    let mut connection = acted.accept().await;
    assert_eq!(letter(&mut connection).await, first);
    let me = *scene.store.identity().unwrap().public();
    let body = farhelm_core::command::Receipt {
        command: sent.id,
        outcome: Outcome::Received,
    };
    let receipt = scene.host.seal_for(&me, Kind::Receipt, None, &body);
    connection.send(&Frame::Letter(receipt)).await;
    while !matches!(connection.receive().await, Some(Frame::Taken(_))) {}
    drop(connection);
    let mut connection = acted.accept().await;
    let next = client.send(prompt("next"), later()).await.unwrap();
    let Frame::Letter(after) = letter(&mut connection).await else {
        panic!("a letter")
    };
    assert_eq!(after.parse_header().unwrap().id, next.id);
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn a_command_that_the_relay_cannot_take_yet_is_sent_again() {
    let scene = Scene::set().await;
    let acted = Acted::start().await;
    let client = scene.client(&scene.at(&acted)).await;
    let mut connection = acted.accept().await;
    let mut sent = client.send(prompt("hello"), later()).await.unwrap();
    let first = letter(&mut connection).await;
    connection.send(&problem(&sent, Code::NotFound)).await;
    assert_eq!(letter(&mut connection).await, first);
    connection
        .send(&Frame::Posted(Posted { id: sent.id }))
        .await;
    assert_eq!(stage(&mut sent).await, Stage::Kept);
    assert_eq!(stage(&mut sent).await, Stage::AtRelay);
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn f27_a_command_whose_time_is_over_is_only_not_known_to_have_been_applied_until_the_host_says_so()
 {
    let mut scene = Scene::set().await;
    let client = scene.client(&scene.known).await;
    let mut sent = client.send(prompt("hello"), Timestamp(1)).await.unwrap();
    while stage(&mut sent).await != Stage::Expired {}
    assert_eq!(client.pending().await.unwrap()[0].stage, Stage::Expired);
    let (header, asked) = scene.host.command().await;
    assert_eq!(asked, Command::Recall { command: sent.id });
    let refused = Outcome::Refused {
        rejection: Rejection::new(Code::Recalled),
    };
    scene
        .host
        .receipt(header.from, sent.id, refused.clone())
        .await;
    assert_eq!(end(&mut sent).await, refused);
    assert_eq!(client.pending().await.unwrap(), vec![]);
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn f27_the_host_may_still_say_that_a_command_was_applied_in_time() {
    let mut scene = Scene::set().await;
    let client = scene.client(&scene.known).await;
    let mut sent = client.send(prompt("hello"), Timestamp(1)).await.unwrap();
    let (header, _) = scene.host.command().await;
    let applied = applied(Delivery::Consumed);
    scene
        .host
        .receipt(header.from, sent.id, applied.clone())
        .await;
    assert_eq!(end(&mut sent).await, applied);
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn stages_with_the_agent_are_told_and_what_is_indeterminate_is_sent_again_under_another_id() {
    let mut scene = Scene::set().await;
    let client = scene.client(&scene.known).await;
    let mut sent = client.send(prompt("hello"), later()).await.unwrap();
    let (header, _) = scene.host.command().await;
    assert_eq!(
        client.send_again(sent.id, later()).await.unwrap_err().code,
        Code::NotIndeterminate
    );
    for delivery in [Delivery::Waiting, Delivery::Handed, Delivery::Indeterminate] {
        let outcome = applied(delivery);
        scene.host.receipt(header.from, sent.id, outcome).await;
    }
    while stage(&mut sent).await != Stage::AtHost {}
    assert_eq!(stage(&mut sent).await, Stage::Handed);
    let unknown = applied(Delivery::Indeterminate);
    assert_eq!(stage(&mut sent).await, Stage::Done(unknown.clone()));
    let pending = client.pending().await.unwrap();
    assert_eq!(pending[0].stage, Stage::Done(unknown));
    assert_eq!(pending[0].command, Some(prompt("hello")));

    let again = client.send_again(sent.id, later()).await.unwrap();
    assert_ne!(again.id, sent.id);
    let (header, body) = scene.host.command_body().await;
    assert_eq!(header.id, again.id);
    assert_eq!(
        (body.command, body.retries),
        (prompt("hello"), Some(sent.id))
    );
    let retried = applied(Delivery::Retried);
    scene.host.receipt(header.from, sent.id, retried).await;
    let done = applied(Delivery::Consumed);
    scene.host.receipt(header.from, again.id, done).await;
    soon(async { while !client.pending().await.unwrap().is_empty() {} }).await;
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn what_nobody_knows_of_is_put_away_by_a_person_and_never_by_itself() {
    let mut scene = Scene::set().await;
    let client = scene.client(&scene.known).await;
    let mut sent = client.send(prompt("hello"), later()).await.unwrap();
    let (header, _) = scene.host.command().await;
    let unknown = applied(Delivery::Indeterminate);
    scene
        .host
        .receipt(header.from, sent.id, unknown.clone())
        .await;
    assert_eq!(end(&mut sent).await, unknown);
    client.close().await;
    let client = scene.client(&scene.known).await;
    assert_eq!(client.pending().await.unwrap().len(), 1);
    let mut put_away = client.take_back(sent.id).await.unwrap();
    assert_eq!(end(&mut put_away).await, unknown);
    assert_eq!(client.pending().await.unwrap(), vec![]);
    assert_eq!(
        client.take_back(sent.id).await.unwrap_err().code,
        Code::NotFound
    );
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn a_command_that_is_taken_back_before_it_left_never_leaves_and_the_host_is_told() {
    let mut scene = Scene::set().await;
    let nowhere = KnownHost {
        relay: "http://127.0.0.1:1".into(),
        ..scene.known.clone()
    };
    let client = scene.client(&nowhere).await;
    let sent = client.send(prompt("hello"), later()).await.unwrap();
    client.take_back(sent.id).await.unwrap();
    assert!(client.pending().await.unwrap()[0].recalled);
    drop(client);
    let client = scene.client(&scene.known).await;
    let (header, command) = scene.host.command().await;
    assert_eq!(command, Command::Recall { command: sent.id });
    let refused = Outcome::Refused {
        rejection: Rejection::new(Code::Recalled),
    };
    scene.host.receipt(header.from, sent.id, refused).await;
    soon(async { while !client.pending().await.unwrap().is_empty() {} }).await;
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn a_command_that_is_too_large_is_not_kept() {
    let scene = Scene::set().await;
    let client = scene.client(&scene.known).await;
    let bytes: Vec<u8> = (0..1_000)
        .flat_map(|_| farhelm_link::rng::random::<1_000>())
        .collect();
    let noise = farhelm_core::keys::to_base64(&bytes);
    let error = client.send(prompt(&noise), later()).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    assert_eq!(client.pending().await.unwrap(), vec![]);
    scene.relay.shutdown().await;
}

#[tokio::test]
async fn s09_a_receipt_that_is_not_from_the_host_changes_nothing() {
    let scene = Scene::set().await;
    let acted = Acted::start().await;
    let client = scene.client(&scene.at(&acted)).await;
    let mut connection = acted.accept().await;
    let mut sent = client.send(prompt("hello"), later()).await.unwrap();
    letter(&mut connection).await;
    let me = *scene.store.identity().unwrap().public();
    let applied = Outcome::Applied {
        stream: session().into(),
        seq: 7,
        made: None,
        delivery: Delivery::Done,
    };
    let body = farhelm_core::command::Receipt {
        command: sent.id,
        outcome: applied,
    };
    let genuine = scene.host.seal_for(&me, Kind::Receipt, None, &body);
    let own = support::identity();
    let (header, enc, body) = (genuine.header.to_vec(), *genuine.enc, genuine.body.to_vec());
    let forged = farhelm_proto::letter::Letter::sign(header, enc, body, own.signing());
    connection.send(&Frame::Letter(forged)).await;
    connection
        .send(&Frame::Posted(Posted { id: sent.id }))
        .await;
    assert_eq!(stage(&mut sent).await, Stage::Kept);
    assert_eq!(stage(&mut sent).await, Stage::AtRelay);
    assert_eq!(client.pending().await.unwrap().len(), 1);
    scene.relay.shutdown().await;
}

/// A relay, a host and a paired device.
struct Scene {
    relay: Relay,
    host: Host,
    folder: tempfile::TempDir,
    store: Store,
    known: KnownHost,
}

impl Scene {
    async fn set() -> Self {
        let relay = relay();
        let mut host = Host::start(&url(&relay)).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let known = host.admit(&store).await;
        host.snapshot().await;
        host.send_keys(store.identity().unwrap().peer(), host.home())
            .await;
        Self {
            relay,
            host,
            folder,
            store,
            known,
        }
    }

    async fn client(&self, known: &KnownHost) -> Client {
        Client::connect(self.store.clone(), known.clone(), None)
            .await
            .unwrap()
    }

    fn at(&self, acted: &Acted) -> KnownHost {
        KnownHost {
            relay: acted.url(),
            ..self.known.clone()
        }
    }
}

async fn letter(connection: &mut Connection) -> Frame {
    loop {
        let frame = connection.receive().await.unwrap();
        // Before a wish a device may ask what time the host has.
        let is_one = |letter: &Letter| letter.parse_header().unwrap().kind != Kind::Probe;
        if matches!(&frame, Frame::Letter(letter) if is_one(letter)) {
            return frame;
        }
    }
}

async fn stage(sent: &mut Sent) -> Stage {
    soon(sent.stages.recv()).await.unwrap()
}

async fn end(sent: &mut Sent) -> Outcome {
    loop {
        if let Stage::Done(outcome) = stage(sent).await {
            return outcome;
        }
    }
}

fn problem(sent: &Sent, code: Code) -> Frame {
    let (letter, request, stream, detail, frame) = (Some(sent.id), None, None, None, None);
    Frame::Problem(Problem {
        code,
        request,
        letter,
        stream,
        detail,
        frame,
    })
}

fn prompt(text: &str) -> Command {
    Command::Prompt {
        session: session(),
        text: text.into(),
    }
}

fn later() -> Timestamp {
    now().plus_millis(600_000)
}

fn session() -> SessionId {
    SessionId::from_bytes([5; 16])
}

fn applied(delivery: Delivery) -> Outcome {
    Outcome::Applied {
        stream: session().into(),
        seq: 7,
        made: None,
        delivery,
    }
}
