//! A node's whole pipeline as a model: what becomes of a packet there, by its trace.

use ipnet::IpNet;
use sluice_controller::facts::policy::State;
use sluice_controller::facts::{Node, Peer, Pod, Service};
use sluice_controller::flow::Part;
use sluice_controller::pipeline::{self, Ids, LocalPod, Policies, RuleName, Stage, ZONE};
use sluice_flows::bridge::{Bridge, BridgeId, BridgePort, Model};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::datapath::{DpAction, DpCt, Resume, Translation};
use sluice_flows::explain::{CtKnown, Options, Report, Translator};
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::key::FlowKey;
use sluice_flows::rule::Millis;
use sluice_flows::station::{Guard, Station};
use sluice_flows::text::{GroupCommand, Names, parse_flow_mod, parse_group_mod};
use sluice_flows::translate::{NoMacs, TraceLog, translate, translate_resumed};
use sluice_flows::{DpPort, Owner, PortNo, Verdict};
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

/// The host's port.
pub(crate) const LOCAL: u16 = PortNo::LOCAL.0;
/// The port that is the tunnel to all peers.
pub(crate) const TUNNEL: u16 = 100;
const BRIDGE: BridgeId = BridgeId(0);

/// A node with all flows that it has.
pub(crate) struct NodeFlows {
    model: Model,
    policies: Policies,
}

/// What became of a packet on a node.
pub(crate) struct Fate {
    /// The port that it left by, and the packet there; none if it was dropped.
    pub(crate) left: Option<(u16, FlowKey)>,
    /// Who dropped it: the table, the reason's name, the flow's owner.
    pub(crate) dropped: Option<(u8, &'static str, String)>,
    /// The rules that let it leave its Pod, and come to its Pod, as the connection remembers them; none if there is no connection.
    pub(crate) rules: Option<[Option<RuleName>; 2]>,
    /// The whole walk.
    pub(crate) walk: String,
}

impl NodeFlows {
    /// A node with its peers, Pods, Services and policies.
    pub(crate) fn new(facts: &Node, peers: &[Peer], pods: &[Pod], services: &[Service], state: &State) -> Self {
        let mut bridge = Bridge::new(BRIDGE, "br0");
        let mut model = Model::default();
        for no in pods.iter().map(|pod| pod.port as u16).chain([LOCAL, TUNNEL]) {
            let (no, dp) = (PortNo(no), DpPort(no.into()));
            let port = BridgePort::new(no, format!("p{no}"), dp);
            bridge.ports.insert(no, Arc::new(port));
            model.ports.insert(dp, (BRIDGE, no));
        }
        let mut policies = Policies::new(facts);
        let mut parts = vec![pipeline::base(facts)];
        parts.extend(peers.iter().map(|peer| pipeline::peer(facts, peer)));
        for pod in pods {
            let name = pod.owner.strip_prefix("pod:").unwrap();
            policies.put_pod(&name.into(), LocalPod { port: pod.port, addresses: pod.addresses.clone() });
            parts.push(pipeline::pod(facts, pod));
            let station = Station {
                port: PortNo(pod.port as u16),
                mac: pod.mac,
                addresses: pod.addresses.clone(),
                guard: Guard::Full,
                hairpin: false,
                held: false,
                owner: Owner::new(&pod.owner),
            };
            for spec in station.flows() {
                bridge.make(FlowMod::add(spec).into(), Millis(0)).unwrap();
            }
        }
        let mut ids = Ids::new();
        parts.extend(services.iter().map(|service| pipeline::service(facts, service, &mut ids)));
        policies.update(&state.since(&State::default()));
        parts.extend(policies.take().into_iter().filter_map(|(_, part)| part));
        parts.iter().for_each(|part| add(&mut bridge, part));
        model.bridges.insert(BRIDGE, Arc::new(bridge));
        Self { model, policies }
    }

    /// Sends the first packet of a connection into a port.
    pub(crate) fn send(&self, port: u16, packet: &FlowKey) -> Fate {
        let by = Recorded { model: &self.model, label: Cell::new(None) };
        let report = Report::make(&self.model, &by, DpPort(port.into()), packet, &Options::default());
        let left = match &report.exits[..] {
            [] => None,
            [exit] => Some((exit.port.no.0, exit.packet)),
            more => panic!("one packet leaves {} times\n{}", more.len(), report.walk),
        };
        let dropped = match report.verdict {
            Verdict::Drop(reason) => {
                let rule =
                    report.rule.as_ref().map(|rule| (rule.spec.table.get(), rule.spec.owner.text().into_owned()));
                let (table, owner) = rule.unwrap_or_default();
                Some((table, reason.name(), owner))
            }
            _ => None,
        };
        assert_eq!(left.is_some(), dropped.is_none(), "{}", report.walk);
        let rule = |number: u32| {
            let known =
                || self.policies.rule(number).unwrap_or_else(|| panic!("no rule has {number}\n{}", report.walk));
            (number != 0).then(known)
        };
        let rules = by.label.get().map(|label| [rule(label as u32), rule((label >> 32) as u32)]);
        Fate { left, dropped, rules, walk: report.walk }
    }
}

/// Translates by a model, and notes what connections would remember.
struct Recorded<'a> {
    model: &'a Model,
    label: Cell<Option<u128>>,
}

impl Recorded<'_> {
    fn note(&self, made: &Translation) {
        for action in &made.actions {
            if let DpAction::Ct(ct) = action
                && let DpCt { commit: true, zone: ZONE, label: Some((label, _)), .. } = **ct
            {
                self.label.set(Some(label));
            }
        }
    }
}

impl Translator for Recorded<'_> {
    fn first(&self, ingress: DpPort, key: &FlowKey, log: &mut TraceLog) -> Translation {
        let made = translate(self.model, &NoMacs, ingress, key, log);
        self.note(&made);
        made
    }

    fn next(&self, resume: &Resume, key: &FlowKey, log: &mut TraceLog) -> Option<Translation> {
        let made = translate_resumed(self.model, &NoMacs, resume, key, log)?;
        self.note(&made);
        Some(made)
    }

    fn tracked(&self, _: &FlowKey, _: &DpCt) -> Option<CtKnown> {
        // Every packet is the first of its connection.
        Some(CtKnown::New)
    }
}

fn add(bridge: &mut Bridge, part: &Part) {
    for group in &part.groups {
        let text = format!("group_id={},{}", group.id, group.text);
        let made = parse_group_mod(&text, GroupCommand::Add, Names::NONE).unwrap_or_else(|e| panic!("{text}: {e}"));
        bridge.make(made.into(), Millis(0)).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    for flow in &part.flows {
        let reason = flow.drop_reason.map(|reason| format!("drop_reason={reason},")).unwrap_or_default();
        let actions = if flow.actions.is_empty() { "drop" } else { &flow.actions };
        let head = format!("table={},priority={},{reason}owner={}", flow.table, flow.priority, flow.owner);
        let text = format!("{head},{} actions={actions}", flow.matching);
        let made = parse_flow_mod(&text, Names::NONE).unwrap_or_else(|e| panic!("{text}: {e}")).value;
        bridge.make(BridgeMod::from(made), Millis(0)).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}

/// Whether a table is one of those that ask policies of a direction.
pub(crate) fn asks(table: u8, is_egress: bool) -> bool {
    let (first, last) = match is_egress {
        true => (Stage::EgressAdmin, Stage::EgressBaseline),
        false => (Stage::IngressAdmin, Stage::IngressBaseline),
    };
    (first.table()..=last.table()).contains(&table)
}

/// Facts of a node of a random cluster, by its name, which ends in its number, and its addresses.
pub(crate) fn facts(name: &str, addresses: Vec<IpAddr>, is_encapsulated: bool) -> Node {
    let number = number(name);
    let ip = |texts: [String; 2]| texts.map(|text| text.parse::<IpAddr>().unwrap()).to_vec();
    Node {
        name: name.into(),
        pod_cidrs: pod_cidrs(name),
        gateways: ip([format!("10.244.{number}.200"), format!("fd00:244:0:{number}::c8")]),
        known: addresses.clone(),
        addresses,
        gateway_mac: 0x0a00_0000_0001,
        link: ip(["169.254.77.2".into(), "fd73:6c75:6963::2".into()]),
        incoming: ip(["169.254.77.3".into(), "fd73:6c75:6963::3".into()]),
        tunnel: is_encapsulated.then_some(TUNNEL.into()),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()],
        masquerade: true,
        masquerade_except: Vec::new(),
    }
}

/// The networks of a node's Pods in random clusters.
pub(crate) fn pod_cidrs(name: &str) -> Vec<IpNet> {
    let number = number(name);
    let nets = [format!("10.244.{number}.0/24"), format!("fd00:244:0:{number}::/64")];
    nets.map(|text| text.parse().unwrap()).to_vec()
}

/// Where its tunnel ends.
pub(crate) fn tunnel_end(name: &str) -> IpAddr {
    [172, 30, 0, 10 + number(name)].into()
}

fn number(name: &str) -> u8 {
    name.strip_prefix("node-").unwrap().parse().unwrap()
}
