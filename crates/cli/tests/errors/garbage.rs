//! Garbage from an agent and at the local socket: it costs whoever sent it, and nobody else.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::{Station, folder, script};

#[test]
fn f22_an_agent_that_speaks_garbage_keeps_its_session_and_disturbs_no_other() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let (quiet, _) = host.up(
        &folder(world.path(), "quiet"),
        &["--agent", "scripted", "--prompt", "hello"],
    );
    let asked = host.wait_for_nth(&quiet, "approval_requested", 1);
    let daemon = host.daemon_pid();
    let garbage = r#"say() { printf '%s\n' "$1"; }
read line; say '{"id":1,"result":{"protocolVersion":1}}'
read line; say '{"id":2,"result":{"sessionId":"s"}}'
read line
printf '\377\376 no text\n'
head -c 100000 /dev/zero | tr '\0' '['; echo
say '[{"id":3,"result":{}}]'
say '{"id":99,"result":{"stopReason":"refusal"}}'
say '{"id":{},"method":"session/request_permission","params":[]}'
say '{"id":5,"method":"session/request_permission","params":{"sessionId":"s","toolCall":7,"options":{"a":1}}}'
say '{"id":6,"method":"fs/write_text_file","params":{"path":["/etc/passwd"],"content":{}}}'
say '{"method":"session/update","params":{"update":{"sessionUpdate":"tool_call_update","toolCallId":{},"content":"x"}}}'
say '{"method":"session/update","params":null}'
head -c 20000000 /dev/zero | tr '\0' x; echo
say '{"id":3,"result":{"stopReason":{"deep":[1e999]}}}'
say '{"id":3,"result":{"stopReason":"end_turn"}}'
id=4
while read line; do case "$line" in *session/prompt*) say "{\"id\":$id,\"result\":{\"stopReason\":\"end_turn\"}}"; id=$((id+1));; esac; done"#;
    let agent = script(&world.path().join("agent"), garbage);
    let (loud, _) = host.up(
        &folder(world.path(), "loud"),
        &["--agent-cmd", &agent, "--prompt", "hello"],
    );
    host.wait_for_nth(&loud, "turn_ended", 1);
    let told = host
        .log_of(&loud)
        .iter()
        .filter(|record| record["event"]["code"] == "agent_garbage")
        .count();
    assert!((3..=6).contains(&told), "{told} notices");
    host.ok(&["send", &loud, "again"]);
    host.wait_for_nth(&loud, "turn_ended", 2);

    // Nothing of it is heard next door, and all in one and the same process.
    let other = host.log_of(&quiet);
    assert!(
        other
            .iter()
            .all(|record| record["event"]["type"] != "noticed")
    );
    host.ok(&["approve", asked["approval"].as_str().unwrap()]);
    host.wait_for_nth(&quiet, "approval_applied", 1);
    assert_eq!(host.daemon_pid(), daemon);
    assert!(!host.log().contains("panicked"), "{}", host.log());
}

#[test]
fn f22_garbage_at_the_local_socket_is_answered_or_closed_and_the_daemon_lives() {
    let world = tempfile::tempdir().unwrap();
    let host = Station::new(world.path());
    let dir = folder(world.path(), "project");
    host.up(&dir, &["--agent", "scripted"]);
    let daemon = host.daemon_pid();
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"op\":{}", "{\"op\":".repeat(100_000));
    let shapes: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a blank line", b"\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("bad UTF-8", b"{\"op\":\"\xff\xfe\"}\n".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{\"op\":\"status\"}\n".to_vec()),
        ("no JSON", b"status\n".to_vec()),
        ("an unknown wish", b"{\"op\":\"fly\"}\n".to_vec()),
        ("other types", b"{\"op\":\"log\",\"session\":7,\"from\":-1,\"follow\":null}\n".to_vec()),
        ("numbers", b"{\"op\":\"log\",\"session\":\"ses_07070707070707070707070707070707\",\"from\":18446744073709551615,\"follow\":true}\n".to_vec()),
        ("a batch", b"[{\"op\":\"status\"}]\n".to_vec()),
        ("deep", format!("{deep}\n").into_bytes()),
        ("deep objects", format!("{nested}\n").into_bytes()),
        ("deep in a field", format!("{{\"op\":\"wish\",\"command\":{deep}\n").into_bytes()),
        ("a line beyond the bound", vec![b'x'; farhelm_host::local::MAX_LINE + 1]),
        ("half a line", b"{\"op\":\"sta".to_vec()),
        ("two at once", b"{\"op\":\"fly\"}\n{\"op\":\"down\"}\n".to_vec()),
    ];
    for (shape, bytes) in shapes {
        let mut stream = UnixStream::connect(host.home.join("farhelm.sock")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        // Who is refused early is not heard to the end.
        let _sent = stream.write_all(&bytes);
        let _ended = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _heard = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("{\"answer\":\"failed\""),
            "{shape}: {answer}"
        );
        assert!(answer.len() < 2_000, "{shape}: {} bytes", answer.len());
    }
    assert_eq!(host.daemon_pid(), daemon);
    assert!(!host.log().contains("panicked"), "{}", host.log());
    host.still_works(&dir);
}
