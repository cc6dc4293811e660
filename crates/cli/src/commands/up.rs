//! `farhelm up`: the main job.

use std::path::PathBuf;

use farhelm_core::command::{Command, Outcome};
use farhelm_host::config::AgentChoice;
use farhelm_host::environment::Environment;
use farhelm_host::local::{LocalAnswer, LocalClient, LocalRequest, socket_of};
use farhelm_link::clock::now;
use farhelm_link::rng::random;
use farhelm_proto::{Code, SessionId};

use super::Context;
use crate::args::Up;
use crate::failure::Failure;
use crate::render::visible;
use crate::station::{status, unexpected};
use crate::{daemon, output, surface};

pub(super) async fn run(context: &Context, up: Up) -> Result<(), Failure> {
    let dir = up.dir.canonicalize().ok().filter(|dir| dir.is_dir());
    let dir = dir.ok_or_else(|| {
        Failure::new(
            Code::FolderMissing,
            format!("{} does not exist or is not a folder", up.dir.display()),
        )
    })?;
    if dir.to_str().is_none() {
        let text = format!(
            "the path {} is not valid UTF-8, so devices could not show it; rename the folder",
            dir.display()
        );
        return Err(Failure::new(Code::FolderMissing, text));
    }
    let named = up.agent.map(|name| AgentChoice::Named { name });
    let wanted = Wanted {
        // Made here, so that however often it is asked for it is one session.
        session: SessionId::fresh(now(), random()),
        dir,
        agent: named.or(up.agent_cmd.map(|line| AgentChoice::Command { line })),
        prompt: up.prompt,
        relay: up.relay,
        tunnel: up
            .via
            .map(|via| (via, false))
            .or(up.via_cmd.map(|line| (line, true))),
    };
    let opening = async |local: &LocalClient, started| wanted.open(local, started).await;
    let (session, link) = daemon::with(&context.home, wanted.relay.as_deref(), opening).await?;
    let local = LocalClient::new(&socket_of(&context.home));
    if context.json {
        let link_works_on_phones = link.as_deref().map(works_on_phones);
        output::json(&serde_json::json!({
            "session": session, "link": link, "link_works_on_phones": link_works_on_phones,
        }));
    } else {
        output::line(&format!("session {session}"));
        if let Some(link) = &link {
            show_link(link);
        }
    }
    if !context.json {
        say_trouble(&local).await?;
    }
    if up.headless || context.json {
        return Ok(());
    }
    surface::run(local, session).await
}

/// What is asked of the daemon.
struct Wanted {
    session: SessionId,
    dir: PathBuf,
    agent: Option<AgentChoice>,
    prompt: Option<String>,
    relay: Option<String>,
    /// A program or a command line, and which of them.
    tunnel: Option<(String, bool)>,
}

impl Wanted {
    /// Opens the session and a pairing; gives the session and the link.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other answer is unexpected"
    )]
    async fn open(
        &self,
        local: &LocalClient,
        started: bool,
    ) -> Result<(SessionId, Option<String>), Failure> {
        if let Some(wanted) = self.relay.as_deref().filter(|_| !started) {
            let uses = status(local).await?.url;
            if uses != wanted.trim_end_matches('/') {
                let text = format!(
                    "the running daemon uses {uses}; run `farhelm down` first to change the relay"
                );
                return Err(Failure::new(Code::AlreadyRunning, text));
            }
        }
        if let Some((via, is_command)) = self.tunnel.clone() {
            output::note("waiting for the tunnel's address …");
            local
                .ask_once(&LocalRequest::Tunnel { via, is_command })
                .await?;
        }
        let request = LocalRequest::Start {
            session: Some(self.session),
            dir: self.dir.clone(),
            agent: self.agent.clone(),
            environment: Environment::of_this_process(),
            prompt: self.prompt.clone(),
        };
        let session = match local.ask_once(&request).await? {
            LocalAnswer::Outcome {
                outcome:
                    Outcome::Applied {
                        made: Some(made), ..
                    },
            } => made.parse().map_err(Failure::internal)?,
            LocalAnswer::Outcome {
                outcome: Outcome::Refused { rejection },
            } => return Err(rejection.into()),
            _ => return Err(unexpected()),
        };
        let pairing = LocalRequest::Wish {
            command: Command::OpenPairing {},
        };
        let link = match local.ask_once(&pairing).await? {
            LocalAnswer::Outcome {
                outcome: Outcome::Applied { made, .. },
            } => made,
            _ => None,
        };
        Ok((session, link))
    }
}

/// Says when the relay cannot be reached: until it can, no device can.
async fn say_trouble(local: &LocalClient) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + CONNECT_WITHIN;
    let mut now = status(local).await?;
    while now.relay == "connecting" && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(CONNECT_WITHIN / 50).await;
        now = status(local).await?;
    }
    if let Some(error) = now.relay_error {
        output::note(&format!(
            "the relay is not connected, and is tried again and again: {}",
            visible(&error)
        ));
    }
    Ok(())
}

/// How long the relay may take before the person is no longer kept waiting for it.
const CONNECT_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Prints a pairing link, with its QR code on a terminal, and says when it cannot work on a phone.
pub(super) fn show_link(link: &str) {
    if output::is_terminal()
        && let Some(code) = output::qr(link)
    {
        output::line(&code);
    }
    output::line(&format!("pair a device within 10 minutes, once: {link}"));
    if !works_on_phones(link) {
        let is_loopback = matches!(host_of(link), Some("localhost" | "127.0.0.1" | "["));
        let reach = if is_loopback {
            "works on this machine only"
        } else {
            "does not work on a phone"
        };
        output::line(&format!(
            "this link {reach}: a phone's browser needs https. Use --via tailscale, --via cloudflared, --via-cmd, \
             or a relay of your own with --relay https://…"
        ));
    }
}

/// Whether a phone's browser can use the link.
pub(super) fn works_on_phones(link: &str) -> bool {
    link.starts_with("https://")
        && !matches!(
            host_of(link),
            Some("localhost" | "127.0.0.1" | "[" | "") | None
        )
}

/// The name in a link's address; of an IPv6 address, its first bracket.
fn host_of(link: &str) -> Option<&str> {
    let (_, rest) = link.split_once("://")?;
    rest.split(['/', ':', '#']).next()
}
