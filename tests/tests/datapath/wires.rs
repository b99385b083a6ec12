//! Wires between bridges: joined by name, crossed with all that a frame carries, changed and taken away under traffic.

use crate::{FRAME, gso, segments_of};
use sluice_flows::{DropReason, PortNo};
use sluice_switch::port::{PortKind, PortSpec};
use sluice_switch::{Config, FailMode, PortChange, PortRequest};
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
