//! The API server without a process of kubectl for each word to it: one proxy, and curl.

use crate::cluster::Cluster;
use serde_json::{Value, json};
use sluice_tests::policy::Key;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// An open way to the API server.
pub(super) struct Api {
    proxy: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Api {
    pub(super) fn start(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api");
        let kubectl = cluster.folder().join("programs/kube");
        let words = ["node", "control", &kubectl.to_string_lossy(), "kubectl", "proxy"].map(str::to_owned);
        let mut command = cluster.command(&words.each_ref().map(String::as_str));
        let proxy = command.arg(format!("--unix-socket={}", socket.display())).stdout(Stdio::null()).spawn().unwrap();
        for _ in 0..100 {
            if socket.exists() {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        Self { proxy, socket, _folder: folder }
    }

    /// Makes an object what this says, whatever it was.
    pub(super) fn apply(&self, object: &Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (object["kind"].as_str().unwrap().to_owned(), text("namespace"), text("name"));
        let url = format!("{}?fieldManager=tests&force=true", path(&key, object["apiVersion"].as_str()));
        self.say("PATCH", &url, "application/apply-patch+yaml", object);
    }

    pub(super) fn delete(&self, key: &Key) {
        self.say("DELETE", &path(key, None), "application/json", &json!({}));
    }

    /// Sets labels, and takes away those that are null.
    pub(super) fn label(&self, key: &Key, labels: &Value) {
        let change = json!({"metadata": {"labels": labels}});
        self.say("PATCH", &path(key, None), "application/merge-patch+json", &change);
    }

    fn say(&self, method: &str, path: &str, content: &str, body: &Value) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--request", method]);
        curl.args(["--header", &format!("Content-Type: {content}"), "--data-binary", "@-", "--unix-socket"]);
        curl.arg(&self.socket).arg(format!("http://localhost{path}"));
        let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(body.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{method} {path} {body}: {}", String::from_utf8_lossy(&text));
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        _ = self.proxy.kill();
        _ = self.proxy.wait();
    }
}

/// Where an object is.
fn path((kind, namespace, name): &Key, version: Option<&str>) -> String {
    let version = version.unwrap_or(match kind.as_str() {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" => "policy.networking.k8s.io/v1alpha1",
        _ => "v1",
    });
    let root = if version == "v1" { "/api".to_owned() } else { "/apis".to_owned() };
    let lower = kind.to_lowercase();
    let plural = lower.strip_suffix('y').map_or_else(|| format!("{lower}s"), |stem| format!("{stem}ies"));
    let namespace = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
    format!("{root}/{version}{namespace}/{plural}/{name}")
}
