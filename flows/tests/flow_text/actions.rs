//! Every action in many texts, read and printed by Open vSwitch and by us.
//!
//! What OVS takes is what both its parser (`ovs-ofctl parse-flow`) and the switch at the other end take, which reads the
//! message that the parser wrote. What it prints is what `diff-flows` prints of a file: the actions as they were
//! written, before a version of OpenFlow makes something else of them.

use crate::oracle::ovs_ofctl;
use sluice_flows::text::{Names, parse_flow, show_actions};
use std::fmt::Write;

mod table;

use table::{AGREED, PRINTED_OTHERWISE, TAKEN_BY_OVS_ONLY, TAKEN_BY_US_ONLY};

fn flow(matches: &str, actions: &str) -> String {
    format!("{matches}{}actions={actions}", if matches.is_empty() { "" } else { "," })
}

/// What we print of the flow's actions, if we take it.
fn ours(flow: &str) -> Result<String, String> {
    match parse_flow(flow, Names::NONE) {
        Ok(spec) => Ok(show_actions(&spec.actions, Names::NONE).to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// What OVS prints of these flows' actions, all of which it takes; `None` if it is not installed.
fn theirs(flows: &[String]) -> Option<Vec<String>> {
    let mut file = String::new();
    for (i, flow) in flows.iter().enumerate() {
        writeln!(file, "priority={},{flow}", i + 1).expect("a String takes everything");
    }
    let (_, output, errors) = ovs_ofctl(&["diff-flows", "/dev/stdin", "/dev/null"], &file)?;
    let mut printed = vec![String::new(); flows.len()];
    for line in output.lines() {
        let number = line.split_once("priority=").expect("every flow has a priority").1;
        let number: usize = number[..number.find([',', ' ']).expect("something follows")].parse().expect("a number");
        printed[number - 1] = line.split_once(" actions=").expect("every flow has actions").1.to_owned();
    }
    assert!(printed.iter().all(|text| !text.is_empty()), "{errors}");
    Some(printed)
}

/// Whether OVS takes the flow in some version of OpenFlow: its parser, and the switch at the other end.
fn ovs_takes(flow: &str) -> Option<bool> {
    // OpenFlow 1.0 has no instructions: messages of that version leave them out.
    let instruction = ["write_actions", "clear_actions", "write_metadata", "goto_table"];
    let versions: &[&[&str]] = &[&[], &["-O", "OpenFlow13"], &["-O", "OpenFlow15"]];
    let from = usize::from(instruction.iter().any(|word| flow.contains(word)));
    for version in &versions[from..] {
        let (ok, output, _) = ovs_ofctl(&[version, &["parse-flow", flow][..]].concat(), "")?;
        if ok && !output.contains("decode error") {
            return Some(true);
        }
    }
    Some(false)
}

/// For each flow, whether OVS takes it; `None` if it is not installed.
fn taken(flows: &[String]) -> Option<Vec<bool>> {
    let half = flows.len().div_ceil(2).max(1);
    std::thread::scope(|scope| {
        let parts: Vec<_> = flows
            .chunks(half)
            .map(|part| scope.spawn(|| part.iter().map(|flow| ovs_takes(flow)).collect::<Option<Vec<_>>>()))
            .collect();
        let parts: Option<Vec<_>> = parts.into_iter().map(|part| part.join().expect("it does not panic")).collect();
        parts.map(|parts| parts.concat())
    })
}

#[test]
fn ovs_takes_refuses_and_prints_the_same_actions() {
    let flows: Vec<_> =
        AGREED.iter().flat_map(|(matches, list)| list.iter().map(|actions| flow(matches, actions))).collect();
    assert!(flows.len() >= 200, "only {} texts", flows.len());
    let Some(taken) = taken(&flows) else {
        return;
    };
    let mut wrong = String::new();
    let mut both = Vec::new();
    for (flow, theirs) in flows.into_iter().zip(taken) {
        match (theirs, ours(&flow)) {
            (true, Ok(text)) => both.push((flow, text)),
            (false, Err(_)) => {}
            (theirs, ours) => writeln!(wrong, "{flow}: OVS takes it: {theirs}, we: {ours:?}").expect("it takes all"),
        }
    }
    let (flows, ours): (Vec<_>, Vec<_>) = both.into_iter().unzip();
    for ((flow, ours), theirs) in flows.iter().zip(ours).zip(theirs(&flows).expect("it was there before")) {
        if ours != theirs {
            writeln!(wrong, "{flow}:\n  OVS prints {theirs}\n  we print   {ours}").expect("it takes all");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_listed_as_refused_on_purpose_is_taken_by_ovs() {
    let flows: Vec<_> = TAKEN_BY_OVS_ONLY.iter().map(|(matches, actions, _)| flow(matches, actions)).collect();
    let Some(taken) = taken(&flows) else {
        return;
    };
    for ((flow, theirs), (.., why)) in flows.iter().zip(taken).zip(TAKEN_BY_OVS_ONLY) {
        assert!(theirs && ours(flow).is_err(), "{flow}: {why}: OVS takes it: {theirs}, we: {:?}", ours(flow));
    }
}

#[test]
fn what_is_listed_as_taken_on_purpose_is_refused_by_ovs() {
    let flows: Vec<_> = TAKEN_BY_US_ONLY.iter().map(|(matches, actions, _)| flow(matches, actions)).collect();
    let Some(taken) = taken(&flows) else {
        return;
    };
    for ((flow, theirs), (.., why)) in flows.iter().zip(taken).zip(TAKEN_BY_US_ONLY) {
        assert!(!theirs && ours(flow).is_ok(), "{flow}: {why}: OVS takes it: {theirs}, we: {:?}", ours(flow));
    }
}

#[test]
fn what_is_listed_as_printed_otherwise_is() {
    let flows: Vec<_> = PRINTED_OTHERWISE.iter().map(|(matches, actions, _)| flow(matches, actions)).collect();
    let Some(printed) = theirs(&flows) else {
        return;
    };
    for ((flow, theirs), (.., why)) in flows.iter().zip(printed).zip(PRINTED_OTHERWISE) {
        assert_ne!(ours(flow), Ok(theirs), "{flow}: {why}");
    }
}
