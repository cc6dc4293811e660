//! `outbox`: what this machine sent to its host and whose end is not known.

use std::time::Duration;

use farhelm_core::command::{Command, Delivery, Outcome};
use farhelm_link::device::{Client, Pending, Stage};
use farhelm_proto::{Code, CommandId};
use tokio::time::Instant;

use super::Context;
use super::sessions::duration;
use crate::args::{OutboxCommand, Sending, Wait};
use crate::failure::Failure;
use crate::output;
use crate::render::visible;
use crate::resolve::{matches, short};
use crate::sending::{follow, tell, teller, until};
use crate::station::{Station, instant};

/// How long what waits here is given to leave before it is listed.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// Characters of a prompt that a list shows.
const SHOWN: usize = 60;

pub(super) async fn run(context: &Context, command: Option<OutboxCommand>) -> Result<(), Failure> {
    let station = context.station().await?;
    let Station::Joined { client, .. } = &station else {
        if command.is_some() {
            let text = "this is the host itself: what is wished here is decided at once";
            return Err(Failure::new(Code::NotFound, text));
        }
        if context.json {
            output::json(&serde_json::json!([]));
        } else {
            output::note("this is the host itself: what is wished here is decided at once");
        }
        return Ok(());
    };
    match command {
        None => list(context, client).await,
        Some(OutboxCommand::Retry { id, sending }) => retry(context, client, &id, &sending).await,
        Some(OutboxCommand::Cancel { id }) => cancel(context, client, &id).await,
    }
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let deadline = Instant::now() + LEAVE_WITHIN;
    let mut pending = client.pending().await?;
    while pending.iter().any(|sent| sent.stage == Stage::Kept) && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        pending = client.pending().await?;
    }
    if context.json {
        output::json(&pending.iter().map(json).collect::<Vec<_>>());
        return Ok(());
    }
    if pending.is_empty() {
        output::note("nothing is on its way");
    }
    output::table(&pending.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn json(sent: &Pending) -> serde_json::Value {
    serde_json::json!({
        "command": sent.id, "kind": sent.kind, "stage": word(&sent.stage), "recalled": sent.recalled,
        "session": sent.command.as_ref().and_then(Command::session), "retries": sent.retries,
        "made_at": sent.made_at, "not_after": sent.not_after,
    })
}

/// A stage as scripts read it.
const fn word(stage: &Stage) -> &'static str {
    match stage {
        Stage::Kept => "kept",
        Stage::AtRelay => "relay",
        Stage::Expired => "expired",
        Stage::AtHost => "host",
        Stage::Handed => "handed",
        Stage::Done(Outcome::Applied {
            delivery: Delivery::Indeterminate,
            ..
        }) => "indeterminate",
        Stage::Done(_) => "done",
    }
}

fn row(sent: &Pending) -> Vec<String> {
    let stage = match &sent.stage {
        _ if sent.recalled => "being taken back",
        Stage::Kept => "kept here",
        Stage::AtRelay => "at the relay",
        Stage::Expired => "expired; not known to have had an effect",
        Stage::AtHost => "at the host",
        Stage::Handed => "given to the agent",
        Stage::Done(Outcome::Applied {
            delivery: Delivery::Indeterminate,
            ..
        }) => "indeterminate: retry or cancel",
        Stage::Done(_) => "done",
    };
    let age = instant().millis_since(sent.made_at) / 1000;
    vec![
        short(&sent.id),
        sent.kind.replace('_', " "),
        stage.to_owned(),
        format!("{} ago", duration(age)),
        about(sent.command.as_ref()),
    ]
}

/// What a command says, where it says something.
fn about(command: Option<&Command>) -> String {
    if let Some(
        Command::Prompt { text, .. }
        | Command::EditPrompt { text, .. }
        | Command::Rename { title: text, .. },
    ) = command
    {
        let line = text.lines().next().unwrap_or_default();
        return visible(&line.chars().take(SHOWN).collect::<String>());
    }
    String::new()
}

async fn retry(
    context: &Context,
    client: &Client,
    wanted: &str,
    sending: &Sending,
) -> Result<(), Failure> {
    let first = find(client, wanted).await?;
    let sent = client.send_again(first, until(sending)).await?;
    let reached = follow(client, sent, sending, teller(context)).await?;
    tell(context, &reached, "sent again");
    Ok(())
}

async fn cancel(context: &Context, client: &Client, wanted: &str) -> Result<(), Failure> {
    let id = find(client, wanted).await?;
    let sent = client.take_back(id).await?;
    let sending = Sending {
        wait: Wait::Consumed,
        ..Sending::default()
    };
    match follow(client, sent, &sending, |_| ()).await {
        // It was indeterminate, or it never had an effect and will not have one.
        Err(failure)
            if matches!(
                failure.code,
                Code::Recalled | Code::Expired | Code::AgentExited
            ) =>
        {
            let done = "taken back";
            if context.json {
                output::json(&serde_json::json!({ "outcome": "recalled", "command": id }));
            } else {
                output::line(done);
            }
            Ok(())
        }
        Err(failure) => Err(failure),
        Ok(_) => Err(Failure::new(Code::TooLate, Code::TooLate.sentence())),
    }
}

/// The command of this id or end of id.
async fn find(client: &Client, wanted: &str) -> Result<CommandId, Failure> {
    let pending = client.pending().await?;
    let mut found = pending
        .iter()
        .filter(|sent| matches(&sent.id.to_string(), wanted));
    match (found.next(), found.next()) {
        (Some(sent), None) => Ok(sent.id),
        (Some(_), Some(_)) => Err(Failure::new(
            Code::Ambiguous,
            format!("{wanted:?} fits several; give more of its id"),
        )),
        (None, _) => Err(Failure::new(
            Code::NotFound,
            format!("nothing {wanted:?} is on its way; see `farhelm outbox`"),
        )),
    }
}
