//! How soon everybody is back after a relay has restarted: with many live pairs, each a link of
//! its own with its own waits, as hosts and devices have them.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use farhelm_core::keys::Identity;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions};
use farhelm_link::rng;
use farhelm_proto::frame::Role;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a relay ends before it is started again.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is asked to, and tells everybody when to come back.
    Kind,
    /// It is killed.
    Killed,
}

/// Figures of one restart, in the time since the relay was told to end or was killed.
pub(crate) struct Restart {
    pairs: usize,
    end: End,
    listening: Duration,
    p50: Duration,
    p99: Duration,
    last: Duration,
}

/// Restarts a relay under each number of pairs; `program` is the release build of `farhelm`.
pub(crate) async fn all(program: &Path, pairs: &[usize]) -> anyhow::Result<Vec<Restart>> {
    ensure!(
        program.exists(),
        "{} is not built; run `make build`",
        program.display()
    );
    let mut restarts = Vec::new();
    for &pairs in pairs {
        let folder = tempfile::tempdir()?;
        let mut relay = Relay::start(program, folder.path(), 0).await?;
        let mut crowd = Crowd::connect(relay.port, pairs * 2).await?;
        for end in [End::Kind, End::Killed] {
            crowd.forget();
            let begun = Instant::now();
            let port = relay.port;
            relay.end(end).await?;
            relay = Relay::start(program, folder.path(), port).await?;
            let listening = begun.elapsed();
            let mut took = crowd.all_back(begun).await?;
            took.sort_unstable();
            let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
            restarts.push(Restart {
                pairs,
                end,
                listening,
                p50: at(50),
                p99: at(99),
                last: at(100),
            });
        }
    }
    Ok(restarts)
}

/// The table of the figures, in Markdown.
pub(crate) fn table(restarts: &[Restart]) -> String {
    let millis = |duration: Duration| format!("{} ms", duration.as_millis());
    let mut text = "| a relay restarts | listens again | p50 back | p99 back | last back |\n\
                    |---|---:|---:|---:|---:|\n"
        .to_owned();
    for restart in restarts {
        let end = match restart.end {
            End::Kind => "stopped",
            End::Killed => "killed",
        };
        text += &format!(
            "| {end}, {} pairs | {} | {} | {} | {} |\n",
            restart.pairs,
            millis(restart.listening),
            millis(restart.p50),
            millis(restart.p99),
            millis(restart.last)
        );
    }
    text
}

/// The real program.
struct Relay {
    child: Child,
    port: u16,
}

impl Relay {
    async fn start(program: &Path, data: &Path, port: u16) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .context("the relay does not start")??
            .context("the relay ended at once")?;
        let port = line
            .trim()
            .rsplit_once(':')
            .context("no address")?
            .1
            .parse()?;
        Ok(Self { child, port })
    }

    async fn end(mut self, end: End) -> anyhow::Result<()> {
        match (end, self.child.id()) {
            (End::Killed, _) => self.child.start_kill()?,
            (End::Kind, Some(pid)) => {
                let pid = i32::try_from(pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                    .context("no process")?;
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            }
            (End::Kind, None) => bail!("the relay is gone already"),
        }
        self.child.wait().await?;
        Ok(())
    }
}

/// Many links to one relay; they end with it.
struct Crowd {
    size: usize,
    ups: mpsc::UnboundedReceiver<(usize, Instant)>,
    _links: JoinSet<()>,
}

impl Crowd {
    async fn connect(port: u16, size: usize) -> anyhow::Result<Self> {
        let (told, ups) = mpsc::unbounded_channel();
        let mut links = JoinSet::new();
        for index in 0..size {
            let role = if index % 2 == 0 {
                Role::Host
            } else {
                Role::Device
            };
            let (link, mut events) = Link::start(LinkOptions {
                relay: format!("http://127.0.0.1:{port}"),
                identity: Arc::new(Identity::from_seed(rng::random())?),
                role,
                generation: 1,
                dead_millis: None,
                agent: "bench/1".to_owned(),
                extra_ca: None,
            });
            let told = told.clone();
            links.spawn(async move {
                let _link = link;
                while let Some(event) = events.recv().await {
                    if matches!(event, LinkEvent::Up(_))
                        && told.send((index, Instant::now())).is_err()
                    {
                        return;
                    }
                }
            });
        }
        let mut crowd = Self {
            size,
            ups,
            _links: links,
        };
        crowd.all_back(Instant::now()).await?;
        Ok(crowd)
    }

    /// What was heard before does not count.
    fn forget(&mut self) {
        while self.ups.try_recv().is_ok() {}
    }

    /// How long after `begun` each link was up, once all of them were.
    async fn all_back(&mut self, begun: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut took = vec![None; self.size];
        let mut missing = self.size;
        let waiting = async {
            while missing > 0
                && let Some((index, at)) = self.ups.recv().await
            {
                missing -= usize::from(took[index].is_none());
                took[index].get_or_insert(at.duration_since(begun));
            }
        };
        let done = tokio::time::timeout(PATIENCE, waiting).await;
        ensure!(
            done.is_ok() && missing == 0,
            "{missing} links did not come back"
        );
        Ok(took.into_iter().flatten().collect())
    }
}
