use super::*;
use crate::action::{Action, Learn, MeterId};
use crate::bridge::{BridgeId, TableMiss};
use crate::datapath::Learned;
use crate::field::Field;
use crate::group::{BucketChoice, BucketPlace, BucketSpec, GroupKind, GroupSpec, Selection};
use crate::matching::Match;
use crate::meter::{MeterBand, MeterSpec, MeterUnit};
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::FlowSpec;

mod model;

const T0: Millis = Millis(1_000);
const T1: Millis = Millis(2_000);

fn table(n: u8) -> TableId {
    TableId::new(n).unwrap()
}

fn bridge() -> Bridge {
    Bridge::new(BridgeId(0), "br0")
}

fn udp(port: u16) -> Match {
    let mut m = Match::any();
    m.set_field(Field::EthType, 0x0800);
    m.set_field(Field::IpProto, 17);
    m.set_field(Field::UdpDst, port.into());
    m
}

fn flow(port: u16, actions: impl Into<Arc<[Action]>>) -> FlowSpec {
    FlowSpec::new(udp(port), actions, Owner::user())
}

fn output(port: u16) -> Action {
    Action::Output(PortNo(port))
}

fn bucket(id: Option<u32>, action: Action) -> BucketSpec {
    BucketSpec { id, weight: 0, watch_port: None, watch_group: None, actions: [action].into() }
}

fn group(id: u32, kind: GroupKind, buckets: Vec<BucketSpec>) -> GroupSpec {
    GroupSpec { id: GroupId(id), kind, selection: Selection::Default, buckets, owner: Owner::user() }
}

fn all_group(id: u32, buckets: Vec<BucketSpec>) -> GroupMod {
    GroupMod::Add(group(id, GroupKind::All, buckets))
}

fn meter(id: u32, bands: usize) -> MeterSpec {
    let bands = vec![MeterBand { rate: 10, burst_size: 0 }; bands];
    MeterSpec { id: MeterId(id), unit: MeterUnit::Pktps, burst: false, stats: true, bands, owner: Owner::user() }
}

fn does(bridge: &mut Bridge, change: impl Into<BridgeMod>) -> Applied {
    bridge.apply(&change.into(), T1).unwrap()
}

fn fails(bridge: &mut Bridge, change: impl Into<BridgeMod>) -> ModError {
    let (flows, groups) = (bridge.tables.len(), bridge.groups.len());
    let error = bridge.apply(&change.into(), T1).unwrap_err();
    assert_eq!((bridge.tables.len(), bridge.groups.len()), (flows, groups), "{error}");
    error
}

fn reasons(applied: &Applied) -> Vec<(u128, RemovedReason)> {
    let mut all: Vec<_> =
        applied.removed.iter().map(|(r, why)| (r.spec.matches.field(Field::UdpDst).0, *why)).collect();
    all.sort_by_key(|(port, _)| *port);
    all
}

fn bucket_ids(bridge: &Bridge, id: u32) -> Vec<u32> {
    bridge.groups[&GroupId(id)].buckets.iter().map(|b| b.id).collect()
}

#[test]
fn a_flow_that_names_a_group_or_meter_that_is_not_there_is_refused_however_deep_it_names_it() {
    let mut bridge = bridge();
    let to_group = Action::Group(GroupId(7));
    let nested = [
        to_group.clone(),
        Action::Clone([to_group.clone()].into()),
        Action::WriteActions([to_group.clone()].into()),
        Action::Clone([Action::Clone([to_group].into())].into()),
    ];
    for action in nested {
        let error = fails(&mut bridge, FlowMod::add(flow(1, [action])));
        assert_eq!(error, ModError::Flow(FlowModError::NoGroup { group: GroupId(7) }));
    }
    let error = fails(&mut bridge, FlowMod::modify(flow(1, [Action::Meter(MeterId(3)), output(1)])));
    assert_eq!(error.to_string(), "there is no meter 3 to go through; add it first");
}

#[test]
fn deleting_a_group_deletes_the_flows_that_send_to_it() {
    let mut bridge = bridge();
    for id in [1, 2] {
        does(&mut bridge, all_group(id, vec![]));
    }
    does(&mut bridge, FlowMod::add(flow(1, [Action::Group(GroupId(1))])));
    does(&mut bridge, FlowMod::add(flow(2, [Action::Clone([Action::Group(GroupId(1))].into()), output(1)])));
    does(&mut bridge, FlowMod::add(flow(3, [Action::Group(GroupId(2))])));
    does(&mut bridge, FlowMod::add(flow(4, [output(1)])));
    let applied = does(&mut bridge, GroupMod::Delete(Some(GroupId(1))));
    assert_eq!(reasons(&applied), [(1, RemovedReason::GroupDelete), (2, RemovedReason::GroupDelete)]);
    assert_eq!(applied.touched, [Touched::Group(GroupId(1), Fate::Deleted)]);
    assert!(!does(&mut bridge, GroupMod::Delete(Some(GroupId(1)))).changed(), "deleting nothing is no error");
    assert_eq!(reasons(&does(&mut bridge, GroupMod::Delete(None))), [(3, RemovedReason::GroupDelete)]);
    assert_eq!((bridge.groups.len(), bridge.tables.len()), (0, 1));
}

#[test]
fn a_flow_modified_to_send_elsewhere_does_not_go_with_its_old_group() {
    let mut bridge = bridge();
    does(&mut bridge, all_group(1, vec![]));
    does(&mut bridge, FlowMod::add(flow(1, [Action::Group(GroupId(1))])));
    does(&mut bridge, FlowMod::modify(flow(1, [output(1)])));
    assert_eq!(reasons(&does(&mut bridge, GroupMod::Delete(None))), []);
    assert_eq!(bridge.tables.len(), 1);
}

#[test]
fn groups_are_added_once_and_modified_only_when_they_are_there() {
    let mut bridge = bridge();
    let spec = group(1, GroupKind::All, vec![bucket(None, output(1))]);
    let modify = |may_create| GroupMod::Modify { spec: spec.clone(), may_create };
    assert!(matches!(fails(&mut bridge, modify(false)), ModError::Group(GroupModError::Unknown { .. })));
    assert_eq!(does(&mut bridge, modify(true)).touched, [Touched::Group(GroupId(1), Fate::Added)]);
    assert!(!does(&mut bridge, modify(false)).changed(), "it is as it was");
    let other = group(1, GroupKind::All, vec![bucket(None, output(2))]);
    let modified = does(&mut bridge, GroupMod::Modify { spec: other, may_create: false });
    assert_eq!(modified.touched, [Touched::Group(GroupId(1), Fate::Modified)]);
    assert!(matches!(fails(&mut bridge, GroupMod::Add(spec)), ModError::Group(GroupModError::Exists { .. })));
    let reserved = GroupMod::Add(group(0xffff_ff01, GroupKind::All, vec![]));
    assert!(matches!(fails(&mut bridge, reserved), ModError::Group(GroupModError::BadNumber { .. })));
}

#[test]
fn a_bucket_that_keeps_its_number_keeps_its_counters() {
    let mut bridge = bridge();
    let two = vec![bucket(Some(5), output(1)), bucket(Some(6), output(2))];
    does(&mut bridge, all_group(1, two));
    for (packets, b) in [(3, 0), (4, 1)] {
        bridge.groups[&GroupId(1)].buckets[b].stats.credit(packets, 0, T1);
    }
    let spec = group(1, GroupKind::All, vec![bucket(Some(7), output(1)), bucket(Some(6), output(9))]);
    does(&mut bridge, GroupMod::Modify { spec, may_create: false });
    let counts: Vec<_> = bridge.groups[&GroupId(1)].buckets.iter().map(|b| (b.id, b.stats.packets())).collect();
    assert_eq!(counts, [(7, 0), (6, 4)]);
    assert_eq!(bridge.groups[&GroupId(1)].created, T1);
}

#[test]
fn buckets_get_the_lowest_free_numbers_and_go_where_they_are_asked_to() {
    let mut bridge = bridge();
    let buckets = vec![bucket(None, output(1)), bucket(Some(0), output(2)), bucket(None, output(3))];
    does(&mut bridge, all_group(1, buckets));
    assert_eq!(bucket_ids(&bridge, 1), [1, 0, 2]);
    let insert = |place, id| GroupMod::InsertBuckets {
        group: GroupId(1),
        place,
        buckets: vec![bucket(id, output(1)), bucket(None, output(1))],
    };
    does(&mut bridge, insert(BucketPlace::First, Some(9)));
    assert_eq!(bucket_ids(&bridge, 1), [9, 3, 1, 0, 2]);
    does(&mut bridge, insert(BucketPlace::After(1), None));
    assert_eq!(bucket_ids(&bridge, 1), [9, 3, 1, 4, 5, 0, 2]);
    does(&mut bridge, insert(BucketPlace::Last, None));
    assert_eq!(bucket_ids(&bridge, 1), [9, 3, 1, 4, 5, 0, 2, 6, 7]);
    let bad = |bridge: &mut Bridge, change| match fails(bridge, change) {
        ModError::Group(error) => error,
        other => panic!("{other}"),
    };
    let twice = bad(&mut bridge, insert(BucketPlace::Last, Some(9)));
    assert_eq!(twice, GroupModError::BucketExists { group: GroupId(1), bucket: 9 });
    let nowhere = bad(&mut bridge, insert(BucketPlace::After(99), None));
    assert_eq!(nowhere, GroupModError::UnknownBucket { group: GroupId(1), bucket: 99 });

    let remove = |which| GroupMod::RemoveBuckets { group: GroupId(1), which };
    does(&mut bridge, remove(BucketChoice::First));
    does(&mut bridge, remove(BucketChoice::Last));
    does(&mut bridge, remove(BucketChoice::Id(4)));
    assert_eq!(bucket_ids(&bridge, 1), [3, 1, 5, 0, 2, 6]);
    assert!(matches!(bad(&mut bridge, remove(BucketChoice::Id(4))), GroupModError::UnknownBucket { .. }));
    does(&mut bridge, remove(BucketChoice::All));
    does(&mut bridge, remove(BucketChoice::First));
    does(&mut bridge, remove(BucketChoice::Last));
    assert_eq!(bucket_ids(&bridge, 1), [0; 0]);
}

#[test]
fn every_kind_of_group_has_its_own_rules_for_buckets() {
    let refused = |kind, buckets| {
        let mut bridge = bridge();
        bridge.apply(&GroupMod::Add(group(1, kind, buckets)).into(), T0).map(drop).map_err(|e| match e {
            ModError::Group(error) => error,
            other => panic!("{other}"),
        })
    };
    let plain = || bucket(None, output(1));
    let heavy = BucketSpec { weight: 5, ..plain() };
    let watching = BucketSpec { watch_port: Some(PortNo(1)), ..plain() };
    let chained = BucketSpec { watch_group: Some(GroupId(2)), ..plain() };
    assert_eq!(refused(GroupKind::Select, vec![heavy.clone(), plain(), watching.clone()]), Ok(()));
    assert_eq!(refused(GroupKind::FastFailover, vec![watching.clone(), chained.clone()]), Ok(()));
    assert!(matches!(refused(GroupKind::All, vec![heavy]), Err(GroupModError::Weight { .. })));
    assert!(matches!(refused(GroupKind::All, vec![watching]), Err(GroupModError::Watch { .. })));
    assert!(matches!(refused(GroupKind::Indirect, vec![chained]), Err(GroupModError::Watch { .. })));
    assert!(matches!(refused(GroupKind::FastFailover, vec![plain()]), Err(GroupModError::NoWatch { .. })));
    assert!(matches!(refused(GroupKind::Indirect, vec![]), Err(GroupModError::NotOneBucket { buckets: 0, .. })));
    assert!(matches!(refused(GroupKind::Indirect, vec![plain(), plain()]), Err(GroupModError::NotOneBucket { .. })));
    let goes_on = bucket(None, Action::GotoTable(table(3)));
    let error = refused(GroupKind::All, vec![plain(), goes_on]).unwrap_err();
    assert_eq!(error.to_string(), "group 1, bucket 1, action 1: goto_table cannot stand within a bucket");
}

#[test]
fn an_indirect_group_may_lose_its_bucket_before_it_gets_another() {
    let mut bridge = bridge();
    does(&mut bridge, GroupMod::Add(group(1, GroupKind::Indirect, vec![bucket(None, output(1))])));
    does(&mut bridge, GroupMod::RemoveBuckets { group: GroupId(1), which: BucketChoice::All });
    let two = vec![bucket(None, output(1)), bucket(None, output(2))];
    let insert = |buckets| GroupMod::InsertBuckets { group: GroupId(1), place: BucketPlace::Last, buckets };
    assert!(matches!(fails(&mut bridge, insert(two)), ModError::Group(GroupModError::NotOneBucket { .. })));
    does(&mut bridge, insert(vec![bucket(None, output(2))]));
}

#[test]
fn a_way_through_groups_back_to_where_it_began_is_refused() {
    let mut bridge = bridge();
    let to = |id| vec![bucket(None, output(1)), bucket(None, Action::Clone([Action::Group(GroupId(id))].into()))];
    let error = fails(&mut bridge, all_group(1, to(1)));
    assert_eq!(error.to_string(), "group 1 would send to itself: 1 -> 1");
    does(&mut bridge, all_group(1, to(2)));
    does(&mut bridge, all_group(2, to(3)));
    let error = fails(&mut bridge, all_group(3, to(1)));
    assert_eq!(error.to_string(), "group 3 would send to itself: 3 -> 1 -> 2 -> 3");
    does(&mut bridge, all_group(3, to(4)));
    assert_eq!(bridge.groups.len(), 3, "a group that is not there yet may be named");
}

#[test]
fn meters_are_checked_and_take_their_flows_with_them() {
    let mut bridge = bridge();
    assert!(matches!(
        fails(&mut bridge, MeterMod::Modify(meter(1, 1))),
        ModError::Meter(MeterModError::Unknown { .. })
    ));
    assert!(matches!(fails(&mut bridge, MeterMod::Add(meter(0, 1))), ModError::Meter(MeterModError::BadNumber { .. })));
    assert!(matches!(fails(&mut bridge, MeterMod::Add(meter(1, 0))), ModError::Meter(MeterModError::Bands { .. })));
    assert!(matches!(fails(&mut bridge, MeterMod::Add(meter(1, 9))), ModError::Meter(MeterModError::Bands { .. })));
    does(&mut bridge, MeterMod::Add(meter(1, 1)));
    does(&mut bridge, MeterMod::Add(meter(2, 1)));
    assert!(matches!(fails(&mut bridge, MeterMod::Add(meter(1, 1))), ModError::Meter(MeterModError::Exists { .. })));
    does(&mut bridge, FlowMod::add(flow(1, [Action::Meter(MeterId(1)), output(1)])));
    does(&mut bridge, FlowMod::add(flow(2, [Action::Meter(MeterId(2)), output(1)])));
    does(&mut bridge, MeterMod::Modify(meter(1, 2)));
    assert_eq!(bridge.meters[&MeterId(1)].spec.bands.len(), 2);
    assert_eq!(reasons(&does(&mut bridge, MeterMod::Delete(Some(MeterId(1))))), [(1, RemovedReason::MeterDelete)]);
    assert_eq!(reasons(&does(&mut bridge, MeterMod::Delete(None))), [(2, RemovedReason::MeterDelete)]);
    assert!(bridge.meters.is_empty() && bridge.tables.is_empty());
}

fn limited(max: u32, evict: bool) -> TableMod {
    TableMod { table: Some(TableId::FIRST), max_flows: Some(max), evict: Some(evict), ..TableMod::default() }
}

fn timed(port: u16, importance: u16, idle: u16) -> FlowMod {
    FlowMod::add(FlowSpec { importance, idle_timeout: idle, ..flow(port, [output(1)]) })
}

#[test]
fn a_full_table_refuses_new_flows_but_not_changed_ones() {
    let mut bridge = bridge();
    does(&mut bridge, limited(2, false));
    does(&mut bridge, timed(1, 0, 10));
    does(&mut bridge, timed(2, 0, 10));
    let error = fails(&mut bridge, timed(3, 0, 10));
    assert_eq!(error.to_string(), "table 0 is full: it may have 2 flows; delete some, or raise its limit");
    does(&mut bridge, timed(2, 7, 10));
    let elsewhere = FlowSpec { table: table(1), ..flow(3, [output(1)]) };
    does(&mut bridge, FlowMod::add(elsewhere));
    fails(&mut bridge, FlowMod::modify(flow(9, [output(1)])));
}

#[test]
fn a_full_table_that_evicts_gives_up_the_least_important_and_soonest_over() {
    let mut bridge = bridge();
    does(&mut bridge, limited(3, true));
    does(&mut bridge, timed(1, 5, 10));
    does(&mut bridge, timed(2, 1, 20));
    does(&mut bridge, timed(3, 1, 15));
    assert_eq!(reasons(&does(&mut bridge, timed(4, 9, 0))), [(3, RemovedReason::Evicted)]);
    assert_eq!(reasons(&does(&mut bridge, timed(5, 9, 0))), [(2, RemovedReason::Evicted)]);
    assert_eq!(reasons(&does(&mut bridge, timed(6, 0, 0))), [(1, RemovedReason::Evicted)]);
    let error = fails(&mut bridge, timed(7, 0, 10));
    assert!(error.to_string().contains("none of them has a timeout"), "{error}");
}

#[test]
fn a_refused_flow_evicts_nothing() {
    let mut bridge = bridge();
    does(&mut bridge, limited(1, true));
    does(&mut bridge, timed(1, 0, 10));
    fails(&mut bridge, FlowMod::add(flow(2, [Action::GotoTable(TableId::FIRST)])));
    let rule = bridge.tables.get_strict(TableId::FIRST, 0x8000, &udp(1));
    assert!(rule.is_some());
    assert_eq!(bridge.tables.expired(Millis(T1.0 + 10_000)).len(), 1, "its timeout still runs");
}

#[test]
fn a_lower_limit_evicts_at_once() {
    let mut bridge = bridge();
    for port in 1..=4 {
        does(&mut bridge, timed(port, port, if port < 4 { 10 } else { 0 }));
    }
    assert_eq!(
        reasons(&does(&mut bridge, limited(2, true))),
        [(1, RemovedReason::Evicted), (2, RemovedReason::Evicted)]
    );
}

#[test]
fn what_is_said_of_tables_changes_only_as_asked() {
    let mut bridge = bridge();
    let named = |n, name: &str| TableMod { table: Some(table(n)), name: Some(name.into()), ..TableMod::default() };
    does(&mut bridge, named(3, "Output"));
    does(&mut bridge, TableMod { miss: Some(TableMiss::Continue), ..TableMod::default() });
    assert_eq!(bridge.table_configs.len(), 255);
    let config = &bridge.table_configs[&table(3)];
    assert_eq!((config.name.as_deref(), config.miss), (Some("Output"), TableMiss::Continue));
    let error = fails(&mut bridge, named(4, "Output"));
    assert_eq!(error.to_string(), "table 3 is called \"Output\" already; choose another name");
    assert!(!does(&mut bridge, named(3, "Output")).changed());
    for bad in ["7up", "a b", "a,b", &"x".repeat(32)] {
        assert!(matches!(fails(&mut bridge, named(4, bad)), ModError::Table(TableModError::BadName { .. })), "{bad}");
    }
    let all = TableMod { name: Some("x".into()), ..TableMod::default() };
    assert!(matches!(fails(&mut bridge, all), ModError::Table(TableModError::NameForAll { .. })));
    does(&mut bridge, TableMod { miss: Some(TableMiss::Drop), ..TableMod::default() });
    does(&mut bridge, named(3, ""));
    assert!(bridge.table_configs.is_empty());
}

fn learner(table: TableId, cookie: u64) -> Action {
    Action::Learn(Box::new(Learn {
        table,
        idle_timeout: 0,
        hard_timeout: 0,
        priority: 1,
        cookie,
        fin_idle_timeout: 0,
        fin_hard_timeout: 0,
        send_flow_rem: false,
        delete_learned: true,
        limit: 0,
        result_dst: None,
        specs: Box::new([]),
    }))
}

#[test]
fn learned_flows_go_with_the_last_flow_that_learns_them() {
    let learned = |port, cookie| FlowMod::add(FlowSpec { table: table(5), cookie, ..flow(port, [output(1)]) });
    let make = || {
        let mut bridge = bridge();
        does(&mut bridge, FlowMod::add(flow(1, [learner(table(5), 7)])));
        does(&mut bridge, FlowMod::add(flow(2, [Action::Clone([learner(table(5), 7)].into())])));
        does(&mut bridge, learned(10, 7));
        does(&mut bridge, learned(11, 8));
        bridge
    };
    let gone = [(10, RemovedReason::Delete)];
    let last_goes_by: [fn() -> FlowMod; 3] = [
        || FlowMod::delete(FlowFilter::within(&flow(2, [output(1)]))),
        || FlowMod::modify(flow(2, [output(1)])),
        || FlowMod::add(flow(2, [output(1)])),
    ];
    for last in last_goes_by {
        let mut bridge = make();
        let first = FlowMod::delete(FlowFilter::within(&flow(1, [output(1)])));
        assert_eq!(reasons(&does(&mut bridge, first)), [(1, RemovedReason::Delete)]);
        let applied = does(&mut bridge, last());
        assert_eq!(reasons(&applied).into_iter().filter(|(port, _)| *port > 9).collect::<Vec<_>>(), gone);
    }
}

#[test]
fn learned_flows_that_learn_take_theirs_with_them_and_expiry_counts() {
    let mut bridge = bridge();
    does(&mut bridge, FlowMod::add(FlowSpec { hard_timeout: 1, ..flow(1, [learner(table(5), 7)]) }));
    does(&mut bridge, FlowMod::add(FlowSpec { table: table(5), cookie: 7, ..flow(2, [learner(table(6), 8)]) }));
    does(&mut bridge, FlowMod::add(FlowSpec { table: table(6), cookie: 8, ..flow(3, [output(1)]) }));
    assert!(bridge.expire(T1).is_empty());
    let removed = Applied { removed: bridge.expire(Millis(T1.0 + 1_000)), ..Applied::default() };
    let all = [(1, RemovedReason::HardTimeout), (2, RemovedReason::Delete), (3, RemovedReason::Delete)];
    assert_eq!(reasons(&removed), all);
}

#[test]
fn deletes_may_ask_for_an_output_port_or_group() {
    let mut bridge = bridge();
    does(&mut bridge, all_group(1, vec![]));
    does(&mut bridge, FlowMod::add(flow(1, [Action::WriteActions([Action::Group(GroupId(1))].into())])));
    does(&mut bridge, FlowMod::add(flow(2, [Action::Clone([output(4)].into())])));
    does(&mut bridge, FlowMod::add(flow(3, [Action::Enqueue { port: PortNo(4), queue: 1 }])));
    does(&mut bridge, FlowMod::add(flow(4, [output(5)])));
    let by_group = FlowFilter { out_group: Some(GroupId(1)), ..FlowFilter::all() };
    assert_eq!(reasons(&does(&mut bridge, FlowMod::delete(by_group))), [(1, RemovedReason::Delete)]);
    let by_port = FlowFilter { out_port: Some(PortNo(4)), ..FlowFilter::all() };
    let gone = [(2, RemovedReason::Delete), (3, RemovedReason::Delete)];
    assert_eq!(reasons(&does(&mut bridge, FlowMod::delete(by_port))), gone);
}

#[test]
fn learning_adds_refreshes_changes_and_keeps_to_its_limit() {
    let mut bridge = bridge();
    let learned = |port, to, limit| Learned {
        bridge: BridgeId(0),
        spec: FlowSpec { cookie: 7, hard_timeout: 10, ..flow(port, [output(to)]) },
        limit,
    };
    let Ok(Learning::Changed(applied)) = bridge.learn(&learned(1, 1, 2), T0) else { panic!("it is new") };
    let rule = applied.added.unwrap();
    assert!(matches!(bridge.learn(&learned(1, 1, 1), T1), Ok(Learning::Refreshed)), "a limit concerns new flows");
    assert_eq!(rule.stats.refreshed(), T1);
    assert!(matches!(bridge.learn(&learned(2, 1, 2), T1), Ok(Learning::Changed(_))));
    assert!(matches!(bridge.learn(&learned(3, 1, 2), T1), Ok(Learning::Limited)));
    let Ok(Learning::Changed(applied)) = bridge.learn(&learned(1, 9, 0), T1) else { panic!("it differs") };
    assert_eq!(applied.modified[0].spec.actions[..], [output(9)]);
    assert_eq!(bridge.tables.len(), 2);
    let bad = Learned { spec: flow(4, [Action::Group(GroupId(9))]), ..learned(4, 1, 0) };
    assert!(bridge.learn(&bad, T1).is_err());
}

#[test]
fn a_bundle_of_all_kinds_is_applied_in_order_or_not_at_all() {
    let mut bridge = bridge();
    let good: [BridgeMod; 4] = [
        all_group(1, vec![bucket(None, output(1))]).into(),
        MeterMod::Add(meter(1, 1)).into(),
        limited(1, false).into(),
        FlowMod::add(flow(1, [Action::Meter(MeterId(1)), Action::Group(GroupId(1))])).into(),
    ];
    let mut changes = good.to_vec();
    changes.push(FlowMod::add(flow(2, [output(1)])).into());
    let (index, error) = apply_bundle(&mut bridge, &changes, T1).unwrap_err();
    assert_eq!(index, 4, "{error}");
    assert!(bridge.groups.is_empty() && bridge.meters.is_empty() && bridge.tables.is_empty());
    assert!(bridge.table_configs.is_empty());
    assert_eq!(apply_bundle(&mut bridge, &good, T1).unwrap().len(), 4);
    assert_eq!((bridge.groups.len(), bridge.meters.len(), bridge.tables.len()), (1, 1, 1));
}
