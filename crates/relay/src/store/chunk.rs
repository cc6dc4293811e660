//! How several envelopes of one stream share a row: a flood then costs one row per commit
//! instead of one per envelope, and reading it back is one contiguous read.
//!
//! Each envelope is `length (4) | first (8) | last (8) | frame`, all big-endian.

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::store::{Sealed, StoreError};

/// The row of the longest prefix of `frames` that fits, and the rest. At least one goes in.
pub(super) fn pack(frames: &[Sealed]) -> (Vec<u8>, &[Sealed]) {
    let mut row = Vec::new();
    let mut taken = 0;
    for frame in frames {
        if taken > 0 && row.len() + HEAD_BYTES + frame.bytes.len() > ROW_BYTES {
            break;
        }
        row.put_u32(u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX));
        row.put_u64(frame.first);
        row.put_u64(frame.last);
        row.extend_from_slice(&frame.bytes);
        taken += 1;
    }
    (row, &frames[taken..])
}

/// The envelopes of a row, sharing its memory.
pub(super) fn unpack(row: Vec<u8>) -> Result<Vec<Sealed>, StoreError> {
    let mut row = Bytes::from(row);
    let mut frames = Vec::new();
    while row.has_remaining() {
        if row.len() < HEAD_BYTES {
            return Err(damaged());
        }
        let (length, first, last) = (row.get_u32() as usize, row.get_u64(), row.get_u64());
        if row.len() < length {
            return Err(damaged());
        }
        frames.push(Sealed {
            first,
            last,
            bytes: row.split_to(length),
        });
    }
    Ok(frames)
}

fn damaged() -> StoreError {
    StoreError::Backend("a row of envelopes is damaged".to_owned())
}

const HEAD_BYTES: usize = 4 + 8 + 8;
/// Rows grow up to this, unless a single envelope is longer.
const ROW_BYTES: usize = 64 * 1024;
