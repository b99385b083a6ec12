//! Connections end when their time is over, and a flood of new ones does not reach those that are established.

use crate::connections::{add, firewall, send, udp};
use sluice_flows::DropReason;
use sluice_flows::key::{FlowKey, slot};
use sluice_flows::packet::compose::compose;
use sluice_switch::conntrack::{CtSettings, SettingsError, TimeoutClass, ZoneSettings};
use sluice_switch::{Clock, Config, FailMode};
use sluice_tests::switch::{Switch, take_all, wait_until};

/// Zone 1 from port 1 to port 2 and back, zone 2 from port 3 to port 2.
const ZONES: [&str; 8] = [
    "table=0,priority=100,ip,ct_state=-trk,in_port=1,actions=ct(zone=1,table=1)",
    "table=0,priority=100,ip,ct_state=-trk,in_port=2,actions=ct(zone=1,table=1)",
    "table=0,priority=100,ip,ct_state=-trk,in_port=3,actions=ct(zone=2,table=1)",
    "table=1,priority=100,ip,ct_state=+trk+new,in_port=1,actions=ct(commit,zone=1),output:2",
    "table=1,priority=100,ip,ct_state=+trk+new,in_port=3,actions=ct(commit,zone=2),output:2",
    "table=1,priority=100,ip,ct_state=+trk+est,in_port=1,actions=output:2",
    "table=1,priority=100,ip,ct_state=+trk+est,in_port=2,actions=output:1",
    "table=1,priority=100,ip,ct_state=+trk+est,in_port=3,actions=output:2",
];

fn zones() -> Switch {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 3, FailMode::Secure);
    add(&switch, &ZONES);
    switch
}

fn set(switch: &Switch, change: impl FnOnce(&mut CtSettings)) {
    let change = |settings: &mut CtSettings| {
        change(settings);
        Ok::<_, SettingsError>(())
    };
    switch.datapath.set_connection_settings(change).unwrap();
}

/// The first packet of connection `n`.
fn syn(n: u16) -> Vec<u8> {
    let mut key = FlowKey::ZERO;
    for (slot, value) in [
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 6),
        (slot::IP_TTL, 64),
        (slot::IP_SRC, 0x0b00_0001),
        (slot::IP_DST, 0x0a00_0002),
        (slot::TP_SRC, 1000 + u128::from(n)),
        (slot::TP_DST, 80),
        (slot::TCP_FLAGS, 2),
    ] {
        key.set(slot, value);
    }
    compose(&key, b"")
}

/// Sends the first packets of many connections into `port`, and tells how many left by port 2.
fn flood(switch: &mut Switch, port: u16, connections: std::ops::Range<u16>) -> usize {
    connections.for_each(|n| switch.send(port, &syn(n)));
    switch.wait();
    take_all(&switch.ends[&("br0".to_owned(), 2)]).len()
}

/// Establishes UDP connections from port 1.
fn establish(switch: &mut Switch, count: u16) {
    for n in 0..count {
        assert_eq!(send(switch, 1, &udp(1, 2, (1000 + n, 53))), [0, 1]);
        assert_eq!(send(switch, 2, &udp(2, 1, (53, 1000 + n))), [1, 0]);
    }
}

/// Whether those connections go on, in both directions.
fn established(switch: &mut Switch, count: u16) -> bool {
    (0..count).all(|n| {
        send(switch, 2, &udp(2, 1, (53, 1000 + n))) == [1, 0] && send(switch, 1, &udp(1, 2, (1000 + n, 53))) == [0, 1]
    })
}

#[test]
fn a_connection_that_was_idle_too_long_is_over_whether_it_was_swept_or_not() {
    let clock = Clock::manual();
    let mut switch = firewall(Config { clock: clock.clone(), ..Config::default() });
    let (there, back) = (udp(1, 2, (1000, 53)), udp(2, 1, (53, 1000)));
    let timeout = u64::from(TimeoutClass::UdpMultiple.default_seconds()) * 1000;
    for sweep in [false, true] {
        for _ in 0..4 {
            assert_eq!(send(&mut switch, 1, &there), [0, 1]);
            clock.advance(timeout - 1);
            assert_eq!(send(&mut switch, 2, &back), [1, 0], "just in time");
        }
        clock.advance(timeout);
        if sweep {
            switch.datapath.maintain();
            assert_eq!(switch.datapath.connections_len(), 0);
        }
        assert_eq!(send(&mut switch, 2, &back), [0, 0]);
    }
    set(&switch, |settings| settings.timeouts.set(TimeoutClass::UdpMultiple, 1));
    assert_eq!((send(&mut switch, 1, &there), send(&mut switch, 2, &back)), ([0, 1], [1, 0]));
    clock.advance(1000);
    assert_eq!(send(&mut switch, 2, &back), [0, 0], "the new timeout holds at once");
}

#[test]
fn connections_expire_by_themselves() {
    let mut switch = firewall(Config::default());
    set(&switch, |settings| settings.timeouts.set(TimeoutClass::UdpFirst, 1));
    assert_eq!(send(&mut switch, 1, &udp(1, 2, (1000, 53))), [0, 1]);
    wait_until("it is swept", || switch.datapath.connections_len() == 0);
    assert_eq!(switch.datapath.connection_counters().expired, 1);
}

#[test]
fn a_full_table_is_shared_by_those_that_are_answered() {
    let mut switch = zones();
    set(&switch, |settings| settings.max_connections = 300);
    establish(&mut switch, 100);
    assert_eq!(flood(&mut switch, 1, 0..2000), 2000, "they push out each other");
    assert_eq!(switch.datapath.connections_len(), 300);
    assert!(established(&mut switch, 100));
    assert_eq!(flood(&mut switch, 3, 0..50), 50, "another zone");
    assert!(established(&mut switch, 100));
    let counters = switch.datapath.connection_counters();
    assert_eq!((counters.full, counters.early_dropped), (0, 100 + 2000 + 50 - 300), "{counters:?}");
}

#[test]
fn a_table_full_of_established_connections_drops_what_is_new_as_ct_full() {
    let mut switch = zones();
    set(&switch, |settings| settings.max_connections = 50);
    establish(&mut switch, 50);
    assert_eq!(flood(&mut switch, 1, 0..200), 0);
    assert!(established(&mut switch, 50));
    assert_eq!((switch.dropped(DropReason::CtFull), switch.datapath.connection_counters().full), (200, 200));
}

#[test]
fn a_zone_that_is_full_leaves_the_others_alone() {
    let mut switch = zones();
    let limit = ZoneSettings { limit: Some(60), ..ZoneSettings::default() };
    set(&switch, |settings| _ = settings.zones.insert(1, limit));
    establish(&mut switch, 50);
    assert_eq!(flood(&mut switch, 3, 0..100), 100);
    assert_eq!(flood(&mut switch, 1, 0..500), 500, "they push out each other");
    let zones = switch.datapath.connection_zones();
    let zones: Vec<_> = zones.iter().map(|zone| (zone.zone, zone.connections, zone.limit)).collect();
    assert_eq!(zones, [(1, 60, 60), (2, 100, 0)]);
    assert!(established(&mut switch, 50));
}
