//! Traffic between containers, the machine and the outside.

use crate::machine::{
    GATEWAY, LINK, MACHINE, MASQUERADE, Machine, OWN, PORTS, SERVER, connect, ip, listen, patient, ping, run, udp,
};
use sluice_tests::netns::Netns;
use sluice_tests::programs;
use sluice_tests::switch::wait_until;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};

/// The containers' addresses.
const INSIDE: [[&str; 2]; 2] = [["10.77.0.11", "fd77::11"], ["10.77.0.12", "fd77::12"]];
/// Bytes of a long stream.
const LONG: usize = 48 << 20;
/// Bytes of a short one.
const SHORT: usize = 1 << 20;

/// Sends so many bytes each way at once.
fn exchange(near: &TcpStream, far: &TcpStream, len: usize) {
    let send = |mut stream: TcpStream, byte: u8| {
        let block = vec![byte; 1 << 16];
        (0..len / block.len()).try_for_each(|_| stream.write_all(&block)).unwrap();
    };
    let take = |mut stream: TcpStream, byte: u8| {
        let mut block = vec![0; 1 << 16];
        for _ in 0..len / block.len() {
            stream.read_exact(&mut block).unwrap();
            assert!(block.iter().all(|b| *b == byte), "the stream's bytes changed on their way");
        }
    };
    std::thread::scope(|scope| {
        let ends = [near, far].map(|stream| [(); 2].map(|()| stream.try_clone().unwrap()));
        let [[a, b], [c, d]] = ends;
        scope.spawn(move || send(a, 1));
        scope.spawn(move || take(b, 2));
        scope.spawn(move || send(c, 2));
        scope.spawn(move || take(d, 1));
    });
}

/// Connects, exchanges and says whom the listener's side saw.
fn stream(from: &Netns, listener: &TcpListener, len: usize) -> IpAddr {
    let near = connect(from, listener.local_addr().unwrap());
    let (far, peer) = listener.accept().unwrap();
    patient(&far);
    exchange(&near, &far, len);
    peer.ip()
}

#[test]
fn containers_reach_the_outside_which_sees_the_machine_alone() {
    let Some(machine) = Machine::new("containers_reach_the_outside_which_sees_the_machine_alone") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    for (family, server) in SERVER.into_iter().enumerate() {
        for n in [1, 2] {
            ping(machine.container(n), server);
            let (listener, _) = listen(&machine.outside, server);
            assert_eq!(stream(machine.container(n), &listener, SHORT), ip(MACHINE[family]));
            let far = udp(&machine.outside, server);
            let near = udp(machine.container(n), INSIDE[n - 1][family]);
            near.connect(far.local_addr().unwrap()).unwrap();
            for len in [0, 1, 1400] {
                near.send(&vec![n as u8; len]).unwrap();
                let mut buffer = [0; 2000];
                let (got, peer) = far.recv_from(&mut buffer).unwrap();
                assert_eq!((got, peer.ip()), (len, ip(MACHINE[family])));
                far.send_to(&buffer[..got], peer).unwrap();
                assert_eq!(near.recv(&mut buffer).unwrap(), len);
            }
        }
    }
}

#[test]
fn long_streams_of_both_containers_cross_at_once() {
    let Some(machine) = Machine::new("long_streams_of_both_containers_cross_at_once") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    std::thread::scope(|scope| {
        for n in [1, 2] {
            for server in SERVER {
                let machine = &machine;
                scope.spawn(move || stream(machine.container(n), &listen(&machine.outside, server).0, LONG));
            }
        }
    });
}

#[test]
fn traceroutes_show_the_gateway_and_what_is_behind_it() {
    let Some(machine) = Machine::new("traceroutes_show_the_gateway_and_what_is_behind_it") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    for (own, server) in OWN.into_iter().zip(SERVER) {
        for way in ["--udp", "--icmp", "--tcp"] {
            let words = ["traceroute", "-n", "-q", "1", "-w", "5", "-m", "5", way, server];
            let output = run(machine.container(1), &words);
            let hops: Vec<_> = output.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
            assert_eq!(hops, [own, server], "{way}: {output}");
        }
    }
}

#[test]
fn errors_about_translated_packets_reach_who_sent_them() {
    let Some(machine) = Machine::new("errors_about_translated_packets_reach_who_sent_them") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    for (family, server) in SERVER.into_iter().enumerate() {
        let closed = udp(&machine.outside, server).local_addr().unwrap();
        let near = udp(machine.container(1), INSIDE[0][family]);
        near.connect(closed).unwrap();
        near.send(b"anyone?").unwrap();
        assert_eq!(near.recv(&mut [0; 10]).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{server}");
    }
}

/// The MTU that a container believes in on its way to `to`, as far as it was told.
fn path_mtu(netns: &Netns, to: &str) -> Option<String> {
    let output = run(netns, &["ip", "route", "get", to]);
    let mut words = output.split_whitespace();
    words.find(|word| *word == "mtu")?;
    words.next().map(str::to_owned)
}

#[test]
fn containers_learn_of_a_smaller_mtu_outside() {
    let Some(machine) = Machine::new("containers_learn_of_a_smaller_mtu_outside") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    // The server believes in full frames; only what the machine says tells the container.
    machine.netns.set_mtu("up0", 1300).unwrap();
    for server in SERVER {
        assert_eq!(path_mtu(machine.container(1), server), None);
        stream(machine.container(1), &listen(&machine.outside, server).0, SHORT);
        assert_eq!(path_mtu(machine.container(1), server).as_deref(), Some("1300"));
    }
}

#[test]
fn the_machine_is_reached_by_its_gateway_address_as_it_is_and_by_others_translated() {
    let Some(machine) = Machine::new("the_machine_is_reached_by_its_gateway_address_as_it_is_and_by_others_translated")
    else {
        return;
    };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    for family in [0, 1] {
        let reached = |to: &str| stream(machine.container(1), &listen(&machine.netns, to).0, SHORT);
        assert_eq!(reached(OWN[family]), ip(INSIDE[0][family]));
        assert_eq!(reached(MACHINE[family]), ip(LINK[family]));
        // And the other way round.
        let (listener, _) = listen(machine.container(1), INSIDE[0][family]);
        assert_eq!(stream(&machine.netns, &listener, SHORT), ip(OWN[family]));
        // Containers see each other as they are.
        let (listener, _) = listen(machine.container(2), INSIDE[1][family]);
        assert_eq!(stream(machine.container(1), &listener, SHORT), ip(INSIDE[0][family]));
    }
}

#[test]
fn exceptions_are_reached_with_the_inside_address_and_reach_it() {
    let Some(machine) = Machine::new("exceptions_are_reached_with_the_inside_address_and_reach_it") else { return };
    let except = "except = [\"192.0.2.128/25\", \"2001:db8::/96\"]\n";
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE, except]);
    machine.outside.add_address("eth0", ip("192.0.2.130"), 24).unwrap();
    machine.outside.add_route(ip("10.77.0.0"), 24, ip(MACHINE[0])).unwrap();
    machine.outside.add_route(ip("fd77::"), 64, ip(MACHINE[1])).unwrap();
    for (family, server) in ["192.0.2.130", SERVER[1]].into_iter().enumerate() {
        let (listener, _) = listen(&machine.outside, server);
        assert_eq!(stream(machine.container(1), &listener, SHORT), ip(INSIDE[0][family]));
    }
    let (listener, _) = listen(&machine.outside, SERVER[0]);
    assert_eq!(stream(machine.container(1), &listener, SHORT), ip(MACHINE[0]), "no exception");
}

#[test]
fn what_the_outside_begins_with_an_inside_address_is_answered_with_it() {
    let Some(machine) = Machine::new("what_the_outside_begins_with_an_inside_address_is_answered_with_it") else {
        return;
    };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    machine.outside.add_route(ip("10.77.0.0"), 24, ip(MACHINE[0])).unwrap();
    machine.outside.add_route(ip("fd77::"), 64, ip(MACHINE[1])).unwrap();
    for (family, server) in SERVER.into_iter().enumerate() {
        ping(&machine.outside, INSIDE[0][family]);
        let (listener, _) = listen(machine.container(1), INSIDE[0][family]);
        assert_eq!(stream(&machine.outside, &listener, SHORT), ip(server));
        // Datagrams have no states to tell an answer by but the connection's.
        let (far, near) = (udp(&machine.outside, server), udp(machine.container(1), INSIDE[0][family]));
        far.connect(near.local_addr().unwrap()).unwrap();
        far.send(b"question").unwrap();
        let mut buffer = [0; 20];
        let (_, peer) = near.recv_from(&mut buffer).unwrap();
        near.send_to(b"answer", peer).unwrap();
        assert_eq!(far.recv(&mut buffer).unwrap(), 6);
    }
}

#[test]
fn ports_are_of_the_range_asked_for() {
    let Some(machine) = Machine::new("ports_are_of_the_range_asked_for") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE, "ports = \"40000-40003\"\n"]);
    for server in SERVER {
        let (listener, address) = listen(&machine.outside, server);
        let mut streams = Vec::new();
        let mut ports = Vec::new();
        for n in 0..4 {
            streams.push(connect(machine.container(1 + n % 2), address));
            let (far, peer) = listener.accept().unwrap();
            ports.push(peer.port());
            streams.push(far);
        }
        ports.sort_unstable();
        assert_eq!(ports, [40_000, 40_001, 40_002, 40_003]);
    }
}

#[test]
fn a_container_with_a_strange_address_reaches_nobody_outside() {
    let Some(machine) = Machine::new("a_container_with_a_strange_address_reaches_nobody_outside") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    for (family, (strange, server)) in ["10.99.9.9", "fd99::9"].into_iter().zip(SERVER).enumerate() {
        machine.container(1).add_address("eth0", ip(strange), if family == 0 { 32 } else { 128 }).unwrap();
        let far = udp(&machine.outside, server);
        let send = |from: &str, what: &[u8]| {
            udp(machine.container(1), from).send_to(what, far.local_addr().unwrap()).unwrap();
        };
        // The first datagram waits for the neighbour; those behind it are to overtake nothing.
        run(machine.container(1), &["ping", "-c", "1", "-W", "5", "-I", INSIDE[0][family], server]);
        send(strange, b"strange");
        send(INSIDE[0][family], b"known");
        let mut buffer = [0; 20];
        let got = far.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..got], b"known");
    }
}

#[test]
fn a_container_cannot_take_the_gateways_place() {
    let Some(machine) = Machine::new("a_container_cannot_take_the_gateways_place") else { return };
    let _running = machine.start(&[PORTS, GATEWAY, "mac = \"02:00:00:00:77:01\"\n", MASQUERADE]);
    ping(machine.container(1), SERVER[0]);
    run(machine.container(2), &["ip", "link", "set", "eth0", "address", "02:00:00:00:77:01"]);
    // Frames with its address come from the other container now, and none of them counts.
    let (code, _) = programs::run(machine.container(2), &["ping", "-c", "2", "-i", "0.1", "-W", "1", "10.77.0.11"]);
    assert_eq!(code, Some(1));
    ping(machine.container(1), SERVER[0]);
}

#[test]
fn without_a_masquerade_the_machine_routes_addresses_as_they_are() {
    let Some(machine) = Machine::new("without_a_masquerade_the_machine_routes_addresses_as_they_are") else { return };
    let _running = machine.start(&[PORTS, GATEWAY]);
    machine.outside.add_route(ip("10.77.0.0"), 24, ip(MACHINE[0])).unwrap();
    machine.outside.add_route(ip("fd77::"), 64, ip(MACHINE[1])).unwrap();
    for (family, server) in SERVER.into_iter().enumerate() {
        let (listener, _) = listen(&machine.outside, server);
        assert_eq!(stream(machine.container(1), &listener, SHORT), ip(INSIDE[0][family]));
    }
}

#[test]
fn traffic_goes_on_by_itself_after_a_crash() {
    let Some(machine) = Machine::new("traffic_goes_on_by_itself_after_a_crash") else { return };
    let running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    ping(machine.container(1), SERVER[0]);
    ping(machine.container(1), SERVER[1]);
    let neighbour = || run(machine.container(1), &["ip", "neigh", "show", OWN[0]]);
    let mac = |text: String| text.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_owned);
    let before = mac(neighbour()).unwrap();
    running.crash();
    let _running = machine.start(&[PORTS, GATEWAY, MASQUERADE]);
    for server in SERVER {
        wait_until("the outside is reached again", || {
            let words = ["ping", "-n", "-c", "1", "-W", "1", server];
            programs::run(machine.container(1), &words).0 == Some(0)
        });
    }
    assert_eq!(mac(neighbour()).as_deref(), Some(before.as_str()), "the gateway's address is the same");
}
