//! A page is made of the envelopes' own bytes; nothing is decoded and encoded again.

use bytes::Bytes;
use farhelm_proto::limits;
use minicbor::decode::Decoder;
use minicbor::encode::Encoder;

use crate::store::Sealed;

/// The most that the envelopes of one page may have.
pub(super) const LARGEST: usize = limits::FRAME_BYTES - 64;

/// The frame that answers a fetch; none when a stored frame is not an envelope.
pub(super) fn encode(request: u64, frames: &[Sealed], more: bool) -> Option<Bytes> {
    const PAGE: u64 = 24;
    let mut page = Encoder::new(Vec::with_capacity(
        64 + frames.iter().map(|frame| frame.bytes.len()).sum::<usize>(),
    ));
    page.array(2).ok()?.u64(PAGE).ok()?.array(1).ok()?;
    page.map(3).ok()?.u8(0).ok()?.u64(request).ok()?;
    page.u8(1).ok()?.array(frames.len() as u64).ok()?;
    for frame in frames {
        let mut decoder = Decoder::new(&frame.bytes);
        decoder.array().ok()?;
        decoder.skip().ok()?;
        decoder.array().ok()?;
        page.writer_mut()
            .extend_from_slice(frame.bytes.get(decoder.position()..)?);
    }
    page.u8(2).ok()?.bool(more).ok()?;
    Some(page.into_writer().into())
}
