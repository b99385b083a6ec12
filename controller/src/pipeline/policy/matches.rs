//! What a clause matches: a Pod's own side, addresses of the other end, and ports.

use super::super::text::{Family, net};
use crate::facts::Protocol;
use crate::facts::policy::Direction;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::IpAddr;

/// Matches what a Pod sends, or what is for it, by its port.
pub(super) fn subject(direction: Direction, port: u32) -> String {
    match direction {
        Direction::Egress => format!("in_port={port}"),
        Direction::Ingress => format!("reg1={port:#x}"),
    }
}

/// Matches what has the other end in a network.
pub(super) fn peer(direction: Direction, of: &IpNet) -> String {
    let family = Family::of_net(of);
    if of.prefix_len() == 0 {
        return family.ip().to_owned();
    }
    let field = match direction {
        Direction::Egress => family.dst(),
        Direction::Ingress => family.src(),
    };
    format!("{},{field}={}", family.ip(), net(of))
}

/// Matches what is for ports from `first` to `last`.
pub(super) fn ports(family: Family, protocol: Protocol, first: u16, last: u16) -> impl Iterator<Item = String> {
    let word = family.protocol(protocol);
    blocks(first, last).into_iter().map(move |(value, mask)| match mask {
        0 => word.to_owned(),
        u16::MAX => format!("{word},tp_dst={value}"),
        _ => format!("{word},tp_dst={value:#x}/{mask:#x}"),
    })
}

/// The fewest values and masks that together are the numbers from `first` to `last`: at most 30.
fn blocks(first: u16, last: u16) -> Vec<(u16, u16)> {
    let (mut next, last) = (u32::from(first), u32::from(last));
    let mut blocks = Vec::new();
    while next <= last {
        // The largest block that begins here, and does not reach beyond the end.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let bits = aligned.min((last - next + 1).ilog2());
        // Both are below 65,536: a block ends at `last` at most.
        blocks.push((next as u16, (0xffff_u32 << bits) as u16));
        next += 1 << bits;
    }
    blocks
}

/// An address as a network.
pub(super) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// The fewest networks that together are `of` without `except`.
pub(super) fn without(of: &IpNet, except: &[IpNet]) -> Vec<IpNet> {
    let mut left = Vec::new();
    let except: Vec<IpNet> = except.iter().map(IpNet::trunc).collect();
    cut(of.trunc(), &except, &mut left);
    left
}

/// As deep as an address has bits, at most.
fn cut(of: IpNet, except: &[IpNet], left: &mut Vec<IpNet>) {
    if except.iter().any(|gone| gone.contains(&of)) {
        return;
    }
    let inside: Vec<IpNet> = except.iter().copied().filter(|gone| of.contains(gone)).collect();
    match halves(of) {
        Some(halves) if !inside.is_empty() => halves.into_iter().for_each(|half| cut(half, &inside, left)),
        _ => left.push(of),
    }
}

/// Both halves of a network; none of a single address.
fn halves(of: IpNet) -> Option<[IpNet; 2]> {
    let len = of.prefix_len() + 1;
    match of {
        IpNet::V4(v4) => {
            let low = v4.network();
            let high = low.to_bits() | 1_u32.checked_shl(32_u32.checked_sub(len.into())?)?;
            let half = |address| Ipv4Net::new(address, len).ok().map(IpNet::V4);
            Some([half(low)?, half(high.into())?])
        }
        IpNet::V6(v6) => {
            let low = v6.network();
            let high = low.to_bits() | 1_u128.checked_shl(128_u32.checked_sub(len.into())?)?;
            let half = |address| Ipv6Net::new(address, len).ok().map(IpNet::V6);
            Some([half(low)?, half(high.into())?])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_of_ports_are_few_blocks() {
        assert_eq!(blocks(80, 80), [(80, 0xffff)]);
        assert_eq!(blocks(0, u16::MAX), [(0, 0)]);
        assert_eq!(blocks(8080, 8090), [(8080, 0xfff8), (8088, 0xfffe), (8090, 0xffff)]);
        assert_eq!(blocks(1, 65_534).len(), 30);
        assert_eq!(blocks(9, 8), []);
        let texts: Vec<String> = ports(Family::V6, Protocol::Sctp, 0, u16::MAX).collect();
        assert_eq!(texts, ["sctp6"]);
    }

    #[test]
    fn what_is_left_of_a_network_is_written_in_few_ones() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let [all] = nets(&["10.0.0.0/8"])[..] else { panic!("one network") };
        assert_eq!(without(&all, &[]), [all]);
        assert_eq!(without(&all, &nets(&["10.128.0.0/9"])), nets(&["10.0.0.0/9"]));
        assert_eq!(without(&all, &nets(&["10.64.0.0/10"])), nets(&["10.0.0.0/10", "10.128.0.0/9"]));
        assert_eq!(without(&all, &nets(&["0.0.0.0/0"])), []);
        let [six] = nets(&["::/0"])[..] else { panic!("one network") };
        assert_eq!(without(&six, &nets(&["::1/128"])).len(), 128);
    }

    proptest! {
        #[test]
        fn a_port_is_in_one_block_if_it_is_in_the_range(a: u16, b: u16, port: u16) {
            let (first, last) = (a.min(b), a.max(b));
            for port in [port, first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                let hits = blocks(first, last).into_iter().filter(|(value, mask)| port & mask == *value).count();
                prop_assert_eq!(hits, usize::from((first..=last).contains(&port)));
            }
        }

        #[test]
        fn an_address_is_left_if_nothing_leaves_it_out(
            address: u32,
            except in proptest::collection::vec((any::<u32>(), 0_u8..=32), 0..6),
        ) {
            let except: Vec<IpNet> =
                except.into_iter().map(|(a, len)| Ipv4Net::new(a.into(), len).unwrap().into()).collect();
            let all: IpNet = "0.0.0.0/0".parse().unwrap();
            let address = IpAddr::from(address.to_be_bytes());
            let hits = without(&all, &except).iter().filter(|net| net.contains(&address)).count();
            prop_assert_eq!(hits, usize::from(!except.iter().any(|net| net.contains(&address))));
        }
    }
}
