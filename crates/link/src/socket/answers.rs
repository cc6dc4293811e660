//! What an HTTP answer says about who gave it, when it was not the relay's.

use farhelm_proto::Code;
use http::{HeaderMap, StatusCode, Uri, header};

use crate::socket::{Target, Unreachable, clean};

/// Names what answered in the relay's place.
pub(super) fn not_a_relay(target: &Target, status: StatusCode, headers: &HeaderMap) -> Unreachable {
    let authority = &target.authority;
    let text = |name: header::HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let is_page = text(header::CONTENT_TYPE)
        .to_ascii_lowercase()
        .starts_with("text/html");
    let (code, detail) = if status.is_redirection() {
        let place = text(header::LOCATION);
        let elsewhere = place
            .parse::<Uri>()
            .is_ok_and(|uri| uri.host().is_some_and(|host| host != target.host));
        let code = if elsewhere {
            Code::CaptivePortal
        } else {
            Code::NotARelay
        };
        let (place, status) = (clean(place), status.as_u16());
        let detail = format!(
            "{authority} redirects to '{place}' (HTTP {status}); a network may want you to sign in first"
        );
        (code, detail)
    } else if status == StatusCode::NETWORK_AUTHENTICATION_REQUIRED
        || is_page && status.is_success()
    {
        let detail = format!(
            "a web page answered at {authority} and no relay (HTTP {status}); a network may want you to sign in first"
        );
        (Code::CaptivePortal, detail)
    } else if status.is_server_error() {
        let detail =
            format!("{authority} answers HTTP {status}; the relay behind it seems to be down");
        (Code::RelayUnreachable, detail)
    } else {
        let detail =
            format!("{authority} answers HTTP {status}; there is no relay at that address");
        (Code::NotARelay, detail)
    };
    Unreachable::answered(code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f14_who_answers_in_the_relays_place_is_named() {
        let target = Target::parse("https://relay.example").unwrap();
        let told = |status: u16, header: Option<(header::HeaderName, &str)>| {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, value.parse().unwrap());
            }
            let told = not_a_relay(&target, StatusCode::from_u16(status).unwrap(), &headers);
            assert!(told.answered);
            (told.code, told.detail)
        };
        let page = || Some((header::CONTENT_TYPE, "text/html; charset=utf-8"));
        let login = Some((header::LOCATION, "http://portal.example/login"));
        let (code, detail) = told(302, login);
        assert_eq!(code, Code::CaptivePortal);
        assert!(
            detail.contains("redirects to 'http://portal.example/login' (HTTP 302)"),
            "{detail}"
        );
        let (code, detail) = told(200, page());
        assert_eq!(code, Code::CaptivePortal);
        assert!(
            detail.starts_with("a web page answered at relay.example"),
            "{detail}"
        );
        for (status, header, expected) in [
            (511, None, Code::CaptivePortal),
            (
                308,
                Some((header::LOCATION, "https://relay.example/v1/link")),
                Code::NotARelay,
            ),
            (403, page(), Code::NotARelay),
            (404, None, Code::NotARelay),
            (200, None, Code::NotARelay),
            (502, page(), Code::RelayUnreachable),
        ] {
            assert_eq!(told(status, header).0, expected, "{status}");
        }
    }
}
