//! `ls`, `log`, `send`, `stop`, `resume`.

use std::io::{BufRead as _, BufReader};

use farhelm_core::command::Command;
use farhelm_core::event::{Activity, Event, Summary};
use farhelm_proto::{Code, SessionId};

use super::Context;
use crate::args::Sending;
use crate::failure::Failure;
use crate::output;
use crate::render::{Renderer, visible};
use crate::resolve::{self, short};
use crate::seen::Seen;
use crate::sending::apply;
use crate::station::{Log, Overview, Piece, Station, instant};
use crate::surface::gone;

pub(super) async fn list(context: &Context, all: bool) -> Result<(), Failure> {
    let station = context.station().await?;
    let overview = station.overview().await?;
    let seen = station.seen(&overview.fleet).await?;
    let mut sessions: Vec<&Summary> = overview
        .fleet
        .sessions
        .values()
        .filter(|summary| all || summary.state != Activity::Ended)
        .collect();
    sessions.sort_by_key(|summary| std::cmp::Reverse(summary.at));
    if context.json {
        let rows: Vec<_> = sessions
            .iter()
            .map(|summary| with_presence(summary, &seen))
            .collect();
        output::json(&rows);
        return Ok(());
    }
    for warning in seen.warnings() {
        output::note(&warning);
    }
    if sessions.is_empty() {
        output::note("no sessions; start one with `farhelm up`");
    }
    let rows = sessions.into_iter().map(|summary| row(summary, &seen));
    output::table(&rows.collect::<Vec<_>>());
    Ok(())
}

/// A summary with what is known of the session at this moment.
fn with_presence(summary: &Summary, seen: &Seen) -> serde_json::Value {
    let mut row = serde_json::to_value(summary).unwrap_or_default();
    row["presence"] = seen.json_of(summary.session);
    row
}

fn row(summary: &Summary, seen: &Seen) -> Vec<String> {
    let branch = summary
        .branch
        .as_ref()
        .map(|branch| format!(" ({})", visible(branch)))
        .unwrap_or_default();
    let age = instant().millis_since(summary.at) / 1000;
    vec![
        short(&summary.session),
        seen.state(summary),
        visible(&summary.agent),
        visible(&summary.title),
        format!("{}{branch}", visible(&summary.dir)),
        format!("{} ago", duration(age)),
    ]
}

/// A number of seconds as people say it.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub(super) async fn log(
    context: &Context,
    wanted: &str,
    from: u64,
    follow: bool,
) -> Result<(), Failure> {
    let station = context.station().await?;
    let overview = if follow {
        overview_for_ever(context, &station).await?
    } else {
        station.overview().await?
    };
    let session = resolve::session(&overview.fleet, wanted)?;
    let seen = station.seen(&overview.fleet).await?;
    if let Some(summary) = overview.fleet.sessions.get(&session)
        && !context.json
    {
        output::note(&format!("── {}", seen.line(summary)));
    }
    let mut log = station.log(session, from, follow).await?;
    let watched = station.watch(|news| {
        if !context.json {
            output::note(&format!("── {news}"));
        }
    });
    tokio::select! {
        printed = print_log(context, &mut log, follow) => printed,
        never = watched, if follow => never,
    }
}

/// Somebody who follows waits for a network for as long as it takes, and is told each reason once.
async fn overview_for_ever(context: &Context, station: &Station) -> Result<Overview, Failure> {
    let mut told = None;
    loop {
        match station.overview().await {
            Err(failure) if failure.may_pass() => {
                if told != Some(failure.code) && !context.json {
                    output::note(&format!("── waiting: {}", failure.message));
                }
                told = Some(failure.code);
            }
            other => return other,
        }
    }
}

async fn print_log(context: &Context, log: &mut Log, follow: bool) -> Result<(), Failure> {
    let mut renderer = Renderer::default();
    let (mut ended, mut caught_up) = (false, false);
    while let Some(piece) = log.next().await? {
        match piece {
            Piece::Record(record) => {
                ended |= matches!(record.event, Event::SessionEnded { .. });
                if context.json {
                    output::json(&record);
                } else {
                    output::print(&renderer.record(&record));
                }
            }
            Piece::Live(_) if context.json => {}
            Piece::Live(live) => output::print(&renderer.live(&live)),
            Piece::Limited { first, last } => output::note(&format!(
                "history limited: the relay does not have the events {first} to {last} any more; `farhelm log` on the host shows them"
            )),
            Piece::CaughtUp => caught_up = true,
        }
        if caught_up && (ended || !follow) {
            return Ok(());
        }
    }
    if follow { Err(gone()) } else { Ok(()) }
}

/// Prints what passed between an agent and its session. That never leaves the machine.
pub(super) async fn raw(context: &Context, wanted: &str) -> Result<(), Failure> {
    let station = context.station().await?;
    let Station::Local(_) = station else {
        let text = "what passed between agent and host is kept on the host alone; run this there";
        return Err(Failure::new(Code::NotFound, text));
    };
    let session = find(&station, wanted).await?;
    for path in farhelm_host::keeper::raw_files(&context.home, session) {
        let lines = match std::fs::File::open(&path) {
            Ok(file) => BufReader::new(file).split(b'\n'),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::internal(error)),
        };
        for line in lines {
            let line = line.map_err(Failure::internal)?;
            let line = String::from_utf8_lossy(&line);
            if context.json {
                output::json(&raw_line(&line));
            } else {
                output::line(&visible(&line));
            }
        }
    }
    Ok(())
}

/// A line of the file for scripts.
fn raw_line(line: &str) -> serde_json::Value {
    let mut parts = line.splitn(3, ' ');
    let at: Option<u64> = parts.next().and_then(|at| at.parse().ok());
    let by = match parts.next() {
        Some("<") => "agent",
        Some(_) | None => "farhelm",
    };
    serde_json::json!({ "at": at, "by": by, "line": parts.next().unwrap_or_default() })
}

pub(super) async fn send(
    context: &Context,
    wanted: &str,
    text: &str,
    sending: &Sending,
) -> Result<(), Failure> {
    let station = context.station().await?;
    let session = find(&station, wanted).await?;
    let command = Command::Prompt {
        session,
        text: text.to_owned(),
    };
    apply(context, &station, command, sending, "sent").await
}

pub(super) async fn stop(
    context: &Context,
    wanted: &str,
    end: bool,
    sending: &Sending,
) -> Result<(), Failure> {
    let station = context.station().await?;
    let session = find(&station, wanted).await?;
    let (command, done) = if end {
        (Command::EndSession { session }, "ended")
    } else {
        (Command::CancelTurn { session }, "stopping")
    };
    apply(context, &station, command, sending, done).await
}

pub(super) async fn resume(
    context: &Context,
    wanted: &str,
    sending: &Sending,
) -> Result<(), Failure> {
    let station = context.station().await?;
    let session = find(&station, wanted).await?;
    let command = Command::ResumeAgent { session };
    apply(context, &station, command, sending, "going on").await
}

/// The session that a person means. Without a connection, as it was seen last.
pub(super) async fn find(station: &Station, wanted: &str) -> Result<SessionId, Failure> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    if let Some(fleet) = station.unless_connected().await? {
        return resolve::session(&fleet, wanted);
    }
    resolve::session(&station.overview().await?.fleet, wanted)
}
