//! `output`: what a tool put out, whole or a part of it; only the pieces that are needed are
//! fetched.

use std::ops::Range;

use farhelm_core::content::{BlobRef, Content, ToolPatch};
use farhelm_core::event::Event;
use farhelm_proto::{Code, SessionId};

use super::Context;
use super::sessions::find;
use crate::failure::Failure;
use crate::output;
use crate::render::visible;
use crate::station::{Piece, Station};

pub(super) async fn run(
    context: &Context,
    wanted: &str,
    tool: &str,
    range: Option<&str>,
) -> Result<(), Failure> {
    let station = context.station().await?;
    let session = find(&station, wanted).await?;
    let tool = find_tool(&station, session, tool).await?;
    let parts = parts(&tool);
    let all: u64 = parts.iter().map(Part::bytes).sum();
    let range = parse(range.unwrap_or("-"), all)?;
    let is_raw = !context.json && !output::is_terminal();
    let mut text = Vec::new();
    let mut at = 0;
    for part in &parts {
        let end = at + part.bytes();
        if at < range.end && end > range.start {
            let bytes = match part {
                Part::Here(text) => text.as_bytes().to_vec(),
                Part::Blob(blob) => station.blob(session, blob).await?,
            };
            let begin = usize::try_from(range.start.saturating_sub(at)).unwrap_or(0);
            let stop = usize::try_from(range.end.min(end) - at).unwrap_or(0);
            let wanted = bytes.get(begin..stop.min(bytes.len())).unwrap_or_default();
            if is_raw {
                output::raw(wanted);
            } else {
                text.extend_from_slice(wanted);
            }
        }
        at = end;
    }
    if context.json {
        output::json(&serde_json::json!({
            "tool": tool.id, "bytes": all, "from": range.start, "to": range.end,
            "text": String::from_utf8_lossy(&text),
        }));
    } else if !is_raw {
        output::print(&visible(&String::from_utf8_lossy(&text)));
    }
    Ok(())
}

/// A part of an output, in order.
enum Part {
    Here(String),
    Blob(BlobRef),
}

impl Part {
    fn bytes(&self) -> u64 {
        match self {
            Self::Here(text) => text.len() as u64,
            Self::Blob(blob) => blob.bytes,
        }
    }
}

fn parts(tool: &ToolPatch) -> Vec<Part> {
    let mut parts = Vec::new();
    for content in tool.content.iter().flatten() {
        match content {
            Content::Text { text } => parts.push(Part::Here(text.clone())),
            Content::Clipped { blobs, .. } | Content::Image { blobs, .. } => {
                parts.extend(blobs.iter().cloned().map(Part::Blob));
            }
            Content::Diff { new, .. } => parts.push(Part::Here(new.clone())),
            Content::Raw { json } => parts.push(Part::Here(json.clone())),
            Content::Link { uri, .. } => parts.push(Part::Here(uri.clone())),
        }
    }
    parts
}

/// The tool call of that id, or whose id ends so, as its log leaves it.
async fn find_tool(
    station: &Station,
    session: SessionId,
    wanted: &str,
) -> Result<ToolPatch, Failure> {
    let mut log = station.log(session, 1, false).await?;
    let mut tools: Vec<ToolPatch> = Vec::new();
    while let Some(piece) = log.next().await? {
        match piece {
            Piece::Record(record) => {
                let Event::ToolUpdated { tool } = record.event else {
                    continue;
                };
                if !tool.id.ends_with(wanted) {
                    continue;
                }
                match tools.iter_mut().find(|known| known.id == tool.id) {
                    Some(known) => known.absorb(&tool),
                    None => tools.push(tool),
                }
            }
            Piece::Live(_) | Piece::Limited { .. } => {}
            Piece::CaughtUp => break,
        }
    }
    if let Some(at) = tools.iter().position(|tool| tool.id == wanted) {
        return Ok(tools.swap_remove(at));
    }
    match (tools.pop(), tools.len()) {
        (Some(tool), 0) => Ok(tool),
        (Some(_), more) => Err(Failure::new(
            Code::Ambiguous,
            format!(
                "{} tool calls end in {wanted}; give more of its id",
                more + 1
            ),
        )),
        (None, _) => Err(Failure::new(
            Code::NotFound,
            format!("no tool call of this session is named {wanted}; `farhelm log` has their ids"),
        )),
    }
}

/// Reads `A-B`: the bytes from A up to before B; either may be left out.
fn parse(text: &str, all: u64) -> Result<Range<u64>, Failure> {
    let usage = || {
        Failure::new(
            Code::BadCommand,
            format!("{text} is no range; write the bytes from A up to B as A-B, A- or -B"),
        )
    };
    let (from, to) = text.split_once('-').ok_or_else(usage)?;
    let number = |text: &str, absent: u64| match text {
        "" => Ok(absent),
        text => text.parse().map_err(|_| usage()),
    };
    let (from, to) = (number(from, 0)?, number(to, all)?.min(all));
    Ok(from.min(to)..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_what_there_is() {
        let table = [
            ("-", Some(0..100)),
            ("10-20", Some(10..20)),
            ("90-", Some(90..100)),
            ("-5", Some(0..5)),
            ("50-1000", Some(50..100)),
            ("200-300", Some(100..100)),
            ("7", None),
            ("a-b", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text, 100).ok(), expected, "{text}");
        }
    }
}
