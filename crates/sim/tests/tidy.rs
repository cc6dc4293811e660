//! The rules of the house: what the compiler and the linters cannot check, as tests.

#![expect(
    clippy::unwrap_used,
    reason = "a file that cannot be read is a failure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines that a file of ours may have.
const MAX_LINES: usize = 800;
/// Lines that ARCHITECTURE.md may have.
const MAX_ARCHITECTURE_LINES: usize = 400;
/// Failpoints that there are at least; counts up.
const FAILPOINTS: usize = 95;
/// Packages that the lock file may have.
const MAX_PACKAGES: usize = 520;

#[test]
fn no_file_of_ours_is_too_long() {
    let ours = ["rs", "ts", "mjs", "svelte", "css", "sh"];
    let generated = root().join("web/src/protocol");
    let long = files()
        .into_iter()
        .filter(|path| has_extension(path, &ours) && !path.starts_with(&generated));
    let long: Vec<_> = long
        .filter(|path| lines(path) > MAX_LINES)
        .map(|path| shown(&path))
        .collect();
    assert!(
        long.is_empty(),
        "more than {MAX_LINES} lines; split {long:?}"
    );
    assert!(lines(&root().join("ARCHITECTURE.md")) <= MAX_ARCHITECTURE_LINES);
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = files()
        .into_iter()
        .filter(|path| has_extension(path, &["rs"]));
    let silent: Vec<_> = silent
        .filter(|path| !read(path).starts_with("//! "))
        .map(|path| shown(&path))
        .collect();
    assert!(
        silent.is_empty(),
        "these do not begin with `//!`: {silent:?}"
    );
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let metadata = metadata();
    let ours = our_packages(&metadata);
    let names: BTreeSet<&str> = ours.iter().map(|package| text(&package["name"])).collect();
    let mut found = BTreeMap::new();
    for package in &ours {
        let of_kind = |is_dev: bool| -> BTreeSet<String> {
            let all = package["dependencies"].as_array().unwrap().iter();
            let wanted = all.filter(|dependency| (dependency["kind"] == "dev") == is_dev);
            wanted
                .map(|dependency| text(&dependency["name"]))
                .filter(|name| names.contains(name))
                .map(str::to_owned)
                .collect()
        };
        found.insert(
            text(&package["name"]).to_owned(),
            (of_kind(false), of_kind(true)),
        );
    }
    for (name, (normal, dev)) in members_table() {
        let (found_normal, found_dev) = found
            .remove(&name)
            .unwrap_or_else(|| panic!("there is no crate {name}"));
        assert_eq!(Some(found_normal), normal, "{name} depends on");
        assert!(
            dev.is_none_or(|dev| dev == found_dev),
            "{name} depends for tests on {found_dev:?}"
        );
    }
    assert!(
        found.is_empty(),
        "not in the table of ARCHITECTURE.md: {:?}",
        found.keys()
    );
}

#[test]
fn the_relay_links_nothing_that_can_open_an_envelope() {
    let metadata = metadata();
    let tree = tree(&metadata, "farhelm-relay");
    for forbidden in ["farhelm-core", "farhelm-link", "farhelm-host"] {
        assert!(
            !tree.contains(forbidden),
            "farhelm-relay reaches {forbidden}"
        );
    }
}

#[test]
fn proto_and_core_have_nothing_in_their_tree_that_does_io() {
    for name in ["farhelm-proto", "farhelm-core"] {
        // Not from the metadata: there, features that other members ask for count as well.
        let tree = cargo(&[
            "tree",
            "--locked",
            "--package",
            name,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ]);
        let packages: BTreeSet<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert!(packages.contains("sha2"), "an unexpected tree: {tree}");
        let found: Vec<_> = packages
            .into_iter()
            .filter(|package| DOES_IO.contains(package))
            .collect();
        assert!(found.is_empty(), "{name} reaches {found:?}");
    }
}

#[test]
fn the_protocol_document_lists_every_frame_and_field() {
    let document = read(&root().join("docs/protocol.md"));
    let source = read(&root().join("crates/proto/src/frame.rs"));
    let source = source.split("#[cfg(test)]").next().unwrap();
    let frames = numbered(between(source, "pub enum Frame {", "\n}"));
    assert!(frames.len() > 20, "found only {frames:?}");
    for (number, name) in &frames {
        assert!(
            document.contains(&format!("| {number} | {name} | ")),
            "frame {number} {name} is not in docs/protocol.md"
        );
        let Some(body) = source
            .split_once(&format!("pub struct {name} {{"))
            .map(|(_, rest)| rest)
        else {
            continue;
        };
        let heading = format!("\n### {name} ({number})\n");
        let section = document
            .split_once(&heading)
            .unwrap_or_else(|| panic!("docs/protocol.md has no section{heading}"))
            .1;
        let section = section.split("\n#").next().unwrap();
        for (key, field) in numbered(body.split("\n}").next().unwrap()) {
            let row = format!("| {key} | `{field}`");
            assert!(
                section.contains(&row),
                "{name} has no row {row} in docs/protocol.md"
            );
        }
    }
}

#[test]
fn the_protocol_document_lists_every_code_limit_and_domain() {
    let document = read(&root().join("docs/protocol.md"));
    for code in farhelm_proto::Code::ALL {
        let number: u64 = minicbor::decode(&minicbor::to_vec(code).unwrap()).unwrap();
        let retry = if code.may_retry() { "yes" } else { "no" };
        let row = format!("| {number} | `{code}` | {retry} | {} |", code.sentence());
        assert!(document.contains(&row), "docs/protocol.md lacks {row}");
    }
    for line in read(&root().join("crates/proto/src/limits.rs")).lines() {
        let Some(name) = line
            .strip_prefix("pub const ")
            .and_then(|rest| rest.split(':').next())
        else {
            continue;
        };
        assert!(
            document.contains(&format!("| `{name}` | ")),
            "docs/protocol.md lacks the limit {name}"
        );
    }
    for path in files()
        .iter()
        .filter(|path| is_in_source_of(path, "proto") || is_in_source_of(path, "core"))
    {
        for domain in read(path)
            .split("b\"farhelm/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            assert!(
                document.contains(&format!("| `farhelm/{domain}` | ")),
                "docs/protocol.md lacks the domain farhelm/{domain}"
            );
        }
    }
}

#[test]
fn recipes_that_documents_name_exist() {
    let makefile = read(&root().join("Makefile"));
    let exists = |recipe: &str| {
        makefile.lines().any(|line| {
            line.split(':')
                .next()
                .unwrap()
                .split(' ')
                .any(|target| target == recipe)
        })
    };
    for path in files()
        .iter()
        .filter(|path| has_extension(path, &["md", "rs", "ts"]))
    {
        for span in read(path)
            .split('`')
            .skip(1)
            .step_by(2)
            .flat_map(str::lines)
        {
            let recipe = span
                .trim()
                .strip_prefix("make ")
                .map(|rest| rest.split([' ', '#']).next().unwrap().to_owned());
            let named = recipe.filter(|recipe| {
                !recipe.is_empty() && recipe.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            });
            assert!(
                named.as_deref().is_none_or(exists),
                "{} names `make {}`",
                shown(path),
                named.unwrap_or_default()
            );
        }
    }
    for recipe in ["up", "test"] {
        assert!(
            exists(recipe)
                && read(&root().join("README.md")).contains(&format!("\nmake {recipe} ")),
            "{recipe}"
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in files().iter().filter(|path| has_extension(path, &["md"])) {
        for target in read(path)
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap();
            let is_elsewhere = file.is_empty() || file.contains("://") || file.contains(' ');
            assert!(
                is_elsewhere || path.parent().unwrap().join(file).exists(),
                "{} links to {target}",
                shown(path)
            );
        }
    }
}

#[test]
fn lock_files_name_no_registry_but_the_usual_one() {
    let cargo = read(&root().join("Cargo.lock"));
    let sources: BTreeSet<&str> = cargo
        .lines()
        .filter_map(|line| line.strip_prefix("source = "))
        .collect();
    assert!(
        sources
            .iter()
            .all(|source| *source == "\"registry+https://github.com/rust-lang/crates.io-index\""),
        "{sources:?}"
    );
    let npm = read(&root().join("web/package-lock.json"));
    assert!(
        !npm.contains("\"resolved\""),
        "web/package-lock.json holds addresses; see web/.npmrc"
    );
    let packages = cargo.matches("\n[[package]]\n").count();
    assert!(
        packages <= MAX_PACKAGES,
        "{packages} packages in Cargo.lock; at most {MAX_PACKAGES}"
    );
}

#[test]
fn counting_tests_adds_up_what_every_runner_says() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let log = folder.join("count-tests.log");
    let said = "     Summary [   0.5s] 12 tests run: 12 passed (1 slow), 3 skipped\ntest result: ok. 4 passed; 0 failed; 1 ignored\n      Tests  57 passed (57)\n";
    std::fs::write(&log, said).unwrap();
    let counted = Command::new(root().join("scripts/count-tests.sh"))
        .arg(&log)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(counted.stdout).unwrap(),
        "73 tests run: 73 passed, 0 failed\n"
    );
    assert!(counted.status.success());
    std::fs::write(&log, "nothing ran\n").unwrap();
    assert!(
        !Command::new(root().join("scripts/count-tests.sh"))
            .arg(&log)
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn f01_every_failpoint_is_in_the_list_and_the_list_does_not_shrink() {
    let mut found = BTreeSet::new();
    for path in files().iter().filter(|path| {
        path.components().any(|part| part.as_os_str() == "src") && has_extension(path, &["rs"])
    }) {
        let source = read(path);
        for call in ["fail::point(", "fail::error(", "fail::is_on("] {
            for rest in source.split(call).skip(1) {
                let name = rest.trim_start().strip_prefix('"');
                found.extend(name.map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
        }
    }
    // How the crate's own documentation writes one; the name is used as well.
    let listed = read(&root().join("crates/fail/points.txt"));
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    let listed: Vec<&str> = listed.lines().collect();
    assert_eq!(listed, found, "crates/fail/points.txt, sorted by bytes");
    assert!(listed.len() >= FAILPOINTS, "failpoints went away");
}

#[test]
fn nothing_that_is_shipped_can_make_a_relay_evil() {
    for name in ["farhelm", "farhelm-relay"] {
        let tree = cargo(&[
            "tree",
            "--locked",
            "--package",
            name,
            "--edges",
            "features,normal,build",
            "--prefix",
            "none",
        ]);
        assert!(tree.contains("farhelm-relay"), "an unexpected tree: {tree}");
        assert!(
            !tree.contains("evil"),
            "{name} is built with the feature evil"
        );
    }
    // Nor may a build of the whole workspace, which joins what all members ask for.
    for path in files().iter().filter(|path| path.ends_with("Cargo.toml")) {
        let asks = read(path)
            .lines()
            .any(|line| line.contains("evil") && line.contains("farhelm-relay ="));
        assert!(
            !asks || shown(path) == "crates/chaos/Cargo.toml",
            "{}",
            shown(path)
        );
    }
    let chaos = read(&root().join("crates/chaos/Cargo.toml"));
    assert!(
        chaos.contains("optional = true, features = [\"evil\"]") && !chaos.contains("default =")
    );
}

/// Packages that touch files, processes or the network. (`getrandom` comes along with the ciphers;
/// that nobody calls it is the linter's business.)
const DOES_IO: &[&str] = &[
    "async-std",
    "axum",
    "hyper",
    "hyper-util",
    "libsqlite3-sys",
    "mio",
    "nix",
    "notify",
    "polling",
    "pty-process",
    "reqwest",
    "ring",
    "rusqlite",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "tokio-rustls",
    "tokio-tungstenite",
    "tokio-util",
    "tungstenite",
];

/// The rows of ARCHITECTURE.md's members table: package, what it depends on, for tests; none is anything.
type Members = BTreeMap<String, (Option<BTreeSet<String>>, Option<BTreeSet<String>>)>;

fn members_table() -> Members {
    let architecture = read(&root().join("ARCHITECTURE.md"));
    let rows = architecture
        .lines()
        .filter(|line| line.starts_with("| `crates/"));
    let cells =
        |row: &str| -> Vec<String> { row.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let names = |cell: &str| match cell {
        "nothing" => Some(BTreeSet::new()),
        "anything" => None,
        names => Some(
            names
                .split(", ")
                .map(|name| name.trim_matches('`').to_owned())
                .collect(),
        ),
    };
    rows.map(cells)
        .map(|cells| {
            (
                cells[2].trim_matches('`').to_owned(),
                (names(&cells[3]), names(&cells[4])),
            )
        })
        .collect()
}

/// What cargo knows of the workspace, for this machine: what other systems need is not here.
fn metadata() -> Value {
    let rustc = Command::new("rustc")
        .arg("-vV")
        .current_dir(root())
        .output()
        .unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let platform = rustc
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    let metadata = cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
        platform,
    ]);
    serde_json::from_str(&metadata).unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn our_packages(metadata: &Value) -> Vec<&Value> {
    let members = metadata["workspace_members"].as_array().unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| members.contains(&package["id"]))
        .collect()
}

/// Every package that `name` reaches, also by its own dependencies for tests.
fn tree(metadata: &Value, name: &str) -> BTreeSet<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeMap<&str, &str> = packages
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let nodes: BTreeMap<&str, &Value> =
        nodes.iter().map(|node| (text(&node["id"]), node)).collect();
    let root = *names.iter().find(|(_, found)| **found == name).unwrap().0;
    let mut reached = BTreeSet::new();
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let counts = kinds.iter().any(|kind| kind["kind"] != "dev") || id == root;
            let id = text(&dependency["pkg"]);
            if counts && reached.insert(id) {
                waiting.push(id);
            }
        }
    }
    reached.into_iter().map(|id| names[id].to_owned()).collect()
}

/// The `#[n(…)]` items of a piece of source: number and name.
fn numbered(source: &str) -> Vec<(u64, String)> {
    let items = source.split("\n    #[n(").skip(1);
    items
        .map(|item| {
            let (number, rest) = item.split_once(")]").unwrap();
            let line = rest
                .lines()
                .map(str::trim)
                .find(|line| !line.is_empty() && !line.starts_with(['#', '/']))
                .unwrap();
            let name = line
                .trim_start_matches("pub ")
                .split(['(', ':', ','])
                .next()
                .unwrap();
            (number.parse().unwrap(), name.to_owned())
        })
        .collect()
}

fn between<'a>(source: &'a str, begin: &str, end: &str) -> &'a str {
    source
        .split_once(begin)
        .unwrap()
        .1
        .split(end)
        .next()
        .unwrap()
}

/// Every file of the repository that is not built or downloaded.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if !["target", "node_modules", "dist", "demo", ".git", ".cache"]
                    .contains(&name.as_str())
                {
                    folders.push(entry.path());
                }
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn is_in_source_of(path: &Path, name: &str) -> bool {
    path.starts_with(root().join("crates").join(name).join("src")) && has_extension(path, &["rs"])
}

fn has_extension(path: &Path, wanted: &[&str]) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| wanted.contains(&extension))
}

fn lines(path: &Path) -> usize {
    read(path).lines().count()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

#[test]
fn the_mutants_fit_the_sources() {
    let patch = root().join("crates/sim/mutants.patch");
    let applied = Command::new("git")
        .args(["apply", "--check"])
        .arg(&patch)
        .current_dir(root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(applied.status.success(), "make the patch anew: {said}");
}
