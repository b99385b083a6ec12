//! Networks of containers and attachments to them.

use super::{Api, Parts, error, find_bridge, mac_text, only};
use crate::Datapath;
use crate::attach::spec::{
    AttachmentKey, AttachmentSpec, Bandwidth, Device, Guard, NetworkRoute, NetworkSpec, PortMapping, Protocol,
    ServicePort, Vlans,
};
use crate::attach::{AttachError, IncomingPort, Network, Record, of_network};
use ipnet::IpNet;
use sluice_flows::bridge::Model;
use sluice_proto::v1;
use sluice_proto::v1::attachment_service_server::AttachmentService;
use sluice_proto::v1::attachment_spec::Device as ProtoDevice;
use sluice_proto::v1::port_vlan::Mode;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// Attachments in one part of a list.
const CHUNK: usize = 256;

#[tonic::async_trait]
impl AttachmentService for Api {
    type ListAttachmentsStream = Parts<v1::ListAttachmentsReply>;

    async fn put_network(
        &self,
        request: Request<v1::PutNetworkRequest>,
    ) -> Result<Response<v1::PutNetworkReply>, Status> {
        let asked = request.into_inner().network.ok_or_else(|| Status::invalid_argument("no network is described"))?;
        let work = move |datapath: &Datapath| {
            let spec = network_spec(datapath, asked)?;
            datapath.put_network(&spec).map_err(refused)?;
            let network = datapath.attachments().network(&spec.name);
            Ok(v1::PutNetworkReply { network: network.map(|network| show_network(datapath, &network)) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn delete_network(
        &self,
        request: Request<v1::DeleteNetworkRequest>,
    ) -> Result<Response<v1::DeleteNetworkReply>, Status> {
        let name = request.into_inner().name;
        let found = self.blocking(move |datapath| datapath.delete_network(&name).map_err(refused)).await?;
        Ok(Response::new(v1::DeleteNetworkReply { found }))
    }

    async fn confirm_attachments(
        &self,
        request: Request<v1::ConfirmAttachmentsRequest>,
    ) -> Result<Response<v1::ConfirmAttachmentsReply>, Status> {
        let keys = request.into_inner().keys.into_iter().map(|key| attachment_key(Some(key)));
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        let work = move |datapath: &Datapath| {
            let confirmed = datapath.confirm_attachments(&keys).map_err(refused)?;
            Ok(v1::ConfirmAttachmentsReply { confirmed: u32::try_from(confirmed).unwrap_or(u32::MAX) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn list_networks(
        &self,
        _: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksReply>, Status> {
        let work = |datapath: &Datapath| {
            let networks = datapath.attachments().networks();
            Ok(networks.iter().map(|network| show_network(datapath, network)).collect())
        };
        let networks = self.blocking(work).await?;
        Ok(Response::new(v1::ListNetworksReply { networks }))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Result<Response<v1::AttachReply>, Status> {
        let v1::AttachRequest { network, attachment } = request.into_inner();
        let asked = attachment.ok_or_else(|| Status::invalid_argument("no attachment is described"))?;
        let work = move |datapath: &Datapath| {
            let network = network.map(|network| network_spec(datapath, network)).transpose()?;
            let record = datapath.attach(network.as_ref(), attachment_spec(asked)?).map_err(refused)?;
            Ok(v1::AttachReply { attachment: Some(show(&datapath.model(), &record)) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn detach(&self, request: Request<v1::DetachRequest>) -> Result<Response<v1::DetachReply>, Status> {
        let key = attachment_key(request.into_inner().key)?;
        let found = self.blocking(move |datapath| datapath.detach(&key).map_err(refused)).await?;
        Ok(Response::new(v1::DetachReply { found }))
    }

    async fn set_attachment(
        &self,
        request: Request<v1::SetAttachmentRequest>,
    ) -> Result<Response<v1::SetAttachmentReply>, Status> {
        let request = request.into_inner();
        let key = attachment_key(request.key)?;
        let mappings = request.port_mappings.map(|all| all.mappings.iter().map(mapping).collect()).transpose()?;
        let limits = request.bandwidth.map(bandwidth);
        let work = move |datapath: &Datapath| {
            let record = datapath.set_attachment(&key, limits, mappings).map_err(refused)?;
            Ok(v1::SetAttachmentReply { attachment: Some(show(&datapath.model(), &record)) })
        };
        self.blocking(work).await.map(Response::new)
    }

    async fn check_attachment(
        &self,
        request: Request<v1::CheckAttachmentRequest>,
    ) -> Result<Response<v1::CheckAttachmentReply>, Status> {
        let asked = request.into_inner().attachment;
        let spec = attachment_spec(asked.ok_or_else(|| Status::invalid_argument("no attachment is described"))?)?;
        let problems = self.blocking(move |datapath| Ok(datapath.check_attachment(&spec))).await?;
        Ok(Response::new(v1::CheckAttachmentReply { problems }))
    }

    async fn list_attachments(
        &self,
        request: Request<v1::ListAttachmentsRequest>,
    ) -> Result<Response<Self::ListAttachmentsStream>, Status> {
        let network = request.into_inner().network;
        Ok(Response::new(self.parts(move |datapath, send| {
            let records = datapath.attachments().list(only(&network));
            let model = datapath.model();
            for chunk in records.chunks(CHUNK) {
                let attachments = chunk.iter().map(|record| show(&model, record)).collect();
                if !send(v1::ListAttachmentsReply { attachments }) {
                    break;
                }
            }
            Ok(())
        })))
    }

    async fn ready(&self, request: Request<v1::ReadyRequest>) -> Result<Response<v1::ReadyReply>, Status> {
        let asked = request.into_inner().network.unwrap_or_default();
        let is_ending = *self.ended.borrow();
        let work = move |datapath: &Datapath| {
            let mut ready = match network_spec(datapath, asked) {
                Ok(spec) => datapath.ready(&spec),
                Err(status) => {
                    crate::attach::Ready { problems: vec![status.message().to_owned()], ..Default::default() }
                }
            };
            if is_ending {
                ready.problems.push("the switch is ending; start it again".to_owned());
            }
            Ok(v1::ReadyReply { problems: ready.problems, limits: ready.limits, mtu_bytes: ready.mtu })
        };
        self.blocking(work).await.map(Response::new)
    }
}

/// The status for what was refused.
fn refused(error: AttachError) -> Status {
    let code = match error {
        AttachError::Control(error) => return error::status(error),
        AttachError::Setup(error) => return error::setup_status(error),
        AttachError::Invalid(_) => Code::InvalidArgument,
        AttachError::Taken(_) => Code::AlreadyExists,
        AttachError::NoNetwork { .. } | AttachError::NoAttachment { .. } => Code::NotFound,
        AttachError::Crowded { .. } => Code::ResourceExhausted,
        AttachError::InUse { .. }
        | AttachError::Unconfirmed { .. }
        | AttachError::Withdrawn { .. }
        | AttachError::Elsewhere { .. }
        | AttachError::Device { .. }
        | AttachError::Bridge { .. }
        | AttachError::Outside(_)
        | AttachError::Store(_) => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

fn read<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{text:?} is no {what}: {error}")))
}

fn prefixed(texts: &[String]) -> Result<Vec<IpNet>, Status> {
    texts.iter().map(|text| read("address with a prefix such as 10.77.0.1/24", text)).collect()
}

fn small(what: &str, number: u32) -> Result<u16, Status> {
    u16::try_from(number).map_err(|_| Status::invalid_argument(format!("{number} is no {what}")))
}

fn network_spec(datapath: &Datapath, asked: v1::NetworkSpec) -> Result<NetworkSpec, Status> {
    let bridge = if asked.bridge.is_empty() { find_bridge(datapath, "")?.name.to_string() } else { asked.bridge };
    Ok(NetworkSpec {
        name: asked.name,
        bridge,
        make_bridge: asked.make_bridge,
        gateway: prefixed(&asked.gateway)?,
        vlan: Some(small("VLAN ID", asked.vlan)?).filter(|vlan| *vlan != 0),
        masquerade: prefixed(&asked.masquerade)?,
        masquerade_except: prefixed(&asked.masquerade_except)?,
        mtu: Some(asked.mtu_bytes).filter(|mtu| *mtu != 0),
        keep: asked.keep,
        internal: asked.internal,
        kind: asked.kind,
        routes: asked.routes.iter().map(network_route).collect::<Result<_, _>>()?,
        service_ports: asked.service_ports.iter().map(service_port).collect::<Result<_, _>>()?,
        confirm: asked.confirm,
    })
}

fn network_route(asked: &v1::NetworkRoute) -> Result<NetworkRoute, Status> {
    let to: IpNet = read("destination of a route, such as 10.78.0.0/16", &asked.to)?;
    let via = Some(asked.via.as_str()).filter(|text| !text.is_empty());
    Ok(NetworkRoute { to, via: via.map(|text| read("next hop", text)).transpose()? })
}

fn service_port(asked: &v1::ServicePort) -> Result<ServicePort, Status> {
    let address = Some(asked.address.as_str()).filter(|text| !text.is_empty());
    let address: Option<IpAddr> = address.map(|text| read("host address", text)).transpose()?;
    Ok(ServicePort {
        protocol: protocol(&asked.protocol)?,
        address: address.filter(|address| !address.is_unspecified()),
        port: port("port of the host", asked.port)?,
        v6: address.map_or(asked.v6, |address| address.is_ipv6()),
    })
}

fn show_network(datapath: &Datapath, network: &Network) -> v1::Network {
    let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect();
    let spec = &network.spec;
    let (link, ports) = of_network(datapath, spec).unwrap_or_default();
    let model = datapath.model();
    let bridge = model.bridge_named(&spec.bridge);
    let gateway_port = bridge.and_then(|bridge| bridge.ports.values().find(|port| *port.name == *link.port));
    let addresses = |all: &[IpAddr]| all.iter().map(ToString::to_string).collect();
    v1::Network {
        spec: Some(v1::NetworkSpec {
            name: spec.name.clone(),
            bridge: spec.bridge.clone(),
            make_bridge: spec.make_bridge,
            gateway: texts(&spec.gateway),
            vlan: spec.vlan.unwrap_or_default().into(),
            masquerade: texts(&spec.masquerade),
            masquerade_except: texts(&spec.masquerade_except),
            mtu_bytes: spec.mtu.unwrap_or_default(),
            keep: spec.keep,
            internal: spec.internal,
            kind: spec.kind.clone(),
            routes: spec.routes.iter().map(show_route).collect(),
            service_ports: spec.service_ports.iter().map(show_service_port).collect(),
            confirm: spec.confirm,
        }),
        attachments: u32::try_from(network.attachments).unwrap_or(u32::MAX),
        gateway_interface: spec.gateway_interface().unwrap_or_default(),
        mtu_bytes: datapath.network_mtu(spec),
        gateway_port: gateway_port.map_or(0, |port| port.no.0.into()),
        gateway_mac: if link.port.is_empty() { String::new() } else { mac_text(link.mac) },
        link: addresses(&link.addresses),
        incoming: addresses(&link.incoming),
        incoming_ports: ports.into_iter().map(show_incoming).collect(),
    }
}

fn show_incoming(incoming: IncomingPort) -> v1::IncomingPort {
    let (attachment, container_port) = incoming.mapping.map_or((None, 0), |(key, port)| {
        let AttachmentKey { network, container_id, ifname } = key;
        (Some(v1::AttachmentKey { network, container_id, ifname }), port.into())
    });
    let port = Some(show_service_port(&incoming.port));
    v1::IncomingPort { port, incoming_port: incoming.number.into(), attachment, container_port }
}

fn show_route(route: &NetworkRoute) -> v1::NetworkRoute {
    v1::NetworkRoute { to: route.to.to_string(), via: route.via.map(|address| address.to_string()).unwrap_or_default() }
}

fn show_service_port(port: &ServicePort) -> v1::ServicePort {
    v1::ServicePort {
        protocol: port.protocol.to_string(),
        address: port.address.map(|address| address.to_string()).unwrap_or_default(),
        port: port.port.into(),
        v6: port.v6,
    }
}

fn attachment_key(key: Option<v1::AttachmentKey>) -> Result<AttachmentKey, Status> {
    let v1::AttachmentKey { network, container_id, ifname } =
        key.ok_or_else(|| Status::invalid_argument("no attachment is named"))?;
    Ok(AttachmentKey { network, container_id, ifname })
}

fn attachment_spec(asked: v1::AttachmentSpec) -> Result<AttachmentSpec, Status> {
    let guard = guard(asked.guard())?;
    let device = match asked.device {
        Some(ProtoDevice::Veth(device)) => Device::Veth { interface: device.interface },
        Some(ProtoDevice::Tap(device)) => Device::Tap { netns: device.netns.into(), interface: device.interface },
        Some(ProtoDevice::Inline(device)) => Device::Inline { interface: device.interface },
        None => return Err(Status::invalid_argument("an attachment needs a device: veth, tap or inline")),
    };
    Ok(AttachmentSpec {
        key: AttachmentKey { network: asked.network, container_id: asked.container_id, ifname: asked.ifname },
        port: asked.port,
        device,
        mac: mac(&asked.mac)?,
        addresses: prefixed(&asked.addresses)?,
        vlan: asked.vlan.as_ref().map_or(Ok(Vlans::All), vlans)?,
        guard,
        isolated: asked.isolated,
        hairpin: asked.hairpin,
        bandwidth: asked.bandwidth.map(bandwidth).unwrap_or_default(),
        port_mappings: asked.port_mappings.iter().map(mapping).collect::<Result<_, _>>()?,
        labels: asked.labels.into_iter().collect(),
        netns: Some(asked.netns).filter(|path| !path.is_empty()).map(PathBuf::from),
    })
}

fn mac(text: &str) -> Result<[u8; 6], Status> {
    let wrong = || Status::invalid_argument(format!("{text:?} is no hardware address such as 02:00:00:00:00:01"));
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() { Err(wrong()) } else { Ok(mac) }
}

fn guard(asked: v1::Guard) -> Result<Guard, Status> {
    Ok(match asked {
        v1::Guard::Unspecified | v1::Guard::Full => Guard::Full,
        v1::Guard::Mac => Guard::Mac,
        v1::Guard::None => Guard::None,
    })
}

fn vlans(asked: &v1::PortVlan) -> Result<Vlans, Status> {
    let tag = small("VLAN ID", asked.tag)?;
    let trunks: Vec<_> = asked.trunks.iter().map(|id| small("VLAN ID", *id)).collect::<Result<_, _>>()?;
    match asked.mode() {
        Mode::Access => Ok(Vlans::Access(tag)),
        Mode::Unspecified if tag != 0 => Ok(Vlans::Access(tag)),
        Mode::Trunk | Mode::Unspecified if trunks.is_empty() => Ok(Vlans::All),
        Mode::Trunk | Mode::Unspecified => Ok(Vlans::Trunk { trunks, native: None }),
        Mode::NativeUntagged => Ok(Vlans::Trunk { trunks, native: Some(tag) }),
        Mode::NativeTagged => {
            Err(Status::invalid_argument("a container's native VLAN is untagged; list it among the trunks to tag it"))
        }
    }
}

fn bandwidth(asked: v1::Bandwidth) -> Bandwidth {
    Bandwidth {
        ingress_rate: asked.ingress_rate_bps,
        ingress_burst: asked.ingress_burst_bits,
        egress_rate: asked.egress_rate_bps,
        egress_burst: asked.egress_burst_bits,
    }
}

fn port(what: &str, number: u32) -> Result<u16, Status> {
    let range = || Status::invalid_argument(format!("{number} is no {what}; it is 1 to 65535"));
    u16::try_from(number).ok().filter(|port| *port != 0).ok_or_else(range)
}

fn protocol(asked: &str) -> Result<Protocol, Status> {
    Ok(match asked.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(Status::invalid_argument(format!("{other:?} is no protocol with ports: tcp, udp, sctp"))),
    })
}

fn mapping(asked: &v1::PortMapping) -> Result<PortMapping, Status> {
    let address = Some(asked.host_address.as_str()).filter(|text| !text.is_empty());
    Ok(PortMapping {
        host_port: port("port of the host", asked.host_port)?,
        container_port: port("port of the container", asked.container_port)?,
        protocol: protocol(&asked.protocol)?,
        host_address: address.map(|text| read("host address", text)).transpose()?,
    })
}

/// An attachment as it is.
fn show(model: &Model, record: &Arc<Record>) -> v1::Attachment {
    let port = record.port_in(model);
    v1::Attachment {
        spec: Some(show_spec(&record.spec)),
        bridge: record.bridge.clone(),
        number: port.map_or(0, |port| port.no.0.into()),
        link_up: port.is_some_and(|port| port.up),
        fault: record.fault.clone().unwrap_or_default(),
        created_unix_s: record.created_unix_s,
        owner: record.owner().to_string(),
        unconfirmed: record.unconfirmed,
        taken_up: record.taken_up,
    }
}

fn show_spec(spec: &AttachmentSpec) -> v1::AttachmentSpec {
    let path = |path: &PathBuf| path.display().to_string();
    let device = match &spec.device {
        Device::Veth { interface } => ProtoDevice::Veth(v1::VethDevice { interface: interface.clone() }),
        Device::Tap { netns, interface } => {
            ProtoDevice::Tap(v1::TapDevice { netns: path(netns), interface: interface.clone() })
        }
        Device::Inline { interface } => ProtoDevice::Inline(v1::InlineDevice { interface: interface.clone() }),
    };
    let guard = match spec.guard {
        Guard::None => v1::Guard::None,
        Guard::Mac => v1::Guard::Mac,
        Guard::Full => v1::Guard::Full,
    };
    let limits = &spec.bandwidth;
    v1::AttachmentSpec {
        network: spec.key.network.clone(),
        container_id: spec.key.container_id.clone(),
        ifname: spec.key.ifname.clone(),
        port: spec.port.clone(),
        device: Some(device),
        mac: mac_text(spec.mac),
        addresses: spec.addresses.iter().map(ToString::to_string).collect(),
        vlan: Some(show_vlans(&spec.vlan)),
        guard: guard.into(),
        isolated: spec.isolated,
        hairpin: spec.hairpin,
        bandwidth: (*limits != Bandwidth::default()).then_some(v1::Bandwidth {
            ingress_rate_bps: limits.ingress_rate,
            ingress_burst_bits: limits.ingress_burst,
            egress_rate_bps: limits.egress_rate,
            egress_burst_bits: limits.egress_burst,
        }),
        port_mappings: spec.port_mappings.iter().map(show_mapping).collect(),
        labels: spec.labels.clone().into_iter().collect(),
        netns: spec.netns.as_ref().map(path).unwrap_or_default(),
    }
}

fn show_vlans(vlans: &Vlans) -> v1::PortVlan {
    let (mode, tag, trunks) = match vlans {
        Vlans::All => (Mode::Trunk, 0, &[][..]),
        Vlans::Access(vlan) => (Mode::Access, *vlan, &[][..]),
        Vlans::Trunk { trunks, native: None } => (Mode::Trunk, 0, &trunks[..]),
        Vlans::Trunk { trunks, native: Some(native) } => (Mode::NativeUntagged, *native, &trunks[..]),
    };
    v1::PortVlan { mode: mode.into(), tag: tag.into(), trunks: trunks.iter().map(|id| (*id).into()).collect() }
}

fn show_mapping(mapping: &PortMapping) -> v1::PortMapping {
    v1::PortMapping {
        host_port: mapping.host_port.into(),
        container_port: mapping.container_port.into(),
        protocol: mapping.protocol.to_string(),
        host_address: mapping.host_address.map(|address| address.to_string()).unwrap_or_default(),
    }
}
