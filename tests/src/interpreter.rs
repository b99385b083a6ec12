//! The oracle of translation: walks the tables with one concrete packet, by recursion and linear search, with no mask,
//! no cache and none of translation's code. Slow and obvious.

use sluice_flows::action::{Action, ModAction, Subfield};
use sluice_flows::bridge::{Bridge, Model};
use sluice_flows::datapath::DpAction;
use sluice_flows::field::{Field, Prereq};
use sluice_flows::key::{FRAG_LATER, FRAME_WORDS, FlowKey, VLAN_PRESENT, slot};
use sluice_flows::rule::TableId;
use sluice_flows::{DpPort, PortNo};

/// What left: the port, and the packet as it was then (without its ingress port). Packets to the controller have
/// port 0.
pub type Sent = (DpPort, FlowKey);

/// Jumps and nesting that a packet may make before it is dropped whole.
const MAX_JUMPS: u32 = 4096;
const MAX_DEPTH: u32 = 64;

/// What the tables of the model's first bridge, and of those behind it, do with the packet; `None` if it goes round in
/// circles.
pub fn interpret(model: &Model, packet: &FlowKey) -> Option<Vec<Sent>> {
    let mut run = Run::new(model, packet);
    run.table(0, None, true).ok()?;
    Some(run.sent)
}

/// The packet as it is each time that something other than `pop_vlan` may take a tag off: NORMAL, and a write that clears
/// the tag-present bit of the TCI.
pub fn at_implied_pops(model: &Model, packet: &FlowKey) -> Vec<FlowKey> {
    let mut run = Run::new(model, packet);
    let _ = run.table(0, None, true);
    run.implied_pops
}

/// Applies datapath actions to the packet and returns what left, in the form of [`interpret`].
pub fn apply(actions: &[DpAction], packet: &FlowKey) -> Vec<Sent> {
    let mut key = *packet;
    let mut sent = Vec::new();
    for action in actions {
        match action {
            DpAction::Output(port) => sent.push((*port, on_the_wire(&key))),
            DpAction::Controller(_) => sent.push((DpPort(0), on_the_wire(&key))),
            DpAction::Set(changes) => {
                for c in changes {
                    key.set_masked(c.field.slot(), c.value, c.mask);
                }
            }
            DpAction::PopVlan => pop(&mut key),
            DpAction::PushVlan { tpid, tci } => {
                push(&mut key, *tpid);
                key.set(slot::VLAN_TCI, (tci | VLAN_PRESENT).into());
            }
            other => panic!("{other:?} is not interpreted"),
        }
    }
    sent
}

fn on_the_wire(key: &FlowKey) -> FlowKey {
    let mut packet = *key;
    packet.0[0] = 0;
    packet.0[FRAME_WORDS..].fill(0);
    packet
}

struct TooFar;

struct Run<'a> {
    model: &'a Model,
    bridge: &'a Bridge,
    key: FlowKey,
    sent: Vec<Sent>,
    implied_pops: Vec<FlowKey>,
    jumps: u32,
    depth: u32,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, packet: &FlowKey) -> Self {
        let bridge = model.bridges.values().next().expect("the model has a bridge");
        let key = *packet;
        Self { model, bridge, key, sent: Vec::new(), implied_pops: Vec::new(), jumps: 0, depth: 0 }
    }

    fn table(&mut self, table: u8, in_port: Option<PortNo>, deepens: bool) -> Result<(), TooFar> {
        if self.depth >= MAX_DEPTH || self.jumps >= MAX_JUMPS {
            return Err(TooFar);
        }
        let mut key = self.key;
        if let Some(port) = in_port {
            key.set(Field::InPort.slot(), port.0.into());
        }
        let best = self
            .bridge
            .tables
            .iter()
            .filter(|r| r.spec.table.get() == table && r.spec.matches.matches(&key))
            .max_by_key(|r| r.spec.priority);
        let Some(rule) = best else { return Ok(()) };
        self.jumps += 1;
        self.depth += u32::from(deepens);
        self.actions(&rule.spec.actions, table)?;
        self.depth -= u32::from(deepens);
        Ok(())
    }

    fn actions(&mut self, actions: &[Action], table: u8) -> Result<(), TooFar> {
        for action in actions {
            match action {
                Action::Output(port) => self.output(*port)?,
                Action::OutputField(source) => {
                    let port = self.subfield(*source);
                    self.output(PortNo(u16::try_from(port).unwrap_or(PortNo::NONE.0)))?;
                }
                Action::Controller(_) => self.send(DpPort(0)),
                Action::GotoTable(next) => self.table(next.get(), None, false)?,
                Action::Resubmit { port, table: next, .. } => {
                    let next = next.map_or(table, TableId::get);
                    self.table(next, *port, next <= table)?;
                }
                Action::SetField { field, value, mask } => self.set(*field, *value, *mask),
                Action::Load { value, dst } => self.set(dst.field, *value << dst.ofs, dst.mask()),
                Action::Move { src, dst } => {
                    let value = self.subfield(*src);
                    self.set(dst.field, value << dst.ofs, dst.mask());
                }
                Action::Mod(change) => self.modify(*change),
                Action::PushVlan(tpid) => push(&mut self.key, *tpid),
                Action::PopVlan { .. } => pop(&mut self.key),
                Action::DecTtl(_) if self.has(Prereq::Ip) => match self.key.get(slot::IP_TTL) {
                    0 | 1 => {
                        self.send(DpPort(0));
                        return Ok(());
                    }
                    ttl => self.key.set(slot::IP_TTL, ttl - 1),
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn send(&mut self, port: DpPort) {
        self.sent.push((port, on_the_wire(&self.key)));
    }

    fn in_port(&self) -> PortNo {
        PortNo(self.key.get(Field::InPort.slot()) as u16)
    }

    fn output(&mut self, port: PortNo) -> Result<(), TooFar> {
        match port {
            PortNo::IN_PORT => self.send_by(self.in_port())?,
            PortNo::CONTROLLER => self.send(DpPort(0)),
            PortNo::TABLE => self.table(0, None, true)?,
            PortNo::FLOOD => self.send_by_all(|no_flood| !no_flood)?,
            PortNo::ALL => self.send_by_all(|_| true)?,
            PortNo::NORMAL => self.normal()?,
            port if port == self.in_port() => {}
            port => self.send_by(port)?,
        }
        Ok(())
    }

    fn send_by(&mut self, port: PortNo) -> Result<(), TooFar> {
        let Some(port) = self.bridge.ports.get(&port).filter(|p| p.up) else { return Ok(()) };
        let Some((bridge, no)) = port.peer else {
            self.send(port.dp);
            return Ok(());
        };
        let here = (self.bridge, self.key);
        self.bridge = self.model.bridge(bridge).expect("patch ports lead to bridges that are there");
        self.key = FlowKey::from(&self.key.packet());
        self.key.set(Field::InPort.slot(), no.0.into());
        self.table(0, None, true)?;
        (self.bridge, self.key) = here;
        Ok(())
    }

    fn send_by_all(&mut self, wanted: impl Fn(bool) -> bool) -> Result<(), TooFar> {
        let in_port = self.in_port();
        for port in self.bridge.ports.values() {
            if port.no != in_port && wanted(port.no_flood) {
                self.send_by(port.no)?;
            }
        }
        Ok(())
    }

    /// A learning switch that has learned nothing, with trunk ports only.
    fn normal(&mut self) -> Result<(), TooFar> {
        self.implied_pops.push(self.key);
        let reserved = self.key.get(slot::ETH_DST) >> 4 == 0x0180_c200_0000 >> 4;
        if reserved || !self.bridge.ports.contains_key(&self.in_port()) {
            return Ok(());
        }
        let before = self.key;
        // A tag that says neither a VLAN nor a priority goes.
        if self.key.get(slot::VLAN_TCI) == VLAN_PRESENT.into() {
            pop(&mut self.key);
        }
        self.send_by_all(|no_flood| !no_flood)?;
        self.key = before;
        Ok(())
    }

    fn has(&self, prereq: Prereq) -> bool {
        let eth_type = self.key.get(slot::ETH_TYPE);
        let (v4, v6) = (eth_type == 0x0800, eth_type == 0x86dd);
        let proto = self.key.get(slot::IP_PROTO);
        let first = self.key.get(slot::IP_FRAG) as u8 & FRAG_LATER == 0;
        let icmp6 = v6 && first && proto == 58;
        let (kind, code) = (self.key.get(slot::TP_SRC), self.key.get(slot::TP_DST));
        let tracked = self.key.get(slot::CT_STATE) & 0x30 == 0x20;
        match prereq {
            Prereq::None => true,
            Prereq::Vlan => self.key.get(slot::VLAN_TCI) as u16 & VLAN_PRESENT != 0,
            Prereq::Arp => eth_type == 0x0806 || eth_type == 0x8035,
            Prereq::Ipv4 => v4,
            Prereq::Ipv6 => v6,
            Prereq::Ip => v4 || v6,
            Prereq::Tcp => (v4 || v6) && first && proto == 6,
            Prereq::Udp => (v4 || v6) && first && proto == 17,
            Prereq::Sctp => (v4 || v6) && first && proto == 132,
            Prereq::Icmpv4 => v4 && first && proto == 1,
            Prereq::Icmpv6 => icmp6,
            Prereq::Nd => icmp6 && code == 0 && (kind == 135 || kind == 136),
            Prereq::NdSolicit => icmp6 && code == 0 && kind == 135,
            Prereq::NdAdvert => icmp6 && code == 0 && kind == 136,
            Prereq::Mpls => matches!(eth_type, 0x8847 | 0x8848),
            Prereq::Nsh => eth_type == 0x894f,
            Prereq::CtIpv4 => v4 && tracked,
            Prereq::CtIpv6 => v6 && tracked,
            Prereq::CtIp => (v4 || v6) && tracked,
        }
    }

    fn subfield(&self, source: Subfield) -> u128 {
        if !self.has(source.field.info().prereq) {
            return 0;
        }
        let low = if source.bits == 128 { u128::MAX } else { (1 << source.bits) - 1 };
        let ecn = if source.field == Field::NwTos { 3 } else { 0 };
        (self.key.get(source.field.slot()) & !ecn) >> source.ofs & low
    }

    fn set(&mut self, field: Field, value: u128, mask: u128) {
        match field {
            Field::VlanTci | Field::VlanVid | Field::VlanPcp => {
                self.key.set_masked(field.slot(), value, mask);
                let key = &mut self.key;
                if key.get(slot::VLAN_TCI) as u16 & VLAN_PRESENT == 0 {
                    self.implied_pops.push(*key);
                    pop(key);
                } else if key.get(slot::VLAN_TPID) == 0 {
                    key.set(slot::VLAN_TPID, 0x8100);
                }
            }
            Field::NwTos if self.has(Prereq::Ip) => self.key.set_masked(field.slot(), value, mask & 0xfc),
            _ if self.has(field.info().prereq) => self.key.set_masked(field.slot(), value, mask),
            _ => {}
        }
    }

    fn modify(&mut self, change: ModAction) {
        let all = u128::MAX;
        match change {
            ModAction::DlSrc(v) => self.set(Field::EthSrc, v.into(), all),
            ModAction::DlDst(v) => self.set(Field::EthDst, v.into(), all),
            ModAction::NwSrc(v) => self.set(Field::IpSrc, v.into(), all),
            ModAction::NwDst(v) => self.set(Field::IpDst, v.into(), all),
            ModAction::NwTos(v) => self.set(Field::NwTos, v.into(), all),
            ModAction::NwEcn(v) => self.set(Field::IpEcn, v.into(), all),
            ModAction::NwTtl(v) => self.set(Field::IpTtl, v.into(), all),
            ModAction::TpSrc(v) => {
                for field in [Field::TcpSrc, Field::UdpSrc, Field::SctpSrc, Field::IcmpType, Field::Icmpv6Type] {
                    self.set(field, v.into(), all);
                }
            }
            ModAction::TpDst(v) => {
                for field in [Field::TcpDst, Field::UdpDst, Field::SctpDst, Field::IcmpCode, Field::Icmpv6Code] {
                    self.set(field, v.into(), all);
                }
            }
            ModAction::SetVlanVid(_) | ModAction::SetVlanPcp(_) if !self.has(Prereq::Vlan) => {}
            ModAction::VlanVid(v) | ModAction::SetVlanVid(v) => {
                self.set(Field::VlanVid, (v | VLAN_PRESENT).into(), all)
            }
            ModAction::VlanPcp(v) | ModAction::SetVlanPcp(v) => {
                let tci = u16::from(v) << 13 | VLAN_PRESENT;
                self.set(Field::VlanTci, tci.into(), 0xf000);
            }
        }
    }
}

fn pop(key: &mut FlowKey) {
    for (outer, inner) in [(slot::VLAN_TCI, slot::INNER_VLAN_TCI), (slot::VLAN_TPID, slot::INNER_VLAN_TPID)] {
        key.set(outer, key.get(inner));
        key.set(inner, 0);
    }
}

fn push(key: &mut FlowKey, tpid: u16) {
    key.set(slot::INNER_VLAN_TCI, key.get(slot::VLAN_TCI));
    key.set(slot::INNER_VLAN_TPID, key.get(slot::VLAN_TPID));
    key.set(slot::VLAN_TCI, VLAN_PRESENT.into());
    key.set(slot::VLAN_TPID, tpid.into());
}
