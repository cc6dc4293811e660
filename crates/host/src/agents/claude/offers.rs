//! What Claude Code offers: models, slash commands, permission modes.

use farhelm_core::event::{AgentCommand, ConfigChoice, Mode};

use super::{ASKING, Value, owned};

pub(super) fn model(offered: &Value) -> Option<ConfigChoice> {
    let value = owned(offered, "value")?;
    Some(ConfigChoice {
        name: owned(offered, "displayName").unwrap_or_else(|| value.clone()),
        value,
    })
}

pub(super) fn command(offered: &Value) -> Option<AgentCommand> {
    let name = owned(offered, "name")?;
    Some(AgentCommand {
        name,
        description: owned(offered, "description").unwrap_or_default(),
    })
}

/// The permission modes. The one that asks nobody at all is not offered.
pub(super) fn modes() -> Vec<Mode> {
    let mode = |id: &str, name: &str, description: &str| Mode {
        id: id.to_owned(),
        name: name.to_owned(),
        description: Some(description.to_owned()),
    };
    vec![
        mode(
            ASKING,
            "Ask",
            "Asks before it changes files or runs commands",
        ),
        mode(
            "acceptEdits",
            "Accept edits",
            "Changes files without asking; asks before it runs commands",
        ),
        mode("plan", "Plan", "Makes a plan and changes nothing"),
    ]
}
