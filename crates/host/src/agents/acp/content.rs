//! ACP's content blocks and tool calls as ours.

use farhelm_core::content::{Content, Location, ToolPatch, ToolStatus};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::agents::json::{brief, list, owned, small, text};

/// A content block.
pub(super) fn block(block: &Value) -> Content {
    match text(block, "type") {
        Some("text") => match owned(block, "text") {
            Some(text) => Content::Text { text },
            None => odd(block),
        },
        Some("resource_link") => match owned(block, "uri") {
            Some(uri) => Content::Link {
                name: owned(block, "name").unwrap_or_else(|| uri.clone()),
                uri,
            },
            None => odd(block),
        },
        Some("resource") => resource(block),
        Some("image" | "audio") => media(block),
        Some(_) | None => odd(block),
    }
}

fn odd(block: &Value) -> Content {
    Content::Raw { json: brief(block) }
}

/// An embedded file: its text if it has one.
fn resource(block: &Value) -> Content {
    let resource = block.get("resource").unwrap_or(&Value::Null);
    match (owned(resource, "text"), owned(resource, "uri")) {
        (Some(text), _) => Content::Text { text },
        (None, Some(uri)) => Content::Link {
            name: uri.clone(),
            uri,
        },
        (None, None) => odd(block),
    }
}

/// A picture or a sound: what it is, not the thing itself.
fn media(block: &Value) -> Content {
    let bytes = text(block, "data").map_or(0, |data| data.len() / 4 * 3);
    let json = serde_json::json!({"type": block.get("type"), "mimeType": block.get("mimeType"), "bytes": bytes});
    Content::Raw {
        json: json.to_string(),
    }
}

/// What a tool call shows.
fn shown(item: &Value) -> Option<Content> {
    match text(item, "type") {
        Some("content") => item.get("content").map(block),
        Some("diff") => match (owned(item, "path"), owned(item, "newText")) {
            (Some(path), Some(new)) => Some(Content::Diff {
                path,
                old: owned(item, "oldText"),
                new,
            }),
            (_, None) | (None, _) => Some(odd(item)),
        },
        // A terminal is the agent's; we offer none, so there is nothing to show of it.
        Some("terminal") => None,
        Some(_) | None => Some(odd(item)),
    }
}

/// A tool call, or what changed of one. `input` is its arguments as they came.
pub(super) fn tool(call: &Value, input: Option<&RawValue>) -> Option<ToolPatch> {
    let content = call.get("content").and_then(Value::as_array);
    let locations = call.get("locations").and_then(Value::as_array);
    Some(ToolPatch {
        id: owned(call, "toolCallId")?,
        title: owned(call, "title"),
        kind: owned(call, "kind"),
        status: text(call, "status").and_then(status),
        content: content.map(|items| items.iter().filter_map(shown).collect()),
        locations: locations.map(|places| places.iter().filter_map(location).collect()),
        input: input
            .map(RawValue::get)
            .filter(|input| !matches!(*input, "{}" | "null"))
            .map(str::to_owned),
        parent: None,
    })
}

fn status(status: &str) -> Option<ToolStatus> {
    match status {
        "pending" => Some(ToolStatus::Pending),
        "in_progress" => Some(ToolStatus::InProgress),
        "completed" => Some(ToolStatus::Completed),
        "failed" | "cancelled" => Some(ToolStatus::Failed),
        "rejected" => Some(ToolStatus::Rejected),
        _ => None,
    }
}

fn location(place: &Value) -> Option<Location> {
    Some(Location {
        path: owned(place, "path")?,
        line: small(place, "line"),
    })
}

/// What a tool put out, for a call that shows nothing else.
pub(super) fn output(call: &Value) -> Option<Content> {
    let output = call.get("rawOutput").filter(|output| !output.is_null())?;
    let plain = output.as_str().map(str::to_owned);
    let within = || {
        [
            "formatted_output",
            "output",
            "aggregated_output",
            "error",
            "content",
        ]
        .iter()
        .find_map(|key| owned(output, key))
    };
    let streams = || {
        let streams: Vec<_> = ["stdout", "stderr"]
            .iter()
            .filter_map(|key| text(output, key))
            .collect();
        (!streams.is_empty()).then(|| streams.concat())
    };
    let text = plain.or_else(within).or_else(streams);
    Some(text.map_or_else(|| odd(output), |text| Content::Text { text }))
}

/// The command of a call that runs one. Agents give a text, or the words.
pub(super) fn command(input: &Value) -> Option<String> {
    let command = input.get("command").or_else(|| input.get("cmd"))?;
    if let Some(line) = command.as_str() {
        return Some(line.to_owned());
    }
    let words: Option<Vec<&str>> = command.as_array()?.iter().map(Value::as_str).collect();
    words
        .filter(|words| !words.is_empty())
        .map(crate::agents::words::join)
}

/// Plan entries.
pub(super) fn plan(update: &Value) -> Vec<farhelm_core::event::PlanEntry> {
    list(update, "entries")
        .iter()
        .map(|entry| farhelm_core::event::PlanEntry {
            content: owned(entry, "content").unwrap_or_else(|| brief(entry)),
            status: owned(entry, "status").unwrap_or_else(|| "pending".to_owned()),
            priority: owned(entry, "priority"),
        })
        .collect()
}
