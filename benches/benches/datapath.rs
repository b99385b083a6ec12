//! Packets per second of one worker: frames replayed from memory into a null port, through the whole data path.
//!
//! A runner of its own and not criterion: what is measured runs in another thread, without end. Each case runs for a
//! number of windows, and the best is told, because on a shared machine the others tell what the neighbours do. Time is
//! the worker's own on its CPU.

use sluice_benches::acl;
use sluice_flows::action::Action;
use sluice_flows::field::Field;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::packet::compose::compose;
use sluice_flows::rule::{FlowSpec, TableId};
use sluice_flows::text::{Names, Parsed, parse_flow_mod};
use sluice_flows::{Match, Owner, PortNo};
use sluice_switch::port::Recording;
use sluice_switch::replay::{BRIDGE, Measured, Replay};
use sluice_switch::stats::CacheStats;
use std::error::Error;
use std::time::Duration;

const WINDOWS: usize = 8;
const WINDOW: Duration = Duration::from_millis(250);
const WARMUP: Duration = Duration::from_millis(300);

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes flags of criterion's; words that are not flags select cases.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!(
        "{:<10} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7}",
        "rules", "flows", "Mpps", "ns/pkt", "exact", "mega", "miss", "conn"
    );
    for (name, rules) in [("l2", port_to_port()), ("normal", normal()), ("acl", policies()), ("ct", tracked())] {
        for flows in [1, 100, 10_000] {
            if wanted.is_empty() || wanted.iter().any(|w| w == name) {
                run(name, &rules, flows)?;
            }
        }
    }
    Ok(())
}

/// `in_port=1 actions=output:2`.
fn port_to_port() -> Vec<FlowSpec> {
    let mut matches = Match::any();
    matches.set_field(Field::InPort, 1);
    vec![FlowSpec::new(matches, [Action::Output(PortNo(2))], Owner::user())]
}

/// A learning switch.
fn normal() -> Vec<FlowSpec> {
    vec![FlowSpec::new(Match::any(), [Action::Output(PortNo::NORMAL)], Owner::user())]
}

/// Connections are committed, and then matched.
fn tracked() -> Vec<FlowSpec> {
    let flows = "priority=100,ip,ct_state=-trk,actions=ct(table=1)\n\
         table=1,priority=100,ip,ct_state=+trk+new,actions=ct(commit),output:2\n\
         table=1,priority=100,ip,ct_state=+trk+est,actions=output:2";
    let flow = |line| match parse_flow_mod(line, &Names::new()) {
        Ok(Parsed { value: FlowMod::Add { spec, .. }, .. }) => Some(spec),
        _ => None,
    };
    flows.lines().filter_map(flow).collect()
}

/// Three tables: 1000 policy rules in the middle, a rewrite and an output behind them.
fn policies() -> Vec<FlowSpec> {
    let table = |n| TableId::new(n).unwrap_or_default();
    let mut specs = acl::policy_table(table(1), table(2), 1000);
    let flow =
        |n, actions: Vec<Action>| FlowSpec { table: table(n), ..FlowSpec::new(Match::any(), actions, Owner::user()) };
    let set = Action::SetField { field: Field::EthDst, value: 0x0200_0000_0099, mask: u128::MAX };
    specs.push(flow(0, vec![Action::GotoTable(table(1))]));
    specs.push(flow(2, vec![Action::DecTtl(Box::default()), set, Action::GotoTable(table(3))]));
    specs.push(flow(3, vec![Action::Output(PortNo(2))]));
    specs
}

fn run(name: &str, rules: &[FlowSpec], flows: usize) -> Result<(), Box<dyn Error>> {
    let replay = Replay::start(Some(1))?;
    replay.datapath().apply_bundle(BRIDGE, &rules.iter().cloned().map(FlowMod::add).collect::<Vec<_>>())?;
    replay.begin(Recording::from_frames(acl::packets(flows).iter().map(|key| compose(key, &[b'x'; 18]))))?;
    replay.measure(WARMUP);
    let rate = |measured: &Measured| measured.packets_per_cpu_second().unwrap_or_default();
    let windows = (0..WINDOWS).map(|_| replay.measure(WINDOW));
    let best = windows.max_by(|a, b| rate(a).total_cmp(&rate(b))).ok_or("no windows")?;
    let share = |of: fn(&CacheStats) -> u64| 100.0 * best.share(|stats| of(&stats.cache));
    println!(
        "{name:<10} {flows:>8} {:>8.2} {:>8.1} {:>6.1}% {:>6.1}% {:>6.1}% {:>6.1}%",
        rate(&best) / 1e6,
        1e9 / rate(&best),
        share(|c| c.exact_hits),
        share(|c| c.megaflow_hits),
        share(|c| c.misses + c.stale),
        share(|c| c.connection_hits)
    );
    replay.shutdown();
    Ok(())
}
