//! Sending a wish and telling how far it comes, on the host and through the relay.

use std::time::Duration;

use farhelm_core::command::{Command, Delivery, Outcome};
use farhelm_core::session::Session;
use farhelm_host::local::{LocalAnswer, LocalClient, LocalRequest};
use farhelm_link::clock::now;
use farhelm_link::device::{Client, Sent, Stage};
use farhelm_proto::{Code, CommandId, SessionId, Timestamp};
use tokio::time::{Instant, sleep_until};

use crate::args::{Sending, Wait};
use crate::commands::Context;
use crate::failure::Failure;
use crate::output;
use crate::render::visible;
use crate::station::{Piece, Station, unexpected};

/// How long a command may wait for a sleeping host unless a person says otherwise.
const COMMAND_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// How long there may be no connection before a person is told that the wish is kept.
const OFFLINE: Duration = Duration::from_secs(5);
/// How long the host may take to say what became of a wish whose time is over.
const LAST_WORD: Duration = Duration::from_secs(10);

/// How far a wish has come.
pub(crate) struct Reached {
    /// Its id, where it has one that means something here.
    pub(crate) id: Option<CommandId>,
    pub(crate) stage: Wait,
    /// Whether all of its effect is had.
    pub(crate) is_done: bool,
    /// What it made.
    pub(crate) made: Option<String>,
}

/// Reads a time as people write it: `90s`, `10m`, `2h`, `1d`.
pub(crate) fn read_time(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a time; write 90s, 10m, 2h or 1d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(bad)
}

/// Carries out a wish and says how far it comes.
pub(crate) async fn apply(
    context: &Context,
    station: &Station,
    command: Command,
    sending: &Sending,
    done: &str,
) -> Result<(), Failure> {
    let reached = send(station, command, sending, teller(context)).await?;
    tell(context, &reached, done);
    Ok(())
}

/// Says how far a wish has come when that is what was waited for.
pub(crate) fn tell(context: &Context, reached: &Reached, done: &str) {
    if context.json {
        let outcome = if reached.stage >= Wait::Host {
            "applied"
        } else {
            "sent"
        };
        let mut json = serde_json::json!({
            "outcome": outcome, "made": reached.made, "stage": word(reached.stage, reached.is_done),
        });
        if let Some(id) = reached.id {
            json["command"] = id.to_string().into();
        }
        output::json(&json);
    } else {
        output::line(match reached.stage {
            Wait::Kept => "kept here",
            Wait::Relay => "at the relay",
            Wait::Host | Wait::Handed | Wait::Consumed => done,
        });
    }
}

/// Says each stage to a person.
pub(crate) fn teller(context: &Context) -> impl Fn(&Stage) + use<> {
    let is_quiet = context.json || !output::is_terminal();
    move |stage| {
        let how_far = match stage {
            Stage::Kept => "kept here",
            Stage::AtRelay => "at the relay",
            Stage::Expired => {
                "its time is over; it is not known to have had an effect, and the host is asked"
            }
            Stage::AtHost => "at the host",
            Stage::Handed => "given to the agent",
            Stage::Done(Outcome::Applied {
                delivery: Delivery::Consumed,
                ..
            }) => "taken by the agent",
            Stage::Done(_) => return,
        };
        if !is_quiet {
            output::note(how_far);
        }
    }
}

/// Sends a wish and waits until it has come far enough; `progress` is told each stage.
pub(crate) async fn send(
    station: &Station,
    command: Command,
    sending: &Sending,
    progress: impl Fn(&Stage),
) -> Result<Reached, Failure> {
    match station {
        Station::Local(local) => send_here(station, local, command, sending, progress).await,
        Station::Joined { client, .. } => {
            let sent = client.send(command, until(sending)).await?;
            follow(client, sent, sending, progress).await
        }
    }
}

/// After which time a wish is to have no effect.
pub(crate) fn until(sending: &Sending) -> Timestamp {
    let within = sending.not_after.unwrap_or(COMMAND_WITHIN);
    now().plus_millis(u64::try_from(within.as_millis()).unwrap_or(u64::MAX))
}

/// Waits until a wish that was sent from this machine has come far enough.
pub(crate) async fn follow(
    client: &Client,
    mut sent: Sent,
    sending: &Sending,
    progress: impl Fn(&Stage),
) -> Result<Reached, Failure> {
    let id = sent.id;
    let offline_at = Instant::now() + OFFLINE;
    let mut last_word = None;
    let mut is_kept = true;
    loop {
        let stage = tokio::select! {
            stage = sent.stages.recv() => stage,
            () = sleep_until(offline_at), if is_kept && !client.status().borrow().up => {
                return Err(kept(client, id));
            }
            () = sleep_until(last_word.unwrap_or(offline_at)), if last_word.is_some() => {
                let text = "its time is over, and the host has not said what became of it: it is not known to have had an effect";
                return Err(Failure::new(Code::Expired, text));
            }
        };
        let Some(stage) = stage else {
            return Err(kept(client, id));
        };
        progress(&stage);
        is_kept = stage == Stage::Kept;
        let stage = match stage {
            Stage::Kept => Wait::Kept,
            Stage::AtRelay => Wait::Relay,
            Stage::Expired => {
                last_word = Some(Instant::now() + LAST_WORD);
                continue;
            }
            Stage::AtHost => Wait::Host,
            Stage::Handed => Wait::Handed,
            Stage::Done(outcome) => return end(Some(id), outcome, sending.wait),
        };
        if stage >= sending.wait {
            return Ok(Reached {
                id: Some(id),
                stage,
                is_done: false,
                made: None,
            });
        }
    }
}

/// Nobody could be told: the wish waits here.
fn kept(client: &Client, id: CommandId) -> Failure {
    let trouble = client.status().borrow().trouble.clone();
    let why = trouble.map_or_else(
        || "there is no connection to the relay".to_owned(),
        |trouble| visible(&trouble.text),
    );
    let text = format!(
        "it is kept here and sent with the next command to that host, or by `farhelm outbox`: {why}"
    );
    Failure::new(Code::RelayUnreachable, text).keeping(id)
}

/// What the end of a wish means to somebody who waits for a stage.
fn end(id: Option<CommandId>, outcome: Outcome, wait: Wait) -> Result<Reached, Failure> {
    let (made, delivery) = match outcome {
        Outcome::Refused { rejection } => return Err(rejection.into()),
        Outcome::Received => (None, Delivery::Waiting),
        Outcome::Applied { made, delivery, .. } => (made, delivery),
    };
    let stage = match delivery {
        Delivery::Waiting => Wait::Host,
        Delivery::Handed => Wait::Handed,
        Delivery::Done | Delivery::Consumed => Wait::Consumed,
        Delivery::Indeterminate | Delivery::Void | Delivery::Retried if wait <= Wait::Host => {
            Wait::Host
        }
        Delivery::Indeterminate => {
            let text = "the agent's program ended before it had shown that it took it: whether it had its effect is not \
                        known; see `farhelm outbox`, and send it again with `farhelm outbox retry`";
            return Err(Failure::new(Code::AgentExited, text));
        }
        Delivery::Void | Delivery::Retried => {
            let text = "it was taken back before the agent was given it";
            return Err(Failure::new(Code::Recalled, text));
        }
    };
    Ok(Reached {
        id,
        stage,
        is_done: delivery == Delivery::Done,
        made,
    })
}

/// The same on the host itself, where the log says how far a wish has come.
async fn send_here(
    station: &Station,
    local: &LocalClient,
    command: Command,
    sending: &Sending,
    progress: impl Fn(&Stage),
) -> Result<Reached, Failure> {
    let session = command.session();
    let answer = local.ask_once(&LocalRequest::Wish { command }).await?;
    let LocalAnswer::Outcome { outcome } = answer else {
        return Err(unexpected());
    };
    let open = match &outcome {
        Outcome::Applied { seq, delivery, .. } if !delivery.is_final() => Some(*seq),
        Outcome::Applied { .. } | Outcome::Received | Outcome::Refused { .. } => None,
    };
    match (session, open) {
        (Some(session), Some(seq)) if sending.wait > Wait::Host => {
            let delivery = follow_here(station, session, seq, sending.wait, progress).await?;
            end(None, outcome.advanced(delivery), sending.wait)
        }
        _ => end(None, outcome, sending.wait),
    }
}

/// Reads on until a wish whose effect ends with the event `seq` has come far enough.
async fn follow_here(
    station: &Station,
    session: SessionId,
    seq: u64,
    wait: Wait,
    progress: impl Fn(&Stage),
) -> Result<Delivery, Failure> {
    let mut log = station.log(session, 1, true).await?;
    let mut state = Session::default();
    let mut wish = None;
    while let Some(piece) = log.next().await? {
        let Piece::Record(record) = piece else {
            continue;
        };
        let moved = state.deliveries(record.cause, &record.event);
        state.apply(record.cause, &record.event);
        if record.seq == seq {
            wish = record.cause;
        }
        let Some(wish) = wish.filter(|_| record.seq >= seq) else {
            continue;
        };
        let moved = moved.into_iter().rfind(|(id, _)| *id == wish);
        let open = state.wishes.get(&wish).map(|open| open.delivery);
        match moved.map(|(_, delivery)| delivery).or(open) {
            Some(delivery) if delivery.is_final() => return Ok(delivery),
            Some(Delivery::Handed) => {
                progress(&Stage::Handed);
                if wait <= Wait::Handed {
                    return Ok(Delivery::Handed);
                }
            }
            Some(_) => {}
            // It was consumed before the event that ended its effect.
            None if record.seq == seq => return Ok(Delivery::Consumed),
            None => {}
        }
    }
    Err(crate::surface::gone())
}

/// A stage as scripts read it.
pub(crate) fn word(stage: Wait, is_done: bool) -> &'static str {
    match stage {
        Wait::Kept => "kept",
        Wait::Relay => "relay",
        Wait::Host => "host",
        Wait::Handed => "handed",
        Wait::Consumed if is_done => "done",
        Wait::Consumed => "consumed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |text| read_time(text).map(|time| time.as_secs()).ok();
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("10m"), Some(600));
        assert_eq!(seconds("2h"), Some(7200));
        assert_eq!(seconds("1d"), Some(86_400));
        for bad in [
            "",
            "10",
            "m",
            "-1m",
            "1.5h",
            "0s",
            "10x",
            "99999999999999999999d",
        ] {
            assert!(read_time(bad).is_err(), "{bad:?}");
        }
    }
}
