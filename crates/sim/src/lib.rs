//! Tests that look at several crates at once live in `tests/`; this library is empty.
