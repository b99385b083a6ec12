//! Behind another plugin: the switch puts itself in front of what that made, and its result is passed on.

use crate::machine::{Container, Machine};
use serde_json::json;
use std::io::{self, Write};
use std::path::Path;

#[test]
fn behind_the_reference_plugin_ptp_its_result_is_passed_on_and_its_interface_works() {
    let Some(machine) = Machine::new("behind ptp") else { return };
    if !Path::new("/usr/lib/cni/ptp").exists() {
        _ = writeln!(io::stderr(), "skipped: behind ptp: needs Debian's containernetworking-plugins");
        return;
    }
    let a = Container::new("a");
    let ptp = json!({
        "cniVersion": "1.0.0", "name": "n", "type": "ptp",
        "ipam": {"type": "host-local", "dataDir": machine.folder().join("host-local"), "subnet": "10.99.0.0/24",
                 "routes": [{"dst": "0.0.0.0/0"}]},
    });
    let other = |command: &str| {
        let mut plugin = std::process::Command::new("/usr/lib/cni/ptp");
        let ours = machine.plugin(command, &a);
        plugin.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        plugin.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let output = machine.spawn(plugin, &ptp).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        output.stdout
    };
    let prev: serde_json::Value = serde_json::from_slice(&other("ADD")).unwrap();
    assert!(a.reaches("10.99.0.1"), "ptp's own path works before");
    let mut config = machine.config(&json!({"cniVersion": "1.0.0", "prevResult": prev}));
    config.as_object_mut().unwrap().remove("ipam");
    let result = machine.does("ADD", &a, &config);
    assert_eq!(result, prev, "the result is passed on as it was");
    assert!(a.reaches("10.99.0.1"), "the path works through the switch");
    machine.does("CHECK", &a, &config);
    machine.does("DEL", &a, &config);
    machine.does("DEL", &a, &config);
    assert!(a.reaches("10.99.0.1"), "ptp's own path works again");
    other("DEL");
}
