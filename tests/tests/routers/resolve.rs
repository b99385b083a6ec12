//! Address resolution: asking, waiting, giving up.

use super::*;
use sluice_flows::DropReason;
use sluice_flows::packet::{GsoKind, Offload};
use sluice_switch::router::NeighborState;

/// The answer of a host to an ARP request.
fn arp_reply(port: u16, host: u8) -> Vec<u8> {
    let mac = format!("02:00:00:00:0{port}:{host:02x}");
    let text = format!(
        "arp,dl_src={mac},dl_dst=02:00:00:00:01:0{port},arp_op=2,arp_spa=10.0.{port}.{host},arp_tpa=10.0.{port}.1,\
         arp_sha={mac},arp_tha=02:00:00:00:01:0{port}"
    );
    frame(&text, &[])
}

fn state(net: &Net, address: &str) -> Option<NeighborState> {
    let neighbors = net.switch.datapath.neighbors("r1").unwrap();
    neighbors.into_iter().find(|n| n.address == address.parse::<IpAddr>().unwrap()).map(|n| n.state)
}

#[test]
fn a_packet_waits_for_the_answer_and_those_behind_it_need_none() {
    let mut net = Net::new(2);
    let out = net.send(1, &udp(1, 9, "10.0.2.9"));
    let [(2, asked)] = &out[..] else { panic!("{out:?}") };
    assert!(asked.is_arp_request());
    assert_eq!((asked.get(Field::EthDst), asked.get(Field::EthSrc)), (0xffff_ffff_ffff, 0x0200_0000_0102));
    assert_eq!((asked.v4(Field::ArpSpa), asked.v4(Field::ArpTpa)), ("10.0.2.1".into(), "10.0.2.9".into()));
    assert_eq!(state(&net, "10.0.2.9"), Some(NeighborState::Incomplete));
    let out = net.send_bytes(2, &arp_reply(2, 9));
    let [(2, packet)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((packet.get(Field::EthDst), packet.get(Field::EthSrc)), (0x0200_0000_0209, 0x0200_0000_0102));
    assert_eq!((packet.get(Field::IpTtl), packet.v4(Field::IpDst)), (63, "10.0.2.9".into()));
    assert_eq!(state(&net, "10.0.2.9"), Some(NeighborState::Reachable));
    let before = net.punted();
    let out = net.send(1, &udp(1, 9, "10.0.2.9"));
    assert!(matches!(&out[..], [(2, packet)] if packet.get(Field::IpTtl) == 63), "{out:?}");
    assert_eq!(net.punted(), before + 1, "only what settles was handed over");
}

#[test]
fn in_ipv6_the_solicited_nodes_group_is_asked() {
    let mut net = Net::new(2);
    let out = net.send(1, &udp(1, 9, "fd00:2::9"));
    let [(2, asked)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((asked.icmp(), asked.v6(Field::NdTarget)), (Some((135, 0)), "fd00:2::9".into()));
    assert_eq!((asked.get(Field::EthDst), asked.v6(Field::Ipv6Src)), (0x3333_ff00_0009, "fd00:2::1".into()));
    let answer = frame(
        "icmp6,dl_src=02:00:00:00:02:09,dl_dst=02:00:00:00:01:02,ipv6_src=fd00:2::9,ipv6_dst=fd00:2::1,nw_ttl=255,\
         icmp_type=136,icmp_code=0,nd_target=fd00:2::9,nd_tll=02:00:00:00:02:09",
        &[],
    );
    // Compose leaves the flags 0; this one is solicited and replaces.
    let answer = with_flags(&answer, 0x60);
    let out = net.send_bytes(2, &answer);
    let [(2, packet)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((packet.get(Field::EthDst), packet.get(Field::IpTtl)), (0x0200_0000_0209, 63));
    assert_eq!(state(&net, "fd00:2::9"), Some(NeighborState::Reachable));
}

/// A neighbour advertisement with these flags, and its checksum.
fn with_flags(advertisement: &[u8], flags: u8) -> Vec<u8> {
    let mut bytes = advertisement.to_vec();
    bytes[58] = flags;
    refill(&mut bytes);
    bytes
}

#[test]
fn of_many_packets_the_last_wait_in_order_and_the_others_are_told_as_drops() {
    let mut net = Net::new(2);
    for n in 0..125_u8 {
        net.switch.send(1, &frame(&udp(1, 9, "10.0.2.9"), &[n; 20]));
    }
    net.settle();
    assert_eq!(net.take().len(), 1, "one question");
    let out = net.send_bytes(2, &arp_reply(2, 9));
    let numbers: Vec<u8> = out.iter().map(|(_, packet)| packet.bytes[packet.payload]).collect();
    assert_eq!(numbers, (24..125).collect::<Vec<_>>());
    assert_eq!(net.switch.datapath.router_list()[0].counters.overflowed, 24);
    let drops = net.switch.datapath.drops();
    let told: Vec<_> = drops.iter().filter(|drop| drop.reason == DropReason::NoNeighbor).collect();
    assert_eq!(told.iter().map(|drop| drop.packets).collect::<Vec<_>>(), [24]);
    let port = net.switch.datapath.model().port(told[0].ingress).map(|(_, port)| port.no);
    assert_eq!(port, Some(PortNo(1)), "they came by the first host's");
}

#[test]
fn who_does_not_answer_has_failed_and_its_senders_are_told() {
    let mut net = Net::new(2);
    net.host(1, 9);
    let questions = |out: &[(u16, Seen)]| out.iter().filter(|(no, seen)| *no == 2 && seen.is_arp_request()).count();
    net.switch.send(1, &frame(&udp(1, 9, "10.0.2.9"), b"first"));
    let out = net.send(1, &udp(1, 9, "10.0.2.9"));
    assert_eq!((questions(&out), out.len()), (1, 1));
    for _ in 0..2 {
        net.pass(1000);
        net.settle();
        let out = net.take();
        assert_eq!((questions(&out), out.len()), (1, 1), "asked again");
    }
    net.pass(1000);
    net.settle();
    net.settle();
    let out = net.take();
    assert!(out.iter().all(|(no, seen)| *no == 1 && seen.icmp() == Some((3, 1))), "{out:?}");
    assert_eq!(out.len(), 2, "one error for each packet");
    assert_eq!(net.switch.dropped(DropReason::NoNeighbor), 2, "counted by why");
    assert_eq!(state(&net, "10.0.2.9"), Some(NeighborState::Failed));
    let out = net.send(1, &udp(1, 9, "10.0.2.9"));
    assert!(matches!(&out[..], [(1, seen)] if seen.icmp() == Some((3, 1))), "{out:?}");
    net.pass(3000);
    let out = net.send(1, &udp(1, 9, "10.0.2.9"));
    assert_eq!((questions(&out), out.len()), (1, 1), "after a while it is asked for anew");
}

#[test]
fn a_neighbour_in_use_is_asked_at_its_own_address_and_one_that_is_not_is_forgotten() {
    let mut net = Net::new(2);
    for host in [8, 9] {
        net.send(1, &udp(1, 7, &format!("10.0.2.{host}")));
        net.send_bytes(2, &arp_reply(2, host));
    }
    net.pass(46_000);
    net.settle();
    assert_eq!(state(&net, "10.0.2.9"), Some(NeighborState::Stale));
    net.clear();
    net.clock.advance(100);
    net.send(1, &udp(1, 7, "10.0.2.9"));
    net.pass(5000);
    net.settle();
    let out = net.take();
    let [(2, asked)] = &out[..] else { panic!("{out:?}") };
    assert!(asked.is_arp_request() && asked.get(Field::EthDst) == 0x0200_0000_0209);
    assert_eq!(state(&net, "10.0.2.9"), Some(NeighborState::Probe));
    net.send_bytes(2, &arp_reply(2, 9));
    assert_eq!(state(&net, "10.0.2.9"), Some(NeighborState::Reachable));
    let flows = |net: &Net| net.switch.datapath.bridge("br0").unwrap().tables.len();
    let before = flows(&net);
    (0..15).for_each(|_| net.pass(5000));
    assert_eq!((state(&net, "10.0.2.8"), flows(&net)), (None, before - 1));
}

#[test]
fn a_gratuitous_announcement_moves_a_neighbour_that_is_known_and_makes_nobody_known() {
    let mut net = Net::new(2);
    let gratuitous = |host: u8, mac: &str| {
        let text = format!(
            "arp,dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_spa=10.0.2.{host},arp_tpa=10.0.2.{host},arp_sha={mac}"
        );
        frame(&text, &[])
    };
    net.send(1, &udp(1, 9, "10.0.2.9"));
    net.send_bytes(2, &arp_reply(2, 9));
    net.pass(1000);
    net.send_bytes(2, &gratuitous(9, "02:00:00:00:02:aa"));
    net.send_bytes(2, &gratuitous(8, "02:00:00:00:02:aa"));
    let out = net.send(1, &udp(1, 9, "10.0.2.9"));
    assert!(matches!(&out[..], [(2, packet)] if packet.get(Field::EthDst) == 0x0200_0000_02aa), "{out:?}");
    assert_eq!(state(&net, "10.0.2.8"), None);
}

#[test]
fn a_super_frame_that_waited_goes_on_as_one() {
    let mut net = Net::new(2);
    let text = udp(1, 9, "10.0.2.9").replace("udp,", "tcp,");
    let mut bytes = frame(&text, &vec![7; 9000]);
    bytes[14 + 20 + 16..14 + 20 + 18].copy_from_slice(&[0x12, 0x34]);
    let mut super_frame = Frame::from_bytes(&bytes);
    super_frame.offload = Offload {
        gso: GsoKind::Tcp4,
        gso_size: 1000,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 16,
        ..Offload::NONE
    };
    net.switch.send_frame(1, super_frame);
    net.settle();
    net.clear();
    net.switch.send(2, &arp_reply(2, 9));
    net.settle();
    let out = net.switch.take(2);
    let whole: Vec<_> = out.iter().map(|frame| (frame.offload.gso, frame.offload.gso_size, frame.len())).collect();
    assert_eq!(whole, [(GsoKind::Tcp4, 1000, bytes.len())]);
}

#[test]
fn a_scan_is_asked_for_up_to_a_limit_and_known_neighbours_stay() {
    let mut net = Net::with(2, |spec| spec.config.interfaces[1].addresses[0] = "10.0.2.1/16".parse().unwrap());
    net.send(1, &udp(1, 9, "10.0.2.9"));
    net.send_bytes(2, &arp_reply(2, 9));
    for n in 0..3000_u32 {
        let to = format!("10.0.{}.{}", 16 + n / 200, 1 + n % 200);
        net.switch.send(1, &frame(&udp(1, 9, &to), b"scan"));
        if n % 200 == 0 {
            net.settle();
            net.clear();
        }
    }
    net.settle();
    let info = &net.switch.datapath.router_list()[0];
    assert!(info.neighbors <= 514, "{info:?}");
    assert!(info.counters.overflowed + info.counters.asked >= 3000, "{info:?}");
    net.clear();
    let out = net.send(1, &udp(1, 9, "10.0.2.9"));
    assert!(out.iter().any(|(no, seen)| *no == 2 && seen.get(Field::EthDst) == 0x0200_0000_0209), "{out:?}");
}

#[test]
fn solicitations_of_the_routers_addresses_are_answered_by_flows() {
    let mut net = Net::new(2);
    for target in ["fd00:1::1", "fe80::ff:fe00:101"] {
        let text = format!(
            "icmp6,dl_src=02:00:00:00:01:09,dl_dst=33:33:ff:00:00:01,ipv6_src=fd00:1::9,ipv6_dst=ff02::1:ff00:1,nw_ttl=255,\
             icmp_type=135,icmp_code=0,nd_target={target},nd_sll=02:00:00:00:01:09"
        );
        let before = net.punted();
        let out = net.send(1, &text);
        let [(1, answer)] = &out[..] else { panic!("{out:?}") };
        assert_eq!((answer.icmp(), answer.v6(Field::NdTarget)), (Some((136, 0)), target.into()));
        assert_eq!((answer.get(Field::NdTll), answer.get(Field::EthDst)), (0x0200_0000_0101, 0x0200_0000_0109));
        assert_eq!((answer.v6(Field::Ipv6Src), answer.v6(Field::Ipv6Dst)), (target.into(), "fd00:1::9".into()));
        assert_eq!(net.punted(), before + 1, "only what settles was handed over");
    }
}
