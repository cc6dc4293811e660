//! What a device keeps, in one SQLite file that nobody else may read: its keys, the hosts it
//! knows, their content keys, how far each log was seen, and the commands on their way.
//!
//! Several processes of one person may use it at once. Whatever a method has returned from is on
//! the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farhelm_core::fleet::Fleet;
use farhelm_core::keys::{ContentKey, Identity, PublicKeys};
use farhelm_core::replica::Head;
use farhelm_proto::{Code, PeerId, StreamId};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};
use zeroize::{Zeroize as _, Zeroizing};

use crate::device::{DeviceError, KnownHost};

mod file;
mod outbox;

pub(crate) use crate::device::store::outbox::Entry;
pub use crate::device::store::outbox::Pending;

/// The store of a device. Clones share one connection.
#[derive(Clone)]
pub struct Store {
    db: Arc<Mutex<Connection>>,
    path: Arc<PathBuf>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.path.display())
    }
}

impl Store {
    /// Opens the store in `folder`, which is made when it is missing.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when somebody else could read or change it, when it is of a later
    /// version, or when it cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, DeviceError> {
        let path = file::prepare(folder)?;
        let unusable = |error: rusqlite::Error| unusable(&path, &error);
        let mut db = Connection::open(&path).map_err(unusable)?;
        set_up(&mut db).map_err(unusable)?;
        let version: i64 = db
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(unusable)?;
        if version > VERSION {
            let text = format!(
                "{} was written by a later version of farhelm; update this one",
                path.display()
            );
            return Err(DeviceError::because(Code::StateUnusable, text));
        }
        Ok(Self {
            db: Arc::new(Mutex::new(db)),
            path: Arc::new(path),
        })
    }

    /// A store that lasts as long as one of its clones: for simulation. It begins with an
    /// [`Self::image`] of another.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when it cannot be made.
    pub fn in_memory(image: Option<&[u8]>) -> Result<Self, DeviceError> {
        let path = PathBuf::from("memory");
        let open = || {
            let mut db = Connection::open_in_memory()?;
            if let Some(image) = image {
                db.deserialize_read_exact("main", image, image.len(), false)?;
            }
            set_up(&mut db)?;
            Ok(db)
        };
        let db = open().map_err(|error| unusable(&path, &error))?;
        Ok(Self {
            db: Arc::new(Mutex::new(db)),
            path: Arc::new(path),
        })
    }

    /// All that it holds.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when it cannot be read.
    pub fn image(&self) -> Result<Vec<u8>, DeviceError> {
        self.with(|db| Ok(db.serialize("main")?.to_vec()))
    }

    /// The keys of this device, which are made when it has none.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub fn identity(&self) -> Result<Arc<Identity>, DeviceError> {
        let fresh = Zeroizing::new(crate::rng::random::<64>());
        let seed: Vec<u8> = self.with(|db| {
            db.execute(
                "INSERT OR IGNORE INTO identity (one, seed) VALUES (1, ?1)",
                [&fresh[..]],
            )?;
            db.query_row("SELECT seed FROM identity", [], |row| row.get(0))
        })?;
        let seed = Zeroizing::new(seed);
        let bad = || {
            DeviceError::because(
                Code::StateUnusable,
                format!("{} holds no usable key", self.path.display()),
            )
        };
        let seed: [u8; 64] = seed.as_slice().try_into().map_err(|_| bad())?;
        Identity::from_seed(seed).map(Arc::new).map_err(|_| bad())
    }

    /// Every host that this device was paired with, by name.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub fn hosts(&self) -> Result<Vec<KnownHost>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare(
                "SELECT signing, sealing, relay, name, roster FROM hosts ORDER BY name, peer",
            )?;
            query.query_map([], known_host)?.collect()
        })
    }

    /// A host that this device was paired with.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub fn host(&self, peer: PeerId) -> Result<Option<KnownHost>, DeviceError> {
        Ok(self.hosts()?.into_iter().find(|host| host.peer() == peer))
    }

    /// Keeps a host, or what is known of it from here on.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub fn keep_host(&self, host: &KnownHost) -> Result<(), DeviceError> {
        let roster = serde_json::to_string(&host.roster).unwrap_or_default();
        self.with(|db| {
            db.execute(
                "INSERT INTO hosts (peer, signing, sealing, relay, name, roster)
                 VALUES (:peer, :signing, :sealing, :relay, :name, :roster)
                 ON CONFLICT (peer) DO UPDATE SET relay = :relay, name = :name, roster = :roster",
                named_params! {
                    ":peer": host.peer().as_bytes(), ":signing": host.keys.signing.as_bytes(),
                    ":sealing": host.keys.sealing, ":relay": host.relay, ":name": host.name, ":roster": roster,
                },
            )
            .map(drop)
        })
    }

    /// Remembers what was last seen of a host's own log.
    pub(crate) fn keep_fleet(&self, host: PeerId, fleet: &Fleet) -> Result<(), DeviceError> {
        let state = serde_json::to_string(fleet).unwrap_or_default();
        self.with(|db| {
            db.execute(
                "INSERT OR REPLACE INTO fleets (host, state) VALUES (?1, ?2)",
                params![host.as_bytes(), state],
            )
            .map(drop)
        })
    }

    /// What was last seen of a host's own log.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub fn fleet(&self, host: PeerId) -> Result<Option<Fleet>, DeviceError> {
        let state: Option<String> = self.with(|db| {
            let sql = "SELECT state FROM fleets WHERE host = ?1";
            db.query_row(sql, [host.as_bytes()], |row| row.get(0))
                .optional()
        })?;
        Ok(state.and_then(|state| serde_json::from_str(&state).ok()))
    }

    /// Forgets a host with all that belongs to it.
    ///
    /// # Errors
    ///
    /// [`Code::StateUnusable`] when the store fails.
    pub fn forget_host(&self, peer: PeerId) -> Result<(), DeviceError> {
        self.with(|db| {
            let change = db.transaction()?;
            for table in [
                "hosts WHERE peer",
                "keys WHERE host",
                "heads WHERE host",
                "outbox WHERE host",
                "fleets WHERE host",
            ] {
                change.execute(&format!("DELETE FROM {table} = ?1"), [peer.as_bytes()])?;
            }
            change.commit()
        })
    }

    /// Keeps content keys of a stream; the first one of an epoch counts.
    pub(crate) fn keep_keys(
        &self,
        host: PeerId,
        stream: StreamId,
        keys: &[(u32, ContentKey)],
    ) -> Result<(), DeviceError> {
        self.with(|db| {
            let change = db.transaction()?;
            for (epoch, key) in keys {
                change.execute(
                    "INSERT OR IGNORE INTO keys (host, stream, epoch, key) VALUES (?1, ?2, ?3, ?4)",
                    params![host.as_bytes(), stream.as_bytes(), epoch, key.expose()],
                )?;
            }
            change.commit()
        })
    }

    /// The content keys of a host's streams.
    pub(crate) fn keys(
        &self,
        host: PeerId,
    ) -> Result<Vec<(StreamId, u32, ContentKey)>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare("SELECT stream, epoch, key FROM keys WHERE host = ?1")?;
            query
                .query_map([host.as_bytes()], |row| {
                    let mut bytes: [u8; 32] = row.get(2)?;
                    let key = ContentKey::from_bytes(bytes);
                    bytes.zeroize();
                    Ok((StreamId::from_bytes(row.get(0)?), row.get(1)?, key))
                })?
                .collect()
        })
    }

    /// Remembers how far streams were seen; never goes back.
    pub(crate) fn keep_heads(
        &self,
        host: PeerId,
        heads: &[(StreamId, Head)],
    ) -> Result<(), DeviceError> {
        self.with(|db| {
            let change = db.transaction()?;
            for (stream, head) in heads {
                change.execute(
                    "INSERT INTO heads (host, stream, seq, hash) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (host, stream) DO UPDATE SET seq = excluded.seq, hash = excluded.hash
                     WHERE excluded.seq > seq",
                    params![host.as_bytes(), stream.as_bytes(), signed(head.seq), head.hash],
                )?;
            }
            change.commit()
        })
    }

    /// How far a host's streams were ever seen.
    pub(crate) fn heads(&self, host: PeerId) -> Result<Vec<(StreamId, Head)>, DeviceError> {
        self.with(|db| {
            let mut query = db.prepare("SELECT stream, seq, hash FROM heads WHERE host = ?1")?;
            query
                .query_map([host.as_bytes()], |row| {
                    let head = Head {
                        seq: unsigned(row.get(1)?),
                        hash: row.get(2)?,
                    };
                    Ok((StreamId::from_bytes(row.get(0)?), head))
                })?
                .collect()
        })
    }

    /// Runs something that may take as long as a disk does where it holds up nobody.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, DeviceError> + Send + 'static,
    ) -> Result<T, DeviceError> {
        let store = self.clone();
        let done = farhelm_world::blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| {
            Err(DeviceError::because(
                Code::StateUnusable,
                format!("the store stopped: {error}"),
            ))
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DeviceError> {
        work(&mut self.hold()).map_err(|error| unusable(&self.path, &error))
    }

    fn hold(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_up(db: &mut Connection) -> rusqlite::Result<()> {
    db.busy_timeout(BUSY)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "secure_delete", "ON")?;
    let change = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(version).unwrap_or_default();
    for migration in MIGRATIONS.iter().skip(done) {
        change.execute_batch(migration)?;
    }
    if version < VERSION {
        change.pragma_update(None, "user_version", VERSION)?;
    }
    change.commit()
}

fn known_host(row: &Row<'_>) -> rusqlite::Result<KnownHost> {
    let corrupt = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, error)
    };
    let signing = farhelm_proto::sign::VerifyingKey::from_bytes(&row.get(0)?)
        .map_err(|e| corrupt(0, e.into()))?;
    let roster: String = row.get(4)?;
    Ok(KnownHost {
        keys: PublicKeys {
            signing,
            sealing: row.get(1)?,
        },
        relay: row.get(2)?,
        name: row.get(3)?,
        roster: serde_json::from_str(&roster).map_err(|e| corrupt(4, e.into()))?,
    })
}

fn unusable(path: &Path, error: &rusqlite::Error) -> DeviceError {
    DeviceError::because(
        Code::StateUnusable,
        format!("the store {} cannot be used: {error}", path.display()),
    )
}

/// SQLite's integers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// How long one process waits for another.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);
/// The version that the migrations lead to.
const VERSION: i64 = 2;
/// Each leads from the version of its place to the next; appended to, never changed.
const MIGRATIONS: [&str; 2] = [
    // Heads are the highest verified ones that were ever seen. A letter is the whole frame, as it
    // was sealed once; `stage` is one of Progress.
    "CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), seed BLOB NOT NULL) STRICT;
     CREATE TABLE hosts (
       peer BLOB PRIMARY KEY, signing BLOB NOT NULL, sealing BLOB NOT NULL, relay TEXT NOT NULL,
       name TEXT NOT NULL, roster TEXT NOT NULL
     ) STRICT;
     CREATE TABLE keys (
       host BLOB, stream BLOB, epoch INTEGER, key BLOB NOT NULL, PRIMARY KEY (host, stream, epoch)
     ) STRICT;
     CREATE TABLE heads (
       host BLOB, stream BLOB, seq INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (host, stream)
     ) STRICT;
     CREATE TABLE outbox (
       id BLOB PRIMARY KEY, host BLOB NOT NULL, kind TEXT NOT NULL, letter BLOB NOT NULL,
       stage INTEGER NOT NULL, made_at INTEGER NOT NULL, not_after INTEGER NOT NULL, outcome TEXT
     ) STRICT;
     CREATE INDEX outbox_by_host ON outbox (host, stage);",
    // What the relay or the time says of a command is a doubt beside its stage, which is the
    // host's word alone from 2 on. `open`: nobody knows whether it had its effect. `recall`: it is
    // being taken back. The fleet is what was last seen of a host's own log.
    "ALTER TABLE outbox ADD COLUMN doubt INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE outbox ADD COLUMN open INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE outbox ADD COLUMN recall INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE outbox ADD COLUMN command TEXT;
     ALTER TABLE outbox ADD COLUMN retries BLOB;
     UPDATE outbox SET doubt = 1, stage = 0 WHERE stage = 3;
     UPDATE outbox SET stage = 5 WHERE stage = 4;
     CREATE TABLE fleets (host BLOB PRIMARY KEY, state TEXT NOT NULL) STRICT;",
];

#[cfg(test)]
mod tests;
