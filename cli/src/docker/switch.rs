//! The switch, as the driver asks it: calls that wait for a switch that is just starting again, and say what to do when
//! it stays away.

use super::error::DriverError;
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::status_service_client::StatusServiceClient;
use sluice_proto::v1::{
    AddPortRequest, AttachRequest, Attachment, AttachmentKey, AttachmentSpec, DeleteNetworkRequest, DeletePortRequest,
    DetachRequest, GetStatusRequest, ListAttachmentsRequest, ListNetworksRequest, ListPortsRequest, Network,
    NetworkSpec, Port, PortMappings, PortSpec, PutNetworkRequest, ReadyRequest, SetAttachmentRequest,
};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// How long a call waits for a switch that is away: about as long as one takes to start again with many attachments.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Which run of the switch answers: its process and how long it has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its process.
    pub(crate) pid: u32,
    /// Milliseconds since its start.
    pub(crate) uptime_ms: u64,
}

/// The switch behind a socket. Copies share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Switch {
    channel: Channel,
    socket: PathBuf,
    patience: Duration,
}

impl Switch {
    /// The switch that listens on `socket`, or will.
    ///
    /// # Errors
    /// No socket can have this path.
    pub(crate) fn at(socket: &Path) -> Result<Self, DriverError> {
        let away = |why: String| DriverError::Away { socket: socket.to_owned(), why };
        let endpoint =
            Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(|e| away(e.to_string()))?;
        let channel = endpoint.timeout(ANSWER_WITHIN).connect_lazy();
        Ok(Self { channel, socket: socket.to_owned(), patience: PATIENCE })
    }

    /// The same switch, for callers that do not wait for it.
    pub(crate) fn at_once(&self) -> Self {
        Self { patience: Duration::ZERO, ..self.clone() }
    }

    /// Calls until the switch answers, or patience ends. Every request is one that may be made twice.
    async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, DriverError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now() + self.patience;
        loop {
            match call(self.channel.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if !is_away(&status) => return Err(DriverError::of(&status)),
                Err(status) if Instant::now() >= end => {
                    return Err(DriverError::Away { socket: self.socket.clone(), why: root(&status) });
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Which run of the switch it is.
    pub(crate) async fn run(&self) -> Result<Run, DriverError> {
        let ask = |channel| async { StatusServiceClient::new(channel).get_status(GetStatusRequest {}).await };
        let status = self.call(ask).await?;
        Ok(Run { pid: status.pid, uptime_ms: status.uptime_ms })
    }

    /// Declares a network.
    pub(crate) async fn put_network(&self, spec: &NetworkSpec) -> Result<(), DriverError> {
        self.call(|channel| {
            let request = PutNetworkRequest { network: Some(spec.clone()) };
            async { attachments(channel).put_network(request).await }
        })
        .await
        .map(drop)
    }

    /// Removes a network; fine if there is none.
    pub(crate) async fn delete_network(&self, name: &str) -> Result<(), DriverError> {
        self.call(|channel| {
            let request = DeleteNetworkRequest { name: name.to_owned() };
            async { attachments(channel).delete_network(request).await }
        })
        .await
        .map(drop)
    }

    /// The networks.
    pub(crate) async fn networks(&self) -> Result<Vec<Network>, DriverError> {
        let ask = |channel| async { attachments(channel).list_networks(ListNetworksRequest {}).await };
        Ok(self.call(ask).await?.networks)
    }

    /// Whether an attachment to a network would be made now, and how long its packets may be.
    ///
    /// # Errors
    /// It would not.
    pub(crate) async fn ready(&self, spec: &NetworkSpec) -> Result<u32, DriverError> {
        let answer = self
            .call(|channel| {
                let request = ReadyRequest { network: Some(spec.clone()) };
                async { attachments(channel).ready(request).await }
            })
            .await?;
        if answer.problems.is_empty() {
            return Ok(answer.mtu_bytes);
        }
        Err(DriverError::NotReady(answer.problems.join("; ")))
    }

    /// Attaches an interface.
    pub(crate) async fn attach(&self, network: &NetworkSpec, attachment: &AttachmentSpec) -> Result<(), DriverError> {
        self.call(|channel| {
            let request = AttachRequest { network: Some(network.clone()), attachment: Some(attachment.clone()) };
            async { attachments(channel).attach(request).await }
        })
        .await
        .map(drop)
    }

    /// Takes an attachment away; fine if there is none.
    pub(crate) async fn detach(&self, key: &AttachmentKey) -> Result<(), DriverError> {
        self.call(|channel| {
            let request = DetachRequest { key: Some(key.clone()) };
            async { attachments(channel).detach(request).await }
        })
        .await
        .map(drop)
    }

    /// Sets which ports of the host lead to an attachment.
    pub(crate) async fn publish(&self, key: &AttachmentKey, ports: &PortMappings) -> Result<(), DriverError> {
        self.call(|channel| {
            let request = SetAttachmentRequest {
                key: Some(key.clone()),
                port_mappings: Some(ports.clone()),
                ..SetAttachmentRequest::default()
            };
            async { attachments(channel).set_attachment(request).await }
        })
        .await
        .map(drop)
    }

    /// All attachments, of other programs too.
    pub(crate) async fn attachments(&self) -> Result<Vec<Attachment>, DriverError> {
        self.call(|channel| async {
            let mut client = attachments(channel);
            let mut stream = client.list_attachments(ListAttachmentsRequest::default()).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await? {
                all.extend(part.attachments);
            }
            Ok(Response::new(all))
        })
        .await
    }

    /// All ports.
    pub(crate) async fn ports(&self) -> Result<Vec<Port>, DriverError> {
        self.call(|channel| async {
            let mut client = PortServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_LEN);
            let mut stream = client.list_ports(ListPortsRequest::default()).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await? {
                all.extend(part.ports);
            }
            Ok(Response::new(all))
        })
        .await
    }

    /// Adds a port.
    pub(crate) async fn add_port(&self, spec: &PortSpec) -> Result<(), DriverError> {
        self.call(|channel| {
            let request = AddPortRequest { spec: Some(spec.clone()) };
            async { PortServiceClient::new(channel).add_port(request).await }
        })
        .await
        .map(drop)
    }

    /// Removes a port; fine if there is none.
    pub(crate) async fn delete_port(&self, bridge: &str, name: &str) -> Result<(), DriverError> {
        self.call(|channel| {
            let request = DeletePortRequest { bridge: bridge.to_owned(), name: name.to_owned() };
            async {
                match PortServiceClient::new(channel).delete_port(request).await {
                    Err(status) if status.code() == Code::NotFound => Ok(Response::new(Default::default())),
                    other => other,
                }
            }
        })
        .await
        .map(drop)
    }
}

fn attachments(channel: Channel) -> AttachmentServiceClient<Channel> {
    AttachmentServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_LEN)
}

/// Whether nobody answered: the switch itself answers with a status that has no source.
fn is_away(status: &Status) -> bool {
    Error::source(status).is_some() || matches!(status.code(), Code::Unavailable | Code::Cancelled)
}

/// The first cause.
fn root(status: &Status) -> String {
    let mut source = Error::source(status);
    let mut why = status.message().to_owned();
    while let Some(error) = source {
        why = error.to_string();
        source = error.source();
    }
    why
}
