//! The relay: its name, its port, what answers there, and whether the clocks agree.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farhelm_core::keys::Identity;
use farhelm_link::clock::now;
use farhelm_link::driver::{Link, LinkEvent, LinkOptions, blames_clock};
use farhelm_link::rng::random;
use farhelm_proto::frame::{Role, Welcome};
use farhelm_proto::{Code, Timestamp};

use super::{Report, Trouble};

/// How long a name, a port and a relay may take each.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clocks that differ by more than this make expiries wrong.
const SKEW_MILLIS: u64 = 60_000;

/// Looks at the relay at `url`; whether a peer can use it.
pub(super) async fn look(url: &str, extra_ca: Option<PathBuf>, report: &mut Report) -> bool {
    let Some((host, port)) = place(url) else {
        let text = format!("{url:?} is not the address of a relay");
        let cure = "one looks like https://relay.example; see `relay` in config.toml";
        return report.look(
            "relay name",
            Err(Trouble::new(Code::RelayUnreachable, text, cure)),
        );
    };
    if let Some(proxy) = proxy_for(url, &host) {
        report.note("relay name", format!("by the proxy {proxy}"));
        report.note("relay port", "by the proxy");
    } else {
        let found = resolve(&host, port).await;
        if !report.look(
            "relay name",
            found.map(|found| format!("{host} is {found}")),
        ) {
            report.skip("relay port", "its name is not known");
            report.skip("relay", "its name is not known");
            report.skip("clock", "nothing to compare it with");
            return false;
        }
        if !report.look("relay port", reach(&host, port).await) {
            report.skip("relay", "nothing listens there");
            report.skip("clock", "nothing to compare it with");
            return false;
        }
    }
    match greet(url, extra_ca).await {
        Ok(welcome) => {
            let kind = if url.starts_with("https://") {
                "TLS, "
            } else {
                ""
            };
            report.look(
                "relay",
                Ok(format!(
                    "{url} answers: {kind}{}",
                    crate::render::visible(&welcome.agent)
                )),
            );
            report.look("clock", clock(welcome.now, now()));
            true
        }
        Err(trouble) => {
            report.look("relay", Err(trouble));
            report.skip("clock", "nothing to compare it with");
            false
        }
    }
}

/// Connects once as nobody in particular: any key may, up to the relay's welcome.
pub(super) async fn greet(url: &str, extra_ca: Option<PathBuf>) -> Result<Welcome, Trouble> {
    let identity = Identity::from_seed(random())
        .map_err(|error| Trouble::new(Code::Internal, error.to_string(), "try again"))?;
    let options = LinkOptions {
        relay: url.to_owned(),
        identity: Arc::new(identity),
        role: Role::Device,
        generation: 0,
        agent: concat!("farhelm-doctor/", env!("CARGO_PKG_VERSION")).to_owned(),
        extra_ca,
        dead_millis: None,
    };
    let (_link, mut events) = Link::start(options);
    let first = async {
        loop {
            match events.recv().await {
                Some(LinkEvent::Up(welcome)) => return Ok(welcome),
                Some(LinkEvent::Down { detail, .. }) if blames_clock(&detail) => {
                    let cure = "compare it with another clock (`date`) and set it (`timedatectl set-ntp true`)";
                    return Err(Trouble::new(Code::ClockSkew, detail, cure));
                }
                Some(LinkEvent::Down { code, detail, .. }) => {
                    return Err(Trouble::new(code, detail, cure(code)));
                }
                Some(LinkEvent::Frame { .. }) => {}
                None => {
                    return Err(Trouble::new(
                        Code::Internal,
                        "the link stopped",
                        "try again",
                    ));
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE * 2, first)
        .await
        .unwrap_or_else(|_| {
            let text = format!("{url} did not answer in time");
            Err(Trouble::new(
                Code::Timeout,
                text,
                cure(Code::RelayUnreachable),
            ))
        })
}

/// What to do about a relay that cannot be used.
fn cure(code: Code) -> String {
    let advice = code.sentence().split_once("; ").map(|(_, advice)| advice);
    advice
        .unwrap_or("see whether the relay runs, and what stands between it and this machine")
        .to_owned()
}

fn clock(theirs: Timestamp, ours: Timestamp) -> Result<String, Trouble> {
    let (ahead, off) = if ours > theirs {
        ("ahead of", ours.millis_since(theirs))
    } else {
        ("behind", theirs.millis_since(ours))
    };
    if off <= SKEW_MILLIS {
        return Ok(format!("within {} s of the relay's", off / 1000 + 1));
    }
    let off = crate::commands::duration(off / 1000);
    let text = format!("this machine's clock is {off} {ahead} the relay's");
    let cure = "set it (`timedatectl set-ntp true`), or else commands expire too early or too late";
    Err(Trouble::new(Code::ClockSkew, text, cure))
}

fn place(url: &str) -> Option<(String, u16)> {
    let (scheme, authority) = url.trim_end_matches('/').split_once("://")?;
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        Some(_) | None => (authority, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty() && !authority.contains(['/', '?', '#', '@'])).then(|| (host.to_owned(), port))
}

/// The proxy that a connection takes, without its login, when the environment names one.
fn proxy_for(url: &str, host: &str) -> Option<String> {
    let names: &[&str] = if url.starts_with("https://") {
        &["HTTPS_PROXY", "https_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy"]
    };
    let is_loopback = host == "localhost" || host.starts_with("127.") || host == "::1";
    let proxy = names.iter().find_map(|name| std::env::var(name).ok())?;
    let shown = proxy
        .rsplit_once('@')
        .map_or(proxy.as_str(), |(_, place)| place);
    (!is_loopback && !proxy.is_empty()).then(|| crate::render::visible(shown))
}

async fn resolve(host: &str, port: u16) -> Result<String, Trouble> {
    let name = (host.to_owned(), port);
    let found = tokio::task::spawn_blocking(move || name.to_socket_addrs());
    let found = tokio::time::timeout(PATIENCE, found).await;
    let failed = |why: String| {
        let cure = "check the address, and whether this machine has a network";
        Trouble::new(
            Code::RelayUnreachable,
            format!("the name {host:?} is not found: {why}"),
            cure,
        )
    };
    match found {
        Ok(Ok(Ok(mut addresses))) => match addresses.next() {
            Some(address) => Ok(address.ip().to_string()),
            None => Err(failed("it has no address".to_owned())),
        },
        Ok(Ok(Err(error))) => Err(failed(error.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("nobody answered in time".to_owned())),
    }
}

async fn reach(host: &str, port: u16) -> Result<String, Trouble> {
    let connecting = tokio::net::TcpStream::connect((host, port));
    let failed = |why: String| {
        let cure = "see whether the relay runs, and whether a firewall lets this machine out";
        Trouble::new(
            Code::RelayUnreachable,
            format!("port {port} of {host}: {why}"),
            cure,
        )
    };
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(_)) => Ok(format!("{port} is open")),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("nobody answered in time".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let at = |url| place(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(
            at("https://relay.example").as_deref(),
            Some("relay.example 443")
        );
        assert_eq!(
            at("http://localhost:7420/").as_deref(),
            Some("localhost 7420")
        );
        assert_eq!(at("http://[::1]:80").as_deref(), Some("::1 80"));
        assert_eq!(at("https://[::1]").as_deref(), Some("::1 443"));
        assert_eq!(at("ftp://relay.example"), None);
        assert_eq!(at("relay.example"), None);
    }

    #[test]
    fn f10_a_clock_that_is_wrong_is_named_with_the_direction() {
        let noon = Timestamp(1_000_000_000);
        assert!(clock(noon, noon.plus_millis(30_000)).is_ok());
        let ahead = clock(noon, noon.plus_millis(3 * 3_600_000)).unwrap_err();
        assert_eq!(ahead.code, Code::ClockSkew);
        assert!(ahead.text.contains("3 h ahead of"), "{ahead:?}");
        let behind = clock(noon.plus_millis(120_000), noon).unwrap_err();
        assert!(behind.text.contains("2 min behind"), "{behind:?}");
    }
}
