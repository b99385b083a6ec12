//! Where things of the cluster are: the Pods of Sluice by node, and other Pods by name.

use super::error::failed;
use super::{Cluster, DAEMON_SET, NAME_LABEL, NAMESPACE, nobody, runtime};
use crate::failure::Failure;
use crate::output::Exit;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::Api;
use kube::api::ListParams;
use std::net::IpAddr;

/// A node with a Pod of Sluice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The node's name.
    pub(crate) node: String,
    /// The Pod's name.
    pub(crate) pod: String,
    /// The node's addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Why nothing can be run in it; empty if something can.
    pub(crate) fault: String,
    /// Containers beside the switch's that do not run, and why.
    pub(crate) beside: Vec<(String, String)>,
    /// The image that the switch's container runs, by its digest.
    pub(crate) image: String,
}

/// A node, whether Sluice is on it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeState {
    /// Its name.
    pub(crate) name: String,
    /// Why it is not Ready; empty if it is.
    pub(crate) unready: String,
}

/// Where a Pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodPlace {
    /// The node's name.
    pub(crate) node: String,
    /// The Pod's addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it has the node's own addresses.
    pub(crate) host_network: bool,
}

impl Member {
    /// The Pod, if something can be run in it.
    ///
    /// # Errors
    /// [`Exit::NoDaemon`] with why not.
    pub(crate) fn ready(&self) -> Result<&Self, Failure> {
        if self.fault.is_empty() {
            return Ok(self);
        }
        Err(Failure::new(format!("the switch of node {} does not run: {}", self.node, self.fault))
            .next(format!("kubectl -n {NAMESPACE} describe pod {}", self.pod))
            .exit(Exit::NoDaemon))
    }

    fn of(pod: Pod) -> Option<Self> {
        let status = pod.status.unwrap_or_default();
        let node = pod.spec.and_then(|spec| spec.node_name)?;
        let containers = || status.container_statuses.iter().flatten();
        let container = containers().find(|c| c.name == super::CONTAINER);
        let phase = status.phase.clone().unwrap_or_else(|| "it has not started".to_owned());
        let fault = container.map_or(Some(phase.clone()), |c| halted(c, &phase)).unwrap_or_default();
        let others = containers().filter(|c| c.name != super::CONTAINER);
        let beside = others.filter_map(|c| Some((c.name.clone(), halted(c, &phase)?))).collect();
        let image = container.map(|c| c.image_id.clone()).unwrap_or_default();
        let addresses = status.host_ips.iter().flatten().map(|ip| ip.ip.clone()).chain(status.host_ip);
        let mut addresses: Vec<IpAddr> = addresses.filter_map(|ip| ip.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        Some(Self { node, pod: pod.metadata.name.unwrap_or_default(), addresses, fault, beside, image })
    }

    #[cfg(test)]
    pub(crate) fn named(node: &str) -> Self {
        let (pod, fault, image) = Default::default();
        Self { node: node.to_owned(), pod, addresses: Vec::new(), fault, beside: Vec::new(), image }
    }
}

/// Why a container does not run; none if it does.
fn halted(container: &ContainerStatus, phase: &str) -> Option<String> {
    let state = container.state.clone().unwrap_or_default();
    match (state.running, state.waiting, state.terminated) {
        (Some(_), ..) => None,
        (_, Some(waiting), _) => Some(waiting.reason.unwrap_or_else(|| "it waits".to_owned())),
        (_, _, Some(ended)) => Some(format!("it ended with {}", ended.exit_code)),
        _ => Some(phase.to_owned()),
    }
}

impl NodeState {
    fn of(node: Node) -> Self {
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let unready = match ready {
            Some(ready) if ready.status == "True" => String::new(),
            Some(ready) => ready.message.or(ready.reason).unwrap_or_else(|| "it does not say why".to_owned()),
            None => "its kubelet has said nothing yet".to_owned(),
        };
        Self { name: node.metadata.name.unwrap_or_default(), unready }
    }
}

impl Cluster {
    /// All nodes, sorted by name; none for who may not list them.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(crate) fn nodes(&self) -> Result<Option<Vec<NodeState>>, Failure> {
        runtime()?.block_on(async {
            match Api::<Node>::all(self.kube()?).list(&ListParams::default()).await {
                Ok(list) => {
                    let mut nodes: Vec<_> = list.items.into_iter().map(NodeState::of).collect();
                    nodes.sort_by(|a, b| a.name.cmp(&b.name));
                    Ok(Some(nodes))
                }
                Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
                Err(e) => Err(failed(&self.server(), "list the nodes", "list nodes", e)),
            }
        })
    }

    /// The nodes with a Pod of Sluice, sorted by name. Of two Pods on a node, as while one is replaced, the one that runs.
    ///
    /// # Errors
    /// [`Exit::NoDaemon`] if there are none, [`Exit::NoPrivilege`] without the right to list them.
    pub(crate) fn members(&self) -> Result<Vec<Member>, Failure> {
        let list = runtime()?.block_on(async {
            let pods = Api::<Pod>::namespaced(self.kube()?, NAMESPACE);
            let selector = ListParams::default().labels(&format!("{NAME_LABEL}={DAEMON_SET}"));
            pods.list(&selector).await.map_err(|e| {
                let what = "list the Pods of Sluice";
                failed(&self.server(), what, &format!("get and list pods in {NAMESPACE}"), e)
            })
        })?;
        let mut members: Vec<_> = list.items.into_iter().filter(is_daemon).filter_map(Member::of).collect();
        members.sort_by(|a, b| (&a.node, !a.fault.is_empty(), &a.pod).cmp(&(&b.node, !b.fault.is_empty(), &b.pod)));
        members.dedup_by(|b, a| a.node == b.node);
        if members.is_empty() { Err(nobody()) } else { Ok(members) }
    }

    /// The node of the Pod with an address of the Pods' network; `None` if there is none.
    ///
    /// # Errors
    /// The API server does not answer. Who may not list Pods is told of none.
    pub(crate) fn node_with_pod(&self, address: IpAddr) -> Result<Option<String>, Failure> {
        let list = runtime()?.block_on(async {
            let selector = ListParams::default().fields(&format!("status.podIP={address}"));
            match Api::<Pod>::all(self.kube()?).list(&selector).await {
                Ok(list) => Ok(list.items),
                Err(kube::Error::Api(status)) if status.code == 403 => Ok(Vec::new()),
                Err(e) => Err(failed(&self.server(), "find the Pod by its address", "list pods", e)),
            }
        })?;
        let place = list.into_iter().filter_map(place).find(|place| !place.host_network);
        Ok(place.map(|place| place.node))
    }

    /// Where the Pod is; `None` if there is none of this name, or it has no address yet.
    ///
    /// # Errors
    /// [`Exit::NoPrivilege`] without the right to read it.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodPlace>, Failure> {
        let pod = runtime()?.block_on(async {
            let pods = Api::<Pod>::namespaced(self.kube()?, namespace);
            pods.get_opt(name).await.map_err(|e| {
                let what = format!("read the Pod {namespace}/{name}");
                failed(&self.server(), &what, &format!("get pods in {namespace}"), e)
            })
        })?;
        Ok(pod.and_then(place))
    }
}

fn place(pod: Pod) -> Option<PodPlace> {
    let spec = pod.spec?;
    let status = pod.status?;
    let addresses = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).chain(status.pod_ip);
    let mut addresses: Vec<IpAddr> = addresses.filter_map(|ip| ip.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    let host_network = spec.host_network.unwrap_or(false);
    (!addresses.is_empty()).then(|| PodPlace { node: spec.node_name.unwrap_or_default(), addresses, host_network })
}

/// Whether a Pod is one of the DaemonSet's, and not another part of Sluice with the same label.
fn is_daemon(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.containers.iter().any(|c| c.name == super::CONTAINER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_pod_whose_container_waits_is_no_switch_to_ask() {
        let member = Member::of(pod(serde_json::json!({
            "metadata": {"name": "sluice-x"},
            "spec": {"nodeName": "node-1", "containers": [{"name": "sluiced"}]},
            "status": {"hostIP": "172.30.0.11", "hostIPs": [{"ip": "172.30.0.11"}, {"ip": "fd00:30::11"}],
                "containerStatuses": [{"name": "sluiced", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
        })))
        .unwrap();
        assert_eq!(member.addresses.len(), 2);
        assert!(member.beside.is_empty());
        let failure = member.ready().unwrap_err();
        assert_eq!(failure.exit_code(), Exit::NoDaemon);
        assert!(failure.to_string().contains("CrashLoopBackOff"), "{failure}");
    }

    #[test]
    fn a_container_beside_the_switch_that_does_not_run_is_told() {
        let state = |name: &str, state: serde_json::Value| serde_json::json!({"name": name, "image": "", "imageID": "sha256:1", "ready": false, "restartCount": 1, "state": state});
        let member = Member::of(pod(serde_json::json!({
            "spec": {"nodeName": "node-1", "containers": [{"name": "sluiced"}, {"name": "node"}]},
            "status": {"containerStatuses": [state("sluiced", serde_json::json!({"running": {}})),
                state("node", serde_json::json!({"terminated": {"exitCode": 2}}))]},
        })))
        .unwrap();
        assert!(member.ready().is_ok());
        assert_eq!(member.beside, [("node".to_owned(), "it ended with 2".to_owned())]);
        assert_eq!(member.image, "sha256:1");
    }

    #[test]
    fn a_node_whose_kubelet_is_silent_is_not_ready() {
        let node = |status: &str| {
            let condition =
                serde_json::json!({"type": "Ready", "status": status, "message": "Kubelet stopped posting"});
            let json = serde_json::json!({"metadata": {"name": "n"}, "status": {"conditions": [condition]}});
            NodeState::of(serde_json::from_value(json).unwrap())
        };
        assert_eq!(node("True").unready, "");
        assert_eq!(node("Unknown").unready, "Kubelet stopped posting");
    }

    #[test]
    fn a_pod_without_an_address_is_nowhere() {
        let none = pod(serde_json::json!({"spec": {"nodeName": "n", "containers": []}, "status": {}}));
        assert_eq!(place(none), None);
        let some = pod(serde_json::json!({
            "spec": {"nodeName": "n", "containers": []}, "status": {"podIP": "10.244.1.2", "podIPs": [{"ip": "10.244.1.2"}]},
        }));
        let want =
            PodPlace { node: "n".to_owned(), addresses: vec!["10.244.1.2".parse().unwrap()], host_network: false };
        assert_eq!(place(some), Some(want));
    }
}
