//! Wires between bridges: joined by name, crossed with all that a frame carries, changed and taken away under traffic.

use crate::{FRAME, gso, segments_of};
use sluice_flows::{DropReason, Match, PortNo};
use sluice_switch::port::{PortKind, PortSpec};
use sluice_switch::{Config, FailMode, Far, PortChange, PortDevice, PortRequest, Sight, Splice};
use sluice_tests::switch::{Switch, take_all, wait_until};
use std::time::{Duration, Instant};

/// Adds the end `name` of a wire to a bridge, as the API and configurations do.
fn add_end(switch: &Switch, bridge: &str, name: &str, options: &[(&str, &str)]) {
    let workers = switch.datapath.worker_stats().len();
    let spec = PortSpec::parse(PortKind::Wire, options.iter().copied()).unwrap();
    let device = spec.open(name, workers).unwrap();
    let request = PortRequest { number: Some(PortNo(9)), ..PortRequest::new(name, device) };
    switch.datapath.add_port(bridge, request).unwrap();
}

/// Two learning switches with a memory port each and a wire between them.
fn joined(workers: usize, options: &[(&str, &str)]) -> Switch {
    let mut switch = Switch::start(Config { workers, ..Config::default() });
    for bridge in ["br0", "br1"] {
        switch.bridge(bridge, 1, FailMode::Standalone);
    }
    for (bridge, name, peer) in [("br0", "w0", "w1"), ("br1", "w1", "w0")] {
        add_end(&switch, bridge, name, &[&[("peer", peer)], options].concat());
    }
    switch
}

fn far(switch: &Switch) -> &sluice_switch::port::MemHandle {
    &switch.ends[&("br1".to_owned(), 1)]
}

fn is_up(switch: &Switch, name: &str) -> bool {
    switch.datapath.ports(None).unwrap().iter().any(|p| &*p.port.name == name && p.link_up && p.port.up)
}

#[test]
fn frames_cross_from_bridge_to_bridge_whole() {
    for workers in [1, 2] {
        let mut switch = joined(workers, &[]);
        let sent = gso(20_000, 1400);
        let mut copy = gso(20_000, 1400);
        copy.clone_from_frame(&sent);
        for worker in 0..workers {
            switch.send_to(worker, 1, gso(20_000, 1400));
            // On its way it is received twice.
            switch.expect_one_more();
        }
        switch.wait();
        let got = take_all(far(&switch));
        assert_eq!(got.len(), workers);
        for frame in got {
            assert_eq!((frame.bytes(), frame.offload), (sent.bytes(), sent.offload));
            assert_eq!(segments_of(&frame), segments_of(&copy));
        }
        switch.check_accounts();
    }
}

#[test]
fn a_delay_set_while_frames_flow_holds_from_the_next_frame_on() {
    let mut switch = joined(1, &[("jitter", "0ms")]);
    let mut cross = |least: Duration| {
        let sent = Instant::now();
        switch.send(1, &FRAME);
        switch.expect_one_more();
        switch.wait();
        assert_eq!(take_all(far(&switch)).len(), 1);
        assert!(sent.elapsed() >= least, "{:?}", sent.elapsed());
        let change = PortChange { options: vec![("delay".to_owned(), "40ms".to_owned())], ..PortChange::default() };
        switch.datapath.set_port("br0", "w0", &change).unwrap();
    };
    cross(Duration::ZERO);
    cross(Duration::from_millis(40));
    let ports = switch.datapath.ports(Some("br0")).unwrap();
    let wire = ports.iter().find(|p| p.kind == PortKind::Wire).unwrap();
    assert!(wire.options.contains(&("delay", "40ms".to_owned())), "{:?}", wire.options);
}

/// A frame with a number at its end.
fn numbered(number: u16) -> sluice_flows::packet::Frame {
    let mut frame = FRAME.to_vec();
    frame[58..60].copy_from_slice(&number.to_be_bytes());
    sluice_flows::packet::Frame::from_bytes(&frame)
}

#[test]
fn wires_are_put_in_under_traffic_and_nothing_is_lost_or_overtaken() {
    const FRAMES: u16 = 3000;
    for (workers, captured) in [(1, false), (2, false), (1, true), (2, true)] {
        let mut switch = Switch::start(Config { workers, ..Config::default() });
        for bridge in ["br0", "br1"] {
            switch.bridge(bridge, 1, FailMode::Standalone);
        }
        for (bridge, name, peer) in [("br0", "p0", "p1"), ("br1", "p1", "p0")] {
            let device = PortDevice::Patch { peer: peer.to_owned() };
            switch.datapath.add_port(bridge, PortRequest::new(name, device)).unwrap();
        }
        let datapath = switch.datapath.clone();
        let seen = captured.then(|| datapath.capture(&["p1".to_owned()], &Sight::of(Match::any())).unwrap());
        let splice = |port: &str, small: &str| {
            let far = Far { bridge: small.into(), device: format!("{small}.tap"), wire: format!("{small}.wire") };
            let splice = Splice { port: port.to_owned(), far, mtu: 1500, seed: 1 };
            (datapath.splice(&splice).unwrap(), datapath.splice(&splice).unwrap())
        };
        let mut got = Vec::new();
        for number in 0..FRAMES {
            // By the last worker, whose order it is.
            switch.send_to(workers - 1, 1, numbered(number));
            match number {
                700 => assert_eq!(splice("p0", ""), (true, false)),
                1400 => assert_eq!(splice("br0-1", "near"), (true, false)),
                2100 => assert_eq!(splice("br1-1", "far"), (true, false)),
                _ => {}
            }
            got.extend(take_all(far(&switch)));
        }
        wait_until("all have crossed", || {
            got.extend(take_all(far(&switch)));
            got.len() >= usize::from(FRAMES)
        });
        let numbers: Vec<_> = got.iter().map(|f| u16::from_be_bytes([f.bytes()[58], f.bytes()[59]])).collect();
        assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>());
        assert_eq!(switch.totals().dropped_total(), 0);
        if let Some(seen) = &seen {
            let copies = std::iter::from_fn(|| seen.next(Duration::from_millis(50))).count() as u64;
            assert_eq!(copies + seen.lost().sum::<u64>(), u64::from(FRAMES), "the capture goes on");
        }
        drop(seen);
        let ports = switch.datapath.ports(None).unwrap();
        let places = |name: &str| {
            let port = ports.iter().find(|p| &*p.port.name == name).unwrap();
            (port.bridge_name.to_string(), port.port.no.0, port.kind, port.port.up)
        };
        assert_eq!(places("p0").2, PortKind::Wire);
        assert_eq!(places("br0-1"), ("br0".to_owned(), 1, PortKind::Wire, true));
        assert_eq!(places("near.tap"), ("near".to_owned(), 1, PortKind::Memory, true));
        assert_eq!(places("near.wire"), ("near".to_owned(), 2, PortKind::Wire, true));
    }
}

#[test]
fn what_cannot_have_a_wire_is_refused_and_stays_as_it_is() {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 2, FailMode::Standalone);
    let device = PortDevice::Patch { peer: "nowhere".to_owned() };
    switch.datapath.add_port("br0", PortRequest::new("p0", device)).unwrap();
    let splice = |port: &str, bridge: &str, name: &str| {
        let far = Far { bridge: bridge.to_owned(), device: name.to_owned(), wire: "w".to_owned() };
        let splice = Splice { port: port.to_owned(), far, mtu: 1500, seed: 1 };
        switch.datapath.splice(&splice).unwrap_err().to_string()
    };
    for (port, bridge, name, why) in [
        ("p0", "b", "d", "the other end of its patch is not there"),
        ("p9", "b", "d", "there is no port \"p9\""),
        ("br0-1", "br0", "d", "there is a bridge \"br0\" already"),
        ("br0-1", "b", "br0-2", "there is a port \"br0-2\" already"),
        ("br0-1", "b", "", "cannot be a name"),
    ] {
        let said = splice(port, bridge, name);
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(switch.datapath.bridges().len(), 1);
    switch.send(1, &FRAME);
    switch.wait();
    assert_eq!(take_all(&switch.ends[&("br0".to_owned(), 2)]).len(), 1);
}

#[test]
fn an_option_that_cannot_be_changed_is_refused_by_every_kind() {
    let switch = joined(1, &[]);
    let change = PortChange { options: vec![("peer".to_owned(), "x".to_owned())], ..PortChange::default() };
    for port in ["w0", "br0-1"] {
        let error = switch.datapath.set_port("br0", port, &change).unwrap_err().to_string();
        assert!(error.contains("option `peer` cannot be changed while the port runs"), "{error}");
    }
}

#[test]
fn ends_are_up_only_while_each_names_the_other() {
    let switch = joined(1, &[]);
    assert!(is_up(&switch, "w0") && is_up(&switch, "w1"));
    switch.datapath.remove_port("br1", "w1").unwrap();
    assert!(!is_up(&switch, "w0"));
    add_end(&switch, "br1", "w1", &[("peer", "w7")]);
    assert!(!is_up(&switch, "w0") && !is_up(&switch, "w1"));
    switch.datapath.remove_port("br1", "w1").unwrap();
    add_end(&switch, "br1", "w1", &[("peer", "w0")]);
    assert!(is_up(&switch, "w0") && is_up(&switch, "w1"));
    switch.datapath.maintain();
    assert!(is_up(&switch, "w0"), "the device says the same");
}

#[test]
fn an_end_that_goes_and_comes_under_traffic_loses_frames_for_named_reasons_only() {
    let mut switch = joined(1, &[]);
    for _ in 0..50 {
        switch.datapath.remove_port("br1", "w1").unwrap();
        switch.send(1, &FRAME);
        add_end(&switch, "br1", "w1", &[("peer", "w0")]);
    }
    switch.send(1, &FRAME);
    wait_until("a frame crosses", || far(&switch).take().is_some());
    let totals = switch.totals();
    let lost: u64 = [DropReason::PortDown, DropReason::NoPort].iter().map(|r| totals.dropped[*r as usize]).sum();
    assert_eq!(totals.dropped_total(), lost, "{totals:?}");
}

#[test]
fn a_full_wire_drops_as_queue_full_and_its_port_counts_it() {
    // A frame takes half a second, so none leaves the queue meanwhile.
    let mut switch = joined(1, &[("queue", "3p"), ("rate", "1kbit"), ("delay", "60s")]);
    for _ in 0..10 {
        switch.send(1, &FRAME);
    }
    switch.wait();
    assert_eq!(switch.dropped(DropReason::QueueFull), 7);
    let ports = switch.datapath.ports(Some("br0")).unwrap();
    let sent = ports.iter().find(|p| p.kind == PortKind::Wire).unwrap().stats;
    assert_eq!((sent.tx_packets, sent.tx_dropped), (3, 7));
    switch.check_accounts();
}

#[test]
fn what_a_link_loses_is_counted_as_such_where_it_would_have_come_in() {
    const SEGMENTS: u64 = 15;
    let mut switch = joined(1, &[("loss", "100%")]);
    switch.send(1, &FRAME);
    switch.expect_one_more();
    switch.send_frame(1, gso(20_000, 1400));
    (0..SEGMENTS).for_each(|_| switch.expect_one_more());
    switch.wait();
    assert!(far(&switch).take().is_none());
    assert_eq!(switch.dropped(DropReason::LinkLoss), 1 + SEGMENTS);
    switch.sync();
    let groups = switch.datapath.drops();
    let place = switch.datapath.ports(Some("br1")).unwrap().into_iter().find(|p| p.kind == PortKind::Wire).unwrap();
    assert!(groups.iter().all(|group| group.ingress == place.port.dp), "{groups:?}");
    let ports = switch.datapath.ports(Some("br0")).unwrap();
    let (counts, _) = ports.iter().find_map(|port| port.wire).unwrap();
    assert_eq!((counts.sent, counts.lost), (1 + SEGMENTS, 1 + SEGMENTS));
    switch.check_accounts();
}
