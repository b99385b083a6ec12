//! Nodes that come, change their addresses, and go. The tests build on each other: it is one node that does all three.

use crate::cluster::{Cluster, within};
use crate::pods::{ask, ask_from, make_server, servers};
use crate::services::place::Place;

/// The node that comes, and the Pod on it.
const NODE: &str = "node-4";
const POD: &str = "d1";
/// What its addresses end in after the move.
const NUMBER: &str = "50";

/// The Pod, and the node's host, reach all others, and are reached.
fn reached(cluster: &Cluster) {
    let addresses = cluster.addresses(POD);
    for pod in servers(cluster) {
        for (address, own) in addresses.iter().zip(cluster.addresses(pod)) {
            within(60, &format!("{pod} to reach {POD}"), || match ask(cluster, pod, address, 80)? {
                (name, seen) if name == POD && seen == own => Ok(()),
                other => Err(format!("{other:?}")),
            });
            within(60, &format!("{POD} to reach {pod}"), || match ask(cluster, POD, &own, 80)? {
                (name, seen) if name == pod && seen == *address => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
    for node in cluster.nodes.iter().map(String::as_str).chain([NODE]) {
        let place = Place::node(cluster, node);
        for address in &addresses {
            within(30, "hosts to reach the Pod", || ask_from(&place, address, 80).map(drop));
        }
    }
    let outside = Place::node(cluster, "control");
    for address in cluster.outside_addresses(NODE) {
        within(30, "the node's port to answer", || ask_from(&outside, &address, 30_080).map(drop));
    }
}

pub(crate) fn added(cluster: &Cluster) {
    assert_eq!(cluster.add(), NODE);
    cluster.await_agents();
    make_server(cluster, POD, NODE);
    reached(cluster);
}

pub(crate) fn moved(cluster: &Cluster) {
    let before = cluster.outside_addresses(NODE);
    cluster.move_node(NODE, NUMBER);
    let now = cluster.outside_addresses(NODE);
    assert!(before.iter().all(|address| !now.contains(address)), "{before:?} {now:?}");
    let path = "{.status.addresses[?(@.type==\"InternalIP\")].address}";
    within(60, "the kubelet to tell the new addresses", || {
        let told = cluster.jsonpath(&["node", NODE], path);
        if told == now { Ok(()) } else { Err(format!("{told:?}, not {now:?}")) }
    });
    reached(cluster);
}

pub(crate) fn removed(cluster: &Cluster) {
    let cidrs = cluster.pod_cidrs(NODE);
    cluster.remove_node(NODE);
    for node in &cluster.nodes {
        within(30, "routes and flows of the node to go", || {
            let routes = cluster.node(node, &["sh", "-c", "ip route; ip -6 route"]);
            let flows = cluster.sluice(node, &["flows", "dump"]);
            assert!(flows.good, "{}", flows.text);
            let left: Vec<_> =
                cidrs.iter().filter(|cidr| routes.contains(*cidr) || flows.text.contains(*cidr)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{node} has {left:?}")) }
        });
    }
    cluster.kubectl(&["delete", "pod", POD, "--force", "--grace-period=0", "--ignore-not-found"]);
    cluster.await_agents();
}
