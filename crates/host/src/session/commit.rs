//! Writing what a group of inputs came to: append, then show.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farhelm_core::agent::Said;
use farhelm_core::command::{Delivery, Outcome, Receipt};
use farhelm_core::content::BlobRef;
use farhelm_core::event::{Event, Live, Record};
use farhelm_core::keys::PublicKeys;
use farhelm_core::text::{from_hex, hex};
use farhelm_link::clock::now;
use farhelm_proto::letter::Kind;
use farhelm_proto::{Code, CommandId};
use tokio::sync::mpsc;

use super::running::{Row, Running, Saved};
use super::{Reply, Seen, SessionActor, summarise};
use crate::agents::{Conversation, FileWork, Ticket};
use crate::clip::{Store, shrink_ask, shrink_tool};
use crate::journal::health::{Health, Pause};
use crate::journal::{JournalError, Op, StoredEnvelope};
use crate::keeper::Told;
use crate::stream::{StreamWriter, letter_op};

/// Events after which the state is written down whole, so that readers can begin there.
const SNAPSHOT_EVERY: u64 = 256;
/// Bytes of JSON in one envelope, about.
const ENVELOPE_JSON: usize = 256 * 1024;
/// How often it is said that the disk takes nothing, for readers that came late.
const PAUSE_SHOWN_EVERY: Duration = Duration::from_secs(2);

/// What a group of inputs came to.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// The agent's program is to be started, for this conversation.
    pub(super) start: Option<Conversation>,
    /// What a keeper is told that was just attached.
    pub(super) greeting: Vec<Told>,
    /// Lines for the agent, with their numbers.
    pub(super) lines: Vec<(u64, String)>,
    /// Whether the agent is to end, and at once.
    pub(super) end: Option<bool>,
    /// File work for the agent.
    pub(super) files: Vec<(Ticket, FileWork)>,
    /// The run of the agent that has ended.
    pub(super) gone: Option<String>,
    /// The keeper that may go.
    pub(super) farewell: Option<Farewell>,
    /// Whether the agent's state is to be written down though nothing else is.
    pub(super) must_be_kept: bool,
    ops: Vec<Op>,
    answers: Vec<(Reply, CommandId, Outcome)>,
    repeats: Vec<(Reply, CommandId, Outcome)>,
    /// Wishes that came further, with the last of it.
    pub(super) moved: BTreeMap<CommandId, Delivery>,
}

/// A keeper that may go once the end of its agent is in the journal.
pub(super) struct Farewell {
    pub(super) number: u64,
    pub(super) told: mpsc::Sender<Told>,
}

impl Batch {
    /// Notes the answer to a wish that was decided in this group.
    pub(super) fn answer(&mut self, reply: Reply, id: CommandId, outcome: Outcome) {
        self.answers.push((reply, id, outcome));
    }

    /// Repeats the answer to a wish that was decided before.
    pub(super) fn repeat(&mut self, reply: Reply, id: CommandId, outcome: Outcome) {
        self.repeats.push((reply, id, outcome));
    }

    /// The answer to a wish that was decided in this group, and whom it goes to.
    pub(super) fn answer_to(&self, id: CommandId) -> Option<(&Reply, &Outcome)> {
        self.answers
            .iter()
            .find(|(_, answered, _)| *answered == id)
            .map(|(reply, _, outcome)| (reply, outcome))
    }

    /// Blobs to which nothing will ever refer are not kept.
    pub(super) fn drop_blobs(&mut self, blobs: &[BlobRef]) {
        let names = blobs.iter().filter_map(|blob| from_hex(&blob.name));
        let names = names.filter_map(|name| name.try_into().ok());
        self.ops.extend(names.map(|name| Op::BlobDropped { name }));
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.ops.is_empty()
            && self.answers.is_empty()
            && self.repeats.is_empty()
            && self.moved.is_empty()
            && self.lines.is_empty()
            && self.end.is_none()
            && self.files.is_empty()
            && self.gone.is_none()
            && !self.must_be_kept
    }
}

impl SessionActor {
    /// Writes the batch, shows it, and does what follows from it.
    pub(super) async fn commit(&mut self, mut batch: Batch) -> Result<(), JournalError> {
        if !batch.is_empty() || self.agent.as_ref().is_some_and(Running::lags) {
            self.write_down(&mut batch).await?;
        }
        self.follow(batch).await;
        Ok(())
    }

    /// When this returns, the batch is on the disk and shown.
    async fn write_down(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        self.add_snapshot(batch);
        let mut ops = Vec::new();
        if !batch.records.is_empty() {
            ops.extend(self.writer.ready(&self.shared.readers()));
        }
        ops.append(&mut batch.ops);
        let envelopes = self.seal_records(&mut batch.records);
        ops.extend(envelopes.iter().cloned().map(Op::Envelope));
        self.note_moves(batch).await?;
        ops.extend(self.outcome_ops(batch));
        ops.append(&mut batch.ops);
        ops.extend(self.agent_ops(batch));
        let letters: Vec<_> = ops.iter().filter_map(letter_of).collect();
        fail::point("host.session.before_commit");
        self.write(ops).await?;
        fail::point("host.session.after_commit");
        for letter in letters {
            self.shared.uplink.letter(letter);
        }
        for envelope in envelopes {
            self.shared.uplink.publish(envelope);
        }
        self.show(std::mem::take(&mut batch.records));
        fail::point("host.session.before_reply");
        let answers = std::mem::take(&mut batch.answers);
        let repeats = std::mem::take(&mut batch.repeats);
        for (reply, id, outcome) in answers.into_iter().chain(repeats) {
            match reply {
                Reply::Local(sender) => drop(sender.send(outcome)),
                Reply::Device { peer, .. } => self.shared.uplink.taken(peer, id),
            }
        }
        Ok(())
    }

    /// Tells the keeper what the batch came to, and carries out the rest.
    async fn follow(&mut self, batch: Batch) {
        fail::point("host.session.before_told");
        if let Some(agent) = &self.agent {
            let lines = batch.lines.into_iter();
            let lines = lines.map(|(number, line)| Told::Write { number, line });
            let end = batch.end.map(|at_once| Told::End { at_once });
            let through = agent.taken();
            for told in batch.greeting.into_iter().chain(lines).chain(end) {
                // A keeper that is gone is heard of.
                drop(agent.told.send(told).await);
            }
            fail::point("host.session.before_acknowledged");
            if through > self.acknowledged {
                self.acknowledged = through;
                drop(agent.told.send(Told::Acknowledge { through }).await);
            }
        }
        if let Some(Farewell { number, told }) = batch.farewell {
            fail::point("host.session.before_farewell");
            self.acknowledged = 0;
            drop(told.send(Told::Acknowledge { through: number }).await);
        }
        self.files.extend(batch.files);
        self.begin_filing();
        if let Some(conversation) = batch.start {
            fail::point("host.session.before_start");
            self.start_agent(conversation);
        }
    }

    /// What the journal is to have of the agent.
    fn agent_ops(&mut self, batch: &mut Batch) -> Vec<Op> {
        let session = self.id;
        let mut ops = self
            .agent
            .as_mut()
            .map(|agent| agent.save(session))
            .unwrap_or_default();
        if let Some(run) = batch.gone.take() {
            let row = Row::<Saved>::Gone(run);
            ops.push(Op::Agent {
                session,
                taken: 0,
                state: Some(serde_json::to_string(&row).unwrap_or_default()),
            });
            ops.push(Op::AgentWritten {
                session,
                through: u64::MAX,
            });
        }
        if self.agent.is_some() {
            let lines = batch.lines.iter();
            ops.extend(lines.map(|(number, line)| Op::AgentLine {
                session,
                number: *number,
                line: line.clone(),
            }));
        }
        ops
    }

    /// Makes long texts short; what is cut goes into blobs of the same commit.
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is short")]
    pub(super) fn shrink(&mut self, said: Said, batch: &mut Batch) -> Said {
        let keys = self.writer.ready(&self.shared.readers());
        batch.ops.extend(keys);
        let (writer, ops) = (&mut self.writer, &mut batch.ops);
        let mut keep = |bytes: &[u8]| keep(writer, bytes, ops);
        let longs = self.agent.as_mut().map(|agent| &mut agent.longs[..]);
        let mut store = Store {
            keep: &mut keep,
            longs: longs.unwrap_or_default(),
        };
        match said {
            Said::Tool(tool) => Said::Tool(shrink_tool(tool, &mut store)),
            Said::Asks { request, ask } => Said::Asks {
                request,
                ask: shrink_ask(ask, &mut store),
            },
            other => other,
        }
    }

    /// Puts a part of a text into a blob before anything refers to it.
    pub(super) fn keep_part(&mut self, part: &str, batch: &mut Batch) {
        batch.ops.extend(self.writer.ready(&self.shared.readers()));
        let blob = keep(&mut self.writer, part.as_bytes(), &mut batch.ops);
        if let Some(agent) = &mut self.agent {
            agent.saved.parts.extend(blob);
        }
    }

    fn add_snapshot(&mut self, batch: &mut Batch) {
        self.since_snapshot += batch.records.len() as u64;
        if self.since_snapshot >= SNAPSHOT_EVERY {
            self.since_snapshot = 0;
            let event = Event::Snapshot {
                state: Box::new(self.session.clone()),
            };
            batch.records.push(Record {
                seq: 0,
                at: now(),
                cause: None,
                event,
            });
        }
    }

    /// Numbers, seals and chains the records.
    fn seal_records(&mut self, records: &mut [Record]) -> Vec<StoredEnvelope> {
        let mut envelopes = Vec::new();
        let mut json = Vec::new();
        let mut count = 0;
        let mut snapshot = None;
        let mut seq = self.writer.head();
        for record in records {
            seq += 1;
            count += 1;
            record.seq = seq;
            if let Event::Snapshot { .. } = record.event {
                snapshot = Some(count);
            }
            json.push(if count == 1 { b'[' } else { b',' });
            serde_json::to_writer(&mut json, record).unwrap_or_default();
            if json.len() >= ENVELOPE_JSON {
                self.seal_one(&mut json, &mut count, &mut snapshot, &mut envelopes);
            }
        }
        self.seal_one(&mut json, &mut count, &mut snapshot, &mut envelopes);
        envelopes
    }

    fn seal_one(
        &mut self,
        json: &mut Vec<u8>,
        count: &mut u64,
        snapshot: &mut Option<u64>,
        envelopes: &mut Vec<StoredEnvelope>,
    ) {
        if json.is_empty() {
            return;
        }
        json.push(b']');
        if let Some(sealed) = self.writer.seal(json, *count, snapshot.take()) {
            self.writer.advance(&sealed.envelope);
            envelopes.push(sealed.envelope);
        }
        json.clear();
        *count = 0;
    }

    fn outcome_ops(&self, batch: &Batch) -> Vec<Op> {
        let mut ops = Vec::new();
        for (reply, id, outcome) in &batch.answers {
            let device = match reply {
                Reply::Device { peer, .. } => Some(*peer),
                Reply::Local(_) => None,
            };
            let text = serde_json::to_string(outcome).unwrap_or_default();
            ops.push(Op::Command {
                id: *id,
                device,
                outcome: text,
            });
        }
        for (reply, id, outcome) in batch.answers.iter().chain(&batch.repeats) {
            if let Reply::Device { keys, .. } = reply {
                ops.extend(self.receipt(keys, *id, outcome.clone()));
            }
        }
        ops
    }

    /// Notes how far wishes have come: in the answers of this group, or in what was answered
    /// before, whose device gets another receipt.
    async fn note_moves(&self, batch: &mut Batch) -> Result<(), JournalError> {
        for (id, delivery) in std::mem::take(&mut batch.moved) {
            let answer = batch
                .answers
                .iter_mut()
                .find(|(_, answered, _)| *answered == id);
            if let Some((_, _, outcome)) = answer {
                *outcome = outcome.clone().advanced(delivery);
                continue;
            }
            let Some(known) = self.written(id).await? else {
                continue;
            };
            let outcome = known.outcome.advanced(delivery);
            batch.ops.push(Op::CommandMoved {
                id,
                outcome: serde_json::to_string(&outcome).unwrap_or_default(),
            });
            let keys = known.device.and_then(|device| self.keys_of(device));
            let receipt = keys.and_then(|keys| self.receipt(&keys, id, outcome));
            batch.ops.extend(receipt);
        }
        Ok(())
    }

    fn receipt(&self, keys: &PublicKeys, command: CommandId, outcome: Outcome) -> Option<Op> {
        let body = serde_json::to_vec(&Receipt { command, outcome }).unwrap_or_default();
        letter_op(&self.shared.host, keys, Kind::Receipt, &body, None)
    }

    /// Commits; waits as long as the disk takes nothing, and tells everybody who looks.
    async fn write(&mut self, ops: Vec<Op>) -> Result<(), JournalError> {
        let (journal, stop) = (self.shared.journal.clone(), self.stop.clone());
        let mut health = journal.health();
        health.mark_unchanged();
        let mut write = std::pin::pin!(journal.commit_in_time(ops, &stop));
        loop {
            tokio::select! {
                biased;
                written = &mut write => return written,
                Ok(()) = health.changed() => {}
                () = tokio::time::sleep(PAUSE_SHOWN_EVERY) => {}
            }
            if let Health::Paused(pause) = health.borrow_and_update().clone() {
                self.show_pause(pause);
            }
        }
    }

    /// Says on the live lane why nothing happens: the log cannot.
    fn show_pause(&mut self, pause: Pause) {
        if self.paused.is_none() {
            tracing::error!(session = %self.id, text = pause.text, "the session waits");
        }
        let live = Live::Paused {
            code: pause.code,
            since: pause.since,
            text: pause.text.clone(),
        };
        self.paused = Some(pause);
        self.send_live(vec![live]);
    }

    /// Notes in the log that the session waited, once it does not any more.
    pub(super) async fn note_pause(&mut self) -> Result<(), JournalError> {
        let Some(pause) = self.paused.take() else {
            return Ok(());
        };
        let seconds = now().0.saturating_sub(pause.since.0) / 1000;
        let text = format!("nothing could be written for {seconds} s: {}", pause.text);
        let code = pause.code;
        let mut batch = Batch::default();
        self.decide_said(Said::Notice { code, text }, &mut batch);
        self.commit(batch).await
    }

    /// So many events at the end of the log are known to be lost, and it has not said so.
    pub(crate) const fn has_lost(&mut self, events: Option<u64>) {
        self.lost_end = events;
    }

    /// Says in the log that its end was lost, in what is written first after that.
    pub(super) fn say_lost_end(&mut self, batch: &mut Batch) {
        let Some(events) = self.lost_end.take() else {
            return;
        };
        let what = match events {
            0 => "what was done here last may be missing".to_owned(),
            events => format!("the last {events} events of this log are missing"),
        };
        let text = format!(
            "the host's journal was damaged and has lost its end: {what}; what the agent did is not undone by that"
        );
        let code = Code::HistoryDamaged;
        self.decide_said(Said::Notice { code, text }, batch);
        let stream = self.id.into();
        batch.ops.push(Op::LostEndSaid { stream });
    }

    /// Says in the log how much of its outputs was dropped.
    pub(super) async fn say_dropped(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        let stream = self.id.into();
        let Some(dropped) = self.shared.journal.dropped(stream).await? else {
            return Ok(());
        };
        if dropped.should_be_said() {
            let text = format!(
                "the oldest outputs of this session were dropped to keep the journal within its size (`journal_mib`): {} pieces with {} bytes so far",
                dropped.pieces, dropped.bytes
            );
            let code = Code::HistoryDropped;
            self.decide_said(Said::Notice { code, text }, batch);
            let bytes = dropped.bytes;
            batch.ops.push(Op::DroppedSaid { stream, bytes });
        }
        Ok(())
    }

    fn show(&mut self, records: Vec<Record>) {
        for record in records {
            if let Event::MessageAdded { message, .. } = &record.event {
                self.live.retain(|live| !matches!(live, Live::Text { message: growing, .. } if growing == message));
            }
            drop(self.followers.send(Seen::Record(Arc::new(record))));
        }
        let summary = summarise(self.id, &self.session, now());
        let changed = self.summary.send_if_modified(|old| {
            let same = {
                old.at = summary.at;
                *old == summary
            };
            if !same {
                old.clone_from(&summary);
            }
            !same
        });
        if changed {
            self.shared.changed.notify_one();
        }
    }
}

/// Seals a blob that is written with the batch.
fn keep(writer: &mut StreamWriter, bytes: &[u8], ops: &mut Vec<Op>) -> Option<BlobRef> {
    let (name, epoch, sealed) = writer.seal_blob(bytes)?;
    let blob = BlobRef {
        name: hex(&name),
        epoch,
        bytes: bytes.len() as u64,
    };
    ops.push(Op::Blob {
        name,
        stream: writer.stream(),
        bytes: sealed.into(),
    });
    Some(blob)
}

/// The frame of a letter that is to be sent.
pub(crate) fn letter_of(op: &Op) -> Option<bytes::Bytes> {
    if let Op::Letter { frame, .. } = op {
        Some(frame.clone())
    } else {
        None
    }
}
