//! Whose requests are answered.

use super::failed;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where changes are asked for.
const CHANGES: &str = "/api/link";

/// The rules of one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    loopback: bool,
    writes: bool,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, writes: bool) -> Self {
        Self { loopback: address.ip().is_loopback(), writes }
    }

    /// Why a request is not answered.
    pub(super) fn refusal(
        self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<(StatusCode, &'static str)> {
        let is_change = *method == Method::POST && path == CHANGES;
        if !is_change && !matches!(*method, Method::GET | Method::HEAD) {
            return Some((StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here"));
        }
        if is_change && !self.writes {
            return Some((StatusCode::FORBIDDEN, "this page changes nothing; serve it with --ui-write"));
        }
        let Some(host) = one(headers, header::HOST).filter(|host| self.is_ours(host)) else {
            return Some((StatusCode::MISDIRECTED_REQUEST, "open the page by this machine's address, or as localhost"));
        };
        let foreign = Some((StatusCode::FORBIDDEN, "another site asks"));
        match one(headers, header::ORIGIN) {
            Some(origin) if !origin.eq_ignore_ascii_case(&format!("http://{host}")) => return foreign,
            // A browser says it with every change.
            None if is_change || headers.contains_key(header::ORIGIN) => return foreign,
            _ => {}
        }
        // The page itself may be linked to.
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        if path != "/" && !matches!(site, None | Some(b"same-origin" | b"none")) {
            return foreign;
        }
        // What a form of another site cannot send.
        if is_change && one(headers, header::CONTENT_TYPE) != Some("application/json") {
            return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, "a change is application/json"));
        }
        None
    }

    /// Whether a `Host` is this machine by its address or as `localhost`: no name that a foreign server of names may lead here.
    /// The port may be another one, of a tunnel that leads here.
    fn is_ours(self, host: &str) -> bool {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => (address, port),
            Some(_) => return false,
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
        let is_local = name.eq_ignore_ascii_case("localhost");
        is_port && (is_local || name.parse().is_ok_and(|ip: IpAddr| !self.loopback || ip.is_loopback()))
    }
}

/// The only value of a header.
fn one(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    first.to_str().ok().filter(|_| all.next().is_none())
}

/// Answers requests that the rules let through.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.refusal(request.method(), request.uri().path(), request.headers()) {
        Some((code, why)) => failed(code, why),
        None => next.run(request).await,
    }
}
