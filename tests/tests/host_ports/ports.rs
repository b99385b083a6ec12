//! Ports of the machine that lead to containers.

use crate::machine::{
    CLIENT, MACHINE, MORE, Machine, Server, TCP, UDP, ask, blue, call, caller, everywhere, ip, one, red,
};
use std::io::ErrorKind;

#[test]
fn a_client_outside_reaches_the_container_which_sees_the_client() {
    let Some(machine) = Machine::new("a_client_outside_reaches_the_container_which_sees_the_client") else { return };
    let container = machine.container(&blue(), 11);
    let _servers = (Server::tcp(&container.netns, 80, "web"), Server::udp(&container.netns, 53, "names"));
    let ports = [(TCP, 8080, 80), (UDP, 5353, 53), (UDP, 5354, 54)]
        .map(|(protocol, port, to)| everywhere(&blue(), &container, protocol, port, to))
        .concat();
    machine.apply(&[blue()], &ports).unwrap();
    for family in [0, 1] {
        for machines in [MACHINE[family], MORE[family]] {
            assert_eq!(ask(&machine.outside, machines, 8080).unwrap(), format!("{} web", CLIENT[family]));
            let names = call(&caller(&machine.outside, machines, 5353)).unwrap();
            assert_eq!(names, format!("{} names", CLIENT[family]));
            assert_eq!(ask(&machine.outside, machines, 8081), Err(ErrorKind::ConnectionRefused), "no port");
            // What the container says of it crosses both translations.
            assert_eq!(call(&caller(&machine.outside, machines, 5354)), Err(ErrorKind::ConnectionRefused), "no server");
        }
    }
    assert_eq!(machine.check(&[blue()], &ports), [] as [String; 0]);
}

#[test]
fn the_machine_itself_reaches_the_container_by_any_of_its_addresses() {
    let Some(machine) = Machine::new("the_machine_itself_reaches_the_container_by_any_of_its_addresses") else {
        return;
    };
    let container = machine.container(&blue(), 11);
    let _servers = (Server::tcp(&container.netns, 80, "web"), Server::udp(&container.netns, 80, "web"));
    let ports =
        [everywhere(&blue(), &container, TCP, 8080, 80), everywhere(&blue(), &container, UDP, 8080, 80)].concat();
    machine.apply(&[blue()], &ports).unwrap();
    for (address, seen) in [
        (MACHINE[0], MACHINE[0]),
        (MORE[1], MORE[1]),
        ("10.77.0.1", "10.77.0.1"),
        ("fd77::1", "fd77::1"),
        ("127.0.0.1", "10.77.0.1"),
        ("127.0.0.9", "10.77.0.1"),
    ] {
        assert_eq!(ask(&machine.netns, address, 8080).as_deref(), Ok(format!("{seen} web").as_str()), "{address}");
        assert_eq!(call(&caller(&machine.netns, address, 8080)).as_deref(), Ok(format!("{seen} web").as_str()));
    }
    // The kernel would send nothing from there, so nothing is redirected.
    assert_eq!(ask(&machine.netns, "::1", 8080), Err(ErrorKind::ConnectionRefused));
    // And the container itself reaches nothing of the machine's loopback.
    let listener = machine.netns.run(|| std::net::TcpListener::bind((ip("127.0.0.1"), 7777))).unwrap();
    listener.set_nonblocking(true).unwrap();
    crate::machine::run(&container.netns, &["ip", "addr", "flush", "dev", "lo"]);
    crate::machine::run(&container.netns, &["sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1"]);
    crate::machine::run(
        &container.netns,
        &["ip", "route", "add", "127.0.0.1", "via", "10.77.0.1", "src", "10.77.0.11"],
    );
    let short = std::time::Duration::from_millis(300);
    let connect = || std::net::TcpStream::connect_timeout(&(ip("127.0.0.1"), 7777).into(), short);
    assert!(container.netns.run(connect).is_err(), "a container reached the machine's loopback");
}

#[test]
fn containers_reach_ports_of_the_machine_their_own_included() {
    let Some(machine) = Machine::new("containers_reach_ports_of_the_machine_their_own_included") else { return };
    let routed = sluice_switch::host::NetworkGateway { masquerade: Vec::new(), ..red() };
    let containers = [machine.container(&blue(), 11), machine.container(&blue(), 12), machine.container(&routed, 13)];
    let _servers = (
        Server::tcp(&containers[0].netns, 80, "one"),
        Server::udp(&containers[0].netns, 80, "one"),
        Server::tcp(&containers[2].netns, 80, "three"),
        Server::udp(&containers[2].netns, 80, "three"),
    );
    let ports = [
        everywhere(&blue(), &containers[0], TCP, 8001, 80),
        everywhere(&blue(), &containers[0], UDP, 8001, 80),
        everywhere(&routed, &containers[2], TCP, 8003, 80),
        everywhere(&routed, &containers[2], UDP, 8003, 80),
    ]
    .concat();
    machine.apply(&[blue(), routed], &ports).unwrap();
    for (n, from) in containers.iter().enumerate() {
        for to in [MACHINE[0], MORE[0], "10.77.0.1", "10.88.0.1", MACHINE[1], "fd77::1", "fd88::1"] {
            for (port, name) in [(8001, "one"), (8003, "three")] {
                let said = ask(&from.netns, to, port).unwrap_or_else(|e| panic!("container {n}, {to}:{port}: {e}"));
                assert!(said.ends_with(name), "container {n}, {to}:{port}: {said}");
                let said = call(&caller(&from.netns, to, port));
                let said = said.unwrap_or_else(|e| panic!("container {n}, UDP {to}:{port}: {e}"));
                assert!(said.ends_with(name), "container {n}, UDP {to}:{port}: {said}");
            }
        }
    }
}

#[test]
fn what_reaches_the_container_itself_goes_on_beside_its_port() {
    let Some(machine) = Machine::new("what_reaches_the_container_itself_goes_on_beside_its_port") else { return };
    let containers = [11, 12].map(|n| machine.container(&blue(), n));
    let _server = Server::tcp(&containers[0].netns, 80, "web");
    machine.apply(&[blue()], &everywhere(&blue(), &containers[0], TCP, 80, 80)).unwrap();
    for (family, address) in containers[0].addresses.iter().map(ToString::to_string).enumerate() {
        let own = ["10.77.0.1", "fd77::1"][family];
        assert_eq!(ask(&machine.netns, &address, 80).unwrap(), format!("{own} web"));
        assert_eq!(
            ask(&containers[1].netns, &address, 80).unwrap(),
            format!("{} web", containers[1].addresses[family])
        );
        // And it goes out itself.
        crate::machine::ping(&containers[0].netns, CLIENT[family]);
        crate::machine::ping(&containers[0].netns, own);
        let _server = Server::tcp(&machine.outside, 7000, "outside");
        assert_eq!(ask(&containers[0].netns, CLIENT[family], 7000).unwrap(), format!("{} outside", MACHINE[family]));
    }
}

#[test]
fn a_port_of_one_address_is_of_that_alone_and_wins_there() {
    let Some(machine) = Machine::new("a_port_of_one_address_is_of_that_alone_and_wins_there") else { return };
    let containers = [11, 12, 13].map(|n| machine.container(&blue(), n));
    let _servers: Vec<_> =
        containers.iter().zip(["one", "two", "three"]).map(|(c, name)| Server::tcp(&c.netns, 80, name)).collect();
    for family in [0, 1] {
        let first = one(&blue(), &containers[0], family, Some(MACHINE[family]), (TCP, 8080), 80);
        let second = one(&blue(), &containers[1], family, Some(MORE[family]), (TCP, 8080), 80);
        machine.apply(&[blue()], std::slice::from_ref(&first)).unwrap();
        let name = |to: &str| ask(&machine.outside, to, 8080).map(|said| said.rsplit(' ').next().unwrap().to_owned());
        assert_eq!(name(MACHINE[family]).as_deref(), Ok("one"));
        assert_eq!(name(MORE[family]), Err(ErrorKind::ConnectionRefused));
        machine.apply(&[blue()], &[first.clone(), second.clone()]).unwrap();
        assert_eq!((name(MACHINE[family]).as_deref(), name(MORE[family]).as_deref()), (Ok("one"), Ok("two")));
        let any = one(&blue(), &containers[2], family, None, (TCP, 8080), 80);
        machine.apply(&[blue()], &[first.clone(), any]).unwrap();
        assert_eq!((name(MACHINE[family]).as_deref(), name(MORE[family]).as_deref()), (Ok("one"), Ok("three")));
        let taken = one(&blue(), &containers[2], family, Some(MACHINE[family]), (TCP, 8080), 80);
        let refused = machine.apply(&[blue()], &[first, taken]).unwrap_err().to_string();
        assert!(refused.contains("belongs to blue/10.77.0.11 already"), "{refused}");
    }
    // One of the loopback is the machine's own.
    let own = one(&blue(), &containers[0], 0, Some("127.0.0.1"), (TCP, 8080), 80);
    machine.apply(&[blue()], &[own]).unwrap();
    assert_eq!(ask(&machine.netns, "127.0.0.1", 8080).unwrap(), "10.77.0.1 one");
    assert_eq!(ask(&machine.outside, MACHINE[0], 8080), Err(ErrorKind::ConnectionRefused));
    // Not even by the address that it has inside.
    machine.outside.add_route(ip("169.254.77.3"), 32, ip(MACHINE[0])).unwrap();
    let short = std::time::Duration::from_millis(300);
    let connect = || std::net::TcpStream::connect_timeout(&(ip("169.254.77.3"), 8080).into(), short);
    assert!(machine.outside.run(connect).is_err());
    let loopback = one(&blue(), &containers[0], 1, Some("::1"), (TCP, 8080), 80);
    let refused = machine.apply(&[blue()], &[loopback]).unwrap_err().to_string();
    assert!(refused.contains("take 127.0.0.1"), "{refused}");
}

#[test]
fn a_port_that_is_gone_is_refused_again_and_at_the_end_all_is_as_before() {
    let Some(machine) = Machine::new("a_port_that_is_gone_is_refused_again_and_at_the_end_all_is_as_before") else {
        return;
    };
    let before = machine.state();
    let container = machine.container(&blue(), 11);
    let _server = Server::tcp(&container.netns, 80, "web");
    let ports = everywhere(&blue(), &container, TCP, 8080, 80);
    machine.apply(&[blue()], &ports).unwrap();
    assert!(machine.say("nft list tables").contains("table inet sluice-ports-br0"));
    let stream = machine.outside.run(|| std::net::TcpStream::connect((ip(MACHINE[0]), 8080))).unwrap();
    machine.apply(&[blue()], &[]).unwrap();
    assert!(!machine.say("nft list tables").contains("sluice-ports"));
    assert_eq!(
        machine.say("sysctl -n net.ipv4.conf.br0.route_localnet"),
        "0\n",
        "nothing guards the loopback any more"
    );
    for machines in MACHINE {
        assert_eq!(ask(&machine.outside, machines, 8080), Err(ErrorKind::ConnectionRefused));
    }
    drop(stream);
    machine.apply(&[], &[]).unwrap();
    let rules = |state: &str| state.split("# nft list ruleset").nth(1).unwrap().to_owned();
    assert_eq!(rules(&machine.state()), rules(&before));
    let state = machine.state();
    assert!(!state.contains("proto 83") && !state.contains("10.77.0.1/24") && !state.contains("alias"), "{state}");
    assert!(machine.datapath.gateways().is_empty());
    let flows = machine
        .datapath
        .bridge("br0")
        .unwrap()
        .tables
        .iter()
        .filter(|r| r.spec.owner.to_string().contains("gateway"))
        .count();
    assert_eq!(flows, 0);
}

#[test]
fn a_port_more_is_one_element_more_however_many_there_are() {
    let Some(machine) = Machine::new("a_port_more_is_one_element_more_however_many_there_are") else { return };
    let container = machine.container(&blue(), 11);
    let _server = Server::tcp(&container.netns, 80, "web");
    let mut ports: Vec<_> = (10_000..11_000).map(|port| one(&blue(), &container, 0, None, (TCP, port), 80)).collect();
    machine.apply(&[blue()], &ports).unwrap();
    let rules = machine.say("nft -a list chain inet sluice-ports-br0 services");
    let one_more = one(&blue(), &container, 0, None, (TCP, 9999), 80);
    ports.push(one_more);
    let done = machine.apply(&[blue()], &ports).unwrap();
    assert_eq!(done, ["add host ports tcp 0.0.0.0:9999 in nftables table inet sluice-ports-br0"]);
    assert_eq!(machine.say("nft -a list chain inet sluice-ports-br0 services"), rules, "the table is the same one");
    assert_eq!(machine.apply(&[blue()], &ports).unwrap(), [] as [String; 0]);
    for port in [9999, 10_000, 10_999] {
        assert_eq!(ask(&machine.outside, MACHINE[0], port).unwrap(), format!("{} web", CLIENT[0]));
    }
}

#[test]
fn what_others_undo_is_told() {
    let Some(machine) = Machine::new("what_others_undo_is_told") else { return };
    let container = machine.container(&blue(), 11);
    let ports = everywhere(&blue(), &container, TCP, 8080, 80);
    machine.apply(&[blue()], &ports).unwrap();
    machine.say("nft delete element inet sluice-ports-br0 any4 { tcp . 8080 : 8080 }");
    machine.say("ip addr del 10.77.0.1/24 dev br0");
    let said = machine.check(&[blue()], &ports);
    for wanted in [
        "gateway br0: missing: add address 10.77.0.1/24 dev br0",
        "gateway br0: missing: add host ports tcp 0.0.0.0:8080 in nftables table inet sluice-ports-br0",
    ] {
        assert!(said.iter().any(|said| said == wanted), "{wanted} is not in {said:#?}");
    }
    let said = machine.check(&[blue()], &ports[..1]);
    assert!(said.iter().any(|said| said.contains("not made as the networks ask for")), "{said:#?}");
}
