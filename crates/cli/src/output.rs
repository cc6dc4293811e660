//! The only place that prints.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::failure::Failure;

/// Prints text as it is. A reader that went away is nothing to report.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Prints bytes as they are, for a program that reads them.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Prints a line.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints rows with their columns below each other.
pub(crate) fn table(rows: &[Vec<String>]) {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    for row in rows {
        let cells = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<0$}", width(column).unwrap_or(0)));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Prints a line for the person, apart from what a script reads.
pub(crate) fn note(text: &str) {
    let mut out = std::io::stderr().lock();
    drop(out.write_all(format!("{text}\n").as_bytes()));
}

/// Prints one JSON value on one line.
pub(crate) fn json(value: &impl Serialize) {
    line(&serde_json::to_string(value).unwrap_or_default());
}

/// Whether a person looks at the output.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Prints why a command failed.
pub(crate) fn print_failure(failure: &Failure, as_json: bool) {
    if as_json {
        let mut error = serde_json::json!({ "code": failure.code, "message": failure.message });
        if let Some(hint) = failure.hint() {
            error["hint"] = hint.into();
        }
        let mut failed = serde_json::json!({ "error": error });
        if let Some(id) = failure.kept {
            failed["outcome"] = "kept".into();
            failed["command"] = id.to_string().into();
        }
        json(&failed);
        return;
    }
    note(&format!("error[{}]: {}", failure.code, failure.message));
    if let Some(hint) = failure.hint() {
        note(&format!("hint: {hint}"));
    }
}

/// A QR code in half blocks, for a terminal.
pub(crate) fn qr(text: &str) -> Option<String> {
    use qrcode::render::unicode::Dense1x2;
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L).ok()?;
    let dark_terminal = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(dark_terminal)
}
