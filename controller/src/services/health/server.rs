//! The listeners of health checks.
//!
//! One listener for each port, of all addresses of the host. [`HealthChecks::set`] says what there is to be; listeners are started and
//! stopped to match. A port that somebody else has is said once, and tried again every [`RETRY`].

use super::Check;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, header};
use axum::routing::any;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

/// Where a node is asked whether its proxy is well.
pub const PROXY_PORT: u16 = 10_256;
/// How long the switch may be out of step before the node stops saying that it is well.
pub const HEALTHY_FOR: Duration = Duration::from_secs(120);
/// How often a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted, per listener.
const BACKLOG: u32 = 64;

/// Whether the switch is in step with the cluster, and the node there to stay.
#[derive(Clone, Debug, Default)]
pub struct ProxyHealth(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    /// When the switch was last in step; none if never.
    in_step: Option<Instant>,
    /// The same, for people.
    in_step_at: Option<SystemTime>,
    eligible: bool,
}

impl Default for Known {
    fn default() -> Self {
        Self { in_step: None, in_step_at: None, eligible: true }
    }
}

impl ProxyHealth {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the switch has all that the cluster wants, now. To be said again at least every minute for as long as it holds.
    pub fn in_step(&self) {
        let mut known = self.known();
        known.in_step = Some(Instant::now());
        known.in_step_at = Some(SystemTime::now());
    }

    /// Says whether load balancers may send connections here ([`super::is_eligible`]).
    pub fn set_eligible(&self, eligible: bool) {
        self.known().eligible = eligible;
    }

    /// Whether the switch has been in step during [`HEALTHY_FOR`] before `now`.
    #[must_use]
    pub fn is_healthy(&self, now: Instant) -> bool {
        self.known().in_step.is_some_and(|at| now.saturating_duration_since(at) < HEALTHY_FOR)
    }

    /// The answer to `/healthz` (`all`) or `/livez`, where it does not matter whether the node is going.
    fn answer(&self, all: bool) -> Response<Body> {
        let healthy = self.is_healthy(Instant::now());
        let known = self.known();
        let body = json!({
            "lastUpdated": known.in_step_at.map(rfc3339),
            "currentTime": rfc3339(SystemTime::now()),
            "nodeEligible": known.eligible,
        });
        response(healthy && (known.eligible || !all), &body, None)
    }
}

/// A time in words, to the second (RFC 3339).
fn rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let at = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// An answer in JSON.
fn response(well: bool, body: &serde_json::Value, weight: Option<usize>) -> Response<Body> {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if let Some(weight) = weight {
        answer = answer.header("X-Load-Balancing-Endpoint-Weight", weight);
    }
    answer.body(Body::from(format!("{body}\n"))).unwrap_or_default()
}

/// What is served at the ports.
type Checks = Arc<Mutex<HashMap<u16, Check>>>;

/// The listeners. They end when this is dropped.
#[derive(Debug)]
pub struct HealthChecks {
    proxy: ProxyHealth,
    checks: Checks,
    listeners: BTreeMap<u16, JoinHandle<()>>,
    retry: Duration,
}

impl HealthChecks {
    /// With [`PROXY_PORT`] as `proxy_port`; 0 for none. To be called in a runtime of tokio.
    #[must_use]
    pub fn start(proxy: ProxyHealth, proxy_port: u16) -> Self {
        Self::start_with(proxy, proxy_port, RETRY)
    }

    /// With another time between tries.
    pub(super) fn start_with(proxy: ProxyHealth, proxy_port: u16, retry: Duration) -> Self {
        let mut listeners = BTreeMap::new();
        if proxy_port != 0 {
            let all = proxy.clone();
            let live = proxy.clone();
            let router = Router::new()
                .route("/healthz", any(move || async move { all.answer(true) }))
                .route("/livez", any(move || async move { live.answer(false) }));
            listeners
                .insert(proxy_port, tokio::spawn(serve(proxy_port, "the proxy's health".to_owned(), router, retry)));
        }
        Self { proxy, checks: Checks::default(), listeners, retry }
    }

    /// Has exactly these checks served, besides the proxy's own. Of several at the same port, the first is.
    pub fn set(&mut self, wanted: impl IntoIterator<Item = Check>) {
        let mut checks = lock(&self.checks);
        let mut old = std::mem::take(&mut *checks);
        for check in wanted {
            checks.entry(check.port).or_insert(check);
        }
        for port in checks.keys() {
            let known = old.remove(port).is_some();
            if !known && !self.listeners.contains_key(port) {
                let what = checks.get(port).map(|c| format!("the health check of Service {}/{}", c.namespace, c.name));
                let router = router(*port, Arc::clone(&self.checks), self.proxy.clone());
                self.listeners.insert(*port, tokio::spawn(serve(*port, what.unwrap_or_default(), router, self.retry)));
            }
        }
        for port in old.keys() {
            if let Some(listener) = self.listeners.remove(port) {
                listener.abort();
            }
        }
    }
}

impl Drop for HealthChecks {
    fn drop(&mut self) {
        for listener in self.listeners.values() {
            listener.abort();
        }
    }
}

fn lock(checks: &Checks) -> MutexGuard<'_, HashMap<u16, Check>> {
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answers at one Service's port.
fn router(port: u16, checks: Checks, proxy: ProxyHealth) -> Router {
    let answer = move |State((checks, proxy)): State<(Checks, ProxyHealth)>| async move {
        let well = proxy.is_healthy(Instant::now());
        match lock(&checks).get(&port) {
            None => response(false, &json!({ "serviceProxyHealthy": well }), None),
            Some(check) => {
                let body = json!({
                    "service": { "namespace": check.namespace, "name": check.name },
                    "localEndpoints": check.local,
                    "serviceProxyHealthy": well,
                });
                response(check.local != 0 && well, &body, Some(check.local))
            }
        }
    };
    Router::new().fallback(answer).with_state((checks, proxy))
}

/// Listens and answers until it is aborted.
async fn serve(port: u16, what: String, router: Router, retry: Duration) {
    let mut said = false;
    let listener = loop {
        match listen(port) {
            Ok(listener) => break listener,
            Err(error) => {
                if !said {
                    tracing::warn!(
                        "{what} cannot be served at port {port}: {error}; trying again every {} s",
                        RETRY.as_secs()
                    );
                    said = true;
                }
                tokio::time::sleep(retry).await;
            }
        }
    };
    if said {
        tracing::info!("{what} is served at port {port}");
    }
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!("{what} is no longer served at port {port}: {error}");
    }
}

/// Listens at a port of all addresses: of both families where there is IPv6.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let both =
        TcpSocket::new_v6().and_then(|socket| bound(&socket, (Ipv6Addr::UNSPECIFIED, port).into()).map(|()| socket));
    let socket = match both {
        Ok(socket) => socket,
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return Err(error),
        Err(_) => {
            let socket = TcpSocket::new_v4()?;
            bound(&socket, (Ipv4Addr::UNSPECIFIED, port).into())?;
            socket
        }
    };
    socket.listen(BACKLOG)
}

fn bound(socket: &TcpSocket, address: SocketAddr) -> std::io::Result<()> {
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}
