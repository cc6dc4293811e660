//! Every decoder with what is valid, with what the fuzzer found worth keeping, with shapes that are
//! hostile, and with a thousand and more mutations from a seed.
//!
//! `FUZZ_SEED` and `FUZZ_COUNT` say otherwise; a failure prints the input.

#![expect(clippy::unwrap_used, reason = "what cannot be read has failed")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farhelm_fuzz::mutate::{Chance, mutate, nested, shapes};
use farhelm_fuzz::{TARGETS, Target, target};

macro_rules! decoders {
    ($($test:ident = $name:literal, $count:literal;)*) => {
        $(#[test]
        fn $test() {
            survives($name, $count);
        })*

        /// Those that have a test.
        const TESTED: &[&str] = &[$($name),*];
    };
}

decoders! {
    f22_frames = "frame", 20_000;
    f22_clear_headers = "header", 20_000;
    f22_envelopes_with_any_numbers = "replica", 300;
    f22_packed_plaintext = "unpack", 3_000;
    f22_json_inside = "plaintext", 5_000;
    f22_a_log_and_wishes = "session", 200;
    f22_links_ids_and_codes = "words", 10_000;
    f22_lines_of_an_agent = "lines", 60;
    f22_what_an_acp_agent_says = "acp", 40;
    f22_what_claude_code_says = "claude", 60;
    f22_frames_of_a_keeper = "keeper", 5_000;
    f22_a_websocket = "websocket", 10_000;
    f22_requests_of_the_detour = "detour", 10_000;
    f22_the_event_stream_of_the_detour = "events", 2_000;
    f22_the_configuration = "config", 2_000;
}

#[test]
fn every_target_has_a_test_and_a_corpus() {
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
    names.sort_unstable();
    let folders = std::fs::read_dir(corpus()).unwrap();
    let mut found: Vec<String> = folders
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, names, "the folders of fuzz/corpus");
}

fn survives(name: &str, count: u64) {
    let target = target(name).unwrap();
    let valid = (target.valid)();
    assert!(!valid.is_empty());
    for (at, bytes) in valid.iter().enumerate() {
        assert!(
            feed(target, bytes),
            "valid input {at} of {name} is not read"
        );
    }
    let mut kept: Vec<PathBuf> = std::fs::read_dir(corpus().join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    kept.sort_unstable();
    let kept: Vec<Vec<u8>> = kept
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let nested = if name == "plaintext" {
        nested(16)
    } else {
        Vec::new()
    };
    for bytes in kept.iter().chain(&shapes()).chain(&nested) {
        feed(target, bytes);
    }
    let from = |variable: &str, otherwise: u64| {
        std::env::var(variable).map_or(otherwise, |value| value.parse().unwrap())
    };
    let known = [valid, kept].concat();
    let mut chance = Chance(from("FUZZ_SEED", 22));
    let mut read = 0_u64;
    let count = from("FUZZ_COUNT", count);
    for _ in 0..count {
        read += u64::from(feed(target, &mutate(&known, &mut chance)));
    }
    assert!(read < count, "mutations that bend nothing");
}

/// Feeds a target. Whatever does not survive is named with its input.
fn feed(target: &Target, bytes: &[u8]) -> bool {
    let begun = Instant::now();
    let read = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let took = begun.elapsed();
    let shown = || {
        let some: String = bytes
            .iter()
            .take(4096)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{} with {} bytes: {some}", target.name, bytes.len())
    };
    assert!(took < HANGS, "{took:?}: {}", shown());
    read.unwrap_or_else(|_| panic!("{}", shown()))
}

/// Nothing here takes a hundredth of it.
const HANGS: Duration = Duration::from_secs(20);

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}
