//! Tests: that they are about hosts and rules of the lab, and that each has a name of its own.

use super::super::Problem;
use super::super::raw::{Raw, RawTarget, RawTest, nearest};
use super::super::resolved::Switch;
use super::super::resolved::test::{Probe, Target, Test, Want};
use super::nodes::{Index, Nodes};
use std::collections::BTreeMap;

pub(super) fn resolve(raw: &Raw, nodes: &Nodes, problems: &mut Vec<Problem>) -> Vec<Test> {
    let mut names = BTreeMap::new();
    let mut tests = Vec::new();
    for raw in &raw.tests {
        let test = test(raw, nodes, problems);
        let line = raw.name.as_ref().map_or(raw.line, |name| name.line);
        if let Some(first) = names.insert(test.name.clone(), line) {
            let message = format!("two tests are named `{}`, first on line {first}; give one another name", test.name);
            problems.push(Problem::new(line, message));
        }
        tests.push(test);
    }
    tests
}

fn test(raw: &RawTest, nodes: &Nodes, problems: &mut Vec<Problem>) -> Test {
    check_host(&raw.from.value, raw.from.line, nodes, problems);
    let to = match &raw.to.value {
        RawTarget::Host(name) => {
            check_host(name, raw.to.line, nodes, problems);
            Target::Host(name.clone())
        }
        RawTarget::Address(ip) => Target::Address(*ip),
    };
    if to == Target::Host(raw.from.value.clone()) {
        problems.push(Problem::new(raw.line, format!("`{to}` need not be tested from itself")));
    }
    if let Some(by) = raw.by.as_ref().filter(|by| !is_rule(&by.value, &nodes.switches)) {
        let known = nodes.switches.iter().flat_map(|switch| &switch.rules).map(|rule| rule.name.as_str());
        let near = nearest(&by.value, known);
        let message = format!("by: `{}` is no rule of a switch, and no owner like `np:shop/deny`{near}", by.value);
        problems.push(Problem::new(by.line, message));
    }
    let probe = match raw.port {
        Some(port) => Probe::Tcp { port },
        None => Probe::Ping { rtt: raw.rtt, max_loss: raw.max_loss },
    };
    let name = raw.name.as_ref().map(|name| name.value.clone());
    Test {
        name: name.unwrap_or_else(|| Test::default_name(&raw.from.value, &to, &probe)),
        from: raw.from.value.clone(),
        to,
        probe,
        want: raw.want,
        by: raw.by.as_ref().filter(|_| raw.want == Want::Drop).map(|by| by.value.clone()),
        within: raw.within,
        line: raw.line,
    }
}

/// An owner has its kind in front: `file:office.yml:6`, `np:shop/deny`.
fn is_rule(by: &str, switches: &[Switch]) -> bool {
    by.contains(':') || switches.iter().flat_map(|switch| &switch.rules).any(|rule| rule.name == by)
}

fn check_host(name: &str, line: usize, nodes: &Nodes, problems: &mut Vec<Problem>) {
    let what = match nodes.kind(name) {
        Some(Index::Host) => return,
        Some(Index::Switch(_)) => "a switch, which sends and answers nothing by itself".to_owned(),
        Some(Index::Router) => "a router; test one of its addresses".to_owned(),
        None => {
            let near = nearest(name, nodes.hosts.iter().map(|host| host.name.as_str()));
            problems.push(Problem::new(line, format!("`{name}` is no host of the lab{near}")));
            return;
        }
    };
    problems.push(Problem::new(line, format!("`{name}` is {what}")));
}
