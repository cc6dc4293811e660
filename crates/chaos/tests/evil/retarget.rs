//! Sealed things with another label: every field of every header, with every value that another header has there.

use std::collections::BTreeSet;

use bytes::Bytes;
use farhelm_proto::Code;
use farhelm_proto::envelope::{self, Envelope};
use farhelm_proto::frame::Frame;
use farhelm_proto::letter::{self, Kind, Letter};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn s04_letters_for_another_kind_sender_addressee_id_time_or_offer_have_no_effect()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let letters: Vec<Letter> = frames(&scene)
        .filter_map(|frame| match frame {
            Frame::Letter(letter) => Some(letter),
            _ => None,
        })
        .collect();
    let headers: Vec<letter::Header> = letters
        .iter()
        .filter_map(|letter| letter.parse_header().ok())
        .collect();
    let mut tried = BTreeSet::new();
    for (letter, header) in letters.iter().zip(&headers) {
        for other in &headers {
            for changed in relabelled(header, other)
                .into_iter()
                .filter(|changed| changed != header)
            {
                let forged = Letter {
                    header: changed.to_bytes().into(),
                    ..letter.clone()
                };
                tried.insert(Frame::Letter(forged).to_bytes());
            }
        }
    }
    assert!(tried.len() > 100, "{} letters", tried.len());
    inject(&scene, &tried);
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s04_envelopes_for_another_stream_place_epoch_or_lane_are_never_shown() -> anyhow::Result<()>
{
    let mut scene = Scene::set().await?;
    let envelopes: Vec<Envelope> = frames(&scene)
        .filter_map(|frame| match frame {
            Frame::Envelope(envelope) => Some(envelope),
            _ => None,
        })
        .collect();
    let headers: Vec<envelope::Header> = envelopes
        .iter()
        .filter_map(|envelope| envelope.parse_header().ok())
        .collect();
    let next = headers.iter().max_by_key(|header| header.last).cloned();
    let mut tried = BTreeSet::new();
    for (envelope, header) in envelopes.iter().zip(&headers) {
        for other in headers.iter().chain(&next) {
            for changed in moved(header, other)
                .into_iter()
                .filter(|changed| changed != header)
            {
                let forged = Envelope {
                    header: changed.to_bytes().into(),
                    ..envelope.clone()
                };
                tried.insert(Frame::Envelope(forged).to_bytes());
            }
        }
    }
    assert!(tried.len() > 300, "{} envelopes", tried.len());
    inject(&scene, &tried);
    for device in [&scene.phone, &scene.tablet] {
        assert_eq!(
            scene.alarm(device, || {}).await?,
            Code::Tampered,
            "{} shows it",
            device.name
        );
    }
    // A log that is not believed any more is read again on the next connection.
    scene.reconnect().await?;
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

fn relabelled(header: &letter::Header, other: &letter::Header) -> Vec<letter::Header> {
    let mut all = vec![
        letter::Header {
            from: other.from,
            ..header.clone()
        },
        letter::Header {
            to: other.to,
            ..header.clone()
        },
        letter::Header {
            from: other.to,
            to: other.from,
            ..header.clone()
        },
        letter::Header {
            id: other.id,
            ..header.clone()
        },
        letter::Header {
            not_after: other.not_after,
            ..header.clone()
        },
        letter::Header {
            offer: other.offer,
            ..header.clone()
        },
        letter::Header {
            suite: 2,
            ..header.clone()
        },
    ];
    let kinds = [
        Kind::Command,
        Kind::Receipt,
        Kind::Keys,
        Kind::PairRequest,
        Kind::PairAnswer,
        Kind::Probe,
    ];
    all.extend(kinds.map(|kind| letter::Header {
        kind,
        ..header.clone()
    }));
    all
}

fn moved(header: &envelope::Header, other: &envelope::Header) -> Vec<envelope::Header> {
    let continued = envelope::Header {
        first: other.last + 1,
        last: other.last + 1 + header.last.saturating_sub(header.first),
        stream: other.stream,
        ..header.clone()
    };
    vec![
        envelope::Header {
            stream: other.stream,
            ..header.clone()
        },
        envelope::Header {
            epoch: other.epoch,
            ..header.clone()
        },
        envelope::Header {
            lane: other.lane,
            ..header.clone()
        },
        envelope::Header {
            prev: other.prev,
            ..header.clone()
        },
        envelope::Header {
            base: other.base,
            ..header.clone()
        },
        envelope::Header {
            first: other.first,
            last: other.last,
            ..header.clone()
        },
        continued,
    ]
}

fn frames(scene: &Scene) -> impl Iterator<Item = Frame> {
    scene
        .evil
        .passed()
        .into_iter()
        .filter_map(|passed| Frame::parse(&passed.frame).ok())
}

/// To everybody, whatever the label says.
fn inject(scene: &Scene, frames: &BTreeSet<Bytes>) {
    for frame in frames {
        for peer in [scene.host(), scene.phone.me, scene.tablet.me] {
            scene.evil.inject(peer, frame);
        }
    }
}
