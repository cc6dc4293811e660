//! An event stream (`text/event-stream`), taken apart. Pure.

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// What it is called; empty for most.
    pub(super) name: String,
    pub(super) data: String,
}

/// What came of a stream and is no whole event yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    name: String,
    data: String,
}

/// An event is longer than any may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Events {
    /// Takes the next bytes, and gives the events that they complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > LONGEST {
                return Err(TooLong);
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                events.extend(self.take_line(String::from_utf8_lossy(&line).trim_end()));
            }
        }
        Ok(events)
    }

    fn take_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = Event {
                name: std::mem::take(&mut self.name),
                data: std::mem::take(&mut self.data),
            };
            return (!event.data.is_empty()).then_some(event);
        }
        match line.split_once(':') {
            Some(("data", value)) => self.data.push_str(value.trim_start()),
            Some(("event", value)) => value.trim_start().clone_into(&mut self.name),
            // A comment, or a field that nobody needs here.
            Some(_) | None => {}
        }
        None
    }
}

/// A frame in base64, and what is around it.
const LONGEST: usize = farhelm_proto::limits::FRAME_BYTES / 3 * 4 + 4096;

/// The names and data of the events that are in `bytes`, given in pieces; nothing when one is too
/// long. For the fuzz targets.
#[must_use]
pub fn bare<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<(String, String)>> {
    let mut events = Events::default();
    let mut found = Vec::new();
    for piece in pieces {
        let some = events.take(piece).ok()?;
        found.extend(some.into_iter().map(|event| (event.name, event.data)));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_are_cut() {
        let stream =
            b": comment\n\nevent: open\ndata: key\n\n:\n\ndata: AAAA\r\n\r\nid: 7\ndata:BB\n\n";
        for cut in 1..stream.len() {
            let mut events = Events::default();
            let all: Vec<_> = stream
                .chunks(cut)
                .flat_map(|piece| events.take(piece).unwrap())
                .map(|event| (event.name, event.data))
                .collect();
            let expected = [("open", "key"), ("", "AAAA"), ("", "BB")];
            assert_eq!(
                all,
                expected.map(|(name, data)| (name.to_owned(), data.to_owned()))
            );
        }
    }

    #[test]
    fn s12_an_event_without_an_end_is_given_up() {
        let mut events = Events::default();
        let piece = vec![b'x'; 100_000];
        let taken = (0..100).try_for_each(|_| events.take(&piece).map(drop));
        assert_eq!(taken, Err(TooLong));
    }
}
