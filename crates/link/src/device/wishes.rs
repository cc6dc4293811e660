//! Who in this process waits for what becomes of a command.

use std::collections::BTreeMap;

use farhelm_core::command::{Delivery, Outcome};
use farhelm_proto::CommandId;
use tokio::sync::mpsc;

use crate::device::Stage;

/// The commands that this process sent and whose end it has not heard.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    watchers: BTreeMap<CommandId, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    stages: mpsc::Sender<Stage>,
    told: u8,
}

impl Wishes {
    /// Begins to tell of a command that has come so far.
    pub(crate) fn watch(&mut self, id: CommandId, stage: Stage) -> mpsc::Receiver<Stage> {
        let (stages, told) = mpsc::channel(STAGES);
        self.watchers.insert(id, Watcher { stages, told: 0 });
        self.advance(id, stage);
        told
    }

    /// Tells that a command has come so far, unless it was known to be further.
    pub(crate) fn advance(&mut self, id: CommandId, stage: Stage) {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return;
        };
        let rank = rank(&stage);
        let gone = rank > watcher.told && watcher.stages.try_send(stage).is_err();
        watcher.told = watcher.told.max(rank);
        if gone || watcher.told == DONE {
            self.watchers.remove(&id);
        }
    }

    /// The commands whose end somebody waits for.
    pub(crate) fn watched(&self) -> Vec<CommandId> {
        self.watchers.keys().copied().collect()
    }

    /// Tells what the host says of a command.
    pub(crate) fn receipt(&mut self, id: CommandId, outcome: Outcome) {
        let stage = match outcome {
            Outcome::Received
            | Outcome::Applied {
                delivery: Delivery::Waiting,
                ..
            } => Stage::AtHost,
            Outcome::Applied {
                delivery: Delivery::Handed,
                ..
            } => Stage::Handed,
            Outcome::Applied { .. } | Outcome::Refused { .. } => Stage::Done(outcome),
        };
        self.advance(id, stage);
    }
}

const fn rank(stage: &Stage) -> u8 {
    match stage {
        Stage::Kept => 1,
        Stage::AtRelay => 2,
        Stage::Expired => 3,
        Stage::AtHost => 4,
        Stage::Handed => 5,
        Stage::Done(_) => DONE,
    }
}

const DONE: u8 = 6;
/// Room for every stage, since each is told once.
const STAGES: usize = DONE as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_advance_and_end_with_the_last() {
        let mut wishes = Wishes::default();
        let id = CommandId::from_bytes([1; 16]);
        let mut told = wishes.watch(id, Stage::Kept);
        wishes.receipt(id, Outcome::Received);
        wishes.advance(id, Stage::AtRelay);
        let applied = Outcome::Applied {
            stream: farhelm_proto::StreamId::from_bytes([2; 16]),
            seq: 1,
            made: None,
            delivery: Delivery::Done,
        };
        wishes.receipt(id, applied.clone());
        wishes.receipt(id, Outcome::Received);
        let seen: Vec<Stage> = std::iter::from_fn(|| told.try_recv().ok()).collect();
        assert_eq!(seen, [Stage::Kept, Stage::AtHost, Stage::Done(applied)]);
        assert!(told.is_closed() && wishes.watchers.is_empty());
    }
}
