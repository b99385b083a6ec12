//! Whole accounts, of the flows of a file.

use super::*;
use crate::action::GroupId;
use crate::bridge::{Bridge, BridgeId, BridgePort};
use crate::group::{Bucket, Group, GroupKind, Selection};
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::Millis;
use crate::table::Tables;
use crate::text::{parse_actions, parse_flow_file, parse_packet};
use crate::translate::NoMacs;

/// A bridge `br0` with ports 1 to 3 (datapath numbers are port numbers; port 3 is down) and the flows of this file.
fn model(flows: &str, groups: Vec<Group>) -> Model {
    let id = BridgeId(0);
    let mut tables = Tables::default();
    for change in parse_flow_file("t.flows", flows, &Names::new()).unwrap().value {
        tables.apply(&change, Millis(0)).unwrap();
    }
    let mut model = Model::default();
    let mut bridge = Bridge { tables, ..Bridge::new(id, "br0") };
    for no in 1..=3 {
        let (no, dp) = (PortNo(no), DpPort(no.into()));
        let (name, up) = (format!("p{no}"), no.0 != 3);
        let port = BridgePort { up, ..BridgePort::new(no, name, dp) };
        bridge.ports.insert(no, Arc::new(port));
        model.ports.insert(dp, (id, no));
    }
    bridge.groups = groups.into_iter().map(|group| (group.id, Arc::new(group))).collect();
    model.bridges.insert(id, Arc::new(bridge));
    model
}

/// A group with buckets that watch these ports.
fn group(id: u32, kind: GroupKind, buckets: &[(u16, Option<u16>, &str)]) -> Group {
    let buckets = buckets.iter().zip(0..).map(|((weight, watch, actions), id)| Bucket {
        id,
        weight: *weight,
        watch_port: watch.map(PortNo),
        watch_group: None,
        actions: parse_actions(actions, &Names::new()).unwrap().into(),
        stats: Arc::default(),
    });
    Group {
        id: GroupId(id),
        kind,
        selection: Selection::Default,
        buckets: buckets.collect(),
        owner: Owner::user(),
        created: Millis(0),
        stats: Arc::default(),
    }
}

fn trace_in(model: &Model, packet: &str, options: &Options) -> Report {
    let key = parse_packet(packet, &Names::new()).unwrap();
    Report::trace(model, &NoMacs, DpPort(key.get(slot::IN_PORT) as u32), &key, options)
}

fn trace(flows: &str, packet: &str) -> Report {
    trace_in(&model(flows, Vec::new()), packet, &Options::default())
}

/// The lines between the line under `bridge("br0")` and the next empty one, of the first pass.
fn steps(report: &Report) -> Vec<&str> {
    let lines = report.walk.lines().skip_while(|line| !line.starts_with("---")).skip(1);
    lines.take_while(|line| !line.is_empty()).collect()
}

#[test]
fn the_walk_ends_with_megaflow_verdict_and_datapath_actions() {
    let flows = "ip,nw_dst=10.0.0.0/8 actions=mod_dl_dst:02:00:00:00:00:02,dec_ttl,output:2";
    let report = trace(flows, "in_port=1,tcp,dl_dst=02:00:00:00:00:02,nw_dst=10.1.2.3,nw_ttl=64,tp_dst=80");
    let (lines, want) = (report.walk.lines().rev().take(4).collect::<Vec<_>>(), report.datapath_actions.as_str());
    // The destination is what it was, so setting it does nothing here.
    assert_eq!(want, "set(ipv4(ttl=63)),2");
    assert_eq!(lines[0], format!("Datapath actions: {want}"));
    assert_eq!(lines[1], "Verdict: forward");
    assert!(lines[2].starts_with("Megaflow: recirc_id=0,eth,ip,in_port=1,"), "{}", report.walk);
    assert!(lines[3].starts_with("Final flow: tcp,in_port=1,") && lines[3].contains("nw_ttl=63"), "{}", report.walk);
    assert!(report.walk.starts_with("Flow: tcp,in_port=1,"), "{}", report.walk);
    assert!(report.walk.contains("priority 32768  [file:t.flows:1]"), "{}", report.walk);
    assert_eq!(report.exits.len(), 1);
}

#[test]
fn a_drop_says_its_reason_and_whose_rule_it_was() {
    for (flows, packet, reason, whose) in [
        ("ip actions=drop", "in_port=1,ip", DropReason::RuleDrop, " by file:t.flows:1"),
        ("owner=np:a/b,drop_reason=policy_deny,actions=drop", "in_port=1,ip", DropReason::PolicyDeny, " by np:a/b"),
        ("arp actions=output:2", "in_port=1,ip", DropReason::NoRule, ""),
        ("ip actions=resubmit(,1)", "in_port=1,ip", DropReason::NoRule, ""),
        ("actions=output:2", "in_port=7,ip", DropReason::NoPort, ""),
        ("actions=output:3", "in_port=1,ip", DropReason::PortDown, ""),
    ] {
        let report = trace(flows, packet);
        assert_eq!(report.verdict, Verdict::Drop(reason));
        assert_eq!(report.walk.lines().last(), Some("Datapath actions: drop"), "{}", report.walk);
        assert!(report.walk.contains(&format!("\nVerdict: drop ({reason}){whose}: ")), "{}", report.walk);
    }
}

#[test]
fn ports_are_named_when_that_is_asked_for() {
    let options = Options { names: true, ..Options::default() };
    let report = trace_in(&model("in_port=1 actions=output:2", Vec::new()), "in_port=1", &options);
    assert_eq!(report.datapath_actions, "p2");
    assert!(report.walk.contains(" 0. in_port=p1, priority 32768"), "{}", report.walk);
}

#[test]
fn tables_are_nested_as_in_ovs() {
    let flows = "in_port=1 actions=load:5->NXM_NX_REG0[],resubmit(,1),load:6->NXM_NX_REG0[],resubmit(,2),output:2\n\
                 table=1 actions=output:2,resubmit(,3)\n\
                 table=2 actions=output:2\n";
    let report = trace(flows, "in_port=1,ip");
    assert_eq!(
        steps(&report),
        [
            " 0. in_port=1, priority 32768  [file:t.flows:1]",
            "    load:0x5->NXM_NX_REG0[]",
            "     -> reg0=0x5 (was 0)",
            "    resubmit(,1)",
            "     1. priority 32768  [file:t.flows:2]",
            "            output:2",
            "            resubmit(,3)",
            "         3. No match.",
            "            drop",
            "    load:0x6->NXM_NX_REG0[]",
            "     -> reg0=0x6 (was 0x5)",
            "    resubmit(,2)",
            "     2. priority 32768  [file:t.flows:3]",
            "            output:2",
            "    output:2",
        ],
        "{}",
        report.walk
    );
}

#[test]
fn a_table_that_goto_leads_to_stands_in_the_one_before_it() {
    let flows = "table=0 actions=goto_table:1\ntable=1,cookie=0x77 actions=output:2\n";
    let want = [
        " 0. priority 32768  [file:t.flows:1]",
        "    goto_table:1",
        " 1. priority 32768, cookie 0x77  [file:t.flows:2]",
        "    output:2",
    ];
    assert_eq!(steps(&trace(flows, "in_port=1,ip")), want);
}

#[test]
fn groups_say_which_bucket_is_used_and_why_not_the_others() {
    let buckets = [(0, None, "output:2"), (1, Some(3), "output:3"), (1, Some(2), "output:2"), (1, None, "output:2")];
    let groups = vec![
        group(1, GroupKind::FastFailover, &[buckets[1], buckets[2], buckets[3]]),
        group(2, GroupKind::All, &[buckets[0], buckets[1]]),
        group(3, GroupKind::Select, &buckets[..3]),
    ];
    let flows = "in_port=1 actions=group:1,output:2\nin_port=2 actions=group:2\nin_port=3 actions=group:3\n";
    let model = model(flows, groups);
    let options = Options::default();
    let ff = [
        " 0. in_port=1, priority 32768  [file:t.flows:1]",
        "    group:1",
        "     -> bucket 0: not live due to port 3",
        "     -> bucket 2: live, not chosen",
        "     -> using bucket 1",
        "    bucket 1",
        "            output:2",
        "    output:2",
    ];
    assert_eq!(steps(&trace_in(&model, "in_port=1,ip", &options)), ff);
    let report = trace_in(&model, "in_port=2,ip", &options);
    let lines = steps(&report);
    assert_eq!(&lines[1..4], ["    group:2", "    bucket 0", "            output:2"]);
    assert_eq!(lines[5..7], ["    bucket 1", "            output:3"]);
    let report = trace_in(&model, "in_port=3,ip", &options);
    let select = ["bucket 0: weight 0, never chosen", "bucket 1: not live due to port 3", "using bucket 2"]
        .map(|l| format!("     -> {l}"));
    assert_eq!(steps(&report)[2..5], select);
}

#[test]
fn what_is_learned_and_what_a_conjunction_is_made_of_is_told() {
    let flows = "in_port=1,tcp actions=learn(table=7,hard_timeout=5,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),output:2\n\
                 in_port=2,conj_id=7,ip actions=output:1\n\
                 in_port=2,ip,nw_src=10.0.0.1 actions=conjunction(7,1/2)\n\
                 in_port=2,ip,nw_dst=10.0.0.2 actions=conjunction(7,2/2)\n";
    let report = trace(flows, "in_port=1,tcp,dl_src=02:00:00:00:00:01");
    let learned = "table=7, hard_timeout=5, dl_dst=02:00:00:00:00:01 actions=output:1";
    assert_eq!(report.learned, [learned]);
    assert!(report.walk.contains(&format!("\n     -> learns: {learned}\n")), "{}", report.walk);
    let report = trace(flows, "in_port=2,ip,nw_src=10.0.0.1,nw_dst=10.0.0.2");
    let clauses = [
        "     -> conjunction 7, clause 1/2: ip,in_port=2,nw_src=10.0.0.1, priority 32768  [file:t.flows:3]",
        "     -> conjunction 7, clause 2/2: ip,in_port=2,nw_dst=10.0.0.2, priority 32768  [file:t.flows:4]",
    ];
    assert_eq!(steps(&report)[1..3], clauses, "{}", report.walk);
}

#[test]
fn what_was_looked_at_but_not_matched_on_is_told_when_details_are_asked_for() {
    let flows = "priority=9,tcp,tp_dst=22 actions=drop\npriority=1,ip actions=resubmit(,1)\ntable=1,nw_src=10.0.0.0/8,ip actions=output:2\n";
    let (model, packet) = (model(flows, Vec::new()), "in_port=1,tcp,nw_src=10.1.1.1,tp_dst=80");
    let verbose = trace_in(&model, packet, &Options { verbose: true, ..Options::default() });
    let lines: Vec<_> = verbose.walk.lines().skip_while(|line| !line.starts_with("Looked at")).collect();
    assert_eq!(lines[0], "Looked at but not matched on:", "{}", verbose.walk);
    assert!(lines[1].starts_with(" 0. ") && lines[1].contains("tp_dst="), "{}", verbose.walk);
    // Table 1 looks at no more than its rule does.
    assert!(lines[2].starts_with("Final flow: unchanged"), "{}", verbose.walk);
    let brief = trace_in(&model, packet, &Options::default());
    assert!(!brief.walk.contains("Looked at"), "{}", brief.walk);
}

const CT: &str = "table=0,tcp actions=ct(commit,zone=9,table=1,nat(src=1.1.1.1-1.1.1.9:80-90),exec(set_field:5->ct_mark))\n\
                  table=1,ct_state=+trk+new,tcp actions=output:2\n\
                  table=1,ct_state=+trk+est,ct_mark=5,tcp actions=ct(table=2)\n\
                  table=2,ct_state=+trk+new,ct_zone=0,tcp actions=drop\n";

#[test]
fn a_packet_is_followed_through_connection_tracking() {
    let report = trace(CT, "in_port=1,tcp,nw_src=9.9.9.9");
    assert_eq!((report.verdict, report.passes.len(), report.exits.len()), (Verdict::Forward, 2, 1));
    let exit = &report.exits[0];
    assert_eq!([exit.packet.get(slot::IP_SRC), exit.packet.get(slot::TP_SRC)], [0x0101_0101, 80]);
    assert_eq!(
        report.passes[0].datapath_actions,
        "ct(commit,zone=9,mark=0x5/0xffffffff,nat(src=1.1.1.1-1.1.1.9:80-90)),recirc(0x1)"
    );
    let rule = "=".repeat(79);
    let banner = format!(
        "\n\n{rule}\nrecirc(0x1) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)\n\
         Replacing src/dst IP/ports to simulate NAT:\n \
         Initial flow: nw_src=9.9.9.9,tp_src=0,nw_dst=0.0.0.0,tp_dst=0\n \
         Modified flow: nw_src=1.1.1.1,tp_src=80,nw_dst=0.0.0.0,tp_dst=0\n{rule}\n\nFlow: "
    );
    assert!(report.walk.contains(&banner), "{}", report.walk);
    let thaw = "bridge(\"br0\")\n-------------\n    thaw\n        Resuming from table 1\n 1. ";
    assert!(report.walk.contains(thaw), "{}", report.walk);
    assert_eq!(report.walk.lines().last(), Some("Datapath actions: 2"));
    assert_eq!(report.walk.matches("Verdict: ").count(), 1);
}

/// Translates by a model, with a tracker that knows connections of 10.0.0.0/8 as established and translated.
struct Tracking<'a>(ByModel<'a, NoMacs>);

impl Translator for Tracking<'_> {
    fn first(&self, ingress: DpPort, key: &FlowKey, log: &mut TraceLog) -> Translation {
        self.0.first(ingress, key, log)
    }

    fn next(&self, resume: &Resume, key: &FlowKey, log: &mut TraceLog) -> Option<Translation> {
        self.0.next(resume, key, log)
    }

    fn tracked(&self, key: &FlowKey, ct: &DpCt) -> Option<CtKnown> {
        if key.get(slot::IP_SRC) >> 24 != 10 {
            return Some(CtKnown::New);
        }
        let mut key = *key;
        let mark = ct.mark.map_or(0, |(value, _)| value.into());
        for (slot, value) in [
            (slot::CT_MARK, mark),
            (slot::CT_STATE, 0x62),
            (slot::CT_ZONE, ct.zone.into()),
            (slot::IP_SRC, 0x0101_0105),
        ] {
            key.set(slot, value);
        }
        Some(CtKnown::Connection { key: Box::new(key), told: "tcp 10.0.0.1:1 > 10.0.0.2:2".to_owned() })
    }
}

#[test]
fn a_tracker_is_asked_where_there_is_one_and_no_script() {
    let model = model(CT, Vec::new());
    let trace = |packet: &str, options: &Options| {
        let key = parse_packet(packet, &Names::new()).unwrap();
        Report::make(&model, &Tracking(ByModel { model: &model, macs: &NoMacs }), DpPort(1), &key, options)
    };
    let known = trace("in_port=1,tcp,nw_src=10.0.0.1", &Options::default());
    let cause = "recirc(0x1) - resume conntrack with ct_state=est|trk|snat, as the tracker says\n\
                 Connection: tcp 10.0.0.1:1 > 10.0.0.2:2\n\
                 Replacing src/dst IP/ports as the connection has it:\n \
                 Initial flow: nw_src=10.0.0.1,tp_src=0,nw_dst=0.0.0.0,tp_dst=0\n \
                 Modified flow: nw_src=1.1.1.5,tp_src=0,nw_dst=0.0.0.0,tp_dst=0\n";
    assert_eq!(known.passes[1].cause, cause);
    assert!(known.passes[1].flow.contains("ct_mark=0x5"), "{}", known.passes[1].flow);
    let new = trace("in_port=1,tcp,nw_src=9.9.9.9", &Options::default());
    let cause = "recirc(0x1) - resume conntrack with ct_state=new|trk: the tracker knows no such connection\n";
    assert!(new.passes[1].cause.starts_with(cause), "{}", new.passes[1].cause);
    let script = Options { ct_next: vec!["trk,est".parse().unwrap()], ..Options::default() };
    let scripted = trace("in_port=1,tcp,nw_src=10.0.0.1", &script);
    assert!(scripted.passes[1].cause.contains("ct_state=est|trk\n"), "{}", scripted.passes[1].cause);
    assert!(scripted.passes[2].cause.contains("default ct_state=trk|new"), "{}", scripted.passes[2].cause);
}

#[test]
fn the_state_comes_from_a_script_and_then_is_new() {
    let options = Options { ct_next: vec!["trk,est".parse().unwrap()], ..Options::default() };
    let report = trace_in(&model(CT, Vec::new()), "in_port=1,tcp,nw_src=9.9.9.9", &options);
    let causes: Vec<_> =
        report.passes.iter().map(|pass| pass.cause.lines().next().unwrap_or_default().to_owned()).collect();
    assert_eq!(
        causes,
        [
            "",
            "recirc(0x1) - resume conntrack with ct_state=est|trk",
            "recirc(0x2) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)"
        ]
    );
    assert_eq!(report.verdict, Verdict::Drop(DropReason::RuleDrop));
    assert_eq!(report.rule.map(|rule| rule.spec.table.get()), Some(2));
}

#[test]
fn a_packet_that_is_tracked_forever_is_left() {
    let report = trace("table=0,ip actions=ct(table=0)\n", "in_port=1,tcp");
    assert_eq!(report.passes.len(), MAX_PASSES);
}
