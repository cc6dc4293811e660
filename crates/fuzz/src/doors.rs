//! Where bytes come in that are no frame yet: keepers, WebSockets, the detour in both directions,
//! the configuration.

use std::time::{Duration, Instant};

use bytes::Bytes;
use farhelm_host::config::Config;
use farhelm_proto::limits;

/// Cuts what a keeper or a daemon says into frames; the first byte says how it comes.
pub(crate) fn keeper(bytes: &[u8]) -> bool {
    let Some((cut, said)) = bytes.split_first() else {
        return false;
    };
    let (frames, broken) = farhelm_host::bare::keeper(crate::pieces(said, said.len()));
    let again = farhelm_host::bare::keeper(crate::pieces(said, usize::from(*cut)));
    assert_eq!((&frames, broken), (&again.0, again.1), "however it is cut");
    let written = frames.concat();
    let reread = farhelm_host::bare::keeper(core::iter::once(&written[..]));
    assert_eq!((frames.clone(), false), reread, "what is written is read");
    !broken && !frames.is_empty()
}

/// Takes messages out of a WebSocket as the relay does; the first byte says how they come.
pub(crate) fn websocket(bytes: &[u8]) -> bool {
    let Some((cut, sent)) = bytes.split_first() else {
        return false;
    };
    let whole = farhelm_relay::bare::messages(sent, sent.len(), LIMIT);
    let again = farhelm_relay::bare::messages(sent, usize::from(*cut), LIMIT);
    assert_eq!(whole, again, "however it is cut");
    assert!(whole.0.iter().all(|message| message.len() <= LIMIT));
    whole.1.is_none() && !whole.0.is_empty()
}

/// Takes the frames of a request of the detour apart.
pub(crate) fn detour(bytes: &[u8]) -> bool {
    let row = farhelm_relay::bare::row(Bytes::copy_from_slice(bytes), LIMIT);
    if let Some(frames) = &row {
        let held: usize = frames.iter().map(|frame| frame.len() + 4).sum();
        assert_eq!(held, bytes.len());
        assert!(frames.iter().all(|frame| frame.len() <= LIMIT));
    }
    row.is_some()
}

/// Takes an event stream apart, as a peer does that takes the detour.
pub(crate) fn events(bytes: &[u8]) -> bool {
    let Some((cut, stream)) = bytes.split_first() else {
        return false;
    };
    let whole = farhelm_link::bare::events(crate::pieces(stream, stream.len()));
    let some = usize::from(*cut) * (1 + stream.len() / 1024);
    let again = farhelm_link::bare::events(crate::pieces(stream, some));
    assert_eq!(whole, again, "however it is cut");
    if let Some(events) = &whole {
        let longest = limits::FRAME_BYTES * 2;
        assert!(events.iter().all(|(_, data)| data.len() <= longest));
    }
    whole.is_some_and(|events| !events.is_empty())
}

/// Reads a host's configuration and asks for all that it says.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let Ok(config) = toml::from_str::<Config>(text) else {
        return false;
    };
    let soon = Instant::now().checked_add(config.start_within());
    assert!(
        soon.is_some_and(|at| at.checked_add(Duration::from_hours(1)).is_some()),
        "a time that comes"
    );
    assert!(config.agents_at_once() <= usize::MAX >> 3);
    let _bytes = config.journal_bytes();
    let registry = config.registry();
    for name in config.agents.keys().chain(&config.agent).take(16) {
        let _agent = registry.find(name);
        let _command = registry.from_command(name);
    }
    true
}

/// What a message may have here.
const LIMIT: usize = 70_000;

pub(crate) fn kept() -> Vec<Vec<u8>> {
    let frame = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap_or_default();
        [&[kind], &length.to_be_bytes()[..], body].concat()
    };
    let number = 7_u64.to_be_bytes();
    let standing = br#"{"run":"r","note":"{}","acknowledged":1,"accepted":2,"written":2,"pid":3}"#;
    let challenge = br#"{"version":1,"session":"ses_07070707070707070707070707070707","nonce":[9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9,9]}"#;
    let ended = [&number[..], br#"{"code":1,"signal":null,"stderr":"oh"}"#].concat();
    let said = [&number[..], b"{\"id\":1}\n"].concat();
    let row = [
        frame(1, challenge),
        frame(2, br#"{"version":1,"generation":5,"signature":[1,2,3]}"#),
        frame(3, standing),
        frame(4, br#""superseded""#),
        frame(5, &number),
        frame(6, &said),
        frame(8, &[1]),
        frame(9, &said),
        frame(12, &ended),
        frame(13, &[]),
    ]
    .concat();
    vec![
        [&[3], &row[..]].concat(),
        [&[0], &frame(9, &said)[..]].concat(),
    ]
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let message = |head: &[u8], text: &[u8]| [head, &[0; 4], text].concat();
    let long = vec![b'x'; 300];
    vec![
        [&[1][..], &message(&[0x82, 0x83], b"abc")].concat(),
        [
            &[7][..],
            &message(&[0x02, 0x82], b"ab"),
            &message(&[0x89, 0x81], b"p"),
            &message(&[0x80, 0x81], b"c"),
            &message(&[0x82, 0xfe, 1, 44], &long),
            &message(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 2], b"de"),
        ]
        .concat(),
    ]
}

pub(crate) fn rows() -> Vec<Vec<u8>> {
    let ping = crate::wire::control();
    let length = u32::try_from(ping.len()).unwrap_or_default().to_be_bytes();
    let one = [&length[..], &ping].concat();
    vec![one.clone(), one.repeat(30)]
}

pub(crate) fn streams() -> Vec<Vec<u8>> {
    vec![
        b"\x03: comment\n\nevent: open\ndata: key\n\n:\n\ndata: AAAA\r\n\r\nid: 7\ndata:BB\n\n"
            .to_vec(),
    ]
}

pub(crate) fn configs() -> Vec<Vec<u8>> {
    let whole = "name = \"desk\"\nrelay = \"https://relay.example\"\nextra_ca = \"/ca.pem\"\nrelay_port = 7420\nagent = \"mine\"\nkeep_awake = false\nagent_start_s = 5\njournal_mib = 100\nagents_at_once = 4\n\n[agents.mine]\ncommand = \"my-agent\"\nargs = [\"--acp\"]\nenv = { A = \"b\" }\n";
    vec![whole.as_bytes().to_vec(), b"agent_start_s = 9223372036854775807\njournal_mib = 9223372036854775807\nagents_at_once = 9223372036854775807\n".to_vec(), Vec::new()]
}
