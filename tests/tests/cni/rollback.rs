//! An ADD that fails, or is ended, at each step leaves nothing: the only address of the pool can be given to the next.

use crate::machine::{Container, Machine};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::time::Duration;

/// A network with one address: another container gets it only if it was given back.
fn one_address(machine: &Machine, more: Value) -> Value {
    let mut config = machine.config(&more);
    config["ipam"]["ranges"] =
        json!([[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}]]);
    config
}

fn attach_and_detach(machine: &Machine, id: &str) {
    let config = one_address(machine, json!({}));
    let next = Container::new(id);
    assert_eq!(machine.does("ADD", &next, &config)["ips"][0]["address"], "10.77.0.9/24");
    machine.does("DEL", &next, &config);
}

#[test]
fn an_add_that_fails_at_any_step_leaves_nothing() {
    let Some(machine) = Machine::new("rollback") else { return };
    let before = machine.traces();
    let config = one_address(&machine, json!({}));

    let (owner, late) = (Container::new("owner"), Container::new("late"));
    machine.does("ADD", &owner, &config);
    let told = machine.fails("ADD", &late, &config);
    assert_eq!(told["code"], 100, "no address is left: {told}");
    machine.does("DEL", &owner, &config);
    assert_eq!(machine.traces(), before);

    let taken = Container::new("taken");
    taken.netns.add_veth("eth0", &taken.netns, "peer").unwrap();
    let told = machine.fails("ADD", &taken, &config);
    assert_eq!(told["code"], 102, "the interface is there: {told}");
    assert!(taken.say(&["ip", "-br", "link"]).contains("peer"), "it is not ours to delete");
    assert_eq!(machine.traces(), before);
    attach_and_detach(&machine, "after-the-link");

    let told = machine.fails("ADD", &late, &one_address(&machine, json!({"sysctl": {"net.no.such": "1"}})));
    assert_eq!(told["code"], 7, "the setting is not there: {told}");
    assert_eq!(machine.traces(), before);
    assert!(!late.say(&["ip", "-br", "link"]).contains("eth0"));
    attach_and_detach(&machine, "after-the-sysctl");

    let mapping =
        json!({"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}});
    let other = Container::new("other");
    machine.does("ADD", &other, &machine.config(&mapping));
    let both = machine.traces();
    let mut second = one_address(&machine, mapping);
    second["name"] = "m".into();
    let told = machine.fails("ADD", &late, &second);
    assert_eq!(told["code"], 103, "the host port is another's: {told}");
    assert!(told["msg"].as_str().unwrap().contains("other"), "the owner is named: {told}");
    assert_eq!(machine.traces(), both);
    machine.does("DEL", &other, &config);
    assert_eq!(machine.traces(), before);
}

#[test]
fn an_add_that_is_ended_or_killed_leaves_nothing_for_long() {
    let Some(machine) = Machine::new("signals") else { return };
    let before = machine.traces();
    let config = one_address(&machine, json!({}));
    for turn in 0..30_u64 {
        let container = Container::new(format!("c{turn}"));
        let child = machine.spawn(machine.plugin("ADD", &container), &config);
        std::thread::sleep(Duration::from_millis(turn * 2));
        let signal = if turn % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
        _ = kill(Pid::from_raw(child.id().try_into().unwrap()), signal);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        if !said.is_empty() {
            serde_json::from_str::<Value>(&said).unwrap_or_else(|e| panic!("half an answer: {e}: {said:?}"));
        }
        // What was undone by itself need not be deleted; a runtime sends DEL all the same.
        machine.does("DEL", &container, &config);
        assert_eq!(machine.traces(), before, "turn {turn}");
    }
    attach_and_detach(&machine, "last");
}
