//! A switch of its own as a drawing: its bridges, and what is behind their ports.

use super::Scene;
use super::shape::{Change, Drawing, Edge, Join, Node, NodeKind, Traced};
use sluice_proto::v1::{Port, PortSpec};
use std::collections::{BTreeMap, BTreeSet};

/// The bridges of a switch, by the names of their ports.
#[derive(Clone, Copy, Debug)]
pub struct Bridges;

impl Scene for Bridges {
    fn drawing(&self, ports: &[Port]) -> Result<Drawing, String> {
        Ok(draw(ports))
    }

    fn trace(&self, _: &str, _: &str, _: &str) -> Result<Traced, String> {
        Err("a switch does not know what its ports' hosts would send: trace a packet, by `trace` beside a drop"
            .to_owned())
    }

    fn change(&self, _: &Change) -> Result<(), String> {
        Err("only links of labs are changed from here".to_owned())
    }
}

fn draw(ports: &[Port]) -> Drawing {
    let specs: BTreeMap<&str, &PortSpec> =
        ports.iter().filter_map(|p| p.spec.as_ref()).map(|s| (s.name.as_str(), s)).collect();
    let bridges: BTreeSet<&str> = specs.values().map(|spec| spec.bridge.as_str()).collect();
    let node = |name: &str, kind| Node { name: name.to_owned(), kind, addresses: Vec::new(), macs: Vec::new() };
    let mut nodes: Vec<_> = bridges.iter().map(|name| node(name, NodeKind::Switch)).collect();
    let mut links = Vec::new();
    for port in ports {
        let Some(spec) = &port.spec else { continue };
        let (bridge, name) = (spec.bridge.clone(), spec.name.clone());
        if spec.r#type == "local" {
            continue;
        }
        let peer = spec.options.get("peer").and_then(|peer| specs.get(peer.as_str()));
        if let Some(peer) = peer {
            // Of two ports that are joined, the first draws the link.
            if name <= peer.name {
                let ports = [Some(name.clone()), Some(peer.name.clone())];
                links.push(Edge {
                    name,
                    kind: Join::Trunk,
                    ends: [bridge, peer.bridge.clone()],
                    label: String::new(),
                    ports,
                });
            }
            continue;
        }
        let remote = spec.options.get("remote_ip");
        let (kind, join) = match remote {
            Some(_) => (NodeKind::Remote, Join::Tunnel),
            None => (NodeKind::Host, Join::Host),
        };
        // A port may be called like a bridge.
        let far = remote.unwrap_or(&name);
        let far = if bridges.contains(far.as_str()) { format!("{far} ({})", spec.r#type) } else { far.clone() };
        if !nodes.iter().any(|node| node.name == far) {
            let macs = Vec::from_iter(Some(port.mac.clone()).filter(|mac| !mac.is_empty()));
            let addresses = remote.into_iter().cloned().collect();
            nodes.push(Node { macs, addresses, ..node(&far, kind) });
        }
        let label = vlan(spec);
        links.push(Edge { name: name.clone(), kind: join, ends: [bridge, far], label, ports: [Some(name), None] });
    }
    Drawing { title: "switch".to_owned(), lab: None, nodes, links, rules: Vec::new() }
}

/// The VLAN of an access port.
fn vlan(spec: &PortSpec) -> String {
    use sluice_proto::v1::port_vlan::Mode;
    match &spec.vlan {
        Some(vlan) if vlan.mode() == Mode::Access => format!("vlan {}", vlan.tag),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_are_joined_by_patches_and_ports_lead_to_what_is_behind_them() {
        let port = |bridge: &str, name: &str, kind: &str, option: Option<(&str, &str)>| Port {
            spec: Some(PortSpec {
                bridge: bridge.to_owned(),
                name: name.to_owned(),
                r#type: kind.to_owned(),
                options: option.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                ..PortSpec::default()
            }),
            ..Port::default()
        };
        let drawing = draw(&[
            port("br0", "br0", "local", None),
            port("br0", "tap1", "tap", None),
            port("br0", "br1", "tap", None),
            port("br0", "p0", "patch", Some(("peer", "p1"))),
            port("br1", "p1", "patch", Some(("peer", "p0"))),
            port("br1", "vx0", "vxlan", Some(("remote_ip", "192.0.2.9"))),
        ]);
        let nodes: Vec<_> = drawing.nodes.iter().map(|node| (node.name.as_str(), node.kind)).collect();
        assert_eq!(nodes[..2], [("br0", NodeKind::Switch), ("br1", NodeKind::Switch)]);
        assert_eq!(nodes[2..4], [("tap1", NodeKind::Host), ("br1 (tap)", NodeKind::Host)]);
        assert_eq!(nodes[4..], [("192.0.2.9", NodeKind::Remote)]);
        let links: Vec<_> = drawing.links.iter().map(|l| (l.name.as_str(), l.kind, l.ends[1].as_str())).collect();
        let expected = [
            ("tap1", Join::Host, "tap1"),
            ("br1", Join::Host, "br1 (tap)"),
            ("p0", Join::Trunk, "br1"),
            ("vx0", Join::Tunnel, "192.0.2.9"),
        ];
        assert_eq!(links, expected);
    }
}
