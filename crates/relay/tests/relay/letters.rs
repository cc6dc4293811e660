//! Letters: who may write to whom, and that none is lost or comes twice.

use bytes::Bytes;
use farhelm_proto::frame::{CloseOffer, Frame, OpenOffer, Posted, Problem, Taken};
use farhelm_proto::letter::Kind;
use farhelm_proto::{Code, CommandId, OfferId, PeerId, Timestamp};

use crate::common::{Peer, device, host, pair, relays, start};

const NEVER: Timestamp = Timestamp(0);

#[tokio::test]
async fn a_letter_is_delivered_until_it_is_taken() {
    for (relay, _folder) in relays() {
        let (mut first, mut sender) = pair(&relay).await;
        let letters = [1, 2, 3].map(|id| sender.letter(Kind::Command, first.id, id, NEVER, None));
        for (id, letter) in (1..).zip(&letters) {
            sender.send_raw(letter.clone()).await;
            assert_eq!(sender.answer().await, posted(id));
        }
        for letter in &letters {
            assert_eq!(first.recv_raw().await, *letter);
        }
        first
            .send(Frame::Taken(Taken {
                from: sender.id,
                id: id(2),
            }))
            .await;
        first.settle().await;
        let mut again = host(&relay, 1).await;
        assert_eq!(again.recv_raw().await, letters[0]);
        assert_eq!(again.recv_raw().await, letters[2]);
        again.settle().await;
        // The same letter once more is receipted, but not delivered again, taken or not.
        for (id, letter) in [(1, &letters[0]), (2, &letters[1])] {
            sender.send_raw(letter.clone()).await;
            assert_eq!(sender.answer().await, posted(id));
        }
        again.settle().await;
    }
}

#[tokio::test]
async fn a_letter_reaches_every_connection_of_a_device() {
    let relay = start();
    let (mut host, mut one) = pair(&relay).await;
    let mut two = device(&relay, 2).await;
    let letter = host.letter(Kind::Keys, one.id, 1, NEVER, None);
    host.send_raw(letter.clone()).await;
    assert_eq!(host.answer().await, posted(1));
    assert_eq!(
        (one.recv_raw().await, two.recv_raw().await),
        (letter.clone(), letter)
    );
}

#[tokio::test]
async fn f10_whether_a_letters_time_is_over_is_for_its_addressee_to_say() {
    for (relay, _folder) in relays() {
        let (host, mut sender) = pair(&relay).await;
        // By the clock of this machine it was over long ago; that of the host may show anything.
        let late = sender.letter(Kind::Command, host.id, 1, Timestamp(1_000), None);
        drop(host);
        sender.send_raw(late.clone()).await;
        assert_eq!(sender.answer().await, posted(1));
        let mut host = crate::common::host(&relay, 1).await;
        assert_eq!(host.recv_raw().await, late, "it waited");
    }
}

#[tokio::test]
async fn letters_go_between_a_host_and_its_members_only() {
    for (relay, _folder) in relays() {
        let (mut host, mut member) = pair(&relay).await;
        let mut stranger = device(&relay, 7).await;
        let nobody = PeerId::from_bytes([0xee; 16]);
        for (kind, to) in [
            (Kind::Command, host.id),
            (Kind::Probe, host.id),
            (Kind::Keys, host.id),
            (Kind::Command, nobody),
            (Kind::Command, member.id),
        ] {
            let letter = stranger.letter(kind, to, 1, NEVER, None);
            refused(&mut stranger, letter, Code::NotFound).await;
        }
        for kind in [Kind::Receipt, Kind::Keys, Kind::PairAnswer] {
            let letter = member.letter(kind, host.id, 1, NEVER, None);
            refused(&mut member, letter, Code::NotFound).await;
            let letter = host.letter(kind, stranger.id, 1, NEVER, None);
            refused(&mut host, letter, Code::NotFound).await;
        }
        let forged = stranger.letter(Kind::Command, host.id, 1, NEVER, None);
        refused(&mut member, forged, Code::NotAllowed).await;
        for (id, kind) in (1..).zip([Kind::Receipt, Kind::Keys]) {
            let letter = host.letter(kind, member.id, id, NEVER, None);
            host.send_raw(letter.clone()).await;
            assert_eq!(host.answer().await, posted(id));
            assert_eq!(member.recv_raw().await, letter);
        }
        stranger.settle().await;
    }
}

#[tokio::test]
async fn a_probe_is_passed_on_at_once_and_kept_by_nobody() {
    for (relay, _folder) in relays() {
        let (mut host, mut member) = pair(&relay).await;
        let (to_host, to_member) = (
            member.letter(Kind::Probe, host.id, 1, NEVER, None),
            host.letter(Kind::Probe, member.id, 2, NEVER, None),
        );
        for _ in 0..2 {
            member.send_raw(to_host.clone()).await;
            assert_eq!(host.recv_raw().await, to_host, "the same one again, too");
            host.send_raw(to_member.clone()).await;
            assert_eq!(member.recv_raw().await, to_member);
        }
        // A host may ask itself: the way there and back.
        let to_itself = host.letter(Kind::Probe, host.id, 3, NEVER, None);
        host.send_raw(to_itself.clone()).await;
        assert_eq!(host.recv_raw().await, to_itself);
        // No receipt came, and a new connection finds nothing in the mailbox.
        member.settle().await;
        let mut again = device(&relay, 2).await;
        again.settle().await;
        drop(again.socket);
        drop(member.socket);
        loop {
            host.send_raw(to_member.clone()).await;
            if let Frame::Problem(problem) = host.answer().await {
                assert_eq!(
                    (problem.code, problem.letter),
                    (Code::HostOffline, Some(id(2)))
                );
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_probe_for_a_host_that_is_away_is_answered_so_at_once() {
    for (relay, _folder) in relays() {
        let (host, mut member) = pair(&relay).await;
        let id_of_host = host.id;
        drop(host.socket);
        let probe = member.letter(Kind::Probe, id_of_host, 1, NEVER, None);
        loop {
            member.send_raw(probe.clone()).await;
            member.send(Frame::Ping(7)).await;
            match member.answer().await {
                Frame::Problem(problem) => {
                    assert_eq!(
                        (problem.code, problem.letter),
                        (Code::HostOffline, Some(id(1)))
                    );
                    break;
                }
                // The relay has not noticed yet that the host went.
                other => assert_eq!(other, Frame::Pong(7)),
            }
        }
        let mut back = crate::common::host(&relay, 1).await;
        back.settle().await;
    }
}

#[tokio::test]
async fn a_full_mailbox_refuses() {
    let relay = start();
    let (host, mut sender) = pair(&relay).await;
    drop(host.socket);
    let body = vec![0; 500 * 1024];
    let mut refusals = 0;
    for n in 0..40_u8 {
        let header = farhelm_proto::letter::Header {
            suite: 1,
            kind: Kind::Command,
            from: sender.id,
            to: host.id,
            id: id(n),
            not_after: NEVER,
            offer: None,
        };
        let letter = farhelm_proto::letter::Letter::sign(
            header.to_bytes(),
            [0; 32],
            body.clone(),
            &sender.key,
        );
        sender.send(Frame::Letter(letter)).await;
        match sender.answer().await {
            Frame::Posted(_) => {}
            Frame::Problem(problem) if problem.code == Code::Full => refusals += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!((5..20).contains(&refusals), "{refusals}");
}

#[tokio::test]
async fn a_stranger_is_let_through_by_an_open_offer_only() {
    let relay = start();
    let mut host = host(&relay, 1).await;
    let mut stranger = device(&relay, 7).await;
    let offer = OfferId::from_bytes([5; 16]);
    let ask =
        |stranger: &Peer, id| stranger.letter(Kind::PairRequest, host.id, id, NEVER, Some(offer));
    let letters = [1, 2, 3, 4, 5].map(|id| ask(&stranger, id));

    refused(&mut stranger, letters[0].clone(), Code::LinkExpired).await;
    host.send(Frame::OpenOffer(OpenOffer {
        offer,
        until: host.welcome.now.plus_millis(60_000),
    }))
    .await;
    host.settle().await;
    for (id, letter) in (1..).zip(&letters[..3]) {
        stranger.send_raw(letter.clone()).await;
        assert_eq!(stranger.answer().await, posted(id));
        assert_eq!(host.recv_raw().await, *letter);
    }
    refused(&mut stranger, letters[3].clone(), Code::RateLimited).await;

    let answer = host.letter(Kind::PairAnswer, stranger.id, 1, NEVER, Some(offer));
    host.send_raw(answer.clone()).await;
    assert_eq!(host.answer().await, posted(1));
    assert_eq!(stranger.recv_raw().await, answer);
    let keys = host.letter(Kind::Keys, stranger.id, 2, NEVER, None);
    refused(&mut host, keys, Code::NotFound).await;

    host.send(Frame::CloseOffer(CloseOffer {
        offer,
        keep: Some(stranger.id),
    }))
    .await;
    host.settle().await;
    refused(&mut stranger, letters[4].clone(), Code::LinkUsed).await;
    let verdict = host.letter(Kind::PairAnswer, stranger.id, 3, NEVER, Some(offer));
    host.send_raw(verdict.clone()).await;
    assert_eq!(host.answer().await, posted(3));
    assert_eq!(stranger.recv_raw().await, verdict);
}

#[tokio::test]
async fn f10_when_an_offer_ends_is_for_its_host_to_say() {
    let relay = start();
    let mut host = host(&relay, 1).await;
    let mut stranger = device(&relay, 7).await;
    let offer = OfferId::from_bytes([5; 16]);
    host.send(Frame::OpenOffer(OpenOffer {
        offer,
        until: Timestamp(1_000),
    }))
    .await;
    host.settle().await;
    let ask =
        |stranger: &Peer, id| stranger.letter(Kind::PairRequest, host.id, id, NEVER, Some(offer));
    let letters = [1, 2].map(|id| ask(&stranger, id));
    stranger.send_raw(letters[0].clone()).await;
    assert_eq!(stranger.answer().await, posted(1));
    assert_eq!(host.recv_raw().await, letters[0]);
    host.send(Frame::CloseOffer(CloseOffer { offer, keep: None }))
        .await;
    host.settle().await;
    refused(&mut stranger, letters[1].clone(), Code::LinkUsed).await;
}

#[tokio::test]
async fn removing_a_member_removes_its_letters() {
    for (relay, _folder) in relays() {
        let (mut host, mut member) = pair(&relay).await;
        let keys = host.letter(Kind::Keys, member.id, 1, NEVER, None);
        let wish = member.letter(Kind::Command, host.id, 2, NEVER, None);
        host.send_raw(keys.clone()).await;
        assert_eq!(member.recv_raw().await, keys);
        member.send_raw(wish).await;
        assert_eq!(member.answer().await, posted(2));
        host.answer().await;
        host.answer().await;
        host.list(2, &[]).await;
        host.list(3, &[member.id]).await;
        let mut again = device(&relay, 2).await;
        again.settle().await;
        let mut host = crate::common::host(&relay, 1).await;
        host.settle().await;
    }
}

async fn refused(sender: &mut Peer, letter: Bytes, code: Code) {
    let (header, _) = farhelm_proto::frame::letter_header(&letter)
        .unwrap()
        .unwrap();
    sender.send_raw(letter).await;
    let expected = Problem {
        code,
        request: None,
        letter: Some(header.id),
        stream: None,
        detail: None,
        frame: None,
    };
    assert_eq!(sender.answer().await, Frame::Problem(expected));
}

fn posted(n: u8) -> Frame {
    Frame::Posted(Posted { id: id(n) })
}

fn id(n: u8) -> CommandId {
    CommandId::from_bytes([n; 16])
}
