//! The node as the cluster and the host have it: all that is known before the switch is asked.

use super::host::HostAddress;
use super::transport::{Route, Transport, all_addresses, pod_cidrs, reported};
use crate::config::{Config, Mode, NodePortAddresses};
use crate::facts::Peer;
use crate::services::{Here, ZONE_LABEL};
use crate::watch::Store;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// What the host has at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Its addresses, but those of the bridge's interface.
    pub(super) addresses: Vec<HostAddress>,
    /// The MTU of each interface with an address.
    pub(super) mtus: BTreeMap<String, u16>,
}

impl Host {
    /// Looks.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn look(bridge: &str) -> std::io::Result<Self> {
        let mut addresses = super::host::addresses()?;
        addresses.retain(|there| there.interface != bridge);
        let mtus = addresses.iter().map(|there| (there.interface.clone(), super::host::mtu(&there.interface)));
        Ok(Self { mtus: mtus.collect(), addresses })
    }
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// The networks of the node's Pods.
    pub(super) pod_cidrs: Vec<IpNet>,
    /// How the node reaches others.
    pub(super) transport: Transport,
    /// Of Pods' interfaces, in bytes.
    pub(super) mtu: u16,
    /// The addresses of the host.
    pub(super) addresses: Vec<IpAddr>,
    /// Those of them that the cluster knows it by.
    pub(super) known: Vec<IpAddr>,
    /// The host's addresses that answer to node ports, by family (`true` for IPv6); of a family that is not here, all.
    pub(super) node_port_addresses: BTreeMap<bool, BTreeSet<IpAddr>>,
    /// The networks of Services' addresses.
    pub(super) service_cidrs: Vec<IpNet>,
    /// The zone of the node.
    pub(super) zone: Option<String>,
    /// Every other node.
    pub(super) peers: BTreeMap<String, Peer>,
    /// The routes of the host that lead to their Pods.
    pub(super) routes: BTreeSet<Route>,
    /// Whether load balancers may send connections here.
    pub(super) is_eligible: bool,
}

/// The Service that every cluster has.
const API_SERVICE: &str = "default/kubernetes";

/// Whether the networks of Services can be those of the cluster: apart from the node's Pods, and with the API server's Service.
fn fits(service_cidrs: &[IpNet], pod_cidrs: &[IpNet], store: &Store) -> Result<(), String> {
    const MEND: &str = "service_cidrs in the configuration has to be what kube-apiserver has as --service-cluster-ip-range, \
                        and may be left out where the cluster lists ServiceCIDRs";
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    for service in service_cidrs {
        if let Some(pods) = pod_cidrs.iter().find(|pods| overlap(pods, service)) {
            return Err(format!("the Services' network {service} overlaps the podCIDR {pods} of this node; {MEND}"));
        }
    }
    let api = store.service(API_SERVICE).and_then(|(service, _)| service.spec.clone()?.cluster_ip);
    let Some(api) = api.and_then(|text| text.parse::<IpAddr>().ok()) else { return Ok(()) };
    if service_cidrs.is_empty() || service_cidrs.iter().any(|cidr| cidr.contains(&api)) {
        return Ok(());
    }
    Err(format!(
        "the Service {API_SERVICE} has {api}, which is in none of the Services' networks {service_cidrs:?}; {MEND}"
    ))
}

/// Which addresses of the host answer to node ports, by family.
fn node_port_addresses(kept: &NodePortAddresses, host: &[HostAddress], own: &Node) -> BTreeMap<bool, BTreeSet<IpAddr>> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut by_family: BTreeMap<bool, BTreeSet<IpAddr>> = BTreeMap::new();
    match kept {
        NodePortAddresses::All => {}
        NodePortAddresses::Primary => {
            for address in reported(own) {
                let of_family = by_family.entry(address.is_ipv6()).or_default();
                if of_family.is_empty() {
                    of_family.insert(address);
                }
            }
        }
        NodePortAddresses::Networks(networks) => {
            for network in networks {
                let of_family = by_family.entry(network.addr().is_ipv6()).or_default();
                let all = host.iter().map(|there| there.address.addr()).chain([loopback]);
                of_family.extend(all.filter(|address| network.contains(address)));
            }
        }
    }
    by_family
}

impl View {
    /// Looks at what is listed.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(super) fn find(name: &str, store: &Store, host: &Host, config: &Config) -> Result<Self, String> {
        let own = store.node(name).ok_or_else(|| {
            format!("the cluster has no Node {name}; set NODE_NAME to what `kubectl get nodes` calls this node")
        })?;
        let cidrs = pod_cidrs(&own);
        if cidrs.is_empty() {
            return Err(format!(
                "Node {name} has no podCIDR; kube-controller-manager gives them with --allocate-node-cidrs and --cluster-cidr"
            ));
        }
        if let Some(small) = cidrs.iter().find(|cidr| super::transport::gateway(cidr).is_none()) {
            return Err(format!("the podCIDR {small} of Node {name} is too small for Pods and a gateway"));
        }
        let transport = Transport::find(&own, &host.addresses, config)?;
        let link = transport.interface.as_ref().and_then(|(name, _)| host.mtus.get(name)).copied();
        let mtu = transport.mtu(link.unwrap_or_else(|| super::host::mtu("")), config);
        let mut service_cidrs = config.service_cidrs.clone();
        if service_cidrs.is_empty() {
            service_cidrs = store.service_cidrs();
        }
        fits(&service_cidrs, &cidrs, store)?;
        let addresses: Vec<_> = host.addresses.iter().map(|there| there.address.addr()).collect();
        let mut view = Self {
            pod_cidrs: cidrs,
            mtu,
            known: all_addresses(&own).filter(|address| addresses.contains(address)).collect(),
            addresses,
            node_port_addresses: node_port_addresses(&config.node_port_addresses, &host.addresses, &own),
            service_cidrs,
            zone: own.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL)).cloned(),
            peers: BTreeMap::new(),
            routes: BTreeSet::new(),
            is_eligible: crate::services::health::is_eligible(&own),
            transport,
        };
        view.routes.extend(view.service_cidrs.iter().map(|cidr| Route { to: *cidr, via: None }));
        for other in store.node_names() {
            let Some(node) = store.node(&other).filter(|_| other != name) else { continue };
            let (peer, routes) = view.transport.peer(&other, &node, config);
            view.routes.extend(routes);
            view.peers.insert(other, peer);
        }
        Ok(view)
    }

    /// What Services have to know of the node. What only the switch knows is not there yet.
    pub(super) fn here(&self, name: &str) -> Here {
        let gateways = self.pod_cidrs.iter().filter_map(super::transport::gateway).map(|net| net.addr());
        Here {
            node: name.to_owned(),
            zone: self.zone.clone(),
            addresses: self.addresses.iter().copied().chain(gateways).collect(),
            node_port_addresses: self.node_port_addresses.clone(),
            other_nodes: self.peers.values().flat_map(|peer| &peer.addresses).copied().collect(),
            ..Here::default()
        }
    }

    /// Whether there is a tunnel.
    pub(super) fn has_tunnel(&self, config: &Config) -> bool {
        config.mode != Mode::NoEncap
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Objects;
    use serde_json::json;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn node_ports_are_at_the_addresses_that_are_asked_for() {
        let at = |text: &str| HostAddress { interface: "eth0".to_owned(), address: text.parse().unwrap() };
        let host = ["192.0.2.1/24", "198.51.100.1/24", "2001:db8::1/64"].map(at);
        let address = |text: &str| json!({"type": "InternalIP", "address": text});
        let addresses = ["192.0.2.1", "198.51.100.1", "2001:db8::1"].map(address);
        let node: Node = serde_json::from_value(json!({"status": {"addresses": addresses}})).unwrap();
        let of = |kept: &NodePortAddresses| {
            let by_family = node_port_addresses(kept, &host, &node);
            let text =
                |(v6, all): (bool, BTreeSet<IpAddr>)| (v6, all.iter().map(ToString::to_string).collect::<Vec<_>>());
            by_family.into_iter().map(text).collect::<Vec<_>>()
        };
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(of(&NodePortAddresses::All), []);
        let primary = [(false, list(&["192.0.2.1"])), (true, list(&["2001:db8::1"]))];
        assert_eq!(of(&NodePortAddresses::Primary), primary);
        for (networks, wanted) in [
            (&["198.51.100.0/24"][..], vec![(false, list(&["198.51.100.1"]))]),
            (&["192.0.0.0/8", "127.0.0.0/8"], vec![(false, list(&["127.0.0.1", "192.0.2.1"]))]),
            (&["203.0.113.0/24", "::/0"], vec![(false, list(&[])), (true, list(&["2001:db8::1"]))]),
        ] {
            assert_eq!(of(&NodePortAddresses::Networks(nets(networks))), wanted, "{networks:?}");
        }
    }

    #[test]
    fn networks_of_services_that_cannot_be_the_clusters_are_told() {
        let store = Store::default();
        let api =
            json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1"}});
        store.preload(Objects { services: vec![serde_json::from_value(api).unwrap()], ..Objects::default() });
        let pods = nets(&["10.244.1.0/24", "fd00:244:0:1::/64"]);
        for good in [&[][..], &["10.96.0.0/16"], &["10.96.0.0/12", "fd00:96::/112"]] {
            assert_eq!(fits(&nets(good), &pods, &store), Ok(()), "{good:?}");
        }
        for (bad, wanted) in [
            (&["10.244.0.0/16"][..], "the Services' network 10.244.0.0/16 overlaps the podCIDR 10.244.1.0/24"),
            (&["10.96.0.0/16", "fd00:244::/48"], "fd00:244::/48 overlaps the podCIDR fd00:244:0:1::/64"),
            (&["10.97.0.0/16"], "the Service default/kubernetes has 10.96.0.1, which is in none of"),
        ] {
            let text = fits(&nets(bad), &pods, &store).unwrap_err();
            assert!(text.contains(wanted) && text.contains("--service-cluster-ip-range"), "{text}");
        }
        assert_eq!(fits(&nets(&["10.97.0.0/16"]), &pods, &Store::default()), Ok(()), "nothing is known of the cluster");
    }
}
