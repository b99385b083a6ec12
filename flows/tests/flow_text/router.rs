//! A router's flows in Open vSwitch's hands.

use crate::oracle::ovs_ofctl;
use sluice_flows::PortNo;
use sluice_flows::action::Action;
use sluice_flows::bridge::{Bridge, BridgeId, VlanId};
use sluice_flows::group::GroupMod;
use sluice_flows::router::{
    Interface, InterfaceId, Neighbor, NextHop, NextHops, Pipeline, Program, Route, RouteKind, RouterConfig,
    RouterState, Stages, Vrf, VrfId,
};
use sluice_flows::rule::Millis;
use sluice_flows::text::{Names, parse_flow, show_flow, show_group};

/// A router that has something of everything.
fn program() -> Program {
    let interface = |id: u16, vlan: Option<u16>, addresses: [&str; 2]| Interface {
        id: InterfaceId(id),
        name: format!("eth{id}"),
        port: PortNo(id),
        vlan: vlan.and_then(VlanId::new),
        vrf: VrfId(7),
        mac: 0x0200_0000_0000 | u64::from(id),
        addresses: addresses.map(|net| net.parse().expect("a network")).into(),
        mtu: 1500,
        proxied: vec!["169.254.0.0/16".parse().expect("a network"), "2001:db8:9::/48".parse().expect("a network")],
        layer3: false,
        ra: None,
    };
    let route = |destination: &str, kind, vias: &[&str]| Route {
        vrf: VrfId(7),
        destination: destination.parse().expect("a network"),
        kind,
        next_hops: vias
            .iter()
            .map(|via| NextHop { interface: InterfaceId(2), via: via.parse().ok(), weight: 2 })
            .collect(),
        distance: 1,
    };
    let config = RouterConfig {
        name: "r1".into(),
        vrfs: vec![Vrf { name: "main".into(), id: VrfId(7) }],
        interfaces: vec![
            interface(1, None, ["10.0.1.1/24", "2001:db8:1::1/64"]),
            interface(2, Some(20), ["10.0.2.1/24", "2001:db8:2::1/64"]),
        ],
        routes: vec![
            route("0.0.0.0/0", RouteKind::Unicast, &["10.0.2.2"]),
            route("::/0", RouteKind::Unicast, &["fe80::2"]),
            route("10.9.0.0/16", RouteKind::Unicast, &["10.0.2.2", "10.0.2.3"]),
            route("2001:db8:f::/48", RouteKind::Unicast, &["fe80::2", "fe80::3"]),
            route("192.0.2.0/24", RouteKind::Unreachable, &[]),
            route("198.51.100.0/24", RouteKind::Prohibit, &[]),
            route("203.0.113.0/24", RouteKind::Blackhole, &[]),
        ],
        neighbors: Vec::new(),
    };
    assert_eq!(config.check(), Ok(()));
    let mut state = RouterState::default();
    for (address, known) in [("10.0.2.2", Neighbor::Resolved(0x0a)), ("fe80::2", Neighbor::Failed)] {
        state.neighbors.insert((InterfaceId(2), address.parse().expect("an address")), known);
    }
    let pipeline = Pipeline::default();
    Stages::new(pipeline, &config).program(&config, &state, &mut NextHops::new(&pipeline))
}

#[test]
fn a_router_s_flows_read_back_as_they_are_printed() {
    for flow in program().flows {
        let text = format!("table={}, {}", flow.table, show_flow(&flow, None, Names::NONE));
        let read = parse_flow(&text, Names::NONE).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((&read.matches, read.priority), (&flow.matches, flow.priority), "{text}");
        assert_eq!(read.actions, flow.actions, "{text}");
    }
}

#[test]
fn ovs_takes_a_router_s_flows_but_for_the_mtu() {
    let program = program();
    let own = |word: &str| !word.starts_with("owner=") && !word.starts_with("drop_reason=");
    let mut flows = Vec::new();
    for mut flow in program.flows {
        // The only action of our own.
        let kept = |action: &&Action| !matches!(action, Action::Fragment(_));
        flow.actions = flow.actions.iter().filter(kept).cloned().collect();
        let text = format!("table={}, {}", flow.table, show_flow(&flow, None, Names::NONE));
        flows.push(text.split(' ').filter(|word| own(word)).collect::<Vec<_>>().join(" "));
    }
    let Some((ok, output, errors)) = ovs_ofctl(&["-O", "OpenFlow15", "parse-flows", "-"], &flows.join("\n")) else {
        return;
    };
    assert!(ok, "{errors}");
    assert_eq!(output.lines().filter(|line| line.contains(": ADD")).count(), flows.len());
    assert!(!output.contains("decode error"), "{output}");
    let mut bridge = Bridge::new(BridgeId(0), "r1");
    for group in program.groups {
        bridge.apply(&GroupMod::Add(group).into(), Millis(0)).expect("a group that fits");
    }
    assert_eq!(bridge.groups.len(), 2);
    for group in bridge.groups.values() {
        let group = show_group(group, Names::NONE).to_string();
        let (ok, _, errors) = ovs_ofctl(&["-O", "OpenFlow15", "parse-group", &group], "").expect("ovs-ofctl is there");
        assert!(ok, "{group}: {errors}");
    }
}
