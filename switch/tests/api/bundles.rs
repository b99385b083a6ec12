//! Bundles, dumps, deletions.

use crate::{Switch, eventually, syn, written};
use sluice_proto::v1::{
    ApplyBundleRequest, BundleHeader, DeleteFlowsRequest, DumpFlowsRequest, FlowFilter, FlowLineStyle, FlowLines,
    FlowMod,
};
use tonic::Code;

#[tokio::test]
async fn one_bad_flow_of_many_changes_nothing_and_is_named() {
    let switch = Switch::start();
    switch.add(&["priority=1 actions=output:1"]).await.unwrap();
    let before = switch.texts().await;
    let mut flows: Vec<_> = (0..1500).map(|n| written(&format!("priority={},ip actions=output:2", n + 10))).collect();
    flows[1234] = FlowMod { owner: "file:acl.flows:77".into(), ..written("priority=5,nw_dts=10.0.0.1 actions=drop") };
    let error = switch.bundle(BundleHeader::default(), flows).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let message = error.message();
    assert!(message.starts_with("acl.flows:77: column 12: `nw_dts`: "), "{message}");
    assert!(message.contains("did you mean `nw_dst`?"), "{message}");
    assert_eq!(switch.texts().await, before);
}

#[tokio::test]
async fn a_flow_that_the_tables_refuse_undoes_those_before_it() {
    let switch = Switch::start();
    let error = switch
        .add(&["priority=7,ip actions=output:1", "add check_overlap,priority=7,tcp actions=output:2"])
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("flow 2 of 2: the flow overlaps"), "{}", error.message());
    assert_eq!(switch.texts().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_bundle_that_ends_without_commit_changes_nothing() {
    let switch = Switch::start();
    let parts = [
        ApplyBundleRequest { header: Some(BundleHeader::default()), ..Default::default() },
        ApplyBundleRequest { mods: vec![written("actions=drop")], ..Default::default() },
    ];
    let error = switch.flows().await.apply_bundle(tokio_stream::iter(parts)).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert_eq!(switch.texts().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_bundle_without_a_header_is_refused() {
    let switch = Switch::start();
    let parts = [ApplyBundleRequest { mods: vec![written("actions=drop")], commit: true, ..Default::default() }];
    let error = switch.flows().await.apply_bundle(tokio_stream::iter(parts)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::InvalidArgument, "a bundle's first message must hold its header")
    );
}

#[tokio::test]
async fn a_hundred_thousand_flows_go_in_as_one_bundle_and_come_out_as_a_sorted_stream() {
    let switch = Switch::start();
    let flow =
        |n: u32| format!("priority={},ip,nw_dst=10.{}.{}.{} actions=output:2", n % 7, n >> 16, n >> 8 & 255, n & 255);
    let flows = (0..100_000).map(|n| written(&flow(n))).collect();
    let reply = switch.bundle(BundleHeader::default(), flows).await.unwrap();
    assert_eq!((reply.added, reply.modified, reply.deleted), (100_000, 0, 0));
    let parts = switch.dump_parts(FlowFilter::default()).await;
    assert!(parts.len() >= 100 && parts.iter().all(|p| p.flows.len() <= 1000), "{} parts", parts.len());
    let flows: Vec<_> = parts.into_iter().flat_map(|p| p.flows).collect();
    assert_eq!(flows.len(), 100_000);
    let in_order = |f: &sluice_proto::v1::Flow| (f.table, std::cmp::Reverse(f.priority), f.r#match.clone());
    assert!(flows.is_sorted_by_key(in_order));
}

#[tokio::test]
async fn replacing_keeps_the_counters_of_flows_that_stay() {
    let switch = Switch::start();
    switch
        .add(&["priority=5,tcp actions=output:2", "priority=4,udp actions=drop", "priority=3 actions=drop"])
        .await
        .unwrap();
    assert!(switch.ends[0].inject(&syn()));
    eventually(|| switch.ends[1].take()).await;
    let header = BundleHeader { replace: Some(FlowFilter::default()), owner: "test:new".into(), ..Default::default() };
    let mods =
        ["priority=5,tcp actions=output:2", "priority=3 actions=output:3", "priority=2 actions=drop"].map(written);
    let dry = BundleHeader { dry_run: true, ..header.clone() };
    let would = switch.bundle(dry, mods.to_vec()).await.unwrap();
    assert_eq!((would.added, would.modified, would.deleted, would.unchanged), (1, 1, 1, 1));
    assert_eq!(switch.texts().await.len(), 3);
    let did = switch.bundle(header, mods.to_vec()).await.unwrap();
    assert_eq!((did.added, did.modified, did.deleted, did.unchanged), (1, 1, 1, 1));
    let flows = switch.dump().await;
    let told: Vec<_> = flows.iter().map(|f| (f.priority, f.actions.as_str(), f.packets, f.owner.as_str())).collect();
    assert_eq!(told, [(5, "output:2", 1, "test:new"), (3, "output:3", 0, "test:new"), (2, "drop", 0, "test:new")]);
}

#[tokio::test]
async fn a_new_generation_takes_the_place_of_the_old_one() {
    let switch = Switch::start();
    let header = |generation| BundleHeader { owner: "np:shop/web".into(), generation, ..Default::default() };
    switch.add(&["priority=9,arp actions=NORMAL"]).await.unwrap();
    switch.bundle(header(1), ["tcp actions=output:1", "udp actions=output:1"].map(written).to_vec()).await.unwrap();
    switch.bundle(header(2), vec![written("tcp actions=output:2")]).await.unwrap();
    let filter = FlowFilter { owner: "np:*".into(), generation_below: Some(2), ..Default::default() };
    let request = DeleteFlowsRequest { filter: Some(filter), ..Default::default() };
    let deleted = switch.flows().await.delete_flows(request).await.unwrap().into_inner().deleted;
    assert_eq!(deleted, 1);
    assert_eq!(switch.texts().await, ["0,32768,tcp -> output:2", "0,9,arp -> NORMAL"]);
}

#[tokio::test]
async fn strict_filters_select_by_priority_and_very_match() {
    let switch = Switch::start();
    switch
        .add(&["priority=9,ip actions=drop", "priority=8,ip actions=drop", "priority=9,tcp actions=drop"])
        .await
        .unwrap();
    let filter = FlowFilter { r#match: "priority=9,ip".into(), strict: true, ..Default::default() };
    assert_eq!(switch.dump_parts(filter.clone()).await.into_iter().flat_map(|p| p.flows).count(), 1);
    let loose = FlowFilter { r#match: "ip".into(), ..Default::default() };
    assert_eq!(switch.dump_parts(loose).await.into_iter().flat_map(|p| p.flows).count(), 3);
}

#[tokio::test]
async fn what_was_quietly_made_right_is_said() {
    let switch = Switch::start();
    let reply = switch.add(&["nw_dst=10.0.0.1 actions=drop"]).await.unwrap();
    assert_eq!(reply.warnings.len(), 1, "{:?}", reply.warnings);
}

#[tokio::test]
async fn drop_reasons_travel_by_name_and_unknown_ones_are_refused() {
    let switch = Switch::start();
    let with = |reason: &str| vec![FlowMod { drop_reason: reason.into(), ..written("ip actions=drop") }];
    let error = switch.bundle(BundleHeader::default(), with("bad_luck")).await.unwrap_err();
    assert!(error.message().starts_with("flow 1 of 1: `bad_luck` is no drop reason: policy_deny, "), "{error}");
    switch.bundle(BundleHeader::default(), with("policy_deny")).await.unwrap();
    assert_eq!(switch.dump().await[0].drop_reason, "policy_deny");
}

/// A bundle of lines, from line `first` of `acl.flows`.
fn lines(header: BundleHeader, first: u64, text: String, owner: &str) -> Vec<ApplyBundleRequest> {
    let lines = FlowLines { file: "acl.flows".into(), first, text, owner: owner.into() };
    vec![
        ApplyBundleRequest { header: Some(header), ..Default::default() },
        ApplyBundleRequest { lines: vec![lines], commit: true, ..Default::default() },
    ]
}

#[tokio::test]
async fn lines_of_a_file_are_changes_whose_owners_and_errors_say_where_they_stand() {
    let switch = Switch::start();
    let mut flows = switch.flows().await;
    let text = "# none\n\npriority=1 actions=drop # one\r\n priority=2,ip actions=output:2\ndelete priority=9\n";
    let refused = flows.apply_bundle(tokio_stream::iter(lines(BundleHeader::default(), 10, text.into(), "")));
    let error = refused.await.unwrap_err();
    assert!(error.message().starts_with("acl.flows:14: column 8: `priority`"), "{}", error.message());
    assert!(switch.dump().await.is_empty());

    let text = text.replace("delete priority=9", "delete ipv6");
    let made = flows.apply_bundle(tokio_stream::iter(lines(BundleHeader::default(), 10, text.clone(), ""))).await;
    assert_eq!(made.unwrap().into_inner().added, 2);
    let owners = |flows: Vec<sluice_proto::v1::Flow>| flows.into_iter().map(|f| f.owner).collect::<Vec<_>>();
    assert_eq!(owners(switch.dump().await), ["file:acl.flows:13", "file:acl.flows:12"]);
    flows.apply_bundle(tokio_stream::iter(lines(BundleHeader::default(), 10, text, "np:a/b"))).await.unwrap();
    assert_eq!(owners(switch.dump().await), ["np:a/b", "np:a/b"]);
}

#[tokio::test]
async fn many_lines_are_all_or_nothing_and_print_in_order() {
    let switch = Switch::start();
    let mut flows = switch.flows().await;
    let line = |n: u32| {
        let net = n / 250;
        format!("table={},priority={},ip,nw_src=10.0.{net}.{} actions=output:{}\n", n % 3, n % 7, n % 250, n % 5 + 1)
    };
    let mut text: String = (0..20_000).map(line).collect();
    let overlap = "check_overlap,table=1,priority=3,ip actions=drop\n";
    let all = lines(BundleHeader::default(), 1, format!("{text}{overlap}"), "");
    let error = flows.apply_bundle(tokio_stream::iter(all)).await.unwrap_err();
    assert!(error.message().starts_with("acl.flows:20001: the flow overlaps"), "{}", error.message());
    assert!(error.message().ends_with(&format!("\n  {}", overlap.trim())), "{}", error.message());
    assert!(switch.dump().await.is_empty());

    text.push_str("table=9 actions=controller\n");
    flows.apply_bundle(tokio_stream::iter(lines(BundleHeader::default(), 1, text, ""))).await.unwrap();
    let printed = |f: sluice_proto::v1::Flow| {
        let table = if f.table == 0 { String::new() } else { format!("table={}, ", f.table) };
        match f.r#match.as_str() {
            "" => format!(" {table}actions={}\n", f.actions),
            text => format!(" {table}priority={},{text} actions={}\n", f.priority, f.actions),
        }
    };
    let expected: Vec<_> = switch.dump().await.into_iter().map(printed).collect();
    let request = DumpFlowsRequest { lines: FlowLineStyle::NoStats.into(), ..Default::default() };
    let mut parts = flows.dump_flows(request.clone()).await.unwrap().into_inner();
    let mut lines = String::new();
    while let Some(part) = parts.message().await.unwrap() {
        assert!(part.flows.is_empty());
        lines.push_str(&part.lines);
    }
    assert_eq!(expected.len(), 20_001);
    assert!(lines == expected.concat(), "the same flows in the same order");

    let hit = DumpFlowsRequest { nonzero: true, ..request };
    let mut parts = flows.dump_flows(hit).await.unwrap().into_inner();
    while let Some(part) = parts.message().await.unwrap() {
        assert_eq!(part.lines, "");
    }
}
