//! Failpoints: named places where a test makes a program fail.
//!
//! `fail::point("host.journal.before_commit")` stands where a crash would hurt. In a release build
//! it is nothing. In a debug build the variable `FARHELM_FAIL` says what happens there:
//!
//! ```text
//! FARHELM_FAIL=host.journal.before_commit=kill@3,relay.store.before_commit=error:enospc@1-5
//! ```
//!
//! - `kill` ends the process at once, without a destructor or a handler, as SIGKILL would;
//! - `panic` panics;
//! - `hang:30s`, `hang:200ms` blocks the thread for so long;
//! - `error:enospc` (`eio`, `emfile`) makes [`error`] fail; a [`point`] only counts it;
//! - `on` makes [`is_on`] true.
//!
//! `@3` is the third time only, `@2-5` from the second to the fifth, `@2-` from the second on; without it, each time.
//! `FARHELM_FAIL_TRACE=<file>` appends the name of each failpoint when it is first reached.
//!
//! `points.txt` lists all names; a tidy test holds it against the sources. It does not know what the points are for.

#[cfg(debug_assertions)]
mod plan;

#[cfg(not(debug_assertions))]
mod plan {
    pub(crate) const fn hit(_: &'static str) -> Option<std::io::Error> {
        None
    }

    pub(crate) const fn watch(_: Option<crate::Watcher>) {}

    pub(crate) const fn is_on(_: &'static str) -> bool {
        false
    }
}

/// The variable that says what happens where.
pub const PLAN: &str = "FARHELM_FAIL";
/// The variable that names the file to which the names of points that were reached are written.
pub const TRACE: &str = "FARHELM_FAIL_TRACE";

/// Whether this build has failpoints.
pub const ACTIVE: bool = cfg!(debug_assertions);

/// Is told of the points that a thread reaches, and may unwind it there.
pub type Watcher = fn(&'static str);

/// Sets who is told of each point that this thread reaches: for simulation, where a machine is no
/// process that could be killed.
pub fn watch(watcher: Option<Watcher>) {
    plan::watch(watcher);
}

/// A place where a test may end, stop or delay the program.
#[inline]
pub fn point(name: &'static str) {
    drop(plan::hit(name));
}

/// A place where, besides, a test may make a call fail.
///
/// # Errors
///
/// The error that the plan names.
#[inline]
pub fn error(name: &'static str) -> std::io::Result<()> {
    plan::hit(name).map_or(Ok(()), Err)
}

/// Whether a test has switched something on: a wrong behaviour that another test must notice.
#[inline]
#[must_use]
pub fn is_on(name: &'static str) -> bool {
    plan::is_on(name)
}

/// The names of all failpoints, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    include_str!("../points.txt").lines()
}
