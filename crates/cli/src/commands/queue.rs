//! `queue`: the prompts that wait in a session.

use farhelm_core::command::Command;
use farhelm_core::event::PauseCause;
use farhelm_core::session::{Queued, Session};
use farhelm_proto::{Code, SessionId};

use super::Context;
use super::sessions::find;
use crate::args::QueueCommand;
use crate::failure::Failure;
use crate::output;
use crate::render::{author, visible};
use crate::resolve::{matches, short};
use crate::sending::apply;
use crate::station::Station;

/// Characters of a prompt that a list shows.
const SHOWN: usize = 60;

pub(super) async fn run(
    context: &Context,
    session: Option<String>,
    command: Option<QueueCommand>,
) -> Result<(), Failure> {
    let station = context.station().await?;
    match command {
        None => list(context, &station, &session.unwrap_or_default()).await,
        Some(QueueCommand::Edit {
            session,
            prompt,
            text,
            sending,
        }) => {
            let (session, state) = open(&station, &session).await?;
            let queued = waiting(&state, &prompt)?;
            let command = Command::EditPrompt {
                session,
                prompt: queued.prompt,
                revision: queued.revision,
                text: text.join(" "),
            };
            apply(context, &station, command, &sending, "changed").await
        }
        Some(QueueCommand::Move {
            session,
            prompt,
            before,
            sending,
        }) => {
            let (session, state) = open(&station, &session).await?;
            let before = before.map(|next| waiting(&state, &next).map(|next| next.prompt));
            let command = Command::MovePrompt {
                session,
                prompt: waiting(&state, &prompt)?.prompt,
                before: before.transpose()?,
            };
            apply(context, &station, command, &sending, "moved").await
        }
        Some(QueueCommand::Cancel {
            session,
            prompt,
            sending,
        }) => {
            let (session, state) = open(&station, &session).await?;
            let command = Command::WithdrawPrompt {
                session,
                prompt: waiting(&state, &prompt)?.prompt,
            };
            apply(context, &station, command, &sending, "taken back").await
        }
    }
}

async fn list(context: &Context, station: &Station, wanted: &str) -> Result<(), Failure> {
    let (_, state) = open(station, wanted).await?;
    if context.json {
        let pause = state.paused.then_some(state.pause);
        output::json(&serde_json::json!({
            "paused": state.paused, "pause": pause, "prompts": state.queue,
        }));
        return Ok(());
    }
    if state.queue.is_empty() {
        output::note("no prompt waits");
        return Ok(());
    }
    if state.paused {
        let why = match state.pause {
            Some(PauseCause::AgentEnded) | None => "the agent has ended",
            Some(PauseCause::HostRestarted) => "the host was started again",
            Some(PauseCause::Stopped) => "the turn was stopped",
        };
        output::note(&format!("paused: {why}; go on with `farhelm resume`"));
    }
    let rows = state.queue.iter().map(row);
    output::table(&rows.collect::<Vec<_>>());
    Ok(())
}

fn row(queued: &Queued) -> Vec<String> {
    let line = queued.text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN).collect();
    let more = if shown.len() < queued.text.trim_end().len() {
        "…"
    } else {
        ""
    };
    vec![
        short(&queued.prompt),
        author(&queued.by),
        format!("{}{more}", visible(&shown)),
    ]
}

async fn open(station: &Station, wanted: &str) -> Result<(SessionId, Session), Failure> {
    let session = find(station, wanted).await?;
    Ok((session, station.session(session).await?))
}

/// The waiting prompt of this id or end of id.
fn waiting<'a>(state: &'a Session, wanted: &str) -> Result<&'a Queued, Failure> {
    let mut found = state
        .queue
        .iter()
        .filter(|queued| matches(&queued.prompt.to_string(), wanted));
    match (found.next(), found.next()) {
        (Some(queued), None) => Ok(queued),
        (Some(_), Some(_)) => Err(Failure::new(
            Code::Ambiguous,
            format!("{wanted:?} fits several prompts; give more of its id"),
        )),
        (None, _) => Err(Failure::new(
            Code::PromptNotQueued,
            format!("no prompt {wanted:?} waits; see `farhelm queue`"),
        )),
    }
}
