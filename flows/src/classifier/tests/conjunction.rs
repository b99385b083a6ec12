//! Conjunctive matches.

use super::super::conjunction::work;
use super::*;
use crate::action::Conjunction;

fn conjunction(id: u32, clause: u8, clauses: u8) -> Action {
    Action::Conjunction(Conjunction { id, clause: clause - 1, clauses })
}

/// Inserts a rule; `parts` are the conjunctions it belongs to, as `conjunction(ID,K/N)` writes them.
fn add(classifier: &mut Classifier, priority: u16, matches: Match, parts: &[(u32, u8, u8)]) {
    let actions: Arc<[Action]> = parts.iter().map(|(id, k, n)| conjunction(*id, *k, *n)).collect();
    classifier.insert(rule(priority, matches, actions));
}

fn joined(id: u32) -> Match {
    fields(&[(Field::ConjId, id.into())])
}

fn src(n: u128) -> Match {
    fields(&[IP, (Field::IpSrc, n)])
}

fn dst(n: u128) -> Match {
    fields(&[IP, (Field::IpDst, n)])
}

fn packet(src: u128, dst: u128) -> FlowKey {
    key(&[IP, (Field::IpSrc, src), (Field::IpDst, dst)])
}

/// Priority of the rule found and identifier of the conjunction that led to it.
fn found(classifier: &Classifier, key: &FlowKey) -> Option<(u16, Option<u32>)> {
    let found = classifier.find(key, &mut FlowMask::default())?;
    Some((found.rule.spec.priority, found.conjunction.map(|c| c.id)))
}

#[test]
fn a_packet_that_has_every_clause_is_looked_up_again() {
    let mut table = Classifier::default();
    for n in 1..=3 {
        add(&mut table, 100, src(n), &[(7, 1, 2)]);
        add(&mut table, 100, dst(n), &[(7, 2, 2)]);
    }
    add(&mut table, 5, joined(7), &[]);
    add(&mut table, 1, Match::any(), &[]);
    assert_eq!(found(&table, &packet(1, 3)), Some((5, Some(7))));
    assert_eq!(found(&table, &packet(1, 4)), Some((1, None)));
    let satisfied = Satisfied { id: 7, priority: 100 };
    let clauses: Vec<_> = table.clauses(&packet(1, 3), satisfied).iter().map(|r| r.spec.matches.clone()).collect();
    assert!(clauses.len() == 2 && clauses.contains(&src(1)) && clauses.contains(&dst(3)), "{clauses:?}");
}

#[test]
fn conj_id_is_never_said_to_matter_because_of_a_second_lookup() {
    let mut table = Classifier::default();
    add(&mut table, 9, src(1), &[(7, 1, 2)]);
    add(&mut table, 9, dst(1), &[(7, 2, 2)]);
    add(&mut table, 5, joined(7), &[]);
    let mut mask = FlowMask::default();
    assert_eq!(table.lookup(&packet(1, 1), &mut mask).unwrap().spec.priority, 5);
    // The first lookup reads it, because a rule with it could have won; no packet brings it along.
    assert_eq!(mask.without_pipeline(), prefixes(&[(Field::EthType, 16), (Field::IpSrc, 32), (Field::IpDst, 32)]));
    let mut table = Classifier::default();
    add(&mut table, 9, src(1), &[(7, 1, 2)]);
    add(&mut table, 9, dst(1), &[(7, 2, 2)]);
    add(&mut table, 8, fields(&[IP]), &[]);
    add(&mut table, 7, joined(7), &[]);
    let mut mask = FlowMask::default();
    assert_eq!(table.lookup(&packet(1, 1), &mut mask).unwrap().spec.priority, 8);
    assert_eq!(mask.get(slot::CONJ_ID), 0);
}

#[test]
fn a_conjunction_without_a_rule_lets_the_next_priority_decide() {
    let mut table = Classifier::default();
    add(&mut table, 30, src(1), &[(1, 1, 2)]);
    add(&mut table, 30, dst(1), &[(1, 2, 2)]);
    add(&mut table, 20, src(1), &[(2, 1, 2)]);
    add(&mut table, 20, dst(1), &[(2, 2, 2)]);
    add(&mut table, 0, joined(2), &[]);
    assert_eq!(found(&table, &packet(1, 1)), Some((0, Some(2))));
    add(&mut table, 0, joined(1), &[]);
    assert_eq!(table.find(&packet(1, 1), &mut FlowMask::default()).unwrap().conjunction.unwrap().priority, 30);
}

#[test]
fn an_ordinary_rule_wins_over_soft_matches_of_its_priority() {
    let mut table = Classifier::default();
    add(&mut table, 10, src(1), &[(1, 1, 2)]);
    add(&mut table, 10, dst(1), &[(1, 2, 2)]);
    add(&mut table, 5, joined(1), &[]);
    add(&mut table, 10, fields(&[IP]), &[]);
    assert_eq!(found(&table, &packet(1, 1)), Some((10, None)));
    add(&mut table, 11, src(1), &[(1, 1, 2)]);
    assert_eq!(found(&table, &packet(1, 1)), Some((10, None)), "the clauses have different priorities");
    add(&mut table, 11, dst(1), &[(1, 2, 2)]);
    // The ordinary rule takes part in the second lookup too, and has the higher priority there.
    assert_eq!(found(&table, &packet(1, 1)), Some((10, Some(1))));
}

#[test]
fn soft_matches_hide_no_ordinary_rule_with_their_match() {
    let mut table = Classifier::default();
    add(&mut table, 10, src(1), &[(1, 1, 2)]);
    add(&mut table, 6, src(1), &[]);
    add(&mut table, 5, fields(&[IP]), &[]);
    assert_eq!(found(&table, &packet(1, 1)), Some((6, None)));
}

#[test]
fn of_several_conjunctions_the_smallest_identifier_is_tried_first() {
    let mut table = Classifier::default();
    add(&mut table, 10, src(1), &[(9, 1, 2), (3, 1, 2), (5, 1, 2), (1, 1, 2)]);
    add(&mut table, 10, dst(1), &[(3, 2, 2), (9, 2, 2), (5, 2, 2)]);
    for id in [9, 5] {
        add(&mut table, 5, joined(id), &[]);
        assert_eq!(found(&table, &packet(1, 1)), Some((5, Some(id))));
    }
}

#[test]
fn clauses_of_different_numbers_do_not_add_up() {
    let mut table = Classifier::default();
    add(&mut table, 10, src(1), &[(1, 1, 2)]);
    add(&mut table, 10, dst(1), &[(1, 2, 3)]);
    add(&mut table, 10, fields(&[IP]), &[(1, 3, 3)]);
    add(&mut table, 5, joined(1), &[]);
    assert_eq!(found(&table, &packet(1, 1)), None);
    add(&mut table, 10, dst(1), &[(1, 2, 3), (1, 2, 2)]);
    assert_eq!(found(&table, &packet(1, 1)), Some((5, Some(1))));
}

#[test]
fn a_conjunction_has_up_to_64_clauses() {
    let mut table = Classifier::default();
    add(&mut table, 5, joined(1), &[]);
    let bit = |n: u32| masked(&[(Field::Metadata, 0, 1 << n)]);
    for n in 0..64 {
        assert_eq!(found(&table, &FlowKey::ZERO), None, "{n}");
        add(&mut table, 10, bit(n), &[(1, n as u8 + 1, 64)]);
    }
    assert_eq!(found(&table, &FlowKey::ZERO), Some((5, Some(1))));
    assert_eq!(found(&table, &key(&[(Field::Metadata, 1 << 63)])), None);
}

#[test]
fn a_rule_with_conj_id_matches_what_has_it_without_any_soft_match() {
    let mut table = Classifier::default();
    add(&mut table, 5, joined(0), &[]);
    add(&mut table, 4, joined(1), &[]);
    assert_eq!(found(&table, &packet(1, 1)), Some((5, None)));
}

/// `addresses` sources that share one list of `rules` conjunctions, each of which has its own transport port.
fn policies(addresses: u128, rules: u32) -> Classifier {
    let mut table = Classifier::default();
    let list: Arc<[Action]> = (1..=rules).map(|id| conjunction(id, 1, 2)).collect();
    for n in 0..addresses {
        table.insert(rule(100, src(NET + n), list.clone()));
    }
    for id in 1..=rules {
        add(&mut table, 100, fields(&[IP, TCP, (Field::TcpDst, id.into())]), &[(id, 2, 2)]);
        add(&mut table, 90, joined(id), &[]);
    }
    table
}

#[test]
fn work_grows_neither_with_the_addresses_nor_with_the_length_of_a_long_clause() {
    let work = |addresses, rules: u32| {
        let table = policies(addresses, rules);
        work::take();
        let key = key(&[IP, TCP, (Field::IpSrc, NET + 1), (Field::TcpDst, rules.into())]);
        assert_eq!(found(&table, &key), Some((90, Some(rules))));
        work::take()
    };
    let least = work(2, 2);
    assert!(least > 0);
    for (addresses, rules) in [(2, 500), (2_000, 2), (2_000, 500)] {
        assert_eq!(work(addresses, rules), least, "{addresses} addresses, {rules} rules");
    }
}

#[test]
fn rules_that_share_a_list_share_what_is_made_of_it() {
    let table = |addresses| policies(addresses, 500).lists.heap_size();
    let (few, many) = (table(2), table(1_000));
    // 998 more lists would take 998 times 500 identifiers; where lists are makes a little difference.
    assert!(few > 500 * size_of::<u32>() && many < 2 * few, "{few} {many}");
}

#[test]
fn a_list_is_forgotten_with_its_last_rule() {
    let mut table = policies(3, 4);
    let rules: Vec<_> = table.iter().cloned().collect();
    for rule in rules {
        table.remove(rule.spec.priority, &rule.spec.matches);
    }
    assert!(table.lists.is_empty());
}

/// Rules of which many are soft matches with clauses in common, few matches and few priorities.
pub(super) fn pool() -> impl Strategy<Value = Pool> {
    let part = |slot: Slot, masks: &'static [u128]| {
        prop::option::of((Just(slot), 0..2u128, select(masks))).prop_map(|part| part.into_iter().collect::<Vec<_>>())
    };
    const ALL: u128 = u128::MAX;
    let parts = (
        part(slot::IN_PORT, &[ALL]),
        part(slot::IP_SRC, &[ALL, 0xffff_ff00]),
        part(slot::IP_DST, &[ALL, 0xffff_ff00, 0xff]),
        part(slot::TP_DST, &[ALL, 0xfffe]),
    );
    let matches = parts.prop_map(|(a, b, c, d)| {
        let mut matches = Match::any();
        [a, b, c, d].concat().into_iter().for_each(|(slot, value, mask)| matches.set(slot, value, mask));
        matches
    });
    let clause = (1..5u32, select(&[(1, 2), (2, 2), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)][..]));
    let soft = vec(clause.prop_map(|(id, (k, n))| conjunction(id, k, n)), 1..5).prop_map(Arc::<[Action]>::from);
    let hard = (prop::option::weighted(0.7, 1..5u32), matches.clone()).prop_map(|(id, matches)| match id {
        Some(id) => joined(id),
        None => matches,
    });
    let rules = prop_oneof![
        3 => (1..4u16, matches, soft),
        2 => (0..4u16, hard, Just([].into())),
    ];
    vec(rules, 1..30)
}

/// Packets that such rules match, some of which bring an identifier along.
pub(super) fn keys() -> impl Strategy<Value = FlowKey> {
    let address = || select(&[0u128, 1, 0x100, 0x101][..]);
    (0..2u128, address(), address(), 0..3u128, prop::option::weighted(0.1, 1..3u128)).prop_map(
        |(port, src, dst, tp_dst, id)| {
            let mut key = FlowKey::ZERO;
            let values = [(slot::IN_PORT, port), (slot::IP_SRC, src), (slot::IP_DST, dst), (slot::TP_DST, tp_dst)];
            values.into_iter().for_each(|(slot, value)| key.set(slot, value));
            key.set(slot::CONJ_ID, id.unwrap_or(0));
            key
        },
    )
}
