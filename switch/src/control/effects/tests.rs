use super::*;
use crate::control::{Config, FailMode};
use crate::event::{Event, EventKind};
use sluice_flows::action::Action;
use sluice_flows::bridge::{Bridge, TableMod};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::datapath::Learned;
use sluice_flows::rule::{FlowSpec, Rule, TableId};
use sluice_flows::table::RemovedReason;
use sluice_flows::{Match, Owner, PortNo};
use std::sync::Arc;

fn datapath() -> Datapath {
    let datapath = Datapath::start(Config::default()).unwrap();
    datapath.add_bridge("br0", FailMode::Secure).unwrap();
    datapath
}

fn bridge(datapath: &Datapath) -> Arc<Bridge> {
    datapath.bridge("br0").unwrap()
}

fn learned(priority: u16) -> Effect {
    let flow = FlowSpec::new(Match::any(), [Action::Output(PortNo(1))], Owner::new("test:learn"));
    let spec = FlowSpec { priority, hard_timeout: 30, send_flow_rem: true, ..flow };
    Effect::Learn(Box::new(Learned { bridge: BridgeId(0), spec, limit: 0 }))
}

fn now(datapath: &Datapath) -> Millis {
    datapath.clock().now()
}

fn only(datapath: &Datapath) -> Arc<Rule> {
    let bridge = bridge(datapath);
    assert_eq!(bridge.tables.len(), 1);
    bridge.tables.iter().next().unwrap().clone()
}

#[test]
fn a_learned_flow_is_in_force_at_once_and_then_only_refreshed() {
    let datapath = datapath();
    let events = datapath.events(16);
    let shared = &datapath.inner.shared;
    let before = datapath.model().generation;
    shared.apply_effects(&[learned(7)], now(&datapath));
    assert_eq!((only(&datapath).spec.priority, datapath.model().generation), (7, before + 1));
    let told: Vec<Event> = events.try_iter().collect();
    assert!(matches!(&told[..], [Event { kind: EventKind::FlowsChanged { changes, .. }, .. }] if changes.added == 1));
    let later = Millis(now(&datapath).0 + 20_000);
    shared.apply_effects(&[learned(7)], later);
    assert_eq!((only(&datapath).stats.refreshed(), datapath.model().generation), (later, before + 1));
    datapath.shutdown();
    shared.apply_effects(&[learned(8)], later);
    assert_eq!(datapath.model().generation, before + 1, "nothing is learned when the switch has ended");
}

#[test]
fn the_end_of_a_connection_shortens_timeouts_once() {
    let datapath = datapath();
    let shared = &datapath.inner.shared;
    shared.apply_effects(&[learned(7)], now(&datapath));
    let rule = only(&datapath);
    rule.stats.credit(3, 300, now(&datapath));
    let fin = |idle, hard| [Effect::FinTimeout { bridge: BridgeId(0), rule: rule.clone(), idle, hard }];
    shared.apply_effects(&fin(5, 60), now(&datapath));
    let shorter = only(&datapath);
    assert_eq!((shorter.spec.idle_timeout, shorter.spec.hard_timeout), (5, 30));
    assert_eq!((shorter.stats.packets(), shorter.modified), (3, rule.modified));
    let generation = datapath.model().generation;
    shared.apply_effects(&fin(5, 60), now(&datapath));
    shared.apply_effects(&fin(0, 0), now(&datapath));
    assert_eq!(datapath.model().generation, generation);
}

#[test]
fn what_finds_the_lock_taken_waits_and_what_is_too_much_is_counted() {
    let datapath = datapath();
    let shared = &datapath.inner.shared;
    {
        let _state = datapath.inner.lock();
        let effects: Vec<_> = (0..).map(learned).take(WAITING + 3).collect();
        shared.apply_effects(&effects, now(&datapath));
        assert_eq!(datapath.effects_lost(), 3);
        assert!(datapath.model().bridges.values().all(|bridge| bridge.tables.is_empty()));
    }
    datapath.maintain();
    // The maintenance thread may be doing it just now.
    drop(datapath.inner.lock());
    assert_eq!(bridge(&datapath).tables.len(), WAITING);
}

#[test]
fn a_flow_evicted_by_a_learned_one_is_told_of() {
    let datapath = datapath();
    let change = TableMod { table: Some(TableId::FIRST), max_flows: Some(1), evict: Some(true), ..TableMod::default() };
    datapath.apply_bundle("br0", &[BridgeMod::from(change)]).unwrap();
    let events = datapath.events(16);
    let shared = &datapath.inner.shared;
    shared.apply_effects(&[learned(7)], now(&datapath));
    shared.apply_effects(&[learned(8)], now(&datapath));
    assert_eq!(only(&datapath).spec.priority, 8);
    // By the maintenance thread, or by this one.
    datapath.maintain();
    let removed = std::iter::from_fn(|| events.recv_timeout(std::time::Duration::from_secs(20)).ok());
    let reason = removed.take(8).find_map(|event| match event.kind {
        EventKind::FlowRemoved { rule, reason } => Some((rule.spec.priority, reason)),
        _ => None,
    });
    assert_eq!(reason, Some((7, RemovedReason::Evicted)));
}
