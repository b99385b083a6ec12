//! Two switches joined by a wire: the hosts' kernels feel its delay, and everything else is as if it were none.

use crate::STREAM;
use sluice_flows::bridge::VlanMode;
use sluice_switch::port::{Wire, WireOptions, WireSettings};
use sluice_switch::{FailMode, PortDevice};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::traffic::{a_batch_of_datagrams, datagrams, ping, ping_until_answered, stream};
use sluice_tests::variant;
use std::time::{Duration, Instant};

/// Hosts 1 and 2 on switches of their own, with a wire between that takes `delay` each way.
fn joined(delay: Duration, workers: usize) -> Lan {
    let mut lan = Lan::new(&["left", "right"], FailMode::Standalone, workers);
    for (n, bridge) in [(1, "left"), (2, "right")] {
        lan.add_host(bridge, n, variant::port(), 1500, VlanMode::default());
    }
    let settings = WireSettings { delay, ..WireSettings::default() };
    let options = WireOptions { settings, queues: workers, ..WireOptions::to("") };
    let ends = Wire::pair(["w0", "w1"], [&options, &options]).unwrap();
    for ((bridge, name), end) in [("left", "w0"), ("right", "w1")].into_iter().zip(ends) {
        lan.add_port(bridge, 9, name, PortDevice::Device(Box::new(end)), VlanMode::default());
    }
    lan
}

#[test]
fn a_round_trip_takes_both_delays() {
    if skipped("a_round_trip_takes_both_delays") {
        return;
    }
    let lan = joined(Duration::from_millis(20), 1);
    let [a, b] = [1, 2].map(|n| lan.host(n));
    for to in [b.v4, b.v6] {
        ping_until_answered(a, to);
        let sent = Instant::now();
        ping(a, to, 56);
        assert!(sent.elapsed() >= Duration::from_millis(40), "{:?}", sent.elapsed());
    }
    lan.check_accounts(&[]);
}

#[test]
fn everything_crosses_a_wire_whole() {
    if skipped("everything_crosses_a_wire_whole") {
        return;
    }
    for (delay, workers) in [(0, 1), (2, 2)] {
        let lan = joined(Duration::from_millis(delay), workers);
        let [a, b] = [1, 2].map(|n| lan.host(n));
        for to in [b.v4, b.v6] {
            ping_until_answered(a, to);
            datagrams(a, b, to, [0, 1, 1000, 1400, 5000]);
            stream(a, b, to, STREAM);
        }
        a_batch_of_datagrams(a, b);
        assert!(lan.seen(1).super_frames() > 0 && lan.seen(2).super_frames() > 0, "nothing came whole");
        lan.check_accounts(&[]);
    }
}
