//! libFuzzer around the targets of `farhelm-fuzz`. `FARHELM_FUZZ` names one; with `FARHELM_SEEDS` it
//! only writes the valid inputs of all of them to that folder.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use farhelm_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

fuzz_target!(
    init: choose(),
    |bytes: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(bytes);
        }
    }
);

fn choose() {
    if let Some(folder) = std::env::var_os("FARHELM_SEEDS") {
        write_seeds(Path::new(&folder));
        std::process::exit(0);
    }
    let name = std::env::var("FARHELM_FUZZ").unwrap_or_default();
    let Some(chosen) = target(&name) else {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FARHELM_FUZZ names a target: {}", names.join(" "));
        std::process::exit(2);
    };
    CHOSEN.get_or_init(|| chosen);
}

fn write_seeds(folder: &Path) {
    for target in TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder).expect("a folder for seeds");
        for (number, bytes) in (target.valid)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("valid-{number}")), bytes).expect("a seed");
        }
    }
}
