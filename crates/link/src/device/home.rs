//! The host's own log on a device: its sessions, and its roster, which is verified entry by
//! entry. Pure.

use farhelm_core::event::HostRecord;
use farhelm_core::fleet::Fleet;
use farhelm_core::roster::Roster;
use farhelm_proto::Code;
use serde_json::value::RawValue;

use crate::device::reader::{Reader, Start};
use crate::device::{DeviceError, KnownHost};

/// The reader of a host's own log, with what it has read.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) reader: Reader,
    pub(crate) fleet: Fleet,
    /// The longest roster that was seen.
    pub(crate) roster: Roster,
    /// Whether the state began with a snapshot or the first event.
    is_whole: bool,
    /// Why the log is not believed.
    pub(crate) alarm: Option<DeviceError>,
}

impl Home {
    /// # Errors
    ///
    /// [`Code::Tampered`] when the roster in the store is not the host's.
    pub(crate) fn new(
        host: &KnownHost,
        seen: Option<farhelm_core::replica::Head>,
    ) -> Result<Self, DeviceError> {
        let roster = Roster::verify(&host.roster, &host.keys)
            .map_err(|error| DeviceError::because(error.code(), error.to_string()))?;
        let reader = Reader::new(host, host.peer().into(), Start::Snapshot, seen);
        Ok(Self {
            reader,
            fleet: Fleet::default(),
            roster,
            is_whole: false,
            alarm: None,
        })
    }

    /// Applies the JSON text of an array of host records. Whether the roster is longer.
    ///
    /// # Errors
    ///
    /// [`Code::Tampered`] when the roster does not continue the one that is known.
    pub(crate) fn apply(&mut self, text: &[u8]) -> Result<bool, DeviceError> {
        let records: Vec<&RawValue> =
            serde_json::from_slice(text).map_err(|error| unreadable(&error))?;
        let before = self.roster.number();
        for record in records {
            match serde_json::from_str::<HostRecord>(record.get()) {
                Ok(record) => self.apply_one(&record)?,
                // Without the state there is nothing to apply later events to.
                Err(error) if !self.is_whole && is_snapshot(record.get()) => {
                    return Err(unreadable(&error));
                }
                Err(error) => tracing::debug!(%error, "an event of a later version was skipped"),
            }
        }
        Ok(self.roster.number() > before)
    }

    fn apply_one(&mut self, record: &HostRecord) -> Result<(), DeviceError> {
        let is_snapshot = matches!(
            record.event,
            farhelm_core::event::HostEvent::Snapshot { .. }
        );
        self.is_whole |= is_snapshot || record.seq == 1;
        self.fleet.apply(&record.event);
        if self.fleet.state_version.is_unknown() {
            let text =
                "the host's state was written by a later version of farhelm; update this one";
            return Err(DeviceError::because(Code::UnsupportedVersion, text));
        }
        if !self.is_whole {
            return Ok(());
        }
        let known = self.roster.entries();
        let both = known.len().min(self.fleet.roster.len());
        if known[..both] != self.fleet.roster[..both] {
            return Err(DeviceError::because(
                Code::Tampered,
                "the roster is another than was seen before",
            ));
        }
        for entry in self
            .fleet
            .roster
            .iter()
            .skip(known.len())
            .cloned()
            .collect::<Vec<_>>()
        {
            let extended = self.roster.extend(&entry);
            extended.map_err(|error| DeviceError::because(error.code(), error.to_string()))?;
        }
        Ok(())
    }

    /// Whether it shows all that was stored when it subscribed, and all that was ever known.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.reader.is_caught_up() && self.is_whole && self.has_whole_roster()
    }

    /// Whether the log holds every entry of the roster that was ever seen.
    pub(crate) fn has_whole_roster(&self) -> bool {
        self.fleet.roster.len() >= self.roster.entries().len()
    }

    /// Whether nothing could be read at all.
    pub(crate) const fn is_blank(&self) -> bool {
        !self.is_whole
    }
}

fn is_snapshot(record: &str) -> bool {
    let record: serde_json::Value = serde_json::from_str(record).unwrap_or_default();
    record["event"]["type"] == "snapshot"
}

fn unreadable(error: &serde_json::Error) -> DeviceError {
    DeviceError::because(
        Code::UnsupportedVersion,
        format!("the host's log cannot be read by this version: {error}"),
    )
}
