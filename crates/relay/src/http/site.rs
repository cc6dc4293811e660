//! The web app's files, which are part of the binary.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::http::{Once, text};

/// Files by path, without the leading slash.
pub(crate) struct Site {
    files: BTreeMap<String, Bytes>,
}

#[derive(rust_embed::RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Dist;

impl Site {
    /// The app as it was built with this binary.
    pub(crate) fn embedded() -> Self {
        Self::new(Dist::iter().filter_map(|path| {
            let bytes = match Dist::get(&path)?.data {
                std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                std::borrow::Cow::Owned(bytes) => bytes.into(),
            };
            Some((path.into_owned(), bytes))
        }))
    }

    fn new(files: impl Iterator<Item = (String, Bytes)>) -> Self {
        let mut files: BTreeMap<String, Bytes> = files.collect();
        files
            .entry(INDEX.to_owned())
            .or_insert(Bytes::from_static(MISSING.as_bytes()));
        Self { files }
    }

    /// The file at `path`; the app itself for its own addresses, which have no extension.
    pub(crate) fn serve(&self, path: &str, asked: &HeaderMap) -> Response<Once> {
        let path = path.trim_start_matches('/');
        let last = path.rsplit('/').next().unwrap_or(path);
        let path = if self.files.contains_key(path) {
            path
        } else if last.contains('.') {
            return text(StatusCode::NOT_FOUND, "no such file\n");
        } else {
            INDEX
        };
        let packed = accepts_brotli(asked)
            .then(|| self.files.get(&format!("{path}.br")))
            .flatten();
        let bytes = packed
            .or_else(|| self.files.get(path))
            .cloned()
            .unwrap_or_default();
        let mut response = Response::new(Once(bytes));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(content_type(path)),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache(path)));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if packed.is_some() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        }
        response
    }
}

fn accepts_brotli(asked: &HeaderMap) -> bool {
    let values = asked
        .get_all(header::ACCEPT_ENCODING)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| {
        let mut parts = token.split(';').map(str::trim);
        parts.next() == Some("br")
            && !parts.any(|weight| weight.strip_prefix("q=0").is_some_and(is_zero))
    })
}

/// Whether what follows `q=0` leaves it zero.
fn is_zero(rest: &str) -> bool {
    rest.chars().all(|digit| matches!(digit, '.' | '0'))
}

/// Names in `assets/` hold a hash of the content, so they never change.
fn cache(path: &str) -> &'static str {
    if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

const INDEX: &str = "index.html";
const MISSING: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Farhelm relay</title>\n\
    <h1>The relay is running, but its web app was not built.</h1>\n\
    <p>Run <code>make web</code> and build the relay again.</p>\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashed_assets_never_change_and_the_page_is_asked_for_again() {
        let site = sample();
        assert_eq!(
            shown(&site, "/assets/app-1a2b.js", ""),
            (200, "immutable", "text/javascript", "", "code")
        );
        assert_eq!(
            shown(&site, "/", ""),
            (200, "no-cache", "text/html", "", "page")
        );
        assert_eq!(
            shown(&site, "/sw.js", ""),
            (200, "no-cache", "text/javascript", "", "worker")
        );
    }

    #[test]
    fn packed_files_go_to_those_who_accept_them() {
        let site = sample();
        assert_eq!(
            shown(&site, "/assets/app-1a2b.js", "gzip, br;q=0.9").3,
            "br"
        );
        assert_eq!(shown(&site, "/assets/app-1a2b.js", "gzip, br;q=0").3, "");
        assert_eq!(shown(&site, "/assets/app-1a2b.js", "gzip, br;q=0.00").3, "");
        assert_eq!(shown(&site, "/sw.js", "br").3, "");
    }

    #[test]
    fn only_addresses_of_the_app_fall_back_to_the_page() {
        let site = sample();
        assert_eq!(shown(&site, "/hosts/peer_00/session", "").4, "page");
        for path in [
            "/missing.js",
            "/assets/other.css",
            "/.env",
            "/../../etc/passwd.txt",
        ] {
            assert_eq!(shown(&site, path, "").0, 404, "{path}");
        }
    }

    #[test]
    fn without_the_app_a_page_says_how_to_build_it() {
        let site = Site::new(std::iter::empty());
        let bytes = site.serve("/", &HeaderMap::new()).into_body().0;
        assert!(String::from_utf8_lossy(&bytes).contains("make web"));
    }

    fn sample() -> Site {
        let files = [
            ("index.html", "page"),
            ("sw.js", "worker"),
            ("assets/app-1a2b.js", "code"),
            ("assets/app-1a2b.js.br", "packed"),
        ];
        Site::new(
            files
                .into_iter()
                .map(|(path, body)| (path.to_owned(), Bytes::from_static(body.as_bytes()))),
        )
    }

    fn shown<'a>(
        site: &'a Site,
        path: &str,
        accept: &str,
    ) -> (u16, &'a str, &'a str, &'a str, &'a str) {
        let mut asked = HeaderMap::new();
        asked.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        let response = site.serve(path, &asked);
        let one_of = |name, known: &[&'static str]| {
            let value = response
                .headers()
                .get(name)
                .map_or("", |value| value.to_str().unwrap());
            known
                .iter()
                .copied()
                .find(|known| value.contains(known))
                .unwrap_or("")
        };
        let cache = one_of(header::CACHE_CONTROL, &["immutable", "no-cache"]);
        let kind = one_of(header::CONTENT_TYPE, &["text/javascript", "text/html"]);
        let encoding = one_of(header::CONTENT_ENCODING, &["br"]);
        let bodies = ["page", "worker", "code", "packed"];
        let body = bodies
            .into_iter()
            .find(|body| response.body().0 == body.as_bytes())
            .unwrap_or("");
        (response.status().as_u16(), cache, kind, encoding, body)
    }
}
