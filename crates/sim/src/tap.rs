//! Listens in on the wire: takes the WebSocket apart, so that every frame is seen as it is between
//! the machines, and no plaintext is among them.

use std::sync::Arc;

use crate::universe::{CANARY, Universe};

/// One direction of one connection.
pub(crate) struct Tap {
    name: String,
    universe: Arc<Universe>,
    buffer: Vec<u8>,
    is_upgraded: bool,
    is_strange: bool,
}

impl Tap {
    pub(crate) fn new(name: String, universe: &Arc<Universe>) -> Self {
        Self {
            name,
            universe: Arc::clone(universe),
            buffer: Vec::new(),
            is_upgraded: false,
            is_strange: false,
        }
    }

    /// Bytes that were written.
    pub(crate) fn passed(&mut self, bytes: &[u8]) {
        if self.is_strange {
            self.look(bytes);
            return;
        }
        self.buffer.extend_from_slice(bytes);
        if !self.is_upgraded {
            let Some(end) = find(&self.buffer, b"\r\n\r\n") else {
                return;
            };
            let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
            self.look(&head);
            self.is_upgraded = true;
        }
        while let Some((payload, opcode)) = self.next_message() {
            self.look(&payload);
            let kind = farhelm_proto::frame::kind(&payload).unwrap_or(0);
            self.universe.note(&format!(
                "{} {opcode} frame {kind}, {} bytes",
                self.name,
                payload.len()
            ));
        }
    }

    /// The next whole message, unmasked.
    fn next_message(&mut self) -> Option<(Vec<u8>, u8)> {
        let [first, second, ..] = *self.buffer.as_slice() else {
            return None;
        };
        let (length, at) = match second & 0x7f {
            126 => (
                usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?)),
                4,
            ),
            127 => {
                let long = u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?);
                (usize::try_from(long).ok()?, 10)
            }
            short => (usize::from(short), 2),
        };
        let is_masked = second & 0x80 != 0;
        let from = at + if is_masked { 4 } else { 0 };
        if self.buffer.len() < from + length {
            return None;
        }
        let mut payload = self.buffer[from..from + length].to_vec();
        if is_masked {
            let mask: [u8; 4] = self.buffer[at..from].try_into().ok()?;
            for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
                *byte ^= mask;
            }
        }
        self.buffer.drain(..from + length);
        self.is_strange = first & 0x0f == 8;
        Some((payload, first & 0x0f))
    }

    fn look(&self, bytes: &[u8]) {
        if find(bytes, CANARY.as_bytes()).is_some() {
            self.universe
                .broken(format!("I12: plaintext on the wire at {}", self.name));
        }
    }
}

/// Where `needle` begins.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|byte| *byte == first)?;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Whether a relay's store holds plaintext.
pub(crate) fn is_in_store(kept: &farhelm_relay::Kept) -> bool {
    let mut found = false;
    kept.visit(&mut |bytes| found |= find(bytes, CANARY.as_bytes()).is_some());
    found
}
