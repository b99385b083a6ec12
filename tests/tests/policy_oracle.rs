//! The hand-written cases of `policies/`, against the reference evaluator: each truth table was written from the
//! specification by hand, so that the two check each other. The same files are for real clusters.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is a failed test")]

use serde_json::Value;
use sluice_tests::policy::{Case, Cell, Step, World};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Cells of a table that may be wrong before the rest is not printed.
const PRINTED: usize = 10;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies")
}

fn world() -> World {
    let text = fs::read_to_string(folder().join("world.yaml")).unwrap();
    let values: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    World::read(values).unwrap()
}

/// All cases, by the names of their files.
fn cases(world: &World) -> Vec<(String, Case)> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| !path.ends_with("world.yaml")).collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let case = Case::read(&fs::read_to_string(&path).unwrap(), world);
        (name.clone(), case.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    files.into_iter().map(read).collect()
}

/// Each step of each case, in the cluster that it makes.
fn each_step(mut check: impl FnMut(&str, &Step, &World)) {
    let world = world();
    for (name, case) in cases(&world) {
        let mut world = world.clone();
        for (index, step) in case.steps.iter().enumerate() {
            let name = format!("{name}, step {index} ({})", case.title);
            step.change(&mut world).unwrap_or_else(|error| panic!("{name}: {error}"));
            check(&name, step, &world);
        }
    }
}

#[test]
fn every_cell_of_every_case_is_as_written() {
    let mut faults = Vec::new();
    each_step(|name, step, world| {
        let wrong = |cell: &Cell| {
            let verdict = world.verdict(&cell.from, &cell.to, cell.protocol, cell.port);
            assert!(!verdict.ambiguous(), "{name}: {} -> {}: {verdict}", cell.from, cell.to);
            (verdict.allowed() != cell.allowed).then_some(verdict)
        };
        let told = |cell: Cell| {
            let verdict = wrong(&cell)?;
            let Cell { from, to, protocol, port, allowed } = cell;
            Some(format!("{name}: {from} -> {to} {protocol}/{port}: expected {allowed}, but {verdict}"))
        };
        let mut found: Vec<String> = step.cells(world).into_iter().filter_map(told).collect();
        let count = found.len();
        found.truncate(PRINTED);
        faults.extend(found);
        if count > PRINTED {
            faults.push(format!("{name}: and {} more", count - PRINTED));
        }
    });
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_line_of_every_table_changes_it() {
    each_step(|name, step, world| {
        let cells = step.cells(world);
        for (index, line) in step.expect.iter().enumerate() {
            assert_ne!(step.without_line(index).cells(world), cells, "{name}: {} changes nothing", line.text);
        }
    });
}

#[test]
fn every_case_denies_something() {
    let mut denying = BTreeSet::new();
    each_step(|name, step, world| {
        if step.cells(world).iter().any(|cell| !cell.allowed) {
            denying.insert(name.split(',').next().unwrap().to_owned());
        }
    });
    let names: BTreeSet<String> = cases(&world()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(denying, names);
}

#[test]
fn there_are_sixty_cases() {
    assert!(cases(&world()).len() >= 60);
}
