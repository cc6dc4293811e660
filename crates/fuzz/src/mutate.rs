//! Makes malformed input out of valid: the same again from the same seed. And shapes that no
//! mutation of a few bytes comes to.

/// A row of numbers from a seed (splitmix64).
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; zero when that is zero.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % end).unwrap_or_default()
    }
}

/// The longest that a mutation makes.
const LONGEST: usize = 1 << 20;

/// Bends one of `valid`, in one to four ways.
#[must_use]
pub fn mutate(valid: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = valid
        .get(chance.below(valid.len()))
        .cloned()
        .unwrap_or_default();
    for _ in 0..=chance.below(4) {
        bend(&mut bytes, valid, chance);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn bend(bytes: &mut Vec<u8>, valid: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(bytes.len() + 1);
    let end = at + chance.below((bytes.len() - at).min(64) + 1);
    match chance.below(9) {
        0 => bytes.truncate(at),
        1 => {
            let more = chance.below(16) + 1;
            bytes.extend((0..more).map(|_| chance.next().to_be_bytes()[0]));
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
        }
        3 => drop(bytes.drain(at..end)),
        4 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        5 => {
            // The end of another in the place of its own.
            let other = valid
                .get(chance.below(valid.len()))
                .map_or(&[][..], Vec::as_slice);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[chance.below(other.len() + 1)..]);
        }
        6 => {
            // A length or number that lies.
            let lie = LIES[chance.below(LIES.len())];
            let end = (at + lie.len()).min(bytes.len());
            bytes.splice(at..end, lie.iter().copied());
        }
        7 => {
            let odd = ODD[chance.below(ODD.len())];
            bytes.splice(at..at, odd.iter().copied());
        }
        _ => number(bytes, at, chance),
    }
}

/// Another number in the place of the next that is written in digits.
fn number(bytes: &mut Vec<u8>, from: usize, chance: &mut Chance) {
    let Some(at) = bytes[from..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let at = from + at;
    let digits = bytes[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let other = NUMBERS[chance.below(NUMBERS.len())];
    bytes.splice(at..at + digits, other.bytes());
}

const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1.5",
    "1e308",
    "1e999",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "null",
    "\"x\"",
    "[]",
    "{}",
];

/// Bytes, lengths in four and eight bytes, heads of CBOR that claim much.
const LIES: &[&[u8]] = &[
    &[0],
    &[0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0, 0, 0, 0],
    &[0xff; 8],
    &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9a, 0x00, 0xff, 0xff, 0xff],
    &[0x5a, 0x7f, 0xff, 0xff, 0xff],
    &[0x9f],
    &[0xbf],
    &[0x5f],
    &[0xff, 0xff],
    &[0xf6],
    &[0xc0],
    &[0xdb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

/// Bytes that are not UTF-8, text that is odd.
const ODD: &[&[u8]] = &[
    b"\xff\xfe",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\0",
    b"\r\n",
    b"\n\n",
    b"\\ud800",
    b"\\u0000",
    "\u{202e}\u{200b}".as_bytes(),
    b"\"",
    b"\\",
    b"{",
    b"[",
    b"}",
    b"]",
    b",",
    b"null",
    b"!y\n",
    b"!n\n",
    b"!a\n",
    b"!c\n",
    b"!p\n",
    b"\n~",
];

/// How deep the deepest shapes are.
const DEEP: usize = 100_000;

/// Shapes that any decoder may meet: nothing, much of one byte, and what is nested very deeply.
#[must_use]
pub fn shapes() -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    all.extend([0, 0x20, 0x7f, 0x80, 0xff].map(|byte| vec![byte; DEEP]));
    // CBOR: arrays, maps, tags, strings without an end, each in the other.
    all.extend(
        [
            &b"\x81"[..],
            b"\xa1\x00",
            b"\xc1",
            b"\x9f",
            b"\xbf\x00",
            b"\x82\x08\x81",
            b"\xd8\x18\x81",
        ]
        .map(|of| of.repeat(DEEP)),
    );
    all.push([&[0x82, 0x08, 0x81, 0xa1, 0x18, 0x63][..], &[0x81; DEEP]].concat());
    all.push([&[0x82, 0x08, 0x81, 0xa1, 0x18, 0x63][..], &[0x9f; DEEP]].concat());
    // JSON and TOML.
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let open_only = open.repeat(DEEP);
        let whole = [&open_only, "1", &close.repeat(DEEP)].concat();
        all.push([&[0], open_only.as_bytes()].concat());
        all.push(whole.as_bytes().to_vec());
        all.push([&b"a = "[..], whole.as_bytes()].concat());
        let inside = |before: &str, after: &str| [before, &whole, after].concat().into_bytes();
        all.push(inside("\0{\"id\":1,\"result\":", "}"));
        all.push(inside("\0{\"type\":\"assistant\",\"message\":", "}"));
        all.push(inside("\u{f}{\"seq\":1,\"at\":5,\"event\":", "}"));
    }
    all.push([b"a.".repeat(DEEP), b"a = 1".to_vec()].concat());
    all
}

/// Deeply nested JSON of each kind that a first byte stands for.
#[must_use]
pub fn nested(kinds: u8) -> Vec<Vec<u8>> {
    let of = |unit: &str| {
        (0..kinds)
            .map(|kind| [&[kind], unit.repeat(DEEP).as_bytes()].concat())
            .collect::<Vec<_>>()
    };
    [of("["), of("{\"a\":")].concat()
}
