//! Links of different MTUs.

use super::*;
use sluice_tests::host::PATIENCE;
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{ping, stream};
use sluice_tests::variant;
use std::time::Duration;

/// "Message too long".
const EMSGSIZE: i32 = 90;

#[test]
fn path_mtu_discovery_finds_a_smaller_link_between_two_routers() {
    if skipped("path_mtu_discovery_finds_a_smaller_link_between_two_routers") {
        return;
    }
    for kind in Kind::ALL {
        let lan = two_routers(kind, 1300);
        let (a, b) = (lan.host(1), lan.host(2));
        for to in both(b) {
            ping(a, to, 56);
            // Segments of the near link's size are lost until their sender is told; both directions.
            stream(a, b, to, 2 << 20);
            let (_, said) = run(a, &format!("ip route get {to}"));
            assert!(said.contains("mtu 1300"), "{kind:?}: {said}");
        }
        assert!(lan.dropped(sluice_flows::DropReason::MtuExceeded) >= 2);
    }
}

#[test]
fn a_datagram_that_is_too_big_arrives_once_its_sender_was_told() {
    if skipped("a_datagram_that_is_too_big_arrives_once_its_sender_was_told") {
        return;
    }
    let lan = two_routers(variant::port(), 1300);
    let (a, b) = (lan.host(1), lan.host(2));
    for to in both(b) {
        let (near, far) = (a.udp(to), b.udp(to));
        near.connect(far.local_addr().unwrap()).unwrap();
        far.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut buffer = [0; 2000];
        let arrived = (0..40).any(|_| {
            // The word that it is too big comes back as an error of the next call.
            if let Err(error) = near.send(&[7; 1400]) {
                assert_eq!(error.raw_os_error(), Some(EMSGSIZE), "{error}");
            }
            far.recv(&mut buffer).is_ok_and(|len| len == 1400)
        });
        assert!(arrived, "{to}");
        far.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

#[test]
fn what_may_be_fragmented_is_and_is_whole_again_at_its_end() {
    if skipped("what_may_be_fragmented_is_and_is_whole_again_at_its_end") {
        return;
    }
    let lan = two_routers(variant::port(), 1300);
    for size in [1400, 1450, 6000] {
        let (well, said) = run(lan.host(1), &format!("ping -n -c 3 -i 0.2 -W 5 -M dont -s {size} 10.2.0.9"));
        assert!(well, "{said}");
    }
    let (well, said) = run(lan.host(1), "ping -n -c 1 -W 5 -M do -s 1400 10.2.0.9");
    assert!(!well && said.contains("mtu = 1300") || said.contains("mtu=1300"), "{said}");
}
