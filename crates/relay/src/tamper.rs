//! An evil relay, for tests of those who must not believe one. Exists only with the feature `evil`, which no package that
//! is shipped asks for; a tidy test says so.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use farhelm_proto::PeerId;

use crate::Relay;
use crate::outbox::ConnId;
use crate::state::State;

/// What an evil relay does to frames.
pub trait Tamper: Send + Sync + 'static {
    /// What the relay acts on in place of a frame that `peer` sent.
    fn heard(&self, peer: PeerId, conn: u64, frame: Bytes) -> Vec<Bytes>;

    /// What is sent to `peer` in place of a frame.
    fn said(&self, peer: PeerId, conn: u64, frame: Bytes) -> Vec<Bytes>;
}

impl Relay {
    /// Makes the relay evil, for good.
    pub fn tamper_with(&self, tamper: Arc<dyn Tamper>) {
        self.door.state.tamper.get_or_init(|| tamper);
    }

    /// Sends a frame to every connection of a peer, as if it belonged there. [`Tamper::said`] sees it too.
    pub fn inject(&self, to: PeerId, frame: &Bytes) {
        self.door.state.inject(to, frame);
    }

    /// Whether a peer is connected.
    #[must_use]
    pub fn has(&self, peer: PeerId) -> bool {
        self.door.state.has(peer)
    }
}

/// What is acted on in place of a frame that came.
pub(crate) fn heard(state: &State, peer: PeerId, conn: ConnId, frame: Bytes) -> Vec<Bytes> {
    match state.tamper.get() {
        Some(tamper) => tamper.heard(peer, conn, frame),
        None => vec![frame],
    }
}

/// Replaces what is about to be sent, beyond the first `seen` frames.
pub(crate) fn said(
    state: &State,
    peer: PeerId,
    conn: ConnId,
    hand: &mut VecDeque<Bytes>,
    seen: usize,
) {
    let Some(tamper) = state.tamper.get() else {
        return;
    };
    let fresh = hand.split_off(seen.min(hand.len()));
    hand.extend(
        fresh
            .into_iter()
            .flat_map(|frame| tamper.said(peer, conn, frame)),
    );
}
