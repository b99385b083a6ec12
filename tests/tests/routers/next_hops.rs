//! Next hops that die and come back.

use super::*;
use sluice_switch::PortChange;
use sluice_switch::router::{ProbeSpec, RouteFilter, RouterEventKind};
use std::collections::BTreeMap;

/// A router with a route to 172.16.0.0/12 by routers behind ports 2, 3 and 4, which are there.
fn three_ways() -> Net {
    let mut net = Net::with(4, |spec| {
        spec.config.routes = vec![route("172.16.0.0/12", &[(2, "10.0.2.2"), (3, "10.0.3.2"), (4, "10.0.4.2")])];
    });
    (1..=4).for_each(|port| net.host(port, 2));
    net
}

/// The port by which each of many flows leaves.
fn ways(net: &mut Net) -> BTreeMap<u16, u16> {
    let mut ways = BTreeMap::new();
    for source in 1000..1200_u16 {
        let text = udp(1, 2, "172.16.0.9").replace("tp_src=4000", &format!("tp_src={source}"));
        net.switch.send(1, &frame(&text, b"x"));
    }
    net.settle();
    for (port, seen) in net.take() {
        ways.insert(seen.get(Field::UdpSrc) as u16, port);
    }
    ways
}

fn set_up(net: &mut Net, port: u16, up: bool) {
    let change = PortChange { up: Some(up), ..PortChange::default() };
    net.switch.datapath.set_port("br0", &format!("br0-{port}"), &change).unwrap();
    net.pass(0);
}

fn assert_only_those_of_moved(before: &BTreeMap<u16, u16>, after: &BTreeMap<u16, u16>, dead: u16) {
    assert_eq!((before.len(), after.len()), (200, 200), "no packet was lost");
    for (flow, way) in before {
        let now = after[flow];
        assert!(if *way == dead { now != dead } else { now == *way }, "flow {flow} went by {way}, then by {now}");
    }
    assert!(before.values().filter(|way| **way == dead).count() > 20, "it had its share");
}

#[test]
fn when_a_port_goes_down_only_its_flows_move_and_they_come_back() {
    let mut net = three_ways();
    let before = ways(&mut net);
    set_up(&mut net, 3, false);
    let after = ways(&mut net);
    assert_only_those_of_moved(&before, &after, 3);
    set_up(&mut net, 3, true);
    net.host(3, 2);
    net.pass(5000);
    net.settle();
    net.clear();
    assert_eq!(ways(&mut net), before);
}

#[test]
fn when_a_next_hop_answers_no_pings_only_its_flows_move_and_they_come_back() {
    let mut net = Net::with(4, |spec| {
        spec.config.routes = vec![route("172.16.0.0/12", &[(2, "10.0.2.2"), (3, "10.0.3.2"), (4, "10.0.4.2")])];
        let next_hop = (InterfaceId(3), "10.0.3.2".parse().unwrap());
        spec.probes = vec![ProbeSpec { next_hop, interval_ms: 1000, losses: 3 }];
    });
    (1..=4).for_each(|port| net.host(port, 2));
    let events = net.switch.datapath.router_events(1000);
    let pinged = |net: &mut Net, answer: bool| {
        net.pass(1000);
        net.settle();
        for (port, seen) in net.take() {
            if port == 3 && seen.icmp() == Some((8, 0)) && answer {
                let mut reply = seen.bytes.clone();
                // Back where it came from: hardware and IP addresses change places, and the type is a reply's.
                let (dst, src): (Vec<u8>, Vec<u8>) = (seen.bytes[..6].into(), seen.bytes[6..12].into());
                reply[..6].copy_from_slice(&src);
                reply[6..12].copy_from_slice(&dst);
                reply[26..30].copy_from_slice(&seen.bytes[30..34]);
                reply[30..34].copy_from_slice(&seen.bytes[26..30]);
                reply[34] = 0;
                reply[36..38].fill(0);
                let sum = checksum::checksum(&reply[34..]);
                reply[36..38].copy_from_slice(&sum.to_be_bytes());
                net.switch.send(3, &reply);
                net.settle();
            }
        }
    };
    (0..3).for_each(|_| pinged(&mut net, true));
    let before = ways(&mut net);
    (0..4).for_each(|_| pinged(&mut net, false));
    let after = ways(&mut net);
    assert_only_those_of_moved(&before, &after, 3);
    pinged(&mut net, true);
    net.clear();
    assert_eq!(ways(&mut net), before);
    let changes: Vec<_> = events
        .try_iter()
        .filter_map(|event| match event.kind {
            RouterEventKind::NextHopChanged { alive, cause, .. } => Some((alive, cause)),
            _ => None,
        })
        .collect();
    assert_eq!(changes.first(), Some(&(false, "probe")), "{changes:?}");
    assert_eq!(changes.last().map(|(alive, _)| *alive), Some(true), "{changes:?}");
}

#[test]
fn a_route_whose_next_hop_fails_gives_way_to_the_next_best_and_comes_back() {
    let mut net = Net::with(3, |spec| {
        let worse = Route { distance: 20, ..route("172.16.0.0/12", &[(3, "10.0.3.2")]) };
        spec.config.routes = vec![route("172.16.0.0/12", &[(2, "10.0.2.2")]), worse];
    });
    net.host(1, 2);
    net.host(3, 2);
    net.pass(5000);
    (0..3).for_each(|_| net.pass(1000));
    net.settle();
    net.clear();
    let out = net.send(1, &udp(1, 2, "172.16.0.9"));
    assert!(matches!(&out[..], [(3, _)]), "{out:?}");
    let routes = net.switch.datapath.routes("r1", &RouteFilter::default(), None, 100).unwrap();
    let active: Vec<_> = routes.iter().filter(|r| !r.is_connected).map(|r| (r.route.distance, r.is_active)).collect();
    assert_eq!(active, [(1, false), (20, true)]);
    net.host(2, 2);
    let out = net.send(1, &udp(1, 2, "172.16.0.9"));
    assert!(matches!(&out[..], [(2, _)]), "{out:?}");
}
