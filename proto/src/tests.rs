use crate::FILE_DESCRIPTOR_SET;
use crate::v1::{
    ApplyBundleRequest, BridgeMod, BundleHeader, FlowFilter, FlowLines, FlowMod, GroupMod, PortSpec, PortVlan,
    bridge_mod, flow_mod, group_mod, port_vlan,
};
use prost::Message;
use prost_types::FileDescriptorSet;

fn bundle() -> ApplyBundleRequest {
    let filter = FlowFilter { r#match: "table=1,tcp".into(), generation_below: Some(7), ..FlowFilter::default() };
    ApplyBundleRequest {
        header: Some(BundleHeader {
            bridge: "br0".into(),
            owner: "np:shop/web#1".into(),
            generation: u64::MAX,
            replace: Some(filter),
            dry_run: true,
        }),
        mods: vec![FlowMod {
            command: flow_mod::Command::DeleteStrict.into(),
            flow: "table=3,priority=5,ip".into(),
            owner: String::new(),
            generation: Some(0),
            drop_reason: "policy_deny".into(),
        }],
        commit: true,
        changes: vec![BridgeMod {
            change: Some(bridge_mod::Change::Group(GroupMod {
                command: group_mod::Command::InsertBuckets.into(),
                group: "group_id=1,bucket=output:1".into(),
                owner: "svc:shop/web".into(),
            })),
        }],
        lines: vec![FlowLines {
            file: "acl.flows".into(),
            first: 7,
            text: "priority=5,ip actions=drop\n".into(),
            owner: "np:shop/web".into(),
        }],
    }
}

/// What earlier versions send and read must stay what it was.
#[test]
fn a_bundle_of_flows_is_written_as_it_always_was() {
    let part = ApplyBundleRequest {
        mods: vec![FlowMod { command: flow_mod::Command::Add.into(), flow: "ip".into(), ..FlowMod::default() }],
        commit: true,
        ..ApplyBundleRequest::default()
    };
    assert_eq!(part.encode_to_vec(), [0x12, 6, 0x08, 1, 0x12, 2, b'i', b'p', 0x18, 1]);
}

#[test]
fn a_bundle_reads_back_as_it_was_written() {
    let bundle = bundle();
    assert_eq!(ApplyBundleRequest::decode(bundle.encode_to_vec().as_slice()), Ok(bundle));
}

#[test]
fn a_port_reads_back_with_its_options_and_vlans() {
    let port = PortSpec {
        name: "tap0".into(),
        r#type: "tap".into(),
        options: [("queues".to_owned(), "2".to_owned())].into(),
        vlan: Some(PortVlan { mode: port_vlan::Mode::NativeUntagged.into(), tag: 4095, trunks: vec![0, 10] }),
        ..PortSpec::default()
    };
    assert_eq!(PortSpec::decode(port.encode_to_vec().as_slice()), Ok(port));
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    let mut bytes = bundle().encode_to_vec();
    // Field 1000 as a varint, and field 1001 as three bytes.
    bytes.extend([0xc0, 0x3e, 0x05]);
    bytes.extend([0xca, 0x3e, 0x03, 1, 2, 3]);
    assert_eq!(ApplyBundleRequest::decode(bytes.as_slice()), Ok(bundle()));
}

#[test]
fn a_field_left_out_is_told_from_a_field_at_zero() {
    let with = FlowMod { generation: Some(0), ..FlowMod::default() };
    let without = FlowMod::default();
    assert_ne!(with.encode_to_vec(), without.encode_to_vec());
    assert_eq!(FlowMod::decode(without.encode_to_vec().as_slice()).map(|m| m.generation), Ok(None));
}

/// Walks the comments of the descriptor set: in a file's source info, each element's path leads to its comment.
#[test]
fn every_service_method_message_and_field_is_documented() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build script wrote it");
    assert_eq!(set.file.len(), 20);
    for file in &set.file {
        let info = file.source_code_info.as_ref().expect("comments are kept");
        let documented = |path: &[i32]| {
            info.location.iter().any(|l| l.path == path && l.leading_comments.as_ref().is_some_and(|c| !c.is_empty()))
        };
        let mut undocumented: Vec<String> = Vec::new();
        let mut check = |path: &[i32], name: &str| {
            if !documented(path) {
                undocumented.push(name.to_owned());
            }
        };
        for (s, service) in (0..).zip(&file.service) {
            check(&[6, s], service.name());
            for (m, method) in (0..).zip(&service.method) {
                check(&[6, s, 2, m], method.name());
            }
        }
        for (m, message) in (0..).zip(&file.message_type) {
            check(&[4, m], message.name());
            for (f, field) in (0..).zip(&message.field) {
                check(&[4, m, 2, f], &format!("{}.{}", message.name(), field.name()));
            }
        }
        assert!(undocumented.is_empty(), "{}: no comment on {undocumented:?}", file.name());
    }
}
