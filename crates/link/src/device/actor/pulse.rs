//! Whether the host is there: probes of this device, echoes of the host, and what is known because
//! of them (`farhelm_core::presence`).

use std::time::Duration;

use farhelm_core::keys::to_base64;
use farhelm_core::presence::{Presence, Sighting};
use farhelm_core::probe::{EVERY_MILLIS, Echo, IDLE_MILLIS, NONCE_BYTES, Probe, ProbeBody};
use farhelm_proto::frame::Frame;
use farhelm_proto::letter::Kind;
use farhelm_proto::{CommandId, StreamId, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Actor;
use crate::clock;
use crate::device::post;
use crate::rng;

/// Probes that are under way, and when the next one is due.
#[derive(Default)]
pub(crate) struct Pulse {
    asked: Vec<Asked>,
    every: Option<Duration>,
    next: Option<Instant>,
    waiting: Vec<Waiting>,
}

struct Asked {
    nonce: String,
    letter: CommandId,
    at: Timestamp,
}

/// Somebody who wants to know how things are once the host has answered.
struct Waiting {
    deadline: Instant,
    /// The probes sent from then on count.
    since: Option<Timestamp>,
    reply: oneshot::Sender<Presence>,
}

impl Actor {
    /// Takes note of something, and tells who watches.
    pub(super) fn sight(&mut self, sighting: &Sighting) {
        let now = clock::now();
        self.status
            .send_modify(|status| status.presence.apply(now, sighting));
        self.answer_probes();
    }

    /// Asks the host to answer every so often, or only when somebody wants to know.
    pub(super) fn probe_every(&mut self, every: Option<Duration>) {
        self.pulse.every = every;
        self.pulse.next = every.map(|_| Instant::now());
    }

    /// Asks the host to answer, and says how things are when it has, or at the deadline.
    pub(super) fn probe_for(&mut self, deadline: Instant, reply: oneshot::Sender<Presence>) {
        self.pulse.waiting.push(Waiting {
            deadline,
            since: None,
            reply,
        });
        self.probe_if_wanted();
    }

    /// A connection is there: what was asked on an earlier one is lost.
    pub(super) fn pulse_begins(&mut self) {
        self.pulse.asked.clear();
        self.sight(&Sighting::Link { up: true });
        for waiting in &mut self.pulse.waiting {
            waiting.since = None;
        }
        self.pulse.next = self.pulse.every.map(|_| Instant::now());
        self.probe_if_wanted();
    }

    pub(super) fn pulse_ends(&mut self) {
        self.pulse.asked.clear();
        self.sight(&Sighting::Link { up: false });
    }

    /// A log was read so far, or is not read any more.
    pub(super) fn sight_read(&mut self, stream: StreamId) {
        let home = std::iter::once(&self.home.reader);
        let logs = self.logs.values().filter(|log| log.is_reading());
        let readers = home.chain(logs.map(|log| &log.reader));
        let heads = readers
            .filter(|reader| reader.stream() == stream && reader.blocked().is_none())
            .map(|reader| reader.head().map_or(0, |head| head.seq));
        let sighting = match heads.max() {
            Some(head) => Sighting::Read { stream, head },
            None => Sighting::Left { stream },
        };
        self.sight(&sighting);
    }

    /// Sends a probe if somebody waits for one and none is under way for them.
    fn probe_if_wanted(&mut self) {
        if self.is_up()
            && self
                .pulse
                .waiting
                .iter()
                .any(|waiting| waiting.since.is_none())
        {
            self.probe();
        }
    }

    fn probe(&mut self) {
        let nonce = to_base64(&rng::random::<NONCE_BYTES>());
        let body = ProbeBody::Probe(Probe {
            nonce: nonce.clone(),
            sessions: None,
        });
        let Some(letter) = self.write_probe(&body) else {
            return;
        };
        let at = clock::now();
        if self.pulse.asked.len() >= ASKED {
            self.pulse.asked.remove(0);
        }
        self.pulse.asked.push(Asked { nonce, letter, at });
        for waiting in &mut self.pulse.waiting {
            waiting.since.get_or_insert(at);
        }
        self.sight(&Sighting::Asked);
    }

    /// Queues a letter that nobody keeps.
    fn write_probe(&mut self, body: &ProbeBody) -> Option<CommandId> {
        let id = CommandId::fresh(clock::now(), rng::random());
        let body = serde_json::to_vec(body).ok()?;
        let letter = post::seal_body(
            &self.identity,
            &self.host.keys,
            Kind::Probe,
            &body,
            id,
            Timestamp(0),
        );
        self.push(&Frame::Letter(letter.ok()?));
        Some(id)
    }

    /// The host asks, or answers.
    pub(super) fn take_probe(&mut self, body: &[u8]) {
        match serde_json::from_slice(body) {
            Ok(ProbeBody::Probe(probe)) => {
                let echo = Echo {
                    nonce: probe.nonce,
                    now: clock::now(),
                    every_millis: EVERY_MILLIS,
                    idle_millis: IDLE_MILLIS,
                    sent: None,
                    sessions: std::collections::BTreeMap::new(),
                };
                self.write_probe(&ProbeBody::Echo(Box::new(echo)));
            }
            Ok(ProbeBody::Echo(echo)) => {
                let place = self
                    .pulse
                    .asked
                    .iter()
                    .position(|asked| asked.nonce == echo.nonce);
                // One that nothing was asked for is an earlier one, played again.
                let Some(place) = place else {
                    tracing::debug!("an echo to no probe of this connection");
                    return;
                };
                let asked = self.pulse.asked.remove(place).at;
                if let Some(every) = &mut self.pulse.every {
                    *every = (*every).max(Duration::from_millis(echo.every_millis).min(AT_MOST));
                }
                self.host_clock = Some(clock::HostClock::new(echo.now, Instant::now()));
                self.status
                    .send_modify(|status| status.clock_in_doubt = false);
                let host = self.host.peer();
                self.sight(&Sighting::Echoed { host, asked, echo });
            }
            Err(error) => tracing::debug!(%error, "a probe of a later version"),
        }
    }

    /// The relay did not pass a letter on; whether it was a probe.
    pub(super) fn probe_refused(&mut self, letter: CommandId, code: farhelm_proto::Code) -> bool {
        let before = self.pulse.asked.len();
        self.pulse.asked.retain(|asked| asked.letter != letter);
        let was_probe = self.pulse.asked.len() < before;
        if was_probe && code == farhelm_proto::Code::HostOffline {
            self.sight(&Sighting::Host { online: false });
        }
        was_probe
    }

    /// Answers those who waited, when there is an answer; the others at their deadline.
    fn answer_probes(&mut self) {
        let (now, at) = (clock::now(), Instant::now());
        let presence = self.status.borrow().presence.clone();
        let is_answered = |waiting: &Waiting| {
            let Some(since) = waiting.since else {
                return false;
            };
            let is_away = presence.host.value == Some(false) && presence.host.seen >= Some(since);
            let is_echoed = presence.path.proven.is_some_and(|proven| proven >= since);
            // What the relay holds back is worth the wait.
            let is_settled = presence.behind.is_empty() || !presence.held_back(now).is_empty();
            is_away || (is_echoed && is_settled)
        };
        let due = self
            .pulse
            .waiting
            .extract_if(.., |waiting| waiting.deadline <= at || is_answered(waiting));
        for waiting in due {
            drop(waiting.reply.send(presence.clone()));
        }
    }

    pub(super) fn pulse_time(&mut self) {
        let now = Instant::now();
        if let (Some(every), Some(next)) = (self.pulse.every, self.pulse.next)
            && next <= now
        {
            self.pulse.next = Some(now + every);
            if self.is_up() {
                self.probe();
            }
        }
        // What is known grows old by itself, and those who show it want to know when.
        self.status.send_modify(|_| ());
        self.answer_probes();
    }

    /// When there is something to do without being asked.
    pub(super) fn pulse_due(&self) -> Option<Instant> {
        let now = clock::now();
        let deadline = self.status.borrow().presence.deadline(now);
        let changes =
            deadline.map(|at| Instant::now() + Duration::from_millis(at.millis_since(now)));
        let waiting = self.pulse.waiting.iter().map(|waiting| waiting.deadline);
        waiting.chain(changes).chain(self.pulse.next).min()
    }
}

/// Probes under way of which the answers are known.
const ASKED: usize = 16;
/// A host cannot ask for a longer pause than this.
const AT_MOST: Duration = Duration::from_secs(60);
