//! Real clients of what nobody takes in: their kernels believe the answers.

use sluice_flows::DropReason;
use sluice_flows::bridge::VlanMode;
use sluice_switch::FailMode;
use sluice_tests::host::Kind;
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::variant;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};

/// A host whose neighbours are all behind one hardware address, and addresses of which none is anybody's.
fn lan(kind: Kind, flows: &[&str]) -> (Lan, [IpAddr; 2]) {
    let mut lan = Lan::new(&["br0"], FailMode::Secure, 1);
    lan.add_host("br0", 1, kind, 1500, VlanMode::default());
    lan.add_flows("br0", flows);
    let services = ["10.99.0.77".parse().unwrap(), "fd99::77".parse().unwrap()];
    for service in services {
        lan.host(1).netns.add_neighbour("eth0", service, [2, 0, 0, 0, 0, 0x77]).unwrap();
    }
    (lan, services)
}

/// TCP and UDP to each of the addresses are refused at once.
fn is_refused(lan: &Lan, services: [IpAddr; 2]) {
    let host = lan.host(1);
    for service in services {
        let refused = host.netns.run(|| TcpStream::connect((service, 80))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "TCP to {service}");
        let socket = host.udp(service);
        socket.connect((service, 53)).unwrap();
        socket.send(b"anyone?").unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused, "UDP to {service}");
    }
}

#[test]
fn clients_of_what_is_rejected_are_refused_at_once() {
    if skipped("clients_of_what_is_rejected_are_refused_at_once") {
        return;
    }
    for kind in Kind::ALL {
        let (lan, services) = lan(kind, &["priority=1,actions=reject"]);
        is_refused(&lan, services);
        // What the host said before there were flows.
        lan.check_accounts(&[DropReason::RuleDrop, DropReason::NoRule]);
    }
}

#[test]
fn clients_are_refused_by_the_address_that_they_asked_even_behind_address_translation() {
    if skipped("clients_are_refused_by_the_address_that_they_asked_even_behind_address_translation") {
        return;
    }
    let flows = [
        "table=0,ip,actions=ct(commit,zone=1,nat(dst=10.99.0.200:8080),table=1)",
        "table=0,ipv6,actions=ct(commit,zone=1,nat(dst=[fd99::200]:8080),table=1)",
        "table=1,ip,nw_dst=10.99.0.200,actions=reject",
        "table=1,ipv6,ipv6_dst=fd99::200,actions=reject",
    ];
    let (lan, services) = lan(variant::port(), &flows);
    // Later ones find the connection of an earlier one, or make their own.
    for _ in 0..3 {
        is_refused(&lan, services);
    }
}
