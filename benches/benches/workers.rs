//! What a second worker brings: frames replayed from memory into a null port by one and by two, each with the flows of its half.
//!
//! A worker has a CPU of its own. Time is the workers' own, so the ratio tells what they cost each other: what they share (flows,
//! connections, counters) and the machine's memory. Then the same frames on one queue: what the first worker cannot do it hands on,
//! in time on the wall.

use sluice_benches::{cases, windows};
use std::error::Error;
use std::thread::available_parallelism;

/// Rules ([`cases::named`]).
const CASES: &[&str] = &["l2", "normal", "acl", "ct"];
const FLOWS: &[usize] = &[100, 10_000, 100_000];

fn main() -> Result<(), Box<dyn Error>> {
    if available_parallelism()?.get() < 2 {
        eprintln!("skipped: workers: two of them take two CPUs");
        return Ok(());
    }
    println!(
        "{:<10} {:>8} {:>8} {:>8} {:>7} {:>12} {:>7} {:>9}",
        "rules", "flows", "Mpps, 1", "Mpps, 2", "ratio", "on one queue", "ratio", "handed on"
    );
    for name in CASES {
        let rules = cases::named(name).ok_or("no such case")?;
        for &flows in FLOWS {
            let one = windows::rate(&windows::best(&[1], &rules, flows)?);
            let two = 2.0 * windows::rate(&windows::best(&[0, 1], &rules, flows)?);
            let steered = windows::best_on_one_queue(&[0, 1], &rules, flows)?;
            let handed_on = steered.packets_per_second();
            println!(
                "{name:<10} {flows:>8} {:>8.2} {:>8.2} {:>6.2}x {:>12.2} {:>6.2}x {:>7.0} %",
                one / 1e6,
                two / 1e6,
                two / one,
                handed_on / 1e6,
                handed_on / one,
                100.0 * steered.share(|stats| stats.taken_over)
            );
        }
    }
    Ok(())
}
