//! What a device keeps, and what it refuses to keep it in.

use std::os::unix::fs::PermissionsExt;

use farhelm_core::command::{Command, Delivery, Outcome, Receipt, Rejection};
use farhelm_proto::{CommandId, Timestamp};

use super::*;
use crate::device::Stage;

#[test]
fn keys_stay_the_same_and_nobody_else_may_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let first = Store::open(&state).unwrap().identity().unwrap();
    let again = Store::open(&state).unwrap().identity().unwrap();
    assert_eq!(first.peer(), again.peer());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for entry in std::fs::read_dir(&state).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn s19_a_store_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let file = folder.path().join("device.sqlite");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert_eq!(error.code, Code::StateUnusable);
    assert!(
        error.text.starts_with("others may read the keys in"),
        "{error}"
    );
}

#[test]
fn s19_a_folder_that_others_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.text.starts_with("others may write to"), "{error}");
}

#[test]
fn a_link_in_the_place_of_the_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, folder.path().join("device.sqlite")).unwrap();
    assert!(
        Store::open(folder.path())
            .unwrap_err()
            .text
            .ends_with("is not a plain file")
    );
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let (folder, store) = store();
    store
        .with(|db| db.pragma_update(None, "user_version", VERSION + 1))
        .unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.text.contains("later version"), "{error}");
}

#[test]
fn a_host_is_kept_with_its_keys_and_forgotten_with_them() {
    let (_folder, store) = store();
    let host = host();
    store.keep_host(&host).unwrap();
    let renamed = KnownHost {
        name: "desk".into(),
        ..host.clone()
    };
    store.keep_host(&renamed).unwrap();
    store
        .keep_keys(
            host.peer(),
            stream(),
            &[(3, ContentKey::from_bytes([7; 32]))],
        )
        .unwrap();
    assert_eq!(store.host(host.peer()).unwrap(), Some(renamed));
    assert_eq!(store.keys(host.peer()).unwrap()[0].2.expose(), &[7; 32]);
    store.forget_host(host.peer()).unwrap();
    assert_eq!(store.hosts().unwrap(), vec![]);
    assert!(store.keys(host.peer()).unwrap().is_empty());
}

#[test]
fn s36_a_head_never_goes_back() {
    let (_folder, store) = store();
    let at = |seq| (stream(), Head { seq, hash: [1; 32] });
    store.keep_heads(host().peer(), &[at(9)]).unwrap();
    store.keep_heads(host().peer(), &[at(5)]).unwrap();
    assert_eq!(store.heads(host().peer()).unwrap(), vec![at(9)]);
}

#[test]
fn a_command_only_advances_and_a_receipt_is_final() {
    let (_folder, store) = store();
    let id = command(&store);
    assert!(store.posted(id).unwrap());
    assert!(!store.posted(id).unwrap());
    assert!(
        store
            .receipt(&Receipt {
                command: id,
                outcome: Outcome::Received
            })
            .unwrap()
    );
    assert_eq!(store.unacknowledged(host().peer(), false).unwrap(), vec![]);
    assert_eq!(
        store.pending(host().peer()).unwrap()[0].stage,
        Stage::AtHost
    );
    let applied = Outcome::Applied {
        stream: stream(),
        seq: 3,
        made: None,
        delivery: Delivery::Done,
    };
    assert!(
        store
            .receipt(&Receipt {
                command: id,
                outcome: applied.clone()
            })
            .unwrap()
    );
    assert!(
        !store
            .receipt(&Receipt {
                command: id,
                outcome: refused()
            })
            .unwrap()
    );
    assert_eq!(store.outcome(id).unwrap(), Some(applied));
    assert_eq!(store.pending(host().peer()).unwrap(), vec![]);
}

#[test]
fn the_relay_cannot_end_a_command_that_may_be_at_the_host() {
    let (_folder, store) = store();
    let id = command(&store);
    store.posted(id).unwrap();
    assert!(!store.given_up(id, &refused()).unwrap());
    assert_eq!(store.pending(host().peer()).unwrap().len(), 1);
}

#[test]
fn what_the_host_says_counts_more_than_what_the_relay_said() {
    let (_folder, store) = store();
    let id = command(&store);
    assert!(store.given_up(id, &refused()).unwrap());
    let applied = Outcome::Applied {
        stream: stream(),
        seq: 3,
        made: None,
        delivery: Delivery::Done,
    };
    assert!(
        store
            .receipt(&Receipt {
                command: id,
                outcome: applied.clone()
            })
            .unwrap()
    );
    assert_eq!(store.outcome(id).unwrap(), Some(applied));
}

/// Whatever comes in whatever order and however often: the host's word never goes back, and counts
/// more than the relay's and the clock's.
#[test]
fn s03_what_comes_twice_or_in_another_order_never_takes_a_command_back() {
    let (_folder, store) = store();
    let word = |delivery| Outcome::Applied {
        stream: stream(),
        seq: 3,
        made: None,
        delivery,
    };
    let ends = [
        word(Delivery::Consumed),
        word(Delivery::Indeterminate),
        word(Delivery::Void),
        refused(),
    ];
    let mut chance = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = move |bound: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        usize::try_from(chance % bound).unwrap()
    };
    for round in 0..40_u8 {
        let id = CommandId::from_bytes([round + 1; 16]);
        keep(&store, id);
        let end = &ends[draw(4)];
        let words = [
            Outcome::Received,
            word(Delivery::Waiting),
            word(Delivery::Handed),
            end.clone(),
        ];
        let mut highest = 0;
        for _ in 0..12 {
            match draw(7) {
                0 => drop(store.posted(id).unwrap()),
                1 => drop(store.given_up(id, &refused()).unwrap()),
                2 => drop(store.expire(host().peer(), Timestamp(60), None).unwrap()),
                heard => {
                    let heard = heard - 3;
                    highest = highest.max([1, 1, 2, 3][heard]);
                    let outcome = words[heard].clone();
                    let command = id;
                    store.receipt(&Receipt { command, outcome }).unwrap();
                }
            }
            let stage = store.command(id).unwrap().unwrap().stage;
            let host_said = match &stage {
                Stage::Done(outcome) if outcome == end => 3,
                Stage::Handed => 2,
                Stage::AtHost => 1,
                Stage::Done(_) | Stage::Kept | Stage::AtRelay | Stage::Expired => 0,
            };
            assert!(
                host_said >= highest || (highest == 3 && end == &refused()),
                "round {round}: {stage:?} after {highest}"
            );
        }
    }
}

fn keep(store: &Store, id: CommandId) {
    let entry = Entry {
        id,
        host: host().peer(),
        command: Command::CancelTurn {
            session: farhelm_proto::SessionId::from_bytes([1; 16]),
        },
        retries: None,
        letter: vec![1],
        made_at: Timestamp(5),
        not_after: Timestamp(50),
    };
    store.keep_command(&entry).unwrap();
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn command(store: &Store) -> CommandId {
    let id = CommandId::fresh(Timestamp(5), [1; 10]);
    keep(store, id);
    id
}

fn refused() -> Outcome {
    Outcome::Refused {
        rejection: Rejection::new(Code::Expired),
    }
}

fn stream() -> StreamId {
    StreamId::from_bytes([4; 16])
}

fn host() -> KnownHost {
    let keys = *Identity::from_seed([1; 64]).unwrap().public();
    KnownHost {
        keys,
        relay: "http://localhost:1".into(),
        name: "laptop".into(),
        roster: vec![],
    }
}
