//! Groups, meters and tables: changed in bundles with the flows that name them, listed, refused.

use crate::{Switch, eventually, syn, written};
use sluice_proto::v1::bridge_mod::Change;
use sluice_proto::v1::event::Kind;
use sluice_proto::v1::event_service_client::EventServiceClient;
use sluice_proto::v1::group_service_client::GroupServiceClient;
use sluice_proto::v1::meter_service_client::MeterServiceClient;
use sluice_proto::v1::packet_service_client::PacketServiceClient;
use sluice_proto::v1::table_service_client::TableServiceClient;
use sluice_proto::v1::{
    ApplyBundleReply, ApplyBundleRequest, BridgeMod, BundleHeader, FlowFilter, Group, GroupMod, ListGroupsRequest,
    ListMetersRequest, ListTablesRequest, MeterMod, PacketOutRequest, SetTableRequest, TableMiss, TableMod,
    WatchEventsRequest, WatchPacketInsRequest, group_mod, meter_mod,
};
use tonic::{Code, Status};

fn flow(text: &str) -> Change {
    Change::Flow(written(text))
}

fn group(text: &str) -> Change {
    Change::Group(GroupMod { group: text.to_owned(), ..Default::default() })
}

fn meter(text: &str) -> Change {
    Change::Meter(MeterMod { meter: text.to_owned(), ..Default::default() })
}

async fn change(
    switch: &Switch,
    header: BundleHeader,
    changes: impl IntoIterator<Item = Change>,
) -> Result<ApplyBundleReply, Status> {
    let changes = changes.into_iter().map(|change| BridgeMod { change: Some(change) }).collect();
    let part = ApplyBundleRequest { header: Some(header), changes, commit: true, ..Default::default() };
    switch.flows().await.apply_bundle(tokio_stream::iter([part])).await.map(tonic::Response::into_inner)
}

async fn groups(switch: &Switch) -> Vec<Group> {
    let mut client = GroupServiceClient::new(switch.channel().await);
    let mut stream = client.list_groups(ListGroupsRequest::default()).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        all.extend(part.groups);
    }
    all
}

#[tokio::test]
async fn a_bundle_makes_groups_meters_tables_and_the_flows_that_name_them_in_order() {
    let switch = Switch::start();
    let header = || BundleHeader { owner: "svc:shop/web".into(), ..Default::default() };
    let all = [
        meter("meter=1,pktps,bands=type=drop,rate=1000000"),
        group("group_id=1,type=all,bucket=output:p2,bucket=output:p3"),
        Change::Table(TableMod { table: Some(3), name: Some("Output".into()), ..Default::default() }),
        flow("tcp actions=meter:1,resubmit(,Output)"),
        flow("table=3 actions=group:1"),
    ];
    let mut backwards = all.clone();
    backwards.reverse();
    let error = change(&switch, header(), backwards).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().starts_with("change 1 of 5, a flow: there is no group 1"), "{}", error.message());
    assert!(switch.dump().await.is_empty() && groups(&switch).await.is_empty());

    let reply = change(&switch, header(), all).await.unwrap();
    assert_eq!((reply.added, reply.others_added, reply.others_modified), (2, 2, 1));
    assert!(switch.ends[0].inject(&syn()));
    eventually(|| switch.ends[1].take()).await;
    eventually(|| switch.ends[2].take()).await;

    let listed = groups(&switch).await;
    let [one] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((one.id, one.r#type.as_str(), one.owner.as_str(), one.ref_count), (1, "all", "svc:shop/web", 1));
    assert_eq!(
        one.group,
        "group_id=1,type=all,bucket=bucket_id:0,actions=output:2,bucket=bucket_id:1,actions=output:3"
    );
    assert_eq!((one.packets, one.bytes), (1, syn().len() as u64));
    assert_eq!(one.buckets.iter().map(|b| (b.id, b.packets)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    let mut client = MeterServiceClient::new(switch.channel().await);
    let mut stream = client.list_meters(ListMetersRequest::default()).await.unwrap().into_inner();
    let meter = stream.message().await.unwrap().unwrap().meters.remove(0);
    assert_eq!((meter.id, meter.owner.as_str(), meter.flows, meter.packets), (1, "svc:shop/web", 1, 1));
    assert_eq!((meter.bands[0].rate, meter.bands[0].packets), (1_000_000, 0));
}

#[tokio::test]
async fn a_deleted_group_takes_its_flows_with_it_and_says_why() {
    let switch = Switch::start();
    let header = BundleHeader::default;
    let mut client = EventServiceClient::new(switch.channel().await);
    let mut events = client.watch_events(WatchEventsRequest::default()).await.unwrap().into_inner();
    let made = [group("group_id=5,type=all,bucket=output:1"), flow("send_flow_rem,priority=7,ip actions=group:5")];
    change(&switch, header(), made).await.unwrap();
    let delete =
        GroupMod { command: group_mod::Command::Delete.into(), group: "group_id=5".into(), ..Default::default() };
    let reply = change(&switch, header(), [Change::Group(delete)]).await.unwrap();
    assert_eq!((reply.deleted, reply.others_deleted), (1, 1));
    for _ in 0..10 {
        if let Some(Kind::FlowRemoved(removed)) = events.message().await.unwrap().unwrap().kind {
            assert_eq!((removed.reason.as_str(), removed.flow.unwrap().priority), ("group_delete", 7));
            return;
        }
    }
    panic!("no event told of the flow");
}

#[tokio::test]
async fn commands_change_groups_and_meters_and_faults_are_named() {
    let switch = Switch::start();
    let header = BundleHeader::default;
    let with = |command: group_mod::Command, text: &str| {
        Change::Group(GroupMod { command: command.into(), group: text.to_owned(), owner: "file:web.groups:3".into() })
    };
    let insert = with(group_mod::Command::InsertBuckets, "group_id=1,command_bucket_id=first,bucket=output:3");
    let error = change(&switch, header(), [insert.clone()]).await.unwrap_err();
    assert!(error.message().starts_with("web.groups:3: there is no group 1 to change"), "{}", error.message());
    let fault = change(&switch, header(), [group("group_id=1,type=sel,bucket=output:1")]).await.unwrap_err();
    assert!(fault.message().starts_with("change 1 of 1, a group: column "), "{}", fault.message());
    change(&switch, header(), [group("group_id=1,type=all,bucket=output:1"), insert]).await.unwrap();
    assert_eq!(groups(&switch).await[0].buckets.iter().map(|b| b.id).collect::<Vec<_>>(), [1, 0]);
    let modify = |text: &str| {
        Change::Meter(MeterMod {
            command: meter_mod::Command::Modify.into(),
            meter: text.to_owned(),
            ..Default::default()
        })
    };
    let error = change(&switch, header(), [modify("meter=9,kbps,bands=type=drop,rate=1")]).await.unwrap_err();
    assert!(error.message().contains("there is no meter 9 to modify"), "{}", error.message());
    let empty = ApplyBundleRequest {
        header: Some(header()),
        changes: vec![BridgeMod::default()],
        commit: true,
        ..Default::default()
    };
    let error = switch.flows().await.apply_bundle(tokio_stream::iter([empty])).await.unwrap_err();
    assert_eq!(error.message(), "the bundle holds a change of an unknown kind");
}

#[tokio::test]
async fn a_bundle_that_replaces_flows_may_bring_their_groups() {
    let switch = Switch::start();
    switch.add(&["priority=1 actions=drop", "priority=2 actions=output:1"]).await.unwrap();
    let header = BundleHeader { replace: Some(FlowFilter::default()), ..Default::default() };
    let made = [
        flow("priority=2 actions=output:1"),
        group("group_id=5,type=all,bucket=output:1"),
        flow("priority=3 actions=group:5"),
    ];
    let reply = change(&switch, header, made).await.unwrap();
    assert_eq!((reply.added, reply.deleted, reply.unchanged, reply.others_added), (1, 1, 1, 1));
    assert_eq!(switch.texts().await, ["0,3, -> group:5", "0,2, -> output:1"]);
}

#[tokio::test]
async fn tables_are_set_and_listed_and_keep_to_their_limit() {
    let switch = Switch::start();
    let mut client = TableServiceClient::new(switch.channel().await);
    let set = |change: TableMod| SetTableRequest { change: Some(change), ..Default::default() };
    let limit = TableMod {
        table: Some(4),
        name: Some("Few".into()),
        max_flows: Some(1),
        miss: TableMiss::Controller.into(),
        ..Default::default()
    };
    client.set_table(set(limit)).await.unwrap();
    switch.add(&["table=4,priority=1 actions=drop", "priority=1 actions=drop"]).await.unwrap();
    let error = switch.add(&["table=4,priority=2 actions=drop"]).await.unwrap_err();
    assert!(error.message().contains("table 4 is full: it may have 1 flows"), "{}", error.message());
    let tables = client.list_tables(ListTablesRequest::default()).await.unwrap().into_inner().tables;
    let told: Vec<_> = tables.iter().map(|t| (t.table, t.name.as_str(), t.flows, t.max_flows)).collect();
    assert_eq!(told, [(0, "", 1, 0), (4, "Few", 1, 1)]);
    assert_eq!((tables[0].miss(), tables[1].miss()), (TableMiss::Drop, TableMiss::Controller));
    let all = ListTablesRequest { all: true, ..Default::default() };
    assert_eq!(client.list_tables(all).await.unwrap().into_inner().tables.len(), 255);
    for bad in [TableMod { table: Some(255), ..Default::default() }, TableMod { miss: 99, ..Default::default() }] {
        assert_eq!(client.set_table(set(bad)).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_packet_out_to_a_group_that_is_not_there_is_refused() {
    let switch = Switch::start();
    let mut client = PacketServiceClient::new(switch.channel().await);
    let out = PacketOutRequest { frame: syn(), actions: "group:9".into(), ..Default::default() };
    assert_eq!(client.packet_out(out).await.unwrap_err().message(), "there is no group 9 to send to; add it first");
}

#[tokio::test]
async fn a_packet_in_carries_userdata_and_registers() {
    let switch = Switch::start();
    let actions = "load:0x5->NXM_NX_REG3[],controller(userdata=01.02.ff)";
    switch.add(&[&format!("tcp actions={actions}")]).await.unwrap();
    let mut client = PacketServiceClient::new(switch.channel().await);
    let mut stream = client.watch_packet_ins(WatchPacketInsRequest::default()).await.unwrap().into_inner();
    assert!(switch.ends[0].inject(&syn()));
    let packet = stream.message().await.unwrap().unwrap();
    assert_eq!((packet.userdata.as_slice(), packet.reason.as_str()), (&[1, 2, 0xff][..], "action"));
    let reg = packet.metadata.iter().find(|field| field.name == "reg3").map(|field| field.value.as_str());
    assert_eq!(reg, Some("0x5"), "{:?}", packet.metadata);
}

#[tokio::test]
async fn a_flow_says_when_it_does_not_count() {
    let switch = Switch::start();
    switch.add(&["no_packet_counts,tcp actions=drop"]).await.unwrap();
    let flow = switch.dump().await.remove(0);
    assert_eq!((flow.no_packet_counts, flow.no_byte_counts), (true, false));
}
