//! Containers that are attached: what they can do, what CHECK says, and that nothing is left.

use crate::machine::{Container, Machine};
use serde_json::{Value, json};

fn with(config: &Value, key: &str, value: &Value) -> Value {
    let mut config = config.clone();
    config[key] = value.clone();
    config
}

#[test]
fn two_containers_reach_each_other_and_leave_nothing() {
    let Some(machine) = Machine::new("two containers") else { return };
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let config = machine.config(&json!({"cniVersion": version}));
        let before = machine.traces();
        let [a, b] = ["a", "b"].map(Container::new);
        let [made, other] = [&a, &b].map(|c| machine.does("ADD", c, &config));
        let address = |result: &Value, v6: usize| {
            let text = match version {
                "0.1.0" | "0.2.0" => &result[["ip4", "ip6"][v6]]["ip"],
                _ => &result["ips"][v6]["address"],
            };
            text.as_str().unwrap().split('/').next().unwrap().to_owned()
        };
        assert_eq!(made["cniVersion"], version);
        assert!(a.reaches(&address(&other, 0)) && b.reaches(&address(&made, 1)), "{version}");
        if version >= "0.4.0" {
            machine.does("CHECK", &a, &with(&config, "prevResult", &made));
        }
        for container in [&a, &b, &a] {
            machine.does("DEL", container, &config);
        }
        assert_eq!(machine.traces(), before, "{version}");
    }
}

#[test]
fn the_result_says_what_is_in_the_container() {
    let Some(machine) = Machine::new("the result") else { return };
    let a = Container::new("a");
    let more = json!({"mtu": 1400, "runtimeConfig": {"mac": "02:00:00:00:00:0a", "ips": ["10.77.0.9/24"]}});
    let result = machine.does("ADD", &a, &machine.config(&more));
    let interfaces = result["interfaces"].as_array().unwrap();
    let container = interfaces.iter().position(|i| i["sandbox"].is_string()).unwrap();
    let netns = a.netns.path();
    assert_eq!(
        interfaces[container],
        json!({"name": "eth0", "mac": "02:00:00:00:00:0a", "mtu": 1400, "sandbox": netns})
    );
    assert_eq!(result["ips"][0], json!({"address": "10.77.0.9/24", "gateway": "10.77.0.1", "interface": container}));
    let gateways = [json!({"dst": "0.0.0.0/0", "gw": "10.77.0.1"}), json!({"dst": "::/0", "gw": "fd77::1"})];
    assert_eq!(result["routes"], json!(gateways));
    let link = a.say(&["ip", "link", "show", "eth0"]);
    assert!(link.contains("mtu 1400") && link.contains("02:00:00:00:00:0a"), "{link}");
    assert!(a.say(&["ip", "route"]).contains("default via 10.77.0.1"));
    let again = machine.fails("ADD", &a, &machine.config(&more));
    assert_eq!(again["code"], 102, "{again}");
    assert!(a.say(&["ip", "addr"]).contains("10.77.0.9"), "the first ADD's interface is untouched");
}

#[test]
fn a_container_with_a_default_route_keeps_it() {
    let Some(machine) = Machine::new("a second network") else { return };
    let a = Container::new("a");
    let (peer, _) = (Container::new("peer"), a.netns.set_up("lo", true).unwrap());
    a.netns.add_veth("first", &peer.netns, "peer").unwrap();
    for words in [["ip", "address", "add", "192.0.2.2/24", "dev", "first"], ["ip", "link", "set", "dev", "first", "up"]]
    {
        a.say(&words);
    }
    a.say(&["ip", "route", "add", "default", "via", "192.0.2.1"]);
    let result = machine.does("ADD", &a, &machine.config(&json!({})));
    assert_eq!(result["routes"], json!([{"dst": "::/0", "gw": "fd77::1"}]), "IPv6 had none");
    assert_eq!(a.say(&["ip", "route", "show", "default"]).matches("default").count(), 1);
    machine.does("CHECK", &a, &with(&machine.config(&json!({})), "prevResult", &result));
}

#[test]
fn check_tells_of_everything_that_is_missing_and_mends_nothing() {
    let Some(machine) = Machine::new("check") else { return };
    let config = machine.config(&json!({}));
    let a = Container::new("a");
    let result = machine.does("ADD", &a, &config);
    let check = with(&config, "prevResult", &result);
    machine.does("CHECK", &a, &check);
    a.say(&["ip", "route", "del", "default"]);
    a.say(&["ip", "address", "del", "fd77::2/64", "dev", "eth0"]);
    for _ in 0..2 {
        let told = machine.fails("CHECK", &a, &check);
        let msg = told["msg"].as_str().unwrap();
        assert!(told["code"] == 104 && msg.contains("fd77::2") && msg.contains("0.0.0.0/0"), "{told}");
    }
    a.netns.remove_link("eth0").unwrap();
    let told = machine.fails("CHECK", &a, &check);
    assert!(told["msg"].as_str().unwrap().contains("eth0"), "{told}");
    machine.does("DEL", &a, &config);
    let told = machine.fails("CHECK", &a, &check);
    assert!(told["msg"].as_str().unwrap().contains("no address is reserved"), "the reservation is gone too: {told}");
}

#[test]
fn a_tap_works_as_a_veth_does() {
    let Some(machine) = Machine::new("a TAP") else { return };
    let before = machine.traces();
    let config = machine.config(&json!({"device": "tap"}));
    let [a, b] = ["a", "b"].map(Container::new);
    let result = machine.does("ADD", &a, &config);
    machine.does("ADD", &b, &machine.config(&json!({})));
    assert!(a.reaches("10.77.0.3"));
    machine.does("CHECK", &a, &with(&config, "prevResult", &result));
    machine.does("DEL", &a, &config);
    machine.does("DEL", &b, &config);
    assert!(!a.say(&["ip", "-br", "link"]).contains("eth0"), "the TAP is gone");
    assert_eq!(machine.traces(), before);
}

#[test]
fn gc_leaves_what_is_named_and_nothing_else() {
    let Some(machine) = Machine::new("gc") else { return };
    let config = machine.config(&json!({}));
    let before = machine.traces();
    let all = ["a", "b", "c"].map(Container::new);
    for container in &all {
        machine.does("ADD", container, &config);
    }
    let kept = json!([{"containerID": "b", "ifname": "eth0"}]);
    machine.does("GC", &all[0], &with(&config, "cni.dev/valid-attachments", &kept));
    let links = machine.traces();
    assert_eq!(links.matches("\"sl").count(), 1, "{links}");
    assert!(all[1].say(&["ip", "addr"]).contains("10.77.0.3"));
    // A runtime that was killed with its machine's switch: only the kernel and the store know of them.
    machine.does("ADD", &all[0], &config);
    machine.does("GC", &all[0], &with(&config, "cni.dev/attachments", &Value::Null));
    assert_eq!(machine.traces(), before);
}

#[test]
fn traffic_resumes_by_itself_and_status_is_the_truth() {
    let Some(mut machine) = Machine::new("a killed switch") else { return };
    let config = machine.config(&json!({}));
    let before = machine.traces();
    let [a, b, c] = ["a", "b", "c"].map(Container::new);
    machine.does("STATUS", &a, &config);
    machine.does("ADD", &a, &config);
    machine.does("ADD", &b, &config);
    assert!(a.reaches("10.77.0.3"));
    machine.kill_switch();
    assert_eq!(machine.fails("STATUS", &a, &config)["code"], 51, "what is attached goes through the switch");
    assert_eq!(machine.fails("ADD", &c, &config)["code"], 11);
    machine.does("DEL", &b, &config);
    machine.start_switch();
    machine.does("STATUS", &a, &config);
    machine.does("ADD", &c, &config);
    assert!(a.reaches("10.77.0.4"), "an address that was just released is not given at once");
    for container in [&a, &c] {
        machine.does("DEL", container, &config);
    }
    assert_eq!(machine.traces(), before);
}

#[test]
fn a_hundred_adds_at_once_are_a_hundred_containers() {
    let Some(machine) = Machine::new("a hundred at once") else { return };
    let config = machine.config(&json!({}));
    let before = machine.traces();
    let all: Vec<Container> = (0..100).map(|n| Container::new(format!("c{n}"))).collect();
    let running: Vec<_> = all.iter().map(|c| machine.spawn(machine.plugin("ADD", c), &config)).collect();
    let mut addresses = Vec::new();
    for child in running {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        let result: Value = serde_json::from_str(&said).unwrap();
        addresses.push(result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned());
    }
    let distinct: std::collections::BTreeSet<&String> = addresses.iter().collect();
    assert_eq!(distinct.len(), 100);
    for (from, to) in [(0, 99), (50, 3), (99, 50)] {
        // The host's kernel may drop one of a flood to a hundred interfaces.
        assert!((0..3).any(|_| all[from].reaches(&addresses[to])), "{from} to {to}");
    }
    let running: Vec<_> = all.iter().map(|c| machine.spawn(machine.plugin("DEL", c), &config)).collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(machine.traces(), before);
}
