//! Keeps events small: long texts become a head, a tail and blobs; long diffs lose what did not
//! change.

use farhelm_core::ask::{Ask, Subject};
use farhelm_core::content::{BlobRef, Content, ToolPatch};
use farhelm_core::text::{clip, head, tail};

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

/// Seals a blob and says where it is.
pub(crate) type Keep<'a> = dyn FnMut(&[u8]) -> Option<BlobRef> + 'a;

/// Shrinks what a tool call shows.
pub(crate) fn shrink_tool(mut tool: ToolPatch, keep: &mut Keep<'_>) -> ToolPatch {
    tool.content = tool.content.map(|content| shrink_all(content, keep));
    tool.input = tool.input.map(|input| clip(&input, WHOLE_INPUT));
    tool.title = tool.title.map(|title| clip(&title, END));
    tool
}

/// Shrinks what a person is asked; what is left out is said, and the digest binds what is left.
pub(crate) fn shrink_ask(mut ask: Ask, keep: &mut Keep<'_>) -> Ask {
    ask.title = clip(&ask.title, END);
    ask.description = ask.description.map(|text| clip(&text, WHOLE));
    ask.subject = match ask.subject {
        Subject::Edit { content, input } => Subject::Edit {
            content: shrink_all(content, keep),
            input: clip(&input, WHOLE_INPUT),
        },
        Subject::Tool {
            name,
            input,
            content,
        } => Subject::Tool {
            name,
            input: clip(&input, WHOLE_INPUT),
            content: shrink_all(content, keep),
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

fn shrink_all(content: Vec<Content>, keep: &mut Keep<'_>) -> Vec<Content> {
    content
        .into_iter()
        .map(|piece| shrink(piece, keep))
        .collect()
}

fn shrink(piece: Content, keep: &mut Keep<'_>) -> Content {
    match piece {
        Content::Text { text } if text.len() > WHOLE => clipped(&text, keep),
        Content::Diff { path, old, new } if size(old.as_deref(), &new) > WHOLE_DIFF => {
            let (old, new) = changed_part(old.as_deref(), &new);
            if size(old.as_deref(), &new) <= WHOLE_DIFF {
                return Content::Diff { path, old, new };
            }
            let unified = similar::TextDiff::from_lines(old.as_deref().unwrap_or(""), &new)
                .unified_diff()
                .header(&path, &path)
                .to_string();
            clipped(&unified, keep)
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

fn clipped(text: &str, keep: &mut Keep<'_>) -> Content {
    let blobs = text.as_bytes().chunks(BLOB).filter_map(keep).collect();
    Content::Clipped {
        head: head(text, END).to_owned(),
        tail: tail(text, END).to_owned(),
        bytes: text.len() as u64,
        blobs,
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

    #[test]
    fn a_long_output_keeps_its_ends_and_goes_into_blobs() {
        let text = "x".repeat(600 * 1024);
        let mut kept = Vec::new();
        let tool = ToolPatch {
            content: Some(vec![Content::Text { text }]),
            ..ToolPatch::default()
        };
        let tool = shrink_tool(tool, &mut |bytes| {
            kept.push(bytes.len());
            Some(BlobRef {
                name: String::new(),
                epoch: 1,
                bytes: bytes.len() as u64,
            })
        });
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
        } = shrink(piece, &mut |_| None)
        else {
            panic!("a diff")
        };
        assert!(old.len() < 200 && new.contains("changed"));
        assert_eq!(old.lines().count(), new.lines().count());
    }
}
