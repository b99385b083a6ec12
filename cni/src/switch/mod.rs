//! The running switch: a client of its attachment service that waits, but never for ever.
//!
//! Every call has a limit of time, and a signal to end breaks it off. Who is told that the switch is away need not wonder
//! whether the call was done: calls that change something are made again, or taken back, by name.

mod error;

pub use error::SwitchError;

use crate::spec::Attachment;
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1;
use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::Response;
use tonic::transport::{Channel, Endpoint};

/// How long a question may take.
const ASK: Duration = Duration::from_secs(5);
/// How long a change may take: many may be waiting for their turn.
const CHANGE: Duration = Duration::from_secs(60);

/// Where this process waits: a runtime of one thread, and the signals that ask it to end.
#[derive(Debug)]
pub struct Waiter {
    runtime: Runtime,
    signals: Vec<Signal>,
}

/// A connection to the switch.
#[derive(Debug)]
pub struct Switch {
    client: AttachmentServiceClient<Channel>,
    socket: PathBuf,
}

/// What the switch says before an attachment is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// What is in the way.
    pub problems: Vec<String>,
    /// What limits attachments that are there.
    pub limits: Vec<String>,
    /// Longest network-layer packet, in bytes, of new interfaces.
    pub mtu: u32,
}

impl Waiter {
    /// From now on signals to end this process only break off what it waits for.
    ///
    /// # Errors
    /// The system gives no runtime, or no signals.
    pub fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _inside = runtime.enter();
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let signals = kinds.into_iter().map(signal).collect::<Result<_, _>>()?;
        drop(_inside);
        Ok(Self { runtime, signals })
    }

    /// Whether this process was asked to end.
    pub fn is_interrupted(&mut self) -> bool {
        let signals = &mut self.signals;
        self.runtime.block_on(async { tokio::time::timeout(Duration::ZERO, any(signals)).await.is_ok() })
    }

    /// Waits for a call to the switch on `socket`.
    fn call<T>(
        &mut self,
        socket: &Path,
        limit: Duration,
        heed_signals: bool,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T, SwitchError> {
        let signals = &mut self.signals;
        self.runtime.block_on(async {
            let interrupted = async { if heed_signals { any(signals).await } else { std::future::pending().await } };
            tokio::select! {
                answer = tokio::time::timeout(limit, call) => match answer {
                    Ok(answer) => answer.map_err(|status| SwitchError::of_status(socket, &status)),
                    Err(_) => Err(SwitchError::Slow { socket: socket.to_owned(), seconds: limit.as_secs() }),
                },
                () = interrupted => Err(SwitchError::Interrupted),
            }
        })
    }
}

/// Waits for any of the signals.
async fn any(signals: &mut [Signal]) {
    poll_fn(|task| {
        let came = signals.iter_mut().any(|s| pin!(s.recv()).poll(task).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Switch {
    /// Connects to the switch that listens on `socket`.
    ///
    /// # Errors
    /// [`SwitchError::Away`] when none does.
    pub fn connect(waiter: &mut Waiter, socket: &Path) -> Result<Self, SwitchError> {
        // Says more about what is wrong than the channel would, and at once.
        UnixStream::connect(socket).map_err(|e| SwitchError::Away {
            socket: socket.to_owned(),
            why: match e.kind() {
                ErrorKind::NotFound => "there is no such socket".to_owned(),
                ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
                _ => e.to_string(),
            },
        })?;
        let away = |why: String| SwitchError::Away { socket: socket.to_owned(), why };
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let endpoint = endpoint.map_err(|e| away(e.to_string()))?;
        let connect = async { endpoint.connect().await.map_err(|e| tonic::Status::unavailable(e.to_string())) };
        let channel = waiter.call(socket, ASK, true, connect)?;
        let client = AttachmentServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_LEN);
        Ok(Self { client, socket: socket.to_owned() })
    }

    /// Whether an attachment to this network would be made now.
    ///
    /// # Errors
    /// The switch does not answer.
    pub fn ready(&mut self, waiter: &mut Waiter, network: v1::NetworkSpec) -> Result<Ready, SwitchError> {
        let call = self.client.ready(v1::ReadyRequest { network: Some(network) });
        let reply = waiter.call(&self.socket, ASK, true, call)?.into_inner();
        Ok(Ready { problems: reply.problems, limits: reply.limits, mtu: reply.mtu_bytes })
    }

    /// The network as it is declared; none if it is not.
    ///
    /// # Errors
    /// The switch does not answer.
    pub fn network(&mut self, waiter: &mut Waiter, name: &str) -> Result<Option<v1::Network>, SwitchError> {
        let call = self.client.list_networks(v1::ListNetworksRequest {});
        let networks = waiter.call(&self.socket, ASK, true, call)?.into_inner().networks;
        Ok(networks.into_iter().find(|n| n.spec.as_ref().is_some_and(|s| s.name == name)))
    }

    /// Attaches.
    ///
    /// # Errors
    /// The switch refuses. When it does not answer, it may have attached nevertheless.
    pub fn attach(&mut self, waiter: &mut Waiter, request: v1::AttachRequest) -> Result<v1::Attachment, SwitchError> {
        let call = self.client.attach(request);
        let reply = waiter.call(&self.socket, CHANGE, true, call)?.into_inner();
        Ok(reply.attachment.unwrap_or_default())
    }

    /// Takes an attachment away; whether there was one. Signals do not break this off: it is what they ask for.
    ///
    /// # Errors
    /// The switch does not answer, or cannot.
    pub fn detach(&mut self, waiter: &mut Waiter, attachment: &Attachment) -> Result<bool, SwitchError> {
        let call = self.client.detach(v1::DetachRequest { key: Some(key(attachment)) });
        let reply: Response<v1::DetachReply> = waiter.call(&self.socket, CHANGE, false, call)?;
        Ok(reply.into_inner().found)
    }

    /// What differs from the attachment as it should be, in words.
    ///
    /// # Errors
    /// The switch does not answer.
    pub fn check(&mut self, waiter: &mut Waiter, spec: v1::AttachmentSpec) -> Result<Vec<String>, SwitchError> {
        let call = self.client.check_attachment(v1::CheckAttachmentRequest { attachment: Some(spec) });
        Ok(waiter.call(&self.socket, CHANGE, true, call)?.into_inner().problems)
    }

    /// The attachments of a network.
    ///
    /// # Errors
    /// The switch does not answer.
    pub fn attachments(&mut self, waiter: &mut Waiter, network: &str) -> Result<Vec<Attachment>, SwitchError> {
        let request = v1::ListAttachmentsRequest { network: network.to_owned() };
        let client = &mut self.client;
        let call = async {
            let mut stream = client.list_attachments(request).await?.into_inner();
            let mut found = Vec::new();
            while let Some(part) = stream.message().await? {
                found.extend(part.attachments.into_iter().filter_map(|a| a.spec).map(|spec| Attachment {
                    network: spec.network,
                    container_id: spec.container_id,
                    ifname: spec.ifname,
                }));
            }
            Ok(found)
        };
        waiter.call(&self.socket, CHANGE, true, call)
    }
}

fn key(attachment: &Attachment) -> v1::AttachmentKey {
    v1::AttachmentKey {
        network: attachment.network.clone(),
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
    }
}
