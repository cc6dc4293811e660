//! Keepers in threads of the test, for agents that are real processes.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a world that cannot be made is a failure"
)]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses its part of this"
)]

pub(crate) mod playing;

use std::path::Path;
use std::sync::Arc;

use farhelm_core::keys::Identity;
use farhelm_host::agents::AgentError;
use farhelm_host::keeper::{Processes, Spec, Start, run};
use farhelm_proto::{Code, SessionId};
use futures_util::FutureExt as _;

/// A state folder.
pub(crate) struct Home(pub(crate) tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The keepers of a daemon on this folder.
    pub(crate) fn keepers(&self, generation: u64) -> Processes {
        self.keepers_of(generation, [7; 64])
    }

    /// The keepers of a daemon whose keys are made of this.
    pub(crate) fn keepers_of(&self, generation: u64, seed: [u8; 64]) -> Processes {
        let identity = Arc::new(Identity::from_seed(seed).unwrap());
        let spawn = Arc::new(|spec| in_a_thread(spec).boxed());
        Processes::with(self.0.path(), generation, identity, spawn)
    }
}

async fn in_a_thread(spec: Spec) -> Result<(), AgentError> {
    let (said, ready) = tokio::sync::oneshot::channel();
    std::thread::spawn(|| run(spec, |result| drop(said.send(result))));
    ready
        .await
        .unwrap_or_else(|_| Err(AgentError::new(Code::Internal, "the keeper went at once")))
}

pub(crate) fn session() -> SessionId {
    SessionId::from_bytes([5; 16])
}

/// A program without arguments and environment.
pub(crate) fn start(program: &str, dir: &Path) -> Start {
    Start {
        session: session(),
        run: "run".to_owned(),
        note: "note".to_owned(),
        program: program.into(),
        args: Vec::new(),
        env: Vec::new(),
        dir: dir.to_owned(),
        stderr: None,
        grace_millis: 3000,
    }
}

pub(crate) fn kill_group(pid: u32) {
    if let Some(group) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
            .unwrap_or_default();
    }
}
