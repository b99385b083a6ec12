use super::*;
use crate::action::Action;
use crate::field::Field;
use crate::filter::OwnerFilter;
use crate::port::PortNo;

const T0: Millis = Millis(1_000);
const T1: Millis = Millis(2_000);

fn table(n: u8) -> TableId {
    TableId::new(n).unwrap()
}

fn ip() -> Match {
    let mut m = Match::any();
    m.set_field(Field::EthType, 0x0800);
    m
}

fn tcp(port: u16) -> Match {
    let mut m = ip();
    m.set_field(Field::IpProto, 6);
    m.set_field(Field::TcpDst, port.into());
    m
}

fn output(port: u16) -> [Action; 1] {
    [Action::Output(PortNo(port))]
}

fn flow(matches: Match, port: u16) -> FlowSpec {
    FlowSpec::new(matches, output(port), Owner::user())
}

fn with(spec: FlowSpec, change: impl FnOnce(&mut FlowSpec)) -> FlowSpec {
    let mut spec = spec;
    change(&mut spec);
    spec
}

fn tables(specs: impl IntoIterator<Item = FlowSpec>) -> Tables {
    let mut tables = Tables::new();
    for spec in specs {
        tables.apply(&FlowMod::add(spec), T0).unwrap();
    }
    tables
}

/// Table, priority and output port of every flow, in order.
fn dump(tables: &Tables) -> Vec<(u8, u16, Option<PortNo>)> {
    let port = |r: &Arc<Rule>| match r.spec.actions.first() {
        Some(Action::Output(port)) => Some(*port),
        _ => None,
    };
    let mut all: Vec<_> = tables.iter().map(|r| (r.spec.table.get(), r.spec.priority, port(r))).collect();
    all.sort();
    all
}

fn only(tables: &Tables) -> Arc<Rule> {
    assert_eq!(tables.len(), 1);
    tables.iter().next().unwrap().clone()
}

#[test]
fn an_add_replaces_the_flow_of_the_same_priority_and_match_and_counts_from_zero() {
    let mut tables = tables([flow(ip(), 1)]);
    only(&tables).stats.credit(7, 700, T0);
    let applied = tables.apply(&FlowMod::add(flow(ip(), 2)), T1).unwrap();
    let rule = only(&tables);
    assert_eq!(*rule.spec.actions, output(2));
    assert_eq!((rule.stats.packets(), rule.created), (0, T1));
    assert_eq!(applied.replaced.unwrap().stats.packets(), 7);
    assert!(Arc::ptr_eq(&applied.added.unwrap(), &rule));
    assert!(applied.removed.is_empty());
}

#[test]
fn an_add_that_keeps_counts_takes_over_the_counters() {
    let mut tables = tables([flow(ip(), 1)]);
    let old = only(&tables);
    old.stats.credit(7, 700, T0);
    let add = FlowMod::Add { spec: flow(ip(), 2), check_overlap: false, reset_counts: false };
    tables.apply(&add, T1).unwrap();
    old.stats.credit(1, 100, T1);
    assert_eq!((only(&tables).stats.packets(), only(&tables).stats.bytes()), (8, 800));
}

#[test]
fn another_priority_or_table_is_another_flow() {
    let other_priority = with(flow(ip(), 2), |s| s.priority = 7);
    let other_table = with(flow(ip(), 3), |s| s.table = table(1));
    let tables = tables([flow(ip(), 1), other_priority, other_table]);
    assert_eq!(dump(&tables), [(0, 7, Some(PortNo(2))), (0, 32768, Some(PortNo(1))), (1, 32768, Some(PortNo(3)))]);
    assert_eq!((tables.table_len(TableId::FIRST), tables.table_len(table(1)), tables.table_len(table(9))), (2, 1, 0));
}

#[test]
fn check_overlap_refuses_flows_of_the_same_priority_only() {
    let mut tables = tables([with(flow(ip(), 1), |s| s.owner = Owner::new("np:a/b#1"))]);
    let add = |spec| FlowMod::Add { spec, check_overlap: true, reset_counts: true };
    let error = tables.apply(&add(flow(tcp(80), 2)), T1).unwrap_err();
    assert!(matches!(&error, FlowModError::Overlap { owner, .. } if owner.text() == "np:a/b#1"), "{error}");
    assert!(error.to_string().contains("table 0"), "{error}");
    assert_eq!(tables.len(), 1);
    assert!(tables.apply(&add(with(flow(tcp(80), 2), |s| s.priority = 1)), T1).is_ok());
    assert!(tables.apply(&add(flow(ip(), 3)), T1).is_ok(), "the same flow is replaced, not overlapped");
    let mut arp = Match::any();
    arp.set_field(Field::EthType, 0x0806);
    assert!(tables.apply(&add(flow(arp, 4)), T1).is_ok());
}

#[test]
fn a_modify_changes_actions_within_its_match_and_keeps_the_rest() {
    let first = with(flow(tcp(80), 1), |s| {
        (s.priority, s.cookie, s.idle_timeout, s.hard_timeout) = (7, 5, 10, 20);
    });
    let mut tables = tables([first, flow(Match::any(), 9), with(flow(tcp(80), 3), |s| s.table = table(1))]);
    let old = tables.get_strict(TableId::FIRST, 7, &tcp(80)).unwrap().clone();
    old.stats.credit(3, 300, T0);
    let spec = with(flow(ip(), 2), |s| (s.cookie, s.idle_timeout, s.owner) = (6, 99, Owner::new("svc:a/b")));
    let applied = tables.apply(&FlowMod::modify(spec), T1).unwrap();
    assert_eq!(dump(&tables), [(0, 7, Some(PortNo(2))), (0, 32768, Some(PortNo(9))), (1, 32768, Some(PortNo(3)))]);
    let [rule] = applied.modified.as_slice() else { panic!("{applied:?}") };
    assert_eq!((rule.spec.cookie, rule.spec.idle_timeout, rule.spec.hard_timeout), (5, 10, 20));
    assert_eq!((rule.created, rule.modified, rule.stats.packets()), (T0, T1, 3));
    assert_eq!(rule.spec.owner.text(), "svc:a/b");
    old.stats.credit(1, 100, T1);
    assert_eq!(rule.stats.packets(), 4, "what is still credited to the old rule counts");
}

#[test]
fn a_modify_sets_the_cookie_and_resets_counts_when_asked() {
    let mut tables = tables([flow(ip(), 1)]);
    only(&tables).stats.credit(3, 300, T0);
    let spec = with(flow(ip(), 2), |s| s.cookie = 6);
    let filter = FlowFilter::within(&spec);
    tables.apply(&FlowMod::Modify { filter, spec, set_cookie: true, reset_counts: true }, T1).unwrap();
    assert_eq!((only(&tables).spec.cookie, only(&tables).stats.packets()), (6, 0));
}

#[test]
fn a_strict_modify_changes_only_the_very_same_flow() {
    let mut tables = tables([flow(tcp(80), 1), flow(ip(), 1), with(flow(ip(), 1), |s| s.priority = 7)]);
    let applied = tables.apply(&FlowMod::modify_strict(flow(ip(), 2)), T1).unwrap();
    assert_eq!(applied.modified.len(), 1);
    assert_eq!(dump(&tables), [(0, 7, Some(PortNo(1))), (0, 32768, Some(PortNo(1))), (0, 32768, Some(PortNo(2)))]);
}

#[test]
fn a_modify_of_nothing_adds_unless_it_asks_for_a_cookie() {
    let mut tables = Tables::new();
    let filter = FlowFilter { cookie: 1, cookie_mask: u64::MAX, ..FlowFilter::all() };
    let by_cookie = FlowMod::Modify { filter, spec: flow(ip(), 1), set_cookie: false, reset_counts: false };
    assert!(!tables.apply(&by_cookie, T0).unwrap().changed());
    assert!(tables.is_empty());
    let applied = tables.apply(&FlowMod::modify(flow(ip(), 1)), T0).unwrap();
    assert!(applied.added.is_some() && applied.changed());
    assert_eq!(dump(&tables), [(0, 32768, Some(PortNo(1)))]);
}

#[test]
fn a_modify_is_checked_against_the_table_of_every_flow_it_changes() {
    let mut tables = tables([flow(ip(), 1), with(flow(ip(), 1), |s| s.table = table(5))]);
    let spec = FlowSpec::new(ip(), [Action::GotoTable(table(3))], Owner::user());
    let filter = FlowFilter { table: None, ..FlowFilter::within(&spec) };
    let change = FlowMod::Modify { filter, spec, set_cookie: false, reset_counts: false };
    assert!(matches!(tables.apply(&change, T1), Err(FlowModError::Inconsistent(_))));
    assert_eq!(dump(&tables), [(0, 32768, Some(PortNo(1))), (5, 32768, Some(PortNo(1)))]);
}

#[test]
fn a_delete_takes_what_lies_within_and_every_condition_narrows_it() {
    let all = || {
        tables([
            with(flow(tcp(80), 1), |s| (s.cookie, s.owner, s.generation) = (0x11, Owner::new("np:a/x#1"), 1)),
            with(flow(tcp(81), 2), |s| (s.cookie, s.owner, s.generation) = (0x12, Owner::new("np:a/y#1"), 2)),
            with(flow(ip(), 3), |s| (s.cookie, s.priority) = (0x21, 5)),
            with(flow(tcp(80), 4), |s| s.table = table(1)),
        ])
    };
    let left = |filter: FlowFilter| {
        let mut tables = all();
        let applied = tables.apply(&FlowMod::delete(filter), T1).unwrap();
        assert_eq!(applied.removed.len() + tables.len(), 4);
        assert!(applied.removed.iter().all(|(_, why)| *why == RemovedReason::Delete));
        dump(&tables).into_iter().map(|(_, _, port)| port.unwrap().0).collect::<Vec<_>>()
    };
    let filter = FlowFilter::all();
    assert_eq!(left(filter.clone()), [0; 0]);
    assert_eq!(left(FlowFilter { table: Some(TableId::FIRST), ..filter.clone() }), [4]);
    assert_eq!(left(FlowFilter { matches: tcp(80), ..filter.clone() }), [3, 2]);
    assert_eq!(left(FlowFilter { matches: ip(), strict: Some(5), ..filter.clone() }), [1, 2, 4]);
    assert_eq!(left(FlowFilter { matches: ip(), strict: Some(6), ..filter.clone() }), [3, 1, 2, 4]);
    assert_eq!(left(FlowFilter { cookie: 0x10, cookie_mask: 0xf0, ..filter.clone() }), [3, 4]);
    assert_eq!(left(FlowFilter { out_port: Some(PortNo(2)), ..filter.clone() }), [3, 1, 4]);
    assert_eq!(left(FlowFilter { owner: Some(OwnerFilter::new("np:a/x#1")), ..filter.clone() }), [3, 2, 4]);
    assert_eq!(left(FlowFilter { owner: Some(OwnerFilter::new("np:*")), ..filter.clone() }), [3, 4]);
    let old = FlowFilter { owner: Some(OwnerFilter::new("np:*")), generation_below: Some(2), ..filter };
    assert_eq!(left(old), [3, 2, 4]);
}

#[test]
fn a_flow_that_its_table_or_match_does_not_allow_is_refused() {
    let mut tables = Tables::new();
    let spec = FlowSpec::new(Match::any(), [Action::GotoTable(TableId::FIRST)], Owner::user());
    assert!(tables.apply(&FlowMod::add(spec), T0).is_err());
    assert!(tables.is_empty());
}

#[test]
fn rules_expire_when_idle_or_when_their_hard_timeout_passes() {
    let mut tables = tables([
        with(flow(tcp(1), 1), |s| s.idle_timeout = 10),
        with(flow(tcp(2), 2), |s| s.hard_timeout = 30),
        with(flow(tcp(3), 3), |s| (s.idle_timeout, s.hard_timeout) = (5, 30)),
        flow(tcp(4), 4),
    ]);
    let at = |seconds: u64| Millis(T0.0 + seconds * 1000);
    let ports = |expired: &[(Arc<Rule>, RemovedReason)]| {
        let mut out: Vec<_> = expired.iter().map(|(r, why)| (r.spec.matches.field(Field::TcpDst).0, *why)).collect();
        out.sort_by_key(|(port, _)| *port);
        out
    };
    assert!(tables.expired(at(4)).is_empty());
    let third = tables.get_strict(TableId::FIRST, 32768, &tcp(3)).unwrap();
    third.stats.credit(1, 60, at(28));
    assert_eq!(ports(&tables.expired(at(10))), [(1, RemovedReason::IdleTimeout)]);
    assert_eq!(tables.expire(at(10)).len(), 1);
    assert!(tables.expired(at(29)).is_empty());
    assert_eq!(ports(&tables.expire(at(30))), [(2, RemovedReason::HardTimeout), (3, RemovedReason::HardTimeout)]);
    assert_eq!(ports(&tables.expired(at(1_000_000))), []);
    assert_eq!(tables.len(), 1);
}

#[test]
fn a_modify_starts_the_hard_timeout_anew() {
    let mut tables = tables([with(flow(ip(), 1), |s| s.hard_timeout = 10)]);
    tables.apply(&FlowMod::modify(flow(ip(), 2)), Millis(T0.0 + 9_000)).unwrap();
    assert!(tables.expired(Millis(T0.0 + 10_000)).is_empty());
    assert_eq!(tables.expired(Millis(T0.0 + 19_000)).len(), 1);
}

#[test]
fn a_clone_keeps_its_rules_while_the_original_changes() {
    let mut tables = tables([flow(ip(), 1), with(flow(tcp(1), 2), |s| s.idle_timeout = 1)]);
    let (snapshot, before) = (tables.clone(), dump(&tables));
    tables.apply(&FlowMod::add(flow(tcp(80), 3)), T1).unwrap();
    tables.apply(&FlowMod::modify(flow(ip(), 4)), T1).unwrap();
    tables.apply(&FlowMod::delete(FlowFilter::all()), T1).unwrap();
    assert!(tables.is_empty() && tables.expired(Millis(u64::MAX)).is_empty());
    assert_eq!(dump(&snapshot), before);
    assert_eq!(snapshot.expired(Millis(u64::MAX)).len(), 1);
}
