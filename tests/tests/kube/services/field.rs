//! What tests of Services have in common: Pods on two nodes that ask and answer, and the ways to make Services of them. The Pods and
//! their servers are made once for a cluster.

use super::place::{Place, Server};
use crate::cluster::Cluster;
use std::net::SocketAddr;

/// Clients `ask1` and `ask2`; endpoints `e1`, `e3` on the first node, `e2`, `e4` on the second. The ports of `e4` have other numbers.
const PODS: [(&str, &str, u16, u16); 6] = [
    ("ask1", "node-1", 8080, 5353),
    ("ask2", "node-2", 8080, 5353),
    ("e1", "node-1", 8080, 5353),
    ("e2", "node-2", 8080, 5353),
    ("e3", "node-1", 8080, 5353),
    ("e4", "node-2", 8081, 5354),
];
/// All endpoints.
pub(crate) const ENDPOINTS: [&str; 4] = ["e1", "e2", "e3", "e4"];

/// Ports of a Service: TCP and UDP, by name.
pub(crate) const PORTS: &str =
    "[{name: web, port: 80, targetPort: web}, {name: dns, port: 80, protocol: UDP, targetPort: dns}]";
/// Both families.
pub(crate) const DUAL: &str = "ipFamilyPolicy: PreferDualStack";

/// The Pods that ask, and others who do; the endpoints have servers.
pub(crate) struct Field<'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) c1: Place,
    pub(crate) c2: Place,
    pub(crate) node1: Place,
    pub(crate) node2: Place,
    pub(crate) outside: Place,
}

/// What all tests of a cluster share: they are made by the first one that needs them.
pub(crate) struct Parts {
    places: [Place; 5],
    _servers: Vec<Server>,
}

/// A Pod that does nothing.
pub(crate) fn pod(name: &str, node: &str, labels: &str, web: u16, dns: u16, more: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
    - name: tools
      image: localhost/toolbox:1
      imagePullPolicy: IfNotPresent
      command: [sleep, '100000']
      ports: [{{name: web, containerPort: {web}}}, {{name: dns, containerPort: {dns}, protocol: UDP}}]
{more}"
    )
}

impl Parts {
    fn make(cluster: &Cluster) -> Self {
        let label = |name: &str| {
            if name.starts_with('e') { format!("field: 'yes', me: {name}") } else { "field: 'no'".to_owned() }
        };
        let pods: String =
            PODS.iter().map(|(name, node, web, dns)| pod(name, node, &label(name), *web, *dns, "")).collect();
        cluster.apply(&pods);
        let names: Vec<String> = PODS.iter().map(|(name, ..)| format!("pod/{name}")).collect();
        let wait =
            ["wait", "--for=condition=Ready", "--timeout=60s"].into_iter().chain(names.iter().map(String::as_str));
        cluster.kubectl(&wait.collect::<Vec<_>>());
        let servers = PODS[2..].iter().map(|(name, _, web, dns)| serve(cluster, name, *web, *dns));
        let nodes = ["node-1", "node-2", "control"].map(|node| Place::node(cluster, node));
        let [node1, node2, outside] = nodes;
        let places = [Place::pod(cluster, "ask1"), Place::pod(cluster, "ask2"), node1, node2, outside];
        Self { places, _servers: servers.collect() }
    }
}

impl<'c> Field<'c> {
    pub(crate) fn of(cluster: &'c Cluster) -> Self {
        let [c1, c2, node1, node2, outside] = cluster.field.get_or_init(|| Parts::make(cluster)).places.clone();
        Self { cluster, c1, c2, node1, node2, outside }
    }

    /// Everybody who asks.
    pub(crate) fn everybody(&self) -> [&Place; 5] {
        [&self.outside, &self.c1, &self.c2, &self.node1, &self.node2]
    }

    /// Those who are of the cluster.
    pub(crate) fn insiders(&self) -> [&Place; 4] {
        [&self.c1, &self.c2, &self.node1, &self.node2]
    }

    /// Addresses of both families, as far as the cluster has them.
    pub(crate) fn of_families(&self, [v4, v6]: [&'static str; 2]) -> Vec<&'static str> {
        self.cluster.of_families(v4, v6)
    }

    /// Makes or changes a Service of both families, whose `spec` has what is given. Lines of it are indented by two.
    pub(crate) fn service(&self, name: &str, spec: &str) {
        let head = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  {DUAL}\n");
        self.cluster.apply(&format!("{head}{spec}\n"));
    }

    /// The Service's own addresses, with a port.
    pub(crate) fn at(&self, name: &str, port: u16) -> Vec<SocketAddr> {
        with_port(&self.cluster.cluster_ips(name), port)
    }

    /// Where its ports are at the nodes: the TCP one of the name `web`, or the UDP one of `dns`.
    pub(crate) fn node_port(&self, name: &str, port: &str) -> u16 {
        let service = self.cluster.service(name);
        let mut ports = service["spec"]["ports"].as_array().unwrap().iter();
        let number = ports.find(|one| one["name"] == port).and_then(|one| one["nodePort"].as_u64());
        number
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or_else(|| panic!("{name} has no {port}: {service}"))
    }

    /// The addresses of a node outside, with a port.
    pub(crate) fn at_node(&self, node: &str, port: u16) -> Vec<SocketAddr> {
        with_port(&self.cluster.outside_addresses(node), port)
    }

    /// Sends what goes to addresses outside the cluster by a node.
    pub(crate) fn route(&self, addresses: &[&str], node: &str) {
        for address in addresses {
            let v6 = address.contains(':');
            let hops = self.cluster.outside_addresses(node);
            let via = hops.iter().find(|hop| hop.contains(':') == v6).unwrap();
            self.cluster.node("control", &["ip", "route", "replace", address, "via", via]);
        }
    }

    /// Gives a load balancer's Service its addresses.
    pub(crate) fn balance(&self, name: &str, addresses: &[&str]) {
        let ingress: Vec<String> = addresses.iter().map(|address| format!("{{\"ip\":\"{address}\"}}")).collect();
        let patch = format!("{{\"status\":{{\"loadBalancer\":{{\"ingress\":[{}]}}}}}}", ingress.join(","));
        self.cluster.kubectl(&["patch", "service", name, "--subresource=status", "--type=merge", "-p", &patch]);
    }

    /// Takes away what a test has made.
    pub(crate) fn delete(&self, objects: &[&str]) {
        self.cluster.kubectl(&[&["delete", "--wait=false", "--ignore-not-found"][..], objects].concat());
    }
}

/// Servers in a Pod, at its ports of these numbers.
pub(crate) fn serve(cluster: &Cluster, pod: &str, web: u16, dns: u16) -> Server {
    let addresses = cluster.addresses(pod);
    Server::start(&Place::pod(cluster, pod), pod, &with_port(&addresses, web), &with_port(&addresses, dns))
}

/// Addresses, with a port.
pub(crate) fn with_port<T: AsRef<str>>(addresses: &[T], port: u16) -> Vec<SocketAddr> {
    addresses.iter().map(|address| SocketAddr::new(address.as_ref().parse().unwrap(), port)).collect()
}
