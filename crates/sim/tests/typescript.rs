//! The web app's types are made from the Rust ones; this test fails when they are stale.
//! `make types` writes them anew.

#![expect(
    clippy::unwrap_used,
    reason = "a file that cannot be made or read is a failure"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use farhelm_core::{
    ask, command, content, event, fleet, grant, keys, pairing, presence, probe, roster, seal,
    session,
};
use farhelm_proto::{Code, Timestamp, limits};
use ts_rs::{Config, TS as _};

const HEADER: &str = "// Made from the Rust types by `make types`; never edited by hand.\n\n";

#[test]
fn types_are_what_rust_says() {
    check("types.ts", &types());
}

#[test]
fn codes_are_what_rust_says() {
    let mut text = format!(
        "{HEADER}/** Errors: number on the wire, word for people, sentence, whether to retry. */\nexport const CODES = [\n"
    );
    for code in Code::ALL {
        let number: u64 = minicbor_number(*code);
        let sentence = serde_json::to_string(code.sentence()).unwrap();
        writeln!(
            text,
            "\t{{ number: {number}, word: '{code}', sentence: {sentence}, retry: {} }},",
            code.may_retry()
        )
        .unwrap();
    }
    text.push_str("] as const;\n");
    check("codes.ts", &text);
}

#[test]
fn constants_are_what_rust_says() {
    let dictionary = serde_json::to_string(std::str::from_utf8(seal::DICTIONARY).unwrap()).unwrap();
    let text = format!(
        "{HEADER}/** The protocol version. */\nexport const VERSION = {};\n\
         /** The oldest version understood. */\nexport const OLDEST_VERSION = {};\n\
         /** The cipher suite. */\nexport const SUITE = {};\n\
         /** Largest frame, in bytes. */\nexport const FRAME_BYTES = {};\n\
         /** Largest packed plaintext, in bytes. */\nexport const MAX_PLAINTEXT = {};\n\
         /** The preset dictionary of encoding 1. */\nexport const DICTIONARY = {dictionary};\n",
        farhelm_proto::VERSION,
        farhelm_proto::OLDEST_VERSION,
        farhelm_proto::envelope::SUITE,
        limits::FRAME_BYTES,
        seal::MAX_PLAINTEXT,
    );
    check("constants.ts", &text);
}

fn types() -> String {
    let cfg = Config::default();
    let mut text = HEADER.to_owned();
    let mut add = |decl: String| writeln!(text, "export {decl}\n").unwrap();
    add(Timestamp::decl(&cfg));
    add(content::Content::decl(&cfg));
    add(content::BlobRef::decl(&cfg));
    add(content::ToolPatch::decl(&cfg));
    add(content::ToolStatus::decl(&cfg));
    add(content::Location::decl(&cfg));
    add(ask::Ask::decl(&cfg));
    add(ask::Subject::decl(&cfg));
    add(ask::Question::decl(&cfg));
    add(ask::Answer::decl(&cfg));
    add(ask::Choice::decl(&cfg));
    add(ask::ChoiceKind::decl(&cfg));
    add(ask::Verdict::decl(&cfg));
    add(event::Record::decl(&cfg));
    add(event::Event::decl(&cfg));
    add(event::Author::decl(&cfg));
    add(event::PauseCause::decl(&cfg));
    add(event::MessageRole::decl(&cfg));
    add(event::StopReason::decl(&cfg));
    add(event::Mode::decl(&cfg));
    add(event::ConfigOption::decl(&cfg));
    add(event::ConfigChoice::decl(&cfg));
    add(event::AgentCommand::decl(&cfg));
    add(event::PlanEntry::decl(&cfg));
    add(event::HostEvent::decl(&cfg));
    add(event::HostRecord::decl(&cfg));
    add(event::Summary::decl(&cfg));
    add(event::Activity::decl(&cfg));
    add(event::Live::decl(&cfg));
    add(session::Session::decl(&cfg));
    add(session::Program::decl(&cfg));
    add(session::Queued::decl(&cfg));
    add(session::Turn::decl(&cfg));
    add(session::Approval::decl(&cfg));
    add(session::Wish::decl(&cfg));
    add(session::Aim::decl(&cfg));
    add(session::Delivery::decl(&cfg));
    add(fleet::Fleet::decl(&cfg));
    add(fleet::Waiting::decl(&cfg));
    add(command::Command::decl(&cfg));
    add(command::CommandBody::decl(&cfg));
    add(command::Rejection::decl(&cfg));
    add(command::Receipt::decl(&cfg));
    add(command::Outcome::decl(&cfg));
    add(grant::Capability::decl(&cfg));
    add(grant::Grant::decl(&cfg));
    add(keys::PublicKeysText::decl(&cfg));
    add(keys::KeyBundle::decl(&cfg));
    add(keys::EpochKey::decl(&cfg));
    add(roster::Entry::decl(&cfg));
    add(roster::EntryBody::decl(&cfg));
    add(roster::Change::decl(&cfg));
    add(pairing::PairRequest::decl(&cfg));
    add(pairing::PairAnswer::decl(&cfg));
    add(probe::ProbeBody::decl(&cfg));
    add(probe::Probe::decl(&cfg));
    add(probe::Echo::decl(&cfg));
    add(probe::Pulse::decl(&cfg));
    add(probe::Held::decl(&cfg));
    add(presence::Presence::decl(&cfg));
    add(presence::Path::decl(&cfg));
    add(presence::Fact::<bool>::decl(&cfg));
    add(presence::SessionPresence::decl(&cfg));
    add(presence::Read::decl(&cfg));
    add(presence::Behind::decl(&cfg));
    add(presence::Sighting::decl(&cfg));
    add(presence::Reach::decl(&cfg));
    add(presence::TurnSeen::decl(&cfg));
    let text = text.replace("/**\n * ", "/** ").replace("\n */\n", " */\n");
    text.trim_end().to_owned() + "\n"
}

/// The number that the wire has for a code.
fn minicbor_number(code: Code) -> u64 {
    let bytes = minicbor::to_vec(code).unwrap();
    minicbor::decode(&bytes).unwrap()
}

fn check(file: &str, made: &str) {
    let path = protocol_folder().join(file);
    if std::env::var_os("TYPES_WRITE").is_some() {
        std::fs::create_dir_all(protocol_folder()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == made,
        "{} is stale: run `make types`",
        path.display()
    );
}

fn protocol_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../web/src/protocol")
}
