//! The same connections through Open vSwitch's user-space tracker and through ours: every packet must leave by the same
//! ports, told the same of its connection and translated alike.
//!
//! OVS runs on its dummy datapath in a temporary directory with its clock stopped; ours runs with ports in memory and a
//! clock that is moved by hand. Random flows track random connections in several zones, and send copies to a monitor
//! that say what the tracker said ([`programs`](sluice_tests::conversation::programs)). What is translated is compared
//! by what it stands for ([`judge`]).
//!
//! `SLUICE_CT_PROGRAMS` sets how many programs are tried, `SLUICE_CT_SEED` the seed of the first. What fails is made
//! small, printed, and kept as `tests/conversations/found-SEED.case`; all cases there are tried from then on.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is a failed test")]

mod excuses;
mod ovs;

use excuses::{Count, Excuses};
use ovs::Ovs;
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_switch::Config;
use sluice_tests::conversation::programs::{MARKS, frame, program};
use sluice_tests::conversation::{
    Cast, Difference, Scenario, Tracked, Views, addresses, difference, sequence, setting,
};
use sluice_tests::generate::seeded;
use sluice_tests::ovs::Daemons;
use std::path::PathBuf;

/// Programs, unless the environment says otherwise.
const PROGRAMS: u64 = 25;
/// Conversations of each.
const CONVERSATIONS: usize = 24;
/// Packets of each conversation, at most.
const PACKETS: usize = 24;
/// Packets that are sent at once, at most; OVS's ports queue 100.
const TOGETHER: usize = 60;
/// Failing programs that end the run.
const ENOUGH: usize = 6;

/// A random scenario.
fn scenario(rng: &mut StdRng) -> Scenario {
    let cast = Cast {
        near: addresses("10.0.0.1 10.0.0.2 10.0.0.3 fd00::1 fd00::2"),
        far: addresses("10.0.1.1 10.0.1.2 10.0.2.1 fd00::1:1 fd00::1:2"),
        protocols: vec![6, 6, 6, 6, 6, 17, 17, 17, 1, 1, 47, 50, 89],
        inbound: 0.25,
        fragments: if rng.random_bool(0.4) { 0.1 } else { 0.0 },
        waits: if rng.random_bool(0.5) { 0.15 } else { 0.0 },
        overlaps: false,
        short_errors: false,
        late_bad_sums: false,
    };
    let flows = program(rng, cast.fragments > 0.0);
    let conversations = cast.conversations(rng, CONVERSATIONS);
    let events = sequence(rng, &cast, &conversations, PACKETS);
    Scenario { flows, conversations, events }
}

/// Puts the scenario through OVS and through us: what is different first.
fn compare(ovs: &mut Ovs, scenario: &Scenario, known: &mut Excuses) -> Result<Option<Difference>, String> {
    let views = Views::new(&scenario.conversations);
    ovs.begin(&scenario.flows, views.clone())?;
    let mut ours = Tracked::start(Config { exact_slots: 256, ..Config::default() }, &scenario.flows, views)?;
    known.begin(scenario);
    let found = difference((ovs, &mut ours), scenario, TOGETHER, known);
    if let Some(log) = ovs.revive() {
        println!("OVS died: {}", log.lines().last().unwrap_or_default());
        known.count.died += 1;
        return Ok(None);
    }
    Ok(found)
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conversations")
}

/// Writes a failing scenario down; returns where.
fn keep(name: &str, scenario: &Scenario, difference: &Difference) -> String {
    let comment: String = difference.to_string().lines().map(|line| format!("# {line}\n")).collect();
    let path = folder().join(format!("{name}.case"));
    std::fs::create_dir_all(folder()).expect("the folder is writable");
    std::fs::write(&path, format!("{comment}{scenario}")).expect("the folder is writable");
    path.display().to_string()
}

#[test]
fn random_connections_are_told_and_translated_as_by_ovs() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let mut ovs = Ovs::start();
    let mut known = Excuses::default();
    let mut failures = Vec::new();
    let (first, programs) = (setting("SLUICE_CT_SEED", 0), setting("SLUICE_CT_PROGRAMS", PROGRAMS));
    for seed in first..first + programs {
        let scenario = scenario(&mut seeded(seed));
        known.count.programs += 1;
        match compare(&mut ovs, &scenario, &mut known) {
            Ok(None) => {}
            Ok(Some(difference)) => {
                let fails = |less: &Scenario| compare(&mut ovs, less, &mut Excuses::default()).ok().flatten();
                let (small, difference) = scenario.shrink(fails).unwrap_or_else(|| {
                    println!("does not fail twice:\n{difference}");
                    (scenario, difference)
                });
                let path = keep(&format!("found-{seed}"), &small, &difference);
                failures.push(format!("seed {seed}, kept as {path}\n{small}{difference}"));
            }
            Err(error) => failures.push(format!("seed {seed}: {error}")),
        }
        if failures.len() >= ENOUGH {
            break;
        }
    }
    println!("{:#?}", known.count);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let Count { programs, packets, sent, died, excused, states } = known.count;
    assert!(died * 10 <= programs, "OVS died {died} times in {programs} programs: fewer are compared");
    assert!(excused * 10 <= programs * CONVERSATIONS, "{excused} conversations of {programs} programs were excused");
    assert!(sent > packets / 2, "only {sent} of {packets} packets went anywhere: the programs test nothing");
    // A single program, tried again by its seed, may be an odd one.
    if programs >= PROGRAMS as usize {
        for state in ["new|trk", "est|rpl|trk", "inv|trk", "rel|rpl|trk", "est|trk|snat", "est|rpl|trk|snat"] {
            assert!(states.contains_key(state), "no packet was {state}: {states:?}");
        }
    }
}

/// Two OVSs take other addresses and ports of a range: what is compared is the same all the same, unless the suite
/// itself makes a difference.
#[test]
fn ovs_does_what_ovs_does() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let (mut one, mut other) = (Ovs::start(), Ovs::start());
    let mut known = Excuses::default();
    let programs = setting("SLUICE_CT_PROGRAMS", PROGRAMS) / 4;
    for seed in 0..programs {
        let mut fails = |scenario: &Scenario| {
            let views = Views::new(&scenario.conversations);
            one.begin(&scenario.flows, views.clone()).ok()?;
            other.begin(&scenario.flows, views).ok()?;
            known.begin(scenario);
            let found = difference((&mut one, &mut other), scenario, TOGETHER, &mut known);
            let died = one.revive().is_some() | other.revive().is_some();
            found.filter(|_| !died)
        };
        let scenario = scenario(&mut seeded(seed));
        if let Some(difference) = fails(&scenario) {
            let (scenario, difference) = scenario.shrink(fails).unwrap_or((scenario, difference));
            panic!("seed {seed}:\n{scenario}{difference}");
        }
    }
    println!("{:#?}", known.count);
}

/// The cases that are kept, by name. Those written by hand leave out the flows that tell of the tracker.
fn cases() -> Vec<(String, Scenario)> {
    let Ok(files) = std::fs::read_dir(folder()) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|file| file.expect("a folder").path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a file");
        let mut scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if scenario.flows.iter().all(|flow| flow.table < MARKS) {
            scenario.flows.extend(frame(false));
        }
        (path.display().to_string(), scenario)
    };
    paths.iter().map(read).collect()
}

#[test]
fn kept_cases_are_told_and_translated_as_by_ovs() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let mut ovs = Ovs::start();
    let cases = cases();
    assert!(!cases.is_empty(), "there are cases");
    for (name, scenario) in cases {
        let mut known = Excuses::verbose();
        println!("{name}");
        match compare(&mut ovs, &scenario, &mut known) {
            Ok(None) => {}
            Ok(Some(difference)) => panic!("{name}: {difference}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}
