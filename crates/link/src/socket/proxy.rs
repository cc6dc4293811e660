//! The way to the relay: straight, or through the HTTP proxy that the system prescribes.

use std::sync::Arc;

use base64::Engine as _;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::socket::life::Counted;
use crate::socket::{Life, Pipe, Route, Target, Trust, Unreachable, clean, tcp};

/// A byte stream to the relay, or to the proxy before it, and the route that it takes.
pub(crate) async fn connect(
    target: &Target,
    trust: &mut Trust,
    life: &Arc<Life>,
) -> Result<(Box<dyn Pipe>, Option<Route>), Unreachable> {
    if let Some(connecting) = farhelm_world::connect(&target.host, target.port) {
        let failed =
            |error| Unreachable::because(format!("no connection to {}: {error}", target.authority));
        let stream = connecting.await.map_err(failed)?;
        return Ok((Box::new(Counted::new(stream, life)), None));
    }
    let proxy = if is_loopback(&target.host) {
        None
    } else {
        Matcher::from_system().intercept(&target.uri)
    };
    match proxy {
        Some(proxy) => through(&proxy, target, trust, life).await,
        None => {
            let stream = tcp::connect(&target.host, target.port).await?;
            let route = Route::of(&stream);
            Ok((Box::new(Counted::new(stream, life)), route))
        }
    }
}

async fn through(
    proxy: &Intercept,
    target: &Target,
    trust: &mut Trust,
    life: &Arc<Life>,
) -> Result<(Box<dyn Pipe>, Option<Route>), Unreachable> {
    let uri = proxy.uri();
    let (tls, default) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        Some(other) => {
            return Err(Unreachable::because(format!(
                "proxies that speak {} are not supported",
                clean(other)
            )));
        }
        None => {
            return Err(Unreachable::because(
                "the address of the proxy has no scheme".to_owned(),
            ));
        }
    };
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let why = |unreachable: Unreachable| {
        let detail = format!("the proxy cannot be reached: {}", unreachable.detail);
        Unreachable::of(unreachable.code, detail)
    };
    let stream = tcp::connect(host, uri.port_u16().unwrap_or(default))
        .await
        .map_err(why)?;
    let route = Route::of(&stream);
    let stream: Box<dyn Pipe> = Box::new(Counted::new(stream, life));
    let stream = if tls {
        trust.wrap(stream, host).await.map_err(why)?
    } else {
        stream
    };
    let stream = tunnel(stream, target, authorization(proxy)).await?;
    Ok((stream, route))
}

/// Asks for a tunnel (RFC 9110, section 9.3.6).
async fn tunnel(
    mut stream: Box<dyn Pipe>,
    target: &Target,
    authorization: Option<String>,
) -> Result<Box<dyn Pipe>, Unreachable> {
    let host = if target.host.contains(':') {
        format!("[{}]", target.host)
    } else {
        target.host.clone()
    };
    let place = format!("{host}:{}", target.port);
    let login = authorization
        .map(|value| format!("Proxy-Authorization: {value}\r\n"))
        .unwrap_or_default();
    let request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{login}\r\n");
    let broke = |error| Unreachable::because(format!("the connection to the proxy broke: {error}"));
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let head = read_head(&mut stream).await.map_err(broke)?;
    match status(&head) {
        Some(200..=299) => Ok(stream),
        Some(407) => Err(Unreachable::because(
            "the proxy wants a name and a password, or others (HTTP 407)".to_owned(),
        )),
        Some(status) => Err(Unreachable::because(format!(
            "the proxy does not connect to {place} (HTTP {status})"
        ))),
        None => Err(Unreachable::because(
            "the proxy does not speak HTTP".to_owned(),
        )),
    }
}

/// Reads up to the empty line, and no byte more: what follows belongs to the tunnel.
async fn read_head(stream: &mut Box<dyn Pipe>) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// The status of an HTTP/1 answer.
#[must_use]
pub fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    line.strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()
}

fn authorization(proxy: &Intercept) -> Option<String> {
    let ready = proxy
        .basic_auth()
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    ready.or_else(|| {
        let (name, password) = proxy.raw_auth()?;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        Some(format!("Basic {both}"))
    })
}

/// This machine itself is never behind a proxy, whatever the proxy's settings forget to say.
fn is_loopback(host: &str) -> bool {
    let by_address = host
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    by_address || host == "localhost" || host.ends_with(".localhost")
}

/// Longest answer of a proxy.
const HEAD_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        assert_eq!(
            status(b"HTTP/1.1 200 Connection established\r\n\r\n"),
            Some(200)
        );
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        assert_eq!(status(b"SSH-2.0-x\r\n"), None);
        assert_eq!(status(b"\xff\r\n"), None);
    }

    #[test]
    fn this_machine_is_never_behind_a_proxy() {
        assert!(
            ["localhost", "127.0.0.2", "::1", "a.localhost"]
                .into_iter()
                .all(is_loopback)
        );
        assert!(
            !["relay.example", "10.0.0.1", "localhost.example"]
                .into_iter()
                .any(is_loopback)
        );
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_the_login_given() {
        let (near, mut far) = tokio::io::duplex(1024);
        let target = Target::parse("https://relay.example").unwrap();
        let asked =
            tokio::spawn(
                async move { tunnel(Box::new(near), &target, Some("Basic x".into())).await },
            );
        let expected = "CONNECT relay.example:443 HTTP/1.1\r\nHost: relay.example:443\r\nProxy-Authorization: Basic x\r\n\r\n";
        let mut request = vec![0; expected.len()];
        far.read_exact(&mut request).await.unwrap();
        assert_eq!(std::str::from_utf8(&request).unwrap(), expected);
        far.write_all(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nafter")
            .await
            .unwrap();
        let mut stream = asked.await.unwrap().unwrap();
        let mut after = [0; 5];
        stream.read_exact(&mut after).await.unwrap();
        assert_eq!(&after, b"after");
    }
}
