//! Connection tracking: established packets are answered in one lookup, and only as long as that is right.

use sluice_flows::DropReason;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::text::{Names, parse_flow_mod};
use sluice_switch::stats::CacheStats;
use sluice_switch::{Config, FailMode};
use sluice_tests::switch::{Switch, take_all};

const FIREWALL: [&str; 4] = [
    "table=0,priority=100,ip,ct_state=-trk,actions=ct(table=1)",
    "table=1,priority=100,ip,ct_state=+trk+new,in_port=1,actions=ct(commit,exec(load:7->NXM_NX_CT_MARK[])),output:2",
    "table=1,priority=100,ip,ct_state=+trk+est,ct_mark=7,in_port=1,actions=output:2",
    "table=1,priority=100,ip,ct_state=+trk+est,in_port=2,actions=output:1",
];

pub(crate) fn add(switch: &Switch, flows: &[&str]) {
    let changes: Vec<_> =
        flows.iter().map(|text| BridgeMod::from(parse_flow_mod(text, &Names::new()).unwrap().value)).collect();
    switch.datapath.apply_bundle("br0", &changes).unwrap();
}

pub(crate) fn firewall(config: Config) -> Switch {
    let mut switch = Switch::start(config);
    switch.bridge("br0", 2, FailMode::Secure);
    add(&switch, &FIREWALL);
    switch
}

/// A UDP packet between two addresses; `from` is the last byte of the source.
pub(crate) fn udp(from: u8, to: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut key = FlowKey::ZERO;
    for (slot, value) in [
        (slot::ETH_SRC, 4),
        (slot::ETH_DST, 2),
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
        (slot::IP_SRC, 0x0a00_0000 | u128::from(from)),
        (slot::IP_DST, 0x0a00_0000 | u128::from(to)),
        (slot::TP_SRC, ports.0.into()),
        (slot::TP_DST, ports.1.into()),
    ] {
        key.set(slot, value);
    }
    compose(&key, b"hello")
}

/// Sends a frame into `port` and tells how many leave by port 1 and port 2.
pub(crate) fn send(switch: &mut Switch, port: u16, frame: &[u8]) -> [usize; 2] {
    switch.send(port, frame);
    switch.wait();
    [1, 2].map(|no| take_all(&switch.ends[&("br0".to_owned(), no)]).len())
}

fn cache(switch: &Switch) -> CacheStats {
    switch.datapath.sync_stats();
    switch.datapath.worker_stats()[0].cache
}

#[test]
fn packets_of_a_connection_take_one_lookup_both_ways() {
    let mut switch = firewall(Config::default());
    let (there, back) = (udp(1, 2, (1000, 53)), udp(2, 1, (53, 1000)));
    assert_eq!(send(&mut switch, 2, &back), [0, 0], "nobody asked yet");
    for _ in 0..3 {
        assert_eq!(send(&mut switch, 1, &there), [0, 1]);
        assert_eq!(send(&mut switch, 2, &back), [1, 0]);
    }
    let before = cache(&switch);
    for _ in 0..5 {
        assert_eq!(send(&mut switch, 1, &there), [0, 1]);
        assert_eq!(send(&mut switch, 2, &back), [1, 0]);
    }
    let after = cache(&switch);
    assert_eq!(after.connection_hits - before.connection_hits, 10, "{after:?}");
    assert_eq!(
        (after.pass_hits, after.pass_misses, after.misses),
        (before.pass_hits, before.pass_misses, before.misses)
    );
}

#[test]
fn a_change_of_the_flows_reaches_established_connections() {
    let mut switch = firewall(Config::default());
    let (there, back) = (udp(1, 2, (1000, 53)), udp(2, 1, (53, 1000)));
    for _ in 0..4 {
        assert_eq!(send(&mut switch, 1, &there), [0, 1]);
        assert_eq!(send(&mut switch, 2, &back), [1, 0]);
    }
    add(&switch, &["table=1,priority=200,ip,ct_state=+est,in_port=2,actions=drop"]);
    for _ in 0..3 {
        assert_eq!(send(&mut switch, 2, &back), [0, 0]);
        assert_eq!(send(&mut switch, 1, &there), [0, 1]);
    }
    let drops = switch.datapath.drops();
    let rule = drops.iter().find(|drop| drop.reason == DropReason::RuleDrop).and_then(|drop| drop.rule.as_ref());
    assert_eq!(rule.map(|rule| rule.spec.priority), Some(200), "{drops:?}");
}
