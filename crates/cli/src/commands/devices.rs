//! `devices`, `revoke`, `status`, `down`.

use farhelm_core::command::Command;
use farhelm_host::home::Home;
use farhelm_host::keeper;
use farhelm_host::local::{LocalClient, LocalRequest, socket_of};
use farhelm_proto::Code;

use super::Context;
use super::sessions::duration;
use crate::args::Sending;
use crate::failure::Failure;
use crate::output;
use crate::render::visible;
use crate::resolve::{self, short};
use crate::sending::apply;
use crate::station::{Station, instant, patiently, status as daemon_status};

/// How long a daemon may take to end: its agents are asked, told, and killed.
const END_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

/// That the logs alone are larger than the journal may be.
pub(super) fn too_large(beyond: u64) -> String {
    format!(
        "has no old outputs left to drop and is {} MiB larger than `journal_mib` allows; events are never dropped",
        beyond.div_ceil(1024 * 1024)
    )
}

pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let overview = context.station().await?.overview().await?;
    let Some(roster) = &overview.roster else {
        return Err(Failure::new(Code::Tampered, Code::Tampered.sentence()));
    };
    if context.json {
        let devices: Vec<_> = roster
            .devices()
            .map(|(peer, member)| {
                serde_json::json!({
                    "device": peer, "name": member.name, "capabilities": member.grant.capabilities,
                    "until": member.grant.until, "since": member.since, "this": overview.me == Some(peer),
                })
            })
            .collect();
        let waiting: Vec<_> = overview
            .fleet
            .waiting
            .iter()
            .map(|(offer, waiting)| serde_json::json!({ "offer": offer, "name": waiting.name, "code": waiting.code }))
            .collect();
        output::json(
            &serde_json::json!({ "host": roster.host(), "devices": devices, "waiting": waiting }),
        );
        return Ok(());
    }
    let row = |(peer, member): (farhelm_proto::PeerId, &farhelm_core::roster::Member)| {
        let this = if overview.me == Some(peer) {
            "(this machine)"
        } else {
            ""
        };
        let age = duration(instant().millis_since(member.since) / 1000);
        vec![
            short(&peer),
            visible(&member.name),
            format!("paired {age} ago"),
            this.to_owned(),
        ]
    };
    output::table(&roster.devices().map(row).collect::<Vec<_>>());
    for waiting in overview.fleet.waiting.values() {
        let name = visible(&waiting.name);
        output::line(&format!(
            "waits: {name} shows {0}; `farhelm pair --accept \"{0}\"` lets it in",
            waiting.code
        ));
    }
    if roster.devices().next().is_none() && overview.fleet.waiting.is_empty() {
        output::note("no devices; let one in with `farhelm pair`");
    }
    Ok(())
}

pub(super) async fn revoke(context: &Context, device: &str) -> Result<(), Failure> {
    let station = context.station().await?;
    let peer = resolve::device(&station.overview().await?, device)?;
    apply(
        context,
        &station,
        Command::RevokeDevice { peer },
        &Sending::default(),
        "removed",
    )
    .await
}

pub(super) async fn status(context: &Context) -> Result<(), Failure> {
    match context.station().await? {
        Station::Local(local) => {
            let status = daemon_status(&local).await?;
            if context.json {
                output::json(&status);
                return Ok(());
            }
            let age = duration(instant().millis_since(status.since) / 1000);
            output::line(&format!(
                "daemon    {} (process {}), running for {age}",
                status.version, status.pid
            ));
            output::line(&format!(
                "host      {} {}",
                visible(&status.name),
                status.host
            ));
            let trouble = status
                .relay_error
                .map(|error| format!(": {}", visible(&error)))
                .unwrap_or_default();
            let way = match status.relay_way.as_deref() {
                Some("http") => ", by plain HTTP: something in between lets no WebSocket through",
                Some(_) | None => "",
            };
            output::line(&format!(
                "relay     {} at {}{trouble}{way}",
                status.relay, status.url
            ));
            output::line(&format!("sessions  {}", status.sessions));
            output::line(&format!("devices   {}", status.devices));
            if let Some(paused) = status.paused {
                let age = duration(instant().millis_since(paused.since) / 1000);
                output::line(&format!("paused    for {age}: {}", visible(&paused.text)));
            }
            if !status.journal_lost.is_empty() {
                output::line(&format!(
                    "journal   was damaged and has lost: {}",
                    status.journal_lost.join(", ")
                ));
            }
            for session in status.forked {
                output::line(&format!(
                    "copied    the relay has newer events than this state folder, or others, of session {}",
                    short(&session)
                ));
            }
            let dropped = status.journal_dropped;
            if dropped.pieces > 0 {
                output::line(&format!(
                    "journal   has dropped the oldest outputs to keep within `journal_mib`: {} pieces, {} MiB",
                    dropped.pieces,
                    dropped.bytes.div_ceil(1024 * 1024)
                ));
            }
            if status.journal_beyond > 0 {
                output::line(&format!("journal   {}", too_large(status.journal_beyond)));
            }
        }
        Station::Joined { client, host } => {
            let view = patiently(&client, client.fleet()).await?;
            let station = Station::Joined { client, host };
            let seen = station.seen(&view.fleet).await?;
            let Station::Joined { host, .. } = &station else {
                return Ok(());
            };
            let online = view.host_online;
            if context.json {
                output::json(&serde_json::json!({
                    "device": view.me, "host": host.peer(), "name": view.fleet.name,
                    "relay": host.relay, "host_online": online, "presence": seen.json(),
                }));
                return Ok(());
            }
            output::line(&format!("device    {}", view.me));
            output::line(&format!(
                "host      {} {}",
                visible(&view.fleet.name),
                host.peer()
            ));
            output::line(&format!("relay     up at {}", host.relay));
            output::line(&format!("link      {}", seen.way()));
            if seen.withheld() > 0 {
                seen.warnings()
                    .pop()
                    .iter()
                    .for_each(|warning| output::note(warning));
            }
        }
    }
    Ok(())
}

pub(super) async fn down(context: &Context) -> Result<(), Failure> {
    let local = LocalClient::new(&socket_of(&context.home));
    let agents = keeper::living(&context.home).len();
    let running = match daemon_status(&local).await {
        Err(failure) if failure.code == Code::NotRunning && agents > 0 => None,
        found => Some(found?),
    };
    let ending = match &running {
        Some(daemon) => ask_to_end(context, &local, daemon.pid).await?,
        None => end_agents(context).await,
    };
    match ending {
        Ok(pid) => wait_for_end(context, pid).await?,
        Err(failure) => output::note(&format!(
            "no daemon can be started to ask the agents to end, so they are killed: {}",
            failure.message
        )),
    }
    end_by_force(context).await?;
    let left = keeper::living(&context.home).len();
    if left > 0 {
        let text = format!(
            "{left} agents go on; either another daemon has started meanwhile, or they cannot be ended"
        );
        return Err(Failure::new(Code::Timeout, text));
    }
    if context.json {
        output::json(&serde_json::json!({ "outcome": "down", "agents": agents }));
        return Ok(());
    }
    let agents = match agents {
        1 => "1 agent".to_owned(),
        count => format!("{count} agents"),
    };
    output::line(&match running {
        Some(_) => format!("the daemon has ended, and {agents}"),
        None => format!("no daemon was running; {agents} that went on without one have ended"),
    });
    Ok(())
}

/// Asks the daemon to end, with its agents. One that ends by itself before it has answered leaves
/// them. Gives the process that is to end.
async fn ask_to_end(
    context: &Context,
    local: &LocalClient,
    pid: u32,
) -> Result<Result<u32, Failure>, Failure> {
    match local.ask_once(&LocalRequest::Down).await {
        Err(error) if error.code == Code::NotRunning => {
            wait_for_end(context, pid).await?;
            if keeper::living(&context.home).is_empty() {
                return Ok(Ok(pid));
            }
            Ok(end_agents(context).await)
        }
        asked => {
            asked?;
            Ok(Ok(pid))
        }
    }
}

/// Ends agents that go on without a daemon: one that is started for it asks them to, and writes
/// down what became of them. Gives its process.
async fn end_agents(context: &Context) -> Result<u32, Failure> {
    let ending = async |local: &LocalClient, _| {
        let pid = daemon_status(local).await?.pid;
        local.ask_once(&LocalRequest::Down).await?;
        Ok(pid)
    };
    crate::daemon::with(&context.home, None, ending).await
}

/// Ends the agents that did not end when they were asked; leaves them to a daemon that has started
/// in the meantime.
async fn end_by_force(context: &Context) -> Result<(), Failure> {
    let home = Home::open(context.home.clone())?;
    let forced = tokio::task::spawn_blocking(move || {
        let Ok(_lock) = home.lock() else { return 0 };
        keeper::end_by_force(home.path())
    });
    let forced = forced.await.map_err(Failure::internal)?;
    if forced > 0 {
        output::note(&format!(
            "{forced} of the agents did not end when asked, and were killed"
        ));
    }
    Ok(())
}

/// Waits until the daemon has given back the state folder, or another has taken it.
async fn wait_for_end(context: &Context, pid: u32) -> Result<(), Failure> {
    let home = Home::open(context.home.clone())?;
    if !crate::daemon::ended(&home, pid, END_WITHIN).await {
        let text = format!(
            "the daemon (process {pid}) was told to end and has not yet; see {}",
            home.log().display()
        );
        return Err(Failure::new(Code::Timeout, text));
    }
    Ok(())
}
