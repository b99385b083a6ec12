//! A storm of kills: thousands of ADD and DEL while plugin and switch are killed at random moments. What is left at the
//! end is what was there before.

use crate::node::Node;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Containers at once.
const LANES: u64 = 8;
/// Rounds of each, of an ADD and a DEL.
const ROUNDS: usize = 125;
/// Of how many calls one is killed.
const KILLED: u32 = 4;
/// A call that is killed is so within this time, in microseconds.
const LIFE_US: u64 = 40_000;
/// How often the switch is killed.
const SWITCH_PAUSE: Duration = Duration::from_millis(1500);

const CONFIG: &str = r#"{"cniVersion":"1.1.0","name":"n","type":"sluice-cni","bridge":"br0",
    "runtimeConfig":{"portMappings":[PORT]},
    "ipam":{"ranges":[[{"subnet":"10.77.0.0/24"}],[{"subnet":"fd77::/64"}]]}}"#;

fn config(lane: u64) -> String {
    let port = format!(r#"{{"hostPort":{},"containerPort":80,"protocol":"tcp"}}"#, 8000 + lane);
    CONFIG.replace("PORT", &port)
}

/// Calls the plugin; whether it succeeded. With `life`, it is killed after that time if it has not ended by then.
fn call(node: &Node, operation: &str, lane: u64, life: Option<Duration>) -> bool {
    let (id, netns) = (format!("c{lane}"), format!("/run/netns/lane{lane}"));
    let mut command = node.command(&["sluice-cni"]);
    command.env("CNI_COMMAND", operation).env("CNI_CONTAINERID", id).env("CNI_NETNS", netns);
    command.env("CNI_IFNAME", "eth0").env("CNI_PATH", "/opt/cni/bin");
    let file = node.path(&format!("stdin{lane}"));
    std::fs::write(&file, config(lane)).unwrap();
    command.stdin(std::fs::File::open(file).unwrap()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    if let Some(life) = life {
        thread::sleep(life);
        _ = child.kill();
    }
    child.wait().unwrap().success()
}

fn lane(node: &Node, lane: u64) -> usize {
    let mut random = StdRng::seed_from_u64(lane);
    let mut life = || {
        let dies = random.random_ratio(1, KILLED);
        dies.then(|| Duration::from_micros(random.random_range(0..LIFE_US)))
    };
    let mut added = 0;
    for _ in 0..ROUNDS {
        added += usize::from(call(node, "ADD", lane, life()));
        // A runtime says DEL after a failed ADD too.
        call(node, "DEL", lane, life());
    }
    added
}

#[test]
fn nothing_is_left_of_two_thousand_calls_while_plugin_and_switch_are_killed() {
    let Some(node) = Node::new("kill storm") else { return };
    node.start_switch();
    let before = (node.traces(), node.switch_state());
    for lane in 0..LANES {
        node.say(&["ip", "netns", "add", &format!("lane{lane}")]);
    }
    let over = AtomicBool::new(false);
    let (added, kills) = thread::scope(|scope| {
        let storm: Vec<_> = (0..LANES)
            .map(|n| {
                let node = &node;
                scope.spawn(move || lane(node, n))
            })
            .collect();
        let killer = scope.spawn(|| {
            let mut kills = 0;
            while !over.load(Ordering::Relaxed) {
                thread::sleep(SWITCH_PAUSE);
                node.restart_switch();
                kills += 1;
            }
            kills
        });
        let added: usize = storm.into_iter().map(|lane| lane.join().unwrap()).sum();
        over.store(true, Ordering::Relaxed);
        (added, killer.join().unwrap())
    });
    assert!(added > ROUNDS, "most calls that were not killed succeeded: {added}");
    assert!(kills > 3, "the switch was killed {kills} times");
    for lane in 0..LANES {
        assert!(call(&node, "DEL", lane, None), "the last DEL of lane {lane}");
        let links = node.say(&["ip", "-n", &format!("lane{lane}"), "-o", "link"]);
        assert_eq!(links.lines().count(), 1, "{links}");
        node.say(&["ip", "netns", "del", &format!("lane{lane}")]);
    }
    assert_eq!((node.traces(), node.switch_state()), before);
    let learned = node.learned();
    assert!(learned.lines().skip(1).all(|line| line.split_whitespace().nth(1) == Some("br0")), "{learned}");
}
