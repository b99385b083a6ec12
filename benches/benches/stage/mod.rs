//! A stage of a packet's way: what it takes by the clock, and how often it allocates. `cargo bench` measures and never fails;
//! `cargo test` does each stage without the clock, and fails if it allocates.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId};
use sluice_benches::alloc::CountingAlloc;
use std::fmt::Display;
use std::hint::black_box;

#[global_allocator]
static ALLOC: CountingAlloc = CountingAlloc::new();

/// Measures a stage, after it was done once to count its allocations.
///
/// # Panics
/// When there are any, and this is a test.
pub(crate) fn stage<R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    of: impl Display,
    mut run: impl FnMut() -> R,
) {
    // What grows once grows here.
    black_box(run());
    let before = ALLOC.made();
    black_box(run());
    let made = ALLOC.made() - before;
    println!("{name}/{of}: {made} allocations");
    // What `cargo bench` says to its benches, and `cargo test` does not.
    let measures = std::env::args().any(|arg| arg == "--bench");
    assert!(made == 0 || measures, "{name}/{of} allocates {made} times, and is done for every packet");
    group.bench_function(BenchmarkId::new(name, of), |b| b.iter(&mut run));
}
