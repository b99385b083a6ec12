//! Captures: what is said of the packets; and of patches, which are wires for as long: nothing is lost or out of order
//! when that begins and ends.

use crate::FRAME;
use crate::connections::{add, udp};
use sluice_flows::{DropReason, Match};
use sluice_switch::{Capture, Captured, CapturedVerdict, Config, Direction, FailMode, PortDevice, PortRequest, Sight};
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
    switch.datapath.capture(&ports, &Sight::of(Match::any())).unwrap()
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

/// What a copy says, short: port, direction, verdict, the ports that it was sent to, the tables of the rules it matched.
fn story(copy: &Captured) -> (usize, Direction, CapturedVerdict, Vec<u32>, Vec<u8>) {
    assert!(copy.outputs.iter().all(|(_, lost)| lost.is_none()));
    let tables = copy.rules.iter().map(|rule| rule.spec.table.get());
    let outputs = copy.outputs.iter().map(|(port, _)| port.0);
    (copy.port, copy.direction, copy.verdict, outputs.collect(), tables.collect())
}

#[test]
fn a_copy_says_where_the_packet_went_or_why_nowhere_and_by_which_rules() {
    for caches in [true, false] {
        let mut switch = Switch::start(Config { caches, ..Config::default() });
        switch.bridge("br0", 3, FailMode::Secure);
        add(
            &switch,
            &[
                "table=0,priority=9,udp,tp_dst=53 actions=resubmit(,1)",
                "table=0,priority=8,udp,tp_dst=54 actions=resubmit(,2)",
                "table=0,priority=7,udp,tp_dst=55 actions=ct(table=3)",
                "table=1,actions=output:2,output:3",
                "table=2,actions=drop",
                "table=3,ip,ct_state=+new actions=ct(commit),output:3",
            ],
        );
        let seen = capture(&switch, &["br0-1", "br0-3"]);
        let number = |name: &str| {
            let ports = switch.datapath.ports(None).unwrap();
            ports.iter().find(|port| &*port.port.name == name).unwrap().port.dp.0
        };
        let (p2, p3) = (number("br0-2"), number("br0-3"));
        use CapturedVerdict::{Dropped, Forwarded};
        use Direction::{Received, Sent};
        let cases = [
            (
                53,
                vec![
                    (0, Received, Forwarded, vec![p2, p3], vec![0, 1]),
                    (1, Sent, Forwarded, vec![p2, p3], vec![0, 1]),
                ],
            ),
            (54, vec![(0, Received, Dropped(DropReason::RuleDrop), vec![], vec![0, 2])]),
            (55, vec![(0, Received, Forwarded, vec![p3], vec![0, 3]), (1, Sent, Forwarded, vec![p3], vec![0, 3])]),
            (56, vec![(0, Received, Dropped(DropReason::NoRule), vec![], vec![])]),
        ];
        // The first of a kind is translated, the others come from the caches.
        for _ in 0..3 {
            for (port, want) in &cases {
                switch.send(1, &udp(1, 2, (1000, *port)));
                let copies = want.iter().map(|_| seen.next(Duration::from_secs(20)).unwrap());
                assert_eq!(copies.map(|copy| story(&copy)).collect::<Vec<_>>(), *want, "{port}, caches: {caches}");
            }
        }
        switch.wait();
        assert_eq!((seen.next(Duration::ZERO).is_none(), seen.lost().sum::<u64>()), (true, 0));
    }
}

#[test]
fn a_capture_of_drops_or_of_one_way_sees_no_other_packets() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 2, FailMode::Secure);
    add(&switch, &["priority=1,udp,tp_dst=53 actions=output:2", "priority=0 actions=drop"]);
    let ports = ["br0-1".to_owned(), "br0-2".to_owned()];
    let any = Sight::of(Match::any());
    let begin = |sight: Sight| switch.datapath.capture(&ports, &sight).unwrap();
    let dropped = begin(Sight { dropped: true, ..any.clone() });
    let received = begin(Sight { sent: false, ..any.clone() });
    let sent = begin(Sight { received: false, ..any });
    for port in [53, 54, 53] {
        switch.send(1, &udp(1, 2, (1000, port)));
    }
    switch.wait();
    let all = |capture: &Capture| {
        let copies = std::iter::from_fn(|| capture.next(Duration::from_millis(20)));
        copies.map(|copy| (copy.port, copy.direction, copy.bytes[37])).collect::<Vec<_>>()
    };
    use Direction::{Received, Sent};
    assert_eq!(all(&dropped), [(0, Received, 54)]);
    assert_eq!(all(&received), [(0, Received, 53), (0, Received, 54), (0, Received, 53)]);
    assert_eq!(all(&sent), [(1, Sent, 53), (1, Sent, 53)]);
}
