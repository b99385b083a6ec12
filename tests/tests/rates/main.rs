//! Rates as programs measure them: iperf3 between two hosts, each a network namespace, one of them behind a limited port.
//!
//! The band is wide: what iperf3 counts is payload, and this machine may be busy. It is what the switch holds that is
//! looked at, not how fast it is.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use serde_json::Value;
use sluice_switch::PortChange;
use sluice_switch::port::{Limits, Rate};
use sluice_tests::host::{Host, Kind};
use sluice_tests::lan::Lan;
use sluice_tests::netns::skipped;
use sluice_tests::switch::wait_until;
use sluice_tests::traffic::ping_until_answered;
use std::process::{Child, Command, Stdio};

const PORT: u16 = 5201;

/// Of a rate, in per cent, what iperf3 has to measure.
const BAND: std::ops::RangeInclusive<f64> = 70.0..=110.0;

/// Ends a program when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Whether iperf3 is there; says so if not.
fn no_iperf3(test: &str) -> bool {
    let there = Command::new("iperf3").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("{test}: skipped, there is no iperf3");
    }
    !there
}

/// Serves one run of iperf3 in the host.
fn serve(host: &Host) -> Running {
    let mut command = Command::new("iperf3");
    command.args(["--server", "--one-off", "--port"]).arg(PORT.to_string()).stdout(Stdio::null());
    let server = Running(host.netns.run(|| command.spawn()).unwrap());
    // The connections of a server before it are there for a while: only what listens counts (proc_net_tcp: state 0A).
    let is_listening = |line: &str| line.contains(":1451 ") && line.contains(" 0A ");
    let listens =
        || std::fs::read_to_string("/proc/thread-self/net/tcp6").is_ok_and(|all| all.lines().any(is_listening));
    wait_until("iperf3 listens", || host.netns.run(listens));
    server
}

/// What iperf3 measures at the receiver, in per cent of `rate`, both in bits a second; of what it sent if that was less
/// and the network does not make it send less.
fn measure(from: &Host, to: &Host, options: &[&str], rate: f64) -> f64 {
    let _server = serve(to);
    let mut command = Command::new("iperf3");
    command.args(["--json", "--time", "3", "--omit", "1", "--port"]).arg(PORT.to_string());
    command.arg("--client").arg(to.v4.to_string()).args(options);
    let output = from.netns.run(|| command.output()).unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(said["error"].is_null(), "{}", said["error"]);
    let [sent, received] =
        ["sum_sent", "sum_received"].map(|sum| said["end"][sum]["bits_per_second"].as_f64().unwrap());
    let most = if options.contains(&"--udp") { rate.min(sent) } else { rate };
    received / most * 100.0
}

fn limit(lan: &Lan, limits: Limits) {
    let change = PortChange { limits: Some(limits), ..PortChange::default() };
    lan.datapath.set_port("br0", "h1", &change).unwrap();
}

/// Measures both ways at `mbits` Mbit/s with host 1 limited, and compares.
fn compare(lan: &Lan, mbits: u64, options: &[&str]) {
    let rate = Some(Rate { bits_per_s: mbits * 1_000_000, burst_bits: 0 });
    let [a, b] = [1, 2].map(|n| lan.host(n));
    for (limits, from, to) in [(Limits { rx: rate, tx: None }, a, b), (Limits { rx: None, tx: rate }, b, a)] {
        limit(lan, limits);
        let measured = measure(from, to, options, mbits as f64 * 1e6);
        eprintln!("{mbits} Mbit/s, {limits:?}, {options:?}: {measured:.1} %");
        assert!(BAND.contains(&measured), "{mbits} Mbit/s, {limits:?}, {options:?}: {measured:.1} %");
    }
    limit(lan, Limits::default());
}

#[test]
fn tcp_meets_the_rate_both_ways() {
    if skipped("tcp_meets_the_rate_both_ways") || no_iperf3("tcp_meets_the_rate_both_ways") {
        return;
    }
    for kind in [Kind::AfPacket, Kind::Tap] {
        let lan = Lan::learning(&[kind, kind], 1500);
        ping_until_answered(lan.host(1), lan.host(2).v4);
        for mbits in [10, 100, 1000] {
            compare(&lan, mbits, &[]);
        }
        lan.check_accounts(&[]);
    }
}

#[test]
fn udp_above_the_rate_is_cut_down_to_it() {
    if skipped("udp_above_the_rate_is_cut_down_to_it") || no_iperf3("udp_above_the_rate_is_cut_down_to_it") {
        return;
    }
    let lan = Lan::learning(&[Kind::AfPacket, Kind::Tap], 1500);
    ping_until_answered(lan.host(1), lan.host(2).v4);
    for (mbits, offered) in [(10, "20M"), (100, "150M")] {
        compare(&lan, mbits, &["--udp", "--length", "1400", "--bitrate", offered]);
    }
    lan.check_accounts(&[]);
}
