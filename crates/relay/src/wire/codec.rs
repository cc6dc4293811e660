//! The bytes of a WebSocket frame (RFC 6455, section 5.2), as a server reads and writes them.

use crate::wire::WireError;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The beginning of a frame from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Whether the message ends with this frame.
    pub(super) last: bool,
    pub(super) opcode: Opcode,
    /// Length of the payload.
    pub(super) length: usize,
    pub(super) mask: [u8; 4],
    /// Length of the head itself.
    pub(super) bytes: usize,
}

impl Head {
    /// Reads a head; none when more bytes are needed.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let opcode = match first & 0x7f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(WireError::Malformed),
        };
        let last = first & 0x80 != 0;
        let control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        let short = second & 0x7f;
        if second & 0x80 == 0 || (control && (!last || short > 125)) {
            return Err(WireError::Malformed);
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, rest)) = rest.split_at_checked(extended) else {
            return Ok(None);
        };
        let length = length
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = if extended == 0 {
            u64::from(short)
        } else {
            length
        };
        let Ok(length) = usize::try_from(length).map(|length| length.min(usize::MAX / 2)) else {
            return Err(WireError::TooLarge);
        };
        let Some(mask) = rest.first_chunk() else {
            return Ok(None);
        };
        Ok(Some(Self {
            last,
            opcode,
            length,
            mask: *mask,
            bytes: 2 + extended + 4,
        }))
    }
}

/// Takes the mask off a payload.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends the head of a whole message.
#[expect(
    clippy::cast_possible_truncation,
    reason = "each arm's range fits the width it writes"
)]
pub(super) fn write_head(out: &mut Vec<u8>, opcode: Opcode, length: usize) {
    out.push(match opcode {
        Opcode::Continuation => 0x80,
        Opcode::Text => 0x81,
        Opcode::Binary => 0x82,
        Opcode::Close => 0x88,
        Opcode::Ping => 0x89,
        Opcode::Pong => 0x8a,
    });
    match length {
        0..126 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A close frame with status 1000.
pub(super) const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe8];

/// The longest head that a server writes.
pub(super) const HEAD_BYTES: usize = 10;
