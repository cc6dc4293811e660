//! Probes: answering those of devices with what is known here, and sending some of our own, so
//! that a person at the host learns whether messages get through.

use std::collections::BTreeMap;
use std::time::Duration;

use farhelm_core::event::Activity;
use farhelm_core::grant::Capability;
use farhelm_core::keys::{PublicKeys, to_base64};
use farhelm_core::probe::{
    EVERY_MILLIS, Echo, Held, IDLE_MILLIS, NONCE_BYTES, Probe, ProbeBody, Pulse,
};
use farhelm_core::seal;
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::letter::{Header, Kind, Letter};
use farhelm_proto::{Code, CommandId, PeerId, SessionId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Daemon;
use crate::journal::JournalError;
use crate::journal::health::{Health, Pause};
use crate::stream::write_letter;

/// What became of a probe of ours: how long it took, or why there is no answer.
pub(crate) type Answer = Result<Duration, Code>;

/// Probes that are under way, and how often devices have asked lately.
#[derive(Default)]
pub(super) struct Probes {
    ours: BTreeMap<String, Asked>,
    theirs: BTreeMap<PeerId, Allowance>,
}

/// A probe of ours.
struct Asked {
    letter: CommandId,
    of: PeerId,
    at: Instant,
    reply: oneshot::Sender<Answer>,
}

/// How many more probes of a device are answered.
struct Allowance {
    left: u32,
    at: Instant,
}

impl Probes {
    /// Whether this device may ask once more.
    fn admit(&mut self, peer: PeerId, at: Instant) -> bool {
        let allowance = self
            .theirs
            .entry(peer)
            .or_insert(Allowance { left: BURST, at });
        let passed = at.saturating_duration_since(allowance.at);
        let earned = u32::try_from(passed.as_millis() / REFILL.as_millis()).unwrap_or(BURST);
        if earned > 0 {
            allowance.left = allowance.left.saturating_add(earned).min(BURST);
            allowance.at = at;
        }
        let admitted = allowance.left > 0;
        allowance.left = allowance.left.saturating_sub(1);
        admitted
    }
}

impl Daemon {
    pub(super) async fn take_probe(
        &mut self,
        header: &Header,
        letter: &Letter,
    ) -> Result<(), JournalError> {
        let Some(keys) = self.keys_of(header.from) else {
            return Ok(());
        };
        if letter.verify(&keys.signing).is_err() {
            tracing::warn!(from = %header.from, "a probe's signature does not match");
            return Ok(());
        }
        let opened = seal::open_letter(&self.shared.host, letter).ok();
        match opened.and_then(|body| serde_json::from_slice(&body).ok()) {
            Some(ProbeBody::Probe(probe)) if header.from == self.shared.host.peer() => {
                self.answered(header.from, &probe.nonce);
                Ok(())
            }
            Some(ProbeBody::Probe(probe)) => {
                if !self.probes.admit(header.from, Instant::now()) {
                    tracing::debug!(from = %header.from, "a device probes too often");
                    return Ok(());
                }
                let echo = ProbeBody::Echo(Box::new(self.echo(probe).await?));
                self.send_probe(&keys, &echo);
                Ok(())
            }
            Some(ProbeBody::Echo(echo)) => {
                self.answered(header.from, &echo.nonce);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The keys of who may probe: a member that may view, or this host itself.
    fn keys_of(&self, peer: PeerId) -> Option<PublicKeys> {
        if peer == self.shared.host.peer() {
            return Some(*self.shared.host.public());
        }
        let may_view = self.roster.allows(peer, Capability::View, now());
        let member = self.roster.member(peer).filter(|_| may_view)?;
        Some(member.keys)
    }

    /// The same that a device is told, for somebody at this machine.
    pub(super) async fn own_echo(&self) -> Result<Echo, JournalError> {
        let everything = Probe {
            nonce: String::new(),
            sessions: None,
        };
        self.echo(everything).await
    }

    /// What is known here at this moment.
    async fn echo(&self, probe: Probe) -> Result<Echo, JournalError> {
        // Before the journal is read: what was sent may only be less than what is said here.
        let sent = self.shared.uplink.sent();
        let heads: BTreeMap<_, _> = self
            .shared
            .journal
            .streams()
            .await?
            .into_iter()
            .map(|(stream, end)| (stream, end.head))
            .collect();
        // A journal that cannot be written keeps every session waiting.
        let held = match self.shared.journal.health().borrow().clone() {
            Health::Sound => None,
            Health::Paused(Pause { since, code, text }) => Some(Held { code, text, since }),
        };
        let wanted: Vec<SessionId> = match probe.sessions {
            Some(sessions) => sessions,
            None => self.sessions.keys().copied().collect(),
        };
        let pulse = |id: SessionId| {
            let handle = self.sessions.get(&id)?;
            let state = handle.summary.borrow().state;
            let keeper = handle.vitals.keeper();
            let pulse = Pulse {
                head: heads.get(&id.into()).copied().unwrap_or_default(),
                sent: sent.get(&id.into()).copied().unwrap_or_default(),
                state,
                keeper,
                agent: agent_runs(handle.vitals.agent(), keeper, state),
                heard: handle.vitals.heard(),
                held: held.clone(),
            };
            Some((id, pulse))
        };
        Ok(Echo {
            nonce: probe.nonce,
            now: now(),
            every_millis: EVERY_MILLIS,
            idle_millis: IDLE_MILLIS,
            sent: sent.get(&self.writer.stream()).copied(),
            sessions: wanted.into_iter().filter_map(pulse).collect(),
        })
    }

    /// Asks somebody to answer, through the relay; this host itself, too.
    pub(super) fn round_trip(&mut self, of: PeerId, reply: oneshot::Sender<Answer>) {
        let Some(keys) = self.keys_of(of) else {
            tell(reply, Err(Code::NotFound));
            return;
        };
        let nonce = to_base64(&random::<NONCE_BYTES>());
        let probe = ProbeBody::Probe(Probe {
            nonce: nonce.clone(),
            sessions: None,
        });
        let Some(letter) = self.send_probe(&keys, &probe) else {
            tell(reply, Err(Code::Internal));
            return;
        };
        let at = Instant::now();
        self.probes.ours.retain(|_, asked| !asked.reply.is_closed());
        self.probes.ours.insert(
            nonce,
            Asked {
                letter,
                of,
                at,
                reply,
            },
        );
    }

    /// The relay says that the addressee of a probe is not connected.
    pub(super) fn take_away(&mut self, letter: CommandId) {
        let gone = self
            .probes
            .ours
            .extract_if(.., |_, asked| asked.letter == letter);
        for (_, asked) in gone {
            tell(asked.reply, Err(Code::HostOffline));
        }
    }

    fn answered(&mut self, from: PeerId, nonce: &str) {
        let is_asked = self
            .probes
            .ours
            .get(nonce)
            .is_some_and(|asked| asked.of == from);
        if let Some(asked) = self.probes.ours.remove(nonce).filter(|_| is_asked) {
            tell(asked.reply, Ok(asked.at.elapsed()));
        }
    }

    /// Sends it at once; it is not kept, since an answer that comes late proves nothing.
    fn send_probe(&self, to: &PublicKeys, body: &ProbeBody) -> Option<CommandId> {
        let body = serde_json::to_vec(body).ok()?;
        let (id, frame) = write_letter(&self.shared.host, to, Kind::Probe, &body, None)?;
        self.shared.uplink.letter(frame);
        Some(id)
    }
}

fn tell(reply: oneshot::Sender<Answer>, answer: Answer) {
    if reply.send(answer).is_err() {
        tracing::debug!("whoever asked for a probe is gone");
    }
}

/// Probes of one device that are answered in a row.
const BURST: u32 = 20;
/// How long it takes until one more is.
const REFILL: Duration = Duration::from_millis(500);

/// Whether an agent runs, as far as that is known: of one whose process was never seen and whose keeper does not answer, nobody
/// can say.
const fn agent_runs(seen: bool, keeper: Option<bool>, state: Activity) -> Option<bool> {
    match (seen, keeper, state) {
        (false, Some(false), Activity::Idle | Activity::Running | Activity::RequiresAction) => None,
        (seen, _, _) => Some(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i05_of_an_agent_that_nobody_can_ask_for_it_is_not_said_that_it_does_not_run() {
        let running = Activity::Running;
        assert_eq!(agent_runs(true, Some(false), running), Some(true));
        assert_eq!(agent_runs(false, Some(false), running), None);
        assert_eq!(agent_runs(false, Some(true), running), Some(false));
        let gone = Activity::AgentGone;
        assert_eq!(agent_runs(false, Some(false), gone), Some(false));
    }

    #[test]
    fn i14_a_device_that_asks_without_end_is_answered_at_a_bounded_rate() {
        let (mut probes, begin) = (Probes::default(), Instant::now());
        let (one, other) = (PeerId::from_bytes([1; 16]), PeerId::from_bytes([2; 16]));
        let admitted = (0..1_000).filter(|_| probes.admit(one, begin)).count();
        assert_eq!(admitted, BURST as usize);
        assert!(probes.admit(other, begin), "others are not concerned");
        assert!(probes.admit(one, begin + REFILL));
        assert!(!probes.admit(one, begin + REFILL));
    }
}
