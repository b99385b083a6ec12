//! ARP for Ethernet and IPv4 (RFC 826), and announcements (RFC 5227).

use super::{BROADCAST, ETH_LEN, Link, Mac};
use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacketSlice, EtherType};
use sluice_flows::key::PacketKey;
use sluice_flows::packet::{L3, extract};
use std::net::Ipv4Addr;

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) struct Arp {
    /// It asks; otherwise it answers.
    pub(in crate::router) is_request: bool,
    /// Hardware address of who sends it.
    pub(in crate::router) sender_mac: Mac,
    /// Address of who sends it; 0.0.0.0 of one that looks whether an address is free.
    pub(in crate::router) sender: Ipv4Addr,
    /// Hardware address of whom it is for; of a request nothing is known of it.
    pub(in crate::router) target_mac: Mac,
    /// Address that is asked for, or of whom the answer is for.
    pub(in crate::router) target: Ipv4Addr,
}

impl Arp {
    /// Reads a frame. `None` unless it is an ARP request or reply for Ethernet and IPv4 from a single station.
    pub(in crate::router) fn read(frame: &[u8]) -> Option<Self> {
        let mut key = PacketKey::ZERO;
        let layers = extract(frame, 0, &mut key);
        if layers.l3 != L3::Arp {
            return None;
        }
        let packet = ArpPacketSlice::from_slice(frame.get(layers.l3_ofs.into()..)?).ok()?;
        let packet = packet.to_packet().try_eth_ipv4().ok()?;
        if super::is_group(packet.sender_mac) {
            return None;
        }
        Some(Self {
            is_request: match packet.operation {
                ArpOperation::REQUEST => true,
                ArpOperation::REPLY => false,
                _ => return None,
            },
            sender_mac: packet.sender_mac,
            sender: packet.sender_ipv4.into(),
            target_mac: packet.target_mac,
            target: packet.target_ipv4.into(),
        })
    }

    /// Whether it says that the sender has its address, unasked.
    pub(in crate::router) fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }

    /// The frame, to `to`.
    fn frame(&self, to: Mac) -> Vec<u8> {
        let link = Link { src: self.sender_mac, dst: to };
        let packet = ArpEthIpv4Packet {
            operation: if self.is_request { ArpOperation::REQUEST } else { ArpOperation::REPLY },
            sender_mac: self.sender_mac,
            sender_ipv4: self.sender.octets(),
            target_mac: self.target_mac,
            target_ipv4: self.target.octets(),
        };
        let mut frame = Vec::with_capacity(ETH_LEN + ArpEthIpv4Packet::LEN);
        frame.extend(link.dst);
        frame.extend(link.src);
        frame.extend(EtherType::ARP.0.to_be_bytes());
        frame.extend(packet.to_bytes());
        frame
    }
}

/// Asks who has `target`, of everybody, or only of whoever is believed to have it.
pub(in crate::router) fn request(mac: Mac, own: Ipv4Addr, target: Ipv4Addr, believed: Option<Mac>) -> Vec<u8> {
    let arp = Arp { is_request: true, sender_mac: mac, sender: own, target_mac: [0; 6], target };
    arp.frame(believed.unwrap_or(BROADCAST))
}

/// Says unasked who has `own`, as a request (RFC 5227, 3): every implementation takes those in.
pub(in crate::router) fn gratuitous(mac: Mac, own: Ipv4Addr) -> Vec<u8> {
    Arp { is_request: true, sender_mac: mac, sender: own, target_mac: [0; 6], target: own }.frame(BROADCAST)
}
