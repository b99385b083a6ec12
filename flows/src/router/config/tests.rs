use super::*;

fn interface(id: u16, port: u16, address: &str) -> Interface {
    Interface {
        id: InterfaceId(id),
        name: format!("eth{id}"),
        port: PortNo(port),
        vlan: None,
        vrf: VrfId(0),
        mac: 0x0200_0000_0000 | u64::from(id),
        addresses: vec![address.parse().unwrap()],
        mtu: 1500,
        proxied: Vec::new(),
        layer3: false,
        ra: None,
    }
}

fn config() -> RouterConfig {
    RouterConfig {
        name: "r1".into(),
        vrfs: vec![Vrf { name: "main".into(), id: VrfId(0) }, Vrf { name: "blue".into(), id: VrfId(1) }],
        interfaces: vec![interface(1, 1, "10.0.1.1/24"), interface(2, 2, "10.0.2.1/24")],
        routes: vec![route("0.0.0.0/0", "10.0.2.2", 2)],
        neighbors: Vec::new(),
    }
}

fn route(destination: &str, via: &str, interface: u16) -> Route {
    let next_hop = NextHop { interface: InterfaceId(interface), via: Some(via.parse().unwrap()), weight: 1 };
    Route {
        vrf: VrfId(0),
        destination: destination.parse().unwrap(),
        kind: RouteKind::Unicast,
        next_hops: vec![next_hop],
        distance: 1,
    }
}

/// The fault that `change` makes, as text.
fn fault(change: impl FnOnce(&mut RouterConfig)) -> String {
    let mut config = config();
    change(&mut config);
    config.check().expect_err("a fault").to_string()
}

#[test]
fn a_configuration_that_fits_is_taken() {
    assert_eq!(config().check(), Ok(()));
}

#[test]
fn link_local_addresses_are_made_of_the_mac_address_unless_one_is_listed() {
    let mut eth = interface(1, 1, "10.0.0.1/24");
    eth.mac = 0x0011_2233_4455;
    assert_eq!(eth.link_local(), Some("fe80::211:22ff:fe33:4455".parse().unwrap()));
    assert_eq!(eth.own_addresses().count(), 2);
    eth.addresses.push("fe80::1/64".parse().unwrap());
    assert_eq!(eth.link_local(), Some("fe80::1".parse().unwrap()));
    assert_eq!(eth.own_addresses().count(), 2);
    eth.addresses.pop();
    eth.mtu = 1279;
    assert_eq!(eth.link_local(), None);
}

#[test]
fn connected_routes_are_those_of_shared_networks() {
    let mut eth = interface(1, 1, "10.0.1.1/24");
    for net in ["10.0.1.2/24", "192.0.2.1/32", "2001:db8::1/64", "fe80::1/64"] {
        eth.addresses.push(net.parse().unwrap());
    }
    let destinations: Vec<String> = eth.connected().map(|route| route.destination.to_string()).collect();
    assert_eq!(destinations, ["10.0.1.0/24", "2001:db8::/64"]);
}

#[test]
fn faults_say_where_what_and_what_to_do() {
    type Change = fn(&mut RouterConfig);
    let table: [(&str, Change); 10] = [
        ("router r1, interface eth2: interface eth1 has the same port and VLAN: give one of the two another", |c| {
            c.interfaces[1].port = PortNo(1);
        }),
        ("router r1, interface eth2: there is no VRF 9: add it, or name another", |c| c.interfaces[1].vrf = VrfId(9)),
        (
            "router r1, interface eth1: 01:00:00:00:00:00 is no address of one station: set an individual address other \
             than 0, or make the interface one of layer 3",
            |c| c.interfaces[0].mac = 1 << 40,
        ),
        (
            "router r1, interface eth2: 10.0.1.1 is an address of interface eth1 in the same VRF: remove one, or use \
             another VRF",
            |c| c.interfaces[1].addresses.push("10.0.1.1/25".parse().unwrap()),
        ),
        (
            "router r1, route 10.0.1.0/24 of VRF 0: there is another route to the same destination with distance 0, \
             listed or connected: give one of the two another distance, or make them one with several next hops",
            |c| c.interfaces[1].addresses.push("10.0.1.9/24".parse().unwrap()),
        ),
        (
            "router r1, interface eth1: an MTU of 1000 is too small for IPv6, which needs 1280: raise it, or remove the \
             IPv6 addresses",
            |c| {
                c.interfaces[0].mtu = 1000;
                c.interfaces[0].addresses.push("2001:db8::1/64".parse().unwrap());
            },
        ),
        (
            "router r1, route 10.9.9.9/8 of VRF 0: 10.9.9.9/8 is no network of hosts: write 10.0.0.0/8, and route \
             unicast addresses only",
            |c| c.routes.push(route("10.9.9.9/8", "10.0.2.2", 2)),
        ),
        (
            "router r1, route 10.0.0.0/8 of VRF 0: next hop 10.7.7.7 is on no network of interface eth2: give the \
             interface an address next to it",
            |c| c.routes.push(route("10.0.0.0/8", "10.7.7.7", 2)),
        ),
        (
            "router r1, route 10.0.0.0/8 of VRF 0: next hop 10.0.1.1 is an address of the router itself: name the next \
             router",
            |c| c.routes.push(route("10.0.0.0/8", "10.0.1.1", 1)),
        ),
        (
            "router r1, route 10.0.0.0/8 of VRF 0: a blackhole route has no next hops: remove them, or make it unicast",
            |c| c.routes.push(Route { kind: RouteKind::Blackhole, ..route("10.0.0.0/8", "10.0.2.2", 2) }),
        ),
    ];
    for (want, change) in table {
        assert_eq!(fault(change), want);
    }
}

#[test]
fn vrfs_may_overlap_and_a_next_hop_stays_in_its_own() {
    let mut config = config();
    config.interfaces.push(Interface { vrf: VrfId(1), ..interface(3, 3, "10.0.1.1/24") });
    assert_eq!(config.check(), Ok(()));
    config.routes.push(Route { vrf: VrfId(1), ..route("10.1.0.0/16", "10.0.2.2", 2) });
    let error = config.check().expect_err("another VRF").to_string();
    assert_eq!(
        error,
        "router r1, route 10.1.0.0/16 of VRF 1: interface eth2 belongs to another VRF: name one of the route's own"
    );
}
