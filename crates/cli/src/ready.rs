//! Tells systemd that the daemon is ready, and that it still answers (`sd_notify`): datagrams to
//! the socket that it names, when it names one.

use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use farhelm_host::local::{LocalClient, LocalRequest};

/// Says that the daemon is ready, then, for as long as it is polled, that it answers. Never ends.
pub(crate) async fn tell(local: LocalClient) {
    say("READY=1");
    let Some(every) = watchdog() else {
        return std::future::pending().await;
    };
    loop {
        // By the way that every command of this machine takes: a daemon that is stuck is ended and
        // started again.
        let answer = local.ask_once(&LocalRequest::Pulse).await;
        if answer.is_ok() {
            say("WATCHDOG=1");
        }
        tokio::time::sleep(every).await;
    }
}

/// How often systemd wants a sign of life: twice in the time that it waits for one.
fn watchdog() -> Option<Duration> {
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let is_ours = std::env::var("WATCHDOG_PID").map_or(Ok(std::process::id()), |pid| pid.parse());
    (is_ours == Ok(std::process::id()) && micros > 0).then(|| Duration::from_micros(micros / 2))
}

fn say(what: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = address(&name).and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(what.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd could not be told");
    }
}

fn address(name: &std::ffi::OsStr) -> std::io::Result<SocketAddr> {
    match name.as_encoded_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(hidden) => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(hidden)
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(std::io::ErrorKind::Unsupported.into()),
        None => SocketAddr::from_pathname(name),
    }
}
