//! The same flows, read and printed by Open vSwitch.

use crate::generate::{self, Tags};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sluice_flows::consistency;
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::*;
use std::io::Write;
use std::process::{Command, Stdio};

/// Flows compared in each dialect.
const FLOWS: usize = 300;

/// Runs `ovs-ofctl`, with `input` on its standard input; `None` if it is not installed.
pub(crate) fn ovs_ofctl(args: &[&str], input: &str) -> Option<(bool, String, String)> {
    let child = Command::new("ovs-ofctl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: ovs-ofctl is not installed");
        return None;
    };
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("its output can be read");
    let _ = writer.join();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

fn samples(strategy: impl Strategy<Value = FlowSpec>) -> Vec<FlowSpec> {
    let mut runner = TestRunner::deterministic();
    std::iter::repeat_with(|| strategy.new_tree(&mut runner).expect("no sample is refused").current())
        .filter(|spec| consistency::check(spec.table, &spec.matches, &spec.actions).is_ok())
        .take(FLOWS)
        .collect()
}

/// A flow as `ovs-ofctl parse-flows` prints it.
fn parse_flows_line(spec: &FlowSpec) -> String {
    let mut text = String::from("ADD ");
    if spec.table.get() != 0 {
        text += &format!("table:{} ", spec.table);
    }
    let matches = show_match(&spec.matches, Names::NONE).to_string();
    if spec.priority != 0x8000 {
        text += &format!("priority={}{}", spec.priority, if matches.is_empty() { " " } else { "," });
    }
    text += &matches;
    text += if matches.is_empty() { "" } else { " " };
    if spec.cookie != 0 {
        text += &format!("cookie:{:#x} ", spec.cookie);
    }
    for (name, value) in [("idle", spec.idle_timeout), ("hard", spec.hard_timeout), ("importance", spec.importance)] {
        if value != 0 {
            text += &format!("{name}:{value} ");
        }
    }
    if spec.send_flow_rem {
        text += "send_flow_rem ";
    }
    text + &format!("actions={}", show_actions(&spec.actions, Names::NONE))
}

/// Whether OVS prints every flow as we do, when it has read what we printed.
fn same_as_ovs(options: &[&str], flows: &[FlowSpec]) {
    // Without a table, OVS says 255 in some versions of OpenFlow.
    let line = |spec: &FlowSpec| format!("table={}, {}", spec.table, show_flow(spec, None, Names::NONE));
    let lines: Vec<_> = flows.iter().map(line).collect();
    let args = [options, &["parse-flows", "-"]].concat();
    let Some((ok, output, errors)) = ovs_ofctl(&args, &lines.join("\n")) else {
        return;
    };
    assert!(ok, "OVS refused a flow: {errors}\nof: {}", lines.join("\n"));
    let theirs: Vec<_> =
        output.lines().filter_map(|l| l.split_once("): ADD").map(|(_, l)| format!("ADD{l}"))).collect();
    let messages = output.lines().filter(|line| line.contains("FLOW_MOD (")).zip(&lines);
    let broken: Vec<_> = messages.filter(|(message, _)| message.contains("decode error")).take(5).collect();
    assert!(broken.is_empty() && theirs.len() == flows.len(), "{broken:#?}");
    for ((theirs, spec), line) in theirs.iter().zip(flows).zip(&lines) {
        assert_eq!(*theirs, parse_flows_line(spec), "{line}");
    }
}

#[test]
fn ovs_prints_flows_with_openflow_1_0_actions_as_we_do() {
    let actions = proptest::collection::vec(generate::old_action(), 0..5);
    let flows = samples(generate::flow(generate::matches(Tags::Raw), actions, Just(0)));
    same_as_ovs(&["-F", "NXM+table_id"], &flows);
}

#[test]
fn ovs_prints_flows_with_openflow_1_5_actions_as_we_do() {
    let actions = proptest::collection::vec(generate::modern_action(), 0..5);
    let flows = samples(generate::flow(generate::matches(Tags::Sayable), actions, any::<u16>()));
    same_as_ovs(&["-O", "OpenFlow15"], &flows);
}

/// Words that may stand where a value is wanted, each of which some field takes and others do not.
const VALUES: &[&str] = &[
    "0",
    "1",
    "255",
    "256",
    "65535",
    "65536",
    "0x10",
    "010",
    "09",
    "-1",
    "+5",
    "*",
    "1/1",
    "1/",
    "/1",
    "0/0",
    "5/0xffff",
    "1/0x1",
    "1.2.3.4",
    "1.2.3",
    "10.0.0.0/8",
    "10.0.0.0/33",
    "10.0.0.0/255.0.0.0",
    "::1",
    "::1/64",
    "::1/129",
    "fe80::/ffff::",
    "02:00:00:00:00:01",
    "1:2:3:4:5:6",
    "02:00:00:00:00:01/ff:ff:ff:00:00:00",
    "02:00",
    "LOCAL",
    "any",
    "eth0",
    "no",
    "LATER",
    "not_later",
    "+syn-ack",
    "syn|ack",
    "+syn+syn",
    "0xfff",
    "0x12/0x3f",
    "99999999999999999999",
    "",
    "1x",
    "0x1g",
];

/// Keys that take them, with the words that go before.
const KEYS: &[&str] = &[
    "in_port",
    "in_port_oxm",
    "pkt_mark",
    "reg3",
    "metadata",
    "dl_src",
    "eth_dst",
    "dl_type",
    "vlan_tci",
    "dl_vlan",
    "vlan_vid",
    "dl_vlan_pcp",
    "vlan_pcp",
    "ip,nw_src",
    "ip,ip_dst",
    "ip,nw_proto",
    "ip,nw_tos",
    "ip,ip_dscp",
    "ip,nw_ecn",
    "ip,nw_ttl",
    "ip,ip_frag",
    "ipv6,ipv6_src",
    "ipv6,ipv6_label",
    "arp,arp_spa",
    "arp,arp_op",
    "arp,arp_sha",
    "tcp,tp_src",
    "tcp,tcp_flags",
    "icmp,icmp_type",
    "icmp6,icmpv6_type=135,nd_target",
    "icmp6,icmpv6_type=136,nd_tll",
    "reg0[0..7]",
    "table",
    "priority",
    "cookie",
    "idle_timeout",
    "importance",
    "bogus",
    "reg99",
    "Reg0",
];

/// Actions that take them.
const ARGUMENTS: &[&str] = &[
    "output",
    "controller",
    "resubmit",
    "goto_table",
    "mod_dl_src",
    "mod_nw_dst",
    "mod_nw_tos",
    "mod_nw_ecn",
    "mod_nw_ttl",
    "mod_tp_src",
    "mod_vlan_vid",
    "mod_vlan_pcp",
    "push_vlan",
    "note",
    "bogus",
];

/// Fields that `set_field` and `load` put them into.
const TARGETS: &[&str] = &[
    "reg0",
    "metadata",
    "eth_src",
    "eth_type",
    "ip_src",
    "nw_tos",
    "ip_dscp",
    "nw_ttl",
    "tcp_dst",
    "in_port",
    "vlan_tci",
    "pkt_mark",
    "reg0[0..3]",
    "NXM_NX_REG0[]",
    "nw_frag",
    "bogus",
];

/// Whether OVS takes the flow: its parser, and the switch at the other end.
fn ovs_takes(flow: &str) -> Option<bool> {
    let (ok, output, _) = ovs_ofctl(&["parse-flow", flow], "")?;
    Some(ok && !output.contains("decode error"))
}

/// What we refuse although OVS takes it: none of it can be meant.
fn refused_on_purpose(flow: &str) -> bool {
    // What stands behind the number is not looked at by OVS.
    let load_of = flow.split_once("load:").and_then(|(_, rest)| rest.split_once("->")).map(|(value, _)| value);
    let junk = load_of.is_some_and(|value| !value.trim_start_matches("0x").bytes().all(|b| b.is_ascii_digit()));
    let masked_mac = flow.contains("mod_dl_src") && flow.contains('/');
    // 09 is read as 0, then as 9.
    let octal = flow.contains("09");
    // Refused by the switch at the other end, if not by its parser.
    let table = flow.contains("goto_table:0") || flow.contains("goto_table:255");
    junk || masked_mac || octal || table
}

#[test]
fn ovs_takes_and_refuses_the_same_values() {
    let mut flows = Vec::new();
    for value in VALUES {
        flows.extend(KEYS.iter().map(|key| format!("{key}={value},actions=drop")));
        flows.extend(ARGUMENTS.iter().map(|action| format!("ip,actions={action}:{value}")));
        for target in TARGETS {
            flows.push(format!("tcp,actions=set_field:{value}->{target}"));
            flows.push(format!("tcp,actions=load:{value}->{target}"));
        }
    }
    // All of them take half a minute: one in 13 is a sample that has every key and nearly every value.
    for flow in flows.iter().step_by(13).filter(|flow| !refused_on_purpose(flow)) {
        let Some(theirs) = ovs_takes(flow) else {
            return;
        };
        let ours = parse_flow(flow, Names::NONE);
        assert_eq!(theirs, ours.is_ok(), "{flow}: {:?}", ours.err());
    }
}
