//! Groups, copies, action sets, the stack.

use super::*;
use crate::action::{ControllerAction, GroupId, MeterId};
use crate::group::{Bucket, Group, GroupKind, Selection};
use crate::meter::{Meter, MeterBand, MeterSpec, MeterUnit};
use crate::rule::RuleStats;

fn bucket(id: u32, watch_port: Option<u16>, actions: Vec<Action>) -> Bucket {
    let watch_port = watch_port.map(PortNo);
    Bucket { id, weight: 1, watch_port, watch_group: None, actions: actions.into(), stats: Arc::default() }
}

/// A bridge of five ports whose table 0 does `actions`, with group 1 and meter 1.
fn with_group(kind: GroupKind, buckets: Vec<Bucket>, actions: Vec<Action>) -> Model {
    let mut model = model(trunks(5), vec![rule(0, actions)]);
    edit(&mut model, |bridge| {
        let (id, selection, buckets) = (GroupId(1), Selection::Default, buckets.into());
        let group =
            Group { id, kind, selection, buckets, owner: Owner::user(), created: Millis(0), stats: Arc::default() };
        bridge.groups.insert(id, Arc::new(group));
        let bands = vec![MeterBand { rate: 1, burst_size: 0 }];
        let (id, unit) = (MeterId(1), MeterUnit::Pktps);
        let spec = MeterSpec { id, unit, burst: false, stats: false, bands, owner: Owner::user() };
        bridge.meters.insert(id, Arc::new(Meter::new(spec, Millis(0))));
    });
    model
}

fn edit(model: &mut Model, change: impl FnOnce(&mut Bridge)) {
    let mut bridge = (*model.bridges[&BridgeId(0)]).clone();
    change(&mut bridge);
    model.bridges.insert(BridgeId(0), Arc::new(bridge));
}

fn to(no: u16) -> Action {
    Action::Output(PortNo(no))
}

fn set_dst(value: u128) -> Action {
    Action::SetField { field: Field::EthDst, value, mask: u128::MAX }
}

fn group(id: u32) -> Action {
    Action::Group(GroupId(id))
}

#[test]
fn every_bucket_of_all_works_on_the_packet_as_it_came() {
    let buckets = vec![bucket(0, None, vec![set_dst(9), to(2)]), bucket(1, None, vec![to(3)])];
    let model = with_group(GroupKind::All, buckets, vec![group(1), to(4)]);
    let result = run(&model, &tcp());
    let all = u128::from(u64::MAX >> 16);
    assert_eq!(result.actions, [set(Field::EthDst, 9, all), out(2), set(Field::EthDst, H2, all), out(3), out(4)]);
    assert_eq!(result.mask.get(slot::ETH_DST), all, "putting the address back needs it");
    assert_eq!(result.buckets.len(), 3, "the group and two buckets are credited");
}

#[test]
fn fast_failover_takes_the_first_bucket_whose_port_is_up() {
    let buckets = || (0..3u16).map(|n| bucket(n.into(), Some(n + 2), vec![to(n + 2)])).collect();
    let mut model = with_group(GroupKind::FastFailover, buckets(), vec![group(1)]);
    assert_eq!(run(&model, &tcp()).actions, [out(2)]);
    edit(&mut model, |bridge| {
        let down = BridgePort { up: false, ..(*bridge.ports[&PortNo(2)]).clone() };
        bridge.ports.insert(PortNo(2), Arc::new(down));
    });
    assert_eq!(run(&model, &tcp()).actions, [out(3)]);
}

#[test]
fn select_shares_connections_by_weight_and_keeps_both_directions_together() {
    let mut buckets: Vec<_> = (0..3u16).map(|n| bucket(n.into(), None, vec![to(n + 2)])).collect();
    (buckets[1].weight, buckets[2].weight) = (3, 0);
    let model = with_group(GroupKind::Select, buckets, vec![group(1)]);
    let mut taken = [0; 3];
    for source in 0..4000 {
        let mut key = tcp();
        key.set(slot::TP_SRC, source);
        let result = run(&model, &key);
        let [DpAction::Output(DpPort(port))] = result.actions[..] else { panic!("{:?}", result.actions) };
        taken[port as usize - 2] += 1;
        let mut back = key;
        back.set(slot::IP_SRC, key.get(slot::IP_DST));
        back.set(slot::IP_DST, key.get(slot::IP_SRC));
        back.set(slot::ETH_SRC, key.get(slot::ETH_DST));
        back.set(slot::ETH_DST, key.get(slot::ETH_SRC));
        back.set(slot::TP_SRC, key.get(slot::TP_DST));
        back.set(slot::TP_DST, key.get(slot::TP_SRC));
        assert_eq!(run(&model, &back).actions, result.actions);
        assert_eq!(result.mask.get(slot::TP_SRC), 0xffff);
    }
    assert_eq!(taken[2], 0, "weight 0 is never taken");
    // 4000 draws with probability 1/4: 1000 expected, standard deviation 27.
    assert!((850..1150).contains(&taken[0]), "{taken:?}");
}

#[test]
fn a_missing_group_ends_its_list_but_not_the_outer_one() {
    let rules = vec![rule(0, vec![resubmit(1), to(2)]), rule(1, vec![group(7), to(3)])];
    assert_eq!(run(&model(trunks(3), rules), &tcp()).actions, [out(2)]);
}

#[test]
fn a_group_that_leads_back_to_itself_is_bounded() {
    let model = with_group(GroupKind::Indirect, vec![bucket(0, None, vec![resubmit(0)])], vec![group(1)]);
    assert_eq!(run(&model, &tcp()).verdict, Verdict::Drop(DropReason::Loop));
}

#[test]
fn a_clone_is_inlined_unless_it_can_stop() {
    let list: Arc<[Action]> = [set_dst(9), to(2), Action::Exit, to(4)].into();
    let model1 = model(trunks(4), vec![rule(0, vec![Action::Clone(list), to(3)])]);
    let all = u128::from(u64::MAX >> 16);
    let want = [set(Field::EthDst, 9, all), out(2), set(Field::EthDst, H2, all), out(3)];
    assert_eq!(run(&model1, &tcp()).actions, want);
    let list: Arc<[Action]> = [Action::Meter(MeterId(1)), to(2)].into();
    let model2 = with_group(GroupKind::All, vec![], vec![Action::Clone(list), to(3)]);
    let result = run(&model2, &tcp());
    let [DpAction::Clone(copy), last] = &result.actions[..] else { panic!("{:?}", result.actions) };
    assert!(matches!(copy[..], [DpAction::Meter(_), DpAction::Output(DpPort(2))]));
    assert_eq!(*last, out(3));
    let list: Arc<[Action]> = [Action::Meter(MeterId(1)), to(2)].into();
    let model3 = with_group(GroupKind::All, vec![], vec![to(3), Action::Clone(list)]);
    let result = run(&model3, &tcp());
    assert!(
        matches!(result.actions[..], [DpAction::Output(DpPort(3)), DpAction::Meter(_), DpAction::Output(DpPort(2))]),
        "a copy that nothing follows is the packet itself: {:?}",
        result.actions
    );
}

#[test]
fn exit_ends_outer_lists_and_leaves_the_action_set_undone() {
    let written = Action::WriteActions([to(4)].into());
    let rules = vec![rule(0, vec![written, resubmit(1), to(2)]), rule(1, vec![Action::Exit, to(3)])];
    assert_eq!(run(&model(trunks(4), rules), &tcp()).actions, []);
}

#[test]
fn an_action_set_has_its_own_order_and_one_ending() {
    let first = Action::WriteActions([to(2), set_dst(8)].into());
    let then = Action::WriteActions([set_dst(9), to(3)].into());
    let model1 = model(trunks(3), vec![rule(0, vec![first.clone(), then])]);
    assert_eq!(run(&model1, &tcp()).actions, [set(Field::EthDst, 9, u128::from(u64::MAX >> 16)), out(3)]);
    let model2 = model(trunks(3), vec![rule(0, vec![first, Action::ClearActions])]);
    assert_eq!(run(&model2, &tcp()).verdict, Verdict::Drop(DropReason::RuleDrop));
}

#[test]
fn what_is_pushed_is_popped_in_reverse_and_its_bits_matter() {
    let whole = |field| Subfield::whole(field);
    let actions = vec![
        Action::Push(whole(Field::EthSrc)),
        Action::Push(whole(Field::EthDst)),
        Action::Pop(whole(Field::EthSrc)),
        Action::Pop(whole(Field::EthDst)),
        to(2),
    ];
    let result = run(&model(trunks(2), vec![rule(0, actions)]), &tcp());
    let DpAction::Set(changes) = &result.actions[0] else { panic!("{:?}", result.actions) };
    assert_eq!(changes.iter().map(|c| c.value).collect::<Vec<_>>(), [H2, H1]);
    assert_eq!(result.mask.get(slot::ETH_SRC), slot::ETH_SRC.max());
}

#[test]
fn both_ways_behind_check_pkt_larger_are_told_and_each_ends_for_itself() {
    let mut large = rule(1, vec![to(2)]);
    large.matches.set(Field::Reg0.slot(), 1, 1);
    let dst = Subfield { field: Field::Reg0, ofs: 0, bits: 1 };
    let check = Action::CheckPktLarger { len: 1400, dst };
    let result = run(&model(trunks(3), vec![rule(0, vec![check, resubmit(1)]), large]), &tcp());
    let [DpAction::CheckPktLen { len: 1400, larger, otherwise }] = &result.actions[..] else {
        panic!("{:?}", result.actions)
    };
    assert_eq!(**larger, [out(2)]);
    assert_eq!(**otherwise, [DpAction::Drop(DropReason::NoRule)]);
    assert_eq!(result.verdict, Verdict::Forward);
}

#[test]
fn a_truncated_output_is_cut_and_the_next_one_is_not() {
    let cut = Action::OutputTruncated { port: PortNo(2), max_len: 100 };
    let result = run(&model(trunks(3), vec![rule(0, vec![cut, to(3)])]), &tcp());
    assert_eq!(result.actions, [DpAction::Truncate(100), out(2), out(3)]);
}

#[test]
fn a_queue_is_set_for_one_output_or_until_it_is_popped() {
    let enqueue = Action::Enqueue { port: PortNo(2), queue: 5 };
    let result = run(
        &model(trunks(3), vec![rule(0, vec![enqueue, to(3), Action::SetQueue(7), to(2), Action::PopQueue])]),
        &tcp(),
    );
    let priority = |value| set(Field::SkbPriority, value, 0xffff_ffff);
    assert_eq!(result.actions, [priority(5), out(2), priority(0), out(3), priority(7), out(2)]);
}

#[test]
fn a_paused_packet_goes_no_further() {
    let pause = Action::Controller(Box::new(ControllerAction { pause: true, ..ControllerAction::default() }));
    let rules = vec![rule(0, vec![resubmit(1), to(2)]), rule(1, vec![pause, to(3)])];
    let result = run(&model(trunks(3), rules), &tcp());
    assert!(matches!(result.actions[..], [DpAction::Controller(_)]), "{:?}", result.actions);
}

#[test]
fn counters_of_a_bucket_are_the_groups_own() {
    let stats: Arc<RuleStats> = Arc::default();
    let mut only = bucket(0, None, vec![to(2)]);
    only.stats = Arc::clone(&stats);
    let result = run(&with_group(GroupKind::Indirect, vec![only], vec![group(1)]), &tcp());
    assert!(result.buckets.iter().any(|counted| Arc::ptr_eq(counted, &stats)));
}
