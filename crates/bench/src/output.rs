//! What people see: the result on standard output, progress and errors beside it.

/// Prints a piece of the result.
#[expect(clippy::print_stdout, reason = "the result of the program")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints how far the run is, or what went wrong.
#[expect(clippy::print_stderr, reason = "progress, apart from the result")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
