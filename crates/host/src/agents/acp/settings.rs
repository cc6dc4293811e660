//! Modes and settings: what the agent offers, and the mode in which it asks a person.

use farhelm_core::agent::Said;
use farhelm_core::event::{ConfigChoice, ConfigOption, Mode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::agents::json::{list, owned, text};

/// What the agent offers to set.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Settings {
    /// What the agent calls itself.
    pub(super) agent: String,
    modes: Vec<Mode>,
    mode: Option<String>,
    /// The option that holds the mode, for an agent that offers its modes only so.
    mode_option: Option<String>,
    options: Vec<ConfigOption>,
    /// Options whose values are yes and no on the wire.
    switches: Vec<String>,
    /// Whether the models came in the older form, with a method of their own.
    old_models: bool,
}

/// How an agent takes a setting: the method and its parameters.
pub(super) type Request = (&'static str, Value);

impl Settings {
    /// Takes in what a response or an update offers; what it does not mention stays.
    pub(super) fn offered(&mut self, offer: &Value) {
        if let Some(modes) = offer.get("modes").filter(|modes| modes.is_object()) {
            self.modes = list(modes, "availableModes")
                .iter()
                .filter_map(mode)
                .collect();
            self.mode = owned(modes, "currentModeId");
            self.mode_option = None;
        }
        if let Some(options) = offer.get("configOptions").and_then(Value::as_array) {
            self.options = options.iter().filter_map(option).collect();
            self.switches = options
                .iter()
                .filter(|option| is_switch(option))
                .filter_map(|option| owned(option, "id"))
                .collect();
            self.adopt_mode_option();
        }
        let has_model = self
            .options
            .iter()
            .any(|option| option.category.as_deref() == Some("model"));
        if let Some(models) = offer
            .get("models")
            .filter(|models| models.is_object() && !has_model)
        {
            self.options.insert(0, old_models(models));
            self.old_models = true;
        }
    }

    /// An option that holds the mode is a mode, not a setting beside it.
    fn adopt_mode_option(&mut self) {
        let Some(at) = self
            .options
            .iter()
            .position(|option| option.category.as_deref() == Some("mode") || option.id == "mode")
        else {
            return;
        };
        let option = self.options.remove(at);
        if self.modes.is_empty() || self.mode_option.is_some() {
            self.modes = option
                .choices
                .into_iter()
                .map(|choice| Mode {
                    id: choice.value,
                    name: choice.name,
                    description: None,
                })
                .collect();
            self.mode_option = Some(option.id);
        }
        self.mode = Some(option.current);
    }

    pub(super) fn modes(&self) -> Option<Said> {
        (!self.modes.is_empty()).then(|| Said::Modes {
            modes: self.modes.clone(),
            current: self.mode.clone(),
        })
    }

    pub(super) fn config(&self) -> Option<Said> {
        (!self.options.is_empty()).then(|| Said::Config(self.options.clone()))
    }

    pub(super) fn mode(&self) -> Option<&str> {
        self.mode.as_deref()
    }

    /// The mode is this; says so if it was another.
    pub(super) fn mode_is(&mut self, mode: String) -> Option<Said> {
        if self.mode.as_ref() == Some(&mode) {
            return None;
        }
        self.mode = Some(mode.clone());
        Some(Said::Mode(mode))
    }

    pub(super) fn value_is(&mut self, id: &str, value: String) {
        if let Some(option) = self.options.iter_mut().find(|option| option.id == id) {
            option.current = value;
        }
    }

    /// The mode to begin in, if it is not the current one: the configured one, the one known to
    /// ask for this agent, or, when the current one seems to act unasked, one that seems to ask.
    pub(super) fn first_mode(&self, configured: Option<&str>) -> Option<String> {
        let offered = |wanted: &str| {
            self.modes
                .iter()
                .find(|mode| mode.id == wanted)
                .map(|mode| mode.id.clone())
        };
        let known = || {
            let agent = self.agent.to_lowercase();
            ASKING
                .iter()
                .find(|(name, _)| agent.contains(name))
                .map(|(_, mode)| *mode)
        };
        let wanted = match (configured, known()) {
            (Some(mode), _) => offered(mode),
            (None, Some(Some(mode))) => offered(mode),
            (None, Some(None)) => None,
            (None, None) => self
                .seems_to_act_unasked()
                .then(|| self.seems_to_ask())
                .flatten(),
        };
        wanted.filter(|mode| self.mode.as_ref() != Some(mode))
    }

    fn seems_to_act_unasked(&self) -> bool {
        let current = self
            .modes
            .iter()
            .find(|mode| Some(&mode.id) == self.mode.as_ref());
        current.is_some_and(|mode| {
            let names = [plain(&mode.id), plain(&mode.name)];
            names.iter().any(|name| {
                UNASKED_EXACTLY.contains(&name.as_str())
                    || UNASKED.iter().any(|part| name.contains(part))
            })
        })
    }

    fn seems_to_ask(&self) -> Option<String> {
        let named = |wanted: &&str| {
            self.modes
                .iter()
                .find(|mode| plain(&mode.id) == **wanted || plain(&mode.name) == **wanted)
        };
        ASKING_NAMES
            .iter()
            .find_map(named)
            .map(|mode| mode.id.clone())
    }

    /// How the mode is set, if there is such a mode.
    pub(super) fn mode_request(&self, session: &str, mode: &str) -> Option<Request> {
        self.modes.iter().find(|offered| offered.id == mode)?;
        Some(match &self.mode_option {
            Some(option) => (
                "session/set_config_option",
                json!({"sessionId": session, "configId": option, "value": mode}),
            ),
            None => (
                "session/set_mode",
                json!({"sessionId": session, "modeId": mode}),
            ),
        })
    }

    /// How a setting is set.
    pub(super) fn config_request(&self, session: &str, option: &str, value: &str) -> Request {
        if self.old_models && option == OLD_MODELS {
            return (
                "session/set_model",
                json!({"sessionId": session, "modelId": value}),
            );
        }
        let mut params = json!({"sessionId": session, "configId": option, "value": value});
        if self.switches.iter().any(|id| id == option) {
            params["type"] = json!("boolean");
            params["value"] = json!(value == "true");
        }
        ("session/set_config_option", params)
    }
}

fn mode(offered: &Value) -> Option<Mode> {
    let id = owned(offered, "id")?;
    Some(Mode {
        name: owned(offered, "name").unwrap_or_else(|| id.clone()),
        description: owned(offered, "description"),
        id,
    })
}

fn is_switch(option: &Value) -> bool {
    text(option, "type") == Some("boolean")
}

fn option(offered: &Value) -> Option<ConfigOption> {
    let id = owned(offered, "id")?;
    let current = offered.get("currentValue")?;
    let choices = if is_switch(offered) {
        ["true", "false"]
            .map(|value| choice(value, if value == "true" { "On" } else { "Off" }))
            .to_vec()
    } else {
        list(offered, "options").iter().flat_map(choices).collect()
    };
    Some(ConfigOption {
        name: owned(offered, "name").unwrap_or_else(|| id.clone()),
        category: owned(offered, "category"),
        current: current
            .as_str()
            .map_or_else(|| current.to_string(), str::to_owned),
        choices,
        id,
    })
}

/// A value, or a group of them.
fn choices(offered: &Value) -> Vec<ConfigChoice> {
    match text(offered, "value") {
        Some(value) => vec![choice(value, text(offered, "name").unwrap_or(value))],
        None => list(offered, "options").iter().flat_map(choices).collect(),
    }
}

fn choice(value: &str, name: &str) -> ConfigChoice {
    ConfigChoice {
        value: value.to_owned(),
        name: name.to_owned(),
    }
}

fn old_models(models: &Value) -> ConfigOption {
    let offered = list(models, "availableModels").iter();
    ConfigOption {
        id: OLD_MODELS.to_owned(),
        name: "Model".to_owned(),
        category: Some("model".to_owned()),
        current: owned(models, "currentModelId").unwrap_or_default(),
        choices: offered
            .filter_map(|model| {
                text(model, "modelId").map(|id| choice(id, text(model, "name").unwrap_or(id)))
            })
            .collect(),
    }
}

/// A name without case and punctuation.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|char| char.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// The id under which models in the older form are offered.
const OLD_MODELS: &str = "model";

/// Agents by a part of their name, and the mode in which they ask; no mode where the modes are
/// about something else.
const ASKING: &[(&str, Option<&str>)] = &[
    ("claude", Some("default")),
    ("codex", Some("read-only")),
    ("gemini", Some("default")),
    ("qwen", Some("default")),
    ("opencode", None),
    ("cursor", None),
];

/// Names of modes in which an agent, or a model in a person's place, decides.
const UNASKED_EXACTLY: &[&str] = &["auto", "agent", "autopilot", "autoreview", "yes", "trust"];
const UNASKED: &[&str] = &[
    "yolo",
    "bypass",
    "fullaccess",
    "acceptedits",
    "autoedit",
    "autoaccept",
    "autoapprove",
    "autorun",
    "dontask",
    "unattended",
];

/// Names of modes in which a person is asked, best first.
const ASKING_NAMES: &[&str] = &[
    "default",
    "manual",
    "normal",
    "approve",
    "askalways",
    "alwaysask",
    "ask",
    "readonly",
];
