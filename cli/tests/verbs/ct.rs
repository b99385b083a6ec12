//! `sluice ct` against a switch that tracks UDP between its two ports.

use super::{Switch, udp};
use std::process::Stdio;

/// A switch with two connections in zone 5, of which one is translated to 10.0.0.9, port 5353.
fn switch() -> Switch {
    let switch = Switch::start();
    let translated =
        "priority=9,udp,tp_dst=53 actions=ct(commit,zone=5,nat(dst=10.0.0.9:5353),exec(set_field:0x17->ct_mark)),2";
    switch.out(&["flows", "add", translated, "--owner", "svc:dns"]);
    switch.out(&["flows", "add", "priority=1,udp actions=ct(commit,zone=5),2", "--owner", "lab:test"]);
    switch.receive(&udp(4000, 53));
    switch.receive(&udp(4001, 80));
    switch
}

/// What stands between columns counts as one blank.
fn squeezed(text: &str) -> String {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn connections_are_shown_with_translation_owner_and_counters() {
    let switch = switch();
    let table = squeezed(&switch.out(&["ct", "tp_dst=53"]));
    let expected = "ZONE PROTO CONNECTION NAT STATE MARK OWNER PKTS BYTES AGE EXPIRES\n\
                    5 udp 10.0.0.1:4000 > 10.0.0.2:53 dst -> 10.0.0.9:5353 FIRST 0x17 (svc:dns) svc:dns 1/0 42/0 ";
    assert!(table.starts_with(expected), "{table}");
    let plain = squeezed(&switch.out(&["ct", "dump", "!nat"]));
    assert!(plain.starts_with("ZONE PROTO CONNECTION STATE OWNER PKTS BYTES AGE EXPIRES\n5 udp"), "{plain}");
    let count = |words: &str| switch.out(&["ct", words]).lines().count() - 1;
    assert_eq!(
        ["dst=10.0.0.2", "src=10.0.0.9", "host=10.0.0.9", "host=10.0.0.7|10.0.0.9", "dport=53"].map(count),
        [2, 0, 1, 1, 1]
    );
    assert_eq!(
        ["!host=10.0.0.9", "!dport=53,sport=4001", "port=5353", "addr=10.0.0.0/255.0.0.0"].map(count),
        [1, 1, 1, 2]
    );
    let wide = squeezed(&switch.out(&["ct", "-o", "wide", "!nat"]));
    assert!(wide.starts_with("ZONE PROTO CONNECTION NAT STATE MARK LABEL OWNER "), "{wide}");
    let none = switch.run(&["ct", "zone=6"]);
    assert_eq!((none.code, none.err.trim()), (Some(0), "no connection is like that"));
}

#[test]
fn connections_are_written_for_programs_and_as_ovs_writes_them() {
    let switch = switch();
    let json: serde_json::Value = serde_json::from_str(&switch.out(&["ct", "tp_dst=53", "-o", "json"])).expect("JSON");
    let one = &json["connections"][0];
    assert_eq!(
        (&json["v"], &one["zone"], &one["mark"], &one["dnat"]),
        (&1.into(), &5.into(), &0x17.into(), &true.into())
    );
    assert_eq!((&one["reply"]["src"], &one["reply"]["src_port"]), (&"10.0.0.9".into(), &5353.into()));
    assert_eq!((&one["original_packets"], &one["mark_owners"][0]), (&1.into(), &"svc:dns".into()));
    let tuples = "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=4000,dport=53),\
                  reply=(src=10.0.0.9,dst=10.0.0.1,sport=5353,dport=4000)";
    assert_eq!(switch.out(&["ct", "dump", "nat", "-o", "ofctl"]), format!("{tuples},zone=5,mark=23\n"));
    let more = switch.out(&["ct", "dump", "nat", "-o", "ofctl", "-m"]);
    assert_eq!(more, format!("{tuples},id=0,zone=5,status=0,mark=23\n"));
    let few = squeezed(&switch.out(&["ct", "stats", "tp_dst=53"]));
    assert_eq!(few, "OF CONNECTIONS STATES\nudp 1 FIRST 1\n");
    assert_eq!(switch.out(&["ct", "stats", "-o", "ofctl"]), "Connections Stats:\n    Total: 2\n  UDP: 2\n");
}

#[test]
fn a_flush_says_how_many_and_asks_before_it_takes_all() {
    let switch = switch();
    assert_eq!(switch.out(&["ct", "flush", "tp_dst=53", "--dry-run"]), "1 connection would be removed\n");
    assert_eq!(switch.out(&["ct", "flush", "tp_dst=53"]), "1 connection removed\n");
    let careful = switch.run(&["ct", "flush", "--all"]);
    assert_eq!(careful.code, Some(2));
    assert!(careful.err.contains("next: sluice ct flush --all -y"), "{}", careful.err);
    assert_eq!(switch.run(&["ct", "flush"]).code, Some(2));
    let json = switch.out(&["ct", "flush", "--all", "--dry-run", "-o", "json"]);
    assert_eq!(json, "{\"v\":1,\"dry_run\":true,\"flushed\":1}\n");
    assert_eq!(switch.out(&["ct", "flush", "--all", "-y"]), "1 connection removed\n");
    assert_eq!(switch.run(&["ct"]).err.trim(), "no connection is tracked");
    let wrong = switch.run(&["ct", "flush", "zoen=5"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("did you mean `zone`?"), "{}", wrong.err);
}

#[test]
fn limits_and_timeouts_are_set_and_shown() {
    let switch = switch();
    switch.out(&[
        "ct",
        "set",
        "--max",
        "10",
        "--zone-limit",
        "5=4",
        "--timeout",
        "udp_first=20",
        "--tcp-liberal",
        "yes",
    ]);
    switch.out(&["ct", "set", "--zone", "5", "--timeout", "udp_multiple=300"]);
    let limits = squeezed(&switch.out(&["ct", "limits"]));
    assert!(limits.contains("all zones 2 10 20.0 %\nzone 5 2 4 50.0 % its own limit\n"), "{limits}");
    assert_eq!(switch.out(&["ct", "limits", "-o", "ofctl"]), "default limit=0\nzone=5,limit=4,count=2\n");
    let timeouts = squeezed(&switch.out(&["ct", "timeouts"]));
    assert!(timeouts.starts_with("STATE SECONDS ZONE 5\n"), "{timeouts}");
    assert!(timeouts.contains("udp_first 20 -\nudp_multiple 30 300\n"), "{timeouts}");
    let settings = squeezed(&switch.out(&["ct", "settings"]));
    assert!(settings.contains("max 10\n") && settings.contains("tcp-liberal yes\n"), "{settings}");
    switch.out(&["ct", "set", "--zone-limit", "5=default", "--zone", "5", "--clear-timeouts"]);
    assert!(!switch.out(&["ct", "timeouts"]).contains("ZONE"));
    for (args, message) in [
        (&["--timeout", "udp_frist=5"][..], "did you mean `udp_first`?"),
        (&["--zone-limit", "5"], "want ZONE=N or ZONE=default"),
        (&["--zone", "5"], "--zone says where"),
        (&[], "nothing to change"),
    ] {
        let said = switch.run(&[&["ct", "set"], args].concat());
        assert_eq!(said.code, Some(2), "{args:?}");
        assert!(said.err.contains(message), "{args:?}: {}", said.err);
    }
    let stats = squeezed(&switch.out(&["ct", "stats"]));
    assert!(stats.contains("udp 2 - FIRST 2\n") && stats.contains("committed 2 connections begun\n"), "{stats}");
    let status = switch.out(&["status"]);
    assert!(squeezed(&status).contains("connections ok 2 of 10\n"), "{status}");
}

#[test]
fn events_tell_what_happens_to_the_connections_that_are_asked_for() {
    let switch = switch();
    let mut watch =
        super::sluice(switch.folder.path(), &["ct", "events", "-n", "1", "tp_dst=80", "--socket", "s.sock"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("the command was built");
    // It may take a while until it listens; until then nobody is told of what ends.
    for port in 5000..7000 {
        switch.receive(&udp(port, 80));
        switch.out(&["ct", "flush", &format!("tp_src={port}")]);
        if watch.try_wait().expect("it is ours").is_some() {
            break;
        }
    }
    // No harm to one that has ended.
    _ = watch.kill();
    let said = watch.wait_with_output().expect("it ends");
    let line = String::from_utf8(said.stdout).expect("text");
    assert!(line.contains("zone 5  udp  10.0.0.1:") && line.contains(" > 10.0.0.2:80"), "{line}");
    assert!(line.contains("Z  new ") || line.contains("flushed after 1/0 packets"), "{line}");
}
