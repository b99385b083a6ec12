//! A page to look at, for a browser: what a switch is made of, what it carries and what it drops, as it happens.
//!
//! One HTML file that is in the program (`page.html`), and JSON that it asks for once a second ([`shape`]). The same page is served
//! by `sluiced --ui` and by `sluice lab graph --serve`; what differs between them, above all how nodes and links are called, is
//! a [`Scene`]'s. Everything else comes over the control API, as any command gets it.
//!
//! # Security
//! Whoever can open the page sees addresses, rules and the heads of packets. So it is served on the loopback interface unless
//! [`bind`] is told otherwise, to requests that name this machine by an address or as `localhost` (a foreign name may have been
//! rebound to it), and not to other sites' scripts; [`guard`] has the rules. It changes nothing, unless [`Page::writes`] is set.
//! The page loads nothing from anywhere, its policy forbids that, and it writes everything it is told as text.

mod bridges;
mod guard;
mod history;
mod packets;
mod sample;
mod shape;
mod talks;

pub use bridges::Bridges;
pub use shape::{Change, Drawing, Edge, Join, Node, NodeKind, RuleName, Traced};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guard::Guard;
use sample::Sampler;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sluice_proto::v1::Port;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// The page.
const HTML: &str = include_str!("page.html");
/// Longest body of a request, in bytes.
const MAX_BODY: usize = 16 * 1024;

/// Why a page cannot be served.
#[derive(Debug, Error)]
pub enum PageError {
    /// Others could reach the address, and nobody said that they may.
    #[error("{0} can be reached from other machines")]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The path of the control API's socket is no text.
    #[error("the path of the socket is not UTF-8: {0}")]
    Socket(PathBuf),
    /// The system is out of something.
    #[error("cannot serve the page: {0}")]
    System(#[from] io::Error),
}

/// What a page is about: the names of things, and what only they who gave them know. Its calls may block. What they say in
/// place of an answer is shown to the person who looks.
pub trait Scene: Send + Sync + 'static {
    /// The nodes and links, where the switch has these ports.
    ///
    /// # Errors
    /// It is gone.
    fn drawing(&self, ports: &[Port]) -> Result<Drawing, String>;

    /// What would become of a packet from one node to another (`NODE` or `NODE:PORT`) of a protocol (`icmp`, `tcp`, `udp`).
    ///
    /// # Errors
    /// There are no such nodes, or the switch does not answer.
    fn trace(&self, from: &str, to: &str, protocol: &str) -> Result<Traced, String>;

    /// Changes a link.
    ///
    /// # Errors
    /// There is no such link, or it cannot be changed so.
    fn change(&self, change: &Change) -> Result<(), String>;
}

/// A page.
pub struct Page {
    /// What it is about.
    pub scene: Arc<dyn Scene>,
    /// The control API's socket.
    pub socket: PathBuf,
    /// Whether links may be changed from it.
    pub writes: bool,
}

/// Takes an address for a page.
///
/// # Errors
/// Somebody has it; or it is not of the loopback interface, and `remote` is not set.
pub fn bind(address: SocketAddr, remote: bool) -> Result<TcpListener, PageError> {
    if !remote && !address.ip().is_loopback() {
        return Err(PageError::NotLoopback(address));
    }
    let listener = TcpListener::bind(address).map_err(|error| PageError::Listen(address, error))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves a page until `shutdown` completes.
///
/// # Errors
/// The system or the socket's path is at fault.
pub async fn serve(
    listener: TcpListener,
    page: Page,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), PageError> {
    let guard = Guard::new(listener.local_addr()?, page.writes);
    let sampler = Arc::new(Sampler::new(&page)?);
    let router = Router::new()
        .route("/", get(html))
        .route("/api/state", get(state))
        .route("/api/history", get(history))
        .route("/api/trace/{from}/{to}/{protocol}", get(trace))
        .route("/api/packet/{bridge}/{packet}", get(packet))
        .route("/api/capture/{link}", get(capture))
        .route("/api/link", post(change))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(Arc::clone(&sampler));
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::select! {
        served = async { axum::serve(listener, router).with_graceful_shutdown(shutdown).await } => Ok(served?),
        never = sampler.record() => match never {},
    }
}

/// What every answer says of itself.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

async fn html() -> Response {
    let types =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (header::CONTENT_SECURITY_POLICY, policy())];
    (HEADERS, types, HTML).into_response()
}

/// What the page may do: run its own script, wear its own style, and ask the server that it came from.
fn policy() -> String {
    let hash = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let text = HTML.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(text, _)| text);
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style"),
    )
}

async fn state(State(sampler): State<Arc<Sampler>>) -> Response {
    match sampler.view().await {
        Ok(json) => (HEADERS, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(why) => failed(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

async fn history(State(sampler): State<Arc<Sampler>>) -> Response {
    (HEADERS, [(header::CONTENT_TYPE, "application/json")], sampler.history()).into_response()
}

async fn trace(
    State(sampler): State<Arc<Sampler>>,
    Path((from, to, protocol)): Path<(String, String, String)>,
) -> Response {
    told(sampler.with_scene(move |scene| scene.trace(&from, &to, &protocol)).await)
}

async fn packet(State(sampler): State<Arc<Sampler>>, Path((bridge, packet)): Path<(String, String)>) -> Response {
    told(sampler.trace(bridge, packet).await)
}

async fn capture(State(sampler): State<Arc<Sampler>>, Path(link): Path<String>) -> Response {
    match sampler.capture(link).await {
        Ok(file) => (HEADERS, [(header::CONTENT_TYPE, "application/vnd.tcpdump.pcap")], file).into_response(),
        Err(why) => failed(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

async fn change(State(sampler): State<Arc<Sampler>>, body: Bytes) -> Response {
    match serde_json::from_slice::<Change>(&body) {
        Ok(change) => told(sampler.with_scene(move |scene| scene.change(&change)).await),
        Err(error) => failed(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn told<T: Serialize>(answer: Result<T, String>) -> Response {
    match answer.and_then(|value| serde_json::to_string(&value).map_err(|error| error.to_string())) {
        Ok(json) => (HEADERS, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(why) => failed(StatusCode::UNPROCESSABLE_ENTITY, &why),
    }
}

fn failed(code: StatusCode, why: &str) -> Response {
    let json = serde_json::json!({ "error": why }).to_string();
    (code, HEADERS, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}

#[cfg(test)]
mod tests;
