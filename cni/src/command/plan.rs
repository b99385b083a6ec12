//! What is to be made, in the words of those who make it: the container's interface for [`crate::link`], the network and
//! the attachment for the switch. ADD and CHECK plan the same way, so that CHECK compares with what ADD asked for.

use crate::error::{Code, Failure};
use crate::link::{LinkKind, LinkPlan, has_default_route};
use crate::spec::config::{Device, Guard, Vlans};
use crate::spec::{AddResult, Attachment, Config, Dns, IpConfig, Route};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_proto::v1;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// The MTU where the switch does not say one, in bytes: Ethernet's.
const ETHERNET_MTU: u32 = 1500;

/// One attachment, planned.
#[derive(Clone, Debug)]
pub(super) struct Plan<'a> {
    pub(super) config: &'a Config,
    pub(super) attachment: Attachment,
    pub(super) netns: PathBuf,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    /// Addresses with their gateways, routes with theirs, and name resolution.
    pub(super) addressing: AddResult,
    /// The network, if it is somebody else's.
    pub(super) declared: Option<v1::NetworkSpec>,
}

impl<'a> Plan<'a> {
    /// The plan of an ADD, with what address management gave.
    ///
    /// # Errors
    /// The namespace does not say which routes it has.
    pub(super) fn new(
        config: &'a Config,
        attachment: Attachment,
        netns: &Path,
        switch_mtu: u32,
        mut addressing: AddResult,
        declared: Option<v1::NetworkSpec>,
    ) -> Result<Self, Failure> {
        let mac = match config.mac {
            Some(mac) => mac,
            None => random_mac()?,
        };
        for ip in &mut addressing.ips {
            match &declared {
                Some(network) => ip.gateway = gateway_in(network, &ip.address),
                None if config.is_gateway && ip.gateway.is_none() => ip.gateway = first_of(&ip.address),
                None => {}
            }
        }
        add_default_routes(config, netns, &mut addressing)?;
        for route in &mut addressing.routes {
            route.gw = route.gw.or_else(|| gateway_for(&addressing.ips, route));
        }
        if !config.dns.is_empty() {
            addressing.dns = config.dns.clone();
        }
        let mtu = config.mtu.unwrap_or(if switch_mtu == 0 { ETHERNET_MTU } else { switch_mtu });
        Ok(Self { config, attachment, netns: netns.to_owned(), mac, mtu, addressing, declared })
    }

    /// The container's interface.
    pub(super) fn link(&self) -> LinkPlan {
        LinkPlan {
            netns: self.netns.clone(),
            ifname: self.attachment.ifname.clone(),
            host_name: self.attachment.host_name(),
            alias: self.attachment.alias(),
            kind: match self.config.device {
                Device::Veth => LinkKind::Veth,
                Device::Tap => LinkKind::Tap,
            },
            mac: self.mac,
            mtu: self.mtu,
            addresses: self.addressing.ips.iter().map(|ip| ip.address).collect(),
            routes: self.addressing.routes.clone(),
            sysctls: self.config.sysctls.clone(),
            dad: self.config.dad,
            tx_checksum: self.config.tx_checksum,
            up: !self.config.disabled,
        }
    }

    /// The switch's end of that interface.
    pub(super) fn device(&self) -> v1::attachment_spec::Device {
        match self.config.device {
            Device::Veth => {
                v1::attachment_spec::Device::Veth(v1::VethDevice { interface: self.attachment.host_name() })
            }
            Device::Tap => v1::attachment_spec::Device::Tap(v1::TapDevice {
                netns: self.netns.to_string_lossy().into_owned(),
                interface: self.attachment.ifname.clone(),
            }),
        }
    }

    /// The attachment as the switch is to have it.
    pub(super) fn spec(&self, device: v1::attachment_spec::Device) -> v1::AttachmentSpec {
        let config = self.config;
        v1::AttachmentSpec {
            network: self.attachment.network.clone(),
            container_id: self.attachment.container_id.clone(),
            ifname: self.attachment.ifname.clone(),
            port: self.attachment.host_name(),
            mac: mac_text(self.mac),
            addresses: texts(self.addressing.ips.iter().map(|ip| ip.address)),
            vlan: vlan(&config.vlans),
            guard: match config.guard {
                Guard::None => v1::Guard::None,
                Guard::Mac => v1::Guard::Mac,
                Guard::Full => v1::Guard::Full,
            }
            .into(),
            isolated: config.isolated,
            hairpin: config.hairpin,
            bandwidth: bandwidth(config),
            port_mappings: config.port_mappings.iter().map(port_mapping).collect(),
            labels: config.labels.clone().into_iter().collect(),
            netns: self.netns.to_string_lossy().into_owned(),
            device: Some(device),
        }
    }

    /// The network as the switch is to have it: with the gateways and subnets of all ranges that the configuration names,
    /// those of this attachment, and those that are declared already, since address management of another kind may have
    /// more than this attachment shows.
    pub(super) fn network(&self, declared: Option<&v1::NetworkSpec>) -> v1::NetworkSpec {
        let config = self.config;
        let mut gateways: Vec<IpNet> = Vec::new();
        let mut subnets: Vec<IpNet> = Vec::new();
        for range in &config.ranges {
            subnets.push(range.subnet);
            gateways.extend(range.gateway.or_else(|| first_of(&range.subnet)).map(|g| with_prefix(g, &range.subnet)));
        }
        for ip in &self.addressing.ips {
            subnets.push(ip.address.trunc());
            gateways.extend(ip.gateway.map(|g| with_prefix(g, &ip.address)));
        }
        let mut network = bare_network(config);
        if config.is_gateway {
            network.gateway = texts(gateways);
        }
        if config.masquerade {
            network.masquerade = texts(subnets);
            network.masquerade_except = texts(config.masquerade_except.iter().copied());
        }
        if let Some(declared) = declared.filter(|_| !self.covered()) {
            network.gateway.extend(declared.gateway.iter().filter(|_| config.is_gateway).cloned());
            network.masquerade.extend(declared.masquerade.iter().filter(|_| config.masquerade).cloned());
        }
        for list in [&mut network.gateway, &mut network.masquerade] {
            list.sort();
            list.dedup();
        }
        network
    }

    /// Whether every address is of a range that the configuration names, so that the network is known from there.
    pub(super) fn covered(&self) -> bool {
        self.addressing.ips.iter().all(|ip| self.config.ranges.iter().any(|r| r.subnet == ip.address.trunc()))
    }
}

/// The gateway that a declared network has for an address: the one that shares its prefix.
fn gateway_in(network: &v1::NetworkSpec, address: &IpNet) -> Option<IpAddr> {
    let gateways = network.gateway.iter().filter_map(|text| text.parse::<IpNet>().ok());
    gateways.filter(|gateway| gateway.trunc().contains(&address.addr())).map(|gateway| gateway.addr()).next()
}

/// The network without what its addresses say.
pub(super) fn bare_network(config: &Config) -> v1::NetworkSpec {
    v1::NetworkSpec {
        name: config.base.name.clone(),
        bridge: config.base.bridge.clone(),
        make_bridge: true,
        vlan: match config.vlans {
            Vlans::Access(vlan) => vlan.into(),
            Vlans::All | Vlans::Trunk { .. } => 0,
        },
        mtu_bytes: config.mtu.unwrap_or(0),
        kind: "cni".to_owned(),
        ..v1::NetworkSpec::default()
    }
}

/// Name resolution as the file or the runtime say it, or else as it was.
pub(super) fn dns(config: &Config, otherwise: &Dns) -> Dns {
    if config.dns.is_empty() { otherwise.clone() } else { config.dns.clone() }
}

/// A hardware address as text.
pub(super) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A locally administered address of one interface that nobody else will have.
fn random_mac() -> Result<[u8; 6], Failure> {
    use std::io::Read;
    let mut mac = [0; 6];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut mac));
    read.map_err(|e| Failure::new(Code::Io, format!("cannot read /dev/urandom: {e}")))?;
    mac[0] = (mac[0] & 0xfc) | 0x02;
    Ok(mac)
}

/// Default routes by the gateways of the first address of each family: where they are asked for, or where nothing is said
/// and the container has none.
fn add_default_routes(config: &Config, netns: &Path, addressing: &mut AddResult) -> Result<(), Failure> {
    if config.default_route == Some(false) || !config.is_gateway {
        return Ok(());
    }
    for (v4, all) in [
        (true, IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))),
        (false, IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0))),
    ] {
        let gateway = addressing.ips.iter().filter(|ip| ip.address.addr().is_ipv4() == v4).find_map(|ip| ip.gateway);
        let Some(gateway) = gateway else { continue };
        if addressing.routes.iter().any(|r| r.dst.trunc() == all) {
            continue;
        }
        let wanted = match config.default_route {
            Some(wanted) => wanted,
            None => !has_default_route(netns, v4).map_err(super::link_failure)?,
        };
        if wanted {
            addressing.routes.push(Route::via(all, Some(gateway)));
        }
    }
    Ok(())
}

/// The gateway of a route that does not name one: that of the first address of its family which has one.
fn gateway_for(ips: &[IpConfig], route: &Route) -> Option<IpAddr> {
    /// `RT_SCOPE_LINK` of rtnetlink(7): what is on the link has no gateway.
    const ON_LINK: u8 = 253;
    if route.scope == Some(ON_LINK) {
        return None;
    }
    let v4 = route.dst.addr().is_ipv4();
    ips.iter().filter(|ip| ip.address.addr().is_ipv4() == v4).find_map(|ip| ip.gateway)
}

/// The first address that an interface of the network can have; none in a network of one or two addresses.
fn first_of(network: &IpNet) -> Option<IpAddr> {
    match network {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(Ipv4Addr::from(u32::from(net.network()) | 1).into()),
        IpNet::V6(net) if net.prefix_len() < 127 => Some(Ipv6Addr::from(u128::from(net.network()) | 1).into()),
        _ => None,
    }
}

/// The address with the length of the network's prefix, or if it is of the other family, its own.
fn with_prefix(address: IpAddr, network: &IpNet) -> IpNet {
    IpNet::new(address, network.prefix_len()).unwrap_or_else(|_| IpNet::from(address))
}

fn texts(nets: impl IntoIterator<Item = IpNet>) -> Vec<String> {
    nets.into_iter().map(|n| n.to_string()).collect()
}

/// A port without a VLAN takes and gives untagged frames alone: with tags of its own, a container would be in networks that
/// it does not belong to.
fn vlan(vlans: &Vlans) -> Option<v1::PortVlan> {
    use v1::port_vlan::Mode;
    let (mode, tag, trunks) = match vlans {
        Vlans::All => (Mode::Access, 0, Vec::new()),
        Vlans::Access(vlan) => (Mode::Access, (*vlan).into(), Vec::new()),
        Vlans::Trunk { tagged, untagged } => {
            let mode = if *untagged { Mode::NativeUntagged } else { Mode::Trunk };
            (mode, 0, tagged.iter().map(|v| u32::from(*v)).collect())
        }
    };
    Some(v1::PortVlan { mode: mode.into(), tag, trunks })
}

fn bandwidth(config: &Config) -> Option<v1::Bandwidth> {
    let limits = config.bandwidth;
    (limits != Default::default()).then_some(v1::Bandwidth {
        ingress_rate_bps: limits.ingress_rate,
        ingress_burst_bits: limits.ingress_burst,
        egress_rate_bps: limits.egress_rate,
        egress_burst_bits: limits.egress_burst,
    })
}

fn port_mapping(mapping: &crate::spec::config::PortMapping) -> v1::PortMapping {
    v1::PortMapping {
        host_port: mapping.host_port.into(),
        container_port: mapping.container_port.into(),
        protocol: mapping.protocol.to_string(),
        host_address: mapping.host_address.map(|a| a.to_string()).unwrap_or_default(),
    }
}
