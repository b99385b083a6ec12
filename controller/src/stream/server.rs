//! The cluster role's end of the stream.

use super::certs::{Authorities, NODE_FOR_S};
use super::digests::Digests;
use super::{PART_SIZE, tls, words};
use crate::facts::policy::{PolicyKind, PolicyName, Update};
use crate::watch::policies::Source;
use futures::future::BoxFuture;
use prost::Message as _;
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1::policy_service_server::{PolicyService, PolicyServiceServer};
use sluice_proto::v1::{
    RequestCertificateReply, RequestCertificateRequest, StreamPoliciesReply, StreamPoliciesRequest,
    stream_policies_request::Message,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

/// How long a client may take for a handshake, and to say what it has.
const GREET_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take to read what it is sent.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// How often a silent client is asked whether it is there, and how long its answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// How long clients may take to go when the end has come.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Handshakes at one time.
const HANDSHAKES: usize = 128;
/// Requests for certificates at one time.
const REVIEWS: usize = 16;
/// How long changes are gathered before nodes are told: an object seldom comes alone.
const GATHER_FOR: Duration = Duration::from_millis(2);
/// Pods that a node may ask for at one time.
const MAX_ASKED: usize = 4096;
/// Longest token in bytes.
const MAX_TOKEN_LEN: usize = 64 * 1024;

/// Says which node the Pod of a token is on, or why it is not to be trusted.
pub type Review = Arc<dyn Fn(String) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// What was sent, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Nodes that have a stream.
    pub nodes: usize,
    /// Streams that have begun.
    pub streams: u64,
    /// Batches.
    pub batches: u64,
    /// Updates in them.
    pub updates: u64,
    /// Bytes of their messages.
    pub bytes: u64,
    /// Times that it was worked out what nodes have to be told.
    pub computations: u64,
    /// How long that took, summed up.
    pub compute_time: Duration,
}

/// A node that has a stream.
#[derive(Debug)]
struct Connected {
    stream: u64,
    wake: Arc<Notify>,
    /// It has asked for Pods, so every change may be an answer.
    asks: Arc<AtomicBool>,
    /// The generations of policies that have a status, and the batches that they were told with.
    told: BTreeMap<PolicyName, (i64, u64)>,
}

/// The generations of policies that are in force on a node.
type Realised = BTreeMap<PolicyName, i64>;

/// The streams of a leader, and what they have told.
#[derive(Debug)]
pub struct Hub {
    source: Arc<Source>,
    nodes: Mutex<HashMap<Arc<str>, Connected>>,
    /// What nodes have said to be in force, which it is on while they are away.
    in_force: Mutex<HashMap<Arc<str>, Realised>>,
    streams: AtomicU64,
    is_closed: AtomicBool,
    /// Something is in force somewhere that was not.
    realised: Notify,
    batches: AtomicU64,
    updates: AtomicU64,
    bytes: AtomicU64,
    computations: AtomicU64,
    compute_ns: AtomicU64,
}

/// What a node has to be told: updates, and Pods that have been seen.
type News = (Vec<Update>, Vec<String>);

fn add(sum: &AtomicU64, count: usize) {
    sum.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Whether it is of concern where a policy is in force: NetworkPolicies have no status that could say so.
fn has_status(name: &PolicyName) -> bool {
    name.kind != PolicyKind::NetworkPolicy
}

impl Hub {
    /// Nobody is told anything yet. Everything has been listed in `source`: what is not there is told as gone.
    #[must_use]
    pub fn new(source: Arc<Source>) -> Arc<Self> {
        Arc::new(Self {
            source,
            nodes: Mutex::default(),
            in_force: Mutex::default(),
            streams: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            realised: Notify::new(),
            batches: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            computations: AtomicU64::new(0),
            compute_ns: AtomicU64::new(0),
        })
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Arc<str>, Connected>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_force(&self) -> MutexGuard<'_, HashMap<Arc<str>, Realised>> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells nodes what changes, without an end.
    pub async fn run(&self) {
        loop {
            self.source.changed().await;
            sleep(GATHER_FOR).await;
            let began = Instant::now();
            let pending = self.source.cluster().pending();
            self.took(began);
            let nodes = self.nodes();
            pending.iter().filter_map(|name| nodes.get(name)).for_each(|node| node.wake.notify_one());
            let asking = nodes.values().filter(|node| node.asks.load(Ordering::Relaxed));
            asking.for_each(|node| node.wake.notify_one());
        }
    }

    /// Ends all streams, and begins no others.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.nodes().values().for_each(|node| node.wake.notify_one());
    }

    /// What was sent until now.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let count = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        Sums {
            nodes: self.nodes().len(),
            streams: count(&self.streams),
            batches: count(&self.batches),
            updates: count(&self.updates),
            bytes: count(&self.bytes),
            computations: count(&self.computations),
            compute_time: Duration::from_nanos(count(&self.compute_ns)),
        }
    }

    /// How many of some nodes have a policy in force, in this generation or a later one.
    #[must_use]
    pub fn realised(&self, policy: &PolicyName, generation: i64, on: &[Arc<str>]) -> usize {
        let in_force = self.in_force();
        let is_realised = |node: &Realised| node.get(policy).is_some_and(|realised| *realised >= generation);
        on.iter().filter_map(|name| in_force.get(name)).filter(|node| is_realised(node)).count()
    }

    /// Waits until a node says that something is in force.
    pub async fn something_realised(&self) {
        self.realised.notified().await;
    }

    fn took(&self, began: Instant) {
        add(&self.computations, 1);
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.compute_ns.fetch_add(took, Ordering::Relaxed);
    }

    /// A node begins a stream; an earlier one of it ends.
    fn enter(self: &Arc<Self>, node: &Arc<str>) -> Link {
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let (wake, asks) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let told = BTreeMap::new();
        let connected = Connected { stream, wake: Arc::clone(&wake), asks: Arc::clone(&asks), told };
        if let Some(before) = self.nodes().insert(Arc::clone(node), connected) {
            before.wake.notify_one();
        }
        Link { hub: Arc::clone(self), node: Arc::clone(node), stream, wake, asks, asked: BTreeSet::new(), sequence: 0 }
    }
}

/// A stream to a node. When it is dropped, the node has none, unless it has begun another one.
struct Link {
    hub: Arc<Hub>,
    node: Arc<str>,
    stream: u64,
    wake: Arc<Notify>,
    asks: Arc<AtomicBool>,
    /// Pods that have not been seen yet.
    asked: BTreeSet<String>,
    /// Of the last batch.
    sequence: u64,
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut nodes = self.hub.nodes();
        if nodes.get(&self.node).is_some_and(|node| node.stream == self.stream) {
            nodes.remove(&self.node);
            debug!("{}: the stream has ended", self.node);
        }
    }
}

impl Link {
    /// Whether the stream may go on.
    fn check(&self) -> Result<(), Status> {
        if self.hub.is_closed.load(Ordering::SeqCst) {
            return Err(Status::unavailable("this instance does not lead any more"));
        }
        match self.hub.nodes().get(&self.node) {
            Some(node) if node.stream == self.stream => Ok(()),
            _ => Err(Status::aborted("the node has begun another stream")),
        }
    }

    /// What there is to be told; with `have`, of all that the node has to know.
    fn news(&mut self, have: Option<Digests>) -> Result<Option<News>, Status> {
        let began = Instant::now();
        let is_first = have.is_some();
        let mut cluster = self.hub.source.cluster();
        // Under the lock, so that no two streams of a node share its news between them.
        self.check()?;
        if is_first {
            cluster.restart(&self.node);
        }
        let mut updates = cluster.take_node(&self.node);
        let seen: Vec<String> = self.asked.iter().filter(|pod| cluster.is_on(&self.node, pod)).cloned().collect();
        drop(cluster);
        seen.iter().for_each(|pod| _ = self.asked.remove(pod));
        self.asks.store(!self.asked.is_empty(), Ordering::Relaxed);
        if !is_first && updates.is_empty() && seen.is_empty() {
            return Ok(None);
        }
        self.sequence += 1;
        self.note(&updates);
        if let Some(have) = have {
            updates = have.lack(updates);
        }
        self.hub.took(began);
        Ok(Some((updates, seen)))
    }

    /// Notes which policies are told with this batch.
    fn note(&self, updates: &[Update]) {
        let mut nodes = self.hub.nodes();
        let Some(node) = nodes.get_mut(&self.node).filter(|node| node.stream == self.stream) else { return };
        let mut in_force = self.hub.in_force();
        let in_force = in_force.entry(Arc::clone(&self.node)).or_default();
        for update in updates {
            match update {
                Update::Policy(name, Some(policy)) if has_status(name) => {
                    node.told.insert(name.clone(), (policy.generation, self.sequence));
                }
                Update::Policy(name, None) => {
                    node.told.remove(name);
                    in_force.remove(name);
                }
                _ => {}
            }
        }
        if self.sequence == 1 {
            in_force.retain(|name, _| node.told.contains_key(name));
        }
    }

    /// The node says that all batches up to this one are in force.
    fn realised(&self, sequence: u64) {
        let nodes = self.hub.nodes();
        let Some(node) = nodes.get(&self.node).filter(|node| node.stream == self.stream) else { return };
        let mut in_force = self.hub.in_force();
        let in_force = in_force.entry(Arc::clone(&self.node)).or_default();
        for (name, (generation, with)) in &node.told {
            if *with <= sequence && in_force.get(name) != Some(generation) {
                in_force.insert(name.clone(), *generation);
            }
        }
        drop(nodes);
        self.hub.realised.notify_one();
    }

    /// Sends a batch in parts.
    async fn send(&self, (updates, pods): News, out: &mpsc::Sender<Result<StreamPoliciesReply, Status>>) -> Option<()> {
        let empty = || StreamPoliciesReply { sequence: self.sequence, ..StreamPoliciesReply::default() };
        let (mut part, mut size) = (empty(), 0_usize);
        for update in &updates {
            for word in words::write(update, PART_SIZE) {
                let len = word.encoded_len();
                if size.saturating_add(len) > PART_SIZE && !part.updates.is_empty() {
                    self.post(std::mem::replace(&mut part, empty()), out).await?;
                    size = 0;
                }
                size = size.saturating_add(len);
                part.updates.push(word);
            }
        }
        (part.pods, part.last) = (pods, true);
        self.post(part, out).await?;
        add(&self.hub.batches, 1);
        add(&self.hub.updates, updates.len());
        Some(())
    }

    async fn post(
        &self,
        part: StreamPoliciesReply,
        out: &mpsc::Sender<Result<StreamPoliciesReply, Status>>,
    ) -> Option<()> {
        add(&self.hub.bytes, part.encoded_len());
        timeout(READ_WITHIN, out.send(Ok(part))).await.ok()?.ok()
    }

    /// Takes what the node says.
    fn take(&mut self, message: Option<Message>) -> Result<(), Status> {
        match message {
            Some(Message::Realised(sequence)) => {
                // It cannot have more than it was sent.
                self.realised(sequence.min(self.sequence));
            }
            Some(Message::Pods(pods)) => {
                if self.asked.len().saturating_add(pods.names.len()) > MAX_ASKED {
                    return Err(Status::resource_exhausted(format!("a node may ask for {MAX_ASKED} Pods at one time")));
                }
                self.asked.extend(pods.names);
                self.asks.store(!self.asked.is_empty(), Ordering::Relaxed);
            }
            Some(Message::Hello(_)) => return Err(Status::invalid_argument("what a node has is said once")),
            None => {}
        }
        Ok(())
    }

    /// Tells the node what there is, until it goes.
    async fn run(
        mut self,
        have: Digests,
        mut requests: Streaming<StreamPoliciesRequest>,
        out: &mpsc::Sender<Result<StreamPoliciesReply, Status>>,
    ) -> Result<(), Status> {
        let mut have = Some(have);
        // A stream outlives no certificate.
        let end = sleep(Duration::from_secs(NODE_FOR_S));
        tokio::pin!(end);
        loop {
            while let Some(news) = self.news(have.take())? {
                if self.send(news, out).await.is_none() {
                    return Ok(());
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                message = requests.message() => match message {
                    Ok(Some(message)) => self.take(message.message)?,
                    Ok(None) | Err(_) => return Ok(()),
                },
                () = &mut end => return Err(Status::unavailable("come back with another certificate")),
                () = out.closed() => return Ok(()),
            }
        }
    }
}

/// The service.
#[derive(Clone)]
pub struct Service {
    hub: Arc<Hub>,
    authorities: Arc<Mutex<Authorities>>,
    review: Review,
    reviews: Arc<Semaphore>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Service {
    /// Serves what `hub` has to nodes that have a certificate of `authorities`, which they get for tokens that `review` trusts.
    #[must_use]
    pub fn new(hub: Arc<Hub>, authorities: Arc<Mutex<Authorities>>, review: Review) -> Self {
        Self { hub, authorities, review, reviews: Arc::new(Semaphore::new(REVIEWS)) }
    }
}

/// The node that a request comes from.
fn client<T>(request: &Request<T>) -> Result<Arc<str>, Status> {
    let info = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
    let certificates = info.and_then(TlsConnectInfo::peer_certs);
    let certificate = certificates.as_ref().and_then(|all| all.first());
    let Some(certificate) = certificate else {
        return Err(Status::unauthenticated("a certificate is needed: ask for one first"));
    };
    let name = tls::node_of(certificate).map(Arc::from);
    name.ok_or_else(|| Status::unauthenticated("the certificate does not have the name of one node"))
}

#[tonic::async_trait]
impl PolicyService for Service {
    type StreamPoliciesStream = ReceiverStream<Result<StreamPoliciesReply, Status>>;

    async fn request_certificate(
        &self,
        request: Request<RequestCertificateRequest>,
    ) -> Result<Response<RequestCertificateReply>, Status> {
        let RequestCertificateRequest { token, public_key } = request.into_inner();
        if token.len() > MAX_TOKEN_LEN {
            return Err(Status::invalid_argument(format!("a token has at most {MAX_TOKEN_LEN} bytes")));
        }
        let turn = self.reviews.acquire().await;
        let node = (self.review)(token).await;
        drop(turn);
        let node = node.map_err(|why| {
            info!("a client gets no certificate: {why}");
            Status::unauthenticated(why)
        })?;
        let authorities = self.authorities.lock().unwrap_or_else(PoisonError::into_inner);
        let signed = authorities.node(&node, &public_key, now_s());
        let signed = signed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        debug!("{node} gets a certificate");
        Ok(Response::new(RequestCertificateReply { certificate: signed.certificate, not_after: signed.not_after_s }))
    }

    async fn stream_policies(
        &self,
        request: Request<Streaming<StreamPoliciesRequest>>,
    ) -> Result<Response<Self::StreamPoliciesStream>, Status> {
        let node = client(&request)?;
        if self.hub.is_closed.load(Ordering::SeqCst) {
            return Err(Status::unavailable("this instance does not lead"));
        }
        let hub = Arc::clone(&self.hub);
        let mut requests = request.into_inner();
        let (out, replies) = mpsc::channel(2);
        tokio::spawn(async move {
            let told = async {
                let first = timeout(GREET_WITHIN, requests.message()).await;
                let Ok(Ok(Some(StreamPoliciesRequest { message: Some(Message::Hello(hello)) }))) = first else {
                    return Err(Status::invalid_argument("a node has to say what it has first"));
                };
                let have = Digests::read(hello).map_err(|error| Status::invalid_argument(error.to_string()))?;
                debug!("{node}: a stream begins");
                hub.enter(&node).run(have, requests, &out).await
            };
            if let Err(status) = told.await {
                debug!("{node}: the stream is ended: {status}");
                // A client that is gone needs no reason.
                _ = timeout(READ_WITHIN, out.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

/// Serves to whoever comes to a listener, until `stop` says so; then all streams end. What is in `tls` counts for connections from
/// then on.
///
/// # Errors
/// When nothing can be served any more.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    service: Service,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (hub, closing) = (Arc::clone(&service.hub), Notify::new());
    let (accepted, incoming) = mpsc::channel::<io::Result<TlsStream<TcpStream>>>(16);
    let service = PolicyServiceServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_LEN)
        .max_encoding_message_size(MAX_MESSAGE_LEN);
    let server = Server::builder()
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .max_concurrent_streams(Some(16))
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async {
            stop.await;
            hub.close();
            closing.notify_one();
        });
    let late = async {
        closing.notified().await;
        sleep(END_WITHIN).await;
    };
    tokio::select! {
        result = server => result.map_err(io::Error::other),
        () = accept(&listener, &tls, &accepted) => Ok(()),
        () = hub.run() => Ok(()),
        () = late => Ok(()),
    }
}

/// Accepts clients, without an end.
async fn accept(
    listener: &TcpListener,
    tls: &watch::Receiver<Arc<ServerConfig>>,
    accepted: &mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most of all: too many open files. Those that are open go some time.
                debug!("cannot accept a client: {error}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (config, accepted) = (Arc::clone(&tls.borrow()), accepted.clone());
        handshakes.spawn(async move {
            _ = stream.set_nodelay(true);
            match timeout(GREET_WITHIN, TlsAcceptor::from(config).accept(stream)).await {
                Ok(Ok(stream)) => _ = accepted.send(Ok(stream)).await,
                Ok(Err(error)) => debug!("{from}: no handshake: {error}"),
                Err(_) => debug!("{from}: no handshake within {GREET_WITHIN:?}"),
            }
            drop(turn);
        });
    }
}
