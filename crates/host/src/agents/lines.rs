//! Bytes into lines, with bounds: of a line that is too long to be held its long strings are passed
//! on in parts while it goes by, and one that is longer still is skipped.

use super::long::{LongLine, LongString};

/// The longest line that is held, without its newline.
pub const LONGEST_LINE: usize = 8 << 20;
/// The longest line that is read, without its newline.
pub const LONGEST_IN_PARTS: u64 = 256 << 20;

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub struct Lines {
    longest: usize,
    longest_in_parts: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A line is being collected.
    Collecting(Vec<u8>),
    /// One that is too long to be held goes by.
    Parting(Box<LongLine>),
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
    /// A part of a string of a line that is too long to be held, of about 256 KiB. Those of one
    /// string follow each other.
    Part(String),
    /// What stays of such a line, after the parts of its strings.
    LongLine {
        /// The line, with something shorter in the place of each long string.
        line: String,
        /// Those strings, in order.
        strings: Vec<LongString>,
    },
    /// A line that was too long. Parts that came of it are nobody's.
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
    /// Lines of which at most `longest` bytes are held.
    #[must_use]
    pub const fn new(longest: usize) -> Self {
        Self {
            longest,
            longest_in_parts: LONGEST_IN_PARTS,
            state: State::Collecting(Vec::new()),
        }
    }

    /// Takes in the next bytes and returns what they complete. Empty lines are left out.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            self.collect(&bytes[..at], &mut pieces);
            pieces.extend(self.complete());
            bytes = &bytes[at + 1..];
        }
        self.collect(bytes, &mut pieces);
        pieces
    }

    /// The stream has ended; what was collected is the last line.
    pub fn finish(&mut self) -> Option<Piece> {
        self.complete()
    }

    fn collect(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) {
        match &mut self.state {
            State::Collecting(line) if line.len() + bytes.len() > self.longest => {
                let mut long = Box::new(LongLine::default());
                long.feed(line, pieces);
                self.state = State::Parting(long);
                self.collect(bytes, pieces);
            }
            State::Collecting(line) => line.extend_from_slice(bytes),
            State::Parting(long) => {
                long.feed(bytes, pieces);
                let bytes = long.bytes();
                if long.held() > self.longest || bytes > self.longest_in_parts {
                    self.state = State::Skipping { bytes };
                }
            }
            State::Skipping { bytes: skipped } => *skipped += bytes.len() as u64,
        }
    }

    fn complete(&mut self) -> Option<Piece> {
        match core::mem::replace(&mut self.state, State::Collecting(Vec::new())) {
            State::Collecting(line) if line.iter().all(u8::is_ascii_whitespace) => None,
            State::Collecting(line) => Some(Piece::Line(text(line))),
            State::Parting(long) => Some(long.finish()),
            State::Skipping { bytes } => Some(Piece::TooLong { bytes }),
        }
    }
}

/// Bytes as text; those that are not UTF-8 are replaced.
pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
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
    fn f20_a_line_that_is_too_long_comes_in_parts_if_its_strings_are_what_is_long() {
        let mut lines = Lines::new(100);
        let long = "x".repeat(1 << 20);
        let said = format!("{{\"a\":\"{long}\"}}\n{{\"b\":1}}\n");
        let mut pieces = Vec::new();
        for bytes in said.as_bytes().chunks(1000) {
            pieces.extend(lines.feed(bytes));
        }
        assert_eq!(pieces.pop(), Some(line("{\"b\":1}")));
        // The ends of the string are more than such a short line may have.
        assert!(matches!(pieces.pop(), Some(Piece::TooLong { bytes }) if bytes == (1 << 20) + 8));
        let mut lines = Lines::new(10_000);
        let mut parts = String::new();
        for piece in lines.feed(said.as_bytes()) {
            match piece {
                Piece::Part(part) => parts.push_str(&part),
                Piece::LongLine { line, strings } => {
                    assert_eq!(
                        line,
                        format!("{{\"a\":{}}}", serde_json::json!(strings[0].stand_in))
                    );
                    assert_eq!(strings[0].parts, 4);
                }
                other @ (Piece::Line(_) | Piece::TooLong { .. }) => {
                    assert_eq!(other, self::line("{\"b\":1}"));
                }
            }
        }
        assert!(parts == long);
    }

    #[test]
    fn f20_a_line_beyond_all_bounds_is_skipped() {
        let mut lines = Lines::new(8);
        lines.longest_in_parts = 4 << 20;
        assert_eq!(lines.feed(b"\""), []);
        let parts: usize = (0..10).map(|_| lines.feed(&[b'x'; 1 << 20]).len()).sum();
        assert_eq!(parts, 15);
        assert!(matches!(lines.state, State::Skipping { .. }));
        let bytes = (10 << 20) + 1;
        assert_eq!(lines.feed(b"\n"), [Piece::TooLong { bytes }]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(Lines::new(8).feed(b"a\xffb\n"), [line("a\u{fffd}b")]);
    }
}
