//! Who gives hosts their addresses.

use super::{Carried, Host, Interface, Mac, Topology};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// The server of a VLAN: it gives addresses by DHCP and knows the nodes' names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DhcpServer {
    /// The VLAN.
    pub(crate) vlan: String,
    /// The switch that it is a part of.
    pub(crate) switch: String,
    /// The OpenFlow port number there.
    pub(crate) port: u16,
    /// Its MAC address.
    pub(crate) mac: Mac,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
    /// Its address with the prefix length; none while it is not decided.
    pub(crate) address: Option<Ipv4Net>,
    /// Where packets to other networks go.
    pub(crate) gateways: Vec<IpAddr>,
    /// How long clients may keep their addresses, in seconds.
    pub(crate) lease_s: u64,
}

impl DhcpServer {
    /// Name of its interface, in a network namespace of its own.
    pub(crate) const INTERFACE: &'static str = "eth0";

    /// Name of its network namespace. No host has a dot in its name.
    pub(crate) fn namespace_name(&self) -> String {
        format!("dhcp.{}", self.vlan)
    }

    /// Name of the switch's port. Small bridges alone have ports with two dots, and their last part is never a VLAN's.
    pub(crate) fn port_name(&self) -> String {
        format!("{}.dhcp.{}", self.switch, self.vlan)
    }

    /// How long clients may keep their addresses.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s)
    }

    /// What the port carries.
    pub(crate) fn carried(&self) -> Carried {
        Carried::Access(self.vlan.clone())
    }

    /// The namespace that it is in, as a host.
    pub(crate) fn as_host(&self) -> Host {
        let interface = Interface {
            name: Self::INTERFACE.to_owned(),
            mac: self.mac,
            mtu: self.mtu,
            addresses: self.address.map(IpNet::V4).into_iter().collect(),
            switch: self.switch.clone(),
            port: self.port,
            vlan: Some(self.vlan.clone()),
            gateways: self.gateways.clone(),
            dhcp: false,
        };
        Host { name: self.namespace_name(), env: Default::default(), run: None, interfaces: vec![interface] }
    }
}

impl Topology {
    /// The server of a VLAN.
    pub(crate) fn dhcp_server(&self, vlan: &str) -> Option<&DhcpServer> {
        self.dhcp.iter().find(|server| server.vlan == vlan)
    }
}
