//! A keeper with a real program: what it keeps, whom it lets in, and when it goes.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "helpers of tests: what does not fit fails the test"
)]

use std::time::Duration;

use farhelm_host::keeper::{End, Heard, Keepers as _, Kept, Start, Told};
use farhelm_proto::{Code, SessionId};

mod support;

use support::Home;

/// A shell program.
fn shell(home: &Home, script: &str) -> Start {
    Start {
        args: vec!["-c".to_owned(), script.to_owned()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ..support::start("/bin/sh", home.0.path())
    }
}

async fn tell(kept: &Kept, told: Told) {
    kept.told.send(told).await.unwrap();
}

async fn write(kept: &Kept, number: u64, line: &str) {
    let line = line.to_owned();
    tell(kept, Told::Write { number, line }).await;
}

async fn hear(kept: &mut Kept) -> Heard {
    let heard = tokio::time::timeout(Duration::from_secs(60), kept.heard.recv()).await;
    heard.unwrap().unwrap()
}

/// The next line, with its number.
async fn line(kept: &mut Kept) -> (u64, String) {
    loop {
        match hear(kept).await {
            Heard::Line { number, line } => return (number, line),
            Heard::Written { .. } => {}
            other => panic!("a line, not {other:?}"),
        }
    }
}

/// How it ended, and the number of that.
async fn end(kept: &mut Kept) -> (u64, End) {
    loop {
        if let Heard::Ended { number, end } = hear(kept).await {
            return (number, end);
        }
    }
}

/// Waits until there is no keeper.
async fn gone(home: &Home) {
    while !home.keepers(9).list().await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn f01_what_was_not_acknowledged_is_said_again_to_the_next_daemon_and_nothing_else() {
    let home = Home::new();
    let script = "while read -r line; do echo \"got $line\"; done";
    let mut first = home.keepers(1).start(shell(&home, script)).await.unwrap();
    tell(&first, Told::Hear { after: 0 }).await;
    write(&first, 1, "a").await;
    write(&first, 2, "b").await;
    let (a, _) = line(&mut first).await;
    let (b, _) = line(&mut first).await;
    assert!(a < b);
    tell(&first, Told::Acknowledge { through: a }).await;
    // Both are told again, as a daemon does that does not know whether they arrived.
    let mut second = home
        .keepers(2)
        .attach(support::session())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(second.standing.accepted, 2);
    assert_eq!(
        (second.standing.run.as_str(), second.standing.note.as_str()),
        ("run", "note")
    );
    tell(&second, Told::Hear { after: a }).await;
    write(&second, 1, "a").await;
    write(&second, 2, "b").await;
    write(&second, 3, "c").await;
    assert_eq!(line(&mut second).await, (b, "got b".to_owned()));
    assert_eq!(line(&mut second).await.1, "got c");
    loop {
        match hear(&mut first).await {
            Heard::Superseded => break,
            Heard::Written { .. } => {}
            other => panic!("the first is told that it is over, not {other:?}"),
        }
    }
    tell(&second, Told::End { at_once: false }).await;
    let (number, end) = end(&mut second).await;
    assert_eq!((end.code, end.signal), (Some(0), None));
    tell(&second, Told::Acknowledge { through: number }).await;
    gone(&home).await;
}

#[tokio::test]
async fn s20_a_daemon_of_an_earlier_generation_or_with_other_keys_is_not_let_in() {
    let home = Home::new();
    let mut kept = home
        .keepers(5)
        .start(shell(&home, "read -r line; echo $line"))
        .await
        .unwrap();
    let attach = |generation, seed| {
        let keepers = home.keepers_of(generation, [seed; 64]);
        async move { keepers.attach(support::session()).await.unwrap_err().code }
    };
    assert_eq!(attach(4, 7).await, Code::Superseded);
    assert_eq!(attach(6, 8).await, Code::BadProof);
    // Whoever has it goes on undisturbed.
    tell(&kept, Told::Hear { after: 0 }).await;
    write(&kept, 1, "still here").await;
    assert_eq!(line(&mut kept).await.1, "still here");
    let (number, _) = end(&mut kept).await;
    tell(&kept, Told::Acknowledge { through: number }).await;
    gone(&home).await;
}

#[tokio::test]
async fn f01_what_an_agent_says_while_nobody_is_there_goes_beyond_the_memory_and_comes_back_whole()
{
    const LINES: u64 = 400_000;
    let home = Home::new();
    let script = format!("read -r go; seq 1 {LINES}; echo done >&2");
    let keepers = home.keepers(1);
    let kept = keepers.start(shell(&home, &script)).await.unwrap();
    write(&kept, 1, "go").await;
    let mut kept = loop {
        // What was told before is still written.
        if kept.told.capacity() == kept.told.max_capacity() {
            drop(kept);
            break home
                .keepers(2)
                .attach(support::session())
                .await
                .unwrap()
                .unwrap();
        }
        tokio::task::yield_now().await;
    };
    let folder = home
        .0
        .path()
        .join("keepers")
        .join(support::session().to_string());
    let spooled = || {
        let names = std::fs::read_dir(&folder).unwrap();
        names
            .filter(|name| {
                let name = name.as_ref().unwrap().file_name();
                name.to_str().unwrap().starts_with("said.")
            })
            .count()
    };
    // The agent has said all of it before anybody hears a word.
    while spooled() == 0 {
        tokio::task::yield_now().await;
    }
    tell(&kept, Told::Hear { after: 0 }).await;
    for expected in 1..=LINES {
        let (number, text) = line(&mut kept).await;
        assert_eq!(text, expected.to_string());
        if expected % 1000 == 0 {
            tell(&kept, Told::Acknowledge { through: number }).await;
        }
    }
    let (number, end) = end(&mut kept).await;
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), "done\n"));
    tell(&kept, Told::Acknowledge { through: number }).await;
    gone(&home).await;
}

#[tokio::test]
async fn f02_how_an_agent_ended_is_kept_until_somebody_has_taken_it() {
    let home = Home::new();
    let script = "echo last; echo why >&2; kill -9 $$";
    let kept = home.keepers(1).start(shell(&home, script)).await.unwrap();
    drop(kept);
    for generation in 2..4 {
        let keepers = home.keepers(generation);
        let mut kept = keepers.attach(support::session()).await.unwrap().unwrap();
        tell(&kept, Told::Hear { after: 0 }).await;
        assert_eq!(line(&mut kept).await.1, "last");
        let (number, end) = end(&mut kept).await;
        assert_eq!((end.signal, end.stderr.as_str()), (Some(9), "why\n"));
        if generation == 3 {
            tell(&kept, Told::Acknowledge { through: number }).await;
        }
    }
    gone(&home).await;
    assert!(
        home.keepers(4)
            .attach(support::session())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_session_has_one_keeper_at_a_time_and_another_after_that_has_gone() {
    let home = Home::new();
    let keepers = home.keepers(1);
    let mut first = keepers.start(shell(&home, "read -r line")).await.unwrap();
    assert_eq!(keepers.list().await, [support::session()]);
    tell(&first, Told::Hear { after: 0 }).await;
    tell(&first, Told::End { at_once: true }).await;
    let (number, _) = end(&mut first).await;
    let next = keepers.start(shell(&home, "echo next"));
    tell(&first, Told::Acknowledge { through: number }).await;
    let mut next = next.await.unwrap();
    tell(&next, Told::Hear { after: 0 }).await;
    assert_eq!(line(&mut next).await.1, "next");
    let (number, _) = end(&mut next).await;
    tell(&next, Told::Acknowledge { through: number }).await;
    gone(&home).await;
    assert_eq!(keepers.list().await, Vec::<SessionId>::new());
}

#[tokio::test]
async fn a_keeper_whose_state_folder_is_gone_ends_its_agent_and_itself() {
    let home = Home::new();
    let kept = home
        .keepers(1)
        .start(shell(&home, "read -r line"))
        .await
        .unwrap();
    let pid = kept.standing.pid;
    let group = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    drop(kept);
    std::fs::remove_dir_all(home.0.path().join("keepers")).unwrap();
    while rustix::process::test_kill_process_group(group).is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn f35_an_agent_waits_while_its_daemon_does_not_listen() {
    let home = Home::new();
    let kept = home
        .keepers(1)
        .start(shell(&home, "while :; do echo 'a line of the flood'; done"))
        .await
        .unwrap();
    tell(&kept, Told::Hear { after: 0 }).await;
    // When nothing moves any more, what is kept is far below what such an agent says in a moment.
    let io = format!("/proc/{}/io", kept.standing.pid);
    let said = || {
        let text = std::fs::read_to_string(&io).unwrap();
        let line = text.lines().find(|line| line.starts_with("wchar")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let mut last = said();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = said();
        if now == last && now > 0 {
            break;
        }
        last = now;
    }
    assert!(last < 8 << 20, "{last}");
    support::kill_group(kept.standing.pid);
}
