//! A router in a bridge, for tests: packets go in as flow text, and come out as the packets that leave.

use super::{
    Interface, InterfaceId, Neighbor, NextHop, NextHops, Pipeline, Program, Punt, Route, RouteKind, RouterConfig,
    RouterState, Stages, Vrf, VrfId,
};
use crate::bridge::{Bridge, BridgeId, BridgePort, Model};
use crate::bridge_mod::BridgeMod;
use crate::datapath::{DpAction, Translation};
use crate::explain::exits;
use crate::flow_mod::FlowMod;
use crate::group::GroupMod;
use crate::key::FlowKey;
use crate::port::{DpPort, PortNo};
use crate::rule::Millis;
use crate::text::{Names, parse_packet, show_packet};
use crate::translate::{NoMacs, NoTrace, translate};
use crate::verdict::Verdict;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) const PORTS: u16 = 8;

/// Interface `id` on port `id` of VRF 0, with MAC address 02:00:00:00:00:ID.
pub(super) fn interface(id: u16, addresses: &[&str]) -> Interface {
    Interface {
        id: InterfaceId(id),
        name: format!("eth{id}"),
        port: PortNo(id),
        vlan: None,
        vrf: VrfId(0),
        mac: 0x0200_0000_0000 | u64::from(id),
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        mtu: 1500,
        proxied: Vec::new(),
        layer3: false,
        ra: None,
    }
}

/// A unicast route of VRF 0 with distance 1: next hops as interface and address, of equal weight.
pub(super) fn route(destination: &str, hops: &[(u16, &str)]) -> Route {
    let hop =
        |(id, via): &(u16, &str)| NextHop { interface: InterfaceId(*id), via: Some(via.parse().unwrap()), weight: 1 };
    Route {
        vrf: VrfId(0),
        destination: destination.parse().unwrap(),
        kind: RouteKind::Unicast,
        next_hops: hops.iter().map(hop).collect(),
        distance: 1,
    }
}

/// A router with VRFs 0 (main) and 1 (blue).
pub(super) fn config(interfaces: Vec<Interface>, routes: Vec<Route>) -> RouterConfig {
    RouterConfig {
        name: "r1".into(),
        vrfs: vec![Vrf { name: "main".into(), id: VrfId(0) }, Vrf { name: "blue".into(), id: VrfId(1) }],
        interfaces,
        routes,
        neighbors: Vec::new(),
    }
}

/// Knows these neighbours, as interface and address; the MAC address ends in the interface and the address's last byte.
pub(super) fn knowing(neighbors: &[(u16, &str)]) -> RouterState {
    let mut state = RouterState::default();
    for (id, address) in neighbors {
        let address: IpAddr = address.parse().unwrap();
        state.neighbors.insert((InterfaceId(*id), address), Neighbor::Resolved(mac_of(*id, address)));
    }
    state
}

pub(super) fn mac_of(id: u16, address: IpAddr) -> u64 {
    let last = match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    0x0a00_0000_0000 | u64::from(id) << 8 | u64::from(last)
}

/// What became of a packet.
pub(super) struct Outcome {
    pub(super) translation: Translation,
    /// What was handed over.
    pub(super) punts: Vec<Punt>,
    /// Ports that it left by, and as what.
    pub(super) left: Vec<(u16, FlowKey)>,
}

impl Outcome {
    pub(super) fn verdict(&self) -> Verdict {
        self.translation.verdict
    }

    /// The packets that left, as text, each with its port.
    pub(super) fn text(&self) -> Vec<String> {
        self.left.iter().map(|(port, packet)| format!("{port}: {}", show_packet(packet, Names::NONE))).collect()
    }

    /// The owner of the flow that decided.
    pub(super) fn owner(&self) -> String {
        self.translation.decider().map(|rule| rule.spec.owner.to_string()).unwrap_or_default()
    }
}

/// A bridge with a router in it.
pub(super) struct Router {
    pub(super) config: RouterConfig,
    pub(super) state: RouterState,
    pub(super) model: Model,
}

impl Router {
    pub(super) fn new(config: RouterConfig, state: RouterState) -> Self {
        config.check().unwrap();
        let pipeline = Pipeline::default();
        let stages = Stages::new(pipeline, &config);
        let program = stages.program(&config, &state, &mut NextHops::new(&pipeline));
        let model = install(&program);
        Self { config, state, model }
    }

    /// The same router when it knows something else.
    pub(super) fn with(&self, change: impl FnOnce(&mut RouterState)) -> Self {
        let mut state = self.state.clone();
        change(&mut state);
        Self::new(self.config.clone(), state)
    }

    pub(super) fn send(&self, packet: &str) -> Outcome {
        let packet = parse_packet(packet, Names::NONE).unwrap_or_else(|error| panic!("{packet}: {error}"));
        self.send_key(&packet)
    }

    pub(super) fn send_key(&self, packet: &FlowKey) -> Outcome {
        let port = packet.get(crate::key::slot::IN_PORT) as u32;
        let translation = translate(&self.model, &NoMacs, DpPort(port), packet, &mut NoTrace);
        let mut punts = Vec::new();
        for action in &translation.actions {
            if let DpAction::Controller(about) = action {
                punts.push(Punt::read(about).expect("a router's user data"));
            }
        }
        let left = exits(&self.model, &translation.actions, packet);
        let left = left.into_iter().map(|exit| (exit.port.no.0, exit.packet)).collect();
        Outcome { translation, punts, left }
    }
}

/// A bridge with ports 1 to [`PORTS`] that has this program, and nothing refused.
pub(super) fn install(program: &Program) -> Model {
    let mut model = Model::default();
    let mut bridge = Bridge::new(BridgeId(0), "r1");
    for no in 1..=PORTS {
        let (no, dp, name) = (PortNo(no), DpPort(no.into()), format!("p{no}"));
        let port = BridgePort::new(no, name, dp);
        bridge.ports.insert(no, Arc::new(port));
        model.ports.insert(dp, (BridgeId(0), no));
    }
    let tables = program.tables.iter().cloned().map(BridgeMod::from);
    let groups = program.groups.iter().cloned().map(|group| GroupMod::Add(group).into());
    let check = |spec| FlowMod::Add { spec, check_overlap: false, reset_counts: true };
    let flows = program.flows.iter().cloned().map(|flow| check(flow).into());
    for change in tables.chain(groups).chain(flows) {
        bridge.make(change, Millis(0)).unwrap();
    }
    assert_eq!(bridge.tables.len(), program.flows.len(), "no flow took the place of another");
    model.bridges.insert(BridgeId(0), Arc::new(bridge));
    model
}

/// An IPv4 packet from a host behind port `port` to `dst`, by UDP.
pub(super) fn udp(port: u16, src: &str, dst: &str) -> String {
    let net: IpNet = format!("{src}/32").parse().unwrap_or_else(|_| format!("{src}/128").parse().unwrap());
    let (word, from, to) = match net {
        IpNet::V4(_) => ("udp", "nw_src", "nw_dst"),
        IpNet::V6(_) => ("udp6", "ipv6_src", "ipv6_dst"),
    };
    format!(
        "in_port={port},{word},dl_src=0a:00:00:00:00:99,dl_dst=02:00:00:00:00:{port:02x},{from}={src},{to}={dst},\
         nw_ttl=64,udp_src=1000,udp_dst=2000"
    )
}
