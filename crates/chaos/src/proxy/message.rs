//! One WebSocket frame (RFC 6455), with the bytes that it came in. Our programs never split a message.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::weather::Way;

/// More than any frame of the protocol may have.
const LONGEST: u64 = 4 * 1024 * 1024;
const BINARY: u8 = 2;
const MASKED: u8 = 0x80;

/// A frame as it is on the wire.
#[derive(Clone, Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    /// How long its head is.
    head: usize,
    mask: [u8; 4],
}

impl Message {
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let mut bytes = vec![0; 2];
        from.read_exact(&mut bytes).await?;
        let short = u64::from(bytes[1] & !MASKED);
        let more = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = [0; 8];
        from.read_exact(&mut length[8 - more..]).await?;
        bytes.extend_from_slice(&length[8 - more..]);
        let length = if more == 0 {
            short
        } else {
            u64::from_be_bytes(length)
        };
        if length > LONGEST {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut mask = [0; 4];
        if bytes[1] & MASKED != 0 {
            from.read_exact(&mut mask).await?;
            bytes.extend_from_slice(&mask);
        }
        let head = bytes.len();
        bytes.resize(head + usize::try_from(length).unwrap_or(0), 0);
        from.read_exact(&mut bytes[head..]).await?;
        Ok(Self { bytes, head, mask })
    }

    /// A message with this payload.
    pub(super) fn of(way: Way, payload: &[u8]) -> Self {
        // A mask of zeros changes nothing and is one all the same.
        let masked = if way == Way::Up { MASKED } else { 0 };
        let mut bytes = vec![0x80 | BINARY];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length), _) if length < 126 => bytes.push(masked | length),
            (_, Ok(length)) => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
            (_, Err(_)) => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        if way == Way::Up {
            bytes.extend_from_slice(&[0; 4]);
        }
        let head = bytes.len();
        bytes.extend_from_slice(payload);
        Self {
            bytes,
            head,
            mask: [0; 4],
        }
    }

    /// The protocol's frame in it; none when it is WebSocket's own business.
    pub(super) fn frame(&self) -> Option<Bytes> {
        if self.bytes[0] & 0x0F != BINARY {
            return None;
        }
        let payload = self.bytes[self.head..].iter().zip(self.mask.iter().cycle());
        Some(payload.map(|(byte, mask)| byte ^ mask).collect())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_read_as_it_was_made() {
        for length in [0, 125, 126, 65_535, 65_536] {
            for way in [Way::Up, Way::Down] {
                let payload = vec![7; length];
                let made = Message::of(way, &payload);
                let read = Message::read(&mut made.bytes()).await.unwrap();
                assert_eq!(read.frame().unwrap(), payload);
                assert_eq!(read.bytes(), made.bytes());
            }
        }
    }
}
