//! Ports that come and go under traffic, workers that sleep, and the end.

use crate::NOWHERE;
use sluice_flows::PortNo;
use sluice_flows::action::Action;
use sluice_flows::key::FlowKey;
use sluice_flows::rule::FlowSpec;
use sluice_flows::translate::NoTrace;
use sluice_flows::{DropReason, Match, Owner, Verdict};
use sluice_switch::event::EventKind;
use sluice_switch::port::{MemOptions, MemPort};
use sluice_switch::{Config, ControlError, FailMode, PortChange, PortDevice, PortRequest};
use sluice_tests::switch::{Switch, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    (frame[5], frame[11], frame[12]) = (0x02, 0x04, 0x88);
    frame
};

fn memory(name: &str) -> (PortDevice, sluice_switch::port::MemHandle) {
    let (port, end) = MemPort::new(name, &MemOptions::default()).unwrap();
    (PortDevice::Device(Box::new(port)), end)
}

#[test]
fn ports_are_added_and_removed_under_traffic_and_every_frame_is_counted() {
    let mut switch = Switch::learning(Config { workers: 2, ..Config::default() }, 2);
    let stop = AtomicBool::new(false);
    let ends = [switch.end(1).clone(), switch.end(2).clone()];
    let sent = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                for end in &ends {
                    sent += u64::from(end.inject(&FRAME));
                    while end.take().is_some() {}
                }
            }
            sent
        });
        for round in 0..60 {
            let (device, end) = memory("extra");
            let request = PortRequest { number: Some(PortNo(9)), ..PortRequest::new("extra", device) };
            switch.datapath.add_port("br0", request).unwrap();
            wait_until("floods reach the new port", || end.take().is_some());
            switch.datapath.remove_port("br0", "extra").unwrap();
            while end.take().is_some() {}
            std::thread::sleep(Duration::from_millis(1));
            assert!(end.take().is_none(), "round {round}: a removed port is sent nothing");
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().unwrap()
    });
    for _ in 0..sent {
        switch.expect_one_more();
    }
    switch.wait();
    switch.check_accounts();
    assert!(switch.totals().forwarded > 0);
}

#[test]
fn a_port_that_is_down_neither_takes_nor_sends() {
    let mut switch = Switch::learning(Config::default(), 2);
    let up = |up| PortChange { up: Some(up), ..PortChange::default() };
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    switch.datapath.set_port("br0", "br0-2", &up(false)).unwrap();
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    assert_eq!(switch.send_and_see(2, &FRAME), NOWHERE);
    assert_eq!(switch.dropped(DropReason::PortDown), 2, "in either direction");
    let ingress = switch.datapath.bridge("br0").unwrap().ports[&PortNo(2)].dp;
    let trace = switch.datapath.trace(ingress, &FlowKey::ZERO, &mut NoTrace);
    assert_eq!(trace.verdict, Verdict::Drop(DropReason::PortDown), "a trace says the same");
    switch.datapath.set_port("br0", "br0-2", &up(true)).unwrap();
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    switch.check_accounts();
}

#[test]
fn a_device_that_goes_down_or_away_takes_its_port_down_and_flows_stay() {
    let mut switch = Switch::learning(Config::default(), 2);
    let events = switch.datapath.events(100);
    let mut changes = Vec::new();
    let mut see = |up, gone| {
        wait_until("the change is told", || {
            changes.extend(events.try_iter().filter_map(|e| match e.kind {
                EventKind::PortChanged { up, gone, no, .. } => Some((no, up, gone)),
                _ => None,
            }));
            changes.last() == Some(&(PortNo(2), up, gone))
        });
    };
    switch.end(2).set_link(false);
    switch.datapath.maintain();
    see(false, false);
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    switch.end(2).set_link(true);
    switch.datapath.maintain();
    see(true, false);
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    switch.end(2).vanish();
    see(false, true);
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE);
    assert_eq!(switch.datapath.bridge("br0").unwrap().tables.len(), 1);
    switch.datapath.remove_port("br0", "br0-2").unwrap();
}

#[test]
fn names_and_numbers_that_are_taken_or_unknown_are_refused_with_what_there_is() {
    let switch = Switch::learning(Config::default(), 2);
    let dp = &switch.datapath;
    let add = |name: &str, number| {
        let request = PortRequest { number, ..PortRequest::new(name, memory(name).0) };
        dp.add_port("br0", request).unwrap_err()
    };
    assert!(matches!(add("br0-1", None), ControlError::PortExists { .. }));
    assert!(matches!(add("x", Some(PortNo(2))), ControlError::NumberTaken { .. }));
    assert!(matches!(add("x", Some(PortNo::FLOOD)), ControlError::BadNumber { .. }));
    assert!(matches!(add("a b", None), ControlError::BadName { .. }));
    assert!(matches!(dp.add_bridge("br0", FailMode::Secure), Err(ControlError::BridgeExists { .. })));
    let error = dp.remove_port("br0", "eth7").unwrap_err().to_string();
    assert_eq!(error, "bridge br0 has no port \"eth7\"; its ports: br0-1, br0-2");
    let error = dp.remove_bridge("br9").unwrap_err().to_string();
    assert_eq!(error, "there is no bridge \"br9\"; bridges: br0");
}

#[test]
fn a_removed_bridge_takes_its_ports_along_and_its_numbers_are_used_again() {
    let mut switch = Switch::learning(Config::default(), 2);
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    switch.datapath.remove_bridge("br0").unwrap();
    assert!(switch.datapath.ports(None).unwrap().is_empty());
    switch.bridge("br0", 3, FailMode::Secure);
    assert_eq!(switch.send_and_see(1, &FRAME), NOWHERE, "the old bridge's cached flows are not this one's");
    assert_eq!(switch.dropped(DropReason::NoRule), 1);
    switch.add_flows([FlowSpec::new(Match::any(), [Action::Output(PortNo(3))], Owner::user())]);
    assert_eq!(switch.send_and_see(1, &FRAME), [3]);
}

#[test]
fn an_idle_worker_parks_and_turns_no_more_rounds() {
    let mut switch = Switch::learning(Config { megaflow_idle: 0, ..Config::default() }, 2);
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    let stats = |switch: &Switch| switch.datapath.worker_stats()[0].clone();
    wait_until("the caches are empty", || stats(&switch).cache.megaflow_entries == 0);
    let mut before = stats(&switch);
    // Parked once nothing moves between two looks; then it must stay so for 50 of them.
    let mut still = 0;
    wait_until("the worker is parked", || {
        let now = stats(&switch);
        still = if now.rounds == before.rounds { still + 1 } else { 0 };
        before = now;
        still == 50
    });
    assert!(before.parks > 0);
    assert_eq!(switch.send_and_see(1, &FRAME), [2], "and it wakes up for a frame");
    let rounds = stats(&switch).rounds - before.rounds;
    assert!(rounds < 1000, "a frame costs {rounds} rounds");
}

#[test]
fn a_waiting_worker_with_cached_flows_wakes_seldom() {
    let mut switch = Switch::learning(Config::default(), 2);
    switch.send_and_see(1, &FRAME);
    let rounds = |switch: &Switch| switch.datapath.worker_stats()[0].rounds;
    wait_until("the worker parks", || switch.datapath.worker_stats()[0].parks > 0);
    let before = rounds(&switch);
    std::thread::sleep(Duration::from_millis(600));
    let turns = rounds(&switch) - before;
    assert!(turns < 600, "{turns} rounds in about 600 ms");
}

#[test]
fn the_end_closes_every_port_and_later_calls_say_so() {
    let mut switch = Switch::learning(Config::default(), 2);
    switch.send_and_see(1, &FRAME);
    let before = switch.totals();
    switch.datapath.shutdown();
    assert!(matches!(switch.datapath.add_bridge("br1", FailMode::Secure), Err(ControlError::Ending)));
    assert_eq!(switch.totals().forwarded, before.forwarded);
    assert!(!switch.datapath.sync_stats());
    switch.datapath.shutdown();
}
