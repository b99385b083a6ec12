mod conjunction;

use super::*;
use crate::field::Field;
use crate::key::{KEY_WORDS, Slot, slot};
use crate::owner::Owner;
use crate::rule::{FlowSpec, Millis};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn rule(priority: u16, matches: Match, actions: Arc<[Action]>) -> Arc<Rule> {
    let spec = FlowSpec { priority, ..FlowSpec::new(matches, actions, Owner::user()) };
    Arc::new(Rule::new(spec, Millis(0)))
}

fn classifier(rules: impl IntoIterator<Item = (u16, Match)>) -> Classifier {
    let mut classifier = Classifier::default();
    for (priority, matches) in rules {
        classifier.insert(rule(priority, matches, [].into()));
    }
    classifier
}

fn fields(fields: &[(Field, u128)]) -> Match {
    masked(&fields.iter().map(|(f, v)| (*f, *v, u128::MAX)).collect::<Vec<_>>())
}

fn masked(fields: &[(Field, u128, u128)]) -> Match {
    let mut matches = Match::any();
    for (field, value, mask) in fields {
        matches.set(field.slot(), *value, *mask);
    }
    matches
}

fn key(fields: &[(Field, u128)]) -> FlowKey {
    let mut key = FlowKey::ZERO;
    for (field, value) in fields {
        key.set(field.slot(), *value);
    }
    key
}

/// The bits that a lookup adds, and the priority of what it finds.
fn lookup(classifier: &Classifier, key: &FlowKey) -> (FlowMask, Option<u16>) {
    let mut mask = FlowMask::ZERO;
    let found = classifier.lookup(key, &mut mask).map(|r| r.spec.priority);
    (mask, found)
}

/// A mask that consists of the first `bits` bits of each of these fields.
fn prefixes(fields: &[(Field, u8)]) -> FlowMask {
    let mut mask = FlowMask::ZERO;
    for (field, bits) in fields {
        let slot = field.slot();
        mask.set(slot, slot.max() >> (slot.bits - bits) << (slot.bits - bits));
    }
    mask
}

const IP: (Field, u128) = (Field::EthType, 0x0800);
const TCP: (Field, u128) = (Field::IpProto, 6);
const NET: u128 = 0x0a01_0200;
const SLASH_24: u128 = 0xffff_ff00;

fn net_24(net: u128) -> Match {
    masked(&[(Field::EthType, 0x0800, u128::MAX), (Field::IpSrc, net, SLASH_24)])
}

#[test]
fn a_miss_on_a_prefix_reads_no_further_than_the_first_bit_that_differs() {
    let classifier = classifier([(1, net_24(NET)), (1, net_24(NET + 0x100))]);
    let (mask, found) = lookup(&classifier, &key(&[IP, (Field::IpSrc, 0xc0a8_0001), TCP]));
    assert_eq!((mask, found), (prefixes(&[(Field::IpSrc, 1)]), None));
    // 10.1.2.0 and 10.1.3.0 part at the last bit; 10.1.0.0 differs from both at the bit before.
    let (mask, found) = lookup(&classifier, &key(&[IP, (Field::IpSrc, 0x0a01_0005), TCP]));
    assert_eq!((mask, found), (prefixes(&[(Field::IpSrc, 23)]), None));
    let (mask, found) = lookup(&classifier, &key(&[IP, (Field::IpSrc, NET + 5), TCP]));
    assert_eq!((mask, found), (prefixes(&[(Field::EthType, 16), (Field::IpSrc, 24)]), Some(1)));
}

#[test]
fn a_packet_of_another_ethertype_is_not_asked_for_its_address() {
    let classifier = classifier([(1, net_24(NET)), (1, net_24(NET + 0x100))]);
    let (mask, found) = lookup(&classifier, &key(&[(Field::EthType, 0x86dd)]));
    assert_eq!((mask, found), (prefixes(&[(Field::EthType, 16)]), None));
}

#[test]
fn ethernet_rules_never_look_beyond_ethernet() {
    let mac = |n: u128| fields(&[(Field::EthDst, 0x0200_0000_0000 + n), (Field::EthType, 0x0800)]);
    let classifier = classifier((0..100).map(|n| (1, mac(n))));
    for n in [5, 500] {
        let (mask, found) = lookup(&classifier, &key(&[(Field::EthDst, 0x0200_0000_0000 + n), IP, TCP]));
        assert_eq!(mask, prefixes(&[(Field::EthDst, 48), (Field::EthType, 16)]));
        assert_eq!(found.is_some(), n < 100);
    }
}

#[test]
fn metadata_that_no_rule_has_spares_all_headers() {
    let with_metadata = |n| fields(&[(Field::Metadata, n), IP, TCP, (Field::TcpDst, 80 + n)]);
    let classifier = classifier((0..10).map(|n| (1, with_metadata(n))));
    let (mask, found) = lookup(&classifier, &key(&[(Field::Metadata, 77), IP, TCP, (Field::TcpDst, 80)]));
    assert_eq!((mask, found), (prefixes(&[(Field::Metadata, 64)]), None));
}

#[test]
fn exact_ports_that_a_packet_misses_cost_only_the_bits_that_tell() {
    let port = |n| fields(&[IP, TCP, (Field::TcpDst, n)]);
    let classifier = classifier([(1, port(80)), (1, port(443)), (1, port(8080))]);
    let (mask, found) = lookup(&classifier, &key(&[IP, TCP, (Field::TcpDst, 50_000)]));
    assert_eq!((mask, found), (prefixes(&[(Field::TcpDst, 1)]), None));
    let (mask, found) = lookup(&classifier, &key(&[IP, TCP, (Field::TcpDst, 443)]));
    let whole = [(Field::EthType, 16), (Field::IpProto, 8), (Field::TcpDst, 16)];
    assert_eq!((mask, found), (prefixes(&whole), Some(1)));
    let (mask, _) = lookup(&classifier, &key(&[IP, (Field::IpProto, 17), (Field::TcpDst, 443)]));
    assert_eq!(mask, prefixes(&[(Field::EthType, 16), (Field::IpProto, 8)]), "another protocol is told by that");
}

#[test]
fn rules_of_lower_priority_are_not_looked_at() {
    let classifier = classifier([(10, fields(&[IP])), (5, net_24(NET)), (4, fields(&[IP, TCP, (Field::TcpDst, 80)]))]);
    let (mask, found) = lookup(&classifier, &key(&[IP, (Field::IpSrc, NET), TCP]));
    assert_eq!((mask, found), (prefixes(&[(Field::EthType, 16)]), Some(10)));
}

#[test]
fn a_mask_with_a_hole_is_tracked_up_to_the_hole() {
    let hole = |net| masked(&[(Field::IpSrc, net, 0xff00_00ff)]);
    let classifier = classifier([(1, hole(0x0a00_0001)), (1, hole(0x0a00_0002))]);
    assert_eq!(lookup(&classifier, &key(&[(Field::IpSrc, 0x0bff_ff01)])).0, prefixes(&[(Field::IpSrc, 8)]));
    assert_eq!(lookup(&classifier, &key(&[(Field::IpSrc, 0x0aff_ff02)])).1, Some(1));
}

#[test]
fn an_ipv6_prefix_is_tracked_across_its_words() {
    let net = 0x2001_0db8_0000_0001_8000_0000_0000_0000u128;
    let matches = |net, len: u32| masked(&[(Field::Ipv6Dst, net, u128::MAX << (128 - len))]);
    let classifier = classifier([(1, matches(net, 65)), (1, matches(net + 1, 128))]);
    assert_eq!(lookup(&classifier, &key(&[(Field::Ipv6Dst, net)])).1, Some(1));
    let (mask, found) = lookup(&classifier, &key(&[(Field::Ipv6Dst, net ^ 1 << 63)]));
    assert_eq!((mask, found), (prefixes(&[(Field::Ipv6Dst, 65)]), None));
}

#[test]
fn a_stage_forgets_the_rules_that_are_gone() {
    let of = |ether: u128, proto| fields(&[(Field::EthType, ether), (Field::IpProto, proto)]);
    let mut classifier = classifier([(1, of(0x0800, 6)), (1, of(0x0800, 17)), (1, of(0x86dd, 17))]);
    let ipv6 = key(&[(Field::EthType, 0x86dd), (Field::IpProto, 6)]);
    assert_eq!(lookup(&classifier, &ipv6).0, prefixes(&[(Field::EthType, 16), (Field::IpProto, 8)]));
    classifier.remove(1, &of(0x86dd, 17));
    assert_eq!(lookup(&classifier, &ipv6).0, prefixes(&[(Field::EthType, 16)]));
}

#[test]
fn of_two_proofs_the_one_that_costs_less_is_taken() {
    let pair = |src, dst| fields(&[(Field::IpSrc, src), (Field::IpDst, dst)]);
    let classifier = classifier([(1, pair(0x0a00_0000, 0x0a00_0000)), (1, pair(0x0a00_0001, 0x0a00_0001))]);
    let (mask, _) = lookup(&classifier, &key(&[(Field::IpSrc, 0x0a00_00f0), (Field::IpDst, 0xc000_0000)]));
    assert_eq!(mask, prefixes(&[(Field::IpDst, 1)]));
    let (mask, _) = lookup(&classifier, &key(&[(Field::IpSrc, 0xc000_0000), (Field::IpDst, 0x0a00_00f0)]));
    assert_eq!(mask, prefixes(&[(Field::IpSrc, 1)]));
}

#[test]
fn a_word_of_two_stages_is_read_in_the_later_one() {
    let solicit = |n| fields(&[(Field::EthType, 0x86dd), (Field::IpProto, 58), (Field::NdSll, n)]);
    let classifier = classifier([(1, solicit(1)), (1, solicit(2))]);
    let (mask, _) = lookup(&classifier, &key(&[(Field::EthType, 0x86dd), (Field::IpProto, 6)]));
    assert_eq!(mask, prefixes(&[(Field::EthType, 16), (Field::IpProto, 8)]));
}

#[test]
fn of_equal_priorities_the_more_specific_wins_in_any_order_of_arrival() {
    let rules = [(7, fields(&[IP])), (7, fields(&[IP, TCP])), (7, net_24(NET)), (7, Match::any())];
    let key = key(&[IP, TCP, (Field::IpSrc, NET)]);
    for first in 0..rules.len() {
        let mut rules = rules.clone();
        rules.rotate_left(first);
        let classifier = classifier(rules);
        let mut mask = FlowMask::ZERO;
        assert_eq!(classifier.lookup(&key, &mut mask).unwrap().spec.matches, net_24(NET));
    }
}

#[test]
fn one_match_can_stand_at_many_priorities() {
    let mut classifier = classifier((0..100).map(|priority| (priority, net_24(NET))));
    assert_eq!((classifier.len(), classifier.subtables()), (100, 1));
    let key = key(&[IP, (Field::IpSrc, NET)]);
    for priority in (0..100).rev() {
        assert_eq!(lookup(&classifier, &key).1, Some(priority));
        assert!(classifier.remove(priority, &net_24(NET)).is_some());
        assert!(classifier.remove(priority, &net_24(NET)).is_none());
    }
    assert_eq!((classifier.len(), classifier.subtables()), (0, 0));
}

/// Values that rules and packets share, so that packets match rules.
fn slots() -> impl Strategy<Value = (Slot, u128, u128)> {
    let values =
        |slot: Slot, values: &'static [u128], masks: &'static [u128]| (Just(slot), select(values), select(masks));
    const ALL: u128 = u128::MAX;
    const V6: u128 = 0x2001_0db8 << 96;
    prop_oneof![
        values(slot::IN_PORT, &[1, 2], &[ALL]),
        values(slot::reg(1), &[0, 1, 0x101], &[ALL, 0xff, 0xff00]),
        values(slot::METADATA, &[0, 1], &[ALL]),
        values(slot::ETH_TYPE, &[0x0800, 0x0806, 0x86dd], &[ALL]),
        values(slot::ETH_DST, &[0x0200_0000_0001, 0x0200_0000_0002, 0xffff_ffff_ffff], &[ALL, 1 << 40]),
        values(slot::VLAN_TCI, &[0, 0x1005, 0x3005], &[0x1fff, 0x1000, 0xe000]),
        values(
            slot::IP_SRC,
            &[NET, NET + 1, NET + 0x80, NET + 0x100, 0xc0a8_0001],
            &[ALL, 0xffff_ff00, 0xffff_ff80, 0xffff_0000, 0x8000_0000, 0xff00_00ff, 0x0000_00ff],
        ),
        values(slot::IP_DST, &[NET, NET + 1, 0xc0a8_0001], &[ALL, 0xffff_ff00, 0xff00_0000]),
        values(slot::IP_PROTO, &[6, 17], &[ALL]),
        values(slot::TP_SRC, &[80, 443], &[ALL, 0xff00]),
        values(slot::TP_DST, &[80, 81, 443, 8080, 50_000], &[ALL, 0xfffe, 0xfff0, 0x8000]),
        values(slot::TCP_FLAGS, &[2, 16], &[2, 18]),
        values(slot::IPV6_DST, &[V6, V6 + 1, V6 + (1 << 64)], &[ALL, ALL << 64, ALL << 63, ALL << 96, 0xff]),
        values(slot::ARP_SHA, &[0x0200_0000_0001], &[ALL]),
    ]
}

fn matches() -> impl Strategy<Value = Match> {
    let few = vec(slots(), 0..5).prop_map(|slots| {
        let mut matches = Match::any();
        for (slot, value, mask) in slots {
            matches.set(slot, value, mask);
        }
        matches
    });
    few.boxed()
}

fn keys() -> impl Strategy<Value = FlowKey> {
    vec(slots(), 0..16).prop_map(|slots| {
        let mut key = FlowKey::ZERO;
        for (slot, value, _) in slots {
            key.set(slot, value);
        }
        key
    })
}

/// Priorities, matches and actions of rules that may be in a table.
type Pool = Vec<(u16, Match, Arc<[Action]>)>;
/// Which rule of the pool goes in (true) or out.
type Steps = Vec<(Index, bool)>;

fn steps() -> impl Strategy<Value = (Pool, Steps)> {
    let ordinary = vec((0..4u16, matches(), Just([].into())), 1..40);
    let steps = vec((any::<Index>(), prop::bool::weighted(0.7)), 0..120);
    (prop_oneof![ordinary, conjunction::pool()], steps)
}

/// Keys for rules of either kind.
fn any_keys() -> impl Strategy<Value = FlowKey> {
    prop_oneof![keys(), conjunction::keys()]
}

/// Both classifiers after the steps.
fn both(pool: &Pool, steps: &[(Index, bool)]) -> (Classifier, Linear) {
    let (mut real, mut linear) = (Classifier::default(), Linear::default());
    for (index, add) in steps {
        let (priority, matches, actions) = index.get(pool);
        let (a, b) = if *add {
            let rule = rule(*priority, matches.clone(), actions.clone());
            (real.insert(rule.clone()), linear.insert(rule))
        } else {
            (real.remove(*priority, matches), linear.remove(*priority, matches))
        };
        assert!(same(a.as_ref(), b.as_ref()));
    }
    (real, linear)
}

fn same(a: Option<&Arc<Rule>>, b: Option<&Arc<Rule>>) -> bool {
    a.map(Arc::as_ptr) == b.map(Arc::as_ptr)
}

/// Addresses of the rules, in order: what the table holds.
fn contents<'a>(rules: impl Iterator<Item = &'a Arc<Rule>>) -> Vec<*const Rule> {
    let mut all: Vec<_> = rules.map(Arc::as_ptr).collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn finds_what_the_linear_one_finds((pool, steps) in steps(), keys in vec(any_keys(), 1..20)) {
        let (real, linear) = both(&pool, &steps);
        prop_assert_eq!(contents(real.iter()), contents(linear.iter()));
        prop_assert_eq!(real.len(), linear.len());
        for (priority, matches, _) in &pool {
            prop_assert!(same(real.get(*priority, matches), linear.get(*priority, matches)));
            let within = linear.iter().filter(|r| r.spec.matches.is_within(matches));
            prop_assert_eq!(contents(real.within(matches)), contents(within));
            let overlaps = |r: &&Arc<Rule>| r.spec.priority == *priority && r.spec.matches.overlaps(matches);
            let overlap = linear.iter().filter(overlaps).any(|r| r.spec.matches != *matches);
            prop_assert_eq!(real.overlapping(*priority, matches).is_some(), overlap);
        }
        let mut afresh = Classifier::default();
        linear.iter().for_each(|rule| drop(afresh.insert(rule.clone())));
        for key in &keys {
            let mut mask = FlowMask::ZERO;
            let found = real.lookup(key, &mut mask);
            prop_assert!(same(found, linear.lookup(key, &mut FlowMask::default())), "{:?} for {:?}", found, key);
            // Rules that are gone leave no trace: the mask is that of a table that never had them.
            prop_assert_eq!(lookup(&afresh, key).0, mask);
        }
    }

    #[test]
    fn bits_outside_the_mask_do_not_matter(
        (pool, steps) in steps(),
        key in any_keys(),
        before in prop_oneof![Just(Match::any()), matches()],
        others in vec(any_keys(), 1..10),
        flips in vec((0..KEY_WORDS, any::<u64>()), 1..10),
    ) {
        let (real, linear) = both(&pool, &steps);
        // What a lookup in another table has added before must not spoil the proof.
        let mut mask = before.mask();
        let found = real.lookup(&key, &mut mask);
        prop_assert!((0..KEY_WORDS).all(|i| before.mask().0[i] & !mask.0[i] == 0));
        let flipped = flips.iter().map(|(word, bits)| {
            let mut other = key;
            other.0[*word] ^= bits;
            other
        });
        let inverse = FlowKey(key.0.map(|w| !w));
        for other in others.iter().copied().chain(flipped).chain([inverse]) {
            let word = |i: usize| other.0[i] & !mask.0[i] | key.0[i] & mask.0[i];
            let other = FlowKey(std::array::from_fn(word));
            let wins = linear.lookup(&other, &mut FlowMask::default());
            prop_assert!(same(found, wins), "{:?} and {:?} under {:?}: {:?}, {:?}", key, other, mask, found, wins);
        }
    }

    #[test]
    fn a_clone_and_the_original_change_apart((pool, steps) in steps(), more in vec((any::<Index>(), any::<bool>()), 1..40), keys in vec(any_keys(), 1..10)) {
        let (mut real, linear) = both(&pool, &steps);
        let (snapshot, mut changed) = (real.clone(), linear.clone());
        for (index, add) in more {
            let (priority, matches, actions) = index.get(&pool);
            if add {
                let rule = rule(*priority, matches.clone(), actions.clone());
                real.insert(rule.clone());
                changed.insert(rule);
            } else {
                real.remove(*priority, matches);
                changed.remove(*priority, matches);
            }
        }
        prop_assert_eq!(contents(real.iter()), contents(changed.iter()));
        prop_assert_eq!(contents(snapshot.iter()), contents(linear.iter()));
        for key in &keys {
            let found = snapshot.lookup(key, &mut FlowMask::default());
            prop_assert!(same(found, linear.lookup(key, &mut FlowMask::default())));
        }
    }
}
