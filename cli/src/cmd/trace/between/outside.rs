//! Beyond the uplink of a lab: addresses that no host of it has.

use super::{Endpoint, endpoint};
use crate::failure::Failure;
use crate::lab::{Outside, State};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Stands for the MAC address of a station in the network of the machine's interface, which the lab does not know before it hears
/// of it: the switch does not know it either, and floods.
const UNKNOWN_MAC: &str = "02:ff:ff:ff:ff:ff";

/// What a word means that may be an address, with a port or without, or the uplink itself; `None` for another word.
pub(super) fn meant(state: &State, word: &str) -> Option<Result<(Endpoint, Option<u16>), Failure>> {
    let plain = word.parse().map(|address| (address, None));
    let address = plain.or_else(|_| word.parse().map(|socket: SocketAddr| (socket.ip(), Some(socket.port())))).ok();
    if let Some((address, port)) = address {
        return Some(behind(state, address).map(|endpoint| (endpoint, port)));
    }
    let uplink = state.topology.uplink.as_ref()?;
    let is_meant = word == uplink.title() || word == "uplink" && state.topology.host(word).is_none();
    let address = uplink.addresses().first().map(IpNet::addr).filter(|_| is_meant)?;
    Some(behind(state, address).map(|endpoint| (endpoint, None)))
}

/// Who has the address: a host of the lab, or somebody behind the uplink.
fn behind(state: &State, address: IpAddr) -> Result<Endpoint, Failure> {
    let topology = &state.topology;
    let has_it = |net: &IpNet| net.addr() == address;
    let first = |host: &&crate::lab::Host| host.interfaces.first().is_some_and(|i| i.addresses.iter().any(has_it));
    if let Some(host) = topology.hosts.iter().find(first) {
        return endpoint(state, &host.name);
    }
    let Some(uplink) = &topology.uplink else {
        let failure = Failure::usage(format!("no host of the lab {} has the address {address}", topology.name));
        return Err(failure.why("the lab has no `uplink:`, by which others are reached"));
    };
    let mac = match &uplink.outside {
        Outside::Nat { mac, .. } => mac.to_string(),
        Outside::Device(_) => UNKNOWN_MAC.to_owned(),
    };
    // As far as its own address is in the lab's network, it is a neighbour there.
    let own = uplink.addresses().iter().copied().find(has_it).unwrap_or_else(|| address.into());
    let [v4, v6] = [true, false].map(|v4| Some(own).filter(|_| address.is_ipv4() == v4));
    Ok(Endpoint {
        host: uplink.title(),
        switch: uplink.switch.clone(),
        port: uplink.port,
        mac,
        vlan: uplink.vlan.clone(),
        v4,
        v6,
        gateways: Vec::new(),
    })
}

/// The MAC address of the machine, if it has this address in the lab.
pub(super) fn mac_of(state: &State, address: IpAddr) -> Option<String> {
    let uplink = state.topology.uplink.as_ref()?;
    let Outside::Nat { mac, addresses } = &uplink.outside else { return None };
    addresses.iter().any(|net| net.addr() == address).then(|| mac.to_string())
}
