//! What the API server has, asked without kubectl, which costs a third of a second of a processor: tests ask hundreds of times.

use crate::cluster::{Cluster, SYSTEM};
use serde_json::Value;
use sluice_tests::netns::Netns;
use std::fs;
use std::process::Command;

/// Where objects of the namespace `default` are.
const DEFAULT: &str = "/api/v1/namespaces/default";

impl Cluster {
    /// An object, or a list of them, by its path at the API server, such as `/api/v1/nodes/node-1`.
    pub(crate) fn get(&self, path: &str) -> Value {
        let folder = self.folder();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let (first, tokens, config) = (read("control.first"), read("tokens.csv"), read("admin.kubeconfig"));
        let process = first.split_whitespace().next().unwrap();
        // The first user is the administrator.
        let bearer = format!("Authorization: Bearer {}", tokens.split(',').next().unwrap());
        let server = config.split('"').find(|word| word.starts_with("https://")).unwrap();
        let authority = folder.join("control/certs/apiserver.crt");
        let mut command = Command::new("nsenter");
        command.args(["--target", process, "--net", "--", "curl", "-sSg", "-m", "20", "--fail-with-body"]);
        command.args(["-H", &bearer, "--cacert"]).arg(authority).arg(format!("{server}{path}"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "GET {path}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("GET {path}: {error}: {text}"))
    }

    /// A Pod of the namespace `default`.
    pub(crate) fn pod(&self, pod: &str) -> Value {
        self.get(&format!("{DEFAULT}/pods/{pod}"))
    }

    /// A Service of the namespace `default`.
    pub(crate) fn service(&self, service: &str) -> Value {
        self.get(&format!("{DEFAULT}/services/{service}"))
    }

    /// A Pod's addresses, one of each family: IPv4, then IPv6.
    pub(crate) fn addresses(&self, pod: &str) -> Vec<String> {
        texts(&self.pod(pod), "/status/podIPs", "/ip")
    }

    /// A Service's addresses, one of each family: IPv4, then IPv6.
    pub(crate) fn cluster_ips(&self, service: &str) -> Vec<String> {
        texts(&self.service(service), "/spec/clusterIPs", "")
    }

    /// The networks of a node's Pods, one of each family: IPv4, then IPv6.
    pub(crate) fn pod_cidrs(&self, node: &str) -> Vec<String> {
        texts(&self.get(&format!("/api/v1/nodes/{node}")), "/spec/podCIDRs", "")
    }

    /// Sluice's Pod on a node; null if there is none.
    fn agent_of(&self, node: &str) -> Value {
        let mut list = self.get(&format!("/api/v1/namespaces/{SYSTEM}/pods?fieldSelector=spec.nodeName%3D{node}&labelSelector=app.kubernetes.io%2Fname%3Dsluice"));
        list.pointer_mut("/items/0").map(Value::take).unwrap_or_default()
    }

    /// The Pod of Sluice on a node, as `kubectl` names it; empty if there is none.
    pub(crate) fn agent(&self, node: &str) -> String {
        self.agent_of(node)
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .map_or_else(String::new, |n| format!("pod/{n}"))
    }

    /// How often a container of Sluice's Pod on a node was started again.
    pub(crate) fn restarts(&self, node: &str, container: &str) -> u32 {
        let agent = self.agent_of(node);
        let containers = agent.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
        let mut found = containers.filter(|one| one["name"] == container);
        let count = found.find_map(|one| u32::try_from(one["restartCount"].as_u64()?).ok());
        count.unwrap_or_else(|| panic!("no {container} on {node}: {agent}"))
    }

    /// The network of a Pod of the namespace `default`.
    pub(crate) fn netns_of(&self, pod: &str) -> Netns {
        self.netns_in("default", pod)
    }

    /// The network of a Pod.
    pub(crate) fn netns_in(&self, namespace: &str, pod: &str) -> Netns {
        let object = self.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"));
        let group = format!("/pod{}/", object["metadata"]["uid"].as_str().unwrap());
        let mut numbers =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_inside = |number: &u32| {
            fs::read_to_string(format!("/proc/{number}/cgroup")).is_ok_and(|groups| groups.contains(&group))
        };
        numbers
            .find_map(|number| is_inside(&number).then(|| Netns::of_process(number).ok())?)
            .unwrap_or_else(|| panic!("{pod} has no process"))
    }
}

/// Texts in each member of a list.
fn texts(object: &Value, list: &str, text: &str) -> Vec<String> {
    let members = object.pointer(list).and_then(Value::as_array).into_iter().flatten();
    members.filter_map(|member| member.pointer(text)?.as_str().map(str::to_owned)).collect()
}
