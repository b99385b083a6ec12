//! Reads the `Datapath actions:` line of OVS and does to a packet what it says.

use sluice_flows::DpPort;
use sluice_flows::field::Field;
use sluice_flows::key::{FlowKey, VLAN_PRESENT, slot};
use sluice_tests::interpreter::Sent;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What leaves when `actions` are done to `packet`, in the form of the interpreter: ports have OVS's numbers, and the
/// controller is port 0.
///
/// # Errors
/// The action or the value that is not known.
pub(crate) fn apply(actions: &str, packet: &FlowKey) -> Result<Vec<Sent>, String> {
    let mut key = *packet;
    key.set(slot::IN_PORT, 0);
    let mut sent = Vec::new();
    run(actions, &mut key, &mut sent)?;
    Ok(sent)
}

fn run(actions: &str, key: &mut FlowKey, sent: &mut Vec<Sent>) -> Result<(), String> {
    for action in items(actions) {
        let unknown = || format!("unknown datapath action: {action}");
        let (word, args) = call(action).unwrap_or((action, ""));
        match word {
            "drop" => {}
            "set" => set(args, key)?,
            "push_vlan" => push(args, key)?,
            "pop_vlan" => pop(key),
            "clone" => run(args, &mut key.clone(), sent)?,
            "userspace" if args.contains("controller(") => sent.push((DpPort(0), *key)),
            port => sent.push((DpPort(port.parse().map_err(|_| unknown())?), *key)),
        }
    }
    Ok(())
}

/// The parts of a list between the commas outside parentheses.
fn items(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    list.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .filter(|item| !item.is_empty())
}

/// `word(args)`, taken apart.
fn call(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once('(')?;
    Some((word, rest.strip_suffix(')')?))
}

/// `header(name=value/mask,..)`.
fn set(args: &str, key: &mut FlowKey) -> Result<(), String> {
    let (header, fields) = call(args).ok_or_else(|| format!("unknown set: {args}"))?;
    for item in items(fields) {
        let unknown = || format!("unknown field of {header}: {item}");
        let (name, text) = item.split_once('=').ok_or_else(unknown)?;
        let slot = field(header, name).ok_or_else(unknown)?.slot();
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

/// `push_vlan([tpid=0x88a8,]vid=5,pcp=3[,cfi=0])`.
fn push(args: &str, key: &mut FlowKey) -> Result<(), String> {
    let (mut tpid, mut tci) = (0x8100, u128::from(VLAN_PRESENT));
    for item in items(args) {
        let unknown = || format!("unknown push_vlan: {item}");
        let (name, value) = item.split_once('=').ok_or_else(unknown)?;
        let value = number(value).ok_or_else(unknown)?;
        match name {
            "tpid" => tpid = value,
            "vid" => tci |= value,
            "pcp" => tci |= value << 13,
            _ => return Err(unknown()),
        }
    }
    if key.get(slot::INNER_VLAN_TCI) != 0 {
        return Err("push_vlan of a third tag".to_owned());
    }
    key.set(slot::INNER_VLAN_TCI, key.get(slot::VLAN_TCI));
    key.set(slot::INNER_VLAN_TPID, key.get(slot::VLAN_TPID));
    key.set(slot::VLAN_TCI, tci);
    key.set(slot::VLAN_TPID, tpid);
    Ok(())
}

fn pop(key: &mut FlowKey) {
    key.set(slot::VLAN_TCI, key.get(slot::INNER_VLAN_TCI));
    key.set(slot::VLAN_TPID, key.get(slot::INNER_VLAN_TPID));
    key.set(slot::INNER_VLAN_TCI, 0);
    key.set(slot::INNER_VLAN_TPID, 0);
}

#[test]
fn datapath_actions_are_done_in_order() {
    let mut packet = FlowKey::ZERO;
    packet.set(slot::IP_TOS, 0xff);
    let text = "set(ipv4(src=10.0.0.1,tos=0x8/0xfc)),1,clone(pop_vlan,set(eth(dst=00:00:00:00:00:05)),2),\
                push_vlan(tpid=0x88a8,vid=5,pcp=1),3,userspace(pid=0,controller(reason=1,max_len=65535))";
    let sent = apply(text, &packet).expect("known actions");
    assert_eq!(sent.iter().map(|(port, _)| port.0).collect::<Vec<_>>(), [1, 2, 3, 0]);
    let get = |n: usize, slot| sent[n].1.get(slot);
    assert_eq!([get(0, slot::IP_SRC), get(0, slot::IP_TOS)], [0x0a00_0001, 0x0b]);
    assert_eq!([get(1, slot::ETH_DST), get(2, slot::ETH_DST)], [5, 0]);
    assert_eq!([get(2, slot::VLAN_TPID), get(2, slot::VLAN_TCI)], [0x88a8, 0x3005]);
    assert!(apply("trunc(5),1", &packet).is_err());
}
