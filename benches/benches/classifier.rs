//! The classifier on tables of policy rules: time of a lookup, rate of additions in a bundle, time of a change beside a
//! snapshot, and memory.
//!
//! Memory and masks are printed before the timings, as `rules`, `bytes a rule` (by a counting allocator, everything
//! included) and what 10,000 packets looked at, with the allocations of all their lookups.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice_benches::acl;
use sluice_benches::alloc::CountingAlloc;
use sluice_flows::bridge::{Bridge, BridgeId};
use sluice_flows::bridge_mod::{BridgeMod, apply_bundle};
use sluice_flows::filter::FlowFilter;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::{FlowKey, FlowMask};
use sluice_flows::rule::{Millis, TableId};
use sluice_flows::table::Tables;
use std::collections::HashSet;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const TABLE: TableId = TableId::FIRST;

fn changes(rules: usize) -> Vec<FlowMod> {
    let next = TableId::LAST;
    acl::policy_table(TABLE, next, rules).into_iter().map(FlowMod::add).collect()
}

fn tables(rules: usize) -> Tables {
    let mut bridge = Bridge::new(BridgeId(0), "br0");
    let changes: Vec<_> = changes(rules).into_iter().map(BridgeMod::from).collect();
    if let Err((index, error)) = apply_bundle(&mut bridge, &changes, Millis(0)) {
        eprintln!("rule {index} was refused: {error}");
    }
    bridge.tables
}

/// Bytes that the tables take, and what packets look at in them.
fn report() {
    let keys = acl::packets(10_000);
    println!(
        "{:>8} {:>12} {:>10} {:>10} {:>10} {:>10} {:>11}",
        "rules", "bytes/rule", "estimate", "megaflows", "masks", "bits", "allocations"
    );
    for rules in SIZES {
        let before = ALLOC.in_use();
        let tables = tables(rules);
        let bytes = ALLOC.in_use() - before;
        let (mut megaflows, mut masks, mut bits, mut made) = (HashSet::new(), HashSet::new(), 0, 0);
        for key in &keys {
            let mut mask = FlowMask::default();
            let before = ALLOC.made();
            black_box(tables.lookup(TABLE, key, &mut mask));
            made += ALLOC.made() - before;
            let masked: Vec<u64> = key.0.iter().zip(&mask.0).map(|(k, m)| k & m).collect();
            bits += mask.0.iter().map(|m| m.count_ones() as usize).sum::<usize>();
            megaflows.insert((masked, mask));
            masks.insert(mask);
        }
        println!(
            "{:>8} {:>12} {:>10} {:>10} {:>10} {:>10} {made:>11}",
            tables.len(),
            bytes / tables.len(),
            tables.heap_size() / tables.len(),
            megaflows.len(),
            masks.len(),
            bits / keys.len()
        );
    }
}

fn lookup(c: &mut Criterion) {
    report();
    let keys = acl::packets(10_000);
    let mut group = c.benchmark_group("classifier/lookup");
    for rules in SIZES {
        let tables = tables(rules);
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(rules), |b| {
            b.iter(|| {
                let key = next.next().unwrap_or(&FlowKey::ZERO);
                let mut mask = FlowMask::default();
                black_box(tables.lookup(TABLE, black_box(key), &mut mask).is_some());
                mask
            });
        });
    }
    group.finish();
}

fn bundle(c: &mut Criterion) {
    let mut group = c.benchmark_group("classifier/bundle");
    for rules in [1_000, 100_000, 200_000] {
        let changes: Vec<_> = changes(rules).into_iter().map(BridgeMod::from).collect();
        group.throughput(Throughput::Elements(changes.len() as u64));
        group.sample_size(10);
        group.bench_function(BenchmarkId::from_parameter(rules), |b| {
            b.iter_with_large_drop(|| {
                let mut bridge = Bridge::new(BridgeId(0), "br0");
                black_box(apply_bundle(&mut bridge, black_box(&changes), Millis(0)).is_ok());
                bridge
            });
        });
    }
    group.finish();
}

/// One flow deleted and added again while a snapshot of the tables is held, as a running switch does.
fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("classifier/change");
    for rules in [1_000, 100_000] {
        let changes = changes(rules);
        let mut tables = tables(rules);
        let mut next = changes.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(rules), |b| {
            b.iter(|| {
                let Some(add @ FlowMod::Add { spec, .. }) = next.next() else { return };
                let delete = FlowMod::delete(FlowFilter::strictly(spec));
                let before = tables.clone();
                black_box(tables.apply(&delete, Millis(1)).is_ok());
                let between = tables.clone();
                black_box(tables.apply(add, Millis(1)).is_ok());
                black_box((before, between));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = lookup, bundle, change
}
criterion_main!(benches);
