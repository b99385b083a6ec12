//! VLANs: access ports, trunks as their hosts see them, and two bridges joined by a patch.

use crate::STREAM;
use sluice_flows::DropReason;
use sluice_flows::bridge::{VlanId, VlanMode};
use sluice_flows::packet::Frame;
use sluice_switch::FailMode;
use sluice_tests::host::{Capture, Host, Kind, LINK};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;
use sluice_tests::traffic::{count_until, datagrams, ping_until_answered, stream};
use std::net::Ipv4Addr;

fn vlan(id: u16) -> VlanId {
    VlanId::new(id).unwrap()
}

fn access(id: u16) -> VlanMode {
    VlanMode::Access(vlan(id))
}

/// Port of the datagrams that are counted.
const COUNTED: u16 = 7000;

/// Hosts 1 and 2 in VLAN 10, 3 and 4 in VLAN 20.
fn two_vlans(kind: Kind) -> Lan {
    let mut lan = Lan::new(&["br0"], FailMode::Standalone, 1);
    for (n, id) in [(1, 10), (2, 10), (3, 20), (4, 20)] {
        lan.add_host("br0", n, kind, 1500, access(id));
    }
    lan
}

/// Nothing that host `from` says reaches host `to`: no broadcast, and no frame to its address. `near` hears the
/// broadcast, and `by` reaches `to`.
fn are_apart(from: &Host, near: &Host, by: &Host, to: &Host) {
    let any = Ipv4Addr::UNSPECIFIED;
    let (heard, other) = (near.udp_at((any, COUNTED).into()), to.udp_at((any, COUNTED).into()));
    from.netns.add_neighbour(LINK, to.v4, to.mac).unwrap();
    let sender = from.udp(from.v4);
    sender.set_broadcast(true).unwrap();
    sender.send_to(b"everyone", (Ipv4Addr::new(10, 99, 0, 255), COUNTED)).unwrap();
    sender.send_to(b"the other", (to.v4, COUNTED)).unwrap();
    sender.send_to(b"marker", (near.v4, COUNTED)).unwrap();
    assert_eq!(count_until(&heard, b"marker", 1), 1, "its own VLAN hears the broadcast once");
    by.udp(to.v4).send_to(b"marker", (to.v4, COUNTED)).unwrap();
    assert_eq!(count_until(&other, b"marker", 0), 0, "the other VLAN hears nothing");
}

#[test]
fn access_ports_of_two_vlans_are_apart() {
    if skipped("access_ports_of_two_vlans_are_apart") {
        return;
    }
    for kind in Kind::ALL {
        let lan = two_vlans(kind);
        let [a, b, c, d] = [1, 2, 3, 4].map(|n| lan.host(n));
        ping_until_answered(a, b.v4);
        ping_until_answered(c, d.v6);
        are_apart(a, b, d, c);
        are_apart(d, c, a, b);
        lan.check_accounts(&[]);
    }
}

/// The tag of a frame, if it has one: TPID and TCI.
fn tag(frame: &Frame) -> Option<(u16, u16)> {
    let [a, b, c, d] = frame.bytes()[12..16].try_into().unwrap();
    let (tpid, tci) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    (tpid == 0x8100).then_some((tpid, tci))
}

/// Waits until the capture sees this payload, and returns the tags of all frames that have it.
fn tags_of(capture: &mut Capture, payload: &[u8]) -> Vec<Option<(u16, u16)>> {
    let mut frames = Vec::new();
    wait_until("the frame arrives", || {
        let has = |frame: &Frame| frame.bytes().windows(payload.len()).any(|part| part == payload);
        frames.extend(capture.take().iter().filter(|frame| has(frame)).map(tag));
        !frames.is_empty()
    });
    frames
}

#[test]
fn a_trunk_carries_both_vlans_with_their_tags() {
    if skipped("a_trunk_carries_both_vlans_with_their_tags") {
        return;
    }
    for kind in Kind::ALL {
        let mut lan = two_vlans(kind);
        lan.add_host("br0", 5, kind, 1500, VlanMode::Trunk { trunks: [vlan(10), vlan(20)].into() });
        let native = VlanMode::Native { trunks: [vlan(20)].into(), native: vlan(10), tagged: false };
        lan.add_host("br0", 6, kind, 1500, native);
        let [a, c, trunk, native] = [1, 3, 5, 6].map(|n| lan.host(n));
        let mut on_trunk = trunk.capture();
        let mut on_native = native.capture();
        for (host, id, payload) in [(a, 10, b"said in VLAN 10"), (c, 20, b"said in VLAN 20")] {
            let sender = host.udp(host.v4);
            sender.set_broadcast(true).unwrap();
            sender.send_to(payload, (Ipv4Addr::new(10, 99, 0, 255), COUNTED)).unwrap();
            assert_eq!(tags_of(&mut on_trunk, payload), [Some((0x8100, id))]);
            assert_eq!(tags_of(&mut on_native, payload), [(id != 10).then_some((0x8100, id))]);
        }
        drop((on_trunk, on_native));
        // Untagged, the host behind the second trunk is in VLAN 10.
        ping_until_answered(a, native.v4);
        ping_until_answered(native, a.v6);
        lan.check_accounts(&[DropReason::VlanFilter]);
    }
}

/// Hosts of two VLANs on each of two bridges.
fn two_bridges(kind: Kind) -> Lan {
    let mut lan = Lan::new(&["br0", "br1"], FailMode::Standalone, 1);
    for (bridge, n, id) in [("br0", 1, 10), ("br1", 2, 10), ("br0", 3, 20), ("br1", 4, 20)] {
        lan.add_host(bridge, n, kind, 1500, access(id));
    }
    lan
}

fn both_vlans_cross(lan: &Lan) {
    let [a, b, c, d] = [1, 2, 3, 4].map(|n| lan.host(n));
    ping_until_answered(a, b.v4);
    ping_until_answered(d, c.v6);
    // The tag does not count against the MTU.
    datagrams(b, a, a.v6, [0, 1452, 20_000]);
    stream(a, b, b.v4, STREAM);
    stream(d, c, c.v6, STREAM);
    are_apart(a, b, d, c);
    are_apart(d, c, a, b);
    lan.check_accounts(&[]);
}

#[test]
fn two_bridges_joined_by_a_patch_carry_both_vlans() {
    if skipped("two_bridges_joined_by_a_patch_carry_both_vlans") {
        return;
    }
    for kind in Kind::ALL {
        let lan = two_bridges(kind);
        lan.patch("br0", "br1", 9);
        both_vlans_cross(&lan);
    }
}

#[test]
fn two_bridges_joined_by_a_wire_carry_both_vlans() {
    if skipped("two_bridges_joined_by_a_wire_carry_both_vlans") {
        return;
    }
    for kind in Kind::ALL {
        let lan = two_bridges(kind);
        lan.wire("br0", "br1", 9);
        both_vlans_cross(&lan);
    }
}
