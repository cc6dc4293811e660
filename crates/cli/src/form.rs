//! Forms that an agent wants filled in: their fields as people read them, and what people type as
//! the value that a field takes.

use serde_json::Value;

use crate::render::visible;

/// A field of a form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// What an answer names.
    pub(crate) name: String,
    title: String,
    kind: Kind,
    choices: Vec<String>,
    required: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    YesOrNo,
}

/// The fields of a form's JSON schema; none when it is not one of an object.
pub(crate) fn fields(schema: &str) -> Vec<Field> {
    let Ok(schema) = serde_json::from_str::<Value>(schema) else {
        return Vec::new();
    };
    let required: Vec<_> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let Some(properties) = schema["properties"].as_object() else {
        return Vec::new();
    };
    properties
        .iter()
        .map(|(name, field)| Field {
            name: name.clone(),
            title: field["title"].as_str().unwrap_or(name).to_owned(),
            kind: match field["type"].as_str() {
                Some("number" | "integer") => Kind::Number,
                Some("boolean") => Kind::YesOrNo,
                Some(_) | None => Kind::Text,
            },
            choices: field["enum"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            required: required.contains(&name.as_str()),
        })
        .collect()
}

impl Field {
    /// The field as a line.
    pub(crate) fn line(&self) -> String {
        let what = match self.kind {
            Kind::Text if self.choices.is_empty() => "text".to_owned(),
            Kind::Text => visible(&self.choices.join(" | ")),
            Kind::Number => "a number".to_owned(),
            Kind::YesOrNo => "yes | no".to_owned(),
        };
        let title = if self.title == self.name {
            String::new()
        } else {
            format!(" ({})", visible(&self.title))
        };
        let optional = if self.required {
            ""
        } else {
            ", may be left out"
        };
        format!("- {}{title}: {what}{optional}", visible(&self.name))
    }

    /// What a person typed as the field's value.
    pub(crate) fn value(&self, typed: &str) -> Value {
        match self.kind {
            Kind::Text => {
                let numbered = typed
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| self.choices.get(number.checked_sub(1)?));
                numbered.map_or(typed, String::as_str).into()
            }
            Kind::Number => serde_json::from_str::<serde_json::Number>(typed)
                .map_or_else(|_| typed.into(), Value::Number),
            Kind::YesOrNo => match typed.to_ascii_lowercase().as_str() {
                "y" | "yes" | "true" => true.into(),
                "n" | "no" | "false" => false.into(),
                _ => typed.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type": "object", "required": ["colour"], "properties": {
        "colour": {"type": "string", "title": "Colour", "enum": ["red", "blue"]},
        "count": {"type": "integer"}, "sure": {"type": "boolean"}}}"#;

    #[test]
    fn a_form_is_shown_as_its_fields() {
        let lines: Vec<_> = fields(SCHEMA).iter().map(Field::line).collect();
        assert_eq!(
            lines,
            [
                "- colour (Colour): red | blue",
                "- count: a number, may be left out",
                "- sure: yes | no, may be left out"
            ]
        );
    }

    #[test]
    fn what_is_typed_becomes_what_the_field_takes() {
        let fields = fields(SCHEMA);
        assert_eq!(
            (fields[0].value("2"), fields[0].value("green")),
            ("blue".into(), "green".into())
        );
        assert_eq!(
            (fields[1].value("3"), fields[1].value("many")),
            (3.into(), "many".into())
        );
        assert_eq!(
            (fields[2].value("Yes"), fields[2].value("n")),
            (true.into(), false.into())
        );
    }

    #[test]
    fn what_is_no_form_has_no_fields() {
        assert_eq!(fields("nonsense"), []);
        assert_eq!(fields(r#"{"type": "string"}"#), []);
    }
}
