//! Commands on their way, as the store has them.

use farhelm_core::command::{Command, Delivery, Outcome, Receipt};
use farhelm_proto::frame::letter_header;
use farhelm_proto::{Code, CommandId, PeerId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{Store, signed, unsigned};
use crate::device::{DeviceError, Stage};

/// How far a command has come, as written down; only ever rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// Here, and perhaps beyond.
    Kept = 0,
    /// In the host's mailbox.
    AtRelay = 1,
    /// Written down at the host.
    AtHost = 2,
    /// The agent has been given it.
    Handed = 3,
    /// The host has said what became of it.
    Done = 5,
}

/// What this device believes while the host has not said a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// It is on its way.
    None = 0,
    /// The relay will never pass it on.
    GivenUp = 1,
    /// Its time was over before the host said anything.
    Expired = 2,
}

/// A command that is new to the store.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: CommandId,
    pub(crate) host: PeerId,
    /// What is wished, to be shown and to be sent again.
    pub(crate) command: Command,
    /// The command that it repeats.
    pub(crate) retries: Option<CommandId>,
    /// The whole frame.
    pub(crate) letter: Vec<u8>,
    pub(crate) made_at: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// A command that a person may still want to know of: its end is not known, or it is that nobody
/// knows whether it had its effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Which.
    pub id: CommandId,
    /// For which host.
    pub host: PeerId,
    /// What kind of command it is: `prompt`, `decide_approval`, ….
    pub kind: String,
    /// The command; an earlier version did not keep it.
    pub command: Option<Command>,
    /// How far it has come.
    pub stage: Stage,
    /// Whether it is being taken back.
    pub recalled: bool,
    /// The command that it repeats.
    pub retries: Option<CommandId>,
    /// When it was made.
    pub made_at: Timestamp,
    /// After this it has no effect unless it had it before; zero means never.
    pub not_after: Timestamp,
}

impl Store {
    /// Commands to `host` whose end is not known, and those of which nobody knows whether they had
    /// their effect; oldest first.
    ///
    /// # Errors
    ///
    /// [`farhelm_proto::Code::StateUnusable`] when the store fails.
    pub fn pending(&self, host: PeerId) -> Result<Vec<Pending>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare(&format!(
                "SELECT {COLUMNS} FROM outbox
                 WHERE host = ?1 AND ((stage < 5 AND doubt <> 1) OR open = 1) ORDER BY rowid"
            ))?;
            query.query_map([host.as_bytes()], pending)?.collect()
        })
    }

    /// A command, whatever became of it.
    ///
    /// # Errors
    ///
    /// [`farhelm_proto::Code::StateUnusable`] when the store fails.
    pub fn command(&self, id: CommandId) -> Result<Option<Pending>, DeviceError> {
        self.with(|db| {
            let query = format!("SELECT {COLUMNS} FROM outbox WHERE id = ?1");
            db.query_row(&query, [id.as_bytes()], pending).optional()
        })
    }

    /// What the host has said of a command last, or the relay when it will never pass it on.
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
        Ok(text.flatten().and_then(|text| read_outcome(&text)))
    }

    /// Writes a command down before it is sent, and forgets those that ended long ago.
    pub(crate) fn keep_command(&self, entry: &Entry) -> Result<(), DeviceError> {
        let command = serde_json::to_string(&entry.command).unwrap_or_default();
        self.with(|db| {
            let change = db.transaction()?;
            change.execute(
                "INSERT INTO outbox (id, host, kind, letter, stage, made_at, not_after, command, retries)
                 VALUES (:id, :host, :kind, :letter, :kept, :made_at, :not_after, :command, :retries)",
                named_params! {
                    ":id": entry.id.as_bytes(), ":host": entry.host.as_bytes(), ":kind": kind_of(&entry.command),
                    ":letter": entry.letter, ":kept": Progress::Kept as i64, ":made_at": signed(entry.made_at.0),
                    ":not_after": signed(entry.not_after.0), ":command": command,
                    ":retries": entry.retries.map(|first| *first.as_bytes()),
                },
            )?;
            let old = entry.made_at.0.saturating_sub(REMEMBERED_MILLIS);
            change.execute(
                "DELETE FROM outbox WHERE (stage = 5 OR doubt = 1) AND open = 0 AND made_at < ?1",
                [signed(old)],
            )?;
            change.commit()
        })
    }

    /// The frames to be sent again: the host has not said that it has them, or, of `all`, what
    /// became of them.
    pub(crate) fn unacknowledged(
        &self,
        host: PeerId,
        all: bool,
    ) -> Result<Vec<(CommandId, Vec<u8>)>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare(
                "SELECT id, letter FROM outbox
                 WHERE host = ?1 AND stage <= ?2 AND doubt = 0 AND recall = 0 ORDER BY rowid",
            )?;
            let most = if all { HANDED } else { AT_RELAY };
            query
                .query_map(params![host.as_bytes(), most], |row| {
                    Ok((CommandId::from_bytes(row.get(0)?), row.get(1)?))
                })?
                .collect()
        })
    }

    /// The commands that the host is to be asked for: those that are taken back, and those whose
    /// time was over before it said anything.
    pub(crate) fn recalls(&self, host: PeerId) -> Result<Vec<CommandId>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare(
                "SELECT id FROM outbox
                 WHERE host = ?1 AND stage < 5 AND doubt <> 1 AND (recall = 1 OR doubt = 2) ORDER BY rowid",
            )?;
            query
                .query_map([host.as_bytes()], |row| Ok(CommandId::from_bytes(row.get(0)?)))?
                .collect()
        })
    }

    /// The relay has a command. Whether that is news.
    pub(crate) fn posted(&self, id: CommandId) -> Result<bool, DeviceError> {
        self.with(|db| {
            let sql = "UPDATE outbox SET stage = 1 WHERE id = ?1 AND stage = 0";
            Ok(db.execute(sql, [id.as_bytes()])? > 0)
        })
    }

    /// The relay will not take a command. Whether that is its end as far as is known: what was in
    /// the mailbox before may be at the host.
    pub(crate) fn given_up(&self, id: CommandId, outcome: &Outcome) -> Result<bool, DeviceError> {
        let text = serde_json::to_string(outcome).unwrap_or_default();
        self.with(|db| {
            let sql = "UPDATE outbox SET doubt = ?2, outcome = ?3 WHERE id = ?1 AND stage = 0 AND doubt = 0";
            Ok(db.execute(sql, params![id.as_bytes(), Doubt::GivenUp as i64, text])? > 0)
        })
    }

    /// Takes note that the time of commands is over of which the host has not said a word. Gives
    /// those of which that is news.
    ///
    /// It is over by the clock of this machine, which shows `now` and which somebody may have set
    /// meanwhile; and by that of the host, as far as it is known what that shows.
    pub(crate) fn expire(
        &self,
        host: PeerId,
        now: Timestamp,
        host_shows: Option<Timestamp>,
    ) -> Result<Vec<CommandId>, DeviceError> {
        self.with(|db| {
            let change = db.transaction()?;
            let late = {
                let mut query = change.prepare(
                    "SELECT id, letter FROM outbox WHERE host = ?1 AND stage <= 1 AND doubt = 0
                     AND not_after <> 0 AND not_after < ?2 ORDER BY rowid",
                )?;
                let late = query.query_map(params![host.as_bytes(), signed(now.0)], |row| {
                    Ok((
                        CommandId::from_bytes(row.get(0)?),
                        row.get::<_, Vec<u8>>(1)?,
                    ))
                })?;
                late.collect::<Result<Vec<_>, _>>()?
            };
            let mut over = Vec::new();
            for (id, letter) in late {
                if host_shows.is_none_or(|shows| is_over(&letter, shows)) {
                    let sql = "UPDATE outbox SET doubt = ?2 WHERE id = ?1";
                    change.execute(sql, params![id.as_bytes(), Doubt::Expired as i64])?;
                    over.push(id);
                }
            }
            change.commit()?;
            Ok(over)
        })
    }

    /// When the time of the next command is over of which the host has not said a word.
    pub(crate) fn next_expiry(&self, host: PeerId) -> Result<Option<Timestamp>, DeviceError> {
        self.with(|db| {
            let sql = "SELECT MIN(not_after) FROM outbox
                       WHERE host = ?1 AND stage <= 1 AND doubt = 0 AND not_after <> 0";
            let next: Option<i64> = db.query_row(sql, [host.as_bytes()], |row| row.get(0))?;
            Ok(next.map(|next| Timestamp(unsigned(next))))
        })
    }

    /// Notes that a person takes a command back. Whether there is anything to take back.
    pub(crate) fn take_back(&self, id: CommandId) -> Result<bool, DeviceError> {
        self.with(|db| {
            let sql = "UPDATE outbox SET recall = 1 WHERE id = ?1 AND stage < 5 AND doubt <> 1";
            Ok(db.execute(sql, [id.as_bytes()])? > 0)
        })
    }

    /// Notes that a person does not want to know any more of a command of which nobody knows
    /// whether it had its effect. Whether it was such a one.
    pub(crate) fn dismiss(&self, id: CommandId) -> Result<bool, DeviceError> {
        self.with(|db| {
            let sql = "UPDATE outbox SET open = 0, command = NULL WHERE id = ?1 AND open = 1";
            Ok(db.execute(sql, [id.as_bytes()])? > 0)
        })
    }

    /// The host has said how far a command is, which counts more than anything else. Whether that
    /// is news.
    pub(crate) fn receipt(&self, receipt: &Receipt) -> Result<bool, DeviceError> {
        let outcome = &receipt.outcome;
        let (stage, is_open) = match outcome {
            Outcome::Received => (Progress::AtHost, false),
            Outcome::Applied { delivery, .. } => match delivery {
                Delivery::Waiting => (Progress::AtHost, false),
                Delivery::Handed => (Progress::Handed, false),
                Delivery::Indeterminate => (Progress::Done, true),
                Delivery::Done | Delivery::Consumed | Delivery::Void | Delivery::Retried => {
                    (Progress::Done, false)
                }
            },
            Outcome::Refused { .. } => (Progress::Done, false),
        };
        let id = receipt.command;
        self.with(|db| advance(db, id, stage, is_open, outcome))
    }
}

/// Raises a command's stage. Whether that is news.
fn advance(
    db: &Connection,
    id: CommandId,
    stage: Progress,
    is_open: bool,
    outcome: &Outcome,
) -> rusqlite::Result<bool> {
    let text = serde_json::to_string(outcome).unwrap_or_default();
    // What is over is not kept in the clear, and what is indeterminate may only be settled.
    let sql = "UPDATE outbox SET stage = ?2, open = ?3, outcome = ?4, doubt = 0, recall = 0,
                 command = CASE WHEN ?2 = 5 AND NOT ?3 THEN NULL ELSE command END
               WHERE id = ?1 AND (stage < ?2 OR doubt = 2 OR (stage = 5 AND open = 1 AND ?2 = 5 AND NOT ?3))";
    let news = db.execute(sql, params![id.as_bytes(), stage as i64, is_open, text])? > 0;
    db.execute(
        "UPDATE outbox SET recall = 0 WHERE id = ?1",
        [id.as_bytes()],
    )?;
    Ok(news)
}

const COLUMNS: &str =
    "id, host, kind, command, stage, doubt, outcome, recall, retries, made_at, not_after";

/// Whether the time of a letter is over by the clock by which its addressee judges.
fn is_over(letter: &[u8], shows: Timestamp) -> bool {
    match letter_header(letter) {
        Ok(Some((header, _))) => header.is_expired(shows),
        Ok(None) | Err(_) => true,
    }
}

fn pending(row: &Row<'_>) -> rusqlite::Result<Pending> {
    let command: Option<String> = row.get(3)?;
    let (stage, doubt): (i64, i64) = (row.get(4)?, row.get(5)?);
    let outcome: Option<String> = row.get(6)?;
    let retries: Option<[u8; 16]> = row.get(8)?;
    Ok(Pending {
        id: CommandId::from_bytes(row.get(0)?),
        host: PeerId::from_bytes(row.get(1)?),
        kind: row.get(2)?,
        command: command.and_then(|text| serde_json::from_str(&text).ok()),
        stage: stage_of(stage, doubt, outcome.and_then(|text| read_outcome(&text))),
        recalled: row.get(7)?,
        retries: retries.map(CommandId::from_bytes),
        made_at: Timestamp(unsigned(row.get(9)?)),
        not_after: Timestamp(unsigned(row.get(10)?)),
    })
}

fn stage_of(stage: i64, doubt: i64, outcome: Option<Outcome>) -> Stage {
    let is_over = stage == Progress::Done as i64 || doubt == Doubt::GivenUp as i64;
    match (outcome, stage) {
        (Some(outcome), _) if is_over => Stage::Done(outcome),
        _ if doubt != Doubt::None as i64 => Stage::Expired,
        (_, HANDED) => Stage::Handed,
        (_, AT_HOST) => Stage::AtHost,
        (_, AT_RELAY) => Stage::AtRelay,
        _ => Stage::Kept,
    }
}

fn read_outcome(text: &str) -> Option<Outcome> {
    serde_json::from_str(text).ok()
}

/// What kind of command it is, as JSON names it.
fn kind_of(command: &Command) -> String {
    let value = serde_json::to_value(command).unwrap_or_default();
    value["type"].as_str().unwrap_or("command").to_owned()
}

impl Pending {
    /// The command to send again, when nobody knows whether this one had its effect.
    pub(crate) fn to_repeat(&self) -> Result<Command, DeviceError> {
        let is_open = matches!(
            self.stage,
            Stage::Done(Outcome::Applied {
                delivery: Delivery::Indeterminate,
                ..
            })
        );
        let command = self.command.clone().filter(|_| is_open);
        command.ok_or_else(|| DeviceError::new(Code::NotIndeterminate))
    }
}

const AT_RELAY: i64 = Progress::AtRelay as i64;
const AT_HOST: i64 = Progress::AtHost as i64;
const HANDED: i64 = Progress::Handed as i64;
/// How long the end of a command is remembered.
const REMEMBERED_MILLIS: u64 = 30 * 24 * 60 * 60 * 1000;
