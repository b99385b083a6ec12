//! VRFs with the same addresses.

use super::*;
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{ping, stream};
use sluice_tests::variant;
use std::io::ErrorKind;
use std::time::Duration;

#[test]
fn hosts_with_the_same_addresses_in_two_vrfs_reach_only_their_own() {
    if skipped("hosts_with_the_same_addresses_in_two_vrfs_reach_only_their_own") {
        return;
    }
    let mut lan = Lan::new(&["a"], FailMode::Secure, 1);
    // Hosts 1 and 2 are red, 3 and 4 blue; 5 is blue alone.
    for (n, net) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 5)] {
        join(&mut lan, "a", n, (net, 9), variant::port(), 1500);
    }
    let of = |n: u8, net: u8, vrf: &str| NamedInterface {
        vrf: vrf.into(),
        ..interface(&format!("h{n}"), &[&format!("10.{net}.0.1/24"), &format!("fd00:{net}::1/64")])
    };
    let interfaces = vec![of(1, 1, "red"), of(2, 2, "red"), of(3, 1, "blue"), of(4, 2, "blue"), of(5, 5, "blue")];
    let vrfs = vec!["red".into(), "blue".into()];
    set(&lan, &NamedRouter { vrfs, ..router("r1", "a", interfaces, vec![]) });
    for (from, to) in [(1, 2), (3, 4)] {
        let (a, b, other) = (lan.host(from), lan.host(to), lan.host(if to == 2 { 4 } else { 2 }));
        for address in both(b) {
            ping(a, address, 56);
            stream(a, b, address, 200_000);
            // The same address and port in the other VRF hears nothing.
            let (near, far) = (a.udp(address), b.udp(address));
            let port = far.local_addr().unwrap().port();
            let stranger = other.udp_at((address, port).into());
            stranger.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            near.send_to(b"for one only", (address, port)).unwrap();
            assert_eq!(far.recv(&mut [0; 100]).unwrap(), 12);
            let heard = stranger.recv(&mut [0; 100]).unwrap_err();
            assert!(matches!(heard.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{heard}");
        }
    }
    ping(lan.host(3), lan.host(5).v4, 56);
    let (well, said) = run(lan.host(1), "ping -n -c 1 -W 5 10.5.0.9");
    assert!(!well && said.contains("Net Unreachable"), "{said}");
}
