//! The host's side: its daemon, its journal, its relay and the way through it, its agents.

use std::time::Duration;

use farhelm_host::config::Config;
use farhelm_host::local::{LocalAnswer, LocalClient, LocalRequest, Status, socket_of};
use farhelm_proto::{Code, PeerId};

use super::{Report, Trouble, machine, relay};
use crate::commands::Context;
use crate::commands::devices::too_large;
use crate::render::visible;
use crate::resolve::short;
use crate::station::{Station, extra_ca, status};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn look(context: &Context, report: &mut Report) {
    let usable = machine::look(&context.home, report);
    let config = if usable {
        let read = Config::read(&context.home.join("config.toml"));
        let config = read.as_ref().ok().cloned();
        let found = read.map(|_| "config.toml can be read, or there is none".to_owned());
        report.look(
            "configuration",
            found.map_err(|error| Trouble::new(error.code, error.text, "correct that line")),
        );
        config.unwrap_or_default()
    } else {
        report.skip("configuration", "the state folder cannot be used");
        Config::default()
    };
    let local = LocalClient::new(&socket_of(&context.home));
    let daemon = match tokio::time::timeout(PATIENCE, status(&local)).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(failure)) => Err(not_running(context, failure.code, failure.message)),
        Err(_) => {
            let text = "the daemon does not answer at its socket".to_owned();
            Err(not_running(context, Code::Timeout, text))
        }
    };
    let found = daemon.as_ref().map(|status| {
        let age =
            crate::commands::duration(farhelm_link::clock::now().millis_since(status.since) / 1000);
        format!(
            "{} runs as process {} for {age}",
            status.version, status.pid
        )
    });
    let daemon = match found {
        Ok(text) => {
            report.look("daemon", Ok(text));
            daemon.ok()
        }
        Err(_) => {
            let _well = report.look("daemon", daemon.map(|_| String::new()));
            None
        }
    };
    match &daemon {
        Some(daemon) => {
            let written = journal(&local).await;
            report.look("journal", written.and_then(|text| kept(daemon, text)));
        }
        None => report.skip("journal", "the daemon does not run"),
    }
    let extra_ca = extra_ca().or(config.extra_ca.clone());
    let own = own_relay(&config, daemon.as_ref());
    let reached = match &own {
        Relay::At(url) => relay::look(url, extra_ca.clone(), report).await,
        Relay::Embedded => {
            report.skip("relay", "it runs inside the daemon");
            false
        }
    };
    match &daemon {
        Some(daemon) if reached => {
            let linked = report.look("link", link(daemon));
            if !daemon.forked.is_empty() {
                report.look("logs", Err(forked(daemon)));
            }
            if linked {
                look_at_ways(&local, daemon.host, report).await;
            } else {
                report.skip("round trip", "the daemon is not connected");
            }
            tunnel(daemon, extra_ca, report).await;
        }
        Some(_) => {
            report.skip("link", "the relay cannot be used");
            report.skip("round trip", "the relay cannot be used");
        }
        None => {
            report.skip("link", "the daemon does not run");
            report.skip("round trip", "the daemon does not run");
        }
    }
    report.look("agent", agent(&config));
}

/// Where this host's relay is.
enum Relay {
    At(String),
    /// In a daemon that does not run.
    Embedded,
}

fn own_relay(config: &Config, daemon: Option<&Status>) -> Relay {
    if let Some(daemon) = daemon {
        return Relay::At(daemon.relay_url.clone());
    }
    config.relay.clone().map_or(Relay::Embedded, Relay::At)
}

fn not_running(context: &Context, code: Code, text: String) -> Trouble {
    let text = if code == Code::NotRunning {
        "no daemon runs here".to_owned()
    } else {
        text
    };
    let log = context.home.join("farhelm.log");
    let cure = if log.exists() {
        format!(
            "start one with `farhelm up`; {} says how the last one ended",
            log.display()
        )
    } else {
        "start one with `farhelm up`".to_owned()
    };
    Trouble::new(code, text, cure)
}

async fn journal(local: &LocalClient) -> Result<String, Trouble> {
    let cure = "free some disk space, and look into farhelm.log";
    match tokio::time::timeout(PATIENCE, local.ask_once(&LocalRequest::Journal)).await {
        Ok(Ok(LocalAnswer::Answered { millis })) => {
            Ok(format!("written to within {} ms", millis.max(1)))
        }
        Ok(Ok(_)) => Err(Trouble::new(
            Code::UnsupportedVersion,
            "the daemon is of another version",
            "end it with `farhelm down` and start it again",
        )),
        Ok(Err(error)) => Err(Trouble::new(error.code, error.text, cure)),
        Err(_) => Err(Trouble::new(
            Code::JournalFailed,
            "it takes too long to write to the disk",
            cure,
        )),
    }
}

/// Whether the journal has all that it had, and room.
fn kept(daemon: &Status, text: String) -> Result<String, Trouble> {
    if !daemon.journal_lost.is_empty() {
        return Err(Trouble::new(
            Code::HistoryDamaged,
            format!(
                "it was damaged when the daemon started, and has lost: {}",
                daemon.journal_lost.join(", ")
            ),
            "look at what was done last, in `farhelm ls` and `farhelm devices`, and after that disk; it is said until the \
             daemon is started again",
        ));
    }
    if daemon.journal_beyond > 0 {
        return Err(Trouble::new(
            Code::JournalFull,
            format!("it {}", too_large(daemon.journal_beyond)),
            "raise `journal_mib` in config.toml and start the daemon again",
        ));
    }
    Ok(text)
}

/// Whether the daemon is connected to its relay, by its own word.
fn link(daemon: &Status) -> Result<String, Trouble> {
    if daemon.relay == "up" {
        return Ok("the daemon is connected to it".to_owned());
    }
    let error = daemon
        .relay_error
        .clone()
        .unwrap_or_else(|| "it is connecting".to_owned());
    let (word, text) = error.split_once(": ").unwrap_or(("", error.as_str()));
    let code = Code::from_word(word).unwrap_or(Code::RelayUnreachable);
    let advice = code.sentence().split_once("; ").map(|(_, advice)| advice);
    let cure =
        advice.unwrap_or("wait a little: it tries again by itself; else look into farhelm.log");
    Err(Trouble::new(
        code,
        format!("the daemon is not connected: {}", visible(text)),
        cure,
    ))
}

/// Sessions that are otherwise at the relay.
fn forked(daemon: &Status) -> Trouble {
    let sessions: Vec<_> = daemon.forked.iter().map(short).collect();
    let text = format!(
        "the relay has newer events, or others, than this state folder of the sessions {}",
        sessions.join(", ")
    );
    let cure = "put the state folder back to its newest copy while the daemon does not run, or end these sessions";
    Trouble::new(Code::Copied, text, cure)
}

/// Sends a message to this host itself, and one to each device.
async fn look_at_ways(local: &LocalClient, host: PeerId, report: &mut Report) {
    let there_and_back = round_trip(local, host).await.map_err(|(code, text)| {
        let cure = "look into farhelm.log and the relay's log; end the daemon with `farhelm down` and start it again";
        Trouble::new(code, format!("a message through the relay did not come back: {text}"), cure)
    });
    let is_way = report.look(
        "round trip",
        there_and_back.map(|millis| {
            format!(
                "a message went to the relay and came back within {} ms",
                millis.max(1)
            )
        }),
    );
    let devices = Station::Local(local.clone()).overview().await;
    let roster = devices.ok().and_then(|overview| overview.roster);
    for (peer, member) in roster.iter().flat_map(|roster| roster.devices()) {
        let name = format!("{} ({})", visible(&member.name), short(&peer));
        if !is_way {
            continue;
        }
        let text = match round_trip(local, peer).await {
            Ok(millis) => format!("{name} answers within {} ms", millis.max(1)),
            Err((Code::HostOffline, _)) => format!("{name} is not connected"),
            Err((Code::Timeout, _)) => format!("{name} is connected and does not answer"),
            Err((_, text)) => format!("{name}: {text}"),
        };
        report.note("device", text);
    }
}

async fn round_trip(local: &LocalClient, of: PeerId) -> Result<u64, (Code, String)> {
    let answer = local.ask_once(&LocalRequest::RoundTrip { of }).await;
    let answer = answer.map_err(|error| (error.code, error.text))?;
    if let LocalAnswer::Answered { millis } = answer {
        return Ok(millis);
    }
    let text = "the daemon is of another version".to_owned();
    Err((Code::UnsupportedVersion, text))
}

/// Whether the address that devices are given leads to the relay.
async fn tunnel(daemon: &Status, extra_ca: Option<std::path::PathBuf>, report: &mut Report) {
    if daemon.url.trim_end_matches('/') == daemon.relay_url.trim_end_matches('/') {
        report.note("tunnel", "none; pairing links have the relay's own address");
        return;
    }
    let found = relay::greet(&daemon.url, extra_ca).await;
    let found = found.map(|_| format!("{} leads to the relay", daemon.url));
    report.look(
        "tunnel",
        found.map_err(|trouble| Trouble {
            cure: "open it again with `farhelm up --via …`".to_owned(),
            ..trouble
        }),
    );
}

fn agent(config: &Config) -> Result<String, Trouble> {
    let path = std::env::var_os("PATH");
    let registry = config.registry();
    let named = config.agent.as_ref().map(|name| registry.find(name));
    let agent = match named {
        Some(Ok(agent)) => Some(agent),
        Some(Err(error)) => {
            return Err(Trouble::new(
                error.code,
                error.text,
                "correct `agent` in config.toml",
            ));
        }
        None => registry.detect(path.as_ref()),
    };
    let Some(agent) = agent else {
        let cure = "install one (npm install -g @anthropic-ai/claude-code, opencode-ai or @google/gemini-cli)";
        let text = "no agent that is known was found on the PATH";
        return Err(Trouble::new(Code::AgentMissing, text, cure));
    };
    let program = farhelm_host::agents::registry::find_program(
        &agent,
        path.as_ref(),
        std::path::Path::new("/"),
    );
    match program {
        Ok(program) => Ok(format!("{} is {}", visible(&agent.name), program.display())),
        Err(error) => Err(Trouble::new(
            error.code,
            error.text,
            "install it, or name another one",
        )),
    }
}
