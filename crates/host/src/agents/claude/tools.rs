//! Claude Code's tools as calls that anybody can read.

use std::collections::BTreeMap;

use farhelm_core::content::{Content, Location, ToolPatch, ToolStatus};
use farhelm_core::event::PlanEntry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Value, brief, list, owned, text};
use crate::agents::json::small;

/// A call of a tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) name: String,
    /// Its arguments, as they came.
    pub(super) input: String,
    /// Its arguments.
    pub(super) value: Value,
    /// The call of the subagent that made it.
    pub(super) parent: Option<String>,
}

impl Call {
    pub(super) fn new(name: String, input: String, parent: Option<String>) -> Self {
        let value = serde_json::from_str(&input).unwrap_or_default();
        Self {
            name,
            input,
            value,
            parent,
        }
    }

    /// The call as it is first shown.
    pub(super) fn patch(&self, id: &str) -> ToolPatch {
        let content = self.changes(None);
        ToolPatch {
            id: id.to_owned(),
            title: Some(self.title()),
            kind: Some(self.kind().to_owned()),
            status: Some(ToolStatus::Pending),
            content: (!content.is_empty()).then_some(content),
            locations: self.file().map(|path| {
                vec![Location {
                    path: path.to_owned(),
                    line: small(&self.value, "offset"),
                }]
            }),
            input: (self.input != "{}").then(|| self.input.clone()),
            parent: self.parent.clone(),
        }
    }

    pub(super) fn is_edit(&self) -> bool {
        self.kind() == "edit"
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.name.as_str() {
            "Bash" | "BashOutput" | "KillShell" | "KillBash" | "PowerShell" => "execute",
            "Read" | "NotebookRead" | "LS" | "ReadMcpResource" => "read",
            "Write" | "Edit" | "MultiEdit" | "NotebookEdit" => "edit",
            "Glob" | "Grep" | "ToolSearch" => "search",
            "WebFetch" | "WebSearch" => "fetch",
            "Task" | "Agent" | "TodoWrite" | "AskUserQuestion" => "think",
            "EnterPlanMode" | "ExitPlanMode" => "switch_mode",
            _ => "other",
        }
    }

    /// The file that it is about.
    pub(super) fn file(&self) -> Option<&str> {
        ["file_path", "notebook_path", "path"]
            .iter()
            .find_map(|key| text(&self.value, key))
    }

    pub(super) fn title(&self) -> String {
        let first = |keys: &[&str]| keys.iter().find_map(|key| owned(&self.value, key));
        let question = || owned(list(&self.value, "questions").first()?, "question");
        let (prefixed, about) = match self.name.as_str() {
            "Bash" | "PowerShell" => (false, first(&["command"])),
            "AskUserQuestion" => (false, question()),
            "ExitPlanMode" => (false, Some("Plan".to_owned())),
            "Glob" | "Grep" => (true, first(&["pattern"])),
            "WebFetch" => (true, first(&["url"])),
            "WebSearch" | "ToolSearch" => (true, first(&["query"])),
            "Task" | "Agent" => (true, first(&["description", "prompt"])),
            _ => (true, self.file().map(str::to_owned)),
        };
        match about {
            Some(about) if prefixed => format!("{} {about}", self.name),
            Some(about) => about,
            None => self.name.clone(),
        }
    }

    /// The changes that it makes to files; `old` is what the file holds, where that is known.
    pub(super) fn changes(&self, old: Option<&str>) -> Vec<Content> {
        let Some(path) = self.file().filter(|_| self.is_edit()) else {
            return Vec::new();
        };
        let diff = |old: Option<String>, new: Option<String>| Content::Diff {
            path: path.to_owned(),
            old,
            new: new.unwrap_or_default(),
        };
        let edit = |edit: &Value| {
            diff(
                Some(owned(edit, "old_string").unwrap_or_default()),
                owned(edit, "new_string"),
            )
        };
        match self.name.as_str() {
            "Write" => vec![diff(old.map(str::to_owned), owned(&self.value, "content"))],
            "Edit" => vec![edit(&self.value)],
            "MultiEdit" => list(&self.value, "edits").iter().map(edit).collect(),
            // A cell; what it held is not said.
            _ => vec![diff(Some(String::new()), owned(&self.value, "new_source"))],
        }
    }

    /// What an edit shows once it is made, if that is more than before: a file that was written
    /// over is known only then.
    pub(super) fn settled(&self, result: Option<&Value>) -> Option<Vec<Content>> {
        let old = result.and_then(|result| text(result, "originalFile"))?;
        (self.name == "Write").then(|| self.changes(Some(old)))
    }
}

/// What a result shows.
pub(super) fn result(content: &Value) -> Vec<Content> {
    if let Some(text) = content.as_str() {
        return vec![Content::Text {
            text: text.to_owned(),
        }];
    }
    content
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(block)
        .collect()
}

fn block(block: &Value) -> Content {
    match (text(block, "type"), owned(block, "text")) {
        (Some("text"), Some(text)) => Content::Text { text },
        (Some("image"), _) => {
            let source = block.get("source").unwrap_or(&Value::Null);
            let bytes = text(source, "data").map_or(0, |data| data.len() / 4 * 3);
            let json = serde_json::json!({"type": "image", "mimeType": source.get("media_type"), "bytes": bytes});
            Content::Raw {
                json: json.to_string(),
            }
        }
        (Some(_) | None, _) => Content::Raw { json: brief(block) },
    }
}

/// The list of a `TodoWrite`.
pub(super) fn todos(input: &Value) -> Vec<PlanEntry> {
    list(input, "todos")
        .iter()
        .map(|todo| PlanEntry {
            content: owned(todo, "content").unwrap_or_else(|| brief(todo)),
            status: owned(todo, "status").unwrap_or_else(|| "pending".to_owned()),
            priority: owned(todo, "priority"),
        })
        .collect()
}

/// The arguments of the call in block `at` of a message, as they came.
pub(super) fn raw_input(message: &RawValue, at: usize) -> Option<String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(message.get()).ok()?;
    let blocks: Vec<&RawValue> = serde_json::from_str(members.get("content")?.get()).ok()?;
    let block: BTreeMap<String, &RawValue> = serde_json::from_str(blocks.get(at)?.get()).ok()?;
    Some(block.get("input")?.get().to_owned())
}
