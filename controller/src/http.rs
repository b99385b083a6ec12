//! What the node controller tells by HTTP: `/metrics`, `/livez` and `/readyz`.
//!
//! Probes answer 200 or 503 in plain text, and name each part that is not well with what is wrong with it, so that whoever reads the
//! Pod's events knows where to look. With `?verbose` the parts that are well are named too.
//!
//! # Rules
//! - `/livez` fails only if the program itself has come to a stop, since all that its failing brings about is a new start: a switch
//!   or an API server that is away would not come back by it.
//! - `/readyz` fails while any part is not well, but for those that are only told ([`Health::tell`]).
//! - Answers have [`SERVER`] in their head, so that [`ask`] can tell them from those of another program that has the port.

use crate::metrics::{self, Metrics};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How long the program may go without a [`Health::beat`] once there was one.
pub const ALIVE_FOR: Duration = Duration::from_secs(120);

/// How often an address that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Who answers, as the head of each answer says.
pub const SERVER: &str = "sluice-controller";

/// How long [`ask`] waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Bytes of an answer that are read.
const ANSWER_SIZE: u64 = 64 * 1024;

/// How a part is: well, or what is wrong and what to do about it.
pub type PartState = Result<(), String>;

/// Looks at a part when it is asked for.
type Look = Arc<dyn Fn() -> PartState + Send + Sync>;

#[derive(Clone)]
enum Part {
    Said(PartState),
    Looked(Look),
    /// Looked at, and decides nothing.
    Told(Look),
}

#[derive(Default)]
struct Parts {
    parts: BTreeMap<&'static str, Part>,
    beat: Option<Instant>,
}

/// How the parts of the program are.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Parts>>);

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.parts()).finish()
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how a part is.
    pub fn set(&self, part: &'static str, state: PartState) {
        self.lock().parts.insert(part, Part::Said(state));
    }

    /// Has a part looked at whenever it is asked for. What looks must not block.
    pub fn look(&self, part: &'static str, look: impl Fn() -> PartState + Send + Sync + 'static) {
        self.lock().parts.insert(part, Part::Looked(Arc::new(look)));
    }

    /// Has a part looked at as by [`Self::look`], which `/readyz?verbose` tells, and which decides nothing.
    pub fn tell(&self, part: &'static str, look: impl Fn() -> PartState + Send + Sync + 'static) {
        self.lock().parts.insert(part, Part::Told(Arc::new(look)));
    }

    /// Says that the program goes on. Whoever has said so once has to go on saying so, at least every minute.
    pub fn beat(&self) {
        self.lock().beat = Some(Instant::now());
    }

    /// The parts that decide, by name, as they are now.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, PartState)> {
        self.states(true)
    }

    fn states(&self, deciding: bool) -> Vec<(&'static str, PartState)> {
        let is_meant = |part: &Part| deciding != matches!(part, Part::Told(_));
        let parts: Vec<_> =
            self.lock().parts.iter().filter(|(_, part)| is_meant(part)).map(|(n, p)| (*n, p.clone())).collect();
        let state = |part| match part {
            Part::Said(state) => state,
            Part::Looked(look) | Part::Told(look) => look(),
        };
        parts.into_iter().map(|(name, part)| (name, state(part))).collect()
    }

    /// Whether the program goes on.
    fn alive(&self, now: Instant) -> PartState {
        match self.lock().beat.map(|at| now.saturating_duration_since(at)) {
            Some(since) if since >= ALIVE_FOR => Err(format!("nothing was done for {} s", since.as_secs())),
            _ => Ok(()),
        }
    }
}

/// Answers at an address for ever. An address that somebody else has is said once, and tried again every [`RETRY`].
pub async fn answer_at(address: SocketAddr, health: Health, metrics: Arc<Metrics>) {
    answer_with(address, health, move || {
        let metrics = Arc::clone(&metrics);
        async move { metrics.page().await }
    })
    .await;
}

/// The same, with metrics as `page` has them.
pub(crate) async fn answer_with<P, F>(address: SocketAddr, health: Health, page: P)
where
    P: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send,
{
    let mut said = false;
    loop {
        let error = match TcpListener::bind(address).await {
            Err(error) => error,
            Ok(listener) => {
                said = false;
                match serve(listener, health.clone(), page.clone()).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
        };
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(
                "probes and metrics cannot be answered at {address}: {error}; end the program that has the port (`ss -ltnp`), or \
                 set metrics_address in the configuration; trying again every {RETRY:?}"
            );
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Answers whoever comes to a listener.
async fn serve<P, F>(listener: TcpListener, health: Health, page: P) -> std::io::Result<()>
where
    P: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = String> + Send,
{
    let metrics = move || {
        let page = page();
        async move { ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page.await) }
    };
    let router = Router::new()
        .route("/livez", routing::get(livez))
        .route("/readyz", routing::get(readyz))
        .with_state(health)
        .route("/metrics", routing::get(metrics));
    axum::serve(listener, router).await
}

async fn livez(State(health): State<Health>, RawQuery(query): RawQuery) -> impl IntoResponse {
    answer("livez", &[("program", health.alive(Instant::now()))], &[], query.as_deref())
}

async fn readyz(State(health): State<Health>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let mut parts = health.parts();
    parts.push(("program", health.alive(Instant::now())));
    answer("readyz", &parts, &health.states(false), query.as_deref())
}

/// Parts of a program by name, and how they are.
type States = [(&'static str, PartState)];

/// Code, head and body.
type Answer = (StatusCode, [(header::HeaderName, &'static str); 1], String);

/// The answer of a probe. `told` decides nothing.
fn answer(probe: &str, parts: &States, told: &States, query: Option<&str>) -> Answer {
    let verbose =
        query.is_some_and(|query| query.split('&').any(|word| word == "verbose" || word.starts_with("verbose=")));
    let well = parts.iter().all(|(_, state)| state.is_ok());
    let mut text = String::new();
    for (name, state) in parts.iter().chain(told.iter().filter(|_| verbose)) {
        let written = match state {
            Ok(()) if verbose => writeln!(text, "[+]{name} ok"),
            Ok(()) => Ok(()),
            Err(why) => writeln!(text, "[-]{name} failed: {why}"),
        };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    match (well, verbose) {
        (true, false) => text.push_str("ok"),
        (true, true) => text.push_str(&format!("{probe} check passed\n")),
        (false, _) => text.push_str(&format!("{probe} check failed\n")),
    }
    (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, [(header::SERVER, SERVER)], text)
}

/// What a probe (`livez`, `readyz`) of the program that answers at `address` says.
///
/// # Errors
/// The parts that are not well. Also when there is no answer, or one of another program; but `livez` is well then, as a new start
/// would not bring the port.
pub fn ask(address: SocketAddr, probe: &str) -> Result<String, String> {
    let to = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
    };
    let (is_ours, is_good, body) = match get(to, probe) {
        Ok(answer) => answer,
        Err(error) => return Err(format!("no answer by http://{to}/{probe}: {error}")),
    };
    match (is_ours, is_good) {
        (true, true) => Ok(body),
        (true, false) => Err(body),
        (false, _) if probe == "livez" => Ok(format!("another program answers at {to}")),
        (false, _) => Err(format!(
            "another program answers at {to}: end it (`ss -ltnp` names it), or set metrics_address in the configuration"
        )),
    }
}

/// Whether the answer is ours, whether it is 200, and its body.
fn get(to: SocketAddr, probe: &str) -> std::io::Result<(bool, bool, String)> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("GET /{probe} HTTP/1.0\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    // What came before an error is an answer too.
    match stream.take(ANSWER_SIZE).read_to_end(&mut bytes) {
        Err(error) if bytes.is_empty() => return Err(error),
        _ => {}
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let is_good = lines.next().is_some_and(|line| line.split(' ').nth(1) == Some("200"));
    let is_ours = lines.any(|line| line.to_ascii_lowercase() == format!("server: {SERVER}"));
    Ok((is_ours, is_good, body.trim_end().to_owned()))
}

#[cfg(test)]
mod tests;
