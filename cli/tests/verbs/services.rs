//! Services and traces by Kubernetes names, against a switch whose flows are those that a node's controller makes.

use super::{PortNo, Switch, added};

/// A Service with two endpoints, one whose clients keep theirs, one without any; and the stages that they stand in.
const FLOWS: &str = "\
priority=30900,owner=builtin:classify actions=goto_table:10
table=10,priority=200,owner=builtin:classify,ip actions=goto_table:15
table=15,priority=200,owner=builtin:conntrack,ip actions=ct(table=18,zone=65000,nat)
table=18,priority=200,owner=svc:shop/web,tcp,nw_dst=10.96.0.9,tp_dst=80 actions=group:7
table=18,priority=200,owner=svc:shop/kept,tcp,nw_dst=10.96.0.8,tp_dst=80 actions=load:0x8->NXM_NX_REG7[],load:0->NXM_NX_REG3[],resubmit(,19),resubmit(,21)
table=20,priority=200,owner=svc:shop/kept,ip,reg7=0x8 actions=group:8
table=21,priority=200,owner=svc:shop/kept,ip,reg3=0x2a,reg7=0x8 actions=ct(commit,table=30,zone=65000,nat(dst=10.244.1.7:8080))
table=18,priority=200,owner=svc:shop/none,tcp,nw_dst=10.96.0.7,tp_dst=80 actions=drop
table=18,priority=100,owner=builtin:service,ip,nw_dst=10.96.0.0/16 actions=drop
table=18,priority=0,owner=builtin:service actions=goto_table:30
table=30,priority=200,owner=pod:shop/web-1,ip,nw_dst=10.244.1.5 actions=output:2
table=30,priority=200,owner=pod:shop/web-2,ip,nw_dst=10.244.1.6 actions=output:2
";

const GROUPS: &str = "\
group_id=7,owner=svc:shop/web,type=select,bucket=bucket_id:1,actions=ct(commit,table=30,zone=65000,nat(dst=10.244.1.5:8080)),bucket=bucket_id:2,actions=ct(commit,table=30,zone=65000,nat(dst=10.244.1.6:8080))
group_id=8,owner=svc:shop/kept,type=select,bucket=bucket_id:42,actions=load:0x2a->NXM_NX_REG3[],learn(table=19,idle_timeout=10800,priority=200,NXM_NX_REG7[],load:NXM_NX_REG3[]->NXM_NX_REG3[]),resubmit(,21)
";

fn node() -> Switch {
    let mut switch = Switch::start();
    switch.ends.push(added(&switch.datapath, "host", PortNo::LOCAL));
    switch.write("web.groups", GROUPS);
    switch.write("web.flows", FLOWS);
    switch.out(&["groups", "add", "--file", "web.groups"]);
    switch.out(&["flows", "add", "--file", "web.flows"]);
    switch.out(&["tables", "set", "18", "--name", "service"]);
    switch
}

/// The words of the line that begins with `first`.
#[track_caller]
fn words<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.starts_with(first));
    line.unwrap_or_else(|| panic!("no line begins with {first}:\n{text}")).split_whitespace().collect()
}

#[test]
fn services_are_shown_with_their_endpoints_and_those_without_say_what_they_do() {
    let switch = node();
    let all = switch.out(&["svc"]);
    assert_eq!(words(&all, "shop/web"), ["shop/web", "10.96.0.9:80", "tcp", "ClusterIP", "any", "2", "-", "0"]);
    assert_eq!(
        words(&all, "shop/none"),
        ["shop/none", "10.96.0.7:80", "tcp", "ClusterIP", "any", "drop", "0", "-", "0"]
    );
    assert_eq!(
        words(&all, "shop/kept"),
        ["shop/kept", "10.96.0.8:80", "tcp", "ClusterIP", "any", "1", "10800", "s", "0"]
    );
    let one = switch.out(&["svc", "shop/web"]);
    assert_eq!(words(&one, "10.244.1.6:8080"), ["10.244.1.6:8080", "tcp", "-", "0", "0", "0", "7"]);
    assert!(!one.contains("shop/none"), "{one}");
    let said = switch.run(&["svc", "shop/nothing"]);
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[test]
fn a_services_flows_are_dumped_with_table_names_and_groups() {
    let switch = node();
    let said = switch.out(&["flows", "dump", "--svc", "shop/web"]);
    assert!(said.contains("18 service") && said.contains("BUCKET"), "{said}");
    assert!(said.contains("group:7") && !said.contains("shop/none"), "{said}");
    let said = switch.out(&["flows", "dump", "--builtin", "-o", "ofctl"]);
    assert_eq!(said.lines().count(), 5, "{said}");
}

#[test]
fn a_trace_to_a_service_says_which_endpoint_and_one_to_nobody_ends_with_3() {
    let switch = node();
    let said = switch.run(&["trace", "10.244.1.9", "svc:shop/web:80"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.starts_with("NOT DELIVERED  10.244.1.9 -> port p2"), "{said:?}");
    let stage = said.out.lines().find(|line| line.contains("svc:shop/web")).unwrap();
    assert!(stage.contains("service") && stage.contains("-> 10.244.1.") && stage.ends_with("dnat"), "{stage}");
    let said = switch.run(&["trace", "10.244.1.9", "10.96.0.7:80"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.out.starts_with("DROPPED by svc:shop/none (rule_drop)"), "{said:?}");
    let said = switch.run(&["trace", "10.244.1.9", "svc:shop/web:81"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("it has: 80 tcp"), "{said:?}");
}
