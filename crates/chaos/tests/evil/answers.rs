//! A relay that does not say how much of the host's logs it has, or says it wrongly: nothing is done before it is known that
//! nothing is done twice, and nobody is left without a word.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use farhelm_chaos::device::Device;
use farhelm_chaos::weather::Way;
use farhelm_chaos::world::until;
use farhelm_core::command::{Command, Outcome};
use farhelm_proto::frame::{Frame, Located};
use farhelm_proto::{Code, PeerId, SessionId, StreamId};
use serde_json::{Value, json};

use crate::scene::{Scene, says};

#[tokio::test(flavor = "multi_thread")]
async fn f22_a_relay_that_connects_and_never_says_what_it_has_is_named_and_left_and_nothing_is_lost()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    scene.connected().await?;
    let (host, own) = (scene.host(), StreamId::from(scene.host()));
    let road = &scene.world.host_road;
    let opened = road.opened();
    scene.evil.does(move |way, peer, frame| {
        let hit = way == Way::Down && peer == host && located(frame)?.stream == own;
        hit.then(Vec::new)
    });
    road.cut();
    until("the host dials", async || road.opened() > opened).await?;
    scene.phone.prompt(scene.session.id, "m2").await?;
    let named = async || says(&scene, "status").await.contains("relay_silent: ");
    until("the host says that the relay is silent", named).await?;
    let doctor = says(&scene, "doctor").await;
    assert!(
        doctor.contains("relay_silent") && doctor.contains("look at that relay"),
        "{doctor}"
    );
    let again = async || road.opened() >= opened + 2 && scene.evil.has(host);
    until("another connection is tried", again).await?;
    let status = says(&scene, "status").await;
    assert!(
        status.contains("relay_silent: "),
        "until it answers: {status}"
    );
    assert_eq!(scene.session.agent().heard.len(), 2, "nothing is done");
    // It is asked again on the connection that is there.
    scene.evil.repents();
    scene.arrived("m2").await?;
    let status = says(&scene, "status").await;
    assert!(!status.contains("relay_silent"), "{status}");
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s36_wishes_for_a_session_that_the_relay_has_otherwise_are_refused_and_others_are_done()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let other = scene.world.session(&other_turns()).await?;
    let (host, stream) = (scene.host(), StreamId::from(scene.session.id));
    scene.world.host.kill().await;
    let held = hold_back(&scene, host, stream);
    scene.phone.prompt(scene.session.id, "twice?").await?;
    scene.phone.prompt(other.id, "once").await?;
    scene.world.start_host(&[]).await?;
    // Until it is known, that one waits, and the other does not.
    let done = async || other.agent().heard == ["once"];
    until("the other session goes on", done).await?;
    until("the question is answered", async || !lock(&held).is_empty()).await?;
    assert_eq!(outcome(&scene.phone, "twice?"), None);
    assert_eq!(scene.session.agent().heard.len(), 2);

    let lie = Located {
        stream,
        head: 1_000,
        hash: vec![7; 32].into(),
    };
    scene.evil.repents();
    scene.evil.inject(host, &Frame::Located(lie).to_bytes());
    let code = async || refusal(&scene.phone, "twice?") == Some(Code::Copied);
    until("the wish is refused", code).await?;
    assert_eq!(scene.session.agent().heard.len(), 2);
    for command in ["status", "doctor"] {
        let said = says(&scene, command).await;
        let id = scene.session.id.to_string();
        assert!(said.contains(&id[id.len() - 4..]), "{command}: {said}");
    }
    let local = scene
        .world
        .cli(&["send", &scene.session.id.to_string(), "here"])
        .await;
    assert!(local.is_err_and(|error| error.to_string().contains("copied")));
    // Who sees it run wild can stop it.
    let session = scene.session.id;
    scene
        .phone
        .send("stop", Command::CancelTurn { session })
        .await?;
    let code = async || refusal(&scene.phone, "stop") == Some(Code::NothingRunning);
    until("stopping is decided by the session", code).await?;
    scene.phone.prompt(other.id, "again").await?;
    let done = async || other.agent().heard == ["once", "again"];
    until("the other session goes on", done).await?;

    // A relay that tells the truth again is believed.
    scene.reconnect().await?;
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn f09_wishes_that_are_too_many_to_wait_at_the_host_are_asked_for_again_and_all_are_done()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let other = scene.world.session(&other_turns()).await?;
    let (host, stream) = (scene.host(), StreamId::from(scene.session.id));
    scene.world.host.kill().await;
    let held = hold_back(&scene, host, stream);
    let opened = scene.world.host_road.opened();
    for number in 0..MANY {
        rename(&scene.phone, scene.session.id, number).await?;
    }
    scene.phone.prompt(other.id, "after them").await?;
    scene.world.start_host(&[]).await?;
    let came = async || other.agent().heard == ["after them"] && !lock(&held).is_empty();
    until("the host has had all of them", came).await?;
    scene.evil.repents();
    for frame in std::mem::take(&mut *lock(&held)) {
        scene.evil.inject(host, &frame);
    }
    let told = async || scene.phone.told().iter().all(|wish| wish.outcome.is_some());
    until("every wish is done", told).await?;
    assert!(scene.world.host_road.opened() > opened + 1);
    scene.quiet().await?;
    let log = scene.world.host_log(&scene.session).await?;
    let titles = log.iter().map(|record| &record["event"]["title"]);
    let ours = titles
        .filter_map(|title| title.as_str()?.strip_prefix("title ")?.parse().ok())
        .collect::<Vec<usize>>();
    assert_eq!(
        ours,
        (0..MANY).collect::<Vec<_>>(),
        "each once, in their order"
    );
    scene.end().await;
    Ok(())
}

fn other_turns() -> Value {
    json!([[{"do": "text", "text": "done"}]])
}

/// More than the host keeps for sessions that cannot take them.
const MANY: usize = 300;

async fn rename(device: &Device, session: SessionId, number: usize) -> anyhow::Result<()> {
    let title = format!("title {number}");
    device
        .send(&title.clone(), Command::Rename { session, title })
        .await
}

/// Keeps from the host how far the relay has one of its logs.
fn hold_back(scene: &Scene, host: PeerId, stream: StreamId) -> Arc<Mutex<Vec<Bytes>>> {
    let held: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let kept = Arc::clone(&held);
    scene.evil.does(move |way, peer, frame| {
        let hit = way == Way::Down && peer == host && located(frame)?.stream == stream;
        hit.then(|| {
            lock(&kept).push(frame.clone());
            Vec::new()
        })
    });
    held
}

fn located(frame: &Bytes) -> Option<Located> {
    match Frame::parse(frame) {
        Ok(Frame::Located(located)) => Some(located),
        _ => None,
    }
}

/// What became of the wish of that text.
fn outcome(device: &Device, what: &str) -> Option<Outcome> {
    let told = device.told();
    let wish = told.iter().rfind(|wish| wish.what.ends_with(what));
    wish.and_then(|wish| wish.outcome.clone())
}

fn refusal(device: &Device, what: &str) -> Option<Code> {
    match outcome(device, what) {
        Some(Outcome::Refused { rejection }) => Some(rejection.code),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
