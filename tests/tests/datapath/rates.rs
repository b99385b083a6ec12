//! Limits of ports' rates, set, changed and taken away while frames flow: nothing is lost but what finds no room, and
//! every frame is counted once.

use crate::FRAME;
use sluice_flows::packet::Frame;
use sluice_flows::{DropReason, PortNo};
use sluice_switch::port::{Limits, PortKind, PortSpec, Rate};
use sluice_switch::stats::PortStats;
use sluice_switch::{Config, Datapath, PortChange, PortDevice, PortRequest};
use sluice_tests::switch::{Switch, wait_until};

fn set(datapath: &Datapath, port: &str, options: &[(&str, &str)]) -> Result<(), String> {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let change = PortChange { options, ..PortChange::default() };
    datapath.set_port("br0", port, &change).map_err(|error| error.to_string())
}

/// The options of a port that its limits are.
fn limits(datapath: &Datapath, port: &str) -> Vec<String> {
    let ports = datapath.ports(Some("br0")).unwrap();
    let info = ports.iter().find(|info| &*info.port.name == port).unwrap();
    info.options.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn stats(datapath: &Datapath, no: u16) -> PortStats {
    let ports = datapath.ports(Some("br0")).unwrap();
    ports.iter().find(|info| info.port.no == PortNo(no)).unwrap().stats
}

/// A broadcast frame that says its number.
fn numbered(number: u8) -> Frame {
    let mut frame = Frame::from_bytes(&FRAME);
    frame.bytes_mut()[..6].fill(0xff);
    frame.bytes_mut()[20] = number;
    frame
}

fn numbers(frames: &[Frame]) -> Vec<u8> {
    frames.iter().map(|frame| frame.bytes()[20]).collect()
}

#[test]
fn what_waits_to_be_sent_goes_when_the_limit_does() {
    for workers in [1, 2] {
        let mut switch = Switch::learning(Config { workers, ..Config::default() }, 2);
        set(&switch.datapath, "br0-2", &[("tx_rate", "8")]).unwrap();
        assert_eq!(limits(&switch.datapath, "br0-2"), ["tx_rate=8", "tx_burst=12.144k"]);
        (0..100).for_each(|n| switch.send_frame(1, numbered(n)));
        switch.wait();
        // 12,144 bits are 23.7 frames of 64 bytes.
        let mut out = Vec::new();
        wait_until("the burst has left", || {
            out.extend(switch.take(2));
            out.len() >= 24
        });
        assert_eq!(out.len(), 24, "the next one would leave in a minute");
        assert_eq!(stats(&switch.datapath, 2).tx_packets, 24, "what waits has not left");
        set(&switch.datapath, "br0-2", &[("tx_rate", "0")]).unwrap();
        assert!(limits(&switch.datapath, "br0-2").is_empty());
        wait_until("all have left", || {
            out.extend(switch.take(2));
            out.len() >= 100
        });
        assert_eq!(numbers(&out), (0..100).collect::<Vec<_>>());
        switch.send_frame(1, numbered(100));
        switch.wait();
        wait_until("without a limit frames go at once", || !switch.take(2).is_empty());
        let stats = stats(&switch.datapath, 2);
        assert_eq!((stats.tx_packets, stats.tx_bytes, stats.tx_dropped), (101, 101 * 60, 0));
        switch.check_accounts();
    }
}

#[test]
fn what_waits_to_be_received_comes_when_the_limit_is_raised() {
    let mut switch = Switch::learning(Config::default(), 2);
    let slow = Limits { rx: Some(Rate { bits_per_s: 8, burst_bits: 0 }), tx: None };
    let change = |limits| PortChange { limits: Some(limits), ..PortChange::default() };
    switch.datapath.set_port("br0", "br0-1", &change(slow)).unwrap();
    (0..100).for_each(|n| switch.send_frame(1, numbered(n)));
    let mut out = Vec::new();
    wait_until("the device is empty and the burst has come", || {
        out.extend(switch.take(2));
        switch.end(1).pending() == 0 && out.len() >= 24
    });
    assert_eq!(out.len(), 24);
    assert_eq!(switch.totals().received, 24);
    let fast = Limits { rx: Some(Rate { bits_per_s: 1_000_000_000, burst_bits: 0 }), tx: None };
    switch.datapath.set_port("br0", "br0-1", &change(fast)).unwrap();
    switch.wait();
    out.extend(switch.take(2));
    assert_eq!(numbers(&out), (0..100).collect::<Vec<_>>());
    assert_eq!(stats(&switch.datapath, 1).rx_packets, 100);
    switch.datapath.set_port("br0", "br0-1", &change(Limits::default())).unwrap();
    assert!(limits(&switch.datapath, "br0-1").is_empty());
    assert_eq!(switch.send_and_see(1, &FRAME), [2]);
    switch.check_accounts();
}

#[test]
fn what_finds_no_room_is_dropped_and_counted_both_ways() {
    let mut switch = Switch::learning(Config::default(), 2);
    set(&switch.datapath, "br0-2", &[("tx_rate", "8")]).unwrap();
    // 1 Mbit may wait: two super-frames, or 2048 frames of 64 bytes.
    (0..3000_u32).for_each(|n| switch.send_frame(1, numbered(n as u8)));
    switch.wait();
    let dropped = switch.dropped(DropReason::QueueFull);
    assert_eq!(dropped, 3000 - 24 - 2 * 65_567 * 8 / 512);
    assert_eq!(stats(&switch.datapath, 2).tx_dropped, dropped);
    set(&switch.datapath, "br0-2", &[("tx_rate", "0")]).unwrap();
    set(&switch.datapath, "br0-1", &[("rx_rate", "8")]).unwrap();
    (0..3000_u32).for_each(|n| switch.send_frame(1, numbered(n as u8)));
    wait_until("the device is empty", || switch.end(1).pending() == 0);
    wait_until("what has no room is dropped", || switch.dropped(DropReason::QueueFull) == 2 * dropped);
    assert_eq!(stats(&switch.datapath, 1).rx_dropped, 2 * dropped, "what was not sent came in by this port too");
    set(&switch.datapath, "br0-1", &[("rx_rate", "0")]).unwrap();
    switch.wait();
    switch.check_accounts();
}

#[test]
fn limits_that_come_and_go_under_traffic_lose_nothing_and_keep_order() {
    let mut switch = Switch::learning(Config::default(), 2);
    for n in 0..200 {
        let rate = ["0", "1G", "10M", "0"][usize::from(n) % 4];
        set(&switch.datapath, "br0-1", &[("rx_rate", rate)]).unwrap();
        set(&switch.datapath, "br0-2", &[("tx_rate", rate), ("tx_burst", "1M")]).unwrap();
        switch.send_frame(1, numbered(n));
    }
    let mut out = Vec::new();
    wait_until("all have left", || {
        out.extend(switch.take(2));
        out.len() >= 200
    });
    assert_eq!(numbers(&out), (0..200).collect::<Vec<_>>());
    switch.wait();
    switch.check_accounts();
}

#[test]
fn a_port_is_added_with_limits_and_one_that_can_have_none_is_refused() {
    let switch = Switch::learning(Config::default(), 1);
    let limited = Limits { rx: None, tx: Some(Rate { bits_per_s: 1_000_000, burst_bits: 0 }) };
    let add = |name: &str, kind, options: &[(&str, &str)]| {
        let device = PortSpec::parse(kind, options.iter().copied()).unwrap().open(name, 1).unwrap();
        let request = PortRequest { limits: limited, ..PortRequest::new(name, device) };
        switch.datapath.add_port("br0", request).map_err(|error| error.to_string())
    };
    add("n0", PortKind::Null, &[]).unwrap();
    assert_eq!(limits(&switch.datapath, "n0"), ["tx_rate=1M", "tx_burst=12.144k"]);
    let error = add("p0", PortKind::Patch, &[("peer", "p1")]).unwrap_err();
    assert!(error.contains("a port of type patch has no option `tx_rate`; it has peer"), "{error}");
    let request = PortRequest::new("p0", PortDevice::Patch { peer: "p1".to_owned() });
    switch.datapath.add_port("br0", request).unwrap();
    let error = set(&switch.datapath, "p0", &[("rx_rate", "1M")]).unwrap_err();
    assert!(error.contains("option `rx_rate` cannot be changed while the port runs"), "{error}");
}

#[test]
fn wrong_limits_are_refused_and_change_nothing() {
    let switch = Switch::learning(Config::default(), 1);
    for (options, why) in [
        (&[("rx_rate", "1M"), ("tx_rate", "fast")][..], "`fast` is not a rate in bits a second like 10M"),
        (&[("rx_rate", "1M"), ("tx_burst", "1M")], "set tx_rate too"),
        (&[("rx_rate", "1M"), ("mtu", "1400")], "rx_rate, rx_burst, tx_rate, tx_burst can"),
        (&[("rx_rate", "-1")], "`-1` is not a rate"),
    ] {
        let error = set(&switch.datapath, "br0-1", options).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert!(limits(&switch.datapath, "br0-1").is_empty());
    }
}
