//! What a crowd does to a relay: coming at once, and not reading.

use std::time::Duration;

use farhelm_proto::frame::Role;
use futures_util::future::join_all;

use crate::common::Log;
use crate::restarts::{dial, spawn};

/// Everybody's link breaks in the same moment, and everybody is back in the same moment; `make bench`
/// measures it with 10,000.
#[tokio::test]
async fn f32_a_crowd_that_comes_back_at_once_is_let_in_and_finds_its_streams() {
    const HOSTS: u8 = 100;
    const READERS_OF_EACH: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = spawn(folder.path());
    let found = (1..=HOSTS).map(|seed| async move {
        let mut host = dial(address, seed, Role::Host).await;
        let reader = dial(address, 200, Role::Device).await;
        host.list(1, &[reader.id]).await;
        let mut log = Log::new(seed, 9);
        host.write(&mut log, 3).await;
        log
    });
    let logs = join_all(found).await;
    child.kill().unwrap();
    child.wait().unwrap();

    let (mut child, address) = spawn(folder.path());
    let back = logs.iter().zip(1..=HOSTS).map(|(log, seed)| async move {
        let host = dial(address, seed, Role::Host).await;
        let readers = (0..READERS_OF_EACH).map(|_| async {
            let mut reader = dial(address, 200, Role::Device).await;
            reader.subscribe(host.id, log.stream, Some(0)).await;
            for seq in 1..=3 {
                assert_eq!(reader.envelope().await.1.first, seq);
            }
        });
        join_all(readers).await;
    });
    join_all(back).await;
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Readers that stop reading cost the relay a bounded piece of memory each, whatever their host writes.
#[tokio::test]
async fn f31_readers_that_stop_in_a_flood_do_not_fill_the_memory() {
    const READERS: u64 = 60;
    const EVENTS: u64 = 15_000;
    const BODY: usize = 6_000;
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = spawn(folder.path());
    let mut host = dial(address, 1, Role::Host).await;
    let mut stuck = Vec::new();
    let mut log = Log::new(1, 9);
    for _ in 0..READERS {
        stuck.push(dial(address, 2, Role::Device).await);
    }
    host.list(1, &[stuck[0].id]).await;
    for reader in &mut stuck {
        reader.subscribe(host.id, log.stream, Some(0)).await;
    }
    let before = resident_kib(child.id());
    let mut most = before;
    while log.head < EVENTS {
        for _ in 0..500 {
            host.feed_raw(log.next(1, BODY)).await;
        }
        host.flush().await;
        host.stored(log.stream, log.head).await;
        most = most.max(resident_kib(child.id()));
    }
    // T12: at most 1 MiB each, beside what a flood costs by itself.
    let allowed = READERS * 1024 + 64 * 1024;
    assert!(most - before < allowed, "{before} KiB grew to {most} KiB");
    // Nobody lost anything by it.
    let mut late = stuck.pop().unwrap();
    let read = async {
        for seq in 1..=EVENTS {
            assert_eq!(late.envelope().await.1.first, seq);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The resident memory of a process.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}
