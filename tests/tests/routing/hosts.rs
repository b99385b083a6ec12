//! Hosts that are configured by nothing but the router's advertisements.

use super::*;
use sluice_flows::PortNo;
use sluice_switch::port::{Tap, TapOptions};
use sluice_switch::router::NamedAdvertisement;
use sluice_switch::{PortDevice, PortRequest};
use sluice_tests::netns::{Netns, skipped};
use sluice_tests::switch::wait_until;
use sluice_tests::variant;
use std::net::UdpSocket;

#[test]
fn a_host_makes_its_address_and_its_routes_of_the_advertisement_alone() {
    if skipped("a_host_makes_its_address_and_its_routes_of_the_advertisement_alone") {
        return;
    }
    let mut lan = Lan::new(&["a"], FailMode::Secure, 1);
    join(&mut lan, "a", 2, (2, 9), variant::port(), 1500);
    let bare = Netns::new().unwrap();
    let options = TapOptions { mac: Some([2, 0, 0, 0, 7, 7]), mtu: Some(1500), up: true, ..TapOptions::default() };
    let tap = bare.run(|| Tap::create("eth0", &options)).unwrap();
    let request = PortRequest { number: Some(PortNo(7)), ..PortRequest::new("h7", PortDevice::Device(Box::new(tap))) };
    lan.datapath.add_port("a", request).unwrap();
    let ra = NamedAdvertisement { max_interval: Some(4), ..NamedAdvertisement::default() };
    let advertised = NamedInterface { ra: Some(ra), mtu: 1400, ..interface("h7", &["fd00:7::1/64"]) };
    let interfaces = vec![interface("h2", &["10.2.0.1/24", "fd00:2::1/64"]), advertised];
    set(&lan, &router("r1", "a", interfaces, vec![]));

    let proc = |file: &str| bare.run(|| std::fs::read_to_string(file)).unwrap();
    // Of the prefix and the hardware address.
    let own = format!("{:032x}", "fd00:7::ff:fe00:707".parse::<Ipv6Addr>().unwrap().to_bits());
    wait_until("the host has made its address", || {
        let all = proc("/proc/thread-self/net/if_inet6");
        // Flag 0x40: duplicates are still looked for.
        all.lines().any(|line| line.starts_with(&own) && line.split_whitespace().nth(4).is_none_or(|f| f != "40"))
    });
    let routes = proc("/proc/thread-self/net/ipv6_route");
    let default = |line: &&str| line.starts_with(&"0".repeat(32)) && line.ends_with("eth0");
    assert_eq!(routes.lines().filter(default).count(), 1, "{routes}");
    assert_eq!(proc("/proc/sys/net/ipv6/conf/eth0/mtu").trim(), "1400");
    let socket = bare.run(|| UdpSocket::bind("[::]:0")).unwrap();
    let far = lan.host(2).udp(lan.host(2).v6);
    wait_until("a datagram arrives", || {
        far.set_nonblocking(true).unwrap();
        _ = socket.send_to(b"hello", far.local_addr().unwrap());
        far.recv(&mut [0; 16]).is_ok()
    });
}
