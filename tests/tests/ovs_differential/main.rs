//! The same random tables and packets through Open vSwitch and through us: what leaves, and as what, must be the same.
//!
//! OVS runs on its dummy datapath in a temporary directory and is asked with `ofproto/trace`. Flows go to it as the text
//! that we print, packets as flow strings or as frames that we compose, so those are compared as well. Where OVS differs
//! on purpose or by mistake, `docs/ovs-compatibility.md` says so, and the generator or the comparison goes around it.
//!
//! `SLUICE_DIFF_TABLES` sets how many pairs of tables are tried, `SLUICE_DIFF_SEED` the seed of the first. A pair that
//! fails is made small and printed with its seed.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is a failed test")]

mod case;
mod odp;
mod ovs;
mod shrink;
mod unixctl;

use case::{Case, Flows, Packet, compare, lines};
use ovs::Ovs;
use rand::RngExt;
use rand::rngs::StdRng;
use sluice_flows::field::Prereq;
use sluice_flows::key::FlowKey;
use sluice_tests::generate::{Dialect, flow, packet, prioritised, seeded};

/// Pairs of tables, unless the environment says otherwise.
const TABLES: u64 = 50;
/// Packets for each.
const PACKETS: usize = 50;
/// Packets that the flows of a pair of tables match more often than others.
const FEW: usize = 4;
/// Failing pairs of tables that end the run.
const ENOUGH: usize = 4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: no number")))
}

/// Gives the flows to OVS. Those that it refuses are taken out, and counted.
fn install(ovs: &mut Ovs, dialect: Dialect, flows: &mut Flows) -> usize {
    let mut refused = 0;
    for (bridge, flows) in (0..).zip(flows) {
        if ovs.replace_flows(bridge, dialect, &lines(flows)).is_ok() {
            continue;
        }
        flows.retain(|flow| {
            let taken = ovs.replace_flows(bridge, dialect, &lines(std::slice::from_ref(flow)));
            if let Err(error) = &taken {
                refused += 1;
                println!(
                    "OVS refuses a flow: {}: {}",
                    lines(std::slice::from_ref(flow))[0],
                    error.lines().next().unwrap_or_default()
                );
            }
            taken.is_ok()
        });
        ovs.replace_flows(bridge, dialect, &lines(flows)).expect("flows that OVS takes one by one");
    }
    refused
}

/// A random packet of the kinds that come seldom: ARP, ICMP or neighbour discovery.
fn rare(rng: &mut StdRng) -> FlowKey {
    loop {
        let key = packet(rng);
        let flow = key;
        let there = |prereq: Prereq| prereq.holds(&flow, &mut Default::default());
        if there(Prereq::Nd) || rng.random_bool(0.3) && (there(Prereq::Arp) || there(Prereq::Icmpv4)) {
            return key;
        }
    }
}

#[test]
fn random_tables_do_to_random_packets_what_they_do_in_ovs() {
    if !Ovs::is_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let mut ovs = Ovs::start();
    let (mut flows_tried, mut refused) = (0, 0);
    let (mut packets, mut sent, mut looped, mut excused) = (0, 0, 0, 0);
    let mut failures = Vec::new();
    let (first, tables) = (setting("SLUICE_DIFF_SEED", 0), setting("SLUICE_DIFF_TABLES", TABLES));
    for seed in first..first + tables {
        let mut rng = seeded(seed);
        let dialect = if seed % 2 == 0 { Dialect::OpenFlow10 } else { Dialect::OpenFlow14 };
        let rules = rng.random_range(5..30);
        let mut few = [(); FEW].map(|()| packet(&mut rng));
        few[0] = rare(&mut rng);
        let mut flows: Flows = [(); 2].map(|()| prioritised(&mut rng, rules, |rng| flow(rng, dialect, &few)));
        flows_tried += 2 * rules;
        refused += install(&mut ovs, dialect, &mut flows);
        for n in 0..PACKETS {
            let packet = Packet::random(&mut rng, &few);
            let outcome = compare(&mut ovs, &flows, &packet);
            packets += 1;
            sent += usize::from(outcome.sent);
            looped += usize::from(outcome.looped);
            excused += usize::from(outcome.excused);
            let Some(difference) = outcome.difference else { continue };
            let case = Case { dialect, flows, packet };
            let (case, difference) = shrink::shrink(&mut ovs, case.clone()).unwrap_or((case, difference));
            failures.push(format!("seed {seed}, packet {n}\n{case}\n{difference}"));
            break;
        }
        if failures.len() >= ENOUGH {
            break;
        }
    }
    println!("{packets} packets, {sent} sent, {looped} in circles, {excused} not compared");
    println!("{refused} of {flows_tried} flows refused by OVS");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // A single table, tried again by its seed, may be an odd one.
    if tables >= TABLES {
        assert!(refused * 100 <= flows_tried, "OVS refused {refused} of {flows_tried} flows: fewer are compared");
        assert!(excused * 20 <= packets, "{excused} of {packets} packets were not compared");
        assert!(sent > packets / 5, "only {sent} of {packets} packets went anywhere: the tables test nothing");
        assert!(looped > 0 && looped < packets / 4, "{looped} of {packets} packets went round in circles");
    }
}
