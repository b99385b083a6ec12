//! What the switch has of policies, told by their names.

use super::{Switch, udp};
use std::process::Stdio;

/// A switch that tracks what goes to port 53 as a rule's, and drops what goes to port 54 as two policies'.
fn switch() -> Switch {
    let switch = Switch::start();
    let accept = "priority=9,udp,tp_dst=53 actions=load:0x1f->NXM_NX_REG5[],\
                  ct(commit,zone=5,exec(move:NXM_NX_REG5[]->NXM_NX_CT_LABEL[0..31])),2";
    switch.out(&["flows", "add", accept, "--owner", "np:shop/web/egress/0"]);
    let drop = "priority=9,udp,tp_dst=54 actions=drop";
    switch.out(&["flows", "add", drop, "--owner", "np:shop/db+shop/all/ingress/default"]);
    switch
}

/// What `sluice log` says first, while packets come.
fn first_line(switch: &Switch, args: &[&str], port: u16) -> String {
    let args = [&["log", "-n", "1", "--socket", "s.sock"], args].concat();
    let mut log = super::sluice(switch.folder.path(), &args).stdout(Stdio::piped()).spawn().expect("it was built");
    for source in 5000..9000 {
        switch.receive(&udp(source, port));
        if log.try_wait().expect("it is ours").is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // No harm to one that has ended.
    _ = log.kill();
    String::from_utf8(log.wait_with_output().expect("it ends").stdout).expect("text")
}

#[test]
fn flows_and_drops_are_found_by_the_policies_that_their_owners_name() {
    let switch = switch();
    switch.receive(&udp(4000, 54));
    for policy in ["shop/db", "np:shop/all"] {
        let flows = switch.out(&["flows", "dump", "--policy", policy]);
        assert!(flows.contains("np:shop/db+shop/all/ingress/default") && flows.lines().count() == 2, "{flows}");
        let drops = switch.out(&["drops", "--policy", policy]);
        assert!(drops.contains("10.0.0.2") && drops.contains("np:shop/db+shop/all/ingress/default"), "{drops}");
    }
    assert!(!switch.out(&["drops", "--by", "policy"]).contains("ingress"));
    let none = switch.run(&["drops", "--policy", "shop/web"]);
    assert!(none.err.contains("nothing was dropped by np:shop/web"), "{}", none.err);
    let none = switch.run(&["flows", "dump", "--policy", "cnp:guard"]);
    assert!(none.err.contains("no flow is selected"), "{}", none.err);
    assert_eq!(switch.run(&["flows", "dump", "--policy", "guard"]).code, Some(2));
}

#[test]
fn the_log_tells_connections_that_a_rule_accepted_and_packets_that_one_dropped() {
    let switch = switch();
    let line = first_line(&switch, &["--verdict", "allow"], 53);
    assert!(line.contains("10.0.0.1 -> 10.0.0.2:53  udp  ALLOW  np:shop/web/egress/0  1"), "{line}");
    let line = first_line(&switch, &["--policy", "shop/all"], 54);
    assert!(line.contains("10.0.0.1 -> 10.0.0.2:54  udp  DROP  np:shop/db+shop/all/ingress/default  "), "{line}");
    let line = first_line(&switch, &["--verdict", "drop", "-o", "json"], 54);
    let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&json["v"], &json["verdict"], &json["port"]), (&1.into(), &"DROP".into(), &54.into()));
}
