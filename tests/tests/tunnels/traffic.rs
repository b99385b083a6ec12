//! Two of our switches with a tunnel between them.

use crate::underlay::{TUNNEL, Underlay, V4, V6, WIRE, to_the_other};
use sluice_flows::DropReason;
use sluice_flows::bridge::VlanMode;
use sluice_flows::tunnel::TunnelKind;
use sluice_switch::FailMode;
use sluice_tests::host::{Host, LINK};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::programs::run;
use sluice_tests::switch::wait_until;
use sluice_tests::traffic::{datagrams, ping, ping_until_answered, stream};
use sluice_tests::variant;

const STREAM: usize = 3_000_000;

/// Everything that two hosts may say to each other.
fn talk(a: &Host, b: &Host, mtu: usize) {
    for to in [b.v4, b.v6] {
        ping_until_answered(a, to);
        ping(a, to, mtu - 48);
        datagrams(a, b, to, [1, 64, 1000, mtu - 48]);
        stream(a, b, to, STREAM);
    }
}

#[test]
fn every_kind_carries_both_families_over_both_families() {
    if skipped("every_kind_carries_both_families_over_both_families") {
        return;
    }
    for addresses in [V4, V6] {
        for (kind, further) in [
            (TunnelKind::Vxlan, &["key=7"][..]),
            (TunnelKind::Vxlan, &["key=7", "csum=false", "tos=inherit", "ttl=inherit"]),
            (TunnelKind::Geneve, &["key=0xabcdef", "dst_port=16081"]),
            (TunnelKind::Gre, &[]),
            (TunnelKind::Gre, &["key=0xdeadbeef", "csum=true"]),
        ] {
            let underlay = Underlay::new(1500);
            let lans = underlay.pair(kind, 1400, |end| to_the_other(addresses, end, further));
            talk(lans[0].host(1), lans[1].host(2), 1400);
            lans.iter().for_each(|lan| lan.check_accounts(&[]));
        }
    }
}

#[test]
fn a_jumbo_underlay_carries_jumbo_frames() {
    if skipped("a_jumbo_underlay_carries_jumbo_frames") {
        return;
    }
    let underlay = Underlay::new(9000);
    let lans = underlay.pair(TunnelKind::Vxlan, 8900, |end| to_the_other(V4, end, &["key=7"]));
    talk(lans[0].host(1), lans[1].host(2), 8900);
}

#[test]
fn tunnels_for_ip_alone_carry_it_between_routed_hosts() {
    if skipped("tunnels_for_ip_alone_carry_it_between_routed_hosts") {
        return;
    }
    for addresses in [V4, V6] {
        for (kind, further, v4, v6) in [
            (TunnelKind::Ipip, &[][..], true, false),
            (TunnelKind::Sit, &[], false, true),
            (TunnelKind::Gre, &["layer3=true", "key=9"], true, true),
            (TunnelKind::BareUdp, &[], true, true),
        ] {
            let underlay = Underlay::new(1500);
            let lans = [0, 1].map(|end| {
                let options = to_the_other(addresses, end, further);
                let options: Vec<_> = options.iter().map(|(name, value)| (&**name, &**value)).collect();
                let mut lan = underlay.switch(end, FailMode::Secure, kind, &options);
                let n = end as u8 + 1;
                lan.add_host("br0", n, variant::port(), 1400, VlanMode::default());
                // The link header ends with the switch; the other end makes its own.
                let inward = format!("in_port={TUNNEL},actions=mod_dl_dst:02:00:00:00:00:{n:02x},output:{n}");
                let outward = format!("in_port={n},actions=output:{TUNNEL}");
                lan.add_flows("br0", &[&inward, &outward]);
                lan
            });
            let (a, b) = (lans[0].host(1), lans[1].host(2));
            for (host, other) in [(a, b), (b, a)] {
                host.netns.add_neighbour(LINK, other.v4, other.mac).unwrap();
                host.netns.add_neighbour(LINK, other.v6, other.mac).unwrap();
            }
            for to in [(b.v4, v4), (b.v6, v6)].into_iter().filter_map(|(to, carried)| carried.then_some(to)) {
                ping(a, to, 1000);
                datagrams(a, b, to, [1, 1000]);
                stream(a, b, to, STREAM);
            }
            if !v6 {
                assert!(lans[0].dropped(DropReason::ParseError) > 0, "IPv6 does not fit into {kind}");
            }
        }
    }
}

/// Two switches whose one tunnel port leaves everything to flows.
fn by_flows(underlay: &Underlay, kind: TunnelKind, further: &[(&str, &str)], out: [&str; 2], into: &str) -> [Lan; 2] {
    [0, 1].map(|end| {
        let options = [&[("remote_ip", "flow"), ("key", "flow")], further].concat();
        let mut lan = underlay.switch(end, FailMode::Secure, kind, &options);
        let n = end as u8 + 1;
        lan.add_host("br0", n, variant::port(), 1400, VlanMode::default());
        let map = "{class=0x102,type=0x80,len=4}->tun_metadata0".parse().unwrap();
        lan.datapath.set_tlv_map(map).unwrap();
        let inward = format!("in_port={TUNNEL},tun_src={},{into},actions=output:{n}", V4[1 - end]);
        let outward = format!("in_port={n},actions=set_field:{}->tun_dst,{},output:{TUNNEL}", V4[1 - end], out[end]);
        lan.add_flows("br0", &[&inward, &outward]);
        lan
    })
}

#[test]
fn one_port_serves_all_peers_as_flows_say() {
    if skipped("one_port_serves_all_peers_as_flows_say") {
        return;
    }
    for kind in [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre] {
        let underlay = Underlay::new(1500);
        let out = ["set_field:0x77->tun_id"; 2];
        let lans = by_flows(&underlay, kind, &[], out, "tun_id=0x77");
        talk(lans[0].host(1), lans[1].host(2), 1400);
    }
}

#[test]
fn group_policy_and_options_arrive_as_flows_set_them() {
    if skipped("group_policy_and_options_arrive_as_flows_set_them") {
        return;
    }
    let underlay = Underlay::new(1500);
    let out = ["set_field:0x77->tun_id,set_field:0x123->tun_gbp_id"; 2];
    let lans = by_flows(&underlay, TunnelKind::Vxlan, &[("gbp", "true")], out, "tun_gbp_id=0x123");
    talk(lans[0].host(1), lans[1].host(2), 1400);
    let out = ["set_field:0x77->tun_id,set_field:0xcafe->tun_metadata0"; 2];
    let lans = by_flows(&underlay, TunnelKind::Geneve, &[], out, "tun_metadata0=0xcafe");
    talk(lans[0].host(1), lans[1].host(2), 1400);
}

#[test]
fn a_sender_learns_the_path_mtu_through_the_tunnel() {
    if skipped("a_sender_learns_the_path_mtu_through_the_tunnel") {
        return;
    }
    for (addresses, overhead) in [(V4, 50), (V6, 70)] {
        let underlay = Underlay::new(1500);
        // The hosts believe that more goes through than does.
        let lans = underlay.pair(TunnelKind::Vxlan, 1500, |end| to_the_other(addresses, end, &["key=7"]));
        let (a, b) = (lans[0].host(1), lans[1].host(2));
        for to in [b.v4, b.v6] {
            ping_until_answered(a, to);
            stream(a, b, to, STREAM);
            stream(b, a, if to.is_ipv4() { a.v4 } else { a.v6 }, STREAM);
            let (_, routes) = run(&a.netns, &["ip", "route", "get", &to.to_string()]);
            assert!(routes.contains(&format!("mtu {}", 1500 - overhead)), "{routes}");
        }
        // The path gets narrower while it is in use.
        underlay.0.iter().for_each(|end| end.set_mtu(WIRE, 1400).unwrap());
        stream(a, b, b.v4, STREAM);
        stream(a, b, b.v6, STREAM);
        assert!(lans[0].dropped(DropReason::MtuExceeded) > 0);
    }
}

#[test]
fn what_may_be_fragmented_is_fragmented_outside() {
    if skipped("what_may_be_fragmented_is_fragmented_outside") {
        return;
    }
    for further in [&["key=7"][..], &["key=7", "df_default=false"]] {
        let underlay = Underlay::new(1500);
        let lans = underlay.pair(TunnelKind::Vxlan, 1500, |end| to_the_other(V4, end, further));
        let (a, b) = (lans[0].host(1), lans[1].host(2));
        ping_until_answered(a, b.v4);
        let (code, said) =
            run(&a.netns, &["ping", "-M", "dont", "-c", "1", "-s", "1472", "-W", "5", &b.v4.to_string()]);
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn a_tunnel_without_a_route_is_down() {
    if skipped("a_tunnel_without_a_route_is_down") {
        return;
    }
    let underlay = Underlay::new(1500);
    let lan = underlay.switch(0, FailMode::Standalone, TunnelKind::Vxlan, &[("remote_ip", "198.51.100.1")]);
    let up = || lan.datapath.ports(None).unwrap().iter().any(|port| port.link_up);
    assert!(!up());
    underlay.ip(0, "route add 198.51.100.0/24 via 192.0.2.2");
    wait_until("there is a route", up);
}
