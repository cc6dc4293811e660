//! Blobs that devices wait for while their host is asked for them.

use std::sync::Arc;

use bytes::Bytes;
use farhelm_proto::frame::{Blob, Frame};
use farhelm_proto::{Code, PeerId, Timestamp};

use crate::outbox::{About, ConnId, Outbox};

/// What is waited for at one host.
#[derive(Default)]
pub(crate) struct Wants {
    wants: Vec<Want>,
    /// Blobs that came and are on their way into the store, where nobody finds them yet.
    storing: Vec<([u8; 32], Bytes)>,
    asked: u64,
}

struct Want {
    name: [u8; 32],
    /// The relay's own number of the request to the host.
    asked: u64,
    until: Timestamp,
    outbox: Arc<Outbox>,
    /// The device's number of its request.
    request: u64,
}

/// What is to be done for a device that wants a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Ask the host, with this number.
    Ask(u64),
    /// The host was asked already.
    Wait,
}

impl Wants {
    /// Notes that a device waits.
    ///
    /// # Errors
    ///
    /// The code to refuse with when too many wait.
    pub(crate) fn add(
        &mut self,
        name: [u8; 32],
        outbox: Arc<Outbox>,
        request: u64,
        now: Timestamp,
    ) -> Result<Wanted, Code> {
        let of_this = self
            .wants
            .iter()
            .filter(|want| want.outbox.id == outbox.id)
            .count();
        if of_this >= WANTS_PER_CONNECTION || self.wants.len() >= WANTS_PER_HOST {
            return Err(Code::RateLimited);
        }
        let known = self
            .wants
            .iter()
            .find(|want| want.name == name)
            .map(|want| want.asked);
        let asked = known.unwrap_or_else(|| {
            self.asked += 1;
            self.asked
        });
        let until = now.plus_millis(WANT_MILLIS);
        self.wants.push(Want {
            name,
            asked,
            until,
            outbox,
            request,
        });
        Ok(if known.is_some() {
            Wanted::Wait
        } else {
            Wanted::Ask(asked)
        })
    }

    /// Gives a blob to everybody who waits for it, and keeps it until it is stored.
    pub(crate) fn answer(&mut self, name: [u8; 32], bytes: &Bytes) {
        self.storing.push((name, bytes.clone()));
        for want in self.remove(|want| want.name == name) {
            want.outbox.say(&Frame::Blob(Blob {
                request: want.request,
                bytes: bytes.to_vec().into(),
            }));
        }
    }

    /// A blob that is on its way into the store.
    pub(crate) fn storing(&self, name: [u8; 32]) -> Option<Bytes> {
        self.storing
            .iter()
            .find(|(storing, _)| *storing == name)
            .map(|(_, bytes)| bytes.clone())
    }

    /// Takes note that a blob is in the store, or that it will not be.
    pub(crate) fn settled(&mut self, name: [u8; 32]) {
        if let Some(at) = self
            .storing
            .iter()
            .position(|(storing, _)| *storing == name)
        {
            self.storing.swap_remove(at);
        }
    }

    /// Tells everybody who waits that the host does not have it.
    pub(crate) fn refuse(&mut self, asked: u64) {
        complain(self.remove(|want| want.asked == asked));
    }

    /// Tells those who waited too long.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        complain(self.remove(|want| now > want.until));
    }

    /// Tells peers that do not belong to the host any more.
    pub(super) fn cut(&mut self, gone: impl Fn(PeerId) -> bool) {
        complain(self.remove(|want| gone(want.outbox.peer)));
    }

    pub(super) fn leave(&mut self, conn: ConnId) {
        drop(self.remove(|want| want.outbox.id == conn));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.wants.is_empty() && self.storing.is_empty()
    }

    fn remove(&mut self, gone: impl Fn(&Want) -> bool) -> Vec<Want> {
        let (gone, kept) = std::mem::take(&mut self.wants)
            .into_iter()
            .partition(|want| gone(want));
        self.wants = kept;
        gone
    }
}

fn complain(wants: Vec<Want>) {
    for want in wants {
        want.outbox
            .complain(Code::NotFound, About::Request(want.request));
    }
}

/// How long a host may take to send a blob.
const WANT_MILLIS: u64 = 20_000;
/// Blobs that one connection may wait for; each may fill an outbox.
const WANTS_PER_CONNECTION: usize = 8;
const WANTS_PER_HOST: usize = 256;
