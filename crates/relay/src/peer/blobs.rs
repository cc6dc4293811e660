//! Large sealed pieces, named by their hash: hosts put them, readers ask for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use farhelm_proto::frame::{Blob, Frame, PutBlob, WantBlob};
use farhelm_proto::{Code, limits};
use sha2::{Digest as _, Sha256};

use crate::hub::wants::Wanted;
use crate::lock::Lock as _;
use crate::outbox::About;
use crate::peer::{Handled, PUT_BLOB, Peer, bye};
use crate::store::{Done, Write};
use crate::wire::Socket;

impl<W: Socket> Peer<W> {
    /// Keeps a blob and gives it to those who wait for it.
    pub(super) async fn put_blob(&self, put: PutBlob) -> Handled {
        let Some(hub) = self.own_hub(PUT_BLOB) else {
            return Ok(());
        };
        if put.bytes.len() > limits::BLOB_BYTES {
            return Err(bye(Code::TooLarge, "a blob is too large"));
        }
        let (name, bytes) = (*put.name, Bytes::from(Vec::from(put.bytes)));
        let hashed = bytes.clone();
        let hash = self
            .state
            .store
            .aside(move || <[u8; 32]>::from(Sha256::digest(&hashed)))
            .await;
        if !hash.is_ok_and(|hash| hash == name) {
            self.outbox.complain(Code::BadFrame, About::Frame(PUT_BLOB));
            return Ok(());
        }
        hub.hold().wants.answer(name, &bytes);
        let length = bytes.len();
        self.storing.fetch_add(length, Ordering::Relaxed);
        let (outbox, storing) = (Arc::clone(&self.outbox), Arc::clone(&self.storing));
        let done: Done = Box::new(move |outcome| {
            storing.fetch_sub(length, Ordering::Relaxed);
            hub.hold().wants.settled(name);
            match outcome {
                Ok(_) => outbox.nudge(),
                Err(error) => {
                    tracing::warn!(%error, "a blob could not be stored");
                    outbox.complain(Code::StoreFailed, About::Frame(PUT_BLOB));
                }
            }
        });
        let quota = self.state.config.blob_bytes_per_host;
        let write = Write::Blob {
            host: self.me,
            name,
            bytes,
            quota,
        };
        self.state.store.write(vec![(write, done)]).await;
        Ok(())
    }

    /// Sends a blob, or asks its host for it.
    pub(super) async fn want_blob(&self, want: WantBlob) {
        if let Err(code) = self.try_want_blob(&want).await {
            self.outbox.complain(code, About::Request(want.request));
        }
    }

    async fn try_want_blob(&self, want: &WantBlob) -> Result<(), Code> {
        let hub = self.readable(want.host).await?;
        let (host, name) = (want.host, *want.name);
        // First what is on its way into the store: afterwards the store would be too late to
        // ask, as the blob may get there in between.
        let storing = hub.hold().wants.storing(name);
        let found = match storing {
            Some(bytes) => Some(bytes),
            None => {
                let found = self
                    .state
                    .store
                    .read(move |tables| tables.blob(host, name))
                    .await;
                found.map_err(|_| Code::StoreFailed)?
            }
        };
        let mut hub = hub.hold();
        if let Some(bytes) = found.or_else(|| hub.wants.storing(name)) {
            self.outbox.say(&Frame::Blob(Blob {
                request: want.request,
                bytes: Vec::from(bytes).into(),
            }));
            return Ok(());
        }
        if hub.seated().is_none() || !hub.is_member(self.me) {
            return Err(Code::NotFound);
        }
        match hub.wants.add(
            name,
            Arc::clone(&self.outbox),
            want.request,
            self.state.uptime(),
        )? {
            Wanted::Ask(request) => {
                hub.tell_host(&Frame::WantBlob(WantBlob {
                    request,
                    host,
                    name: name.into(),
                }));
            }
            Wanted::Wait => {}
        }
        Ok(())
    }
}
