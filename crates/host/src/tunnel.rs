//! Tunnel programs: somebody else's program that gives the embedded relay an https address. Any
//! pipe will do, since it sees only sealed frames.

use std::process::Stdio;
use std::time::Duration;

use farhelm_proto::Code;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::agents::{AgentError, split_words};

/// How long a tunnel program may take to say its address.
const ADDRESS_WITHIN: Duration = Duration::from_secs(45);
/// How long it may take to leave when it is asked to.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Lines of output that may wait.
const LINES: usize = 64;

/// A tunnel that runs; dropping it ends the program.
#[derive(Debug)]
pub struct Tunnel {
    /// Which program it is.
    pub via: Via,
    /// The https address that it gives.
    pub url: String,
    program: Program,
    lines: mpsc::Receiver<String>,
}

/// The program with all that it starts; dropping it ends them.
#[derive(Debug)]
struct Program {
    child: Child,
    group: Option<Pid>,
}

impl Program {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Nobody left in it is what we want.
            rustix::process::kill_process_group(group, signal).unwrap_or_default();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Which tunnel program to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// `tailscale serve`: reachable within the user's tailnet.
    Tailscale,
    /// `cloudflared tunnel`: a public address.
    Cloudflared,
    /// Any program; `{port}` and `{url}` in its words are replaced.
    Command(String),
}

impl Via {
    /// Reads `tailscale` or `cloudflared`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tailscale" => Some(Self::Tailscale),
            "cloudflared" => Some(Self::Cloudflared),
            _ => None,
        }
    }

    fn words(&self, port: u16) -> Result<Vec<String>, AgentError> {
        let line = match self {
            Self::Tailscale => "tailscale serve {port}",
            Self::Cloudflared => "cloudflared tunnel --no-autoupdate --url {url}",
            Self::Command(line) => line,
        };
        let url = format!("http://localhost:{port}");
        let words = split_words(line).map_err(|error| failed(format!("{line:?}: {error}")))?;
        let fill = |word: String| {
            word.replace("{port}", &port.to_string())
                .replace("{url}", &url)
        };
        Ok(words.into_iter().map(fill).collect())
    }
}

impl Tunnel {
    /// Starts the program and waits until it has printed its https address.
    ///
    /// # Errors
    ///
    /// [`Code::TunnelFailed`] when it is not there, ends, or prints none in time.
    pub async fn open(via: Via, port: u16) -> Result<Self, AgentError> {
        let words = via.words(port)?;
        let (program, args) = words
            .split_first()
            .ok_or_else(|| failed("an empty command".to_owned()))?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("{program}: {error}; is it installed?")))?;
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut running = Program { child, group };
        let (sender, mut lines) = mpsc::channel(LINES);
        if let Some(stdout) = running.child.stdout.take() {
            read_lines(stdout, sender.clone());
        }
        if let Some(stderr) = running.child.stderr.take() {
            read_lines(stderr, sender);
        }
        let mut last = String::new();
        let address = async {
            while let Some(line) = lines.recv().await {
                if let Some(url) = find_address(&line) {
                    return Some(url);
                }
                last = line;
            }
            None
        };
        match tokio::time::timeout(ADDRESS_WITHIN, address).await {
            Ok(Some(url)) => Ok(Self {
                via,
                url,
                program: running,
                lines,
            }),
            Ok(None) => {
                let last = if last.trim().is_empty() {
                    "it said nothing".to_owned()
                } else {
                    last
                };
                Err(failed(format!(
                    "{program} ended without giving an https address: {last}"
                )))
            }
            Err(_) => Err(failed(format!(
                "{program} gave no https address in {} s",
                ADDRESS_WITHIN.as_secs()
            ))),
        }
    }

    /// Waits until the program ends.
    pub async fn ended(&mut self) {
        // Its output is read on, so that it never blocks.
        while self.lines.recv().await.is_some() {}
        drop(self.program.child.wait().await);
        self.program.signal(Signal::KILL);
        self.program.group = None;
    }

    /// The program's process, which leads its group.
    pub(crate) fn pid(&self) -> u32 {
        self.program.child.id().unwrap_or_default()
    }

    /// Asks the program to leave, so that it can take back what it has set up; then ends it.
    pub(crate) async fn close(mut self) {
        self.program.signal(Signal::TERM);
        drop(tokio::time::timeout(LEAVE_WITHIN, self.ended()).await);
    }
}

fn read_lines(stream: impl AsyncRead + Unpin + Send + 'static, sender: mpsc::Sender<String>) {
    let mut lines = BufReader::new(stream).lines();
    let reading = async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if sender.send(line).await.is_err() {
                break;
            }
        }
    };
    crate::tasks::Tasks::default().spawn("tunnel output", reading);
}

/// The first https address with a name in a line of output, without a path.
fn find_address(line: &str) -> Option<String> {
    line.match_indices("https://").find_map(|(at, scheme)| {
        let rest = &line[at + scheme.len()..];
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        let host: String = rest.chars().take_while(|c| is_part(*c)).collect();
        let host = host.trim_end_matches([':', '.']);
        let is_documentation = [
            "developers.cloudflare.com",
            "www.cloudflare.com",
            "login.tailscale.com",
            "tailscale.com",
        ];
        let usable = (host.contains('.') || host.starts_with("localhost"))
            && !is_documentation.contains(&host);
        usable.then(|| format!("https://{host}"))
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers have just made the text"
)]
fn failed(text: String) -> AgentError {
    AgentError::new(Code::TunnelFailed, format!("the tunnel: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_tunnel_programs_print() {
        let cloudflared =
            "2026-11-23T10:00:00Z INF |  https://some-words-here.trycloudflare.com           |";
        assert_eq!(
            find_address(cloudflared).as_deref(),
            Some("https://some-words-here.trycloudflare.com")
        );
        let tailscale = "https://desk.tail1234.ts.net/";
        assert_eq!(
            find_address(tailscale).as_deref(),
            Some("https://desk.tail1234.ts.net")
        );
        assert_eq!(
            find_address("see https://developers.cloudflare.com/tunnel"),
            None
        );
        assert_eq!(find_address("no address"), None);
    }

    #[tokio::test]
    async fn any_program_that_prints_an_address_is_a_tunnel() {
        let via = Via::Command("sh -c 'echo starting on {port}; echo ready: https://tunnel.example:8443/x; exec sleep 60'".into());
        let tunnel = Tunnel::open(via, 7420).await.unwrap();
        assert_eq!(tunnel.url, "https://tunnel.example:8443");
    }

    #[tokio::test]
    async fn a_tunnel_program_that_ends_or_is_missing_is_a_clear_error() {
        let ends = Tunnel::open(Via::Command("sh -c 'echo no luck'".into()), 1)
            .await
            .unwrap_err();
        assert!(ends.text.contains("no luck"), "{ends}");
        let missing = Tunnel::open(Via::Command("no-such-tunnel-program".into()), 1)
            .await
            .unwrap_err();
        assert_eq!(missing.code, Code::TunnelFailed);
        assert!(missing.text.contains("is it installed?"), "{missing}");
    }
}
