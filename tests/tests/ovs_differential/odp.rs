//! Reads the answer of OVS's `ofproto/trace`, and does to a packet what its `Datapath actions:` lines say.

use sluice_flows::DpPort;
use sluice_flows::action::{CtAlg, Nat, NatDirection};
use sluice_flows::datapath::DpCt;
use sluice_flows::field::Field;
use sluice_flows::key::{FlowKey, slot};
use sluice_tests::events::{Event, Packet, copy};
use sluice_tests::generate::program::parts;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What OVS says of a packet: datapath actions by the recirculation that they follow, 0 for those that come first.
#[derive(Debug)]
pub(crate) struct Trace<'a> {
    passes: BTreeMap<u32, &'a str>,
    /// OVS gave up.
    pub(crate) failed: bool,
    /// Flows that the packet makes.
    pub(crate) learned: Vec<&'a str>,
}

impl<'a> Trace<'a> {
    /// Reads the text of a trace.
    pub(crate) fn read(text: &'a str) -> Self {
        let mut trace = Self { passes: BTreeMap::new(), failed: false, learned: Vec::new() };
        let mut pass = 0;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("recirc(0x")
                && let Some((id, _)) = rest.split_once(')')
            {
                pass = u32::from_str_radix(id, 16).unwrap_or(u32::MAX);
            } else if let Some(actions) = line.strip_prefix("Datapath actions: ") {
                trace.passes.insert(pass, actions);
            } else if let Some(flow) = line.trim_start().strip_prefix("-> table=")
                && flow.contains("actions=")
            {
                trace.learned.push(line.trim_start().trim_start_matches("-> "));
            }
            trace.failed |= line.starts_with("Translation failed");
        }
        trace
    }

    /// All datapath actions, for people.
    pub(crate) fn actions(&self) -> String {
        self.passes.values().copied().collect::<Vec<_>>().join(" | ")
    }

    /// What happens to the packet. Ports and meters have OVS's datapath numbers.
    ///
    /// # Errors
    /// The action or the value that is not known.
    pub(crate) fn events(&self, packet: &FlowKey, ct_state: u8) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        let first = self.passes.get(&0).ok_or("no datapath actions")?;
        let mut stage = Stage { trace: self, ct_state, max_len: None, left: 64 };
        stage.run(first, &mut Packet::new(*packet), &mut events)?;
        Ok(events)
    }
}

struct Stage<'a> {
    trace: &'a Trace<'a>,
    ct_state: u8,
    max_len: Option<u32>,
    /// Passes that are followed yet.
    left: u32,
}

impl Stage<'_> {
    fn run(&mut self, actions: &str, packet: &mut Packet, events: &mut Vec<Event>) -> Result<(), String> {
        // What the tracker changes shows where the packet goes on after it.
        let mut tracked: Option<Packet> = None;
        for action in parts(actions) {
            let unknown = || format!("unknown datapath action: {action}");
            let (word, args) = call(action).unwrap_or((action, ""));
            match word {
                "drop" | "hash" => {}
                "set" => set(args, &mut packet.key)?,
                "push_vlan" => push_vlan(args, packet)?,
                "pop_vlan" => packet.pop_vlan(),
                "push_mpls" => push_mpls(args, packet)?,
                "pop_mpls" => {
                    let eth_type = args.strip_prefix("eth_type=").and_then(number).ok_or_else(unknown)?;
                    packet.pop_mpls(eth_type as u16);
                }
                "trunc" => self.max_len = Some(args.parse().map_err(|_| unknown())?),
                "meter" => events.push(Event::Meter(args.parse().map_err(|_| unknown())?)),
                "clone" => {
                    let mut inner = Vec::new();
                    self.run(args, &mut packet.clone(), &mut inner)?;
                    copy(events, inner);
                }
                "check_pkt_len" => events.push(self.length(args, packet)?),
                "sample" => events.push(self.metered(args, packet)?),
                "ct" => {
                    let (request, ct) = tracker(args)?;
                    events.push(Event::Ct { request, packet: packet.wire() });
                    let mut copy = packet.clone();
                    copy.track(&ct, self.ct_state);
                    tracked = Some(copy);
                }
                "ct_clear" => packet.key.set(slot::CT_STATE, 0),
                "recirc" => self.recirc(args, tracked.as_ref().unwrap_or(packet), events)?,
                "userspace" if args.contains("controller(") => events.push(controller(args, packet)?),
                port => events.push(Event::Output {
                    port: DpPort(port.parse().map_err(|_| unknown())?),
                    max_len: self.max_len.take(),
                    packet: packet.wire(),
                }),
            }
        }
        Ok(())
    }

    fn recirc(&mut self, id: &str, packet: &Packet, events: &mut Vec<Event>) -> Result<(), String> {
        let id = number(id).ok_or_else(|| format!("no recirculation: {id}"))?;
        let Some(actions) = self.trace.passes.get(&(id as u32)).filter(|_| self.left > 0) else {
            events.push(Event::Lost);
            return Ok(());
        };
        self.left -= 1;
        let mut inner = Vec::new();
        self.run(actions, &mut packet.clone(), &mut inner)?;
        copy(events, inner);
        Ok(())
    }

    /// `size=100,gt(..),le(..)`.
    fn length(&mut self, args: &str, packet: &Packet) -> Result<Event, String> {
        let (mut len, mut larger, mut otherwise) = (0, Vec::new(), Vec::new());
        for part in parts(args) {
            match (part.strip_prefix("size="), call(part)) {
                (Some(size), _) => len = size.parse().map_err(|_| format!("no length: {part}"))?,
                (_, Some(("gt", list))) => self.run(list, &mut packet.clone(), &mut larger)?,
                (_, Some(("le", list))) => self.run(list, &mut packet.clone(), &mut otherwise)?,
                _ => return Err(format!("unknown part of check_pkt_len: {part}")),
            }
        }
        Ok(Event::Length { len, larger, otherwise })
    }

    /// A message to the controllers that a meter limits: `sample=100.0%,actions(meter(0),userspace(..))`.
    fn metered(&mut self, args: &str, packet: &Packet) -> Result<Event, String> {
        let list = parts(args).find_map(|part| call(part).filter(|(word, _)| *word == "actions"));
        let mut inner = Vec::new();
        self.run(list.ok_or("a sample without actions")?.1, &mut packet.clone(), &mut inner)?;
        match <[Event; 2]>::try_from(inner) {
            Ok([Event::Meter(id), Event::Controller { reason, controller, max_len, cookie, packet, .. }]) => {
                Ok(Event::Controller { reason, controller, max_len, cookie, packet, meter: Some(id) })
            }
            other => Err(format!("unknown sample: {other:?}")),
        }
    }
}

/// `word(args)`, taken apart.
fn call(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once('(')?;
    Some((word, rest.strip_suffix(')')?))
}

/// `pid=0,controller(reason=1,..,max_len=65535)`.
fn controller(args: &str, packet: &Packet) -> Result<Event, String> {
    let inner = parts(args).find_map(|part| call(part).filter(|(word, _)| *word == "controller"));
    let list = inner.map_or("", |(_, list)| list);
    let value = |name: &str| {
        let found = parts(list).find_map(|part| part.split_once('=').filter(|(n, _)| *n == name));
        found.and_then(|(_, value)| number(value)).ok_or_else(|| format!("no {name} in {list}"))
    };
    Ok(Event::Controller {
        reason: value("reason")? as u8,
        controller: value("controller_id")? as u16,
        max_len: value("max_len")? as u16,
        cookie: value("rule_cookie")? as u64,
        meter: None,
        packet: packet.wire(),
    })
}

/// What `ct(..)` asks for: as OVS says it, and as far as it shows in what the packet is afterwards.
fn tracker(args: &str) -> Result<(String, DpCt), String> {
    let alg: Option<CtAlg> = None;
    let mut ct = DpCt { commit: false, force: false, zone: 0, mark: None, label: None, nat: None, alg, owner: None };
    for part in parts(args) {
        let masked = |text: &str| {
            let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffffffffffffffffffffffffffff"));
            number(value).zip(number(mask)).ok_or_else(|| format!("no number: {part}"))
        };
        match part.split_once('=').unwrap_or((part, "")) {
            ("zone", zone) => ct.zone = zone.parse().map_err(|_| format!("no zone: {part}"))?,
            ("mark", mark) => ct.mark = Some(masked(mark).map(|(value, mask)| (value as u32, mask as u32))?),
            ("label", label) => ct.label = Some(masked(label)?),
            ("nat(src", range) => ct.nat = Some(nat(NatDirection::Src, range.trim_end_matches(')'))?),
            ("nat(dst", range) => ct.nat = Some(nat(NatDirection::Dst, range.trim_end_matches(')'))?),
            ("commit" | "force_commit" | "helper" | "nat" | "timeout", _) => {}
            _ => return Err(format!("unknown part of ct: {part}")),
        }
    }
    Ok((args.replace("mark=0/", "mark=0x0/"), ct))
}

/// The first address and the first port of a range.
fn nat(direction: NatDirection, range: &str) -> Result<Nat, String> {
    let range = parts(range).next().unwrap_or_default();
    let wrong = || format!("no range: {range}");
    let (addresses, ports) = match range.rsplit_once(':') {
        Some((addresses, ports)) if addresses.ends_with(']') || !addresses.contains(':') => (addresses, Some(ports)),
        _ => (range, None),
    };
    let first = addresses.split('-').next().unwrap_or_default().trim_matches(['[', ']']);
    let ip: Option<IpAddr> = if first.is_empty() { None } else { Some(first.parse().map_err(|_| wrong())?) };
    let port = ports.map(|ports| ports.split('-').next().unwrap_or_default().parse().map_err(|_| wrong()));
    let port: Option<u16> = port.transpose()?;
    Ok(Nat { direction: Some(direction), addresses: ip.zip(ip), ports: port.zip(port), ..Nat::default() })
}

/// `header(name=value/mask,..)`.
fn set(args: &str, key: &mut FlowKey) -> Result<(), String> {
    let (header, fields) = call(args).ok_or_else(|| format!("unknown set: {args}"))?;
    let alone = match header {
        "skb_priority" => Some(slot::SKB_PRIORITY),
        "skb_mark" => Some(slot::PKT_MARK),
        _ => None,
    };
    for item in parts(fields) {
        let unknown = || format!("unknown field of {header}: {item}");
        let (name, text) = if alone.is_some() { ("", item) } else { item.split_once('=').ok_or_else(unknown)? };
        let slot = match alone {
            Some(slot) => slot,
            None => field(header, name).ok_or_else(unknown)?.slot(),
        };
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (number(value), number(mask)),
            None => (number(text), Some(slot.max())),
        };
        key.set_masked(slot, value.ok_or_else(unknown)?, mask.ok_or_else(unknown)?);
    }
    Ok(())
}

fn field(header: &str, name: &str) -> Option<Field> {
    Some(match (header, name) {
        ("eth", "src") => Field::EthSrc,
        ("eth", "dst") => Field::EthDst,
        ("ipv4", "src") => Field::IpSrc,
        ("ipv4", "dst") => Field::IpDst,
        ("ipv4", "tos") | ("ipv6", "tclass") => Field::NwTos,
        ("ipv4", "ttl") | ("ipv6", "hlimit") => Field::IpTtl,
        ("ipv6", "src") => Field::Ipv6Src,
        ("ipv6", "dst") => Field::Ipv6Dst,
        ("ipv6", "label") => Field::Ipv6Label,
        ("arp", "sip") => Field::ArpSpa,
        ("arp", "tip") => Field::ArpTpa,
        ("arp", "op") => Field::ArpOp,
        ("arp", "sha") => Field::ArpSha,
        ("arp", "tha") => Field::ArpTha,
        ("tcp", "src") => Field::TcpSrc,
        ("tcp", "dst") => Field::TcpDst,
        ("udp", "src") => Field::UdpSrc,
        ("udp", "dst") => Field::UdpDst,
        ("sctp", "src") => Field::SctpSrc,
        ("sctp", "dst") => Field::SctpDst,
        ("icmp", "type") => Field::IcmpType,
        ("icmp", "code") => Field::IcmpCode,
        ("icmpv6", "type") => Field::Icmpv6Type,
        ("icmpv6", "code") => Field::Icmpv6Code,
        ("nd", "target") => Field::NdTarget,
        ("nd", "sll") => Field::NdSll,
        ("nd", "tll") => Field::NdTll,
        ("mpls", "label") => Field::MplsLabel,
        ("mpls", "tc") => Field::MplsTc,
        ("mpls", "ttl") => Field::MplsTtl,
        ("mpls", "bos") => Field::MplsBos,
        _ => return None,
    })
}

/// A number, a MAC address or an IP address.
fn number(text: &str) -> Option<u128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u128::from_str_radix(hex, 16).ok();
    }
    if text.len() == 17 && text.split(':').all(|byte| byte.len() == 2) && text.split(':').count() == 6 {
        return u128::from_str_radix(&text.replace(':', ""), 16).ok();
    }
    let ipv4 = || text.parse::<Ipv4Addr>().ok().map(|ip| ip.to_bits().into());
    let ipv6 = || text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits);
    text.parse().ok().or_else(ipv4).or_else(ipv6)
}

/// The values of `name=value,..`.
fn values<'a>(args: &'a str, of: &'static str) -> impl Iterator<Item = Result<(&'a str, u128), String>> {
    parts(args).map(move |item| {
        let read = item.split_once('=').and_then(|(name, value)| Some((name, number(value)?)));
        read.ok_or_else(|| format!("unknown part of {of}: {item}"))
    })
}

/// `[tpid=0x88a8,]vid=5,pcp=3`.
fn push_vlan(args: &str, packet: &mut Packet) -> Result<(), String> {
    let (mut tpid, mut tci) = (0x8100, 0);
    for item in values(args, "push_vlan") {
        match item? {
            ("tpid", value) => tpid = value as u16,
            ("vid", value) => tci |= value as u16,
            ("pcp", value) => tci |= (value as u16) << 13,
            (name, _) => return Err(format!("unknown part of push_vlan: {name}")),
        }
    }
    if packet.key.get(slot::INNER_VLAN_TCI) != 0 {
        return Err("push_vlan of a third tag".to_owned());
    }
    packet.push_vlan(tpid, tci);
    Ok(())
}

/// `label=7,tc=0,ttl=3,bos=1,eth_type=0x8847`.
fn push_mpls(args: &str, packet: &mut Packet) -> Result<(), String> {
    let (mut eth_type, mut lse) = (0, 0);
    for item in values(args, "push_mpls") {
        let (name, value) = item?;
        let value = value as u32;
        match name {
            "label" => lse |= value << 12,
            "tc" => lse |= value << 9,
            "bos" => lse |= value << 8,
            "ttl" => lse |= value,
            "eth_type" => eth_type = value as u16,
            _ => return Err(format!("unknown part of push_mpls: {name}")),
        }
    }
    packet.push_mpls(eth_type, lse);
    Ok(())
}

#[test]
fn datapath_actions_are_done_in_order() {
    let mut packet = FlowKey::ZERO;
    packet.set(slot::IP_TOS, 0xff);
    let text = "Datapath actions: set(ipv4(src=10.0.0.1,tos=0x8/0xfc)),1,clone(pop_vlan,set(eth(dst=00:00:00:00:00:05)),2),\
                push_vlan(tpid=0x88a8,vid=5,pcp=1),trunc(60),3,ct(zone=5),recirc(0x7)\n\
                recirc(0x7) - resume conntrack\nDatapath actions: meter(2),4,recirc(0x9)";
    let trace = Trace::read(text);
    let events = trace.events(&packet, 0x21).expect("known actions");
    let outputs = events.iter().filter_map(|event| match event {
        Event::Output { port, max_len, packet } => Some((port.0, *max_len, packet.clone())),
        _ => None,
    });
    let outputs: Vec<_> = outputs.collect();
    let key = |n: usize| {
        let mut key = FlowKey::ZERO;
        key.0[..outputs[n].2.0.len()].copy_from_slice(&outputs[n].2.0);
        key
    };
    assert_eq!(
        outputs.iter().map(|(port, len, _)| (*port, *len)).collect::<Vec<_>>(),
        [(1, None), (2, None), (3, Some(60))]
    );
    assert_eq!([key(0).get(slot::IP_SRC), key(0).get(slot::IP_TOS)], [0x0a00_0001, 0x0b]);
    assert_eq!([key(1).get(slot::ETH_DST), key(2).get(slot::ETH_DST)], [5, 0]);
    assert_eq!([key(2).get(slot::VLAN_TPID), key(2).get(slot::VLAN_TCI)], [0x88a8, 0x3005]);
    assert!(matches!(&events[3], Event::Ct { request, .. } if request == "zone=5"));
    let Event::Copy(rest) = &events[4] else { panic!("what a meter limits stands alone: {events:?}") };
    assert!(matches!(rest[..], [Event::Meter(2), Event::Output { .. }, Event::Lost]));
    assert!(Trace::read("Datapath actions: jump(5)").events(&packet, 0).is_err());
}
