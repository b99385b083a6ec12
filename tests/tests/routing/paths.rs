//! Through two routers: traffic of every kind, and every hop is seen.

use super::*;
use sluice_flows::DropReason;
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{a_closed_port_is_told, datagrams, ping, stream};
use sluice_tests::variant;

#[test]
fn traffic_of_every_kind_passes_two_routers_over_every_kind_of_port() {
    if skipped("traffic_of_every_kind_passes_two_routers_over_every_kind_of_port") {
        return;
    }
    for kind in Kind::ALL {
        let lan = two_routers(kind, 1500);
        let (a, b) = (lan.host(1), lan.host(2));
        for to in both(b) {
            ping(a, to, 56);
            ping(a, to, 4000);
            datagrams(a, b, to, [1, 1000, 1472, 9000]);
            stream(a, b, to, 3 << 20);
            a_closed_port_is_told(a, to);
        }
        for own in ["10.1.0.1", "10.12.0.1", "10.12.0.2", "10.2.0.1", "fd00:1::1", "fd00:12::2", "fd00:2::1"] {
            ping(a, own.parse().unwrap(), 56);
        }
        // Without a rule is what hosts say before there are routers.
        lan.check_accounts(&[DropReason::RuleDrop, DropReason::NoRule]);
    }
}

#[test]
fn traceroute_shows_each_hop() {
    if skipped("traceroute_shows_each_hop") {
        return;
    }
    let lan = two_routers(variant::port(), 1500);
    let hops = |command: &str| -> Vec<String> {
        let (well, said) = run(lan.host(1), command);
        assert!(well, "{said}");
        // The first line says what is done; on the others the address follows the number of the hop.
        let lines = said.lines().skip(1);
        lines.filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
    };
    for how in ["", "-I"] {
        let v4 = hops(&format!("traceroute -n -4 -w 5 -m 6 {how} 10.2.0.9"));
        assert_eq!(v4, ["10.1.0.1", "10.12.0.2", "10.2.0.9"], "{how}");
        let v6 = hops(&format!("traceroute -n -6 -w 5 -m 6 {how} fd00:2::9"));
        assert_eq!(v6, ["fd00:1::1", "fd00:12::2", "fd00:2::9"], "{how}");
    }
}

#[test]
fn a_host_is_told_that_there_is_no_way_and_nobody_there() {
    if skipped("a_host_is_told_that_there_is_no_way_and_nobody_there") {
        return;
    }
    let lan = two_routers(variant::port(), 1500);
    for (to, want) in [
        ("10.99.0.9", "Destination Net Unreachable"),
        ("10.2.0.77", "Destination Host Unreachable"),
        ("fd00:99::9", "Destination unreachable: No route"),
        ("fd00:2::77", "Destination unreachable: Address unreachable"),
    ] {
        let (well, said) = run(lan.host(1), &format!("ping -n -c 2 -i 0.2 -W 6 {to}"));
        assert!(!well && said.contains(want), "{to}: {said}");
    }
}
