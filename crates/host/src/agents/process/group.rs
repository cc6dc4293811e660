//! The process group of an agent.

use rustix::process::{Pid, Signal};

/// The process group of an agent; killed when it goes out of scope before the agent has ended.
#[derive(Debug)]
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn of(leader: u32) -> Self {
        Self(i32::try_from(leader).ok().and_then(Pid::from_raw))
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // Nobody left in it is what we want.
            rustix::process::kill_process_group(group, signal).unwrap_or_default();
        }
    }

    /// The leader has ended: whoever is left goes too, and the number is free for others.
    pub(super) fn end(&mut self) {
        self.signal(Signal::KILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
