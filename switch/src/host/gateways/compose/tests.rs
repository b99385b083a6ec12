use super::super::Leads;
use super::*;
use sluice_flows::field::{IP_PROTO_TCP, IP_PROTO_UDP};

fn network(name: &str, bridge: &str, vlan: Option<u16>, gateway: &str) -> NetworkGateway {
    let address: IpNet = gateway.parse().unwrap();
    NetworkGateway {
        name: name.to_owned(),
        bridge: bridge.to_owned(),
        vlan,
        addresses: vec![address],
        masquerade: vec![address.trunc()],
        except: Vec::new(),
        mtu: None,
        internal: false,
        routes: Vec::new(),
        hops: Vec::new(),
        steered: false,
    }
}

fn port(network: &str, address: Option<&str>, number: u16) -> NetworkPort {
    NetworkPort {
        network: network.to_owned(),
        owner: format!("{network}/c1/eth0"),
        port: HostPort {
            v6: false,
            address: address.map(|a| a.parse().unwrap()),
            protocol: IP_PROTO_TCP,
            port: number,
        },
        leads: Some(Leads { to: "10.77.0.11".parse().unwrap(), port: 80, mac: [2, 0, 0, 0, 0, 1] }),
    }
}

fn file(addresses: &[&str], link: Option<&str>) -> GatewayConfig {
    let addresses: Vec<IpNet> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    GatewayConfig {
        port: "br0".to_owned(),
        link: "br0".to_owned(),
        packet_links: Vec::new(),
        mac: stable_mac("br0", &addresses),
        mtu: None,
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: Vec::new(),
        forward: true,
        masquerade: link.map(|link| MasqueradeConfig {
            inside: addresses.iter().map(IpNet::trunc).collect(),
            addresses: vec![link.parse().unwrap()],
            except: Vec::new(),
            ports: None,
            zone: 65_520,
            first_table: FIRST_TABLE,
            host_rule: true,
        }),
        addresses,
        vlan: None,
        share: Share::default(),
    }
}

fn links(state: &mut State) -> Vec<(String, Vec<String>, u16)> {
    let of =
        |config: &GatewayConfig| config.masquerade.iter().flat_map(|m| &m.addresses).map(ToString::to_string).collect();
    state.wanted().unwrap().values().map(|config| (config.link.clone(), of(config), config.zone())).collect()
}

fn row(link: &str, address: &str, zone: u16) -> (String, Vec<String>, u16) {
    (link.to_owned(), vec![address.to_owned()], zone)
}

#[test]
fn gateways_have_addresses_and_bridges_zones_of_their_own_and_keep_them() {
    let mut state = State { networks: vec![network("b", "br1", None, "10.2.0.1/24")], ..State::default() };
    assert_eq!(links(&mut state), [row("br1", "169.254.77.2", 65_520)]);
    state.networks.push(network("a", "br0", Some(7), "10.1.0.1/24"));
    state.networks.push(network("c", "br0", None, "10.3.0.1/24"));
    let wanted =
        [row("br0", "169.254.77.4", 65_519), row("br0.7", "169.254.77.6", 65_519), row("br1", "169.254.77.2", 65_520)];
    assert_eq!(links(&mut state), wanted);
    state.networks.remove(0);
    assert_eq!(links(&mut state), wanted[..2]);
}

#[test]
fn what_the_configuration_says_stays_as_it_says() {
    let mut state = State { networks: vec![network("a", "br1", None, "10.1.0.1/24")], ..State::default() };
    assert_eq!(links(&mut state), [row("br1", "169.254.77.2", 65_520)]);
    let said = file(&["10.77.0.1/24"], Some("169.254.77.2"));
    state.file.insert("br0".to_owned(), said.clone());
    assert_eq!(links(&mut state), [row("br0", "169.254.77.2", 65_520), row("br1", "169.254.77.4", 65_519)]);
    assert_eq!(state.wanted().unwrap()[&("br0".to_owned(), None)], said, "nobody shares it");
}

#[test]
fn a_network_shares_the_configurations_gateway() {
    let mut state = State::default();
    state.file.insert("br0".to_owned(), file(&["10.77.0.1/24"], None));
    state.networks = vec![network("a", "br0", None, "10.77.0.1/24"), network("b", "br0", None, "10.88.0.1/24")];
    state.ports = vec![port("a", None, 80)];
    let wanted = state.wanted().unwrap();
    let config = &wanted[&("br0".to_owned(), None)];
    assert_eq!(wanted.len(), 1);
    assert_eq!(config.mac, file(&["10.77.0.1/24"], None).mac);
    assert_eq!(config.addresses, ["10.77.0.1/24", "10.88.0.1/24"].map(|a| a.parse::<IpNet>().unwrap()));
    assert_eq!(config.inside(), ["10.77.0.0/24", "10.88.0.0/24"].map(|a| a.parse::<IpNet>().unwrap()));
    assert_eq!(config.share.routed, []);
    assert_eq!(config.share.incoming, ["169.254.77.3".parse::<IpAddr>().unwrap()]);
}

#[test]
fn ports_of_one_number_are_told_apart_at_the_link_and_keep_their_places() {
    let mut state = State { networks: vec![network("a", "br0", None, "10.77.0.1/24")], ..State::default() };
    state.ports = vec![port("a", Some("192.0.2.1"), 80), port("a", None, 80), port("a", None, 81)];
    let ports = |state: &mut State| {
        let wanted = state.wanted().unwrap();
        wanted[&("br0".to_owned(), None)].share.ports.values().copied().collect::<Vec<_>>()
    };
    // Sorted by address, those of all addresses first: they have their own numbers.
    assert_eq!(ports(&mut state), [80, 81, 1024]);
    // What another left is not moved to.
    let first = state.ports.remove(1);
    assert_eq!(ports(&mut state), [81, 1024]);
    state.ports.push(port("a", Some("192.0.2.2"), 80));
    assert_eq!(ports(&mut state), [81, 1024, 80]);
    state.ports.push(first);
    assert_eq!(ports(&mut state), [80, 81, 1024, 1025]);
    state
        .ports
        .push(NetworkPort { port: HostPort { protocol: IP_PROTO_UDP, ..state.ports[1].port }, ..port("a", None, 1) });
    assert_eq!(ports(&mut state), [80, 81, 81, 1024, 1025]);
}

#[test]
fn ports_and_routes_of_a_steered_network_need_no_flows_and_the_link_is_there_without_masquerade() {
    let steered = NetworkGateway {
        masquerade: Vec::new(),
        routes: vec!["10.96.0.0/12".parse().unwrap()],
        steered: true,
        ..network("a", "br0", None, "10.77.0.1/24")
    };
    let mut state = State { networks: vec![steered], ..State::default() };
    assert_eq!(state.link("a"), None, "it is not made");
    state.ports = vec![NetworkPort { leads: None, ..port("a", None, 30_080) }];
    let wanted = state.wanted().unwrap();
    let config = &wanted[&("br0".to_owned(), None)];
    assert_eq!((&config.masquerade, config.share.services.len()), (&None, 0));
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let side = crate::host::gateway::host_side(config);
    let routes: Vec<_> = side.routes.iter().map(|r| (r.to.to_string(), r.via, r.source)).collect();
    assert_eq!(
        routes,
        [
            ("169.254.77.2/32".to_owned(), None, None),
            ("169.254.77.3/32".to_owned(), None, None),
            ("10.96.0.0/12".to_owned(), Some(ip("169.254.77.2")), Some(ip("10.77.0.1"))),
        ]
    );
    let link = vec![ip("169.254.77.2")];
    assert_eq!((side.masquerade, side.ports.hidden), (link.clone(), link), "flows of somebody else's send with it");
    let gateway = crate::host::gateway::of_flows(config, sluice_flows::PortNo::LOCAL);
    assert_eq!(sluice_flows::gateway::flows_of(&[gateway]), []);
    let mac = config.mac;
    state.made = wanted;
    let link = state.link("a").unwrap();
    let port = HostPort { v6: false, address: None, protocol: IP_PROTO_TCP, port: 30_080 };
    let (addresses, incoming) = (vec![ip("169.254.77.2")], vec![ip("169.254.77.3")]);
    assert_eq!(link, NetworkLink { port: "br0".to_owned(), mac, addresses, incoming, ports: vec![(port, 30_080)] });
}

#[test]
fn an_address_of_the_last_pair_is_one_of_the_link() {
    for (pair, out, inward) in [
        (0, "169.254.77.2", "169.254.77.3"),
        (126, "169.254.77.254", "169.254.77.255"),
        (127, "169.254.78.0", "169.254.78.1"),
        (PAIRS - 1, "169.254.155.32", "169.254.155.33"),
    ] {
        assert_eq!(address(pair, Side::Out, true).to_string(), out);
        assert_eq!(address(pair, Side::In, true).to_string(), inward);
    }
    assert_eq!(address(1, Side::In, false).to_string(), "fd73:6c75:6963::5");
}
