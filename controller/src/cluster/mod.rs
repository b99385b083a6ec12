//! The cluster role: it works out policies once for the whole cluster, and streams to each node what that needs.
//!
//! All instances look at the cluster; one of them leads ([`lease`]) and serves ([`crate::stream`]). It says in a ConfigMap where it is and
//! who vouches for it ([`keep`]), keeps its authorities in a Secret, gives nodes certificates for their tokens ([`tokens`]), and writes
//! to the policies of the whole cluster on how many nodes they are in force ([`status`]).
//!
//! # Rules
//! - Nothing is served before everything has been listed: what is not there is told as gone.
//! - It depends on nothing that it serves: it is in the host's network, and finds the API server as the node role does.
//! - ConfigMap, Secret and Lease come with the manifests and are never made here, so this role needs no right to make any, and when the
//!   manifests go, nodes see that there is no cluster role any more.
//! - While no API server answers, the leader goes on serving what it knows.

mod keep;
mod lease;
mod metrics;
mod status;
mod tokens;

use crate::http::{self, Health};
use crate::stream::certs::Authorities;
use crate::stream::{Hub, Service, now_s, serve, tls};
use crate::watch::link::{Candidate, Link};
use crate::watch::policies::{self as watch_policies, Source};
use keep::{Keeper, Serving};
use metrics::ClusterMetrics;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// The port that is served at.
pub const PORT: u16 = 9478;
/// The port of metrics and probes.
pub const METRICS_PORT: u16 = 9479;

/// The first pause before something that the API server refuses is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// How long ending may take.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of this instance, which no other one has.
    pub name: String,
    /// Where the cluster role's objects are, and the service account of the node role.
    pub namespace: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where nodes reach it.
    pub address: SocketAddr,
    /// Where metrics and probes are answered.
    pub metrics_address: SocketAddr,
}

/// Why the cluster role does not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {source}; end what has the port (`ss -ltnp`), or choose another one (--listen)")]
pub struct StartError {
    /// Where.
    address: SocketAddr,
    /// What the system says.
    source: std::io::Error,
}

/// Runs the cluster role until `stop`.
///
/// # Errors
/// [`StartError`].
pub async fn run(config: Config, candidates: Vec<Candidate>, stop: impl Future<Output = ()>) -> Result<(), StartError> {
    let fault = |source| StartError { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(fault)?;
    let (link, _looking) = Link::start(candidates);
    let source = Arc::new(Source::new(None));
    let _reflectors = watch_policies::start(&link, &source);
    let metrics = ClusterMetrics::new(link.clone());
    let health = Health::default();
    let looking = Arc::clone(&source);
    health.look("listed", move || {
        let why =
            "the cluster's Pods, namespaces, nodes and policies are not all listed yet; the log says what hinders it";
        if looking.is_complete() { Ok(()) } else { Err(why.to_owned()) }
    });
    let looking = link.clone();
    health.tell("api-server", move || looking.state());
    let told = Arc::clone(&metrics);
    health.tell("leader", move || if told.leads() { Ok(()) } else { Err("another instance leads".to_owned()) });
    let page = Arc::clone(&metrics);
    let answering = http::answer_with(config.metrics_address, health, move || {
        let page = page.page();
        async move { page }
    });
    let (leads, leading) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let holding = tokio::spawn(lease::hold(link.clone(), config.clone(), leads, ended));
    let leader = Leader { config: &config, listener, link, source, metrics };
    tokio::select! {
        () = answering => {}
        () = leader.lead_whenever(leading) => {}
        () = stop => {}
    }
    // Whoever comes next need not wait for the lease to run out.
    end.send_replace(true);
    if timeout(END_WITHIN, holding).await.is_err() {
        warn!("the lease could not be given up; another instance leads when it has run out");
    }
    Ok(())
}

/// What this instance leads with.
struct Leader<'a> {
    config: &'a Config,
    listener: TcpListener,
    link: Link,
    source: Arc<Source>,
    metrics: Arc<ClusterMetrics>,
}

impl Leader<'_> {
    /// Serves whenever this instance leads, without an end.
    async fn lead_whenever(&self, mut leading: watch::Receiver<bool>) {
        loop {
            if leading.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            info!("this instance leads");
            let until = {
                let mut leading = leading.clone();
                async move { _ = leading.wait_for(|leads| !*leads).await }
            };
            match self.lead(until).await {
                Ok(()) => info!("this instance does not lead any more"),
                Err(error) => {
                    warn!("{error}; trying again");
                    sleep(PAUSE).await;
                }
            }
            self.metrics.set_hub(None);
        }
    }

    /// Serves until `until`.
    async fn lead(&self, until: impl Future<Output = ()> + Send) -> Result<(), keep::KeepError> {
        tokio::pin!(until);
        tokio::select! {
            () = self.source.complete() => {}
            () = &mut until => return Ok(()),
        }
        let authorities = Arc::new(Mutex::new(Authorities::default()));
        let keeper = Keeper::new(self.link.clone(), self.config, Arc::clone(&authorities));
        let serving = keeper.begin().await?;
        let Serving { bundle, certificate, key } = &serving;
        let config_now = tls::server(bundle, certificate, key).map_err(keep::KeepError::from)?;
        let (tls, tls_now) = watch::channel(config_now);
        let hub = Hub::new(Arc::clone(&self.source));
        self.metrics.set_hub(Some(Arc::clone(&hub)));
        let review = tokens::review(self.link.clone(), &self.config.namespace);
        let service = Service::new(Arc::clone(&hub), authorities, review);
        // Another handle of the same socket: it is there for the next time, too.
        let listener = keep::again(&self.listener)?;
        let serving = serve(listener, tls_now, service, until);
        tokio::select! {
            result = serving => result.map_err(keep::KeepError::Serving),
            () = keeper.go_on(now_s(), &tls) => Ok(()),
            () = status::write(self.link.clone(), Arc::clone(&self.source), hub) => Ok(()),
        }
    }
}
