//! Where a lab meets the machine's network.

use super::{Carried, Mac};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The port of a switch that leads to the machine's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Uplink {
    /// The switch.
    pub(crate) switch: String,
    /// The OpenFlow port number there.
    pub(crate) port: u16,
    /// The VLAN that it is in.
    pub(crate) vlan: Option<String>,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
    /// What is behind the port.
    pub(crate) outside: Outside,
}

/// What is behind an uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outside {
    /// The machine, which forwards what hosts send it, behind addresses of its own.
    Nat {
        /// MAC address of the machine's interface.
        mac: Mac,
        /// Its addresses with their prefix lengths: the hosts' gateways.
        addresses: Vec<IpNet>,
    },
    /// The network that this interface of the machine is in.
    Device(String),
}

impl Uplink {
    /// Name of the switch's port. No node has a dot in its name and no node is called so.
    pub(crate) fn port_name(&self) -> String {
        format!("{}.uplink", self.switch)
    }

    /// What it is called where it stands among nodes: `uplink (nat)`, or with the interface's name. No node is called so.
    pub(crate) fn title(&self) -> String {
        format!("uplink ({})", self.mode())
    }

    /// What the port carries.
    pub(crate) fn carried(&self) -> Carried {
        self.vlan.clone().map_or(Carried::All, Carried::Access)
    }

    /// The addresses of the machine in the lab; none without translation.
    pub(crate) fn addresses(&self) -> &[IpNet] {
        match &self.outside {
            Outside::Nat { addresses, .. } => addresses,
            Outside::Device(_) => &[],
        }
    }

    /// For a person: `nat`, or the interface's name.
    pub(crate) fn mode(&self) -> &str {
        match &self.outside {
            Outside::Nat { .. } => "nat",
            Outside::Device(name) => name,
        }
    }
}
