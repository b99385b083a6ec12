//! The Local stage: what is for the router itself, what must not be sent on, and TTL.

use super::interface::tagged;
use super::{Stages, host, priority};
use crate::action::Action;
use crate::field::{Field, IP_PROTO_ICMPV6, ND_ADVERT, ND_SOLICIT};
use crate::port::PortNo;
use crate::router::config::Interface;
use crate::router::flow::{DST, Matching, SRC, Writer, bits, copy, copy_part, set};
use crate::router::pipeline::{IN_INTERFACE, NEXT_HOP_V6, OUT_INTERFACE, Stage, TO_MANY, VRF};
use crate::router::punt::{PuntKind, load, resubmit};
use crate::rule::FlowSpec;
use crate::verdict::DropReason;
use ipnet::IpNet;
use std::net::IpAddr;

/// TTL and hop limit of what the router itself sends.
const OWN_TTL: u8 = 64;
/// The hop limit of neighbour discovery, which shows that no router sent it on (RFC 4861, 7.1).
const ND_HOP_LIMIT: u8 = 255;
/// First option of a solicitation: the sender's MAC address (RFC 4861, 4.6.1).
const SOURCE_LINK_LAYER: u8 = 1;
/// First option of an advertisement: the target's MAC address.
const TARGET_LINK_LAYER: u8 = 2;
/// Flags of an advertisement (RFC 4861, 4.4).
const ND_ROUTER: u32 = 1 << 31;
const ND_SOLICITED: u32 = 1 << 30;
const ND_OVERRIDE: u32 = 1 << 29;

const IGMP: u8 = 2;
const ICMP_ECHO: u8 = 8;
const ICMP_ECHO_REPLY: u8 = 0;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;
/// Multicast listener queries, reports and what ends them (RFC 2710, RFC 3810).
const MLD: [u8; 4] = [130, 131, 132, 143];
const ROUTER_SOLICIT: u8 = 133;
const ROUTER_ADVERT: u8 = 134;
const REDIRECT: u8 = 137;

/// Sources that no packet may have (RFC 1812, 5.3.7; RFC 4291, 2.5 and 2.7).
const MARTIAN_SOURCES: [&str; 6] = ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/128", "::1/128", "ff00::/8"];
/// Destinations that no packet may have outside a host.
const MARTIAN_DESTINATIONS: [&str; 4] = ["0.0.0.0/8", "127.0.0.0/8", "::/128", "::1/128"];
/// Groups: no packet to them is routed.
const GROUPS: [&str; 2] = ["224.0.0.0/4", "ff00::/8"];
/// Everybody on the link (RFC 919). Who has no address yet asks so, from 0.0.0.0, which is nothing wrong.
const BROADCAST: &str = "255.255.255.255/32";
/// The groups of all nodes and of all routers.
const ALL_NODES_AND_ROUTERS: [&str; 2] = ["ff02::1/128", "ff02::2/128"];
const LINK_LOCAL: &str = "fe80::/10";

/// Networks written down here.
fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// A packet from or to a network.
fn in_network(fields: [Field; 2], net: IpNet) -> Matching {
    Matching::ip(net.addr().is_ipv4()).within(fields, net)
}

impl Stages {
    /// The flows of the stage that belong to no interface.
    pub(super) fn local_base(&self, to: &Writer<'_>, flows: &mut Vec<FlowSpec>) {
        let at = Stage::Local;
        flows.push(to.punt(at, priority::PROTOCOL, Matching::arp(), PuntKind::Arp));
        flows.push(to.punt(at, priority::PROTOCOL, Matching::ip(true).is(Field::IpProto, IGMP), PuntKind::Group));
        self.icmpv6_base(to, flows);
        for net in networks(&[BROADCAST]) {
            flows.push(to.flow(at, priority::BROADCAST, in_network(DST, net), Vec::new()));
        }
        for net in networks(&MARTIAN_SOURCES) {
            flows.push(to.drop(at, priority::MARTIAN, in_network(SRC, net), DropReason::SpoofGuard));
        }
        for net in networks(&MARTIAN_DESTINATIONS) {
            flows.push(to.flow(at, priority::MARTIAN, in_network(DST, net), Vec::new()));
        }
        for net in networks(&ALL_NODES_AND_ROUTERS) {
            let ping = Matching::icmp(false, ICMPV6_ECHO).within(DST, net);
            flows.push(to.punt(at, priority::GROUP_PING, ping, PuntKind::Local));
        }
        for net in networks(&GROUPS) {
            flows.push(to.flow(at, priority::GROUPS, in_network(DST, net), Vec::new()));
        }
        flows.push(to.flow(at, priority::TO_MANY, Matching::any().part(TO_MANY, 1), Vec::new()));
        for net in networks(&[LINK_LOCAL]) {
            for fields in [SRC, DST] {
                flows.push(to.flow(at, priority::LINK_LOCAL, in_network(fields, net), Vec::new()));
            }
        }
        for v4 in [true, false] {
            for ttl in [0_u8, 1] {
                let expired = Matching::ip(v4).is(Field::IpTtl, ttl);
                flows.push(to.refuse(at, priority::TTL, expired, PuntKind::TtlExpired, DropReason::TtlExpired));
            }
            let actions = vec![Action::DecTtl(Box::default()), to.go(Stage::Route)];
            flows.push(to.flow(at, priority::ROUTED, Matching::ip(v4), actions));
        }
        flows.push(to.flow(at, priority::REST, Matching::any(), Vec::new()));
    }

    /// ICMPv6 that is not for one address of an interface: what the running side has to see, and what must not go on.
    fn icmpv6_base(&self, to: &Writer<'_>, flows: &mut Vec<FlowSpec>) {
        let seen = [(ND_ADVERT, PuntKind::Nd), (REDIRECT, PuntKind::Nd)]
            .into_iter()
            .chain([(ROUTER_SOLICIT, PuntKind::Ra), (ROUTER_ADVERT, PuntKind::Ra)]);
        for (kind, punt) in seen {
            let matching = Matching::icmp(false, kind).is(Field::IpTtl, ND_HOP_LIMIT);
            flows.push(to.punt(Stage::Local, priority::PROTOCOL, matching, punt));
        }
        for kind in MLD {
            let matching = Matching::icmp(false, kind).is(Field::IpTtl, 1_u8);
            flows.push(to.punt(Stage::Local, priority::PROTOCOL, matching, PuntKind::Group));
        }
        for kind in [ND_SOLICIT, ND_ADVERT, REDIRECT, ROUTER_SOLICIT, ROUTER_ADVERT].into_iter().chain(MLD) {
            let matching = Matching::ip(false).is(Field::IpProto, IP_PROTO_ICMPV6).is(Field::Icmpv6Type, kind);
            flows.push(to.flow(Stage::Local, priority::PROTOCOL_REST, matching, Vec::new()));
        }
    }

    /// The flows of the stage that belong to an interface.
    pub(super) fn local_of(&self, to: &Writer<'_>, interface: &Interface, flows: &mut Vec<FlowSpec>) {
        for address in interface.own_addresses() {
            if !interface.layer3 {
                resolve(to, interface, address, flows);
            }
            own(to, interface, address, flows);
        }
        if !interface.layer3 {
            proxies(to, interface, flows);
            flows.push(advertise(to, interface));
        }
        for net in &interface.addresses {
            // Networks of one or two addresses have no broadcast address (RFC 3021).
            if let IpNet::V4(v4) = net
                && net.prefix_len() < 31
            {
                let all = Matching::ip(true).part(VRF, interface.vrf.0.into()).to(IpAddr::V4(v4.broadcast()));
                flows.push(to.flow(Stage::Local, priority::GROUPS, all, Vec::new()));
            }
        }
    }
}

/// Answers who asks for the MAC address of an own address.
fn resolve(to: &Writer<'_>, interface: &Interface, address: IpAddr, flows: &mut Vec<FlowSpec>) {
    match address {
        IpAddr::V4(_) => {
            let asked = arp_for(interface, host(address));
            let mut actions = arp_answer(interface);
            actions.push(copy(Field::ArpSpa, Field::ArpTpa));
            actions.push(set(Field::ArpSpa, bits(address)));
            actions.extend(back(interface));
            flows.push(to.flow(Stage::Local, priority::ANSWER, asked, actions));
            // Another station says that it has the address.
            let claimed = Matching::arp().entering(interface).within([Field::ArpSpa; 2], host(address));
            flows.push(to.punt(Stage::Local, priority::PROBE, claimed, PuntKind::Arp));
        }
        IpAddr::V6(_) => {
            let asked = solicitation(interface, host(address));
            let flags = ND_ROUTER | ND_SOLICITED | ND_OVERRIDE;
            let actions = nd_answer(to, interface, bits(address), flags);
            flows.push(to.flow(Stage::Local, priority::ANSWER, with_source(asked), actions));
            // Duplicate address detection and solicitations without the sender's MAC address: an answer has another
            // length or destination, which flows cannot make.
            let unspecified = asked.is(Field::Ipv6Src, 0_u8);
            flows.push(to.punt(Stage::Local, priority::PROBE, unspecified, PuntKind::Nd));
            flows.push(to.punt(Stage::Local, priority::PROTOCOL, asked, PuntKind::Nd));
        }
    }
}

/// Answers for the addresses that the interface stands in for.
fn proxies(to: &Writer<'_>, interface: &Interface, flows: &mut Vec<FlowSpec>) {
    let at = Stage::Local;
    for net in &interface.proxied {
        match net {
            IpNet::V4(_) => {
                let asked = arp_for(interface, *net);
                let mut actions = arp_answer(interface);
                // The addresses change places.
                actions.push(Action::Push(crate::action::Subfield::whole(Field::ArpTpa)));
                actions.push(copy(Field::ArpSpa, Field::ArpTpa));
                actions.push(Action::Pop(crate::action::Subfield::whole(Field::ArpSpa)));
                actions.extend(back(interface));
                flows.push(to.flow(at, priority::PROXY, asked, actions));
                // A host that takes an address for itself must not be told that somebody has it (RFC 5227).
                let probe = asked.is(Field::ArpSpa, 0_u8);
                flows.push(to.flow(at, priority::PROXY + 1, probe, Vec::new()));
            }
            IpNet::V6(_) => {
                let Some(own) = interface.link_local() else { continue };
                let asked = solicitation(interface, *net);
                let actions = nd_answer(to, interface, own.into(), ND_ROUTER | ND_SOLICITED);
                flows.push(to.flow(at, priority::PROXY, with_source(asked), actions));
                let probe = asked.is(Field::Ipv6Src, 0_u8);
                flows.push(to.flow(at, priority::PROXY + 1, probe, Vec::new()));
            }
        }
    }
}

/// An ARP request for an address of the network.
fn arp_for(interface: &Interface, net: IpNet) -> Matching {
    Matching::arp().entering(interface).is(Field::ArpOp, 1_u8).within([Field::ArpTpa; 2], net)
}

/// Makes the reply of an ARP request, but for its addresses (RFC 826).
fn arp_answer(interface: &Interface) -> Vec<Action> {
    vec![
        copy(Field::EthSrc, Field::EthDst),
        set(Field::EthSrc, interface.mac),
        set(Field::ArpOp, 2_u8),
        copy(Field::ArpSha, Field::ArpTha),
        set(Field::ArpSha, interface.mac),
    ]
}

/// A neighbour solicitation for an address of the network.
fn solicitation(interface: &Interface, net: IpNet) -> Matching {
    Matching::icmp(false, ND_SOLICIT)
        .entering(interface)
        .is(Field::IpTtl, ND_HOP_LIMIT)
        .within([Field::NdTarget; 2], net)
}

/// A solicitation that begins with the sender's MAC address.
fn with_source(asked: Matching) -> Matching {
    asked.is(Field::NdOptionsType, SOURCE_LINK_LAYER)
}

/// Makes the advertisement that answers a solicitation, sent from `source` (RFC 4861, 7.2.4), but for its last part: the
/// target's MAC address can be set only of what is an advertisement already, so that takes another lookup.
fn nd_answer(to: &Writer<'_>, interface: &Interface, source: u128, flags: u32) -> Vec<Action> {
    vec![
        copy(Field::EthSrc, Field::EthDst),
        set(Field::EthSrc, interface.mac),
        copy(Field::Ipv6Src, Field::Ipv6Dst),
        set(Field::Ipv6Src, source),
        set(Field::Icmpv6Type, ND_ADVERT),
        set(Field::NdReserved, flags),
        set(Field::NdOptionsType, TARGET_LINK_LAYER),
        load(OUT_INTERFACE, interface.id.0.into()),
        resubmit(to.pipeline, Stage::Local),
    ]
}

/// Sends the advertisements that the interface answers with: what comes in has no interface to leave by yet.
fn advertise(to: &Writer<'_>, interface: &Interface) -> FlowSpec {
    let answer = Matching::icmp(false, ND_ADVERT).entering(interface).part(OUT_INTERFACE, interface.id.0.into());
    let mut actions = vec![set(Field::NdTll, interface.mac)];
    actions.extend(back(interface));
    to.flow(Stage::Local, priority::ADVERTISE, answer, actions)
}

/// Sends a frame back by the interface that it came by.
fn back(interface: &Interface) -> Vec<Action> {
    let mut actions = tagged(interface);
    actions.push(Action::Output(PortNo::IN_PORT));
    actions
}

/// What becomes of packets to an own address: pings are answered, the rest is for the running side.
fn own(to: &Writer<'_>, interface: &Interface, address: IpAddr, flows: &mut Vec<FlowSpec>) {
    let at = Stage::Local;
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    // An address of the link is one of this interface only, others are reached by any interface of the VRF.
    let reached = |matching: Matching| match link_local {
        true => matching.entering(interface).to(address),
        false => matching.part(VRF, interface.vrf.0.into()).to(address),
    };
    let v4 = address.is_ipv4();
    flows.push(to.punt(at, priority::OWN, reached(Matching::ip(v4)), PuntKind::Local));
    let (ping, answer) = match v4 {
        true => (Matching::icmp(true, ICMP_ECHO), echo_reply(address)),
        false => (Matching::icmp(false, ICMPV6_ECHO), echo_reply(address)),
    };
    let routed = [load(IN_INTERFACE, 0), to.go(Stage::Route)];
    let actions = answer.iter().cloned().chain(routed).collect();
    flows.push(to.flow(at, priority::PING, reached(ping), actions));
    if !v4 {
        // No route leads to link-local addresses: the answer leaves by the interface that the question came by.
        for net in networks(&[LINK_LOCAL]) {
            let on_link = [
                copy_part(IN_INTERFACE, OUT_INTERFACE),
                load(IN_INTERFACE, 0),
                copy(Field::Ipv6Dst, NEXT_HOP_V6.field),
                to.go(Stage::Neighbor),
            ];
            let actions = answer.iter().cloned().chain(on_link).collect();
            flows.push(to.flow(at, priority::PING_ON_LINK, reached(ping).within(SRC, net), actions));
        }
    }
}

/// Makes the reply of an echo request that came to `address` (RFC 792, RFC 4443, 4.2).
fn echo_reply(address: IpAddr) -> Vec<Action> {
    let (src, dst, kind, reply) = match address {
        IpAddr::V4(_) => (Field::IpSrc, Field::IpDst, Field::IcmpType, ICMP_ECHO_REPLY),
        IpAddr::V6(_) => (Field::Ipv6Src, Field::Ipv6Dst, Field::Icmpv6Type, ICMPV6_ECHO_REPLY),
    };
    vec![copy(src, dst), set(src, bits(address)), set(kind, reply), set(Field::IpTtl, OWN_TTL)]
}
