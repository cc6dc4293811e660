//! A store that ends with the process: for tests, for simulation, and for a relay that may
//! forget, since the hosts hold the truth.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use farhelm_proto::{CommandId, PeerId, StreamId, Timestamp, limits};

use crate::store::{Outcome, Sealed, StoreError, Tables, Waiting, Write};

/// Everything in maps.
#[derive(Clone)]
pub(crate) struct Memory {
    id: [u8; 16],
    streams: HashMap<(PeerId, StreamId), Vec<Sealed>>,
    members: HashMap<PeerId, (u64, Vec<PeerId>)>,
    mailboxes: HashMap<PeerId, Mailbox>,
    blobs: HashMap<PeerId, Blobs>,
    next_key: i64,
}

#[derive(Clone, Default)]
struct Mailbox {
    waiting: BTreeMap<i64, Letter>,
    /// Where each letter is; none when it was taken, with the end of that memory.
    known: HashMap<(PeerId, CommandId), Known>,
}

#[derive(Clone)]
struct Letter {
    from: PeerId,
    id: CommandId,
    not_after: Timestamp,
    bytes: Bytes,
}

#[derive(Clone)]
enum Known {
    Waiting(i64),
    Taken(Timestamp),
}

#[derive(Clone, Default)]
struct Blobs {
    by_name: HashMap<[u8; 32], Bytes>,
    oldest: VecDeque<[u8; 32]>,
    bytes: u64,
}

impl Memory {
    /// An empty store.
    pub(crate) fn new(id: [u8; 16]) -> Self {
        Self {
            id,
            streams: HashMap::new(),
            members: HashMap::new(),
            mailboxes: HashMap::new(),
            blobs: HashMap::new(),
            next_key: 1,
        }
    }

    /// Shows everything that is kept.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&[u8])) {
        for frame in self.streams.values().flatten() {
            visit(&frame.bytes);
        }
        for letter in self
            .mailboxes
            .values()
            .flat_map(|each| each.waiting.values())
        {
            visit(&letter.bytes);
        }
        for blob in self.blobs.values().flat_map(|each| each.by_name.values()) {
            visit(blob);
        }
    }

    fn stream(&self, host: PeerId, stream: StreamId) -> &[Sealed] {
        self.streams.get(&(host, stream)).map_or(&[], Vec::as_slice)
    }

    fn write(&mut self, write: &Write) -> Result<Outcome, StoreError> {
        match write {
            Write::Append {
                host,
                stream,
                frames,
            } => self.append(*host, *stream, frames),
            Write::Members {
                host,
                version,
                devices,
                removed,
            } => {
                self.members.insert(*host, (*version, devices.clone()));
                for device in removed {
                    self.forget(*host, *device);
                    self.forget(*device, *host);
                }
                Ok(Outcome::Done)
            }
            Write::Post {
                to,
                from,
                id,
                not_after,
                now,
                bytes,
            } => {
                let letter = Letter {
                    from: *from,
                    id: *id,
                    not_after: *not_after,
                    bytes: compact(bytes),
                };
                let key = self.next_key;
                self.next_key += 1;
                Ok(self
                    .mailboxes
                    .entry(*to)
                    .or_default()
                    .post(key, letter, *now))
            }
            Write::Take {
                to,
                from,
                id,
                until,
            } => {
                self.mailboxes
                    .entry(*to)
                    .or_default()
                    .take(*from, *id, *until);
                Ok(Outcome::Done)
            }
            Write::Blob {
                host,
                name,
                bytes,
                quota,
            } => Ok(self
                .blobs
                .entry(*host)
                .or_default()
                .keep(*name, compact(bytes), *quota)),
            Write::Trim {
                host,
                stream,
                below,
            } => {
                if let Some(stored) = self.streams.get_mut(&(*host, *stream)) {
                    stored.retain(|frame| frame.last >= *below);
                }
                Ok(Outcome::Done)
            }
            Write::Prune { now } => {
                self.mailboxes.retain(|_, mailbox| mailbox.prune(*now));
                Ok(Outcome::Done)
            }
        }
    }

    fn append(
        &mut self,
        host: PeerId,
        stream: StreamId,
        frames: &[Sealed],
    ) -> Result<Outcome, StoreError> {
        let head = self.stream(host, stream).last().map_or(0, |last| last.last);
        if frames.first().is_some_and(|frame| frame.first != head + 1) {
            return Err(StoreError::Gap);
        }
        let stored = self.streams.entry((host, stream)).or_default();
        stored.extend(frames.iter().map(|frame| Sealed {
            bytes: compact(&frame.bytes),
            ..frame.clone()
        }));
        Ok(Outcome::Done)
    }

    fn forget(&mut self, to: PeerId, from: PeerId) {
        if let Some(mailbox) = self.mailboxes.get_mut(&to) {
            mailbox.waiting.retain(|_, letter| letter.from != from);
            mailbox
                .known
                .retain(|(sender, _), known| *sender != from || matches!(known, Known::Taken(_)));
        }
    }
}

impl Mailbox {
    fn post(&mut self, key: i64, letter: Letter, now: Timestamp) -> Outcome {
        if self.known.contains_key(&(letter.from, letter.id)) {
            return Outcome::Again;
        }
        let live = self
            .waiting
            .values()
            .filter(|waiting| !is_over(waiting.not_after, now));
        let (count, bytes) = live.fold((0, 0), |(count, bytes), waiting| {
            (count + 1, bytes + waiting.bytes.len())
        });
        if count >= limits::MAILBOX_LETTERS || bytes + letter.bytes.len() > limits::MAILBOX_BYTES {
            return Outcome::Full;
        }
        self.known
            .insert((letter.from, letter.id), Known::Waiting(key));
        self.waiting.insert(key, letter);
        Outcome::Done
    }

    fn take(&mut self, from: PeerId, id: CommandId, until: Timestamp) {
        if let Some(known) = self.known.get_mut(&(from, id))
            && let Known::Waiting(key) = *known
        {
            self.waiting.remove(&key);
            *known = Known::Taken(until);
        }
    }

    /// Whether anything is left.
    fn prune(&mut self, now: Timestamp) -> bool {
        self.waiting
            .retain(|_, letter| !is_over(letter.not_after, now));
        let Self { waiting, known } = self;
        known.retain(|_, known| match known {
            Known::Waiting(key) => waiting.contains_key(key),
            Known::Taken(until) => now <= *until,
        });
        !known.is_empty()
    }
}

impl Blobs {
    fn keep(&mut self, name: [u8; 32], bytes: Bytes, quota: u64) -> Outcome {
        if self.by_name.contains_key(&name) {
            return Outcome::Again;
        }
        self.bytes += bytes.len() as u64;
        self.by_name.insert(name, bytes);
        self.oldest.push_back(name);
        while self.bytes > quota {
            let Some(oldest) = self.oldest.pop_front() else {
                break;
            };
            self.bytes -= self
                .by_name
                .remove(&oldest)
                .map_or(0, |blob| blob.len() as u64);
        }
        Outcome::Done
    }
}

impl Tables for Memory {
    fn id(&self) -> [u8; 16] {
        self.id
    }

    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Result<Outcome, StoreError>>, StoreError> {
        Ok(writes.iter().map(|write| self.write(write)).collect())
    }

    fn last(&mut self, host: PeerId, stream: StreamId) -> Result<Option<Sealed>, StoreError> {
        Ok(self.stream(host, stream).last().cloned())
    }

    fn holding(
        &mut self,
        host: PeerId,
        stream: StreamId,
        seq: u64,
    ) -> Result<Option<Sealed>, StoreError> {
        let frames = self.stream(host, stream);
        let at = frames.partition_point(|frame| frame.last < seq);
        Ok(frames.get(at).filter(|frame| frame.first <= seq).cloned())
    }

    fn after(
        &mut self,
        host: PeerId,
        stream: StreamId,
        after: u64,
        max_bytes: usize,
    ) -> Result<Vec<Sealed>, StoreError> {
        let frames = self.stream(host, stream);
        let at = frames.partition_point(|frame| frame.first <= after);
        let mut bytes = 0;
        Ok(frames[at..]
            .iter()
            .take_while(|frame| {
                let go = bytes < max_bytes;
                bytes += frame.bytes.len();
                go
            })
            .cloned()
            .collect())
    }

    fn before(
        &mut self,
        host: PeerId,
        stream: StreamId,
        before: u64,
        max_bytes: usize,
    ) -> Result<(Vec<Sealed>, bool), StoreError> {
        let frames = self.stream(host, stream);
        let end = frames.partition_point(|frame| frame.last < before);
        let begin = fitting(
            frames[..end].iter().rev().map(|frame| frame.bytes.len()),
            max_bytes,
        );
        Ok((frames[end - begin..end].to_vec(), begin < end))
    }

    fn members(&mut self, host: PeerId) -> Result<Option<(u64, Vec<PeerId>)>, StoreError> {
        Ok(self.members.get(&host).cloned())
    }

    fn letters(
        &mut self,
        to: PeerId,
        key: i64,
        max_bytes: usize,
    ) -> Result<Vec<Waiting>, StoreError> {
        let Some(mailbox) = self.mailboxes.get(&to) else {
            return Ok(Vec::new());
        };
        let mut bytes = 0;
        Ok(mailbox
            .waiting
            .range(key + 1..)
            .take_while(|(_, letter)| {
                let go = bytes < max_bytes;
                bytes += letter.bytes.len();
                go
            })
            .map(|(key, letter)| Waiting {
                key: *key,
                not_after: letter.not_after,
                bytes: letter.bytes.clone(),
            })
            .collect())
    }

    fn blob(&mut self, host: PeerId, name: [u8; 32]) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .blobs
            .get(&host)
            .and_then(|blobs| blobs.by_name.get(&name))
            .cloned())
    }
}

/// How many of `sizes` fit into `max_bytes`; the first always does.
pub(super) fn fitting(sizes: impl Iterator<Item = usize>, max_bytes: usize) -> usize {
    let mut bytes = 0;
    sizes
        .enumerate()
        .take_while(|(at, size)| {
            bytes += size;
            *at == 0 || bytes <= max_bytes
        })
        .count()
}

fn is_over(not_after: Timestamp, now: Timestamp) -> bool {
    not_after.0 != 0 && now > not_after
}

/// A copy that does not keep the rest of a read buffer alive.
fn compact(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
