//! The words of a trace: hand-picked flows and packets, told by `ofproto/trace` and by us.
//!
//! The `Datapath actions:` of every pass have to be the same text, but for numbers that each switch gives as it likes. So
//! has the walk to be, but for what we tell beyond OVS (owners, changes, buckets) and for what OVS tells otherwise.
#![expect(clippy::expect_used, clippy::panic, reason = "a panic is a failed test")]

mod cases;
mod ovs;

use cases::{CASES, Case};
use ovs::{Ovs, PORTS};
use sluice_flows::bridge::{Bridge, BridgeId, BridgePort, Model};
use sluice_flows::explain::{Options, Report};
use sluice_flows::key::slot;
use sluice_flows::rule::Millis;
use sluice_flows::text::{Names, parse_flow_file, parse_group_file, parse_meter, parse_packet};
use sluice_flows::translate::NoMacs;
use sluice_flows::{DpPort, PortNo, meter::MeterMod};
use sluice_tests::ovs::Daemons;
use std::sync::Arc;

/// The bridge that OVS has: the same ports, flows, groups and meter.
fn model(case: &Case) -> Model {
    let mut bridge = Bridge::new(BridgeId(0), "br0");
    let mut model = Model::default();
    for no in (1..=PORTS).chain([PortNo::LOCAL.0]) {
        let (no, dp) = (PortNo(no), DpPort(no.into()));
        let name = if no == PortNo::LOCAL { "br0".into() } else { format!("p{no}").into() };
        let up = no.0 != PORTS;
        let port = BridgePort {
            no,
            name,
            dp,
            vlan: Default::default(),
            up,
            no_flood: false,
            protected: false,
            peer: None,
            tunnel: None,
        };
        bridge.ports.insert(no, Arc::new(port));
        model.ports.insert(dp, (BridgeId(0), no));
    }
    let meter = parse_meter("meter=1,pktps,bands=type=drop,rate=10").expect("a meter");
    let groups = parse_group_file("groups", case.groups, Names::NONE).unwrap_or_else(|e| panic!("{e:#}"));
    let flows = parse_flow_file("flows", case.flows, Names::NONE).unwrap_or_else(|e| panic!("{e:#}")).value;
    let groups = groups.into_iter().map(Into::into);
    let flows = flows.into_iter().map(Into::into);
    for change in [MeterMod::Add(meter).into()].into_iter().chain(groups).chain(flows) {
        bridge.apply(&change, Millis(0)).unwrap_or_else(|e| panic!("{}: {e}", case.flows));
    }
    model.bridges.insert(BridgeId(0), Arc::new(bridge));
    model
}

fn ours(case: &Case) -> String {
    let key = parse_packet(case.packet, Names::NONE).unwrap_or_else(|e| panic!("{e:#}"));
    let ct_next = case.ct_next.iter().map(|state| state.parse().expect("a state")).collect();
    let options = Options { names: true, verbose: false, ct_next };
    Report::trace(&model(case), &NoMacs, DpPort(key.get(slot::IN_PORT) as u32), &key, &options).walk
}

/// The `Datapath actions:` of each pass, with the sets of neighbouring headers in order and without numbers that say
/// nothing.
fn actions(trace: &str) -> Vec<String> {
    trace.lines().filter_map(|line| line.strip_prefix("Datapath actions: ")).map(normal).collect()
}

fn normal(actions: &str) -> String {
    let mut items = items(actions);
    for item in &mut items {
        let (word, rest) = item.split_once('(').unwrap_or((item, ""));
        *item = match word {
            "meter" | "recirc" => word.to_owned(),
            "clone" => format!("clone({})", normal(rest.strip_suffix(')').unwrap_or(rest))),
            "userspace" => {
                let parts = item.split(',').filter(|part| !part.starts_with("recirc_id="));
                parts.collect::<Vec<_>>().join(",")
            }
            _ => continue,
        };
    }
    items.chunk_by_mut(|a, b| a.starts_with("set(") && b.starts_with("set(")).for_each(|sets| sets.sort());
    items.join(",")
}

/// The parts of a list between the commas outside parentheses.
fn items(list: &str) -> Vec<String> {
    let mut depth = 0;
    let parts = list.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    parts.map(str::to_owned).collect()
}

/// The walk of the first pass: what both tell of it.
fn walk(trace: &str) -> Vec<String> {
    let steps = trace.lines().skip_while(|line| !line.starts_with("bridge")).take_while(|line| !line.is_empty());
    let told = steps.filter(|line| {
        let line = line.trim_start();
        // Changes and buckets are ours; side effects and the nesting of `ct` are OVS's.
        let detail = line.starts_with("-> ")
            && !line.contains("is now")
            && !line.contains("using bucket")
            && !line.contains("flooding")
            && !line.contains("clone of the packet");
        !detail && !line.starts_with(">> suppressing") && !line.starts_with("nat(") && line != "nat"
    });
    told.map(|line| line.split("  [").next().unwrap_or(line).to_owned()).collect()
}

#[test]
fn traces_are_worded_as_ovs_words_them() {
    if !Daemons::are_installed() {
        println!("skipped: Open vSwitch is not installed");
        return;
    }
    let ovs = Ovs::start();
    let mut failures = Vec::new();
    for case in CASES {
        ovs.replace(case.flows, case.groups);
        let (theirs, ours) = (ovs.trace(case.packet, case.ct_next), ours(case));
        let told = [actions(&theirs), actions(&ours), walk(&theirs), walk(&ours)];
        assert!(!told[0].is_empty() && told[2].len() > 2, "{theirs}");
        if told[0] != told[1] || told[2] != told[3] && !case.walks_otherwise {
            failures.push(format!("{}\nOVS:\n{theirs}\n\nSluice:\n{ours}\n", case.flows));
        }
    }
    assert!(failures.is_empty(), "{} of {} differ:\n{}", failures.len(), CASES.len(), failures.join("\n\n"));
}
