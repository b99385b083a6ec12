//! The Kubernetes pipeline of `examples/pipeline`: that Open vSwitch takes its files, and that packets walk its tables as
//! its README says, there and here.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is a failed test")]

mod ours;
mod ovs;
mod walks;

use ours::{follow, model, to_controller};
use ovs::{Ovs, Pass};
use sluice_flows::Verdict;
use sluice_tests::ovs::Daemons;
use walks::{DENIED, NO_ENDPOINT, WALKS, Walk};

/// The ports of the example, the tunnel last: name, number, and the datapath's number, which OVS's dummy datapath takes
/// from the name, or the first that is free.
const PORTS: [(&str, u16, u32); 6] =
    [("gw0", 32769, 1), ("p3", 3, 3), ("p4", 4, 4), ("p5", 5, 5), ("p6", 6, 6), ("tun0", 32768, 2)];

/// A file of the example.
fn file(name: &str) -> String {
    let path = format!("{}/../examples/pipeline/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The lines of a file that say something, without comments. A `#` in quotes begins none.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The flows as OVS reads them: without owners and reasons, which are ours.
fn without_ours(flows: &str) -> String {
    let mut out = String::new();
    for line in lines(flows) {
        let (head, actions) = line.split_once("actions=").expect("every flow has actions");
        let words = head.split(',').map(str::trim);
        let theirs: Vec<_> = words.filter(|w| !w.starts_with("owner=") && !w.starts_with("drop_reason=")).collect();
        out.extend([&theirs.join(","), " actions=", actions, "\n"]);
    }
    out
}

/// OVS with the example in it; nothing where it is not installed.
fn ovs() -> Option<Ovs> {
    if !Daemons::are_installed() {
        eprintln!("skipped: OVS is not installed");
        return None;
    }
    let ovs = Ovs::start(&PORTS);
    ovs.feed(&["add-groups"], &file("pipeline.groups"));
    for meter in lines(&file("pipeline.meters")) {
        ovs.ofctl(&["add-meter", "br0", meter]);
    }
    ovs.feed(&["--bundle", "add-flows"], &without_ours(&file("pipeline.flows")));
    Some(ovs)
}

impl Walk {
    /// The packet for a trace that follows it through all passes: OVS keeps the mark that it has from the beginning.
    fn marked(&self) -> String {
        let mark = self.passes.iter().rev().flat_map(|leg| leg.known.split(',')).find(|w| w.starts_with("ct_mark="));
        mark.map_or_else(|| self.packet.to_owned(), |mark| format!("{},{mark}", self.packet))
    }
}

#[test]
fn ovs_takes_the_files_and_walks_the_tables_that_the_page_lists() {
    let Some(ovs) = ovs() else { return };
    let flows = ovs.ofctl(&["--no-stats", "dump-flows", "br0"]);
    assert_eq!(flows.lines().count(), lines(&file("pipeline.flows")).count());
    for walk in everything() {
        let states: Vec<_> = walk.passes[1..].iter().map(|leg| leg.state).collect();
        let tables: Vec<_> = ovs.trace(&walk.marked(), &states).into_iter().map(|pass| pass.tables).collect();
        let wanted: Vec<_> = walk.passes.iter().map(|leg| leg.tables.to_vec()).collect();
        assert_eq!(tables, wanted, "{}", walk.name);
    }
}

/// Every packet that is followed.
fn everything() -> impl Iterator<Item = &'static Walk> {
    WALKS.iter().chain(DENIED.iter().map(|(walk, ..)| walk)).chain([&NO_ENDPOINT])
}

/// Datapath actions without the numbers that differ from run to run, and those of meters, which OVS's datapath numbers
/// anew.
fn normal(pass: &Pass) -> String {
    ["recirc(0x", "recirc_id=", "meter("].iter().fold(pass.actions.clone(), |text, before| {
        let mut parts = text.split(before);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            out.extend([before, part.trim_start_matches(|c: char| c.is_ascii_hexdigit())]);
        }
        out
    })
}

#[test]
fn packets_walk_the_tables_that_the_page_lists() {
    let model = model();
    for walk in everything() {
        let passes = follow(&model, walk);
        let tables: Vec<_> = passes.into_iter().map(|ours| ours.pass.tables).collect();
        let wanted: Vec<_> = walk.passes.iter().map(|leg| leg.tables.to_vec()).collect();
        assert_eq!(tables, wanted, "{}", walk.name);
    }
}

#[test]
fn a_denied_packet_says_whose_rule_denies_it_and_why() {
    let model = model();
    for (walk, owner, reason) in DENIED {
        let last = follow(&model, walk).pop().expect("a first pass at least").translation;
        assert_eq!(last.verdict, Verdict::Drop(*reason), "{}", walk.name);
        let decider = last.decider().unwrap_or_else(|| panic!("{}: no rule matched", walk.name));
        assert_eq!(decider.spec.owner.text(), *owner, "{}", walk.name);
    }
}

#[test]
fn a_packet_to_a_service_without_endpoints_goes_to_the_controller() {
    let last = follow(&model(), &NO_ENDPOINT).pop().expect("a first pass at least").translation;
    let userdata: Vec<_> = to_controller(&last.actions).map(|packet| packet.userdata.to_vec()).collect();
    assert_eq!(userdata, [[4]]);
}

#[test]
fn each_pass_of_a_packet_is_what_ovs_makes_of_it() {
    let Some(ovs) = ovs() else { return };
    let model = model();
    for walk in everything() {
        for (index, ours) in follow(&model, walk).into_iter().enumerate() {
            let theirs = match &ours.from {
                None => ovs.trace(walk.packet, &[]).swap_remove(0),
                Some((table, packet)) => ovs.resume(packet, *table),
            };
            let place = format!("{}, pass {}", walk.name, index + 1);
            assert_eq!(ours.pass.tables, theirs.tables, "{place}");
            assert_eq!(normal(&ours.pass), normal(&theirs), "{place}");
        }
    }
}
