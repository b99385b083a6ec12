//! The store against a model that is a plain set, over random operations.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An operation on one of a few containers.
#[derive(Clone, Debug)]
enum Op {
    Add(u8),
    /// With an address asked for, as its place in the subnet.
    Ask(u8, u8),
    Del(u8),
    /// Only the containers of these bits are valid.
    Gc(u16),
    /// `host-local` gives or releases an address.
    Foreign(u8),
    Wait(u16),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..16u8).prop_map(Op::Add),
        2 => (0..16u8, 0..40u8).prop_map(|(c, at)| Op::Ask(c, at)),
        5 => (0..16u8).prop_map(Op::Del),
        1 => any::<u16>().prop_map(Op::Gc),
        1 => (0..34u8).prop_map(Op::Foreign),
        2 => (0..5000u16).prop_map(Op::Wait),
    ]
}

/// What should be so: who has what, what rests in order, what is another's, and what was given last.
#[derive(Default)]
struct Model {
    taken: BTreeMap<u32, u8>,
    resting: VecDeque<(u64, u32)>,
    foreign: BTreeSet<u32>,
    last: Option<u32>,
}

const BASE: u32 = 0x0a4d_0000;
const KEPT: [u32; 4] = [1, 7, 12, 13];
const COOLDOWN_MS: u64 = 4000;
/// The hosts of the two ranges.
fn hosts() -> impl Iterator<Item = u32> + Clone {
    (1..=14u32).chain(17..=22).filter(|n| !KEPT.contains(n) && *n != 17)
}

impl Model {
    fn free(&self, at: u32) -> bool {
        !self.taken.contains_key(&at) && !self.foreign.contains(&at) && !self.resting.iter().any(|(_, r)| *r == at)
    }

    fn next(&self) -> Option<u32> {
        let after = hosts().filter(|n| self.last.is_none_or(|last| *n > last));
        let round = after.chain(hosts().filter(|n| self.last.is_some_and(|last| *n <= last)));
        let rested = || {
            self.resting.iter().map(|(_, at)| *at).find(|at| !self.foreign.contains(at) && hosts().any(|h| h == *at))
        };
        round.clone().find(|n| self.free(*n)).or_else(rested)
    }

    fn give(&mut self, at: u32, container: u8) {
        // With this the store has seen what the other program has.
        self.resting.retain(|(_, r)| *r != at && !self.foreign.contains(r));
        assert_eq!(self.taken.insert(at, container), None, "two owners of one address");
    }

    fn release(&mut self, container: u8, now: u64) {
        let theirs: Vec<u32> = self.taken.iter().filter(|(_, c)| **c == container).map(|(at, _)| *at).collect();
        for at in theirs {
            self.taken.remove(&at);
            self.resting.push_back((now, at));
        }
        self.resting.make_contiguous().sort_unstable();
    }
}

fn text(at: u32) -> String {
    std::net::Ipv4Addr::from_bits(BASE + at).to_string()
}

fn run(ops: Vec<Op>) {
    let mut net = Net::new(json!({
        "ranges": [[{"subnet": "10.77.0.0/28"}, {"subnet": "10.77.0.16/29"}]],
        "exclude": ["10.77.0.7", "10.77.0.12/31"], "cooldown": COOLDOWN_MS / 1000,
    }));
    let mut model = Model::default();
    let name = |c: u8| format!("c{c}");
    for op in ops {
        let now = net.at.now_ms;
        if matches!(op, Op::Add(_) | Op::Ask(..)) {
            // An ADD that is refused changes nothing, but what has rested is free for those that look after it.
            model.resting.retain(|(since, _)| since + COOLDOWN_MS > now);
        }
        match op {
            Op::Add(c) => {
                let wanted = if model.taken.values().any(|o| *o == c) { None } else { model.next() };
                assert_eq!(net.add(&name(c)).ok(), wanted.map(|at| vec![text(at)]), "{c} after {:?}", model.last);
                if let Some(at) = wanted {
                    model.give(at, c);
                    model.last = Some(at);
                }
            }
            Op::Ask(c, at) => {
                let at = u32::from(at);
                net.args = format!("IP={}", text(at));
                let has = model.taken.values().any(|o| *o == c);
                let can = hosts().any(|h| h == at) && !model.taken.contains_key(&at) && !model.foreign.contains(&at);
                assert_eq!(net.add(&name(c)).is_ok(), can && !has, "{c} asks for {at}");
                net.args.clear();
                if can && !has {
                    model.give(at, c);
                }
            }
            Op::Del(c) => {
                net.del(&name(c));
                model.release(c, now);
            }
            Op::Gc(bits) => {
                let names: Vec<String> = (0..16u8).filter(|c| bits & (1 << c) != 0).map(name).collect();
                let valid = names.iter().map(|n| (n.as_str(), "eth0")).collect();
                // The files of the other program are of no valid container either.
                net.own("").expect("a configuration").gc(&valid, &net.at).expect("GC");
                (0..16u8).filter(|c| bits & (1 << c) == 0).for_each(|c| model.release(c, now));
                model.foreign.clear();
            }
            Op::Foreign(at) => {
                let at = u32::from(at);
                let file = net.networks().join(text(at));
                if model.foreign.remove(&at) {
                    std::fs::remove_file(file).expect("released");
                } else if !model.taken.contains_key(&at) {
                    write(&file, "other\r\neth0");
                    model.foreign.insert(at);
                }
            }
            Op::Wait(ms) => net.at.now_ms += u64::from(ms),
        }
    }
    agree(&net, &model);
}

/// The store has what the model has, and its spans are what is taken.
fn agree(net: &Net, model: &Model) {
    let own = net.own("").expect("a configuration");
    let all = own.store().read(|view| view.reservations(Some("net"))).expect("reads").unwrap_or_default();
    let owners: BTreeMap<String, String> = all.into_iter().map(|(_, a, r)| (a.to_string(), r.container_id)).collect();
    let wanted = model.taken.iter().map(|(at, c)| (text(*at), format!("c{c}"))).collect();
    assert_eq!(owners, wanted);
    own.store().write(|tables| tables.audit()).expect("the tables agree");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_leave_the_store_as_the_model(ops in prop::collection::vec(op(), 1..60)) {
        run(ops);
    }
}

#[test]
fn a_random_order_of_takes_and_releases_keeps_spans_joined() {
    let net = Net::subnet("10.77.0.0/24");
    let store = net.own("").expect("a configuration").store();
    let mut seed = 7u64;
    store
        .write(|tables| {
            for n in 0..2000u64 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let address = address::Address { family: 6, bits: u128::MAX - u128::from(seed >> 58) };
                if seed & (1 << 20) == 0 {
                    let record = Record { container_id: format!("c{n}"), ..Record::default() };
                    if tables.owner("net", address)?.is_none() {
                        tables.reserve("net", address, &record)?;
                    }
                } else {
                    tables.release("net", address, (n % 3 == 0).then_some(n))?;
                }
                if n % 50 == 0 {
                    tables.audit()?;
                }
            }
            tables.audit()
        })
        .expect("the tables agree");
}
