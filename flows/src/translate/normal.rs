//! NORMAL: what a learning switch with VLANs does (IEEE 802.1D, 802.1Q; the details are OVS's).

use super::output::Target;
use super::{MacLookup, TraceSink, Walk};
use crate::bridge::{BridgePort, VlanId, VlanMode};
use crate::datapath::{MacQuery, MacSighting};
use crate::key::{VLAN_PRESENT, slot};
use crate::verdict::DropReason;
use std::sync::Arc;

/// Whether a MAC address (low 48 bits) is a group address.
const fn is_multicast(mac: u64) -> bool {
    mac >> 40 & 1 != 0
}

/// Whether bridges keep frames to this address to themselves: IEEE 802.1D's reserved block 01:80:c2:00:00:00 to
/// 01:80:c2:00:00:0f, and the vendor protocols (CDP, PVST+, EDP, FLIP) that OVS holds back too.
pub(super) const fn is_reserved(mac: u64) -> bool {
    matches!(
        mac,
        0x0180_c200_0000
            ..=0x0180_c200_000f
                | 0x00e0_2b00_0000
                | 0x00e0_2b00_0004
                | 0x00e0_2b00_0006
                | 0x0100_0c00_0000
                | 0x0100_0ccc_cccc
                | 0x0100_0ccc_cccd
                | 0x0100_0ccd_cdcd
    )
}

impl VlanMode {
    /// The VLAN of a frame that arrives with this VLAN ID (0 if untagged); `None` if the port does not carry it.
    pub(super) fn ingress(&self, vid: VlanId) -> Option<VlanId> {
        match self {
            Self::Access(vlan) => (vid == VlanId::NONE).then_some(*vlan),
            Self::Native { native, .. } if vid == VlanId::NONE => Some(*native),
            Self::Trunk { trunks } | Self::Native { trunks, .. } => {
                (trunks.is_empty() || trunks.contains(&vid)).then_some(vid)
            }
        }
    }

    /// The TCI (0 for no tag) that a frame of `vlan` with these priority bits leaves with; `None` if the port does not
    /// carry it.
    fn egress(&self, vlan: VlanId, priority: u16) -> Option<u16> {
        let carried = match self {
            Self::Access(access) => vlan == *access,
            Self::Native { native, .. } if vlan == *native => true,
            Self::Trunk { trunks } | Self::Native { trunks, .. } => trunks.is_empty() || trunks.contains(&vlan),
        };
        carried.then(|| self.leaving(vlan, priority))
    }

    /// The same whether the port carries the VLAN or not. VLAN 0 keeps its tag for the sake of its priority only, as in OVS.
    pub(super) fn leaving(&self, vlan: VlanId, priority: u16) -> u16 {
        match self {
            Self::Access(_) => 0,
            Self::Native { native, tagged: false, .. } if vlan == *native => 0,
            _ if vlan.get() | priority == 0 => 0,
            _ => vlan.get() | priority | VLAN_PRESENT,
        }
    }
}

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
    pub(super) fn normal(&mut self) {
        let source = self.read(slot::ETH_SRC) as u64;
        let destination = self.read(slot::ETH_DST) as u64;
        let tci = self.read(slot::VLAN_TCI) as u16;
        let bridge = self.bridge;
        let Some(in_port) = bridge.ports.get(&self.in_port()) else {
            self.reason = DropReason::NoPort;
            return self.note("NORMAL: the ingress port is not one of the bridge's");
        };
        let Some(vlan) = in_port.vlan.ingress(VlanId::from_tci(tci)) else {
            self.reason = DropReason::VlanFilter;
            return self.note("NORMAL: the ingress port does not carry this VLAN");
        };
        if is_reserved(destination) {
            return self.note("NORMAL: the destination is reserved for link protocols and is not forwarded");
        }
        if !is_multicast(source) {
            self.out.sightings.push(MacSighting { bridge: bridge.id, vlan, mac: source, port: in_port.no });
        }
        if bridge.mcast_snooping
            && is_multicast(destination)
            && let Some(ports) = self.snoop(in_port, vlan)
        {
            let wanted = ports.iter().rev().filter(|no| **no != in_port.no).filter_map(|no| bridge.ports.get(no));
            let targets: Vec<_> = wanted.filter_map(|port| self.tagged(port, vlan, tci)).collect();
            return self.send_all(targets);
        }
        let known = if is_multicast(destination) { None } else { self.port_of(vlan, destination) };
        match known {
            Some(port) if port.no == in_port.no => {
                self.reason = DropReason::NoPort;
                self.note("learned port is input port, dropping");
            }
            Some(port) => {
                let targets = self.tagged(port, vlan, tci).into_iter().collect();
                self.note("forwarding to learned port");
                self.send_all(targets);
            }
            None => {
                let targets = bridge
                    .ports
                    .values()
                    .rev()
                    .filter(|port| port.no != in_port.no && !port.no_flood)
                    .filter_map(|port| self.tagged(port, vlan, tci))
                    .collect();
                self.note("no learned MAC for destination, flooding");
                self.send_all(targets);
            }
        }
    }

    /// The port of this bridge that the address is behind. The result depends on the answer.
    fn port_of(&mut self, vlan: VlanId, mac: u64) -> Option<&'a Arc<BridgePort>> {
        let query = MacQuery { bridge: self.bridge.id, vlan, mac };
        self.out.mac_queries.push(query);
        self.bridge.ports.get(&self.macs.port_of(query)?)
    }

    /// The port as a target, with the tag that frames of `vlan` leave it with; the priority bits stay. A port that is
    /// reserved for a mirror's copies is none.
    pub(super) fn tagged(&self, port: &'a Arc<BridgePort>, vlan: VlanId, tci: u16) -> Option<Target<'a>> {
        if self.bridge.is_mirror_output(port.no) {
            return None;
        }
        let tci = port.vlan.egress(vlan, tci & 0xe000)?;
        Some(Target { port, tci: Some(tci), copy: false })
    }
}
