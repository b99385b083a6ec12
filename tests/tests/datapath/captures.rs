//! Captures of patches, which are wires for as long: nothing is lost or out of order when that begins and ends.

use crate::FRAME;
use sluice_flows::{DropReason, Match};
use sluice_switch::{Capture, Config, Direction, FailMode, PortDevice, PortRequest};
use sluice_tests::switch::{Switch, take_all, wait_until};
use std::time::Duration;

/// Two learning switches with a memory port each, joined by the patch p0 - p1.
fn joined(workers: usize) -> Switch {
    let mut switch = Switch::start(Config { workers, ..Config::default() });
    for bridge in ["br0", "br1"] {
        switch.bridge(bridge, 1, FailMode::Standalone);
    }
    for (bridge, name, peer) in [("br0", "p0", "p1"), ("br1", "p1", "p0")] {
        let device = PortDevice::Patch { peer: peer.to_owned() };
        switch.datapath.add_port(bridge, PortRequest::new(name, device)).unwrap();
    }
    switch
}

fn capture(switch: &Switch, ports: &[&str]) -> Capture {
    let ports: Vec<_> = ports.iter().map(|port| (*port).to_owned()).collect();
    switch.datapath.capture(&ports, &Match::any(), usize::MAX).unwrap()
}

fn crossed(switch: &Switch) -> Vec<Vec<u8>> {
    take_all(&switch.ends[&("br1".to_owned(), 1)]).iter().map(|frame| frame.bytes().to_vec()).collect()
}

/// [`FRAME`] with a number at its end.
fn numbered(number: u16) -> Vec<u8> {
    let mut frame = FRAME.to_vec();
    frame[58..60].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn both_ends_of_a_patch_see_what_crosses_it() {
    let mut switch = joined(1);
    let seen = capture(&switch, &["p0", "p1"]);
    switch.send(1, &FRAME);
    let copies: Vec<_> = (0..2).map(|_| seen.next(Duration::from_secs(20)).unwrap()).collect();
    let told: Vec<_> = copies.iter().map(|copy| (copy.port, copy.direction, &*copy.bytes)).collect();
    assert_eq!(told, [(0, Direction::Sent, &FRAME[..]), (1, Direction::Received, &FRAME)]);
    wait_until("it has crossed", || crossed(&switch) == [FRAME.to_vec()]);
    drop(seen);
    let ports = switch.datapath.ports(None).unwrap();
    let patch = |name: &str| ports.iter().find(|p| &*p.port.name == name).unwrap();
    assert!(patch("p0").port.peer.is_some() && patch("p1").port.peer.is_some(), "it is a patch again");
    assert_eq!((patch("p0").stats.tx_packets, patch("p1").stats.rx_packets), (1, 1));
}

#[test]
fn captures_begin_and_end_under_traffic_and_nothing_is_lost_or_overtaken() {
    const FRAMES: u16 = 6000;
    for workers in [1, 2] {
        let mut switch = joined(workers);
        let mut captures = Vec::new();
        let mut got = Vec::new();
        for number in 0..FRAMES {
            // By the last worker, whose order it is.
            switch.send_to(workers - 1, 1, sluice_flows::packet::Frame::from_bytes(&numbered(number)));
            match number % 100 {
                10 => captures.push(capture(&switch, &["p0"])),
                20 => captures.push(capture(&switch, &["p1", "p0"])),
                50 => drop(captures.remove(0)),
                70 => captures.clear(),
                _ => {}
            }
            got.extend(crossed(&switch));
        }
        wait_until("all have crossed", || {
            got.extend(crossed(&switch));
            got.len() >= usize::from(FRAMES)
        });
        let numbers: Vec<_> = got.iter().map(|f| u16::from_be_bytes([f[58], f[59]])).collect();
        assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>());
        assert_eq!(switch.totals().dropped_total(), 0);
    }
}

#[test]
fn a_captured_patch_that_is_removed_leaves_its_other_end_a_patch_port() {
    let mut switch = joined(1);
    let seen = capture(&switch, &["p0", "p1"]);
    switch.datapath.remove_port("br1", "p1").unwrap();
    switch.send(1, &FRAME);
    switch.wait();
    assert_eq!(switch.dropped(DropReason::PortDown) + switch.dropped(DropReason::NoPort), 1);
    // The number of the port that went is another's now, which ending the capture must leave alone.
    let device = PortDevice::Patch { peer: "p0".to_owned() };
    switch.datapath.add_port("br1", PortRequest::new("p1", device)).unwrap();
    drop(seen);
    switch.send(1, &FRAME);
    switch.wait();
    assert_eq!(crossed(&switch), [FRAME.to_vec()]);
}
