//! The flows, stage by stage. Which flow wins where is said by the priorities of [`priority`].

use super::{Gateway, Masquerade, Stage, service};
use crate::action::{Action, Subfield};
use crate::field::{Field, ND_ADVERT, ND_SOLICIT};
use crate::key::{CT_EST, CT_INV, CT_NEW, CT_REL, CT_RPL, CT_SNAT, CT_TRK};
use crate::port::PortNo;
use crate::router::flow::{DST, Matching, SRC, bits, copy, copy_part, set};
use crate::rule::{FlowSpec, TableId};
use crate::verdict::DropReason;
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv6Addr};

/// The priorities of a gateway's flows, stage by stage.
pub(super) mod priority {
    /// Table 0: what comes from the host.
    pub(in crate::gateway) const FROM_HOST: u16 = 30_300;
    /// Table 0: who pretends to be the host.
    pub(in crate::gateway) const PRETENDER: u16 = 30_290;
    /// Table 0: what goes to the host.
    pub(in crate::gateway) const TO_HOST: u16 = 30_200;

    /// From host: who looks for duplicates of a link address.
    pub(in crate::gateway) const PROBE: u16 = 210;
    /// From host: who has the link address?
    pub(in crate::gateway) const WHO_HAS: u16 = 200;
    /// From host: answers.
    pub(in crate::gateway) const ANSWER: u16 = 190;
    /// From host: from where nothing is translated.
    pub(in crate::gateway) const NEAR: u16 = 150;
    /// From host: connections that the outside begins.
    pub(in crate::gateway) const OUTSIDE: u16 = 140;
    /// From host: what else is sent to the link's MAC address.
    pub(in crate::gateway) const STRAY: u16 = 10;

    /// Answer: a connection to a service, which has just begun.
    pub(in crate::gateway) const BEGUN: u16 = 120;
    /// Answer: a connection to a service begins.
    pub(in crate::gateway) const SERVICE: u16 = 110;
    /// Answer: to whom it goes.
    pub(in crate::gateway) const BACK: u16 = 100;
    /// Answer: to nobody.
    pub(in crate::gateway) const NOBODY: u16 = 90;
    /// Answer: what fits no connection.
    pub(in crate::gateway) const INVALID: u16 = 50;
    /// Answer: a connection that the outside begins.
    pub(in crate::gateway) const NOTE: u16 = 40;

    /// To host: what a station with a service sends that may be an answer.
    pub(in crate::gateway) const SERVED: u16 = 190;
    /// To host: from a network that reaches the host alone, to the host.
    pub(in crate::gateway) const INTERNAL: u16 = 180;
    /// To host and from host: between such a network and somebody else.
    pub(in crate::gateway) const CONFINED: u16 = 170;
    /// To host: to a network behind another gateway that the host alone reaches.
    pub(in crate::gateway) const CLOSED: u16 = 165;
    /// To host: to the link address itself.
    pub(in crate::gateway) const OWN: u16 = 160;
    /// To host: what stays on the link.
    pub(in crate::gateway) const ON_LINK: u16 = 150;
    /// To host: what is not translated.
    pub(in crate::gateway) const EXCEPT: u16 = 140;
    /// To host: what is.
    pub(in crate::gateway) const INSIDE: u16 = 130;
    /// To host: from whom a gateway that translates nothing lets everything pass.
    pub(in crate::gateway) const OPEN: u16 = 20;

    /// Begin: what fits no connection.
    pub(in crate::gateway) const REFUSED: u16 = 100;
    /// Begin: a connection that is there.
    pub(in crate::gateway) const THERE: u16 = 90;
    /// Begin: one that nobody has answered, translated already.
    pub(in crate::gateway) const AGAIN: u16 = 80;
    /// Begin: a new one.
    pub(in crate::gateway) const NEW: u16 = 70;

    /// Out and advertise: what is to be done.
    pub(in crate::gateway) const MATCHED: u16 = 100;
    /// Everything else.
    pub(in crate::gateway) const REST: u16 = 0;
}

/// Addresses that never leave their link (RFC 4291, 2.5.6).
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
/// Flags of a neighbour advertisement: router, solicited, override (RFC 4861, 4.4).
const ADVERT_FLAGS: u32 = 0xe000_0000;
/// Type of the option with the target's link-layer address (RFC 4861, 4.6.1).
const TARGET_ADDRESS: u8 = 2;
/// ARP's opcodes.
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;

/// Where a connection's label has the MAC address that it began with.
pub(super) const ORIGIN: Subfield = Subfield { field: Field::CtLabel, ofs: 0, bits: 48 };

/// Every flow of a gateway, of whose bridge some gateway serves.
pub(super) fn all(gateway: &Gateway, serves: bool) -> Vec<FlowSpec> {
    let families: Vec<bool> = [true, false].into_iter().filter(|v4| concerns(gateway, *v4)).collect();
    if families.is_empty() {
        return Vec::new();
    }
    let mut out = entrance(gateway);
    out.extend(common(gateway));
    for v4 in families {
        let to_host = Matching::ip(v4).is(Field::EthDst, gateway.mac);
        out.push(flow(TableId::FIRST, priority::TO_HOST, to_host, vec![goto(gateway, Stage::ToHost)]));
        out.extend(near(gateway, v4));
        let stages: &[Stage] = if serves { &[Stage::ToHost, Stage::Served] } else { &[Stage::ToHost] };
        for stage in stages {
            out.extend(passing(gateway, *stage, v4));
        }
        for masquerade in gateway.masquerades.iter().filter(|masquerade| masquerade.is_v4() == v4) {
            out.extend(address(gateway, masquerade.address));
            out.extend(from_host(gateway, masquerade));
            out.extend(stages.iter().flat_map(|stage| to_outside(gateway, masquerade, *stage)));
            out.extend(begin(gateway, masquerade));
        }
    }
    out.extend(service::all(gateway));
    out
}

/// Whether anything but routing is done with packets of a family.
fn concerns(gateway: &Gateway, v4: bool) -> bool {
    let translated = gateway.masquerades.iter().any(|masquerade| masquerade.is_v4() == v4);
    translated
        || of_family(&gateway.internal, v4).next().is_some()
        || gateway.incoming.iter().any(|a| a.is_ipv4() == v4)
}

fn of_family(nets: &[IpNet], v4: bool) -> impl Iterator<Item = IpNet> + '_ {
    nets.iter().filter(move |net| net.addr().is_ipv4() == v4).copied()
}

pub(super) fn flow(table: TableId, priority: u16, matching: Matching, actions: Vec<Action>) -> FlowSpec {
    FlowSpec { table, priority, ..FlowSpec::new(matching.done(), actions, Gateway::owner()) }
}

pub(super) fn drop(table: TableId, priority: u16, matching: Matching, reason: DropReason) -> FlowSpec {
    FlowSpec { drop_reason: Some(reason), ..flow(table, priority, matching, Vec::new()) }
}

/// Also requires these flags of the connection's state to be set, and those not to be.
pub(super) fn state(matching: Matching, set: u8, clear: u8) -> Matching {
    matching.masked(Field::CtState, set.into(), u128::from(set | clear))
}

pub(super) fn goto(gateway: &Gateway, stage: Stage) -> Action {
    Action::GotoTable(gateway.table(stage))
}

pub(super) fn normal() -> Vec<Action> {
    vec![Action::Output(PortNo::NORMAL)]
}

/// Table 0.
fn entrance(gateway: &Gateway) -> Vec<FlowSpec> {
    let from = |mac: u64| Matching::any().is(Field::EthSrc, mac);
    let pretender = |mac| drop(TableId::FIRST, priority::PRETENDER, from(mac), DropReason::SpoofGuard);
    let host = Matching::any().is(Field::InPort, gateway.port.0);
    vec![
        flow(TableId::FIRST, priority::FROM_HOST, host, vec![goto(gateway, Stage::FromHost)]),
        pretender(gateway.mac),
        pretender(gateway.link_mac),
    ]
}

/// What is the same for both families.
fn common(gateway: &Gateway) -> Vec<FlowSpec> {
    let table = |stage| gateway.table(stage);
    let link = || Matching::any().is(Field::EthDst, gateway.link_mac);
    let (back, begin) = (table(Stage::Answer), table(Stage::Begin));
    let on = |set, clear| state(Matching::any(), CT_TRK | set, clear);
    let out = || vec![goto(gateway, Stage::Out)];
    vec![
        drop(table(Stage::FromHost), priority::STRAY, link(), DropReason::RuleDrop),
        flow(table(Stage::FromHost), priority::REST, Matching::any(), normal()),
        flow(back, priority::BACK, state(link(), CT_TRK | CT_EST, 0), to_origin()),
        flow(back, priority::BACK, state(link(), CT_TRK | CT_REL, 0), to_origin()),
        drop(back, priority::NOBODY, link(), DropReason::CtInvalid),
        drop(back, priority::INVALID, on(CT_INV, 0), DropReason::CtInvalid),
        flow(back, priority::REST, Matching::any(), normal()),
        drop(table(Stage::ToHost), priority::REST, Matching::any(), DropReason::SpoofGuard),
        drop(begin, priority::REFUSED, on(CT_INV, 0), DropReason::CtInvalid),
        flow(begin, priority::THERE, on(CT_EST, 0), out()),
        flow(begin, priority::THERE, on(CT_REL, 0), out()),
        flow(begin, priority::AGAIN, on(CT_NEW | CT_SNAT, 0), out()),
        flow(table(Stage::Out), priority::REST, Matching::any(), normal()),
    ]
}

/// Sends to whom the connection has noted.
pub(super) fn to_origin() -> Vec<Action> {
    vec![copy_part(ORIGIN, Subfield::whole(Field::EthDst)), Action::Output(PortNo::NORMAL)]
}

/// Who has the link address? The question is turned into the answer and goes back.
pub(super) fn address(gateway: &Gateway, address: IpAddr) -> Vec<FlowSpec> {
    let (table, mac, own) = (gateway.table(Stage::FromHost), gateway.link_mac, bits(address));
    let turned = || vec![copy(Field::EthSrc, Field::EthDst), set(Field::EthSrc, mac)];
    if address.is_ipv4() {
        let asked = Matching::arp().is(Field::ArpOp, ARP_REQUEST).is(Field::ArpTpa, own);
        let answer = [
            set(Field::ArpOp, ARP_REPLY),
            copy(Field::ArpSha, Field::ArpTha),
            set(Field::ArpSha, mac),
            copy(Field::ArpSpa, Field::ArpTpa),
            set(Field::ArpSpa, own),
            Action::Output(PortNo::IN_PORT),
        ];
        return vec![flow(table, priority::WHO_HAS, asked, turned().into_iter().chain(answer).collect())];
    }
    let asked = Matching::icmp(false, ND_SOLICIT).is(Field::NdTarget, own);
    let answer = [
        copy(Field::Ipv6Src, Field::Ipv6Dst),
        set(Field::Ipv6Src, own),
        set(Field::Icmpv6Type, ND_ADVERT),
        set(Field::NdReserved, ADVERT_FLAGS),
        set(Field::NdOptionsType, TARGET_ADDRESS),
        goto(gateway, Stage::Advertise),
    ];
    vec![
        drop(table, priority::PROBE, asked.is(Field::Ipv6Src, 0_u8), DropReason::RuleDrop),
        flow(table, priority::WHO_HAS, asked, turned().into_iter().chain(answer).collect()),
        // Only now that it is an advertisement has it the field for the address.
        flow(
            gateway.table(Stage::Advertise),
            priority::MATCHED,
            Matching::icmp(false, ND_ADVERT),
            vec![set(Field::NdTll, mac), Action::Output(PortNo::IN_PORT)],
        ),
    ]
}

/// What is between the host and its own networks, and passes as it is.
fn near(gateway: &Gateway, v4: bool) -> Vec<FlowSpec> {
    let table = gateway.table(Stage::FromHost);
    let mut out = Vec::new();
    for internal in of_family(&gateway.internal, v4) {
        let to = || Matching::ip(v4).within(DST, internal);
        for own in gateway.own.iter().filter(|own| own.is_ipv4() == v4) {
            out.push(flow(table, priority::INTERNAL, to().is(SRC[usize::from(!v4)], bits(*own)), normal()));
        }
        if !v4 {
            out.push(flow(table, priority::INTERNAL, to().within(SRC, link_local()), normal()));
        }
        out.push(drop(table, priority::CONFINED, to(), DropReason::RuleDrop));
    }
    let routed = of_family(&gateway.routed, v4);
    out.extend(routed.map(|net| flow(table, priority::NEAR, Matching::ip(v4).within(SRC, net), normal())));
    out
}

fn link_local() -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(LINK_LOCAL, 10))
}

/// What goes to the host and is not translated for a reason that has nothing to do with translation.
fn passing(gateway: &Gateway, stage: Stage, v4: bool) -> Vec<FlowSpec> {
    let table = gateway.table(stage);
    let mut out = Vec::new();
    for internal in of_family(&gateway.internal, v4) {
        let from = || Matching::ip(v4).within(SRC, internal);
        for own in gateway.own.iter().filter(|own| own.is_ipv4() == v4) {
            out.push(flow(table, priority::INTERNAL, from().is(DST[usize::from(!v4)], bits(*own)), normal()));
        }
        if !v4 {
            out.push(flow(table, priority::INTERNAL, from().within(DST, link_local()), normal()));
        }
        out.push(drop(table, priority::CONFINED, from(), DropReason::RuleDrop));
    }
    // By the time that it is there, the host's masquerade would have made it the host's own.
    for closed in of_family(&gateway.closed, v4) {
        out.push(drop(table, priority::CLOSED, Matching::ip(v4).within(DST, closed), DropReason::RuleDrop));
    }
    for own in gateway.incoming.iter().filter(|own| own.is_ipv4() == v4) {
        let own = Matching::ip(v4).is(DST[usize::from(!v4)], bits(*own));
        out.push(drop(table, priority::OWN, own, DropReason::RuleDrop));
    }
    for routed in of_family(&gateway.routed, v4) {
        out.push(flow(table, priority::ON_LINK, Matching::ip(v4).within(DST, routed), normal()));
        out.push(flow(table, priority::INSIDE, Matching::ip(v4).within(SRC, routed), normal()));
    }
    if !v4 {
        out.push(flow(table, priority::ON_LINK, Matching::ip(v4).within(DST, link_local()), normal()));
        out.push(flow(table, priority::ON_LINK, Matching::ip(v4).within(SRC, link_local()), normal()));
    }
    let translates = gateway.masquerades.iter().any(|masquerade| masquerade.is_v4() == v4);
    let confined = of_family(&gateway.routed, v4).next().is_none() && of_family(&gateway.internal, v4).next().is_some();
    if !translates && !confined {
        out.push(flow(table, priority::OPEN, Matching::ip(v4).is(Field::EthDst, gateway.mac), normal()));
    }
    if stage == Stage::Served {
        out.push(drop(table, priority::REST, Matching::any(), DropReason::SpoofGuard));
    }
    out
}

/// What comes from the host: answers to the link address, and connections that the outside begins.
fn from_host(gateway: &Gateway, masquerade: &Masquerade) -> Vec<FlowSpec> {
    let (table, v4, nat) = (gateway.table(Stage::FromHost), masquerade.is_v4(), masquerade.nat(gateway.zone));
    let known = || vec![nat.known(gateway.table(Stage::Answer))];
    let answer = Matching::ip(v4).is(DST[usize::from(!v4)], bits(masquerade.address));
    let mut out = vec![flow(table, priority::ANSWER, answer, known())];
    for inside in &masquerade.inside {
        let to_inside = || Matching::ip(v4).within(DST, *inside);
        out.push(flow(table, priority::NEAR, Matching::ip(v4).within(SRC, *inside), normal()));
        let near = |except: &IpNet| flow(table, priority::NEAR, to_inside().within(SRC, *except), normal());
        out.extend(masquerade.except.iter().map(near));
        out.push(flow(table, priority::OUTSIDE, to_inside(), known()));
    }
    let new = state(Matching::ip(v4), CT_TRK | CT_NEW, 0);
    let note = [vec![nat.note()], normal()].concat();
    out.push(flow(gateway.table(Stage::Answer), priority::NOTE, new, note));
    out
}

/// What goes to the host: is it translated?
fn to_outside(gateway: &Gateway, masquerade: &Masquerade, stage: Stage) -> Vec<FlowSpec> {
    let (table, v4, nat) = (gateway.table(stage), masquerade.is_v4(), masquerade.nat(gateway.zone));
    let own = Matching::ip(v4).is(DST[usize::from(!v4)], bits(masquerade.address));
    let mut out = vec![drop(table, priority::OWN, own, DropReason::RuleDrop)];
    for inside in &masquerade.inside {
        out.push(flow(table, priority::ON_LINK, Matching::ip(v4).within(DST, *inside), normal()));
        let from_inside = || Matching::ip(v4).within(SRC, *inside);
        for except in &masquerade.except {
            out.push(flow(table, priority::EXCEPT, from_inside().within(DST, *except), normal()));
        }
        let ask = vec![nat.known(gateway.table(Stage::Begin))];
        out.push(flow(table, priority::INSIDE, from_inside(), ask));
    }
    out
}

/// A new connection of the inside.
fn begin(gateway: &Gateway, masquerade: &Masquerade) -> Vec<FlowSpec> {
    let (v4, nat) = (masquerade.is_v4(), masquerade.nat(gateway.zone));
    let out = gateway.table(Stage::Out);
    let mut flows = Vec::new();
    for inside in &masquerade.inside {
        let from_inside = || Matching::ip(v4).within(SRC, *inside);
        let remember = vec![copy_part(Subfield::whole(Field::EthSrc), ORIGIN)];
        let new = state(from_inside(), CT_TRK | CT_NEW, 0);
        flows.push(flow(gateway.table(Stage::Begin), priority::NEW, new, vec![nat.begin(remember, out)]));
        // Answers to what the outside began are not translated.
        let untranslated = state(from_inside(), CT_TRK, CT_RPL);
        flows.push(drop(out, priority::MATCHED, untranslated, DropReason::CtFull));
    }
    flows
}
