//! The names under which this relay may be addressed.
//!
//! A web page that a person has open elsewhere can reach a loopback address, and with a
//! rebinding name server even under its own name. So each request must name the relay as the
//! relay knows itself, and a page that opens a socket must come from the relay itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::RwLock;

use anyhow::{Context as _, ensure};

/// The names and ports that are ours.
#[derive(Default)]
pub(crate) struct Authorities {
    allowed: RwLock<BTreeSet<String>>,
}

impl Authorities {
    /// Allows the loopback names with the port that the relay listens on.
    pub(crate) fn allow_loopback(&self, bound: SocketAddr) {
        let port = bound.port();
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            self.insert(format!("{host}:{port}"));
        }
    }

    /// Allows an authority (`relay.example`, `localhost:8080`) or a URL that has nothing after
    /// its authority. Without a port, the usual ones of its scheme are meant.
    pub(crate) fn allow(&self, text: &str) -> anyhow::Result<()> {
        let lower = text.trim().to_ascii_lowercase();
        let (scheme, rest) = match lower.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest.strip_suffix('/').unwrap_or(rest)),
            None => (None, lower.as_str()),
        };
        let authority: http::uri::Authority = rest
            .parse()
            .with_context(|| format!("{text} is not an address like https://relay.example"))?;
        ensure!(!rest.contains('@'), "{text} must not hold a user");
        let usual: &[u16] = match scheme {
            Some("http" | "ws") => &[80],
            Some("https" | "wss") => &[443],
            Some(other) => anyhow::bail!("{other} is not a scheme that a relay speaks; use https"),
            None => &[80, 443],
        };
        match authority.port_u16() {
            Some(port) => self.insert(format!("{}:{port}", authority.host())),
            None => usual
                .iter()
                .for_each(|port| self.insert(format!("{}:{port}", authority.host()))),
        }
        Ok(())
    }

    /// Whether `authority`, from a `Host` header or a handshake, is one of ours. Without a port
    /// either usual one will do: behind a proxy the relay cannot know which was dialled.
    pub(crate) fn allows(&self, authority: &str) -> bool {
        let Ok(authority) = authority
            .to_ascii_lowercase()
            .parse::<http::uri::Authority>()
        else {
            return false;
        };
        if authority.as_str().contains('@') {
            return false;
        }
        match authority.port_u16() {
            Some(port) => self.has(authority.host(), port),
            None if authority.port().is_some() || authority.as_str().ends_with(':') => false,
            None => self.has(authority.host(), 443) || self.has(authority.host(), 80),
        }
    }

    /// Whether a page with this `Origin` is one of ours.
    pub(crate) fn allows_origin(&self, origin: &str) -> bool {
        match origin.split_once("://") {
            Some(("http" | "https", authority)) => {
                !authority.contains('/') && self.allows(authority)
            }
            Some(_) | None => false,
        }
    }

    fn has(&self, host: &str, port: u16) -> bool {
        let allowed = self
            .allowed
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        allowed.contains(&format!("{host}:{port}"))
    }

    fn insert(&self, authority: String) {
        let mut allowed = self
            .allowed
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        allowed.insert(authority);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s08_only_our_own_names_with_our_own_port_are_allowed() {
        let ours = Authorities::default();
        ours.allow_loopback(([127, 0, 0, 1], 7420).into());
        ours.allow("https://Relay.example/").unwrap();
        ours.allow("tunnel.example:8443").unwrap();
        for good in [
            "localhost:7420",
            "LOCALHOST:7420",
            "[::1]:7420",
            "relay.example",
            "relay.example:443",
            "tunnel.example:8443",
        ] {
            assert!(ours.allows(good), "{good}");
        }
        for bad in [
            "localhost",
            "localhost:7421",
            "evil.example:7420",
            "relay.example:80",
            "relay.example:7420",
            "relay.example.evil",
            "relay.example:",
            "a@relay.example",
            "",
            "tunnel.example",
            "127.0.0.1",
            "relay.example.",
            "relay.example/x",
        ] {
            assert!(!ours.allows(bad), "{bad}");
        }
    }

    #[test]
    fn s07_an_origin_must_be_ours_too() {
        let ours = Authorities::default();
        ours.allow_loopback(([127, 0, 0, 1], 7420).into());
        ours.allow("https://relay.example").unwrap();
        assert!(
            ours.allows_origin("https://relay.example")
                && ours.allows_origin("http://localhost:7420")
        );
        for bad in [
            "null",
            "",
            "https://evil.example",
            "http://localhost:3000",
            "file://",
            "https://relay.example/x",
        ] {
            assert!(!ours.allows_origin(bad), "{bad}");
        }
    }
}
