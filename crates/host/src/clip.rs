//! Keeps events small: long texts become a head, a tail and blobs; long diffs lose what did not
//! change.

use farhelm_core::ask::{Ask, Subject};
use farhelm_core::content::{BlobRef, Content, ToolPatch};
use farhelm_core::text::{clip, head, tail};

use crate::agents::LongString;

/// Longest text that stays in an event whole, in bytes.
const WHOLE: usize = 16 * 1024;
/// How much of each end of a longer one stays.
const END: usize = 4 * 1024;
/// Longest diff that stays in an event, both sides together.
const WHOLE_DIFF: usize = 48 * 1024;
/// Longest arguments of a tool that stay in an event.
const WHOLE_INPUT: usize = 32 * 1024;
/// Bytes in one blob before sealing.
const BLOB: usize = 256 * 1024;
/// Unchanged lines around a change that stay.
const CONTEXT: usize = 3;

/// Where what is cut goes.
pub(crate) struct Store<'a> {
    /// Seals a blob and says where it is.
    pub(crate) keep: &'a mut dyn FnMut(&[u8]) -> Option<BlobRef>,
    /// What is in blobs already.
    pub(crate) longs: &'a mut [Long],
}

/// A text that is in blobs already, because its line was too long to be held.
#[derive(Debug)]
pub(crate) struct Long {
    /// The text, and what stands for it.
    pub(crate) string: LongString,
    pub(crate) blobs: Vec<BlobRef>,
    /// Whether something shows it.
    pub(crate) is_shown: bool,
}

/// Shrinks what a tool call shows.
pub(crate) fn shrink_tool(mut tool: ToolPatch, store: &mut Store<'_>) -> ToolPatch {
    tool.content = tool.content.map(|content| shrink_all(content, store));
    tool.input = tool.input.map(|input| clip(&input, WHOLE_INPUT));
    tool.title = tool.title.map(|title| clip(&title, END));
    tool
}

/// Shrinks what a person is asked; what is left out is said, and the digest binds what is left.
pub(crate) fn shrink_ask(mut ask: Ask, store: &mut Store<'_>) -> Ask {
    ask.title = clip(&ask.title, END);
    ask.description = ask.description.map(|text| clip(&text, WHOLE));
    ask.subject = match ask.subject {
        Subject::Edit { content, input } => Subject::Edit {
            content: shrink_all(content, store),
            input: clip(&input, WHOLE_INPUT),
        },
        Subject::Tool {
            name,
            input,
            content,
        } => Subject::Tool {
            name,
            input: clip(&input, WHOLE_INPUT),
            content: shrink_all(content, store),
        },
        // A command is never cut: what is shown is what runs.
        same @ (Subject::Command { .. }
        | Subject::Plan { .. }
        | Subject::Questions { .. }
        | Subject::Form { .. }
        | Subject::Visit { .. }) => same,
    };
    ask
}

fn shrink_all(content: Vec<Content>, store: &mut Store<'_>) -> Vec<Content> {
    content
        .into_iter()
        .map(|piece| shrink(piece, store))
        .collect()
}

fn shrink(piece: Content, store: &mut Store<'_>) -> Content {
    match piece {
        Content::Text { text } if store.holds(&text) => spliced(&text, store),
        // Nobody can compare what is not held: what the file is to hold is shown.
        Content::Diff { old, new, .. }
            if store.holds(&new) || old.as_deref().is_some_and(|old| store.holds(old)) =>
        {
            spliced(&new, store)
        }
        Content::Text { text } if text.len() > WHOLE => clipped(&text, store),
        Content::Diff { path, old, new } if size(old.as_deref(), &new) > WHOLE_DIFF => {
            let (old, new) = changed_part(old.as_deref(), &new);
            if size(old.as_deref(), &new) <= WHOLE_DIFF {
                return Content::Diff { path, old, new };
            }
            let unified = similar::TextDiff::from_lines(old.as_deref().unwrap_or(""), &new)
                .unified_diff()
                .header(&path, &path)
                .to_string();
            clipped(&unified, store)
        }
        Content::Raw { json } => Content::Raw {
            json: clip(&json, WHOLE),
        },
        same @ (Content::Text { .. }
        | Content::Diff { .. }
        | Content::Clipped { .. }
        | Content::Image { .. }
        | Content::Link { .. }) => same,
    }
}

fn clipped(text: &str, store: &mut Store<'_>) -> Content {
    Content::Clipped {
        head: head(text, END).to_owned(),
        tail: tail(text, END).to_owned(),
        bytes: text.len() as u64,
        blobs: store.keep_all(text),
    }
}

/// A text in which something stands for what is in blobs already.
fn spliced(text: &str, store: &mut Store<'_>) -> Content {
    let (mut bytes, mut blobs) = (0, Vec::new());
    // What is between the ends of a long text here is not a part of it.
    let (mut head_until, mut tail_from, mut at) = (text.len(), 0, 0);
    while let Some((from, index)) = store.find(&text[at..]) {
        let before = &text[at..at + from];
        bytes += before.len() as u64;
        blobs.extend(store.keep_all(before));
        let long = &mut store.longs[index];
        long.is_shown = true;
        bytes += long.string.bytes;
        blobs.extend(long.blobs.iter().cloned());
        head_until = head_until.min(at + from + long.string.head.len());
        at += from + long.string.stand_in.len();
        tail_from = at - long.string.tail.len();
    }
    bytes += (text.len() - at) as u64;
    blobs.extend(store.keep_all(&text[at..]));
    Content::Clipped {
        head: head(&text[..head_until], END).to_owned(),
        tail: tail(&text[tail_from..], END).to_owned(),
        bytes,
        blobs,
    }
}

impl Store<'_> {
    /// Keeps a text in parts that are texts by themselves: none ends inside of a character.
    fn keep_all(&mut self, text: &str) -> Vec<BlobRef> {
        let mut rest = text;
        let pieces = std::iter::from_fn(|| {
            let piece = head(rest, BLOB);
            rest = &rest[piece.len()..];
            (!piece.is_empty()).then_some(piece.as_bytes())
        });
        pieces.filter_map(&mut *self.keep).collect()
    }

    /// Where something stands in this text for what is in blobs already, and for which.
    fn find(&self, text: &str) -> Option<(usize, usize)> {
        let longs = self.longs.iter().enumerate();
        let found = longs
            .filter_map(|(index, long)| text.find(&long.string.stand_in).map(|at| (at, index)));
        found.min()
    }

    fn holds(&self, text: &str) -> bool {
        self.find(text).is_some()
    }
}

fn size(old: Option<&str>, new: &str) -> usize {
    old.map_or(0, str::len) + new.len()
}

/// The lines that differ, with some context.
fn changed_part(old: Option<&str>, new: &str) -> (Option<String>, String) {
    let Some(old) = old else {
        return (None, new.to_owned());
    };
    let (before, after): (Vec<_>, Vec<_>) = (
        old.split_inclusive('\n').collect(),
        new.split_inclusive('\n').collect(),
    );
    let same_head = before
        .iter()
        .zip(&after)
        .take_while(|(a, b)| a == b)
        .count();
    let longest_tail = before.len().min(after.len()) - same_head;
    let same_tail = before
        .iter()
        .rev()
        .zip(after.iter().rev())
        .take(longest_tail)
        .take_while(|(a, b)| a == b)
        .count();
    let from = same_head.saturating_sub(CONTEXT);
    let cut = |lines: &[&str]| {
        let to = (lines.len() - same_tail + CONTEXT).min(lines.len());
        lines[from..to].concat()
    };
    (Some(cut(&before)), cut(&after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: &str, bytes: usize) -> BlobRef {
        BlobRef {
            name: name.to_owned(),
            epoch: 1,
            bytes: bytes as u64,
        }
    }

    #[test]
    fn f20_what_is_in_blobs_already_is_put_where_something_stands_for_it() {
        let long = |name: &str| Long {
            string: LongString {
                stand_in: format!("<{name} much {name}>"),
                head: format!("<{name}"),
                tail: format!("{name}>"),
                bytes: 1000,
                parts: 1,
            },
            blobs: vec![blob(name, 1000)],
            is_shown: false,
        };
        let mut longs = [long("out"), long("err"), long("no")];
        let text = |text: &str| Content::Text {
            text: text.to_owned(),
        };
        let diff = Content::Diff {
            path: "f".into(),
            old: Some("short".into()),
            new: "<out much out>".into(),
        };
        let tool = ToolPatch {
            content: Some(vec![text("a<err much err>b<out much out>"), diff]),
            ..ToolPatch::default()
        };
        let mut keep = |bytes: &[u8]| Some(blob("kept", bytes.len()));
        let mut store = Store {
            keep: &mut keep,
            longs: &mut longs,
        };
        let tool = shrink_tool(tool, &mut store);
        let clipped = |head: &str, tail: &str, bytes, blobs| Content::Clipped {
            head: head.into(),
            tail: tail.into(),
            bytes,
            blobs,
        };
        let (err, out) = (blob("err", 1000), blob("out", 1000));
        let all = vec![blob("kept", 1), err, blob("kept", 1), out.clone()];
        let expected = vec![
            clipped("a<err", "out>", 2002, all),
            clipped("<out", "out>", 1000, vec![out]),
        ];
        assert_eq!(tool.content, Some(expected));
        assert_eq!(longs.map(|long| long.is_shown), [true, true, false]);
    }

    #[test]
    fn f20_no_part_of_a_long_output_ends_inside_of_a_character() {
        let text = "€".repeat(BLOB);
        let mut kept = Vec::new();
        let mut keep = |bytes: &[u8]| {
            kept.push(bytes.to_vec());
            Some(blob("kept", bytes.len()))
        };
        let mut store = Store {
            keep: &mut keep,
            longs: &mut [],
        };
        let piece = Content::Text { text: text.clone() };
        assert_eq!(shrink_all(vec![piece], &mut store).len(), 1);
        assert!(kept.iter().all(|part| part.len() <= BLOB));
        let parts: Vec<_> = kept
            .iter()
            .map(|part| str::from_utf8(part).unwrap())
            .collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(parts.concat(), text);
    }

    #[test]
    fn a_long_output_keeps_its_ends_and_goes_into_blobs() {
        let text = "x".repeat(600 * 1024);
        let mut kept = Vec::new();
        let tool = ToolPatch {
            content: Some(vec![Content::Text { text }]),
            ..ToolPatch::default()
        };
        let mut keep = |bytes: &[u8]| {
            kept.push(bytes.len());
            Some(blob("kept", bytes.len()))
        };
        let tool = shrink_tool(
            tool,
            &mut Store {
                keep: &mut keep,
                longs: &mut [],
            },
        );
        let Some(
            [
                Content::Clipped {
                    bytes, blobs, head, ..
                },
            ],
        ) = tool.content.as_deref()
        else {
            panic!("clipped")
        };
        assert_eq!((*bytes, blobs.len(), head.len()), (600 * 1024, 3, END));
        assert_eq!(kept.iter().sum::<usize>(), 600 * 1024);
    }

    #[test]
    fn a_small_change_in_a_long_file_stays_a_diff() {
        let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}\n")).collect();
        let old = lines.concat();
        let new = old.replace("line 10000\n", "changed\n");
        let piece = Content::Diff {
            path: "f".into(),
            old: Some(old),
            new,
        };
        let Content::Diff {
            old: Some(old),
            new,
            ..
        } = shrink(
            piece,
            &mut Store {
                keep: &mut |_| None,
                longs: &mut [],
            },
        )
        else {
            panic!("a diff")
        };
        assert!(old.len() < 200 && new.contains("changed"));
        assert_eq!(old.lines().count(), new.lines().count());
    }
}
