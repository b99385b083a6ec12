//! What happens to a packet, in a form in which a switch, an oracle and Open vSwitch can be compared: what leaves and as
//! what, in order, rather than the steps that lead there.

use sluice_flows::DpPort;
use sluice_flows::action::{Nat, NatChoice, NatDirection, PacketInReason};
use sluice_flows::bridge::Model;
use sluice_flows::datapath::{Change, DpAction, DpCt, Translation};
use sluice_flows::key::{FlowKey, PACKET_WORDS, PIPELINE_WORD, VLAN_PRESENT, slot};
use sluice_flows::translate::{NoMacs, NoTrace, translate, translate_resumed};
use std::net::IpAddr;

/// One thing that happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// It leaves.
    Output {
        /// By this port.
        port: DpPort,
        /// Cut at this length.
        max_len: Option<u32>,
        /// As this.
        packet: Wire,
    },
    /// It is handed to the controllers.
    Controller {
        /// Why: OpenFlow's number.
        reason: u8,
        /// To which.
        controller: u16,
        /// How much of it.
        max_len: u16,
        /// The rule's cookie.
        cookie: u64,
        /// The meter that limits such messages.
        meter: Option<u32>,
        /// As this.
        packet: Wire,
    },
    /// What follows in this list is limited by a meter.
    Meter(u32),
    /// It goes through the connection tracker.
    Ct {
        /// What the tracker is asked for, in OVS's words.
        request: String,
        /// As this.
        packet: Wire,
    },
    /// What happens to a copy, where that makes a difference to the original.
    Copy(Vec<Event>),
    /// One or the other, by its length.
    Length {
        /// The length.
        len: u16,
        /// If it is longer.
        larger: Vec<Event>,
        /// If it is not.
        otherwise: Vec<Event>,
    },
    /// It goes on in a way that nobody followed.
    Lost,
}

/// A packet as others can see it: its headers, its mark and its priority, and what is under a pushed header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wire(pub [u64; PACKET_WORDS], pub u32, pub Vec<[u64; PACKET_WORDS]>);

/// A packet on its way: its key, and the keys of the packets under headers that were pushed, outermost last.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The key.
    pub key: FlowKey,
    /// What was there before each `push_mpls`.
    pub under: Vec<FlowKey>,
}

impl Packet {
    /// A packet with nothing known under its headers.
    pub fn new(key: FlowKey) -> Self {
        Self { key, under: Vec::new() }
    }

    /// The packet as others see it.
    pub fn wire(&self) -> Wire {
        // Tunnel fields are the tunnel port's business.
        let plain = |key: &FlowKey| {
            let mut words = key.packet().0;
            words[0] &= u64::from(u32::MAX);
            words[sluice_flows::key::FRAME_WORDS..].fill(0);
            words
        };
        let under = self.under.iter().map(|key| {
            let mut words = plain(key);
            // Only what is behind the EtherType is under the label.
            words[..4].fill(0);
            words
        });
        Wire(plain(&self.key), self.key.get(slot::SKB_PRIORITY) as u32, under.collect())
    }

    /// Puts an MPLS entry in front of what is behind the EtherType.
    pub fn push_mpls(&mut self, eth_type: u16, lse: u32) {
        let deeper = matches!(self.key.get(slot::ETH_TYPE), 0x8847 | 0x8848) && self.key.get(slot::MPLS_LSE) != 0;
        let (first, second) = (self.key.get(slot::MPLS_LSE), self.key.get(slot::MPLS_LSE_1));
        self.under.push(self.key);
        self.clear_l3();
        if deeper {
            self.key.set(slot::MPLS_LSE_1, first);
            self.key.set(slot::MPLS_LSE_2, second);
        }
        self.key.set(slot::MPLS_LSE, lse.into());
        self.key.set(slot::ETH_TYPE, eth_type.into());
    }

    /// Takes the outermost MPLS entry off. What was under an entry that the packet came with is not known: nothing.
    pub fn pop_mpls(&mut self, eth_type: u16) {
        let (second, third) = (self.key.get(slot::MPLS_LSE_1), self.key.get(slot::MPLS_LSE_2));
        let before = self.under.pop();
        self.clear_l3();
        match before {
            Some(before) if before.get(slot::ETH_TYPE) == u128::from(eth_type) => {
                self.key.0[4..15].copy_from_slice(&before.0[4..15]);
            }
            Some(_) => {}
            None if matches!(eth_type, 0x8847 | 0x8848) => {
                self.key.set(slot::MPLS_LSE, second);
                self.key.set(slot::MPLS_LSE_1, third);
            }
            None => {}
        }
        self.key.set(slot::ETH_TYPE, eth_type.into());
    }

    fn clear_l3(&mut self) {
        self.key.0[4..15].fill(0);
    }

    /// Takes the outer VLAN tag off.
    pub fn pop_vlan(&mut self) {
        let key = &mut self.key;
        for (outer, inner) in [(slot::VLAN_TCI, slot::INNER_VLAN_TCI), (slot::VLAN_TPID, slot::INNER_VLAN_TPID)] {
            key.set(outer, key.get(inner));
            key.set(inner, 0);
        }
    }

    /// Puts a VLAN tag on.
    pub fn push_vlan(&mut self, tpid: u16, tci: u16) {
        let key = &mut self.key;
        key.set(slot::INNER_VLAN_TCI, key.get(slot::VLAN_TCI));
        key.set(slot::INNER_VLAN_TPID, key.get(slot::VLAN_TPID));
        key.set(slot::VLAN_TCI, (tci | VLAN_PRESENT).into());
        key.set(slot::VLAN_TPID, tpid.into());
    }

    /// What the tracker makes of a packet: `ct_state` is this, NAT takes the first address and the first port.
    pub fn track(&mut self, ct: &DpCt, state: u8) {
        let key = &mut self.key;
        key.set(slot::CT_STATE, state.into());
        key.set(slot::CT_ZONE, ct.zone.into());
        if let Some((value, mask)) = ct.mark {
            key.set_masked(slot::CT_MARK, value.into(), mask.into());
        }
        if let Some((value, mask)) = ct.label {
            key.set_masked(slot::CT_LABEL, value, mask);
        }
        let Some(Nat { direction: Some(direction), addresses, ports, .. }) = ct.nat else { return };
        let source = direction == NatDirection::Src;
        match addresses {
            Some((IpAddr::V4(ip), _)) => {
                key.set(if source { slot::IP_SRC } else { slot::IP_DST }, ip.to_bits().into());
            }
            Some((IpAddr::V6(ip), _)) => {
                key.set(if source { slot::IPV6_SRC } else { slot::IPV6_DST }, ip.to_bits());
            }
            None => {}
        }
        if let Some((port, _)) = ports {
            key.set(if source { slot::TP_SRC } else { slot::TP_DST }, port.into());
        }
    }
}

/// The request of a `ct` action in OVS's words.
pub fn ct_request(ct: &DpCt) -> String {
    let mut words = Vec::new();
    if ct.commit {
        words.push(if ct.force { "force_commit" } else { "commit" }.to_owned());
    }
    if ct.zone != 0 {
        words.push(format!("zone={}", ct.zone));
    }
    if let Some((value, mask)) = ct.mark {
        words.push(format!("mark={value:#x}/{mask:#x}"));
    }
    if let Some((value, mask)) = ct.label {
        words.push(format!("label={value:#x}/{mask:#x}"));
    }
    if let Some(alg) = ct.alg {
        words.push(format!("helper={alg:?}").to_lowercase());
    }
    if let Some(nat) = &ct.nat {
        words.push(nat_request(nat));
    }
    words.join(",")
}

fn nat_request(nat: &Nat) -> String {
    let Some(direction) = nat.direction else { return "nat".to_owned() };
    let mut text = if direction == NatDirection::Src { "nat(src" } else { "nat(dst" }.to_owned();
    let bracketed = |ip: IpAddr| match ip {
        IpAddr::V6(ip) if nat.ports.is_some() => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    if let Some((first, last)) = nat.addresses {
        text += &format!("={}", bracketed(first));
        if first != last {
            text += &format!("-{}", bracketed(last));
        }
    }
    if let Some((first, last)) = nat.ports {
        text += &if nat.addresses.is_some() { format!(":{first}") } else { format!("=:{first}") };
        if first != last {
            text += &format!("-{last}");
        }
    }
    if nat.persistent {
        text += ",persistent";
    }
    match nat.choice {
        NatChoice::Any => {}
        NatChoice::Hash => text += ",hash",
        NatChoice::Random => text += ",random",
    }
    text + ")"
}

/// OpenFlow's number of a reason, as OVS's datapath has it.
pub fn reason_number(reason: PacketInReason) -> u8 {
    match reason {
        PacketInReason::NoMatch => 0,
        PacketInReason::Action => 1,
        PacketInReason::InvalidTtl => 2,
        PacketInReason::ActionSet => 3,
        PacketInReason::Group => 4,
        PacketInReason::PacketOut => 5,
    }
}

/// Translates packets of a model and does what translation says, through every stage.
pub struct Switch<'a> {
    /// The model.
    pub model: &'a Model,
    /// What the tracker says of every packet.
    pub ct_state: u8,
    /// Every translation made, in order, with the key that it was made for.
    pub translations: Vec<(FlowKey, Translation)>,
}

/// Passes of one packet that are followed.
pub const STAGES: usize = 32;

impl<'a> Switch<'a> {
    /// A switch that nothing came to yet.
    pub fn new(model: &'a Model, ct_state: u8) -> Self {
        Self { model, ct_state, translations: Vec::new() }
    }

    /// Translates a packet whose ingress port is a datapath port, and does what comes of it.
    pub fn process(&mut self, key: &FlowKey) -> Vec<Event> {
        let result = translate(self.model, &NoMacs, DpPort(key.get(slot::IN_PORT) as u32), key, &mut NoTrace);
        self.translations.push((*key, result.clone()));
        let mut packet = Packet::new(*key);
        let mut events = Vec::new();
        self.apply(&result, &result.actions, &mut packet, &mut events);
        events
    }

    fn apply(&mut self, result: &Translation, actions: &[DpAction], packet: &mut Packet, events: &mut Vec<Event>) {
        // What the tracker changes shows where the packet goes on after it.
        let (mut max_len, mut tracked) = (None, None);
        for action in actions {
            match action {
                DpAction::Output(port) | DpAction::Mirror(port) => {
                    events.push(Event::Output { port: *port, max_len: max_len.take(), packet: packet.wire() });
                }
                DpAction::Controller(sent) => events.push(Event::Controller {
                    reason: reason_number(sent.reason),
                    controller: sent.controller_id,
                    max_len: sent.max_len,
                    cookie: sent.cookie,
                    meter: sent.meter.as_ref().map(|meter| meter.id().0),
                    packet: packet.wire(),
                }),
                DpAction::Set(changes) => change(&mut packet.key, changes),
                DpAction::PushVlan { tpid, tci } => packet.push_vlan(*tpid, *tci),
                DpAction::PopVlan => packet.pop_vlan(),
                DpAction::Truncate(len) => max_len = Some(*len),
                DpAction::PushMpls { eth_type, lse } => packet.push_mpls(*eth_type, *lse),
                DpAction::PopMpls(eth_type) => packet.pop_mpls(*eth_type),
                DpAction::Meter(meter) => events.push(Event::Meter(meter.id().0)),
                DpAction::Clone(list) => {
                    let mut inner = Vec::new();
                    self.apply(result, list, &mut packet.clone(), &mut inner);
                    copy(events, inner);
                }
                DpAction::CheckPktLen { len, larger, otherwise } => {
                    let [larger, otherwise] = [larger, otherwise].map(|list| {
                        let mut inner = Vec::new();
                        self.apply(result, list, &mut packet.clone(), &mut inner);
                        inner
                    });
                    events.push(Event::Length { len: *len, larger, otherwise });
                }
                DpAction::Ct(ct) => {
                    events.push(Event::Ct { request: ct_request(ct), packet: packet.wire() });
                    let mut copy = packet.clone();
                    copy.track(ct, self.ct_state);
                    tracked = Some(copy);
                }
                DpAction::CtClear => packet.key.0[PACKET_WORDS..PIPELINE_WORD - 3].fill(0),
                DpAction::Recirculate(at) => {
                    self.resume(result, *at, &tracked.take().unwrap_or_else(|| packet.clone()), events);
                }
                DpAction::Drop(_) => break,
                other => panic!("{other:?} is not interpreted"),
            }
        }
    }

    fn resume(&mut self, result: &Translation, at: u32, packet: &Packet, events: &mut Vec<Event>) {
        let resume = &result.resumes[at as usize];
        if self.translations.len() >= STAGES {
            events.push(Event::Lost);
            return;
        }
        let mut key = resume.key;
        let in_port = key.get(slot::IN_PORT);
        key.0[..PIPELINE_WORD].copy_from_slice(&packet.key.0[..PIPELINE_WORD]);
        key.set(slot::IN_PORT, in_port);
        let Some(next) = translate_resumed(self.model, &NoMacs, resume, &key, &mut NoTrace) else { return };
        self.translations.push((key, next.clone()));
        let mut inner = Vec::new();
        self.apply(&next, &next.actions, &mut packet.clone(), &mut inner);
        copy(events, inner);
    }
}

/// What happens to a copy is told in place, unless that would change what the rest means.
pub fn copy(events: &mut Vec<Event>, inner: Vec<Event>) {
    if inner.iter().any(|event| matches!(event, Event::Meter(_))) {
        events.push(Event::Copy(inner));
    } else {
        events.extend(inner);
    }
}

/// The same without what makes no difference: meters that limit nothing, and copies where nothing comes after.
pub fn tidied(events: Vec<Event>) -> Vec<Event> {
    let mut all = Vec::new();
    let count = events.len();
    for (at, event) in events.into_iter().enumerate() {
        match event {
            Event::Copy(inner) => {
                let inner = tidied(inner);
                if at + 1 == count {
                    all.extend(inner);
                } else if !inner.is_empty() {
                    copy(&mut all, inner);
                }
            }
            Event::Length { len, larger, otherwise } => {
                let (larger, otherwise) = (tidied(larger), tidied(otherwise));
                if !larger.is_empty() || !otherwise.is_empty() {
                    all.push(Event::Length { len, larger, otherwise });
                }
            }
            other => all.push(other),
        }
    }
    while let Some(Event::Meter(_)) = all.last() {
        all.pop();
    }
    all
}

fn change(key: &mut FlowKey, changes: &[Change]) {
    for c in changes {
        key.set_masked(c.field.slot(), c.value, c.mask);
    }
}
