//! The same programs and packets through Open vSwitch and through us: what leaves, and as what, must be the same.
//!
//! OVS runs on its dummy datapath in a temporary directory and is asked with `ofproto/trace`. Random programs go to both
//! as text, packets as flow strings or as frames that we compose, so reading and printing are compared as well. Where
//! OVS differs on purpose or by mistake, `docs/ovs-compatibility.md` says so, and the generator or the comparison goes
//! around it.
//!
//! `SLUICE_DIFF_TABLES` sets how many programs are tried, `SLUICE_DIFF_SEED` the seed of the first. What fails is made
//! small, printed, and kept as `tests/cases/found-SEED.case`, which [`cases`] tries from then on, as it does the cases
//! there that were written by hand.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is a failed test")]

mod case;
mod cases;
mod mirrors;
mod odp;
mod ovs;
mod shrink;

use case::{Case, Packet, compare, compare_learned};
use ovs::Ovs;
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_flows::field::Prereq;
use sluice_flows::key::FlowKey;
use sluice_tests::generate::language::{FEW, Generated, Version, program, with_arrival};
use sluice_tests::generate::{packet, seeded};
use sluice_tests::ovs::Daemons;

/// Programs, unless the environment says otherwise.
const TABLES: u64 = 50;
/// Packets for each.
const PACKETS: usize = 50;
/// Failing programs that end the run.
const ENOUGH: usize = 6;
/// Refused flows of each program that OVS is asked about.
const ASKED: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number")))
}

/// A random packet of the kinds that come seldom: ARP, ICMP or neighbour discovery.
fn rare(rng: &mut StdRng) -> FlowKey {
    loop {
        let key = packet(rng);
        let there = |prereq: Prereq| prereq.holds(&key, &mut Default::default());
        if there(Prereq::Nd) || rng.random_bool(0.3) && (there(Prereq::Arp) || there(Prereq::Icmpv4)) {
            return key;
        }
    }
}

/// What a run came to.
#[derive(Default, Debug)]
struct Count {
    flows: usize,
    refused: usize,
    packets: usize,
    sent: usize,
    looped: usize,
    excused: usize,
    resumed: usize,
    learned: usize,
}

/// Gives the program to OVS. What it refuses is taken out, and counted.
fn install(ovs: &mut Ovs, version: Version, made: &mut Generated, count: &mut Count) {
    count.flows += made.program.flows.iter().map(Vec::len).sum::<usize>();
    while let Err((bridge, error)) = ovs.install(version, &made.program) {
        count.refused += 1;
        if !ovs.is_alive() || count.refused > count.flows {
            return;
        }
        let flows = &mut made.program.flows[bridge];
        let bad = flows.iter().position(|flow| ovs.reads(version, &flow.to_string()).is_err());
        let bad = bad.or_else(|| flows.iter().position(|flow| names(&error, flow.priority)));
        match bad {
            Some(at) => println!("OVS refuses {}: {}", flows.remove(at), error.lines().next().unwrap_or_default()),
            None => {
                println!("OVS refuses a program: {}", error.lines().last().unwrap_or_default());
                made.program.groups[bridge].clear();
                flows.retain(|flow| !flow.actions.iter().any(|action| action.contains("group")));
                flows.pop();
            }
        }
    }
}

/// Whether an error of OVS speaks of the flow with this priority.
fn names(error: &str, priority: u16) -> bool {
    error.split([' ', ',']).any(|word| word == format!("priority={priority}"))
}

/// A flow that we refuse and OVS takes.
fn wrongly_refused(ovs: &mut Ovs, version: Version, made: &Generated) -> Option<String> {
    let some = made.refused.iter().step_by(made.refused.len() / ASKED + 1);
    some.into_iter().find(|flow| ovs.reads(version, flow).is_ok()).cloned()
}

/// One program and its packets: what is different.
fn try_seed(ovs: &mut Ovs, seed: u64, count: &mut Count) -> Option<String> {
    let mut rng = seeded(seed);
    let version = if seed.is_multiple_of(4) { Version::OpenFlow10 } else { Version::OpenFlow15 };
    let rules = rng.random_range(5..30);
    let mut few: [FlowKey; FEW] = std::array::from_fn(|_| {
        let key = packet(&mut rng);
        with_arrival(&mut rng, key)
    });
    few[0] = rare(&mut rng);
    let mut made = program(&mut rng, version, rules, &few);
    if let Some(flow) = wrongly_refused(ovs, version, &made) {
        return Some(format!("OVS takes what we refuse: {flow}"));
    }
    install(ovs, version, &mut made, count);
    let model = match made.program.model() {
        Ok(model) => model,
        Err(error) => return Some(error),
    };
    // A frame makes OVS do what flows do beside sending: learn, and shorten timeouts.
    let lasting = made.program.flows.iter().flatten().any(|flow| flow.actions.iter().any(|a| a.starts_with("learn")));
    for n in 0..PACKETS {
        let packet = Packet::random(&mut rng, &few, !lasting);
        let mut outcome = compare(ovs, &model, &packet);
        count.packets += 1;
        count.sent += usize::from(outcome.sent);
        count.looped += usize::from(outcome.looped);
        count.excused += usize::from(outcome.excused);
        count.resumed += usize::from(outcome.resumed);
        let mut last = false;
        if lasting && outcome.difference.is_none() && n > PACKETS / 2 {
            outcome = compare_learned(ovs, &model, &packet);
            last = outcome.learned;
            count.learned += usize::from(last);
        }
        if let Some(difference) = outcome.difference {
            let case = Case { version, program: made.program, packet };
            let (case, difference) = shrink::shrink(ovs, case.clone()).unwrap_or_else(|| {
                println!("does not fail twice:\n{}", difference.trace);
                (case, difference)
            });
            let name = format!("found-{seed}");
            return Some(format!("seed {seed}, packet {n}, kept as {}\n{difference}", cases::keep(&name, &case)));
        }
        if last {
            break;
        }
    }
    None
}

#[test]
fn random_tables_do_to_random_packets_what_they_do_in_ovs() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let mut ovs = Ovs::start();
    let mut count = Count::default();
    let mut failures = Vec::new();
    let (first, tables) = (setting("SLUICE_DIFF_SEED", 0), setting("SLUICE_DIFF_TABLES", TABLES));
    for seed in first..first + tables {
        failures.extend(try_seed(&mut ovs, seed, &mut count));
        if !ovs.is_alive() {
            failures.push(format!("seed {seed}: OVS died"));
            ovs = Ovs::start();
        }
        if failures.len() >= ENOUGH {
            break;
        }
    }
    println!("{count:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // A single program, tried again by its seed, may be an odd one.
    if tables >= TABLES {
        let Count { flows, refused, packets, sent, looped, excused, resumed, learned } = count;
        assert!(refused * 100 <= flows, "OVS refused {refused} of {flows} flows: fewer are compared");
        assert!(excused * 20 <= packets, "{excused} of {packets} packets were not compared");
        assert!(sent > packets / 5, "only {sent} of {packets} packets went anywhere: the tables test nothing");
        assert!(looped > 0 && looped < packets / 4, "{looped} of {packets} packets went round in circles");
        assert!(resumed > packets / 100, "only {resumed} of {packets} packets went through the tracker");
        assert!(learned > 0, "no packet made a flow");
    }
}
