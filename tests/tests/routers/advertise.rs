//! What a router says unasked: who it is, and that it is one.

use super::*;
use sluice_flows::router::RouterAdvertisement;
use sluice_switch::PortChange;
use sluice_switch::router::RouterEventKind;

#[test]
fn an_interface_that_comes_up_says_who_it_is_twice() {
    let mut net = Net::new(2);
    let up = |net: &Net, up| {
        let change = PortChange { up: Some(up), ..PortChange::default() };
        net.switch.datapath.set_port("br0", "br0-2", &change).unwrap();
    };
    up(&net, false);
    net.pass(0);
    up(&net, true);
    for millis in [0, 2000] {
        net.pass(millis);
        net.settle();
        let out = net.take();
        let arp: Vec<_> = out.iter().filter(|(_, seen)| seen.is_arp_request()).collect();
        let [(2, gratuitous)] = &arp[..] else { panic!("{out:?}") };
        assert_eq!(
            (gratuitous.v4(Field::ArpSpa), gratuitous.v4(Field::ArpTpa)),
            ("10.0.2.1".into(), "10.0.2.1".into())
        );
        assert_eq!(gratuitous.get(Field::EthDst), 0xffff_ffff_ffff);
        let mut targets: Vec<_> = out
            .iter()
            .filter(|(_, seen)| seen.icmp() == Some((136, 0)))
            .map(|(_, seen)| seen.v6(Field::NdTarget))
            .collect();
        targets.sort_unstable();
        assert_eq!(targets, ["fd00:2::1", "fe80::ff:fe00:102"]);
    }
    net.pass(2000);
    net.settle();
    assert_eq!(net.take(), []);
}

#[test]
fn neighbours_behind_a_port_that_goes_down_are_forgotten() {
    let mut net = Net::new(2);
    let asked = net.send(1, &udp(1, 9, "10.0.2.9"));
    assert_eq!(asked.len(), 1);
    let events = net.switch.datapath.router_events(100);
    let change = PortChange { up: Some(false), ..PortChange::default() };
    net.switch.datapath.set_port("br0", "br0-2", &change).unwrap();
    net.pass(0);
    assert!(net.switch.datapath.neighbors("r1").unwrap().is_empty());
    let kinds: Vec<_> = events.try_iter().map(|event| event.kind).collect();
    assert!(kinds.contains(&RouterEventKind::InterfaceChanged { interface: "e2".into(), up: false }), "{kinds:?}");
}

#[test]
fn hosts_are_told_of_the_router_now_and_then_and_when_they_ask() {
    let mut net = Net::with(2, |spec| spec.config.interfaces[1].ra = Some(RouterAdvertisement::default()));
    let adverts = |net: &mut Net| {
        net.settle();
        let out = net.take();
        out.iter().filter(|(no, seen)| *no == 2 && seen.icmp() == Some((134, 0))).count()
    };
    net.pass(20_000);
    assert_eq!(adverts(&mut net), 1, "the second of the first three");
    let ask = frame(
        "icmp6,dl_src=02:00:00:00:02:09,dl_dst=33:33:00:00:00:02,ipv6_src=fe80::9,ipv6_dst=ff02::2,nw_ttl=255,icmp_type=133,icmp_code=0",
        &[],
    );
    net.pass(3100);
    adverts(&mut net);
    net.send_bytes(2, &ask);
    net.pass(3600);
    assert_eq!(adverts(&mut net), 1);
    let sent = net.switch.datapath.router_list()[0].counters.advertisements;
    net.switch.datapath.remove_router("r1").unwrap();
    let out = net.take();
    let last: Vec<_> = out.iter().filter(|(_, seen)| seen.icmp() == Some((134, 0))).collect();
    assert!(sent >= 3 && last.len() == 1, "{sent}, {out:?}");
    assert_eq!(last[0].1.word() & 0xffff, 0, "no router any more");
}

#[test]
fn another_station_with_our_address_is_noticed_and_told_whose_it_is() {
    let mut net = Net::new(2);
    let events = net.switch.datapath.router_events(100);
    let theirs = "arp,dl_src=02:00:00:00:02:66,dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_spa=10.0.2.1,arp_tpa=10.0.2.1,arp_sha=02:00:00:00:02:66";
    let mut answers = 0;
    for _ in 0..20 {
        answers += net.send_bytes(2, &frame(theirs, &[])).iter().filter(|(_, seen)| seen.is_arp_request()).count();
    }
    assert_eq!(answers, 1, "they are told once in a while");
    let told = events.try_iter().filter(|event| matches!(event.kind, RouterEventKind::DuplicateAddress { .. })).count();
    assert_eq!((told, net.switch.datapath.router_list()[0].counters.duplicates), (1, 1));
}
