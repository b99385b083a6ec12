//! The plugin by the reference client, `cnitool`, over every version that it knows, alone and in front of the reference
//! plugins that change what another has made.

use crate::node::{Node, built};
use std::io::{self, Write};
use std::process::Output;

/// What `cnitool` is told beside the configuration list: capabilities.
const NO_CAPABILITIES: &str = "{}";

/// A node with a running switch and `cnitool`, and the namespace `/run/netns/x`; `None` where that cannot be, which is said.
fn node(test: &str) -> Option<Node> {
    let node = Node::new(test)?;
    // Beside the folder of the build: the repository's own script puts it there where there is a Go toolchain.
    let tool = built("../tools/cnitool");
    if !tool.exists() {
        _ = writeln!(io::stderr(), "skipped: {test}: no cnitool: `xtask/setup.sh` builds it where it finds Go");
        return None;
    }
    std::fs::copy(tool, node.path("opt/cni/bin/cnitool")).unwrap();
    node.start_switch();
    node.say(&["ip", "netns", "add", "x"]);
    Some(node)
}

fn cnitool(node: &Node, operation: &str, capabilities: &str) -> Output {
    let mut command = node.command(&["timeout", "60", "cnitool", operation, "n", "/run/netns/x"]);
    command.env("NETCONFPATH", "/etc/cni/net.d").env("CNI_PATH", "/opt/cni/bin").env("CAP_ARGS", capabilities);
    command.output().unwrap()
}

/// What it prints; it succeeds.
fn succeed(node: &Node, operation: &str, capabilities: &str) -> String {
    let output = cnitool(node, operation, capabilities);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{operation}: {text}{errors}\n{}", node.log());
    text
}

fn conflist(version: &str, chained: &[&str]) -> String {
    let own = r#"{"type": "sluice-cni", "bridge": "br0", "capabilities": {"portMappings": true, "bandwidth": true,
        "mac": true, "ips": true}, "ipam": {"ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}"#;
    let plugins = [&[own], chained].concat().join(", ");
    format!(r#"{{"cniVersion": "{version}", "name": "n", "plugins": [{plugins}]}}"#)
}

#[test]
fn every_operation_of_every_version_is_what_the_reference_client_expects() {
    let Some(node) = node("cnitool") else { return };
    let before = node.traces();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        node.configure(&conflist(version, &[]));
        let result: serde_json::Value = serde_json::from_str(&succeed(&node, "add", NO_CAPABILITIES)).unwrap();
        assert_eq!(result["cniVersion"], version);
        let address = match version {
            "0.1.0" | "0.2.0" => &result["ip4"]["ip"],
            _ => &result["ips"][0]["address"],
        };
        assert!(address.as_str().unwrap().starts_with("10.77.0."), "{result}");
        let again = cnitool(&node, "add", NO_CAPABILITIES);
        assert!(!again.status.success(), "a second ADD without DEL is refused");
        node.say(&["ip", "netns", "exec", "x", "ping", "-c", "1", "-W", "5", "10.77.0.1"]);
        if version >= "0.4.0" {
            succeed(&node, "check", NO_CAPABILITIES);
            node.say(&["ip", "-n", "x", "route", "del", "default"]);
            let told = cnitool(&node, "check", NO_CAPABILITIES);
            let told = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
            assert!(told.contains("route"), "{version}: CHECK tells of the missing route: {told}");
        }
        if version == "1.1.0" {
            succeed(&node, "status", NO_CAPABILITIES);
            succeed(&node, "gc", NO_CAPABILITIES);
            assert!(!cnitool(&node, "check", NO_CAPABILITIES).status.success(), "nothing is left to be checked");
        }
        succeed(&node, "del", NO_CAPABILITIES);
        succeed(&node, "del", NO_CAPABILITIES);
        assert_eq!(node.traces(), before, "{version}");
    }
}

#[test]
fn status_tells_when_the_switch_is_away() {
    let Some(node) = node("cnitool status") else { return };
    node.configure(&conflist("1.1.0", &[]));
    succeed(&node, "status", NO_CAPABILITIES);
    node.kill_switch();
    let told = cnitool(&node, "status", NO_CAPABILITIES);
    assert!(!told.status.success());
    let told = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("/run/sluice/switch.sock"), "{told}");
    assert!(!cnitool(&node, "add", NO_CAPABILITIES).status.success());
    succeed(&node, "del", NO_CAPABILITIES);
}

#[test]
fn the_reference_plugins_work_behind_ours() {
    let Some(node) = node("cnitool chains") else { return };
    let before = node.traces();
    let chains = [
        (r#"{"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}"#, NO_CAPABILITIES),
        (r#"{"type": "sbr"}"#, NO_CAPABILITIES),
        (r#"{"type": "portmap", "capabilities": {"portMappings": false}}"#, NO_CAPABILITIES),
        (r#"{"type": "firewall", "backend": "iptables"}"#, NO_CAPABILITIES),
    ];
    for (plugin, capabilities) in chains {
        node.configure(&conflist("1.0.0", &[plugin]));
        let result: serde_json::Value = serde_json::from_str(&succeed(&node, "add", capabilities)).unwrap();
        assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(3), "{plugin}: {result}");
        // With sbr, only what has the interface's address as its source finds a route.
        node.say(&["ip", "netns", "exec", "x", "ping", "-I", "eth0", "-c", "1", "-W", "5", "10.77.0.1"]);
        succeed(&node, "check", capabilities);
        succeed(&node, "del", capabilities);
    }
    // The reference firewall keeps its chains.
    node.run(&["iptables", "-F"]);
    node.run(&["iptables", "-X"]);
    node.run(&["sh", "-c", "nft delete table ip filter; nft delete table ip nat"]);
    assert_eq!(node.traces(), before);
}
