//! Showing devices less than there is, while everything else passes; and swallowing what nothing comes after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use farhelm_chaos::device::Device;
use farhelm_chaos::weather::Way;
use farhelm_chaos::world::until;
use farhelm_core::event::Event;
use farhelm_link::clock;
use farhelm_link::device::LogItem;
use farhelm_proto::StreamId;
use farhelm_proto::frame::Frame;
use tokio_util::task::AbortOnDropHandle;

use crate::scene::Scene;

/// How often devices ask the host in these tests.
const OFTEN: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn s06_a_view_that_is_frozen_while_echoes_pass_is_shown_as_withheld() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let (phone, stream) = (scene.phone.me, StreamId::from(scene.session.id));
    let _reading = reads(&scene.phone, &scene).await;
    scene.phone.client().probe_every(Some(OFTEN)).await;
    assert_eq!(held_back(&scene.phone), []);
    scene
        .evil
        .does(move |way, peer, frame| hides(way == Way::Down && peer == phone, stream, frame));
    scene.turn().await?;
    let found = async || held_back(&scene.phone).contains(&stream);
    until("the phone finds out", found).await?;
    assert_eq!(held_back(&scene.tablet), [], "who sees all is not alarmed");
    scene.evil.repents();
    scene.reconnect().await?;
    let healed = async || held_back(&scene.phone).is_empty();
    until("the phone sees all of it", healed).await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_two_devices_that_are_shown_different_ends_of_a_log_both_find_out() -> anyhow::Result<()>
{
    let mut scene = Scene::set().await?;
    let (phone, tablet) = (scene.phone.me, scene.tablet.me);
    let stream = StreamId::from(scene.session.id);
    let _reading = [
        reads(&scene.phone, &scene).await,
        reads(&scene.tablet, &scene).await,
    ];
    for device in [&scene.phone, &scene.tablet] {
        device.client().probe_every(Some(OFTEN)).await;
    }
    scene
        .evil
        .does(move |way, peer, frame| hides(way == Way::Down && peer == phone, stream, frame));
    scene.turn().await?;
    // From here on the tablet is shown nothing either: one's past ends before the other's, and both before the host's.
    scene.evil.does(move |way, peer, frame| {
        hides(
            way == Way::Down && (peer == phone || peer == tablet),
            stream,
            frame,
        )
    });
    scene.phone.prompt(scene.session.id, "m3").await?;
    for device in [&scene.phone, &scene.tablet] {
        let found = async || held_back(device).contains(&stream);
        until(&format!("{} finds out", device.name), found).await?;
    }
    scene.evil.repents();
    scene.reconnect().await?;
    scene.arrived("m3").await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_an_end_of_a_log_that_the_relay_swallows_is_sent_again_on_the_same_connection()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let (host, session) = (scene.host(), scene.session.clone());
    let stream = StreamId::from(session.id);
    let swallows = Arc::new(AtomicBool::new(false));
    let swallowed = Arc::new(AtomicU64::new(0));
    let (evil, upto) = (Arc::clone(&swallows), Arc::clone(&swallowed));
    scene.evil.does(move |way, peer, frame| {
        let hit = evil.load(Ordering::Relaxed) && way == Way::Up && peer == host;
        let hidden = hides(hit, stream, frame)?;
        if let Ok(Frame::Envelope(envelope)) = Frame::parse(frame) {
            let last = envelope.parse_header().map_or(0, |header| header.last);
            upto.fetch_max(last, Ordering::Relaxed);
        }
        Some(hidden)
    });
    let opened = scene.world.host_road.opened();
    let before = scene.prompts;
    scene
        .phone
        .prompt(session.id, &format!("m{before}"))
        .await?;
    scene.prompts += 1;
    let mut chance = scene.chance.fork();
    let (mut records, mut asked) = (scene.tablet.follow(session.id), 0);
    while asked <= before {
        let record = records.next().await?;
        let Event::ApprovalRequested { approval, ask, .. } = &record.event else {
            continue;
        };
        asked += 1;
        if asked > before {
            // All that the host writes from here on is lost; nothing comes after it.
            swallows.store(true, Ordering::Relaxed);
            let tablet = &scene.tablet;
            tablet
                .decide(session.id, *approval, ask, &mut chance)
                .await?;
        }
    }
    until(
        "the turn ends at the host, and the relay swallows it",
        async || {
            let log = scene.world.host_log(&session).await.unwrap_or_default();
            let ends = log
                .iter()
                .filter(|record| record["event"]["type"] == "turn_ended");
            ends.count() > before && swallowed.load(Ordering::Relaxed) == log.len() as u64
        },
    )
    .await?;
    swallows.store(false, Ordering::Relaxed);
    scene.all_is_well().await?;
    let again = scene.world.host_road.opened();
    assert_eq!(again, opened, "on the same connection");
    scene.end().await;
    Ok(())
}

/// Nothing, when this is what is to be hidden: a piece of this log.
fn hides(is_hit: bool, stream: StreamId, frame: &bytes::Bytes) -> Option<Vec<bytes::Bytes>> {
    let is_hidden = is_hit
        && matches!(Frame::parse(frame), Ok(Frame::Envelope(envelope))
            if envelope.parse_header().is_ok_and(|header| header.stream == stream));
    is_hidden.then(Vec::new)
}

/// The logs that a device says are held back from it.
fn held_back(device: &Device) -> Vec<StreamId> {
    let status = device.client().status();
    let presence = status.borrow().presence.clone();
    let logs = presence.held_back(clock::now());
    logs.into_iter().map(|(stream, _)| stream).collect()
}

/// A device that looks at the session, as somebody who has it open; it has seen all of it when this returns.
async fn reads(device: &Device, scene: &Scene) -> AbortOnDropHandle<()> {
    let mut items = device.client().log(scene.session.id, None, true).await;
    while let Some(item) = items.recv().await {
        if matches!(item, Ok(LogItem::CaughtUp)) {
            break;
        }
    }
    let rest = async move { while items.recv().await.is_some() {} };
    AbortOnDropHandle::new(tokio::spawn(rest))
}
