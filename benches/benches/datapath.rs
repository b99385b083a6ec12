//! Packets per second of one worker: frames replayed from memory into a null port, through the whole data path.
//!
//! A runner of its own and not criterion: what is measured runs in another thread, without end. Time is the worker's own on its CPU.

use sluice_benches::{acl, cases, windows};
use sluice_flows::rule::FlowSpec;
use sluice_switch::stats::CacheStats;
use std::error::Error;

/// CPU of the worker: the first is where most interrupts are.
const CPU: usize = 1;

/// Numbers of flows in the traffic.
const FLOWS: &[usize] = &[1, 100, 10_000, 100_000, 1_000_000];

/// A name, what makes its rules, and how many flows are in the traffic.
type Case = (&'static str, fn() -> Vec<FlowSpec>, &'static [usize]);

/// How cost grows with flows, then with rules, then with masks.
const CASES: &[Case] = &[
    ("l2", cases::port_to_port, FLOWS),
    ("normal", cases::normal, FLOWS),
    ("acl", || acl::pipeline(1000), FLOWS),
    ("ct", cases::tracked, FLOWS),
    ("acl-10k", || acl::pipeline(10_000), &[100, 10_000]),
    ("acl-100k", || acl::pipeline(100_000), &[100, 10_000]),
    ("masks-10", || acl::many_masks(10), &[100, 10_000]),
    ("masks-100", || acl::many_masks(100), &[100, 10_000]),
    ("masks-1000", || acl::many_masks(1000), &[100, 10_000]),
];

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes flags of criterion's; words that are not flags select cases.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!(
        "{:<10} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7}",
        "rules", "flows", "Mpps", "ns/pkt", "exact", "mega", "miss", "conn"
    );
    for (name, rules, flows) in CASES {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            let rules = rules();
            for flows in *flows {
                run(name, &rules, *flows)?;
            }
        }
    }
    Ok(())
}

fn run(name: &str, rules: &[FlowSpec], flows: usize) -> Result<(), Box<dyn Error>> {
    let best = windows::best(&[CPU], rules, flows)?;
    let rate = windows::rate(&best);
    let share = |of: fn(&CacheStats) -> u64| 100.0 * best.share(|stats| of(&stats.cache));
    println!(
        "{name:<10} {flows:>8} {:>8.2} {:>8.1} {:>6.1}% {:>6.1}% {:>6.1}% {:>6.1}%",
        rate / 1e6,
        1e9 / rate,
        share(|c| c.exact_hits),
        share(|c| c.megaflow_hits),
        share(|c| c.misses + c.stale),
        share(|c| c.connection_hits)
    );
    Ok(())
}
