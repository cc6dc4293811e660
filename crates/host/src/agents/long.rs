//! A line that is too long to be held: its long strings come out in parts while it goes by, and
//! what stays is a line of the usual size, with something shorter in the place of each.
//!
//! This reads no more of JSON than where strings begin and end, and how they are escaped. A line
//! that is not JSON comes out as another that is not.

use sha2::{Digest as _, Sha256};

use farhelm_core::text::{head, hex, tail};

use super::lines::Piece;

/// The longest string that stays in the line, in bytes as they came.
const SHORT: usize = 64 << 10;
/// Bytes of one part, about.
const PART: usize = 256 << 10;
/// How much of each end of a long string stays in the line.
const END: usize = 4 << 10;

/// A string that was too long to stay in its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongString {
    /// What stands in its place: its ends, its size and its digest.
    pub stand_in: String,
    /// How it begins.
    pub head: String,
    /// How it ends.
    pub tail: String,
    /// Its size.
    pub bytes: u64,
    /// In how many parts it came.
    pub parts: usize,
}

/// A line from which long strings are taken while it goes by.
#[derive(Debug, Default)]
pub(super) struct LongLine {
    bytes: u64,
    /// The line, without its long strings.
    rest: Vec<u8>,
    place: Place,
    strings: Vec<LongString>,
}

#[derive(Debug, Default)]
enum Place {
    /// Between strings.
    #[default]
    Outside,
    /// In a string that may be short: where its inside begins in the rest, and whether the next
    /// byte is escaped.
    Inside { from: usize, escaped: bool },
    /// In a long one.
    Long(Box<Decoder>),
}

impl LongLine {
    /// Takes the next bytes of the line, with the parts of strings that they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], pieces: &mut Vec<Piece>) {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let taken = match &mut self.place {
                Place::Outside => {
                    let quote = bytes.iter().position(|byte| *byte == b'"');
                    let taken = quote.map_or(bytes.len(), |at| at + 1);
                    self.rest.extend_from_slice(&bytes[..taken]);
                    if quote.is_some() {
                        let from = self.rest.len();
                        let escaped = false;
                        self.place = Place::Inside { from, escaped };
                    }
                    taken
                }
                Place::Inside { from, escaped } => {
                    let from = *from;
                    let end = inside(bytes, escaped);
                    let taken = end.map_or(bytes.len(), |at| at + 1);
                    self.rest
                        .extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
                    if self.rest.len() - from > SHORT {
                        let mut decoder = Decoder::default();
                        decoder.feed(&self.rest[from..], pieces);
                        self.rest.truncate(from);
                        self.place = Place::Long(Box::new(decoder));
                        // The quote is the decoder's to find.
                        bytes = &bytes[end.unwrap_or(bytes.len())..];
                        continue;
                    }
                    if end.is_some() {
                        self.rest.push(b'"');
                        self.place = Place::Outside;
                    }
                    taken
                }
                Place::Long(decoder) => {
                    let (taken, is_over) = decoder.feed(bytes, pieces);
                    if is_over {
                        let string = decoder.finish(pieces);
                        let quoted = serde_json::to_vec(&string.stand_in).unwrap_or_default();
                        self.rest
                            .extend_from_slice(quoted.get(1..).unwrap_or_default());
                        self.strings.push(string);
                        self.place = Place::Outside;
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
    }

    /// How long the line is so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is held of it.
    pub(super) fn held(&self) -> usize {
        self.rest.len()
    }

    /// The line is complete. Within a string it is not JSON, and comes out as it is.
    pub(super) fn finish(self) -> Piece {
        Piece::LongLine {
            line: super::lines::text(self.rest),
            strings: self.strings,
        }
    }
}

/// Where a string ends in these bytes, if it does.
fn inside(bytes: &[u8], escaped: &mut bool) -> Option<usize> {
    let mut at = 0;
    if *escaped && !bytes.is_empty() {
        *escaped = false;
        at = 1;
    }
    loop {
        at += special(bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        if at + 1 == bytes.len() {
            *escaped = true;
        }
        at += 2;
    }
}

/// The next quote or backslash.
fn special(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'))
}

/// The inside of a long string: unescaped, and cut into parts.
#[derive(Debug, Default)]
struct Decoder {
    escape: Escape,
    /// The first half of a character that is escaped in two.
    half: Option<u16>,
    /// What is not in a part yet.
    text: Vec<u8>,
    head: String,
    tail: String,
    bytes: u64,
    parts: usize,
    digest: Sha256,
}

#[derive(Debug, Default)]
enum Escape {
    #[default]
    None,
    /// After the backslash.
    Begun,
    /// In the four digits of a code unit.
    Unit { digits: u8, unit: u16 },
}

impl Decoder {
    /// Takes bytes up to the closing quote; how many those were, and whether it was there.
    fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> (usize, bool) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.escape {
                Escape::None => {
                    let end = special(&bytes[at..]).map_or(bytes.len(), |found| at + found);
                    self.push(&bytes[at..end], pieces);
                    at = end;
                    match bytes.get(at) {
                        Some(b'"') => return (at + 1, true),
                        Some(_) => self.escape = Escape::Begun,
                        None => break,
                    }
                }
                Escape::Begun if *byte == b'u' => {
                    self.escape = Escape::Unit { digits: 0, unit: 0 };
                }
                Escape::Begun => {
                    self.escape = Escape::None;
                    let plain = match byte {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'b' => 8,
                        b'f' => 12,
                        // The others stand for themselves.
                        other => *other,
                    };
                    self.push(&[plain], pieces);
                }
                Escape::Unit { digits, unit } => {
                    let digit = char::from(*byte).to_digit(16).unwrap_or_default();
                    let unit = unit << 4 | u16::try_from(digit).unwrap_or_default();
                    self.escape = if digits == 3 {
                        self.push_unit(unit, pieces);
                        Escape::None
                    } else {
                        let digits = digits + 1;
                        Escape::Unit { digits, unit }
                    };
                }
            }
            at += 1;
        }
        (bytes.len(), false)
    }

    fn push_unit(&mut self, unit: u16, pieces: &mut Vec<Piece>) {
        let units = self.half.take().into_iter().chain([unit]);
        if (0xD800..0xDC00).contains(&unit) {
            if units.count() == 2 {
                self.push_char(char::REPLACEMENT_CHARACTER, pieces);
            }
            self.half = Some(unit);
            return;
        }
        for found in char::decode_utf16(units) {
            self.push_char(found.unwrap_or(char::REPLACEMENT_CHARACTER), pieces);
        }
    }

    fn push_char(&mut self, found: char, pieces: &mut Vec<Piece>) {
        self.push(found.encode_utf8(&mut [0; 4]).as_bytes(), pieces);
    }

    fn push(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) {
        if bytes.is_empty() {
            return;
        }
        if self.half.take().is_some() {
            self.push_char(char::REPLACEMENT_CHARACTER, pieces);
        }
        self.text.extend_from_slice(bytes);
        while self.text.len() > PART {
            // Characters stay whole.
            let is_middle = |at: &usize| self.text[*at] & 0b1100_0000 == 0b1000_0000;
            let cut = (PART - 3..=PART).rev().find(|at| !is_middle(at));
            let rest = self.text.split_off(cut.unwrap_or(PART));
            self.give(rest, pieces);
        }
    }

    /// Gives the text away as a part, and goes on with `rest`.
    fn give(&mut self, rest: Vec<u8>, pieces: &mut Vec<Piece>) {
        let part = super::lines::text(std::mem::replace(&mut self.text, rest));
        if self.parts == 0 {
            head(&part, END).clone_into(&mut self.head);
        }
        self.tail.push_str(tail(&part, END));
        self.tail = tail(&self.tail, END).to_owned();
        self.bytes += part.len() as u64;
        self.parts += 1;
        self.digest.update(part.as_bytes());
        pieces.push(Piece::Part(part));
    }

    fn finish(&mut self, pieces: &mut Vec<Piece>) -> LongString {
        if self.half.take().is_some() {
            self.push_char(char::REPLACEMENT_CHARACTER, pieces);
        }
        self.give(Vec::new(), pieces);
        let digest = hex(&std::mem::take(&mut self.digest).finalize());
        let (head, tail) = (
            std::mem::take(&mut self.head),
            std::mem::take(&mut self.tail),
        );
        LongString {
            stand_in: format!(
                "{head}\n… {} bytes in all, SHA-256 {digest} …\n{tail}",
                self.bytes
            ),
            head,
            tail,
            bytes: self.bytes,
            parts: self.parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a line comes out as: what stays of it, its strings, and all the parts.
    fn taken(line: &[u8], step: usize) -> (String, Vec<LongString>, Vec<String>) {
        let mut long = LongLine::default();
        let mut pieces = Vec::new();
        for bytes in line.chunks(step) {
            long.feed(bytes, &mut pieces);
        }
        assert_eq!(long.bytes(), line.len() as u64);
        let part = |piece| {
            let Piece::Part(part) = piece else {
                panic!("{piece:?}")
            };
            part
        };
        let parts = pieces.into_iter().map(part).collect();
        let Piece::LongLine { line, strings } = long.finish() else {
            panic!("a line")
        };
        (line, strings, parts)
    }

    #[test]
    fn f20_long_strings_come_out_in_parts_however_the_line_is_cut() {
        let odd = "añ😀\"\\/\n\t\r\u{8}\u{c}\u{1}";
        let long = odd.repeat(40_000);
        let other = "y".repeat(SHORT + 1);
        let whole = json!({"a": long, odd: [odd, other, 1.5, "x".repeat(SHORT)], "z": null});
        let line = whole.to_string();
        for step in [1, 7, 65_536, line.len()] {
            let (rest, strings, parts) = taken(line.as_bytes(), step);
            assert!(parts.iter().all(|part| part.len() <= PART));
            let [first, second] = &strings[..] else {
                panic!("{}", strings.len())
            };
            assert!(parts[..first.parts].concat() == long, "step {step}");
            assert!(parts[first.parts..].concat() == other, "step {step}");
            assert_eq!(first.bytes, long.len() as u64);
            assert!(long.starts_with(&first.head) && long.ends_with(&first.tail));
            assert!(first.head.len() > END - 4 && first.tail.len() > END - 4);
            let read: Value = serde_json::from_str(&rest).unwrap();
            let expected = json!({
                "a": first.stand_in, odd: [odd, second.stand_in, 1.5, "x".repeat(SHORT)], "z": null
            });
            assert!(read == expected, "step {step}");
            assert!(rest.len() < 100_000);
        }
    }

    #[test]
    fn escapes_are_read_as_json_reads_them_and_broken_ones_are_replaced() {
        let fill = "x".repeat(SHORT);
        let table = [
            (r"\ud83d\ude00\u00e9\u0041", "😀éA"),
            (r"\ud83dA", "\u{fffd}A"),
            (r"\ude00\ud83d\ud83d\ude00", "\u{fffd}\u{fffd}😀"),
            (r"\ud83d", "\u{fffd}"),
        ];
        for (escaped, expected) in table {
            let line = format!(r#"["{fill}{escaped}"]"#);
            for step in [1, 5, line.len()] {
                let (_, strings, parts) = taken(line.as_bytes(), step);
                assert_eq!(strings.len(), 1);
                assert!(
                    parts.concat().ends_with(&format!("x{expected}")),
                    "{escaped}"
                );
            }
        }
        let mut line = [b"[\"", fill.as_bytes(), b"\xff\"]"].concat();
        let (rest, strings, parts) = taken(&line, 1000);
        assert_eq!(strings[0].bytes, (SHORT + 3) as u64);
        assert!(parts[0].ends_with("x\u{fffd}"));
        assert!(serde_json::from_str::<Value>(&rest).is_ok());
        line.truncate(SHORT + 2);
        let (rest, ..) = taken(&line, 1000);
        assert!(serde_json::from_str::<Value>(&rest).is_err());
    }

    #[test]
    fn strings_that_differ_in_the_middle_do_not_stand_in_for_each_other() {
        let ends = "x".repeat(SHORT);
        let line = json!([format!("{ends}a{ends}"), format!("{ends}b{ends}")]).to_string();
        let (_, strings, _) = taken(line.as_bytes(), 1000);
        assert_ne!(strings[0].stand_in, strings[1].stand_in);
        assert_eq!(strings[0].head, strings[1].head);
    }
}
