//! Traces between two hosts of a lab, by their names.
//!
//! The lab lives in its own namespaces. Where none can be made, the test says so by name and does nothing.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::{Command, Output};

/// Ends the lab also when the test fails.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        sluice(self.0, &["lab", "down"]);
    }
}

fn sluice(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).current_dir(folder).env("SLUICE_RUNTIME_DIR", folder.join("run")).env_remove("SLUICE_SOCKET");
    command.output().expect("the command was built")
}

/// Exit code and first line of standard output.
fn said(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = sluice(folder, args);
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), text.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn a_trace_between_hosts_says_whether_the_packet_arrives_and_whose_rule_decides() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let up = sluice(folder, &["lab", "up", "--topo", "linear,2"]);
    if up.status.code() == Some(77) {
        eprintln!("skipped: no lab can be made here: {}", String::from_utf8_lossy(&up.stderr));
        return;
    }
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let _down = Down(folder);
    let delivered = "DELIVERED  h1 -> s1:1 -> s2:1 -> h2";
    let (code, line) = said(folder, &["trace", "h1", "h2"]);
    assert!(code == Some(0) && line.starts_with(delivered), "{code:?} {line}");

    let add = ["flows", "add", "--bridge", "s2", "--owner", "np:shop/deny", "priority=9,tcp,tp_dst=22 actions=drop"];
    assert_eq!(said(folder, &add).0, Some(0));
    let dropped = "DROPPED  h1 -> h2: rule_drop by np:shop/deny (table 0, priority 9)";
    assert_eq!(said(folder, &["trace", "h1", "h2:22", "tcp"]), (Some(3), dropped.to_owned()));
    let (code, line) = said(folder, &["trace", "--lab", "linear", "h1", "h2:22", "udp"]);
    assert!(code == Some(0) && line.starts_with(delivered), "{code:?} {line}");

    // Sent elsewhere is neither dropped nor delivered.
    let add = ["flows", "add", "--bridge", "s1", "priority=9,icmp actions=controller"];
    assert_eq!(said(folder, &add).0, Some(0));
    let (code, line) = said(folder, &["trace", "h1", "h2"]);
    assert!(code == Some(1) && line.starts_with("NOT DELIVERED  h1 -> the controller, not to h2"), "{code:?} {line}");
    for wrong in [&["trace", "h1", "h9"][..], &["trace", "h1", "h2", "tcp"], &["trace", "h1", "s2"], &["flows", "dump"]]
    {
        assert_eq!(said(folder, wrong), (Some(2), String::new()), "{wrong:?}");
    }
}

#[test]
fn a_trace_goes_on_where_a_wire_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let file = "\
lab: wan
vlans: {blue: {id: 10}, green: {id: 20}}
links:
  - {ends: [h1, s1], access: blue}
  - {ends: [h2, s2], access: blue, delay: 1ms}
  - {ends: [h3, s2], access: green}
  - {ends: [s1, s2], name: wan, trunk: [blue, green], delay: 20ms, back: {delay: 1.5ms}}
";
    std::fs::write(folder.join("wan.yml"), file).expect("the folder can be written to");
    let up = sluice(folder, &["lab", "up", "wan.yml"]);
    if up.status.code() == Some(77) {
        eprintln!("skipped: no lab can be made here: {}", String::from_utf8_lossy(&up.stderr));
        return;
    }
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let _down = Down(folder);
    let line = |how: &str| {
        format!("DELIVERED  h1 -> s1 [port 1, vlan blue, {how} via wan] -> wan 20ms -> s2 [port 3] -> h2-s2 1ms -> h2")
    };
    assert_eq!(said(folder, &["trace", "h1", "h2"]), (Some(0), line("flooded")));
    sluice(folder, &["lab", "ping", "h1", "h2"]);
    assert_eq!(said(folder, &["trace", "h1", "h2"]), (Some(0), line("learned h2")));
    let back =
        "DELIVERED  h2 -> h2-s2 1ms -> s2 [port 1, vlan blue, learned h1 via wan] -> wan 1.5ms -> s1 [port 2] -> h1";
    assert_eq!(said(folder, &["trace", "h2", "h1", "icmp"]), (Some(0), back.to_owned()));
    // In another VLAN nothing is reached, and it is the last switch that says so.
    let (code, line) = said(folder, &["trace", "h1", "h3"]);
    assert!(code == Some(1) && line.starts_with("NOT DELIVERED  h1 -> s2:1, not to h3"), "{code:?} {line}");

    let add = ["flows", "add", "--bridge", "s2", "--owner", "np:shop/deny", "priority=9,icmp actions=drop"];
    assert_eq!(said(folder, &add).0, Some(0));
    let dropped = "DROPPED  h1 -> h2: rule_drop at s2 by np:shop/deny (table 0, priority 9)";
    assert_eq!(said(folder, &["trace", "h1", "h2"]), (Some(3), dropped.to_owned()));
}
