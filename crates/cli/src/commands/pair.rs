//! `farhelm pair` and `farhelm join`: the two sides of pairing.

use std::io::BufRead as _;

use farhelm_core::command::Command;
use farhelm_core::fleet::Waiting;
use farhelm_host::local::{LocalAnswer, LocalClient, LocalRequest};
use farhelm_link::device::{self, Store};
use farhelm_proto::{Code, OfferId};

use super::Context;
use super::up::show_link;
use crate::args::Pair;
use crate::failure::Failure;
use crate::output;
use crate::render::visible;
use crate::station::{Station, device_folder, extra_ca};

pub(super) async fn run(context: &Context, pair: Pair) -> Result<(), Failure> {
    if let Some(code) = &pair.accept {
        return settle(context, code, true).await;
    }
    if let Some(code) = &pair.refuse {
        return settle(context, code, false).await;
    }
    let station = context.station().await?;
    let before: Vec<OfferId> = station
        .overview()
        .await?
        .fleet
        .waiting
        .into_keys()
        .collect();
    let link = station
        .apply(Command::OpenPairing {})
        .await?
        .unwrap_or_default();
    if context.json {
        let works = super::up::works_on_phones(&link);
        output::json(&serde_json::json!({ "link": link, "link_works_on_phones": works }));
    } else {
        show_link(&link);
    }
    if pair.no_wait || context.json {
        return Ok(());
    }
    match station {
        Station::Local(local) => wait_and_ask(&local, &before).await,
        Station::Joined { .. } => {
            output::line(
                "when the device shows its code, let it in with `farhelm pair --accept CODE`",
            );
            Ok(())
        }
    }
}

/// Waits for a device and asks the person at this terminal.
async fn wait_and_ask(local: &LocalClient, before: &[OfferId]) -> Result<(), Failure> {
    output::note("waiting for the device …");
    let mut fleets = local.ask(&LocalRequest::Fleet { follow: true }).await?;
    while let Some(answer) = fleets.next().await? {
        let LocalAnswer::Fleet { fleet } = answer else {
            continue;
        };
        let Some((offer, waiting)) = fleet
            .waiting
            .iter()
            .find(|(offer, _)| !before.contains(offer))
        else {
            continue;
        };
        output::line(&format!(
            "{} wants in and shows {}",
            visible(&waiting.name),
            waiting.code
        ));
        output::print("is that the code on it? [y/N] ");
        let asked = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        let line = asked
            .await
            .map_err(Failure::internal)?
            .map_err(Failure::internal)?;
        let accept = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
        let command = Command::SettlePairing {
            offer: *offer,
            accept,
        };
        local.ask_once(&LocalRequest::Wish { command }).await?;
        output::line(if accept { "paired" } else { "turned away" });
        return Ok(());
    }
    Err(Failure::new(Code::NotRunning, "the daemon went away"))
}

/// Settles the pairing of the device that shows `code`.
async fn settle(context: &Context, code: &str, accept: bool) -> Result<(), Failure> {
    let station = context.station().await?;
    let (offer, waiting) = waiting_with(&station, code).await?;
    let peer = station
        .apply(Command::SettlePairing { offer, accept })
        .await?;
    if context.json {
        output::json(
            &serde_json::json!({ "device": peer, "name": waiting.name, "accepted": accept }),
        );
    } else {
        let what = if accept { "paired" } else { "turned away" };
        output::line(&format!("{} is {what}", visible(&waiting.name)));
    }
    Ok(())
}

/// The device that shows `code`. Its own word of that may be faster than the host's log.
async fn waiting_with(station: &Station, code: &str) -> Result<(OfferId, Waiting), Failure> {
    let digits = |text: &str| {
        text.chars()
            .filter(char::is_ascii_digit)
            .collect::<String>()
    };
    let deadline = tokio::time::Instant::now() + LOG_WITHIN;
    loop {
        let mut waiting = station.overview().await?.fleet.waiting.into_iter();
        let found = waiting.find(|(_, waiting)| digits(&waiting.code) == digits(code));
        if let Some(found) = found {
            return Ok(found);
        }
        if tokio::time::Instant::now() >= deadline {
            let text = format!("no device that waits shows {code}; see `farhelm devices`");
            return Err(Failure::new(Code::NotFound, text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Makes this machine a device of the host behind the link.
pub(super) async fn join(
    context: &Context,
    link: &str,
    name: Option<String>,
) -> Result<(), Failure> {
    let link = if link == "-" {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(Failure::internal)?;
        line
    } else {
        link.to_owned()
    };
    let store = Store::open(&device_folder(&context.home))?;
    let name = name.unwrap_or_else(|| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    });
    let as_json = context.json;
    let host = device::pair(&store, &link, &name, extra_ca(), |code| {
        if as_json {
            output::json(&serde_json::json!({ "code": code }));
        } else {
            output::line(&format!("compare with the host: {code}"));
            output::note("waiting until it is confirmed there …");
        }
    })
    .await?;
    if as_json {
        output::json(&serde_json::json!({ "host": host.peer(), "name": host.name }));
    } else {
        output::line(&format!(
            "this machine is a device of {} from here on",
            visible(&host.name)
        ));
    }
    Ok(())
}

/// How long the host's log may be behind what a device shows.
const LOG_WITHIN: std::time::Duration = std::time::Duration::from_millis(500);
/// How often it is looked at until then.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(50);
