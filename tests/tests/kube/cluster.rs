//! A cluster of `tests/cluster`, for one run of the suite: brought up, asked, and taken down whatever happens.

use crate::services::field::Parts;
use sluice_tests::netns::Netns;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The root of the checkout.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The image of Pods.
pub(crate) const TOOLBOX: &str = "localhost/toolbox:1";
/// The namespace that Sluice is in.
pub(crate) const SYSTEM: &str = "sluice-system";
/// Seconds that a command may take, which are not to be reached.
const PATIENCE: u64 = 240;

/// What a cluster is to be like.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// How many nodes, 1 to 9.
    pub(crate) nodes: usize,
    /// How many of them, the last ones, are in a network of their own, to which the first one is routed.
    pub(crate) far: usize,
    /// `4`, `6` or `dual`.
    pub(crate) family: &'static str,
}

/// A cluster that is up.
pub(crate) struct Cluster {
    name: String,
    shape: Shape,
    /// The names of its nodes.
    pub(crate) nodes: Vec<String>,
    /// What tests of Services share.
    pub(crate) field: OnceLock<Parts>,
}

/// What a command printed, and whether it ended with 0.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) good: bool,
    pub(crate) text: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Self { good: output.status.success(), text: text.trim_end().to_owned() }
    }
}

impl Cluster {
    /// Brings up a cluster, without a network or with the plain one. The error is what went wrong; 77 is "cannot be done on this machine".
    pub(crate) fn up(name: &str, shape: Shape, plain: bool) -> Result<Self, (Option<i32>, String)> {
        let nodes = (1..=shape.nodes).map(|n| format!("node-{n}")).collect();
        let cluster = Self { name: name.to_owned(), shape, nodes, field: OnceLock::new() };
        // What a run before this one may have left when it was killed.
        _ = cluster.script(&["down"]).output();
        let (count, far) = (shape.nodes.to_string(), shape.far.to_string());
        let network: &[&str] = if plain { &["--cni", "bridge", "--proxy"] } else { &[] };
        let words = [&["up", "--family", shape.family, "--nodes", &count, "--far", &far][..], network].concat();
        let output = cluster.script(&words).output().unwrap();
        let code = output.status.code();
        match output.status.success() {
            true => Ok(cluster),
            false => Err((code, Said::from(output).text)),
        }
    }

    /// Of what is given for IPv4 and for IPv6, that of the families that the cluster has.
    pub(crate) fn of_families<T>(&self, v4: T, v6: T) -> Vec<T> {
        match self.shape.family {
            "4" => vec![v4],
            "6" => vec![v6],
            _ => vec![v4, v6],
        }
    }

    fn script(&self, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("--kill-after=5").arg(if words[0] == "up" { "900".to_owned() } else { PATIENCE.to_string() });
        command.arg(format!("{ROOT}/tests/cluster/cluster")).args(words).current_dir(ROOT);
        command.env("SLUICE_CLUSTER", &self.name).stdin(Stdio::null());
        command
    }

    /// What kubectl says, good or bad.
    pub(crate) fn try_kubectl(&self, words: &[&str]) -> Said {
        self.script(&[&["kubectl"][..], words].concat()).output().unwrap().into()
    }

    /// What kubectl says, which ends with 0.
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        let said = self.try_kubectl(words);
        assert!(said.good, "kubectl {}:\n{}", words.join(" "), said.text);
        said.text
    }

    /// Applies objects.
    pub(crate) fn apply(&self, objects: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), objects).unwrap();
        self.kubectl(&["apply", "--filename", &file.path().to_string_lossy()]);
    }

    /// What a command in a node says (or in `control`), good or bad.
    pub(crate) fn try_node(&self, node: &str, words: &[&str]) -> Said {
        self.script(&[&["node", node][..], words].concat()).output().unwrap().into()
    }

    /// What a command in a node says, which ends with 0.
    pub(crate) fn node(&self, node: &str, words: &[&str]) -> String {
        let said = self.try_node(node, words);
        assert!(said.good, "on {node}: {}:\n{}", words.join(" "), said.text);
        said.text
    }

    /// What a verb of `tests/cluster/cluster` says, which ends with 0.
    fn say(&self, words: &[&str]) -> String {
        let said: Said = self.script(words).output().unwrap().into();
        assert!(said.good, "cluster {}: {}", words.join(" "), said.text);
        said.text
    }

    /// Loads an image into every node, and into those that are added later.
    pub(crate) fn load(&self, image: &Path) {
        self.say(&["load", &image.to_string_lossy()]);
        fs::copy(image, self.image()).unwrap();
    }

    fn image(&self) -> PathBuf {
        self.folder().join("image.tar")
    }

    /// Adds a node, which has the image too; its name. `nodes` are those of the beginning all the same.
    pub(crate) fn add(&self) -> String {
        self.say(&["add", &self.image().to_string_lossy()])
    }

    /// Gives a node other addresses, those that end in a number.
    pub(crate) fn move_node(&self, node: &str, number: &str) {
        self.say(&["move", node, number]);
    }

    /// Ends a node for good.
    pub(crate) fn remove_node(&self, node: &str) {
        self.say(&["remove", node]);
    }

    /// What a command in a Pod says, good or bad.
    pub(crate) fn try_exec(&self, pod: &str, words: &[&str]) -> Said {
        self.try_kubectl(&[&["exec", pod, "--"][..], words].concat())
    }

    /// What a command in a Pod says, which ends with 0.
    pub(crate) fn exec(&self, pod: &str, words: &[&str]) -> String {
        let said = self.try_exec(pod, words);
        assert!(said.good, "in Pod {pod}: {}:\n{}", words.join(" "), said.text);
        said.text
    }

    /// The words of a field.
    pub(crate) fn jsonpath(&self, object: &[&str], path: &str) -> Vec<String> {
        let output = format!("jsonpath={path}");
        let text = self.kubectl(&[&["get"][..], object, &["--output", &output]].concat());
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// The node's own addresses outside, one of each family.
    pub(crate) fn outside_addresses(&self, node: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder().join(format!("{node}.addresses"))).unwrap();
        let (v4, v6) = text.trim().split_once(',').unwrap();
        self.of_families(v4.to_owned(), v6.to_owned())
    }

    /// The network of the machine beside the nodes, which is outside of the cluster.
    pub(crate) fn outside(&self) -> Netns {
        self.netns_of_machine("control")
    }

    /// The network of a node, or of `control`.
    pub(crate) fn netns_of_machine(&self, machine: &str) -> Netns {
        let first = fs::read_to_string(self.folder().join(format!("{machine}.first"))).unwrap();
        Netns::of_process(first.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
    }

    /// Where the cluster keeps its files.
    pub(crate) fn folder(&self) -> PathBuf {
        std::env::temp_dir().join(format!("sluice-cluster-{}", self.name))
    }

    /// What `sluice` says on a node, through the API server.
    pub(crate) fn sluice(&self, node: &str, words: &[&str]) -> Said {
        let agent = self.agent(node);
        self.try_kubectl(&[&["-n", SYSTEM, "exec", &agent, "-c", "sluiced", "--", "sluice"][..], words].concat())
    }

    /// Kills a program on a node without a warning.
    pub(crate) fn kill(&self, node: &str, program: &str) {
        // The kernel keeps fifteen characters of a name.
        let name: String = program.chars().take(15).collect();
        self.node(node, &["pkill", "-KILL", "-x", &name]);
    }

    /// Waits until every node has Sluice as it was last applied, one node after the other.
    pub(crate) fn await_update(&self) {
        self.kubectl(&["-n", SYSTEM, "rollout", "status", "daemonset/sluice", "--timeout=200s"]);
    }

    /// Waits until Sluice is Ready on every node.
    pub(crate) fn await_agents(&self) {
        self.kubectl(&["-n", SYSTEM, "rollout", "status", "daemonset/sluice", "--timeout=200s"]);
        self.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=200s"]);
    }

    /// What one needs when something is wrong.
    pub(crate) fn diagnose(&self) -> String {
        let mut text = String::new();
        let mut add = |title: &str, said: Said| text += &format!("---- {title}\n{}\n", said.text);
        for words in [
            &["get", "nodes,pods,services,endpointslices", "--all-namespaces", "--output", "wide"][..],
            &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", "--field-selector=type!=Normal"],
            &["describe", "pods", "-n", SYSTEM],
        ] {
            add(&format!("kubectl {}", words.join(" ")), self.try_kubectl(words));
        }
        for node in &self.nodes {
            let agent = self.agent(node);
            for container in ["install-cni", "sluiced", "node"] {
                let words = ["-n", SYSTEM, "logs", "--tail=60", &agent, "-c", container];
                add(&format!("{node}: log of {container}"), self.try_kubectl(&words));
                if container != "install-cni" {
                    let said = self.try_kubectl(&[&words[..], &["--previous"]].concat());
                    if said.good {
                        add(&format!("{node}: log of {container} before its restart"), said);
                    }
                }
            }
            for words in [
                &["status"][..],
                &["ports"],
                &["gateway"],
                &["cni", "list"],
                &["drops"],
                &["flows", "dump"],
                &["groups"],
            ] {
                add(&format!("{node}: sluice {}", words.join(" ")), self.sluice(node, words));
            }
            for words in [&["ip", "address"][..], &["ip", "route"], &["ip", "-6", "route"], &["nft", "list", "ruleset"]]
            {
                add(&format!("{node}: {}", words.join(" ")), self.try_node(node, words));
            }
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::env::var_os("SLUICE_KUBE_KEEP").is_some() {
            eprintln!("kept: SLUICE_CLUSTER={} {ROOT}/tests/cluster/cluster down", self.name);
            return;
        }
        let down = self.script(&["down"]).output();
        if !down.is_ok_and(|output| output.status.success()) {
            eprintln!("the cluster {} could not be taken down", self.name);
        }
    }
}

/// Asks again until the answer is yes; panics with what is waited for when it is not within `seconds`.
pub(crate) fn within(seconds: u64, what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match done() {
            Ok(()) => return,
            Err(last) => assert!(Instant::now() < end, "waited {seconds} s in vain for {what}; at last: {last}"),
        }
        sleep(Duration::from_millis(200));
    }
}

/// A URL's host part.
pub(crate) fn host(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
