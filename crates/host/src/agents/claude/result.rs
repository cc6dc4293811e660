//! What ends a turn of Claude Code, and what says nothing.

use farhelm_core::event::StopReason;

use super::{Value, text};

/// Why a turn ended, by its result.
pub(super) fn reason(value: &Value, interrupted: bool) -> StopReason {
    let subtype = text(value, "subtype").unwrap_or_default();
    let terminal = text(value, "terminal_reason").unwrap_or_default();
    let failed = value
        .get("is_error")
        .and_then(Value::as_bool)
        .unwrap_or_default()
        || subtype.starts_with("error");
    if terminal.starts_with("aborted") || (failed && interrupted) {
        return StopReason::Cancelled;
    }
    if subtype == "error_max_turns" {
        return StopReason::MaxTurnRequests;
    }
    if failed {
        return StopReason::Failed;
    }
    match text(value, "stop_reason") {
        Some("max_tokens" | "model_context_window_exceeded") => StopReason::MaxTokens,
        Some("refusal") => StopReason::Refusal,
        Some(_) | None => StopReason::EndTurn,
    }
}

/// Messages that say nothing a person or the session needs.
pub(super) const QUIET: &[&str] = &[
    "active_goal",
    "auth_status",
    "command_lifecycle",
    "keep_alive",
    "prompt_suggestion",
    "rate_limit_event",
    "streamlined_text",
    "streamlined_tool_use_summary",
    "tool_progress",
    "tool_use_summary",
    "transcript_mirror",
    "update_environment_variables",
];

/// `system` messages of that sort.
pub(super) const QUIET_SYSTEM: &[&str] = &[
    "api_metrics",
    "api_retry",
    "background_tasks_changed",
    "bridge_state",
    "commands_changed",
    "compact_boundary",
    "elicitation_complete",
    "files_persisted",
    "hook_progress",
    "hook_response",
    "hook_started",
    "memory_recall",
    "memory_saved",
    "mirror_error",
    "plugin_install",
    "post_turn_summary",
    "session_state_changed",
    "task_progress",
    "task_started",
    "task_updated",
    "thinking_tokens",
    "turn_duration",
];
