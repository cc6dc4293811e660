//! The pairing ceremony through a relay, honest and not.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Mutex;
use std::time::Duration;

use farhelm_core::pairing::{Link, PairAnswer};
use farhelm_link::device::{DeviceError, KnownHost, Patience, Store, pair_within};
use farhelm_link::rng;
use farhelm_proto::Code;
use farhelm_proto::frame::{Frame, Posted, Problem};
use farhelm_proto::letter::{Kind, Letter};
use support::acted::Acted;
use support::host::Host;
use support::{relay, soon, url};

#[tokio::test]
async fn a_device_is_paired_after_both_sides_showed_the_same_code() {
    let (_folder, store) = store();
    let relay = relay();
    let mut host = Host::start(&url(&relay)).await;
    let (mut offer, link) = host.offer().await;
    let shown = Mutex::new(String::new());
    let (paired, code) = tokio::join!(join(&store, &link, &shown), async {
        let (device, code) = host.challenge(&mut offer).await;
        host.accept(device, &offer).await;
        code
    });
    let known = paired.unwrap();
    assert_eq!(*shown.lock().unwrap(), code);
    assert_eq!(known.peer(), host.peer());
    assert_eq!((known.name.as_str(), known.relay), ("laptop", url(&relay)));
    assert_eq!(store.hosts().unwrap()[0].roster, host.roster.entries());
    relay.shutdown().await;
}

#[tokio::test]
async fn a_device_that_is_refused_is_told_and_keeps_nothing() {
    let (_folder, store) = store();
    let relay = relay();
    let mut host = Host::start(&url(&relay)).await;
    let (mut offer, link) = host.offer().await;
    let shown = Mutex::new(String::new());
    let (paired, ()) = tokio::join!(join(&store, &link, &shown), async {
        let (device, _) = host.challenge(&mut offer).await;
        host.refuse(&device, &offer).await;
    });
    assert_eq!(paired.unwrap_err(), DeviceError::new(Code::PairingRefused));
    assert_eq!(store.hosts().unwrap(), vec![]);
    relay.shutdown().await;
}

#[tokio::test]
async fn s16_a_link_that_was_used_or_is_unknown_says_so() {
    let (_folder, store) = store();
    let relay = relay();
    let mut host = Host::start(&url(&relay)).await;
    let (offer, link) = host.offer().await;
    host.close_offer(&offer).await;
    host.snapshot().await; // The relay has acted on everything before this.
    assert_eq!(code(&store, &link).await, Code::LinkUsed);
    let never_opened = Link {
        relay: url(&relay),
        host: *host.identity.public(),
        secret: [7; 32],
    }
    .to_url();
    assert_eq!(code(&store, &never_opened).await, Code::LinkExpired);
    relay.shutdown().await;
}

#[tokio::test]
async fn a_link_that_the_relay_has_not_heard_of_is_asked_for_again_before_it_is_called_expired() {
    let (_folder, store) = store();
    let acted = Acted::start().await;
    let link = Link {
        relay: acted.url(),
        host: *support::identity().public(),
        secret: [7; 32],
    };
    let url = link.to_url();
    // A host's word about a link that it has just made may come after the device that got it.
    let relay = async {
        let mut connection = acted.accept().await;
        let mut asked = Vec::new();
        for code in [Code::LinkExpired, Code::LinkExpired, Code::LinkUsed] {
            let Some(Frame::Letter(request)) = connection.receive().await else {
                panic!("a pair request")
            };
            let id = request.parse_header().unwrap().id;
            asked.push(request);
            let problem = Frame::Problem(Problem {
                code,
                letter: Some(id),
                request: None,
                stream: None,
                detail: None,
                frame: None,
            });
            connection.send(&problem).await;
        }
        asked.dedup();
        assert_eq!(asked.len(), 1, "it is one letter");
        connection
    };
    let (said, _connection) = tokio::join!(code(&store, &url), relay);
    assert_eq!(said, Code::LinkUsed);
}

#[tokio::test]
async fn s16_what_the_host_says_of_a_link_is_passed_on() {
    let (_folder, store) = store();
    let relay = relay();
    let mut host = Host::start(&url(&relay)).await;
    let (offer, link) = host.offer().await;
    let shown = Mutex::new(String::new());
    let device = *store.identity().unwrap().public();
    let (paired, ()) = tokio::join!(join(&store, &link, &shown), async {
        host.letter().await;
        host.answer(
            &device,
            &offer,
            &PairAnswer::Refused {
                code: Code::LinkExpired,
            },
        )
        .await;
    });
    assert_eq!(paired.unwrap_err().code, Code::LinkExpired);
    assert!(shown.lock().unwrap().is_empty());
    relay.shutdown().await;
}

#[tokio::test]
async fn a_link_that_is_cut_off_is_told_from_one_that_does_not_work() {
    let (_folder, store) = store();
    let host = support::identity();
    let link = Link {
        relay: "http://127.0.0.1:1".into(),
        host: *host.public(),
        secret: [7; 32],
    }
    .to_url();
    assert_eq!(code(&store, &link[..link.len() - 3]).await, Code::BadLink);
    assert_eq!(code(&store, "https://example.org").await, Code::BadLink);
    let error = soon(join(&store, &link, &Mutex::default()))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::RelayUnreachable);
    assert!(
        error.text.starts_with("no connection to 127.0.0.1 port 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_said_so() {
    let (_folder, store) = store();
    let relay = relay();
    let host = Host::start(&url(&relay)).await;
    let (_offer, link) = host.offer().await;
    let patience = Patience {
        host: Duration::from_millis(300),
        ..patience()
    };
    let error = soon(pair_within(patience, &store, &link, "phone", None, |_| {}))
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::HostOffline);
    relay.shutdown().await;
}

#[tokio::test]
async fn a_pairing_that_nobody_confirms_ends() {
    let (_folder, store) = store();
    let relay = relay();
    let mut host = Host::start(&url(&relay)).await;
    let (mut offer, link) = host.offer().await;
    let patience = Patience {
        person: Duration::from_millis(300),
        ..patience()
    };
    let (paired, _) = tokio::join!(
        pair_within(patience, &store, &link, "phone", None, |_| {}),
        host.challenge(&mut offer)
    );
    assert_eq!(paired.unwrap_err().code, Code::Timeout);
    relay.shutdown().await;
}

#[tokio::test]
async fn s15_a_relay_that_answers_in_the_hosts_place_is_refused() {
    let (_folder, store) = store();
    let acted = Acted::start().await;
    let honest = relay();
    let host = Host::start(&url(&honest)).await;
    let link = Link {
        relay: acted.url(),
        host: *host.identity.public(),
        secret: [7; 32],
    };
    let url = link.to_url();
    let shown = Mutex::new(String::new());
    let relay_in_between = async {
        let mut connection = acted.accept().await;
        let Some(Frame::Letter(request)) = connection.receive().await else {
            panic!("a pair request")
        };
        let header = request.parse_header().unwrap();
        connection
            .send(&Frame::Posted(Posted { id: header.id }))
            .await;
        // It knows every public key, and nothing else.
        let device = *store.identity().unwrap().public();
        let challenge = PairAnswer::Challenge {
            nonce: farhelm_core::keys::to_base64(&[1; 32]),
            host: "laptop".into(),
            request: farhelm_core::keys::to_base64(&request.hash()),
        };
        let sealed = host.seal_for(&device, Kind::PairAnswer, Some(link.offer()), &challenge);
        let own = support::identity();
        let forged = Letter::sign(
            sealed.header.to_vec(),
            *sealed.enc,
            sealed.body.to_vec(),
            own.signing(),
        );
        connection.send(&Frame::Letter(forged)).await;
        connection
    };
    let (paired, _connection) = tokio::join!(join(&store, &url, &shown), relay_in_between);
    assert_eq!(paired.unwrap_err().code, Code::BadSignature);
    assert!(shown.lock().unwrap().is_empty());
    assert_eq!(store.hosts().unwrap(), vec![]);
    honest.shutdown().await;
}

#[tokio::test]
async fn f11_a_pairing_outlives_a_lost_connection() {
    let (_folder, store) = store();
    let acted = Acted::start().await;
    let host = support::identity();
    let link = Link {
        relay: acted.url(),
        host: *host.public(),
        secret: rng::random(),
    }
    .to_url();
    let dropped = async {
        let mut first = acted.accept().await;
        let Some(Frame::Letter(asked)) = first.receive().await else {
            panic!("a pair request")
        };
        drop(first);
        let mut second = acted.accept().await;
        let Some(Frame::Letter(again)) = second.receive().await else {
            panic!("the pair request again")
        };
        assert_eq!(asked, again);
    };
    let shown = Mutex::new(String::new());
    tokio::select! {
        paired = join(&store, &link, &shown) => panic!("nobody answered, but {paired:?}"),
        () = dropped => {}
    }
}

async fn join(store: &Store, link: &str, shown: &Mutex<String>) -> Result<KnownHost, DeviceError> {
    pair_within(patience(), store, link, "phone", None, |code| {
        code.clone_into(&mut shown.lock().unwrap());
    })
    .await
}

async fn code(store: &Store, link: &str) -> Code {
    soon(join(store, link, &Mutex::default()))
        .await
        .unwrap_err()
        .code
}

fn patience() -> Patience {
    Patience {
        relay: Duration::from_secs(3),
        ..Patience::default()
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}
