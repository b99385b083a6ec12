use super::*;
use crate::tunnel::{Byte, Part, Tunnel, TunnelKey, TunnelKind};
use std::net::IpAddr;

const REMOTE: u128 = 0xc000_0202;

fn remote() -> IpAddr {
    "192.0.2.2".parse().unwrap()
}

fn fixed(kind: TunnelKind) -> Tunnel {
    Tunnel {
        kind,
        layer3: false,
        remote: Part::Fixed(remote()),
        local: Part::Fixed("0.0.0.0".parse().unwrap()),
        out_key: Part::Fixed(Some(5)),
        tos: Byte::Inherit,
        ttl: Byte::Fixed(64),
    }
}

fn by_flow(kind: TunnelKind) -> Tunnel {
    Tunnel { remote: Part::Flow, out_key: Part::Flow, ..fixed(kind) }
}

/// Ports 1 to 3, of which 2 is the tunnel.
fn with_tunnel(tunnel: Tunnel, actions: Vec<Action>) -> Model {
    let mut ports = trunks(3);
    ports[1].tunnel = Some(Arc::new(tunnel));
    model(ports, vec![rule(0, actions)])
}

fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: u128::MAX }
}

fn out(no: u16) -> Action {
    Action::Output(PortNo(no))
}

fn translated(model: &Model, key: &FlowKey, ingress: u32) -> Translation {
    translate(model, &NoMacs, DpPort(ingress), key, &mut NoTrace)
}

/// A TCP packet that arrived by the tunnel.
fn arrived() -> FlowKey {
    let mut key = tcp();
    key.set(slot::IN_PORT, 2);
    key.set(slot::TUN_ID, 7);
    key.set(slot::TUN_SRC, REMOTE);
    key.set(slot::TUN_DST, 0xc000_0201);
    key
}

fn tunnel_words(mask: &FlowMask) -> u128 {
    [slot::TUN_ID, slot::TUN_SRC, slot::TUN_DST, slot::TUN_IPV6_DST].iter().map(|slot| mask.get(*slot)).sum()
}

#[test]
fn a_tunnel_that_decides_all_itself_is_an_output_like_any_other() {
    let done = translated(&with_tunnel(fixed(TunnelKind::Vxlan), vec![out(2)]), &tcp(), 1);
    assert_eq!(done.actions, [DpAction::Output(DpPort(2))]);
}

#[test]
fn what_the_flow_decides_is_told_to_the_port_once_until_it_changes() {
    let actions = vec![
        set(Field::TunDst, REMOTE),
        set(Field::TunId, 100),
        out(2),
        out(3),
        out(2),
        set(Field::TunId, 101),
        out(2),
    ];
    let done = translated(&with_tunnel(by_flow(TunnelKind::Vxlan), actions), &tcp(), 1);
    let mut first = TunnelKey::NONE;
    first.set_dst(remote());
    first.set_id(100);
    first.set_tos_ttl(0, 64);
    let mut second = first;
    second.set_id(101);
    let [to, other] = [DpAction::Output(DpPort(2)), DpAction::Output(DpPort(3))];
    let tunnel = |key| DpAction::Tunnel(Box::new(key));
    assert_eq!(done.actions, [tunnel(first), to.clone(), other, to.clone(), tunnel(second), to]);
    assert_eq!(tunnel_words(&done.mask), 0, "what flows wrote is not the packet's");
}

#[test]
fn a_flow_that_does_not_say_where_to_drops_the_packet() {
    let done = translated(&with_tunnel(by_flow(TunnelKind::Geneve), vec![set(Field::TunId, 1), out(2)]), &tcp(), 1);
    assert_eq!((done.actions, done.verdict), (vec![], Verdict::Drop(DropReason::TunnelDown)));
}

#[test]
fn what_a_packet_arrived_with_is_looked_at_when_it_leaves_by_a_tunnel_again() {
    let mut model = with_tunnel(by_flow(TunnelKind::Vxlan), vec![set(Field::TunDst, REMOTE + 1), out(3)]);
    let bridge = model.bridges.get_mut(&BridgeId(0)).map(Arc::make_mut).unwrap();
    let mut third = (*bridge.ports[&PortNo(3)]).clone();
    third.tunnel = Some(Arc::new(by_flow(TunnelKind::Vxlan)));
    bridge.ports.insert(PortNo(3), Arc::new(third));
    let done = translated(&model, &arrived(), 2);
    let [DpAction::Tunnel(key), DpAction::Output(DpPort(3))] = &done.actions[..] else { panic!("{:?}", done.actions) };
    assert_eq!((key.id(), key.get(slot::TUN_DST)), (7, REMOTE + 1));
    assert_eq!(done.mask.get(slot::TUN_ID), u128::from(u64::MAX), "its key is the one that it arrived with");
    assert_eq!(done.mask.get(slot::TUN_DST), 0, "where it goes is the flow's");
}

#[test]
fn options_are_there_when_they_were_set_even_to_zero() {
    let actions = |more: Vec<Action>| [vec![set(Field::TunDst, REMOTE)], more, vec![out(2)]].concat();
    let option = |more| {
        let done = translated(&with_tunnel(by_flow(TunnelKind::Geneve), actions(more)), &tcp(), 1);
        let DpAction::Tunnel(key) = &done.actions[0] else { panic!("{:?}", done.actions) };
        [0, 1].map(|n| key.option(n))
    };
    assert_eq!(option(vec![set(Field::TunMetadata1, 0)]), [None, Some(0)]);
    assert_eq!(option(vec![set(Field::TunMetadata0, 9)]), [Some(9), None]);
    let deleted = vec![set(Field::TunMetadata0, 9), Action::DeleteField(Field::TunMetadata0)];
    assert_eq!(option(deleted), [None, None]);
}

#[test]
fn tos_and_ttl_are_the_flows_where_the_port_says_so() {
    let tunnel = Tunnel { tos: Byte::Flow, ttl: Byte::Flow, ..fixed(TunnelKind::Gre) };
    let actions = vec![set(Field::TunTos, 0x20), set(Field::TunTtl, 9), out(2)];
    let done = translated(&with_tunnel(tunnel, actions), &tcp(), 1);
    let DpAction::Tunnel(key) = &done.actions[0] else { panic!("{:?}", done.actions) };
    assert_eq!((key.tos(), key.ttl(), key.id(), key.dst()), (0x20, 9, 5, Some(remote())));
}
