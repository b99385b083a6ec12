//! Copies for mirrors.

use super::*;
use crate::action::{Ct, CtZone};
use crate::mirror::{MirrorOutput, MirrorSpec};

fn to(no: u16) -> Action {
    Action::Output(PortNo(no))
}

fn copy(no: u32) -> DpAction {
    DpAction::Mirror(DpPort(no))
}

fn vlan(id: u16) -> VlanId {
    VlanId::new(id).unwrap()
}

/// The model with a mirror of its first bridge.
fn mirrored(mut model: Model, mirror: MirrorSpec) -> Model {
    let mut bridge = (*model.bridges[&BridgeId(0)]).clone();
    bridge.set_mirror(mirror).unwrap();
    model.bridges.insert(BridgeId(0), Arc::new(bridge));
    model
}

/// A mirror of what enters by the ports of `src` and leaves by those of `dst`, to port 3.
fn some(src: &[&str], dst: &[&str]) -> MirrorSpec {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    let (select_src_port, select_dst_port) = (names(src), names(dst));
    MirrorSpec { select_all: false, select_src_port, select_dst_port, ..all() }
}

/// A mirror of all that passes, to port 3.
fn all() -> MirrorSpec {
    MirrorSpec::all("m", MirrorOutput::Port("p3".into()))
}

#[test]
fn a_packet_is_copied_once_and_flooded_past_the_output_port() {
    let model = mirrored(model(trunks(4), vec![rule(0, vec![to(PortNo::NORMAL.0)])]), all());
    let result = run(&model, &tcp());
    assert_eq!(result.actions, [copy(3), out(2), out(4)]);
    assert_eq!(result.verdict, Verdict::Forward);
    assert_eq!(result.buckets.len(), 1, "the mirror is credited");
    assert_ne!(result.mask.get(slot::VLAN_TCI), 0, "the copy's tag depends on the packet's");
}

#[test]
fn a_copy_is_the_packet_as_it_is_where_it_is_selected() {
    let actions = vec![Action::SetField { field: Field::EthDst, value: 5, mask: u128::MAX }, to(2)];
    let plain = model(trunks(3), vec![rule(0, actions)]);
    let mac = set(Field::EthDst, 5, slot::ETH_DST.max());
    let entering = mirrored(plain.clone(), some(&["p1"], &[]));
    assert_eq!(run(&entering, &tcp()).actions, [copy(3), mac.clone(), out(2)]);
    let leaving = mirrored(plain.clone(), some(&[], &["p2"]));
    assert_eq!(run(&leaving, &tcp()).actions, [mac.clone(), out(2), copy(3)]);
    for other in [some(&["p2"], &["p1"]), MirrorSpec { select_vlan: [vlan(7)].into(), ..all() }] {
        assert_eq!(run(&mirrored(plain.clone(), other), &tcp()).actions, [mac.clone(), out(2)]);
    }
}

#[test]
fn a_dropped_packet_stays_dropped_whatever_is_copied() {
    let denied = mirrored(model(trunks(3), vec![rule(0, vec![])]), all());
    let result = run(&denied, &tcp());
    assert_eq!((result.actions, result.verdict), (vec![copy(3)], Verdict::Drop(DropReason::RuleDrop)));
    let result = run(&mirrored(model(trunks(3), vec![]), all()), &tcp());
    assert_eq!((result.actions, result.verdict), (vec![copy(3)], Verdict::Drop(DropReason::NoRule)));
    let mut ports = trunks(3);
    ports[2].up = false;
    let result = run(&mirrored(model(ports, vec![rule(0, vec![])]), all()), &tcp());
    assert_eq!((result.actions, result.verdict), (vec![], Verdict::Drop(DropReason::RuleDrop)), "nothing of the copy");
}

#[test]
fn what_comes_in_by_the_output_port_goes_nowhere() {
    let model = mirrored(model(trunks(3), vec![rule(0, vec![to(2)])]), all());
    let result = translate(&model, &NoMacs, DpPort(3), &tcp(), &mut NoTrace);
    assert_eq!((result.actions, result.verdict), (vec![], Verdict::Drop(DropReason::NoPort)));
    assert_eq!(run(&model, &tcp()).actions, [copy(3), out(2)]);
}

#[test]
fn copies_have_the_tag_of_the_vlan_and_as_much_as_is_wanted() {
    let mut ports = trunks(3);
    ports[0].vlan = VlanMode::Access(vlan(10));
    let plain = model(ports.clone(), vec![rule(0, vec![to(2)])]);
    let mirror = MirrorSpec { select_vlan: [vlan(10)].into(), snaplen: Some(64), ..all() };
    let push = DpAction::PushVlan { tpid: 0x8100, tci: 10 };
    let wanted = [push, DpAction::Truncate(64), copy(3), DpAction::PopVlan, out(2)];
    assert_eq!(run(&mirrored(plain, mirror.clone()), &tcp()).actions, wanted);
    ports[2].vlan = VlanMode::Access(vlan(20));
    let plain = model(ports, vec![rule(0, vec![to(2)])]);
    let wanted = [DpAction::Truncate(64), copy(3), out(2)];
    assert_eq!(run(&mirrored(plain, mirror), &tcp()).actions, wanted, "an access port takes all VLANs, as in OVS");
}

#[test]
fn a_vlan_for_copies_goes_to_the_ports_that_carry_it_and_not_back() {
    let mut ports = trunks(4);
    ports[2].vlan = VlanMode::Access(vlan(99));
    ports[3].vlan = VlanMode::Access(vlan(20));
    let plain = model(ports, vec![rule(0, vec![to(4)])]);
    let rspan = mirrored(plain, MirrorSpec { output: MirrorOutput::Vlan(vlan(99)), ..all() });
    let push = DpAction::PushVlan { tpid: 0x8100, tci: 99 };
    assert_eq!(run(&rspan, &tcp()).actions, [push, copy(2), DpAction::PopVlan, copy(3), out(4)]);
    let mut reserved = tcp();
    reserved.set(slot::ETH_DST, 0x0180_c200_0000);
    assert_eq!(run(&rspan, &reserved).actions, [out(4)]);
}

#[test]
fn mirrors_to_the_same_place_make_one_copy_and_to_others_one_each() {
    let plain = model(trunks(5), vec![rule(0, vec![to(2)])]);
    let second = MirrorSpec { name: "n".into(), ..some(&[], &["p2"]) };
    let both = mirrored(mirrored(plain.clone(), all()), second.clone());
    assert_eq!(run(&both, &tcp()).actions, [copy(3), out(2)]);
    let apart = MirrorSpec { output: MirrorOutput::Port("p4".into()), ..second };
    assert_eq!(run(&mirrored(mirrored(plain, all()), apart), &tcp()).actions, [copy(3), out(2), copy(4)]);
}

#[test]
fn a_packet_that_was_tracked_is_not_copied_again() {
    let ct = Ct { zone: CtZone::Number(5), table: Some(table(1)), ..Ct::default() };
    let plain = model(trunks(3), vec![rule(0, vec![Action::Ct(Box::new(ct))]), rule(1, vec![to(2)])]);
    let first = run(&mirrored(plain.clone(), all()), &tcp());
    assert_eq!(first.actions[0], copy(3));
    let model = mirrored(plain.clone(), all());
    let resume = &first.resumes[0];
    let second = translate_resumed(&model, &NoMacs, resume, &resume.key, &mut NoTrace).unwrap();
    assert_eq!(second.actions, [out(2)]);
    let leaving = mirrored(plain, some(&[], &["p2"]));
    let first = run(&leaving, &tcp());
    let resume = &first.resumes[0];
    let second = translate_resumed(&leaving, &NoMacs, resume, &resume.key, &mut NoTrace).unwrap();
    assert_eq!(second.actions, [out(2), copy(3)]);
}

#[test]
fn each_way_of_a_packet_has_its_copy() {
    let dst = Subfield { field: Field::Reg0, ofs: 0, bits: 1 };
    let check = Action::CheckPktLarger { len: 1000, dst };
    let model = mirrored(model(trunks(3), vec![rule(0, vec![check, to(2)])]), some(&[], &["p2"]));
    let result = run(&model, &tcp());
    let [DpAction::CheckPktLen { larger, otherwise, .. }] = &result.actions[..] else { panic!("{:?}", result.actions) };
    let both = [out(2), copy(3)];
    assert_eq!([&larger[..], &otherwise[..]], [&both, &both]);
}

#[test]
fn bridges_have_mirrors_of_their_own_and_patch_ports_are_ports() {
    let patch = |no: u16, dp: u32, peer| BridgePort {
        dp: DpPort(dp),
        peer: Some((BridgeId(peer), PortNo(4))),
        ..port(no, VlanMode::default())
    };
    let mut ports = trunks(3);
    ports.push(patch(4, 4, 1));
    let mut model = model(ports, vec![rule(0, vec![to(4), to(2)])]);
    let mut far: Vec<_> =
        (1..=3).map(|no| BridgePort { dp: DpPort(10 + u32::from(no)), ..port(no, VlanMode::default()) }).collect();
    far.push(patch(4, 14, 0));
    add_bridge(&mut model, 1, far, vec![rule(0, vec![to(2)])]);
    let model = mirrored(model, some(&[], &["p4"]));
    let mut far = (*model.bridges[&BridgeId(1)]).clone();
    far.set_mirror(all()).unwrap();
    let mut model = model;
    model.bridges.insert(BridgeId(1), Arc::new(far));
    assert_eq!(run(&model, &tcp()).actions, [copy(13), out(12), copy(3), out(2)]);
}

#[test]
fn a_mirror_waits_for_its_port_and_names_what_is_wrong() {
    let mut bridge = (*model(trunks(3), vec![]).bridges[&BridgeId(0)]).clone();
    let nothing = MirrorSpec { select_all: false, ..all() };
    for (bad, said) in [
        (nothing, "selects no packets"),
        (some(&["p9"], &[]), "no port \"p9\""),
        (MirrorSpec { snaplen: Some(13), ..all() }, "14 to 65535"),
        (MirrorSpec { output: MirrorOutput::Vlan(VlanId::NONE), ..all() }, "1 to 4095"),
        (MirrorSpec { name: "a b".into(), ..all() }, "cannot be the name"),
    ] {
        let error = bridge.set_mirror(bad).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(bridge.mirrors.is_empty());
    bridge.set_mirror(all()).unwrap();
    bridge.mirrors[0].stats.credit(3, 300, Millis(1));
    let gone = bridge.ports.remove(&PortNo(3)).unwrap();
    bridge.place_mirrors();
    assert!(!bridge.mirrors[0].is_active());
    bridge.ports.insert(PortNo(7), Arc::new(BridgePort { no: PortNo(7), ..(*gone).clone() }));
    bridge.place_mirrors();
    assert_eq!(bridge.mirrors[0].port(), Some(PortNo(7)));
    bridge.set_mirror(some(&["p1"], &[])).unwrap();
    assert_eq!((bridge.mirrors.len(), bridge.mirrors[0].stats.packets()), (1, 3), "it goes on counting");
    assert!(bridge.remove_mirror("m") && !bridge.remove_mirror("m"));
    for no in 0..32 {
        bridge.set_mirror(MirrorSpec { name: format!("m{no}").into(), ..some(&["p1"], &[]) }).unwrap();
    }
    assert_eq!(bridge.set_mirror(all()), Err(crate::mirror::MirrorError::TooMany));
}
