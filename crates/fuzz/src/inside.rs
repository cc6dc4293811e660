//! What only the ends read: packed plaintext, the JSON inside, links and ids as people pass them on.

use core::str::FromStr as _;

use farhelm_core::ask::Ask;
use farhelm_core::command::{Command, CommandBody, Receipt};
use farhelm_core::event::{Author, HostRecord, Live, Record};
use farhelm_core::fleet::Fleet;
use farhelm_core::keys::{Identity, KeyBundle, from_base64, to_base64};
use farhelm_core::pairing::{Link, PairAnswer, PairRequest};
use farhelm_core::probe::ProbeBody;
use farhelm_core::roster::{Entry, Roster};
use farhelm_core::seal::{self, MAX_PLAINTEXT};
use farhelm_core::session::{Input, Session};
use farhelm_host::local::{LocalAnswer, LocalRequest};
use farhelm_proto::{ApprovalId, Code, CommandId, PeerId, SessionId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Unpacks what was sealed.
pub(crate) fn unpack(bytes: &[u8]) -> bool {
    let unpacked = seal::unpack(bytes);
    if let Ok(data) = &unpacked {
        assert!(data.len() <= MAX_PLAINTEXT.max(bytes.len()));
        let again = seal::unpack(&seal::pack(data, |length| length));
        assert!(again.is_ok_and(|again| again == *data));
    }
    unpacked.is_ok()
}

/// Reads JSON that travels sealed or through the local socket; the first byte says as what.
pub(crate) fn plaintext(bytes: &[u8]) -> bool {
    let Some((kind, text)) = bytes.split_first() else {
        return false;
    };
    READERS
        .get(usize::from(*kind))
        .is_some_and(|read| read(text))
}

const READERS: &[fn(&[u8]) -> bool] = &[
    reads::<Vec<Record>>,
    reads::<Vec<HostRecord>>,
    reads::<Vec<Live>>,
    reads::<CommandBody>,
    reads::<Receipt>,
    reads::<KeyBundle>,
    reads::<PairRequest>,
    reads::<PairAnswer>,
    reads::<ProbeBody>,
    reads::<Ask>,
    reads::<Session>,
    reads::<Fleet>,
    reads::<LocalRequest>,
    reads::<LocalAnswer>,
    roster,
    record,
];

/// What is read is written and read again, and is the same.
fn reads<T: DeserializeOwned + Serialize>(text: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(text) else {
        return false;
    };
    same(&read);
    true
}

fn same<T: DeserializeOwned + Serialize>(value: &T) {
    let Ok(written) = serde_json::to_string(value) else {
        panic!("what was read cannot be written");
    };
    let again = match serde_json::from_str::<T>(&written) {
        Ok(again) => again,
        Err(error) => panic!("what was written cannot be read: {error}: {written}"),
    };
    let rewritten = serde_json::to_string(&again).unwrap_or_default();
    // Two roundings of a long fraction may differ in the last digit.
    assert!(
        rewritten == written || written.contains('.') || written.contains('e'),
        "{written}"
    );
}

fn roster(text: &[u8]) -> bool {
    let Ok(entries) = serde_json::from_slice::<Vec<Entry>>(text) else {
        return false;
    };
    let host = Identity::from_seed([1; 64]).ok();
    host.is_some_and(|host| {
        let _verified = Roster::verify(&entries, host.public());
        true
    })
}

fn record(text: &[u8]) -> bool {
    let read = str::from_utf8(text)
        .ok()
        .and_then(|text| farhelm_link::bare::record(text).ok());
    if let Some(record) = &read {
        same(record);
    }
    read.is_some()
}

/// Plays lines of JSON to a session: records are applied, commands decided.
pub(crate) fn session(bytes: &[u8]) -> bool {
    let mut session = Session::default();
    let mut all = true;
    let mut made = 0_u8;
    for line in bytes.split(|byte| *byte == b'\n').take(256) {
        if let Ok(Record { cause, event, .. }) = serde_json::from_slice(line) {
            let _deliveries = session.deliveries(cause, &event);
            let _effects = session.effects(&event);
            session.apply(cause, &event);
        } else if let Ok(CommandBody { command, .. }) = serde_json::from_slice(line) {
            let mut random = || {
                made = made.wrapping_add(1);
                [made; 10]
            };
            let wish = Input::Wish {
                command,
                by: Author::Local,
            };
            let decided = session.decide(Timestamp(5), wish, &mut random);
            for event in decided.unwrap_or_default() {
                let _effects = session.effects(&event);
                session.apply(Some(CommandId::from_bytes([made; 16])), &event);
                same(&event);
            }
        } else {
            all = false;
        }
        let _pending = session.pending();
        let _activity = session.activity();
    }
    same(&session);
    all
}

/// Reads what people type and paste: pairing links, ids, codes, base64.
pub(crate) fn words(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else {
        return false;
    };
    let link = Link::parse(text);
    if let Ok(link) = &link {
        let again = Link::parse(&link.to_url());
        let is_same = again.is_ok_and(|again| {
            let relay = link.relay.trim_end_matches('/');
            (again.relay.as_str(), again.host, again.secret) == (relay, link.host, link.secret)
        });
        assert!(is_same, "{text}");
    }
    let id = SessionId::from_str(text);
    if let Ok(id) = &id {
        assert!(SessionId::from_str(&id.to_string()).is_ok_and(|again| again == *id));
    }
    let code = Code::from_word(text);
    assert!(code.is_none_or(|code| code.as_str() == text));
    if let Some(found) = from_base64(text) {
        assert_eq!(to_base64(&found), text, "there is one way to write bytes");
    }
    let _status = farhelm_link::bare::proxy_status(bytes);
    link.is_ok() || id.is_ok() || code.is_some()
}

pub(crate) fn packs() -> Vec<Vec<u8>> {
    let story = STORY.as_bytes();
    let some = &story[..story.len().min(2000)];
    let bucket = |length: usize| length.next_multiple_of(64);
    vec![
        seal::pack(b"[{\"seq\":1}]", bucket),
        seal::pack(some, bucket),
        seal::pack(&[b'x'; 100_000], bucket),
    ]
}

pub(crate) fn plaintexts() -> Vec<Vec<u8>> {
    let session = SessionId::from_bytes([7; 16]);
    let peer = PeerId::from_bytes([3; 16]);
    let command = CommandId::from_bytes([2; 16]);
    let event = json!({"type": "message_added", "message": "m"});
    let opened = json!({"type": "session_opened", "title": "demo", "dir": "/d", "branch": null, "agent": "a"});
    let record = json!({"seq": 1, "at": 1_795_000_000_000_u64, "cause": command, "event": opened});
    let keys = Identity::from_seed([1; 64])
        .map(|host| json!(host.public()))
        .unwrap_or_default();
    let ask = json!({"tool": "t1", "title": "Run ls", "subject": {"kind": "command", "command": "ls", "dir": "/demo"}, "options": [{"id": "y", "name": "Yes", "kind": "allow_once"}], "description": null, "parent": null});
    let body = json!({"command": {"type": "prompt", "session": session, "text": "do it"}});
    let key = json!({"stream": farhelm_proto::StreamId::from_bytes([1; 16]), "keys": [{"epoch": 3, "key": "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU"}]});
    let receipt = json!({"command": command, "outcome": {"kind": "refused", "rejection": {"code": "not_found", "text": "no"}}});
    let echo = json!({"type": "echo", "nonce": "n", "now": 5, "every_millis": 3000, "idle_millis": 60000, "sent": 4, "sessions": {}});
    let request = json!({"op": "log", "session": session, "from": 1, "follow": true});
    let failed = json!({"answer": "failed", "code": "not_found", "text": "no"});
    let later = json!({"seq": 9, "at": 5, "event": event});
    let open = serde_json::to_value(Session::default()).unwrap_or_default();
    let fleet = serde_json::to_value(Fleet::default()).unwrap_or_default();
    let table: [(u8, Value); 15] = [
        (0, json!([record])),
        (1, json!([])),
        (2, json!([])),
        (3, body),
        (4, receipt),
        (5, key),
        (6, json!({"name": "phone", "keys": keys})),
        (
            7,
            json!({"type": "challenge", "nonce": "n", "host": "laptop", "request": "r"}),
        ),
        (8, echo),
        (9, ask),
        (10, open),
        (11, fleet),
        (12, request),
        (13, failed),
        (15, later),
    ];
    let _peer = peer;
    table
        .into_iter()
        .map(|(kind, value)| [&[kind], value.to_string().as_bytes()].concat())
        .collect()
}

/// A long session, as the golden file tells it; then wishes of every kind on top.
pub(crate) fn stories() -> Vec<Vec<u8>> {
    let story: Vec<Value> = serde_json::from_str(STORY).unwrap_or_default();
    let records: Vec<String> = story
        .iter()
        .zip(1_u64..)
        .map(|(step, seq)| {
            let mut record = json!({"seq": seq, "at": 5, "event": step["event"]});
            if !step["cause"].is_null() {
                record["cause"] = step["cause"].clone();
            }
            record.to_string()
        })
        .collect();
    let session = SessionId::from_bytes([7; 16]);
    let approval = ApprovalId::from_bytes([8; 16]);
    let wishes = [
        json!({"type": "prompt", "session": session, "text": "do it"}),
        json!({"type": "interrupt", "session": session}),
        json!({"type": "decide_approval", "session": session, "approval": approval, "digest": "d", "verdict": {"kind": "void", "why": "w"}}),
    ];
    let known = wishes
        .into_iter()
        .filter(|wish| serde_json::from_value::<Command>(wish.clone()).is_ok())
        .map(|wish| json!({"command": wish}).to_string());
    let middle = records.len() / 2;
    let mut mixed = records[..middle].to_vec();
    mixed.extend(known);
    vec![
        records.join("\n").into_bytes(),
        mixed.join("\n").into_bytes(),
        records[..3.min(records.len())].join("\n").into_bytes(),
    ]
}

pub(crate) fn links() -> Vec<Vec<u8>> {
    let link = Identity::from_seed([1; 64]).map(|host| {
        let link = Link {
            relay: "https://relay.example".to_owned(),
            host: *host.public(),
            secret: [9; 32],
        };
        link.to_url()
    });
    let mut all = vec![
        SessionId::from_bytes([7; 16]).to_string(),
        Code::NotFound.as_str().to_owned(),
    ];
    all.extend(link);
    all.into_iter().map(String::into_bytes).collect()
}

const STORY: &str = include_str!("../../core/tests/golden/story.json");
