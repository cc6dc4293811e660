//! How many bytes of envelopes each host has. Counted from the file when a host first writes and
//! again before it is refused; in between by what it adds, which may only be too much.

use std::collections::HashMap;

use farhelm_proto::PeerId;
use rusqlite::Connection;

use super::Id;
use crate::store::StoreError;

/// What hosts have, and may have.
#[derive(Default)]
pub(super) struct Quota {
    /// 0 for any number.
    bytes: u64,
    used: HashMap<PeerId, u64>,
}

impl Quota {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            used: HashMap::new(),
        }
    }

    /// Whether a host may have so much more.
    ///
    /// # Errors
    ///
    /// [`StoreError::Quota`] when it may not.
    pub(super) fn check(
        &mut self,
        db: &Connection,
        host: PeerId,
        more: u64,
    ) -> Result<(), StoreError> {
        if self.bytes == 0 {
            return Ok(());
        }
        let fits = |used: u64| used.saturating_add(more) <= self.bytes;
        if self.used.get(&host).is_some_and(|used| fits(*used)) {
            return Ok(());
        }
        let used = count(db, host)?;
        self.used.insert(host, used);
        if fits(used) {
            return Ok(());
        }
        Err(StoreError::Quota)
    }

    /// A host has so much more.
    pub(super) fn add(&mut self, host: PeerId, bytes: u64) {
        if let Some(used) = self.used.get_mut(&host) {
            *used = used.saturating_add(bytes);
        }
    }
}

fn count(db: &Connection, host: PeerId) -> Result<u64, StoreError> {
    let bytes: i64 = db
        .prepare_cached(
            "SELECT coalesce(sum(length(frames)), 0) FROM envelopes
             WHERE stream IN (SELECT key FROM streams WHERE host = ?)",
        )?
        .query_row([Id(host.as_bytes())], |row| row.get(0))?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}
