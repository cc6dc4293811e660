//! A server in a process of its own, and what it uses. Ends with the value that stands for it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::peer::Pair;
use crate::target::Kind;

/// A server that runs.
pub(crate) struct Server {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    data: TempDir,
}

impl Server {
    /// Starts one with an empty store.
    pub(crate) fn start(kind: Kind) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("farhelm-bench-")
            .tempdir()?;
        let (child, address) = spawn(kind, data.path(), 0)?;
        Ok(Self {
            kind,
            child,
            address,
            data,
        })
    }

    /// Ends it without a warning and starts it again, on the same port, with what it stored.
    pub(crate) fn crash(&mut self) -> anyhow::Result<()> {
        end(&mut self.child);
        (self.child, self.address) = spawn(self.kind, self.data.path(), self.address.port())?;
        Ok(())
    }

    /// A host with its devices here; each number is another.
    pub(crate) const fn pair(&self, number: u64) -> Pair {
        Pair {
            kind: self.kind,
            address: self.address,
            number,
        }
    }

    /// Processor time used so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Memory that is its own, plus its share of what it shares, in KiB.
    pub(crate) fn pss(&self) -> anyhow::Result<f64> {
        pss_of(self.child.id())
    }
}

/// Processor time that a process has used so far.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th after it.
    let fields = stat
        .rsplit_once(')')
        .context("no process")?
        .1
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Memory that is a process's own, plus its share of what it shares, in KiB.
pub(crate) fn pss_of(pid: u32) -> anyhow::Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn spawn(kind: Kind, data: &Path, port: u16) -> anyhow::Result<(Child, SocketAddr)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", kind.name(), "--port", &port.to_string(), "--data"])
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start a server")?;
    let mut line = String::new();
    let heard = child
        .stdout
        .take()
        .map(|stdout| BufReader::new(stdout).read_line(&mut line));
    match line.trim().parse() {
        Ok(address) => Ok((child, address)),
        Err(error) => {
            end(&mut child);
            ensure!(
                heard.is_some_and(|heard| heard.is_ok()),
                "{} said nothing",
                kind.name()
            );
            Err(error).with_context(|| format!("{} did not start", kind.name()))
        }
    }
}

fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

/// What Linux counts processor time in, on every machine.
const TICKS_PER_SECOND: u64 = 100;
