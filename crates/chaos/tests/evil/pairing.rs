//! Getting in without being let in.

use bytes::Bytes;
use farhelm_chaos::weather::Way;
use farhelm_core::command::{Command, CommandBody};
use farhelm_core::event::{HostEvent, HostRecord};
use farhelm_core::grant::Grant;
use farhelm_core::keys::{ContentKey, Identity};
use farhelm_core::roster::Change;
use farhelm_core::seal;
use farhelm_link::{clock, rng};
use farhelm_proto::envelope::{self, SUITE};
use farhelm_proto::frame::Frame;
use farhelm_proto::letter::{self, Kind};
use farhelm_proto::{Code, CommandId, StreamId};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn s16_a_pair_request_with_other_keys_is_not_answered_and_nobody_gets_in()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let before = scene.world.cli(&["devices"]).await?;
    let thief = stranger()?;
    let (keys, host) = (*thief.public(), scene.phone.host.keys);
    scene.evil.does(move |way, _, frame| {
        let Ok(Frame::Letter(letter)) = Frame::parse(frame) else {
            return None;
        };
        let header = letter
            .parse_header()
            .ok()
            .filter(|header| header.kind == Kind::PairRequest)?;
        if way != Way::Down {
            return None;
        }
        // The relay knows the offer's id and not the secret; it takes its own keys and a secret of its own.
        let offer = header.offer?;
        let header = letter::Header {
            from: keys.peer(),
            ..header
        };
        let body = serde_json::json!({"name": "thief", "keys": keys}).to_string();
        let forged = seal::seal_pair_request(
            &thief,
            &host,
            &header,
            &[7; 32],
            offer,
            body.as_bytes(),
            &mut rng::os_rng(),
        );
        Some(vec![Frame::Letter(forged.ok()?).to_bytes()])
    });
    let pairing = tokio::time::timeout(crate::scene::NOTICED, scene.world.device("laptop")).await;
    assert!(!matches!(pairing, Ok(Ok(_))), "somebody was paired");
    scene.evil.repents();
    assert_eq!(scene.world.cli(&["devices"]).await?, before);
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_the_relay_cannot_enrol_a_device_nor_speak_for_one() -> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let thief = stranger()?;
    let host = scene.phone.host.keys;
    // A command by a key that nobody let in, in its own name and in the phone's.
    for from in [thief.peer(), scene.phone.me] {
        let header = letter::Header {
            suite: SUITE,
            kind: Kind::Command,
            from,
            to: host.peer(),
            id: CommandId::fresh(clock::now(), rng::random()),
            not_after: clock::now().plus_millis(60_000),
            offer: None,
        };
        let command = Command::Prompt {
            session: scene.session.id,
            text: "evil".to_owned(),
        };
        let body = serde_json::to_vec(&CommandBody {
            command,
            retries: None,
        })?;
        let letter = seal::seal_letter(&thief, &host, &header, &body, &mut rng::os_rng());
        let Ok(letter) = letter else {
            anyhow::bail!("a letter cannot be sealed")
        };
        scene
            .evil
            .inject(scene.host(), &Frame::Letter(letter).to_bytes());
    }
    scene.quiet().await?;
    scene.all_is_well().await?;

    // An entry of the roster by the relay's key, in an envelope by the relay's key.
    let alarm = scene
        .alarm(&scene.phone, || {
            // Anew each time: the log may have gone on.
            if let Ok(forged) = forged_entry(&scene, &thief) {
                scene.evil.inject(scene.phone.me, &forged);
            }
        })
        .await?;
    assert!(
        matches!(alarm, Code::Tampered | Code::BadSignature),
        "{alarm}"
    );
    scene.reconnect().await?;
    let view = scene.phone.client().fleet().await?;
    assert_eq!(view.roster.devices().count(), 2, "nobody was enrolled");
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

/// What the relay would show, if it could sign for the host, to make the phone believe in another device.
fn forged_entry(scene: &Scene, thief: &Identity) -> anyhow::Result<Bytes> {
    let own = StreamId::from(scene.host());
    let newest = scene.evil.passed().into_iter().rev().find_map(|passed| {
        match Frame::parse(&passed.frame) {
            Ok(Frame::Envelope(envelope)) => {
                let header = envelope.parse_header().ok()?;
                (header.stream == own && header.lane == envelope::Lane::Durable)
                    .then(|| (header, envelope.hash()))
            }
            _ => None,
        }
    });
    let Some((before, hash)) = newest else {
        anyhow::bail!("the host's log never passed")
    };
    let change = Change::Admitted {
        keys: *thief.public(),
        name: "thief".to_owned(),
        grant: Grant::owner(),
    };
    let roster =
        farhelm_core::roster::Roster::verify(&scene.phone.host.roster, &scene.phone.host.keys)?;
    let entry = roster.next_entry(change, clock::now(), scene.host(), thief.signing());
    let event = HostEvent::RosterExtended {
        entry: serde_json::to_string(&entry)?,
    };
    let record = HostRecord {
        seq: before.last + 1,
        at: clock::now(),
        cause: None,
        event,
    };
    let header = envelope::Header {
        first: before.last + 1,
        last: before.last + 1,
        prev: hash,
        ..before
    };
    let text = serde_json::to_vec(&[record])?;
    let key = ContentKey::from_bytes(rng::random());
    let envelope = seal::seal_envelope(&key, &header, &text, rng::random(), thief);
    Ok(Frame::Envelope(envelope).to_bytes())
}

fn stranger() -> anyhow::Result<Identity> {
    Ok(Identity::from_seed(rng::random())?)
}
