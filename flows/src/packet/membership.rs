//! Who wants which multicast group: IGMP (RFC 2236, RFC 3376) and MLD (RFC 2710, RFC 3810) as a snooping switch reads
//! them (RFC 4541).
//!
//! Sources are not told apart: who wants a group from some sources gets it from all. A message with a wrong checksum, or
//! that ends too early, says nothing.

use super::layers::{be16, be32, bytes_at};
use super::rewrite::datagram_end;
use super::{L3, L4, Layers, checksum};
use crate::field::IP_PROTO_ICMPV6;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol of IGMP.
pub const IP_PROTO_IGMP: u8 = 2;
/// IP protocol of PIM.
pub const IP_PROTO_PIM: u8 = 103;
/// IGMP: a router asks who wants which group.
pub const IGMP_QUERY: u8 = 0x11;
/// MLD: a router asks who wants which group.
pub const MLD_QUERY: u8 = 130;
const IGMP_V1_REPORT: u8 = 0x12;
const IGMP_V2_REPORT: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const IGMP_V3_REPORT: u8 = 0x22;
/// MLD: a host wants a group.
pub const MLD_REPORT: u8 = 131;
/// MLD: a host wants a group no longer.
pub const MLD_DONE: u8 = 132;
/// MLD version 2: what a host wants.
pub const MLD_V2_REPORT: u8 = 143;
/// PIM version 2, a hello (RFC 7761, 4.9).
const PIM_HELLO: u8 = 0x20;

/// One thing that a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// A router is there, which wants every group.
    Router,
    /// A host wants the group.
    Join(IpAddr),
    /// A host wants the group no longer.
    Leave(IpAddr),
}

/// Tells what the packet says of groups, in order; nothing if it is no such message.
pub fn read(frame: &[u8], layers: &Layers, tell: &mut impl FnMut(Membership)) {
    let (l3, l4) = (usize::from(layers.l3_ofs), usize::from(layers.l4_ofs));
    let message = frame.get(l4..datagram_end(frame, layers)).unwrap_or_default();
    match layers.l3 {
        L3::Ipv4 => match frame.get(l3 + 9) {
            Some(&IP_PROTO_IGMP) if checksum::checksum(message) == 0 => igmp(message, be32(frame, l3 + 12) != 0, tell),
            Some(&IP_PROTO_PIM) if message.first() == Some(&PIM_HELLO) => tell(Membership::Router),
            _ => {}
        },
        L3::Ipv6 if layers.l4 == L4::Icmpv6 => {
            let (source, destination) = (bytes_at(frame, l3 + 8), bytes_at(frame, l3 + 24));
            let pseudo = checksum::pseudo_v6(source, destination, IP_PROTO_ICMPV6, message.len() as u32);
            if !checksum::add(pseudo, checksum::sum(message)) == 0 {
                mld(message, source != [0; 16], tell);
            }
        }
        _ => {}
    }
}

fn igmp(message: &[u8], from_somebody: bool, tell: &mut impl FnMut(Membership)) {
    let Some((head, records)) = message.split_first_chunk::<8>() else { return };
    let group = || IpAddr::from(Ipv4Addr::from(be32(head, 4)));
    match head[0] {
        // A querier without an address is a switch that only keeps memberships alive (RFC 4541, 2.1.1).
        IGMP_QUERY if from_somebody => tell(Membership::Router),
        IGMP_V1_REPORT | IGMP_V2_REPORT => tell(Membership::Join(group())),
        IGMP_LEAVE => tell(Membership::Leave(group())),
        IGMP_V3_REPORT => {
            let address = |record: &[u8]| IpAddr::from(Ipv4Addr::from(be32(record, 4)));
            self::records::<4>(records, be16(head, 6), address, tell);
        }
        _ => {}
    }
}

fn mld(message: &[u8], from_somebody: bool, tell: &mut impl FnMut(Membership)) {
    let Some((head, records)) = message.split_first_chunk::<8>() else { return };
    let group = || Some(IpAddr::from(Ipv6Addr::from(*records.first_chunk::<16>()?)));
    match head[0] {
        MLD_QUERY if from_somebody => tell(Membership::Router),
        MLD_REPORT => group().into_iter().for_each(|group| tell(Membership::Join(group))),
        MLD_DONE => group().into_iter().for_each(|group| tell(Membership::Leave(group))),
        MLD_V2_REPORT => {
            let address = |record: &[u8]| IpAddr::from(Ipv6Addr::from(bytes_at::<16>(record, 4)));
            self::records::<16>(records, be16(head, 6), address, tell);
        }
        _ => {}
    }
}

/// The records of a report whose addresses have `LEN` bytes (RFC 3376, 4.2.4; RFC 3810, 5.2.5).
fn records<const LEN: usize>(
    mut records: &[u8],
    count: u16,
    address: impl Fn(&[u8]) -> IpAddr,
    tell: &mut impl FnMut(Membership),
) {
    const ONLY_FROM: [u8; 2] = [1, 3];
    const EXCEPT_FROM: [u8; 2] = [2, 4];
    const ALSO_FROM: u8 = 5;
    for _ in 0..count {
        let sources = usize::from(be16(records, 2));
        let auxiliary = usize::from(records.get(1).copied().unwrap_or_default()) * 4;
        let Some((record, rest)) = records.split_at_checked(4 + LEN + sources * LEN + auxiliary) else { return };
        records = rest;
        let kind = record.first().copied().unwrap_or_default();
        let group = address(record);
        if ONLY_FROM.contains(&kind) && sources == 0 {
            tell(Membership::Leave(group));
        } else if ONLY_FROM.contains(&kind) || EXCEPT_FROM.contains(&kind) || kind == ALSO_FROM {
            tell(Membership::Join(group));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PacketKey;
    use crate::packet::extract;
    use proptest::prelude::*;

    const GROUP: [u8; 4] = [239, 1, 2, 3];

    fn frame(eth_type: u16, ip: &[u8], message: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1];
        frame.extend(eth_type.to_be_bytes());
        frame.extend(ip);
        frame.extend(message);
        frame
    }

    fn v4(proto: u8, source: [u8; 4], message: &[u8]) -> Vec<u8> {
        let mut ip = vec![0x45, 0, 0, 20 + message.len() as u8, 0, 0, 0, 0, 1, proto, 0, 0];
        ip.extend(source);
        ip.extend(GROUP);
        let sum = checksum::checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame(0x0800, &ip, message)
    }

    fn igmp(message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let sum = checksum::checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        v4(IP_PROTO_IGMP, [10, 0, 0, 1], &message)
    }

    fn mld(message: &[u8]) -> Vec<u8> {
        let source: Ipv6Addr = "fe80::1".parse().unwrap();
        let destination: Ipv6Addr = "ff02::16".parse().unwrap();
        let mut ip = vec![0x60, 0, 0, 0, 0, message.len() as u8, IP_PROTO_ICMPV6, 1];
        ip.extend(source.octets());
        ip.extend(destination.octets());
        let mut message = message.to_vec();
        let pseudo = checksum::pseudo_v6(source.octets(), destination.octets(), IP_PROTO_ICMPV6, message.len() as u32);
        let sum = !checksum::add(pseudo, checksum::sum(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        frame(0x86dd, &ip, &message)
    }

    fn said(frame: &[u8]) -> Vec<Membership> {
        let layers = extract(frame, 0, &mut PacketKey::default());
        let mut said = Vec::new();
        read(frame, &layers, &mut |membership| said.push(membership));
        said
    }

    fn group4() -> IpAddr {
        Ipv4Addr::from(GROUP).into()
    }

    #[test]
    fn reports_and_leaves_of_the_first_versions_name_one_group() {
        for (kind, says) in [
            (0x12, Membership::Join(group4())),
            (0x16, Membership::Join(group4())),
            (0x17, Membership::Leave(group4())),
        ] {
            assert_eq!(said(&igmp(&[kind, 0, 0, 0, 239, 1, 2, 3])), [says]);
        }
        let group: Ipv6Addr = "ff05::1".parse().unwrap();
        for (kind, says) in [(131, Membership::Join(group.into())), (132, Membership::Leave(group.into()))] {
            assert_eq!(said(&mld(&[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat())), [says]);
        }
    }

    #[test]
    fn a_later_report_has_a_record_for_each_group() {
        let record = |kind: u8, sources: u8| {
            let mut record = vec![kind, 1, 0, sources, 239, 1, 2, 3];
            record.extend(vec![9; usize::from(sources) * 4 + 4]);
            record
        };
        let kinds = [record(4, 0), record(3, 0), record(1, 2), record(6, 1), record(2, 0)];
        let report = [&[0x22, 0, 0, 0, 0, 0, 0, 5][..], &kinds.concat()].concat();
        let (join, leave) = (Membership::Join(group4()), Membership::Leave(group4()));
        assert_eq!(said(&igmp(&report)), [join, leave, join, join]);
        let group: Ipv6Addr = "ff05::9".parse().unwrap();
        let report = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat();
        assert_eq!(said(&mld(&report)), [Membership::Join(group.into())]);
    }

    #[test]
    fn queries_and_hellos_tell_of_a_router() {
        assert_eq!(said(&igmp(&[0x11, 100, 0, 0, 0, 0, 0, 0])), [Membership::Router]);
        assert_eq!(said(&mld(&[&[130, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat())), [Membership::Router]);
        assert_eq!(said(&v4(IP_PROTO_PIM, [10, 0, 0, 1], &[0x20, 0, 0, 0])), [Membership::Router]);
    }

    #[test]
    fn a_wrong_checksum_says_nothing() {
        let mut frame = igmp(&[0x16, 0, 0, 0, 239, 1, 2, 3]);
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(said(&frame), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(report in prop::collection::vec(any::<u8>(), 8..120), v6: bool) {
            let mut report = report;
            report[0] = if v6 { 143 } else { 0x22 };
            let frame = if v6 { mld(&report) } else { igmp(&report) };
            prop_assert!(said(&frame).len() <= report.len() / 8);
        }
    }
}
