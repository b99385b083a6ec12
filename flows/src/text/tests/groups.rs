//! Groups and meters: what is read and what is refused.

use crate::action::{Action, GroupId, MeterId};
use crate::bridge::{Bridge, BridgeId};
use crate::field::Field;
use crate::flow_mod::FlowMod;
use crate::group::{BucketChoice, BucketPlace, GroupKind, GroupMod, Selection};
use crate::meter::{Meter, MeterBand, MeterMod, MeterUnit};
use crate::port::PortNo;
use crate::rule::{Millis, TableId};
use crate::text::*;

#[track_caller]
fn group(text: &str) -> crate::group::GroupSpec {
    parse_group(text, Names::NONE).unwrap_or_else(|error| panic!("{error:#}")).value
}

#[test]
fn buckets_say_their_actions_with_or_without_the_word() {
    let spec = group(
        "group_id=1,type=select,bucket=weight:10,actions=output:1,resubmit(,2),bucket=output:2,weight=7,\
         bucket=bucket_id:12,watch_port=3,watch_group:4,actions=1,2,bucket=actions=",
    );
    let told: Vec<_> = spec.buckets.iter().map(|b| (b.id, b.weight, b.actions.len())).collect();
    assert_eq!(told, [(None, 10, 2), (None, 7, 1), (Some(12), 1, 2), (None, 1, 0)]);
    assert_eq!((spec.buckets[2].watch_port, spec.buckets[2].watch_group), (Some(PortNo(3)), Some(GroupId(4))));
    assert_eq!(*spec.buckets[1].actions, [Action::Output(PortNo(2))]);
}

#[test]
fn selections_are_kept_in_the_order_of_fields() {
    let spec = group(
        "group_id=0xffffff00 type=select selection_method=hash,selection_method_param=7,\
         fields(tcp_dst,ip_src=255.255.0.0,eth_dst) bucket=drop",
    );
    assert_eq!((spec.id, spec.kind), (GroupId::MAX, GroupKind::Select));
    let fields = Box::new([(Field::EthDst, u128::MAX), (Field::IpSrc, 0xffff_0000), (Field::TcpDst, u128::MAX)]);
    assert_eq!(spec.selection, Selection::Hash { param: 7, fields });
    let dp_hash = group("group_id=1,type=select,selection_method=dp_hash,selection_method_param=0x100000002");
    assert_eq!(dp_hash.selection, Selection::DpHash { param: 0x1_0000_0002 });
    assert_eq!(group("group_id=1,type=all").selection, Selection::Default);
}

#[test]
fn what_ovs_refuses_of_groups_is_refused() {
    for (text, word) in [
        ("type=all,bucket=1", ""),
        ("group_id=1", ""),
        ("group_id=1,type=indirect", ""),
        ("group_id=1,type=indirect,bucket=1,bucket=2", "2"),
        ("group_id=1,type=sellect,bucket=1", "sellect"),
        ("group_id=0xffffff01,type=all", "0xffffff01"),
        ("group_id=all,type=all", "all"),
        ("group_id=1,type=ff,bucket=actions=1", "actions=1"),
        ("group_id=1,type=ff,bucket=watch_port:LOCAL,1", "LOCAL"),
        ("group_id=1,type=ff,bucket=watch_port:1,weight:2,1", "watch_port:1,weight:2,1"),
        ("group_id=1,type=all,bucket=watch_port:1,1", "watch_port:1,1"),
        ("group_id=1,type=all,bucket=weight:5,output:1", "weight:5,output:1"),
        ("group_id=1,type=all,bucket=", ""),
        ("group_id=1,type=select,bucket=weight:5", ""),
        ("group_id=1,type=all,bucket=bucket_id:1,1,bucket=bucket_id:1,2", "bucket_id:1,2"),
        ("group_id=1,type=all,bucket=bucket_id:0xffffff01,1", "0xffffff01"),
        ("group_id=1,type=all,bucket=1,goto_table:3", "goto_table:3"),
        ("group_id=1,type=all,command_bucket_id=first,bucket=1", "command_bucket_id"),
        ("group_id=1,type=all,selection_method=hash,bucket=1", "hash"),
        ("group_id=1,type=select,selection_method=hsah,bucket=1", "hsah"),
        ("group_id=1,type=select,selection_method=dp_hash,fields(ip_src),bucket=1", "fields"),
        ("group_id=1,type=select,fields(ip_src),bucket=1", "fields"),
        ("group_id=1,type=select,selection_method_param=3,bucket=1", "selection_method_param"),
        ("group_id=1,type=select,selection_method=hash,fields(ip_src,ip_src),bucket=1", "ip_src"),
        ("group_id=1,type=select,selection_method=hash,fields(eth_type=0xff),bucket=1", "0xff"),
        ("group_id=1,type=select,selection_method=hash,fields(reg0=0),bucket=1", "0"),
        ("group_id=1,type=all,buckets=1", "buckets"),
    ] {
        let error = parse_group(text, Names::NONE).unwrap_err();
        assert_eq!(error.word(), word, "{text}: {error}");
    }
}

#[test]
fn every_command_makes_its_change() {
    let read = |text, command| parse_group_mod(text, command, Names::NONE);
    assert_eq!(read("", GroupCommand::Delete).unwrap(), GroupMod::Delete(None));
    assert_eq!(read("group_id=all", GroupCommand::Delete).unwrap(), GroupMod::Delete(None));
    assert_eq!(read("group_id=7", GroupCommand::Delete).unwrap(), GroupMod::Delete(Some(GroupId(7))));
    let modify = read("group_id=7,type=all,bucket=1", GroupCommand::AddOrModify).unwrap();
    assert!(matches!(modify, GroupMod::Modify { may_create: true, .. }));
    match read("group_id=7,command_bucket_id=5,bucket=1,bucket=weight:3,2", GroupCommand::InsertBuckets).unwrap() {
        GroupMod::InsertBuckets { group: GroupId(7), place: BucketPlace::After(5), buckets } => {
            assert_eq!(buckets.iter().map(|b| b.weight).collect::<Vec<_>>(), [0, 3]);
        }
        other => panic!("{other:?}"),
    }
    let remove = |which| GroupMod::RemoveBuckets { group: GroupId(7), which };
    for (text, which) in [
        ("group_id=7", BucketChoice::All),
        ("group_id=7,command_bucket_id=all", BucketChoice::All),
        ("group_id=7,command_bucket_id=first", BucketChoice::First),
        ("group_id=7,command_bucket_id=0x10", BucketChoice::Id(16)),
    ] {
        assert_eq!(read(text, GroupCommand::RemoveBuckets).unwrap(), remove(which), "{text}");
    }
    for (text, command) in [
        ("group_id=7,bucket=1", GroupCommand::InsertBuckets),
        ("group_id=7,command_bucket_id=all,bucket=1", GroupCommand::InsertBuckets),
        ("group_id=7,type=all,command_bucket_id=last,bucket=1", GroupCommand::InsertBuckets),
        ("command_bucket_id=last", GroupCommand::RemoveBuckets),
        ("group_id=7,command_bucket_id=last,bucket=1", GroupCommand::RemoveBuckets),
        ("group_id=7,type=all", GroupCommand::Delete),
    ] {
        assert!(read(text, command).is_err(), "{text}");
    }
}

#[test]
fn lines_of_group_files_may_begin_with_a_command() {
    let text = "# groups\ngroup_id=20,type=all,bucket=1\n add group_id=21,type=all,bucket=1\n\
                add_or_mod group_id=22,type=all,bucket=1\nmod group_id=22,type=select,bucket=1\n\
                insert_bucket group_id=22,command_bucket_id=first,bucket=2\n\
                remove_bucket group_id=22,command_bucket_id=last\ndel group_id=21\ndelete\n";
    let read = parse_group_file("groups.txt", text, Names::NONE).unwrap();
    assert!(matches!(
        &read[..],
        [
            GroupMod::Add(_),
            GroupMod::Add(_),
            GroupMod::Modify { may_create: true, .. },
            GroupMod::Modify { may_create: false, .. },
            GroupMod::InsertBuckets { .. },
            GroupMod::RemoveBuckets { .. },
            GroupMod::Delete(Some(GroupId(21))),
            GroupMod::Delete(None),
        ]
    ));
    let GroupMod::Add(first) = &read[0] else { panic!("{:?}", read[0]) };
    assert_eq!(first.owner.text(), "file:groups.txt:2");
    let error = parse_group_file("groups.txt", "delete\ninsert_buckets group_id=1\n", Names::NONE).unwrap_err();
    assert_eq!((error.place(), error.word()), (Some(("groups.txt", 2)), "insert_buckets"));
}

#[test]
fn meters_have_a_unit_flags_and_bands() {
    let spec =
        parse_meter("meter=2 pktps burst stats bands=type=drop rate=100 burst_size=7 type=drop,rate=9,burst_size=1");
    let spec = spec.unwrap();
    assert_eq!((spec.id, spec.unit, spec.burst, spec.stats), (MeterId(2), MeterUnit::Pktps, true, true));
    assert_eq!(spec.bands, [MeterBand { rate: 100, burst_size: 7 }, MeterBand { rate: 9, burst_size: 1 }]);
    let spec = parse_meter("meter=controller,kbps,band=type=drop,rate=3").unwrap();
    assert_eq!((spec.id, spec.unit), (MeterId(0xffff_fffe), MeterUnit::Kbps));
    let read = |text| parse_meter_mod(text, MeterCommand::Delete).unwrap();
    assert_eq!(read("meter=3"), MeterMod::Delete(Some(MeterId(3))));
    assert_eq!(read("meter=all"), MeterMod::Delete(None));
    assert_eq!(read(""), MeterMod::Delete(None));
}

#[test]
fn what_ovs_refuses_of_meters_is_refused() {
    for text in [
        "kbps,bands=type=drop,rate=3",
        "meter=1,bands=type=drop,rate=1",
        "meter=1,kbps",
        "meter=1,kbps,bands=",
        "meter=1,kbps,bands=type=drop",
        "meter=1,kbps,bands=rate=3",
        "meter=1,kbps,bands=type=dscp_remark,rate=3,prec_level=1",
        "meter=1,kbps,bands=type=drop,rate=3,burst_size=5",
        "meter=1,kbps,burst,bands=type=drop,rate=3",
        "meter=1,kbps,pktps,bands=type=drop,rate=3",
        "meter=0,kbps,bands=type=drop,rate=3",
        "meter=0xffff0001,kbps,bands=type=drop,rate=3",
        "meter=all,kbps,bands=type=drop,rate=3",
        "meter=1,pktps,foo,bands=type=drop,rate=3",
    ] {
        assert!(parse_meter(text).is_err(), "{text}");
    }
    for text in ["meter=1,kbps", "meter=1,bands=type=drop", "meters=1"] {
        assert!(parse_meter_mod(text, MeterCommand::Delete).is_err(), "{text}");
    }
}

/// The bridge that these changes make at 1000 ms.
fn bridge(changes: &str) -> Bridge {
    let mut bridge = Bridge::new(BridgeId(0), "br0");
    for change in parse_bundle_file("changes.txt", changes, Names::NONE).unwrap().value {
        bridge.apply(&change, Millis(1000)).unwrap();
    }
    bridge
}

#[test]
fn groups_print_as_in_dump_groups_and_read_back() {
    for text in [
        "group_id=1,type=all,bucket=bucket_id:0,actions=output:1,bucket=bucket_id:1,actions=output:2,output:3",
        "group_id=2,type=select,bucket=bucket_id:0,weight:5,actions=output:1,bucket=bucket_id:1,actions=output:2,\
         bucket=bucket_id:12,weight:0,actions=drop",
        "group_id=3,type=select,selection_method=hash,fields(tun_id,metadata,in_port,pkt_mark,reg3,eth_src,eth_dst,\
         vlan_tci,ip_src=255.255.0.0,nw_proto,tcp_src),bucket=bucket_id:0,actions=output:1",
        "group_id=4,type=select,selection_method=hash,selection_method_param=7,fields=ip_src,bucket=bucket_id:0,\
         actions=output:1",
        "group_id=5,type=select,selection_method=dp_hash,selection_method_param=4294967298,bucket=bucket_id:0,\
         actions=output:1",
        "group_id=6,type=ff,bucket=bucket_id:0,watch_port:1,actions=output:1,bucket=bucket_id:1,watch_group:3,\
         actions=resubmit(,2)",
        "group_id=4294967040,type=indirect,bucket=bucket_id:4294967039,actions=set_field:10.0.0.1->ip_src,output:1",
        "group_id=7,type=all",
    ] {
        let bridge = bridge(&format!("group add {text}"));
        let group = bridge.groups.values().next().unwrap();
        assert_eq!(show_group(group, Names::NONE).to_string(), text);
    }
}

#[test]
fn group_counters_print_as_in_dump_group_stats() {
    let bridge = bridge("group group_id=1,type=all,bucket=1,bucket=2");
    let group = bridge.groups.values().next().unwrap();
    group.stats.credit(3, 300, Millis(1100));
    group.buckets[1].stats.credit(2, 200, Millis(1100));
    assert_eq!(
        show_group_stats(group, 4, Millis(1290)).to_string(),
        "group_id=1,duration=0.290s,ref_count=4,packet_count=3,byte_count=300,bucket0:packet_count=0,byte_count=0,\
         bucket1:packet_count=2,byte_count=200"
    );
}

#[test]
fn meters_print_as_in_dump_meters_and_meter_stats() {
    for text in [
        "meter=8 pktps bands=\ntype=drop rate=3",
        "meter=1 kbps burst stats bands=\ntype=drop rate=100 burst_size=7\ntype=drop rate=200 burst_size=0",
        "meter=slowpath pktps bands=\ntype=drop rate=3",
        "meter=controller pktps stats bands=\ntype=drop rate=3",
    ] {
        assert_eq!(show_meter(&parse_meter(text).unwrap()).to_string(), text);
    }
    let meter = Meter::new(parse_meter("meter=8,pktps,bands=type=drop,rate=1").unwrap(), Millis(1000));
    assert!(meter.admit(60, Millis(1000)) && !meter.admit(70, Millis(1000)));
    assert_eq!(
        show_meter_stats(&meter, 2, Millis(1109)).to_string(),
        "meter:8 flow_count:2 packet_in_count:2 byte_in_count:130 duration:0.109s bands:\n\
         0: packet_count:1 byte_count:70"
    );
}

#[test]
fn bundle_files_change_flows_groups_meters_and_tables() {
    let bridge = bridge(
        "# everything at once\n\
         flow add table=9,actions=drop\n flow table=9,ip,actions=1\nf delete table=8\n\
         group add group_id=70,type=all,bucket=1\ng group_id=71,type=all,bucket=1\n\
         meter add meter=1,kbps,bands=type=drop,rate=5\nmeter meter=2,kbps,bands=type=drop,rate=5\nmeter delete meter=2\n\
         table 9 name:acl evict flow_limit:10\ntable 10 name:x,noevict\n",
    );
    assert_eq!((bridge.tables.len(), bridge.groups.len(), bridge.meters.len()), (2, 2, 1));
    let names = Names::of_bridge(&bridge);
    assert_eq!(names.table("acl"), TableId::new(9));
    assert_eq!(
        show_table_desc(TableId::new(9).unwrap(), &bridge.table_configs[&TableId::new(9).unwrap()], &names).to_string(),
        "  table acl:\n   eviction=on eviction_flags=OTHER|IMPORTANCE|LIFETIME\n   vacancy=off"
    );
    assert_eq!(
        show_table_stats(TableId::FIRST, 2, 5, 3, &names).to_string(),
        "  table 0:\n    active=2, lookup=5, matched=3"
    );
    let flow = bridge.tables.iter().map(|rule| rule.spec.owner.to_string()).max();
    assert_eq!(flow.as_deref(), Some("file:changes.txt:3"));
}

#[test]
fn errors_in_bundle_files_name_line_and_column() {
    for (line, word, column) in [
        ("flow add tpc,actions=drop", "tpc", 10),
        ("packet-out in_port=1", "packet-out", 1),
        ("  group add group_id=1,type=al", "al", 29),
        ("meter add meter=x,kbps", "x", 17),
        ("table 9 name:acl evicted", "evicted", 18),
        ("table all name:acl", "name", 11),
        ("table 9", "", 8),
        ("table nine evict", "nine", 7),
        ("add table=9,actions=drop", "add", 1),
    ] {
        let error = parse_bundle_file("b.txt", &format!("\n{line}\n"), Names::NONE).unwrap_err();
        assert_eq!((error.place(), error.word(), error.columns().start), (Some(("b.txt", 2)), word, column), "{line}");
    }
}

#[test]
fn dumps_feed_back_with_their_first_line() {
    let text = "OFPST_FLOW reply (OF1.5) (xid=0x2):\n cookie=0x12, duration=1.046s, table=1, n_packets=0, n_bytes=0, \
                idle_timeout=60, send_flow_rem no_packet_counts no_byte_counts importance=5, idle_age=1, priority=7,ip \
                actions=output:1\nNXST_FLOW reply (xid=0x4):\n";
    let read = parse_flow_file("dump.txt", text, Names::NONE).unwrap();
    let [FlowMod::Add { spec, .. }] = &read.value[..] else { panic!("{:?}", read.value) };
    assert!(spec.no_packet_counts && spec.no_byte_counts && spec.send_flow_rem);
    assert_eq!(
        show_flow(spec, None, Names::NONE).to_string(),
        "cookie=0x12, table=1, idle_timeout=60, send_flow_rem no_packet_counts no_byte_counts importance=5, \
         priority=7,ip actions=output:1"
    );
    let groups =
        "OFPST_GROUP_DESC reply (OF1.5) (xid=0x2):\n group_id=1,type=all,bucket=bucket_id:0,actions=output:1\n";
    assert_eq!(parse_group_file("dump.txt", groups, Names::NONE).unwrap().len(), 1);
}
