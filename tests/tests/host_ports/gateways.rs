//! Gateways of several networks.

use crate::machine::{CLIENT, MACHINE, Machine, Server, TCP, ask, blue, everywhere, ip, network, ping, red};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use sluice_switch::host::NetworkGateway;
use sluice_switch::host::gateway::GatewayConfig;
use std::io::ErrorKind;
use std::time::Duration;

/// The groups of rtnetlink with links, addresses, routes and rules of both families.
const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];

/// Whether nobody is reached there.
fn silent(from: &sluice_tests::netns::Netns, to: &str, port: u16) -> bool {
    let connect = || std::net::TcpStream::connect_timeout(&(ip(to), port).into(), Duration::from_millis(300));
    from.run(connect).is_err()
}

#[test]
fn two_networks_share_a_bridge_one_masqueraded_and_one_routed() {
    let Some(machine) = Machine::new("two_networks_share_a_bridge_one_masqueraded_and_one_routed") else { return };
    let routed = NetworkGateway { masquerade: Vec::new(), ..red() };
    machine.apply(&[blue(), routed.clone()], &[]).unwrap();
    let (one, two) = (machine.container(&blue(), 11), machine.container(&routed, 12));
    let _servers = (
        Server::tcp(&machine.outside, 80, "outside"),
        Server::tcp(&one.netns, 80, "one"),
        Server::tcp(&two.netns, 80, "two"),
    );
    machine.outside.add_route(ip("10.88.0.0"), 24, ip(MACHINE[0])).unwrap();
    machine.outside.add_route(ip("fd88::"), 64, ip(MACHINE[1])).unwrap();
    for family in [0, 1] {
        assert_eq!(ask(&one.netns, CLIENT[family], 80).unwrap(), format!("{} outside", MACHINE[family]));
        assert_eq!(ask(&two.netns, CLIENT[family], 80).unwrap(), format!("{} outside", two.addresses[family]));
        // The networks see each other as they are, and the outside reaches the routed one.
        assert_eq!(
            ask(&one.netns, &two.addresses[family].to_string(), 80).unwrap(),
            format!("{} two", one.addresses[family])
        );
        assert_eq!(
            ask(&two.netns, &one.addresses[family].to_string(), 80).unwrap(),
            format!("{} one", two.addresses[family])
        );
        assert_eq!(
            ask(&machine.outside, &two.addresses[family].to_string(), 80).unwrap(),
            format!("{} two", CLIENT[family])
        );
    }
}

#[test]
fn two_vlans_have_gateways_of_their_own_which_go_with_their_networks() {
    let Some(machine) = Machine::new("two_vlans_have_gateways_of_their_own_which_go_with_their_networks") else {
        return;
    };
    let networks = [NetworkGateway { vlan: Some(10), ..blue() }, NetworkGateway { vlan: Some(20), ..red() }];
    let containers = [machine.container(&networks[0], 11), machine.container(&networks[1], 12)];
    let _servers: Vec<_> =
        containers.iter().zip(["one", "two"]).map(|(c, name)| Server::tcp(&c.netns, 80, name)).collect();
    let ports = [
        everywhere(&networks[0], &containers[0], TCP, 8001, 80),
        everywhere(&networks[1], &containers[1], TCP, 8002, 80),
    ]
    .concat();
    machine.apply(&networks, &ports).unwrap();
    let links: Vec<_> = machine.datapath.gateways().into_iter().map(|(_, config)| config).collect();
    let said = |config: &GatewayConfig| {
        let masquerade: Vec<_> =
            config.masquerade.iter().flat_map(|m| m.addresses.iter().map(ToString::to_string)).collect();
        (config.link.clone(), config.vlan, masquerade[0].clone(), config.share.incoming[0].to_string())
    };
    let wanted =
        [("br0.10", Some(10), "169.254.77.2", "169.254.77.3"), ("br0.20", Some(20), "169.254.77.4", "169.254.77.5")];
    assert_eq!(
        links.iter().map(said).collect::<Vec<_>>(),
        wanted.map(|(a, b, c, d)| (a.to_owned(), b, c.to_owned(), d.to_owned()))
    );
    let _server = Server::tcp(&machine.outside, 80, "outside");
    for family in [0, 1] {
        for (n, container) in containers.iter().enumerate() {
            ping(&container.netns, ["10.77.0.1", "fd77::1", "10.88.0.1", "fd88::1"][2 * n + family]);
            assert_eq!(ask(&container.netns, CLIENT[family], 80).unwrap(), format!("{} outside", MACHINE[family]));
            for (port, name) in [(8001, "one"), (8002, "two")] {
                let said = ask(&container.netns, MACHINE[family], port).unwrap();
                assert!(said.ends_with(name), "{said}");
                assert_eq!(ask(&machine.outside, MACHINE[family], port).unwrap(), format!("{} {name}", CLIENT[family]));
            }
        }
        let far = containers[1].addresses[family].to_string();
        assert!(ask(&containers[0].netns, &far, 80).unwrap().ends_with("two"));
    }
    machine.apply(&networks[1..], &ports[2..]).unwrap();
    let state = machine.state();
    assert!(!state.contains("br0.10") && state.contains("br0.20"), "{state}");
    assert_eq!(ask(&machine.outside, MACHINE[0], 8002).unwrap(), format!("{} two", CLIENT[0]));
    assert_eq!(ask(&machine.outside, MACHINE[0], 8001), Err(ErrorKind::ConnectionRefused));
    machine.apply(&[], &[]).unwrap();
    assert!(!machine.state().contains("br0.20"));
    assert_eq!(machine.datapath.ports(Some("br0")).unwrap().iter().filter(|p| p.port.name.contains('.')).count(), 0);
}

#[test]
fn an_internal_network_reaches_its_gateway_and_nothing_else() {
    let Some(machine) = Machine::new("an_internal_network_reaches_its_gateway_and_nothing_else") else { return };
    let internal = NetworkGateway { internal: true, ..red() };
    let networks = [blue(), internal.clone()];
    machine.apply(&networks, &[]).unwrap();
    let (one, two) = (machine.container(&blue(), 11), machine.container(&internal, 12));
    let _servers = (
        Server::tcp(&machine.outside, 80, "outside"),
        Server::tcp(&machine.netns, 81, "machine"),
        Server::tcp(&one.netns, 80, "one"),
        Server::tcp(&two.netns, 80, "two"),
    );
    machine.outside.add_route(ip("10.88.0.0"), 24, ip(MACHINE[0])).unwrap();
    machine.outside.add_route(ip("fd88::"), 64, ip(MACHINE[1])).unwrap();
    for family in [0, 1] {
        let own = ["10.88.0.1", "fd88::1"][family];
        ping(&two.netns, own);
        assert_eq!(ask(&two.netns, own, 81).unwrap(), format!("{} machine", two.addresses[family]));
        assert_eq!(ask(&machine.netns, &two.addresses[family].to_string(), 80).unwrap(), format!("{own} two"));
        assert!(silent(&two.netns, CLIENT[family], 80), "it reached the outside");
        assert!(silent(&two.netns, MACHINE[family], 81), "it reached another address of the machine's");
        assert!(silent(&two.netns, &one.addresses[family].to_string(), 80), "it reached another network");
        assert!(silent(&machine.outside, &two.addresses[family].to_string(), 80), "the outside reached it");
        assert!(silent(&one.netns, &two.addresses[family].to_string(), 80), "another network reached it");
        assert_eq!(ask(&one.netns, CLIENT[family], 80).unwrap(), format!("{} outside", MACHINE[family]));
    }
    let refused = machine.apply(&networks, &everywhere(&internal, &two, TCP, 80, 80)).unwrap_err().to_string();
    assert!(refused.contains("which is internal"), "{refused}");
}

#[test]
fn an_internal_network_behind_another_gateway_is_not_reached_through_the_host() {
    let Some(machine) = Machine::new("an_internal_network_behind_another_gateway") else { return };
    let internal = NetworkGateway { internal: true, vlan: Some(20), ..red() };
    let networks = [blue(), internal.clone()];
    machine.apply(&networks, &[]).unwrap();
    let (one, two) = (machine.container(&blue(), 11), machine.container(&internal, 12));
    let _servers = (Server::tcp(&machine.outside, 80, "outside"), Server::tcp(&two.netns, 80, "two"));
    for family in [0, 1] {
        let own = ["10.88.0.1", "fd88::1"][family];
        assert_eq!(ask(&machine.netns, &two.addresses[family].to_string(), 80).unwrap(), format!("{own} two"));
        assert!(silent(&one.netns, &two.addresses[family].to_string(), 80), "masqueraded, it reached it");
        assert_eq!(ask(&one.netns, CLIENT[family], 80).unwrap(), format!("{} outside", MACHINE[family]));
    }
}

#[test]
fn exceptions_are_each_networks_own() {
    let Some(machine) = Machine::new("exceptions_are_each_networks_own") else { return };
    let except = NetworkGateway { except: vec!["192.0.2.0/24".parse().unwrap()], ..red() };
    machine.apply(&[blue(), except.clone()], &[]).unwrap();
    let (one, two) = (machine.container(&blue(), 11), machine.container(&except, 12));
    let _servers = (Server::tcp(&machine.outside, 80, "outside"), Server::tcp(&two.netns, 80, "two"));
    machine.outside.add_route(ip("10.88.0.0"), 24, ip(MACHINE[0])).unwrap();
    assert_eq!(ask(&one.netns, CLIENT[0], 80).unwrap(), format!("{} outside", MACHINE[0]));
    assert_eq!(ask(&two.netns, CLIENT[0], 80).unwrap(), format!("{} outside", two.addresses[0]));
    // A port answers to where it is an exception to translate too.
    machine.apply(&[blue(), except.clone()], &everywhere(&except, &two, TCP, 8080, 80)).unwrap();
    assert_eq!(ask(&machine.outside, MACHINE[0], 8080).unwrap(), format!("{} two", CLIENT[0]));
}

#[test]
fn doing_it_again_changes_nothing() {
    let Some(machine) = Machine::new("doing_it_again_changes_nothing") else { return };
    let networks = [blue(), NetworkGateway { vlan: Some(20), ..red() }];
    let container = machine.container(&blue(), 11);
    let ports = everywhere(&blue(), &container, TCP, 8080, 80);
    machine.apply(&networks, &ports).unwrap();
    let mut monitor = machine.netns.run(|| Socket::new(NETLINK_ROUTE)).unwrap();
    monitor.bind_auto().unwrap();
    GROUPS.iter().for_each(|group| monitor.add_membership(*group).unwrap());
    let handles = machine.say("nft -a list ruleset");
    let generation = machine.datapath.model().generation;
    for _ in 0..3 {
        assert_eq!(machine.apply(&networks, &ports).unwrap(), [] as [String; 0]);
        assert_eq!(machine.check(&networks, &ports), [] as [String; 0]);
    }
    monitor.set_non_blocking(true).unwrap();
    let news = monitor.recv_from_full();
    assert!(matches!(&news, Err(error) if error.kind() == ErrorKind::WouldBlock), "{news:02x?}");
    assert_eq!(machine.say("nft -a list ruleset"), handles);
    assert_eq!(machine.datapath.model().generation, generation, "no flow was written again");
}

#[test]
fn a_killed_switch_finds_its_things_again() {
    let Some(mut machine) = Machine::new("a_killed_switch_finds_its_things_again") else { return };
    let container = machine.container(&blue(), 11);
    let _server = Server::tcp(&container.netns, 80, "web");
    let ports = everywhere(&blue(), &container, TCP, 8080, 80);
    machine.apply(&[blue()], &ports).unwrap();
    let handles = machine.say("nft -a list ruleset");
    machine.crash(&[("c11", None)]);
    assert_eq!(machine.say("nft -a list ruleset"), handles, "the tables outlive the switch");
    assert!(ask(&machine.outside, MACHINE[0], 8080).is_err());
    machine.apply(&[blue()], &ports).unwrap();
    assert_eq!(machine.say("nft -a list ruleset"), handles, "they are taken up as they are");
    assert_eq!(ask(&machine.outside, MACHINE[0], 8080).unwrap(), format!("{} web", CLIENT[0]));
    machine.crash(&[("c11", None)]);
    // Something else: what was left goes.
    machine.apply(&[blue()], &[]).unwrap();
    assert!(!machine.say("nft list tables").contains("sluice-ports"));
    machine.apply(&[], &[]).unwrap();
    assert_eq!(machine.say("nft list ruleset"), "");
    // And what was of a network that nobody declares again.
    let vlan = NetworkGateway { vlan: Some(20), ..blue() };
    machine.apply(std::slice::from_ref(&vlan), &everywhere(&vlan, &container, TCP, 8080, 80)).unwrap();
    machine.say("nft add table inet sluice-other");
    machine.say("nft add chain inet sluice-other mine");
    machine.say("nft add rule inet sluice-other mine accept");
    machine.crash(&[("c11", None)]);
    assert!(machine.say("nft list tables").contains("sluice-ports-br0.20"));
    machine.apply(&[], &[]).unwrap();
    assert_eq!(machine.say("nft list tables"), "table inet sluice-other\n", "only another program's is left");
}

#[test]
fn networks_that_do_not_go_together_are_refused_and_nothing_changes() {
    let Some(machine) = Machine::new("networks_that_do_not_go_together_are_refused_and_nothing_changes") else {
        return;
    };
    machine.apply(&[blue()], &[]).unwrap();
    let before = machine.state();
    for (other, wanted) in [
        (network("green", ["10.77.0.1/25", "fd99::1/64"]), "has the same address with another prefix: network blue"),
        (
            NetworkGateway { vlan: Some(5), name: "green".to_owned(), ..blue() },
            "is on another bridge or VLAN and overlaps network blue",
        ),
        (NetworkGateway { internal: true, name: "green".to_owned(), ..blue() }, "is internal where the other is not"),
        (NetworkGateway { bridge: "a-long-bridge".to_owned(), vlan: Some(100), ..red() }, "at most 15 letters"),
    ] {
        let refused = machine.apply(&[blue(), other], &[]).unwrap_err().to_string();
        assert!(refused.contains(wanted), "{refused}");
        machine.apply(&[blue()], &[]).unwrap();
        assert_eq!(machine.state(), before);
    }
}
