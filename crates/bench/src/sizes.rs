//! What is shipped, and how much it weighs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// One thing and its size.
pub(crate) struct Size {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// Everything that is there: what was not built is left out.
pub(crate) fn all() -> Vec<Size> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let built = std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(Path::to_owned))
        .unwrap_or_default();
    let mut sizes = Vec::new();
    for name in ["farhelm", "farhelm-relay"] {
        if let Ok(file) = built.join(name).metadata() {
            sizes.push(Size {
                name: format!("`{name}`"),
                bytes: file.len(),
            });
        }
    }
    let (mut plain, mut packed) = (0, 0);
    for file in files(&root.join("web/dist")) {
        let Ok(bytes) = std::fs::read(&file) else {
            continue;
        };
        plain += bytes.len() as u64;
        packed += compressed(&bytes);
    }
    if plain > 0 {
        sizes.push(Size {
            name: "web app".to_owned(),
            bytes: plain,
        });
        sizes.push(Size {
            name: "web app, compressed file by file".to_owned(),
            bytes: packed,
        });
    }
    sizes
}

/// The files below a folder, without those for debugging.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_none_or(|extension| extension != "map") {
            found.push(path);
        }
    }
    found
}

fn compressed(bytes: &[u8]) -> u64 {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    drop(encoder.write_all(bytes));
    encoder.finish().map_or(0, |packed| packed.len() as u64)
}
