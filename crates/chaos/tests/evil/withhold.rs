//! Leaving out, holding back, showing what was.

use std::time::Instant;

use anyhow::Context as _;
use farhelm_chaos::weather::Way;
use farhelm_link::device::LogItem;
use farhelm_proto::frame::{Frame, Subscribed};
use farhelm_proto::{Code, StreamId};

use crate::scene::{NOTICED, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn s06_an_event_that_is_left_out_is_shown_as_tampering() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (phone, stream) = (scene.phone.me, StreamId::from(scene.session.id));
    scene.evil.does(move |way, peer, frame| {
        let is_hidden = way == Way::Down
            && peer == phone
            && matches!(Frame::parse(frame), Ok(Frame::Envelope(envelope))
                if envelope.parse_header().is_ok_and(|header| header.stream == stream && header.first <= 7 && 7 <= header.last));
        is_hidden.then(Vec::new)
    });
    assert_eq!(log_alarm(&scene).await?, Code::Tampered);
    scene.evil.repents();
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s36_a_relay_that_shows_an_older_log_is_found_out() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let (phone, own) = (scene.phone.me, StreamId::from(scene.host()));
    // As if the newest events had never been: the host's own log ends at 2.
    scene.evil.does(move |way, peer, frame| {
        if way != Way::Down || peer != phone {
            return None;
        }
        match Frame::parse(frame) {
            Ok(Frame::Subscribed(answer)) if answer.stream == own => {
                let older = Subscribed {
                    gap: None,
                    head: 2,
                    from: answer.from.min(2),
                    base: answer.base.min(2),
                    ..answer
                };
                Some(vec![Frame::Subscribed(older).to_bytes()])
            }
            Ok(Frame::Envelope(envelope)) => {
                let newer = envelope
                    .parse_header()
                    .is_ok_and(|header| header.stream == own && header.last > 2);
                newer.then(Vec::new)
            }
            _ => None,
        }
    });
    scene.reconnect().await?;
    assert_eq!(fleet_alarm(&scene).await?, Code::RolledBack);
    scene.evil.repents();
    scene.reconnect().await?;
    scene.phone.client().fleet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_a_wish_that_the_relay_swallows_is_never_shown_as_applied_and_arrives_when_it_repents()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let (phone, host) = (scene.phone.me, scene.host());
    scene.evil.does(move |way, peer, frame| {
        let Ok(Frame::Letter(letter)) = Frame::parse(frame) else {
            return None;
        };
        let header = letter.parse_header().ok()?;
        (way == Way::Down && peer == host && header.from == phone).then(Vec::new)
    });
    scene.phone.prompt(scene.session.id, "m2").await?;
    let swallowed = Instant::now();
    while swallowed.elapsed() < NOTICED {
        let told = scene.phone.told();
        let last = told.last().context("a wish")?;
        assert!(last.outcome.is_none(), "told {last:?}");
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    scene.evil.repents();
    scene.reconnect().await?;
    scene.arrived("m2").await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

/// The alarm that the phone gives for the session's log.
async fn log_alarm(scene: &Scene) -> anyhow::Result<Code> {
    let asked = Instant::now();
    let mut items = scene.phone.client().log(scene.session.id, None, true).await;
    while let Some(item) = tokio::time::timeout(NOTICED * 4, items.recv()).await? {
        match item {
            Ok(
                LogItem::Record(_) | LogItem::Live(_) | LogItem::Limited { .. } | LogItem::CaughtUp,
            ) => {}
            Err(error) => {
                assert!(asked.elapsed() < NOTICED, "after {:?}", asked.elapsed());
                return Ok(error.code);
            }
        }
    }
    anyhow::bail!("no alarm")
}

/// The alarm that the phone gives for the list of sessions.
async fn fleet_alarm(scene: &Scene) -> anyhow::Result<Code> {
    let asked = Instant::now();
    match scene.phone.client().fleet().await {
        Ok(view) => anyhow::bail!("no alarm: {view:?}"),
        Err(error) => {
            assert!(asked.elapsed() < NOTICED, "after {:?}", asked.elapsed());
            Ok(error.code)
        }
    }
}
