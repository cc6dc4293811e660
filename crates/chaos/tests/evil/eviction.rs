//! Taking a host's place at the relay.

use std::sync::Arc;

use anyhow::Context as _;
use farhelm_chaos::world::until;
use farhelm_core::keys::Identity;
use farhelm_host::home::Home;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions};
use farhelm_link::rng;
use farhelm_proto::Code;
use farhelm_proto::frame::Role;

use crate::scene::Scene;

/// Later than any daemon here has counted.
const LATER: u64 = 1 << 50;

#[tokio::test(flavor = "multi_thread")]
async fn s20_only_the_hosts_own_key_takes_its_place_and_the_daemon_says_so() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let opened = scene.world.host_road.opened();

    let thief = Arc::new(Identity::from_seed(rng::random())?);
    let seat = as_host(&scene, &thief, LATER).await?;
    scene.turn().await?;
    let again = scene.world.host_road.opened();
    assert_eq!(again, opened, "the host was not sent away");
    drop(seat);

    // A later daemon with the same key: a restored copy on another machine.
    let twin = Arc::new(Home::open(scene.world.home())?.identity()?);
    let seat = as_host(&scene, &twin, LATER).await?;
    let told = async || status(&scene).await.contains("superseded");
    until("the host says that it was superseded", told).await?;
    let refused = as_host(&scene, &twin, LATER - 1).await;
    let refused = refused.err().context("an earlier one is let in")?;
    assert_eq!(refused.to_string(), Code::Superseded.to_string());
    drop(seat);

    // It would try again by itself after a minute.
    scene.world.host.kill().await;
    scene.world.start_host(&[]).await?;
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

/// Connects as a host; the error is the code with which that was refused.
async fn as_host(
    scene: &Scene,
    identity: &Arc<Identity>,
    generation: u64,
) -> anyhow::Result<(Link, tokio::sync::mpsc::Receiver<LinkEvent>)> {
    let (link, mut events) = Link::start(LinkOptions {
        // The devices' road, so that the host's own connections can be counted.
        relay: scene.world.device_road.url(),
        identity: Arc::clone(identity),
        role: Role::Host,
        generation,
        dead_millis: None,
        agent: "eviction".to_owned(),
        extra_ca: None,
    });
    match events.recv().await.context("a link that says nothing")? {
        LinkEvent::Up(_) => Ok((link, events)),
        LinkEvent::Down { code, .. } => anyhow::bail!("{code}"),
        LinkEvent::Frame { .. } => anyhow::bail!("a frame before the connection"),
    }
}

/// What the daemon says about itself.
async fn status(scene: &Scene) -> String {
    let said = scene.world.cli(&["status"]).await;
    said.map(|lines| serde_json::Value::from(lines).to_string())
        .unwrap_or_default()
}
