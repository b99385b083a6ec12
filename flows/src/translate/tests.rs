use super::*;
use crate::Match;
use crate::Owner;
use crate::action::{ModAction, Subfield};
use crate::bridge::{BridgePort, VlanId, VlanMode};
use crate::datapath::Change;
use crate::field::Field;
use crate::rule::{FlowSpec, Millis};
use crate::table::Tables;
use imbl::OrdMap;

mod copies;
mod mirrors;
mod passes;
mod tunnel;

const H1: u128 = 0x0200_0000_0001;
const H2: u128 = 0x0200_0000_0002;

fn port(no: u16, vlan: VlanMode) -> BridgePort {
    BridgePort { vlan, ..BridgePort::new(PortNo(no), format!("p{no}"), DpPort(no.into())) }
}

/// One bridge with these ports (datapath numbers are port numbers) and these rules.
fn model(ports: Vec<BridgePort>, rules: Vec<FlowSpec>) -> Model {
    let mut model = Model::default();
    add_bridge(&mut model, 0, ports, rules);
    model
}

fn add_bridge(model: &mut Model, id: u16, ports: Vec<BridgePort>, rules: Vec<FlowSpec>) {
    let id = BridgeId(id);
    let mut tables = Tables::default();
    for spec in rules {
        tables.insert(Arc::new(Rule::new(spec, Millis(0))));
    }
    for port in &ports {
        model.ports.insert(port.dp, (id, port.no));
    }
    let ports: OrdMap<_, _> = ports.into_iter().map(|p| (p.no, Arc::new(p))).collect();
    model.bridges.insert(id, Arc::new(Bridge { ports, tables, ..Bridge::new(id, format!("br{}", id.0)) }));
}

fn trunks(n: u16) -> Vec<BridgePort> {
    (1..=n).map(|no| port(no, VlanMode::default())).collect()
}

fn rule(table: u8, actions: Vec<Action>) -> FlowSpec {
    let mut spec = FlowSpec::new(Match::any(), actions, Owner::user());
    spec.table = TableId::new(table).unwrap();
    spec
}

fn table(n: u8) -> TableId {
    TableId::new(n).unwrap()
}

fn resubmit(n: u8) -> Action {
    Action::Resubmit { port: None, table: Some(table(n)), ct: false, extended: true }
}

/// A TCP packet from H1 to H2 that came in by port 1.
fn tcp() -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.set(slot::IN_PORT, 1);
    key.set(slot::ETH_SRC, H1);
    key.set(slot::ETH_DST, H2);
    key.set(slot::ETH_TYPE, 0x0800);
    key.set(slot::IP_SRC, 0x0a00_0001);
    key.set(slot::IP_DST, 0x0a00_0002);
    key.set(slot::IP_PROTO, 6);
    key.set(slot::IP_TTL, 64);
    key.set(slot::TP_SRC, 1000);
    key.set(slot::TP_DST, 80);
    key
}

fn run(model: &Model, key: &FlowKey) -> Translation {
    translate(model, &NoMacs, DpPort(1), key, &mut NoTrace)
}

fn out(no: u32) -> DpAction {
    DpAction::Output(DpPort(no))
}

fn set(field: Field, value: u128, mask: u128) -> DpAction {
    DpAction::Set(smallvec::smallvec![Change { field, value, mask }])
}

#[test]
fn a_matching_rule_outputs_and_the_mask_holds_what_was_read() {
    let mut spec = rule(0, vec![Action::Output(PortNo(2))]);
    spec.matches.set_field(Field::EthDst, H2);
    let model = model(trunks(2), vec![spec]);
    let result = run(&model, &tcp());
    assert_eq!(result.actions, [out(2)]);
    assert_eq!(result.verdict, Verdict::Forward);
    assert_eq!(result.mask.get(slot::ETH_DST), slot::ETH_DST.max());
    assert_eq!(result.mask.get(slot::IN_PORT), slot::IN_PORT.max());
    assert_eq!(result.mask.get(slot::IP_SRC), 0);
}

#[test]
fn no_rule_and_an_empty_list_are_told_apart() {
    assert_eq!(run(&model(trunks(2), vec![]), &tcp()).verdict, Verdict::Drop(DropReason::NoRule));
    let result = run(&model(trunks(2), vec![rule(0, vec![])]), &tcp());
    assert_eq!(result.verdict, Verdict::Drop(DropReason::RuleDrop));
    let mut denied = rule(0, vec![]);
    denied.drop_reason = Some(DropReason::PolicyDeny);
    assert_eq!(run(&model(trunks(2), vec![denied]), &tcp()).verdict, Verdict::Drop(DropReason::PolicyDeny));
}

#[test]
fn a_missing_and_a_down_port_name_their_reason() {
    let result = run(&model(trunks(1), vec![rule(0, vec![Action::Output(PortNo(9))])]), &tcp());
    assert_eq!(result.verdict, Verdict::Drop(DropReason::NoPort));
    let mut ports = trunks(2);
    ports[1].up = false;
    let result = run(&model(ports, vec![rule(0, vec![Action::Output(PortNo(2))])]), &tcp());
    assert_eq!(result.verdict, Verdict::Drop(DropReason::PortDown));
}

#[test]
fn output_to_the_ingress_port_needs_in_port() {
    let model1 = model(trunks(2), vec![rule(0, vec![Action::Output(PortNo(1)), Action::Output(PortNo(2))])]);
    assert_eq!(run(&model1, &tcp()).actions, [out(2)]);
    let model2 = model(trunks(2), vec![rule(0, vec![Action::Output(PortNo::IN_PORT)])]);
    assert_eq!(run(&model2, &tcp()).actions, [out(1)]);
}

#[test]
fn changes_are_emitted_before_each_output_and_only_once() {
    let actions = vec![
        Action::SetField { field: Field::EthDst, value: 5, mask: u128::MAX },
        Action::Output(PortNo(2)),
        Action::Output(PortNo(3)),
        Action::DecTtl(Box::default()),
        Action::Output(PortNo(4)),
    ];
    let result = run(&model(trunks(4), vec![rule(0, actions)]), &tcp());
    let mac = set(Field::EthDst, 5, slot::ETH_DST.max());
    assert_eq!(result.actions, [mac, out(2), out(3), set(Field::IpTtl, 63, 0xff), out(4)]);
    assert_eq!(result.mask.get(slot::ETH_DST), 0, "setting a field does not look at it");
    assert_eq!(result.mask.get(slot::IP_TTL), 0xff, "decrementing does");
}

#[test]
fn reading_a_written_bit_does_not_widen_the_mask() {
    let set_reg = Action::SetField { field: Field::EthSrc, value: 7, mask: u128::MAX };
    let mut second = rule(1, vec![Action::Output(PortNo(2))]);
    second.matches.set_field(Field::EthSrc, 7);
    let model = model(trunks(2), vec![rule(0, vec![set_reg, Action::GotoTable(table(1))]), second]);
    let result = run(&model, &tcp());
    assert_eq!(result.mask.get(slot::ETH_SRC), 0);
    assert_eq!(result.actions.len(), 2);
}

#[test]
fn a_move_depends_on_the_bits_it_reads() {
    let src = Subfield { field: Field::IpDst, ofs: 0, bits: 8 };
    let dst = Subfield { field: Field::Reg0, ofs: 4, bits: 8 };
    let mut second = rule(1, vec![Action::Output(PortNo(2))]);
    second.matches.set_field(Field::Reg0, 0x20);
    let model = model(trunks(2), vec![rule(0, vec![Action::Move { src, dst }, Action::GotoTable(table(1))]), second]);
    let result = run(&model, &tcp());
    assert_eq!(result.actions, [out(2)]);
    assert_eq!(result.mask.get(slot::IP_DST), 0xff);
}

#[test]
fn setting_a_field_that_the_packet_has_not_is_a_no_op() {
    let actions = vec![
        Action::SetField { field: Field::UdpDst, value: 53, mask: u128::MAX },
        Action::SetField { field: Field::ArpOp, value: 2, mask: u128::MAX },
        Action::Output(PortNo(2)),
    ];
    assert_eq!(run(&model(trunks(2), vec![rule(0, actions)]), &tcp()).actions, [out(2)]);
}

#[test]
fn the_old_setters_of_ports_set_icmp_type_and_code() {
    let actions = vec![Action::Mod(ModAction::TpDst(0x103)), Action::Output(PortNo(2))];
    let mut icmp = tcp();
    icmp.set(slot::IP_PROTO, 1);
    let result = run(&model(trunks(2), vec![rule(0, actions)]), &icmp);
    assert_eq!(result.actions, [set(Field::IcmpCode, 3, 0xff), out(2)]);
}

#[test]
fn an_expired_ttl_ends_its_list_but_not_the_outer_one() {
    let inner = rule(1, vec![Action::DecTtl(Box::default()), Action::Output(PortNo(2))]);
    let outer = rule(0, vec![resubmit(1), Action::Output(PortNo(3))]);
    let mut key = tcp();
    key.set(slot::IP_TTL, 1);
    let result = run(&model(trunks(3), vec![outer, inner]), &key);
    assert_eq!(result.actions.last(), Some(&out(3)));
    assert!(matches!(&result.actions[0], DpAction::Controller(p) if p.reason == PacketInReason::InvalidTtl));
    let result =
        run(&model(trunks(3), vec![rule(0, vec![Action::DecTtl(Box::default()), Action::Output(PortNo(2))])]), &key);
    assert_eq!(result.verdict, Verdict::Drop(DropReason::TtlExpired));
}

#[test]
fn endless_resubmits_drop_the_packet_whole() {
    let actions = vec![Action::Output(PortNo(2)), resubmit(0)];
    let result = run(&model(trunks(2), vec![rule(0, actions)]), &tcp());
    assert_eq!(result.actions, []);
    assert_eq!(result.verdict, Verdict::Drop(DropReason::Loop));
}

#[test]
fn a_goto_inside_a_loop_is_bounded_too() {
    let rules = vec![rule(0, vec![Action::GotoTable(table(1))]), rule(1, vec![resubmit(0)])];
    assert_eq!(run(&model(trunks(2), rules), &tcp()).verdict, Verdict::Drop(DropReason::Loop));
}

#[test]
fn forward_resubmits_may_be_many() {
    let rules = (0..200)
        .map(|n| rule(n, if n == 199 { vec![Action::Output(PortNo(2))] } else { vec![resubmit(n + 1)] }))
        .collect();
    assert_eq!(run(&model(trunks(2), rules), &tcp()).actions, [out(2)]);
}

#[test]
fn normal_learns_floods_and_keeps_to_the_vlan() {
    let blue = VlanMode::Access(VlanId::new(10).unwrap());
    let ports = vec![
        port(1, blue.clone()),
        port(2, blue),
        port(3, VlanMode::Access(VlanId::new(20).unwrap())),
        port(4, VlanMode::default()),
    ];
    let model = model(ports, vec![rule(0, vec![Action::Output(PortNo::NORMAL)])]);
    let result = run(&model, &tcp());
    assert_eq!(result.actions, [out(2), DpAction::PushVlan { tpid: 0x8100, tci: 10 }, out(4)]);
    assert_eq!(result.sightings.len(), 1);
    assert_eq!((result.sightings[0].vlan.get(), u128::from(result.sightings[0].mac)), (10, H1));
    assert_eq!(result.mac_queries.len(), 1);

    let mut tagged = tcp();
    tagged.set(slot::VLAN_TCI, 0x100a);
    tagged.set(slot::VLAN_TPID, 0x8100);
    assert_eq!(run(&model, &tagged).verdict, Verdict::Drop(DropReason::VlanFilter));
    let result = translate(&model, &NoMacs, DpPort(4), &tagged, &mut NoTrace);
    assert_eq!(result.actions, [DpAction::PopVlan, out(1), out(2)]);
}

#[test]
fn normal_keeps_the_priority_of_a_frame_without_a_vlan() {
    let zero = VlanId::NONE;
    let mode = VlanMode::Native { trunks: Arc::new([]), native: zero, tagged: false };
    let ports = vec![port(1, VlanMode::default()), port(2, VlanMode::default()), port(3, mode)];
    let model = model(ports, vec![rule(0, vec![Action::Output(PortNo::NORMAL)])]);
    let mut packet = tcp();
    packet.set(slot::VLAN_TPID, 0x8100);
    packet.set(slot::VLAN_TCI, 0x7000);
    assert_eq!(run(&model, &packet).actions, [out(2), DpAction::PopVlan, out(3)]);
    packet.set(slot::VLAN_TCI, 0x1000);
    assert_eq!(run(&model, &packet).actions, [DpAction::PopVlan, out(2), out(3)]);
}

#[test]
fn nothing_goes_from_a_protected_port_to_another_by_whatever_action() {
    struct Known;
    impl MacLookup for Known {
        fn port_of(&self, query: MacQuery) -> Option<PortNo> {
            (u128::from(query.mac) == H2).then_some(PortNo(2))
        }
        fn members(&self, _: McastQuery) -> Option<SmallVec<[PortNo; 4]>> {
            Some([2, 3].map(PortNo).into_iter().collect())
        }
    }
    let mut ports = trunks(3);
    ports[..2].iter_mut().for_each(|port| port.protected = true);
    let does = |port: u16, destination: u128, actions: &[Action]| {
        let mut model = model(ports.clone(), vec![rule(0, actions.to_vec())]);
        let snooping = Bridge { mcast_snooping: true, ..Bridge::clone(&model.bridges[&BridgeId(0)]) };
        model.bridges.insert(BridgeId(0), Arc::new(snooping));
        let mut key = tcp();
        key.set(slot::ETH_DST, destination);
        key.set(slot::IP_DST, 0xef01_0101);
        let result = translate(&model, &Known, DpPort(port.into()), &key, &mut NoTrace);
        let sent = result.actions.into_iter().filter(|action| matches!(action, DpAction::Output(_)));
        (sent.collect::<Vec<_>>(), result.verdict)
    };
    let drop = (vec![], Verdict::Drop(DropReason::NoPort));
    let normal = [Action::Output(PortNo::NORMAL)];
    assert_eq!(does(1, H2, &normal), drop);
    assert_eq!(does(3, H2, &normal).0, [out(2)]);
    assert_eq!(does(1, 0xffff_ffff_ffff, &normal).0, [out(3)]);
    assert_eq!(does(1, 0x0100_5e01_0101, &normal).0, [out(3)]);
    assert_eq!(does(3, 0x0100_5e01_0101, &normal).0, [out(2)]);
    assert_eq!(does(1, H2, &[Action::Output(PortNo::FLOOD)]).0, [out(3)]);
    assert_eq!(does(1, H2, &[Action::Output(PortNo(2))]), drop);
    assert_eq!(does(1, H2, &[Action::Output(PortNo::IN_PORT)]), drop);
    let from_none = Action::SetField { field: Field::InPort, value: PortNo::NONE.0.into(), mask: u128::MAX };
    assert_eq!(does(1, H2, &[from_none, Action::Output(PortNo(2))]).0, [out(2)]);
}

#[test]
fn normal_sends_to_the_learned_port_and_holds_reserved_addresses_back() {
    struct Learned(u16);
    impl MacLookup for Learned {
        fn port_of(&self, query: MacQuery) -> Option<PortNo> {
            (u128::from(query.mac) == H2).then_some(PortNo(self.0))
        }
    }
    let model = model(trunks(3), vec![rule(0, vec![Action::Output(PortNo::NORMAL)])]);
    let at = |no| translate(&model, &Learned(no), DpPort(1), &tcp(), &mut NoTrace);
    assert_eq!(at(3).actions, [out(3)]);
    assert_eq!(at(1).verdict, Verdict::Drop(DropReason::NoPort));
    let mut stp = tcp();
    stp.set(slot::ETH_DST, 0x0180_c200_0000);
    assert_eq!(run(&model, &stp).actions, []);
}

#[test]
fn a_patch_port_goes_on_in_the_peer_and_comes_back() {
    let mut patch = port(2, VlanMode::default());
    patch.peer = Some((BridgeId(1), PortNo(1)));
    let mut peer = port(1, VlanMode::default());
    (peer.dp, peer.peer) = (DpPort(11), Some((BridgeId(0), PortNo(2))));
    let mut far = port(2, VlanMode::default());
    far.dp = DpPort(12);
    let set_mac = |value| Action::SetField { field: Field::EthDst, value, mask: u128::MAX };
    let near = vec![
        Action::SetField { field: Field::Reg0, value: 1, mask: u128::MAX },
        Action::Output(PortNo(2)),
        Action::Output(PortNo(3)),
    ];
    let mut in_peer = rule(0, vec![set_mac(9), Action::Output(PortNo(2))]);
    in_peer.matches.set_field(Field::Reg0, 0);
    in_peer.matches.set_field(Field::InPort, 1);
    let mut model = model(vec![port(1, VlanMode::default()), patch, port(3, VlanMode::default())], vec![rule(0, near)]);
    add_bridge(&mut model, 1, vec![peer, far], vec![in_peer]);
    let result = run(&model, &tcp());
    let full = slot::ETH_DST.max();
    assert_eq!(result.actions, [set(Field::EthDst, 9, full), out(12), set(Field::EthDst, H2, full), out(3)]);
    assert_eq!(result.mask.get(slot::ETH_DST), full, "putting the address back depends on it");
    assert_eq!(result.patched.as_slice(), [DpPort(2), DpPort(11)]);
}

#[test]
fn two_bridges_joined_twice_do_not_storm_forever() {
    let bridge = |id: u16, peer: u16| -> Vec<BridgePort> {
        (1..=3)
            .map(|no| {
                let mut p = port(no, VlanMode::default());
                p.dp = DpPort(u32::from(id * 10 + no));
                p.peer = (no > 1).then_some((BridgeId(peer), PortNo(no)));
                p
            })
            .collect()
    };
    let mut model = Model::default();
    let normal = || vec![rule(0, vec![Action::Output(PortNo::NORMAL)])];
    add_bridge(&mut model, 0, bridge(0, 1), normal());
    add_bridge(&mut model, 1, bridge(1, 0), normal());
    assert_eq!(run(&model, &tcp()).verdict, Verdict::Drop(DropReason::Loop));
}

#[test]
fn tags_are_pushed_popped_and_rewritten() {
    let actions = vec![
        Action::PushVlan(0x88a8),
        Action::SetField { field: Field::VlanVid, value: 0x1005, mask: u128::MAX },
        Action::Output(PortNo(2)),
        Action::Mod(ModAction::VlanPcp(3)),
        Action::Output(PortNo(3)),
        Action::PopVlan { modern: true },
        Action::Output(PortNo(4)),
    ];
    let result = run(&model(trunks(4), vec![rule(0, actions)]), &tcp());
    let push = |tci| DpAction::PushVlan { tpid: 0x88a8, tci };
    let expected = [push(5), out(2), DpAction::PopVlan, push(0x6005), out(3), DpAction::PopVlan, out(4)];
    assert_eq!(result.actions, expected);
}

#[test]
fn a_third_tag_takes_the_place_of_the_inner_one() {
    let model = model(trunks(2), vec![rule(0, vec![Action::PushVlan(0x88a8), Action::Output(PortNo(2))])]);
    let mut packet = tcp();
    packet.set(slot::VLAN_TPID, 0x8100);
    packet.set(slot::VLAN_TCI, 0x1005);
    packet.set(slot::INNER_VLAN_TPID, 0x8100);
    packet.set(slot::INNER_VLAN_TCI, 0x1006);
    let push = |tpid, tci| DpAction::PushVlan { tpid, tci };
    let pop = DpAction::PopVlan;
    assert_eq!(run(&model, &packet).actions, [pop.clone(), pop, push(0x8100, 5), push(0x88a8, 0), out(2)]);
}

#[test]
fn a_packet_out_runs_its_own_actions() {
    let model = model(trunks(2), vec![]);
    let actions = [Action::Output(PortNo(2))];
    let key = tcp();
    let run =
        |id| translate_packet_out(&model, &NoMacs, BridgeId(id), PortNo::CONTROLLER, &key, &actions, &mut NoTrace);
    assert_eq!(run(0).unwrap().actions, [out(2)]);
    assert!(run(7).is_none());
}

#[test]
fn the_trace_tells_every_step_in_order() {
    let model = model(trunks(2), vec![rule(0, vec![resubmit(1)]), rule(1, vec![Action::Output(PortNo(2))])]);
    let mut log = TraceLog::default();
    translate(&model, &NoMacs, DpPort(1), &tcp(), &mut log);
    let told: Vec<_> = log
        .steps
        .iter()
        .filter(|(_, step)| !matches!(step, TraceStep::End(_)))
        .map(|(depth, step)| match step {
            TraceStep::Bridge { .. } => format!("{depth} bridge"),
            TraceStep::Lookup { table, rule } => format!("{depth} table {table} {}", rule.is_some()),
            TraceStep::Action(_) => format!("{depth} action"),
            TraceStep::Output { no, .. } => format!("{depth} output {no}"),
            TraceStep::Read(_) => format!("{depth} read"),
            other => format!("{depth} {other:?}"),
        })
        .collect();
    let table = ["0 bridge", "0 table 0 true", "0 read", "1 action"];
    assert_eq!(told, [&table[..], &["1 table 1 true", "2 action", "2 output 2"]].concat());
}
