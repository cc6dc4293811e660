//! The tools that a request offers, and which of them an action of the script becomes.
//!
//! Every agent names its tools and their arguments differently. An action becomes a call of the first
//! known tool on offer, and its arguments are renamed to those in that tool's JSON schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::scenario::Action;

/// The tools on offer, by name.
#[derive(Debug, Default)]
pub(crate) struct Tools(BTreeMap<String, Tool>);

/// One tool on offer.
#[derive(Debug, Default)]
pub(crate) struct Tool {
    /// The JSON schema of its arguments.
    pub(crate) schema: Value,
    /// It takes a text instead of arguments (OpenAI's custom tools).
    pub(crate) freeform: bool,
}

/// A tool call.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) input: Input,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Input {
    Arguments(Value),
    Freeform(String),
}

impl Input {
    /// The arguments, for vendors that have no freeform tools.
    pub(crate) fn into_arguments(self) -> Value {
        match self {
            Self::Arguments(arguments) => arguments,
            Self::Freeform(text) => json!({ "input": text }),
        }
    }
}

impl Tools {
    pub(crate) fn insert(&mut self, name: &str, tool: Tool) {
        self.0.insert(name.to_owned(), tool);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The call that `action` becomes; paths are made absolute with `cwd`.
    pub(crate) fn resolve(&self, action: &Action, cwd: Option<&str>) -> Call {
        let absolute = |path: &str| match cwd {
            Some(cwd) if !path.starts_with('/') => format!("{}/{path}", cwd.trim_end_matches('/')),
            Some(_) | None => path.to_owned(),
        };
        match action {
            Action::Write { path, content } => {
                let path = absolute(path);
                self.call(&WRITE, json!({"file_path": path, "content": content}))
                    .or_else(|| self.patch(&added(&path, content)))
                    .unwrap_or_else(|| {
                        let (path, content) = (quoted(&path), quoted(content));
                        self.shell(&format!("printf %s {content} > {path}"), false)
                    })
            }
            Action::Edit { path, old, new } => {
                let path = absolute(path);
                let arguments = json!({
                    "file_path": path, "old_string": old, "new_string": new,
                    "instruction": "Replace the text.",
                });
                self.call(&EDIT, arguments)
                    .or_else(|| self.patch(&updated(&path, old, new)))
                    .unwrap_or_else(|| {
                        let script = quoted(&format!("s/{old}/{new}/"));
                        self.shell(&format!("sed -i {script} {}", quoted(&path)), false)
                    })
            }
            Action::Read { path } => {
                let path = absolute(path);
                self.call(&READ, json!({ "file_path": path }))
                    .unwrap_or_else(|| self.shell(&format!("cat {}", quoted(&path)), false))
            }
            Action::Shell { command, escalate } => self.shell(command, *escalate),
            Action::Ask {
                question,
                header,
                choices,
            } => self.or_missing(&ASK, ask(question, header, choices)),
            Action::Todo(items) => self.or_missing(&TODO, todo(items)),
            Action::Subagent(prompt) => self.subagent(prompt),
            Action::Exact { tool, input } => Call {
                name: tool.clone(),
                input: Input::Arguments(input.clone()),
            },
        }
    }

    fn shell(&self, command: &str, escalate: bool) -> Call {
        let mut arguments = json!({"command": command, "description": "Run a command"});
        if escalate {
            arguments["sandbox_permissions"] = "require_escalated".into();
            arguments["justification"] = "The script wants this outside the sandbox.".into();
        }
        self.or_missing(&SHELL, arguments)
    }

    /// Agents call their general helper by different names. It is to report before the turn goes
    /// on: Claude Code's works in the background unless told otherwise.
    fn subagent(&self, prompt: &str) -> Call {
        let kind = if self.0.contains_key("task") {
            "general"
        } else {
            "general-purpose"
        };
        self.or_missing(
            &SUBAGENT,
            json!({
                "description": "Part of the work", "prompt": prompt,
                "subagent_type": kind, "agent_name": "generalist", "run_in_background": false,
            }),
        )
    }

    fn patch(&self, patch: &str) -> Option<Call> {
        let tool = self.0.get("apply_patch")?;
        let input = if tool.freeform {
            Input::Freeform(patch.to_owned())
        } else {
            let key = if tool.schema["properties"]["patchText"].is_object() {
                "patchText"
            } else {
                "input"
            };
            Input::Arguments(json!({ key: patch }))
        };
        let name = "apply_patch".to_owned();
        Some(Call { name, input })
    }

    /// A call of the first of `names` on offer.
    fn call(&self, names: &[&str], arguments: Value) -> Option<Call> {
        let (name, tool) = names.iter().find_map(|name| self.0.get_key_value(*name))?;
        Some(Call {
            name: name.clone(),
            input: Input::Arguments(fitted(arguments, &tool.schema)),
        })
    }

    fn or_missing(&self, names: &[&str], arguments: Value) -> Call {
        self.call(names, arguments)
            .unwrap_or_else(|| missing(names[0]))
    }
}

/// A call that every agent refuses, which shows in the transcript what was wanted.
fn missing(wanted: &str) -> Call {
    Call {
        name: "no_such_tool".to_owned(),
        input: Input::Arguments(json!({ "wanted": wanted })),
    }
}

/// `arguments` under the names that `schema` declares: known synonyms are renamed, unknown ones
/// dropped, and required ones that are missing get something of the right type.
fn fitted(arguments: Value, schema: &Value) -> Value {
    let (Value::Object(given), Some(declared)) = (&arguments, schema["properties"].as_object())
    else {
        return arguments;
    };
    let mut out = Map::new();
    for (key, value) in given {
        if let Some(name) = declared_name(key, declared) {
            out.insert(name.to_owned(), shaped(key, value, &declared[name]));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if let Some(name) = name.as_str()
            && !out.contains_key(name)
        {
            out.insert(name.to_owned(), placeholder(&schema["properties"][name]));
        }
    }
    Value::Object(out)
}

/// The name under which `declared` knows the argument `key`, if it does.
fn declared_name<'a>(key: &'a str, declared: &Map<String, Value>) -> Option<&'a str> {
    if declared.contains_key(key) {
        return Some(key);
    }
    SYNONYMS
        .iter()
        .filter(|group| group.contains(&key))
        .flat_map(|group| group.iter().copied())
        .find(|name| declared.contains_key(*name))
}

/// `value` made a list where `schema` wants one, and its items fitted.
fn shaped(key: &str, value: &Value, schema: &Value) -> Value {
    if kind(schema) != "array" {
        return value.clone();
    }
    if let Some(items) = value.as_array() {
        let fit = |item: &Value| fitted(item.clone(), &schema["items"]);
        items.iter().map(fit).collect()
    } else if key == "command" {
        json!(["bash", "-lc", value])
    } else {
        json!([value])
    }
}

fn placeholder(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match kind(schema).as_str() {
        "boolean" => json!(false),
        "integer" | "number" => json!(1),
        "array" => json!([]),
        "object" => json!({}),
        _ => json!("none"),
    }
}

/// The type in a schema, in lower case (Gemini writes capitals), the first if there are several.
fn kind(schema: &Value) -> String {
    let kind = &schema["type"];
    kind.as_str()
        .or_else(|| kind[0].as_str())
        .unwrap_or_default()
        .to_ascii_lowercase()
}

fn ask(question: &str, header: &str, choices: &[String]) -> Value {
    let options: Vec<Value> = choices
        .iter()
        .map(|choice| json!({"label": choice, "description": format!("Take {choice}.")}))
        .collect();
    json!({"questions": [{
        "question": question, "header": header, "options": options,
        "multiSelect": false, "type": "choice",
    }]})
}

fn todo(items: &[String]) -> Value {
    let items: Vec<Value> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let status = if index == 0 { "in_progress" } else { "pending" };
            json!({
                "content": item, "activeForm": item, "description": item, "step": item,
                "status": status, "priority": "medium", "id": (index + 1).to_string(),
            })
        })
        .collect();
    json!({ "todos": items })
}

fn added(path: &str, content: &str) -> String {
    let lines: String = content.lines().map(|line| format!("+{line}\n")).collect();
    format!("*** Begin Patch\n*** Add File: {path}\n{lines}*** End Patch")
}

fn updated(path: &str, old: &str, new: &str) -> String {
    format!("*** Begin Patch\n*** Update File: {path}\n@@\n-{old}\n+{new}\n*** End Patch")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

// In each list the order is that of preference, in case an agent offers several.
const WRITE: [&str; 4] = ["Write", "write_file", "write", "create_file"];
const EDIT: [&str; 3] = ["Edit", "replace", "edit"];
const READ: [&str; 3] = ["Read", "read_file", "read"];
const SHELL: [&str; 7] = [
    "Bash",
    "run_shell_command",
    "bash",
    "exec_command",
    "shell_command",
    "shell",
    "execute_command",
];
const ASK: [&str; 4] = [
    "AskUserQuestion",
    "ask_user",
    "question",
    "request_user_input",
];
const TODO: [&str; 4] = ["TodoWrite", "write_todos", "todowrite", "update_plan"];
const SUBAGENT: [&str; 4] = ["Task", "Agent", "task", "invoke_agent"];

const SYNONYMS: [&[&str]; 6] = [
    &[
        "file_path",
        "filePath",
        "path",
        "absolute_path",
        "target_file",
        "filename",
    ],
    &[
        "old_string",
        "oldString",
        "old_str",
        "search",
        "old_text",
        "oldText",
    ],
    &[
        "new_string",
        "newString",
        "new_str",
        "replace",
        "new_text",
        "newText",
    ],
    &["content", "contents", "file_text", "text"],
    &["command", "cmd"],
    &["todos", "plan"],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(name: &str, schema: Value) -> Tools {
        let mut tools = Tools::default();
        let freeform = schema.is_null();
        tools.insert(name, Tool { schema, freeform });
        tools
    }

    fn write() -> Action {
        Action::Write {
            path: "a.txt".to_owned(),
            content: "one\ntwo\n".to_owned(),
        }
    }

    #[test]
    fn arguments_take_the_names_of_the_schema() {
        let tools = offering(
            "write",
            json!({
                "properties": {
                    "filePath": {"type": "string"},
                    "content": {"type": "string"},
                    "mode": {"type": ["string", "null"], "enum": ["create", "append"]},
                    "force": {"type": "BOOLEAN"},
                },
                "required": ["filePath", "content", "mode", "force"],
            }),
        );
        let call = tools.resolve(&write(), Some("/work/"));
        assert_eq!(call.name, "write");
        assert_eq!(
            call.input.into_arguments(),
            json!({
                "filePath": "/work/a.txt", "content": "one\ntwo\n", "mode": "create", "force": false
            })
        );
    }

    #[test]
    fn items_of_a_list_are_fitted_too() {
        let tools = offering(
            "write_todos",
            json!({"properties": {"todos": {"type": "array", "items": {
                "properties": {"description": {"type": "string"}, "status": {"type": "string"}},
                "required": ["description", "status"],
            }}}}),
        );
        let call = tools.resolve(&Action::Todo(vec!["Read".to_owned()]), None);
        assert_eq!(
            call.input.into_arguments(),
            json!({"todos": [{"description": "Read", "status": "in_progress"}]})
        );
    }

    #[test]
    fn patch_stands_in_for_writing() {
        let call = offering("apply_patch", Value::Null).resolve(&write(), None);
        let patch = "*** Begin Patch\n*** Add File: a.txt\n+one\n+two\n*** End Patch";
        assert_eq!(call.input, Input::Freeform(patch.to_owned()));
    }

    #[test]
    fn shell_stands_in_for_everything() {
        let tools = offering(
            "shell",
            json!({"properties": {"command": {"type": "array"}}, "required": ["command"]}),
        );
        let call = tools.resolve(&write(), Some("/w"));
        assert_eq!(
            call.input.into_arguments(),
            json!({"command": ["bash", "-lc", "printf %s 'one\ntwo\n' > '/w/a.txt'"]})
        );
    }

    #[test]
    fn action_without_a_tool_for_it_is_visible() {
        let call = Tools::default().resolve(&Action::Todo(vec![]), None);
        assert_eq!(call.name, "no_such_tool");
        assert_eq!(call.input.into_arguments(), json!({"wanted": "TodoWrite"}));
    }
}
