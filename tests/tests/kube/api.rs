//! The API server without kubectl, which costs a third of a second of a processor for each word: tests say hundreds.

use crate::cluster::{Cluster, SYSTEM};
use serde_json::{Value, json};
use sluice_tests::netns::Netns;
use sluice_tests::policy::Key;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// Where objects of the namespace `default` are.
const DEFAULT: &str = "/api/v1/namespaces/default";

impl Cluster {
    /// An object, or a list of them, by its path at the API server, such as `/api/v1/nodes/node-1`.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.request("GET", path, None)
    }

    /// Makes an object what this says, whatever it was.
    pub(crate) fn put(&self, object: &Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (object["kind"].as_str().unwrap().to_owned(), text("namespace"), text("name"));
        let path = format!("{}?fieldManager=tests&force=true", path(&key, object["apiVersion"].as_str()));
        self.request("PATCH", &path, Some(("application/apply-patch+yaml", object)));
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, key: &Key) {
        self.request("DELETE", &path(key, None), None);
    }

    /// Sets labels of an object, and takes away those that are null.
    pub(crate) fn label(&self, key: &Key, labels: &Value) {
        let change = json!({"metadata": {"labels": labels}});
        self.request("PATCH", &path(key, None), Some(("application/merge-patch+json", &change)));
    }

    /// What the API server answers, which is well.
    fn request(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Value {
        let folder = self.folder();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let (first, tokens, config) = (read("control.first"), read("tokens.csv"), read("admin.kubeconfig"));
        let process = first.split_whitespace().next().unwrap();
        // The first user is the administrator.
        let bearer = format!("Authorization: Bearer {}", tokens.split(',').next().unwrap());
        let server = config.split('"').find(|word| word.starts_with("https://")).unwrap();
        let authority = folder.join("control/certs/apiserver.crt");
        let mut command = Command::new("nsenter");
        command.args(["--target", process, "--net", "--", "curl", "-sSg", "-m", "30", "--fail-with-body"]);
        command.args(["-X", method, "-H", &bearer, "--cacert"]).arg(authority).arg(format!("{server}{path}"));
        if let Some((content, _)) = body {
            command.args(["-H", &format!("Content-Type: {content}"), "--data-binary", "@-"]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let body = body.map(|(_, body)| body.to_string()).unwrap_or_default();
        child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{method} {path} {body}: {text}{talk}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"))
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

/// Where an object is. Its API is said by its version, or known by its kind.
fn path((kind, namespace, name): &Key, version: Option<&str>) -> String {
    let version = version.unwrap_or(match kind.as_str() {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => "policy.networking.k8s.io/v1alpha1",
        _ => "v1",
    });
    let root = if version == "v1" { "/api" } else { "/apis" };
    let lower = kind.to_lowercase();
    let plural = lower.strip_suffix('y').map_or_else(|| format!("{lower}s"), |stem| format!("{stem}ies"));
    let namespace = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    format!("{root}/{version}{namespace}/{plural}/{name}")
}

/// Texts in each member of a list.
fn texts(object: &Value, list: &str, text: &str) -> Vec<String> {
    let members = object.pointer(list).and_then(Value::as_array).into_iter().flatten();
    members.filter_map(|member| member.pointer(text)?.as_str().map(str::to_owned)).collect()
}
