//! The flows, stage by stage. Matches of one stage that let pass do not overlap; what is most frequent has the highest
//! priority, so that nothing else is looked at for it.

use super::{GUARDED, Guard, PRIORITY, Stage, Station};
use crate::action::Action;
use crate::field::{ETH_TYPE_IPV6, Field, IP_PROTO_ICMPV6, IP_PROTO_UDP, ND_ADVERT, ND_SOLICIT};
use crate::packet::membership::{IP_PROTO_IGMP, MLD_DONE, MLD_REPORT, MLD_V2_REPORT};
use crate::port::PortNo;
use crate::router::flow::{DST, Matching, SRC, bits, set};
use crate::rule::{FlowSpec, TableId};
use crate::verdict::DropReason;
use std::net::{IpAddr, Ipv4Addr};

/// The priorities of a station's flows, stage by stage.
mod priority {
    /// Table 0: frames to the station's own MAC address, below what sends to the guard.
    pub(super) const HAIRPIN: u16 = super::PRIORITY - 10;
    /// Table 0: a station whose port is joined with another.
    pub(super) const JOINED: u16 = super::PRIORITY - 20;

    /// Guard, neighbour: what passes.
    pub(super) const PASS: u16 = 200;
    /// Source: IP from the station's addresses.
    pub(super) const IP: u16 = 200;
    /// Source: ARP with the station as its sender.
    pub(super) const ARP: u16 = 190;
    /// Source: what passes without an address.
    pub(super) const NO_ADDRESS: u16 = 180;
    /// Neighbour: messages that pass only if a higher flow says so.
    pub(super) const REFUSED: u16 = 100;
    /// Everything else.
    pub(super) const REST: u16 = 1;
}

/// ICMPv6 types (RFC 4861, 4).
const ROUTER_SOLICIT: u8 = 133;
const ROUTER_ADVERT: u8 = 134;
const REDIRECT: u8 = 137;
/// Types of the options with a link-layer address (RFC 4861, 4.6.1); the key has 0 where there is none.
const NO_OPTION: u8 = 0;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
/// Ports of DHCP (RFC 2131, 4.1).
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

/// Every flow of a station.
pub(super) fn all(station: &Station) -> Vec<FlowSpec> {
    let mut out = Vec::new();
    if station.guard != Guard::None {
        out.extend(guard(station));
    } else if station.held {
        out.push(enter(station));
    }
    if station.guard == Guard::Full {
        out.extend(ip(station));
        out.extend(arp(station));
        out.extend(without_address(station));
        out.extend(neighbor_discovery(station));
    }
    if station.hairpin {
        let own = from(station, Matching::any()).is(Field::EthDst, station.mac);
        // What came by no port may go to any: to the one that it came by, protected or not.
        let back = vec![set(Field::InPort, PortNo::NONE.0), Action::Output(station.port)];
        out.push(flow(station, TableId::FIRST, priority::HAIRPIN, own, back));
    }
    out
}

/// Between the station's port and another one.
pub(super) fn joined(station: &Station, outside: PortNo) -> Vec<FlowSpec> {
    let way = |from: PortNo, to: PortNo| {
        let matching = Matching::any().is(Field::InPort, from.0);
        flow(station, TableId::FIRST, priority::JOINED, matching, vec![Action::Output(to)])
    };
    vec![way(station.port, outside), way(outside, station.port)]
}

fn flow(station: &Station, table: TableId, priority: u16, matching: Matching, actions: Vec<Action>) -> FlowSpec {
    FlowSpec { table, priority, ..FlowSpec::new(matching.done(), actions, station.owner.clone()) }
}

/// A flow of the guard that sends on.
fn goto(station: &Station, stage: Stage, priority: u16, matching: Matching, to: Stage) -> FlowSpec {
    flow(station, stage.table(), priority, from(station, matching), vec![Action::GotoTable(to.table())])
}

/// A flow that lets pass: back to table 0, whose other flows are the next to see the packet.
fn pass(station: &Station, stage: Stage, priority: u16, matching: Matching) -> FlowSpec {
    let again = Action::Resubmit { port: None, table: Some(TableId::FIRST), ct: false, extended: true };
    let actions = vec![Action::Load { value: 1, dst: GUARDED }, again];
    flow(station, stage.table(), priority, from(station, matching), actions)
}

fn drop(station: &Station, stage: Stage, priority: u16, matching: Matching) -> FlowSpec {
    let flow = flow(station, stage.table(), priority, from(station, matching), Vec::new());
    FlowSpec { drop_reason: Some(DropReason::SpoofGuard), ..flow }
}

fn from(station: &Station, matching: Matching) -> Matching {
    matching.is(Field::InPort, station.port.0)
}

/// ICMPv6 of this type and any code.
fn icmpv6(kind: u8) -> Matching {
    Matching::any().is(Field::EthType, ETH_TYPE_IPV6).is(Field::IpProto, IP_PROTO_ICMPV6).is(Field::Icmpv6Type, kind)
}

/// The addresses of one family, the link-local one too.
fn own(station: &Station, v4: bool) -> impl Iterator<Item = IpAddr> {
    let link_local = (!v4).then(|| IpAddr::from(station.link_local()));
    let mut addresses: Vec<IpAddr> = station.addresses.iter().copied().chain(link_local).collect();
    addresses.retain(|address| address.is_ipv4() == v4);
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter()
}

/// Table 0: to the guard, or nowhere.
fn enter(station: &Station) -> FlowSpec {
    let unseen = from(station, Matching::any()).part(GUARDED, 0);
    let actions = if station.held { Vec::new() } else { vec![Action::GotoTable(Stage::Guard.table())] };
    let drop_reason = station.held.then_some(DropReason::SpoofGuard);
    FlowSpec { drop_reason, ..flow(station, TableId::FIRST, PRIORITY, unseen, actions) }
}

/// Table 0, and the source MAC address.
fn guard(station: &Station) -> Vec<FlowSpec> {
    let mac = Matching::any().is(Field::EthSrc, station.mac);
    let next = match station.guard {
        Guard::Full => goto(station, Stage::Guard, priority::PASS, mac, Stage::Source),
        Guard::Mac | Guard::None => pass(station, Stage::Guard, priority::PASS, mac),
    };
    vec![enter(station), next, drop(station, Stage::Guard, priority::REST, Matching::any())]
}

/// IP from the station's addresses.
fn ip(station: &Station) -> Vec<FlowSpec> {
    let v4 = |address| pass(station, Stage::Source, priority::IP, Matching::ip(true).is(SRC[0], bits(address)));
    let v6 = |address| {
        let from = Matching::ip(false).is(SRC[1], bits(address));
        goto(station, Stage::Source, priority::IP, from, Stage::Neighbor)
    };
    let rest = drop(station, Stage::Source, priority::REST, Matching::any());
    own(station, true).map(v4).chain(own(station, false).map(v6)).chain([rest]).collect()
}

/// ARP with the station as its sender, or searching for duplicates of its addresses.
fn arp(station: &Station) -> Vec<FlowSpec> {
    let sender = |address: u128| Matching::arp().is(Field::ArpSha, station.mac).is(Field::ArpSpa, address);
    let both = |address| {
        let address = bits(address);
        let probe = sender(0).is(Field::ArpTpa, address);
        [
            pass(station, Stage::Source, priority::ARP, sender(address)),
            pass(station, Stage::Source, priority::NO_ADDRESS, probe),
        ]
    };
    own(station, true).flat_map(both).collect()
}

/// What is said before there is an address.
fn without_address(station: &Station) -> Vec<FlowSpec> {
    let nobody = |v4: bool, matching: Matching| matching.is(SRC[usize::from(!v4)], 0_u8);
    let udp = Matching::ip(true).is(Field::IpProto, IP_PROTO_UDP);
    let dhcp = nobody(true, udp)
        .is(DST[0], bits(Ipv4Addr::BROADCAST.into()))
        .is(Field::UdpSrc, DHCP_CLIENT)
        .is(Field::UdpDst, DHCP_SERVER);
    let igmp = nobody(true, Matching::ip(true).is(Field::IpProto, IP_PROTO_IGMP));
    let told = [ROUTER_SOLICIT, MLD_REPORT, MLD_DONE, MLD_V2_REPORT].map(|kind| nobody(false, icmpv6(kind)));
    let search = own(station, false).map(|target| {
        let solicit = nobody(false, Matching::icmp(false, ND_SOLICIT));
        solicit.is(Field::NdTarget, bits(target)).is(Field::NdOptionsType, NO_OPTION)
    });
    let all = [dhcp, igmp].into_iter().chain(told).chain(search);
    all.map(|matching| pass(station, Stage::Source, priority::NO_ADDRESS, matching)).collect()
}

/// What comes from one of the station's IPv6 addresses.
fn neighbor_discovery(station: &Station) -> Vec<FlowSpec> {
    let stage = Stage::Neighbor;
    let solicit = || Matching::icmp(false, ND_SOLICIT);
    let mut out = vec![
        pass(station, stage, priority::PASS, solicit().is(Field::NdOptionsType, NO_OPTION)),
        pass(
            station,
            stage,
            priority::PASS,
            solicit().is(Field::NdOptionsType, SOURCE_ADDRESS).is(Field::NdSll, station.mac),
        ),
        pass(station, stage, priority::REST, Matching::any()),
    ];
    for target in own(station, false) {
        let advert = || Matching::icmp(false, ND_ADVERT).is(Field::NdTarget, bits(target));
        let with_option = advert().is(Field::NdOptionsType, TARGET_ADDRESS).is(Field::NdTll, station.mac);
        out.push(pass(station, stage, priority::PASS, advert().is(Field::NdOptionsType, NO_OPTION)));
        out.push(pass(station, stage, priority::PASS, with_option));
    }
    for kind in [ROUTER_ADVERT, ND_SOLICIT, ND_ADVERT, REDIRECT] {
        out.push(drop(station, stage, priority::REFUSED, icmpv6(kind)));
    }
    out
}
