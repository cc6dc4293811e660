//! Decoders of this crate, laid bare for the fuzz targets. Not part of the API.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{Socket as _, Wire};

/// The frames of a request of the detour; nothing when it is no row of frames.
#[must_use]
pub fn row(mut body: Bytes, limit: usize) -> Option<Vec<Bytes>> {
    crate::http::detour::check(&body, limit).ok()?;
    let mut frames = Vec::new();
    while !body.is_empty() {
        frames.push(crate::http::detour::next(&mut body, limit).ok()?);
    }
    Some(frames)
}

/// The messages that a WebSocket gives when a client sends `bytes`, of which `cut` arrive at once;
/// and how it ends, or nothing when it waits for more.
#[must_use]
pub fn messages(bytes: &[u8], cut: usize, limit: usize) -> (Vec<Bytes>, Option<String>) {
    let fed = Fed {
        rest: Bytes::copy_from_slice(bytes),
        cut: cut.max(1),
    };
    let mut wire = Wire::new(fed, &[], limit);
    let mut cx = Context::from_waker(Waker::noop());
    let mut found = Vec::new();
    loop {
        match wire.poll_recv(&mut cx) {
            Poll::Ready(Ok(message)) => found.push(message),
            Poll::Ready(Err(error)) => return (found, Some(error.to_string())),
            Poll::Pending => return (found, None),
        }
    }
}

/// A client that said all it will say.
struct Fed {
    rest: Bytes,
    cut: usize,
}

impl AsyncRead for Fed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let some = self.rest.len().min(self.cut).min(buffer.remaining());
        if some == 0 {
            return Poll::Pending;
        }
        buffer.put_slice(&self.rest.split_to(some));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Fed {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
