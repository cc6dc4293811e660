//! Everything that ever passed, again.

use farhelm_chaos::evil::Passed;
use farhelm_chaos::weather::Way;
use farhelm_proto::frame::Frame;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn s03_every_frame_that_ever_passed_has_no_effect_when_it_comes_again() -> anyhow::Result<()>
{
    let mut scene = Scene::set().await?;
    let passed = scene.evil.passed();
    assert!(passed.len() > 60, "{} frames", passed.len());
    again(&scene, &passed);
    scene.quiet().await?;
    scene.all_is_well().await?;

    scene.reconnect().await?;
    again(&scene, &passed);
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s03_frames_of_before_a_restart_have_no_effect_after_it() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let passed = scene.evil.passed();
    scene.world.host.kill().await;
    scene.world.start_host(&[]).await?;
    let Scene { phone, tablet, .. } = scene;
    scene = Scene {
        phone: phone.again().await?,
        tablet: tablet.again().await?,
        ..scene
    };
    scene.connected().await?;
    again(&scene, &passed);
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

/// Sends each letter to its addressee and each envelope to both devices; and everything else that the relay said to where it
/// was said.
fn again(scene: &Scene, passed: &[Passed]) {
    for Passed { way, peer, frame } in passed {
        match Frame::parse(frame) {
            Ok(Frame::Letter(letter)) => {
                if let Ok(header) = letter.parse_header() {
                    scene.evil.inject(header.to, frame);
                }
            }
            Ok(Frame::Envelope(_)) => {
                for device in [&scene.phone, &scene.tablet] {
                    scene.evil.inject(device.me, frame);
                }
            }
            // A relay may always end a connection, and say that a host is away.
            Ok(Frame::Bye(_) | Frame::Presence(_)) | Err(_) => {}
            Ok(_) if *way == Way::Down => scene.evil.inject(*peer, frame),
            Ok(_) => {}
        }
    }
}
