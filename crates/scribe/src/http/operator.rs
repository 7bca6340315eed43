//! Who may change the cluster: somebody on the node's own machine, and no web page that is open there.
//!
//! There is no authentication, and a join token is as good as the ledger's signing key. So these requests are taken
//! from a loopback peer of the TCP connection alone; what headers say of where a request came from is not looked at. A
//! browser on that machine is a loopback peer too: it marks what pages send with `Origin`, names the page's own host in
//! `Host` after a DNS rebinding, and sends JSON to others only after asking first. Everything else that reaches the
//! loopback address, a proxy on that machine among it, is believed.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method};
use scribe_client::code::ErrorCode;

use super::connection::Watch;
use super::error::ApiError;

const HINT: &str = "run `scribe cluster …` on the node's own machine, against its loopback address (--server \
                    http://127.0.0.1:PORT); a node that clients elsewhere reach listens on 0.0.0.0 for that";

/// Proof that a request may change the cluster. Handlers that do take one, so that none forgets to ask.
#[derive(Debug)]
pub(super) struct Operator(());

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Operator, ApiError> {
        let Some(watch) = parts.extensions.get::<Arc<Watch>>() else {
            return Err(ApiError::bad_request("the request has no connection"));
        };
        check(watch.peer(), &parts.method, &parts.headers)
            .map_err(ApiError::leaving_request_unread)?;
        Ok(Operator(()))
    }
}

pub(super) fn check(peer: IpAddr, method: &Method, fields: &HeaderMap) -> Result<(), ApiError> {
    // A socket that takes both families shows IPv4 peers as IPv6 ones.
    let peer = peer.to_canonical();
    if !peer.is_loopback() {
        return Err(ApiError::forbidden(format!(
            "the cluster is changed from the node's own machine: the request came from {peer}, allowed are loopback \
             addresses"
        ))
        .hint(HINT));
    }
    if fields.contains_key(ORIGIN) {
        return Err(ApiError::forbidden(
            "the cluster is not changed by web pages: the request has an Origin header, allowed is none",
        )
        .hint(HINT));
    }
    if !names_an_address(fields) {
        return Err(ApiError::forbidden(
            "the Host of a change of the cluster must be an IP address or localhost, found a name or none",
        )
        .hint(HINT));
    }
    if method == Method::POST && !is_json(fields) {
        return Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            "the Content-Type of a change of the cluster must be application/json, found another or none",
        ));
    }
    Ok(())
}

/// Whether the one `Host` is an IP address or `localhost`.
fn names_an_address(fields: &HeaderMap) -> bool {
    let mut hosts = fields.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Some(authority) = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok())
    else {
        return false;
    };
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn is_json(fields: &HeaderMap) -> bool {
    let media = fields
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    media
        .and_then(|media| media.split(';').next())
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(peer: &str, method: Method, fields: &[(&'static str, &'static str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        check(peer.parse().unwrap(), &method, &map)
            .map_or_else(|error| error.code().status(), |()| 200)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8001");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn only_this_machine_changes_the_cluster() {
        for peer in ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(status(peer, Method::POST, &[HOST, JSON]), 200, "{peer}");
        }
        for peer in [
            "10.0.0.1",
            "192.168.1.2",
            "fe80::1",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "::",
        ] {
            assert_eq!(status(peer, Method::POST, &[HOST, JSON]), 403, "{peer}");
            let named = [HOST, JSON, ("x-forwarded-for", "127.0.0.1")];
            assert_eq!(status(peer, Method::POST, &named), 403, "{peer}");
        }
    }

    #[test]
    fn web_pages_do_not_change_the_cluster() {
        let local = |method: Method, fields: &[_]| status("127.0.0.1", method, fields);
        for host in [
            "localhost",
            "LOCALHOST:8001",
            "10.0.0.1:8001",
            "[::1]:8001",
            "[::1]",
        ] {
            assert_eq!(local(Method::DELETE, &[("host", host)]), 200, "{host}");
        }
        for host in [
            "rebound.example",
            "localhost.example:8001",
            "127.0.0.1.example",
            "",
            "a b",
        ] {
            assert_eq!(local(Method::DELETE, &[("host", host)]), 403, "{host}");
        }
        assert_eq!(local(Method::DELETE, &[]), 403, "no Host");
        assert_eq!(local(Method::DELETE, &[HOST, HOST]), 403, "two of them");
        for origin in ["null", "http://127.0.0.1:8001", "https://page.example"] {
            assert_eq!(
                local(Method::POST, &[HOST, JSON, ("origin", origin)]),
                403,
                "{origin}"
            );
        }
    }

    #[test]
    fn a_change_is_json() {
        let post = |media| status("::1", Method::POST, &[HOST, ("content-type", media)]);
        assert_eq!(post("application/json; charset=utf-8"), 200);
        assert_eq!(post("Application/JSON"), 200);
        assert_eq!(post("text/plain"), 415);
        assert_eq!(post("application/jsonp"), 415);
        assert_eq!(status("::1", Method::POST, &[HOST]), 415);
    }
}
