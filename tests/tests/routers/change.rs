//! Routers, routes and neighbours come, change and go; nothing is left behind.

use super::*;
use sluice_switch::router::{RouteFilter, RouterError};

#[test]
fn a_router_that_is_removed_leaves_nothing_and_touches_nothing_else() {
    let mut net = Net::with(3, |spec| {
        spec.first_table = 10;
        spec.config.routes = vec![route("172.16.0.0/12", &[(2, "10.0.2.2"), (3, "10.0.3.2")])];
    });
    net.host(2, 2);
    net.switch.datapath.remove_router("r1").unwrap();
    let bridge = net.switch.datapath.bridge("br0").unwrap();
    // The flow that sends to its tables is somebody else's.
    assert_eq!((bridge.tables.len(), bridge.groups.len(), bridge.table_configs.len()), (1, 0, 0));
    assert!(matches!(net.switch.datapath.remove_router("r1"), Err(RouterError::NoRouter { .. })));
}

#[test]
fn a_router_goes_with_its_bridge() {
    let mut net = Net::new(2);
    net.switch.datapath.remove_bridge("br0").unwrap();
    net.pass(0);
    assert!(net.switch.datapath.router_list().is_empty());
}

#[test]
fn what_is_refused_changes_nothing() {
    let net = Net::new(2);
    let datapath = &net.switch.datapath;
    let before = datapath.bridge("br0").unwrap().tables.len();
    let mut second = spec(1);
    second.config.name = "r2".into();
    assert!(matches!(datapath.set_router(second.clone()), Err(RouterError::BridgeTaken { .. })));
    second.bridge = "br9".into();
    assert!(matches!(datapath.set_router(second), Err(RouterError::Control(_))));
    let faulty = vec![route("172.16.0.0/12", &[(2, "10.0.2.2")]), route("172.16.0.0/12", &[(2, "10.9.9.9")])];
    assert!(matches!(datapath.add_routes("r1", faulty), Err(RouterError::Config(_))));
    let connected = Route { distance: 0, ..route("10.0.1.0/24", &[(2, "10.0.2.2")]) };
    assert!(matches!(datapath.add_routes("r1", vec![connected.clone()]), Err(RouterError::Connected { .. })));
    assert!(matches!(datapath.remove_routes("r1", &[connected.key()]), Err(RouterError::Connected { .. })));
    let mut misplaced = spec(2);
    misplaced.first_table = 252;
    assert!(matches!(datapath.set_router(misplaced), Err(RouterError::Table { .. })));
    assert_eq!(datapath.bridge("br0").unwrap().tables.len(), before);
    let bad = datapath.set_neighbor("r1", (InterfaceId(1), "10.0.2.9".parse().unwrap()), mac_of(1, 9));
    assert!(matches!(bad, Err(RouterError::BadNeighbor { .. })));
}

#[test]
fn a_router_set_anew_keeps_its_neighbours_and_the_counters_of_what_stays() {
    let mut net = Net::with(3, |spec| spec.config.routes = vec![route("172.16.0.0/12", &[(2, "10.0.2.2")])]);
    net.send(1, &udp(1, 9, "10.0.2.2"));
    let reply = "arp,dl_src=02:00:00:00:02:02,dl_dst=02:00:00:00:01:02,arp_op=2,arp_spa=10.0.2.2,arp_tpa=10.0.2.1,\
                 arp_sha=02:00:00:00:02:02,arp_tha=02:00:00:00:01:02";
    net.send_bytes(2, &frame(reply, &[]));
    net.send(1, &udp(1, 9, "172.16.0.9"));
    let packets = |net: &Net, to: &str| {
        let routes = net.switch.datapath.routes("r1", &RouteFilter::default(), None, 100).unwrap();
        routes.iter().find(|r| r.route.destination.to_string() == to).map(|r| r.packets)
    };
    assert_eq!(packets(&net, "172.16.0.0/12"), Some(1));
    let mut next = spec(3);
    next.config.routes =
        vec![route("172.16.0.0/12", &[(2, "10.0.2.2")]), route("192.168.0.0/16", &[(2, "10.0.2.2"), (3, "10.0.3.2")])];
    net.switch.datapath.set_router(next).unwrap();
    assert_eq!(packets(&net, "172.16.0.0/12"), Some(1));
    net.settle();
    net.clear();
    let out = net.send(1, &udp(1, 9, "172.16.0.9"));
    assert!(matches!(&out[..], [(2, seen)] if seen.get(Field::EthDst) == 0x0200_0000_0202), "{out:?}");
    assert_eq!(net.switch.datapath.bridge("br0").unwrap().groups.len(), 1);
    let mut last = spec(1);
    last.config.routes = Vec::new();
    net.switch.datapath.set_router(last).unwrap();
    assert_eq!((packets(&net, "172.16.0.0/12"), net.switch.datapath.bridge("br0").unwrap().groups.len()), (None, 0));
    assert!(net.switch.datapath.neighbors("r1").unwrap().is_empty(), "their interface is gone");
}

#[test]
fn routes_are_added_replaced_and_removed_one_by_one() {
    let mut net = Net::new(3);
    (1..=3).for_each(|port| net.host(port, 2));
    let datapath = &net.switch.datapath;
    let flows = || datapath.bridge("br0").unwrap().tables.len();
    let groups = || datapath.bridge("br0").unwrap().groups.len();
    let before = flows();
    let two = route("172.16.0.0/12", &[(2, "10.0.2.2"), (3, "10.0.3.2")]);
    assert_eq!(datapath.add_routes("r1", vec![two.clone(), Route { distance: 5, ..two.clone() }]).unwrap(), 2);
    assert_eq!((flows(), groups()), (before + 2, 1), "one group for equal next hops");
    let one = route("172.16.0.0/12", &[(3, "10.0.3.2")]);
    assert_eq!(datapath.add_routes("r1", vec![one.clone()]).unwrap(), 0);
    assert_eq!((flows(), groups()), (before + 2, 1));
    datapath.remove_routes("r1", &[Route { distance: 5, ..two }.key()]).unwrap();
    assert_eq!((flows(), groups()), (before + 1, 0));
    let key = one.key();
    assert!(matches!(
        datapath.remove_routes("r1", &[key, route("9.0.0.0/8", &[]).key()]),
        Err(RouterError::NoRoute { .. })
    ));
    assert_eq!(flows(), before + 1, "all or none");
    let out = net.send(1, &udp(1, 2, "172.16.0.9"));
    assert!(matches!(&out[..], [(3, _)]), "{out:?}");
}

#[test]
fn vrfs_with_the_same_addresses_stay_apart() {
    let mut net = Net::with(4, |spec| {
        spec.config.vrfs = vec![Vrf { name: "red".into(), id: VrfId(1) }, Vrf { name: "blue".into(), id: VrfId(2) }];
        let (red, blue) = (VrfId(1), VrfId(2));
        spec.config.interfaces =
            vec![interface(1, 1, red), interface(2, 2, red), interface(3, 1, blue), interface(4, 2, blue)];
    });
    let datapath = &net.switch.datapath;
    for (interface, address, mac) in [(2, "10.0.2.9", [2, 0, 0, 0, 9, 2]), (4, "10.0.2.9", [2, 0, 0, 0, 9, 4])] {
        datapath.set_neighbor("r1", (InterfaceId(interface), address.parse().unwrap()), mac).unwrap();
    }
    let from_red = udp(1, 9, "10.0.2.9");
    let from_blue = from_red.replace("dl_dst=02:00:00:00:01:01", "dl_dst=02:00:00:00:01:03");
    let out = net.send(1, &from_red);
    assert!(matches!(&out[..], [(2, seen)] if seen.get(Field::EthDst) == 0x0200_0000_0902), "{out:?}");
    let out = net.send(3, &from_blue);
    assert!(matches!(&out[..], [(4, seen)] if seen.get(Field::EthDst) == 0x0200_0000_0904), "{out:?}");
    let leak = udp(1, 9, "10.0.9.9");
    let out = net.send(1, &leak);
    assert!(out.iter().all(|(no, _)| *no == 1), "{out:?}");
}
