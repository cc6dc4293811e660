//! Blobs: put, asked for, asked for at the host, limited.

use farhelm_proto::frame::{Blob, Frame, Problem, PutBlob, WantBlob};
use farhelm_proto::{Code, PeerId};
use farhelm_relay::{Config, Relay};
use sha2::{Digest as _, Sha256};

use crate::common::{Peer, device, pair, relays};

#[tokio::test]
async fn a_blob_is_kept_for_those_who_may_read_the_host() {
    for (relay, _folder) in relays() {
        let (mut host, mut device) = pair(&relay).await;
        let blob = vec![5; 20_000];
        put(&mut host, &blob).await;
        want(&mut device, host.id, 1, &blob).await;
        assert_eq!(device.answer().await, given(1, &blob));
        let mut stranger = crate::common::device(&relay, 7).await;
        for (request, host) in [(2, host.id), (3, PeerId::from_bytes([0xee; 16]))] {
            want(&mut stranger, host, request, &blob).await;
            assert_eq!(stranger.answer().await, missing(request));
        }
    }
}

#[tokio::test]
async fn a_blob_whose_name_is_wrong_is_refused() {
    let relay = crate::common::start();
    let (mut host, _device) = pair(&relay).await;
    host.send(Frame::PutBlob(PutBlob {
        name: [1; 32].into(),
        bytes: vec![1].into(),
    }))
    .await;
    let problem = host.problem().await;
    assert_eq!((problem.code, problem.frame), (Code::BadFrame, Some(50)));
}

#[tokio::test]
async fn the_host_is_asked_for_a_blob_that_is_not_here() {
    for (relay, _folder) in relays() {
        let (mut host, mut one) = pair(&relay).await;
        let mut two = device(&relay, 2).await;
        let (blob, other) = (vec![5; 1_000], vec![6; 1_000]);
        want(&mut one, host.id, 10, &blob).await;
        let Frame::WantBlob(asked) = host.answer().await else {
            panic!("to be asked")
        };
        assert_eq!((asked.host, *asked.name), (host.id, name(&blob)));
        want(&mut two, host.id, 20, &blob).await;
        two.settle().await;
        put(&mut host, &blob).await;
        assert_eq!(one.answer().await, given(10, &blob));
        assert_eq!(two.answer().await, given(20, &blob));

        want(&mut one, host.id, 11, &other).await;
        let Frame::WantBlob(asked) = host.answer().await else {
            panic!("to be asked")
        };
        let code = Code::NotFound;
        let problem = Problem {
            code,
            request: Some(asked.request),
            letter: None,
            stream: None,
            detail: None,
            frame: None,
        };
        host.send(Frame::Problem(problem)).await;
        assert_eq!(one.answer().await, missing(11));

        let id = host.id;
        drop(host);
        one.settle().await;
        want(&mut one, id, 12, &blob).await;
        assert_eq!(one.answer().await, given(12, &blob));
    }
}

#[tokio::test]
async fn the_oldest_blobs_of_a_host_go_first() {
    let relay = Relay::start(Config {
        blob_bytes_per_host: 2_500,
        ..Config::in_memory()
    })
    .unwrap();
    let (mut host, mut device) = pair(&relay).await;
    let blobs = [1, 2, 3].map(|n| vec![n; 1_000]);
    for blob in &blobs {
        put(&mut host, blob).await;
    }
    let id = host.id;
    drop(host);
    for (request, blob) in (0..).zip(&blobs) {
        want(&mut device, id, request, blob).await;
        match device.answer().await {
            answer if request == 0 => assert_eq!(answer, missing(0)),
            answer => assert_eq!(answer, given(request, blob)),
        }
    }
}

async fn put(host: &mut Peer, blob: &[u8]) {
    host.send(Frame::PutBlob(PutBlob {
        name: name(blob).into(),
        bytes: blob.to_vec().into(),
    }))
    .await;
    host.settle().await;
}

async fn want(device: &mut Peer, host: PeerId, request: u64, blob: &[u8]) {
    device
        .send(Frame::WantBlob(WantBlob {
            request,
            host,
            name: name(blob).into(),
        }))
        .await;
}

fn given(request: u64, blob: &[u8]) -> Frame {
    Frame::Blob(Blob {
        request,
        bytes: blob.to_vec().into(),
    })
}

fn missing(request: u64) -> Frame {
    let code = Code::NotFound;
    Frame::Problem(Problem {
        code,
        request: Some(request),
        letter: None,
        stream: None,
        detail: None,
        frame: None,
    })
}

fn name(blob: &[u8]) -> [u8; 32] {
    Sha256::digest(blob).into()
}
