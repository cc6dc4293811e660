//! Reading other people's JSON: leniently, and without losing the bytes that it came in.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A line of an agent that is JSON: parsed, and as it came.
#[derive(Clone, Debug)]
pub struct RawMessage {
    raw: Box<RawValue>,
    value: Value,
    is_cut: bool,
}

impl RawMessage {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// When it is not JSON.
    pub fn parse(line: &str) -> Result<Self, serde_json::Error> {
        let raw = RawValue::from_string(line.trim().to_owned())?;
        let value = serde_json::from_str(raw.get())?;
        let is_cut = false;
        Ok(Self { raw, value, is_cut })
    }

    /// The same, of a line in which something shorter stands in the place of long strings.
    #[must_use]
    pub fn cut(self) -> Self {
        let is_cut = true;
        Self { is_cut, ..self }
    }

    /// Whether it is not all that the agent said. What it asks for cannot be done then.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The message.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// The message as it came.
    #[must_use]
    pub fn text(&self) -> &str {
        self.raw.get()
    }

    /// The part at `path` as it came: key order, number forms and all.
    #[must_use]
    pub fn raw_at(&self, path: &[&str]) -> Option<&RawValue> {
        path.iter()
            .try_fold(&*self.raw, |raw, key| member(raw, key))
    }
}

/// A member of an object, as it came.
fn member<'a>(object: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    let mut members: BTreeMap<String, &'a RawValue> = serde_json::from_str(object.get()).ok()?;
    members.remove(key)
}

/// The text at `key`.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// The text at `key`, owned.
pub(super) fn owned(value: &Value, key: &str) -> Option<String> {
    text(value, key).map(str::to_owned)
}

/// The list at `key`; empty when there is none.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The whole number at `key`, if it is one that fits.
pub(super) fn small(value: &Value, key: &str) -> Option<u32> {
    value
        .get(key)
        .and_then(Value::as_u64)
        .and_then(|number| u32::try_from(number).ok())
}

/// A map whose keys are no texts, written as a list of pairs.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::agents) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(in crate::agents) fn deserialize<
        'de,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    >(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        let pairs = Vec::<(K, V)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().collect())
    }
}

/// A value as a line.
pub(super) fn line<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A value short enough to show: long texts in it are replaced by their size, so that a picture
/// never travels as text.
pub(super) fn brief(value: &Value) -> String {
    const LONGEST: usize = 512;
    fn shorten(value: &Value) -> Value {
        match value {
            Value::String(text) if text.len() > LONGEST => {
                Value::String(format!("({} bytes)", text.len()))
            }
            Value::Array(items) => items.iter().map(shorten).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(key, item)| (key.clone(), shorten(item)))
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }
    shorten(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_message_keep_their_bytes() {
        let message =
            RawMessage::parse(r#" {"a":{"z":1.0,"b":[ 12345678901234567890123 ]},"b":2} "#)
                .unwrap();
        assert_eq!(
            message.raw_at(&["a"]).unwrap().get(),
            r#"{"z":1.0,"b":[ 12345678901234567890123 ]}"#
        );
        assert_eq!(message.raw_at(&["a", "z"]).unwrap().get(), "1.0");
        assert!(message.raw_at(&["a", "q"]).is_none());
        assert!(message.raw_at(&["b", "q"]).is_none());
    }

    #[test]
    fn long_texts_are_replaced_by_their_size() {
        let shown = brief(&serde_json::json!({"type": "image", "data": "x".repeat(5000)}));
        assert_eq!(shown, r#"{"data":"(5000 bytes)","type":"image"}"#);
    }
}
