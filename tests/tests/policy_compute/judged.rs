//! What the controller says of connections by what a node is told, without flows.

use crate::shares::{Who, computed, is_reason, protocol, who, whos};
use crate::worlds;
use sluice_controller::facts::policy::Direction;
use sluice_controller::policy::{Because, Connection, Explanation, Judge, Verdict};
use sluice_tests::policy as oracle;
use sluice_tests::policy::World;
use std::collections::BTreeMap;

/// What an explanation tells of each rule comes to its verdict.
fn check_explanation(explanation: &Explanation<'_>, verdict: &Verdict<'_>) {
    assert_eq!(&explanation.verdict, verdict);
    let rules = || explanation.policies.iter().flat_map(|policy| policy.rules.iter());
    for look in rules() {
        assert_eq!(look.is_match, look.is_peer() && look.is_port(), "{}", look.name);
        let counts = verdict.because == Because::Rule(look.name)
            || verdict.passed.contains(&look.name)
            || verdict.audited.contains(&look.name);
        assert_eq!(look.is_asked && look.is_match, counts, "{}: {explanation:?}", look.name);
    }
    if let Because::Rule(name) = &verdict.because {
        assert!(rules().any(|look| look.name == *name), "{name} is not told");
    }
}

fn compare(seeds: std::ops::Range<u64>, probes: usize) {
    let mut compared = 0;
    for seed in seeds {
        let world = World::random(seed, 1 + (seed % 10) as usize);
        let states = computed(&world);
        let judges: BTreeMap<&str, Judge<'_>> =
            states.iter().map(|(node, state)| (node.as_str(), Judge::new(state))).collect();
        let whos = whos(&world);
        for probe in world.probes(seed, probes) {
            let verdict = probe.verdict(&world);
            let ends = (who(&whos, &probe.from), who(&whos, &probe.to));
            for (direction, half, subject, other) in [
                (Direction::Egress, &verdict.egress, &ends.0, &ends.1),
                (Direction::Ingress, &verdict.ingress, &ends.1, &ends.0),
            ] {
                let Who::Pod(pod, node) = subject else { continue };
                let connection = Connection {
                    source: probe.from.address(),
                    destination: probe.to.address(),
                    protocol: Some(protocol(probe.protocol)),
                    port: probe.port,
                    is_with_own_node: *other == Who::Host(node.clone()),
                };
                let ours = match judges.get(node.as_str()) {
                    Some(judge) => {
                        let subject = judge.subject(pod);
                        let verdict = subject.verdict(direction, &connection);
                        check_explanation(&subject.explain(direction, &connection), &verdict);
                        verdict
                    }
                    None => Verdict {
                        is_accepted: true,
                        because: if subject == other { Because::Itself } else { Because::Nothing },
                        passed: Vec::new(),
                        audited: Vec::new(),
                    },
                };
                // A Pod that some NetworkPolicy isolates gets its answer there, also about its own node; we ask the next tier.
                let later = half.because == oracle::Because::OwnNode && matches!(ours.because, Because::Rule(_));
                let of_node = matches!(half.because, oracle::Because::OwnNode) && !judges.contains_key(node.as_str());
                if half.ambiguous || later || of_node {
                    continue;
                }
                compared += 1;
                assert!(
                    half.allowed == ours.is_accepted && is_reason(states.get(node), &half.because, &ours.because),
                    "seed {seed}: {probe}, {}: {half}, but {ours:?}\n{}",
                    direction.name(),
                    world.write()
                );
            }
        }
    }
    assert!(compared > probes, "{compared} answers are too few to show anything");
}

#[test]
fn verdicts_of_random_clusters_are_the_reference_evaluators() {
    compare(worlds(), 40);
}
