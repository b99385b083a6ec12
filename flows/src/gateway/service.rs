//! Services of stations that the host reaches by an address of the link, and the outside by the host.
//!
//! The host sends what is for a service to one address of the switch's, each service at a port of its own; the tracker
//! turns that into the station's address and port. Whoever began the connection is seen by the station as the host sends it.

use super::flows::{ORIGIN, address, drop, flow, normal, priority, state};
use super::{Gateway, Stage};
use crate::action::{Action, Ct, CtZone, Nat, NatDirection};
use crate::field::{Field, IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use crate::key::{CT_DNAT, CT_EST, CT_NEW, CT_REL, CT_SNAT, CT_TRK};
use crate::router::flow::{DST, Matching, SRC, bits};
use crate::rule::FlowSpec;
use crate::verdict::DropReason;
use std::net::IpAddr;

/// A service of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The link's address that the host sends to: one of [`Gateway::incoming`], of the family of `to`.
    pub address: IpAddr,
    /// The protocol: TCP, UDP or SCTP, by its number in IP.
    pub protocol: u8,
    /// The port that the host sends to.
    pub port: u16,
    /// The station's address.
    pub to: IpAddr,
    /// The station's port.
    pub to_port: u16,
    /// The station's MAC address, in the low 48 bits.
    pub mac: u64,
}

impl Service {
    fn is_v4(&self) -> bool {
        self.to.is_ipv4()
    }

    /// The fields of its source and destination port; none of another protocol's.
    fn ports(&self) -> Option<[Field; 2]> {
        match self.protocol {
            IP_PROTO_TCP => Some([Field::TcpSrc, Field::TcpDst]),
            IP_PROTO_UDP => Some([Field::UdpSrc, Field::UdpDst]),
            IP_PROTO_SCTP => Some([Field::SctpSrc, Field::SctpDst]),
            _ => None,
        }
    }
}

/// The flows of all services of a gateway, and of the addresses that the host sends to.
pub(super) fn all(gateway: &Gateway) -> Vec<FlowSpec> {
    let mut out = Vec::new();
    for incoming in &gateway.incoming {
        let v4 = incoming.is_ipv4();
        let to = Matching::ip(v4).is(DST[usize::from(!v4)], bits(*incoming));
        out.extend(address(gateway, *incoming));
        out.push(flow(gateway.table(Stage::FromHost), priority::ANSWER, to, vec![ask(gateway, Stage::Answer)]));
    }
    if !gateway.services.is_empty() {
        out.extend(answers(gateway));
    }
    for service in &gateway.services {
        out.extend(of(gateway, service));
    }
    out
}

fn ct(gateway: &Gateway, stage: Stage, ct: Ct) -> Action {
    Action::Ct(Box::new(Ct { zone: CtZone::Number(gateway.zone), table: Some(gateway.table(stage)), ..ct }))
}

/// Asks what is known of the connection, and goes on in another stage.
fn ask(gateway: &Gateway, stage: Stage) -> Action {
    ct(gateway, stage, Ct { nat: Some(Nat::default()), ..Ct::default() })
}

/// What is the same for all services.
fn answers(gateway: &Gateway) -> Vec<FlowSpec> {
    let (served, back) = (gateway.table(Stage::Served), gateway.table(Stage::Answer));
    let on = |set| state(Matching::any(), CT_TRK | set, 0);
    // A connection that has just begun has noted where it leads to.
    let link = Matching::any().is(Field::EthDst, gateway.link_mac);
    let to_origin = super::flows::to_origin();
    vec![
        flow(back, priority::BEGUN, state(link, CT_TRK | CT_NEW | CT_DNAT, 0), to_origin),
        flow(served, priority::SERVED, on(CT_EST), normal()),
        flow(served, priority::SERVED, on(CT_REL), normal()),
        // What the station has begun itself, and nobody has answered yet: it is translated already.
        flow(served, priority::SERVED, on(CT_NEW | CT_SNAT), normal()),
    ]
}

fn of(gateway: &Gateway, service: &Service) -> Vec<FlowSpec> {
    let Some([src_port, dst_port]) = service.ports() else { return Vec::new() };
    let (v4, to_host) = (service.is_v4(), gateway.table(Stage::ToHost));
    let ip = |protocol: u8| Matching::ip(v4).is(Field::IpProto, protocol);
    let from_it = |matching: Matching| matching.is(SRC[usize::from(!v4)], bits(service.to));
    let icmp = if v4 { IP_PROTO_ICMP } else { IP_PROTO_ICMPV6 };
    // Fragments have no ports but the first.
    let fragment = Matching::ip(v4).masked(Field::IpFrag, 1, 1);
    let may_be_answers = [ip(service.protocol).is(src_port, service.to_port), ip(icmp), fragment];
    let mut out: Vec<FlowSpec> = may_be_answers
        .into_iter()
        .map(|matching| flow(to_host, priority::SERVED, from_it(matching), vec![ask(gateway, Stage::Served)]))
        .collect();
    let begins = ip(service.protocol).is(DST[usize::from(!v4)], bits(service.address)).is(dst_port, service.port);
    let nat = Nat {
        direction: Some(NatDirection::Dst),
        addresses: Some((service.to, service.to)),
        ports: Some((service.to_port, service.to_port)),
        ..Nat::default()
    };
    let note = Action::SetField { field: ORIGIN.field, value: service.mac.into(), mask: ORIGIN.mask() };
    let begin = ct(gateway, Stage::Answer, Ct { commit: true, nat: Some(nat), exec: [note].into(), ..Ct::default() });
    let table = gateway.table(Stage::Answer);
    out.push(flow(table, priority::SERVICE, state(begins, CT_TRK | CT_NEW, CT_DNAT), vec![begin]));
    // Drops are told as what they are: nobody has this port.
    let nobody = Matching::ip(v4).is(DST[usize::from(!v4)], bits(service.address));
    out.push(drop(table, priority::NOBODY, state(nobody, CT_TRK | CT_NEW, CT_DNAT), DropReason::RuleDrop));
    out
}
