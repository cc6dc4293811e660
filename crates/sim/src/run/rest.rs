//! Everything heals; then all views must be the same, and everything that was wanted must have
//! come to its end.

use std::sync::Arc;

use farhelm_core::content::Content;
use farhelm_core::event::{Event, MessageRole, Record};
use farhelm_core::session::{Program, Session};
use farhelm_host::stage;
use farhelm_link::device::Stage;
use farhelm_proto::{SessionId, StreamId};
use farhelm_world::World;

use super::Run;
use crate::agent::Page;
use crate::device::hold;

impl Run {
    /// Lets everything heal, and waits until it has.
    pub(super) async fn rest(&mut self) {
        self.universe.note("everything heals");
        self.due.clear();
        let all: Vec<_> = self.everybody().collect();
        for who in &all {
            let machine = self.machine(*who);
            machine.spare();
            machine.set_full(false);
            machine.set_skew(0);
            machine.sleep(false);
            machine.link.set_held(false);
            machine.link.set_delay(1, 30);
        }
        for who in all {
            self.boot(who);
        }
        let mut why = Vec::new();
        for _ in 0..PATIENCE {
            self.wait(5_000).await;
            self.check().await;
            if self.universe.is_broken() {
                return;
            }
            let unrest = self.unrest();
            why = farhelm_world::within(Arc::clone(&self.tower) as Arc<dyn World>, unrest).await;
            if why.is_empty() {
                self.check_at_rest();
                return;
            }
        }
        for reason in why {
            self.universe.broken(format!("I1: at rest, {reason}"));
        }
    }

    /// What has not come to rest.
    async fn unrest(&self) -> Vec<String> {
        let mut why = Vec::new();
        match stage::letters(&self.host.journal).await {
            Ok(0) => {}
            Ok(count) => why.push(format!("{count} letters of the host wait")),
            Err(error) => why.push(error.to_string()),
        }
        for device in &self.devices {
            let name = &device.machine.name;
            if !self.oracle.is_member(device.peer) {
                continue;
            }
            let shown = hold(&device.shown);
            // A device whose pairing was not seen through may belong and not know it.
            let Ok(Some(host)) = device.store.host(self.host.identity.peer()) else {
                continue;
            };
            match &shown.fleet {
                Some(view) if view.fleet == self.oracle.fleet => {}
                Some(_) => why.push(format!("{name} shows another fleet")),
                None => why.push(format!("{name} shows no fleet: {:?}", shown.complaint)),
            }
            for session in &self.oracle.sessions {
                let log = self.oracle.truth.sessions.get(&StreamId::from(*session));
                let expected = log.map_or(0, Vec::len);
                let found = shown
                    .sessions
                    .get(session)
                    .map_or(0, |open| open.records.len());
                if expected != found {
                    why.push(format!(
                        "{name} shows {found} of {expected} events of {session}"
                    ));
                }
            }
            match device.store.pending(host.peer()) {
                Ok(pending) => {
                    let is_over = |at: u64| at != 0 && at < self.universe.millis();
                    for wish in pending {
                        // What is at the host is the host's to do; and what is over is over.
                        let is_at_host = !matches!(wish.stage, Stage::Kept | Stage::AtRelay);
                        if is_at_host || is_over(wish.not_after.0) {
                            continue;
                        }
                        why.push(format!(
                            "{name} waits for {} {}: {:?}",
                            wish.kind, wish.id, wish.stage
                        ));
                    }
                }
                Err(error) => why.push(error.to_string()),
            }
        }
        for (session, page) in self.host.ledger.pages() {
            let state = self.state(session);
            if page.is_busy && state.approvals.is_empty() && !state.ended {
                why.push(format!("the agent of {session} works for ever"));
            }
        }
        why
    }

    /// The state that a session's log ends with.
    fn state(&self, session: SessionId) -> Session {
        let mut state = Session::default();
        let log = self.oracle.truth.sessions.get(&StreamId::from(session));
        for record in log.into_iter().flatten() {
            state.apply(record.cause, &record.event);
        }
        state
    }

    /// What must hold once everything has come to rest.
    fn check_at_rest(&self) {
        if crate::tap::is_in_store(&self.relay.kept) {
            self.universe
                .broken("I12: plaintext in the relay's store".to_owned());
        }
        for (session, page) in self.host.ledger.pages() {
            for promise in self.check_agent(session, &page) {
                self.universe.broken(promise);
            }
        }
    }

    /// Compares what an agent said and was told with the log of its session.
    fn check_agent(&self, session: SessionId, page: &Page) -> Vec<String> {
        let mut broken = Vec::new();
        let state = self.state(session);
        let log = self.oracle.truth.sessions.get(&StreamId::from(session));
        let log = log.map_or(&[][..], Vec::as_slice);
        let text: String = log.iter().filter_map(agent_text).collect();
        let is_whole = !state.ended && !page.is_lossy;
        let said: Vec<&str> = page.text.split_inclusive(']').collect();
        let mut at = 0;
        for piece in text.split_inclusive(']') {
            match said[at..].iter().position(|known| *known == piece) {
                Some(found) if found == 0 || !is_whole => at += found + 1,
                Some(_) => broken.push(format!("I1: {session} lacks what was said before {piece}")),
                None => broken.push(format!(
                    "I1: {session} has {piece} twice, or nobody said it"
                )),
            }
            if !broken.is_empty() {
                return broken;
            }
        }
        if is_whole && at < said.len() {
            broken.push(format!("I1: {session} lacks {:?}", &said[at..]));
        }
        let asked = self.oracle.calls(session);
        for call in &page.asked {
            if is_whole && !asked.contains_key(call) {
                broken.push(format!("I7: the question about {call} is not in {session}"));
            }
        }
        for (call, option) in &asked {
            if !page.asked.contains(call) {
                broken.push(format!("D3: nobody asked about {call}"));
            }
            let is_told =
                page.answered.get(call) == Some(&Some(option.clone().unwrap_or_default()));
            if is_whole && !page.was_killed && option.is_some() && !is_told {
                broken.push(format!(
                    "I7: the agent was never told about {call}: {option:?}"
                ));
            }
        }
        let is_up = matches!(state.program, Program::Up { .. });
        if is_up && state.turn.is_none() && !state.queue.is_empty() && !state.paused {
            broken.push(format!("I1: prompts wait in {session}, and nothing runs"));
        }
        if state.turn.is_some() && is_up && !page.is_busy {
            broken.push(format!("D7: {session} shows a turn, and its agent is idle"));
        }
        broken
    }
}

/// The text of an agent's message.
fn agent_text(record: &Record) -> Option<String> {
    let Event::MessageAdded {
        role: MessageRole::Agent,
        content,
        ..
    } = &record.event
    else {
        return None;
    };
    let texts = content.iter().filter_map(|content| {
        if let Content::Text { text } = content {
            Some(text.as_str())
        } else {
            None
        }
    });
    Some(texts.collect())
}

/// How often it is looked whether everything has come to rest, every five seconds.
const PATIENCE: u32 = 60;
