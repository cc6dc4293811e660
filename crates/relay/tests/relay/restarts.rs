//! What survives the end of a relay, of its disk, and of its patience with a locked disk.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use farhelm_proto::frame::{Frame, Locate, Role};
use farhelm_proto::letter::Kind;
use farhelm_proto::{Code, Timestamp};
use farhelm_relay::{Config, Relay};
use tokio::net::TcpStream;

use crate::common::{Log, Peer, SOON, connect, device, greet, host, key, pair};

/// Killed without warning in the middle of a flood, it still has everything it gave a receipt for.
#[tokio::test]
async fn f03_what_was_receipted_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = spawn(folder.path());
    let mut peer = dial(address, 1, Role::Host).await;
    let reader = dial(address, 2, Role::Device).await;
    peer.list(1, &[reader.id]).await;
    let mut log = Log::new(1, 9);
    let receipted = loop {
        for _ in 0..500 {
            peer.feed_raw(log.next(1, 200)).await;
        }
        peer.flush().await;
        if let Frame::Stored(stored) = peer.answer().await
            && stored.head > 5_000
        {
            break stored.head;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();

    let (mut child, address) = spawn(folder.path());
    let mut again = dial(address, 1, Role::Host).await;
    assert_eq!(again.welcome.store, peer.welcome.store);
    again
        .send(Frame::Locate(Locate { stream: log.stream }))
        .await;
    let Frame::Located(located) = again.answer().await else {
        panic!("an answer")
    };
    assert!(
        located.head >= receipted && located.head <= log.head,
        "{} {receipted} {}",
        located.head,
        log.head
    );
    // The device is still known, and reads all of it.
    let mut reader = dial(address, 2, Role::Device).await;
    reader.subscribe(again.id, log.stream, Some(0)).await;
    for seq in 1..=located.head {
        assert_eq!(reader.envelope().await.1.first, seq);
    }
    log.head = located.head;
    again.write(&mut log, 1).await;
    assert_eq!(reader.envelope().await.1.first, log.head);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn letters_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(Config::in_folder(folder.path())).unwrap();
    let (first, mut sender) = pair(&relay).await;
    drop(first.socket);
    let letter = sender.letter(Kind::Command, first.id, 1, Timestamp(0), None);
    sender.send_raw(letter.clone()).await;
    assert!(matches!(sender.answer().await, Frame::Posted(_)));
    drop(sender);
    relay.shutdown().await;
    let relay = Relay::start(Config::in_folder(folder.path())).unwrap();
    let mut again = host(&relay, 1).await;
    assert_eq!(again.recv_raw().await, letter);
}

#[tokio::test]
async fn f05_a_relay_that_lost_its_disk_says_so_and_is_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(Config::in_folder(folder.path())).unwrap();
    let (mut first, _) = pair(&relay).await;
    let mut log = Log::new(1, 9);
    let sent = first.write(&mut log, 10).await;
    let (id, store) = (first.id, first.welcome.store);
    drop(first);
    relay.shutdown().await;
    std::fs::remove_dir_all(folder.path()).unwrap();

    let relay = Relay::start(Config::in_folder(folder.path())).unwrap();
    let mut again = host(&relay, 1).await;
    assert_ne!(again.welcome.store, store);
    let mut reader = device(&relay, 2).await;
    again.list(1, &[reader.id]).await;
    let subscribed = reader.subscribe(id, log.stream, Some(4)).await;
    assert_eq!((subscribed.head, subscribed.from), (0, 4));
    for frame in &sent {
        again.send_raw(frame.clone()).await;
    }
    again.stored(log.stream, 10).await;
    for frame in &sent[4..] {
        assert_eq!(reader.envelope().await.0, *frame);
    }
}

/// While the file cannot be written there are no receipts; afterwards the host sends again, and
/// a reader that saw the envelopes the first time does not see them twice.
#[tokio::test]
async fn f04_f16_a_store_that_cannot_write_never_claims_to_have() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(Config::in_folder(folder.path())).unwrap();
    let (mut host, mut reader) = pair(&relay).await;
    let mut log = Log::new(1, 9);
    host.write(&mut log, 3).await;
    reader.subscribe(host.id, log.stream, Some(0)).await;

    let mut lock = rusqlite::Connection::open(folder.path().join("relay.db")).unwrap();
    let locked = lock
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .unwrap();
    let lost = [log.next(1, 50), log.next(1, 50)];
    for frame in &lost {
        host.send_raw(frame.clone()).await;
    }
    let problem = host.problem().await;
    assert_eq!(
        (problem.code, problem.stream),
        (Code::StoreFailed, Some(log.stream))
    );
    let letter = reader.letter(Kind::Command, host.id, 1, Timestamp(0), None);
    for seq in 1..=5 {
        assert_eq!(reader.envelope().await.1.first, seq);
    }
    reader.send_raw(letter).await;
    assert_eq!(reader.problem().await.code, Code::StoreFailed);
    locked.rollback().unwrap();

    for frame in &lost {
        host.send_raw(frame.clone()).await;
    }
    loop {
        match host.answer().await {
            Frame::Stored(stored) if stored.head == 5 => break,
            Frame::Stored(_) | Frame::Problem(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
    host.write(&mut log, 1).await;
    assert_eq!(reader.envelope().await.1.first, 6);
}

/// A host that has used its room is passed on and not stored; nobody else notices.
#[tokio::test]
async fn f16_a_host_without_room_is_passed_on_and_others_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Relay::start(Config {
        envelope_bytes_per_host: 4_000,
        ..Config::in_folder(folder.path())
    })
    .unwrap();
    let (mut big, mut reader) = pair(&relay).await;
    let mut log = Log::new(1, 9);
    big.write(&mut log, 1).await;
    reader.subscribe(big.id, log.stream, Some(0)).await;
    let more = [log.next(1, 2_000), log.next(1, 2_000), log.next(1, 50)];
    for frame in &more {
        big.send_raw(frame.clone()).await;
    }
    let problem = loop {
        match big.answer().await {
            Frame::Problem(problem) => break problem,
            Frame::Stored(stored) => assert!(stored.head < 4),
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(
        (problem.code, problem.stream),
        (Code::Full, Some(log.stream))
    );
    for seq in 1..=4 {
        assert_eq!(reader.envelope().await.1.first, seq);
    }
    // Who comes later is told that there is more than can be had.
    let mut late = connect(&relay, 2, Role::Device, 0).await.unwrap();
    late.subscribe(big.id, log.stream, Some(0)).await;
    let problem = loop {
        match late.answer().await {
            Frame::Problem(problem) => break problem,
            Frame::Envelope(_) | Frame::Presence(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    };
    assert_eq!(
        (problem.code, problem.stream),
        (Code::HistoryLimited, Some(log.stream))
    );
    // Another host has room.
    let mut small = host(&relay, 7).await;
    let mut other = Log::new(7, 9);
    small.write(&mut other, 3).await;
    // Letters go on.
    let letter = reader.letter(Kind::Command, big.id, 1, Timestamp(0), None);
    reader.send_raw(letter).await;
    assert!(matches!(reader.answer().await, Frame::Posted(_)));
}

#[tokio::test]
async fn a_database_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Relay::start(Config::in_folder(folder.path()))
        .unwrap()
        .shutdown()
        .await;
    let db = rusqlite::Connection::open(folder.path().join("relay.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = Relay::start(Config::in_folder(folder.path()))
        .err()
        .unwrap();
    assert!(format!("{error:#}").contains("version 99"), "{error:#}");
}

#[tokio::test]
async fn the_binary_ends_kindly_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = spawn(folder.path());
    let mut peer = dial(address, 1, Role::Host).await;
    let killed = Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(killed.success());
    assert_eq!(peer.bye().await.code, Code::Restarting);
    drop(peer);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_host_that_reconnects_at_once_is_served() {
    let relay = crate::common::start();
    for generation in 0..20 {
        connect(&relay, 1, Role::Host, generation)
            .await
            .unwrap()
            .settle()
            .await;
    }
}

#[tokio::test]
async fn f30_a_relay_without_a_free_descriptor_keeps_its_peers_and_takes_others_later() {
    let folder = tempfile::tempdir().unwrap();
    // The shell lets no more than 64 descriptors be open, and becomes the relay.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_farhelm-relay"));
    let (mut child, address) = spawn_as(limited, folder.path());
    let mut peer = dial(address, 1, Role::Host).await;
    peer.settle().await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    // Whoever is in stays in, and can still work.
    let mut log = Log::new(1, 9);
    for _ in 0..3 {
        peer.settle().await;
        peer.write(&mut log, 1_000).await;
    }
    assert!(child.try_wait().unwrap().is_none());
    drop(crowd);
    let mut late = tokio::time::timeout(SOON, dial(address, 2, Role::Device))
        .await
        .unwrap();
    late.settle().await;
    peer.settle().await;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Shells and service managers begin programs with a low limit that may be raised.
#[tokio::test]
async fn f32_a_crowd_needs_no_higher_limit_of_descriptors_than_the_system_allows() {
    let folder = tempfile::tempdir().unwrap();
    let mut modest = Command::new("sh");
    modest
        .args(["-c", "ulimit -Sn 64; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_farhelm-relay"));
    let (mut child, address) = spawn_as(modest, folder.path());
    let mut crowd = Vec::new();
    for seed in 1..=100 {
        crowd.push(dial(address, seed, Role::Device).await);
    }
    for peer in &mut crowd {
        peer.settle().await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The real binary, on any port.
pub(crate) fn spawn(data: &std::path::Path) -> (Child, SocketAddr) {
    spawn_as(Command::new(env!("CARGO_BIN_EXE_farhelm-relay")), data)
}

fn spawn_as(mut command: Command, data: &std::path::Path) -> (Child, SocketAddr) {
    let mut child = command
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .env_remove("FARHELM_HOME")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .rsplit_once("listening on http://")
        .unwrap()
        .1
        .parse()
        .unwrap();
    (child, address)
}

pub(crate) async fn dial(address: SocketAddr, seed: u8, role: Role) -> Peer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/v1/link"), stream)
        .await
        .unwrap();
    greet(socket, key(seed), role, 0, &address.to_string())
        .await
        .unwrap()
}
