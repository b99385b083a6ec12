//! One of several next hops dies.

use super::*;
use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;
use sluice_tests::variant;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

/// An address that all the next hops have.
const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 9);
/// Flows.
const FLOWS: u16 = 60;

/// The next hop, by number, that each flow comes to.
fn ways(sender: &[UdpSocket], service: &BTreeMap<u8, UdpSocket>) -> BTreeMap<u16, u8> {
    let mut ways = BTreeMap::new();
    wait_until("every flow has come to one of them", || {
        for socket in sender.iter().filter(|s| !ways.contains_key(&s.local_addr().unwrap().port())) {
            _ = socket.send_to(b"which way?", (SERVICE, 7000));
        }
        std::thread::sleep(Duration::from_millis(20));
        for (n, socket) in service {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                ways.insert(from.port(), *n);
            }
        }
        ways.len() == usize::from(FLOWS)
    });
    ways
}

#[test]
fn when_one_of_three_next_hops_stops_answering_only_its_flows_move() {
    if skipped("when_one_of_three_next_hops_stops_answering_only_its_flows_move") {
        return;
    }
    let mut lan = Lan::new(&["a"], FailMode::Secure, 1);
    for n in 1..=4 {
        join(&mut lan, "a", n, (n, 9), variant::port(), 1500);
    }
    let mut service = BTreeMap::new();
    for n in 2..=4 {
        let host = lan.host(n);
        host.netns.add_address("lo", SERVICE.into(), 32).unwrap();
        let socket = host.udp_at((SERVICE, 7000).into());
        socket.set_nonblocking(true).unwrap();
        service.insert(n, socket);
    }
    let interfaces = (1..=4).map(|n| interface(&format!("h{n}"), &[&format!("10.{n}.0.1/24")])).collect();
    let routes = vec![route("172.16.0.0/24", &["10.2.0.9", "10.3.0.9", "10.4.0.9"])];
    let probe =
        |n: u8| NamedProbe { address: format!("10.{n}.0.9"), interval_ms: 100, losses: 3, ..NamedProbe::default() };
    let probes = (2..=4).map(probe).collect();
    set(&lan, &NamedRouter { probes, ..router("r1", "a", interfaces, routes) });
    let sender: Vec<_> = (0..FLOWS).map(|_| lan.host(1).udp(lan.host(1).v4)).collect();
    let before = ways(&sender, &service);
    let shares: Vec<_> = (2..=4).map(|n| before.values().filter(|way| **way == n).count()).collect();
    assert!(shares.iter().all(|share| *share >= 5), "{shares:?}");

    let ignore = |value: &str| {
        let write = || std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", value);
        lan.host(3).netns.run(write).unwrap();
    };
    let dead = || lan.datapath.router_list()[0].dead.len();
    ignore("1");
    wait_until("the next hop counts as dead", || dead() == 1);
    let after = ways(&sender, &service);
    for (flow, way) in &before {
        assert!(if *way == 3 { after[flow] != 3 } else { after[flow] == *way }, "flow {flow}: {way}, {}", after[flow]);
    }
    ignore("0");
    wait_until("the next hop is alive again", || dead() == 0);
    assert_eq!(ways(&sender, &service), before);
}
