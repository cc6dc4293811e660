//! One file per command, or per few that belong together.

use std::path::PathBuf;
use std::process::ExitCode;

use etcetera::BaseStrategy as _;
use farhelm_proto::Code;

use crate::args::{Args, Command, HostCommand};
use crate::failure::Failure;
use crate::station::Station;

mod approvals;
mod devices;
mod doctor;
mod outbox;
mod pair;
mod queue;
pub(crate) mod service;
mod sessions;
mod tool_output;
mod up;

pub(crate) use sessions::duration;

/// What every command needs to know.
pub(crate) struct Context {
    pub(crate) home: PathBuf,
    pub(crate) json: bool,
    pub(crate) host: Option<String>,
}

impl Context {
    /// The way to the host.
    pub(crate) async fn station(&self) -> Result<Station, Failure> {
        Station::find(&self.home, self.host.as_deref()).await
    }
}

/// Carries out the command line.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let home = match args.home {
        Some(home) => std::path::absolute(home).map_err(|_| no_home())?,
        None => default_home()?,
    };
    let context = Context {
        home,
        json: args.json,
        host: args.host,
    };
    // These are programs of their own, which bring a runtime along or need none.
    if let Command::ScriptedAgent { scenario } = args.command {
        let ended = farhelm_host::agents::scripted::run(scenario);
        return ended
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| Failure::internal(format!("{error:#}")));
    }
    if let Command::Relay(relay) = args.command {
        return Ok(farhelm_relay::program::main(*relay));
    }
    if let Command::Service { action } = args.command {
        return service::run(&context, action).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    let result = runtime.block_on(carry_out(&context, args.command));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    result.map(|()| ExitCode::SUCCESS)
}

async fn carry_out(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(up) => up::run(context, up).await,
        Command::Pair(pair) => pair::run(context, pair).await,
        Command::Join { link, name } => pair::join(context, &link, name).await,
        Command::Devices => devices::list(context).await,
        Command::Revoke { device } => devices::revoke(context, &device).await,
        Command::Ls { all } => sessions::list(context, all).await,
        Command::Log {
            session,
            follow,
            from,
            raw,
        } => {
            if raw {
                sessions::raw(context, &session).await
            } else {
                sessions::log(context, &session, from, follow).await
            }
        }
        Command::Output {
            session,
            tool,
            range,
        } => tool_output::run(context, &session, &tool, range.as_deref()).await,
        Command::Send {
            session,
            text,
            sending,
        } => sessions::send(context, &session, &text.join(" "), &sending).await,
        Command::Queue { session, command } => queue::run(context, session, command).await,
        Command::Outbox { command } => outbox::run(context, command).await,
        Command::Approvals => approvals::list(context).await,
        Command::Approve(approve) => approvals::approve(context, approve).await,
        Command::Deny {
            id,
            reason,
            sending,
        } => approvals::deny(context, &id, reason, &sending).await,
        Command::Stop {
            session,
            end,
            sending,
        } => sessions::stop(context, &session, end, &sending).await,
        Command::Resume { session, sending } => sessions::resume(context, &session, &sending).await,
        Command::Status => devices::status(context).await,
        Command::Doctor => doctor::run(context).await,
        Command::Down => devices::down(context).await,
        #[cfg(debug_assertions)]
        Command::Failpoints => {
            fail::names().for_each(crate::output::line);
            Ok(())
        }
        Command::Relay(_) | Command::ScriptedAgent { .. } | Command::Service { .. } => Ok(()),
        Command::Host(host) => match host.command {
            HostCommand::Run { relay, wait } => {
                crate::daemon::run(&context.home, relay, wait).await
            }
        },
    }
}

fn no_home() -> Failure {
    Failure::new(
        Code::StateUnusable,
        "there is no place for the state folder; set FARHELM_HOME to a folder of yours",
    )
}

fn default_home() -> Result<PathBuf, Failure> {
    let dirs = etcetera::base_strategy::choose_base_strategy().map_err(|_| no_home())?;
    let base = dirs.state_dir().unwrap_or_else(|| dirs.data_dir());
    Ok(base.join("farhelm"))
}
