//! `ls`, `log`, `send`, `stop`, `resume`.

use farhelm_core::command::Command;
use farhelm_core::event::{Activity, Event, Summary};
use farhelm_proto::SessionId;

use super::Context;
use crate::args::Sending;
use crate::failure::Failure;
use crate::output;
use crate::render::{Renderer, visible};
use crate::resolve::{self, short};
use crate::sending::apply;
use crate::station::{Piece, Station, instant};
use crate::surface::gone;

pub(super) async fn list(context: &Context, all: bool) -> Result<(), Failure> {
    let overview = context.station().await?.overview().await?;
    let mut sessions: Vec<&Summary> = overview
        .fleet
        .sessions
        .values()
        .filter(|summary| all || summary.state != Activity::Ended)
        .collect();
    sessions.sort_by_key(|summary| std::cmp::Reverse(summary.at));
    if context.json {
        output::json(&sessions);
        return Ok(());
    }
    if overview.host_online == Some(false) {
        output::note("the host is not connected; this is how it was");
    }
    if sessions.is_empty() {
        output::note("no sessions; start one with `farhelm up`");
    }
    output::table(&sessions.into_iter().map(row).collect::<Vec<_>>());
    Ok(())
}

fn row(summary: &Summary) -> Vec<String> {
    let state = match summary.state {
        Activity::Starting => "starting".to_owned(),
        Activity::Idle => "idle".to_owned(),
        Activity::Running => "running".to_owned(),
        Activity::RequiresAction => format!("asks ({})", summary.pending),
        Activity::AgentGone => "agent gone".to_owned(),
        Activity::Ended => "ended".to_owned(),
    };
    let branch = summary
        .branch
        .as_ref()
        .map(|branch| format!(" ({})", visible(branch)))
        .unwrap_or_default();
    let age = instant().millis_since(summary.at) / 1000;
    vec![
        short(&summary.session),
        state,
        visible(&summary.agent),
        visible(&summary.title),
        format!("{}{branch}", visible(&summary.dir)),
        format!("{} ago", duration(age)),
    ]
}

/// A number of seconds as people say it.
pub(super) fn duration(seconds: u64) -> String {
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
    let session = find(&station, wanted).await?;
    let mut log = station.log(session, from, follow).await?;
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
            Piece::CaughtUp => caught_up = true,
        }
        if caught_up && (ended || !follow) {
            return Ok(());
        }
    }
    if follow { Err(gone()) } else { Ok(()) }
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
