//! Calls to the switch beside its program: networks, attachments, tunnels, connections, counters.
//!
//! Calls are made over the connection that there is, and fail at once while there is none: who makes them is told by an event when to
//! make them again. Each has a limit of time.

use super::SwitchError;
use crate::flow::LEARNED;
use sluice_proto::v1::attachment_service_client::AttachmentServiceClient;
use sluice_proto::v1::bridge_mod::Change;
use sluice_proto::v1::connection_service_client::ConnectionServiceClient;
use sluice_proto::v1::flow_service_client::FlowServiceClient;
use sluice_proto::v1::port_service_client::PortServiceClient;
use sluice_proto::v1::stats_service_client::StatsServiceClient;
use sluice_proto::v1::status_service_client::StatusServiceClient;
use sluice_proto::v1::table_service_client::TableServiceClient;
use sluice_proto::v1::tunnel_service_client::TunnelServiceClient;
use sluice_proto::v1::{
    AddPortRequest, ApplyBundleRequest, Attachment, AttachmentKey, BridgeMod, BundleHeader, ConfirmAttachmentsRequest,
    Connection, ConnectionLabel, DeleteFlowsRequest, DeletePortRequest, FlowFilter, FlushConnectionsRequest,
    GetConnectionStatsReply, GetConnectionStatsRequest, GetStatsReply, GetStatsRequest, GetStatusReply,
    GetStatusRequest, LabelConnectionsRequest, ListAttachmentsRequest, ListConnectionsRequest, ListNetworksRequest,
    ListPortsRequest, ListTablesRequest, ListTunnelsRequest, Network, NetworkSpec, Port, PortSpec, PutNetworkRequest,
    Table, TableMod, Tunnel,
};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

/// How long a question may take.
pub(super) const ASK: Duration = Duration::from_secs(10);
/// How long a change may take that involves the host: the switch runs `nft`, and others may wait before us.
const CHANGE: Duration = Duration::from_secs(60);
/// Labels of connections in one call: about a megabyte, well below the longest message that the switch takes.
const LABELS: usize = 8192;
/// Longest message that is taken: a list of groups with thousands of buckets is long.
pub(super) const LONGEST_MESSAGE: usize = 512 << 20;

/// The running switch.
#[derive(Clone, Debug)]
pub struct Switch {
    channel: watch::Receiver<Option<Channel>>,
    socket: Arc<Path>,
    /// The tunnels that were asked for.
    tunnels: Arc<Mutex<Tunnels>>,
}

/// Tunnels by bridge and name: as asked for, and as made.
type Tunnels = HashMap<(String, String), (TunnelSpec, TunnelSpec)>;

/// Kind and options of a tunnel.
type TunnelSpec = (String, BTreeMap<String, String>);

macro_rules! clients {
    ($($name:ident: $client:ident;)+) => {
        impl Switch {
            $(fn $name(&self) -> Result<$client<Channel>, SwitchError> {
                self.channel().map(|c| $client::new(c).max_decoding_message_size(LONGEST_MESSAGE))
            })+
        }
    };
}

clients! {
    attachment_service: AttachmentServiceClient;
    connection_service: ConnectionServiceClient;
    flow_service: FlowServiceClient;
    port_service: PortServiceClient;
    stats_service: StatsServiceClient;
    status_service: StatusServiceClient;
    table_service: TableServiceClient;
    tunnel_service: TunnelServiceClient;
}

impl Switch {
    pub(super) fn new(channel: watch::Receiver<Option<Channel>>, socket: &Path) -> Self {
        Self { channel, socket: socket.into(), tunnels: Arc::default() }
    }

    /// Where it is looked for.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The connection that there is.
    ///
    /// # Errors
    /// [`SwitchError::Away`] while there is none.
    pub fn channel(&self) -> Result<Channel, SwitchError> {
        let away = || SwitchError::Away { socket: self.socket.to_path_buf(), why: "it is not connected".to_owned() };
        self.channel.borrow().clone().ok_or_else(away)
    }

    async fn call<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, SwitchError> {
        within(&self.socket, limit, async { call.await.map(Response::into_inner) }).await
    }

    /// Declares a network, or has it become what is said.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn put_network(&self, network: NetworkSpec) -> Result<Network, SwitchError> {
        let mut client = self.attachment_service()?;
        let request = PutNetworkRequest { network: Some(network) };
        Ok(self.call(CHANGE, client.put_network(request)).await?.network.unwrap_or_default())
    }

    /// The attachments of a network; of all if its name is empty.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn attachments(&self, network: &str) -> Result<Vec<Attachment>, SwitchError> {
        let mut client = self.attachment_service()?;
        let request = ListAttachmentsRequest { network: network.to_owned() };
        within(&self.socket, ASK, gather(client.list_attachments(request), |part| part.attachments)).await
    }

    /// Says that what these attachments wait for is done; how many waited.
    ///
    /// # Errors
    /// [`SwitchError`]; one that is not there any more is refused by `NotFound`, and the others are confirmed all the same.
    pub async fn confirm(&self, keys: Vec<AttachmentKey>) -> Result<u32, SwitchError> {
        let mut client = self.attachment_service()?;
        let request = ConfirmAttachmentsRequest { keys };
        Ok(self.call(CHANGE, client.confirm_attachments(request)).await?.confirmed)
    }

    /// The networks that were declared or have attachments.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn networks(&self) -> Result<Vec<Network>, SwitchError> {
        let mut client = self.attachment_service()?;
        Ok(self.call(ASK, client.list_networks(ListNetworksRequest {})).await?.networks)
    }

    /// The tables of a bridge that have a name or flows.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn tables(&self, bridge: &str) -> Result<Vec<Table>, SwitchError> {
        let mut client = self.table_service()?;
        let request = ListTablesRequest { bridge: bridge.to_owned(), all: false };
        Ok(self.call(ASK, client.list_tables(request)).await?.tables)
    }

    /// The tunnels of a bridge with their other ends, each of which is asked for an answer within `probe_ms` milliseconds, unless
    /// that is 0.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn tunnels(&self, bridge: &str, probe_ms: u32) -> Result<Vec<Tunnel>, SwitchError> {
        let mut client = self.tunnel_service()?;
        let request = ListTunnelsRequest { bridge: bridge.to_owned(), probe_timeout_ms: probe_ms };
        Ok(self.call(ASK, client.list_tunnels(request)).await?.tunnels)
    }

    /// The ports of a bridge; of all if its name is empty.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn ports(&self, bridge: &str) -> Result<Vec<Port>, SwitchError> {
        let mut client = self.port_service()?;
        let request = ListPortsRequest { bridge: bridge.to_owned() };
        within(&self.socket, ASK, gather(client.list_ports(request), |part| part.ports)).await
    }

    /// Has a bridge have a tunnel port of this name, kind and options; its number. One that is as asked for is kept; one that is not
    /// is replaced under its number.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn ensure_tunnel(
        &self,
        bridge: &str,
        name: &str,
        kind: &str,
        options: &BTreeMap<String, String>,
    ) -> Result<u32, SwitchError> {
        let asked: TunnelSpec = (kind.to_owned(), options.clone());
        let by_name = (bridge.to_owned(), name.to_owned());
        let mut number = 0;
        if let Some(there) = self.tunnel(bridge, name).await? {
            number = there.number;
            let there = spec_of(there);
            let known = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner).get(&by_name).cloned();
            // The switch has words of its own for some options.
            if there == asked || known.is_some_and(|(was_asked, made)| was_asked == asked && made == there) {
                return Ok(number);
            }
            self.remove_tunnel(bridge, name).await?;
        }
        let spec = PortSpec {
            bridge: bridge.to_owned(),
            name: name.to_owned(),
            r#type: kind.to_owned(),
            options: options.iter().map(|(option, value)| (option.clone(), value.clone())).collect(),
            number,
            ..PortSpec::default()
        };
        let mut client = self.port_service()?;
        let reply = self.call(CHANGE, client.add_port(AddPortRequest { spec: Some(spec) })).await?;
        let made = reply.port.and_then(|port| port.spec).unwrap_or_default();
        let number = made.number;
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        tunnels.insert(by_name, (asked, spec_of(made)));
        Ok(number)
    }

    async fn tunnel(&self, bridge: &str, name: &str) -> Result<Option<PortSpec>, SwitchError> {
        let ports = self.ports(bridge).await?;
        Ok(ports.into_iter().filter_map(|port| port.spec).find(|spec| spec.name == name))
    }

    /// Removes a tunnel port; no error if there is none.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn remove_tunnel(&self, bridge: &str, name: &str) -> Result<(), SwitchError> {
        let mut client = self.port_service()?;
        let request = DeletePortRequest { bridge: bridge.to_owned(), name: name.to_owned() };
        match self.call(CHANGE, client.delete_port(request)).await {
            Ok(_) | Err(SwitchError::Refused { code: Code::NotFound, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The connections that a filter selects; of all if it is empty. Takes as long as there are many.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn connections(&self, filter: &str) -> Result<Vec<Connection>, SwitchError> {
        let mut client = self.connection_service()?;
        let request = ListConnectionsRequest { filter: filter.to_owned() };
        let all = gather(client.list_connections(request), |part| part.connections).await;
        all.map_err(|status| SwitchError::of(&self.socket, &status))
    }

    /// Forgets the connections that a filter selects, in the words of the switch's connection lists; how many.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn flush_connections(&self, filter: &str) -> Result<u64, SwitchError> {
        let mut client = self.connection_service()?;
        let request = FlushConnectionsRequest { filter: filter.to_owned(), ..FlushConnectionsRequest::default() };
        Ok(self.call(CHANGE, client.flush_connections(request)).await?.flushed)
    }

    /// Writes labels of connections; how many are different now.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn label_connections(&self, labels: Vec<ConnectionLabel>) -> Result<u64, SwitchError> {
        let mut client = self.connection_service()?;
        let mut changed = 0;
        for some in labels.chunks(LABELS) {
            let request = LabelConnectionsRequest { labels: some.to_vec() };
            changed += self.call(CHANGE, client.label_connections(request)).await?.changed;
        }
        Ok(changed)
    }

    /// Deletes the flows within a match that the switch has learned from ours (cookie [`LEARNED`]); how many.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn delete_learned(&self, bridge: &str, matching: &str) -> Result<u64, SwitchError> {
        let mut client = self.flow_service()?;
        let comma = if matching.is_empty() { "" } else { "," };
        let filter =
            FlowFilter { r#match: format!("{matching}{comma}cookie={LEARNED:#x}/-1"), ..FlowFilter::default() };
        let request = DeleteFlowsRequest { bridge: bridge.to_owned(), filter: Some(filter) };
        Ok(self.call(CHANGE, client.delete_flows(request)).await?.deleted)
    }

    /// Gives tables names, all or none.
    ///
    /// # Errors
    /// [`SwitchError`]: a name may be another table's.
    pub async fn name_tables(&self, bridge: &str, names: &[(u8, &str)]) -> Result<(), SwitchError> {
        let mut client = self.flow_service()?;
        let change = |(table, name): &(u8, &str)| {
            let change =
                TableMod { table: Some(u32::from(*table)), name: Some((*name).to_owned()), ..TableMod::default() };
            BridgeMod { change: Some(Change::Table(change)) }
        };
        let message = ApplyBundleRequest {
            header: Some(BundleHeader { bridge: bridge.to_owned(), ..BundleHeader::default() }),
            changes: names.iter().map(change).collect(),
            commit: true,
            ..ApplyBundleRequest::default()
        };
        self.call(ASK, client.apply_bundle(tokio_stream::once(message))).await.map(|_| ())
    }

    /// How the switch is.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn status(&self) -> Result<GetStatusReply, SwitchError> {
        let mut client = self.status_service()?;
        self.call(ASK, client.get_status(GetStatusRequest {})).await
    }

    /// Counters of the switch, its workers and caches.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn stats(&self) -> Result<GetStatsReply, SwitchError> {
        let mut client = self.stats_service()?;
        self.call(ASK, client.get_stats(GetStatsRequest {})).await
    }

    /// How many connections there are, of those that a filter selects; of all if it is empty.
    ///
    /// # Errors
    /// [`SwitchError`].
    pub async fn connection_stats(&self, filter: &str) -> Result<GetConnectionStatsReply, SwitchError> {
        let mut client = self.connection_service()?;
        let request = GetConnectionStatsRequest { filter: filter.to_owned() };
        self.call(ASK, client.get_connection_stats(request)).await
    }
}

#[cfg(test)]
impl Switch {
    /// One that is away and stays so.
    pub(crate) fn away() -> Self {
        Self::new(watch::channel(None).1, Path::new("/nowhere/switch.sock"))
    }
}

fn spec_of(port: PortSpec) -> TunnelSpec {
    (port.r#type, port.options.into_iter().collect())
}

/// What all parts of an answer hold.
async fn gather<P, T>(
    call: impl Future<Output = Result<Response<Streaming<P>>, Status>>,
    of: impl Fn(P) -> Vec<T>,
) -> Result<Vec<T>, Status> {
    let mut parts = call.await?.into_inner();
    let mut all = Vec::new();
    while let Some(part) = parts.message().await? {
        all.extend(of(part));
    }
    Ok(all)
}

/// Makes a call that may take so long.
pub(super) async fn within<T>(
    socket: &Path,
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, SwitchError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|status| SwitchError::of(socket, &status)),
        Err(_) => Err(SwitchError::Slow { socket: socket.to_owned(), seconds: limit.as_secs() }),
    }
}
