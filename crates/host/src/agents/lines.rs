//! Bytes into lines, with a bound: a line that is too long is skipped without being kept.

/// The longest line that is read, without its newline.
pub const LONGEST_LINE: usize = 8 << 20;

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub struct Lines {
    longest: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A line is being collected.
    Collecting(Vec<u8>),
    /// The rest of a line that was too long passes by.
    Skipping {
        /// How much of it there was.
        bytes: u64,
    },
}

/// What a stream of bytes holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line, without its newline; bytes that are not UTF-8 are replaced.
    Line(String),
    /// A line that was too long.
    TooLong {
        /// How long it was.
        bytes: u64,
    },
}

impl Default for Lines {
    fn default() -> Self {
        Self::new(LONGEST_LINE)
    }
}

impl Lines {
    /// Lines of at most `longest` bytes.
    #[must_use]
    pub const fn new(longest: usize) -> Self {
        Self {
            longest,
            state: State::Collecting(Vec::new()),
        }
    }

    /// Takes in the next bytes and returns what they complete. Empty lines are left out.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            self.collect(&bytes[..at]);
            pieces.extend(self.complete());
            bytes = &bytes[at + 1..];
        }
        self.collect(bytes);
        pieces
    }

    /// The stream has ended; what was collected is the last line.
    pub fn finish(&mut self) -> Option<Piece> {
        self.complete()
    }

    fn collect(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Collecting(line) if line.len() + bytes.len() > self.longest => {
                self.state = State::Skipping {
                    bytes: (line.len() + bytes.len()) as u64,
                };
            }
            State::Collecting(line) => line.extend_from_slice(bytes),
            State::Skipping { bytes: skipped } => *skipped += bytes.len() as u64,
        }
    }

    fn complete(&mut self) -> Option<Piece> {
        match core::mem::replace(&mut self.state, State::Collecting(Vec::new())) {
            State::Collecting(line) if line.iter().all(u8::is_ascii_whitespace) => None,
            State::Collecting(line) => Some(Piece::Line(
                String::from_utf8(line)
                    .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            )),
            State::Skipping { bytes } => Some(Piece::TooLong { bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Piece {
        Piece::Line(text.to_owned())
    }

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        let bytes = b"one\r\n\ntwo\nthree";
        for cut in 0..bytes.len() {
            let mut lines = Lines::new(100);
            let mut pieces = lines.feed(&bytes[..cut]);
            pieces.extend(lines.feed(&bytes[cut..]));
            pieces.extend(lines.finish());
            assert_eq!(
                pieces,
                [line("one\r"), line("two"), line("three")],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_without_being_kept() {
        let mut lines = Lines::new(8);
        assert_eq!(lines.feed(b"12345678\n123456789"), [line("12345678")]);
        for _ in 0..1000 {
            assert_eq!(lines.feed(&[b'x'; 1000]), []);
        }
        assert!(matches!(lines.state, State::Skipping { bytes: 1_000_009 }));
        assert_eq!(
            lines.feed(b"\nnext\n"),
            [Piece::TooLong { bytes: 1_000_009 }, line("next")]
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(Lines::new(8).feed(b"a\xffb\n"), [line("a\u{fffd}b")]);
    }
}
