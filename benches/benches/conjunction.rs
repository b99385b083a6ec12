//! Conjunctive matches as network policies make them: sources that all rules share, and a transport port for each rule.
//!
//! Prints memory a flow (by a counting allocator, everything included) for flows whose action lists come from separate
//! texts, then times lookups of packets that satisfy the last conjunction, none at all, or one clause only.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice_benches::alloc::CountingAlloc;
use sluice_flows::action::{Action, Conjunction};
use sluice_flows::field::{ETH_TYPE_IPV4, Field, IP_PROTO_TCP};
use sluice_flows::key::{FlowKey, FlowMask};
use sluice_flows::rule::{FlowSpec, Millis, Rule, TableId};
use sluice_flows::table::Tables;
use sluice_flows::{Match, Owner, PortNo};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

/// Addresses, and the rules that share them.
const SIZES: [(u32, u32); 4] = [(10, 1), (10_000, 1), (10, 500), (10_000, 500)];
const TABLE: TableId = TableId::FIRST;

fn clause(id: u32, clause: u8) -> Action {
    Action::Conjunction(Conjunction { id, clause, clauses: 2 })
}

fn source(n: u32) -> [(Field, u32); 2] {
    [(Field::EthType, ETH_TYPE_IPV4.into()), (Field::IpSrc, 0x0a00_0000 + n)]
}

fn port(n: u32) -> [(Field, u32); 3] {
    [(Field::EthType, ETH_TYPE_IPV4.into()), (Field::IpProto, IP_PROTO_TCP.into()), (Field::TcpDst, n)]
}

fn add(tables: &mut Tables, priority: u16, fields: &[(Field, u32)], actions: Vec<Action>) {
    let mut matches = Match::any();
    fields.iter().for_each(|(field, value)| matches.set_field(*field, (*value).into()));
    let spec = FlowSpec { priority, ..FlowSpec::new(matches, actions, Owner::user()) };
    tables.insert(Arc::new(Rule::new(spec, Millis(0))));
}

fn policies(addresses: u32, rules: u32) -> Tables {
    let mut tables = Tables::new();
    for n in 0..addresses {
        add(&mut tables, 100, &source(n), (1..=rules).map(|id| clause(id, 0)).collect());
    }
    for id in 1..=rules {
        add(&mut tables, 100, &port(id), vec![clause(id, 1)]);
        add(&mut tables, 90, &[(Field::ConjId, id)], vec![Action::Output(PortNo(1))]);
    }
    tables
}

fn packet(src: u32, dst: u32) -> FlowKey {
    let mut key = FlowKey::ZERO;
    for (field, value) in source(src).into_iter().chain(port(dst)) {
        key.set(field.slot(), value.into());
    }
    key
}

fn lookup(c: &mut Criterion) {
    println!("{:>10} {:>6} {:>12}", "addresses", "rules", "bytes/flow");
    let mut group = c.benchmark_group("conjunction");
    for (addresses, rules) in SIZES {
        let before = ALLOC.in_use();
        let tables = policies(addresses, rules);
        println!("{addresses:>10} {rules:>6} {:>12}", (ALLOC.in_use() - before) / tables.len());
        let packets = [
            ("satisfied", packet(addresses - 1, rules)),
            ("one clause", packet(addresses - 1, 60_000)),
            ("none", packet(addresses, 60_000)),
        ];
        for (name, key) in packets {
            group.bench_function(BenchmarkId::new(name, format!("{addresses}x{rules}")), |b| {
                b.iter(|| {
                    let mut mask = FlowMask::default();
                    black_box(tables.lookup(TABLE, black_box(&key), &mut mask).is_some());
                    mask
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = lookup
}
criterion_main!(benches);
