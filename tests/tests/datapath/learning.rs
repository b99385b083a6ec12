//! NORMAL with the MAC table: learn, move, age, flush, VLANs.

use crate::NOWHERE;
use sluice_flows::bridge::VlanMode;
use sluice_flows::{DropReason, PortNo, bridge::VlanId};
use sluice_switch::event::EventKind;
use sluice_switch::mac_table::{MacChange, MacSettings};
use sluice_switch::{Clock, Config, FailMode, PortChange};
use sluice_tests::switch::Switch;

/// A frame from host `src` to host `dst`; host 0xff is everybody.
fn frame(src: u8, dst: u8) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    bytes[..6].copy_from_slice(&if dst == 0xff { [0xff; 6] } else { [2, 0, 0, 0, 0, dst] });
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, src]);
    bytes[12] = 0x88;
    bytes
}

fn tagged(src: u8, dst: u8, vlan: u8) -> Vec<u8> {
    let mut bytes = frame(src, dst);
    bytes.splice(12..12, [0x81, 0, 0, vlan]);
    bytes
}

fn fdb(switch: &Switch) -> Vec<(u64, u16)> {
    switch.datapath.fdb("br0").unwrap().iter().map(|e| (e.mac & 0xff, e.port.0)).collect()
}

#[test]
fn unknown_addresses_are_flooded_and_known_ones_are_not() {
    let mut switch = Switch::learning(Config::default(), 4);
    assert_eq!(switch.send_and_see(1, &frame(1, 2)), [2, 3, 4]);
    assert_eq!(switch.send_and_see(2, &frame(2, 1)), [1]);
    assert_eq!(switch.send_and_see(1, &frame(1, 2)), [2], "the cached flood is out of date");
    assert_eq!(switch.send_and_see(1, &frame(1, 2)), [2]);
    assert_eq!(switch.send_and_see(1, &frame(1, 0xff)), [2, 3, 4]);
    assert_eq!(fdb(&switch), [(1, 1), (2, 2)]);
    switch.check_accounts();
}

#[test]
fn an_address_that_moves_is_followed_at_once_and_back_again() {
    let mut switch = Switch::learning(Config::default(), 3);
    let events = switch.datapath.events(100);
    switch.send_and_see(1, &frame(1, 0xff));
    switch.send_and_see(2, &frame(2, 0xff));
    for port in [3, 1, 3, 1, 3] {
        assert_eq!(switch.send_and_see(port, &frame(1, 2)), [2]);
        assert_eq!(switch.send_and_see(2, &frame(2, 1)), [port]);
    }
    let moves =
        events.try_iter().filter(|e| matches!(e.kind, EventKind::MacLearned { change: MacChange::Moved { .. }, .. }));
    assert_eq!(moves.count(), 5);
}

#[test]
fn addresses_in_use_stay_and_others_are_forgotten() {
    let clock = Clock::manual();
    let macs = MacSettings { ageing: 10_000, limit: 100 };
    let mut switch = Switch::learning(Config { clock: clock.clone(), macs, ..Config::default() }, 3);
    switch.send_and_see(1, &frame(1, 0xff));
    switch.send_and_see(2, &frame(2, 1));
    for _ in 0..4 {
        clock.advance(4_000);
        // Answered by a cache: only crediting the entry tells that host 2 is still there.
        assert_eq!(switch.send_and_see(2, &frame(2, 1)).len(), if clock.now().0 < 16_000 { 1 } else { 2 });
        switch.sync();
        switch.datapath.maintain();
    }
    assert_eq!(fdb(&switch), [(2, 2)], "host 1 was silent for 16 s");
    assert_eq!(switch.send_and_see(2, &frame(2, 1)), [1, 3], "so frames to it are flooded again");
}

#[test]
fn a_flushed_table_floods_and_learns_anew() {
    let mut switch = Switch::learning(Config::default(), 3);
    switch.send_and_see(1, &frame(1, 0xff));
    assert_eq!(switch.send_and_see(2, &frame(2, 1)), [1]);
    assert_eq!(switch.datapath.flush_fdb("br0").unwrap(), 2);
    assert_eq!(switch.send_and_see(2, &frame(2, 1)), [1, 3]);
    assert_eq!(fdb(&switch), [(2, 2)], "a cached flow learns again too");
}

#[test]
fn frames_of_one_burst_see_what_those_before_them_taught() {
    let mut switch = Switch::learning(Config::default(), 3);
    switch.send_and_see(3, &frame(3, 0xff));
    // Host 1 talks to host 3 before and after host 3 is seen behind port 1 as well.
    for bytes in [frame(1, 3), frame(3, 1), frame(1, 3)] {
        switch.send(1, &bytes);
    }
    switch.wait();
    assert_eq!(switch.take(3).len(), 1, "only the first went to port 3");
    assert_eq!(switch.dropped(DropReason::NoPort), 2, "the others had their destination behind their own port");
}

#[test]
fn vlans_keep_apart_and_tags_are_put_on_and_taken_off() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 0, FailMode::Standalone);
    let vlan = |id| VlanId::new(id).unwrap();
    switch.port("br0", 1, VlanMode::Access(vlan(5)));
    switch.port("br0", 2, VlanMode::Access(vlan(5)));
    switch.port("br0", 3, VlanMode::Access(vlan(6)));
    switch.port("br0", 4, VlanMode::default());
    switch.send(1, &frame(1, 0xff));
    switch.wait();
    assert_eq!(switch.take(2).iter().map(|f| f.bytes().to_vec()).collect::<Vec<_>>(), [frame(1, 0xff)]);
    assert_eq!(switch.take(3).len(), 0);
    assert_eq!(switch.take(4).iter().map(|f| f.bytes().to_vec()).collect::<Vec<_>>(), [tagged(1, 0xff, 5)]);
    switch.send(4, &tagged(4, 0xff, 6));
    switch.wait();
    assert_eq!(switch.take(3).iter().map(|f| f.bytes().to_vec()).collect::<Vec<_>>(), [frame(4, 0xff)]);
    assert_eq!(switch.take(1).len() + switch.take(2).len(), 0);
    assert_eq!(switch.send_and_see(1, &tagged(1, 0xff, 7)), NOWHERE);
    assert_eq!(switch.dropped(DropReason::VlanFilter), 1);
    let change = PortChange { vlan: Some(VlanMode::Access(vlan(5))), ..PortChange::default() };
    switch.datapath.set_port("br0", "br0-3", &change).unwrap();
    assert_eq!(switch.send_and_see(1, &frame(1, 0xff)), [2, 3, 4]);
    switch.check_accounts();
}

#[test]
fn a_flood_of_addresses_neither_fills_the_table_nor_pushes_out_others() {
    let macs = MacSettings { limit: 50, ..MacSettings::default() };
    let mut switch = Switch::learning(Config { macs, ..Config::default() }, 3);
    switch.send_and_see(1, &frame(1, 0xff));
    for i in 0..500_u16 {
        let mut bytes = frame(0, 0xff);
        bytes[8..10].copy_from_slice(&i.to_be_bytes());
        bytes[7] = 9;
        switch.send(2, &bytes);
    }
    switch.wait();
    let table = switch.datapath.fdb("br0").unwrap();
    assert_eq!(table.len(), 50);
    assert!(table.iter().any(|e| e.mac == 0x0200_0000_0001 && e.port == PortNo(1)));
}
