//! Commands on their way, as the store has them.

use farhelm_core::command::{Outcome, Receipt};
use farhelm_proto::{CommandId, PeerId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, named_params, params};

use super::{Store, signed, unsigned};
use crate::device::{DeviceError, Stage};

/// How far a command has come, as written down; only ever rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Progress {
    /// Here, and perhaps beyond.
    Kept = 0,
    /// In the host's mailbox.
    AtRelay = 1,
    /// Written down at the host.
    AtHost = 2,
    /// The relay will never pass it on; the host may still say otherwise.
    GivenUp = 3,
    /// The host has said what became of it.
    Done = 4,
}

/// A command that is new to the store.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: CommandId,
    pub(crate) host: PeerId,
    /// What kind of command it is, as JSON names it.
    pub(crate) kind: String,
    /// The whole frame.
    pub(crate) letter: Vec<u8>,
    pub(crate) made_at: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// A command whose end is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which.
    pub id: CommandId,
    /// For which host.
    pub host: PeerId,
    /// What kind of command it is: `prompt`, `decide_approval`, ….
    pub kind: String,
    /// How far it has come; never done.
    pub stage: Stage,
    /// When it was made.
    pub made_at: Timestamp,
    /// After this it has no effect unless it had it before; zero means never.
    pub not_after: Timestamp,
}

impl Store {
    /// Commands to `host` whose end is not known, oldest first.
    ///
    /// # Errors
    ///
    /// [`farhelm_proto::Code::StateUnusable`] when the store fails.
    pub fn pending(&self, host: PeerId) -> Result<Vec<Pending>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare(
                "SELECT id, kind, stage, made_at, not_after FROM outbox
                 WHERE host = ?1 AND stage <= 2 ORDER BY made_at, id",
            )?;
            query
                .query_map([host.as_bytes()], |row| {
                    let stage: i64 = row.get(2)?;
                    Ok(Pending {
                        id: CommandId::from_bytes(row.get(0)?),
                        host,
                        kind: row.get(1)?,
                        stage: match stage {
                            AT_RELAY => Stage::AtRelay,
                            AT_HOST => Stage::AtHost,
                            _ => Stage::Kept,
                        },
                        made_at: Timestamp(unsigned(row.get(3)?)),
                        not_after: Timestamp(unsigned(row.get(4)?)),
                    })
                })?
                .collect()
        })
    }

    /// What became of a command, when that is known.
    ///
    /// # Errors
    ///
    /// [`farhelm_proto::Code::StateUnusable`] when the store fails.
    pub fn outcome(&self, id: CommandId) -> Result<Option<Outcome>, DeviceError> {
        let text: Option<Option<String>> = self.with(|db| {
            db.query_row(
                "SELECT outcome FROM outbox WHERE id = ?1",
                [id.as_bytes()],
                |row| row.get(0),
            )
            .optional()
        })?;
        Ok(text
            .flatten()
            .and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Writes a command down before it is sent, and forgets those that ended long ago.
    pub(crate) fn keep_command(&self, entry: &Entry) -> Result<(), DeviceError> {
        self.with(|db| {
            let change = db.transaction()?;
            change.execute(
                "INSERT INTO outbox (id, host, kind, letter, stage, made_at, not_after)
                 VALUES (:id, :host, :kind, :letter, :kept, :made_at, :not_after)",
                named_params! {
                    ":id": entry.id.as_bytes(), ":host": entry.host.as_bytes(), ":kind": entry.kind,
                    ":letter": entry.letter, ":kept": Progress::Kept as i64, ":made_at": signed(entry.made_at.0), ":not_after": signed(entry.not_after.0),
                },
            )?;
            let old = entry.made_at.0.saturating_sub(REMEMBERED_MILLIS);
            change.execute(
                "DELETE FROM outbox WHERE stage >= 3 AND made_at < ?1",
                [signed(old)],
            )?;
            change.commit()
        })
    }

    /// The frames to be sent again: the host has not said that it has them.
    pub(crate) fn unacknowledged(
        &self,
        host: PeerId,
    ) -> Result<Vec<(CommandId, Vec<u8>)>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare(
                "SELECT id, letter FROM outbox WHERE host = ?1 AND stage <= 1 ORDER BY made_at, id",
            )?;
            query
                .query_map([host.as_bytes()], |row| {
                    Ok((CommandId::from_bytes(row.get(0)?), row.get(1)?))
                })?
                .collect()
        })
    }

    /// The relay has a command. Whether that is news.
    pub(crate) fn posted(&self, id: CommandId) -> Result<bool, DeviceError> {
        self.with(|db| advance(db, id, Progress::AtRelay, None))
    }

    /// The relay will not take a command. Whether that is its end as far as is known: what was in
    /// the mailbox before may be at the host.
    pub(crate) fn given_up(&self, id: CommandId, outcome: &Outcome) -> Result<bool, DeviceError> {
        self.with(|db| {
            let kept = "SELECT 1 FROM outbox WHERE id = ?1 AND stage = 0";
            let is_kept = db
                .query_row(kept, [id.as_bytes()], |_| Ok(()))
                .optional()?
                .is_some();
            Ok(is_kept && advance(db, id, Progress::GivenUp, Some(outcome))?)
        })
    }

    /// The host has said how far a command is. Whether that is news.
    pub(crate) fn receipt(&self, receipt: &Receipt) -> Result<bool, DeviceError> {
        let outcome = &receipt.outcome;
        self.with(|db| match outcome {
            Outcome::Received => advance(db, receipt.command, Progress::AtHost, None),
            Outcome::Applied { .. } | Outcome::Refused { .. } => {
                advance(db, receipt.command, Progress::Done, Some(outcome))
            }
        })
    }
}

/// Raises a command's stage. Whether that is news.
fn advance(
    db: &Connection,
    id: CommandId,
    progress: Progress,
    outcome: Option<&Outcome>,
) -> rusqlite::Result<bool> {
    let text = outcome.and_then(|outcome| serde_json::to_string(outcome).ok());
    let sql = "UPDATE outbox SET stage = ?2, outcome = ?3 WHERE id = ?1 AND stage < ?2";
    Ok(db.execute(sql, params![id.as_bytes(), progress as i64, text])? > 0)
}

const AT_RELAY: i64 = Progress::AtRelay as i64;
const AT_HOST: i64 = Progress::AtHost as i64;
/// How long the end of a command is remembered.
const REMEMBERED_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;
