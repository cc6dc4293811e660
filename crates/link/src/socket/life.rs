//! What shows that a connection lives, below the frames: bytes that came, and the route that the
//! machine takes to the other side.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Counts the bytes that came, so that a part of a long message is seen as a sign of life.
#[derive(Debug, Default)]
pub(crate) struct Life {
    bytes: AtomicU64,
}

impl Life {
    /// Bytes that came so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A byte stream whose arrivals are counted.
pub(crate) struct Counted<S> {
    stream: S,
    life: Arc<Life>,
}

impl<S> Counted<S> {
    pub(crate) fn new(stream: S, life: &Arc<Life>) -> Self {
        Self {
            stream,
            life: Arc::clone(life),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.life.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The way from this machine to the other side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    peer: SocketAddr,
    /// The address of ours that the system chose last; none when no way led there.
    chosen: Option<IpAddr>,
}

impl Route {
    /// The route of a connection; none within this machine, where it never changes.
    pub(crate) fn of(stream: &TcpStream) -> Option<Self> {
        let (peer, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
        (!peer.ip().is_loopback()).then_some(Self {
            peer,
            chosen: Some(local.ip()),
        })
    }

    /// Whether the system would choose another address now than when this was last asked.
    pub(crate) fn has_changed(&mut self) -> bool {
        let chosen = choose(self.peer).ok();
        std::mem::replace(&mut self.chosen, chosen) != chosen
    }

    /// Whether any way leads there.
    pub(crate) const fn is_open(&self) -> bool {
        self.chosen.is_some()
    }
}

/// Asks the system which of our addresses it would use; a datagram socket that is connected sends
/// nothing.
fn choose(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_stable_while_nothing_changes() {
        let peer: SocketAddr = ([127, 0, 0, 1], 9).into();
        let mut route = Route { peer, chosen: None };
        assert!(route.has_changed() && route.is_open());
        assert!(!route.has_changed());
        assert_eq!(route.chosen, Some([127, 0, 0, 1].into()));
    }
}
