//! ICMP errors: which, to whom, and how many.

use super::*;
use sluice_flows::DropReason;
use sluice_flows::router::RouteKind;

fn v4_host(net: &mut Net) {
    net.host(1, 9);
    net.host(2, 9);
}

#[test]
fn a_packet_that_has_come_too_far_is_told_of() {
    let mut net = Net::new(2);
    v4_host(&mut net);
    for ttl in [0, 1] {
        let out = net.send(1, &udp(1, 9, "10.0.2.9").replace("nw_ttl=64", &format!("nw_ttl={ttl}")));
        let [(1, error)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(
            (error.icmp(), error.v4(Field::IpSrc), error.v4(Field::IpDst)),
            (Some((11, 0)), "10.0.1.1".into(), "10.0.1.9".into())
        );
        assert_eq!((error.get(Field::EthDst), error.get(Field::EthSrc)), (0x0200_0000_0109, 0x0200_0000_0101));
        let out = net.send(1, &udp(1, 9, "fd00:2::9").replace("nw_ttl=64", &format!("nw_ttl={ttl}")));
        let [(1, error)] = &out[..] else { panic!("{out:?}") };
        assert_eq!(
            (error.icmp(), error.v6(Field::Ipv6Src), error.v6(Field::Ipv6Dst)),
            (Some((3, 0)), "fd00:1::1".into(), "fd00:1::9".into())
        );
    }
    assert_eq!(net.switch.dropped(DropReason::TtlExpired), 4);
}

#[test]
fn a_packet_without_a_route_is_told_of() {
    let mut net = Net::with(2, |spec| {
        let drop = |to: &str, kind| Route { kind, next_hops: vec![], ..route(to, &[]) };
        spec.config.routes = vec![
            drop("10.1.0.0/16", RouteKind::Blackhole),
            drop("10.2.0.0/16", RouteKind::Prohibit),
            drop("10.3.0.0/16", RouteKind::Unreachable),
        ];
    });
    v4_host(&mut net);
    for (to, error) in [
        ("10.9.9.9", Some((3, 0))),
        ("10.1.0.1", None),
        ("10.2.0.1", Some((3, 13))),
        ("10.3.0.1", Some((3, 0))),
        ("fd00:9::9", Some((1, 0))),
    ] {
        let out = net.send(1, &udp(1, 9, to));
        assert_eq!(out.first().and_then(|(_, seen)| seen.icmp()), error, "{to}: {out:?}");
        assert_eq!(out.len(), usize::from(error.is_some()));
    }
    assert_eq!(net.switch.dropped(DropReason::NoRoute), 3);
}

#[test]
fn a_packet_that_is_too_big_is_told_of_with_the_mtu() {
    let mut net = Net::with(2, |spec| spec.config.interfaces[1].mtu = 1300);
    v4_host(&mut net);
    let with_df = |to: &str, len: usize| {
        let mut bytes = frame(&udp(1, 9, to), &vec![7; len]);
        if to.contains('.') {
            bytes[20] |= 0x40;
            bytes[24..26].fill(0);
            let sum = checksum::checksum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    };
    let fits = net.send_bytes(1, &with_df("10.0.2.9", 1272));
    assert!(matches!(&fits[..], [(2, _)]), "{fits:?}");
    let out = net.send_bytes(1, &with_df("10.0.2.9", 1273));
    let [(1, error)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((error.icmp(), error.word()), (Some((3, 4)), 1300));
    let fits = net.send_bytes(1, &with_df("fd00:2::9", 1252));
    assert!(matches!(&fits[..], [(2, _)]), "{fits:?}");
    let out = net.send_bytes(1, &with_df("fd00:2::9", 1253));
    let [(1, error)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((error.icmp(), error.word()), (Some((2, 0)), 1300));
    assert_eq!(net.switch.dropped(DropReason::MtuExceeded), 2);
}

#[test]
fn a_port_where_nobody_listens_is_told_of_and_pings_are_answered() {
    let mut net = Net::new(2);
    v4_host(&mut net);
    for (to, error) in [("10.0.1.1", (3, 3)), ("10.0.2.1", (3, 3)), ("fd00:2::1", (1, 4))] {
        let out = net.send(1, &udp(1, 9, to));
        let [(1, seen)] = &out[..] else { panic!("{to}: {out:?}") };
        assert_eq!(seen.icmp(), Some(error), "{to}");
    }
    let ping =
        udp(1, 9, "10.0.2.1").replace("udp,", "icmp,").replace("tp_src=4000,tp_dst=9", "icmp_type=8,icmp_code=0");
    let out = net.send(1, &ping);
    assert_eq!(out.first().and_then(|(_, seen)| seen.icmp()), Some((0, 0)), "{out:?}");
}

#[test]
fn one_sender_is_told_six_times_and_then_once_a_second() {
    let mut net = Net::new(2);
    v4_host(&mut net);
    let expired = udp(1, 9, "10.0.2.9").replace("nw_ttl=64", "nw_ttl=1");
    let burst = |net: &mut Net| {
        (0..50).for_each(|_| net.switch.send(1, &frame(&expired, b"x")));
        net.settle();
        net.settle();
        net.take().len()
    };
    assert_eq!(burst(&mut net), 6);
    assert_eq!(burst(&mut net), 0);
    net.pass(2000);
    assert_eq!(burst(&mut net), 2);
    let counters = net.switch.datapath.router_list()[0].counters;
    assert_eq!((counters.errors, counters.errors_limited), (8, 142));
}

#[test]
fn errors_about_errors_groups_and_spoofed_sources_are_not_sent() {
    let mut net = Net::new(2);
    v4_host(&mut net);
    let expired = udp(1, 9, "10.0.2.9").replace("nw_ttl=64", "nw_ttl=1");
    let error = expired.replace("udp,", "icmp,").replace("tp_src=4000,tp_dst=9", "icmp_type=3,icmp_code=1");
    let cases = [
        error,
        expired.replace("dl_dst=02:00:00:00:01:01", "dl_dst=ff:ff:ff:ff:ff:ff"),
        expired.replace("nw_dst=10.0.2.9", "nw_dst=224.0.0.5"),
        expired.replace("nw_src=10.0.1.9", "nw_src=0.0.0.0"),
        expired.replace("nw_src=10.0.1.9", "nw_src=127.0.0.1"),
        expired.replace("nw_src=10.0.1.9", "nw_src=255.255.255.255"),
        expired.replace("udp,", "ip,nw_proto=17,ip_frag=later,").replace(",tp_src=4000,tp_dst=9", ""),
    ];
    for text in cases {
        let out = net.send(1, &text);
        assert!(out.is_empty(), "{text}: {out:?}");
    }
    assert_eq!(net.send(1, &expired).len(), 1, "but this one is");
}
