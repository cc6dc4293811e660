//! The measuring end of a connection, made to cost little: what it spends, the servers do not get.
//!
//! It masks with zeros, which a server has to undo like any other mask, and reads many messages
//! with one call.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use bytes::BufMut as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// How messages lie in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A length (4, big-endian) before each.
    Length,
    /// Binary messages of a WebSocket.
    WebSocket,
}

/// Sends bytes that are framed already.
pub(crate) struct Writer {
    io: OwnedWriteHalf,
}

/// Takes messages apart.
pub(crate) struct Reader {
    io: OwnedReadHalf,
    framing: Framing,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Framing {
    /// Appends a message.
    pub(crate) fn write(self, out: &mut Vec<u8>, message: &[u8]) {
        match self {
            Self::Length => out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX)),
            Self::WebSocket => {
                out.put_u8(0x82);
                match (u8::try_from(message.len()), u16::try_from(message.len())) {
                    (Ok(length @ ..126), _) => out.put_u8(0x80 | length),
                    (_, Ok(length)) => {
                        out.put_u8(0x80 | 126);
                        out.put_u16(length);
                    }
                    (_, Err(_)) => {
                        out.put_u8(0x80 | 127);
                        out.put_u64(message.len() as u64);
                    }
                }
                out.put_u32(0);
            }
        }
        out.extend_from_slice(message);
    }

    /// Where the first message begins and how long it is, when that much is there.
    fn head(self, bytes: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
        match (self, bytes) {
            (Self::Length, [a, b, c, d, ..]) => {
                Ok(Some((4, u32::from_be_bytes([*a, *b, *c, *d]) as usize)))
            }
            (Self::WebSocket, [0x82, length @ ..=125, ..]) => Ok(Some((2, usize::from(*length)))),
            (Self::WebSocket, [0x82, 126, a, b, ..]) => {
                Ok(Some((4, usize::from(u16::from_be_bytes([*a, *b])))))
            }
            (Self::WebSocket, [0x82, 127, rest @ ..]) => match rest.first_chunk::<8>() {
                Some(length) => Ok(Some((10, usize::try_from(u64::from_be_bytes(*length))?))),
                None => Ok(None),
            },
            (Self::WebSocket, [first, ..]) if *first != 0x82 => {
                bail!("the server closed, or sent no binary message")
            }
            (_, _) => Ok(None),
        }
    }
}

/// Opens a connection; for a WebSocket, at `path`.
pub(crate) async fn connect(
    address: SocketAddr,
    framing: Framing,
    path: &str,
) -> anyhow::Result<(Reader, Writer)> {
    let stream = TcpStream::connect(address)
        .await
        .context("failed to connect")?;
    stream.set_nodelay(true)?;
    let (io, write) = stream.into_split();
    let mut reader = Reader {
        io,
        framing,
        buffer: vec![0; BUFFER_BYTES],
        start: 0,
        end: 0,
    };
    let mut writer = Writer { io: write };
    if framing == Framing::WebSocket {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            address.port()
        );
        writer.send(request.as_bytes()).await?;
        reader.upgraded().await?;
    }
    Ok((reader, writer))
}

impl Writer {
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.io.write_all(bytes).await.context("failed to send")
    }
}

impl Reader {
    /// Gives every message that is there to `each`; waits for at least one. Cancel-safe.
    pub(crate) async fn read(
        &mut self,
        mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let mut found = false;
            while let Some((head, length)) =
                self.framing.head(&self.buffer[self.start..self.end])?
            {
                let from = self.start + head;
                if from + length > self.end {
                    break;
                }
                self.start = from + length;
                found = true;
                each(&self.buffer[from..from + length])?;
            }
            if found {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some((head, length)) = self.framing.head(&self.buffer[self.start..self.end])? {
                let from = self.start + head;
                if from + length <= self.end {
                    self.start = from + length;
                    return Ok(self.buffer[from..from + length].to_vec());
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            // Whoever gets much at once reads much at once.
            self.buffer.resize(self.buffer.len() * 4, 0);
        }
        let read = self
            .io
            .read(&mut self.buffer[self.end..])
            .await
            .context("failed to read")?;
        ensure!(read > 0, "the server closed the connection");
        self.end += read;
        Ok(())
    }

    async fn upgraded(&mut self) -> anyhow::Result<()> {
        let end = b"\r\n\r\n";
        loop {
            let bytes = &self.buffer[..self.end];
            if let Some(at) = bytes.windows(end.len()).position(|window| window == end) {
                ensure!(
                    bytes.starts_with(b"HTTP/1.1 101"),
                    "no upgrade: {}",
                    String::from_utf8_lossy(&bytes[..at])
                );
                self.start = at + end.len();
                return Ok(());
            }
            self.fill().await?;
        }
    }
}

/// What a connection reads into at first; there are thousands of them.
const BUFFER_BYTES: usize = 4 * 1024;
