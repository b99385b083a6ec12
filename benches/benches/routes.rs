//! Routing tables as flows: making them, loading them in a bundle, looking up in them, and changing one of many.
//!
//! Memory and masks are printed before the timings: `bytes a route` by a counting allocator, everything included, and
//! how many different masks 10,000 packets looked under.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sluice_benches::alloc::CountingAlloc;
use sluice_benches::routes::{packets, router};
use sluice_flows::bridge::{Bridge, BridgeId};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::filter::FlowFilter;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::{FlowKey, FlowMask};
use sluice_flows::router::{Interface, Neighbor, NextHops, Pipeline, RouterConfig, RouterState, Stage, Stages};
use sluice_flows::rule::{FlowSpec, Millis};
use std::collections::HashSet;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// The flows of every route.
fn flows(stages: &Stages, config: &RouterConfig) -> Vec<FlowSpec> {
    let (state, hops) = (RouterState::default(), NextHops::new(stages.pipeline()));
    config.routes.iter().flat_map(|route| stages.route_flow(route, &state, &hops)).collect()
}

/// The flows of every route in a bridge, as the switch adds a bundle.
fn load(stages: &Stages, config: &RouterConfig) -> Bridge {
    let mut bridge = Bridge::new(BridgeId(0), "bench");
    bridge.tables.unsettle();
    for spec in flows(stages, config) {
        if let Err(error) = bridge.make(BridgeMod::from(FlowMod::add(spec)), Millis(0)) {
            eprintln!("a route was refused: {error}");
        }
    }
    bridge.tables.settle();
    bridge
}

fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("routes/load");
    group.sample_size(10);
    for size in SIZES {
        let config = router(size);
        let stages = Stages::new(Pipeline::default(), &config);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter_with_large_drop(|| load(&stages, black_box(&config)));
        });
    }
    group.finish();
}

fn lookup(c: &mut Criterion) {
    let table = Pipeline::default().table(Stage::Route);
    let mut group = c.benchmark_group("routes/lookup");
    println!("{:>8} {:>12} {:>8}", "routes", "bytes/route", "masks");
    for size in SIZES {
        let config = router(size);
        let stages = Stages::new(Pipeline::default(), &config);
        let before = ALLOC.in_use();
        let bridge = load(&stages, &config);
        let bytes = ALLOC.in_use() - before;
        let keys = packets(&config, 10_000);
        let mut masks = HashSet::new();
        for key in &keys {
            let mut mask = FlowMask::default();
            black_box(bridge.tables.lookup(table, key, &mut mask));
            masks.insert(mask);
        }
        println!("{size:>8} {:>12} {:>8}", bytes / size, masks.len());
        let mut next = keys.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                let key = next.next().unwrap_or(&FlowKey::ZERO);
                let mut mask = FlowMask::default();
                black_box(bridge.tables.lookup(table, black_box(key), &mut mask).is_some());
                mask
            });
        });
    }
    group.finish();
}

/// One route withdrawn and announced again, or one neighbour found anew, while a snapshot is held, as in a switch.
fn change(c: &mut Criterion) {
    let mut group = c.benchmark_group("routes/change");
    for size in SIZES {
        let config = router(size);
        let stages = Stages::new(Pipeline::default(), &config);
        let (state, hops) = (RouterState::default(), NextHops::new(stages.pipeline()));
        let mut bridge = load(&stages, &config);
        let mut next = config.routes.iter().cycle();
        group.bench_function(BenchmarkId::new("route", size), |b| {
            b.iter(|| {
                let spec = next.next().and_then(|route| stages.route_flow(route, &state, &hops));
                let Some(spec) = spec else { return };
                let before = bridge.clone();
                let delete = FlowMod::delete(FlowFilter::strictly(&spec));
                black_box(bridge.make(delete.into(), Millis(1)).is_ok());
                let between = bridge.clone();
                black_box(bridge.make(FlowMod::add(spec).into(), Millis(1)).is_ok());
                black_box((before, between));
            });
        });
        let Some(Interface { id, addresses, .. }) = config.interfaces.first() else { continue };
        let Some(address) = addresses.first().map(|net| net.addr()) else { continue };
        let mut mac = 0;
        group.bench_function(BenchmarkId::new("neighbor", size), |b| {
            b.iter(|| {
                mac += 1;
                let spec = stages.neighbor_flow(*id, address, Neighbor::Resolved(mac));
                let before = bridge.clone();
                black_box(bridge.make(FlowMod::add(spec).into(), Millis(1)).is_ok());
                black_box(before);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = loading, lookup, change
}
criterion_main!(benches);
