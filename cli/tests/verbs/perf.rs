//! `sluice perf` against a switch that has had ten frames.

use super::{Switch, udp};
use serde_json::Value;

#[test]
fn time_is_told_by_stage_and_bursts_by_size() {
    let switch = Switch::start();
    switch.out(&["flows", "add", "udp actions=output:2"]);
    (0..10).for_each(|_| switch.receive(&udp(4000, 53)));
    let answer: Value = serde_json::from_str(&switch.out(&["perf", "-o", "json"])).unwrap();
    let workers = answer["workers"].as_array().unwrap();
    let sum = |of: fn(&Value) -> &Value| workers.iter().map(|worker| of(worker).as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum(|of| &of["packets"]), sum(|of| &of["translations"])), (10, 1), "{answer}");
    let by_size = workers.iter().flat_map(|of| of["bursts_by_size"].as_array().unwrap());
    let counted: u64 = by_size.map(|of| of["bursts"].as_u64().unwrap()).sum();
    assert_eq!(counted, sum(|of| &of["bursts"]), "{answer}");
    if cfg!(target_arch = "x86_64") {
        let of_port = workers.iter().find(|of| of["packets"] != 0).unwrap();
        let stages = of_port["stages"].as_array().unwrap();
        let names: Vec<_> = stages.iter().map(|of| of["stage"].as_str().unwrap()).collect();
        assert_eq!(names, ["receive", "read", "look up", "act", "send"]);
        assert!(stages.iter().all(|of| of["cycles_per_packet"].as_f64().unwrap() > 0.0), "{answer}");
        assert!(of_port["ns_per_translation"].as_f64().unwrap() > 0.0, "{answer}");
    }
    let text = switch.out(&["perf", "--worker", "0"]);
    assert!(text.contains("\nFRAMES A BURST") && text.contains("\ntogether"), "{text}");
    let said = switch.run(&["perf", "--worker", "77"]);
    assert_eq!((said.code, said.err.contains("no such worker")), (Some(2), true), "{said:?}");
}
