//! What is answered to which request.

use std::net::IpAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::history::Moment;
use super::{Site, metrics, page};
use crate::program::Snapshot;

pub(super) type Answer = Response<Full<Bytes>>;

/// `/status.json`.
#[derive(Serialize)]
struct Status {
    #[serde(flatten)]
    snapshot: Snapshot,
    history: Vec<Moment>,
}

pub(super) fn answer<B>(site: &Site, request: &Request<B>) -> Answer {
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        let mut refused =
            text(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here: GET and HEAD only\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if site.loopback && !names_loopback(request) {
        return text(
            StatusCode::FORBIDDEN,
            "this is for this machine, by the name localhost or its address\n",
        );
    }
    match request.uri().path() {
        "/" => page::answer(),
        "/status.json" => status(site),
        "/metrics" => {
            let body = metrics::write(&site.program.snapshot());
            with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
        }
        // The question is answered on the threads that everything else runs on.
        "/health" => text(StatusCode::OK, "alive\n"),
        "/ready" if site.program.is_ready() => text(StatusCode::OK, "ready\n"),
        "/ready" if !site.program.is_loaded() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready: a store waits for etcd, or is being loaded\n")
        }
        "/ready" if !site.program.has_primary() => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: no primary of a store is elected, or etcd does not say which it is\n",
        ),
        "/ready" => {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready: epmd does not know the node, or it ends\n")
        }
        _ => text(StatusCode::NOT_FOUND, "there is /, /metrics, /status.json, /health and /ready\n"),
    }
}

fn status(site: &Site) -> Answer {
    let status = Status { snapshot: site.program.snapshot(), history: site.history.moments() };
    match serde_json::to_string(&status) {
        Ok(body) => with(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text(code: StatusCode, body: &str) -> Answer {
    with(code, "text/plain; charset=utf-8", body.to_owned())
}

/// An answer that no browser takes for anything else, keeps, or shows inside of another page.
pub(super) fn with(code: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Whether a request is for the loopback by name or address. (Browsers always say the host; programs that leave it out are
/// none that could be misled.)
fn names_loopback<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _port)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_is_the_loopback() {
        let names = |host: &str| names_loopback(&Request::builder().header("host", host).body(()).unwrap());
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "127.1.2.3:1"]
        {
            assert!(names(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:8080", "10.0.0.1", "[::2]:80", "", "127.0.0.1.evil"]
        {
            assert!(!names(host), "{host}");
        }
        assert!(names_loopback(&Request::new(())));
    }
}
