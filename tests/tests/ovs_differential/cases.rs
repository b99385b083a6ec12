//! Named cases: `tests/cases/*.case`. Lines are `case NAME`, then what is given, then what comes of it:
//!
//! ```text
//! case an_indirect_group_does_its_bucket
//! openflow10                      (the version; 1.5 if not said)
//! group group_id=1,type=indirect,bucket=actions=output:2
//! flow ip,actions=group:1
//! flow1 actions=output:3          (of the second bridge; groups are group1)
//! packet in_port=1,tcp,nw_src=10.0.0.1
//! ct trk,est                      (what the tracker says; trk,new if not said)
//! actions 2
//! megaflow ip,in_port=1
//! verdict forward
//! ```
//!
//! A packet that goes on after the tracker has three lines for each pass. `learned FLOW` is a flow that the packet makes.
//! Where OVS is installed it has to agree. With `SLUICE_CASES=write` what comes of cases is written anew.

use crate::case::{CT_STATES, Case, Packet, compare, compare_learned};
use crate::ovs::Ovs;
use sluice_flows::datapath::Effect;
use sluice_flows::text::{Names, parse_packet, show_datapath_actions, show_flow, show_megaflow};
use sluice_tests::events::Switch;
use sluice_tests::generate::language::Version;
use sluice_tests::generate::program::{FlowLine, GroupLine, Program};
use sluice_tests::ovs::Daemons;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// Words of the lines that say what comes of a packet.
const RESULTS: [&str; 4] = ["actions", "megaflow", "verdict", "learned"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// A case as its file has it.
struct Named {
    name: String,
    /// Lines that say what is given.
    given: Vec<String>,
    /// Lines that say what comes of it.
    results: Vec<String>,
}

/// The cases of a file.
fn read(text: &str) -> Vec<Named> {
    let mut all: Vec<Named> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("case ") {
            all.push(Named { name: name.to_owned(), given: Vec::new(), results: Vec::new() });
        } else if let Some(case) = all.last_mut().filter(|_| !line.trim().is_empty() && !line.starts_with('#')) {
            let result = RESULTS.contains(&line.split(' ').next().unwrap_or_default());
            if result { &mut case.results } else { &mut case.given }.push(line.to_owned());
        }
    }
    all
}

fn parse(named: &Named) -> Result<Case, String> {
    let (mut program, mut version) = (Program::default(), Version::OpenFlow15);
    let (mut packet, mut ct) = (None, 0);
    for line in &named.given {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "openflow10" => version = Version::OpenFlow10,
            "flow" => program.flows[0].push(FlowLine::read(rest)?),
            "flow1" => program.flows[1].push(FlowLine::read(rest)?),
            "group" => program.groups[0].push(GroupLine::read(rest)?),
            "group1" => program.groups[1].push(GroupLine::read(rest)?),
            "packet" => packet = Some(rest),
            "ct" => {
                let known = CT_STATES.iter().position(|(state, _)| *state == rest);
                ct = known.ok_or_else(|| format!("no state of the tracker: {rest}"))?;
            }
            _ => return Err(format!("unknown word: {line}")),
        }
    }
    let text = packet.ok_or("no packet")?;
    let packet = match text.split_once(" frame ") {
        Some((port, hex)) => {
            let bytes: Option<Vec<u8>> =
                (0..hex.len() / 2).map(|i| u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()).collect();
            let port = port.trim_start_matches("in_port=").parse().map_err(|_| format!("no port: {port}"))?;
            Packet::framed(port, &bytes.ok_or("no frame")?, ct)
        }
        None => {
            let key = parse_packet(text, Names::NONE).map_err(|error| error.to_string())?;
            Packet { key, flow: text.to_owned(), frame: None, ct }
        }
    };
    Ok(Case { version, program, packet })
}

/// The lines that say what comes of a case.
fn results(case: &Case) -> Result<Vec<String>, String> {
    let model = case.program.model()?;
    let mut switch = Switch::new(&model, CT_STATES[case.packet.ct].1);
    switch.process(&case.packet.key);
    let mut lines = Vec::new();
    for (key, result) in &switch.translations {
        lines.push(format!("actions {}", show_datapath_actions(&result.actions, key, |_| None)));
        lines.push(format!("megaflow {}", show_megaflow(key, &result.mask, Names::NONE)));
        lines.push(format!("verdict {}", result.verdict));
        for effect in &result.effects {
            if let Effect::Learn(learned) = effect {
                lines.push(format!("learned {}", show_flow(&learned.spec, None, Names::NONE).to_string().trim()));
            }
        }
    }
    Ok(lines)
}

/// Writes a failing case down; returns where.
pub(crate) fn keep(name: &str, case: &Case) -> String {
    let mut text = format!("case {name}\n");
    if case.version == Version::OpenFlow10 {
        text += "openflow10\n";
    }
    let words = [["flow", "group"], ["flow1", "group1"]];
    for (i, [flow, group]) in words.into_iter().enumerate() {
        case.program.groups[i].iter().for_each(|line| _ = writeln!(text, "{group} {line}"));
        case.program.flows[i].iter().for_each(|line| _ = writeln!(text, "{flow} {line}"));
    }
    let _ = write!(text, "packet {}", case.packet.flow);
    if let Some(frame) = &case.packet.frame {
        let _ = write!(text, " frame {frame}");
    }
    let _ = writeln!(text, "\nct {}", CT_STATES[case.packet.ct].0);
    let path = folder().join(format!("{name}.case"));
    match fs::create_dir_all(folder()).and_then(|()| fs::write(&path, &text)) {
        Ok(()) => format!("{}\n{text}", path.display()),
        Err(error) => format!("nothing ({error})\n{text}"),
    }
}

/// What is wrong with a case.
fn check(ovs: Option<&mut Ovs>, named: &Named, now: &[String]) -> Result<(), String> {
    if !named.results.is_empty() && named.results != now {
        return Err(format!("comes to\n{}\nnot to\n{}", now.join("\n"), named.results.join("\n")));
    }
    let Some(ovs) = ovs else { return Ok(()) };
    let case = parse(named)?;
    let model = case.program.model()?;
    ovs.install(case.version, &case.program).map_err(|(_, error)| format!("OVS refuses it: {error}"))?;
    let difference = compare(ovs, &model, &case.packet).difference;
    let difference = difference.or_else(|| compare_learned(ovs, &model, &case.packet).difference);
    difference.map_or(Ok(()), |difference| Err(difference.to_string()))
}

#[test]
fn every_named_case_comes_to_what_it_says_and_to_what_ovs_makes_of_it() {
    let mut ovs = Daemons::are_installed().then(Ovs::start);
    let write = std::env::var("SLUICE_CASES").is_ok_and(|value| value == "write");
    let (mut failures, mut cases) = (Vec::new(), 0);
    let mut files: Vec<_> = fs::read_dir(folder()).expect("a folder of cases").flatten().map(|f| f.path()).collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).expect("a readable file");
        let head = text.split("case ").next().filter(|head| head.starts_with('#')).unwrap_or_default();
        let mut anew = head.to_owned();
        for mut named in read(&text) {
            cases += 1;
            let now = parse(&named).and_then(|case| results(&case));
            if let (true, Ok(now)) = (write, &now) {
                named.results.clone_from(now);
            }
            if let Err(error) = now.and_then(|now| check(ovs.as_mut(), &named, &now)) {
                failures.push(format!("{}: {}\n{error}", file.display(), named.name));
            }
            let _ = writeln!(anew, "case {}\n{}", named.name, [named.given, named.results].concat().join("\n") + "\n");
        }
        if write {
            fs::write(&file, anew.trim_end().to_owned() + "\n").expect("a writable file");
        }
    }
    assert!(failures.is_empty(), "{} of {cases} cases fail\n\n{}", failures.len(), failures.join("\n\n"));
}
