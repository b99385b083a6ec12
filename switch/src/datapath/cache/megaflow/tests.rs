use super::*;
use sluice_flows::datapath::Change;
use sluice_flows::field::Field;
use sluice_flows::key::{PacketMask, slot};

fn mask(slots: &[sluice_flows::key::Slot]) -> PacketMask {
    let mut mask = PacketMask::ZERO;
    for slot in slots.iter().chain([&slot::IN_PORT]) {
        mask.set(*slot, u128::MAX);
    }
    mask
}

fn key(port: u32, dst: u128, tp: u128) -> PacketKey {
    let mut key = PacketKey::ZERO;
    key.set(slot::IN_PORT, port.into());
    key.set(slot::ETH_DST, dst);
    key.set(slot::TP_DST, tp);
    key
}

fn flow(key: &PacketKey, out: u32) -> (Flow, Steps) {
    let flow = Flow {
        verdict: Verdict::Forward,
        generation: 1,
        tables: TableSet::default(),
        macs: SmallVec::new(),
        sightings: SmallVec::new(),
        rules: Vec::new(),
        patched: SmallVec::new(),
        example: *key,
        packets: 0,
        bytes: 0,
        side: Side::default(),
        effected: 1,
    };
    (flow, steps(&[DpAction::Output(DpPort(out))]))
}

fn steps(actions: &[DpAction]) -> Steps {
    Steps { actions: actions.to_vec(), resumes: Vec::new() }
}

fn draft<'a>(mask: &'a PacketMask, key: &'a PacketKey, (flow, steps): (Flow, Steps)) -> Draft<'a, PacketKey> {
    Draft { mask, key, flow, steps, guards: Guards::new() }
}

fn add(cache: &mut MegaflowCache, mask: &PacketMask, key: &PacketKey, out: u32, used: u64) -> u32 {
    cache.install(draft(mask, key, flow(key, out)), 1, Millis(used), |_| {}).0
}

#[test]
fn a_packet_finds_the_entry_that_it_agrees_with() {
    let mut cache = MegaflowCache::new(100);
    let by_dst = mask(&[slot::ETH_DST]);
    let by_port = mask(&[slot::TP_DST]);
    let a = add(&mut cache, &by_dst, &key(1, 7, 80), 10, 0);
    let b = add(&mut cache, &by_port, &key(2, 7, 80), 20, 0);
    assert_eq!(cache.find(&key(1, 7, 443)), Some(a));
    assert_eq!(cache.find(&key(2, 9, 80)), Some(b));
    assert_eq!(cache.find(&key(2, 9, 81)), None);
    assert_eq!(cache.find(&key(3, 7, 80)), None);
    assert!(cache.agrees(a, &key(1, 7, 1)));
    assert!(!cache.agrees(a, &key(1, 8, 1)));
    assert_eq!((cache.len(), cache.masks()), (2, 2));
}

#[test]
fn one_with_the_same_mask_and_key_is_replaced_and_settled() {
    let mut cache = MegaflowCache::new(100);
    let by_dst = mask(&[slot::ETH_DST]);
    let a = add(&mut cache, &by_dst, &key(1, 7, 80), 10, 0);
    cache.hot(a).packets = 5;
    let mut settled = 0;
    let (b, evicted) = cache.install(
        draft(&by_dst, &key(1, 7, 443), flow(&key(1, 7, 443), 11)),
        1,
        Millis(0),
        |Parts { hot, .. }| settled = hot.packets,
    );
    assert_eq!((a, evicted, settled, cache.len()), (b, false, 5, 1));
    assert_eq!(cache.hot(b).plan, Plan::Output(DpPort(11)));
    assert_eq!(cache.hot(b).packets, 0);
}

#[test]
fn a_removed_entry_fits_no_packet_and_its_number_is_used_again() {
    let mut cache = MegaflowCache::new(100);
    let by_dst = mask(&[slot::ETH_DST]);
    let a = add(&mut cache, &by_dst, &key(1, 7, 80), 10, 0);
    cache.remove(a);
    assert!(!cache.agrees(a, &key(1, 7, 80)));
    assert_eq!(cache.find(&key(1, 7, 80)), None);
    let b = add(&mut cache, &mask(&[]), &key(1, 7, 80), 10, 0);
    assert_eq!(a, b);
}

#[test]
fn a_full_cache_gives_up_an_entry_that_was_not_used_lately_and_settles_it() {
    let mut cache = MegaflowCache::new(8);
    let by_dst = mask(&[slot::ETH_DST]);
    for i in 0..8 {
        let index = add(&mut cache, &by_dst, &key(1, i, 0), 1, i as u64);
        cache.hot(index).packets = 1 + i as u64;
    }
    let mut lost = Vec::new();
    let (_, evicted) = cache.install(
        draft(&by_dst, &key(1, 99, 0), flow(&key(1, 99, 0), 1)),
        1,
        Millis(99),
        |Parts { hot, .. }| lost.push(hot.packets),
    );
    assert!(evicted);
    assert_eq!(lost, [1], "the oldest of the sample");
    assert_eq!(cache.len(), 8);
    assert!(cache.find(&key(1, 99, 0)).is_some());
    assert!(cache.find(&key(1, 0, 0)).is_none());
}

#[test]
fn a_sweep_visits_every_entry_once_a_round_and_removes_what_it_is_told() {
    let mut cache = MegaflowCache::new(100);
    let by_dst = mask(&[slot::ETH_DST]);
    for i in 0..10 {
        add(&mut cache, &by_dst, &key(1, i, 0), i as u32, 0);
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        let removed = cache.sweep(2, |Parts { hot, .. }| {
            let Plan::Output(port) = hot.plan else { unreachable!() };
            seen.push(port.0);
            port.0 % 2 == 0
        });
        assert_eq!(removed, 1);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    assert_eq!(cache.len(), 5);
}

#[test]
fn the_hash_covers_what_some_entry_looks_at_and_nothing_else() {
    let mut cache = MegaflowCache::new(100);
    let a = add(&mut cache, &mask(&[slot::ETH_DST]), &key(1, 7, 80), 10, 0);
    assert_eq!(cache.hash(&key(1, 7, 80)), cache.hash(&key(1, 7, 443)));
    let b = add(&mut cache, &mask(&[slot::TP_DST]), &key(2, 7, 80), 10, 0);
    assert_ne!(cache.hash(&key(1, 7, 80)), cache.hash(&key(1, 7, 443)));
    cache.remove(b);
    cache.sort();
    assert_eq!(cache.hash(&key(1, 7, 80)), cache.hash(&key(1, 7, 443)), "the union shrinks when a mask is gone");
    assert_eq!(cache.find(&key(1, 7, 1)), Some(a));
}

#[test]
fn plans_name_the_simple_cases_and_lists_are_shared() {
    let mut cache = MegaflowCache::new(100);
    let plan_of = |cache: &mut MegaflowCache, dst, verdict, actions: &[DpAction]| {
        let (key, mask) = (key(1, dst, 0), mask(&[slot::ETH_DST]));
        let mut flow = flow(&key, 0).0;
        flow.verdict = verdict;
        let index = cache.install(draft(&mask, &key, (flow, steps(actions))), 1, Millis(0), |_| {}).0;
        (index, cache.hot(index).plan)
    };
    let out = DpAction::Output(DpPort(3));
    let drop = Verdict::Drop(DropReason::NoRule);
    assert_eq!(plan_of(&mut cache, 1, Verdict::Forward, std::slice::from_ref(&out)).1, Plan::Output(DpPort(3)));
    assert_eq!(plan_of(&mut cache, 2, drop, &[]).1, Plan::Drop(DropReason::NoRule));
    let ttl = DpAction::Set([Change { field: Field::IpTtl, value: 63, mask: 0xff }].into_iter().collect());
    let hop = plan_of(&mut cache, 6, Verdict::Forward, &[ttl.clone(), out.clone()]);
    assert!(matches!(hop.1, Plan::Hop(_)), "{hop:?}");
    cache.remove(hop.0);
    assert!(matches!(plan_of(&mut cache, 6, drop, &[ttl, out.clone()]).1, Plan::List(_)));
    let (a, first) = plan_of(&mut cache, 3, Verdict::Forward, &[DpAction::PopVlan, out.clone()]);
    let (b, second) = plan_of(&mut cache, 4, Verdict::Forward, &[DpAction::PopVlan, out.clone()]);
    let Plan::List(number) = first else { panic!("{first:?}") };
    assert_eq!(first, second);
    cache.remove(a);
    assert_eq!(*cache.list(number).actions, [DpAction::PopVlan, out.clone()]);
    cache.remove(b);
    let (_, third) = plan_of(&mut cache, 5, Verdict::Forward, &[out.clone(), out]);
    assert_eq!(third, Plan::List(number), "the number of a list without users is free");
}
