//! The host's own log.

use farhelm_core::event::{Activity, HostEvent, HostRecord};
use farhelm_core::fleet::Fleet;
use farhelm_core::keys::Identity;
use farhelm_core::roster::Roster;
use farhelm_link::clock::now;
use farhelm_proto::{CommandId, StreamId};
use std::sync::Arc;

use super::{Daemon, DaemonError};
use crate::journal::{Journal, JournalError, Op};
use crate::session::{letter_of, open_records, readers_of};

/// Events after which the state is written down whole.
const SNAPSHOT_EVERY: u64 = 256;
/// Bytes of envelopes read at a time.
const CHUNK: usize = 4 * 1024 * 1024;

/// Brings the fleet back from the journal, and counts the events since its newest snapshot.
pub(super) async fn read_fleet(
    journal: &Journal,
    own: StreamId,
) -> Result<(Fleet, u64), JournalError> {
    let mut fleet = Fleet::default();
    let mut since_snapshot = 0;
    let Some(end) = journal.stream(own).await? else {
        return Ok((fleet, since_snapshot));
    };
    let mut after = end.base.saturating_sub(1);
    while after < end.head {
        let envelopes = journal.envelopes(own, after, CHUNK).await?;
        let Some(last) = envelopes.last() else { break };
        after = last.last;
        for record in open_records::<HostRecord>(journal, &envelopes).await? {
            fleet.apply(&record.event);
            since_snapshot = record.seq.saturating_sub(end.base);
        }
    }
    Ok((fleet, since_snapshot))
}

/// The roster that the fleet's entries give; a new one when there are none.
pub(super) fn read_roster(
    fleet: &Fleet,
    identity: &Identity,
    name: &str,
) -> Result<(Roster, bool), DaemonError> {
    if fleet.roster.is_empty() {
        return Ok((
            Roster::found(*identity.public(), name, now(), identity.signing()),
            true,
        ));
    }
    let roster = Roster::verify(&fleet.roster, identity.public());
    let roster = roster.map_err(|_| JournalError::Corrupt("the roster does not verify"))?;
    Ok((roster, false))
}

impl Daemon {
    /// Notes that the daemon has started; founds the fleet the first time.
    pub(super) async fn note_start(
        &mut self,
        name: &str,
        founded: bool,
    ) -> Result<(), JournalError> {
        let mut events = vec![HostEvent::HostStarted {
            name: name.to_owned(),
            version: self.version.clone(),
        }];
        if founded {
            let entries = self.roster.entries().iter();
            events.extend(entries.filter_map(|entry| {
                Some(HostEvent::RosterExtended {
                    entry: serde_json::to_string(entry).ok()?,
                })
            }));
        }
        // Its new epoch is written down with it.
        let stream = self.writer.stream();
        self.extend(events, None, vec![Op::LostEndSaid { stream }])
            .await?;
        Ok(())
    }

    /// Appends to the host's log, then applies; `ops` are committed with it. Gives the log's head.
    pub(super) async fn extend(
        &mut self,
        events: Vec<HostEvent>,
        cause: Option<CommandId>,
        ops: Vec<Op>,
    ) -> Result<u64, JournalError> {
        let mut fleet = self.fleet.clone();
        let mut records = Vec::new();
        for event in events {
            fleet.apply(&event);
            records.push(HostRecord {
                seq: 0,
                at: now(),
                cause,
                event,
            });
        }
        self.since_snapshot += records.len() as u64;
        let mut snapshot = None;
        if !records.is_empty() && (self.since_snapshot >= SNAPSHOT_EVERY || self.writer.head() == 0)
        {
            self.since_snapshot = 0;
            let event = HostEvent::Snapshot {
                state: Box::new(fleet.clone()),
            };
            records.push(HostRecord {
                seq: 0,
                at: now(),
                cause: None,
                event,
            });
            snapshot = Some(records.len() as u64);
        }
        let mut all_ops = Vec::new();
        let mut envelope = None;
        if !records.is_empty() {
            let roster = self.next_roster.as_ref().unwrap_or(&self.roster);
            all_ops.extend(self.writer.ready(&readers_of(roster)));
            for (seq, record) in (self.writer.head() + 1..).zip(&mut records) {
                record.seq = seq;
            }
            let json = serde_json::to_vec(&records).unwrap_or_default();
            let sealed = self.writer.seal(&json, records.len() as u64, snapshot);
            envelope = sealed.map(|sealed| sealed.envelope);
            all_ops.extend(envelope.clone().map(Op::Envelope));
        }
        all_ops.extend(ops);
        let letters: Vec<_> = all_ops.iter().filter_map(letter_of).collect();
        fail::point("host.log.before_commit");
        self.shared
            .journal
            .commit_in_time(all_ops, &self.stop)
            .await?;
        fail::point("host.log.after_commit");
        if let Some(roster) = self.next_roster.take() {
            self.roster = roster;
            self.roster_out.send_replace(Arc::new(self.roster.clone()));
            // Before the letters: the relay carries them to members only.
            self.tell_members();
            fail::point("host.log.after_members");
        }
        // Before the letters, too: who got one and comes back at once finds what it tells of.
        self.fleet = fleet;
        self.fleet_out.send_replace(Arc::new(self.fleet.clone()));
        for frame in letters {
            self.shared.uplink.letter(frame);
            fail::point("host.log.after_letter");
        }
        if let Some(envelope) = envelope {
            self.writer.advance(&envelope);
            self.shared.uplink.publish(envelope);
            fail::point("host.log.after_publish");
        }
        Ok(self.writer.head())
    }

    /// Whether a turn runs in any session; one that waits for a person's answer does, too.
    fn has_turn(&self) -> bool {
        self.sessions.values().any(|handle| {
            matches!(
                handle.summary.borrow().state,
                Activity::Running | Activity::RequiresAction
            )
        })
    }

    /// Notes what has changed in the list of sessions.
    pub(super) async fn list_sessions(&mut self) -> Result<(), JournalError> {
        let mut events = Vec::new();
        for (id, handle) in &mut self.sessions {
            let summary = handle.summary.borrow_and_update().clone();
            let same = self.fleet.sessions.get(id).is_some_and(|known| {
                let mut known = known.clone();
                known.at = summary.at;
                known == summary
            });
            if !same {
                events.push(HostEvent::SessionListed { summary });
            }
        }
        if !events.is_empty() {
            self.extend(events, None, Vec::new()).await?;
        }
        self.awake.is_needed(self.has_turn());
        let ended = |id: &farhelm_proto::SessionId| {
            self.fleet
                .sessions
                .get(id)
                .is_some_and(|s| s.state == farhelm_core::event::Activity::Ended)
        };
        let gone: Vec<_> = self
            .sessions
            .iter()
            .filter(|(id, handle)| ended(id) && handle.inputs.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.sessions.remove(&id);
        }
        Ok(())
    }
}
