//! Groups and meters: what is read and what is refused.

use crate::action::{Action, GroupId, MeterId};
use crate::field::Field;
use crate::group::{BucketChoice, BucketPlace, GroupKind, GroupMod, Selection};
use crate::meter::{MeterBand, MeterMod, MeterUnit};
use crate::port::PortNo;
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
    assert_eq!(first.owner.as_str(), "file:groups.txt:2");
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
