//! Big pieces, fetched when somebody wants them: asked of the relay, which asks the host.

use std::collections::BTreeMap;

use farhelm_core::content::BlobRef;
use farhelm_core::seal;
use farhelm_core::text::from_hex;
use farhelm_proto::frame::{Blob, Frame, WantBlob};
use farhelm_proto::{Code, StreamId};
use tokio::sync::oneshot;

use super::Actor;
use crate::device::DeviceError;

/// What is asked for. Whoever asked gives up by itself.
#[derive(Default)]
pub(super) struct Blobs {
    asked: BTreeMap<u64, Wanted>,
    last: u64,
}

struct Wanted {
    stream: StreamId,
    epoch: u32,
    name: [u8; 32],
    reply: oneshot::Sender<Result<Vec<u8>, DeviceError>>,
}

impl Actor {
    pub(super) fn want_blob(
        &mut self,
        stream: StreamId,
        blob: &BlobRef,
        reply: oneshot::Sender<Result<Vec<u8>, DeviceError>>,
    ) {
        let name = from_hex(&blob.name).and_then(|name| name.try_into().ok());
        let Some(name) = name else {
            drop(reply.send(Err(DeviceError::new(Code::NotFound))));
            return;
        };
        self.blobs
            .asked
            .retain(|_, wanted| !wanted.reply.is_closed());
        self.blobs.last += 1;
        let wanted = Wanted {
            stream,
            epoch: blob.epoch,
            name,
            reply,
        };
        self.blobs.asked.insert(self.blobs.last, wanted);
        self.ask_for_blob(self.blobs.last, name);
    }

    /// A connection is there: what was asked on an earlier one is asked again.
    pub(super) fn ask_for_blobs(&mut self) {
        let asked: Vec<_> = self
            .blobs
            .asked
            .iter()
            .map(|(request, wanted)| (*request, wanted.name))
            .collect();
        for (request, name) in asked {
            self.ask_for_blob(request, name);
        }
    }

    fn ask_for_blob(&mut self, request: u64, name: [u8; 32]) {
        let want = WantBlob {
            request,
            host: self.host.peer(),
            name: name.into(),
        };
        self.push(&Frame::WantBlob(want));
    }

    pub(super) async fn take_blob(&mut self, blob: &Blob) -> Result<(), DeviceError> {
        let Some(wanted) = self.blobs.asked.remove(&blob.request) else {
            return Ok(());
        };
        let host = self.host.peer();
        let keys = self.store.run(move |store| store.keys(host)).await?;
        let key = keys
            .iter()
            .find(|(stream, epoch, _)| *stream == wanted.stream && *epoch == wanted.epoch);
        let opened = match key {
            _ if seal::blob_name(&blob.bytes) != wanted.name => Err(Code::Tampered),
            None => Err(Code::KeyMissing),
            Some((_, _, key)) => seal::open_blob(key, wanted.stream, wanted.epoch, &blob.bytes)
                .map_err(|_| Code::BadSeal),
        };
        drop(wanted.reply.send(opened.map_err(DeviceError::new)));
        Ok(())
    }

    /// The relay cannot give something that was asked for; whether it was a blob.
    pub(super) fn blob_refused(&mut self, request: u64, code: Code) -> bool {
        let wanted = self.blobs.asked.remove(&request);
        let was_asked = wanted.is_some();
        if let Some(wanted) = wanted {
            drop(wanted.reply.send(Err(DeviceError::new(code))));
        }
        was_asked
    }
}
