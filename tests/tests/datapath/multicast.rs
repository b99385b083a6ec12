//! Multicast snooping: packets to a group go to those who asked for it.

use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::checksum;
use sluice_flows::packet::compose::compose;
use sluice_switch::{Config, FailMode};
use sluice_tests::switch::Switch;

const GROUP: [u8; 4] = [239, 1, 2, 3];

/// A switch with memory ports 1 to 5 that snoops.
fn switch(caches: bool) -> Switch {
    let mut switch = Switch::start(Config { caches, ..Config::default() });
    switch.bridge("br0", 5, FailMode::Standalone);
    switch.datapath.set_mcast_snooping("br0", true).unwrap();
    switch
}

/// A UDP packet from the host behind `port` to a group.
fn data(port: u8, group: [u8; 4]) -> Vec<u8> {
    let mut key = FlowKey::ZERO;
    let to = u32::from_be_bytes(group);
    for (slot, value) in [
        (slot::ETH_SRC, 0x0200_0000_0000 | u128::from(port)),
        (slot::ETH_DST, 0x0100_5e00_0000 | u128::from(to & 0x7f_ffff)),
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 4),
        (slot::IP_SRC, 0x0a00_0000 | u128::from(port)),
        (slot::IP_DST, to.into()),
        (slot::TP_SRC, 5000),
        (slot::TP_DST, 5000),
    ] {
        key.set(slot, value);
    }
    compose(&key, b"hello")
}

/// An IGMP message of the host behind `port`.
fn igmp(port: u8, kind: u8, group: [u8; 4]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], &group].concat();
    let sum = checksum::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let to = if kind == 0x11 { [224, 0, 0, 1] } else { group };
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, port];
    ip.extend(to);
    let sum = checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let eth = [1, 0, 0x5e, to[1] & 0x7f, to[2], to[3], 2, 0, 0, 0, 0, port, 8, 0];
    [&eth[..], &ip, &message].concat()
}

#[test]
fn packets_go_to_the_ports_that_asked_and_to_routers_with_the_next_packet() {
    for caches in [true, false] {
        let mut switch = switch(caches);
        assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [2, 3, 4, 5], "nobody has asked for anything");
        assert_eq!(switch.send_and_see(2, &igmp(2, 0x16, GROUP)), [0; 0], "no router is to hear of it");
        for _ in 0..3 {
            assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [2]);
        }
        assert_eq!(switch.send_and_see(5, &igmp(5, 0x11, [0; 4])), [1, 2, 3, 4], "everybody is asked");
        assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [2, 5]);
        assert_eq!(switch.send_and_see(4, &igmp(4, 0x16, GROUP)), [5], "the router hears of it, and no host");
        assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [2, 4, 5]);
        assert_eq!(switch.send_and_see(2, &data(2, GROUP)), [4, 5]);
        assert_eq!(switch.send_and_see(2, &igmp(2, 0x17, GROUP)), [5]);
        assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [4, 5]);
        assert_eq!(switch.send_and_see(1, &data(1, [239, 1, 2, 4])), [2, 3, 4, 5], "another group of like address");
        assert_eq!(switch.send_and_see(1, &data(1, [224, 0, 0, 251])), [2, 3, 4, 5], "a link-local group");
        switch.check_accounts();
    }
}

#[test]
fn what_was_said_behind_a_port_that_goes_is_forgotten() {
    let mut switch = switch(true);
    switch.send_and_see(2, &igmp(2, 0x16, GROUP));
    switch.send_and_see(3, &igmp(3, 0x16, GROUP));
    assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [2, 3]);
    switch.datapath.remove_port("br0", "br0-2").unwrap();
    assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [3]);
    switch.datapath.set_mcast_snooping("br0", false).unwrap();
    assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [3, 4, 5]);
    assert!(switch.datapath.group_members("br0").unwrap().is_empty());
}

#[test]
fn vlans_are_apart() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 0, FailMode::Standalone);
    let access = |vlan| sluice_flows::bridge::VlanMode::Access(sluice_flows::bridge::VlanId::new(vlan).unwrap());
    for (no, vlan) in [(1, 10), (2, 10), (3, 10), (4, 20), (5, 20)] {
        switch.port("br0", no, access(vlan));
    }
    switch.datapath.set_mcast_snooping("br0", true).unwrap();
    switch.send_and_see(2, &igmp(2, 0x16, GROUP));
    assert_eq!(switch.send_and_see(1, &data(1, GROUP)), [2]);
    assert_eq!(switch.send_and_see(4, &data(4, GROUP)), [5], "nobody there has asked");
}
