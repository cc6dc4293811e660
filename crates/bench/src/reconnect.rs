//! How soon everybody is back after a relay has restarted: with many live pairs, each end a link of
//! its own with its own waits, as hosts and devices have them, and nothing lost of what the hosts
//! write before, meanwhile and after.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use self::part::{Moment, Part};
use crate::child::cpu_of;
use crate::output::note;

mod crowd;
pub(crate) mod part;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a relay ends before it is started again.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is asked to, and tells everybody when to come back.
    Kind,
    /// It is killed, and every link breaks in the same moment.
    Killed,
}

/// Figures of one restart, in the time since the relay was told to end or was killed.
pub(crate) struct Restart {
    pairs: usize,
    end: End,
    listening: Duration,
    links: Vec<Duration>,
    pairs_back: Vec<Duration>,
    dials: f64,
    lost: u64,
    twice: u64,
    relay_cpu: Duration,
    own_cpu: Duration,
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
        for end in [End::Kind, End::Killed] {
            note(&format!("{pairs} pairs, {end:?}"));
            restarts.push(one(program, pairs, end).await?);
        }
    }
    Ok(restarts)
}

/// One restart, with a crowd of its own: links that were up for less than half a minute remember
/// their last failures.
async fn one(program: &Path, pairs: usize, end: End) -> anyhow::Result<Restart> {
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(program, folder.path(), 0).await?;
    let port = relay.port;
    let mut crowd = Vec::new();
    for begun in (0..pairs).step_by(part::PAIRS) {
        crowd.push(Part::start(port, part::PAIRS.min(pairs - begun), pairs)?);
    }
    for part in &mut crowd {
        part.connected().await?;
    }
    for part in &mut crowd {
        part.forget().await?;
    }
    let own = cpu_of_all(&crowd)?;
    let begun = Moment::now();
    relay.end(end).await?;
    let relay = Relay::start(program, folder.path(), port).await?;
    let listening = begun.elapsed();
    let (mut links, mut pairs_back, mut dials) = (Vec::new(), Vec::new(), 0);
    for part in &mut crowd {
        let back = part.all_back(begun).await?;
        links.extend(back.links);
        pairs_back.extend(back.pairs);
        dials += back.dials;
    }
    let relay_cpu = relay.cpu()?;
    let own_cpu = cpu_of_all(&crowd)?.saturating_sub(own);
    let (mut lost, mut twice) = (0, 0);
    for part in &mut crowd {
        let settled = part.settle().await?;
        lost += settled.0;
        twice += settled.1;
    }
    links.sort_unstable();
    pairs_back.sort_unstable();
    Ok(Restart {
        pairs,
        end,
        listening,
        dials: dials as f64 / links.len() as f64,
        links,
        pairs_back,
        lost,
        twice,
        relay_cpu,
        own_cpu,
    })
}

fn cpu_of_all(crowd: &[Part]) -> anyhow::Result<Duration> {
    crowd.iter().map(Part::cpu).sum()
}

/// The table of the figures, in Markdown.
pub(crate) fn table(restarts: &[Restart]) -> String {
    let millis = |duration: Duration| format!("{} ms", duration.as_millis());
    let at = |sorted: &[Duration], part: usize| {
        sorted
            .get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1)))
            .copied()
            .map(millis)
            .unwrap_or_default()
    };
    let mut text =
        "| a relay restarts | listens again | links p50 | p99 | last | pairs p50 | p99 | last \
                    | dials each | lost | twice | CPU of the relay | of the crowd |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
            .to_owned();
    for restart in restarts {
        let end = match restart.end {
            End::Kind => "stopped",
            End::Killed => "killed",
        };
        let times: Vec<_> = [&restart.links, &restart.pairs_back]
            .into_iter()
            .flat_map(|sorted| [50, 99, 100].map(|part| at(sorted, part)))
            .collect();
        text += &format!(
            "| {end}, {} pairs | {} | {} | {:.1} | {} | {} | {:.2} s | {:.2} s |\n",
            restart.pairs,
            millis(restart.listening),
            times.join(" | "),
            restart.dials,
            restart.lost,
            restart.twice,
            restart.relay_cpu.as_secs_f64(),
            restart.own_cpu.as_secs_f64(),
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

    /// Processor time used so far.
    fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id().context("the relay is gone")?)
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
