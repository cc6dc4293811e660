//! The frames between a daemon and a keeper: a byte for the kind, four for the length, the rest.
//!
//! 1. keeper → daemon: [`Frame::Challenge`].
//! 2. daemon → keeper: [`Frame::Prove`], signed with the key of the state folder.
//! 3. keeper → daemon: [`Frame::Attached`], or [`Frame::Refused`] and the end.
//! 4. daemon → keeper: [`Frame::Hear`]; from then on the agent's bytes come, and orders go.
//!
//! Whoever changes a frame raises [`VERSION`]. The first three frames keep their form, though they may
//! grow fields: by them a daemon learns that a keeper is of another version. It ends that one.

use farhelm_proto::SessionId;
use serde::{Deserialize, Serialize};

use super::{End, Standing};

/// The version of what is said here.
pub(super) const VERSION: u32 = 1;
/// Longest frame that is read.
const LONGEST: usize = 512 << 20;

/// Everything either side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Who is here, and what is to be signed.
    Challenge(Challenge),
    /// A daemon proves itself.
    Prove(Prove),
    /// It may go ahead.
    Attached(Standing),
    /// It may not.
    Refused(Refusal),
    /// Say what the agent says from this place on.
    Hear(u64),
    /// Write this line, whose number is this.
    Write(u64, Vec<u8>),
    /// All before this place is not wanted again; one more than the last place: the end, too.
    Acknowledge(u64),
    /// End the agent.
    End { at_once: bool },
    /// Bytes of the agent, from this place on.
    Said(u64, Vec<u8>),
    /// The agent's standard output ends at this place.
    Silent(u64),
    /// All lines up to this number are written.
    Written(u64),
    /// The program has ended; the number is one more than the last place.
    Ended(u64, End),
    /// A later daemon has taken over.
    Superseded,
}

/// What a keeper says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Challenge {
    pub(super) version: u32,
    pub(super) session: SessionId,
    pub(super) nonce: [u8; 32],
}

/// A daemon's proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prove {
    pub(super) version: u32,
    pub(super) generation: u64,
    pub(super) signature: Vec<u8>,
}

/// Why a daemon is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Refusal {
    /// It has not the key.
    BadProof,
    /// A later one was here.
    Superseded,
    /// It speaks another version.
    Version,
}

/// What a daemon signs.
pub(super) fn proof(challenge: &Challenge, generation: u64) -> Vec<u8> {
    let mut bytes = challenge.nonce.to_vec();
    bytes.extend_from_slice(challenge.session.as_bytes());
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes
}

impl Frame {
    /// The bytes of the frame.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let number = |number: &u64| number.to_be_bytes().to_vec();
        let with = |number: &u64, rest: &[u8]| [&number.to_be_bytes(), rest].concat();
        let (kind, body) = match self {
            Self::Challenge(challenge) => (1, json(challenge)),
            Self::Prove(prove) => (2, json(prove)),
            Self::Attached(standing) => (3, json(standing)),
            Self::Refused(refusal) => (4, json(refusal)),
            Self::Hear(place) => (5, number(place)),
            Self::Write(at, line) => (6, with(at, line)),
            Self::Acknowledge(place) => (7, number(place)),
            Self::End { at_once } => (8, vec![u8::from(*at_once)]),
            Self::Said(place, bytes) => (9, with(place, bytes)),
            Self::Silent(place) => (10, number(place)),
            Self::Written(at) => (11, number(at)),
            Self::Ended(at, end) => (12, with(at, &json(end))),
            Self::Superseded => (13, Vec::new()),
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [&[kind], &length.to_be_bytes()[..], &body].concat()
    }

    fn parse(kind: u8, body: &[u8]) -> Option<Self> {
        let number = || Some(u64::from_be_bytes(*body.first_chunk::<8>()?));
        let rest = || body.get(8..).map(<[u8]>::to_vec);
        Some(match kind {
            1 => Self::Challenge(serde_json::from_slice(body).ok()?),
            2 => Self::Prove(serde_json::from_slice(body).ok()?),
            3 => Self::Attached(serde_json::from_slice(body).ok()?),
            4 => Self::Refused(serde_json::from_slice(body).ok()?),
            5 => Self::Hear(number()?),
            6 => Self::Write(number()?, rest()?),
            7 => Self::Acknowledge(number()?),
            8 => Self::End {
                at_once: *body.first()? != 0,
            },
            9 => Self::Said(number()?, rest()?),
            10 => Self::Silent(number()?),
            11 => Self::Written(number()?),
            12 => Self::Ended(number()?, serde_json::from_slice(&rest()?).ok()?),
            13 => Self::Superseded,
            _ => return None,
        })
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// What came is not of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if it is there whole.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Broken> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LONGEST {
            return Err(Broken);
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::parse(head[0], body).ok_or(Broken)?;
        drop(self.bytes.drain(..5 + length));
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(Some(frame))
    }
}

/// The frames that are in bytes given in pieces, each as it would be written; and whether what
/// follows them is none. For the fuzz targets.
#[must_use]
pub fn bare<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut frames, mut found) = (Frames::default(), Vec::new());
    for piece in pieces {
        frames.push(piece);
        loop {
            match frames.next() {
                Ok(Some(frame)) => found.push(frame.to_bytes()),
                Ok(None) => break,
                Err(Broken) => return (found, true),
            }
        }
    }
    (found, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Frame> {
        let session = SessionId::from_bytes([7; 16]);
        vec![
            Frame::Challenge(Challenge {
                version: VERSION,
                session,
                nonce: [9; 32],
            }),
            Frame::Prove(Prove {
                version: VERSION,
                generation: 5,
                signature: vec![1; 64],
            }),
            Frame::Attached(Standing {
                run: "r".into(),
                note: "{}".into(),
                acknowledged: 1,
                accepted: 2,
                written: 2,
                pid: 3,
            }),
            Frame::Refused(Refusal::Superseded),
            Frame::Hear(1),
            Frame::Write(2, b"line".to_vec()),
            Frame::Acknowledge(3),
            Frame::End { at_once: true },
            Frame::Said(4, b"bytes\n".to_vec()),
            Frame::Silent(5),
            Frame::Written(6),
            Frame::Ended(
                7,
                End {
                    code: Some(1),
                    signal: None,
                    stderr: "oh".into(),
                },
            ),
            Frame::Superseded,
        ]
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let bytes: Vec<u8> = all().iter().flat_map(Frame::to_bytes).collect();
        for size in [1, 2, 3, 7, bytes.len()] {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for some in bytes.chunks(size) {
                frames.push(some);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, all(), "in pieces of {size}");
        }
    }

    #[test]
    fn f22_nonsense_is_broken_and_never_a_panic() {
        for frame in all() {
            let bytes = frame.to_bytes();
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut bent = bytes.clone();
                    bent[at] ^= 1 << bit;
                    let mut frames = Frames::default();
                    frames.push(&bent);
                    drop(frames.next());
                }
            }
        }
        let mut frames = Frames::default();
        frames.push(&[9, 255, 255, 255, 255]);
        assert_eq!(frames.next(), Err(Broken));
    }
}
