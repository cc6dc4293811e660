//! What a session's actor notes in passing for those who ask whether it is alive. Whoever reads
//! it makes nobody wait, and learns something also while the actor waits for the disk.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

use farhelm_link::clock::now;
use farhelm_proto::Timestamp;
use rustix::process::{Pid, test_kill_process};

/// The vital signs of one session.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// The agent's process; zero when there is none.
    pid: AtomicI32,
    /// When the agent last said something; zero for never.
    heard: AtomicU64,
    /// Whether the keeper answers, as [`Vitals::keeper`] has it.
    keeper: AtomicU8,
}

const KEEPER_GONE: u8 = 1;
const KEEPER_THERE: u8 = 2;

impl Vitals {
    /// The agent's program runs as this process, or none does.
    pub(crate) fn agent_is(&self, pid: Option<u32>) {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// The agent has said something.
    pub(crate) fn heard_now(&self) {
        self.heard.store(now().0, Ordering::Relaxed);
    }

    /// Whether the process that holds the agent's pipes answers; unknown until somebody says so.
    pub(crate) fn keeper_is(&self, there: bool) {
        let mark = if there { KEEPER_THERE } else { KEEPER_GONE };
        self.keeper.store(mark, Ordering::Relaxed);
    }

    /// Whether the agent's program runs.
    pub(crate) fn agent(&self) -> bool {
        let pid = Pid::from_raw(self.pid.load(Ordering::Relaxed));
        pid.is_some_and(|pid| test_kill_process(pid).is_ok())
    }

    /// Whether the keeper answers; nothing when nobody knows.
    pub(crate) fn keeper(&self) -> Option<bool> {
        match self.keeper.load(Ordering::Relaxed) {
            KEEPER_THERE => Some(true),
            KEEPER_GONE => Some(false),
            _ => None,
        }
    }

    /// When the agent last said something.
    pub(crate) fn heard(&self) -> Option<Timestamp> {
        let at = self.heard.load(Ordering::Relaxed);
        (at != 0).then_some(Timestamp(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_gone_is_not_alive_whatever_was_noted() {
        let vitals = Vitals::default();
        assert!(!vitals.agent());
        vitals.agent_is(Some(std::process::id()));
        assert!(vitals.agent());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        vitals.agent_is(Some(child.id()));
        child.wait().unwrap();
        assert!(!vitals.agent());
    }

    #[test]
    fn what_is_not_known_stays_unknown() {
        let vitals = Vitals::default();
        assert_eq!((vitals.keeper(), vitals.heard()), (None, None));
        vitals.heard_now();
        assert!(vitals.heard().is_some());
    }
}
