//! A node's end of the stream.

use super::certs::{CertError, NODE_FOR_S, NodeKey, SERVER};
use super::digests;
use super::server::now_s;
use super::words::{self, WordError};
use crate::facts::policy::{State, Update};
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1::policy_service_client::PolicyServiceClient;
use sluice_proto::v1::{
    PodNames, RequestCertificateRequest, StreamPoliciesReply, StreamPoliciesRequest, stream_policies_request::Message,
};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tracing::{debug, info};

/// How long it may take to connect, and to get a certificate.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long the first batch may take: the cluster role may have other nodes to serve first.
const FIRST_WITHIN: Duration = Duration::from_secs(60);
/// How often the cluster role is asked whether it is still there, and how long its answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
/// Changes that are kept for whoever asks for them; with more, all is compared.
const MAX_QUEUE: usize = 10_000;
/// Pods that are asked for at one time.
const MAX_PODS: usize = 1024;

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Nobody is reached.
    #[error("cannot reach the cluster role at {address}: {why}")]
    Away {
        /// Where it should be.
        address: String,
        /// What was said.
        why: String,
    },
    /// There is no certificate.
    #[error("the cluster role gives no certificate: {0}")]
    Certificate(String),
    /// The stream.
    #[error("the stream of policies has ended: {0}")]
    Ended(String),
    /// What is told.
    #[error("cannot read what the cluster role tells: {0}")]
    Word(#[from] WordError),
    /// The node's own key.
    #[error(transparent)]
    Key(#[from] CertError),
}

/// Where the cluster role is, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address and port.
    pub address: String,
    /// The certificates of its authorities, in PEM.
    pub bundle: String,
}

/// Who a node is.
#[derive(Debug)]
pub struct Credentials {
    /// The file with the token of the node's Pod, which the kubelet renews.
    token: PathBuf,
    key: NodeKey,
    /// The certificate, when it ends, and the authorities that were there when it was given.
    certificate: Option<(String, u64, String)>,
}

impl Credentials {
    /// None yet; with the token in this file some are asked for when they are needed.
    ///
    /// # Errors
    /// [`FollowError::Key`].
    pub fn new(token: PathBuf) -> Result<Self, FollowError> {
        Ok(Self { token, key: NodeKey::new()?, certificate: None })
    }

    /// How long the certificate is good without another one being asked for, in seconds.
    fn good_for(&self, bundle: &str) -> u64 {
        let (_, not_after_s, from) = match &self.certificate {
            Some(certificate) => certificate,
            None => return 0,
        };
        // Another authority may not know it.
        if from != bundle { 0 } else { not_after_s.saturating_sub(NODE_FOR_S / 3).saturating_sub(now_s()) }
    }

    /// The certificate is not taken: another one has to be asked for.
    fn forget(&mut self) {
        self.certificate = None;
    }

    async fn renew(&mut self, place: &Place) -> Result<(), FollowError> {
        let fault = FollowError::Certificate;
        let token = tokio::fs::read_to_string(&self.token).await;
        let token = token.map_err(|error| fault(format!("cannot read {}: {error}", self.token.display())))?;
        let request =
            RequestCertificateRequest { token: token.trim().to_owned(), public_key: self.key.public().to_vec() };
        let mut client = PolicyServiceClient::new(connect(place, None).await?);
        let reply = timeout(CONNECT_WITHIN, client.request_certificate(request)).await;
        let reply = reply.map_err(|_| fault("no answer in time".to_owned()))?;
        let reply = reply.map_err(|status| fault(said(&status)))?.into_inner();
        self.certificate = Some((reply.certificate, reply.not_after, place.bundle.clone()));
        Ok(())
    }
}

fn said(status: &Status) -> String {
    format!("{} ({})", status.message(), status.code())
}

pub(super) async fn connect(place: &Place, identity: Option<Identity>) -> Result<Channel, FollowError> {
    let away = |error: &dyn std::error::Error| FollowError::Away {
        address: place.address.clone(),
        why: crate::watch::link::chain(error),
    };
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&place.bundle)).domain_name(SERVER);
    let tls = match identity {
        Some(identity) => tls.identity(identity),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://{}", place.address)).and_then(|to| to.tls_config(tls));
    let endpoint = endpoint
        .map_err(|error| away(&error))?
        .connect_timeout(CONNECT_WITHIN)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|error| away(&error))
}

/// What the stream has told.
#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// What has changed since somebody asked; none if it is more than is kept.
    queue: Option<Vec<Update>>,
    /// The first batch of a stream is there, and the stream has not ended.
    is_live: bool,
    /// The last batch that is there, that somebody has asked for, and that is in force.
    sequences: [u64; 3],
    /// Pods that were told of since somebody asked for changes, and those before.
    told: BTreeSet<String>,
    seen: BTreeSet<String>,
    asked: BTreeSet<String>,
    /// Asked, and not sent yet.
    to_ask: Vec<String>,
}

/// What the cluster role has told a node: the same as a [`Source`](crate::watch::policies::Source) for that node has.
#[derive(Debug, Default)]
pub struct Told {
    inner: Mutex<Inner>,
    changed: Notify,
    /// There is something to be said to the cluster role.
    to_say: Notify,
}

impl Inner {
    /// All that is there has been asked for.
    fn gathered(&mut self) {
        self.sequences[1] = self.sequences[0];
        let told = std::mem::take(&mut self.told);
        self.seen.extend(told);
    }
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a stream tells all that the node has to know, at this moment.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.lock().is_live
    }

    /// All that the node has to know: [`Self::updates`] has what changes from here on.
    #[must_use]
    pub fn state(&self) -> State {
        let mut inner = self.lock();
        inner.queue = Some(Vec::new());
        inner.gathered();
        inner.state.clone()
    }

    /// What has changed since somebody asked; none if it has to be compared with [`Self::state`].
    #[must_use]
    pub fn updates(&self) -> Option<Vec<Update>> {
        let mut inner = self.lock();
        inner.gathered();
        inner.queue.replace(Vec::new())
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All that was asked for is in force.
    pub fn realised(&self) {
        let mut inner = self.lock();
        if inner.sequences[2] != inner.sequences[1] {
            inner.sequences[2] = inner.sequences[1];
            self.to_say.notify_one();
        }
    }

    /// Whether what somebody has asked for last counts for a Pod of this node, by
    /// [`Cluster::is_on`](crate::policy::Cluster::is_on)'s names: what was told since is not in
    /// force yet. If not, the cluster role is asked for the Pod.
    #[must_use]
    pub fn knows(&self, pod: &str) -> bool {
        let mut inner = self.lock();
        if inner.seen.contains(pod) {
            return true;
        }
        if inner.told.contains(pod) {
            return false;
        }
        if inner.asked.len() < MAX_PODS && inner.asked.insert(pod.to_owned()) {
            inner.to_ask.push(pod.to_owned());
            self.to_say.notify_one();
        }
        false
    }

    /// Only these Pods are there: of others nothing is known any more.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut inner = self.lock();
        inner.told.retain(|pod| is_there(pod));
        inner.seen.retain(|pod| is_there(pod));
        inner.asked.retain(|pod| is_there(pod));
    }

    /// A stream begins with this.
    fn begin(&self, base: State) {
        let mut inner = self.lock();
        let asked = std::mem::take(&mut inner.asked);
        *inner = Inner { state: base, to_ask: asked.iter().cloned().collect(), asked, ..Inner::default() };
    }

    fn end(&self) {
        let mut inner = self.lock();
        inner.is_live = false;
        inner.told.clear();
        inner.seen.clear();
        drop(inner);
        self.changed.notify_one();
    }

    /// A batch is there.
    fn put(&self, sequence: u64, updates: Vec<Update>, pods: Vec<String>) {
        let mut inner = self.lock();
        updates.iter().for_each(|update| inner.state.apply(update));
        match &mut inner.queue {
            Some(queue) if queue.len().saturating_add(updates.len()) <= MAX_QUEUE => queue.extend(updates),
            queue => *queue = None,
        }
        inner.sequences[0] = sequence;
        for pod in pods {
            // What nobody asks for any more is not kept.
            if inner.asked.remove(&pod) {
                inner.told.insert(pod);
            }
        }
        inner.is_live = true;
        drop(inner);
        self.changed.notify_one();
    }

    /// What has to be said.
    fn messages(&self, said: &mut u64) -> Vec<Message> {
        let mut inner = self.lock();
        let pods = std::mem::take(&mut inner.to_ask);
        let realised = inner.sequences[2];
        drop(inner);
        let mut messages = Vec::new();
        if *said != realised {
            *said = realised;
            messages.push(Message::Realised(realised));
        }
        if !pods.is_empty() {
            messages.push(Message::Pods(PodNames { names: pods }));
        }
        messages
    }
}

/// A part of a batch that has not ended.
#[derive(Default)]
struct Batch {
    updates: Vec<Update>,
    pods: Vec<String>,
}

impl Batch {
    fn take(&mut self, part: StreamPoliciesReply, told: &Told) -> Result<(), WordError> {
        for update in part.updates {
            self.updates.push(words::read(update)?);
        }
        self.pods.extend(part.pods);
        if part.last {
            let Self { updates, pods } = std::mem::take(self);
            told.put(part.sequence, updates, pods);
        }
        Ok(())
    }
}

/// Follows a stream until it ends: without a fault, when another certificate is needed. What the node has is `base`.
///
/// # Errors
/// [`FollowError`]: why it has ended.
pub async fn follow(
    told: &Told,
    place: &Place,
    credentials: &mut Credentials,
    base: impl FnOnce() -> State,
) -> Result<(), FollowError> {
    if credentials.good_for(&place.bundle) == 0 {
        credentials.renew(place).await?;
    }
    let good_for = credentials.good_for(&place.bundle).max(60);
    let certificate = credentials.certificate.as_ref().map(|(pem, ..)| pem.clone()).unwrap_or_default();
    let identity = Identity::from_pem(certificate, credentials.key.private());
    let channel = connect(place, Some(identity)).await?;
    let (out, requests) = mpsc::channel(4);
    let base = base();
    let hello = StreamPoliciesRequest { message: Some(Message::Hello(digests::hello(&base))) };
    let gone = |_| FollowError::Ended("nobody reads what is said".to_owned());
    out.send(hello).await.map_err(gone)?;
    let mut client = PolicyServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_LEN)
        .max_encoding_message_size(MAX_MESSAGE_LEN);
    let ended = |status: Status| FollowError::Ended(said(&status));
    let answer = client.stream_policies(ReceiverStream::new(requests)).await;
    // A certificate that is not taken is not used again.
    let mut replies = answer.inspect_err(|_| credentials.forget()).map_err(ended)?.into_inner();
    told.begin(base);
    let _ending = Ending(told);
    let (mut batch, mut realised, mut is_first) = (Batch::default(), 0, true);
    let until = sleep(Duration::from_secs(good_for));
    let late = sleep(FIRST_WITHIN);
    tokio::pin!(until, late);
    told.to_say.notify_one();
    loop {
        tokio::select! {
            reply = replies.message() => match reply {
                Ok(Some(part)) => {
                    let (is_last, sequence) = (part.last, part.sequence);
                    batch.take(part, told)?;
                    if is_last && std::mem::take(&mut is_first) {
                        info!("the cluster role at {} tells the policies", place.address);
                    }
                    debug!("batch {sequence} of the cluster role, last part: {is_last}");
                }
                Ok(None) => return Err(FollowError::Ended("the cluster role has nothing more to say".to_owned())),
                Err(status) => return Err(ended(status)),
            },
            () = told.to_say.notified() => {
                for message in told.messages(&mut realised) {
                    out.send(StreamPoliciesRequest { message: Some(message) }).await.map_err(gone)?;
                }
            }
            () = &mut late, if is_first => {
                return Err(FollowError::Ended(format!("nothing was told within {FIRST_WITHIN:?}")));
            }
            () = &mut until => return Ok(()),
        }
    }
}

/// Says that the stream has ended, however it does.
struct Ending<'a>(&'a Told);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
