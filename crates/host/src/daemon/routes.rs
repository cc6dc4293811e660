//! Which session was handed which command. Until a session has decided, nobody else may: neither
//! about a copy of the command nor about a wish to take it back.

use std::collections::{BTreeMap, VecDeque};

use farhelm_proto::{CommandId, SessionId};

/// Commands that were handed on lately. It remembers more than all sessions together can hold
/// undecided.
#[derive(Default)]
pub(super) struct Routes {
    by_command: BTreeMap<CommandId, SessionId>,
    order: VecDeque<CommandId>,
}

impl Routes {
    /// Notes that a session was handed a command.
    pub(super) fn note(&mut self, command: CommandId, session: SessionId) {
        if self.by_command.insert(command, session).is_none() {
            self.order.push_back(command);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.by_command.remove(&oldest);
            }
        }
    }

    /// The session that was handed a command.
    pub(super) fn session(&self, command: CommandId) -> Option<SessionId> {
        self.by_command.get(&command).copied()
    }
}

/// Commands that are remembered: more than the sessions of a host can have waiting.
const REMEMBERED: usize = 256 * 256 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_the_oldest_are_forgotten() {
        let mut routes = Routes::default();
        let session = SessionId::from_bytes([1; 16]);
        let id = |number: usize| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            CommandId::from_bytes(bytes)
        };
        for number in 0..=REMEMBERED {
            routes.note(id(number), session);
            routes.note(id(number), session);
        }
        assert_eq!(routes.session(id(0)), None);
        assert_eq!(routes.session(id(1)), Some(session));
        assert_eq!(routes.session(id(REMEMBERED)), Some(session));
    }
}
